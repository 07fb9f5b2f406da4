"""After training: the bundle of the best weights, its evaluations, and the run's report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.dataset.affected import find_decoding
from shards.dataset.dataset import Dataset, Split, open_dataset
from shards.dataset.read import SampleReader
from shards.errors import UsageError
from shards.order.plan import sequential_refs
from trainer.contract.bundle import Bundle, BundlePage, save_bundle
from trainer.contract.decision.decision import make_plain_decision
from trainer.contract.model.model import Classifier
from trainer.contract.positive import OF_POSITIVE
from trainer.contract.probes import NUM_PROBES, synthesise_pictures
from trainer.evaluate.extras import try_extra
from trainer.evaluate.files import Judging, write_evaluation
from trainer.evaluate.positive import find_positive, take_first
from trainer.evaluate.predictions import gather_predictions
from trainer.evaluate.rows import Rows, evaluate_split
from trainer.evaluate.worst import read_worst
from trainer.feed.meter import WELL_FED
from trainer.loop.build import build_model_spec, build_preprocess
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.record.progress import RunProgress
from trainer.record.run_dir import BUNDLE, SNAPSHOTS
from trainer.record.snapshot import RunState, SnapshotStore
from trainer.record.store.bring import share
from trainer.record.track.track import Tracker
from trainer.record.track.wandb_run import Judged
from trainer.report.card import write_card
from trainer.report.page import AUGMENTED, write_report
from trainer.report.sources import Finished, record_environment
from trainer.step.norms import describe_local_norms


def finish_run(
    recipe: Recipe, ranks: Ranks, tracker: Tracker | None = None, progress: RunProgress | None = None
) -> list[str]:
    """Write bundle, evaluations and report of a trained run; return what its user must know of it.

    Every rank calls it, rank 0 writes. A figure, map or picture that fails is left out of the report; a bundle or an
    evaluation that fails is an error.
    """
    progress = progress or RunProgress(recipe, speaks=False)
    with progress.stage("writing the bundle"):
        if ranks.is_first:
            make_bundle(recipe)
        share(recipe, ranks, BUNDLE)
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    bundle = Bundle.load(recipe.run_dir / BUNDLE, str(ranks.device))
    workers = ranks.count_workers(recipe.workers)
    judging = Judging(stored=find_positive(recipe, dataset))
    for part in recipe.evaluate_on:
        out = recipe.run_dir / "evaluation" / part
        with progress.stage(f"evaluating on {part}", dataset.split(part).num_samples) as advance:
            evaluate_bundle(bundle, dataset, part, ranks, workers, out, tracker, judging, advance=advance)
    note = describe_local_norms(bundle.model, ranks.num_ranks)
    notes = [note] if note else []
    if ranks.is_first:
        notes += _read_verdict(recipe)
        with progress.stage("writing the report"):
            _show_augmentation(recipe, dataset, tracker)
            run = Finished(recipe.run_dir, recipe, dataset, bundle, notes, record_environment(recipe, ranks))
            write_report(run)
            write_card(run)
        _drop_snapshots(recipe)
    return notes


def make_bundle(recipe: Recipe) -> Path:
    """Write the bundle of a run's best snapshot and return its folder.

    Raises:
        UsageError: The run has no evaluated epoch yet.
    """
    dataset = open_dataset(recipe.data, recipe.cache_options())
    store = SnapshotStore(recipe.run_dir / SNAPSHOTS)
    state = store.read_last()
    if state is None or state.best is None:
        raise UsageError(f"{recipe.run_dir} has no evaluated epoch, so there are no best weights; train it first")
    model = Classifier(build_model_spec(recipe, len(dataset.classes)))
    model.load_state_dict(store.read_model(state.best.snapshot))
    positive = find_positive(recipe, dataset)
    save_bundle(
        recipe.run_dir / BUNDLE,
        model,
        synthesise_pictures() if recipe.probes == "synthetic" else read_real_probes(dataset),
        preprocess=build_preprocess(recipe, dataset),
        classes=dataset.classes,
        display_names=dataset.manifest.display_names,
        task=dataset.manifest.task,
        positive=positive and positive.name,
        decision=make_plain_decision(dataset.manifest.task),
        probes=recipe.probes,
        dataset=dataset.fingerprint(),
        recipe=recipe.fingerprint(),
        metrics=_best_metrics(recipe, state, len(dataset.classes)),
        decoding=find_decoding(dataset, state.decoding),
    )
    return recipe.run_dir / BUNDLE


def read_real_probes(dataset: Dataset) -> list[bytes]:
    """Return the first pictures of the validation part, as encoded bytes."""
    split = dataset.split("val")
    refs = sequential_refs(split.counts, 0, min(NUM_PROBES, split.num_samples))
    with SampleReader(split) as reader:
        return [reader.read_one(*place).data for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)]


def evaluate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    part: str,
    ranks: Ranks,
    workers: int,
    out: Path,
    tracker: Tracker | None = None,
    judging: Judging | None = None,
    advance: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Evaluate a bundle on one part of a dataset, write the files, return the metrics; every rank calls it.

    A part named train is the one that the weights were fitted to; the result says so. Where `judging` names no positive
    class, the bundle's counts, else the dataset's. advance: as `evaluate_split`.

    Raises:
        UsageError: The dataset has other classes, or several labels a sample where the bundle gives one (or the other
            way round), or no such part.
    """
    if bundle.page.task != dataset.manifest.task:
        raise UsageError(
            f"the bundle is {bundle.page.task}, the dataset {dataset.manifest.task}; their labels do not compare, so "
            "nothing was evaluated; take a dataset of the bundle's kind"
        )
    if bundle.page.classes != dataset.classes:
        raise UsageError(
            f"the bundle knows the classes {', '.join(bundle.page.classes)}, the dataset has "
            f"{', '.join(dataset.classes)}; labels would not mean the same, so nothing was evaluated"
        )
    split = dataset.split(part)
    rows = evaluate_split(bundle.model, bundle.page.preprocess, split, ranks, workers, advance)
    if not ranks.is_first:
        return {}
    predictions = gather_predictions(rows, split, bundle.page.classes, bundle.page.display_names)
    facts = {"part": part, "bundle": bundle.page.fingerprint(), "dataset": dataset.fingerprint()}
    if part == "train" and facts["dataset"] == bundle.page.dataset:
        facts["warning"] = "these are the pictures that the weights were fitted to; the numbers flatter them"
    if bundle.page.task == "multi-label":
        facts["task"] = bundle.page.task
    stored = take_first(bundle=bundle.page.positive, dataset=dataset.manifest.positive)
    metrics = write_evaluation(out, replace(predictions, facts=facts), (judging or Judging()).with_stored(stored))
    if tracker:
        _track(tracker, bundle.page, split, rows, metrics)
    return metrics


def _track(tracker: Tracker, page: BundlePage, split: Split, rows: Rows, metrics: dict[str, Any]) -> None:
    """Show an evaluation where the run is shown; pictures only where the recipe lets them out."""
    tracker.log_evaluation(Judged(split.name, metrics, rows.labels, rows.probabilities, page.classes))
    if tracker.takes_images:
        worst = try_extra(f"{split.name}/worst in W&B", lambda: read_worst(rows, split, page.preprocess, page.classes))
        tracker.log_pictures(f"{split.name}/worst", worst or [])


def _show_augmentation(recipe: Recipe, dataset: Dataset, tracker: Tracker | None) -> None:
    """Write a contact sheet of what training saw, where that is not what evaluation sees."""
    if not recipe.augment.changes:
        return
    path = recipe.run_dir / AUGMENTED

    def draw() -> None:
        from trainer.augment.sheet import write_contact_sheet  # it draws, and every start would wait for matplotlib

        write_contact_sheet(recipe, dataset, path)

    try_extra(AUGMENTED, draw)
    if tracker and path.is_file():
        tracker.log_image("augment", path)


def _drop_snapshots(recipe: Recipe) -> None:
    """Keep the best snapshot alone where the recipe wants no other."""
    if recipe.snapshot.keep != "best":
        return
    store = SnapshotStore(recipe.run_dir / SNAPSHOTS)
    state = store.read_last()
    if state is not None and state.best is not None:
        store.drop_all_but(state.best.snapshot)


def _read_verdict(recipe: Recipe) -> list[str]:
    """Return what the last epoch's feed lacked, if anything."""
    verdict = read_metrics(recipe.run_dir)[-1]["feed/verdict"]
    return [] if verdict.endswith(WELL_FED) else [f"training {verdict}"]


def _best_metrics(recipe: Recipe, state: RunState, num_classes: int) -> dict[str, float]:
    """Return what validation gave for the best weights; figures of one class belong to no page that names another."""
    assert state.best is not None
    row = next(row for row in read_metrics(recipe.run_dir) if row["epoch"] == state.best.epoch)
    left_out = {"time_s", "positive", *OF_POSITIVE, *(["auprc"] if num_classes == 2 else [])}
    named = {name.removeprefix("val/"): value for name, value in row.items() if name.startswith("val/")}
    return {name: value for name, value in named.items() if name not in left_out}
