"""Pictures to an endpoint, and the answers to a file or a stream; a stop keeps the rows that are finished."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from cluster.client.clients import AsyncClient
from cluster.client.output import Form, Write, choose_columns, describe_csv, describe_json, describe_text
from cluster.client.rows import Row, ask_all, ask_row
from cluster.client.talks import Wishes
from shards.cli.messages import write_line
from shards.cli.progress import Progress
from shards.errors import Interrupted, ShardError, UsageError
from shards.files.atomic import write_atomically
from trainer.contract.columns import join_row

logger = logging.getLogger(__name__)

_STOPS = (KeyboardInterrupt, asyncio.CancelledError)


@dataclass(frozen=True)
class Job:
    """What is sent, and where the answers go; see `cluster.client.output` for the forms."""

    pictures: list[Path]
    wishes: Wishes
    form: Form
    out: Path | None
    """None: the rows are given to a function, as soon as those before them are."""
    at_once: int
    """Requests at a time."""
    wait_s: float = 0.0
    """Seconds to wait for an endpoint that is starting."""


@dataclass
class Sent:
    """Counts of pictures that were answered and that were refused."""

    answered: int = 0
    refused: int = 0


def send_pictures(job: Job, client: AsyncClient, write: Write) -> Sent:
    """Send all pictures, and return how many were answered; refused ones are listed on standard error.

    Args:
        job: What is sent, and where the answers go.
        client: The endpoint; it is closed.
        write: Gets each line if there is no file.

    Raises:
        Interrupted: By Ctrl-C or SIGTERM; the file then has the rows that are finished, as it has after other errors.
        UsageError, OSError: As `Client.predict`.
    """
    sent = Sent()
    if job.out is None:
        try:
            asyncio.run(_send(job, client, sent, write))
        except _STOPS:
            raise Interrupted("interrupted; use --out to keep the answers in a file") from None
        return sent
    kept = f"{job.out} has the answers of {{:,}} of {len(job.pictures):,} pictures"
    try:
        _fill(job, job.out, client, sent)
    except _STOPS:
        raise Interrupted(f"interrupted; {kept.format(sent.answered)}" if sent.answered else "interrupted") from None
    except (UsageError, ShardError, OSError):
        if sent.answered:
            logger.warning("%s", kept.format(sent.answered))
        raise
    logger.info("%s", kept.format(sent.answered))
    return sent


def _fill(job: Job, out: Path, client: AsyncClient, sent: Sent) -> None:
    """Write the file; what stops it is raised after the finished rows, if there are any, are published."""
    stop: BaseException | None = None
    with write_atomically(out) as file:
        lines = _Lines(file)
        try:
            asyncio.run(_send(job, client, sent, lines.write))
        except (*_STOPS, UsageError, ShardError, OSError) as err:
            if not sent.answered:
                raise
            stop = err
        lines.end()
    if stop is not None:
        raise stop


class _Lines:
    """Whole lines in a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, 0

    def write(self, text: str) -> None:
        self._end += self._file.write(text.encode())

    def end(self) -> None:
        """Remove a line that was cut by an interruption."""
        self._file.truncate(self._end)


async def _send(job: Job, client: AsyncClient, sent: Sent, write: Write) -> None:
    async with client:
        with _ended_by_sigterm():
            if job.wait_s:
                await client.wait_until_ready(job.wait_s)
            columns: list[str] = []
            if job.form == "csv":
                columns = choose_columns(await client.model(), job.wishes.top_k)
                write(join_row(columns))
            with _showing(job) as show:

                def take(row: Row) -> None:
                    _take(row, job, columns, sent, write)
                    show(sent.answered + sent.refused)

                await ask_all(partial(ask_row, client, wishes=job.wishes), job.pictures, job.at_once, take)


@contextlib.contextmanager
def _showing(job: Job) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many pictures are done; printed lines are progress enough."""
    if job.out is None:
        yield lambda _: None
        return
    with contextlib.closing(Progress("ask", len(job.pictures))) as progress:
        yield progress.show


def _take(row: Row, job: Job, columns: list[str], sent: Sent, write: Write) -> None:
    """Write the line of a row, or list it as refused."""
    if row.answer is None:
        sent.refused += 1
        if job.form == "jsonl" and job.out is None:
            write(describe_json(row))
        else:
            write_line(f"{row.path}: {row.refused}")
        return
    if job.form == "csv":
        write(describe_csv(columns, row))
    else:
        write(describe_json(row) if job.form == "jsonl" else describe_text(row))
    sent.answered += 1


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Make SIGTERM cancel this task, as asyncio does by Ctrl-C: between two steps, not within one."""
    loop, task, before = asyncio.get_running_loop(), asyncio.current_task(), signal.getsignal(signal.SIGTERM)
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
