"""What a sweep says of its trials."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from runs import run_dir

from trainer.recipes.file import load_recipe
from trainer.record.run_folder import RESULT, STOP_FILE
from tune.space.variants import Trial, Variant
from tune.trials.limits import Limits
from tune.trials.progress import SweepProgress
from tune.trials.trial import FAILURE_FILE, STOPPED_FILE


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_trial(root: Path, name: str, accuracies: list[float], finished: bool = False) -> Trial:
    """A trial whose folder holds so many epochs of at most 3."""
    recipe = load_recipe("smoke", ["data=x", f"storage.root={root}", f"name={name}", "epochs=3"])
    run_dir(recipe).mkdir(parents=True)
    rows = [
        {"epoch": number, "samples_seen": 10 * number, "val/accuracy": value, "train/time_s": 1.0}
        for number, value in enumerate(accuracies, 1)
    ]
    (run_dir(recipe) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (run_dir(recipe) / RESULT).write_text("{}")
    return Trial(Variant(name, {"rate": name}, recipe), recipe)


def end(progress: SweepProgress, name: str, method: str = "on_trial_complete") -> None:
    """As Tune calls it."""
    getattr(progress, method)(1, [], SimpleNamespace(config={"recipe": {"name": name}}))


def test_each_trial_that_ends_is_said_once_with_what_came_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tune")
    trials = [
        make_trial(tmp_path, "good", [0.5, 0.9, 0.8], finished=True),
        make_trial(tmp_path, "slow", [0.25]),
        make_trial(tmp_path, "wrong", []),
        make_trial(tmp_path, "lost", []),
        make_trial(tmp_path, "open", []),
    ]
    (trials[2].folder.path / FAILURE_FILE).write_text("no such model")
    clock = Clock()
    progress = SweepProgress(trials, len(trials), clock=clock)
    for clock.now, name in ((60.0, "good"), (80.0, "slow"), (80.0, "slow"), (90.0, "wrong")):
        end(progress, name)
    clock.now = 100.0
    end(progress, "lost", "on_trial_error")
    assert caplog.messages == [
        "trial 1/5, good: val accuracy 0.9000, finished after 3 of 3 epochs (the best finished so far); "
        "1 min 0 s so far, about 4 min 0 s left",
        "trial 2/5, slow: val accuracy 0.2500, stopped early after 1 of 3 epochs (best 0.9000, good); "
        "1 min 20 s so far, about 2 min 0 s left",
        "trial 3/5, wrong: failed: no such model; 1 min 30 s so far, about 1 min 0 s left",
        "trial 4/5, lost: failed: crashed; 1 min 40 s so far, about 25 s left",
    ]


def test_trial_that_fell_behind_is_remembered_and_leaves_no_snapshot(tmp_path: Path) -> None:
    """A sweep that is resumed must not train it on; a trial that was interrupted must go on."""
    trials = [
        make_trial(tmp_path, "behind", [0.5]),
        make_trial(tmp_path, "finished", [0.5, 0.6, 0.7], finished=True),
        make_trial(tmp_path, "interrupted", [0.5]),
        make_trial(tmp_path, "wrong", [0.5]),
    ]
    trials[2].folder.stop_file.touch()
    (trials[3].folder.path / FAILURE_FILE).write_text("NaN")
    progress = SweepProgress(trials, len(trials))
    for trial in trials:
        (trial.folder.snapshots / "1").mkdir(parents=True)
        end(progress, trial.name)
    stopped = [(trial.folder.path / STOPPED_FILE).exists() for trial in trials]
    assert stopped == [True, False, False, False]
    assert [trial.folder.snapshots.exists() for trial in trials] == [False, True, True, True]


def test_trial_that_ends_with_a_stopped_sweep_has_not_fallen_behind(tmp_path: Path) -> None:
    """It may end before its own stop file is there; without its snapshots the resumed sweep would begin it anew."""
    trial = make_trial(tmp_path / "trials", "one", [0.5])
    (trial.folder.snapshots / "1").mkdir(parents=True)
    (tmp_path / STOP_FILE).touch()
    end(SweepProgress([trial], 1), "one")
    assert not (trial.folder.path / STOPPED_FILE).exists()
    assert trial.folder.snapshots.exists()


def test_sweep_says_once_a_minute_how_far_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tune")
    clock = Clock()
    progress = SweepProgress(
        [make_trial(tmp_path, "one", [0.5, 0.6]), make_trial(tmp_path, "two", [0.5])], 2, clock=clock
    )
    for clock.now in (30.0, 60.0, 90.0, 120.0):
        progress.tick()
    assert caplog.messages == [
        "0 of 2 trials ended, 3 of 6 epochs done; 1 min 0 s so far",
        "0 of 2 trials ended, 3 of 6 epochs done; 2 min 0 s so far",
    ]


def test_limits_of_time_and_disk_are_reached_one_at_a_time(tmp_path: Path) -> None:
    now = [0.0]
    timed, full = Limits(hours=0.5, clock=lambda: now[0]), Limits(disk=2048, clock=lambda: now[0])
    (tmp_path / "a").write_bytes(b"x" * 2048)
    assert timed.find_reached(tmp_path) is full.find_reached(tmp_path) is Limits().find_reached(tmp_path) is None
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "b").write_bytes(b"y")
    now[0] = 1799.0
    assert timed.find_reached(tmp_path) is None
    assert full.find_reached(tmp_path) == (
        f"stopped because {tmp_path} takes 2.0 KiB, more than the --max-disk of 2.0 KiB; raise it to go on"
    )
    now[0] = 1801.0
    assert timed.find_reached(tmp_path) == "stopped after 0.5 h, the --max-hours"
    assert full.find_reached(tmp_path) is None  # it looks every 5 s
