"""The audit of a set of pictures: which are readable, the split of each, which are equal, and the faults found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shards.audit.duplicates import Pairs, correlate, find_duplicates, join_parts
from shards.audit.examine import Examined
from shards.audit.findings import Findings, collect_findings
from shards.errors import ShardError
from shards.pictures.decode import DecodeOptions
from shards.sources.model import Source
from shards.splits.splits import SplitOptions, assign_splits

_NAMED = 5
"""Pictures that a message names."""


@dataclass(frozen=True)
class Audit:
    """What is known of every picture; all sequences have one entry per source.

    splits: '' for a picture that is unreadable or left out by --fraction.
    """

    sources: Sequence[Source]
    examined: Examined
    splits: list[str]
    pairs: Pairs
    findings: Findings
    notes: list[str] = field(default_factory=list)

    def similarity(self, left: int, right: int) -> float:
        """Return the similarity of two pictures: the correlation of their thumbnails, 1 for equal pixels."""
        hashes = self.examined.facts["pixels_xxh3"]
        if hashes[left].as_py() == hashes[right].as_py():
            return 1.0
        return correlate(self.examined.thumbnails[[left]], self.examined.thumbnails[[right]]).item()

    def without(self, rows: Iterable[int]) -> Audit:
        """Return the audit of the remaining pictures when `rows` are taken out."""
        splits = list(self.splits)
        for row in rows:
            splits[row] = ""
        return replace(self, splits=splits, findings=_collect(self.sources, splits, self.pairs))


def find_rejected(examined: Examined) -> npt.NDArray[np.int64]:
    """Return int64[n]: the positions of the unreadable pictures."""
    kinds = examined.facts["kind"].to_numpy(zero_copy_only=False)
    return np.flatnonzero(kinds != "").astype(np.int64)


def list_rejected(sources: Sequence[Source], examined: Examined) -> list[tuple[str, str]]:
    """Return name and reason of every unreadable picture."""
    reasons = examined.facts["reason"]
    return [(sources[row].name, reasons[row].as_py()) for row in find_rejected(examined).tolist()]


def audit_pictures(
    sources: Sequence[Source], examined: Examined, options: SplitOptions, edited: Pairs | None = None
) -> Audit:
    """Return the audit. Equal pictures without a given split get the same one, so they cannot leak.

    edited: Edited copies, if they were looked for; they count as equal pictures.

    Raises:
        UsageError: Split options that do not fit the sources.
    """
    pairs = join_parts([_find_pairs(examined), *([] if edited is None else [edited])])
    readable = np.setdiff1d(np.arange(len(sources)), find_rejected(examined))
    place = np.full(len(sources), -1)
    place[readable] = np.arange(len(readable))
    kept = [sources[row] for row in readable.tolist()]
    ties = list(zip(place[pairs.left].tolist(), place[pairs.right].tolist(), strict=True))
    assigned = assign_splits(
        [source.split for source in kept],
        [source.labels for source in kept],
        [source.group for source in kept],
        ties,
        options,
    )
    splits = [""] * len(sources)
    for row, split in zip(readable.tolist(), assigned.splits, strict=True):
        splits[row] = split
    notes = [*assigned.notes, *describe_hidden(sources, examined)]
    return Audit(sources, examined, splits, pairs, _collect(sources, splits, pairs), notes)


def _collect(sources: Sequence[Source], splits: list[str], pairs: Pairs) -> Findings:
    return collect_findings(
        [source.name for source in sources],
        splits,
        [source.labels for source in sources],
        [source.group for source in sources],
        pairs,
    )


def _find_pairs(examined: Examined) -> Pairs:
    facts = examined.facts
    # An unreadable picture equals no other, not even another unreadable one.
    hashes = [text or f"row {row}" for row, text in enumerate(facts["pixels_xxh3"].to_pylist())]
    return find_duplicates(
        hashes,
        facts["phash"].fill_null(0).to_numpy(),
        examined.thumbnails,
        facts["width"].fill_null(0).to_numpy(),
        facts["height"].fill_null(0).to_numpy(),
    )


def refuse_rejects(sources: Sequence[Source], examined: Examined, max_rate: float) -> None:
    """Raise a ShardError if more than `max_rate` of all pictures are unreadable."""
    rejected = list_rejected(sources, examined)
    if len(rejected) <= max_rate * len(sources):
        return
    kinds = [kind for kind in examined.facts["kind"].to_pylist() if kind]
    large = [place for place, kind in enumerate(kinds) if kind == "bomb"]
    first = large[0] if len(large) == len(rejected) else next(n for n, kind in enumerate(kinds) if kind != "bomb")
    name, reason = rejected[first]
    remedies = ["Repair or remove them, or raise --max-reject-rate"] if len(large) < len(rejected) else []
    if large:
        which = f"{len(large):,} of them" if remedies else "All of them"
        remedies.append(f"{which} are over the limit of pixels: raise --max-pixels to read pictures of that size")
    raise ShardError(
        f"{len(rejected):,} of {len(sources):,} pictures cannot be read, over the limit of {max_rate:.1%}; "
        f"the first is {name}: {reason}. {'. '.join(remedies)}"
    )


def refuse_unknown_range(examined: Examined, options: DecodeOptions) -> None:
    """Raise a ShardError if deep pictures leave the top bit unused: a 12-bit X-ray would come out black.

    Pictures of each bit depth are checked separately.
    """
    if options.gray_range is not None:
        return
    pairs = zip(examined.facts["white"].to_pylist(), examined.facts["peak"].to_pylist(), strict=True)
    peaks: dict[float, float] = {}
    for white, peak in pairs:
        if white and peak:
            peaks[white] = max(peak, peaks.get(white, 0.0))
    for white, peak in sorted(peaks.items(), reverse=True):
        if peak < (white + 1) / 2:
            raise ShardError(_describe_dark(white, peak))


def _describe_dark(white: float, peak: float) -> str:
    bits, used = int(white).bit_length(), max(1, int(peak).bit_length())
    return (
        f"the pictures of {'more than 8' if bits == 16 else bits} bits use values up to {peak:g} of {white:g}, so "
        f"they would come out dark; give the values of black and white, for example --bits {used} (the same as "
        f"--range 0,{2**used - 1}), or --bits {bits} to use them unchanged"
    )


def describe_hidden(sources: Sequence[Source], examined: Examined) -> list[str]:
    """Return a note that counts and names fully transparent pictures; an empty list if there are none."""
    hidden = zip(sources, examined.facts["hidden"].to_pylist(), strict=True)
    names = [source.name for source, is_hidden in hidden if is_hidden]
    if not names:
        return []
    are = f"1 picture is fully transparent ({names[0]})"
    if len(names) > 1:
        shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        are = f"{len(names):,} pictures are fully transparent ({shown})"
    return [f"{are}, so only the background is visible; repair or remove them, or save them without alpha"]
