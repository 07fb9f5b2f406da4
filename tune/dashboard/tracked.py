"""The W&B runs of a sweep on this machine: whether there are any, and how offline ones are uploaded."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from shards.errors import UsageError
from trainer.record.track.wandb_session import OFFLINE_RUNS, RUN_ID
from tune.result.sweep import Sweep

FOLDER = "dashboard"
"""Folder, in that of a sweep, of the specs and of its last run."""
_KINDS = ("trials/*", "confirm/*", "confirm/*/eval", FOLDER)
"""Patterns of the folders with W&B runs, in the order of their starts."""


def check_tracked(sweep: Sweep) -> str:
    """Return the mode of a sweep's tracking, online or offline.

    Raises:
        UsageError: Its runs were not tracked, tracking is disabled, or WANDB_MODE is unknown.
    """
    mode = sweep.recipe.track.choose_wandb_mode()
    page = f"`python -m tune.report {shlex.quote(str(sweep.folder))}`"
    remedy = f"run it with track.wandb=offline under another name=, or read the page that {page} writes"
    if mode == "disabled":
        by = "the recipe" if sweep.recipe.track.wandb == "disabled" else "WANDB_MODE"
        raise UsageError(f"{by} disables W&B for {sweep.folder}, so it has no dashboard; {remedy}")
    if mode not in ("online", "offline"):
        raise UsageError(f"WANDB_MODE is '{mode}', which makes no dashboard; set it to online or offline, or unset it")
    if not is_tracked(sweep):
        raise UsageError(f"no run of {sweep.folder} was tracked by W&B, so a dashboard would be empty; {remedy}")
    return mode


def is_tracked(sweep: Sweep) -> bool:
    """Return whether W&B has or will get a run of the screen or of the confirmation."""
    return any(next(sweep.folder.glob(f"{kind}/{RUN_ID}"), None) is not None for kind in _KINDS[:2])


def link_runs(sweep_dir: Path) -> Path:
    """Make a folder with links to all starts of trials, and return it: `wandb leet` shows the runs of one folder."""
    out = sweep_dir / FOLDER / "leet"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for kind in _KINDS[:2]:
        for path in sorted(sweep_dir.glob(f"{kind}/wandb/*run-*")):
            if path.is_dir() and not path.is_symlink():  # W&B links its latest run
                (out / path.name).symlink_to(os.path.relpath(path, out))
    return out


def spell_upload(sweep_dir: Path) -> str:
    """Return the command line that uploads the offline runs of a sweep and then makes its dashboard."""
    folder = shlex.quote(str(sweep_dir))
    patterns = [f"{folder}/{kind}/{OFFLINE_RUNS}" for kind in _KINDS if any(sweep_dir.glob(f"{kind}/{OFFLINE_RUNS}"))]
    dashboard = f"WANDB_MODE=online python -m tune.dashboard {folder}"
    return f"wandb sync {' '.join(patterns)} && {dashboard}" if patterns else dashboard
