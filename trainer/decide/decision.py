"""Fit a bundle's decision to the outputs of its model on one split of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shards.errors import ShardError
from trainer.contract.decision.calibration import PriorShift, calibrate
from trainer.contract.decision.conformal import ConformalSets, find_quantile, fit_sets, fit_sets_by_class
from trainer.contract.decision.decision import Decision, Fitted
from trainer.contract.decision.ood import Detector, OodRule, scale_to_length_one
from trainer.contract.decision.operating_point import OperatingPoint, PointRule
from trainer.decide.each import fit_points
from trainer.decide.gaussians import fit_gaussians, fit_residual
from trainer.decide.point import fit_point
from trainer.decide.seen import Seen
from trainer.decide.shares import measure_shares
from trainer.decide.temperature import TemperatureFit, fit_temperature, fit_temperature_each
from trainer.decide.wish import Wish
from trainer.evaluate.metrics.resampling import describe_few

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_SHARES_APART = 0.1
_PARTS = {
    "train": [
        "fitted on train, the pictures that the weights were fitted to: probabilities will be too high on new pictures "
        "and thresholds too strict; fit on val"
    ],
    "test": ["fitted on test: later results on test will be too good for this bundle; fit on val"],
}


@dataclass(frozen=True)
class Decided:
    """A decision; the detector of its `ood`, without scores of probes; the temperature fit."""

    decision: Decision
    detector: Detector | None
    temperature: TemperatureFit | None


def fit_decision(wish: Wish, classes: list[str], seen: Seen, reference: Seen | None, notes: list[str]) -> Decided:
    """Fit the requested decision.

    If two things must not be fitted to the same pictures, these are divided in two by a hash of the sample id: the
    temperature is fitted to one half and the conformal sets to the other; likewise Gaussians and their threshold
    without a reference. The operating point is fitted to all pictures: a temperature does not change the order of two
    classes, on which it depends, and hardly that of more.

    Args:
        wish: The requested parts of the decision.
        classes: K names.
        seen: Model outputs on the split it is fitted to.
        reference: Model outputs that the Gaussians are fitted to; None: half of `seen`.
        notes: Notes so far; the decision has these and those of the fit.

    Raises:
        ShardError: There are too few pictures, a needed class has none, or a goal cannot be reached.
    """
    _require_numbers(seen)
    first = is_in_first_half(seen.ids)
    everything = np.ones(len(first), dtype=np.bool_)
    halved = wish.temperature and wish.level is not None
    notes = [*_PARTS.get(seen.part, []), *notes]
    found = _fit_temperature(seen, first if halved else everything, notes) if wish.temperature else None
    temperature = found.temperature if found else None
    choose = _WAYS[seen.task.name].choose
    chosen = choose(wish, classes, seen, temperature, ~first if halved else everything, notes)
    ood, detector = _fit_ood(wish, wish.kept, seen, reference, first) if wish.kept is not None else (None, None)
    decision = Decision(
        temperature=temperature,
        ood=ood,
        fitted=Fitted(
            dataset=seen.dataset,
            part=seen.part,
            samples=len(seen.labels),
            groups=seen.units.number if seen.units.by == "group" else None,
            notes=notes,
        ),
        **chosen,
    )
    return Decided(_with_shares(decision, classes, seen), detector, found)


def _with_shares(decision: Decision, classes: list[str], seen: Seen) -> Decision:
    assert decision.fitted is not None
    fitted = decision.fitted.model_copy(update={"label_shares": measure_shares(decision, classes, seen)})
    return decision.model_copy(update={"fitted": fitted})


def _choose_label(
    wish: Wish, classes: list[str], seen: Seen, temperature: float | None, rows: Mask, notes: list[str]
) -> dict[str, Any]:
    """Return the fields of Decision for one label; sets are fitted to `rows`, notes are added."""
    calibrated = calibrate(torch.from_numpy(seen.logits), temperature, wish.priors)
    probabilities = seen.task.soften(calibrated).numpy()
    notes += _compare_shares(wish.priors, classes, seen, temperature)
    ratios = weigh_classes(wish.priors, classes, seen)
    point = _fit_point(wish, classes, seen, probabilities, ratios, notes)
    sets = None
    if wish.level is not None:
        sets = _fit_sets(wish, wish.level, classes, seen, probabilities, ratios, rows)
        notes += note_sets(sets, seen)
    chosen = {"rule": seen.task.rules[0], "priors": wish.priors, "point": point, "conformal": sets}
    return chosen | {"abstain_below": wish.abstain_below}


def _fit_sets(
    wish: Wish, level: float, classes: list[str], seen: Seen, probabilities: Floats, ratios: Floats | None, rows: Mask
) -> ConformalSets:
    given = probabilities[rows], seen.labels[rows], level, wish.score
    if wish.by_class:
        return fit_sets_by_class(*given, classes)
    try:
        return fit_sets(*given, ratios)
    except ShardError as err:
        others = "" if rows.all() else ", about half of them for the temperature"
        raise ShardError(f"{seen.part} has {len(rows):,} pictures{others}; for the sets, {err}") from err


def note_sets(sets: ConformalSets, seen: Seen) -> list[str]:
    """Return notes about the limits of the sets' guarantee."""
    on_average = "on average over pictures like those of"
    promise = f"the sets' guarantee holds {on_average} {seen.part}, not for each class or group"
    if sets.class_samples is not None:
        promise = f"the sets' guarantee holds for each class, {on_average} {seen.part}, not for each group"
    notes = [f"{promise}, and not for pictures from other sources"]
    if seen.units.by == "group":
        notes.append(
            f"coverage on new pictures varies more than stated, as if fitted to fewer pictures: those of "
            f"{seen.part} come in {seen.units.number:,} groups of similar pictures"
        )
    return notes


def _choose_labels(
    wish: Wish, classes: list[str], seen: Seen, temperature: float | None, _: Mask, notes: list[str]
) -> dict[str, Any]:
    """Return the fields of Decision for several labels; notes are added."""
    shares = seen.task.soften(calibrate(torch.from_numpy(seen.logits), temperature, None))
    points = fit_points(wish, classes, seen, shares.numpy(), notes)
    if wish.point is not None:
        notes += _note_point(wish.point, seen)
    return {"rule": seen.task.rules[0], "points": points}


def _require_numbers(seen: Seen) -> None:
    if len(seen.labels) == 0:
        raise ShardError(f"{seen.part} has no pictures to fit to")
    broken = int((~np.isfinite(seen.logits).all(axis=1)).sum())
    if broken:
        raise ShardError(
            f"the logits of {broken:,} of {len(seen.labels):,} pictures of {seen.part} are not finite; the weights "
            "overflow, so nothing was fitted"
        )


def _compare_shares(priors: PriorShift | None, classes: list[str], seen: Seen, temperature: float | None) -> list[str]:
    """Return a note if the model clearly learned other class shares than the prior shift assumes."""
    if priors is None:
        return []
    plain = seen.task.soften(calibrate(torch.from_numpy(seen.logits), temperature, None)).numpy()
    given, there = plain.mean(axis=0), np.bincount(seen.labels, minlength=len(classes)) / len(seen.labels)
    worst = int(np.abs(given - there).argmax())
    if abs(given[worst] - there[worst]) <= _SHARES_APART or not np.abs(there - priors.train).max() <= _SHARES_APART:
        return []
    return [
        f"the model gives {classes[worst]} {given[worst]:.2f} on average, but its share is {there[worst]:.2f}: it "
        "seems to have learned other class shares than those of train, as in balanced training; set --train-prior"
    ]


def is_in_first_half(ids: npt.NDArray[np.int64]) -> Mask:
    """Return bool[N], by the sha256 of each sample id: about half of them, independent of other options.

    >>> int(is_in_first_half(np.arange(10_000)).sum())
    5058
    """
    return np.array([hashlib.sha256(str(number).encode()).digest()[0] < 128 for number in ids.tolist()], dtype=np.bool_)


def _fit_temperature(seen: Seen, rows: Mask, notes: list[str]) -> TemperatureFit:
    if not rows.any():
        raise ShardError(f"{seen.part} has {len(rows)} pictures, too few to divide in two; fit on a larger split")
    found = _WAYS[seen.task.name].fit_temperature(seen.logits[rows], seen.labels[rows])
    if found.temperature is None:
        notes.append(
            f"every one of {int(rows.sum())} pictures of {seen.part} is predicted correctly, so the temperature is "
            "undetermined; probabilities are unchanged"
        )
    return found


def weigh_classes(priors: PriorShift | None, classes: list[str], seen: Seen) -> Floats | None:
    """Return float64[K], ratio of each class's share at deployment to its share in the split; None: equal.

    Raises:
        ShardError: The split lacks a class.
    """
    if priors is None:
        return None
    counts = np.bincount(seen.labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if missing:
        raise ShardError(
            f"{seen.part} has no pictures of {', '.join(missing)}, so the effect of other class shares "
            "is unknown; fit on a split with all classes"
        )
    ratios: Floats = np.array(priors.deploy) * len(seen.labels) / counts
    return ratios


def _fit_point(
    wish: Wish, classes: list[str], seen: Seen, probabilities: Floats, ratios: Floats | None, notes: list[str]
) -> OperatingPoint | None:
    if wish.point is None or wish.positive is None:
        return None
    positive = classes.index(wish.positive)
    hits = int((seen.labels == positive).sum())
    if hits in (0, len(seen.labels)):
        raise ShardError(
            f"{seen.part} has {hits} pictures of {wish.positive} among {len(seen.labels)}; an operating point needs "
            "pictures of it and of others"
        )
    notes += _note_point(wish.point, seen)
    return fit_point(wish.point, classes, positive, probabilities, seen.labels, ratios, seen.units)


def _note_point(rule: PointRule, seen: Seen) -> list[str]:
    notes = []
    if rule.goal != "recall":
        notes.append(
            "the threshold was chosen on the same pictures as its numbers, which are therefore slightly too good; "
            "use --check on test for unbiased numbers"
        )
    elif rule.confidence is None and rule.value < 1:
        notes.append(
            f"recall {rule.value:g} is reached on the pictures used to choose the threshold; on new ones about "
            f"half of such thresholds fall short of it; --point 'recall>={rule.value:g} with 95 %' uses the lower "
            "bound"
        )
    return [*notes, *describe_few(seen.units)]


def _fit_ood(wish: Wish, kept: float, seen: Seen, reference: Seen | None, first: Mask) -> tuple[OodRule, Detector]:
    """Return the rule, whose file is not yet written, and the detector; one Gaussian with several labels."""
    source = seen if reference is None else reference
    fit = first if reference is None else np.ones(len(source.labels), dtype=np.bool_)
    judge = ~first if reference is None else np.ones(len(seen.labels), dtype=np.bool_)
    points = scale_to_length_one(torch.from_numpy(source.features[fit])).numpy()
    labels = _WAYS[source.task.name].divide(source.labels)[fit]
    detector = fit_residual(points) if wish.ood_score == "residual" else fit_gaussians(points, labels)
    scores = detector.score(torch.from_numpy(seen.features[judge])).double().numpy()
    rule = OodRule(
        score=wish.ood_score,
        threshold=find_quantile(scores, kept),
        kept=kept,
        fitted_on=source.part,
        samples=int(fit.sum()),
        features=points.shape[1],
        file="",
        sha256="",
    )
    return rule, detector


@dataclass(frozen=True)
class _Way:
    """The task-specific functions; divide: returns int64[N], the Gaussian of each sample."""

    choose: Callable[[Wish, list[str], Seen, float | None, Mask, list[str]], dict[str, Any]]
    fit_temperature: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], TemperatureFit]
    divide: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]


_WAYS = {
    "single-label": _Way(_choose_label, fit_temperature, lambda labels: labels),
    "multi-label": _Way(_choose_labels, fit_temperature_each, lambda labels: np.zeros(len(labels), np.int64)),
}
