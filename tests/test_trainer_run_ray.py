"""Whatever Ray loses, a run goes on from its last snapshot, and every sample is seen once an epoch."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray_nodes import Nodes, run_nodes
from runs import run_dir
from safetensors.torch import load_file
from small_disk import mount_small
from torch import Tensor

from shards.errors import ShardError, UsageError
from shards.storage.storage import open_storage
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.ledger import read_ledger, read_position
from trainer.record.run_folder import RESULT, RunFolder
from trainer.run.launch import choose_launch, launch
from trainer.run.ray.launch import _explain
from trainer.run.ray.refusal import is_full_disk, read_refusal

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent
NUM_SAMPLES, BATCH = 72, 8
WAIT_S = 250  # a start of all ranks takes 10 s on a quiet machine, and a minute and a half on a crowded one
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    """One of a test that failed would keep its CPUs, and the tests after it would wait for them."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


class Run:
    """A run of the command line on a Ray cluster."""

    def __init__(self, data: Path, root: Path | str, address: str, *options: str, work: Path | None = None) -> None:
        fixed = [f"data={data}", f"storage.root={root}", "name=run", "track.wandb=disabled", "launch=ray"]
        model = ["model=timm/test_efficientnet_gn", f"batch_size_global={BATCH}", "dtype=float64", "stream.lanes=3"]
        rest = ["augment.crop=random", "evaluate_on=[]", "ledger=true", "workers=1", *options]
        self.options = [*fixed, *model, *rest]
        self.recipe: Recipe = load_recipe("smoke", self.options)
        self.address, self.work, self.run_dir = address, work, run_dir(self.recipe)

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "RAY_ADDRESS": self.address}
        if self.work:
            environment["SHARDLINE_WORK"] = str(self.work)
        command = [sys.executable, "-m", "trainer.run", "smoke", *self.options]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        STARTED.append(process)
        return process

    @property
    def position(self) -> int:
        return read_position(self.run_dir / "ledger")

    @property
    def snapshot(self) -> int:
        names = (path.name for path in self.run_dir.glob("snapshots/*"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    @property
    def num_ranks(self) -> int:
        """Of the newest part of the ledger."""
        parts = [path.stem.split("-") for path in self.run_dir.glob("ledger/rank-*.parquet")]
        newest = max((int(part[3]) for part in parts), default=0)
        return sum(int(part[3]) == newest for part in parts)

    def seen(self) -> list[tuple[int, int]]:
        """(epoch, sample id) of the steps that led to the weights."""
        table = read_ledger(self.run_dir / "ledger")
        return list(zip(table["epoch"].to_pylist(), table["sample_id"].to_pylist(), strict=True))


def every_sample_once(seen: list[tuple[int, int]]) -> bool:
    """Say whether whole epochs hold each sample once, and the part of one at the end none twice."""
    whole = len(seen) // NUM_SAMPLES
    expected = {(epoch, number) for epoch in range(whole) for number in range(NUM_SAMPLES)}
    rest = set(seen) - expected
    return len(set(seen)) == len(seen) and expected <= set(seen) and {epoch for epoch, _ in rest} <= {whole}


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not ready():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until, f"no {what} within {WAIT_S} s"
        time.sleep(0.01)


def wait_for_steps(process: subprocess.Popen[str], run: Run, samples: int) -> None:
    """Return when a snapshot is there and `samples` more samples were seen after it."""
    wait_for(process, lambda: 0 < run.snapshot < run.position - samples, "steps after a snapshot")


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, errors[-3000:]
    return errors


def find_processes(address: str, *titles: bytes) -> list[int]:
    """The ids of a cluster's processes whose title holds one of `titles`."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and any(title in (folder / "cmdline").read_bytes() for title in titles):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if f"--gcs-address={address}".encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                    found.append(int(folder.name))
    return sorted(found)


def are_gone(address: str) -> bool:
    """Say whether every process of the run ends within 15 s."""
    until = time.monotonic() + 15
    while find_processes(address, b"RayTrainWorker", b"TrainController"):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def read_weights(run_dir: Path) -> dict[str, Tensor]:
    return load_file(max((run_dir / "snapshots").iterdir()) / "model.safetensors")


# What needs no cluster


def test_range_of_ranks_without_ray_is_refused() -> None:
    recipe = load_recipe("smoke", ["data=x", "num_ranks=2..8", "launch=local"])
    with pytest.raises(UsageError) as caught:
        choose_launch(recipe)
    assert str(caught.value) == (
        "num_ranks=2..8 adapts to a Ray cluster, but launch=local uses none; give one number, or launch=ray"
    )


@pytest.mark.parametrize("value", ["0", "0..2", "3..2", "2...4", "two", "1.5", "true", "-1"])
def test_num_ranks_that_is_no_number_and_no_range_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"^num_ranks: must be a number of processes, at least 1, or a range such as"):
        load_recipe("smoke", ["data=x", f"num_ranks={value}"])


@pytest.mark.parametrize(
    ("value", "least", "most", "elastic"), [("3", 3, 3, False), ("2..8", 2, 8, True), ("2..2", 2, 2, True)]
)
def test_num_ranks_is_a_number_or_a_range(value: str, least: int, most: int, elastic: bool) -> None:
    recipe = load_recipe("smoke", ["data=x", f"num_ranks={value}"])
    assert (recipe.least_ranks, recipe.most_ranks, recipe.is_elastic) == (least, most, elastic)


# One node


@pytest.fixture(scope="module")
def lost_worker(dataset_path: Path, ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with elastic ranks, one of which ends by SIGKILL within an epoch, between two snapshots."""
    root = tmp_path_factory.mktemp("lost-worker")
    run = Run(dataset_path, root, ray_cluster, "num_ranks=2..2", "epochs=12", "snapshot.every_s=0.5")
    process = run.start()
    wait_for_steps(process, run, BATCH)
    os.kill(find_processes(ray_cluster, b"RayTrainWorker")[-1], signal.SIGKILL)
    finish(process)
    return run


@pytest.mark.slow
def test_run_that_lost_a_worker_holds_every_sample_once_an_epoch(lost_worker: Run) -> None:
    seen = lost_worker.seen()
    assert (len(seen), every_sample_once(seen)) == (12 * NUM_SAMPLES, True)


@pytest.mark.slow
def test_steps_since_the_last_snapshot_were_taken_again(lost_worker: Run) -> None:
    redone = read_ledger(lost_worker.run_dir / "ledger")["redone"].to_pylist()
    assert BATCH <= sum(redone) < 12 * NUM_SAMPLES


@pytest.mark.slow
def test_weights_of_the_run_that_lost_a_worker_are_those_of_one_process(lost_worker: Run, tmp_path: Path) -> None:
    options = [*lost_worker.options, "launch=local", "num_ranks=1", f"storage.root={tmp_path}"]
    straight = launch(load_recipe("smoke", options))
    ours, theirs = read_weights(lost_worker.run_dir), read_weights(straight.path)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_driver_that_is_killed_and_started_anew_goes_on_whatever_ray_train_has_left(
    dataset_path: Path, ray_cluster: str, tmp_path: Path
) -> None:
    """A state file of Ray Train's own that was cut by the kill would end every later start."""
    run = Run(dataset_path, tmp_path, ray_cluster, "num_ranks=2..2", "epochs=15", "snapshot.every_s=0.5")
    process = run.start()
    wait_for_steps(process, run, BATCH)
    process.kill()
    process.communicate()
    assert are_gone(ray_cluster)
    reached = run.position
    (run.run_dir / "ray" / "ray").mkdir(parents=True, exist_ok=True)
    for folder in (run.run_dir / "ray", run.run_dir / "ray" / "ray"):
        (folder / "checkpoint_manager_snapshot.json").write_text("{")
    started = time.monotonic()
    process = run.start()
    wait_for(process, lambda: run.position > reached, "steps")
    print(f"MEASURED driver killed: {time.monotonic() - started:.1f} s until new steps, load {os.getloadavg()[0]:.1f}")
    finish(process)
    seen = run.seen()
    assert (len(seen), every_sample_once(seen)) == (15 * NUM_SAMPLES, True)
    assert sum(read_ledger(run.run_dir / "ledger")["redone"].to_pylist()) >= BATCH


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_death_of_ray_trains_controller_costs_a_restart_and_no_sample(
    dataset_path: Path, ray_cluster: str, tmp_path: Path
) -> None:
    """The cluster has four CPUs: what the three ranks had must be free for three new ones."""
    run = Run(dataset_path, tmp_path, ray_cluster, "num_ranks=3..3", "epochs=15", "snapshot.every_s=0.5")
    process = run.start()
    wait_for_steps(process, run, BATCH)
    # Ray's own helper that gives back the CPUs is not always there: it ends when it cannot reach the store in time.
    for cleaner in find_processes(ray_cluster, b"PlacementGroupCleaner"):  # one of an earlier run may be there yet
        os.kill(cleaner, signal.SIGKILL)
    (controller,) = find_processes(ray_cluster, b"TrainController")
    ranks = set(find_processes(ray_cluster, b"RayTrainWorker"))
    os.kill(controller, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(process, lambda: not ranks & set(find_processes(ray_cluster, b"RayTrainWorker")), "end of the ranks")
    reached = run.position
    wait_for(process, lambda: run.position > reached + BATCH, "steps")
    print(f"MEASURED controller lost: {time.monotonic() - killed:.1f} s until new steps, load {os.getloadavg()[0]:.1f}")
    finish(process)
    seen = run.seen()
    assert (len(seen), every_sample_once(seen)) == (15 * NUM_SAMPLES, True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_more_losses_than_allowed_end_in_a_sentence_and_a_run_that_goes_on(
    dataset_path: Path, ray_cluster: str, tmp_path: Path
) -> None:
    run = Run(dataset_path, tmp_path, ray_cluster, "num_ranks=2", "epochs=15", "ray.max_failures=0")
    process = run.start()
    wait_for(process, lambda: run.position > NUM_SAMPLES, "steps")
    os.kill(find_processes(ray_cluster, b"RayTrainWorker")[-1], signal.SIGKILL)
    errors = finish(process, 2)
    assert errors.strip().splitlines()[-1] == (
        "error: a worker or its node was lost more than ray.max_failures=0 times; the same command goes on from the "
        "last snapshot, or raise that option"
    )
    assert "Traceback" not in errors
    finish(run.start())
    assert every_sample_once(run.seen())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_full_disk_ends_the_run_without_another_start_of_its_ranks_and_with_room_the_same_command_ends_it(
    dataset_path: Path, ray_cluster: str, tmp_path: Path
) -> None:
    """No restart heals it, and none is tried although three are allowed: each start adds a file of events."""
    with mount_small(tmp_path / "disk", "size=64m") as disk:
        options = ("num_ranks=2", "epochs=4", "snapshot.every_s=0.2", "track.tensorboard=true")
        run = Run(dataset_path, disk.folder, ray_cluster, *options)
        process = run.start()
        wait_for(process, lambda: run.snapshot > 0, "snapshot")
        disk.fill()
        errors = finish(process, 2)
        assert "Traceback" not in errors
        assert re.fullmatch(
            rf"error: the disk of {run.run_dir}\S* is full \(.* free.*\); the run stopped after \d+ samples, its "
            r"last snapshot is at \d+\. Free some room there, or move .*: the same command then resumes from that s.*",
            errors.strip().splitlines()[-1],
        ), errors
        assert len(list((run.run_dir / "tensorboard").iterdir())) == 1
        assert are_gone(ray_cluster)
        disk.empty()
        finish(run.start())
        assert every_sample_once(run.seen())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ctrl_c_reaches_ranks_on_another_disk_and_the_same_command_ends_the_run_from_the_store(
    dataset_path: Path, ray_cluster: str, s3: str, tmp_path: Path
) -> None:
    """The command's folder is not the ranks', as on another machine: it sees nothing of theirs but the store."""
    root = s3.format(path="ray")
    run = Run(dataset_path, root, ray_cluster, "num_ranks=2", "epochs=20", "snapshot.every_s=1", work=tmp_path)
    assert RunFolder.of(run.recipe).uri
    storage = open_storage(RunFolder.of(run.recipe).uri)
    process = run.start()
    wait_for(process, lambda: any(name.endswith("/state.json") for name in storage.sizes()), "snapshot in the store")
    stopped = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert f"the state is saved in {RunFolder.of(run.recipe)}" in finish(process, 130)
    print(f"MEASURED Ctrl-C: {time.monotonic() - stopped:.1f} s, load {os.getloadavg()[0]:.1f}")
    assert are_gone(ray_cluster)
    assert RESULT not in storage.sizes()
    finish(run.start())
    (folder,) = tmp_path.glob("*/run")
    assert {path.name for path in folder.iterdir()} >= {"bundle", "report.html", RESULT, "metrics.jsonl"}
    assert not (folder / "snapshots").exists()
    (tmp_path / "ledger").mkdir()
    for name in storage.sizes():
        if name.startswith("ledger/rank-"):
            (tmp_path / name).write_bytes(storage.read(name))
    table = read_ledger(tmp_path / "ledger")
    seen = list(zip(table["epoch"].to_pylist(), table["sample_id"].to_pylist(), strict=True))
    assert (len(seen), every_sample_once(seen)) == (20 * NUM_SAMPLES, True)


# Several nodes


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """One node of one CPU; a test's own, because two ranks on three nodes of others might not be where it looks."""
    with run_nodes() as cluster:
        cluster.add(1)
        yield cluster


def stop(process: subprocess.Popen[str], run: Run) -> None:
    """Stop a run as `ray job stop` does; its state then stands where its ledger ends, and no process is left."""
    process.send_signal(signal.SIGTERM)
    finish(process, 130)
    assert are_gone(run.address)
    state = json.loads((run.run_dir / f"snapshots/{run.snapshot:015d}/state.json").read_text())
    seen = run.seen()
    assert (len(seen), every_sample_once(seen)) == (state["samples_seen"], True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ranks_follow_the_nodes_that_go_and_come(dataset_path: Path, nodes: Nodes, tmp_path: Path) -> None:
    second = nodes.add(1)
    options = ("num_ranks=1..2", "epochs=100000", "snapshot.every_s=1", "ray.resize_s=5")
    run = Run(dataset_path, tmp_path, nodes.address, *options)
    process = run.start()
    wait_for(process, lambda: run.num_ranks == 2 and run.position > NUM_SAMPLES, "two ranks")
    nodes.kill(second)
    lost, reached = time.monotonic(), run.position
    wait_for(process, lambda: run.position > reached + BATCH and run.num_ranks == 1, "one rank")
    print(f"MEASURED node lost: {time.monotonic() - lost:.1f} s until new steps, load {os.getloadavg()[0]:.1f}")
    nodes.add(1)
    came = time.monotonic()
    wait_for(process, lambda: run.num_ranks == 2, "two ranks again")
    print(f"MEASURED node added: {time.monotonic() - came:.1f} s until two ranks, load {os.getloadavg()[0]:.1f}")
    stop(process, run)
    ranks = read_ledger(run.run_dir / "ledger")
    widths = {step: rank + 1 for step, rank in zip(ranks["step"].to_pylist(), ranks["rank"].to_pylist(), strict=True)}
    changes = [width for width, before in zip(widths.values(), [0, *widths.values()], strict=False) if width != before]
    assert changes == [2, 1, 2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_notice_that_a_node_will_be_taken_away_is_answered_with_a_snapshot_in_time(
    dataset_path: Path, nodes: Nodes, tmp_path: Path
) -> None:
    """No snapshot is due for a quarter of an hour: it is the notice that makes them, up to shortly before the end."""
    second = nodes.add(1)
    options = ("num_ranks=1..2", "epochs=100000", "snapshot.every_s=900", "snapshot.every_epochs=100000")
    run = Run(dataset_path, tmp_path, nodes.address, *options, "ray.max_failures=0", "stop.min_delta=1")
    process = run.start()
    wait_for(process, lambda: run.position > 20 * NUM_SAMPLES, "steps")
    workers = find_processes(nodes.address, b"RayTrainWorker")
    before, noticed = run.snapshot, time.monotonic()
    nodes.drain(second, 20)
    wait_for(process, lambda: run.snapshot > before + NUM_SAMPLES, "snapshot")
    assert time.monotonic() - noticed < 20
    wait_for(process, lambda: not find_processes_of(workers), "end of the ranks")
    reached = run.position
    wait_for(process, lambda: run.position > reached + BATCH, "steps")
    print(f"MEASURED notice: {time.monotonic() - noticed:.1f} s to new steps, load {os.getloadavg()[0]:.1f}")
    stop(process, run)
    redone = sum(read_ledger(run.run_dir / "ledger")["redone"].to_pylist())
    assert 0 < redone < reached - before  # what the snapshots of the notice have saved is not taken again


def find_processes_of(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_full_disk_of_ray_trains_own_files_is_known_for_what_it_is() -> None:
    """In the words that Ray makes of it, too; a refusal of a rank comes back as the error that it was."""
    full = OSError(errno.ENOSPC, "No space left on device")
    assert is_full_disk(WorkerGroupError("", {0: RuntimeError("Connection reset by peer"), 1: full}))
    assert is_full_disk(ControllerError(RuntimeError("OSError: [Errno 28] No space left on device: '/runs/ray'")))
    assert not is_full_disk(WorkerGroupError("", {0: RayActorError()}))
    refusal = read_refusal("refused:a shard: damaged")
    assert isinstance(refusal, ShardError)
    assert str(refusal) == "a shard: damaged"
    assert read_refusal("interrupted") is read_refusal(None) is None


def test_death_of_a_worker_is_told_in_a_sentence_whichever_way_ray_train_met_it(dataset_path: Path) -> None:
    """Which way depends on the moment: the death may come first, or the polling that it ends."""
    recipe = load_recipe("smoke", [f"data={dataset_path}", "ray.max_failures=2"])
    for death in (RayActorError(), WorkerHealthCheckFailedError("A worker health check failed.", RayActorError())):
        told = _explain(WorkerGroupError("", {0: RuntimeError("Connection reset by peer"), 1: death}), recipe)
        assert str(told).startswith("a worker or its node was lost more than ray.max_failures=2 times")
    fault = WorkerGroupError("", {0: RuntimeError("Connection reset by peer")})
    assert _explain(fault, recipe) is fault
