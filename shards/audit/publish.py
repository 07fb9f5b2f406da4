"""The files that an audit writes for people: `audit.parquet` and `audit.html`."""

from __future__ import annotations

from shards.audit.audit import Audit
from shards.audit.page import render_page
from shards.audit.summary import Summary, summarise
from shards.audit.table import write_table
from shards.errors import ShardError
from shards.pictures.decode import DecodeOptions
from shards.sources.model import SourceList
from shards.storage.storage import Storage

PAGE_NAME = "audit.html"


def write_pages(storage: Storage, audit: Audit, listed: SourceList, title: str, options: DecodeOptions) -> Summary:
    """Write the table and the page; return the summary."""
    write_table(storage, audit)
    summary = summarise(audit, listed)
    pictures = _load_shown(audit, summary, listed)

    def load(row: int) -> bytes:
        if row not in pictures:
            raise ShardError("the picture is no longer in the source")
        return pictures[row]

    storage.write(PAGE_NAME, render_page(audit, summary, title, load, options).encode())
    return summary


def _load_shown(audit: Audit, summary: Summary, listed: SourceList) -> dict[int, bytes]:
    """Return the bytes of the pictures on the page, by row, read in one pass."""
    rows = {audit.sources[row].name: row for pair in summary.shown for row in pair.rows}
    wanted = [source for source in listed.sources if source.name in rows] if rows else []
    return {rows[source.name]: data for source, data in listed.store.read_in_order(wanted)} if wanted else {}
