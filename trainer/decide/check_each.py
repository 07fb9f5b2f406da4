"""Evaluate a stored decision with several labels on a split that it was not fitted to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from trainer.contract.bundle import Bundle
from trainer.contract.decision.operating_point import Interval
from trainer.decide.check import answer_part, describe_counted, note_check, tell_share
from trainer.decide.grouped import bound_by_group
from trainer.decide.point import measure_point
from trainer.decide.proportions import bound_share
from trainer.decide.seen import Seen
from trainer.evaluate.metrics.resampling import Units

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class CheckedClass(BaseModel):
    """Shares of a class's pictures, of pictures predicted as it, and of the others; None: there are none."""

    recall: Interval | None
    precision: Interval | None
    specificity: Interval | None


class CheckedEach(BaseModel):
    """Shares with 95 % intervals. right: pictures whose labels are all correct; kept, abstains: as in `Checked`."""

    part: str
    samples: int
    groups: int | None
    right: Interval | None
    classes: dict[str, CheckedClass]
    kept: Interval | None = None
    abstains: Interval | None
    notes: list[str]


def check_each(bundle: Bundle, seen: Seen) -> CheckedEach:
    """Evaluate a decision with several labels on a split; raises like `Bundle.answer`."""
    page, decision, units = bundle.page, bundle.page.decision, seen.units
    answers = answer_part(bundle, seen)
    there = np.array([[name in one.labels for name in page.classes] for one in answers])
    right = (there == (seen.labels == 1)).all(axis=1)
    near = np.array([not one.abstain for one in answers])
    classes = {
        name: CheckedClass(**_measure(there[:, number], seen.labels[:, number], units))
        for number, name in enumerate(page.classes)
    }
    return CheckedEach(
        part=seen.part,
        samples=len(right),
        groups=units.number if units.by == "group" else None,
        right=_share(right, units),
        classes=classes,
        kept=_share(near, units) if decision.ood else None,
        abstains=_share(~near, units),
        notes=note_check(decision, seen),
    )


def _measure(flagged: Mask, labels: Ints, units: Units) -> dict[str, Interval | None]:
    return dict(
        zip(("recall", "precision", "specificity"), measure_point(flagged, labels, 1, 2, None, units), strict=True)
    )


def _share(hits: Mask, units: Units) -> Interval | None:
    if units.by == "group":
        return bound_by_group(hits, np.ones(len(hits), np.bool_), np.zeros(len(hits), np.int64), None, units)
    return bound_share(int(hits.sum()), len(hits))


def describe_check_each(checked: CheckedEach) -> list[str]:
    """Return lines for display, like `describe_decision`."""
    lines = [f"labels       all right for {tell_share(checked.right)}"]
    for name, found in checked.classes.items():
        lines.append(
            f"{name:<12} recall {tell_share(found.recall)}, precision {tell_share(found.precision)}, "
            f"specificity {tell_share(found.specificity)}"
        )
    if checked.kept is not None:
        lines.append(f"ood          near enough {tell_share(checked.kept)}")
    return [*lines, *describe_counted(checked.samples, checked.groups, checked.notes)]
