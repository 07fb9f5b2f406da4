"""The whole line as a user types it: pictures to answers, and the same answer at every door."""

from __future__ import annotations

import csv
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import torch
from ray import serve

from cluster.serve import endpoint
from cluster.serve.options import read_options
from shards.cli.ending import run_command
from trainer.contract.bundle import Bundle
from trainer.record.ledger import read_ledger
from trainer.record.logbook import read_metrics
from trainer.run.__main__ import main


def run(*command: str) -> str:
    """Run `python -m command...` and return what it printed."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def line(ray_cluster: str, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shards` and `runs/smoke`: packed and trained by the command line, two Ray Train workers."""
    root = tmp_path_factory.mktemp("line")
    run("shards", "pack", str(pictures), str(root / "shards"), "--shard-bytes", "40KB")
    options = [f"data={root / 'shards'}", f"storage.root={root / 'runs'}", "launch=ray", "num_ranks=2", "ledger=true"]
    command = [sys.executable, "-m", "trainer.run", "smoke", *options, "epochs=4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (root / "stderr").write_text(done.stderr)
    return root


def test_the_line_learns_what_can_be_learnt(line: Path) -> None:
    metrics = json.loads((line / "runs/smoke/evaluation/test/metrics.json").read_text())
    assert metrics["samples"] == 24
    assert metrics["accuracy"] >= 0.9


def test_rank_0_in_a_ray_worker_says_each_line_once_on_the_standard_error_of_the_command(line: Path) -> None:
    """Whatever Ray does with the output of workers: here it goes to no driver, elsewhere it gets prefixes."""
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", text) for text in (line / "stderr").read_text().splitlines()]
    losses = [f"loss {row['train/loss']:.4g}," for row in read_metrics(line / "runs/smoke")]
    told = [text for text in lines if "ranks are starting" not in text]
    assert told[:2] == [
        "starting 2 ranks on Ray",
        "smoke: training timm/test_efficientnet_gn (0.10 M parameters) on 2 ranks, CPU, 4 epochs of 72 pictures",
    ]
    assert [" ".join(text.split()[:4]) for text in told[2:6]] == [
        f"epoch {number}/4: {loss}" for number, loss in enumerate(losses, 1)
    ]
    assert told[6:] == ["writing the bundle", "evaluating on test: 24 pictures", "writing the report"]


def test_a_run_leaves_all_outputs_that_the_readme_names(line: Path) -> None:
    run_dir = line / "runs/smoke"
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {"recipe.yaml", "metrics.jsonl", "snapshots", "bundle", "evaluation", "report.html", "curves.png"}
    assert len(list(run_dir.glob("wandb/offline-run-*"))) == 1
    assert {path.name for path in (run_dir / "evaluation/test").iterdir()} == {
        "metrics.json",
        "predictions.parquet",
        "predictions.csv",
        "predictions.txt",
        "confusion.png",
        "confusion_normalised.png",
        "curves.png",
        "reliability.png",
        "thresholds.png",
    }


def test_two_ray_workers_and_one_process_see_the_same_global_batches(line: Path) -> None:
    options = [f"data={line / 'shards'}", f"storage.root={line / 'runs'}", "launch=local", "ledger=true", "epochs=4"]
    assert run_command(main, ["smoke", "name=alone", *options, "track.wandb=disabled", "workers=3"]) == 0
    columns = ["epoch", "step", "sample_id", "pixels_xxh3"]
    two = read_ledger(line / "runs/smoke/ledger")
    assert set(two["rank"].to_pylist()) == {0, 1}
    assert len(two) == 4 * 72
    assert two.select(columns).equals(read_ledger(line / "runs/alone/ledger").select(columns))


def test_evaluation_bundle_prediction_and_http_give_the_same_answer(line: Path, pictures: Path) -> None:
    run_dir = line / "runs/smoke"
    bundle = Bundle.load(run_dir / "bundle")
    evaluated = {row["path"]: row for row in pq.read_table(run_dir / "evaluation/test/predictions.parquet").to_pylist()}
    run("trainer.predict", str(run_dir / "bundle"), str(pictures / "test"), "--out", str(line / "answers.csv"))
    with open(line / "answers.csv", newline="", encoding="utf-8") as file:
        predicted = {row["path"]: row for row in csv.DictReader(file)}
    with serving(run_dir / "bundle") as http:
        for path in sorted((pictures / "test").glob("*/*"))[::3]:
            row = evaluated[path.relative_to(pictures).as_posix()]
            expected = torch.tensor([row[f"logit_{name}"] for name in bundle.page.classes])
            own = bundle.compute_logits(bundle.prepare(path.read_bytes())[None])[0]
            answer = http.post("/v1/predict", content=path.read_bytes()).json()
            tolerance = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(own, expected, rtol=0, atol=tolerance)
            torch.testing.assert_close(torch.tensor(answer["logits"]), expected, rtol=0, atol=tolerance)
            assert answer["label"] == row["prediction"] == predicted[str(path)]["label"]
            assert float(predicted[str(path)]["probability"]) == pytest.approx(answer["probability"], abs=1e-3)


@contextmanager
def serving(bundle: Path) -> Iterator[httpx.Client]:
    """A client of an endpoint in the session's cluster."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    endpoint.deploy(read_options({"bundle": bundle}), "127.0.0.1", port, name="line")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http
    finally:
        endpoint.remove(everything=False, name="line")
        serve.shutdown()


@pytest.mark.slow
def test_ctrl_c_in_a_ray_run_saves_the_state_and_the_same_command_ends_it(line: Path) -> None:
    options = [f"data={line / 'shards'}", f"storage.root={line / 'runs'}", "launch=ray", "num_ranks=2", "ledger=true"]
    options += ["name=stopped", "epochs=40", "track.wandb=disabled"]
    command = [sys.executable, "-m", "trainer.run", "smoke", *options]
    run_dir = line / "runs/stopped"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(read_metrics(run_dir)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"the state is saved in {run_dir}, and the same command resumes from it" in errors
    assert 2 <= len(read_metrics(run_dir)) < 40
    run(*command[2:])
    ledger = read_ledger(run_dir / "ledger")
    assert len(ledger) == 40 * 72
    assert len(set(zip(ledger["epoch"].to_pylist(), ledger["sample_id"].to_pylist(), strict=True))) == 40 * 72
    assert [row["epoch"] for row in read_metrics(run_dir)] == list(range(1, 41))
