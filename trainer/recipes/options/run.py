"""What a run keeps, shows and waits for."""

from __future__ import annotations

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
    """Metric on the validation split that chooses the best epoch; where none is given, accuracy, or map for pictures of
    several labels."""
    mode: Literal["auto", "max", "min"] = "auto"
    """Whether a higher or a lower value is better; auto: lower for losses, higher for the others."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better value before the run stops; None runs all epochs."""
    min_delta: float = Field(default=0.0, ge=0)
    """Smallest improvement that counts as better, in the metric's own unit."""

    @property
    def lower_is_better(self) -> bool:
        return self.mode == "min" or (self.mode == "auto" and is_lower_better(self.metric))

    def gain(self, value: float, best: float) -> float:
        """Return by how much a value is better than the best so far."""
        return best - value if self.lower_is_better else value - best


class SnapshotOptions(Section):
    """When the state of a run is saved, and what is kept of it."""

    keep: Literal["best-and-last", "best", "all"] = "best-and-last"
    """Snapshots that a finished run keeps: the best alone, the best and the last, or all."""
    every_epochs: int = Field(default=1, ge=1)
    """Whole epochs between snapshots."""
    every_s: float = Field(default=60.0, gt=0)
    """Seconds between snapshots within an epoch: what a lost process costs at most, besides its restart."""


class RayOptions(Section):
    """What a run on Ray Train survives. Each time all ranks start again from the last snapshot."""

    max_failures: int = Field(default=3, ge=-1)
    """Lost workers and nodes, and errors of ours, that the run survives; -1: any number."""
    max_preemptions: int = Field(default=-1, ge=-1)
    """Nodes taken away after a notice that the run survives; -1: any number."""
    max_start_failures: int = Field(default=-1, ge=-1)
    """Starts that may find no room for the ranks; -1 waits for nodes for ever."""
    max_controller_failures: int = Field(default=3, ge=-1)
    """Deaths of Ray Train's own process on the command's machine that the run survives; -1: any number."""
    preemption_grace_s: float = Field(default=0.0, ge=0)
    """Seconds that ranks may keep running after the time announced for a node's removal."""
    resize_s: float = Field(default=20.0, gt=0)
    """With num_ranks such as 2..8: least seconds between a start of the ranks and a restart with more of them."""


class TrackOptions(Section):
    """Where a run's numbers are shown beside metrics.jsonl, which is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Mode of Weights & Biases; auto: online if a key is set, offline otherwise. WANDB_MODE overrides it."""
    project: str = "shardline"
    """Project in W&B."""
    group: str | None = None
    """Runs that belong together in W&B; a sweep sets its own name."""
    job_type: Literal["train", "trial", "confirm", "eval"] | None = None
    """What the run is for, in W&B; None: trial in a group, train otherwise."""
    tags: list[str] = Field(default_factory=list)
    """Words to find the run by in W&B."""
    images: bool = False
    """Send pictures to W&B as well: augmented ones and the worst errors. They may show patients."""
    tensorboard: bool = False
    """Write event files for TensorBoard to the run's folder."""
    every_steps: int = Field(default=0, ge=0)
    """Global steps between rows of steps.jsonl; 0 writes none."""


class ReportOptions(Section):
    """What report.html shows; it stays in the run's folder, and goes where that is taken."""

    images: bool = True
    """Show pictures of the dataset: worst errors, likely label mistakes, augmented ones. They may show patients."""


class StorageOptions(Section):
    """Where runs are kept; on several machines an object store, or a folder that all of them see."""

    root: str = "runs"
    """Folder, or s3:// or gs:// URI, that holds one folder per run."""
    work: str | None = None
    """Folder of each node for runs on their way to a remote root; None means SHARDLINE_WORK, or the user's cache."""
    cache: str | None = None
    """Folder of each node for shards of a remote dataset; None means SHARDLINE_CACHE, or the user's cache folder."""
    cache_bytes: Size = Field(default=20 << 30, ge=1)
    """Bytes that the cache may hold."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Seconds within which one remote file must arrive, in either direction, retries included."""
