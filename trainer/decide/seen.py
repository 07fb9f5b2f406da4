"""What a model says of one part of a dataset: what a decision is fitted to, and judged by."""

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
    """What a model says of one part: ids int64[N], labels, logits float32[N, K], features float32[N, D] or [N, 0].

    labels: As of the task.
    groups: Of each picture, empty where it has none; None where nobody asked.
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
        """What intervals count: groups where any two pictures share one, pictures otherwise."""
        return find_units(len(self.labels), self.groups)
