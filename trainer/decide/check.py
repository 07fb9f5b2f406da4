"""Evaluate a stored decision on a split that it was not fitted to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel

from trainer.contract.bundle import Bundle
from trainer.contract.decision.decision import Answer, Decision
from trainer.contract.decision.operating_point import Interval
from trainer.decide.decision import weigh_classes
from trainer.decide.grouped import bound_by_group
from trainer.decide.point import measure_point
from trainer.decide.proportions import bound_rate
from trainer.decide.seen import Seen
from trainer.evaluate.metrics.resampling import describe_few

Mask = npt.NDArray[np.bool_]

_SHOWN = 5
"""Maximum number of classes to list."""


class Checked(BaseModel):
    """Shares with 95 % intervals, at deployment's class shares; None: not part of the decision, or no pictures.

    right: Correct labels; right_where_sure: correct labels among pictures without abstention. covered: sets that hold
    the true class, overall and by class; empty: empty sets. kept: pictures that are not out of distribution.
    groups: Number of groups, if the intervals are computed over groups; None: they are computed over pictures.
    """

    part: str
    samples: int
    groups: int | None
    right: Interval | None
    recall: Interval | None = None
    precision: Interval | None = None
    specificity: Interval | None = None
    covered: Interval | None = None
    covered_by_class: dict[str, Interval | None] | None = None
    mean_size: float | None = None
    empty: Interval | None = None
    kept: Interval | None = None
    abstains: Interval | None
    right_where_sure: Interval | None
    notes: list[str]


def check_decision(bundle: Bundle, seen: Seen) -> Checked:
    """Evaluate the bundle's answers on a split; answers are computed as in trainer.predict.

    Raises:
        ShardError: Class shares at deployment differ, and the split lacks a class.
    """
    page, decision = bundle.page, bundle.page.decision
    answers = answer_part(bundle, seen)
    ratios = weigh_classes(decision.priors, page.classes, seen)

    def share(hits: Mask, among: Mask | None = None) -> Interval | None:
        if seen.units.by == "group":
            whole = np.ones(len(hits), np.bool_) if among is None else among
            return bound_by_group(hits & whole, whole, seen.labels, ratios, seen.units)
        labels = seen.labels if among is None else seen.labels[among]
        hits = hits if among is None else hits[among]
        found, totals = (np.bincount(part, minlength=len(page.classes)) for part in (labels[hits], labels))
        return bound_rate(found, totals, ratios)

    true = np.array(page.classes)[seen.labels]
    right = np.array([one.label for one in answers]) == true
    unsure = np.array([bool(one.abstain) for one in answers])
    checked = {"right": share(right), "abstains": share(unsure), "right_where_sure": share(right, ~unsure)}
    if decision.point is not None:
        positive = page.classes.index(decision.point.positive)
        flagged = np.array([one.label == decision.point.positive for one in answers])
        found = measure_point(flagged, seen.labels, positive, len(page.classes), ratios, seen.units)
        checked |= dict(zip(("recall", "precision", "specificity"), found, strict=True))
    covered_by_class = None
    if decision.conformal is not None:
        held = np.array([name in (one.set or []) for name, one in zip(true, answers, strict=True)])
        checked["covered"] = share(held)
        covered_by_class = {name: share(held, true == name) for name in page.classes}
        checked["empty"] = share(np.array([not one.set for one in answers]))
    if decision.ood is not None:
        checked["kept"] = share(np.array([(one.ood_score or 0.0) <= decision.ood.threshold for one in answers]))
    return Checked(
        part=seen.part,
        samples=len(answers),
        groups=seen.units.number if seen.units.by == "group" else None,
        covered_by_class=covered_by_class,
        mean_size=_mean_size(answers, decision, seen, ratios),
        notes=note_check(decision, seen),
        **checked,
    )


def answer_part(bundle: Bundle, seen: Seen) -> list[Answer]:
    """Return the answer for each picture of a split."""
    scores: list[float | None] = [None] * len(seen.labels)
    if bundle.detector is not None:
        scores = bundle.detector.score(torch.from_numpy(seen.features).to(bundle.device)).tolist()
    return [bundle.answer(*pair) for pair in zip(torch.from_numpy(seen.logits), scores, strict=True)]


def _mean_size(
    answers: list[Answer], decision: Decision, seen: Seen, ratios: npt.NDArray[np.float64] | None
) -> float | None:
    if decision.conformal is None:
        return None
    weights = None if ratios is None else ratios[seen.labels]
    return float(np.average([len(one.set or []) for one in answers], weights=weights))


def note_check(decision: Decision, seen: Seen) -> list[str]:
    """Return notes about the numbers of a check."""
    few = describe_few(seen.units)
    if seen.part == "train":
        return ["the weights were fitted to these pictures, so the numbers are too good", *few]
    fitted = decision.fitted
    if fitted is not None and (fitted.dataset, fitted.part) == (seen.dataset, seen.part):
        return ["the decision was fitted to these pictures, so the numbers are too good", *few]
    return few


def describe_check(checked: Checked, decision: Decision) -> list[str]:
    """Return lines for display, like `describe_decision`."""
    lines = [f"label        true for {tell_share(checked.right)}"]
    if decision.point is not None:
        name = decision.point.positive
        lines.append(
            f"decision     recall ({name}) {tell_share(checked.recall)}, precision ({name}) "
            f"{tell_share(checked.precision)}, specificity ({name}) {tell_share(checked.specificity)}"
        )
    if decision.conformal is not None:
        lines.append(
            f"set          holds the true class for {tell_share(checked.covered)} (level "
            f"{decision.conformal.level:g}), {checked.mean_size:.2f} classes on average, "
            f"empty for {tell_share(checked.empty)}"
        )
        lines += _describe_classes(checked.covered_by_class or {})
    if decision.ood is not None:
        lines.append(f"ood          near enough {tell_share(checked.kept)} (expected {decision.ood.kept:g})")
    sure = tell_share(checked.right_where_sure)
    lines.append(f"abstains     for {tell_share(checked.abstains)}; otherwise the label is true for {sure}")
    return [*lines, *describe_counted(checked.samples, checked.groups, checked.notes)]


def _describe_classes(covered: dict[str, Interval | None]) -> list[str]:
    """Return a line for each of the classes with the lowest coverage."""
    known = sorted((share.value, name, share) for name, share in covered.items() if share is not None)
    return [f"             of {name} for {tell_share(share)}" for _, name, share in known[:_SHOWN]]


def tell_share(share: Interval | None) -> str:
    """Return a share with its interval and count; "open" without pictures."""
    return "open" if share is None else f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of {share.count:,}"


def describe_counted(samples: int, groups: int | None, notes: list[str]) -> list[str]:
    """Return the last lines: groups, if counted, and notes."""
    counted = f"counted      {samples:,} pictures in {groups or 0:,} groups (intervals are of groups)"
    return [*([] if groups is None else [counted]), *(f"note: {note}" for note in notes)]
