"""Whether a target may be written: empty, an unfinished dataset, or a finished one to be updated."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection

from shards.audit.publish import PAGE_NAME
from shards.audit.table import NAME as TABLE_NAME
from shards.dataset.manifest import MANIFEST_NAME, Manifest
from shards.errors import UsageError
from shards.files.temporary import is_leftover
from shards.storage.storage import Storage

WORK = ".packing/"
MARKER = WORK + "plan.json"
QUARANTINE = "quarantine.csv"
PAGES = (TABLE_NAME, PAGE_NAME, QUARANTINE)
"""Files that an audit writes even if it refuses the pictures."""
_SHARDS = re.compile(r"((?:train|val|test|all)/\d{6,})\.(?:tar|index(?:\.(\d+))?\.parquet)")
_TABLES = re.compile(r"shards(\.\d+)?\.parquet")


def refuse_foreign(storage: Storage, sizes: dict[str, int]) -> None:
    """Raise a UsageError if the target holds files that `pack` did not write."""
    ours = MANIFEST_NAME in sizes or any(name.startswith(WORK) for name in sizes)
    foreign = [name for name in sizes if name not in PAGES and not is_leftover(name)]
    if foreign and not ours:
        raise UsageError(f"{storage} is not empty ({foreign[0]}) and not an unfinished dataset; name another folder")


def claim_target(storage: Storage, plan: str, published: set[str], updates: int = 0) -> dict[str, int]:
    """Mark the target as ours and return the sizes of its files.

    Shards of the same plan stay; shards of another unfinished plan and temporary files of a killed run are removed.

    Args:
        plan: Identity of what is to be written, including the stamps of the files.
        published: Names of shards of a finished dataset, which always stay.
        updates: The number of updates of that dataset.
    """
    sizes = storage.sizes()
    doomed = {name for name in sizes if is_leftover(name)}
    if _read_plan(storage) != plan:
        doomed |= _find_unpublished(sizes, published, updates)
    storage.delete(sorted(doomed))
    # After the removals: a run killed in between finds the old marker and removes the rest.
    storage.write(MARKER, json.dumps({"plan": plan}).encode())
    return {name: size for name, size in sizes.items() if name not in doomed}


def release_target(storage: Storage, manifest: Manifest, published: Collection[str]) -> None:
    """Remove files that a finished dataset does not need, for example shards of an abandoned update.

    Args:
        manifest: Of the dataset. Shard tables of its former states are removed. Their indexes stay, because a run that
            opened a former state reads an index when it reaches its shard.
        published: Names of its shards, without an ending.
    """
    sizes = storage.sizes()
    doomed = {name for name in sizes if name.startswith(WORK) or is_leftover(name)}
    doomed |= {name for name in sizes if _TABLES.fullmatch(name) and name != manifest.table}
    storage.delete(sorted(doomed | _find_unpublished(sizes, published, manifest.updates)))


def _find_unpublished(sizes: dict[str, int], published: Collection[str], updates: int) -> set[str]:
    found = ((name, _SHARDS.fullmatch(name)) for name in sizes)
    return {name for name, match in found if match and (match[1] not in published or int(match[2] or 0) > updates)}


def _read_plan(storage: Storage) -> str | None:
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        return str(json.loads(storage.read(MARKER))["plan"])
    return None
