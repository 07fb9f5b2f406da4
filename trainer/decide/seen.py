"""A model's outputs on one split of a dataset, to fit or check a decision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer.contract.task import Task
from trainer.evaluate.metrics.resampling import Units, find_units

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Seen:
    """A model's outputs on one split: ids int64[N], labels, logits float32[N, K], features float32[N, D] or [N, 0].

    labels: In the task's form.
    groups: Group of each picture, empty if it has none; None if not read.
    """

    task: Task
    dataset: str
    part: Part
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    groups: pa.Array | None = None

    @cached_property
    def units(self) -> Units:
        """The units that intervals count: groups if any two pictures share one, else pictures."""
        return find_units(len(self.labels), self.groups)
