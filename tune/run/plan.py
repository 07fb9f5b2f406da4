"""`tune.run --plan`: every trial of a sweep with its options, and what it will take; no trial is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.cli.progress import describe_duration
from shards.errors import ShardError, UsageError
from shards.files.sizes import format_size
from trainer.recipes.recipe import Recipe
from trainer.run.dry_run import Plan, plan_run
from tune.run.check import find_refusal
from tune.space.options import Space
from tune.space.variants import Trial, make_confirm_trials, make_probes, make_screen_trials, make_variants


@dataclass(frozen=True)
class PlannedTrial:
    """One trial: what its levels set, and its seconds and bytes of disk. refusal: why it cannot train, or ""."""

    name: str
    options: dict[str, Any]
    epochs: int
    time_s: float
    disk: int
    refusal: str = ""


@dataclass(frozen=True)
class SweepPlan:
    """The trials of the screen and of the confirmation, which is as large as its slowest variants would make it.

    aliases: Effects that the design cannot tell apart. generators: Factors that follow others in the design.
    """

    screen: list[PlannedTrial]
    confirm: list[PlannedTrial]
    aliases: list[list[str]]
    generators: dict[str, str]

    @property
    def time_s(self) -> float:
        """Seconds of all trials, one after the other, none stopped early."""
        return sum(trial.time_s for trial in (*self.screen, *self.confirm))

    @property
    def disk(self) -> int:
        """Bytes of all trials."""
        return sum(trial.disk for trial in (*self.screen, *self.confirm))


def plan_sweep(recipe: Recipe, space: Space, seeds: int | None) -> SweepPlan:
    """Rehearse a few steps of each distinct model and size, and return the plan of a sweep."""
    from trainer.record.run_folder import RunFolder

    recipe = recipe.with_absolute_paths()
    sweep_dir, variants = RunFolder.of(recipe).path, make_variants(recipe, space)
    rehearsed: dict[tuple[object, ...], Plan | str] = {}
    screen = [_plan_trial(trial, space, rehearsed) for trial in make_screen_trials(variants, space, sweep_dir)]
    if space.searcher == "tpe":
        probes = [_plan_trial(trial, space, rehearsed) for trial in make_probes(recipe, space, sweep_dir)]
        screen += _plan_suggested(
            space, max((each for each in probes if not each.refusal), key=_get_time, default=None)
        )
    confirm: list[PlannedTrial] = []
    if space.confirm is not None:
        count = seeds or space.confirm.seeds
        possible = make_confirm_trials(variants, range(recipe.seed + 1, recipe.seed + 1 + count), sweep_dir, space)
        planned = [_plan_trial(trial, space, rehearsed) for trial in possible]
        fitting = [trial for trial in planned if not trial.refusal]
        baseline, others = fitting[:count], fitting[count:]
        confirm = baseline + sorted(others, key=_get_time, reverse=True)[: space.confirm.top * count]
    fraction = space.make_fraction() if space.design == "fractional" else None
    return SweepPlan(screen, confirm, fraction.aliases if fraction else [], fraction.generators if fraction else {})


def _get_time(trial: PlannedTrial) -> float:
    return trial.time_s


def _plan_suggested(space: Space, slowest: PlannedTrial | None) -> list[PlannedTrial]:
    """Return the trials of a search that learns, each like the slowest that it may suggest."""
    assert space.trials is not None  # checked by Space
    epochs, time_s, disk = (slowest.epochs, slowest.time_s, slowest.disk) if slowest else (0, 0.0, 0)
    options = dict.fromkeys(space.search, "as suggested then")
    return [PlannedTrial(f"t{number:04}", options, epochs, time_s, disk) for number in range(space.trials)]


def _plan_trial(trial: Trial, space: Space, rehearsed: dict[tuple[object, ...], Plan | str]) -> PlannedTrial:
    recipe = trial.recipe
    key = (recipe.model, recipe.weights, recipe.image_size, recipe.batch_size_global, recipe.amp, str(recipe.freeze))
    if key not in rehearsed:
        try:
            rehearsed[key] = plan_run(recipe)
        except (UsageError, ShardError) as err:
            rehearsed[key] = str(err)
    refusal = find_refusal(trial)
    found = rehearsed[key] if refusal is None else str(refusal)
    levels = trial.variant.levels
    options: dict[str, Any] = {name: value for name, value in levels.items() if value}
    if space.factors:
        options = {name: value for each in levels for name, value in space.factors[each][levels[each]].items()}
    if isinstance(found, str):
        return PlannedTrial(trial.name, options, recipe.epochs, 0.0, 0, found)
    return PlannedTrial(
        trial.name, options, recipe.epochs, found.time["epoch_s"] * recipe.epochs, found.storage["needed"]
    )


def describe_plan(plan: SweepPlan, at_once: int) -> str:
    """Return the plan for people."""
    lines = [f"screen: {len(plan.screen)} trials", *map(_describe, plan.screen)]
    if plan.confirm:
        lines += [f"confirm: {len(plan.confirm)} runs of the baseline and, at most, of its slowest rivals"]
    for name, followed in plan.generators.items():
        lines.append(f"design: {name} follows {followed}")
    lines += [f"cannot be told apart: {' = '.join(group)}" for group in plan.aliases]
    total = describe_duration(plan.time_s / max(1, at_once))
    lines.append(f"at most {total} with {at_once} at a time, and {format_size(plan.disk)} of disk")
    return "\n".join(lines)


def _describe(trial: PlannedTrial) -> str:
    said = ", ".join(f"{name}={value}" for name, value in trial.options.items()) or "the recipe as it is"
    if trial.refusal:
        return f"  {trial.name}: cannot train: {trial.refusal}"
    return f"  {trial.name}: {trial.epochs} epochs, {describe_duration(trial.time_s)}; {said}"


def as_json(plan: SweepPlan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    return {
        "screen": [vars(trial) for trial in plan.screen],
        "confirm": [vars(trial) for trial in plan.confirm],
        "aliases": plan.aliases,
        "generators": plan.generators,
        "time_s": plan.time_s,
        "disk": plan.disk,
    }
