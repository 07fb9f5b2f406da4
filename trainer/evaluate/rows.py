"""Evaluate every sample exactly once, with the same numbers for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from shards.dataset.read import Sample
from shards.dataset.split import Split
from shards.order.plan import Refs, sequential_refs
from trainer.contract.model.model import Classifier
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.task import Task, make_task
from trainer.feed.feed import Batch, Feed, Load, count_ahead
from trainer.feed.meter import Meter
from trainer.ranks.ranks import Ranks

# Batches are formed by chunks, not ranks, because another batch size may round differently.
CHUNK = 32


@dataclass(frozen=True)
class Rows:
    """One row per sample, by sample id: ids int64[N], labels in the task's form, logits float32[N, K], files."""

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
        """Predicted labels without thresholds."""
        return self.task.predict(self.logits, self.probabilities, {})

    def name_answers(self, classes: list[str]) -> tuple[list[str], list[str]]:
        """Return the true and the predicted labels of each row as text; several are joined, none give ""."""
        return self.task.name_labels(self.labels, classes), self.task.name_labels(self.predicted, classes)


def evaluate_split(
    model: Classifier,
    spec: PreprocessSpec,
    split: Split,
    ranks: Ranks,
    workers: int,
    advance: Callable[[int], None] = lambda _done: None,
) -> Rows:
    """Return the rows of all samples of a split, gathered on every rank; the model is left in evaluation mode.

    advance: Called on every rank with the approximate number of pictures done by all ranks.
    """
    feed = Feed(split, workers, held=_count_at_once(ranks) + 1, ahead=count_ahead(ranks.device))
    batches = feed.iterate(list_chunks(split, ranks), _make_load(spec), spec.shape)
    try:
        rows = evaluate_batches(
            model, batches, make_task(split.task), ranks, lambda done: advance(min(split.num_samples, done))
        )
    finally:
        feed.close()
    assert rows is not None
    assert len(rows.ids) == split.num_samples  # chunks are distributed to ranks without remainder
    return rows


def evaluate_batches(
    model: Classifier,
    batches: Iterable[Batch],
    task: Task,
    ranks: Ranks,
    advance: Callable[[int], None] = lambda _done: None,
) -> Rows | None:
    """Return the rows of the batches of all ranks, gathered on every rank; None if there are none.

    batches: Batches of one rank. Each starts a new chunk; chunks are assigned to ranks in turn. advance: see
    `evaluate_split`; counts the last chunk as full.
    """
    model.eval()
    parts: list[Rows] = []
    for part in _compute_chunks(model, batches, task, ranks.device, _count_at_once(ranks)):
        parts.append(part)
        advance(len(parts) * CHUNK * ranks.num_ranks)
    gathered = [row for part in ranks.gather(parts) for row in part]
    return _concat(gathered) if gathered else None


def _count_at_once(ranks: Ranks) -> int:
    """Return how many batches a rank computes in parallel, see `_compute_chunks`."""
    return torch.get_num_threads() if ranks.device.type == "cpu" else 1


def _make_load(spec: PreprocessSpec) -> Load:
    def load(sample: Sample, _copy: int, meter: Meter) -> torch.Tensor:
        with meter.timing("decode"):
            return prepare(sample.data, spec)

    return load


def _compute_chunks(
    model: Classifier, batches: Iterable[Batch], task: Task, device: torch.device, threads: int
) -> Iterator[Rows]:
    """Yield the rows of each batch, in order; on a CPU, each thread computes a batch of its own.

    These batches are read first, so that loader and compute threads together never exceed the CPUs.

    If threads shared the work of a batch, rounding would depend on their number, and so on the number of ranks.
    """
    left = iter(batches)
    with ThreadPoolExecutor(threads, "evaluate", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while group := list(islice(left, threads)):
            yield from pool.map(lambda batch: _compute_rows(model, batch, task, device), group)


@torch.inference_mode()
def _compute_rows(model: Classifier, batch: Batch, task: Task, device: torch.device) -> Rows:
    logits = model(batch.images.to(device)).float().cpu().numpy()
    return Rows(task, batch.ids, batch.labels.long().numpy(), logits, batch.sources)


def list_chunks(split: Split, ranks: Ranks) -> Iterator[Refs]:
    """Yield the samples of each of a rank's batches in an evaluation."""
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
