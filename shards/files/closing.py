"""What holds files, threads or connections, and gives them back at the end of a block."""

from __future__ import annotations

from typing import Self


class Closing:
    """Its `with` block ends by `close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is held; may be called twice."""
        raise NotImplementedError
