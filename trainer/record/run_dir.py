"""The folder of a run: whose it is, and whether it is finished."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import UsageError
from shards.files.atomic import lock_folder, write_json
from shards.files.temporary import clear_leftovers
from trainer.recipes.file import load_recipe, parse_recipe
from trainer.recipes.recipe import PLACEMENT, Recipe

if TYPE_CHECKING:
    from trainer.record.store.run_store import RunStore

RECIPE = "recipe.yaml"
RESULT = "result.json"
"""Written last; a folder that has it is finished."""
SNAPSHOTS = "snapshots"
BUNDLE = "bundle"
NONFINITE = "nonfinite"
"""Folder of the samples whose loss was not a finite number."""
STOP_FILE = "stop"
"""A file of this name asks the run to save its state and end."""
SAVE_FILE = "save"
"""A file of this name asks the run to save its state and go on; rank 0 removes it when it does."""
RUN_ID = "run.json"
"""In an object store, and in each node's folder for it: which run this is, should another take its name."""


def is_finished(run_dir: Path) -> bool:
    """Return whether a run has its bundle, evaluations and report."""
    return (run_dir / RESULT).is_file()


@contextlib.contextmanager
def hold_run_dir(run_dir: Path) -> Iterator[None]:
    """Make the folder of a run or a sweep; in the block this command is the only one of its machine at work in it.

    Two would write each other's snapshots and ledgers. What dead processes left half-written is removed.

    Raises:
        UsageError: Another command is at work there.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with lock_folder(run_dir, f"another command is at work in {run_dir}; wait for it, or choose another name="):
        clear_leftovers(run_dir)
        yield


def claim_run_dir(recipe: Recipe) -> None:
    """Make the run's folder, in its store as well where it has one, and save the recipe in it.

    Raises:
        UsageError: The folder belongs to a run of another recipe; its first difference is named.
        OSError: The store does not answer.
    """
    if recipe.run_uri:
        _claim_store(recipe)
    refuse_other_recipe(recipe)
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    recipe.write(recipe.run_dir / RECIPE)


def refuse_other_recipe(recipe: Recipe) -> None:
    """Refuse a folder of this machine that belongs to a run of another recipe; raises as `claim_run_dir`."""
    path = recipe.run_dir / RECIPE
    if path.is_file() and (recipe.run_dir / SNAPSHOTS).is_dir():  # without a snapshot there is nothing to mix up
        _refuse_other(load_recipe(str(path)), recipe, str(recipe.run_dir))


def refuse_other_recipe_there(recipe: Recipe, store: RunStore) -> None:
    """Refuse a place in a store that belongs to a run of another recipe; raises as `claim_run_dir`."""
    there = store.read(RECIPE) if any(name.startswith(f"{SNAPSHOTS}/") for name in store.sizes()) else None
    if there is not None:
        _refuse_other(parse_recipe(there.decode(), f"{store}/{RECIPE}"), recipe, str(store))


def _claim_store(recipe: Recipe) -> None:
    from trainer.record.store.run_store import open_run_store  # late: a folder needs nothing of it

    store = open_run_store(recipe)
    assert store is not None
    names = store.sizes()
    refuse_other_recipe_there(recipe, store)
    if RUN_ID not in names:
        store.write(RUN_ID, json.dumps({"id": uuid.uuid4().hex}).encode())
    enter_work_folder(recipe.run_dir, store)
    if RESULT not in names:
        (recipe.run_dir / RESULT).unlink(missing_ok=True)
    store.write(RECIPE, recipe.to_yaml().encode())


def enter_work_folder(run_dir: Path, store: RunStore) -> None:
    """Make this machine's folder for a run in a store, and empty it of another run that had the same name."""
    if is_work_folder(run_dir, store):
        return
    for old in run_dir.iterdir() if run_dir.is_dir() else ():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / RUN_ID, _read_run_id(store))


def is_work_folder(run_dir: Path, store: RunStore) -> bool:
    """Say whether this machine's folder is that of the very run in the store, not of another that had its name."""
    path = run_dir / RUN_ID
    return path.is_file() and json.loads(path.read_bytes()) == _read_run_id(store)


def _read_run_id(store: RunStore) -> object:
    return json.loads(store.read(RUN_ID) or b"null")


def _refuse_other(there: Recipe, recipe: Recipe, where: str) -> None:
    if there.fingerprint() != recipe.fingerprint():
        raise UsageError(
            f"{where} holds a run of another recipe ({_first_difference(there, recipe)}); "
            "choose another name=, or delete that folder"
        )


def _first_difference(old: Recipe, new: Recipe) -> str:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    name = next(name for name in after if before[name] != after[name] and name not in PLACEMENT)
    return f"{name} was {before[name]}, now {after[name]}"
