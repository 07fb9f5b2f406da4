"""What the control groups of a process, version 1 or 2, allow it; containers are limited by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60
"""Version 1 has a number near 2^63 where there is no limit."""


@dataclass(frozen=True)
class Limits:
    """cpus: CPUs' worth of time, memory: bytes; None means no limit. used: bytes that the group with it uses."""

    cpus: float | None = None
    memory: int | None = None
    used: int | None = None


def read_limits(root: Path = _ROOT, own: Path = _OWN) -> Limits:
    """Return the strictest limits of the process's groups and of those above them.

    Args:
        root: Where control groups are mounted.
        own: The process's file /proc/PID/cgroup.
    """
    folders = list(_list_folders(root, own.read_text(encoding="ascii").splitlines()))
    cpus = [quota for folder in folders if (quota := _read_quota(folder)) is not None]
    memory = [(limit, folder) for folder in folders if (limit := _read_memory(folder)) is not None]
    if not memory:
        return Limits(min(cpus, default=None))
    limit, folder = min(memory)
    return Limits(min(cpus, default=None), limit, _read_used(folder))


def _list_folders(root: Path, lines: list[str]) -> Iterator[Path]:
    """Yield the folders of all groups, each with those above it; a container may see only the topmost."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        tops = [root / controllers, *(root / name for name in controllers.split(","))] if controllers else []
        for top in {each for each in [*tops, root, root / "unified"] if each.is_dir()}:
            inner = top / path.lstrip("/")
            yield from (each for each in [inner, *inner.parents] if each.is_relative_to(top) and each.is_dir())


def _read_quota(folder: Path) -> float | None:
    two = _read(folder / "cpu.max").split()
    if len(two) == 2 and two[0] != "max":
        return int(two[0]) / int(two[1])
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read_memory(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _read(folder / name)
        if text.isdecimal() and int(text) < _UNLIMITED:
            return int(text)
    return None


def _read_used(folder: Path) -> int | None:
    """Return the bytes that a group uses, without the file pages that the kernel would give up first."""
    used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
    rows = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines())
    idle = int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
    return max(0, int(used) - idle) if used.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
