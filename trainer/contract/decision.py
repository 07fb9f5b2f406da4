"""From logits to an answer."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor


class Decision(BaseModel):
    """How logits become a label; stored in the bundle, used by predict and serve alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["argmax"] = "argmax"
    """argmax: the most probable class; the lower class number wins a tie."""


class Answer(BaseModel):
    """What is said of one picture."""

    model_config = ConfigDict(frozen=True)

    label: str
    probability: float
    """Softmax probability of `label`, 0..1."""
    probabilities: dict[str, float]
    logits: list[float]


def answer(logits: Tensor, classes: list[str], decision: Decision) -> Answer:
    """Return the answer for one picture's logits float32[K]."""
    assert decision.rule == "argmax"  # the only rule of this version; another would not have validated
    probabilities = torch.softmax(logits.double(), dim=0).tolist()
    best = int(logits.argmax())
    return Answer(
        label=classes[best],
        probability=probabilities[best],
        probabilities=dict(zip(classes, probabilities, strict=True)),
        logits=logits.tolist(),
    )
