"""Describe a stored decision in words."""

from __future__ import annotations

from trainer.contract.decision.conformal import ConformalSets, bound_coverage
from trainer.contract.decision.decision import Decision
from trainer.contract.decision.operating_point import NEVER, Interval, OperatingPoint
from trainer.contract.task import THRESHOLD

_SHOWN = 5
"""Number of classes whose coverage is listed: those with the fewest pictures."""


def describe_decision(decision: Decision, classes: list[str]) -> list[str]:
    """Return lines for display, with names in the first 13 characters.

    >>> describe_decision(Decision(), ["a", "b"])
    ['decision     the most probable class']
    """
    lines = _describe_probabilities(decision, classes)
    one = decision.task.is_exclusive
    lines += _describe_point(decision.point) if one else _describe_points(decision.points or [], classes)
    if decision.conformal is not None:
        lines += _describe_sets(decision.conformal, classes, decision.priors is not None)
    if decision.ood is not None:
        ood = decision.ood
        lines.append(
            f"ood          abstains above a {ood.score} score of {ood.threshold:.4g}, which {ood.kept:.0%} of pictures "
            f"like these stay below; fitted on {ood.samples:,} pictures of {ood.fitted_on}"
        )
    if decision.abstain_below is not None:
        lines.append(f"abstains     if no class has probability {decision.abstain_below:g}")
    if decision.fitted is not None:
        fitted = decision.fitted
        groups = "" if fitted.groups is None else f" in {fitted.groups:,} groups (intervals are of groups)"
        lines.append(
            f"fitted on    {fitted.samples:,} pictures of {fitted.part}{groups}, dataset {fitted.dataset[:12]}"
        )
        lines += [f"note: {note}" for note in fitted.notes]
    return lines


def _describe_probabilities(decision: Decision, classes: list[str]) -> list[str]:
    lines = []
    if decision.temperature is not None:
        lines.append(f"temperature  {decision.temperature:.4g}")
    if decision.priors is not None:
        pairs = zip(classes, decision.priors.train, decision.priors.deploy, strict=True)
        lines.append("priors       " + ", ".join(f"{name} {was:.3g} -> {now:.3g}" for name, was, now in pairs))
    return lines


def _describe_points(points: list[OperatingPoint], classes: list[str]) -> list[str]:
    lines = [line for point in points for line in _describe_point(point)]
    if not points:
        return [f"decision     every class whose own probability is at least {THRESHOLD:g}"]
    if len(points) < len(classes):
        lines.append(f"decision     every other class whose own probability is at least {THRESHOLD:g}")
    return lines


def _describe_point(point: OperatingPoint | None) -> list[str]:
    if point is None:
        return ["decision     the most probable class"]
    when = "never" if point.threshold == NEVER else f"from probability {point.threshold:.4g} on"
    bayes = "" if point.bayes_threshold is None else f" (Bayes: {point.bayes_threshold:.4g})"
    name = point.positive
    precision = f"precision ({name}) " + ("open" if point.precision is None else _describe(point.precision))
    return [
        f"decision     {point.positive} {when}{bayes}, for {point.rule}",
        f"             recall ({name}) {_describe(point.recall)}, {precision}, "
        f"specificity ({name}) {_describe(point.specificity)}",
    ]


def _describe(share: Interval) -> str:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of {share.count:,}"


def _describe_sets(sets: ConformalSets, classes: list[str], has_priors: bool) -> list[str]:
    whose = "over all pictures like these" if sets.class_samples is None else "for each class"
    lines = [
        f"set          holds the true class of {sets.level:.0%} of pictures, {whose}; "
        f"{sets.score}, {sets.mean_size:.2f} classes on average, fitted on {sets.samples:,}"
    ]
    if sets.class_samples is not None:
        counts = sorted(zip(sets.class_samples, classes, strict=True))
        lines += [_describe_coverage(sets.level, count, f"of {name} ") for count, name in counts[:_SHOWN]]
        rest = counts[_SHOWN:]
        return lines + ([f"             {len(rest):,} other classes have more pictures"] if rest else [])
    # With other class shares the distribution differs: the guarantee holds on average, and no range is stated.
    return lines if has_priors else [*lines, _describe_coverage(sets.level, sets.samples, "")]


def _describe_coverage(level: float, samples: int, of_class: str) -> str:
    """Return the range of coverage in words.

    >>> _describe_coverage(0.9, 137, "").strip()
    'of new pictures 0.852 to 0.949 in 95 of 100 fits to 137 pictures like this one'
    """
    low, high = bound_coverage(level, samples)
    fits = f"in 95 of 100 fits to {samples:,} pictures like this one"
    return f"             {of_class or 'of '}new pictures {low:.3f} to {high:.3f} {fits}"
