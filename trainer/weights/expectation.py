"""What weights expect of a picture."""

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
"""Mean and std by name, for weights that say nothing of it."""


@dataclass(frozen=True)
class Expectation:
    """What weights were trained with."""

    mean: Numbers
    """Per channel, 0..1."""
    std: Numbers
    """Per channel, 0..1."""
    size: int
    """Side of the input, pixels."""
    interpolation: Interpolation
    resize: int | None = None
    """Shorter side before a centre crop of `size` in their authors' evaluation, pixels; None where not known."""
    policy: Literal["crop", "stretch"] = "crop"
    """What their authors do to a picture that is no square."""

    def normalised(self, name: str | None) -> Expectation:
        """Return the same with the mean and std of that name in NORMALISATIONS; None: with its own."""
        if name is None:
            return self
        mean, std = NORMALISATIONS[name]
        return replace(self, mean=mean, std=std)

    def for_channels(self, channels: int) -> tuple[Numbers, Numbers]:
        """Return mean and std for 1 or 3 channels; for one it is the average, as in timm."""
        if channels == len(self.mean):
            return self.mean, self.std
        return (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)


SCRATCH: Final = Expectation(*NORMALISATIONS["none"], 224, "bilinear")
"""Of a model that has seen nothing: pictures as they are, 0..1."""
