"""Evaluation that counts every sample once, on any number of ranks, with the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from shards.dataset import Split
from shards.plan import Refs, sequential_refs
from trainer.contract.model import Classifier
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.feed import Feed
from trainer.ranks import Ranks

# Chunks, not ranks, decide what is computed together: a batch of another size may round differently.
CHUNK = 64


@dataclass(frozen=True)
class Rows:
    """A row a sample in the order of sample ids: ids int64[N], labels int64[N], logits float32[N, K], source files."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    sources: list[str]


def evaluate_split(model: Classifier, spec: PreprocessSpec, split: Split, ranks: Ranks, workers: int) -> Rows:
    """Return the rows of all samples of a split, gathered on every rank; the model is left in evaluation mode."""
    model.eval()
    feed = Feed(split, (spec.channels, spec.size, spec.size), workers)
    parts: list[Rows] = []
    try:
        for batch in feed.iterate(_chunks(split, ranks), lambda sample: prepare(sample.data, spec)):
            with torch.inference_mode():
                logits = model(batch.images.to(ranks.device)).cpu().numpy()
            parts.append(Rows(batch.ids, batch.labels.numpy(), logits, batch.sources))
    finally:
        feed.close()
    rows = _concat([row for part in ranks.gather(parts) for row in part])
    assert len(rows.ids) == split.num_samples  # chunks are dealt to ranks without remainder
    return rows


def _chunks(split: Split, ranks: Ranks) -> Iterator[Refs]:
    for start in range(ranks.rank * CHUNK, split.num_samples, ranks.num_ranks * CHUNK):
        yield sequential_refs(split.counts, start, min(start + CHUNK, split.num_samples))


def _concat(parts: list[Rows]) -> Rows:
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    sources = [source for part in parts for source in part.sources]
    return Rows(
        ids[order],
        np.concatenate([part.labels for part in parts])[order],
        np.concatenate([part.logits for part in parts])[order],
        [sources[position] for position in order.tolist()],
    )
