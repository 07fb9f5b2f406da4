"""The second half of a sweep: what is confirmed is written down, trained, evaluated on test once, and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from pydantic import BaseModel, ConfigDict

from shards.dataset.dataset import open_dataset
from shards.errors import ShardError, UsageError
from shards.files.atomic import write_text
from trainer.contract.bundle import Bundle
from trainer.evaluate.bundle import evaluate_bundle
from trainer.evaluate.files import Judging
from trainer.evaluate.positive import find_positive
from trainer.evaluate.predictions import read_predictions
from trainer.ranks.ranks import single_rank
from trainer.recipes.recipe import Recipe
from trainer.weights.resolve import resolve_recipe
from tune.space.options import Space
from tune.space.variants import Trial, Variant
from tune.stats.compare import Comparison, compare
from tune.stats.runs import Variant as Answers
from tune.stats.scores import METRICS
from tune.trials.table import Table

PLAN, COMPARISON = "confirm.json", "comparison.json"
TEST = "test"


class ConfirmPlan(BaseModel):
    """What is confirmed, written before the test split is opened.

    variants: Names, the baseline first. extended: whether seeds or variants were added after the test split had been
    read.
    """

    model_config = ConfigDict(frozen=True)

    baseline: str
    variants: list[str]
    seeds: list[int]
    chosen_by: str
    dataset: str
    extended: bool = False


def plan_confirm(
    sweep_dir: Path, table: Table, variants: Sequence[Variant], space: Space, seeds: int, dataset: str
) -> ConfirmPlan:
    """Return the plan of a sweep, written down in its folder; what an earlier plan has stays in it.

    Args:
        sweep_dir: The folder of the sweep.
        table: The screen.
        variants: All variants, the baseline first.
        space: The space, with `confirm`.
        seeds: Runs of each variant.
        dataset: Fingerprint of the data.

    Raises:
        ShardError: No variant besides the baseline finished the screen, or the baseline failed in it.
    """
    assert space.confirm is not None
    baseline = variants[0]
    failed = [name for name in table.failures if name == f"{baseline.name}-s{baseline.recipe.seed}"]
    if failed:
        raise ShardError(
            f"the baseline {baseline.name} failed in the screen, so there is nothing to compare with: "
            f"{table.failures[failed[0]]}"
        )
    rivals = [row.variant for row in table.finished if row.variant != baseline.name]
    chosen = [baseline.name, *rivals[: space.confirm.top]]
    if len(chosen) < 2:
        raise ShardError(f"no variant but the baseline finished the screen in {sweep_dir}; there is nothing to confirm")
    first = baseline.recipe.seed + 1  # fresh: the screen had the recipe's own
    wanted = list(range(first, first + seeds))
    before = read_plan(sweep_dir)
    if before is not None:
        kept = before.seeds + [seed for seed in wanted if seed not in before.seeds]
        added = [name for name in chosen if name not in before.variants]
        has_more = bool(added) or kept != before.seeds
        opened = (sweep_dir / COMPARISON).is_file()
        plan = before.model_copy(
            update={
                "variants": before.variants + added,
                "seeds": kept,
                "extended": before.extended or (has_more and opened),
            }
        )
    else:
        metric = table.metric.replace("_", " ")
        by = f"the best validation {metric} of one run each, on the budget of the screen"
        plan = ConfirmPlan(baseline=baseline.name, variants=chosen, seeds=wanted, chosen_by=by, dataset=dataset)
    write_text(sweep_dir / PLAN, plan.model_dump_json(indent=2) + "\n")
    return plan


def read_plan(sweep_dir: Path) -> ConfirmPlan | None:
    """Return the plan of a sweep, None before it has one."""
    path = sweep_dir / PLAN
    return ConfirmPlan.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def evaluate_on_test(trials: Sequence[Trial], space: Space) -> None:
    """Evaluate the trials on the test split, as tasks on the cluster; what was evaluated before is left as it is."""
    task = ray.remote(num_cpus=space.cpus_per_trial, num_gpus=space.gpus_per_trial)(_evaluate)
    missing = [trial for trial in trials if not find_predictions(trial).is_file()]
    ray.get([task.remote(trial.recipe.model_dump(mode="json")) for trial in missing])


def _evaluate(values: Mapping[str, object]) -> None:
    from trainer.recipes.file import build_recipe
    from trainer.record.run_folder import RunFolder

    recipe = resolve_recipe(build_recipe(dict(values)))
    folder, ranks = RunFolder.of(recipe), single_rank()
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    bundle, judging = Bundle.load(folder.bundle, str(ranks.device)), Judging(stored=find_positive(recipe, dataset))
    out = folder.path / "evaluation" / TEST
    evaluate_bundle(bundle, dataset, TEST, ranks, ranks.count_workers(recipe.workers), out, judging)


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


def read_comparison(sweep_dir: Path) -> Comparison:
    """Return the comparison of a finished sweep."""
    return Comparison.model_validate_json((sweep_dir / COMPARISON).read_text(encoding="utf-8"))


def choose_metric(recipe: Recipe) -> str:
    """Return the metric that variants are compared by: the one that chose epochs, or accuracy where that cannot be."""
    return recipe.stop.metric if recipe.stop.metric in METRICS else "accuracy"


def choose_best(plan: ConfirmPlan, table: Table, recipe: Recipe) -> str:
    """Return the name of the run to keep: of the variant with the best mean on validation, the best run there.

    The test split has no say: what is said of it would otherwise be too good.
    """
    sign = -1 if recipe.stop.lower_is_better else 1
    values = {name: [row for row in table.finished if row.variant == name] for name in plan.variants}
    means = {
        name: sign * math.fsum(row.value for row in rows) / len(rows) for name, rows in values.items() if len(rows) > 1
    }
    best = max(means, key=lambda name: means[name])
    return max(values[best], key=lambda row: sign * row.value).trial


def refuse_without_test(splits: Sequence[str], data: str) -> None:
    """Raise UsageError if there is no test split to confirm on."""
    if TEST not in splits:
        raise UsageError(
            f"confirm compares variants on the test split, but {data} has none; pack the pictures again with "
            "--split test=0.1, or leave confirm out of the space"
        )
