"""A base class for objects that hold files, threads or connections and release them at the end of a block."""

from __future__ import annotations

from typing import Self


class Closing:
    """A context manager that calls `close` on exit."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release what is held; may be called twice."""
        raise NotImplementedError
