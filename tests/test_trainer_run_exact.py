"""Killed anywhere and resumed on other numbers of ranks, a run sees every sample once and ends with equal weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from shards.cli.ending import run_command
from trainer.recipes.file import load_recipe
from trainer.record.ledger import read_ledger, read_position
from trainer.run.__main__ import main
from trainer.run.launch import launch

ROOT = Path(__file__).parent.parent
NUM_SAMPLES, EPOCHS, BATCH = 72, 4, 8
STEPS = NUM_SAMPLES // BATCH * EPOCHS
RANKS = (2, 3, 1)
"""Of the starts of the run that is killed: the first two end by SIGKILL."""


def list_words(data: Path, root: Path, name: str, num_ranks: int, dtype: str) -> list[str]:
    """What a user types for a run of 36 steps of a model with GroupNorm and without dropout."""
    fixed = [f"data={data}", f"storage.root={root}", f"name={name}", f"num_ranks={num_ranks}", f"dtype={dtype}"]
    local = ["launch=local", "track.wandb=disabled", "evaluate_on=[]", "ledger=true", "snapshot.every_s=0.4"]
    model = ["model=timm/test_efficientnet_gn", f"epochs={EPOCHS}", f"batch_size_global={BATCH}", "optim.peak_lr=0.003"]
    stream = ["augment.crop=random", "augment.policy=light", "stream.lanes=3", "workers=2", "seed=5"]
    return ["smoke", *fixed, *local, *model, *stream]


def start(data: Path, root: Path, name: str, num_ranks: int, dtype: str) -> subprocess.Popen[str]:
    """Start such a run as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.run", *list_words(data, root, name, num_ranks, dtype)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(data: Path, root: Path, name: str, num_ranks: int, dtype: str) -> None:
    process = start(data, root, name, num_ranks, dtype)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-2000:]


def wait_for_position(process: subprocess.Popen[str], ledger: Path, position: int) -> None:
    """Return once the steps of a run have come to `position`."""
    while read_position(ledger) < position:
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.002)


def kill_at(process: subprocess.Popen[str], ledger: Path, position: int) -> None:
    """SIGKILL every process of a run once its steps have come to `position`."""
    wait_for_position(process, ledger, position)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_killed(data: Path, root: Path, dtype: str) -> None:
    """Start on 2 ranks, kill in the first half; go on with 3, kill in the second; go on with 1 to the end."""
    rng, total = random.Random(11), NUM_SAMPLES * EPOCHS
    for number, num_ranks in enumerate(RANKS[:-1]):
        position = rng.randrange((number + 1) * total // 4, (number + 2) * total // 4)
        kill_at(start(data, root, "killed", num_ranks, dtype), root / "killed/ledger", position)
    finish(data, root, "killed", RANKS[-1], dtype)


def read_weights(root: Path, name: str) -> dict[str, Tensor]:
    return load_file(max((root / name / "snapshots").iterdir()) / "model.safetensors")


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of any weight."""
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.fixture(scope="module")
def exact(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs `killed` and `straight` in float64."""
    root = tmp_path_factory.mktemp("exact")
    run_killed(dataset_path, root, "float64")
    recipe, *options = list_words(dataset_path, root, "straight", 1, "float64")
    launch(load_recipe(recipe, options))  # here, where all is imported
    return root


def test_every_epoch_of_the_killed_run_holds_every_sample_exactly_once(exact: Path) -> None:
    table = read_ledger(exact / "killed/ledger")
    epochs, ids = table["epoch"].to_numpy(), table["sample_id"].to_numpy()
    assert {epoch: sorted(ids[epochs == epoch].tolist()) for epoch in range(EPOCHS)} == {
        epoch: list(range(NUM_SAMPLES)) for epoch in range(EPOCHS)
    }


def test_the_killed_run_saw_the_samples_and_pixels_of_the_straight_one_in_its_order(exact: Path) -> None:
    columns = ["epoch", "step", "sample_id", "pixels_xxh3"]
    killed, straight = (read_ledger(exact / name / "ledger").select(columns) for name in ("killed", "straight"))
    assert killed.equals(straight)


def test_it_was_killed_between_snapshots_on_each_number_of_ranks(exact: Path) -> None:
    """Otherwise the tests here would show less than they say."""
    table = read_ledger(exact / "killed/ledger")
    assert sum(table["redone"].to_pylist()) > 0
    ranks, steps = table["rank"].to_numpy(), table["step"].to_numpy()
    widths = [int(ranks[steps == step].max()) + 1 for step in range(STEPS)]
    assert sorted(set(widths), key=widths.index) == list(RANKS)


def test_weights_of_the_killed_run_are_those_of_the_straight_one(exact: Path) -> None:
    killed, straight = (read_weights(exact, name) for name in ("killed", "straight"))
    assert killed["backbone.classifier.weight"].dtype == torch.float64
    assert distance(killed, straight) < 1e-9


def test_36_steps_move_the_weights_by_far_more(exact: Path) -> None:
    first = load_file(min((exact / "straight/snapshots").iterdir()) / "model.safetensors")
    assert STEPS == 36
    assert distance(first, read_weights(exact, "straight")) > 1e-3


@pytest.mark.slow  # five runs of up to four processes
def test_in_float32_a_kill_changes_weights_by_no_more_than_the_number_of_ranks_does(
    dataset_path: Path, tmp_path: Path
) -> None:
    """At most three times the difference of two uninterrupted runs on 2 and 3 ranks, which sum in another order."""
    run_killed(dataset_path, tmp_path, "float32")
    for num_ranks in (2, 3):
        finish(dataset_path, tmp_path, f"straight{num_ranks}", num_ranks, "float32")
    killed, two, three = (read_weights(tmp_path, name) for name in ("killed", "straight2", "straight3"))
    assert distance(two, three) > 0
    assert max(distance(killed, two), distance(killed, three)) <= 3 * distance(two, three)


def list_children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def read_command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def find_ranks(process: subprocess.Popen[str], root: Path, name: str) -> list[int]:
    """The process ids of the ranks of a run, once it has taken two steps."""
    wait_for_position(process, root / name / "ledger", 2 * BATCH)
    servers = [child for child in list_children(process.pid) if b"forkserver" in read_command(child)]
    return [child for server in servers for child in list_children(server)]


def are_gone(pids: list[int]) -> bool:
    """Say whether the processes end within 10 s."""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_second_command_for_a_run_that_is_under_way_is_refused_and_the_run_unharmed(
    dataset_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As somebody types it again whose connection was cut; both would write the same snapshots and ledger."""
    process = start(dataset_path, tmp_path, "twice", 1, "float32")
    wait_for_position(process, tmp_path / "twice/ledger", 2 * BATCH)
    assert run_command(main, list_words(dataset_path, tmp_path, "twice", 1, "float32")) == 2
    assert f"error: another command is using {tmp_path}/twice; wait for it" in capfd.readouterr().err
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    steps = read_ledger(tmp_path / "twice/ledger")["step"].to_numpy()
    assert [int((steps == step).sum()) for step in range(max(steps) + 1)] == [BATCH] * (max(steps) + 1)


@pytest.mark.slow
def test_rank_that_is_killed_ends_the_run_with_a_sentence(dataset_path: Path, tmp_path: Path) -> None:
    """As the kernel does when memory runs out; the others wait in a collective for it."""
    process = start(dataset_path, tmp_path, "oom", 3, "float32")
    ranks = find_ranks(process, tmp_path, "oom")
    assert len(ranks) == 3
    os.kill(ranks[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "was killed (SIGKILL)" in errors
    assert "Traceback" not in errors
    assert are_gone(ranks)


@pytest.mark.slow
def test_ranks_end_with_the_command_that_started_them(dataset_path: Path, tmp_path: Path) -> None:
    process = start(dataset_path, tmp_path, "orphans", 2, "float32")
    ranks = find_ranks(process, tmp_path, "orphans")
    process.kill()
    process.communicate()
    assert len(ranks) == 2
    assert are_gone(ranks)
