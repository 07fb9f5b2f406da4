"""The input of metrics: a model's outputs for samples with known labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.rule import Rule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """labels: in the form of the rule's task; logits: float32[N, K]; classes: K names."""

    labels: Ints
    logits: npt.NDArray[np.float32]
    classes: list[str]
    rule: Rule

    @cached_property
    def probabilities(self) -> Floats:
        """float64[N, K]."""
        return self.rule.task.compute_probabilities(self.logits)

    @cached_property
    def predicted(self) -> Ints:
        """Labels predicted by the rule."""
        return self.rule.predict(self.logits, self.probabilities)

    def tabulate(self) -> dict[str, Any]:
        """Return the tables that follow the single numbers in metrics.json."""
        raise NotImplementedError
