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
    """Seconds between snapshots inside an epoch; what a lost process costs at most, beside its restart."""


class RayOptions(Section):
    """What a run on Ray Train survives. Each time all ranks start again from the last snapshot."""

    max_failures: int = Field(default=3, ge=-1)
    """Lost workers and nodes, and errors of ours; -1 any number."""
    max_preemptions: int = Field(default=-1, ge=-1)
    """Nodes that were taken away after a notice; -1 any number."""
    max_start_failures: int = Field(default=-1, ge=-1)
    """Starts that found no room for the ranks; -1 waits for nodes for ever."""
    max_controller_failures: int = Field(default=3, ge=-1)
    """Deaths of Ray Train's own process on the machine of the command; -1 any number."""
    preemption_grace_s: float = Field(default=0.0, ge=0)
    """Seconds that ranks may run on after the time at which a node was to be taken away."""
    resize_s: float = Field(default=20.0, gt=0)
    """Elastic num_ranks: least seconds between a start of the ranks and one with more of them."""


class TrackOptions(Section):
    """Weights & Biases; metrics.jsonl is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online when a key is set, offline otherwise."""
    project: str = "shardline"
    group: str | None = None
    """Runs that belong together; a sweep sets its own name."""


class StorageOptions(Section):
    """Where runs are kept; on several machines an object store, or a folder that all of them see."""

    root: str = "runs"
    """Folder, or s3:// or gs:// URI, that holds one folder per run."""
    work: str | None = None
    """Folder of each node for runs on their way to a remote root; None means SHARDLINE_WORK, or the user's cache."""
    cache: str | None = None
    """Folder of each node for shards of a remote dataset; None means SHARDLINE_CACHE, or the user's cache folder."""
    cache_bytes: Size = Field(default=20 << 30, ge=1)
    """What the cache may hold."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Seconds within which one remote file must arrive, in either direction, retries included."""
