"""`audit.parquet`: a row for every picture, including rejected ones."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.audit.audit import Audit
from shards.audit.examine import FACTS_SCHEMA
from shards.audit.findings import number_clusters
from shards.dataset.manifest import AUDIT_TABLE
from shards.sources.endings import ENDINGS
from shards.storage.storage import Storage

NAME = AUDIT_TABLE
ROWS_AT_ONCE = 4096

AUDIT_SCHEMA = pa.schema(
    [
        *FACTS_SCHEMA,
        ("split", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("group", pa.string()),
        ("size", pa.int64()),
        ("wrong_ending", pa.bool_()),
        ("cluster", pa.int32()),
        ("finding", pa.string()),
    ]
)
"""The facts of a picture, and what they mean. split: empty if a picture is unreadable or left out by --fraction (those
that --drop-duplicates leaves out are in quarantine.csv); cluster: equal for equal pictures, -1 for one that equals no
other; finding: leak, conflict, duplicate, or empty. Thumbnails are stored so that `--update` can compare new pictures
with old ones."""

_FORMAT_OF_ENDING = {
    "jpg": "jpeg", "jfif": "jpeg", "tif": "tiff", "jp2": "jpeg2000", "pgm": "ppm", "dcm": "dicom", "dic": "dicom",
    "ima": "dicom", "heif": "heic",
}  # fmt: skip


def write_table(storage: Storage, audit: Audit) -> None:
    """Write `audit.parquet`, a bounded number of rows at a time."""
    clusters = number_clusters(audit.pairs, len(audit.sources))
    findings = _name_findings(audit)
    with storage.writing(NAME) as file, pq.ParquetWriter(file, AUDIT_SCHEMA, compression="zstd") as writer:
        for begin in range(0, len(audit.sources), ROWS_AT_ONCE):
            end = min(begin + ROWS_AT_ONCE, len(audit.sources))
            facts = audit.examined.facts.slice(begin, end - begin).to_pylist()
            rows = [
                _row(audit, begin + place, fact)
                | {"cluster": int(clusters[begin + place]), "finding": findings.get(begin + place, "")}
                for place, fact in enumerate(facts)
            ]
            writer.write_table(pa.Table.from_pylist(rows, AUDIT_SCHEMA))


def _row(audit: Audit, row: int, fact: dict[str, Any]) -> dict[str, Any]:
    source = audit.sources[row]
    return fact | {
        "split": audit.splits[row],
        "labels": source.labels,
        "group": source.group,
        "size": source.size,
        "wrong_ending": has_wrong_ending(source.name, fact["format"]),
        "thumbnail": audit.examined.thumbnails[row].tobytes(),
    }


def has_wrong_ending(name: str, kind: str | None) -> bool:
    """Return whether a file's ending names a format other than its content.

    >>> has_wrong_ending("a/x.JPG", "png"), has_wrong_ending("a/x.JPG", "jpeg")
    (True, False)
    """
    ending = name.rpartition(".")[2].lower()
    # Several pictures in one JPEG (MPO) are a JPEG for readers of the first.
    if not kind or f".{ending}" not in ENDINGS:
        return False
    return _FORMAT_OF_ENDING.get(ending, ending) != kind.replace("mpo", "jpeg")


def _name_findings(audit: Audit) -> dict[int, str]:
    found = audit.findings
    names: dict[int, str] = {}
    for kind, clusters in (("duplicate", found.duplicates), ("conflict", found.conflicts), ("leak", found.leaks)):
        names |= {row: kind for cluster in clusters for row in cluster.rows}
    return names
