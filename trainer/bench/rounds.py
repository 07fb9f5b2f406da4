"""Rounds: back ends alternate batch by batch, so that a busy moment of the machine affects all of them."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from trainer.bench.contenders import Contender
from trainer.contract.bundle import Bundle

logger = logging.getLogger(__name__)

LEAST_ROUNDS = 5
_WARM_UP = 2  # uncounted calls with a new batch size, for compilers and memory pools


class Clock(BaseModel):
    """Time per batch over all rounds."""

    model_config = ConfigDict(frozen=True)

    p50_ms: float
    p95_ms: float
    p50_ms_per_picture: float
    images_per_s: float
    """Number of pictures divided by the total time."""


class Row(BaseModel):
    """One back end at one batch size."""

    model_config = ConfigDict(frozen=True)

    backend: str
    batch_size: int
    rounds: int
    model: Clock
    """Forward pass alone, from a batch in memory to logits in memory."""
    whole: Clock
    """Decode, geometry, batch assembly and forward pass, from encoded bytes to logits."""
    cpu_ms_per_picture: float
    """Median CPU time of the forward pass over all threads, which other load on the machine affects least."""
    prepare_ms: float
    """Part of `whole`: decode and geometry of the batch, median."""
    assemble_ms: float
    """Part of `whole`: stacking the pictures to one tensor, median."""


@dataclass
class _Times:
    """Seconds, one number per round."""

    model: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    prepare: list[float] = field(default_factory=list)
    assemble: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


def measure(
    contenders: Sequence[Contender],
    bundle: Bundle,
    pictures: Sequence[bytes],
    batch_size: int,
    seconds: float,
    threads: int,
) -> list[Row]:
    """Return a row for each back end at one batch size.

    Args:
        contenders: Back ends that have started.
        bundle: For decode and geometry.
        pictures: Encoded pictures that can be decoded; used in turn.
        batch_size: Pictures per batch.
        seconds: Measuring time for each back end; at least `LEAST_ROUNDS` rounds are run.
        threads: Threads for decoding.
    """
    turn = itertools.cycle(pictures)
    times = [_Times() for _ in contenders]
    with ThreadPoolExecutor(threads, "decode") as pool:
        batch = [next(turn) for _ in range(batch_size)]
        images = torch.stack([bundle.prepare(data) for data in batch])
        for contender in contenders:
            logger.info("batch %d: warming up %s", batch_size, contender.backend.name)
            for _ in range(_WARM_UP):
                contender.backend.compute(images)
        logger.info("batch %d: %d back ends in turn", batch_size, len(contenders))
        until = time.perf_counter() + seconds * len(contenders)
        while len(times[0].model) < LEAST_ROUNDS or time.perf_counter() < until:
            for contender, taken in zip(contenders, times, strict=True):
                start, cpu = time.perf_counter(), time.process_time()
                contender.backend.compute(images)
                taken.model.append(time.perf_counter() - start)
                taken.cpu.append(time.process_time() - cpu)
                _run_whole(contender, bundle, batch, pool, taken)
            batch = [next(turn) for _ in range(batch_size)]
    return [_summarise(each, batch_size, taken) for each, taken in zip(contenders, times, strict=True)]


def _run_whole(
    contender: Contender, bundle: Bundle, batch: list[bytes], pool: ThreadPoolExecutor, taken: _Times
) -> None:
    start = time.perf_counter()
    images = list(pool.map(bundle.prepare, batch))
    prepared = time.perf_counter()
    together = torch.stack(images)
    assembled = time.perf_counter()
    contender.backend.compute(together)
    taken.whole.append(time.perf_counter() - start)
    taken.prepare.append(prepared - start)
    taken.assemble.append(assembled - prepared)


def _summarise(contender: Contender, batch_size: int, taken: _Times) -> Row:
    return Row(
        backend=contender.backend.name,
        batch_size=batch_size,
        rounds=len(taken.model),
        model=_clock(taken.model, batch_size),
        whole=_clock(taken.whole, batch_size),
        cpu_ms_per_picture=1000 * float(np.median(taken.cpu)) / batch_size,
        prepare_ms=1000 * float(np.median(taken.prepare)),
        assemble_ms=1000 * float(np.median(taken.assemble)),
    )


def _clock(seconds: list[float], batch_size: int) -> Clock:
    p50, p95 = (1000 * float(value) for value in np.percentile(seconds, [50, 95]))
    return Clock(
        p50_ms=p50,
        p95_ms=p95,
        p50_ms_per_picture=p50 / batch_size,
        images_per_s=batch_size * len(seconds) / sum(seconds),
    )
