"""Where a run stands, line by line, on a clock of the test's own."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from shards.cli.progress import LINE_EVERY_S
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import Numbers
from trainer.record.notes import NOTES, keep_notes, read_notes
from trainer.record.progress import TICK_S, RunProgress, Size
from trainer.record.snapshot import Best, RunState

SIZE = Size(epoch=1000, val=200, end=100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")


def make_recipe(*options: str) -> Recipe:
    return load_recipe("smoke", ["data=x", "name=cells", "epochs=4", *options])


def make_state(**fields: object) -> RunState:
    return RunState(dataset="", recipe="").model_copy(update=fields)


def make_numbers(epoch: int, value: float, best: float, best_epoch: int, metric: str = "accuracy") -> Numbers:
    numbers = {"epoch": epoch, "samples_seen": 1000 * epoch, "train/loss": 0.123456, f"val/{metric}": value}
    return numbers | {"val/best": best, "val/best_epoch": best_epoch}


class Run:
    """A run of steps of 100 pictures: the first ends after 12 s, the others take 10 s each, an evaluation 20 s."""

    def __init__(self, recipe: Recipe, speaks: bool = True) -> None:
        self.clock = Clock()
        self.progress = RunProgress(recipe, speaks, clock=self.clock)
        self.state = make_state()

    def begin(self) -> None:
        self.progress.begin(self.state, SIZE, None, "net on CPU")
        self.progress.begin_epoch(self.state.epochs_done)

    def step(self, number: int, tick: bool = True) -> None:
        self.progress.wait_for_batch()
        self.progress.take_step(first=number == 0)
        self.clock.now += 12 if number == 0 else 10
        self.progress.end_step(100 * (number + 1))
        self.progress.show_loss(0.5)
        if tick:
            self.progress.tick()

    def validate(self) -> None:
        with self.progress.validating():
            self.clock.now += 20

    def train_epoch(self) -> None:
        self.begin()
        for number in range(10):
            self.step(number, tick=False)
        self.validate()


def test_new_run_says_what_is_trained(caplog: pytest.LogCaptureFixture) -> None:
    Run(make_recipe()).begin()
    assert caplog.messages == ["cells: training net on CPU, 4 epochs of 1,000 pictures"]


def test_resumed_run_says_where_it_resumes_and_what_was_best(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe())
    best = Best(epoch=1, value=0.9, snapshot="")
    run.state = make_state(samples_seen=2300, epochs_done=2, best=best, epochs_without_better=1)
    run.progress.begin(run.state, SIZE, 0.8, "net on CPU")
    run.progress.begin_epoch(2)
    run.clock.now = LINE_EVERY_S
    run.progress.tick()
    assert caplog.messages == [
        "cells: resuming net on CPU after 2 of 4 epochs, 2,300 of 4,000 pictures (57 %)",
        "epoch 3/4, 30 %: val accuracy 0.8000 (best 0.9000 in epoch 1); 1 min 0 s since it resumed",
    ]


def test_line_within_an_epoch_comes_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """After a step of 12 s, and from then on 10 s a step: the sixth ends at 62 s. The pace is that of the later ones.

    3,400 pictures at 0.1 s are left, and 4 x 200 + 100 of evaluation, which take a third of that until one was timed.
    """
    run = Run(make_recipe())
    run.begin()
    for number in range(6):
        run.step(number)
    assert caplog.messages[1:] == ["epoch 1/4, 60 %: loss 0.5; 1 min 2 s so far, about 6 min 10 s left"]


def test_line_of_an_epoch_has_loss_metric_best_time_and_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """102 s of training and 20 s for 200 pictures: 3,000 at 0.1 s and 3 x 200 + 100 at 0.1 s are left."""
    run = Run(make_recipe())
    run.train_epoch()
    run.progress.end_epoch(make_numbers(1, 0.75, 0.75, 1), 0)
    assert caplog.messages[1:] == [
        "epoch 1/4: loss 0.1235, val accuracy 0.7500 (best); 2 min 2 s so far, about 6 min 10 s left"
    ]


def test_epoch_that_is_not_the_best_names_the_best(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe("stop.metric=log_loss"))
    run.begin()
    run.progress.end_epoch(make_numbers(3, 0.75, 0.5, 1, "log_loss"), 2)
    assert caplog.messages[1:] == ["epoch 3/4: loss 0.1235, val log loss 0.7500 (best 0.5000 in epoch 1); 0 s so far"]


def test_early_stop_is_foreseen_and_said(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe("stop.patience=2"))
    run.train_epoch()
    run.progress.end_epoch(make_numbers(1, 0.9, 0.9, 1), 0)
    run.progress.end_epoch(make_numbers(2, 0.8, 0.9, 1), 1)
    run.progress.end_epoch(make_numbers(3, 0.8, 0.9, 1), 2)
    run.progress.end_training()
    first, second, _, last = caplog.messages[1:]
    assert first.endswith("; 2 min 2 s so far, at most 6 min 10 s left")
    assert "(best 0.9000 in epoch 1; 1 of 2 without a better one)" in second
    assert last == "stopped early after 3 of 4 epochs: 2 without a better val accuracy"


def test_run_that_reaches_its_last_epoch_did_not_stop_early(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe("stop.patience=2"))
    run.begin()
    run.progress.end_epoch(make_numbers(4, 0.8, 0.9, 1), 2)
    run.progress.end_training()
    assert len(caplog.messages) == 2


def test_long_validation_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe())
    run.begin()
    with run.progress.validating() as advance:
        for run.clock.now in (30.0, 60.0, 90.0, 120.0):
            advance(int(run.clock.now))
            run.progress.tick()
    assert [message.split(":")[0] for message in caplog.messages[1:]] == [
        "epoch 1/4, validating 60 of 200 pictures",
        "epoch 1/4, validating 120 of 200 pictures",
    ]


def test_what_comes_before_the_first_step_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe("model=resnet18"))
    run.clock.now = 60
    run.progress.tick()
    run.begin()
    run.progress.wait_for_batch()
    run.clock.now = 120
    run.progress.tick()
    run.progress.take_step(first=True)
    run.clock.now = 180
    run.progress.tick()
    assert caplog.messages == [
        "preparing data and resnet18; 1 min 0 s so far",
        "cells: training net on CPU, 4 epochs of 1,000 pictures",
        "epoch 1/4, 0 %, waiting for data: 2 min 0 s so far",
        "epoch 1/4, 0 %, taking the first step: 3 min 0 s so far",
    ]


def test_stages_after_training_are_said_when_they_begin_and_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe())
    run.begin()
    run.progress.end_training()
    with run.progress.stage("writing the bundle"):
        run.clock.now += 60
        run.progress.tick()
    with run.progress.stage("evaluating on test", 100) as advance:
        advance(25)
        run.clock.now += 60
        run.progress.tick()
    assert caplog.messages[1:] == [
        "writing the bundle",
        "writing the bundle; 1 min 0 s so far",
        "evaluating on test: 100 pictures",
        "evaluating on test: 25 of 100 pictures; 1 min 0 s so far, about 3 min 0 s left",
    ]


def test_no_minute_passes_without_a_line_however_ticks_fall(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe())
    times = []
    for number in range(1000):
        run.clock.now = number * TICK_S
        before = len(caplog.messages)
        run.progress.tick()
        times += [run.clock.now] * (len(caplog.messages) - before)
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert max(gaps) <= LINE_EVERY_S
    assert min(gaps) > LINE_EVERY_S - 2 * TICK_S


def test_line_of_an_epoch_puts_the_next_one_off(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe())
    run.begin()
    run.clock.now = 50
    run.progress.end_epoch(make_numbers(1, 0.75, 0.75, 1), 0)
    run.clock.now = 100
    run.progress.tick()
    assert len(caplog.messages) == 2


def test_other_ranks_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_recipe(), speaks=False)
    run.train_epoch()
    run.progress.end_epoch(make_numbers(1, 0.75, 0.75, 1), 0)
    run.clock.now += 1000
    run.progress.tick()
    assert caplog.messages == []


def test_notes_of_a_run_are_kept_once_and_progress_and_details_are_not(tmp_path: Path) -> None:
    def log() -> None:
        logging.getLogger("trainer.loop.build").info("weights x: 3 tensors loaded")
        logging.getLogger("shards.storage").warning("fetched once more")
        logging.getLogger("trainer.record.progress").info("epoch 1/4")
        logging.getLogger("trainer.ranks.watching").debug("a detail")
        logging.getLogger("somebody.else").warning("not ours")

    for _ in range(2):  # as when a run is resumed; rank 0 of the command's process has two keepers
        with keep_notes(tmp_path), keep_notes(tmp_path):
            log()
    log()
    told = [(note.level, note.text) for note in read_notes(tmp_path)]
    assert told == [("info", "weights x: 3 tensors loaded"), ("warning", "fetched once more")]


def test_note_that_was_cut_by_a_kill_leaves_the_others_readable(tmp_path: Path) -> None:
    note = {"time": "2026-01-01 00:00:00", "level": "info", "text": "whole"}
    (tmp_path / NOTES).write_text(json.dumps(note) + "\n" + '{"time": "2026')
    assert [note.text for note in read_notes(tmp_path)] == ["whole"]


def test_run_of_an_earlier_version_has_no_notes(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == []
