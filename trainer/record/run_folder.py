"""Where a run lives: a folder of this machine, or one that is mirrored to an object store; whose it is, and whether
it is finished."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.errors import UsageError
from shards.files.atomic import lock_folder, write_json
from shards.files.temporary import clear_leftovers
from trainer.recipes.file import load_recipe, parse_recipe
from trainer.recipes.longer import is_longer, takes_more_epochs
from trainer.recipes.place import find_run_dir, is_remote, join_root, show_location
from trainer.recipes.recipe import PLACEMENT, Recipe

if TYPE_CHECKING:
    from trainer.record.store.run_store import RunStore

RECIPE = "recipe.yaml"
RESULT = "result.json"
"""Written last; a folder that has it is finished."""
SNAPSHOTS = "snapshots"
BUNDLE = "bundle"
STOP_FILE = "stop"
"""A file of this name asks the run to save its state and end."""
SAVE_FILE = "save"
"""A file of this name asks the run to save its state and continue; rank 0 removes it when it does."""
RUN_ID = "run.json"
"""In an object store, and in each node's folder for it: which run this is, should another take its name."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run on this machine, and its place in a store.

    path: the folder; with a store, what must outlive the machine is copied from it.
    uri: the place in an object store, keys included; None where the folder is all there is.
    deadline_s: seconds within which the store must do what it is asked for.
    """

    path: Path
    uri: str | None = field(default=None, repr=False)
    deadline_s: float = 600.0

    @classmethod
    def of(cls, recipe: Recipe) -> RunFolder:
        """Return where a recipe's run lives; nothing is made there."""
        storage, name = recipe.storage, recipe.name
        uri = join_root(storage.root, name) if is_remote(storage.root) else None
        return cls(find_run_dir(storage.root, storage.work, name), uri, storage.deadline_s)

    def __str__(self) -> str:
        """Return where the run is kept, as people may see it: no keys."""
        return show_location(self.uri) if self.uri else str(self.path)

    @cached_property
    def store(self) -> RunStore | None:
        """The run's place in a store, None where there is no store.

        Raises:
            UsageError: A place that cannot be written to.
        """
        if self.uri is None:
            return None
        from trainer.record.store.run_store import RunStore  # late: a folder needs nothing of it

        return RunStore(self.uri, self.deadline_s)

    @property
    def root_option(self) -> str:
        """The option that says where the folder is on this machine."""
        return "storage.work" if self.uri else "storage.root"

    @property
    def snapshots(self) -> Path:
        return self.path / SNAPSHOTS

    @property
    def bundle(self) -> Path:
        return self.path / BUNDLE

    @property
    def stop_file(self) -> Path:
        return self.path / STOP_FILE

    @property
    def save_file(self) -> Path:
        return self.path / SAVE_FILE

    @property
    def is_finished(self) -> bool:
        """Whether the folder has the run's bundle, evaluations and report."""
        return (self.path / RESULT).is_file()

    def read_evaluations(self) -> dict[str, dict[str, Any]]:
        """Return the content of each split's metrics.json, by the split."""
        found = sorted(self.path.glob("evaluation/*/metrics.json"))
        return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in found}

    def claim(self, recipe: Recipe) -> None:
        """Make the folder, in the store as well where there is one, and save the recipe in it.

        Of a run that is given more epochs the result is taken back, and it is not finished.

        Raises:
            UsageError: The folder belongs to a run of another recipe; its first difference is named.
            OSError: The store does not answer.
        """
        if self.store:
            self._claim_store(recipe, self.store)
        if self.refuse_other_recipe(recipe):
            (self.path / RESULT).unlink(missing_ok=True)  # before the recipe: a kill between leaves it to do again
        self.path.mkdir(parents=True, exist_ok=True)
        recipe.write(self.path / RECIPE)

    def refuse_other_recipe(self, recipe: Recipe) -> bool:
        """Refuse a folder of this machine that belongs to a run of another recipe; raises as `claim`.

        Returns whether it is that of the run, and gives it more epochs.
        """
        path = self.path / RECIPE
        if path.is_file() and self.snapshots.is_dir():  # without a snapshot there is nothing to mix up
            return _refuse_other(load_recipe(str(path)), recipe, str(self.path))
        return False

    def _claim_store(self, recipe: Recipe, store: RunStore) -> None:
        names = store.sizes()
        if refuse_other_recipe_there(recipe, store):
            store.delete([RESULT])
            names.pop(RESULT, None)
        if RUN_ID not in names:
            store.write(RUN_ID, json.dumps({"id": uuid.uuid4().hex}).encode())
        enter_work_folder(self.path, store)
        if RESULT not in names:
            (self.path / RESULT).unlink(missing_ok=True)
        store.write(RECIPE, recipe.to_yaml().encode())


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a run or a sweep; in the block this command is the only one of its machine at work in it.

    Two would write each other's snapshots and ledgers. What dead processes left half-written is removed.

    Raises:
        UsageError: Another command is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, f"another command is at work in {folder}; wait for it, or choose another name="):
        clear_leftovers(folder)
        yield


def refuse_other_recipe_there(recipe: Recipe, store: RunStore) -> bool:
    """Refuse a place in a store that belongs to a run of another recipe; raises as `RunFolder.claim`.

    Returns whether it is that of the run, and gives it more epochs.
    """
    there = store.read(RECIPE) if any(name.startswith(f"{SNAPSHOTS}/") for name in store.sizes()) else None
    return there is not None and _refuse_other(parse_recipe(there.decode(), f"{store}/{RECIPE}"), recipe, str(store))


def enter_work_folder(path: Path, store: RunStore) -> None:
    """Make this machine's folder for a run in a store, and empty it of another run that had the same name."""
    if is_work_folder(path, store):
        return
    for old in path.iterdir() if path.is_dir() else ():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / RUN_ID, _read_run_id(store))


def is_work_folder(path: Path, store: RunStore) -> bool:
    """Say whether this machine's folder is that of the very run in the store, not of another that had its name."""
    mark = path / RUN_ID
    return mark.is_file() and json.loads(mark.read_bytes()) == _read_run_id(store)


def _read_run_id(store: RunStore) -> object:
    return json.loads(store.read(RUN_ID) or b"null")


def _refuse_other(there: Recipe, recipe: Recipe, where: str) -> bool:
    """Return whether a run is given more epochs; raises UsageError where it is another."""
    if there.fingerprint() == recipe.fingerprint():
        return False
    longer = is_longer(there, recipe)
    if longer and not takes_more_epochs(recipe):
        raise UsageError(
            f"{where} holds a run of {there.epochs} epochs whose schedule, {recipe.schedule.name}, ends with them, so "
            f"{recipe.epochs} would be another run; train on from its best weights under another name, with name=NEW "
            f"weights={where}/{BUNDLE}"
        )
    if not longer:
        raise UsageError(
            f"{where} holds a run of another recipe ({_first_difference(there, recipe)}); "
            "choose another name=, or delete that folder"
        )
    return True


def _first_difference(old: Recipe, new: Recipe) -> str:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    name = next(name for name in after if before[name] != after[name] and name not in PLACEMENT)
    return f"{name} was {before[name]}, now {after[name]}"
