"""Memory that a node may use, against what Ray was told."""

from __future__ import annotations

from pathlib import Path

from cluster.doctor.cgroups import read_limits
from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View
from shards.files.sizes import format_size

_MEMINFO = Path("/proc/meminfo")
_FULL = 0.95
"""Share in use above which Ray ends processes (RAY_memory_usage_threshold)."""


def read(_: DoctorOptions) -> Facts:
    """Return bytes: of the machine, in use there, limit of the control group and in use there, None without a limit."""
    rows = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    total, free = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limits = read_limits()
    return {"machine": total, "used": total - free, "limit": limits.memory, "group_used": limits.used}


def judge(view: View) -> Verdict:
    """Find nodes that were told more memory than they have, or that have almost none left."""
    verdict = Verdict()
    for node, facts in view.each():
        grouped = facts["limit"] is not None and facts["limit"] < facts["machine"]
        there = facts["limit"] if grouped else facts["machine"]
        used = (facts["group_used"] or 0) if grouped else facts["used"]
        whose = "its control group allows" if grouped else "the machine has"
        verdict.cells[node.name] = f"{format_size(there - used)} free"
        told = int(node.resources.get("memory", 0) + node.resources.get("object_store_memory", 0))
        if told > there:
            verdict.red(
                node.name,
                f"Ray was told {format_size(told)} and {whose} {format_size(there)}: the kernel ends processes there "
                "before Ray does",
                f"restart Ray there with `ray start --memory {int(0.6 * there)} --object-store-memory "
                f"{int(0.3 * there)}`, or raise the container's limit",
            )
        if used > _FULL * there:
            verdict.red(
                node.name,
                f"{format_size(used)} of {format_size(there)} are in use, and Ray ends tasks above {_FULL:.0%}",
                "end what uses it (`ps aux --sort=-rss | head` there), or use a larger node",
            )
    return verdict
