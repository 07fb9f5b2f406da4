"""A sweep that has ended, as its folder has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RESULT
from tune.confirm.answers import read_comparison
from tune.confirm.plan import ConfirmPlan, read_plan
from tune.result.folder import read_identity
from tune.space.options import Space
from tune.space.suggested import read_suggested
from tune.space.variants import Trial, Variant, make_confirm_trials, make_screen_trials, make_variants
from tune.stats.compare import Comparison
from tune.trials.table import Table, read_table

BEST = "best"


@dataclass(frozen=True)
class Sweep:
    """A sweep: what it tried, and what it found.

    folder: Its folder. dataset: Fingerprint of the data. table: The screen. plan: What is confirmed, None if nothing
    is. confirmed: The confirming runs on validation, None likewise. comparison: Variants against the baseline on the
    test split, None before. best: Name of the run whose bundle, recipe and evaluation are in `folder/best`, None
    before.
    """

    folder: Path
    recipe: Recipe
    space: Space
    dataset: str
    table: Table
    plan: ConfirmPlan | None
    confirmed: Table | None
    comparison: Comparison | None
    best: str | None

    @property
    def failures(self) -> dict[str, str]:
        """Why trials did not finish, by name."""
        return self.table.failures | (self.confirmed.failures if self.confirmed else {})

    @cached_property
    def variants(self) -> list[Variant]:
        """All variants, the baseline first."""
        return make_variants(self.recipe, self.space, read_suggested(self.folder))

    @cached_property
    def screen_trials(self) -> list[Trial]:
        return make_screen_trials(self.variants, self.space, self.folder)

    @cached_property
    def confirm_trials(self) -> list[Trial]:
        return list_confirmed(self.variants, self.plan, self.folder, self.space) if self.plan else []


def list_confirmed(variants: list[Variant], plan: ConfirmPlan, sweep_dir: Path, space: Space) -> list[Trial]:
    """Return the confirming runs of a plan."""
    named = {variant.name: variant for variant in variants}
    return make_confirm_trials([named[name] for name in plan.variants], plan.seeds, sweep_dir, space)


def open_sweep(sweep_dir: str | Path) -> Sweep:
    """Return the sweep in a folder, as far as it has come.

    Raises:
        UsageError: The folder is no sweep's.
    """
    folder = Path(sweep_dir)
    recipe, space, dataset = read_identity(folder)
    plan, result = read_plan(folder), folder / RESULT
    variants = make_variants(recipe, space, read_suggested(folder))
    return Sweep(
        folder=folder,
        recipe=recipe,
        space=space,
        dataset=dataset,
        table=read_table(make_screen_trials(variants, space, folder)),
        plan=plan,
        confirmed=read_table(list_confirmed(variants, plan, folder, space)) if plan else None,
        comparison=read_comparison(folder),
        best=json.loads(result.read_text(encoding="utf-8"))["best"] if result.is_file() else None,
    )
