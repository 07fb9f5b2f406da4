"""Messages of our loggers, printed on standard error or forwarded from other processes.

Library code only logs; commands print what is logged. INFO is for every user of a command, DEBUG is detail. Loggers
whose names end in `.progress` log what is of use for a minute; everything else at INFO or above is a note, which a run
keeps and its report shows.
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
    """Return whether a message is a note: ours, INFO or above, not progress."""
    return record.levelno >= logging.INFO and _is_ours(record) and not is_progress(record)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in PACKAGES


def write_line(text: str) -> None:
    """Write a line to standard error at once, above a progress bar if there is one; a closed pipe is no error."""
    text = respell(text)
    with contextlib.suppress(OSError, ValueError):
        if "tqdm" in sys.modules:  # without it there is no bar
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _Shown(logging.Handler):
    """Prints on the current standard error: our messages, and only warnings of other libraries."""

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
        # Lines of progress have a time, for readers of old logs and of logs that have stopped.
        return f"{time.strftime('%H:%M:%S')} {record.getMessage()}" if is_progress(record) else record.getMessage()


@contextlib.contextmanager
def showing_messages() -> Iterator[None]:
    """While the block runs, print logged messages on standard error, as commands do; `set_volume` sets the level."""
    handler, root = _Shown(NORMAL), logging.getLogger()
    with _levels(NORMAL):
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)


@contextlib.contextmanager
def showing_messages_by_default() -> Iterator[None]:
    """Like `showing_messages`, unless this process has log handlers or levels of its own, which then stay in effect.

    For functions called from a notebook; a command already prints its messages.
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
    """Set the level of our loggers while the block runs."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)


def set_volume(level: int) -> None:
    """Set the lowest level printed: QUIET, NORMAL or VERBOSE; progress is printed at NORMAL and VERBOSE."""
    for handler in _find_shown():
        handler.setLevel(level)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(min(level, NORMAL))  # what is not printed may still be kept


def shows_progress() -> bool:
    """Return whether this process prints messages and not only errors, so that it may draw progress bars."""
    return any(handler.level < QUIET for handler in _find_shown())


def print_note(text: str) -> None:
    """Write a line for the command's user, such as a note on its result, to standard error; nothing with -q."""
    if all(handler.level < QUIET for handler in _find_shown()):
        write_line(text)


def read_level() -> int:
    """Return the level of our loggers, for other processes that forward their messages to this one."""
    return logging.getLogger(PACKAGES[1]).getEffectiveLevel()


def _find_shown() -> list[_Shown]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Shown)]


def add_volume(parser: argparse.ArgumentParser) -> None:
    """Add -v and -q, which take effect while arguments are parsed."""
    group = parser.add_mutually_exclusive_group()
    options: dict[str, Any] = {"action": _Volume, "nargs": 0, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    group.add_argument("-v", "--verbose", const=VERBOSE, help="print details as well", **options)
    group.add_argument("-q", "--quiet", const=QUIET, help="print only errors: no notes, no progress", **options)


class _Volume(argparse.Action):
    def __call__(self, *_: Any) -> None:
        set_volume(int(self.const))


@contextlib.contextmanager
def collecting_notes() -> Iterator[list[str]]:
    """Yield a list that collects the notes of the block, each once, instead of printing them."""
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
    """Add a handler to all our loggers while the block runs; it is called before the root logger's handlers."""
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(handler)


@contextlib.contextmanager
def handing_on(send: Callable[[str], None], level: int) -> Iterator[None]:
    """Send our messages from `level` up as lines of text, for `Replay` in another process, and print none here."""
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
        with contextlib.suppress(OSError):  # a full disk is reported by the code that needs it
            self._send(json.dumps({"name": record.name, "level": record.levelno, "message": record.getMessage()}))


class Replay:
    """Logs messages forwarded from other processes; a warning sent by several of them is logged once."""

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
