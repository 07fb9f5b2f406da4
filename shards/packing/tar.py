"""Plain WebDataset tars, byte for byte the same for the same samples."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
RECORD = 20 * BLOCK


@dataclass(frozen=True)
class Member:
    """One sample to be written: picture bytes, its ending without a dot, class number, and the JSON beside it."""

    key: str
    data: bytes
    ending: str
    label: int
    facts: dict[str, object]


class TarWriter:
    """Writes samples as `KEY.png`, `KEY.cls` and `KEY.json`, and hashes what it writes.

    Times, owners and modes are constants, so that equal samples give equal shards on any machine.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def add(self, member: Member) -> int:
        """Write one sample; return the offset of its picture's bytes in the tar."""
        offset = self._write_file(f"{member.key}.{member.ending}", member.data)
        self._write_file(f"{member.key}.cls", str(member.label).encode())
        facts = json.dumps(member.facts, ensure_ascii=False, sort_keys=True)
        self._write_file(f"{member.key}.json", facts.encode())
        return offset

    def finish(self) -> str:
        """Write the end of the archive; return the sha256 of the whole."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self.size % RECORD))
        return self._sha256.hexdigest()

    def _write_file(self, name: str, data: bytes) -> int:
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(data), 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)
