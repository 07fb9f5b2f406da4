"""The bundle of a run: its best weights, with everything that serving needs from recipe and dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.dataset.affected import find_decoding
from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.read import SampleReader
from shards.errors import UsageError
from shards.order.plan import sequential_refs
from trainer.contract.bundle import save_bundle
from trainer.contract.decision.decision import make_plain_decision
from trainer.contract.metrics import is_of_positive
from trainer.contract.model.model import Classifier
from trainer.contract.probes import NUM_PROBES, synthesise_pictures
from trainer.evaluate.positive import find_positive
from trainer.loop.build import build_model_spec, build_preprocess
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.logbook import PREDICTED, read_metrics
from trainer.record.run_folder import RunFolder
from trainer.record.snapshot import RunState, SnapshotStore


def make_bundle(recipe: ResolvedRecipe, folder: RunFolder) -> Path:
    """Write the bundle of a run's best snapshot and return its folder.

    Raises:
        UsageError: The run has no evaluated epoch yet.
    """
    dataset = open_dataset(recipe.data, recipe.cache_options())
    store = SnapshotStore(folder.snapshots)
    state = store.read_last()
    if state is None or state.best is None:
        raise UsageError(f"{folder.path} has no evaluated epoch, so there are no best weights; train it first")
    model = Classifier(build_model_spec(recipe, len(dataset.classes)))
    model.load_state_dict(store.read_model(state.best.snapshot))
    positive = find_positive(recipe, dataset)
    row = _read_best(folder.path, state)
    shares = _find_shares(row, dataset)
    save_bundle(
        folder.bundle,
        model,
        synthesise_pictures() if recipe.probes == "synthetic" else read_real_probes(dataset),
        preprocess=build_preprocess(recipe, dataset, state.decoding),
        classes=dataset.classes,
        display_names=dataset.manifest.display_names,
        task=dataset.manifest.task,
        positive=positive and positive.name,
        decision=make_plain_decision(dataset.manifest.task),
        probes=recipe.probes,
        dataset=dataset.fingerprint(),
        recipe=recipe.fingerprint(),
        metrics=_pick_metrics(row, len(dataset.classes)),
        decoding=find_decoding(dataset, state.decoding),
        **({} if shares is None else {"label_shares": shares}),
    )
    return folder.bundle


def read_real_probes(dataset: Dataset) -> list[bytes]:
    """Return the first pictures of the validation split, as encoded bytes."""
    split = dataset.split("val")
    refs = sequential_refs(split.counts, 0, min(NUM_PROBES, split.num_samples))
    with SampleReader(split) as reader:
        return [reader.read_one(*place).data for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)]


def _read_best(run_dir: Path, state: RunState) -> dict[str, Any]:
    """Return the row of metrics.jsonl of the best epoch."""
    assert state.best is not None
    return next(row for row in read_metrics(run_dir) if row["epoch"] == state.best.epoch)


def _find_shares(row: dict[str, Any], dataset: Dataset) -> dict[str, float] | None:
    """Return, by class, the share of validation pictures for which it is predicted; None if the row has no counts."""
    if PREDICTED not in row:
        return None
    counts, total = map(int, row[PREDICTED].split()), dataset.split("val").num_samples
    return {name: count / total for name, count in zip(dataset.classes, counts, strict=True)}


def _pick_metrics(row: dict[str, Any], num_classes: int) -> dict[str, float]:
    """Return the validation metrics of a row, without metrics that depend on the positive class."""
    named = {name.removeprefix("val/"): value for name, value in row.items() if name.startswith("val/")}
    # AUROC is the same for either class.
    kept = {"auroc", *(name for name in named if not is_of_positive(name, num_classes))} - {"time_s"}
    return {name: value for name, value in named.items() if name in kept and not isinstance(value, str)}
