"""Pictures in a zip, decompressed one at a time by offset."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from shards.errors import ShardError
from shards.pictures.signature import DICOM_BYTES, is_dicom
from shards.sources.archive_names import decode_names, use_slashes
from shards.sources.content import may_be_dicom
from shards.sources.layout import Entry
from shards.sources.model import Source
from shards.sources.tars import LateFile

_LOCAL_HEADER = Struct("<4s2xHH16xHH")
"""Signature, flags, method, length of the name, length of the extra field."""
_CHUNK = 1 << 16
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNICODE_PATH = 0x7075
_WINDOWS = 0


@dataclass(frozen=True)
class Listed:
    """The content of an archive: its files, links and folders by name, and notes for the user."""

    entries: list[Entry]
    links: list[str]
    folders: list[str]
    notes: list[str]


def list_zip(path: Path, encoding: str | None = None) -> Listed:
    """Return the files of a zip, with the offsets of their local headers, and CRCs as stamps.

    Args:
        path: The archive.
        encoding: Encoding of names for which the zip declares none; None: guess.

    Raises:
        UsageError: A name that is invalid in this encoding.
        ShardError: Damaged, encrypted, or compressed by an unsupported method.
    """
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
            odd = {info.header_offset for info in infos if may_be_dicom(info.filename) and _begins_as_dicom(file, info)}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as err:
        raise ShardError(
            f"{path} is damaged or not what its ending indicates ({err}); fetch or write it again"
        ) from err
    names, notes = _decode_names(path, infos, encoding)
    found = Listed([], [], [], notes)
    for info, name in zip(infos, names, strict=True):
        if name.endswith("/"):
            found.folders.append(name)
            continue
        _refuse_unreadable(path, info, name)
        if stat.S_ISLNK(info.external_attr >> 16):
            found.links.append(name)
        else:
            picture = info.header_offset in odd
            found.entries.append(Entry(name, info.file_size, info.CRC, info.header_offset, picture))
    return found


def _begins_as_dicom(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return False  # refused later, by name
    try:
        with file.open(info) as opened:
            return is_dicom(opened.read(DICOM_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False


def _refuse_unreadable(path: Path, info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise ShardError(f"{path}: '{name}' is encrypted; unpack the archive with its password and pack the folder")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ShardError(
            f"{path}: '{name}' is compressed by method {info.compress_type}, but only 0 (stored) and 8 (deflate) "
            "are supported; unpack the archive and pack the folder"
        )


def _decode_names(path: Path, infos: list[zipfile.ZipInfo], encoding: str | None) -> tuple[list[str], list[str]]:
    """Return the names: marked as UTF-8, from the Unicode field beside them, or in an encoding that fits all others."""
    known = {number: _read_known_name(info) for number, info in enumerate(infos)}
    unknown = [number for number, name in known.items() if name is None]
    raw = [infos[number].orig_filename.encode("cp437") for number in unknown]
    guessed, notes = decode_names(path, raw, "cp437", encoding)
    names = {number: name for number, name in known.items() if name is not None} | dict(
        zip(unknown, guessed, strict=True)
    )
    windows = [info.create_system == _WINDOWS for info in infos]
    return use_slashes([names[number] for number in range(len(infos))], windows), notes


def _read_known_name(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _UTF8:
        return info.orig_filename
    raw, extra = info.orig_filename.encode("cp437"), info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # The checksum ties the field to the name: tools that rename files leave an outdated field.
        if kind == _UNICODE_PATH and len(field) > 5 and field[1:5] == struct.pack("<I", zlib.crc32(raw)):
            return field[5:].decode("utf-8", "replace")
    return None


class ZipStore:
    """Pictures in a zip. Does not need the zip's directory, which takes a second to read for 1e5 files."""

    random_access = True

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, LateFile(path)

    def read(self, source: Source) -> bytes:
        try:
            data = self._unpack(source)
        except (zlib.error, struct.error, EOFError) as err:
            raise self._damaged(source, str(err)) from err
        if len(data) != source.size or zlib.crc32(data) != source.stamp:
            raise self._damaged(source, "size or CRC differs from the archive's directory")
        return data

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        for source in sorted(sources, key=lambda source: source.offset):
            yield source, self.read(source)

    def _unpack(self, source: Source) -> bytes:
        signature, _, method, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(
            self._file.read(_LOCAL_HEADER.size, source.offset)
        )
        if signature != b"PK\x03\x04":
            raise EOFError("no file begins where the archive's directory points to")
        at = source.offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        return self._file.read(source.size, at) if method == zipfile.ZIP_STORED else self._inflate(at, source.size)

    def _inflate(self, at: int, size: int) -> bytes:
        """Decompress from `at` on, at most one byte more than `size`, so that a bomb is not unpacked."""
        unpacker, parts, left = zlib.decompressobj(-zlib.MAX_WBITS), [], size + 1
        while not unpacker.eof and left > 0:
            packed = self._file.read(min(_CHUNK, left + 64), at)
            if not packed:
                raise EOFError("the archive ends inside the file")
            at += len(packed)
            parts.append(unpacker.decompress(packed, left))
            left -= len(parts[-1])
        return b"".join(parts)

    def _damaged(self, source: Source, reason: str) -> ShardError:
        return ShardError(f"{self._path}: {source.name} is damaged ({reason}); fetch or write the archive again")
