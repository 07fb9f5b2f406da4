"""The recipe: everything that determines a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from shards.files.atomic import write_text
from shards.files.fingerprint import fingerprint_json
from shards.storage.access import CacheOptions, default_cache
from shards.storage.shown import hide_keys
from trainer.contract.model.names import resolve_alias
from trainer.recipes.options.augment import AugmentOptions
from trainer.recipes.options.loss import LossOptions
from trainer.recipes.options.optim import OptimOptions
from trainer.recipes.options.preprocess import Interpolation, PreprocessOptions
from trainer.recipes.options.run import (
    RayOptions,
    ReportOptions,
    SnapshotOptions,
    StopOptions,
    StorageOptions,
    TrackOptions,
)
from trainer.recipes.options.schedule import ScheduleOptions
from trainer.recipes.options.section import Section
from trainer.recipes.options.step import StepOptions
from trainer.recipes.options.stream import StreamOptions
from trainer.recipes.place import show_locations


class Recipe(Section):
    """One run, as its user writes it. Values left open are filled in by `ResolvedRecipe`."""

    data: str
    """Folder or URI (s3://, gs://, https://) of a packed dataset."""
    name: str
    """Name of the run, and of its folder below storage.root."""
    model: str
    """A torchvision builder such as `resnet18`, or `timm/NAME`; `python -m trainer.models` lists them."""
    weights: str = "none"
    """Initial weights: none (random), pretrained or a tag of the library, the name of installed weights, a bundle, or
    the path or URI of a file."""
    weights_key: str | None = None
    """Which model to take from a weights file with several: keys joined by dots, or a prefix of tensor names."""
    weights_ema: bool = True
    """Use the averaged weights if the file has them (state_dict_ema, model_ema)."""
    allow_leftovers: bool = False
    """Load a weights file even though some of its tensors have no counterpart in the model, for example those of
    another network."""
    head_dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout probability before the head; None: the architecture's default."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training split."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of sample order, augmentation, new weights and dropout."""
    image_size: int | None = Field(default=None, ge=16)
    """Side of the model's input, in pixels; None: the weights' own size, or 224 if they have none."""
    batch_size_global: int = Field(default=64, ge=1)
    """Samples per step, over all ranks."""
    freeze: list[str] = Field(default_factory=list)
    """Prefixes of the names of backbone parameters to freeze; [backbone] freezes everything except the head."""
    freeze_epochs: int | None = Field(default=None, ge=1)
    """Number of epochs after which frozen layers are trained too; None: never."""
    cache_features: bool = False
    """With freeze=[backbone] and no random change of pictures: compute the head's input once for each picture, and
    train the head on it. Epochs then take seconds; runs with the same backbone and data share storage.features."""
    limit_samples: int | None = Field(default=None, ge=1)
    """Train on about this many samples, the same share of each class, to try out a recipe; None: all."""
    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision; fp16 also scales the loss."""
    dtype: Literal["float32", "float64"] = "float32"
    """Data type of the weights; float64 can show that two runs differ only by rounding, at twice the cost."""
    launch: Literal["auto", "local", "ray"] = "auto"
    """Where ranks run. local: on this machine, without Ray. ray: as Ray Train workers. auto: ray if num_ranks can
    be above 1 or RAY_ADDRESS names a cluster, local otherwise."""
    num_ranks: int | str = 1
    """Processes that train together; `2..8` uses what a Ray cluster has, and continues with fewer or more."""
    workers: int | Literal["auto"] = "auto"
    """Threads per rank that decode and augment; 0: no threads, between steps; auto: the rank's share of the CPUs."""
    cpus_per_rank: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for each rank, and the rank's number of torch threads."""
    gpus_per_rank: float | None = Field(default=None, ge=0)
    """GPUs that Ray reserves for each rank; None: one if the cluster has any."""
    ledger: bool = False
    """Record which sample each rank sees at each step, with a hash of its pixels, in ledger/."""
    evaluate_on: list[Literal["train", "val", "test"]] = Field(default=["test"])
    """Splits that the best weights are evaluated on at the end."""
    positive: str | None = None
    """Class of interest, whose sensitivity is reported; None: the dataset's, else the second of two."""
    probes: Literal["synthetic", "real"] = "synthetic"
    """Pictures stored in the bundle to verify it on loading: generated ones, or real validation pictures (which may
    show a patient)."""
    preprocess: PreprocessOptions = PreprocessOptions()
    optim: OptimOptions = OptimOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    augment: AugmentOptions = AugmentOptions()
    loss: LossOptions = LossOptions()
    step: StepOptions = StepOptions()
    stop: StopOptions = StopOptions()
    snapshot: SnapshotOptions = SnapshotOptions()
    stream: StreamOptions = StreamOptions()
    track: TrackOptions = TrackOptions()
    report: ReportOptions = ReportOptions()
    storage: StorageOptions = StorageOptions()
    ray: RayOptions = RayOptions()

    @field_validator("num_ranks", mode="before")
    @classmethod
    def _number_or_range(cls, value: object) -> object:
        numbers = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(value)) if isinstance(value, int | str) else None
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2] or numbers[1]):
            raise ValueError("must be a number of processes, at least 1, or a range such as 2..8")
        return value if numbers[2] else int(numbers[1])

    @field_validator("model")
    @classmethod
    def _library_name(cls, value: str) -> str:
        return resolve_alias(value)  # so that equivalent recipes have the same fingerprint

    @field_validator("positive", mode="before")
    @classmethod
    def _number_as_a_name(cls, value: object) -> object:
        # Classes are often named 0 and 1, which YAML reads as numbers. Booleans (yes, no) are rejected.
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("workers", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        if value != "auto" and not (isinstance(value, int) and value >= 0):
            raise ValueError("must be a number of threads, 0 or more, or auto")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not value or value.startswith(".") or any(character in value for character in "/\\\0"):
            raise ValueError("a run's name must be a folder name without slashes")
        return value

    @field_validator("amp", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML 1.1 reads off as false

    @model_validator(mode="after")
    def _balanced_once(self) -> Recipe:
        if self.stream.order == "balanced" and self.loss.class_weights in ("balanced", "effective"):
            raise ValueError(
                "stream.order=balanced shows each class equally often, and loss.class_weights="
                f"{self.loss.class_weights} would weight rare classes a second time; leave out one of them"
            )
        return self

    @model_validator(mode="after")
    def _released_once_frozen(self) -> Recipe:
        if self.freeze_epochs is not None and not self.freeze:
            raise ValueError(
                f"freeze_epochs={self.freeze_epochs} unfreezes layers, but freeze names none; set "
                "freeze=[backbone], or leave freeze_epochs out"
            )
        return self

    @model_validator(mode="after")
    def _cached_where_fixed(self) -> Recipe:
        if self.cache_features and (misfit := _find_uncached(self)):
            raise ValueError(
                f"cache_features computes the head's input once for each picture, but {misfit}, or leave "
                "cache_features out"
            )
        return self

    @model_validator(mode="after")
    def _decoded_where_changed(self) -> Recipe:
        if self.stream.decode == "device" and not self.augment.only_moves:
            chosen = "pipeline" if self.augment.pipeline else f"policy={self.augment.policy}"
            raise ValueError(
                f"stream.decode=device decodes on the GPU, but augment.{chosen} of "
                f"{self.augment.chosen_backend} runs on the CPU; use policy none, or torchvision's flip or "
                "square, or stream.decode=faithful"
            )
        return self

    @property
    def least_ranks(self) -> int:
        """Minimum number of ranks; with fewer the run waits."""
        return int(str(self.num_ranks).partition("..")[0])

    @property
    def most_ranks(self) -> int:
        return int(str(self.num_ranks).rpartition("..")[2])

    @property
    def is_elastic(self) -> bool:
        """Whether the number of ranks adapts to the cluster."""
        return isinstance(self.num_ranks, str)

    def cache_options(self, on_node: int = 1) -> CacheOptions:
        """Return the cache options for remote shards on a node where `on_node` ranks share one cache."""
        folder = Path(self.storage.cache) if self.storage.cache else default_cache()
        return CacheOptions(folder, self.storage.cache_bytes, self.storage.deadline_s, on_node)

    def fingerprint(self) -> str:
        """Return the fingerprint of what is computed; where and how often results are saved or shown does not count."""
        unsaid = {name for name in LATER if getattr(self, name) == type(self).model_fields[name].default}
        return fingerprint_json(self.model_dump(mode="json", exclude=PLACEMENT | unsaid))

    def write(self, path: Path) -> None:
        """Save the recipe with every option."""
        write_text(path, self.to_yaml())

    def to_yaml(self) -> str:
        """Return the recipe as it is stored: URIs without keys and signatures, which a command gives again."""
        stored = show_locations(self.model_dump(mode="json"), hide_keys)
        return yaml.safe_dump(stored, sort_keys=False, allow_unicode=True)

    def describe(self) -> dict[str, Any]:
        """Return the recipe for display: URIs without keys and queries, which may be signatures."""
        told: dict[str, Any] = show_locations(self.model_dump(mode="json"))
        return told

    def with_absolute_paths(self) -> Recipe:
        """Return the recipe with absolute paths, for Ray workers in other folders."""
        weights = str(Path(self.weights).absolute()) if Path(self.weights).exists() else self.weights
        named = {"root": self.storage.root, "work": self.storage.work, "cache": self.storage.cache}
        named["features"] = self.storage.features
        storage = self.storage.model_copy(update={name: _absolute(path) for name, path in named.items() if path})
        update: dict[str, object] = {"data": _absolute(self.data), "weights": weights, "storage": storage}
        if self.track.metrics_dir:
            metrics_dir = _absolute(self.track.metrics_dir)
            update["track"] = self.track.model_copy(update={"metrics_dir": metrics_dir})
        if self.loss.teacher:
            update["loss"] = self.loss.model_copy(update={"teacher": _absolute(self.loss.teacher)})
        return self.model_copy(update=update)


def _find_uncached(recipe: Recipe) -> str | None:
    """Return which option changes the head's input from epoch to epoch, and the remedy; None: none does."""
    if "backbone" not in recipe.freeze or recipe.freeze_epochs is not None:
        return "the backbone is trained: set freeze=[backbone] without freeze_epochs"
    if recipe.augment.changes or recipe.augment.progressive:
        return "augment changes pictures in each epoch: set augment.policy=none and no crop, erasing, mixing or growth"
    if recipe.stream.decode != "faithful":
        return f"stream.decode={recipe.stream.decode} decodes otherwise than evaluation: set stream.decode=faithful"
    if recipe.loss.teacher is not None:
        return "the teacher of loss.teacher sees the pictures: leave it out"
    if recipe.dtype != "float32":
        return f"features have float32 and dtype={recipe.dtype}: set dtype=float32"
    return None


PLACEMENT = {
    "name", "data", "allow_leftovers", "launch", "num_ranks", "workers", "cpus_per_rank", "gpus_per_rank",
    "ledger", "evaluate_on", "positive", "probes", "snapshot", "track", "report", "storage", "ray",
}  # fmt: skip
"""Options about location, speed, display and checks: runs that differ only in these compute the same."""

LATER = {"weights_key", "weights_ema", "cache_features"}
"""Options added later: at their defaults they do not enter a fingerprint."""


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())


class ResolvedPreprocess(PreprocessOptions):
    """Preprocessing with a known interpolation."""

    interpolation: Interpolation


class ResolvedRecipe(Recipe):
    """What `trainer.weights.resolve.resolve_recipe` returns: size and interpolation are set, paths are absolute.

    The recipe file in a run folder and the recipe for Ray's workers hold these values.
    """

    image_size: int = Field(ge=16)
    preprocess: ResolvedPreprocess
