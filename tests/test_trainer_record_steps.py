"""steps.jsonl: which steps it holds, what they say, and that a restart neither loses nor doubles one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import run_dir

from trainer.loop.loop import train
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.record.steps import StepLog, StepNumbers, read_steps
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores


def numbers(step: int, time_s: float = 0.5, wait_s: float = 0.125) -> StepNumbers:
    return StepNumbers(step, 1, 10 * step, loss=1 / step, lr=0.1, images=10, time_s=time_s, wait_s=wait_s)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_rows_are_those_of_every_nth_step(every: int, tmp_path: Path) -> None:
    log = StepLog(tmp_path, every, 0)
    written = [row for step in range(1, 13) if (row := log.add(numbers(step)))]
    assert [row["step"] for row in read_steps(tmp_path)] == list(range(every, 13, every))
    assert read_steps(tmp_path) == written


def test_row_holds_the_loss_of_its_step_and_the_speed_since_the_row_before(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 2, 0)
    for step, (time_s, wait_s) in enumerate([(9.0, 9.0), (1.0, 1.0), (0.5, 0.25), (1.5, 0.75)], start=1):
        log.add(numbers(step, time_s, wait_s))
    assert read_steps(tmp_path)[1] == {
        "step": 4,
        "epoch": 1,
        "samples_seen": 40,
        "step/loss": 0.25,
        "step/lr": 0.1,
        "step/img_s": 20 / 2.0,
        "step/wait_frac": 1.0 / 2.0,
    }


def test_rows_after_the_snapshot_are_dropped_by_a_restart_and_so_is_one_cut_by_a_kill(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 1, 0)
    for step in range(1, 6):
        log.add(numbers(step))
    with open(tmp_path / "steps.jsonl", "a") as file:
        file.write('{"step": 6, "samp')
    StepLog(tmp_path, 1, 30).add(numbers(4))
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3, 4]


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "epochs=2"]
    recipe = resolve_recipe(load_recipe("smoke", [*fixed, *options]))
    run_dir(recipe).mkdir()
    return recipe


def test_rows_of_a_run_stopped_in_every_step_are_those_of_one_that_was_not(dataset_path: Path, tmp_path: Path) -> None:
    straight, chopped = (
        make_recipe(dataset_path, tmp_path, f"name={name}", "batch_size_global=24", "track.every_steps=1")
        for name in ("straight", "chopped")
    )
    train(straight, RunFolder.of(straight), single_rank(), lambda _: None)
    (run_dir(chopped) / STOP_FILE).touch()
    while train(chopped, RunFolder.of(chopped), single_rank(), lambda _: None) == "interrupted":
        pass
    rows = [
        (run_dir(straight) / "steps.jsonl").read_text(),
        (run_dir(chopped) / "steps.jsonl").read_text(),
    ]
    clock = ("step/img_s", "step/wait_frac")
    first, second = (
        [{name: value for name, value in json.loads(line).items() if name not in clock} for line in text.splitlines()]
        for text in rows
    )
    assert first == second
    assert [(row["step"], row["epoch"], row["samples_seen"]) for row in first] == [
        (1, 1, 24), (2, 1, 48), (3, 1, 72), (4, 2, 96), (5, 2, 120), (6, 2, 144),
    ]  # fmt: skip


def test_losses_of_the_steps_of_an_epoch_have_the_epochs_loss_as_their_mean(dataset_path: Path, tmp_path: Path) -> None:
    """Batches of equal size and samples of equal weight; learning rates end with that of the epoch's row."""
    recipe = make_recipe(dataset_path, tmp_path, "track.every_steps=1", "batch_size_global=24")
    train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None)
    steps = read_steps(run_dir(recipe))
    for row in read_metrics(run_dir(recipe)):
        losses = [step["step/loss"] for step in steps if step["epoch"] == row["epoch"]]
        assert sum(losses) / 3 == pytest.approx(row["train/loss"])
        assert next(step["step/lr"] for step in steps if step["step"] == row["step"]) == row["train/lr"]


def test_no_file_where_none_was_asked_for(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "epochs=1", "batch_size_global=72")
    train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None)
    assert not (run_dir(recipe) / "steps.jsonl").exists()
    assert read_steps(run_dir(recipe)) == []
