"""The types of what an endpoint says about a picture."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Ranked(TypedDict):
    """A class and its probability, 0..1."""

    label: str
    probability: float


class Explanation(TypedDict):
    """A class activation map; `png` is a gray PNG in base64 as large as the model's input."""

    label: str
    png: str


class Timings(TypedDict):
    """Milliseconds that the picture took in the endpoint: waiting, decoding, and the forward pass of its batch."""

    queue_ms: float
    decode_ms: float
    model_ms: float


class Answer(TypedDict):
    """The answer for one picture; fields that nothing was fitted or asked for are absent."""

    label: str | None
    """The decided class; with several labels the most probable predicted one, None if none is predicted."""
    labels: list[str]
    """All predicted classes in class order."""
    probability: float
    """Probability of `label`, 0..1; if `label` is None, of the most probable class."""
    probabilities: NotRequired[dict[str, float]]
    """By class; absent if `top_k` was asked for, like `logits`."""
    logits: NotRequired[list[float]]
    top_k: NotRequired[list[Ranked]]
    """The most probable classes, the first is the most probable."""
    decision: NotRequired[str]
    abstain: NotRequired[bool]
    ood_score: NotRequired[float]
    set: NotRequired[list[str]]
    explanation: NotRequired[Explanation]
    bundle: str
    """Fingerprint of the bundle that answered."""
    timings: Timings
