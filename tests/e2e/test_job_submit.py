"""`ray job submit` as the README has it: a head with a token, and the code carried by --working-dir."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import free_ports

from shards.dataset.dataset import open_dataset
from trainer.record.ledger import read_ledger
from trainer.record.run_folder import RunFolder

ROOT = Path(__file__).parent.parent.parent
RAY = str(Path(sys.executable).parent / "ray")
START_S = 90.0


def is_up(page: str) -> bool:
    try:
        urllib.request.urlopen(page, timeout=5).close()
    except urllib.error.HTTPError:  # it asks for the token
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address for jobs of a head of its own: the `ray_cluster` of the other tests takes no jobs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets have their names in it
    port, jobs_port = free_ports(2)
    options = [f"--port={port}", f"--dashboard-port={jobs_port}", "--num-cpus=4", f"--temp-dir={folder}"]
    process = subprocess.Popen([RAY, "start", "--head", "--block", "--disable-usage-stats", *options])
    address = f"http://127.0.0.1:{jobs_port}"
    try:
        until = time.monotonic() + START_S
        while not is_up(f"{address}/api/version"):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_submitted_run_trains_on_the_cluster_and_sees_every_sample_once(
    head: str, dataset_path: Path, tmp_path: Path
) -> None:
    run = ["smoke", f"data={dataset_path}", f"storage.root={tmp_path}", "name=job", "launch=ray", "num_ranks=2"]
    run += ["epochs=2", "ledger=true", "track.wandb=disabled"]
    code = tmp_path / "code"  # what is tracked: the working folder may hold data and runs
    subprocess.run(["git", "clone", "-q", str(ROOT), str(code)], check=True)
    command = [RAY, "job", "submit", "--address", head, "--working-dir", str(code), "--", sys.executable]
    done = subprocess.run([*command, "-m", "trainer.run", *run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "test: accuracy" in done.stdout
    assert RunFolder(tmp_path / "job").is_finished
    table, samples = read_ledger(tmp_path / "job/ledger"), open_dataset(dataset_path).split("train").num_samples
    assert sorted(table["sample_id"].to_pylist()) == sorted(list(range(samples)) * 2)
    assert set(table["rank"].to_pylist()) == {0, 1}
