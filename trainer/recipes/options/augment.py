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
    """A policy. Its builder takes no arguments."""

    backend: Backend = "torchvision"
    """Library of the builder, used by `backend=auto`."""
    other: str = ""
    """Builder of the same policy with the other library, if there is one."""
    moves: bool = False
    """With torchvision the policy only moves or fills pixels, which gives the same result on every device."""
    decoded: bool = False
    """Whether it changes the decoded picture, before geometry; otherwise it changes the model's input."""
    crop: Literal["none", "padded"] = "none"
    """The value of augment.crop=auto with this policy."""

    @property
    def builders(self) -> dict[Backend, str]:
        """Return a builder for each library that has the policy, the one for `auto` first."""
        other: Backend = "albumentations" if self.backend == "torchvision" else "torchvision"
        return {self.backend: self.builder} | ({other: self.other} if self.other else {})


POLICIES: Final = Table(
    "policies",
    PolicyRow(
        "none", "leaves pictures as they are",
        "trainer.feed.augment.library:build_none", other="trainer.feed.augment.library:build_none", moves=True,
    ),
    PolicyRow(
        "flip", "horizontal flip, p = 1/2",
        "trainer.feed.augment.operations:build_flip",
        other="trainer.feed.augment.albumentations_policies:build_flip", moves=True,
    ),
    PolicyRow(
        "light", "horizontal flip and small shifts",
        "trainer.feed.augment.operations:build_light",
        other="trainer.feed.augment.albumentations_policies:build_light",
    ),
    PolicyRow(
        "square", "the eight symmetries of a square, for pictures without an upright direction",
        "trainer.feed.augment.operations:build_square",
        other="trainer.feed.augment.albumentations_policies:build_square", moves=True,
    ),
    PolicyRow(
        "strong", "square, plus small shifts, brightness and contrast",
        "trainer.feed.augment.operations:build_strong",
        other="trainer.feed.augment.albumentations_policies:build_strong",
    ),
    PolicyRow(
        "autoaugment", "the policy learned on ImageNet", "trainer.feed.augment.torchvision_policies:build_autoaugment",
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
    """One operation of a pipeline: its name, and its parameters by the library's names."""

    model_config = ConfigDict(extra="allow")

    op: str
    """A class of torchvision.transforms.v2 or of albumentations, such as RandomRotation."""
    when: Literal["before", "after"] = "after"
    """before: on the decoded picture. after: on the model's input, after geometry."""

    @model_validator(mode="after")
    def _plain(self) -> Operation:
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as err:
            raise ValueError(f"parameters must be finite numbers, words, lists or operations ({err})") from err
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """The operation's parameters: everything except op and when."""
        return dict(self.model_extra or {})


class Progressive(Section):
    """Progressive resizing: training pictures grow over the epochs; evaluation always uses image_size."""

    start_size: int = Field(ge=16)
    """Side of the model's input in the first epochs, in pixels."""
    from_epoch: int = Field(default=0, ge=0)
    """Last epoch at start_size; epochs count from 0."""
    to_epoch: int = Field(ge=1)
    """First epoch at image_size."""
    multiple: int = Field(default=32, ge=1)
    """Sides in between are multiples of this, in pixels."""

    @model_validator(mode="after")
    def _grows(self) -> Progressive:
        if self.to_epoch <= self.from_epoch:
            raise ValueError(f"to_epoch must be after from_epoch, got {self.from_epoch} and {self.to_epoch}")
        return self

    def size(self, epoch: int, image_size: int) -> int:
        """Return the side of training pictures in an epoch, pixels.

        It is linear between the two epochs, rounded to a multiple. Source: Leclerc et al. 2023, FFCV, ImageNet recipes.

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
    """How training crops. none: as in evaluation. random: a random crop of the picture, stretched to the input size
    (Inception's crop, torchvision's RandomResizedCrop). padded: resize as in evaluation, but to crop_resize, then cut
    out a random square of the input size. auto: the policy's own crop; padded for manual."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """For crop random: smallest and largest area of the crop, as a share of the picture's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """For crop random: smallest and largest aspect ratio of the crop, width divided by height."""
    crop_resize: int | None = Field(default=None, ge=1)
    """For crop padded: side before the crop, in pixels (the shorter side if evaluation crops); None: 256/224 of
    image_size."""
    crop_padding: int = Field(default=4, ge=0, le=4096)
    """For crop padded: padding added at each edge before the crop, in pixels."""
    policy: Annotated[str, BeforeValidator(POLICIES.check)] = "none"
    """Name of the policy: the random changes of training pictures."""
    backend: Literal["auto", "torchvision", "albumentations"] = "auto"
    """Library whose operations implement the policy or pipeline; auto: the policy's own, mostly torchvision."""
    pipeline: list[Operation] = Field(default_factory=list)
    """List of operations, instead of a policy: [{op: RandomRotation, degrees: 10}, ...]."""
    erase: float = Field(default=0.0, ge=0, le=1)
    """Probability of random erasing: a random box of the picture is filled with noise, after all other changes."""
    mixup: float = Field(default=0.0, ge=0)
    """Mixup: alpha of the Beta distribution of the blending share of two pictures; 0 is off."""
    cutmix: float = Field(default=0.0, ge=0)
    """CutMix: alpha of the Beta distribution of the area of the box that is pasted from another picture; 0 is off. If
    mixup is on as well, each step uses one of the two at random."""
    mix_prob: float = Field(default=1.0, ge=0, le=1)
    """Share of the steps that mix, if mixup or cutmix is on."""
    progressive: Progressive | None = None
    """Smaller pictures in the first epochs: {start_size: 160, from_epoch: 65, to_epoch: 76}."""

    def train_size(self, epoch: int, image_size: int) -> int:
        """Return the side of training pictures in an epoch, pixels."""
        return self.progressive.size(epoch, image_size) if self.progressive else image_size

    @property
    def mixes(self) -> bool:
        """Whether any step may mix pictures."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def changes(self) -> bool:
        """Whether training pictures differ from evaluation pictures."""
        return self.chosen_crop != "none" or self.policy != "none" or bool(self.pipeline or self.erase) or self.mixes

    @property
    def only_moves(self) -> bool:
        """Whether everything after the crop only moves or fills pixels, which gives the same result on every device."""
        alike = self.policy == "none" or self.chosen_backend == "torchvision"
        return POLICIES[self.policy].moves and alike and not self.pipeline

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("the smallest value comes first and must be above 0")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _at_most_all(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError("a share is at most 1")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> AugmentOptions:
        if self.pipeline and self.policy != "none":
            raise ValueError(
                f"a policy and a pipeline exclude each other, got policy={self.policy} and a pipeline; set policy=none"
            )
        there = POLICIES[self.policy].builders
        if self.backend != "auto" and self.backend not in there:
            names = " and ".join(there)
            raise ValueError(
                f"the policy {self.policy} exists only for {names}, got backend {self.backend}; leave backend out"
            )
        return self

    @property
    def chosen_crop(self) -> Literal["none", "random", "padded"]:
        """The crop, with auto resolved."""
        return POLICIES[self.policy].crop if self.crop == "auto" else self.crop

    def crop_side(self, size: int) -> int:
        """Return the side that a padded crop of `size` is taken from, without padding."""
        return self.crop_resize or round(size * 256 / 224)

    @property
    def chosen_backend(self) -> Backend:
        """The library of the policy or pipeline, with auto resolved."""
        return POLICIES[self.policy].backend if self.backend == "auto" else self.backend
