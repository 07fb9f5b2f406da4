"""Shared memory of a node, against Ray's object store, which lies there."""

from __future__ import annotations

import os

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View
from shards.files.sizes import format_size

_SHM = "/dev/shm"


def read(_: DoctorOptions) -> Facts:
    """Return the size of /dev/shm in bytes, 0 if there is none."""
    try:
        disk = os.statvfs(_SHM)
    except OSError:
        return {"size": 0}
    return {"size": disk.f_blocks * disk.f_frsize}


def judge(view: View) -> Verdict:
    """Find nodes whose object store does not fit, which Ray then keeps on a disk."""
    verdict = Verdict()
    for node, facts in view.each():
        size, store = facts["size"], int(node.resources.get("object_store_memory", 0))
        verdict.cells[node.name] = format_size(size)
        if store > size:
            verdict.red(
                node.name,
                f"/dev/shm has {format_size(size)} and Ray's object store {format_size(store)}: it lies on a disk, and "
                "is slow",
                f"give the container more (`docker run --shm-size={_round_up(store)}g`, in Kubernetes an emptyDir with "
                f"medium: Memory), or restart Ray there with `ray start --object-store-memory {int(0.9 * size)}`",
            )
    return verdict


def _round_up(size: int) -> int:
    """Return whole GiB that hold `size` bytes with a tenth to spare.

    >>> _round_up(10 << 30)
    11
    """
    return -(-(size * 11 // 10) // (1 << 30))
