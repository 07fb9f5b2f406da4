"""An archive of a folder of pictures, read without unpacking it to disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from shards.cli.sentences import count_things
from shards.errors import ShardError, UsageError
from shards.pictures.signature import DICOM_BYTES, is_dicom
from shards.sources.archive_names import decode_names, use_slashes
from shards.sources.content import may_be_dicom
from shards.sources.endings import ENDINGS, SIDECAR, read_ending
from shards.sources.folder import is_dicom_name
from shards.sources.layout import Entry, lay_out
from shards.sources.model import SourceList, Store
from shards.sources.pattern import Pattern
from shards.sources.table import find_lists
from shards.sources.tars import Member, PassedTar, StreamStore, TarStore, open_tar
from shards.sources.webdataset import holds_samples, list_tars
from shards.sources.zips import Listed, ZipStore, list_zip


@dataclass(frozen=True)
class Archive:
    """A scanned archive, with the store that reads its files.

    holds_samples: whether it is a tar with labels beside its pictures.
    """

    path: Path
    listed: Listed
    store: Store
    holds_samples: bool = False


def list_archive(
    path: Path,
    *,
    unlabelled: bool = False,
    pattern: Pattern | None = None,
    incomplete: bool = False,
    encoding: str | None = None,
) -> SourceList:
    """Return the pictures in an archive; folders mean what they mean on disk, but one around all of them is ignored.

    An uncompressed tar with labels beside its pictures is a WebDataset shard, unless the user gives the meaning of its
    folders. encoding: as for `scan_archive`.

    Raises:
        UsageError: As `lay_out` and `scan_archive`.
        ShardError: A damaged or encrypted archive, or two pictures with one name.
    """
    archive = scan_archive(path, encoding)
    if archive.holds_samples and pattern is None:
        return list_tars(path.parent, [path.name], unlabelled=unlabelled, incomplete=incomplete)
    return _list(path, archive.listed, archive.store, unlabelled, pattern, incomplete)


def scan_archive(path: Path, encoding: str | None = None) -> Archive:
    """Return the content of an archive.

    Args:
        path: Its name ends in one of ARCHIVE_ENDINGS.
        encoding: Encoding of names for which the archive declares none; None: guess.

    Raises:
        UsageError: A name that is invalid in this encoding.
        ShardError: Damaged, encrypted, or truncated.
    """
    if path.name.lower().endswith(".zip"):
        return Archive(path, list_zip(path, encoding), ZipStore(path))
    plain = path.name.lower().endswith(".tar")
    with open_tar(path) as file:
        tar = PassedTar(path, file)
        members = [_look_into(tar, member) for member in tar]
        tar.drain()
    samples = plain and holds_samples(member.name for member in members if member.plain)
    members, notes = _decode(path, members, encoding)
    # Any change of the archive may change any picture in it.
    stamp = path.stat().st_mtime_ns
    entries = [
        Entry(member.name, member.size, stamp, member.offset, member.picture) for member in members if member.plain
    ]
    links = [member.name for member in members if not member.plain and not member.folder]
    folders = [member.name for member in members if member.folder]
    store = TarStore(path) if plain else StreamStore(path)
    return Archive(path, Listed(entries, links, folders, notes), store, samples)


def _list(
    path: Path, found: Listed, store: Store, unlabelled: bool, pattern: Pattern | None, incomplete: bool
) -> SourceList:
    lists = [] if unlabelled else find_lists(entry.name for entry in found.entries)
    remedy = f"to pack by the list in it, give {path / lists[0]}" if lists else ""
    try:
        layout = lay_out(
            path,
            found.entries,
            unlabelled=unlabelled,
            wrapped=True,
            pattern=pattern,
            folders=found.folders,
            incomplete=incomplete,
        )
    except UsageError as err:
        if remedy:
            raise UsageError(f"{err}; {remedy}") from err
        raise
    refuse_doubles(path, (source.name for source in layout.sources))
    notes = [*layout.notes, *found.notes, *describe_links(path, found.links)]
    if any(entry.name.rpartition("/")[2] == SIDECAR for entry in found.entries):
        notes.append(f"{SIDECAR} in {path} is not read; for weights and groups, unpack it or make a list with them")
    if remedy:
        notes.append(f"{path / lists[0]} is not read; to pack by that list and not by folders, give it as SRC")
    if any(is_dicom_name(source.name) for source in layout.sources):
        notes.append(describe_patients(path))
    return SourceList(
        layout.sources,
        layout.classes,
        layout.left_out,
        store,
        list(layout.classes),
        notes=notes,
        lost=layout.lost,
        root=path,
    )


def describe_patients(path: Path) -> str:
    return f"PatientIDs of DICOM files in {path} are not read; give --group-regex, or unpack it"


def _look_into(tar: PassedTar, member: Member) -> Member:
    """Return the member yielded last, marked if it is a DICOM file without a telling name."""
    if member.plain and may_be_dicom(member.name) and is_dicom(tar.read_head(member, DICOM_BYTES)):
        return replace(member, picture=True)
    return member


def _decode(path: Path, members: list[Member], encoding: str | None) -> tuple[list[Member], list[str]]:
    """Decode the members' names, if the tar has names that are not UTF-8."""
    names, notes = [member.name for member in members], list[str]()
    raw = [name.encode("utf-8", "surrogateescape") for name in names]
    if not all(map(str.isprintable, names)) and not _are_utf8(raw):
        names, notes = decode_names(path, raw, "latin-1", encoding)
    names = use_slashes(names, [False] * len(names))  # a tar does not record the operating system
    return [replace(member, name=name) for member, name in zip(members, names, strict=True)], notes


def _are_utf8(raw: list[bytes]) -> bool:
    try:
        b"\n".join(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def refuse_doubles(path: Path, names: Iterable[str]) -> None:
    """Raise a ShardError if two pictures of an archive have the same name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ShardError(
                f"{path} holds '{name}' twice, so it is unknown which one is meant; write the archive again from "
                "the folder"
            )
        seen.add(name)


def describe_links(path: Path, links: list[str]) -> list[str]:
    """Return a note about links in an archive that may be pictures, if there are any."""
    pictures = sorted(name for name in links if read_ending(name) in ENDINGS)
    if not pictures:
        return []
    are = count_things(len(pictures), "link is", "links are")
    return [
        f"{are} left out of {path} (the first is '{pictures[0]}'): links in archives are not followed; "
        "write the archive with the files themselves (tar --dereference --hard-dereference)"
    ]
