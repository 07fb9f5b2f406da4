"""Plain WebDataset tars; the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import tarfile
from typing import BinaryIO

BLOCK = 512
RECORD = 20 * BLOCK
_ZEROS = bytes(RECORD)
_AT_ONCE = 1 << 20  # bytes per write: a call for every picture costs a third more


def _blank_header() -> bytes:
    """Return the header of an empty file without a name: owner, mode and time are the same on every machine."""
    header = tarfile.TarInfo("")
    header.mode = 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


# A header made by tarfile costs 25 us, a third of all work on a picture of 60 KB; only name, size and checksum vary.
_BLANK = _blank_header()
_NAME_BYTES, _SIZE_AT, _SUM_AT = 100, slice(124, 135), slice(148, 156)
_MIDDLE, _TAIL = _BLANK[_NAME_BYTES : _SIZE_AT.start], _BLANK[_SUM_AT.stop :]
_AFTER_SIZE = _BLANK[_SIZE_AT.stop : _SUM_AT.start]
_BASE_SUM = sum(_BLANK) - sum(_BLANK[_SIZE_AT]) - sum(_BLANK[_SUM_AT]) + 8 * ord(" ")


def build_header(name: bytes, size: int) -> bytes:
    """Return the 512 bytes before a file in a tar.

    Args:
        name: At most 100 bytes.
        size: Bytes of the file, below 8 GiB.

    Source: POSIX ustar; equal to `tarfile.TarInfo.tobuf(tarfile.USTAR_FORMAT)`.
    """
    digits = b"%011o" % size
    total = _BASE_SUM + sum(name) + sum(digits)
    return b"".join(
        (name.ljust(_NAME_BYTES, b"\0"), _MIDDLE, digits, _AFTER_SIZE, b"%06o\0 " % total, _TAIL)
    )  # fmt: skip


class TarWriter:
    """Writes samples, each a series of files with one key, and hashes everything written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._written = 0
        self.size = 0

    def add(self, key: str, files: dict[str, bytes]) -> int:
        """Write `KEY.ENDING` for each ending; return the offset of the first file's bytes in the tar."""
        parts: list[bytes] = []
        for ending, data in files.items():
            parts += (build_header(f"{key}.{ending}".encode(), len(data)), data, _ZEROS[: -len(data) % BLOCK])
        offset = self.size + BLOCK
        self._write(parts)
        return offset

    def finish(self) -> str:
        """Write the end of the archive; return the sha256 of the whole tar."""
        self._write([_ZEROS[: 2 * BLOCK]])
        self._write([_ZEROS[: -self.size % RECORD]])
        self._flush()
        return self._sha256.hexdigest()

    def _write(self, parts: list[bytes]) -> None:
        self._waiting += parts
        self.size += sum(map(len, parts))
        if self.size - self._written >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._file.write(data)
        self._sha256.update(data)
        self._waiting, self._written = [], self.size
