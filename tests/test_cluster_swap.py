"""Another bundle takes over under load: no request is lost, no answer is mixed, and a bad bundle changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from endpoints import OPTIONS
from ray import serve

import cluster.promote.__main__ as promote_command
import cluster.rollback.__main__ as rollback_command
import cluster.status.__main__ as status_command
from cluster.client import Client
from cluster.serve import endpoint
from cluster.serve.metrics import METRICS
from cluster.serve.options import read_options
from cluster.swap import swap
from cluster.swap.service import Service
from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from shards.workers.ray_private import list_serve_replicas
from tests.conftest import make_bundle
from trainer.contract.bundle import Bundle
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.probes import TENSORS

NAME = "swapped"
TAGS = {tag for metric in METRICS for tag in metric.tags} - {"endpoint"}


@pytest.fixture(scope="module")
def better_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same classes with other weights and another size of input."""
    folder = tmp_path_factory.mktemp("better") / "bundle"
    return make_bundle(folder, pictures, "shufflenet_v2_x0_5", PreprocessSpec(size=48), seed=1)


@pytest.fixture(scope="module")
def url(endpoint_url: str, bundle_path: Path) -> Iterator[str]:
    """An endpoint of two replicas, beside the session's in the same Ray Serve."""
    options = read_options({"bundle": bundle_path, "replicas": 2, **OPTIONS})
    port = int(endpoint_url.rpartition(":")[2])
    endpoint.deploy(options, "127.0.0.1", port, name=NAME, route="/swapped")
    yield f"{endpoint_url}/swapped"
    endpoint.remove(everything=False, name=NAME)


@pytest.fixture
def service(url: str, bundle_path: Path) -> Iterator[Service]:
    service = Service(NAME)
    yield service
    back = service.rollout.model_copy(update={"bundle": str(bundle_path), "beside": None, "share": 0, "shadow": False})
    service.follow(back, 60)


class Load:
    """Requests from several threads without a pause; every answer is kept with the times of its request."""

    def __init__(self, url: str, picture: bytes) -> None:
        self._url, self._picture = url, picture
        self._stop = threading.Event()
        self.answers: list[tuple[float, float, dict[str, Any]]] = []
        self.failures: list[str] = []

    @contextmanager
    def running(self, threads: int = 4) -> Iterator[Load]:
        workers = [threading.Thread(target=self._ask) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield self
        finally:
            self._stop.set()
            for worker in workers:
                worker.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                response = client.post(f"{self._url}/v1/predict", content=self._picture)
                if response.status_code == 200:
                    self.answers.append((began, time.monotonic(), response.json()))
                else:
                    self.failures.append(response.text)


def find_bundle_of(answer: dict[str, Any], bundles: list[Bundle], logits: dict[str, list[float]]) -> str:
    """Return the fingerprint that an answer gives, after checking that its logits are of that bundle."""
    name = str(answer["bundle"])
    assert answer["logits"] == pytest.approx(logits[name], rel=1e-3, abs=1e-4)
    return name


def test_a_promotion_and_a_rollback_under_load_lose_no_request_and_mix_no_answer(
    service: Service, url: str, bundle_path: Path, better_path: Path, pictures: Path
) -> None:
    data = next((pictures / "test" / "red").iterdir()).read_bytes()
    bundles = [Bundle.load(bundle_path), Bundle.load(better_path)]
    old, new = (each.page.fingerprint() for each in bundles)
    logits = {each.page.fingerprint(): each.compute_logits(each.prepare(data)[None])[0].tolist() for each in bundles}
    assert logits[old] != pytest.approx(logits[new], rel=1e-2)
    with Load(url, data).running() as load:
        time.sleep(1)
        swap.promote(service, swap.PromoteOptions(bundle=better_path))
        promoted = time.monotonic()
        time.sleep(1)
        returning = time.monotonic()
        swap.roll_back(service)
        back = time.monotonic()
        time.sleep(1)
    assert load.failures == []
    named = [(began, find_bundle_of(answer, bundles, logits)) for began, _, answer in load.answers]
    assert {name for began, name in named if promoted < began < returning} == {new}
    assert {name for began, name in named if began > back} == {old}
    assert {name for began, name in named if began < promoted} >= {old}
    assert service.rollout.beside == str(better_path)  # kept loaded, to go forward again


def test_a_canary_gets_its_share_and_a_client_key_always_gets_the_same_bundle(
    service: Service, url: str, better_path: Path, pictures: Path
) -> None:
    data = next((pictures / "test" / "blue").iterdir()).read_bytes()
    new = Bundle.load(better_path).page.fingerprint()
    swap.promote(service, swap.PromoteOptions(bundle=better_path, canary=0.3))
    with httpx.Client(base_url=url, timeout=60) as http:
        asked = [http.post("/v1/predict", content=data).json()["bundle"] for _ in range(150)]
        # 45 expected; five standard deviations of the binomial either way.
        assert 17 <= Counter(asked)[new] <= 73
        by_key = {}
        for number in range(20):
            headers = {"x-client-key": f"client {number}"}
            answers = {http.post("/v1/predict", content=data, headers=headers).json()["bundle"] for _ in range(4)}
            assert len(answers) == 1
            by_key[number] = answers.pop()
        assert len(set(by_key.values())) == 2
        swap.roll_back(service)
        assert service.rollout.beside is None
        assert http.post("/v1/predict", content=data, headers={"x-client-key": "client 1"}).json()["bundle"] != new


def test_a_shadow_answers_nothing_and_its_agreement_is_counted(
    service: Service, url: str, bundle_path: Path, better_path: Path, pictures: Path
) -> None:
    old, new = Bundle.load(bundle_path), Bundle.load(better_path)
    files = sorted((pictures / "test").glob("*/*"))
    swap.promote(service, swap.PromoteOptions(bundle=better_path, shadow=True))
    agreed = 0
    with httpx.Client(base_url=url, timeout=60) as http:
        for path in files:
            answer = http.post("/v1/predict", content=path.read_bytes()).json()
            assert answer["bundle"] == old.page.fingerprint()
            agreed += answer["label"] == new.predict(path).label
        counts = read_all_stats(http, len(files), "compared")
    assert (counts["compared"], counts["agreed"]) == (len(files), agreed)


def read_all_stats(http: httpx.Client, wanted: int, name: str) -> Counter[str]:
    """Return the counts of both replicas, once `name` has reached `wanted`."""
    by_replica: dict[str, dict[str, int]] = {}
    until = time.monotonic() + 30
    while len(by_replica) < 2 or sum(each[name] for each in by_replica.values()) < wanted:
        assert time.monotonic() < until, by_replica
        stats = http.get("/v1/stats").json()
        by_replica[stats.pop("replica")] = stats
    return sum((Counter(each) for each in by_replica.values()), Counter())


def test_metrics_of_all_replicas_are_served_by_rays_agent(service: Service, url: str, pictures: Path) -> None:
    files = sorted((pictures / "test").glob("*/*"))
    time.sleep(3)  # replicas report every second, agents collect it: what other tests did has arrived
    before = read_metrics(service)
    with httpx.Client(base_url=url, timeout=60) as http:
        labels = Counter(http.post("/v1/predict", content=path.read_bytes()).json()["label"] for path in files)
        http.post("/v1/predict", content=files[0].read_bytes()[:99])
    until = time.monotonic() + 30
    while (now := read_metrics(service) - before)["shardline_pictures_total"] < len(files):
        assert time.monotonic() < until, now
        time.sleep(0.5)
    assert now["shardline_pictures_total"] == len(files)
    assert now["shardline_refused_pictures_total"] == 1
    assert {name: now[f"shardline_labels_total label={name}"] for name in labels} == labels
    for stage in ("queue", "decode", "model"):
        assert now[f"shardline_stage_ms_count stage={stage}"] == len(files)
    assert now["shardline_requests_total outcome=ok page=/v1/predict"] == len(files)
    assert now["shardline_requests_total outcome=picture-refused page=/v1/predict"] == 1
    assert now["shardline_batch_size_sum"] == len(files)
    assert now["shardline_request_ms_count page=/v1/predict"] == len(files) + 1


def read_metrics(service: Service) -> Counter[str]:
    """Return the metrics of the endpoint's replicas, summed over them, by name, and by name and tags."""
    found: Counter[str] = Counter()
    for address in service.list_metrics():
        for line in httpx.get(address).text.splitlines():
            if match := re.fullmatch(r"ray_(shardline_\w+){(.*)} ([\d.e+]+)", line):
                tags = [(key, value) for key, value in re.findall(r'(\w+)="([^"]*)"', match[2]) if key in TAGS]
                if f'endpoint="{NAME}"' in match[2]:
                    found[match[1]] += float(match[3])
                    found[" ".join([match[1], *(f"{key}={value}" for key, value in sorted(tags))])] += float(match[3])
    return found


def damage(bundle_path: Path, folder: Path) -> Path:
    """Return a copy whose probes were recorded by other weights: intact by its hashes, but not reproducible."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(bundle_path, folder))
    path = copy / "probes" / TENSORS
    tensors = load_file(path)
    tensors["logits"] = tensors["logits"] + 1
    save_file(tensors, path)
    return copy


def test_a_bundle_that_does_not_reproduce_its_probes_changes_nothing(
    service: Service, url: str, bundle_path: Path, better_path: Path, pictures: Path, tmp_path: Path
) -> None:
    before = service.rollout
    data = next((pictures / "test" / "green").iterdir()).read_bytes()
    with Load(url, data).running(2) as load:
        with pytest.raises(ShardError, match=r"a replica refuses it, and all stay with .*: the model's logits differ"):
            swap.promote(service, swap.PromoteOptions(bundle=damage(better_path, tmp_path / "bad")))
        time.sleep(0.5)
    assert service.rollout == before
    assert load.failures == []
    assert {answer["bundle"] for *_, answer in load.answers} == {Bundle.load(bundle_path).page.fingerprint()}


def test_bundles_that_cannot_take_over_are_refused(
    service: Service, bundle_path: Path, better_path: Path, exported_path: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(better_path, tmp_path / "other"))
    page = json.loads((other / "bundle.json").read_bytes())
    page["classes"] = page["display_names"] = ["cat", "dog", "owl"]
    (other / "bundle.json").write_text(json.dumps(page))
    with pytest.raises(UsageError, match=r"has the classes cat, dog, owl, the bundle in use has blue, green, red"):
        swap.promote(service, swap.PromoteOptions(bundle=other))
    with pytest.raises(UsageError, match="is the bundle in use"):
        swap.promote(service, swap.PromoteOptions(bundle=bundle_path))
    with pytest.raises(UsageError, match="does not exist"):
        swap.promote(service, swap.PromoteOptions(bundle=tmp_path / "none"))
    with pytest.raises(UsageError, match="is the only one that was served"):
        swap.roll_back(service)
    swap.promote(service, swap.PromoteOptions(bundle=other, force=True))
    assert service.rollout.bundle == str(other)


def test_the_commands_say_what_is_in_force(
    service: Service, better_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("cluster.swap.service.Service.join", lambda _address: Service(NAME))
    assert run_command(promote_command.main, [str(better_path)]) == 0
    kept = f"{bundle_path} is kept loaded for `python -m cluster.rollback`"
    assert capsys.readouterr().out == f"{better_path} answers\n{kept}\n"
    assert run_command(status_command.main, []) == 0
    fingerprint = Bundle.load(better_path).page.fingerprint()
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[0]) == (5, f"{better_path} answers")
    assert all(line.endswith(f": running, answers with {fingerprint[:12]}") for line in lines[2:4])
    assert run_command(rollback_command.main, ["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(bundle_path)
    assert run_command(promote_command.main, [str(better_path), "--canary", "0.1", "--shadow"]) == 2
    assert "as canary or as shadow, not as both" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_replica_costs_requests_in_flight_alone_and_retries_make_them_good(
    service: Service, url: str, better_path: Path, bundle_path: Path, pictures: Path
) -> None:
    """The replica that takes its place has the bundle that was promoted, not the one of the deployment."""
    data = next((pictures / "test" / "red").iterdir()).read_bytes()
    swap.promote(service, swap.PromoteOptions(bundle=better_path))
    new = Bundle.load(better_path).page.fingerprint()
    lost: list[Exception] = []
    bundles: set[str] = set()
    stop = threading.Event()

    def ask() -> None:
        with Client(url, retries=8) as client:
            while not stop.is_set():
                try:
                    bundles.add(client.predict(data)["bundle"])
                except Exception as err:  # counted below
                    lost.append(err)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    victim = list_serve_replicas(NAME, "Replica")[0]
    os.kill(int(victim["pid"]), signal.SIGKILL)
    until = time.monotonic() + 120
    while victim["id"] in (states := {each.name: each.state for each in service.list_replicas()}) or len(states) < 2:
        assert time.monotonic() < until, states
        time.sleep(0.2)
    while not all(each.state == "RUNNING" and each.report for each in service.list_replicas()):
        assert time.monotonic() < until
        time.sleep(0.2)
    time.sleep(2)
    stop.set()
    for asker in askers:
        asker.join()
    assert lost == []
    assert bundles == {new}
    assert {each.report.bundle for each in service.list_replicas() if each.report} == {new}


def test_an_application_that_was_removed_stays_so_when_another_one_changes(
    service: Service, endpoint_url: str, bundle_path: Path
) -> None:
    options, port = read_options({"bundle": bundle_path, **OPTIONS}), int(endpoint_url.rpartition(":")[2])
    endpoint.deploy(options, "127.0.0.1", port, name="removed", route="/removed")
    assert "removed" in serve.status().applications
    endpoint.remove(everything=False, name="removed")
    service.follow(service.rollout, 60)
    assert set(serve.status().applications) >= {NAME}
    assert "removed" not in serve.status().applications


def test_a_cluster_without_an_endpoint_is_named(endpoint_url: str) -> None:
    with pytest.raises(UsageError, match="has no endpoint 'elsewhere'"):
        Service("elsewhere")
