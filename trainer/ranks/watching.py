"""Call a function at intervals while a block runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def watching(look: Callable[[], None], name: str, every_s: float) -> Iterator[None]:
    """Call `look` every `every_s` seconds in a thread while the block runs; log its exceptions at debug level."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every_s):
            try:
                look()
            except Exception as err:  # Ray, terminal, half-written file: no reason to stop the run
                logger.debug("%s: %s", name, err)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
