"""What the endpoint says about one picture, and what a request may ask for."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from cluster.serve.problem import ProblemError
from shards.errors import explain_invalid
from trainer.contract.bundle import Bundle
from trainer.contract.decision.decision import Answer
from trainer.contract.model.cam import explain


class Wishes(BaseModel):
    """The options of a request, in the query of its address."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    top_k: int | None = Field(default=None, ge=1)
    """Give the most probable classes in `top_k`, and leave out `probabilities` and `logits`."""
    explain: bool = False
    """Add `explanation`: which places of the picture speak for the decided class."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Decide for the positive class from this probability on, or with several labels for each class."""


def read_wishes(query: Mapping[str, str]) -> Wishes:
    """Return the options in a query.

    Raises:
        ProblemError: An unknown option, or a value out of range.
    """
    try:
        return Wishes.model_validate(dict(query))
    except ValidationError as err:
        unknown = next((each for each in err.errors() if each["type"] == "extra_forbidden"), None)
        known = ", ".join(Wishes.model_fields)
        if unknown:
            said = f"there is no option {str(unknown['loc'][0])[:50]!r}; /v1/predict takes {known}"
        else:
            said = explain_invalid(err, "option '{}'".format)
        raise ProblemError("invalid-request", said) from err


class Ranked(BaseModel):
    """A class and its probability."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    label: str
    probability: float


class Explanation(BaseModel):
    """A class activation map."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    label: str
    """The class whose map it is."""
    png: str
    """A gray PNG in base64, as large as the model's input: the brighter, the more the place speaks for the class."""


class Timings(BaseModel):
    """Milliseconds that a picture took in its replica."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    queue_ms: float
    """Waiting for a decoder and for its batch."""
    decode_ms: float
    model_ms: float
    """The forward pass of its batch."""


class Prediction(BaseModel):
    """The answer for one picture. Fields that nothing was fitted or asked for are absent."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    label: str | None
    """The decided class; with several labels the most probable predicted one, null if none is predicted."""
    labels: list[str]
    """All predicted classes in class order."""
    probability: float
    """Probability of `label`, 0..1; if `label` is null, of the most probable class."""
    probabilities: dict[str, float] | None = None
    """Of each class, 0..1."""
    top_k: list[Ranked] | None = None
    """The most probable classes, in place of `probabilities` and `logits`."""
    logits: list[float] | None = None
    """The model's raw output for each class."""
    decision: str | None = None
    """The decided class again, if a rule was chosen for it."""
    abstain: bool | None = None
    """A person should look at the picture."""
    ood_score: float | None = None
    """How unlike the pictures of the fit it is, 0 or more."""
    set: list[str] | None = None
    """The classes that the picture may be of, the most probable first."""
    explanation: Explanation | None = None
    """Which places of the picture speak for the class."""
    bundle: str
    """Fingerprint of the bundle that answered."""
    timings: Timings
    """Milliseconds in the replica: `queue_ms`, `decode_ms`, `model_ms`."""

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {name: value for name, value in self.model_dump().items() if value is not None or name == "label"}


def describe_answer(answer: Answer, wishes: Wishes, **more: Any) -> Prediction:
    """Return the answer with what was asked for; `more` are the other fields."""
    fields = answer.model_dump()
    if wishes.top_k is not None:
        ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[: wishes.top_k]
        fields["top_k"] = [Ranked(label=name, probability=share) for name, share in ranked]
        del fields["probabilities"], fields["logits"]
    return Prediction(**fields, **more)


def draw_explanation(bundle: Bundle, image: Tensor, answer: Answer) -> Explanation:
    """Return the class activation map of the decided class for a picture uint8[C, S, S]."""
    label = answer.label or max(answer.probabilities, key=answer.probabilities.__getitem__)
    number = torch.tensor([bundle.page.classes.index(label)], device=bundle.device)
    heat = explain(bundle.model, image[None].to(bundle.device), number)[0]
    file = io.BytesIO()
    Image.fromarray((heat.cpu() * 255).round().to(torch.uint8).numpy()).save(file, "PNG")
    return Explanation(label=label, png=base64.b64encode(file.getvalue()).decode())
