"""One feed in a process of its own: how fast it hands out batches, and what that costs.

Imports nothing of ours, so that it also runs in the environment of a peer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

from measure import measure

SIZE, BATCH, WORKERS = 224, 64, 2
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Epoch = Callable[[], Iterator[Sized]]
"""Each call is one epoch: its batches of pictures, in a new order. What can outlive an epoch (workers, caches) does."""


@dataclass(frozen=True)
class Feed:
    """One contender.

    open: Called with the folder that `prepare` wrote, or the folder of class folders of JPEGs where nothing is to be
    prepared; libraries are imported, the dataset and its workers are opened in it.
    prepare: Key of the preparation that writes the peer's own format; None reads the JPEGs as they are.
    """

    open: Callable[[Path], Epoch]
    prepare: str | None = None


Prepare = Callable[[Path, Path], None]
"""Called as prepare(folder of class folders of JPEGs, folder to be written)."""


def run(feeds: Mapping[str, Feed], preparations: Mapping[str, Prepare]) -> None:
    """Do what the command line asks: `prepare KEY SRC OUT`, or `feed NAME FOLDER`.

    `feed` prints as JSON: first_s from asking the opened feed for its first batch until it is there, then of the
    second epoch wall_s, cpu_s and the number of pictures. The first epoch is the warm-up.
    """
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare")
    prepare.add_argument("name", choices=preparations)
    prepare.add_argument("src", type=Path)
    prepare.add_argument("out", type=Path)
    feed = commands.add_parser("feed")
    feed.add_argument("name", choices=feeds)
    feed.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        preparations[arguments.name](arguments.src, arguments.out)
        return
    print(json.dumps(time_feed(feeds[arguments.name].open(arguments.folder))))
    sys.stdout.flush()
    os._exit(0)  # what peers do as they end (Ray, pools) is not asked for, and takes up to 10 s


def time_feed(epoch: Epoch) -> dict[str, float]:
    """Return first_s, wall_s, cpu_s and pictures; see `run`."""
    began = time.perf_counter()
    batches = epoch()
    next(batches)
    first = time.perf_counter() - began
    for _ in batches:
        pass
    counted = 0

    def go() -> None:
        nonlocal counted
        counted = sum(_count(batch) for batch in epoch())

    result = measure(go)
    return result | {"first_s": first, "pictures": counted}


def _count(batch: Sized) -> int:
    """Return the pictures of a batch; decoding alone has none to show."""
    shape = tuple(getattr(batch, "shape", ()))
    if shape and sorted(shape[1:]) != [3, SIZE, SIZE]:
        raise ValueError(f"a batch has shape {shape}, wanted are RGB pictures of {SIZE}x{SIZE}")
    return len(batch)


def read_tree_bytes(pid: int) -> int:
    """Return the proportional memory of a process and of all below it, bytes; pages that they share count once."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        listings = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # has just ended
        return total
    return total + sum(read_tree_bytes(int(child)) for listing in listings for child in listing.split())
