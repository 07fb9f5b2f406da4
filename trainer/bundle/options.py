"""Options of `trainer.bundle`: facts about foreign weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import model_validator

from shards.cli.options import Location, Options, Output
from shards.errors import UsageError
from shards.files.job_folder import refuse_job_folder
from trainer.recipes.options.preprocess import Interpolation

Task = Literal["single-label", "multi-label"]

CHANNELS: Final = 3
TASK: Final[Task] = "single-label"
"""Defaults if neither the options nor a bundle set a value."""


class BundleOptions(Options):
    """Weights, and facts about them. None means: as in the bundle given as `weights`, or as by the model's authors.

    Raises:
        UsageError: Options conflict, or `preprocess` has an unknown form.
    """

    weights: Location
    """A file of any extension, a URI, a bundle, or a recipe's `weights`: IMAGENET1K_V2."""
    model: str | None = None
    """Architecture, by its name in recipes; None: the bundle's own."""
    classes: str | None = None
    """a,b in the order of the outputs, or a file: one per line, with a display name after a tab or comma."""
    preprocess: str | None = None
    """stretch:SIZE, letterbox:SIZE, crop:SIZE or crop:RESIZE:SIZE, in pixels; None: a bundle's, or the model's crop."""
    interpolation: Interpolation | None = None
    """Interpolation of the resize; None: that of the weights."""
    normalise: Literal["imagenet", "half", "none"] | None = None
    """Mean and std by name; half is x*2-1; None: those of the weights."""
    mean: str | None = None
    """Mean, instead of `normalise`: 0.485,0.456,0.406, on the scale 0..1."""
    std: str | None = None
    """Standard deviation, instead of `normalise`, on the scale 0..1."""
    channels: Literal[1, 3] | None = None
    """1: convert pictures to gray; None: a bundle's, else CHANNELS."""
    backbone_channels: Literal[1, 3] | None = None
    """Channels of the first convolution; None: a bundle's, else CHANNELS."""
    task: Task | None = None
    """multi-label: each output is a separate class with a sigmoid; None: a bundle's, else TASK."""
    positive: str | None = None
    """Positive class; None: that of the bundle or dataset."""
    key: str | None = None
    """Which of several models in a file: keys joined by dots, or a prefix of tensor names."""
    ema: bool = True
    """Use averaged weights if the file has them."""
    allow_leftovers: bool = False
    """Accept a file with tensors that the model lacks, for example those of another network."""
    dataset: Location | None = None
    """The packed dataset that it was trained on, if there is one."""
    out: Output | None = None
    """Output folder; None: bundles/NAME of the file."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.preprocess is not None:
            parse_preprocess(self.preprocess)
        if (self.mean is None) != (self.std is None) or (self.mean and self.normalise):
            raise UsageError(
                "--mean and --std must be given together and instead of --normalise; give both, or --normalise"
            )
        return self

    @property
    def folder(self) -> Path:
        """The output folder."""
        name = re.split(r"[.?]", self.weights.rpartition("/")[2])[0] or "weights"
        return self.out or refuse_job_folder(Path("bundles") / name)


def parse_preprocess(text: str) -> dict[str, Any]:
    """Return policy, resize and size of `POLICY:SIZE` or `crop:RESIZE:SIZE`.

    Raises:
        UsageError: The text has another form.

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
