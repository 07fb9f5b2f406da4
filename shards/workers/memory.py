"""The memory that is still free on this machine."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def read_free_memory() -> int:
    """Return the bytes of memory still available: those of Linux, or fewer if a container limits them."""
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _read_number(_CGROUP / "memory.max")
    if limit is None:
        return free
    return min(free, max(0, limit - (_read_number(_CGROUP / "memory.current") or 0)))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such control group, or "max"
        return None
