"""The pictures that a model gets most wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shards.dataset import Split
from shards.read import SampleReader
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.evaluation.metrics import softmax
from trainer.evaluation.rows import Rows
from trainer.record.wandb_run import Picture

MOST = 50


def find_worst(rows: Rows, most: int = MOST) -> npt.NDArray[np.int64]:
    """Return int64[n], positions in `rows` of wrong answers, that with the lowest probability of its class first."""
    probabilities = softmax(rows.logits)
    own = probabilities[np.arange(len(rows.labels)), rows.labels]
    order = np.argsort(own, kind="stable")
    wrong = rows.logits.argmax(axis=1) != rows.labels
    worst: npt.NDArray[np.int64] = order[wrong[order]][:most]
    return worst


def read_worst(rows: Rows, split: Split, spec: PreprocessSpec, classes: list[str], most: int = MOST) -> list[Picture]:
    """Return the worst pictures of a split as the model sees them, read again from the shards.

    Raises:
        ShardError: A sample that cannot be read any more.
    """
    probabilities = softmax(rows.logits)
    pictures = []
    with SampleReader(split) as reader:
        for position in find_worst(rows, most).tolist():
            label, prediction = int(rows.labels[position]), int(rows.logits[position].argmax())
            sample = reader.read_one(*_locate(split, int(rows.ids[position])))
            pictures.append(
                Picture(
                    prepare(sample.data, spec).permute(1, 2, 0).numpy(),
                    classes[label],
                    classes[prediction],
                    float(probabilities[position, label]),
                    sample.source,
                )
            )
    return pictures


def _locate(split: Split, sample_id: int) -> tuple[int, int]:
    """Return shard and row of a sample."""
    rows = sample_id - split.first_ids
    shard = int(np.flatnonzero((rows >= 0) & (rows < split.counts))[0])
    return shard, int(rows[shard])
