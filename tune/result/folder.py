"""Which recipe, data and space the folder of a sweep belongs to, and which of its trials may stay."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from shards.errors import UsageError
from shards.files.atomic import write_text
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RECIPE, RESULT
from trainer.weights.resolve import resolve_recipe
from tune.space.options import Space
from tune.space.variants import Trial

IDENTITY = "sweep.yaml"
_FREE = {"cpus_per_trial": True, "gpus_per_trial": True, "ranks_per_trial": True, "confirm": {"seeds"}}
"""Options of a space that may change in a sweep: they are about resources, or add seeds."""


def claim(sweep_dir: Path, recipe: Recipe, dataset: str, space: Space, *, extend: bool) -> None:
    """Make the sweep's folder, and save what it belongs to.

    Args:
        sweep_dir: The folder.
        recipe: The recipe without the changes of levels.
        dataset: Fingerprint of the data.
        space: The space; with `extend` it may differ from the one that the sweep began with.
        extend: Take over the trials that have not changed.

    Raises:
        UsageError: The folder belongs to another recipe or space, or to data that were packed anew.
    """
    content = {
        "recipe": recipe.fingerprint(),
        "dataset": dataset,
        "space": space.model_dump(mode="json", by_alias=True, exclude=_FREE),  # type: ignore[arg-type]
    }
    path = sweep_dir / IDENTITY
    if path.is_file():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        _refuse_other(sweep_dir, before, content, extend=extend)
        if before != content:
            (sweep_dir / RESULT).unlink(missing_ok=True)
    sweep_dir.mkdir(parents=True, exist_ok=True)
    # Options that are not set stay so: levels get their own defaults of them.
    said = recipe.model_dump(mode="json", exclude_unset=True)
    write_text(sweep_dir / RECIPE, yaml.safe_dump(said, sort_keys=False, allow_unicode=True))
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_identity(sweep_dir: Path) -> tuple[Recipe, Space, str]:
    """Return the recipe, the space and the fingerprint of the data of a sweep.

    Raises:
        UsageError: The folder is no sweep's.
    """
    path = sweep_dir / IDENTITY
    if not path.is_file():
        raise UsageError(f"{sweep_dir} is not a sweep (it has no {IDENTITY}); name a folder such as runs/demo-sweep")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return load_recipe(str(sweep_dir / RECIPE)), Space.model_validate(content["space"]), content["dataset"]


def _refuse_other(sweep_dir: Path, before: dict[str, Any], content: dict[str, Any], *, extend: bool) -> None:
    remedy = "choose another name=, or delete the sweep with --delete"
    if before.get("recipe") != content["recipe"]:
        raise UsageError(f"{sweep_dir} holds a sweep of another recipe; {remedy}")
    if "dataset" not in before:
        raise UsageError(f"{sweep_dir} holds a sweep of an earlier version, whose trials have other names; {remedy}")
    if before["dataset"] != content["dataset"]:
        raise UsageError(
            f"{sweep_dir} holds trials on data that have been packed anew since, and different data cannot be "
            f"compared; {remedy}"
        )
    if before.get("space") != content["space"] and not extend:
        raise UsageError(
            f"{sweep_dir} holds a sweep of another space; --extend keeps the trials that have not changed, or {remedy}"
        )


def forget_changed(trials: Sequence[Trial]) -> list[str]:
    """Remove the folders of trials whose levels mean something else than when they ran; return their names."""
    changed = [trial for trial in trials if _has_changed(trial)]
    for trial in changed:
        shutil.rmtree(trial.folder.path)
    return [trial.name for trial in changed]


def _has_changed(trial: Trial) -> bool:
    path = trial.folder.path / RECIPE
    if not path.is_file():  # it was refused before it began, and is tried again
        return False
    try:
        return load_recipe(str(path)).fingerprint() != resolve_recipe(trial.recipe).fingerprint()
    except UsageError:  # the level is one now that cannot be trained
        return True


def delete_sweep(sweep_dir: Path) -> None:
    """Remove the folder of a sweep.

    Raises:
        UsageError: The folder is no sweep's.
    """
    if not (sweep_dir / IDENTITY).is_file():
        raise UsageError(f"{sweep_dir} is not a sweep (it has no {IDENTITY}), so nothing was deleted; name a sweep")
    shutil.rmtree(sweep_dir)
