"""What `trainer.bundle` takes: what a user says of foreign weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import model_validator

from shards.cli.options import Location, Options
from shards.errors import UsageError
from trainer.recipes.options.preprocess import Interpolation

Task = Literal["single-label", "multi-label"]

CHANNELS: Final = 3
TASK: Final[Task] = "single-label"
"""Where neither the options nor a bundle say otherwise."""


class BundleOptions(Options):
    """Weights, and what is to be known of them. What is None a bundle as `weights` has, or the model's authors have.

    Raises:
        UsageError: Options that do not go together, or `preprocess` of no known form.
    """

    weights: Location
    """A file of any ending, a URI, a bundle, or a recipe's `weights`: IMAGENET1K_V2."""
    model: str | None = None
    """Its architecture, as a recipe names it; a bundle knows its own."""
    classes: str | None = None
    """a,b in the order of the outputs, or a file: one a line, display name behind a tab or comma."""
    preprocess: str | None = None
    """stretch:SIZE, letterbox:SIZE, crop:SIZE or crop:RESIZE:SIZE, in pixels; None: a bundle's, or the model's crop."""
    interpolation: Interpolation | None = None
    """Of the resize; None: that of the weights."""
    normalise: Literal["imagenet", "half", "none"] | None = None
    """Mean and std by name; half is x*2-1; None: those of the weights."""
    mean: str | None = None
    """In place of `normalise`: 0.485,0.456,0.406, on the scale 0..1."""
    std: str | None = None
    """The same."""
    channels: Literal[1, 3] | None = None
    """1: pictures become gray; None: a bundle's, else CHANNELS."""
    backbone_channels: Literal[1, 3] | None = None
    """Of the first convolution; None: a bundle's, else CHANNELS."""
    task: Task | None = None
    """multi-label: each output is a class for itself, by its sigmoid; None: a bundle's, else TASK."""
    positive: str | None = None
    """Class that is looked for; None: a bundle's or dataset's."""
    key: str | None = None
    """Which of several models in a file: keys joined by dots, or what stands in front of its tensors' names."""
    ema: bool = True
    """Take the average of the weights, where the file has one."""
    allow_leftovers: bool = False
    """Take a file although parts of it have no place in the model, as where it is another network's."""
    dataset: Location | None = None
    """The packed dataset that it was trained on, where there is one."""
    out: Path | None = None
    """Folder to make; None: bundles/NAME of the file."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.preprocess is not None:
            parse_preprocess(self.preprocess)
        if (self.mean is None) != (self.std is None) or (self.mean and self.normalise):
            raise UsageError(
                "--mean and --std belong together, and instead of --normalise; give those two, or this one"
            )
        return self

    @property
    def folder(self) -> Path:
        """The folder to make."""
        name = re.split(r"[.?]", self.weights.rpartition("/")[2])[0] or "weights"
        return self.out or Path("bundles") / name


def parse_preprocess(text: str) -> dict[str, Any]:
    """Return policy, resize and size of `POLICY:SIZE` or `crop:RESIZE:SIZE`.

    Raises:
        UsageError: Not of these forms.

    >>> parse_preprocess("crop:256:224")
    {'policy': 'crop', 'resize': 256, 'size': 224}
    """
    match = re.fullmatch(r"(stretch|letterbox|crop):([1-9]\d{0,3})|(crop):([1-9]\d{0,3}):([1-9]\d{0,3})", text)
    if not match or (match[3] and int(match[4]) < int(match[5])):
        raise UsageError(
            "--preprocess is stretch:SIZE, letterbox:SIZE, crop:SIZE or crop:RESIZE:SIZE with RESIZE at least SIZE, "
            f"both of 1 to 9999 pixels, got '{text}'"
        )
    if match[3]:
        return {"policy": "crop", "resize": int(match[4]), "size": int(match[5])}
    return {"policy": match[1], "resize": None, "size": int(match[2])}
