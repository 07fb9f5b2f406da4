"""A line a minute where there is no terminal."""

from __future__ import annotations

import contextlib
import io
import logging

import pytest

from shards.cli.messages import QUIET, set_volume, showing_messages
from shards.cli.progress import LINE_EVERY_S, Progress, draw_bar


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_line_comes_once_a_minute_with_share_pace_and_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shards")
    clock = Clock()
    progress = Progress("audit", 1000, clock=clock)
    for clock.now in (20.0, 59.0, 60.0, 61.0, 119.0, 120.0):
        progress.show(int(clock.now), "2.0 MB/s")
    progress.close()
    assert LINE_EVERY_S == 60
    assert caplog.messages == [
        "audit: 60 of 1,000 pictures, 2.0 MB/s; 1 min 0 s so far, about 15 min 40 s left",
        "audit: 120 of 1,000 pictures, 2.0 MB/s; 2 min 0 s so far, about 14 min 40 s left",
    ]


def test_pictures_of_an_earlier_start_do_not_count_as_pace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shards")
    clock = Clock()
    progress = Progress("predict", 1000, done=900, clock=clock)
    clock.now = 60.0
    progress.show(910)
    assert caplog.messages == ["predict: 910 of 1,000 pictures; 1 min 0 s so far, about 9 min 0 s left"]


def test_stage_of_unknown_size_says_what_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shards")
    clock = Clock()
    progress = Progress("predict", None, clock=clock)
    clock.now = 61.0
    progress.show(1234)
    assert caplog.messages == ["predict: 1,234 pictures; 1 min 1 s so far"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_in_place_of_lines() -> None:
    terminal, clock = Terminal(), Clock()
    with contextlib.redirect_stderr(terminal), showing_messages():
        progress = Progress("audit", 10, clock=clock)
        clock.now = 100.0
        progress.show(5)
        progress.close()
    assert "| 0/10 [" in terminal.getvalue()
    assert "so far" not in terminal.getvalue()


def test_line_and_bar_do_not_share_a_row() -> None:
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal), showing_messages(), draw_bar(total=10, desc="run"):
        logging.getLogger("trainer.x").info("a note")
    rows = terminal.getvalue().split("\n")
    assert [row.split("\r")[-1] for row in rows if "a note" in row] == ["a note"]


def test_quiet_command_draws_no_bar() -> None:
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal), showing_messages():
        set_volume(QUIET)
        with draw_bar(total=10) as bar:
            bar.update(5)
    assert terminal.getvalue() == ""
