"""`ray job submit` as the README has it: a head with a token, and the code carried by --working-dir."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from heads import RAY, run_head

from shards.dataset.dataset import open_dataset
from trainer.record.ledger import read_ledger
from trainer.record.run_folder import RunFolder

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_submitted_run_trains_on_the_cluster_and_sees_every_sample_once(dataset_path: Path, tmp_path: Path) -> None:
    run = ["smoke", f"data={dataset_path}", f"storage.root={tmp_path}", "name=job", "launch=ray", "num_ranks=2"]
    run += ["epochs=2", "ledger=true", "track.wandb=disabled"]
    code = tmp_path / "code"  # what is tracked: the working folder may hold data and runs
    subprocess.run(["git", "clone", "-q", str(ROOT), str(code)], check=True)
    with run_head() as head:
        command = [RAY, "job", "submit", "--address", head.address, "--working-dir", str(code), "--", sys.executable]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | head.environment
        done = subprocess.run(
            [*command, "-m", "trainer.run", *run], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "test: accuracy" in done.stdout
    assert RunFolder(tmp_path / "job").is_finished
    table, samples = read_ledger(tmp_path / "job/ledger"), open_dataset(dataset_path).split("train").num_samples
    assert sorted(table["sample_id"].to_pylist()) == sorted(list(range(samples)) * 2)
    assert set(table["rank"].to_pylist()) == {0, 1}
