"""Fit, show, check or reset a bundle's decision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import UsageError
from shards.sources.location import name_split
from trainer.contract.bundle import Bundle, BundlePage, read_bundle_page
from trainer.contract.decision.decision import make_plain_decision
from trainer.contract.decision.stored_decision import score_probes, store_decision
from trainer.decide.check import Checked, check_decision
from trainer.decide.check_each import CheckedEach, check_each
from trainer.decide.decision import fit_decision
from trainer.decide.foreign import count_flagged
from trainer.decide.options import DecideOptions
from trainer.decide.seeing import REFERENCE_SAMPLES, Viewer, see_part
from trainer.decide.temperature import TemperatureFit
from trainer.decide.wish import check_dataset, read_wish
from trainer.ranks.ranks import single_rank


@dataclass(frozen=True)
class BundleDecision:
    """A bundle's folder, and its metadata with the stored decision.

    foreign: By kind of foreign picture, how many the fitted `ood` flags, and how many there are.
    temperature: The temperature fit, if there was one. checked: Evaluation of the decision on a split, if requested.
    """

    folder: Path
    page: BundlePage
    temperature: TemperatureFit | None = None
    checked: Checked | CheckedEach | None = None
    foreign: dict[str, tuple[int, int]] | None = None


def decide(options: DecideOptions) -> BundleDecision:
    """Fit a bundle's decision and store it; or show, check or reset the stored one.

    Raises:
        UsageError: The bundle or dataset does not exist, or options do not fit them.
        ShardError: The bundle or dataset is damaged, or a goal cannot be reached; then the bundle is unchanged.
    """
    page = read_bundle_page(options.bundle)
    if options.out is not None and options.out.exists():
        raise UsageError(f"{options.out} exists; choose another --out, or delete it first")
    if options.check:
        return BundleDecision(options.bundle, page, checked=_check(options, page))
    folder = options.out or options.bundle
    if options.reset:
        return BundleDecision(folder, store_decision(options.bundle, make_plain_decision(page.task), out=options.out))
    return BundleDecision(folder, page) if options.show else _fit(options, page)


def _fit(options: DecideOptions, page: BundlePage) -> BundleDecision:
    dataset, part, notes = _open_part(options, page, "val")
    wish = read_wish(options, page, dataset)
    viewer, reference = _load(options, dataset), None
    seen = see_part(viewer, part, with_features=wish.kept is not None, with_groups=True)
    if wish.needs_train and part != "train":
        reference = see_part(viewer, "train", True, REFERENCE_SAMPLES)
    decided = fit_decision(wish, page.classes, seen, reference, notes)
    detector = decided.detector and score_probes(options.bundle, viewer.bundle, decided.detector)
    stored = store_decision(options.bundle, decided.decision, detector, options.out)
    folder = options.out or options.bundle
    foreign = count_flagged(Bundle.load(folder), dataset.split(part)) if stored.decision.ood else None
    return BundleDecision(folder, stored, decided.temperature, foreign=foreign)


def _check(options: DecideOptions, page: BundlePage) -> Checked | CheckedEach:
    """Evaluate the stored decision on a split."""
    if page.decision.fitted is None:
        raise UsageError(f"{options.bundle} has no decision to check; fit one first, or use trainer.evaluate")
    dataset, part, _ = _open_part(options, page, "test")
    viewer = _load(options, dataset)
    seen = see_part(viewer, part, with_features=viewer.bundle.detector is not None, with_groups=True)
    return check_each(viewer.bundle, seen) if page.task == "multi-label" else check_decision(viewer.bundle, seen)


def _open_part(options: DecideOptions, page: BundlePage, default: str) -> tuple[Dataset, str, list[str]]:
    """Return the dataset, the name of an existing split, and notes about it."""
    assert options.data is not None  # only show and reset need no data
    location, part = name_split(options.data, default)
    dataset = open_dataset(location).require_labels()
    notes = check_dataset(page, dataset)
    dataset.split(part)
    return dataset, part, notes


def _load(options: DecideOptions, dataset: Dataset) -> Viewer:
    ranks = single_rank()
    return Viewer(Bundle.load(options.bundle, str(ranks.device)), dataset, ranks, options.workers)
