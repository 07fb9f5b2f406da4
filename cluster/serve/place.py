"""Where a bundle is: a folder of this machine, or a location in a store that each node fetches once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shards.errors import UsageError
from shards.storage.shown import show_location
from trainer.contract.intact import PAGE, WEIGHTS, check_intact, is_bundle

if TYPE_CHECKING:
    from shards.storage.readable import Readable

PLACE: Final = "folder of a bundle, a run or a sweep, which every node must see, or its location in a store, s3://..."
"""Help of the commands that take one."""
_ABOVE: Final = ("", "bundle/", "best/bundle/")
"""Where a bundle, a run and a sweep have their bundle."""
_PAGE_S: Final = 20.0
"""Seconds within which a store must answer."""
_FILE_S: Final = 600.0
"""Seconds within which each file of a bundle must arrive."""


def spell_bundle(location: str | Path) -> str:
    """Return a bundle's location as other processes find it: a URI as it is, a folder as an absolute path.

    The folder of a run or a sweep becomes that of its bundle; what has no bundle stays, for a later check.
    """
    if _is_remote(location):
        return str(location)
    there = Path(location).expanduser().absolute()
    return str(next((there / above for above in _ABOVE if is_bundle(there / above)), there))


def bring_bundle(location: str | Path) -> Path:
    """Return the folder of a bundle on this machine, fetched and checked if its location is in a store.

    All processes of a machine share one copy, in `bundles` of the cache folder; it is named by the bundle's content.

    Raises:
        UsageError: There is no bundle at this location.
        ShardError: What was fetched is damaged.
        OSError: The store does not answer or refuses the keys, or the disk is full.
    """
    if not _is_remote(location):
        return Path(spell_bundle(location))
    from shards.storage.storage import open_readable  # late: it imports pyarrow

    store = open_readable(str(location))
    above, page = _find_page(store)
    files = _list_files(store, above, page)
    return _fetch_once(store, above, files, page)


def _is_remote(location: str | Path) -> bool:
    return "://" in str(location)


def _find_page(store: Readable) -> tuple[str, bytes]:
    """Return what precedes the names of the bundle's files, and the content of its page."""
    from shards.storage.download import fetch

    for above in _ABOVE:
        try:
            return above, fetch(store, above + PAGE, deadline_s=_PAGE_S)
        except FileNotFoundError:
            continue
    raise UsageError(
        f"{show_location(store)} has no bundle (neither {PAGE}, nor bundle/{PAGE} or best/bundle/{PAGE}); name the "
        "location of a bundle, a run or a sweep"
    )


def _list_files(store: Readable, above: str, page: bytes) -> dict[str, int | None]:
    """Return the sizes of the bundle's files by name; a web server lists none, so those that the page implies."""
    from shards.storage.storage import ObjectStorage

    if isinstance(store, ObjectStorage):
        sizes = store.sizes().items()
        return {name.removeprefix(above): size for name, size in sizes if name.startswith(above)}
    from trainer.contract.probes import NUM_PROBES, TENSORS

    named = re.findall(r'"([\w.-]+\.safetensors)"', page.decode(errors="replace"))
    probes = [f"probes/{name}" for name in (TENSORS, *(f"{number:03d}.bin" for number in range(NUM_PROBES)))]
    return dict.fromkeys(sorted({PAGE, WEIGHTS, *probes, *named}))


def _fetch_once(store: Readable, above: str, files: Mapping[str, int | None], page: bytes) -> Path:
    """Return the machine's copy; the first process fetches it, and others wait for that."""
    from shards.files.atomic import lock_folder, replace_folder
    from shards.files.fingerprint import fingerprint_json, hash_bytes
    from shards.storage.access import default_cache

    copies = default_cache() / "bundles"
    copies.mkdir(parents=True, exist_ok=True)
    folder = copies / fingerprint_json({"page": hash_bytes(page), "files": files})
    with lock_folder(copies):
        if not is_bundle(folder):
            with replace_folder(folder, "a bundle from a store") as new:
                _fetch(store, above, files, new)
                check_intact(new)
    return folder


def _fetch(store: Readable, above: str, files: Mapping[str, int | None], folder: Path) -> None:
    from shards.storage.download import download

    for name, size in files.items():
        if ".." in name.split("/"):
            raise UsageError(f"{show_location(store)} has a file {name!r}, which lies outside of a bundle; remove it")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "wb+") as file:
                download(store, above + name, file, sha256=None, size=size, deadline_s=_FILE_S)
        except FileNotFoundError:
            if size is not None:
                raise
            path.unlink()  # a web server does not list its files, and not every bundle has all of them
