"""Wall clock and CPU of one call, and the command line of a contender that makes it in a process of its own.

Imports nothing of ours, so that it also runs in the environment of a peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Writer = Callable[[Path, Path], None]
"""Called as writer(folder of class folders of JPEGs, folder to be written)."""


def measure(call: Callable[[], None]) -> dict[str, float]:
    """Return wall_s and cpu_s of a call: user and system time of this process and of all below it.

    Children count when they have ended; those that live on (a warm pool) are looked up in /proc, to 10 ms.
    """
    before, wall = _read_cpu(), time.perf_counter()
    call()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _read_cpu() - before}


def _read_cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used) + _living(os.getpid()) / os.sysconf("SC_CLK_TCK")


def _living(pid: int) -> int:
    """Return the clock ticks of the living processes below `pid`, and of those that they have waited for."""
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # has just ended
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in listing.read_text().split():
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15])) + _living(int(child))
    return total


def run_writer(writers: Mapping[str, Writer]) -> None:
    """Run the writer that the command line names, first on a few pictures for what it imports late, then measured.

    Prints wall_s, cpu_s and bytes as JSON.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=writers)
    parser.add_argument("src", type=Path)
    parser.add_argument("warmup", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    writer, out = writers[arguments.name], arguments.out
    writer(arguments.warmup, out)
    shutil.rmtree(out, ignore_errors=True)
    result = measure(lambda: writer(arguments.src, out))
    result["bytes"] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(json.dumps(result))


def list_pictures(src: Path) -> list[tuple[str, int]]:
    """Return path and label of every JPEG in class folders, as a careful user of a plain writer would list them."""
    folders = sorted(os.scandir(src), key=lambda entry: entry.name)
    return [
        (entry.path, label)
        for label, folder in enumerate(folders)
        for entry in sorted(os.scandir(folder.path), key=lambda entry: entry.name)
    ]
