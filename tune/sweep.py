"""A sweep: trials on Ray Tune with ASHA, then the table and the best bundle."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

# Ray reads these when it is imported: our bar and table replace its boxes and warnings.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from shards.cli.progress import draw_bar
from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import Interrupted, ShardError, UsageError
from shards.files.atomic import replace_folder, write_json, write_text
from trainer.recipes.misfit import refuse_misfit, settle_metric
from trainer.recipes.recipe import Recipe
from trainer.record.progress import TICK_S
from trainer.record.run_folder import RESULT, STOP_FILE, hold_folder
from trainer.run.launch import stop_on_signal
from trainer.run.ray.launch import connect_ray
from tune.progress import SweepProgress
from tune.space import Space, Trial, make_trials
from tune.table import Table, read_table, write_table
from tune.trial import run_trial

BEST = "best"
MAX_FAILURES = 1


def run_sweep(recipe: Recipe, space: Space, sweep_dir: Path) -> Table:
    """Run the missing trials of a sweep and return its table; the best bundle is in `sweep_dir/best`.

    A finished sweep is not run again.

    Raises:
        UsageError: The folder belongs to another sweep, another command is running in it, or the cluster cannot hold a
            trial.
        Interrupted: Stopped by Ctrl-C; the same command resumes.
        ShardError: No trial finished.
    """
    dataset = open_dataset(recipe.data, recipe.cache_options()).require_labels()
    dataset.split("val")
    recipe = settle_metric(recipe, dataset)
    trials = make_trials(recipe, space, sweep_dir)
    _refuse_misfits(trials, dataset)
    with hold_folder(sweep_dir):
        _claim(sweep_dir, recipe, space)
        return _run(trials, space, sweep_dir)


def _run(trials: list[Trial], space: Space, sweep_dir: Path) -> Table:
    if (sweep_dir / RESULT).is_file():
        return read_table(trials, {})
    (sweep_dir / STOP_FILE).unlink(missing_ok=True)
    with stop_on_signal(sweep_dir), connect_ray(space.cpus_per_trial, space.gpus_per_trial, 1):
        crashes = _fit(trials, space, sweep_dir)
        if (sweep_dir / STOP_FILE).exists():
            raise Interrupted(
                f"interrupted; the trials so far are in {sweep_dir}, and the same command resumes with them"
            )
    table = read_table(trials, crashes)
    write_table(sweep_dir, table)
    if table.best is None:
        raise ShardError(f"no trial of {sweep_dir} finished; {next(iter(table.failures.items()), 'none failed')}")
    with replace_folder(sweep_dir / BEST) as best:
        shutil.copytree(sweep_dir / "trials" / table.best.trial / "bundle", best, dirs_exist_ok=True)
    write_json(sweep_dir / RESULT, {"best": table.best.trial})
    return table


def _refuse_misfits(trials: list[Trial], dataset: Dataset) -> None:
    """Refuse a sweep if none of its trials fits the dataset; if some do, each misfit trial records its own refusal."""
    refusals = []
    for trial in trials:
        try:
            refuse_misfit(trial.recipe, dataset)
        except UsageError as err:
            refusals.append(err)
    if len(refusals) == len(trials):
        raise refusals[0]


def _claim(sweep_dir: Path, recipe: Recipe, space: Space) -> None:
    """Make the sweep's folder and save the recipe and space that it belongs to."""
    content = {"recipe": recipe.fingerprint(), "space": space.model_dump(mode="json", include={"factors"})}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path = sweep_dir / "sweep.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"{sweep_dir} holds a sweep of another recipe or space; choose another name=, or delete that folder"
        )
    write_text(path, text)


def _fit(trials: list[Trial], space: Space, sweep_dir: Path) -> dict[str, str]:
    """Run all trials; return the last line of the error of each crashed trial, by name."""
    shutil.rmtree(sweep_dir / "ray", ignore_errors=True)  # Tune's own state; ours is in the trials' folders
    recipe, progress = trials[0].recipe, SweepProgress(trials)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"cpu": space.cpus_per_trial, "gpu": space.gpus_per_trial}),
        param_space={
            "recipe": tune.grid_search([trial.recipe.model_dump(mode="json") for trial in trials]),
            "sweep_dir": str(sweep_dir),
            "cpus": space.cpus_per_trial,
        },
        tune_config=tune.TuneConfig(
            trial_dirname_creator=lambda trial: trial.config["recipe"]["name"],
            metric="score",
            mode="max",
            reuse_actors=True,  # a new process would import torch again for each trial
            scheduler=ASHAScheduler(
                time_attr="epoch",
                max_t=max(trial.recipe.epochs for trial in trials) + 1,  # + 1: the loop ends a trial, after its bundle
                grace_period=min(space.grace_epochs, recipe.epochs),
                reduction_factor=space.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(sweep_dir),
            verbose=0,
            callbacks=[progress],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    results: list[tune.ResultGrid | Exception] = []
    progress.begin()

    def fit() -> None:
        try:
            results.append(tuner.fit())
        except Exception as err:
            results.append(err)

    thread = threading.Thread(target=fit, name="tune", daemon=True)
    thread.start()
    _watch(thread, trials, sweep_dir, progress)
    if isinstance(results[0], Exception):
        raise results[0]
    return {
        str(result.config["recipe"]["name"]): str(result.error).strip().splitlines()[-1]
        for result in results[0]
        if result.error is not None and result.config is not None
    }


def _watch(thread: threading.Thread, trials: list[Trial], sweep_dir: Path, progress: SweepProgress) -> None:
    """Show the number of finished epochs until the thread ends; pass a stop request on to the running trials."""
    total = sum(trial.recipe.epochs for trial in trials)
    with draw_bar(total=total, unit="epoch", desc=sweep_dir.name) as bar:
        while thread.is_alive():
            thread.join(TICK_S)
            bar.update(progress.count_epochs() - bar.n)
            progress.tick()
            if (sweep_dir / STOP_FILE).exists():
                for trial in trials:
                    if trial.folder.path.is_dir():
                        trial.folder.stop_file.touch()
