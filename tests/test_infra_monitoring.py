"""Alerts and dashboards against the metrics that are there: by promtool, and on a real Prometheus of real jobs."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from in_process import command
from PIL import Image
from prometheus import MONITORING, ROOT, Prometheus, needs_prometheus, run_prometheus, run_promtool

from cluster.serve.metrics import METRICS
from cluster.swap.service import Service
from infra.monitoring.jobs import PACKING as PACKING_PANELS
from infra.monitoring.jobs import SWEEPS
from infra.monitoring.make_dashboards import DASHBOARDS, make_page, make_pages
from infra.monitoring.panel import Dashboard
from infra.monitoring.serving import SERVING
from infra.monitoring.training import TRAINING as TRAINING_PANELS
from shards.meters import textfile
from shards.packing.metrics import PACKING
from tests.conftest import train_smoke
from trainer.contract.bundle import Bundle
from trainer.record.meters import TRAINING
from tune.trials.metrics import SWEEP

TABLES = (*TRAINING, *PACKING, *SWEEP, *METRICS)
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule["alert"] for rule in RULES]
OF = {"training": TRAINING, "packing": PACKING, "sweeps": SWEEP, "serving": METRICS}
"""By dashboard, the table that its panels read."""


def list_read(query: str) -> set[str]:
    """Return the metrics of ours that a query reads, without the endings of histograms."""
    found = re.findall(r"\bshardline_\w+", query)
    return {re.sub(r"_(bucket|sum|count)$", "", name) if find_kind(name) else name for name in found}


def find_kind(name: str) -> bool:
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return any(metric.name == stem and metric.kind == "histogram" for metric in TABLES)


def list_queries(dashboard: Dashboard) -> list[str]:
    return [query for panel in dashboard.panels for query in panel.queries.values()]


def fill(query: str) -> str:
    """Return a panel's query as Grafana sends it, with all values of its variable chosen."""
    return re.sub(r'"\$\w+"', '".*"', query).replace("$__rate_interval", "5m")


@pytest.mark.parametrize("path", make_pages(), ids=lambda path: path.stem)
def test_dashboard_is_what_its_table_makes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == make_pages()[path], "run `python infra/monitoring/make_dashboards.py`"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)
def test_no_panel_covers_another(dashboard: Dashboard) -> None:
    places = [panel["gridPos"] for panel in make_page(dashboard)["panels"]]
    cells = [(x, place["y"]) for place in places for x in range(place["x"], place["x"] + place["w"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_alerts_and_panels_read_metrics_that_are_there_and_leave_none_unread() -> None:
    series = {metric.series for metric in TABLES}
    queries = [rule["expr"] for rule in RULES] + [query for each in DASHBOARDS for query in list_queries(each)]
    assert set().union(*map(list_read, queries)) == series


def test_no_two_metrics_have_the_same_name() -> None:
    assert len({metric.name for metric in TABLES}) == len(TABLES)


def test_every_alert_is_explained_to_operators() -> None:
    page = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    assert [alert for alert in ALERTS if f"`{alert}`" not in page] == []


@needs_prometheus
def test_configuration_and_rules_are_valid() -> None:
    for kind, name in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        done = run_promtool("check", kind, MONITORING / name)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_every_alert_fires_in_its_test_and_is_quiet_before() -> None:
    tests = yaml.safe_load((MONITORING / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    for test in tests:
        quiet, fires = test["alert_rule_test"]
        assert quiet["alertname"] == fires["alertname"] == test["name"]
        assert "exp_alerts" not in quiet
        assert fires["exp_alerts"]
    assert sorted(test["name"] for test in tests) == sorted(ALERTS)
    done = run_promtool("test", "rules", MONITORING / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_an_alert_that_never_fires_fails_its_test(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
    page = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in page["groups"] for rule in group["rules"]):
        rule["expr"] = "vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(page))
    done = run_promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert done.returncode == 1
    assert [alert for alert in ALERTS if f"alertname: {alert}, time:" not in done.stdout + done.stderr] == []


# On a real Prometheus


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus and the node exporter; files are written twice a second."""
    with pytest.MonkeyPatch.context() as patch, run_prometheus(tmp_path_factory.mktemp("prometheus")) as started:
        patch.setattr(textfile, "EVERY_S", 0.5)
        yield started


def check_panels(prometheus: Prometheus, dashboard: Dashboard) -> None:
    """Assert that every panel shows numbers."""
    for query in list_queries(dashboard):
        # A share of nothing is no number until the counts have been scraped twice; a comparison leaves it out.
        found = prometheus.wait_for(f"({fill(query)}) > -Inf", timeout_s=10)
        assert any(math.isfinite(each["value"]) for each in found), f"{query} gives {found}"


def check_alerts(prometheus: Prometheus, dashboard: Dashboard) -> None:
    """Assert that there are data of every metric that an alert about these jobs reads."""
    names = {metric.series for metric in OF[dashboard.name]}
    read = set().union(*(list_read(rule["expr"]) for rule in RULES)) & names
    assert read
    for name in read:
        histogram = any(metric.name == name and metric.kind == "histogram" for metric in TABLES)
        prometheus.wait_for(f"{name}_sum" if histogram else name, timeout_s=10)


@pytest.fixture(scope="module")
def trained(prometheus: Prometheus, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that Prometheus watched."""
    options = [f"track.metrics_dir={prometheus.textfiles}", "epochs=6", "name=watched"]
    return train_smoke(dataset_path, tmp_path_factory.mktemp("watched"), *options)


@needs_prometheus
def test_every_panel_and_alert_of_training_has_data_of_a_real_run(prometheus: Prometheus, trained: Path) -> None:
    check_panels(prometheus, TRAINING_PANELS)
    check_alerts(prometheus, TRAINING_PANELS)
    prometheus.wait_for('shardline_train_phase{run="watched", phase="finished"} == 1')
    (seen,) = prometheus.ask('shardline_train_pictures_total{run="watched"}')
    assert seen["value"] == 6 * 72
    (loss,) = prometheus.ask('shardline_train_loss{run="watched"}')
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert loss["value"] == last["train/loss"]


@needs_prometheus
def test_every_panel_and_alert_of_packing_has_data_of_a_real_command(
    prometheus: Prometheus, pictures: Path, tmp_path: Path
) -> None:
    words = ["--shard-bytes", "40000", "--metrics-dir", prometheus.textfiles]
    assert command("pack", pictures, tmp_path / "cells", *words).returncode == 0
    prometheus.wait_for('shardline_pack_packed_pictures{dataset="cells"}')
    check_panels(prometheus, PACKING_PANELS)
    check_alerts(prometheus, PACKING_PANELS)
    packed = prometheus.ask('sum(shardline_pack_packed_pictures{dataset="cells"})')
    written = prometheus.ask('shardline_pack_pictures_total{dataset="cells", stage="write"}')
    assert packed[0]["value"] == written[0]["value"] == 120


@needs_prometheus
def test_packing_that_is_refused_fires_its_alert(prometheus: Prometheus, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    for number in range(4):
        path = folder / f"train/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")
    assert command("pack", folder, tmp_path / "refused", "--metrics-dir", prometheus.textfiles).returncode == 3
    prometheus.wait_for_alert("ShardlinePackFailed", dataset="refused")


@pytest.mark.slow
@needs_prometheus
def test_feed_that_is_too_slow_fires_its_alert(prometheus: Prometheus, tmp_path: Path) -> None:
    """Pictures of 2 megapixels for a model of 40 pixels: nearly all of a step is waiting for them."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 12, "val": 2}.items():
        for name, colour in {"a": 60, "b": 180}.items():
            (tmp_path / "large" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(colour, 30, (200, 300, 3)).clip(0, 255).astype(np.uint8)
                picture = Image.fromarray(pixels).resize((1800, 1200))
                picture.save(tmp_path / "large" / split / name / f"{number}.jpg")
    assert command("pack", tmp_path / "large", tmp_path / "shards", "--audit", "none").returncode == 0
    slow = [f"track.metrics_dir={prometheus.textfiles}", "name=slow", "workers=0", "batch_size_global=6", "epochs=2"]
    train_smoke(tmp_path / "shards", tmp_path, *slow, "evaluate_on=[]", "image_size=40")
    prometheus.wait_for_alert("ShardlineTrainingWaits", run="slow")


@pytest.mark.slow
@needs_prometheus
def test_run_that_is_killed_and_started_again_counts_a_restart_and_fires_its_alert(
    prometheus: Prometheus, dataset_path: Path, tmp_path: Path
) -> None:
    words = [f"data={dataset_path}", f"storage.root={tmp_path}", "track.wandb=disabled", "launch=local", "name=killed"]
    words += [f"track.metrics_dir={prometheus.textfiles}", "epochs=200", "stop.patience=1000", "evaluate_on=[]"]
    run = [sys.executable, "-m", "trainer.run", "smoke", *words]
    process = subprocess.Popen(run, cwd=ROOT, stderr=subprocess.PIPE, env=os.environ | {"RAY_ADDRESS": ""})
    wait_for_a_first_count(prometheus, "killed")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert prometheus.ask('shardline_train_restarts_total{run="killed"}')[0]["value"] == 0
    assert not (tmp_path / "killed/result.json").exists()
    train_smoke(dataset_path, tmp_path, *words[2:])
    prometheus.wait_for('shardline_train_restarts_total{run="killed"} == 1')
    prometheus.wait_for_alert("ShardlineRunRestarted", run="killed")


def wait_for_a_first_count(prometheus: Prometheus, run: str) -> None:
    """Return when the alert of restarts, which looks every 15 s, has seen that a run has none yet."""
    seen = f'count_over_time(max by (run) (shardline_train_restarts_total{{run="{run}"}})[15m:15s]) > 0'
    prometheus.wait_for(seen, timeout_s=90)


@dataclass(frozen=True)
class Asked:
    """An endpoint that Prometheus watches."""

    url: str
    prometheus: Prometheus

    def send(self, data: bytes, times: int = 1) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as http:
            for _ in range(times):
                assert http.post("/v1/predict", content=data).status_code in (200, 422)


@pytest.fixture(scope="module")
def asked(endpoint_url: str, prometheus: Prometheus, pictures: Path) -> Asked:
    """The session's endpoint, which has answered a few pictures and refused one."""
    prometheus.follow(Service("tested").list_metrics())
    prometheus.wait_for('shardline_requests_total{endpoint="tested", page="/v1/predict", outcome="ok"}')
    asked = Asked(endpoint_url, prometheus)
    for path in sorted((pictures / "test").glob("*/*")):
        asked.send(path.read_bytes())
    asked.send(path.read_bytes()[:99])
    return asked


@needs_prometheus
def test_every_panel_and_alert_of_serving_has_data_of_a_real_endpoint(prometheus: Prometheus, asked: Asked) -> None:
    prometheus.wait_for('sum(shardline_pictures_total{endpoint="tested"}) >= 24')
    check_panels(prometheus, SERVING)
    check_alerts(prometheus, SERVING)


@needs_prometheus
def test_counters_of_an_endpoint_begin_at_0(prometheus: Prometheus, asked: Asked) -> None:
    for series in (
        'shardline_requests_total{page="/v1/predict", outcome="fault"}',
        'shardline_refused_pictures_total{reason="bomb"}',
        "shardline_compared_total",
    ):
        # Replicas of other tests may have counted before; that of this endpoint has begun.
        assert min(each["value"] for each in prometheus.wait_for(series)) == 0.0


def make_foreign(bundle: Bundle) -> bytes:
    """Return a chequered picture that a bundle takes for a foreign one."""
    assert bundle.page.decision.ood is not None
    for size, colour in ((8, (255, 255, 0)), (24, (255, 255, 0)), (8, (255, 255, 255)), (4, (0, 255, 255))):
        fields = np.kron(np.indices((48 // size, 48 // size)).sum(0) % 2, np.ones((size, size)))
        file = io.BytesIO()
        Image.fromarray((fields[..., None] * colour).astype(np.uint8)).save(file, "PNG")
        if (bundle.predict(file.getvalue()).ood_score or 0.0) > bundle.page.decision.ood.threshold:
            return file.getvalue()
    raise AssertionError("no picture is foreign to this bundle")


@needs_prometheus
def test_an_endpoint_that_gets_foreign_pictures_fires_its_alert(
    prometheus: Prometheus, asked: Asked, decided_path: Path
) -> None:
    asked.send(make_foreign(Bundle.load(decided_path)), times=130)
    prometheus.wait_for_alert("ShardlineEndpointForeign", endpoint="tested")


@pytest.mark.slow
@needs_prometheus
def test_an_endpoint_whose_answers_are_always_the_same_label_drifts(
    prometheus: Prometheus, asked: Asked, pictures: Path
) -> None:
    data = next((pictures / "test/red").iterdir()).read_bytes()
    asked.send(data, times=200)
    prometheus.wait_for_alert("ShardlineEndpointDrift", endpoint="tested")


def list_agents() -> list[str]:
    import ray

    return [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]]


@pytest.mark.slow
@needs_prometheus
def test_rank_on_ray_that_is_killed_counts_a_restart_and_every_panel_has_data_of_rays_agent(
    prometheus: Prometheus, ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    prometheus.follow(list_agents())
    words = [f"data={dataset_path}", f"storage.root={tmp_path}", "track.wandb=disabled", "launch=ray", "name=on-ray"]
    words += ["epochs=400", "evaluate_on=[]", "num_ranks=2", "cpus_per_rank=1", "snapshot.every_s=1"]
    run = [sys.executable, "-m", "trainer.run", "smoke", *words]
    process = subprocess.Popen(run, cwd=ROOT, stderr=subprocess.PIPE, env=os.environ | {"RAY_ADDRESS": ray_cluster})
    try:
        prometheus.wait_for('shardline_train_snapshots_total{run="on-ray"} > 0', timeout_s=250)
        ranks = prometheus.wait_for('shardline_train_wait_seconds_total{run="on-ray"}')
        assert {each["labels"]["rank"] for each in ranks} == {"0", "1"}
        wait_for_a_first_count(prometheus, "on-ray")
        victim = next(each for each in psutil.process_iter(["cmdline"]) if is_worker(each, ray_cluster))
        victim.kill()
        prometheus.wait_for('shardline_train_restarts_total{run="on-ray"} == 1', timeout_s=250)
        prometheus.wait_for_alert("ShardlineRunRestarted", run="on-ray")
        prometheus.wait_for('shardline_train_score{run="on-ray"}', timeout_s=60)
        check_panels(prometheus, TRAINING_PANELS)
        check_alerts(prometheus, TRAINING_PANELS)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=250)
    assert json.loads((tmp_path / "on-ray/starts.json").read_text()) == {"restarts": 1, "open": 0}


def is_worker(process: psutil.Process, address: str) -> bool:
    """Say whether a process is a rank on the cluster at an address."""
    try:
        is_rank = any("RayTrainWorker" in word for word in process.cmdline())
        return is_rank and f"--gcs-address={address}" in process.parent().cmdline()
    except psutil.Error:
        return False


@pytest.mark.slow
@needs_prometheus
def test_every_panel_and_alert_of_sweeps_has_data_of_a_real_sweep(
    prometheus: Prometheus, ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    prometheus.follow(list_agents())
    space = tmp_path / "space.yaml"
    space.write_text(
        yaml.safe_dump({"factors": {"rate": {"a": {"optim.peak_lr": 0.003}, "b": {"optim.peak_lr": 0.001}}}})
    )
    words = [f"data={dataset_path}", f"storage.root={tmp_path}", "name=lr", "track.wandb=disabled", "epochs=2"]
    run = [sys.executable, "-m", "tune.run", "smoke", str(space), *words, f"track.metrics_dir={prometheus.textfiles}"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"RAY_ADDRESS": ray_cluster})
    assert done.returncode == 0, done.stderr[-2000:]
    prometheus.wait_for('shardline_sweep_phase{sweep="lr", phase="finished"} == 1')
    check_panels(prometheus, SWEEPS)
    check_alerts(prometheus, SWEEPS)
    assert prometheus.ask('shardline_sweep_trials_total{sweep="lr", state="finished"}')[0]["value"] == 2
    trials = prometheus.wait_for('count by (run) (shardline_train_steps_total{run=~"rate=.*"})')
    assert {each["labels"]["run"] for each in trials} == {"rate=a-s0", "rate=b-s0"}
