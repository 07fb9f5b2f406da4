"""Faults found from equal pictures and groups: leaks between splits, label conflicts, copies inside a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shards.audit.duplicates import Pairs
from shards.errors import ShardError
from shards.sources.model import SPLITS

Labels = tuple[str, ...]

NAMED = 5
"""Offending pairs that an error message names; audit.html shows more."""


@dataclass(frozen=True)
class Cluster:
    """Equal pictures: their positions in ascending order, and two of them that show the fault."""

    rows: list[int]
    left: int
    right: int


@dataclass(frozen=True)
class Torn:
    """A group of the source, such as a patient, in several splits: number of pictures by split."""

    group: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Findings:
    """Faults of a set of pictures in their splits; a cluster may be both a leak and a conflict.

    names, splits: of all pictures, for messages. duplicates: clusters inside one split, with one label.
    """

    names: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[Labels]
    leaks: list[Cluster]
    conflicts: list[Cluster]
    duplicates: list[Cluster]
    torn: list[Torn]

    @property
    def num_copies(self) -> int:
        """Number of pictures that are copies of another in the same split."""
        return sum(len(cluster.rows) - 1 for cluster in self.duplicates)


def collect_findings(
    names: Sequence[str],
    splits: Sequence[str],
    labels: Sequence[Labels],
    groups: Sequence[str],
    pairs: Pairs,
) -> Findings:
    """Return the faults. A picture with split '' is in no split, but may link others that are.

    Args:
        names, splits, labels, groups: Of each picture; group '' is none.
        pairs: Equal pictures.
    """
    leaks, conflicts, duplicates = [], [], []
    for rows in join_pairs(pairs, len(names)):
        rows = [row for row in rows if splits[row]]
        split_pair = _differ(rows, splits)
        label_pair = _differ(rows, [frozenset(label) for label in labels])
        if split_pair:
            leaks.append(Cluster(rows, *split_pair))
        if label_pair:
            conflicts.append(Cluster(rows, *label_pair))
        if len(rows) > 1 and not split_pair and not label_pair:
            duplicates.append(Cluster(rows, rows[0], rows[1]))
    return Findings(names, splits, labels, leaks, conflicts, duplicates, _find_torn(splits, groups))


def join_pairs(pairs: Pairs, count: int) -> list[list[int]]:
    """Return the clusters that pairs form among `count` pictures, each ascending, ordered by first picture."""
    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs.left, pairs.right)), shape=(count, count))
    numbers = connected_components(graph, directed=False)[1]
    touched = np.unique(np.concatenate([pairs.left, pairs.right]))
    clusters: defaultdict[int, list[int]] = defaultdict(list)
    for row in touched.tolist():
        clusters[int(numbers[row])].append(row)
    return list(clusters.values())


def number_clusters(pairs: Pairs, count: int) -> npt.NDArray[np.int32]:
    """Return int32[count]: the cluster of each picture, numbered from 0, -1 if it equals no other."""
    numbers = np.full(count, -1, dtype=np.int32)
    for number, rows in enumerate(join_pairs(pairs, count)):
        numbers[rows] = number
    return numbers


def _differ(rows: list[int], values: Sequence[object]) -> tuple[int, int] | None:
    """Return the first two of `rows` whose values differ."""
    for row in rows[1:]:
        if values[row] != values[rows[0]]:
            return rows[0], row
    return None


def _find_torn(splits: Sequence[str], groups: Sequence[str]) -> list[Torn]:
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for split, group in zip(splits, groups, strict=True):
        if split and group:
            counts[group][split] += 1
    return [Torn(group, dict(by_split)) for group, by_split in sorted(counts.items()) if len(by_split) > 1]


def refuse_findings(findings: Findings, allow_leaks: bool) -> None:
    """Raise a ShardError that names the offending pairs, unless leaks are allowed.

    Raises:
        ShardError: Equal pictures in several splits or with several labels, or a group in several splits.
    """
    if allow_leaks or not (findings.leaks or findings.conflicts or findings.torn):
        return
    parts, remedies = [], ["--allow-leaks packs them as they are"]
    if findings.leaks or findings.torn:
        remedies.insert(
            0, "--merge-and-resplit train,val,test splits again and keeps equal pictures and groups together"
        )
    if findings.leaks or findings.conflicts:
        remedies.insert(0, "--drop-duplicates keeps one of each set of equal pictures, none if their labels differ")
    if findings.leaks:
        parts.append(_describe(findings, findings.leaks, "equal pictures lie in different splits", findings.splits))
    if findings.conflicts:
        labels = [" and ".join(names) for names in findings.labels]
        parts.append(_describe(findings, findings.conflicts, "equal pictures have different labels", labels))
    if findings.torn:
        torn = "; ".join(f"{item.group} in {', '.join(item.counts)}" for item in findings.torn[:NAMED])
        parts.append(f"groups lie in several splits ({len(findings.torn):,} cases: {torn}{_more(findings.torn)})")
    raise ShardError(f"{', and '.join(parts)}, so {_describe_consequence(findings)}. {', '.join(remedies)}")


def _describe_consequence(findings: Findings) -> str:
    leaks = "results on val and test would be too good" if findings.leaks or findings.torn else ""
    return " and ".join(filter(None, (leaks, "some labels are wrong" if findings.conflicts else "")))


def _describe(findings: Findings, clusters: list[Cluster], what: str, tags: Sequence[str]) -> str:
    """Return the fault, with two pictures of each cluster and their tags."""
    pairs = [" = ".join(f"{findings.names[row]} [{tags[row]}]" for row in (c.left, c.right)) for c in clusters[:NAMED]]
    return f"{what} ({len(clusters):,} cases: {'; '.join(pairs)}{_more(clusters)})"


def _more(items: Sequence[object]) -> str:
    return f"; and {len(items) - NAMED:,} more" if len(items) > NAMED else ""


def choose_dropped(
    names: Sequence[str], splits: Sequence[str], labels: Sequence[Labels], pairs: Pairs, num_published: int = 0
) -> dict[int, str]:
    """Return the pictures to leave out so that no two equal ones remain, with reasons.

    Of equal pictures, one in test is kept before one in val, and that before one in train, so that a published test set
    stays complete; if their labels differ, none is kept. The first `num_published` pictures are always kept.
    """
    dropped: dict[int, str] = {}
    for rows in join_pairs(pairs, len(splits)):
        rows = [row for row in rows if splits[row]]
        if not rows:
            continue
        kept = min(rows, key=lambda row: (row >= num_published, -SPLITS.index(splits[row]), row))
        conflict = len({frozenset(labels[row]) for row in rows}) > 1
        for row in rows:
            if row < num_published or (row == kept and not conflict):
                continue
            dropped[row] = _describe_conflict(rows, labels) if conflict else f"equal to {names[kept]} in {splits[kept]}"
    return dropped


def _describe_conflict(rows: list[int], labels: Sequence[Labels]) -> str:
    names = sorted({" and ".join(labels[row]) or "nothing" for row in rows})
    return f"equal pictures are labelled {', '.join(names)}: it is unknown which is right"
