"""Start a run in this process, in several local processes, or as Ray Train workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from shards.cli.messages import showing_messages_by_default
from shards.cli.progress import draw_bar
from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import Interrupted, UsageError
from trainer.feed.augment.policies import check_augment
from trainer.loop.loop import Outcome
from trainer.ranks.processes import run_processes
from trainer.ranks.ranks import Ranks
from trainer.ranks.watching import watching
from trainer.recipes.misfit import refuse_misfit, settle_metric
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.logbook import read_progress
from trainer.record.notes import keep_notes
from trainer.record.run_folder import STOP_FILE, RunFolder, hold_folder
from trainer.record.store.bring import fetch_outputs
from trainer.run.job import run_rank
from trainer.step.memory import RankMemoryError
from trainer.weights.resolve import check_growth, list_train_sizes, resolve_recipe

logger = logging.getLogger(__name__)
progress_logger = logging.getLogger(f"{__name__}.progress")


def launch(recipe: Recipe) -> RunFolder:
    """Train, evaluate and bundle; return the run folder. A finished run is not changed.

    Progress is logged at INFO by `trainer.record.progress`, one line per epoch and at least one per minute; notes are
    logged by other loggers of `trainer` and `shards`. In a process without handlers, such as a notebook, they go to
    standard error; call `logging.getLogger("trainer").setLevel("WARNING")` first to suppress progress.

    Raises:
        UsageError: The run's folder belongs to another recipe, another command is using it, or data or model do
            not fit.
        Interrupted: Stopped by Ctrl-C; the state was saved.
    """
    resolved = resolve_recipe(recipe)
    choose_launch(resolved)
    resolved, _ = open_data(resolved)  # the most common mistakes are reported before any process starts
    folder = RunFolder.of(resolved)
    with showing_messages_by_default(), hold_folder(folder.path):
        folder.claim(resolved)
        if not _has_outputs(folder):
            _run(resolved, folder)
    return folder


def _run(recipe: ResolvedRecipe, folder: RunFolder) -> None:
    folder.stop_file.unlink(missing_ok=True)
    with keep_notes(folder.path), show_progress(recipe.name, folder), stop_on_signal(folder.path):
        outcome = _start(recipe, folder)
    if outcome == "interrupted":
        raise Interrupted(f"interrupted; the state is saved in {folder}, and the same command resumes from it")
    _has_outputs(folder)


def _has_outputs(folder: RunFolder) -> bool:
    """Return whether the run is finished; its outputs are then on this machine."""
    if not folder.is_finished:
        fetch_outputs(folder)
    return folder.is_finished


def open_data(recipe: ResolvedRecipe) -> tuple[ResolvedRecipe, Dataset]:
    """Return the recipe with values from its dataset filled in, and the dataset, after checking that they fit.

    Raises:
        UsageError: There is no dataset, it has no labels or labels that do not fit the recipe, a needed split is
            missing, or the recipe's augmentation or progressive resizing is invalid.
    """
    check_growth(recipe)
    for size in list_train_sizes(recipe):
        check_augment(recipe.augment, recipe.preprocess.channels, size)
    dataset = open_dataset(recipe.data, recipe.cache_options())
    recipe = settle_metric(recipe, dataset)
    refuse_misfit(recipe, dataset)
    for part in ("train", "val"):
        dataset.split(part)
    _refuse_unevaluated(recipe, dataset)
    return recipe, dataset


def _refuse_unevaluated(recipe: Recipe, dataset: Dataset) -> None:
    """Raise UsageError if a split that only the final evaluation needs is missing."""
    try:
        for part in recipe.evaluate_on:
            dataset.split(part)
    except UsageError as err:
        there = ", ".join(part for part in recipe.evaluate_on if part in dataset.manifest.splits)
        raise UsageError(f"{err}; or give evaluate_on=[{there or 'val'}], which does not need {part}") from err


@contextlib.contextmanager
def stop_on_signal(run_dir: Path) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a stop file, which every kind of run checks; a second one ends at once."""

    def ask(_signum: int, _frame: FrameType | None) -> None:
        if (run_dir / STOP_FILE).exists():
            raise KeyboardInterrupt
        (run_dir / STOP_FILE).touch()

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        (run_dir / STOP_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def show_progress(name: str, folder: RunFolder) -> Iterator[None]:
    """Show a bar that follows progress.json, wherever the ranks run, and confirm a stop request."""
    heard = False
    with draw_bar(unit="picture", desc=name) as bar:

        def follow() -> None:
            nonlocal heard
            if not heard and folder.stop_file.exists():
                heard = True
                progress_logger.info("stopping: the state is saved after this step; Ctrl-C again stops at once")
            progress = read_progress(folder.path)
            bar.total = progress["total"] or None
            bar.set_postfix(progress["numbers"], refresh=False)
            bar.update(progress["samples_seen"] - bar.n)

        with watching(follow, "progress", 0.5):
            yield


def _start(recipe: ResolvedRecipe, folder: RunFolder) -> Outcome:
    if choose_launch(recipe) == "ray":
        from trainer.run.ray.launch import run_on_ray  # the only way in for Ray; without it the rest runs

        return run_on_ray(recipe, folder)
    return run_until_it_fits(recipe, _run_local_rank)


def run_until_it_fits(recipe: ResolvedRecipe, run_local: Callable[[Ranks, ResolvedRecipe], Outcome]) -> Outcome:
    """Run on local processes, restarting when memory runs out on one of several ranks; return the outcome."""
    while True:
        try:
            return run_processes(run_local, (recipe,), recipe.most_ranks)
        except RankMemoryError as err:
            logger.warning("%s", err)


def choose_launch(recipe: Recipe) -> str:
    """Return local or ray; auto is ray for several ranks or if a cluster is given.

    Raises:
        UsageError: A range of ranks without Ray.
    """
    if recipe.launch == "local" and recipe.is_elastic:
        raise UsageError(
            f"num_ranks={recipe.num_ranks} adapts to a Ray cluster, but launch=local uses none; "
            "give one number, or launch=ray"
        )
    if recipe.launch != "auto":
        return recipe.launch
    return "ray" if recipe.most_ranks > 1 or os.environ.get("RAY_ADDRESS") else "local"


def _run_local_rank(ranks: Ranks, recipe: ResolvedRecipe) -> Outcome:
    """Run one rank that reports only to metrics.jsonl."""
    return run_rank(recipe, ranks, lambda _numbers: None)
