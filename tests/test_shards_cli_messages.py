"""What of the log a command shows, how much of it, and what processes hand on to each other."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
from collections.abc import Callable

import pytest

from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.cli.messages import (
    NORMAL,
    QUIET,
    VERBOSE,
    Replay,
    add_volume,
    collecting_notes,
    handing_on,
    print_note,
    showing_messages,
    showing_messages_by_default,
    write_line,
)
from shards.errors import UsageError

OURS = logging.getLogger("trainer.somewhere")
PROGRESS = logging.getLogger("trainer.somewhere.progress")
THEIRS = logging.getLogger("somebody.else")
THEIRS.setLevel(logging.INFO)


def say_everything() -> None:
    OURS.debug("a detail")
    OURS.info("a note")
    PROGRESS.info("epoch 1")
    OURS.warning("a warning")
    OURS.error("an error")
    THEIRS.info("their note")
    THEIRS.warning("their warning")


def shown(act: Callable[[], object], *options: str) -> list[str]:
    """What a command with these options shows on standard error, without the time of day."""

    def main(argv: list[str]) -> int:
        parser = argparse.ArgumentParser()
        add_volume(parser)
        parser.parse_args(argv)
        act()
        return 0

    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert run_command(main, list(options)) == 0
    return [line[9:] if line[2:3] == line[5:6] == ":" else line for line in err.getvalue().splitlines()]


def test_command_shows_notes_progress_and_warnings_but_no_details_and_of_others_warnings_alone() -> None:
    assert shown(say_everything) == [
        "a note",
        "epoch 1",
        "warning: a warning",
        "error: an error",
        "warning: their warning",
    ]


def test_verbose_command_shows_details_with_their_source_as_well() -> None:
    expected = ["trainer.somewhere: a detail", *shown(say_everything)]
    assert shown(say_everything, "-v") == shown(say_everything, "--verbose") == expected


def test_quiet_command_shows_errors_alone() -> None:
    assert shown(say_everything, "-q") == shown(say_everything, "--quiet") == ["error: an error"]


def test_line_beside_a_result_is_shown_by_default_and_not_by_a_quiet_command() -> None:
    assert shown(lambda: print_note("note: this")) == shown(lambda: print_note("note: this"), "-v") == ["note: this"]
    assert shown(lambda: print_note("note: this"), "-q") == []


def test_volume_of_one_command_is_not_that_of_the_next() -> None:
    before = shown(say_everything)
    shown(say_everything, "-q")
    assert shown(say_everything) == before
    assert [handler for handler in logging.getLogger().handlers if type(handler).__name__ == "_Shown"] == []


def test_quiet_and_verbose_at_once_are_refused() -> None:
    parser = CommandParser(prog="python -m trainer.run")
    add_volume(parser)
    with pytest.raises(UsageError, match="not allowed with argument"):
        parser.parse_args(["-q", "-v"])


def test_progress_begins_with_the_time_of_day_and_a_note_does_not() -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), showing_messages():
        PROGRESS.info("epoch 1")
        OURS.info("a note")
    time, note = err.getvalue().splitlines()
    assert (len(time), time[2], time[5:6], time[8:], note) == (16, ":", ":", " epoch 1", "a note")


def test_line_is_flushed_at_once() -> None:
    class Stream(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    stream = Stream()
    with contextlib.redirect_stderr(stream):
        write_line("where the run stands")
    assert stream.flushed == "where the run stands\n"


def test_reader_of_standard_error_that_has_left_is_no_error() -> None:
    closed = io.StringIO()
    closed.close()
    with contextlib.redirect_stderr(closed):
        write_line("nobody reads this")


def test_library_call_in_a_process_without_handlers_shows_what_a_command_would() -> None:
    root, err = logging.getLogger(), io.StringIO()
    before, root.handlers = root.handlers, []  # pytest has put its own there
    try:
        with contextlib.redirect_stderr(err), showing_messages_by_default():
            OURS.info("a note")
        OURS.info("after the call")
    finally:
        root.handlers = before
    assert err.getvalue() == "a note\n"


def test_library_call_goes_by_the_handlers_of_its_process(caplog: pytest.LogCaptureFixture) -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), showing_messages_by_default():
        OURS.info("a note")
    assert (err.getvalue(), caplog.messages) == ("", ["a note"])


def test_library_call_goes_by_the_level_of_its_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("trainer").setLevel(logging.WARNING)
    try:
        with showing_messages_by_default():
            say_everything()
    finally:
        logging.getLogger("trainer").setLevel(logging.NOTSET)
    assert [message for message in caplog.messages if "their" not in message] == ["a warning", "an error"]


def test_collected_notes_are_not_shown_and_each_is_there_once() -> None:
    notes: list[str] = []

    def act() -> None:
        with collecting_notes() as found:
            say_everything()
            OURS.info("a note")
        notes.extend(found)

    assert shown(act) == ["epoch 1", "warning: their warning"]
    assert notes == ["a note", "a warning", "an error"]


@pytest.mark.parametrize("level", [VERBOSE, NORMAL, QUIET])
def test_what_is_handed_on_is_logged_by_who_replays_it_and_nowhere_else(
    level: int, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    with handing_on(lines.append, level):
        say_everything()
    assert [message for message in caplog.messages if "their" not in message] == []
    assert shown(lambda: [Replay()(line) for line in lines], "-v") == [
        line for line in shown(say_everything, "-v") if "their" not in line and _level_of(line) >= level
    ]


def _level_of(line: str) -> int:
    return {"warning": logging.WARNING, "error": QUIET, "trainer.somewhere": VERBOSE}.get(line.split(":")[0], NORMAL)


def test_warning_that_every_rank_has_is_logged_once_and_progress_as_often_as_it_comes() -> None:
    lines: list[str] = []
    for _ in range(3):
        with handing_on(lines.append, NORMAL):
            say_everything()
    replay = Replay()
    told = shown(lambda: [replay(line) for line in lines])
    assert [told.count(line) for line in ("warning: a warning", "error: an error", "epoch 1")] == [1, 1, 3]


def test_message_with_percent_signs_and_line_ends_comes_through_as_it_is() -> None:
    lines: list[str] = []
    with handing_on(lines.append, NORMAL):
        OURS.info("100 %% of %s", "a\nb")
    assert "\n" not in lines[0]
    assert shown(lambda: Replay()(lines[0])) == ["100 % of a", "b"]
