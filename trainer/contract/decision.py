"""From logits to an answer."""

from __future__ import annotations

from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

THRESHOLD: Final = 0.5
"""Least probability at which a class counts as there, where each is asked for."""


class Decision(BaseModel):
    """How logits become a label; stored in the bundle, used by predict and serve alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["argmax", "each"] = "argmax"
    """argmax: the most probable class; the lower class number wins a tie. each: every class whose own probability, the
    sigmoid of its logit, is at least 0.5."""


class Answer(BaseModel):
    """What is said of one picture."""

    model_config = ConfigDict(frozen=True)

    label: str | None
    """The most probable class; None where each is asked for and none is there."""
    labels: list[str]
    """All classes that are there, in class order: `label` alone, or any number where each is asked for."""
    probability: float
    """Of the most probable class, 0..1."""
    probabilities: dict[str, float]
    """Softmax of all classes, which sum to 1; where each is asked for, the sigmoid of each."""
    logits: list[float]


def answer(logits: Tensor, classes: list[str], decision: Decision) -> Answer:
    """Return the answer for one picture's logits float32[K]."""
    best, each = int(logits.argmax()), decision.rule == "each"
    wide = logits.double()
    probabilities = (torch.sigmoid(wide) if each else torch.softmax(wide, dim=0)).tolist()
    there = [k for k, probability in enumerate(probabilities) if probability >= THRESHOLD] if each else [best]
    return Answer(
        label=classes[best] if best in there else None,
        labels=[classes[k] for k in there],
        probability=probabilities[best],
        probabilities=dict(zip(classes, probabilities, strict=True)),
        logits=logits.tolist(),
    )
