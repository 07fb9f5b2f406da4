"""An archive of a folder of pictures, read without unpacking it to disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from shards.cli.sentences import count_things
from shards.errors import ShardError, UsageError
from shards.pictures.signature import DICOM_BYTES, is_dicom
from shards.sources.archive_names import decode_names
from shards.sources.content import may_be_dicom
from shards.sources.endings import ENDINGS, SIDECAR, read_ending
from shards.sources.folder import is_dicom_name
from shards.sources.layout import Entry, lay_out
from shards.sources.model import SourceList, Store
from shards.sources.pattern import Pattern
from shards.sources.table import find_lists
from shards.sources.tars import Member, PassedTar, StreamStore, TarStore, open_tar
from shards.sources.webdataset import holds_samples, list_tars
from shards.sources.zips import ZipStore, list_zip


def list_archive(
    path: Path, *, unlabelled: bool = False, pattern: Pattern | None = None, incomplete: bool = False
) -> SourceList:
    """Return the pictures in an archive; folders in it mean what they mean on disk, one around all of them nothing.

    An uncompressed tar whose pictures have their labels beside them is a WebDataset shard, unless the user says what
    its folders mean.

    Raises:
        UsageError: As `lay_out`.
        ShardError: A damaged or encrypted archive, or two pictures of one name.
    """
    if path.name.lower().endswith(".zip"):
        entries, links, folders, notes = list_zip(path)
        return _list(path, _Found(entries, links, folders, notes), ZipStore(path), unlabelled, pattern, incomplete)
    plain = path.name.lower().endswith(".tar")
    with open_tar(path) as file:
        tar = PassedTar(path, file)
        members = [_look_into(tar, member) for member in tar]
        tar.drain()
    if plain and pattern is None and holds_samples(member.name for member in members if member.plain):
        return list_tars(path.parent, [path.name], unlabelled=unlabelled, incomplete=incomplete)
    members, notes = _decode(path, members)
    # Any change of the archive may be a change of any picture in it.
    stamp = path.stat().st_mtime_ns
    entries = [
        Entry(member.name, member.size, stamp, member.offset, member.picture) for member in members if member.plain
    ]
    links = [member.name for member in members if not member.plain and not member.folder]
    folders = [member.name for member in members if member.folder]
    store = TarStore(path) if plain else StreamStore(path)
    return _list(path, _Found(entries, links, folders, notes), store, unlabelled, pattern, incomplete)


@dataclass(frozen=True)
class _Found:
    """The files of an archive, its links and folders by name, and sentences for the user."""

    entries: list[Entry]
    links: list[str]
    folders: list[str]
    notes: list[str]


def _list(
    path: Path, found: _Found, store: Store, unlabelled: bool, pattern: Pattern | None, incomplete: bool
) -> SourceList:
    lists = [] if unlabelled else find_lists(entry.name for entry in found.entries)
    remedy = f"to pack by the list {lists[0]} in {path}, unpack it and give the list" if lists else ""
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
    notes = [*layout.notes, *found.notes, *_describe_links(path, found.links)]
    if any(entry.name.rpartition("/")[2] == SIDECAR for entry in found.entries):
        notes.append(f"{SIDECAR} in {path} is not read; for weights and groups, unpack it or make a list with them")
    if remedy:
        notes.append(f"no list in an archive is read; {remedy}")
    if any(is_dicom_name(source.name) for source in layout.sources):
        notes.append(f"PatientIDs of DICOM files in {path} are not read; give --group-regex, or unpack it")
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


def _look_into(tar: PassedTar, member: Member) -> Member:
    """Return a member that was yielded last, marked where it is a DICOM file whose name does not say so."""
    if member.plain and may_be_dicom(member.name) and is_dicom(tar.read_head(member, DICOM_BYTES)):
        return replace(member, picture=True)
    return member


def _decode(path: Path, members: list[Member]) -> tuple[list[Member], list[str]]:
    """Return the members with their names as text, where the tar holds names that are not UTF-8."""
    raw = [member.name.encode("utf-8", "surrogateescape") for member in members]
    if all(member.name.isprintable() for member in members) or _are_utf8(raw):
        return members, []
    names, notes = decode_names(path, raw, "latin-1")
    return [replace(member, name=name) for member, name in zip(members, names, strict=True)], notes


def _are_utf8(raw: list[bytes]) -> bool:
    try:
        b"\n".join(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def refuse_doubles(path: Path, names: Iterable[str]) -> None:
    """Raise a ShardError when two pictures of an archive have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ShardError(
                f"{path} holds '{name}' twice, so which one is meant is not known; "
                "write the archive again from the folder"
            )
        seen.add(name)


def _describe_links(path: Path, links: list[str]) -> list[str]:
    pictures = sorted(name for name in links if read_ending(name) in ENDINGS)
    if not pictures:
        return []
    are = count_things(len(pictures), "link is", "links are")
    return [
        f"{are} left out of {path} (the first is '{pictures[0]}'): links in archives are not followed; "
        "write the archive with the files themselves (tar --dereference --hard-dereference)"
    ]
