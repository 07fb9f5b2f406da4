"""The requested decision, from the options of `trainer.decide`, a bundle and a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from shards.dataset.dataset import Dataset
from shards.dataset.positive import find_misfit
from shards.errors import UsageError
from trainer.contract.bundle import BundlePage
from trainer.contract.decision.calibration import PriorShift, parse_shares
from trainer.contract.decision.conformal import Kind
from trainer.contract.decision.ood import OodScore
from trainer.contract.decision.operating_point import PointRule, parse_rule
from trainer.decide.options import DecideOptions


@dataclass(frozen=True)
class Wish:
    """The requested parts of a decision.

    positive: Class of `point`. level, score: Of conformal sets; by_class: the level holds for each class. kept: Share
    of pictures like the split's that count as in distribution by ood_score; needs_train: compare with pictures of
    train.
    priors: Class shares in training and at deployment.
    """

    temperature: bool = True
    point: PointRule | None = None
    positive: str | None = None
    level: float | None = None
    score: Kind = "lac"
    by_class: bool = False
    kept: float | None = None
    ood_score: OodScore = "residual"
    needs_train: bool = False
    abstain_below: float | None = None
    priors: PriorShift | None = None


def read_wish(options: DecideOptions, page: BundlePage, dataset: Dataset) -> Wish:
    """Return the decision requested by the options of `trainer.decide`.

    Raises:
        UsageError: The options do not fit the classes, or class shares in training are unknown.
    """
    classes = page.classes
    positive = options.positive
    if positive is None and options.point is not None:
        positive = page.positive or dataset.manifest.positive
    _refuse_misfit(options, page, positive)
    if options.positive is not None and options.positive not in classes:
        raise UsageError(f"--positive {options.positive} {find_misfit(options.positive, classes)}")
    needs_train = options.ood is not None and options.ood_fit != "same"
    if needs_train and "train" not in dataset.manifest.splits:
        raise UsageError("--ood compares with the train split, but the dataset has none; use --ood-fit same")
    return Wish(
        temperature=options.temperature,
        point=None if options.point is None else parse_rule(options.point),
        positive=positive,
        level=options.conformal,
        score=options.conformal_score,
        by_class=options.conformal_by == "class",
        kept=options.ood,
        ood_score=options.ood_score,
        needs_train=needs_train,
        abstain_below=options.abstain_below,
        priors=_read_priors(options, classes, dataset),
    )


def _refuse_misfit(options: DecideOptions, page: BundlePage, positive: str | None) -> None:
    """Raise for options that do not apply to the bundle's number of labels per picture."""
    if page.task == "single-label":
        if options.point is not None and positive is None:
            raise UsageError(
                "--point needs a class, and this bundle has no positive one; add --positive, one of "
                f"{', '.join(page.classes)}"
            )
        return
    for name in ("conformal", "abstain_below", "deploy_prior"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is for one label per picture, but this bundle gives any number; "
                "use --temperature, --point or --ood"
            )


def check_dataset(page: BundlePage, dataset: Dataset) -> list[str]:
    """Return notes about the dataset that a decision is fitted to.

    Raises:
        UsageError: The dataset has other classes than the bundle, or another number of labels per picture.
    """
    if page.task != dataset.manifest.task:
        raise UsageError(
            f"the bundle is {page.task}, but the dataset is {dataset.manifest.task}; labels cannot be compared, so no "
            "decision was fitted; use a dataset of the bundle's kind"
        )
    if page.classes != dataset.classes:
        raise UsageError(
            f"the bundle has the classes {', '.join(page.classes)}, but the dataset has {', '.join(dataset.classes)}; "
            "labels would differ in meaning, so nothing was decided"
        )
    if page.dataset is None or page.dataset == dataset.fingerprint():
        return []
    return ["the dataset is not the one that the bundle was trained on; it should come from the place of deployment"]


def _read_priors(options: DecideOptions, classes: list[str], dataset: Dataset) -> PriorShift | None:
    """Return class shares at deployment and in training (default: those of the train split)."""
    if options.deploy_prior is None:
        return None
    if options.train_prior is not None:
        train = parse_shares("--train-prior", options.train_prior, classes, None)
    else:
        split = dataset.manifest.splits.get("train")
        counts = split.class_counts if split else [0] * len(classes)
        if min(counts) == 0:
            raise UsageError(
                "the dataset's train split does not have all classes, so their shares in training are unknown; "
                "give --train-prior CLASS=SHARE,..."
            )
        train = [count / sum(counts) for count in counts]
    return PriorShift(train=train, deploy=parse_shares("--deploy-prior", options.deploy_prior, classes, train))
