"""Which pictures go into a dataset, and into which split, by the audit and the user's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from shards.audit.audit import Audit, audit_pictures, list_rejected, refuse_rejects, refuse_unknown_range
from shards.audit.examine import Examined, Progress, examine_sources
from shards.audit.findings import choose_dropped, refuse_findings
from shards.audit.publish import write_pages
from shards.dataset.manifest import Audited
from shards.errors import UsageError
from shards.packing.options import PackOptions
from shards.packing.publish import write_quarantine
from shards.packing.update import Base, keep_published
from shards.sources.model import Source, SourceList
from shards.splits.splits import assign_splits
from shards.storage.storage import Storage
from shards.workers.pools import Pool


@dataclass(frozen=True)
class Selection:
    """The pictures to pack; all sequences have one entry per picture.

    bytes_xxh3, pixels_xxh3: None without an audit.
    """

    sources: list[Source]
    splits: list[str]
    bytes_xxh3: list[str] | None
    pixels_xxh3: list[str] | None
    audited: Audited
    quarantined: int
    notes: list[str]


def select_unaudited(listed: SourceList, base: Base, options: PackOptions) -> Selection:
    """Return all pictures with their splits, without an audit.

    Raises:
        UsageError: Edited copies are to be looked for.
    """
    if options.edited_copies:
        raise UsageError(
            "--audit none decodes no picture, so --edited-copies would find nothing; leave out one of the two"
        )
    sources, split = keep_published(base, listed, options.split)
    assigned = assign_splits(
        [source.split for source in sources],
        [source.labels for source in sources],
        [source.group for source in sources],
        [],
        split,
    )
    audited = Audited(level="none")
    kept = [row for row, split in enumerate(assigned.splits) if split and row >= len(base.sources)]
    splits = [assigned.splits[row] for row in kept]
    return Selection([sources[row] for row in kept], splits, None, None, audited, 0, list(assigned.notes))


def select_audited(
    listed: SourceList, base: Base, options: PackOptions, pool: Pool, storage: Storage, progress: Progress
) -> Selection:
    """Audit the pictures together with those of `base`, write the audit's files, and return the pictures to pack.

    Raises:
        UsageError: Edited copies are to be looked for, but some pictures are packed already.
        ShardError: Too many unreadable pictures, deep gray of unknown range, leaks or conflicts.
    """
    if options.edited_copies and base.sources:
        raise UsageError(
            f"{storage} keeps no blocks of its {len(base.sources):,} pictures, so edited copies of them would not "
            "be found; leave out --edited-copies, or pack all pictures again with it into another OUT"
        )
    examined = base.joined(examine_sources(listed, options.store.decode, pool, storage, progress))
    refuse_unknown_range(examined, options.store.decode)
    sources, split = keep_published(base, listed, options.split)
    edited = None
    if options.edited_copies:
        from shards.audit.edited import find_edited_copies  # late import: rarely used

        edited = find_edited_copies(listed, examined, options.store.decode, pool, progress)
    audit = audit_pictures(sources, examined, split, edited)
    write_pages(storage, audit, listed, "this dataset", options.store.decode)
    return _settle(audit, len(base.sources), options, storage)


def _settle(audit: Audit, num_published: int, options: PackOptions, storage: Storage) -> Selection:
    sources, examined = audit.sources, audit.examined
    rejected = list_rejected(sources, examined)
    refuse_rejects(sources, examined, options.max_reject_rate)
    dropped: dict[int, str] = {}
    if options.drop_duplicates:
        findings = audit.findings
        dropped = choose_dropped(findings.names, findings.splits, findings.labels, audit.pairs, num_published)
        audit = audit.without(dropped)
    refuse_findings(audit.findings, options.allow_leaks)
    write_quarantine(storage, [*rejected, *((sources[row].name, reason) for row, reason in sorted(dropped.items()))])
    kept = [row for row, split in enumerate(audit.splits) if split and row >= num_published]
    return Selection(
        [sources[row] for row in kept],
        [audit.splits[row] for row in kept],
        _pick(examined, "bytes_xxh3", kept),
        _pick(examined, "pixels_xxh3", kept),
        Audited(
            level="full",
            duplicates=audit.findings.num_copies,
            leaks=len(audit.findings.leaks),
            conflicts=len(audit.findings.conflicts),
            crossing_groups=len(audit.findings.torn),
            dropped=len(dropped),
        ),
        len(rejected),
        audit.notes,
    )


def _pick(examined: Examined, column: str, rows: Sequence[int]) -> list[str]:
    values: list[str] = examined.facts[column].take(pa.array(rows, pa.int64())).to_pylist()
    return values
