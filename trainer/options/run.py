"""What a run keeps, shows and waits for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.options.section import Section, Size


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
