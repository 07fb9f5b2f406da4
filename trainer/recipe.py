"""The recipe: everything that decides a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from shards.access import CacheOptions, default_cache
from shards.files import write_text
from shards.fingerprint import fingerprint_json
from shards.sizes import parse_size


class Section(BaseModel):
    """A group of options; frozen, unknown names refused."""

    # Numbers become text where text is wanted: a run may be called 2024.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class PreprocessOptions(Section):
    """Geometry of every picture; mean and std are not here, because the weights know them."""

    policy: Literal["stretch", "crop", "letterbox"] = "stretch"
    """stretch both sides, crop the centre, or letterbox with padding."""
    resize: int | None = Field(default=None, gt=0)
    """crop only: shorter side before the crop, pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Always antialiased."""
    channels: Literal[1, 3] = 3
    """1 feeds luminance; a backbone of three channels repeats it."""


class OptimOptions(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = "adamw"
    """sgd is with Nesterov momentum."""
    peak_lr: float = Field(default=1e-3, gt=0)
    """Learning rate after warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Not applied to biases, norms and other tensors of one dimension."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd only."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm; None does not clip."""


class ScheduleOptions(Section):
    """Learning rate as a function of samples seen."""

    name: Literal["constant", "cosine", "step"] = "cosine"
    """step: multiplied by `gamma` every `step_epochs`."""
    warmup_frac: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run in which the rate rises linearly from 0."""
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """cosine only: share of the peak that is left at the end."""
    step_epochs: float = Field(default=10.0, gt=0)
    """step only."""
    gamma: float = Field(default=0.1, gt=0, lt=1)
    """step only."""


class AugmentOptions(Section):
    """Random changes of training pictures."""

    crop: Literal["none", "random"] = "none"
    """random takes a random part of the picture and stretches it to the input, in the place of the geometry of
    evaluation (Inception's crop, torchvision's RandomResizedCrop)."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the picture's area that the part has, least and most."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width by height of the part, least and most."""
    policy: str = "none"
    """One of trainer.augment.POLICIES."""

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

    @field_validator("policy")
    @classmethod
    def _known(cls, value: str) -> str:
        from trainer.augment import POLICIES  # late: the recipe itself needs no torch

        if value not in POLICIES:
            raise ValueError(f"the policies are {', '.join(POLICIES)}")
        return value


class LossOptions(Section):
    """Cross-entropy."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    sample_weights: bool = True
    """Use the weights that the dataset gives its samples."""


class StopOptions(Section):
    """Which epoch is the best, and when to stop waiting for a better one."""

    metric: Literal["accuracy", "balanced_accuracy", "log_loss"] = "accuracy"
    """Metric on the validation part; log_loss is better when lower, the others when higher."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better value before the run stops; None runs all epochs."""
    min_delta: float = Field(default=0.0, ge=0)
    """Least change that counts as better."""


class SnapshotOptions(Section):
    """When the state of a run is saved; best and last are kept."""

    every_epochs: int = Field(default=1, ge=1)
    """Whole epochs between snapshots."""
    every_s: float = Field(default=60.0, gt=0)
    """Seconds between snapshots inside an epoch."""


Size = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]
"""Bytes; as text with a unit, 64MiB."""


class StreamOptions(Section):
    """How the epoch's order is planned, independent of ranks and workers, and how its pictures are decoded."""

    lanes: int = Field(default=8, ge=1)
    """Sequences of shards that each global batch draws from. On several nodes take a multiple of them that divides
    batch_size_global: then each node reads its share of the shards alone."""
    window_bytes: Size = Field(default=256 << 20, ge=1)
    """Bytes of shards of one lane that are shuffled together; lanes times this is the pool that a batch is drawn from,
    and about what a node's cache must hold for its lanes."""
    redeal: bool = True
    """Deal shards to lanes anew each epoch; false keeps each lane's shards, in another order, so that a node's cache
    serves its share again."""
    order: Literal["plain", "balanced", "weighted"] = "plain"
    """plain shows each sample once an epoch; balanced each class equally often; weighted by the dataset's weights,
    which then do not count in the loss."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each class that takes part, for learning curves; a smaller one is part of a larger one."""
    decode: Literal["faithful", "fast"] = "faithful"
    """fast decodes large JPEGs at a part of their resolution where the crop allows it: sharper edges differ."""


class TrackOptions(Section):
    """Weights & Biases; metrics.jsonl is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online when a key is set, offline otherwise."""
    project: str = "shardline"
    group: str | None = None
    """Runs that belong together; a sweep sets its own name."""


class StorageOptions(Section):
    """Where runs are kept; on several machines a folder that all of them see."""

    root: str = "runs"
    """Folder that holds one folder per run."""
    cache: str | None = None
    """Folder of each node for shards of a remote dataset; None means SHARDLINE_CACHE, or the user's cache folder."""
    cache_bytes: Size = Field(default=20 << 30, ge=1)
    """What the cache may hold."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Seconds within which one remote file must arrive, retries included."""


class Recipe(Section):
    """One run, resolved."""

    data: str
    """Folder of a packed dataset."""
    name: str
    """Name of the run and of its folder."""
    model: str
    """A torchvision builder such as `resnet18`, or `timm/NAME`."""
    weights: str = "none"
    """none, the name of installed weights (see trainer.weights), or a path to .safetensors, .pth or .pt."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training part."""
    seed: int = Field(default=0, ge=0)
    """Seed of order, augmentation, new weights and dropout."""
    image_size: int = Field(default=224, ge=16)
    """Side of the model's input, pixels."""
    batch_size_global: int = Field(default=64, ge=1)
    """Samples of a step over all ranks."""
    freeze: list[str] = []
    """Beginnings of backbone parameter names that stay as loaded; [backbone] freezes all but the head."""
    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision; fp16 scales the loss."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of the weights; float64 shows that two runs compute the same but for rounding, at twice the cost."""
    launch: Literal["auto", "local", "ray"] = "auto"
    """auto: Ray Train when num_ranks is above 1 or a cluster is given by RAY_ADDRESS, local otherwise."""
    num_ranks: int = Field(default=1, ge=1)
    """Processes that train together."""
    workers: int | Literal["auto"] = "auto"
    """Threads per rank that decode and augment; 0 does it in the step itself; auto is the rank's share of the CPUs."""
    cpus_per_rank: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for each rank; also the rank's torch threads there."""
    gpus_per_rank: float | None = Field(default=None, ge=0)
    """GPUs that Ray reserves for each rank; None means one where the cluster has any."""
    ledger: bool = False
    """Record every sample that every rank sees."""
    evaluate_on: list[Literal["train", "val", "test"]] = ["test"]
    """Parts that the best weights are evaluated on at the end."""
    probes: Literal["synthetic", "real"] = "synthetic"
    """Pictures that go into the bundle: made ones, or real validation pictures (which may show a patient)."""
    preprocess: PreprocessOptions = PreprocessOptions()
    optim: OptimOptions = OptimOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    augment: AugmentOptions = AugmentOptions()
    loss: LossOptions = LossOptions()
    stop: StopOptions = StopOptions()
    snapshot: SnapshotOptions = SnapshotOptions()
    stream: StreamOptions = StreamOptions()
    track: TrackOptions = TrackOptions()
    storage: StorageOptions = StorageOptions()

    @field_validator("workers", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        if value != "auto" and not (isinstance(value, int) and value >= 0):
            raise ValueError("a number of threads, 0 or more, or auto")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not value or value.startswith(".") or any(character in value for character in "/\\\0"):
            raise ValueError("a run's name is a folder name without slashes")
        return value

    @field_validator("amp", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML 1.1 reads off as false

    @property
    def run_dir(self) -> Path:
        return Path(self.storage.root) / self.name

    def cache_options(self, on_node: int = 1) -> CacheOptions:
        """Return how shards of a remote dataset are kept on a node, where `on_node` ranks read through one cache."""
        folder = Path(self.storage.cache) if self.storage.cache else default_cache()
        return CacheOptions(folder, self.storage.cache_bytes, self.storage.deadline_s, on_node)

    def fingerprint(self) -> str:
        """Return the identity of what is computed; where and how often it is saved or shown does not count."""
        return fingerprint_json(self.model_dump(mode="json", exclude=PLACEMENT))

    def write(self, path: Path) -> None:
        """Save the resolved recipe, every option included."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))

    def with_absolute_paths(self) -> Recipe:
        """Return the recipe with paths that mean the same in a Ray worker's folder."""
        weights = str(Path(self.weights).absolute()) if Path(self.weights).is_file() else self.weights
        folders = {"root": str(Path(self.storage.root).absolute())}
        if self.storage.cache:
            folders["cache"] = str(Path(self.storage.cache).absolute())
        storage = self.storage.model_copy(update=folders)
        return self.model_copy(update={"data": _absolute(self.data), "weights": weights, "storage": storage})


PLACEMENT = {
    "name", "data", "launch", "num_ranks", "workers", "cpus_per_rank", "gpus_per_rank",
    "ledger", "evaluate_on", "probes", "snapshot", "track", "storage",
}  # fmt: skip
"""Options that say where, how fast and how often; runs that differ in these alone compute the same."""


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())
