"""What a program says while it works: the messages of our loggers, on standard error or handed on by another process.

Library code logs and configures nothing; commands show what is logged. INFO is for everybody who runs a command, DEBUG
is detail. A logger whose name ends in `.progress` says what is of use for a minute; whatever else is logged at INFO or
above is a note, which a run keeps and its report shows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from shards.cli.calling import respell

PACKAGES = ("shards", "trainer", "tune", "cluster")
QUIET, NORMAL, VERBOSE = logging.ERROR, logging.INFO, logging.DEBUG


def is_progress(record: logging.LogRecord) -> bool:
    return record.name.endswith(".progress")


def is_note(record: logging.LogRecord) -> bool:
    """Return whether a message of ours is worth keeping."""
    return record.levelno >= logging.INFO and _is_ours(record) and not is_progress(record)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in PACKAGES


def write_line(text: str) -> None:
    """Write a line to standard error at once, above a bar where one is drawn; a reader that has left is no error."""
    text = respell(text)
    with contextlib.suppress(OSError, ValueError):
        if "tqdm" in sys.modules:  # without it there is no bar
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _Shown(logging.Handler):
    """Standard error as it is at the moment; of other libraries warnings alone."""

    def emit(self, record: logging.LogRecord) -> None:
        if (_is_ours(record) or record.levelno >= logging.WARNING) and not hasattr(record, "collected"):
            write_line(self.format(record))

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.ERROR:
            return f"error: {record.getMessage()}"
        if record.levelno >= logging.WARNING:
            return f"warning: {record.getMessage()}"
        if record.levelno < logging.INFO:
            return f"{record.name}: {record.getMessage()}"
        # Whoever looks at a log of yesterday, or at one that has stopped, wants to know when.
        return f"{time.strftime('%H:%M:%S')} {record.getMessage()}" if is_progress(record) else record.getMessage()


@contextlib.contextmanager
def showing_messages() -> Iterator[None]:
    """Show on standard error what is logged while the block runs, as a command does; `set_volume` says how much."""
    handler, root = _Shown(NORMAL), logging.getLogger()
    with _levels(NORMAL):
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)


@contextlib.contextmanager
def showing_messages_by_default() -> Iterator[None]:
    """As `showing_messages`, unless this process has handlers or levels of its own: then those decide.

    For what people call from a notebook; a command has its messages shown already.
    """
    if not logging.getLogger(PACKAGES[0]).hasHandlers():
        with showing_messages():
            yield
        return
    unset = [name for name in PACKAGES if logging.getLogger(name).level == logging.NOTSET]
    with _levels(NORMAL, unset):
        yield


@contextlib.contextmanager
def _levels(level: int, names: tuple[str, ...] | list[str] = PACKAGES) -> Iterator[None]:
    """Have our loggers pass on messages from a level on while the block runs."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)


def set_volume(level: int) -> None:
    """Show messages from a level on, one of QUIET, NORMAL and VERBOSE; progress is shown at the last two."""
    for handler in _find_shown():
        handler.setLevel(level)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(min(level, NORMAL))  # what is not shown may still be kept


def shows_progress() -> bool:
    """Return whether this process shows messages, and not errors alone: where it does, a bar has its place."""
    return any(handler.level < QUIET for handler in _find_shown())


def say(text: str) -> None:
    """Write a line for whoever runs a command to standard error, such as a note on its result; nothing with -q."""
    if all(handler.level < QUIET for handler in _find_shown()):
        write_line(text)


def read_level() -> int:
    """Return the level from which on our loggers pass messages on, for a process that hands its own on to this one."""
    return logging.getLogger(PACKAGES[1]).getEffectiveLevel()


def _find_shown() -> list[_Shown]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Shown)]


def add_volume(parser: argparse.ArgumentParser) -> None:
    """Add -v and -q, which take effect as they are read."""
    group = parser.add_mutually_exclusive_group()
    options: dict[str, Any] = {"action": _Volume, "nargs": 0, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    group.add_argument("-v", "--verbose", const=VERBOSE, help="show details as well", **options)
    group.add_argument("-q", "--quiet", const=QUIET, help="show errors alone, no notes and no progress", **options)


class _Volume(argparse.Action):
    def __call__(self, *_: Any) -> None:
        set_volume(int(self.const))


@contextlib.contextmanager
def collecting_notes() -> Iterator[list[str]]:
    """Yield a list that takes the notes of the block, each once, in place of standard error."""
    collector = _Collector()
    with handled_by(collector):
        yield collector.notes


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not is_note(record):
            return
        record.collected = True
        if record.getMessage() not in self.notes:
            self.notes.append(record.getMessage())


@contextlib.contextmanager
def handled_by(handler: logging.Handler) -> Iterator[None]:
    """Give all our loggers one more handler while the block runs, asked before those of the root logger."""
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(handler)


@contextlib.contextmanager
def handing_on(send: Callable[[str], None], level: int) -> Iterator[None]:
    """Have messages of ours from a level on sent as lines of text, for `Replay` elsewhere, and shown nowhere here."""
    before = {name: logging.getLogger(name).propagate for name in PACKAGES}
    with _levels(level), handled_by(_Sender(send)):
        for name in PACKAGES:
            logging.getLogger(name).propagate = False
        try:
            yield
        finally:
            for name, old in before.items():
                logging.getLogger(name).propagate = old


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk is reported by who needs it
            self._send(json.dumps({"name": record.name, "level": record.levelno, "message": record.getMessage()}))


class Replay:
    """Logs what other processes have handed on; a warning that several of them have is logged once."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def __call__(self, line: str) -> None:
        row = json.loads(line)
        logger, level, message = logging.getLogger(row["name"]), row["level"], row["message"]
        if level >= logging.WARNING and message in self._warned:
            return
        self._warned.add(message)
        if logger.isEnabledFor(level):
            logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None))
