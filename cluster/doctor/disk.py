"""The disk of Ray's temporary folder, where objects are spilled and logs are written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View
from shards.files.sizes import format_size

FULL = 0.95
"""Share in use above which Ray refuses to create objects (RAY_local_fs_capacity_threshold)."""
LEAST = 1 << 30
"""Bytes that must be free: a snapshot, logs and spilled objects."""


def read(_: DoctorOptions) -> Facts:
    """Return Ray's temporary folder, that of this machine without Ray, and its disk's bytes: size and free."""
    folder = _find_folder()
    disk = os.statvfs(folder)
    return {"folder": str(folder), "size": disk.f_blocks * disk.f_frsize, "free": disk.f_bavail * disk.f_frsize}


def _find_folder() -> Path:
    import sys

    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return Path(ray.get_runtime_context().get_temp_dir())
    return Path(tempfile.gettempdir())


def judge(view: View) -> Verdict:
    """Find disks that are full for Ray."""
    verdict = Verdict()
    for node, facts in view.each():
        size, free, folder = facts["size"], facts["free"], facts["folder"]
        verdict.cells[node.name] = f"{format_size(free)} free"
        used = 1 - free / size if size else 1.0
        if used > FULL or free < LEAST:
            verdict.red(
                node.name,
                f"the disk of {folder} has {format_size(free)} of {format_size(size)} free ({used:.1%} used): Ray "
                f"refuses to spill objects above {FULL:.0%}",
                f"free some room there (old sessions: {folder}/session_*), or restart Ray with a --temp-dir on another "
                "disk",
            )
    return verdict
