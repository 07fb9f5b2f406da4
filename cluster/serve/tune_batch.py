"""`cluster.serve --tune-batch MS`: find the batches that answer most pictures per second within a time, by trying."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cluster.serve.answer import Wishes
from cluster.serve.batching import Load, Tuned, record_tuned
from cluster.serve.options import ServeOptions
from cluster.serve.predictor import Predictor
from cluster.serve.problem import ProblemError
from cluster.serve.rollout import Rollout
from shards.errors import ShardError, UsageError
from trainer.contract.bundle import read_bundle_probes
from trainer.contract.compute.choice import read_cpu

_SECONDS: Final = 2.0
_LEAST_ROUNDS: Final = 4
"""Each client asks at least so often."""
_WAITS_MS: Final = (0.0, 5.0, 20.0)
_LONGEST_MS: Final = max(_WAITS_MS)
_NEARLY: Final = 0.97
"""A smaller batch is preferred to one that is faster by less than this."""


def tune_batch(options: ServeOptions, folder: Path, weights_sha256: str, target_ms: float) -> tuple[Tuned, Path]:
    """Return what was measured for a bundle, and the file of the bundle that has it now.

    The pictures are the bundle's probes, encoded as they were. Of each batch size, twice as many pictures are kept on
    the way as fit into a batch, so that one waits while another is computed. The best size answers most pictures per
    second with 99 % of them within the time. Its wait is then the one with the least time at half that load.

    Args:
        target_ms: Most milliseconds from a picture's bytes to its answer, for 99 % of the pictures.

    Raises:
        UsageError: No size is quick enough; nothing was stored.
        ShardError: A probe was refused, or the bundle cannot be loaded.
    """
    measured, best, why = asyncio.run(_measure_all(options, folder, target_ms))
    tuned = Tuned(
        cpu=read_cpu(),
        threads=options.cpus_per_replica,
        backend=why,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        target_ms=target_ms,
        best=best,
        measured=measured,
    )
    return tuned, record_tuned(folder, weights_sha256, tuned)


async def _measure_all(options: ServeOptions, folder: Path, target_ms: float) -> tuple[list[Load], Load, str]:
    predictor = Predictor(options.model_copy(update={"bundle": str(folder)}))
    await predictor.follow(Rollout(bundle=str(folder)))
    encoded, _, _ = read_bundle_probes(folder)
    sizes = itertools.takewhile(lambda size: 2 * size <= options.max_waiting, (2**power for power in range(12)))
    measured = [await _measure(predictor, encoded, size, _LONGEST_MS, 2 * size) for size in sizes]
    best = choose_size(measured, target_ms)
    lighter = [await _measure(predictor, encoded, best.max_batch_size, wait, best.max_batch_size) for wait in _WAITS_MS]
    wait = min(lighter, key=lambda each: each.p99_ms).batch_wait_ms
    return [*measured, *lighter], best.model_copy(update={"batch_wait_ms": wait}), predictor.describe_model()["backend"]


def choose_size(measured: list[Load], target_ms: float) -> Load:
    """Return the load with most pictures per second of those within the time.

    Raises:
        UsageError: There is none.
    """
    quick = [each for each in measured if each.p99_ms <= target_ms]
    if not quick:
        least = min(measured, key=lambda each: each.p99_ms)
        raise UsageError(
            f"no batch size answers 99 % of the pictures within {target_ms:g} ms here: the quickest, "
            f"{least.max_batch_size}, takes {least.p99_ms:.0f} ms; allow more, give a replica more threads with "
            "--cpus-per-replica, or look for a quicker back end with `python -m trainer.bench BUNDLE --choose`"
        )
    most = max(each.pictures_per_s for each in quick)
    return min((each for each in quick if each.pictures_per_s >= _NEARLY * most), key=lambda each: each.max_batch_size)


async def _measure(predictor: Predictor, encoded: list[bytes], size: int, wait_ms: float, at_once: int) -> Load:
    """Keep `at_once` pictures on the way for some seconds; the first round is not counted."""
    predictor.limit_batches(size, wait_ms)
    pictures, until, ms = itertools.cycle(encoded), 0.0, list[float]()

    async def ask(rounds: int, counted: bool) -> None:
        while rounds > 0 or time.perf_counter() < until:
            began = time.perf_counter()
            (answer,) = await predictor.predict_all([next(pictures)], Wishes())
            if isinstance(answer, ProblemError):
                raise ShardError(f"a probe of the bundle was refused ({answer.detail}); restore the bundle")
            rounds -= 1
            if counted:
                ms.append(1e3 * (time.perf_counter() - began))

    await asyncio.gather(*(ask(1, counted=False) for _ in range(at_once)))
    began = time.perf_counter()
    until = began + _SECONDS
    await asyncio.gather(*(ask(_LEAST_ROUNDS, counted=True) for _ in range(at_once)))
    seconds = time.perf_counter() - began
    return Load(
        max_batch_size=size,
        batch_wait_ms=wait_ms,
        at_once=at_once,
        pictures_per_s=len(ms) / seconds,
        p50_ms=statistics.median(ms),
        p99_ms=statistics.quantiles(ms, n=100)[-1],
    )


def describe_tuned(tuned: Tuned, path: Path) -> str:
    """Return a table of what was measured, and what was stored."""
    lines = ["batch  wait ms  at once  pictures/s  p50 ms  p99 ms"]
    lines += [
        f"{each.max_batch_size:5}  {each.batch_wait_ms:7g}  {each.at_once:7}  {each.pictures_per_s:10.1f}"
        f"  {each.p50_ms:6.0f}  {each.p99_ms:6.0f}"
        for each in tuned.measured
    ]
    best = tuned.best
    lines += [
        f"best: batches of {best.max_batch_size} that wait {best.batch_wait_ms:g} ms, within {tuned.target_ms:g} ms on "
        f"{tuned.cpu} with {tuned.threads} thread{'s' * (tuned.threads > 1)}; recorded in {path}"
    ]
    return "\n".join(lines)
