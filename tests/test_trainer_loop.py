"""The exact stream and the exact resume: what a run sees and what it ends with, however it was cut."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from shards.dataset import open_dataset
from shards.errors import ShardError, UsageError
from trainer.launch import launch
from trainer.ledger import read_ledger
from trainer.logbook import read_metrics
from trainer.loop import STOP_FILE, Outcome, train
from trainer.processes import run_processes
from trainer.ranks import Ranks, single_rank
from trainer.recipe import Recipe, load_recipe
from trainer.snapshot import SnapshotStore

ROOT = Path(__file__).parent.parent
NUM_SAMPLES = 72
# 72 samples: full steps only; a last step of 2; a last step of 1, which leaves a rank of two and two of three empty.
BATCH_SIZES = (12, 7, 71)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models: a team of threads costs more than it brings, above all on cores that are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "ledger=true"]
    return load_recipe("smoke", [*fixed, "epochs=2", "optim.peak_lr=0.01", "snapshot.every_s=1000", *options])


def make_grid(data: Path, root: Path, workers: int) -> list[Recipe]:
    """A run for each batch size, and one that is asked to stop before it starts."""
    grid = [
        make_recipe(data, root, f"name=batch-{size}", f"batch_size_global={size}", f"workers={workers}")
        for size in BATCH_SIZES
    ]
    stopped = make_recipe(data, root, "name=stopped", f"workers={workers}")
    stopped.run_dir.mkdir(parents=True)
    (stopped.run_dir / STOP_FILE).touch()
    return [*grid, stopped]


def train_all(ranks: Ranks, recipes: list[Recipe]) -> list[Outcome]:
    return [train_quietly(recipe, ranks) for recipe in recipes]


def train_quietly(recipe: Recipe, ranks: Ranks | None = None) -> Outcome:
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    return train(recipe, ranks or single_rank(), lambda numbers: None)


def seen(recipe: Recipe) -> list[tuple[int, int, int, int]]:
    """(epoch, step, sample id, hash of the pixels) of all steps that led to the weights, in order."""
    return rows_of(read_ledger(recipe.run_dir / "ledger"))


def rows_of(table: pa.Table) -> list[tuple[int, int, int, int]]:
    names = ("epoch", "step", "sample_id", "pixels_xxh3")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def final_weights(recipe: Recipe) -> bytes:
    """The bytes of the last snapshot's tensors, in the order of their names."""
    last = max(path for path in (recipe.run_dir / "snapshots").iterdir())
    tensors = load_file(last / "model.safetensors")
    return b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))


@pytest.fixture(scope="module")
def grids(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Recipe]]:
    """The same runs on 1, 2 and 3 ranks, with as many feed threads as ranks."""
    grids: dict[int, list[Recipe]] = {}
    for num_ranks in (1, 2, 3):
        grids[num_ranks] = make_grid(dataset_path, tmp_path_factory.mktemp("ranks"), workers=num_ranks)
        run_processes(train_all, (grids[num_ranks],), num_ranks)
    return grids


@pytest.mark.parametrize("number", range(len(BATCH_SIZES)), ids=[f"batch-{size}" for size in BATCH_SIZES])
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ledger_is_the_same_for_every_number_of_ranks_and_workers(
    grids: dict[int, list[Recipe]], num_ranks: int, number: int
) -> None:
    assert seen(grids[num_ranks][number]) == seen(grids[1][number])


@pytest.mark.parametrize("number", range(len(BATCH_SIZES)), ids=[f"batch-{size}" for size in BATCH_SIZES])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_epoch_holds_every_sample_exactly_once(
    grids: dict[int, list[Recipe]], num_ranks: int, number: int
) -> None:
    table = read_ledger(grids[num_ranks][number].run_dir / "ledger")
    epochs, ids = table["epoch"].to_numpy(), table["sample_id"].to_numpy()
    assert {epoch: sorted(ids[epochs == epoch].tolist()) for epoch in set(epochs.tolist())} == {
        epoch: list(range(NUM_SAMPLES)) for epoch in (0, 1)
    }


def test_some_rank_was_empty_in_a_last_step(grids: dict[int, list[Recipe]]) -> None:
    """What the two tests above rely on: the grid holds the case that they claim to cover."""
    table = read_ledger(grids[3][2].run_dir / "ledger")
    ranks_of_last_step = {rank for step, rank in zip(table["step"].to_pylist(), table["rank"].to_pylist(), strict=True) if step == 1}
    assert ranks_of_last_step == {2}


def test_epochs_come_in_another_order_with_other_pixels(grids: dict[int, list[Recipe]]) -> None:
    rows = seen(grids[1][0])
    first, second = rows[:NUM_SAMPLES], rows[NUM_SAMPLES:]
    assert [row[2] for row in first] != [row[2] for row in second]
    assert {row[2]: row[3] for row in first} != {row[2]: row[3] for row in second}


def test_two_ray_workers_see_the_global_batches_of_one_process(
    grids: dict[int, list[Recipe]], dataset_path: Path, ray_cluster: str, tmp_path: Path
) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=ray", "batch_size_global=7", "launch=ray", "num_ranks=2")
    launch(recipe)
    assert seen(recipe) == seen(grids[1][1])
    assert set(read_ledger(recipe.run_dir / "ledger")["rank"].to_pylist()) == {0, 1}


def test_run_stopped_on_two_ranks_goes_on_exactly_on_one(
    grids: dict[int, list[Recipe]], tmp_path: Path
) -> None:
    stopped = grids[2][-1]
    shutil.copytree(stopped.run_dir, tmp_path / "stopped")
    recipe = dataclasses_replace_root(stopped, tmp_path)
    assert len(seen(recipe)) == recipe.batch_size_global  # it was stopped in its first step, after that was taken
    (recipe.run_dir / STOP_FILE).unlink()
    assert train_quietly(recipe) == "finished"
    assert seen(recipe) == seen(grids[1][0])
