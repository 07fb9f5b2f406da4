"""A sweep: variants are screened on Ray Tune, the best confirmed with fresh seeds, the best bundle kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import Interrupted, ShardError, UsageError
from shards.files.atomic import replace_folder, write_json
from trainer.recipes.misfit import refuse_misfit, settle_metric
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RESULT, STOP_FILE, RunFolder, hold_folder
from trainer.run.launch import stop_on_signal
from trainer.run.ray.launch import connect_ray
from tune.run.confirm import (
    ConfirmPlan,
    choose_best,
    compare_confirmed,
    evaluate_on_test,
    plan_confirm,
    read_comparison,
    read_plan,
    refuse_without_test,
)
from tune.run.folder import claim, forget_changed
from tune.run.options import SweepOptions
from tune.space.options import Space
from tune.space.variants import Trial, make_confirm_trials, make_screen_trials, make_variants
from tune.stats.compare import Comparison
from tune.trials.table import Table, read_table, write_table
from tune.trials.tuning import run_trials

BEST = "best"


@dataclass(frozen=True)
class Sweep:
    """A sweep that has ended.

    folder: Its folder. table: The screen. confirmed: Runs of the confirmation on validation, None if there was none.
    comparison: Variants against the baseline on the test split, None likewise. best: Name of the run whose bundle,
    recipe and evaluation are in `folder/best`, None if the sweep ended after the screen.
    """

    folder: Path
    table: Table
    confirmed: Table | None
    comparison: Comparison | None
    best: str | None

    @property
    def failures(self) -> dict[str, str]:
        """Why trials did not finish, by name."""
        return self.table.failures | (self.confirmed.failures if self.confirmed else {})


def run_sweep(recipe: Recipe, space: Space, options: SweepOptions | None = None) -> Sweep:
    """Run what is missing of a sweep; the best bundle is in `best/bundle` of its folder.

    A finished sweep is only opened.

    Raises:
        UsageError: The folder belongs to another sweep, another command is running in it, or the cluster cannot hold a
            trial.
        Interrupted: Stopped by Ctrl-C; the same command resumes.
        ShardError: No trial finished, or too few to compare.
    """
    options = options or SweepOptions()
    recipe = recipe.with_absolute_paths()
    sweep_dir = RunFolder.of(recipe).path
    dataset = open_dataset(recipe.data, recipe.cache_options()).require_labels()
    dataset.split("val")
    if space.confirm is not None:
        refuse_without_test(dataset.splits, recipe.data)
    recipe = settle_metric(recipe, dataset)
    variants = make_variants(recipe, space)
    trials = make_screen_trials(variants, space, sweep_dir)
    _refuse_misfits(trials, dataset)
    with hold_folder(sweep_dir):
        claim(sweep_dir, recipe, dataset.fingerprint(), space, extend=options.extend)
        if options.extend:
            forget_changed(trials)
        return _Run(recipe, space, options, sweep_dir, dataset, trials).run()


@dataclass(frozen=True)
class _Run:
    recipe: Recipe
    space: Space
    options: SweepOptions
    sweep_dir: Path
    dataset: Dataset
    trials: list[Trial]

    def run(self) -> Sweep:
        plan = read_plan(self.sweep_dir)
        if (self.sweep_dir / RESULT).is_file() and (plan is None or len(plan.seeds) >= self._seeds):
            return self._open()
        (self.sweep_dir / STOP_FILE).unlink(missing_ok=True)
        with stop_on_signal(self.sweep_dir), connect_ray(self.space.cpus_per_trial, self.space.gpus_per_trial, 1):
            table = self._screen()
            if self.space.confirm is None:
                assert table.best is not None
                return self._keep(table.best.trial, self.trials, table)
            if self.options.screen_only:
                return Sweep(self.sweep_dir, table, None, None, None)
            return self._confirm(table)

    @property
    def _seeds(self) -> int:
        assert self.space.confirm is not None or self.options.seeds is None
        return self.options.seeds or (self.space.confirm.seeds if self.space.confirm else 0)

    def _screen(self) -> Table:
        if not self.options.confirm_only:
            run_trials(self.trials, self.space, self.space.screen, self.sweep_dir)
        self._refuse_stopped()
        table = read_table(self.trials)
        write_table(self.sweep_dir, table)
        if table.best is None:
            raise ShardError(
                f"no trial of {self.sweep_dir} finished; {next(iter(table.failures.items()), 'none failed')}"
            )
        return table

    def _confirm(self, table: Table) -> Sweep:
        variants = make_variants(self.recipe, self.space)
        fingerprint = self.dataset.fingerprint()
        plan = plan_confirm(self.sweep_dir, table, variants, self.space, self._seeds, fingerprint)
        trials = self._list_confirmed(plan)
        forget_changed(trials)
        run_trials(trials, self.space, None, self.sweep_dir)
        self._refuse_stopped()
        confirmed = read_table(trials)
        finished = {row.trial for row in confirmed.finished}
        evaluate_on_test([trial for trial in trials if trial.name in finished], self.space)
        comparison = compare_confirmed(plan, trials, confirmed, self.sweep_dir)
        best = choose_best(plan, confirmed, self.recipe)
        return self._keep(best, trials, table, confirmed, comparison)

    def _list_confirmed(self, plan: ConfirmPlan) -> list[Trial]:
        named = {variant.name: variant for variant in make_variants(self.recipe, self.space)}
        return make_confirm_trials([named[name] for name in plan.variants], plan.seeds, self.sweep_dir)

    def _keep(
        self,
        best: str,
        trials: list[Trial],
        table: Table,
        confirmed: Table | None = None,
        comparison: Comparison | None = None,
    ) -> Sweep:
        """Copy the bundle, recipe and evaluation of a run to `best`, and mark the sweep as finished."""
        folder = next(trial.folder for trial in trials if trial.name == best)
        with replace_folder(self.sweep_dir / BEST) as out:
            shutil.copytree(folder.bundle, out / "bundle")
            shutil.copy(folder.path / "recipe.yaml", out)
            if (folder.path / "evaluation").is_dir():
                shutil.copytree(folder.path / "evaluation", out / "evaluation")
        write_json(self.sweep_dir / RESULT, {"best": best})
        return Sweep(self.sweep_dir, table, confirmed, comparison, best)

    def _open(self) -> Sweep:
        """Return the finished sweep in the folder."""
        best = json.loads((self.sweep_dir / RESULT).read_text(encoding="utf-8"))["best"]
        table, plan = read_table(self.trials), read_plan(self.sweep_dir)
        if plan is None:
            return Sweep(self.sweep_dir, table, None, None, best)
        return Sweep(
            self.sweep_dir, table, read_table(self._list_confirmed(plan)), read_comparison(self.sweep_dir), best
        )

    def _refuse_stopped(self) -> None:
        if (self.sweep_dir / STOP_FILE).exists():
            raise Interrupted(
                f"interrupted; the trials so far are in {self.sweep_dir}, and the same command resumes with them"
            )


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
