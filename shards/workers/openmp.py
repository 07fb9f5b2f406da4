"""How OpenMP threads wait, and the number of CPUs. Must be imported before torch: `shards/__init__` does."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

SPINS = 10_000
"""Checks of a barrier before a waiting thread sleeps; libgomp's default is 300,000. Measured by tests/bench/threads.py.
"""

_SET_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

logger = logging.getLogger(__name__)
_came_late = False


def limit_spinning() -> None:
    """Make threads that wait at a barrier sleep soon, in this process and its children; settings of the user stay.

    A spinning thread takes CPU time from other processes and from our own loader threads: beside three busy processes,
    a training step of a small model costs five times the CPU.

    OpenMP reads its settings once, when torch is loaded. If that has already happened, a warning names the setting.
    """
    global _came_late
    if any(name in os.environ for name in _SET_BY_USER):
        return
    _came_late = "torch" in sys.modules
    if _came_late and os.environ.get("OMP_NUM_THREADS") != "1":
        logger.warning(
            "torch was imported before shardline, so its threads wait by spinning, and training beside other "
            "processes is several times slower; import shardline's packages first, or set GOMP_SPINCOUNT=%d before "
            "Python starts",
            SPINS,
        )
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def describe_waiting() -> str:
    """Return in words how OpenMP threads wait in this process."""
    if _came_late:
        return "waiting by OpenMP's defaults"
    return ", ".join(f"{name}={os.environ[name]}" for name in _SET_BY_USER if name in os.environ)


def count_cpus(cpu_max: Path = _CPU_MAX) -> int:
    """Return the number of CPUs that this process may use, by affinity and cgroup quota (rounded down)."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no such cgroup, or no quota ("max")
        return allowed
