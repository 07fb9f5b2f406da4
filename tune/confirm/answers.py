"""What the test split says of the confirmed variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import ShardError
from shards.files.atomic import write_text
from trainer.contract.bundle import Bundle
from trainer.evaluate.bundle import evaluate_bundle
from trainer.evaluate.files import Judging
from trainer.evaluate.positive import find_positive
from trainer.evaluate.predictions import read_predictions
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import build_recipe
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.run_folder import RunFolder
from trainer.record.track.track import Tracker
from trainer.run.finish import track_evaluation
from trainer.weights.resolve import resolve_recipe
from tune.confirm.plan import TEST, ConfirmPlan
from tune.space.options import Space
from tune.space.variants import Trial
from tune.stats.compare import Comparison, compare
from tune.stats.runs import Variant as Answers
from tune.stats.scores import METRICS
from tune.trials.table import Table

COMPARISON = "comparison.json"
EVAL = "eval"
"""Folder, in that of a confirming run, of the W&B run of its evaluation."""


def evaluate_on_test(trials: Sequence[Trial], space: Space) -> None:
    """Evaluate the trials on the test split, as tasks on the cluster; what was evaluated before is left as it is."""
    task = ray.remote(num_cpus=space.cpus_per_trial, num_gpus=space.gpus_per_trial)(evaluate_recipe)
    missing = [trial for trial in trials if not find_predictions(trial).is_file()]
    ray.get([task.remote(trial.recipe.model_dump(mode="json")) for trial in missing])


def evaluate_recipe(values: Mapping[str, object]) -> None:
    """Evaluate the run of a recipe on the test split; it is tracked as a W&B run of its own, of the job_type eval."""
    recipe = resolve_recipe(build_recipe(dict(values)))
    folder, ranks = RunFolder.of(recipe), single_rank()
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    bundle, judging = Bundle.load(folder.bundle, str(ranks.device)), Judging(stored=find_positive(recipe, dataset))
    out = folder.path / "evaluation" / TEST
    rows, metrics = evaluate_bundle(bundle, dataset, TEST, ranks, ranks.count_workers(recipe.workers), out, judging)
    if recipe.track.choose_wandb_mode() != "disabled":
        tracker = _start_tracker(recipe, folder, dataset)
        track_evaluation(tracker, bundle.page, dataset.split(TEST), rows, metrics)
        tracker.close()


def _start_tracker(recipe: ResolvedRecipe, folder: RunFolder, dataset: Dataset) -> Tracker:
    """Return the W&B run of an evaluation, which has the name and config of the evaluated run and an id of its own."""
    place = folder.path / EVAL
    place.mkdir(exist_ok=True)
    track = recipe.track.model_copy(update={"job_type": "eval", "tensorboard": False})
    tracker = Tracker(recipe.model_copy(update={"track": track}), place, 1)
    tracker.start(dataset, 0)
    return tracker


def find_predictions(trial: Trial) -> Path:
    """Return the file of a trial's answers to the test split."""
    return trial.folder.path / "evaluation" / TEST / "predictions.parquet"


def compare_confirmed(plan: ConfirmPlan, trials: Sequence[Trial], table: Table, sweep_dir: Path) -> Comparison:
    """Compare the variants of which at least two runs finished, and write comparison.json.

    Raises:
        ShardError: The baseline, or every other variant, has fewer than two finished runs.
    """
    finished = {row.trial for row in table.finished}
    answers = []
    for name in plan.variants:
        files = [find_predictions(trial) for trial in trials if trial.variant.name == name and trial.name in finished]
        if len(files) >= 2:
            answers.append(Answers(name, files, [read_predictions(file) for file in files]))
    if len(answers) < 2 or answers[0].name != plan.baseline:
        lost = next(iter(table.failures.values()), "they were stopped")
        raise ShardError(f"too few runs finished to compare {plan.baseline} with another variant: {lost}")
    result = compare(answers, plan.baseline, choose_metric(trials[0].recipe))
    write_text(sweep_dir / COMPARISON, result.model_dump_json(indent=2) + "\n")
    return result


def read_comparison(sweep_dir: Path) -> Comparison | None:
    """Return the comparison of a sweep, None before it has one."""
    path = sweep_dir / COMPARISON
    return Comparison.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def choose_metric(recipe: Recipe) -> str:
    """Return the metric that variants are compared by: the one that chose epochs, or accuracy where that cannot be."""
    return recipe.stop.metric if recipe.stop.metric in METRICS else "accuracy"
