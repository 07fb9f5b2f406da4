"""What survives what on machines without a shared disk, and in how many seconds: the table of docs/cluster.md."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fleet import Fleet, Machine, needs_fleet, run_fleet
from object_stores import SeaweedFS, run_seaweedfs, upload

from shards.dataset.dataset import open_dataset
from shards.storage.storage import open_storage
from trainer.record.ledger import read_ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_fleet]
WAIT_S = 240.0
_WIDTH = re.compile(r"M parameters\) on (?:(\d+) ranks, )?CPU")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A head without CPUs, which forgets nothing when it is restarted, and two machines of one CPU each."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here, which a head needs that forgets nothing")
    with run_fleet((0, 1, 1), redis=True) as machines:
        yield machines


@pytest.fixture(scope="module")
def store(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    with run_seaweedfs(tmp_path_factory.mktemp("s3"), *keys, ip=fleet.host) as running:
        yield running


@pytest.fixture(scope="module")
def data(fleet: Fleet, store: SeaweedFS, pictures: Path) -> str:
    """A dataset in the store, packed by the machines."""
    uri = store.s3.format(path="cells")
    words = ["shards", "pack", str(pictures), uri, "--on", "ray", "--workers", "2", "--shard-bytes", "40000"]
    done = submit(fleet, "pack", "--follow", "--", *words)
    assert "audited: 0 leaks" in done
    return uri


def submit(fleet: Fleet, name: str, *words: str, code: int = 0) -> str:
    done = fleet.call("cluster.submit", "--python", sys.executable, "--name", name, *words)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def describe_run(data: str, store: SeaweedFS, name: str, *options: str) -> list[str]:
    fixed = ["smoke", f"data={data}", f"storage.root={store.s3.format(path='runs')}", f"name={name}", "ledger=true"]
    rest = ["track.wandb=disabled", "launch=ray", "evaluate_on=[]", "workers=1", "snapshot.every_s=1"]
    return ["trainer.run", *fixed, *rest, *options]


def wait_for(ready: Callable[[], bool], what: str) -> float:
    """Return the seconds until it is so."""
    begun = time.monotonic()
    while not ready():
        assert time.monotonic() - begun < WAIT_S, f"no {what} within {WAIT_S:g} s"
        time.sleep(0.3)
    return time.monotonic() - begun


def read_job_log(fleet: Fleet, name: str) -> str:
    answer = httpx.get(f"{fleet.jobs}/api/jobs/{name}/logs", headers={"Authorization": f"Bearer {fleet.token}"})
    return str(answer.json()["logs"])


def read_widths(fleet: Fleet, name: str) -> list[int]:
    """Return the number of ranks of each start of a run's ranks."""
    return [int(found[1] or 1) for found in _WIDTH.finditer(read_job_log(fleet, name))]


def steps_are_taken(fleet: Fleet, name: str, width: int) -> bool:
    """Say whether the newest start has so many ranks and has finished an epoch."""
    log = read_job_log(fleet, name)
    starts = list(_WIDTH.finditer(log))
    return bool(starts) and int(starts[-1][1] or 1) == width and " epoch " in log[starts[-1].end() :].partition("\n")[2]


def check_ledger(store: SeaweedFS, name: str, data: str, folder: Path) -> None:
    """Check that the ledger in the store has every sample once in each epoch that was finished."""
    there = open_storage(store.s3.format(path=f"runs/{name}"))
    for each in there.sizes():
        if each.startswith("ledger/"):
            (folder / each).parent.mkdir(parents=True, exist_ok=True)
            (folder / each).write_bytes(there.read(each))
    table = read_ledger(folder / "ledger")
    seen = Counter(zip(table["epoch"].to_pylist(), table["sample_id"].to_pylist(), strict=True))
    assert [each for each, times in seen.items() if times > 1] == [], sorted(there.sizes())
    whole = len(seen) // (count := open_dataset(data).split("train").num_samples)
    assert whole > 0
    missing = {(epoch, number) for epoch in range(whole) for number in range(count)} - set(seen)
    assert missing == set(), sorted(there.sizes())


def report(what: str, seconds: float) -> None:
    print(f"MEASURED {what}: {seconds:.0f} s, load {os.getloadavg()[0]:.1f}")


def test_machines_without_a_shared_disk_pack_and_train(
    fleet: Fleet, store: SeaweedFS, data: str, tmp_path: Path
) -> None:
    run = describe_run(data, store, "plain", "num_ranks=2", "epochs=2", "evaluate_on=[val]")
    said = submit(fleet, "plain", "--follow", "--", *run)
    assert "on 2 ranks, CPU" in said
    check_ledger(store, "plain", data, tmp_path)
    assert "bundle/bundle.json" in open_storage(store.s3.format(path="runs/plain")).sizes()


def test_ranks_leave_a_machine_whose_cable_was_pulled_and_come_back_to_it(
    fleet: Fleet, store: SeaweedFS, data: str, tmp_path: Path
) -> None:
    far = fleet.machines[2]
    run = describe_run(data, store, "cut", "num_ranks=1..2", "epochs=100000", "ray.resize_s=5", "stop.min_delta=1")
    submit(fleet, "cut", "--", *run)
    wait_for(lambda: steps_are_taken(fleet, "cut", 2), "two ranks")
    far.pull()
    report("cable pulled until steps of one rank", wait_for(lambda: steps_are_taken(fleet, "cut", 1), "one rank"))
    far.plug()
    far.kill()  # Ray ends a node that was given up; what keeps machines up starts it again
    far.start()
    report("machine back until steps of two ranks", wait_for(lambda: steps_are_taken(fleet, "cut", 2), "two ranks"))
    stopped = fleet.call("cluster.stop", "cut")
    assert "has ended: stopped" in stopped.stdout, stopped.stderr
    assert read_widths(fleet, "cut")[0] == 2
    assert read_widths(fleet, "cut")[-1] == 2
    assert 1 in read_widths(fleet, "cut")
    check_ledger(store, "cut", data, tmp_path)


def test_run_whose_head_had_a_power_cut_is_resumed_by_the_same_command(
    fleet: Fleet, store: SeaweedFS, data: str, tmp_path: Path
) -> None:
    run = describe_run(data, store, "dark", "num_ranks=2", "epochs=120", "stop.min_delta=1", "stop.patience=1000")
    submit(fleet, "dark", "--", *run)
    wait_for(lambda: steps_are_taken(fleet, "dark", 2), "two ranks")
    power_cut(fleet.head)
    report("head back until it knows its machines", fleet.wait_for_nodes(3))
    begun = time.monotonic()
    said = submit(fleet, "light", "--follow", "--", *run)
    assert "(goes on)" in said
    report("the rest of the run", time.monotonic() - begun)
    check_ledger(store, "dark", data, tmp_path)


def power_cut(machine: Machine, seconds: float = 5.0) -> None:
    machine.kill()
    time.sleep(seconds)
    machine.start()


class Load:
    """Asks the endpoint on two machines in turn, without retries, and counts what is lost."""

    def __init__(self, urls: list[str], picture: bytes) -> None:
        self.urls, self._picture = urls, picture
        self.answered: dict[str, int] = dict.fromkeys(urls, 0)
        self.lost: dict[str, list[float]] = {url: [] for url in urls}
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for url in urls]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url: str) -> None:
        while not self._ends.is_set():
            try:
                answer = httpx.post(f"{url}/v1/predict", content=self._picture, timeout=10)
                good = answer.status_code == 200
            except httpx.HTTPError:
                good = False
            if good:
                self.answered[url] += 1
            else:
                self.lost[url].append(time.monotonic())
            time.sleep(0.05)


@pytest.fixture
def endpoint(fleet: Fleet, store: SeaweedFS, bundle_path: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of an endpoint with a replica and a proxy on each machine, as `serve deploy` makes it.

    Its bundle is in the store, and each machine has its own copy.
    """
    location = store.s3.format(path="served/bundle")
    upload(bundle_path, location)
    serve = str(Path(sys.executable).with_name("serve"))
    config = tmp_path / "serve.yaml"
    config.write_text(
        "proxy_location: EveryNode\n"
        "http_options: {host: 0.0.0.0, port: 8000}\n"
        "applications:\n"
        "- name: shardline\n"
        "  route_prefix: /\n"
        "  import_path: cluster.serve.app:build\n"
        f"  args: {{bundle: '{location}', replicas: 2}}\n"
    )
    variables = {**os.environ, **fleet.environment}
    variables.pop("RAY_ADDRESS", None)
    subprocess.run([serve, "deploy", "-a", fleet.jobs, str(config)], env=variables, check=True, capture_output=True)
    urls = [f"http://{machine.address}:8000" for machine in fleet.machines[1:]]
    for url in urls:
        wait_for(lambda url=url: answers(url), f"answer of {url}")  # type: ignore[misc]
    yield urls
    with contextlib.suppress(subprocess.CalledProcessError):
        command = [serve, "shutdown", "-y", "-a", fleet.jobs]
        subprocess.run(command, env=variables, check=True, capture_output=True)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_endpoint_answers_on_while_its_head_has_a_power_cut(fleet: Fleet, endpoint: list[str], pictures: Path) -> None:
    picture = next((pictures / "test").rglob("*.jpg")).read_bytes()
    with Load(endpoint, picture) as load:
        time.sleep(3)
        fleet.head.kill()
        time.sleep(10)
        before = dict(load.answered)
        time.sleep(3)
        assert all(load.answered[url] > before[url] for url in endpoint)  # without a head
        fleet.head.start()
        report("head back under an endpoint", fleet.wait_for_nodes(3))
        time.sleep(5)
    assert sum(map(len, load.lost.values())) == 0, load.lost
    status = submit(fleet, "status", "--follow", "--", "cluster.status")
    assert status.count("running, answers with") == 2


def test_endpoint_loses_what_was_in_flight_to_a_machine_that_is_switched_off_and_recovers(
    fleet: Fleet, endpoint: list[str], pictures: Path
) -> None:
    picture = next((pictures / "test").rglob("*.jpg")).read_bytes()
    near = endpoint[0]
    with Load([near], picture) as load:
        time.sleep(3)
        fleet.machines[2].kill()
        cut = time.monotonic()
        fleet.wait_for_nodes(2)
        time.sleep(15)
        lost = [moment - cut for moment in load.lost[near]]
        fleet.machines[2].start()
        fleet.wait_for_nodes(3)
        report("machine back until its replica answers", wait_for(lambda: answers(endpoint[1]), "answer"))
    print(
        f"MEASURED lost {len(lost)} of {load.answered[near] + len(lost)}, the last after {max(lost, default=0):.1f} s"
    )
    assert len(lost) <= 5
    assert max(lost, default=0.0) < 20
