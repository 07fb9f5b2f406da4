"""The preprocessing that weights expect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from trainer.recipes.options.preprocess import Interpolation

Numbers = tuple[float, ...]

HALF: Final[Numbers] = (0.5, 0.5, 0.5)
IMAGENET_MEAN: Final[Numbers] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[Numbers] = (0.229, 0.224, 0.225)

NORMALISATIONS: Final[dict[str, tuple[Numbers, Numbers]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": (HALF, HALF),  # x*2-1
    "none": ((0.0,) * 3, (1.0,) * 3),  # 0..1
}
"""Mean and std by name, for weights without metadata."""


@dataclass(frozen=True)
class Expectation:
    """The preprocessing that weights were trained with."""

    mean: Numbers
    """Mean of each channel, 0..1."""
    std: Numbers
    """Standard deviation of each channel, 0..1."""
    size: int
    """Side of the input, pixels."""
    interpolation: Interpolation
    resize: int | None = None
    """Shorter side before a centre crop of `size` in the authors' evaluation, pixels; None if unknown."""
    policy: Literal["crop", "stretch"] = "crop"
    """How the authors make a picture square."""

    def normalised(self, name: str | None) -> Expectation:
        """Return a copy with the mean and std of a name in NORMALISATIONS; None: unchanged."""
        if name is None:
            return self
        mean, std = NORMALISATIONS[name]
        return replace(self, mean=mean, std=std)

    def for_channels(self, channels: int) -> tuple[Numbers, Numbers]:
        """Return mean and std for 1 or 3 channels; for 1 they are averages, as in timm."""
        if channels == len(self.mean):
            return self.mean, self.std
        return (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)


SCRATCH: Final = Expectation(*NORMALISATIONS["none"], 224, "bilinear")
"""For an untrained model: pixels in 0..1, not normalised."""
