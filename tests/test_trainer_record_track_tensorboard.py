"""Event files as TensorBoard reads them: the framing checked here, the meaning of a purge as its reader has it."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from runs import run_dir
from tensorboardX.proto.event_pb2 import Event, SessionLog

from shards.dataset.dataset import open_dataset
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import STOP_FILE
from trainer.record.steps import StepLog, StepNumbers, read_steps
from trainer.record.track.track import Tracker
from trainer.run.job import run_rank
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

Scalars = dict[str, list[tuple[int, float]]]


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "track.tensorboard=true", "epochs=2"]
    recipe = resolve_recipe(load_recipe("smoke", [*fixed, "evaluate_on=[]", *options]))
    run_dir(recipe).mkdir(exist_ok=True)
    return recipe


def read_events(path: Path) -> list[Event]:
    """TFRecord: length uint64, masked CRC-32C of it, data, masked CRC-32C of the data."""
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (mask(crc32c(data[:8])),)
        body, data = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[:4]) == (mask(crc32c(body)),)
        data = data[4:]
        events.append(Event.FromString(body))
    return events


def crc32c(data: bytes) -> int:
    """Source: RFC 3720, appendix B.4; polynomial 0x1EDC6F41, reflected."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """Source: tensorflow/core/lib/hash/crc32c.h."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_scalars(recipe: Recipe) -> Scalars:
    """(step, value) by name; a start that purges removes what earlier ones wrote from its step on."""
    scalars: Scalars = defaultdict(list)
    files = sorted((run_dir(recipe) / "tensorboard").iterdir(), key=lambda path: int(path.suffix[1:]))
    for event in [event for path in files for event in read_events(path)]:
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            for name, points in scalars.items():
                scalars[name] = [point for point in points if point[0] < event.step]
        for value in event.summary.value:
            scalars[value.tag].append((event.step, value.simple_value))
    return scalars


def test_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.fixture(scope="module")
def run(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of two epochs of three steps, interrupted once in each of the steps of the first epoch."""
    recipe = make_recipe(
        dataset_path, tmp_path_factory.mktemp("events"), "batch_size_global=24", "track.every_steps=1",
        "evaluate_on=[test]",
    )  # fmt: skip
    (run_dir(recipe) / STOP_FILE).touch()
    for _ in range(3):
        assert run_rank(recipe, single_rank(), lambda _: None) == "interrupted"
    (run_dir(recipe) / STOP_FILE).unlink()
    assert run_rank(recipe, single_rank(), lambda _: None) == "finished"
    return recipe


def test_scalars_are_the_rows_of_metrics_and_steps_over_global_steps(run: Recipe) -> None:
    found = read_scalars(run)
    rows = [*read_metrics(run_dir(run)), *read_steps(run_dir(run))]
    for name in ("train/loss", "train/lr", "val/accuracy", "val/log_loss", "feed/img_s", "step/loss", "step/wait_frac"):
        expected = [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row]
        assert found[name] == expected
        assert len(expected) in (2, 6)


def test_metrics_of_the_final_evaluation_stand_at_the_last_step(run: Recipe) -> None:
    metrics = json.loads((run_dir(run) / "evaluation" / "test" / "metrics.json").read_text())
    assert read_scalars(run)["test/accuracy"] == [(6, pytest.approx(metrics["accuracy"]))]


def test_steps_that_are_taken_again_after_a_kill_count_once(dataset_path: Path, tmp_path: Path) -> None:
    """Two starts: the first comes to step 4; the second goes on from step 2, the last of an epoch."""
    recipe = make_recipe(dataset_path, tmp_path, "track.every_steps=1")
    (run_dir(recipe) / "metrics.jsonl").write_text('{"epoch": 1, "step": 2, "val/accuracy": 0.5}\n')
    for done, last, scale in ((0, 4, 1.0), (2, 5, 10.0)):
        log, tracker = StepLog(run_dir(recipe), 1, 10 * done), Tracker(recipe, run_dir(recipe), 1)
        tracker.start(open_dataset(dataset_path), done)
        for step in range(done + 1, last + 1):
            row = log.add(StepNumbers(step, 1, 10 * step, scale * step, 0.1, 10, 1.0, 0.5))
            assert row is not None
            tracker.log_step(row)
        tracker.close()
    scalars = read_scalars(recipe)
    assert scalars["step/loss"] == [(1, 1), (2, 2), (3, 30), (4, 40), (5, 50)]
    assert scalars["val/accuracy"] == [(2, 0.5)]


@pytest.mark.slow
def test_obstacle_in_the_place_of_the_folder_does_not_stop_the_run(
    dataset_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "batch_size_global=72", "epochs=1", "track.every_steps=1")
    (run_dir(recipe) / "tensorboard").touch()
    assert run_rank(recipe, single_rank(), lambda _: None) == "finished"
    told = [message for message in caplog.messages if message.startswith("TensorBoard does not record this run: ")]
    assert len(told) == 1
