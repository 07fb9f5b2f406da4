"""The folder of a run, local or mirrored to an object store: which run owns it, and whether it is finished."""

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
from shards.files.job_folder import refuse_job_folder
from shards.files.temporary import clear_leftovers
from shards.storage.shown import show_location
from trainer.recipes.file import load_recipe, parse_recipe
from trainer.recipes.longer import is_longer, takes_more_epochs
from trainer.recipes.place import find_run_dir, is_remote, join_root
from trainer.recipes.recipe import PLACEMENT, Recipe

if TYPE_CHECKING:
    from trainer.record.store.run_store import RunStore

RECIPE = "recipe.yaml"
RESULT = "result.json"
"""Written last; marks a run as finished."""
SNAPSHOTS = "snapshots"
FEATURES = "features"
BUNDLE = "bundle"
PARTS = "parts.json"
"""The number of microbatches that the run's ranks need."""
STOP_FILE = "stop"
"""A file with this name makes the run save its state and end."""
SAVE_FILE = "save"
"""A file with this name makes the run save its state and continue; rank 0 removes it then."""
RUN_ID = "run.json"
"""File with the identity of the run, in an object store and each node's folder, in case another run takes its name."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run on this machine, and its URI in a run store.

    path: The folder; with a run store, everything that must survive the machine is copied from it.
    uri: The URI in an object store, including keys; None if there is no store.
    deadline_s: Time limit of store operations, seconds.
    """

    path: Path
    uri: str | None = field(default=None, repr=False)
    deadline_s: float = 600.0

    @classmethod
    def of(cls, recipe: Recipe) -> RunFolder:
        """Return the folder of a recipe's run, without creating it."""
        storage, name = recipe.storage, recipe.name
        uri = join_root(storage.root, name) if is_remote(storage.root) else None
        return cls(find_run_dir(storage.root, storage.work, name), uri, storage.deadline_s)

    def __str__(self) -> str:
        """Return the location of the run for display, without keys."""
        return show_location(self.uri) if self.uri else str(self.path)

    @cached_property
    def store(self) -> RunStore | None:
        """The run store, None if there is none.

        Raises:
            UsageError: The store cannot be written to.
        """
        if self.uri is None:
            return None
        from trainer.record.store.run_store import RunStore  # late: a folder needs nothing of it

        return RunStore(self.uri, self.deadline_s)

    @property
    def root_option(self) -> str:
        """The option that sets the folder's location on this machine."""
        return "storage.work" if self.uri else "storage.root"

    @property
    def snapshots(self) -> Path:
        return self.path / SNAPSHOTS

    @property
    def bundle(self) -> Path:
        return self.path / BUNDLE

    @property
    def features(self) -> Path:
        return self.path / FEATURES

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
        """Return the content of each split's metrics.json, by split."""
        found = sorted(self.path.glob("evaluation/*/metrics.json"))
        return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in found}

    def read_parts(self) -> int:
        """Return the smallest number of microbatches per slice that the ranks need: 1 if memory never ran out."""
        path = self.path / PARTS
        data = self.store.read(PARTS) if self.store else path.read_bytes() if path.is_file() else None
        return int(json.loads(data)) if data else 1

    def write_parts(self, parts: int) -> None:
        """Store the number of microbatches for the next start of the run."""
        if self.store:
            self.store.write(PARTS, json.dumps(parts).encode())
        else:
            write_json(self.path / PARTS, parts)

    def claim(self, recipe: Recipe) -> None:
        """Create the folder, also in the run store if there is one, and save the recipe in it.

        If the run is extended with more epochs, its result is removed, so that it is no longer finished.

        Raises:
            UsageError: The folder belongs to a run with another recipe; the message has the first difference.
            OSError: The store does not respond.
        """
        if self.store:
            self._claim_store(recipe, self.store)
        if self.refuse_other_recipe(recipe):
            (self.path / RESULT).unlink(missing_ok=True)  # before the recipe: a kill in between only repeats this
        self.path.mkdir(parents=True, exist_ok=True)
        recipe.write(self.path / RECIPE)

    def refuse_other_recipe(self, recipe: Recipe) -> bool:
        """Raise if the local folder belongs to a run with another recipe, like `claim`.

        Return whether it is the same run, extended with more epochs.
        """
        path = self.path / RECIPE
        if path.is_file() and self.snapshots.is_dir():  # without a snapshot there is nothing to overwrite
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
    """Create the folder of a run or sweep and lock it against other commands on this machine during the block.

    Two commands would overwrite each other's files. Partial files of dead processes are removed.

    Raises:
        UsageError: Another command is using the folder.
    """
    refuse_job_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, f"another command is using {folder}; wait for it, or choose another name="):
        clear_leftovers(folder)
        yield


def refuse_other_recipe_there(recipe: Recipe, store: RunStore) -> bool:
    """Raise if the run store belongs to a run with another recipe, like `RunFolder.claim`.

    Return whether it is the same run, extended with more epochs.
    """
    there = store.read(RECIPE) if any(name.startswith(f"{SNAPSHOTS}/") for name in store.sizes()) else None
    return there is not None and _refuse_other(parse_recipe(there.decode(), f"{store}/{RECIPE}"), recipe, str(store))


def enter_work_folder(path: Path, store: RunStore) -> None:
    """Create this machine's folder for a run in a store; delete files of another run with the same name."""
    if is_work_folder(path, store):
        return
    for old in path.iterdir() if path.is_dir() else ():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / RUN_ID, _read_run_id(store))


def is_work_folder(path: Path, store: RunStore) -> bool:
    """Return whether this machine's folder belongs to the run in the store, not to another with the same name."""
    mark = path / RUN_ID
    return mark.is_file() and json.loads(mark.read_bytes()) == _read_run_id(store)


def _read_run_id(store: RunStore) -> object:
    return json.loads(store.read(RUN_ID) or b"null")


def _refuse_other(there: Recipe, recipe: Recipe, where: str) -> bool:
    """Return whether a run is extended with more epochs; raises UsageError if it is another run."""
    if there.fingerprint() == recipe.fingerprint():
        return False
    longer = is_longer(there, recipe)
    if longer and not takes_more_epochs(recipe):
        raise UsageError(
            f"{where} has a run of {there.epochs} epochs whose schedule, {recipe.schedule.name}, depends on them, so "
            f"{recipe.epochs} would be another run; train on from its best weights under another name, with name=NEW "
            f"weights={where}/{BUNDLE}"
        )
    if not longer:
        raise UsageError(
            f"{where} has a run with another recipe ({_first_difference(there, recipe)}); "
            "choose another name=, or delete that folder"
        )
    return True


def _first_difference(old: Recipe, new: Recipe) -> str:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    name = next(name for name in after if before[name] != after[name] and name not in PLACEMENT)
    return f"{name} was {before[name]}, now {after[name]}"
