"""A bundle's decision: fitted and stored, read, checked or taken back."""

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
    """A bundle's folder, and its page with the decision that is stored in it now.

    foreign: Of foreign pictures by kind, how many the `ood` that was fitted flags, and how many there are.
    temperature: How that came out, where one was fitted. checked: What the decision gives on a split, where that was
    asked for.
    """

    folder: Path
    page: BundlePage
    temperature: TemperatureFit | None = None
    checked: Checked | CheckedEach | None = None
    foreign: dict[str, tuple[int, int]] | None = None


def decide(options: DecideOptions) -> BundleDecision:
    """Fit a bundle's decision and store it; or show, check or reset the one that it has.

    Raises:
        UsageError: No bundle or dataset, or options that do not fit them.
        ShardError: A damaged bundle or dataset, or a goal that cannot be reached; the bundle is unchanged then.
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
    """Return what the stored decision gives on a part."""
    if page.decision.fitted is None:
        raise UsageError(f"{options.bundle} has no decision to check; fit one first, or ask trainer.evaluate")
    dataset, part, _ = _open_part(options, page, "test")
    viewer = _load(options, dataset)
    seen = see_part(viewer, part, with_features=viewer.bundle.detector is not None, with_groups=True)
    return check_each(viewer.bundle, seen) if page.task == "multi-label" else check_decision(viewer.bundle, seen)


def _open_part(options: DecideOptions, page: BundlePage, default: str) -> tuple[Dataset, str, list[str]]:
    """Return the dataset, the name of a part that it has, and what its user must know of it."""
    assert options.data is not None  # show and reset alone go without
    location, part = name_split(options.data, default)
    dataset = open_dataset(location).require_labels()
    notes = check_dataset(page, dataset)
    dataset.split(part)
    return dataset, part, notes


def _load(options: DecideOptions, dataset: Dataset) -> Viewer:
    ranks = single_rank()
    return Viewer(Bundle.load(options.bundle, str(ranks.device)), dataset, ranks, options.workers)
