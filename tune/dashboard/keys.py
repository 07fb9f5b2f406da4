"""Names under which the runs of a sweep log what the dashboard shows."""

from __future__ import annotations

from trainer.contract.bundle import read_bundle_page
from trainer.contract.metrics import name_figure
from trainer.record.logbook import read_metrics
from trainer.record.track.wandb_run import choose_summary, clean_name
from tune.result.sweep import Sweep

SPEED, WAIT = "feed/img_s", "feed/wait_frac"
"""Pictures a second of an epoch of training, and its share of waiting for data."""
SCREEN, COMPARISON = "ablation", "comparison"
"""Tables of the last run."""
FIGURES, CONFUSION = "figure", "confusion"
"""Areas of the last run's figures, and of its confusion matrices, one for each variant."""


def name_metric(sweep: Sweep) -> str:
    """Return the key of the validation metric that chose epochs and variants, with the class if it is about one."""
    key = f"val/{sweep.table.metric}"
    for trial in [*sweep.confirm_trials, *sweep.screen_trials]:
        rows = read_metrics(trial.folder.path)
        if rows and trial.folder.bundle.is_dir():
            positive = rows[0].get("val/positive")
            return name_figure(
                key, positive and clean_name(positive), len(read_bundle_page(trial.folder.bundle).classes)
            )
    return key


def name_best(metric: str) -> str:
    """Return the key of a metric's best epoch in a run's summary.

    >>> name_best("val/accuracy"), name_best("val/log_loss")
    ('val/accuracy.max', 'val/log_loss.min')
    """
    return f"{metric}.{choose_summary(metric)}"


def name_confusion(variant: str) -> str:
    """Return the key of a variant's confusion matrix in the last run.

    >>> name_confusion("net=a_rate=0.1")
    'confusion/net=a_rate=0_1'
    """
    return f"{CONFUSION}/{clean_name(variant)}"
