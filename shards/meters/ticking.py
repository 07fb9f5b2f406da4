"""Work at intervals in a thread, until it is closed: numbers are looked at and handed on so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final


class Ticker:
    """Calls what `before_each` was given, and then `tick`, at once, every `every_s` seconds and when it is closed.

    Args:
        tick: Hands the numbers on.
        refused: Called with an error of either: monitoring must not end what it watches.
    """

    def __init__(self, tick: Callable[[], None], refused: Callable[[Exception], None], every_s: float) -> None:
        self._tick, self._refused, self._every_s = tick, refused, every_s
        self._looks: list[Callable[[], None]] = []
        self._done: Final = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meters", daemon=True)
        self._thread.start()

    def before_each(self, look: Callable[[], None]) -> None:
        self._looks.append(look)

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._pass()

    def _run(self) -> None:
        self._pass()
        while not self._done.wait(self._every_s):
            self._pass()

    def _pass(self) -> None:
        try:
            for look in self._looks:
                look()
            self._tick()
        except Exception as err:
            self._refused(err)
