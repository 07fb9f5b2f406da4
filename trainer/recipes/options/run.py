"""Options about stopping, snapshots, Ray, tracking, the report and storage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.contract.metrics import STOP_METRICS, is_lower_better
from trainer.recipes.options.section import Section, Size

if TYPE_CHECKING:
    Metric = str
else:
    Metric = Literal[STOP_METRICS]


class StopOptions(Section):
    """Which epoch is the best, and when to stop waiting for a better one."""

    metric: Metric = "accuracy"
    """Metric on the validation split that chooses the best epoch; default: accuracy, or map for pictures with several
    labels."""
    mode: Literal["auto", "max", "min"] = "auto"
    """Whether a higher or a lower value is better; auto: lower for losses, higher for the others."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better value before the run stops; None: all epochs run."""
    min_delta: float = Field(default=0.0, ge=0)
    """Smallest improvement that counts as better, in the metric's own unit."""

    @property
    def lower_is_better(self) -> bool:
        return self.mode == "min" or (self.mode == "auto" and is_lower_better(self.metric))

    def gain(self, value: float, best: float) -> float:
        """Return by how much a value is better than the best so far."""
        return best - value if self.lower_is_better else value - best


class SnapshotOptions(Section):
    """When snapshots of a run are saved, and which are kept."""

    keep: Literal["best-and-last", "best", "all"] = "best-and-last"
    """Snapshots that a finished run keeps: the best alone, the best and the last, or all."""
    every_epochs: int = Field(default=1, ge=1)
    """Whole epochs between snapshots."""
    every_s: float = Field(default=60.0, gt=0)
    """Seconds between snapshots within an epoch: the most work that a lost process costs, besides its restart."""


class RayOptions(Section):
    """The failures that a run on Ray Train survives. After each one, all ranks restart from the last snapshot."""

    max_failures: int = Field(default=3, ge=-1)
    """Number of lost workers, lost nodes and program errors that the run survives; -1: any number."""
    max_preemptions: int = Field(default=-1, ge=-1)
    """Number of announced node removals that the run survives; -1: any number."""
    max_start_failures: int = Field(default=-1, ge=-1)
    """Number of starts that may find too few resources for the ranks; -1 waits for nodes forever."""
    max_controller_failures: int = Field(default=3, ge=-1)
    """Number of crashes of Ray Train's controller process that the run survives; -1: any number."""
    preemption_grace_s: float = Field(default=0.0, ge=0)
    """Seconds that ranks may keep running after the time announced for a node's removal."""
    resize_s: float = Field(default=20.0, gt=0)
    """With num_ranks such as 2..8: minimum seconds between a start of the ranks and a restart with more ranks."""


class TrackOptions(Section):
    """Where a run's metrics are logged, besides metrics.jsonl, which is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Mode of Weights & Biases; auto: online if a key is set, offline otherwise. WANDB_MODE overrides it."""
    project: str = "shardline"
    """W&B project."""
    group: str | None = None
    """W&B group of related runs; a sweep sets its own name."""
    job_type: Literal["train", "trial", "confirm", "eval"] | None = None
    """W&B job type; None: trial in a group, train otherwise."""
    tags: list[str] = Field(default_factory=list)
    """W&B tags."""
    config: dict[str, str] = Field(default_factory=dict)
    """More entries of the W&B config; a sweep adds the variant and the level of each factor."""
    images: bool = False
    """Also send pictures to W&B: augmented ones and the worst errors. They may show patients."""
    tensorboard: bool = False
    """Write event files for TensorBoard to the run's folder."""
    metrics_dir: str | None = None
    """Folder of files for Prometheus, written by rank 0: that of the node exporter's textfile collector. null: no file;
    a run on Ray hands its metrics to Ray's agents."""
    every_steps: int = Field(default=0, ge=0)
    """Global steps between rows of steps.jsonl; 0 writes none."""

    def choose_wandb_mode(self) -> str:
        """Return online, offline or disabled; auto is offline when no key is set. WANDB_MODE takes precedence."""
        if os.environ.get("WANDB_MODE"):
            return os.environ["WANDB_MODE"]
        if self.wandb != "auto":
            return self.wandb
        return "online" if os.environ.get("WANDB_API_KEY") else "offline"


class ReportOptions(Section):
    """Content of report.html, which is stored in the run folder."""

    images: bool = True
    """Show pictures of the dataset: worst errors, likely label mistakes, augmented ones. They may show patients."""


class StorageOptions(Section):
    """Where runs are kept; with several machines, an object store or a shared folder."""

    root: str = "runs"
    """Folder, or s3:// or gs:// URI, that holds one folder per run."""
    work: str | None = None
    """Local folder of each node for runs with a remote root; None: SHARDLINE_WORK, or the user's cache folder."""
    cache: str | None = None
    """Local folder of each node for shards of a remote dataset; None: SHARDLINE_CACHE, or the user's cache folder."""
    features: str | None = None
    """Local folder of features for cache_features, which runs may share; None: in the run's folder."""
    cache_bytes: Size = Field(default=20 << 30, ge=1)
    """Maximum size of the cache in bytes."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Time limit in seconds for one upload or download, retries included."""
