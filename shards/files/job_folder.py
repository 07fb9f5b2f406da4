"""The folder in which Ray unpacks the code of a job: results in it are lost, so none may be written there."""

from __future__ import annotations

from pathlib import Path

from shards.errors import UsageError

_PARTS = {"runtime_resources", "working_dir_files"}


def refuse_job_folder(path: Path) -> Path:
    """Return a path for results if it is not in the folder of a Ray job.

    Relative paths, and defaults such as `runs`, are below it when a command runs as a job.

    Raises:
        UsageError: It is.

    >>> str(refuse_job_folder(Path("/data/runs")))
    '/data/runs'
    """
    if set(path.absolute().parts) >= _PARTS:
        raise UsageError(
            f"{path} is in the folder of a Ray job, which Ray deletes with all that is written there; give a path from "
            "the root that every node sees, or s3://BUCKET/... (for a run or a sweep: storage.root=PATH)"
        )
    return path
