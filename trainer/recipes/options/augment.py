"""Random changes of training pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from shards.cli.table import Row, Table
from trainer.recipes.options.section import Section

Backend = Literal["torchvision", "albumentations"]


@dataclass(frozen=True)
class PolicyRow(Row):
    """A policy. Its builder takes nothing."""

    backend: Backend = "torchvision"
    """Whose operations the builder makes it of; `auto` takes them."""
    other: str = ""
    """Builder of the same by the other library's operations, where there is one."""
    moves: bool = False
    """With torchvision it moves or fills pixels and no more, which any device does alike."""
    decoded: bool = False
    """It changes the decoded picture, before geometry; else the model's input."""
    crop: Literal["none", "padded"] = "none"
    """What augment.crop=auto is beside it."""

    @property
    def builders(self) -> dict[Backend, str]:
        """Return a builder for each library that has it, the one that `auto` takes first."""
        other: Backend = "albumentations" if self.backend == "torchvision" else "torchvision"
        return {self.backend: self.builder} | ({other: self.other} if self.other else {})


POLICIES: Final = Table(
    "policies",
    PolicyRow(
        "none", "leaves pictures as they are",
        "trainer.feed.augment.library:build_none", other="trainer.feed.augment.library:build_none", moves=True,
    ),
    PolicyRow(
        "flip", "mirror, p = 1/2",
        "trainer.feed.augment.operations:build_flip",
        other="trainer.feed.augment.albumentations_policies:build_flip", moves=True,
    ),
    PolicyRow(
        "light", "mirror and small shifts",
        "trainer.feed.augment.operations:build_light",
        other="trainer.feed.augment.albumentations_policies:build_light",
    ),
    PolicyRow(
        "square", "the eight symmetries, for pictures without an upside",
        "trainer.feed.augment.operations:build_square",
        other="trainer.feed.augment.albumentations_policies:build_square", moves=True,
    ),
    PolicyRow(
        "strong", "square, small shifts, brightness and contrast",
        "trainer.feed.augment.operations:build_strong",
        other="trainer.feed.augment.albumentations_policies:build_strong",
    ),
    PolicyRow(
        "autoaugment", "what was learnt on ImageNet", "trainer.feed.augment.torchvision_policies:build_autoaugment",
    ),
    PolicyRow(
        "randaugment", "2 operations of magnitude 9 of 30",
        "trainer.feed.augment.torchvision_policies:build_randaugment",
    ),
    PolicyRow(
        "trivialaugment", "1 operation of any magnitude, wide",
        "trainer.feed.augment.torchvision_policies:build_trivialaugment",
    ),
    PolicyRow(
        "augmix", "3 mixed chains of 1 to 3 operations, severity 3",
        "trainer.feed.augment.torchvision_policies:build_augmix",
    ),
    PolicyRow(
        "manual", "AutoAugment on the decoded picture",
        "trainer.feed.augment.torchvision_policies:build_manual", decoded=True, crop="padded",
    ),
    PolicyRow(
        "photometric", "brightness, contrast, colour, sharpness, rotation and noise, p = 1/2 each, in random order",
        "trainer.feed.augment.albumentations_policies:build_photometric", backend="albumentations",
        other="trainer.feed.augment.torchvision_policies:build_photometric",
    ),
)  # fmt: skip


class Operation(Section):
    """One operation of a pipeline: its name, and its parameters beside it as the library calls them."""

    model_config = ConfigDict(extra="allow")

    op: str
    """A class of torchvision.transforms.v2 or of albumentations, such as RandomRotation."""
    when: Literal["before", "after"] = "after"
    """before: on the decoded picture. after: on the model's input, once geometry has made it."""

    @model_validator(mode="after")
    def _plain(self) -> Operation:
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as err:
            raise ValueError(f"parameters are finite numbers, words, lists and operations ({err})") from err
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """What stands beside op and when."""
        return dict(self.model_extra or {})


class Progressive(Section):
    """Training pictures that grow with the epochs (progressive resizing); evaluation is at image_size throughout."""

    start_size: int = Field(ge=16)
    """Side of the model's input in the first epochs, in pixels."""
    from_epoch: int = Field(default=0, ge=0)
    """The last epoch at start_size; epochs count from 0."""
    to_epoch: int = Field(ge=1)
    """The first epoch at image_size."""
    multiple: int = Field(default=32, ge=1)
    """Sides in between are multiples of this, in pixels."""

    @model_validator(mode="after")
    def _grows(self) -> Progressive:
        if self.to_epoch <= self.from_epoch:
            raise ValueError(f"to_epoch comes after from_epoch, got {self.from_epoch} and {self.to_epoch}")
        return self

    def size(self, epoch: int, image_size: int) -> int:
        """Return the side of training's pictures in an epoch, pixels.

        Source: linear in between, rounded to a multiple; Leclerc et al. 2023, FFCV, its ImageNet recipes.

        >>> growth = Progressive(start_size=160, from_epoch=65, to_epoch=76)
        >>> [growth.size(epoch, 192) for epoch in (0, 65, 70, 71, 76, 87)]
        [160, 160, 160, 192, 192, 192]
        """
        share = min(max((epoch - self.from_epoch) / (self.to_epoch - self.from_epoch), 0.0), 1.0)
        if share in (0.0, 1.0):
            return image_size if share else self.start_size
        side = round((self.start_size + share * (image_size - self.start_size)) / self.multiple) * self.multiple
        return min(max(side, self.start_size), image_size)


class AugmentOptions(Section):
    """Random changes of training pictures."""

    crop: Literal["auto", "none", "random", "padded"] = "auto"
    """How training crops. none: as evaluation does. random: a random crop of the picture, stretched to the input
    (Inception's crop, torchvision's RandomResizedCrop). padded: resized as in evaluation, but to crop_resize, then a
    random square of the input's size cut out. auto: what goes with the policy, padded for manual."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """For crop random: share of the picture's area that the crop has, least and most."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """For crop random: width divided by height of the crop, least and most."""
    crop_resize: int | None = Field(default=None, ge=1)
    """For crop padded: side before the crop, in pixels (the shorter one where evaluation crops); None is 256/224 of
    image_size."""
    crop_padding: int = Field(default=4, ge=0, le=4096)
    """For crop padded: pixels added to each side before the crop."""
    policy: Annotated[str, BeforeValidator(POLICIES.check)] = "none"
    """Name of the policy: what is done to training pictures at random."""
    backend: Literal["auto", "torchvision", "albumentations"] = "auto"
    """Library whose operations make up the policy or pipeline; auto takes the policy's own, torchvision for most."""
    pipeline: list[Operation] = Field(default_factory=list)
    """Operations listed one by one, instead of a policy: [{op: RandomRotation, degrees: 10}, ...]."""
    erase: float = Field(default=0.0, ge=0, le=1)
    """Probability that a random box of a picture is filled with noise, after all else (random erasing)."""
    mixup: float = Field(default=0.0, ge=0)
    """Mixup: alpha of the Beta distribution from which the blending shares of two pictures are drawn; 0 is off."""
    cutmix: float = Field(default=0.0, ge=0)
    """CutMix: the same for a box of another picture pasted into each. With mixup as well, each step takes one at
    random."""
    mix_prob: float = Field(default=1.0, ge=0, le=1)
    """Share of the steps that mix, where mixup or cutmix is on."""
    progressive: Progressive | None = None
    """Smaller pictures in the first epochs: {start_size: 160, from_epoch: 65, to_epoch: 76}."""

    def train_size(self, epoch: int, image_size: int) -> int:
        """Return the side of training's pictures in an epoch, pixels."""
        return self.progressive.size(epoch, image_size) if self.progressive else image_size

    @property
    def mixes(self) -> bool:
        """Whether any step may mix pictures."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def changes(self) -> bool:
        """Whether training sees pictures otherwise than evaluation."""
        return self.chosen_crop != "none" or self.policy != "none" or bool(self.pipeline or self.erase) or self.mixes

    @property
    def only_moves(self) -> bool:
        """Whether all that follows the crop moves or fills pixels, which any device does alike."""
        alike = self.policy == "none" or self.chosen_backend == "torchvision"
        return POLICIES[self.policy].moves and alike and not self.pipeline

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("the least comes first and is above 0")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _at_most_all(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError("a part is at most the whole, 1")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> AugmentOptions:
        if self.pipeline and self.policy != "none":
            raise ValueError(
                f"a policy or a pipeline; policy=none leaves the pipeline, got policy={self.policy} and one"
            )
        there = POLICIES[self.policy].builders
        if self.backend != "auto" and self.backend not in there:
            names = " and ".join(there)
            raise ValueError(
                f"the policy {self.policy} is there for {names} alone; leave backend out, got {self.backend}"
            )
        return self

    @property
    def chosen_crop(self) -> Literal["none", "random", "padded"]:
        """What geometry does."""
        return POLICIES[self.policy].crop if self.crop == "auto" else self.crop

    def crop_side(self, size: int) -> int:
        """Return the side that a padded crop of this size is taken from, without the padding."""
        return self.crop_resize or round(size * 256 / 224)

    @property
    def chosen_backend(self) -> Backend:
        """Whose operations the policy or pipeline is made of."""
        return POLICIES[self.policy].backend if self.backend == "auto" else self.backend
