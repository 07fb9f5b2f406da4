"""Whether a target is ours to write: empty, an unfinished dataset, or a finished one to be updated."""

from __future__ import annotations

import contextlib
import json

from shards.errors import UsageError
from shards.manifest import MANIFEST_NAME
from shards.sources.model import SPLITS
from shards.storage import Storage, is_leftover

WORK = ".packing/"
MARKER = WORK + "plan.json"
QUARANTINE = "quarantine.csv"
PAGES = ("audit.parquet", "audit.html", QUARANTINE)
"""What an audit leaves even where it refuses the pictures, for people to look at."""


def refuse_foreign(storage: Storage, sizes: dict[str, int]) -> None:
    """Raise a UsageError when the target holds what no pack of ours has put there."""
    ours = MANIFEST_NAME in sizes or any(name.startswith(WORK) for name in sizes)
    foreign = [name for name in sizes if name not in PAGES and not is_leftover(name)]
    if foreign and not ours:
        raise UsageError(f"{storage} is not empty ({foreign[0]}) and not an unfinished dataset; name another folder")


def claim_target(storage: Storage, plan: str, published: set[str]) -> dict[str, int]:
    """Make the target ours and return the sizes of its files.

    Shards of the same plan stay, those of another unfinished plan go; so do the temporary files of a killed run.

    Args:
        plan: Identity of what is to be written, the stamps of the files included.
        published: Names of shards that belong to a finished dataset and stay in any case.
    """
    sizes = storage.sizes()
    doomed = {name for name in sizes if is_leftover(name)}
    if MARKER not in sizes or _read_plan(storage) != plan:
        shards = (name for name in sizes if name.partition("/")[0] in SPLITS)
        doomed |= {name for name in shards if name.removesuffix(".index.parquet").removesuffix(".tar") not in published}
        storage.write(MARKER, json.dumps({"plan": plan}).encode())
    storage.delete(sorted(doomed))
    return {name: size for name, size in sizes.items() if name not in doomed}


def release_target(storage: Storage) -> None:
    """Remove what only an unfinished dataset needs."""
    storage.delete(sorted(name for name in storage.sizes() if name.startswith(WORK) or is_leftover(name)))


def _read_plan(storage: Storage) -> str | None:
    with contextlib.suppress(ValueError, KeyError):
        return str(json.loads(storage.read(MARKER))["plan"])
    return None
