"""Finished answers in a JSON lines file beside the output, from which a killed command resumes."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import UsageError
from shards.files.disk import naming_disk
from shards.files.fingerprint import fingerprint_json
from trainer.predict.answer import Row
from trainer.unpacked.asked import Place

_FORMAT = "shardline-answers-1"


def name_partial(out: Path) -> Path:
    """Return the path of an output's partial file, used until all answers are written."""
    return out.with_name(f"{out.name}.partial.jsonl")


class Partial:
    """The rows so far, in order, batch by batch; the first line has the options of the command.

    An incomplete row and the other rows of its batch are computed again, so that pictures are in the same batches as in
    a command that was never stopped.
    """

    def __init__(self, path: Path, file: BinaryIO, said: dict[str, Any]) -> None:
        self.path, self._file, self._said = path, file, said
        self.is_empty = False
        """Whether this command created it and it has no rows."""

    def resume(self, places: Iterator[Place], batch_size: int) -> int:
        """Skip the places that have answers and return their number.

        Raises:
            UsageError: The file has answers of another command.
        """
        header = self._file.readline()
        if not header.endswith(b"\n"):
            self._begin()
            return 0
        refusal = self._refuse(header)
        whole = sum(1 for _ in self._read_lines())
        if refusal is not None and (whole or _FORMAT.encode() not in header):
            raise UsageError(refusal)
        if not whole:
            self._begin()
            return 0
        whole -= whole % batch_size
        self._file.seek(len(header))
        end = len(header)
        for number, (line, row) in enumerate(islice(self._read_lines(), whole)):
            place = next(places, None)
            if place is None or place.picture.path != row["path"]:
                nth = f"{number + 1:,}"
                there = "there are fewer pictures now" if place is None else f"number {nth} is now {place.picture.path}"
                raise UsageError(
                    f"answer {nth} in {self.path} is for {row['path']}, but {there}: the pictures have changed. "
                    "Delete that file to start again, or choose another --out"
                )
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        return whole

    def append(self, rows: Iterable[Row]) -> None:
        """Add the rows of a batch."""
        self._file.write(b"".join(_encode(row) for row in rows))
        self._file.flush()
        self.is_empty = False

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        self._file.seek(0)
        self._file.readline()
        for _, row in self._read_lines():
            reason = row.pop("unreadable", None)
            yield Row(row.pop("path"), None if reason is not None else row, reason)

    def _read_lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield lines and their content up to the first incomplete one."""
        while (line := self._file.readline()).endswith(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:  # left by a power failure
                return
            yield line, row

    def _begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.is_empty = True
        page = {"format": _FORMAT, "fingerprint": fingerprint_json(self._said), **self._said}
        self._file.write(json.dumps(page, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def _refuse(self, header: bytes) -> str | None:
        """Return why the file does not belong to this command; None if it does."""
        try:
            page = json.loads(header)
        except ValueError:
            page = None
        if not isinstance(page, dict) or page.get("format") != _FORMAT:
            return f"{self.path} was not written by trainer.predict; move it away, or choose another --out"
        if page.get("fingerprint") == fingerprint_json(self._said):
            return None
        other = next((name for name, value in self._said.items() if page.get(name) != value), "question")
        return (
            f"{self.path} has answers of a command with another {other}; run that command again to finish it, delete "
            "the file to start again, or choose another --out"
        )


@contextlib.contextmanager
def open_partial(out: Path, said: dict[str, Any]) -> Iterator[Partial]:
    """Yield the partial file of an output; it is kept if the block ends with an error, and removed otherwise.

    Args:
        out: The output.
        said: Options that the rows depend on: JSON values by their names in messages.

    Raises:
        UsageError: Another process is writing it.
        DiskError: The disk is full.
    """
    path = name_partial(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with naming_disk(path), open(path, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise UsageError(f"another process is writing {path}; wait for it, or choose another --out") from err
        partial = Partial(path, file, said)
        try:
            yield partial
        except BaseException:
            if partial.is_empty:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)


def _encode(row: Row) -> bytes:
    content = {"unreadable": row.unreadable} if row.answer is None else row.answer
    return json.dumps({"path": row.path, **content}, ensure_ascii=False).encode() + b"\n"
