"""The variants of a space, and the recipes of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shards.errors import UsageError
from trainer.recipes.file import apply_override, build_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import FEATURES, RunFolder
from tune.space.design import Vector, list_full, list_one_factor
from tune.space.options import Space
from tune.space.search import list_probes

BASELINE = "recipe"
"""Name of the variant without changes that a search is compared with."""
_LONGEST = 200
"""Bytes of a variant's name: folders have 255, and seeds are added."""
VARIANT = "variant"
"""Key of the W&B config with the variant of a run."""
_CONFIRMED = ", confirmed"
"""Follows names of variants and levels in the W&B config of confirming runs: charts that group runs by them do not mix
these with trials of the screen, which had another budget or were stopped early."""


@dataclass(frozen=True)
class Variant:
    """One combination of levels, and the recipe with their changes."""

    name: str
    levels: dict[str, str]
    recipe: Recipe


@dataclass(frozen=True)
class Trial:
    """A run of a variant in the folder of a sweep."""

    variant: Variant
    recipe: Recipe

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.recipe)


def make_variants(recipe: Recipe, space: Space, suggested: Sequence[Mapping[str, Any]] = ()) -> list[Variant]:
    """Return the variants of a space, the baseline first; those of a search are named t0000, t0001, ...

    Args:
        recipe: What all variants share.
        space: The space.
        suggested: What a search that learns has suggested so far, see `read_suggested`.

    Raises:
        UsageError: A level sets an option that the recipe does not have, or two variants would have the same name.
    """
    if space.search:
        rows = suggested if space.searcher == "tpe" else space.list_searched(recipe.seed)
        return [make_searched(recipe, space), *(make_searched(recipe, space, *row) for row in enumerate(rows))]
    levels = space.order_levels()
    variants = []
    for places in _list_combinations(space):
        chosen = {factor: levels[factor][place] for factor, place in zip(levels, places, strict=True)}
        name = "_".join(f"{factor}={level}" for factor, level in chosen.items())
        variants.append(Variant(name, chosen, _apply(recipe, [space.factors[each][chosen[each]] for each in chosen])))
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two variants would be named '{twice}'; rename a level or a factor")
    longest = max(names, key=len)
    if len(longest.encode()) > _LONGEST:
        raise UsageError(
            f"the variant '{longest}' has a name of {len(longest.encode())} bytes, too long for its folder; "
            f"shorten names of factors and levels to {_LONGEST} bytes in all"
        )
    return variants


def make_searched(
    recipe: Recipe, space: Space, number: int | None = None, values: Mapping[str, Any] | None = None
) -> Variant:
    """Return one trial of a search; without a number the baseline, which is the recipe itself."""
    if number is None or values is None:
        return Variant(BASELINE, dict.fromkeys(space.search, ""), recipe)
    levels = {option: str(values.get(option, "")) for option in space.search}
    return Variant(f"t{number:04}", levels, _apply(recipe, [values]))


def _list_combinations(space: Space) -> list[Vector]:
    sizes = [len(levels) for levels in space.factors.values()]
    if space.design == "fractional":
        return space.make_fraction().runs
    return list_one_factor(sizes) if space.design == "one_factor" else list_full(sizes)


def _apply(recipe: Recipe, changes: Sequence[Mapping[str, Any]]) -> Recipe:
    """Return the recipe with the changes of some levels, later ones over earlier ones."""
    # Unset options stay unset: a level that changes the optimizer gets that optimizer's defaults.
    values = recipe.model_dump(mode="json", exclude_unset=True)
    for each in changes:
        for option, value in each.items():
            text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
            apply_override(values, f"{option}={text}")
    return build_recipe(values)


def make_screen_trials(variants: Sequence[Variant], space: Space, sweep_dir: Path) -> list[Trial]:
    """Return a run of each variant on the budget of the screen, with the recipe's own seed."""
    return [make_screen_trial(each, space, sweep_dir) for each in variants]


def make_probes(recipe: Recipe, space: Space, sweep_dir: Path) -> list[Trial]:
    """Return trials with the ends of all ranges of a search whose own trials are not known yet; they never run."""
    if space.searcher != "tpe":
        return []
    return make_screen_trials(make_variants(recipe, space, list_probes(space.search)), space, sweep_dir)


def make_screen_trial(variant: Variant, space: Space, sweep_dir: Path) -> Trial:
    """Return one of `make_screen_trials`."""
    epochs = space.screen.find_epochs(variant.recipe.epochs)
    return make_trial(variant, variant.recipe.seed, epochs, sweep_dir / "trials", "trial", space)


def make_confirm_trials(
    variants: Sequence[Variant], seeds: Sequence[int], sweep_dir: Path, space: Space
) -> list[Trial]:
    """Return a whole run of each variant for each seed."""
    return [
        make_trial(each, seed, each.recipe.epochs, sweep_dir / "confirm", "confirm", space)
        for each in variants
        for seed in seeds
    ]


def make_trial(variant: Variant, seed: int, epochs: int, root: Path, kind: str, space: Space) -> Trial:
    """Return a run of a variant below `root`, which does not look at the test split.

    kind: job_type of the run in W&B, trial or confirm. space: What its ranks get.
    """
    values = variant.recipe.model_dump(mode="json", exclude_unset=True)
    values |= {
        "name": f"{variant.name}-s{seed}",
        "seed": seed,
        "epochs": epochs,
        **_place(space),
        "evaluate_on": [],
    }
    storage = {"features": str(root.parent / FEATURES)} if variant.recipe.cache_features else {}
    values["storage"] = {**storage, **values.get("storage", {}), "root": str(root)}
    tags = [*variant.recipe.track.tags, *(f"{factor}={level}" for factor, level in variant.levels.items() if level)]
    config = {**variant.recipe.track.config, **_make_config(variant, kind)}
    track = {"group": root.parent.name, "job_type": kind, "tags": tags, "config": config, "metrics_dir": None}
    values["track"] = {**values.get("track", {}), **track}
    return Trial(variant, build_recipe(values))


def _place(space: Space) -> dict[str, Any]:
    """Return the options of a recipe about its ranks."""
    if space.ranks_per_trial == 1:
        return {"launch": "local", "num_ranks": 1}
    each = {"cpus_per_rank": space.cpus_per_trial, "gpus_per_rank": space.gpus_per_trial}
    return {"launch": "ray", "num_ranks": space.ranks_per_trial, **each}


def _make_config(variant: Variant, kind: str) -> dict[str, str]:
    """Return what W&B groups runs by: the variant and the level of each factor."""
    added = _CONFIRMED if kind == "confirm" else ""
    levels = {name_factor(factor): f"{level}{added}" for factor, level in variant.levels.items() if level}
    return {VARIANT: f"{variant.name}{added}", **levels}


def name_factor(factor: str) -> str:
    """Return the key of the W&B config with the level of a factor; a full stop would make it a nested key.

    >>> name_factor("optim.peak_lr")
    'factor/optim_peak_lr'
    """
    return f"factor/{factor.replace('.', '_')}"
