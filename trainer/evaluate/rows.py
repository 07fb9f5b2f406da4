"""Evaluation that counts every sample once, on any number of ranks, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from shards.dataset.dataset import Split
from shards.dataset.read import Sample
from shards.order.plan import Refs, sequential_refs
from trainer.contract.model.model import Classifier
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.task import Task, make_task
from trainer.feed.feed import Batch, Feed, Load, count_ahead
from trainer.feed.meter import Meter
from trainer.ranks.ranks import Ranks

# Chunks, not ranks, decide what is computed together: a batch of another size may round differently.
CHUNK = 32


@dataclass(frozen=True)
class Rows:
    """A row a sample in the order of sample ids: ids int64[N], labels as of the task, logits float32[N, K], files."""

    task: Task
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    sources: list[str]

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """float64[N, K]."""
        return self.task.compute_probabilities(self.logits)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Labels as the model gives them without thresholds."""
        return self.task.predict(self.logits, self.probabilities, {})


def evaluate_split(
    model: Classifier,
    spec: PreprocessSpec,
    split: Split,
    ranks: Ranks,
    workers: int,
    advance: Callable[[int], None] = lambda _done: None,
) -> Rows:
    """Return the rows of all samples of a split, gathered on every rank; the model is left in evaluation mode.

    advance: Called on every rank with how many pictures about all ranks have done.
    """
    feed = Feed(split, workers, held=_count_at_once(ranks) + 1, ahead=count_ahead(ranks.device))
    batches = feed.iterate(_chunks(split, ranks), _make_load(spec), spec.shape)
    try:
        rows = evaluate_batches(
            model, batches, make_task(split.task), ranks, lambda done: advance(min(split.num_samples, done))
        )
    finally:
        feed.close()
    assert rows is not None
    assert len(rows.ids) == split.num_samples  # chunks are dealt to ranks without remainder
    return rows


def evaluate_batches(
    model: Classifier,
    batches: Iterable[Batch],
    task: Task,
    ranks: Ranks,
    advance: Callable[[int], None] = lambda _done: None,
) -> Rows | None:
    """Return the rows of the batches of all ranks, gathered on every rank; None where there are none.

    batches: Of one rank. Each begins in a chunk of its own; the chunks are dealt to the ranks in turn. advance: as
    `evaluate_split`, but for what the last chunk lacks.
    """
    model.eval()
    parts: list[Rows] = []
    for part in _compute_chunks(model, batches, task, ranks.device, _count_at_once(ranks)):
        parts.append(part)
        advance(len(parts) * CHUNK * ranks.num_ranks)
    gathered = [row for part in ranks.gather(parts) for row in part]
    return _concat(gathered) if gathered else None


def _count_at_once(ranks: Ranks) -> int:
    """Return how many batches a rank computes at once, see `_compute_chunks`."""
    return torch.get_num_threads() if ranks.device.type == "cpu" else 1


def _make_load(spec: PreprocessSpec) -> Load:
    def load(sample: Sample, _copy: int, meter: Meter) -> torch.Tensor:
        with meter.timing("decode"):
            return prepare(sample.data, spec)

    return load


def _compute_chunks(
    model: Classifier, batches: Iterable[Batch], task: Task, device: torch.device, threads: int
) -> Iterator[Rows]:
    """Yield the rows of each batch, in order; on a CPU as many batches at once as threads, each in one of them.

    Those batches are read first: loader threads and these together are then never more than the CPUs.

    Threads that share the work of one batch would round differently for every number of them, and a rank's number of
    threads depends on the number of ranks.
    """
    left = iter(batches)
    with ThreadPoolExecutor(threads, "evaluate", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while group := list(islice(left, threads)):
            yield from pool.map(lambda batch: _compute_rows(model, batch, task, device), group)


@torch.inference_mode()
def _compute_rows(model: Classifier, batch: Batch, task: Task, device: torch.device) -> Rows:
    logits = model(batch.images.to(device)).float().cpu().numpy()
    return Rows(task, batch.ids, batch.labels.long().numpy(), logits, batch.sources)


def _chunks(split: Split, ranks: Ranks) -> Iterator[Refs]:
    for start in range(ranks.rank * CHUNK, split.num_samples, ranks.num_ranks * CHUNK):
        yield sequential_refs(split.counts, start, min(start + CHUNK, split.num_samples))


def _concat(parts: list[Rows]) -> Rows:
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    sources = [source for part in parts for source in part.sources]
    return Rows(
        parts[0].task,
        ids[order],
        np.concatenate([part.labels for part in parts])[order],
        np.concatenate([part.logits for part in parts])[order],
        [sources[position] for position in order.tolist()],
    )
