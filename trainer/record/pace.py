"""The speed of a run, to estimate the remaining time."""

from __future__ import annotations

_FORWARD_SHARE = 1 / 3
"""Share of a training step that evaluation takes, before one was timed: backward takes twice as long as forward."""


class Pace:
    """Seconds per picture, for training and evaluation, since a start or resume.

    >>> pace = Pace()
    >>> for seen, now in (10, 5.0), (20, 6.0), (30, 7.0):  # the first step is long: it allocates, and waits for data
    ...     pace.step(seen, now)
    >>> pace.validate(100, 3.0)
    >>> round(pace.estimate(20, 200), 6)  # a tenth of a second a picture, then 0.03
    8.0
    >>> pace.step(40, 11.0)  # the evaluation's 3 s were not training's
    >>> round(pace.estimate(20, 0), 6)
    2.0
    """

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        """Time and position at the end of the first step."""
        self._last: tuple[float, int] = (0.0, 0)
        self._val_pictures, self._val_s, self._val_s_before_last = 0, 0.0, 0.0

    def step(self, seen: int, now: float) -> None:
        """Record the position and time at the end of a step."""
        self._last, self._val_s_before_last = (now, seen), self._val_s
        self._first = self._first or self._last

    def validate(self, pictures: int, seconds: float) -> None:
        """Record an evaluation."""
        self._val_pictures += pictures
        self._val_s += seconds

    def estimate(self, pictures: int, val_pictures: int) -> float | None:
        """Return the seconds for numbers of training and evaluation pictures; None before the second step."""
        if self._first is None or self._first[1] == self._last[1]:
            return None
        spent_s = self._last[0] - self._first[0] - self._val_s_before_last
        train_s = spent_s / (self._last[1] - self._first[1])
        val_s = self._val_s / self._val_pictures if self._val_pictures else train_s * _FORWARD_SHARE
        return pictures * train_s + val_pictures * val_s
