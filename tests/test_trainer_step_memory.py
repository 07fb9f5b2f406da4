"""Memory that runs out on one rank of two: both begin anew from the last snapshot in more parts, same weights."""

from __future__ import annotations

import ctypes
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import torch
from runs import run_dir

from trainer.loop.loop import Outcome
from trainer.ranks.ranks import Ranks
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import SNAPSHOTS, RunFolder
from trainer.record.snapshot import SnapshotStore
from trainer.run.job import run_rank
from trainer.run.launch import run_until_it_fits
from trainer.step.engine import Engine
from trainer.step.memory import RankMemoryError
from trainer.weights.resolve import resolve_recipe

ROOM = 200 << 20
"""Bytes beyond what the process holds already: enough for the activations of some pictures, not of 32."""
_M_ARENA_MAX = -8  # of malloc.h

P = ParamSpec("P")
Result = TypeVar("Result")


def make_recipe(data: Path, root: Path, name: str, *options: str) -> Recipe:
    fixed = [
        f"data={data}", f"name={name}", f"storage.root={root}", "model=timm/test_efficientnet_gn", "image_size=224",
        "batch_size_global=64", "epochs=1", "optim.name=sgd", "num_ranks=2", "launch=local", "workers=0",
        "track.wandb=disabled",
    ]  # fmt: skip
    return resolve_recipe(load_recipe("smoke", [*fixed, *options]))


def run_limited(ranks: Ranks, recipe: Recipe) -> Outcome:
    """Run a rank of two; the second may use so little memory in a step that it cannot compute its whole slice."""
    torch.set_num_threads(1)
    if ranks.rank == 1:
        # One arena for all threads: each of them would take 64 MiB of addresses, and how many there are is chance.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        Engine.step = limit(Engine.step)  # type: ignore[method-assign]
    return run_rank(recipe, ranks, lambda _numbers: None)


def limit(function: Callable[P, Result]) -> Callable[P, Result]:
    """Return the same function under a limit of memory."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, most))
        try:
            return function(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return call


def run_free(ranks: Ranks, recipe: Recipe) -> Outcome:
    torch.set_num_threads(1)
    return run_rank(recipe, ranks, lambda _numbers: None)


def read_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    store = SnapshotStore(run_dir(recipe) / SNAPSHOTS)
    state = store.read_last()
    store.close()
    assert state is not None
    assert state.best is not None
    return store.read_model(state.best.snapshot)


@pytest.mark.slow
def test_two_ranks_begin_anew_in_more_parts_when_memory_runs_out_on_one(dataset_path: Path, tmp_path: Path) -> None:
    free, limited = (make_recipe(dataset_path, tmp_path, name) for name in ("free", "limited"))
    for recipe, run in ((free, run_free), (limited, run_limited)):
        RunFolder.of(recipe).claim(recipe)
        assert run_until_it_fits(recipe, run) == "finished"
        assert len(read_metrics(run_dir(recipe))) == 1
    assert RunFolder.of(free).read_parts() == 1
    assert RunFolder.of(limited).read_parts() > 1
    expected, found = read_weights(free), read_weights(limited)
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-5


def test_parts_are_kept_with_the_run(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "kept")
    RunFolder.of(recipe).claim(recipe)
    assert RunFolder.of(recipe).read_parts() == 1
    RunFolder.of(recipe).write_parts(4)
    assert RunFolder.of(recipe).read_parts() == 4


def test_the_wish_for_more_parts_crosses_processes() -> None:
    again = pickle.loads(pickle.dumps(RankMemoryError("rank 1 ran out of memory", 8)))
    assert (str(again), again.parts) == ("rank 1 ran out of memory", 8)
