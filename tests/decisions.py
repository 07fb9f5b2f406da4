"""Decisions of every kind on the three colours, and how two answers differ."""

from __future__ import annotations

from typing import Any

from conftest import COLOURS

from trainer.contract.decision.calibration import PriorShift
from trainer.contract.decision.conformal import ConformalSets
from trainer.contract.decision.decision import Decision, Fitted
from trainer.contract.decision.operating_point import NEVER, Interval, OperatingPoint

SHARE = Interval(value=0.9, low=0.8, high=1.0, count=10)
FITTED = Fitted(dataset="0" * 64, part="val", samples=24, notes=[])
NAMES = list(COLOURS)


def point(positive: str, threshold: float) -> OperatingPoint:
    return OperatingPoint(
        rule="max-f1", positive=positive, threshold=threshold, recall=SHARE, precision=SHARE, specificity=SHARE
    )


def sets(score: Any, *thresholds: float) -> ConformalSets:
    return ConformalSets(level=0.9, score=score, thresholds=list(thresholds), samples=24, mean_size=1.5)


PRIORS = PriorShift(train=[0.5, 0.25, 0.25], deploy=[0.2, 0.7, 0.1])
DECISIONS = {
    "argmax": Decision(),
    "threshold": Decision(temperature=0.3, priors=PRIORS, point=point("green", 0.4), fitted=FITTED),
    "never": Decision(point=point("red", NEVER), abstain_below=0.5, fitted=FITTED),
    "lac": Decision(temperature=0.2, conformal=sets("lac", 0.5, 0.6, 0.7), abstain_below=0.6, fitted=FITTED),
    "by class": Decision(
        conformal=sets("aps", 0.9, 0.5, 0.8).model_copy(update={"class_samples": [9, 8, 7]}), fitted=FITTED
    ),
    "aps": Decision(temperature=1.7, conformal=sets("aps", 0.6, 0.8, 0.7), fitted=FITTED),
    "each": Decision(rule="each"),
    "points": Decision(rule="each", temperature=0.4, points=[point("blue", 0.3), point("red", 0.8)], fitted=FITTED),
}


def compare(actual: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return the largest difference of a number of two answers whose words are equal."""
    assert actual.keys() == expected.keys()
    words = ("label", "labels", "decision", "abstain", "set", "bundle")
    assert {name: actual.get(name) for name in words} == {name: expected.get(name) for name in words}
    assert actual["probabilities"].keys() == expected["probabilities"].keys()
    pairs = [(actual["probability"], expected["probability"])]
    pairs += zip(actual["probabilities"].values(), expected["probabilities"].values(), strict=True)
    pairs += zip(actual["logits"], expected["logits"], strict=True)
    if "ood_score" in expected:
        pairs.append((actual["ood_score"] / expected["ood_score"], 1.0))
    return max(abs(one - other) for one, other in pairs)
