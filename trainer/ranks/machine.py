"""Free resources of this machine: disk, devices."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from shards.errors import UsageError
from shards.files.sizes import format_size


def read_free_disk(folder: Path) -> int:
    """Return the free bytes for a folder, which need not exist yet, after checking that it is writable.

    Raises:
        OSError: No file can be created there.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):  # not by permissions: the file system may be read-only
            pass
    except OSError as err:
        raise OSError(err.errno, err.strerror, str(there)) from err
    return shutil.disk_usage(there).free


def refuse_too_many_ranks(num_ranks: int, num_gpus: int) -> None:
    """Raise if ranks would share a GPU, which NCCL does not allow.

    Raises:
        UsageError: There are GPUs, but fewer than ranks.
    """
    if 0 < num_gpus < num_ranks:
        raise UsageError(
            f"num_ranks={num_ranks} needs as many GPUs, this machine has {num_gpus}; set num_ranks={num_gpus}, or hide "
            "the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPUs"
        )


def refuse_full_disk(needed: int, free: int, folder: str, option: str = "storage.root") -> None:
    """Raise if the files of a run would not fit; sizes in bytes.

    Raises:
        UsageError: They would not fit.
    """
    if needed > free:
        raise UsageError(
            f"snapshots and bundle of the run need about {format_size(needed)} more, the disk of {folder} has "
            f"{format_size(free)} free, so no step was taken; free some room there, or set {option} to a folder on "
            "another disk"
        )
