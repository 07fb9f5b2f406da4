"""Where a recipe's run lives, what it starts from, and runs as programs before this one began them."""

from __future__ import annotations

from pathlib import Path

import torch

from shards.dataset.dataset import open_dataset
from trainer.contract.model.backbone import build_backbone
from trainer.loop.build import build_preprocess
from trainer.loop.session import open_engine
from trainer.ranks.ranks import single_rank
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.run_folder import RunFolder
from trainer.record.snapshot import RunState, SnapshotStore


def run_dir(recipe: Recipe) -> Path:
    """Return the run's folder on this machine."""
    return RunFolder.of(recipe).path


def save_weights(path: Path, model: str, without: tuple[str, ...] = (), seed: int = 1) -> Path:
    """Save a checkpoint of a model for three classes, made with another seed than a run's, without some tensors."""
    torch.manual_seed(seed)
    tensors = dict(build_backbone(model, 3).state_dict())
    torch.save({name: tensor for name, tensor in tensors.items() if name not in without}, path)
    return path


def begin_as_before(recipe: ResolvedRecipe) -> None:
    """Write the snapshot of a run's first step, as a program wrote it that refused nothing."""
    dataset, ranks = open_dataset(recipe.data), single_rank()
    engine, stream = open_engine(recipe, dataset, build_preprocess(recipe, dataset), ranks, begun=1)
    stream.close()
    seen, store = recipe.batch_size_global, SnapshotStore(RunFolder.of(recipe).snapshots)
    state = RunState(samples_seen=seen, dataset=dataset.fingerprint(), recipe=recipe.fingerprint())
    RunFolder.of(recipe).claim(recipe)
    store.save(state, engine)
    store.close()
