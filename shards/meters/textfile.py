"""A file of numbers for the textfile collector of Prometheus' node exporter, written whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shards.files.atomic import write_text
from shards.files.temporary import remove_leftovers
from shards.meters.metric import SILENT, Meters, Metric
from shards.meters.text import TextMeters
from shards.meters.ticking import Ticker

EVERY_S = 5.0
"""Seconds between two writes."""

logger = logging.getLogger(__name__)


class TextFile(TextMeters):
    """Numbers that a thread writes to a file. A disk that refuses them is named once; the process goes on.

    Args:
        path: The file; its name must end in .prom.
        table: What can be recorded.
        common: Tags of every metric that names them.
    """

    def __init__(self, path: Path, table: Sequence[Metric], **common: str) -> None:
        super().__init__(table, **common)
        self._path = path
        self._has_failed = False
        self._ticker = Ticker(lambda: write_text(path, self.to_text()), self._tell, EVERY_S)

    def before_each(self, look: Callable[[], None]) -> None:
        self._ticker.before_each(look)

    def close(self) -> None:
        """Write the numbers for the last time and end the thread."""
        self._ticker.close()

    def _tell(self, err: Exception) -> None:
        if not self._has_failed:
            logger.warning("metrics are not written to %s: %s", self._path, err)
        self._has_failed = True


@contextlib.contextmanager
def open_textfile(
    folder: str | Path | None, kind: str, name: str, table: Sequence[Metric], **common: str
) -> Iterator[Meters]:
    """Yield what records numbers in a file of `folder` while the block runs; nothing is recorded without a folder.

    Args:
        folder: That of the node exporter's option --collector.textfile.directory; it is created if it is missing.
        kind: What is measured: train, pack, sweep.
        name: Its name; the file is shardline-KIND-NAME.prom.
        table: What can be recorded.
        common: Tags of every metric that names them.
    """
    if folder is None:
        yield SILENT
        return
    path = Path(folder) / name_file(kind, name)
    with contextlib.suppress(OSError):  # the first write names the reason
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
    meters = TextFile(path, table, **common)
    try:
        yield meters
    finally:
        meters.close()


def name_file(kind: str, name: str) -> str:
    """Return the name of the file of a run, a dataset or a sweep.

    >>> name_file("train", "demo"), name_file("pack", "新冠 1")
    ('shardline-train-demo.prom', 'shardline-pack-新冠-1.prom')
    """
    plain = re.sub(r"[^\w.=+-]+", "-", name)
    return f"shardline-{kind}-{plain}.prom"
