"""After training: the bundle of the best weights, its evaluations, and the run's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.split import Split
from trainer.bundle.make import make_bundle
from trainer.contract.bundle import Bundle, BundlePage
from trainer.evaluate.bundle import evaluate_bundle
from trainer.evaluate.extras import try_extra
from trainer.evaluate.files import Judging
from trainer.evaluate.metrics.log_odds import LogOdds
from trainer.evaluate.positive import find_positive
from trainer.evaluate.rows import Rows
from trainer.evaluate.worst import read_worst
from trainer.feed.meter import WELL_FED
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.logbook import read_metrics
from trainer.record.progress import RunProgress
from trainer.record.run_folder import BUNDLE, RunFolder
from trainer.record.snapshot import SnapshotStore
from trainer.record.store.bring import share
from trainer.record.track.track import Tracker
from trainer.record.track.wandb_run import Judged
from trainer.report.card import write_card
from trainer.report.cost import describe_latency
from trainer.report.page import AUGMENTED, write_report
from trainer.report.sources import Finished, record_environment
from trainer.step.norms import describe_local_norms


def finish_run(
    recipe: ResolvedRecipe,
    folder: RunFolder,
    ranks: Ranks,
    tracker: Tracker | None = None,
    progress: RunProgress | None = None,
) -> list[str]:
    """Write bundle, evaluations and report of a trained run; return notes for its user.

    Every rank calls it, rank 0 writes. A figure, map or picture that fails is left out of the report; a bundle or an
    evaluation that fails is an error.
    """
    progress = progress or RunProgress(recipe, speaks=False)
    with progress.stage("writing the bundle"):
        if ranks.is_first:
            make_bundle(recipe, folder)
        share(folder, ranks, BUNDLE)
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    bundle = Bundle.load(folder.bundle, str(ranks.device))
    workers = ranks.count_workers(recipe.workers)
    judging = Judging(stored=find_positive(recipe, dataset))
    for part in recipe.evaluate_on:
        out = folder.path / "evaluation" / part
        with progress.stage(f"evaluating on {part}", dataset.split(part).num_samples) as advance:
            rows, metrics = evaluate_bundle(bundle, dataset, part, ranks, workers, out, judging, advance)
            if tracker and ranks.is_first:
                track_evaluation(tracker, bundle.page, dataset.split(part), rows, metrics)
    note = describe_local_norms(bundle.model, ranks.num_ranks)
    notes = [note] if note else []
    if ranks.is_first:
        notes += _read_verdict(folder)
        with progress.stage("writing the report"):
            _show_augmentation(recipe, dataset, folder.path / AUGMENTED, tracker)
            latency = try_extra("the latency of the model", lambda: describe_latency(bundle))
            environment = record_environment(recipe, folder.path, ranks, latency)
            run = Finished(folder.path, recipe, dataset, bundle, notes, environment)
            write_report(run)
            write_card(run)
        if recipe.snapshot.keep == "best":
            _drop_snapshots(folder)
    return notes


def track_evaluation(tracker: Tracker, page: BundlePage, split: Split, rows: Rows, metrics: dict[str, Any]) -> None:
    """Track an evaluation; pictures only if the recipe allows it."""
    log_odds = LogOdds(rows.task, rows.logits)
    tracker.log_evaluation(Judged(split.name, metrics, rows.labels, log_odds.column, page.classes))
    if tracker.takes_images:
        worst = try_extra(f"{split.name}/worst in W&B", lambda: read_worst(rows, split, page.preprocess, page.classes))
        tracker.log_pictures(f"{split.name}/worst", worst or [])


def _show_augmentation(recipe: ResolvedRecipe, dataset: Dataset, path: Path, tracker: Tracker | None) -> None:
    """Write a contact sheet of training pictures, if they differ from evaluation's."""
    if not recipe.augment.changes:
        return

    def draw() -> None:
        from trainer.augment.sheet import write_contact_sheet  # it draws, and every start would wait for matplotlib

        write_contact_sheet(recipe, dataset, path)

    try_extra(AUGMENTED, draw)
    if tracker and path.is_file():
        tracker.log_image("augment", path)


def _drop_snapshots(folder: RunFolder) -> None:
    """Keep only the best snapshot."""
    store = SnapshotStore(folder.snapshots)
    state = store.read_last()
    if state is not None and state.best is not None:
        store.drop_all_but(state.best.snapshot)


def _read_verdict(folder: RunFolder) -> list[str]:
    """Return the verdict on the last epoch's feed, unless it was well fed."""
    verdict = read_metrics(folder.path)[-1]["feed/verdict"]
    return [] if verdict.endswith(WELL_FED) else [f"training {verdict}"]
