"""Snapshots of a run: the state needed to resume, written in the background and published by one rename."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shards.errors import ShardError, explain_invalid
from shards.files.atomic import replace_folder, write_text
from shards.files.sizes import format_size
from shards.files.temporary import clear_leftovers
from shards.order.purposes import BEFORE_VERSIONS
from shards.storage.readable import one_line
from trainer.step.engine import Engine
from trainer.step.schedule import PlateauState

STATE, MODEL, AVERAGE = "state.json", "model.safetensors", "average.safetensors"
OPTIMIZER = "optimizer.pt"


class Best(BaseModel):
    """The best epoch so far: number from 1, value of the stop metric, and name of its snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    value: float
    snapshot: str


class RunState(BaseModel):
    """The state of a run. The position in the data is one integer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shardline-snapshot"] = "shardline-snapshot"
    version: Literal[1] = 1
    samples_seen: int = 0
    epochs_done: int = 0
    """Epochs that were trained and evaluated; the next may be trained partly, or fully but not yet evaluated."""
    best: Best | None = None
    epochs_without_better: int = 0
    loss_sum: float = 0.0
    """Sum of the weighted losses of the epoch so far, over all ranks."""
    weight_sum: float = 0.0
    """Sum of the weights of the samples in loss_sum."""
    skipped_steps: int = 0
    """Steps that moved no weight: float16 overflowed, a loss was not finite and the recipe skips such steps, or all
    samples have weight 0."""
    plateau: PlateauState | None = None
    """State of the plateau schedule."""
    dataset: str
    recipe: str
    """Fingerprints of the dataset and recipe."""
    begun_epochs: int | None = None
    """Original number of epochs if the run was extended; its warm-up is a share of those."""
    decoding: int = 1
    """Oldest version of the decoding rules used in the run, see `shards.pictures.decoding`."""
    streams: int = BEFORE_VERSIONS
    """Version of the random streams at the run's start, see `shards.order.purposes`."""


class SnapshotStore:
    """The folder `snapshots/` of a run.

    keeps_all: Keep every snapshot; otherwise only the last and the best.
    """

    def __init__(self, folder: Path, *, keeps_all: bool = False) -> None:
        self._folder = folder
        self._keeps_all = keeps_all
        self._writer = ThreadPoolExecutor(1, "snapshot")
        self._pending: Future[None] | None = None

    def save(self, state: RunState, engine: Engine) -> None:
        """Copy model and optimizer now and write them in the background, after waiting for an earlier write.

        If the position already has a snapshot, saved after the last step and before the epoch was evaluated, its
        tensors are on disk: then only the state is replaced, so that a kill loses neither.
        """
        self.wait()
        name = name_snapshot(state.samples_seen)
        if (self._folder / name / STATE).is_file():
            _write_state(self._folder / name, state)
            self._prune_after(state)
            return
        model = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in engine.model.state_dict().items()
        }
        rest = _copy_to_cpu(engine.state_dict())
        self._pending = self._writer.submit(self._write, state, model, rest.pop("ema"), rest)

    def wait(self) -> None:
        """Wait until nothing is being written; raises an error of the write, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def check(self) -> None:
        """Raise if the write has failed; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def close(self) -> None:
        """End the thread after the write has finished; raises like `wait`."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def read_last(self) -> RunState | None:
        """Return the state of the last snapshot, None if there is none.

        Raises:
            ShardError: The snapshot is damaged.
        """
        names = self._names()
        return self._read_state(names[-1]) if names else None

    def load(self, state: RunState, engine: Engine) -> None:
        """Load the tensors of the snapshot with `state`.

        Raises:
            ShardError: The snapshot is damaged.
        """
        folder = self._folder / name_snapshot(state.samples_seen)
        average = folder / AVERAGE
        try:
            model = load_file(folder / MODEL)
            rest = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
            rest["ema"] = load_file(average) if average.is_file() else None
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as err:
            raise _damaged(folder, err) from err
        engine.model.load_state_dict(model)
        engine.load_state_dict(rest)

    def read_model(self, name: str) -> dict[str, Tensor]:
        """Return the evaluated tensors of a snapshot: the averaged weights if there are any."""
        folder = self._folder / name
        return dict(load_file(folder / (AVERAGE if (folder / AVERAGE).is_file() else MODEL)))

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*") if path.is_dir() and path.name.isdigit())

    def _read_state(self, name: str) -> RunState:
        path = self._folder / name / STATE
        try:
            return RunState.model_validate(json.loads(path.read_bytes()))
        except (OSError, json.JSONDecodeError, ValidationError) as err:
            raise _damaged(path.parent, err) from err

    def _write(
        self, state: RunState, model: dict[str, Tensor], average: dict[str, Tensor] | None, optimizer: dict[str, Any]
    ) -> None:
        folder = self._folder / name_snapshot(state.samples_seen)
        needed = count_bytes([model, average, optimizer])
        # An existing folder has no state and so is not a snapshot.
        with replace_folder(folder, f"more than {format_size(needed)}") as temporary:
            save_file(model, temporary / MODEL)
            if average is not None:
                save_file({name: tensor.contiguous() for name, tensor in average.items()}, temporary / AVERAGE)
            with open(temporary / OPTIMIZER, "wb") as file:  # with a file name, torch would hide the disk error
                torch.save(optimizer, file)
            _write_state(temporary, state)
        self._prune_after(state)

    def _prune_after(self, state: RunState) -> None:
        name = name_snapshot(state.samples_seen)
        if not self._keeps_all:
            self._prune(keep={name, state.best.snapshot if state.best else name})

    def drop_all_but(self, name: str) -> None:
        """Remove all snapshots but one; the run can then only be resumed if that is the last one."""
        self._prune(keep={name})

    def _prune(self, keep: set[str]) -> None:
        for path in self._folder.iterdir():
            if path.name not in keep and path.name.isdigit():
                shutil.rmtree(path)
        clear_leftovers(self._folder)


def name_snapshot(samples_seen: int) -> str:
    """Return the folder name of a position; names sort like positions."""
    return f"{samples_seen:015d}"


def _copy_to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_to_cpu(item) for item in value]
    return value


def count_bytes(value: Any) -> int:
    """Return the bytes of all tensors in dicts, lists and tuples of them."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(count_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(count_bytes(item) for item in value)
    return 0


def _damaged(folder: Path, err: Exception) -> ShardError:
    fact = explain_invalid(err) if isinstance(err, ValidationError) else one_line(err)
    return ShardError(f"{folder} is damaged ({fact}); delete that folder to resume from the previous snapshot")


def _write_state(folder: Path, state: RunState) -> None:
    write_text(folder / STATE, state.model_dump_json(indent=2) + "\n")
