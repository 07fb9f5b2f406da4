"""How the answers of an endpoint differ from those of a bundle, by kind.

Logits agree within a tolerance, so a picture close to a border may be decided either way. Its words count as equal if
the bundle itself decides so for the endpoint's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from cluster.client import Answer as Answered
from cluster.client import PictureRefusedError
from cluster.verify.sample import Sampled
from trainer.contract.bundle import Bundle
from trainer.contract.decision.decision import Answer

_WORDS: Final = ("label", "labels", "decision", "abstain", "set")
_NAMED: Final = 5
"""Pictures that are named for each kind."""
_SAME_PROBABILITY: Final = 1e-6
"""Largest difference of probabilities that are computed from the same logits."""


@dataclass(frozen=True)
class Pair:
    """A picture, and what both say of it: an answer, or why it is refused."""

    sampled: Sampled
    theirs: Answered | PictureRefusedError
    own: Answer | str


@dataclass(frozen=True)
class Tolerance:
    """The largest differences that count as equal, relative to the bundle's largest number for all pictures."""

    logits: float
    ood_score: float


@dataclass(frozen=True)
class Difference:
    """One kind of difference."""

    kind: str
    """fingerprint: another bundle answered. refused: only one of both answered. probabilities: others than the bundle
    computes from the endpoint's logits. The others are fields of the answer."""
    compared: int
    """Pictures that were compared."""
    differs: int
    largest: float | None
    """Of logits and scores, relative to the bundle's largest; of probabilities as they are; None for words."""
    pictures: list[str]
    """Names of the first pictures that differ."""
    example: str
    """What both say of the first of them."""


@dataclass(frozen=True)
class _Both:
    """The two answers for a picture, and the bundle's own for the endpoint's logits, if it can take them."""

    name: str
    theirs: dict[str, Any]
    own: dict[str, Any]
    again: dict[str, Any] | None


def list_differences(bundle: Bundle, pairs: Sequence[Pair], tolerance: Tolerance) -> list[Difference]:
    """Return one entry for each kind that was compared, whether anything differs or not."""
    answered = [
        _Both(pair.sampled.name, dict(pair.theirs), pair.own.model_dump(), _decide_again(bundle, dict(pair.theirs)))
        for pair in pairs
        if not isinstance(pair.theirs, PictureRefusedError) and not isinstance(pair.own, str)
    ]
    logits = _compare_numbers("logits", answered, tolerance.logits)
    scores = _compare_numbers("ood_score", answered, tolerance.ood_score)
    apart = {name for name, _ in [*logits.differing, *scores.differing]}
    found = [
        _compare_fingerprints(bundle.page.fingerprint(), answered),
        _compare_refusals(pairs),
        logits,
        _compare_probabilities(answered),
        scores,
        *(_compare_words(kind, answered, apart) for kind in _WORDS),
    ]
    return [each.describe() for each in found if each.compared]


@dataclass(frozen=True)
class _Found:
    """The pictures of one kind of difference, each with what both say of it."""

    kind: str
    compared: int
    differing: list[tuple[str, str]]
    largest: float | None = None

    def describe(self) -> Difference:
        example = self.differing[0][1] if self.differing else ""
        names = [name for name, _ in self.differing[:_NAMED]]
        return Difference(self.kind, self.compared, len(self.differing), self.largest, names, example)


def _decide_again(bundle: Bundle, theirs: dict[str, Any]) -> dict[str, Any] | None:
    logits, score = theirs.get("logits") or [], theirs.get("ood_score")
    if len(logits) != len(bundle.page.classes) or (bundle.page.decision.ood is not None and score is None):
        return None
    return bundle.answer(torch.tensor(logits), score).model_dump()


def _compare_fingerprints(own: str, answered: Sequence[_Both]) -> _Found:
    bundles = [(both.name, str(both.theirs.get("bundle"))) for both in answered]
    return _Found("fingerprint", len(answered), [(name, f"{it}, not {own}") for name, it in bundles if it != own])


def _compare_refusals(pairs: Sequence[Pair]) -> _Found:
    differing = []
    for pair in pairs:
        name, theirs, own = pair.sampled.name, pair.theirs, pair.own
        if isinstance(theirs, PictureRefusedError) and not isinstance(own, str):
            differing.append((name, f"the endpoint refuses it ({theirs})"))
        elif isinstance(own, str) and not isinstance(theirs, PictureRefusedError):
            differing.append((name, f"the bundle refuses it ({own})"))
    return _Found("refused", len(pairs), differing)


def _compare_numbers(kind: str, answered: Sequence[_Both], limit: float) -> _Found:
    rows = [(both.name, _list_numbers(both.theirs.get(kind)), _list_numbers(both.own.get(kind))) for both in answered]
    rows = [row for row in rows if row[1] or row[2]]
    scale = max(1e-6, *(abs(number) for _, _, own in rows for number in own)) if rows else 1.0
    sizes = [_measure(theirs, own) / scale for _, theirs, own in rows]
    differing = [
        (name, f"{_spell(theirs)}, not {_spell(own)}")
        for (name, theirs, own), size in zip(rows, sizes, strict=True)
        if not size <= limit
    ]
    return _Found(kind, len(rows), differing, max(sizes, default=0.0))


def _compare_probabilities(answered: Sequence[_Both]) -> _Found:
    differing, largest = [], 0.0
    for both in answered:
        theirs, own = both.theirs.get("probabilities") or {}, (both.again or both.own)["probabilities"]
        same_classes = list(theirs) == list(own)
        size = _measure(list(theirs.values()), list(own.values())) if same_classes else float("inf")
        largest = max(largest, size)
        if not size <= _SAME_PROBABILITY:
            spelt = [_spell(list(side.values() if same_classes else side)) for side in (theirs, own)]
            differing.append((both.name, f"{spelt[0]}, not {spelt[1]}"))
    return _Found("probabilities", len(answered), differing, largest)


def _compare_words(kind: str, answered: Sequence[_Both], apart: set[str]) -> _Found:
    """Compare words; those of pictures whose numbers agree are also equal if the bundle decides so for their logits."""
    compared, differing = 0, []
    for both in answered:
        said, own = both.theirs.get(kind), both.own[kind]
        compared += said is not None or own is not None
        is_close = both.again is not None and both.name not in apart and said == both.again[kind]
        if said != own and not is_close:
            differing.append((both.name, f"{_spell_word(said)}, not {_spell_word(own)}"))
    return _Found(kind, compared, differing)


def _list_numbers(value: Any) -> list[float]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _measure(theirs: Sequence[float], own: Sequence[float]) -> float:
    """Return the largest difference; infinity if one side lacks numbers."""
    if len(theirs) != len(own):
        return float("inf")
    return max((abs(one - other) for one, other in zip(theirs, own, strict=True)), default=0.0)


def _spell(items: Sequence[Any]) -> str:
    shown = [f"{item:.5g}" if isinstance(item, float) else str(item) for item in items[:4]]
    return ", ".join([*shown, *(["..."] if len(items) > 4 else [])]) or "none"


def _spell_word(word: Any) -> str:
    if isinstance(word, list):
        return f"{{{', '.join(word)}}}"
    return str(word).lower() if isinstance(word, bool) or word is None else str(word)
