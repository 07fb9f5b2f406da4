"""The summary of an audit, shared by the page, the printed text and the JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from shards.audit.audit import Audit, list_rejected
from shards.audit.findings import Cluster, Findings
from shards.audit.table import has_wrong_ending
from shards.sources.model import SPLITS, SourceList

MAX_SHOWN = 50
"""Most pairs that the page shows side by side; audit.parquet has all."""
MAX_LISTED = 100
"""Most lines of each list; audit.parquet has all."""
_BINS = 24


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bars(_Frozen):
    """A histogram."""

    title: str
    unit: str
    edges: list[float]
    """Ascending, one more than `counts`."""
    counts: list[int]
    logarithmic: bool
    """Whether the edges are spaced by equal factors rather than equal differences."""


class Shown(_Frozen):
    """Two equal pictures; tuples have an entry for each of them."""

    what: list[str]
    """leak, conflict, duplicate: all that apply."""
    rows: tuple[int, int]
    names: tuple[str, str]
    splits: tuple[str, str]
    labels: tuple[str, str]
    similarity: float
    """Correlation of the thumbnails."""
    exact: bool
    """Whether every pixel is equal."""
    size: int
    """Pictures in their cluster."""


class Summary(_Frozen):
    """All content; lists are cut at MAX_SHOWN or MAX_LISTED, the numbers count all."""

    verdict: str
    """One sentence."""
    refused: bool
    """Whether `pack` refuses because of leaks, conflicts or groups; unreadable pictures have their own limit."""
    pictures: int
    bytes: int
    splits: dict[str, int]
    """Pictures of each split; unreadable ones and those left out by --fraction are in none."""
    classes: list[str]
    """Display names."""
    class_counts: dict[str, list[int]]
    """By split, one per class; a picture with several labels counts for each."""
    imbalance: dict[str, float | None]
    """By split, the largest class over the smallest; None if a class has no picture."""
    formats: dict[str, int]
    modes: dict[str, int]
    peak: float
    """Largest value of deep gray, 0 if there is none."""
    rejects: dict[str, int]
    """Unreadable pictures by kind: empty, truncated, bomb, range, frames, unreadable."""
    num_rejected: int
    rejected: list[tuple[str, str, str]]
    """Name, kind, reason."""
    num_misnamed: int
    misnamed: list[tuple[str, str]]
    """Name, and the actual format of the file."""
    left_out: dict[str, int]
    """Files that are not pictures, by ending."""
    leaks: int
    """Sets of equal pictures in several splits."""
    conflicts: int
    """Sets of equal pictures with different labels."""
    duplicates: int
    """Sets of equal pictures with one split and label."""
    copies: int
    """Pictures in those sets, without one of each."""
    num_torn: int
    torn: list[tuple[str, dict[str, int]]]
    """Groups of the source in several splits, with their pictures by split."""
    shown: list[Shown]
    bars: list[Bars]
    notes: list[str]


def summarise(audit: Audit, listed: SourceList) -> Summary:
    """Return the summary of an audit."""
    facts = audit.examined.facts
    found = audit.findings
    counts = _count_classes(audit, listed.classes)
    rejected = list_rejected(audit.sources, audit.examined)
    kinds = [kind for kind in facts["kind"].to_pylist() if kind]
    misnamed = _find_misnamed(audit)
    return Summary(
        verdict=_describe_verdict(found, len(audit.sources), len(rejected)),
        refused=bool(found.leaks or found.conflicts or found.torn),
        pictures=len(audit.sources),
        bytes=sum(source.size for source in audit.sources),
        splits={split: audit.splits.count(split) for split in counts},
        classes=list(listed.display_names or listed.classes),
        class_counts=counts,
        imbalance={split: _imbalance(row) for split, row in counts.items()},
        formats=_count(facts["format"]),
        modes=_count(facts["mode"]),
        peak=float(pc.max(facts["peak"]).as_py() or 0.0),
        rejects=dict(Counter(kinds).most_common()),
        num_rejected=len(rejected),
        rejected=[(name, kind, why) for (name, why), kind in zip(rejected[:MAX_LISTED], kinds, strict=False)],
        num_misnamed=len(misnamed),
        misnamed=misnamed[:MAX_LISTED],
        left_out=listed.left_out,
        leaks=len(found.leaks),
        conflicts=len(found.conflicts),
        duplicates=len(found.duplicates),
        copies=found.num_copies,
        num_torn=len(found.torn),
        torn=[(item.group, item.counts) for item in found.torn[:MAX_LISTED]],
        shown=_show_pairs(audit),
        bars=_draw_bars(facts),
        notes=[*listed.notes, *audit.notes],
    )


def _describe_verdict(found: Findings, pictures: int, rejected: int) -> str:
    """Return the verdict; unreadable pictures only add a number, because their limit is an option of `pack`."""
    faults = [
        _count_things(len(found.leaks), "set of equal pictures", "sets of equal pictures", "in several splits"),
        _count_things(len(found.conflicts), "set of equal pictures", "sets of equal pictures", "with several labels"),
        _count_things(len(found.torn), "group", "groups", "in several splits"),
    ]
    faults = [fault for fault in faults if fault]
    counted = _count_things(pictures, "picture", "pictures") or "0 pictures"
    if faults:
        verdict = f"Refused: among {counted} there are {', '.join(faults)}"
    else:
        verdict = f"Clean: {counted}, no equal ones in two splits or with two labels, no group in two splits"
    if rejected:
        verdict += f"; {rejected:,} cannot be read ({rejected / pictures:.1%})"
    return f"{verdict}."


def _count_things(count: int, one: str, several: str, where: str = "") -> str:
    return f"{count:,} {one if count == 1 else several} {where}".rstrip() if count else ""


def _count_classes(audit: Audit, classes: Sequence[str]) -> dict[str, list[int]]:
    """Return the pictures of each class by split, in the usual order of splits."""
    counted = Counter(
        (split, label)
        for split, source in zip(audit.splits, audit.sources, strict=True)
        for label in source.labels
        if split
    )
    present = set(audit.splits)
    return {split: [counted[split, label] for label in classes] for split in SPLITS if split in present}


def _imbalance(counts: list[int]) -> float | None:
    """Return the largest class over the smallest; None if a class has no picture or there is no class.

    >>> _imbalance([30, 10]), _imbalance([3, 0])
    (3.0, None)
    """
    smallest: int = min(counts, default=0)
    return max(counts) / smallest if smallest else None


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first; rejected pictures have no value."""
    return dict(Counter(value for value in column.to_pylist() if value).most_common())


def _find_misnamed(audit: Audit) -> list[tuple[str, str]]:
    formats = audit.examined.facts["format"].to_pylist()
    names = (source.name for source in audit.sources)
    return [(name, kind) for name, kind in zip(names, formats, strict=True) if has_wrong_ending(name, kind)]


def _show_pairs(audit: Audit) -> list[Shown]:
    """Return up to MAX_SHOWN pairs: leaks, then conflicts, then copies; a leak that is also a conflict appears once."""
    found = audit.findings
    marks: dict[tuple[int, int], tuple[Cluster, list[str]]] = {}
    for what, clusters in (("leak", found.leaks), ("conflict", found.conflicts), ("duplicate", found.duplicates)):
        for cluster in clusters[:MAX_SHOWN]:
            marks.setdefault((cluster.left, cluster.right), (cluster, []))[1].append(what)
    return [_show(audit, cluster, what) for cluster, what in list(marks.values())[:MAX_SHOWN]]


def _show(audit: Audit, cluster: Cluster, what: list[str]) -> Shown:
    left, right = cluster.left, cluster.right
    one, other = audit.sources[left], audit.sources[right]
    hashes = audit.examined.facts["pixels_xxh3"]
    return Shown(
        what=what,
        rows=(left, right),
        names=(one.name, other.name),
        splits=(audit.splits[left], audit.splits[right]),
        labels=(", ".join(one.labels), ", ".join(other.labels)),
        similarity=audit.similarity(left, right),
        exact=hashes[left].as_py() == hashes[right].as_py(),
        size=len(cluster.rows),
    )


def _draw_bars(facts: pa.Table) -> list[Bars]:
    """Return the histograms of width, height and aspect ratio of the readable pictures."""
    widths, heights = (facts[name].drop_null().to_numpy().astype(np.float64) for name in ("width", "height"))
    if not len(widths):
        return []
    return [
        _bin("width", "pixels", widths),
        _bin("height", "pixels", heights),
        _bin("aspect ratio", "width / height", widths / heights),
    ]


def _bin(title: str, unit: str, values: npt.NDArray[np.float64]) -> Bars:
    """Return a histogram, logarithmic if the values span a factor of four or more."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Bars(title=title, unit=unit, edges=[low, high], counts=[len(values)], logarithmic=False)
    logarithmic = high >= 4 * low
    edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace rounds, which could exclude the largest value
    counts = np.histogram(values, edges)[0]
    return Bars(title=title, unit=unit, edges=edges.tolist(), counts=counts.tolist(), logarithmic=logarithmic)


def format_summary(summary: Summary) -> str:
    """Return the lines that `python -m shards audit` prints."""
    rows = {"pictures": f"{summary.pictures:,}, {summary.bytes / 1e6:,.1f} MB: {_list(summary.formats)}"}
    for split, count in summary.splits.items():
        rows[split] = f"{count:,}{_describe_classes(summary, split)}"
    rows |= {bars.title: f"{bars.edges[0]:,.0f} to {bars.edges[-1]:,.0f} {bars.unit}" for bars in summary.bars[:2]}
    rows["unreadable"] = f"{summary.num_rejected:,}{f' ({_list(summary.rejects)})' if summary.rejects else ''}"
    rows["misnamed"] = f"{summary.num_misnamed:,} with the ending of another format"
    if summary.left_out:
        rows["left out"] = f"{_list(summary.left_out)}: not pictures by their ending"
    rows["equal"] = f"{summary.leaks:,} leaks, {summary.conflicts:,} conflicts, {summary.copies:,} copies in one split"
    rows["groups"] = f"{summary.num_torn:,} in several splits"
    return "\n".join([summary.verdict, *(f"{title:<11}{text}" for title, text in rows.items())])


def _describe_classes(summary: Summary, split: str) -> str:
    if not summary.classes:
        return ""
    ratio = summary.imbalance[split]
    balance = "a class has no picture" if ratio is None else f"largest to smallest {ratio:.1f}"
    return f": {_list(dict(zip(summary.classes, summary.class_counts[split], strict=True)))}; {balance}"


def _list(counts: dict[str, int], most: int = 8) -> str:
    """Return 'a 3, b 2 and 5 more'."""
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:most])
    return f"{shown} and {len(counts) - most:,} more" if len(counts) > most else shown
