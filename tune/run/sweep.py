"""A sweep: variants are screened on Ray Tune, the best confirmed with fresh seeds, the best bundle kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.dataset.dataset import open_dataset
from shards.errors import Interrupted, ShardError
from shards.files.atomic import replace_folder, write_json
from shards.storage.shown import show_location
from trainer.recipes.misfit import settle_metric
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RECIPE, RESULT, STOP_FILE, RunFolder, hold_folder
from trainer.run.launch import stop_on_signal
from trainer.run.ray.launch import connect_ray
from tune.confirm.answers import compare_confirmed, evaluate_on_test
from tune.confirm.plan import choose_best, plan_confirm, read_plan, refuse_without_test
from tune.dashboard.run import try_report_run
from tune.report.page import write_report
from tune.result.folder import claim, forget_changed
from tune.result.sweep import BEST, Sweep, list_confirmed, open_sweep
from tune.run.check import refuse_useless
from tune.run.options import SweepOptions
from tune.space.options import Space
from tune.space.suggested import read_suggested
from tune.space.variants import (
    Trial,
    make_probes,
    make_screen_trial,
    make_screen_trials,
    make_searched,
    make_variants,
)
from tune.trials.limits import Limits
from tune.trials.metrics import SweepMeters, measured_sweep
from tune.trials.searcher import RecipeSearcher
from tune.trials.table import Table, read_table, write_table
from tune.trials.tuning import run_trials


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
    space = options.change(space)
    recipe = recipe.with_absolute_paths()
    sweep_dir = RunFolder.of(recipe).path
    dataset = open_dataset(recipe.data, recipe.cache_options()).require_labels()
    dataset.split("val")
    if space.confirm is not None:
        refuse_without_test(dataset.splits, show_location(recipe.data))
    recipe = settle_metric(recipe, dataset)
    trials = make_screen_trials(make_variants(recipe, space, read_suggested(sweep_dir)), space, sweep_dir)
    refuse_useless([*trials, *make_probes(recipe, space, sweep_dir)], space)
    with hold_folder(sweep_dir):
        claim(sweep_dir, recipe, dataset.fingerprint(), space, extend=options.extend)
        if options.extend:
            forget_changed(trials)
        limits = Limits(options.max_hours, options.max_disk)
        has_run = _Run(recipe, space, options, limits, sweep_dir, dataset.fingerprint(), trials).run()
        sweep = open_sweep(sweep_dir)
        write_report(sweep)
        if has_run:
            try_report_run(sweep)
    return sweep


@dataclass(frozen=True)
class _Run:
    recipe: Recipe
    space: Space
    options: SweepOptions
    limits: Limits
    sweep_dir: Path
    dataset: str
    trials: list[Trial]

    def run(self) -> bool:
        """Run what is missing; return False if the sweep was finished before."""
        plan = read_plan(self.sweep_dir)
        if (self.sweep_dir / RESULT).is_file() and (plan is None or len(plan.seeds) >= self._seeds):
            return False
        (self.sweep_dir / STOP_FILE).unlink(missing_ok=True)
        each = self.space.cpus_per_trial, self.space.gpus_per_trial
        with (
            stop_on_signal(self.sweep_dir),
            connect_ray(*each, self.space.ranks_per_trial),
            measured_sweep(self.recipe) as meters,
        ):
            table = self._screen(meters)
            if self.space.confirm is None:
                assert table.best is not None  # checked by _screen
                self._keep(table.best.trial, self.trials)
            elif not self.options.screen_only:
                self._confirm(table, meters)
        return True

    @property
    def _seeds(self) -> int:
        return self.options.seeds or (self.space.confirm.seeds if self.space.confirm else 0)

    def _screen(self, meters: SweepMeters) -> Table:
        if not self.options.confirm_only:
            searcher = self._make_searcher()
            run_trials(self.trials, self.space, self.space.screen, self.sweep_dir, self.limits, searcher, meters)
        self._refuse_stopped()
        table = read_table(self.trials)
        write_table(self.sweep_dir, table)
        if table.best is None:
            raise ShardError(
                f"no trial of {self.sweep_dir} finished; {next(iter(table.failures.items()), 'none failed')}"
            )
        return table

    def _make_searcher(self) -> RecipeSearcher | None:
        """Return what suggests the trials of a search that learns, and adds new ones to `trials`."""
        if self.space.searcher != "tpe":
            return None

        def make(number: int | None, values: Mapping[str, Any]) -> Trial:
            variant = make_searched(self.recipe, self.space, number, values)
            trial = make_screen_trial(variant, self.space, self.sweep_dir)
            known = next((each for each in self.trials if each.name == trial.name), None)
            if known is None:
                self.trials.append(trial)
            return known or trial

        assert self.space.trials is not None  # checked by Space
        return RecipeSearcher(self.space.search, self.space.trials, self.sweep_dir, make, self.recipe.seed)

    def _confirm(self, table: Table, meters: SweepMeters) -> None:
        variants = make_variants(self.recipe, self.space, read_suggested(self.sweep_dir))
        plan = plan_confirm(self.sweep_dir, table, variants, self.space, self._seeds, self.dataset)
        trials = list_confirmed(variants, plan, self.sweep_dir, self.space)
        forget_changed(trials)
        run_trials(trials, self.space, None, self.sweep_dir, self.limits, meters=meters)
        self._refuse_stopped()
        confirmed = read_table(trials)
        finished = {row.trial for row in confirmed.finished}
        evaluate_on_test([trial for trial in trials if trial.name in finished], self.space)
        compare_confirmed(plan, trials, confirmed, self.sweep_dir)
        self._keep(choose_best(plan, confirmed, self.recipe), trials)

    def _keep(self, best: str, trials: list[Trial]) -> None:
        """Copy the bundle, recipe and evaluation of a run to `best`, and mark the sweep as finished."""
        folder = next(trial.folder for trial in trials if trial.name == best)
        with replace_folder(self.sweep_dir / BEST) as out:
            shutil.copytree(folder.bundle, out / "bundle")
            shutil.copy(folder.path / RECIPE, out)
            if (folder.path / "evaluation").is_dir():
                shutil.copytree(folder.path / "evaluation", out / "evaluation")
        write_json(self.sweep_dir / RESULT, {"best": best})

    def _refuse_stopped(self) -> None:
        file = self.sweep_dir / STOP_FILE
        if file.exists():
            why = file.read_text(encoding="utf-8") or "interrupted"
            raise Interrupted(
                f"{why}; the trials so far are in {self.sweep_dir}, and the same command resumes with them"
            )
