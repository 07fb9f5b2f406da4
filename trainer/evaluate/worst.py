"""The pictures that a model gets most wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.evaluate.rows import Rows
from trainer.record.track.wandb_run import Picture

MOST = 50


def find_worst(rows: Rows, most: int = MOST) -> npt.NDArray[np.int64]:
    """Return int64[n], positions in `rows` of wrong predictions, the lowest probability of the true label first."""
    order = np.argsort(rows.task.rate_truth(rows.labels, rows.logits), kind="stable")
    wrong = ~rows.task.compare(rows.labels, rows.predicted)
    worst: npt.NDArray[np.int64] = order[wrong[order]][:most]
    return worst


def read_worst(rows: Rows, split: Split, spec: PreprocessSpec, classes: list[str], most: int = MOST) -> list[Picture]:
    """Return the worst pictures of a split as the model sees them, read again from the shards.

    Raises:
        ShardError: A sample can no longer be read.
    """
    rates, (labels, predictions) = rows.task.rate_truth(rows.labels, rows.logits), rows.name_answers(classes)
    worst = find_worst(rows, most)
    return [
        Picture(
            image.permute(1, 2, 0).numpy(),
            labels[position],
            predictions[position],
            float(rates[position]),
            rows.sources[position],
        )
        for position, image in zip(worst.tolist(), read_images(split, rows.ids[worst], spec), strict=True)
    ]


def read_images(split: Split, ids: npt.NDArray[np.int64], spec: PreprocessSpec) -> list[Tensor]:
    """Return the samples of these ids as the model sees them, uint8[C, S, S] each; raises like `read_worst`."""
    with SampleReader(split) as reader:
        return [read_image(reader, split, sample_id, spec) for sample_id in ids.tolist()]


def read_image(reader: SampleReader, split: Split, sample_id: int, spec: PreprocessSpec) -> Tensor:
    """Return a sample of the reader's split as the model sees it, uint8[C, S, S]; raises like `read_worst`."""
    rows = sample_id - split.first_ids
    shard = int(np.flatnonzero((rows >= 0) & (rows < split.counts))[0])
    return prepare(reader.read_one(shard, int(rows[shard])).data, spec)
