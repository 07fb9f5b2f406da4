"""The cost of feeding: pictures, bytes and seconds by stage, and a sentence about what the step waits for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal

Stage = Literal["fetch", "read", "decode", "augment", "device"]

WELL_FED = "well fed"
_WAITS_LITTLE = 0.05
_WORK: tuple[Stage, ...] = ("decode", "augment", "device")
"""Stages that compute."""
_MUCH_LARGER, _ROOM = 3, 2
"""If stored pictures are this many times the input, packing them smaller helps; this side leaves room for crops."""


@dataclass
class Readings:
    """Sums over all workers of one feed.

    seconds: By stage, over all workers. fetch: waiting for files of a remote dataset; read: reading bytes from shards;
    device: decoding on the batch's device, by a single thread.
    """

    images: int = 0
    bytes_read: int = 0
    sides: int = 0
    """Longer sides of the stored pictures, pixels."""
    seconds: dict[Stage, float] = field(
        default_factory=lambda: {"fetch": 0.0, "read": 0.0, "decode": 0.0, "augment": 0.0, "device": 0.0}
    )
    cache_hits: int = 0
    cache_misses: int = 0
    bytes_downloaded: int = 0

    def since(self, before: Readings) -> Readings:
        """Return the difference from `before`."""
        return Readings(
            self.images - before.images,
            self.bytes_read - before.bytes_read,
            self.sides - before.sides,
            {stage: seconds - before.seconds[stage] for stage, seconds in self.seconds.items()},
            self.cache_hits - before.cache_hits,
            self.cache_misses - before.cache_misses,
            self.bytes_downloaded - before.bytes_downloaded,
        )


class Meter:
    """Counts for all workers of a feed; safe to share between threads."""

    def __init__(self) -> None:
        self._readings = Readings()
        self._lock = threading.Lock()

    def count(self, images: int, bytes_read: int) -> None:
        with self._lock:
            self._readings.images += images
            self._readings.bytes_read += bytes_read

    def count_side(self, side: int) -> None:
        with self._lock:
            self._readings.sides += side

    def timing(self, stage: Stage) -> Timing:
        """Add the time of a block to a stage."""
        return Timing(self, stage)

    def add(self, stage: Stage, seconds: float) -> None:
        with self._lock:
            self._readings.seconds[stage] += seconds

    def read(self) -> Readings:
        """Return a copy of the sums so far."""
        with self._lock:
            return replace(self._readings, seconds=dict(self._readings.seconds))


class Timing:
    """Add the time of a `with` block to a stage; a generator would be too slow for several blocks per picture."""

    __slots__ = ("_meter", "_stage", "_started")

    def __init__(self, meter: Meter, stage: Stage) -> None:
        self._meter = meter
        self._stage: Stage = stage

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meter.add(self._stage, time.perf_counter() - self._started)


def judge(
    readings: Readings, wait_frac: float, workers: int, cpus: int, image_size: int, works_ahead: bool = True
) -> str:
    """Return a sentence that says whether the step waits for data, for which stage, and what would help.

    If batches are made between the steps, the share is work on the same CPUs, not lost time.

    Args:
        readings: Readings of the period.
        wait_frac: Share of the period that the step waited.
        workers: Number of decoding threads, 0 if the step decodes itself.
        cpus: Number of CPUs of the rank.
        image_size: Side of the model's input, pixels.
        works_ahead: Whether threads make batches during the steps, as on a GPU; otherwise between them, as on CPUs.
    """
    share = f"waits {wait_frac:.0%} for data"
    if wait_frac < _WAITS_LITTLE:
        return f"{share}: {WELL_FED}"
    bound = max(readings.seconds, key=lambda stage: readings.seconds[stage] * (workers if stage == "device" else 1))
    advice = _advise(bound, readings, workers < cpus, image_size)
    if not works_ahead and bound in _WORK:
        return (
            f"spends {wait_frac:.0%} of its time making batches between the steps on the same CPUs, mostly for "
            f"{_NAMES[bound]}; to shorten it {advice}"
        )
    return f"{share}: {_NAMES[bound]} bound; {advice}"


_NAMES: dict[Stage, str] = {
    "fetch": "download", "read": "disk", "decode": "decode", "augment": "augmentation", "device": "device decode",
}  # fmt: skip


def _advise(bound: Stage, readings: Readings, idle: bool, image_size: int) -> str:
    if bound == "fetch":
        return "raise storage.cache_bytes so that more is prefetched, or move the dataset closer"
    if bound == "read":
        return "copy the dataset to a faster disk"
    if bound == "device":
        return "use stream.decode=faithful, which decodes on the CPUs"
    advice = ["add workers" if idle else "give the rank more CPUs"]
    if bound == "decode" and readings.sides > _MUCH_LARGER * image_size * readings.images:
        advice.append(f"pack with --max-side {_ROOM * image_size}")
    if bound == "augment":
        advice.append("use a lighter augment.policy")
    return " or ".join(advice)
