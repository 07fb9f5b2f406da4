"""Steps under a limit of memory that a whole batch passes; run by test_trainer_step_engine.py as a process."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from trainer.contract.model.model import Classifier, ModelSpec
from trainer.feed.feed import Batch
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.step.engine import Engine
from trainer.step.loss import build_loss

SIDE, SIZE = 224, 64
ROOM = 400 << 20
"""Bytes beyond what the process holds already: enough for some pictures' activations, not for 64."""


def make_engine(*options: str) -> Engine:
    torch.manual_seed(0)
    recipe = load_recipe("smoke", ["data=nowhere", "model=timm/test_efficientnet_gn", "optim.name=sgd", *options])
    loss = build_loss(recipe.loss, np.array([1, 1, 1]), ["a", "b", "c"])
    return Engine(Classifier(ModelSpec(name=recipe.model, num_classes=3)), recipe, single_rank(), loss)


def make_batch() -> Batch:
    images = torch.randint(0, 256, (SIZE, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(SIZE) % 3, torch.ones(SIZE), np.arange(SIZE), [""] * SIZE)


def count_saved(compute: Callable[[], object]) -> int:
    """Bytes of what a computation keeps for its backward pass."""
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        compute()
    return sum(saved.values())


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def main() -> None:
    torch.set_num_threads(1)
    batch, free = make_batch(), make_engine()
    needed = count_saved(lambda: free.step(batch, SIZE, 1.0, 0))
    recovered, fitted = make_engine(), make_engine("step.accumulate=auto")
    make_engine("step.accumulate=64").step(batch, SIZE, 1.0, 0)  # what is allocated once is allocated now
    limit_memory()
    recovered.step(batch, SIZE, 1.0, 0)
    fitted.fit(SIZE, (3, SIDE, SIDE))
    expected = free.model.state_dict()
    distance = max(float((recovered.model.state_dict()[name] - expected[name]).abs().max()) for name in expected)
    parts = {"parts_auto": fitted.parts, "parts_recovered": recovered.parts, "parts_needed": needed / ROOM}
    print(json.dumps({**parts, "distance": distance}))


if __name__ == "__main__":
    main()
