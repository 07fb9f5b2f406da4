"""What is confirmed: written down before the test split is opened, and the run that is kept in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from shards.errors import ShardError, UsageError
from shards.files.atomic import write_text
from trainer.recipes.recipe import Recipe
from tune.space.options import Space
from tune.space.variants import Variant
from tune.trials.table import Table

PLAN = "confirm.json"
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
        opened = any(sweep_dir.glob(f"confirm/*/evaluation/{TEST}"))
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
