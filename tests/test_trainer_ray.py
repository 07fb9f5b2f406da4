"""Whatever Ray loses, a run goes on from its last snapshot, and every sample is seen once an epoch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ray_nodes import Nodes, run_nodes
from safetensors.torch import load_file
from torch import Tensor

from trainer.record.ledger import read_ledger, read_position
from trainer.run_dir import RESULT

ROOT = Path(__file__).parent.parent
NUM_SAMPLES, BATCH = 72, 8
WAIT_S = 280


class Run:
    """A run of the command line on a Ray cluster."""

    def __init__(self, data: Path, root: Path, address: str, name: str, *options: str) -> None:
        self.run_dir, self.address = root / name, address
        fixed = [f"data={data}", f"storage.root={root}", f"name={name}", "launch=ray", "track.wandb=disabled"]
        model = ["model=timm/test_efficientnet_gn", f"batch_size_global={BATCH}", "dtype=float64", "stream.lanes=3"]
        rest = ["augment.crop=random", "evaluate_on=[]", "ledger=true", "workers=1", "snapshot.every_s=0.5"]
        self.command = [sys.executable, "-m", "trainer.run", "smoke", *fixed, *model, *rest, *options]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "RAY_ADDRESS": self.address}
        return subprocess.Popen(self.command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    @property
    def position(self) -> int:
        return read_position(self.run_dir / "ledger")

    @property
    def snapshot(self) -> int:
        names = (path.name for path in self.run_dir.glob("snapshots/*"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    @property
    def num_ranks(self) -> int:
        """Of the newest rows of the ledger."""
        files = [path.stem.split("-") for path in self.run_dir.glob("ledger/rank-*.parquet")]
        newest = max((int(to) for *_, to in files), default=0)
        return len({rank for _, rank, _, to in files if int(to) == newest})


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not ready():
        assert process.poll() is None, (process.communicate()[1] or "")[-3000:]
        assert time.monotonic() < until, f"no {what} within {WAIT_S} s"
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors[-3000:]


def find_processes(address: str, *names: bytes) -> list[int]:
    """The ids of a cluster's processes whose title holds one of `names`."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and any(name in (path / "cmdline").read_bytes() for name in names):
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                if f"gcs-address={address}".encode() in Path(f"/proc/{parent}/cmdline").read_bytes().replace(b"_", b"-"):
                    found.append(int(path.name))
    return found


def is_exact(run: Run, epochs: int) -> bool:
    """Whether the steps that led to the weights hold every sample once in each of `epochs`."""
    table = read_ledger(run.run_dir / "ledger")
    seen = list(zip(table["epoch"].to_pylist(), table["sample_id"].to_pylist(), strict=True))
    return sorted(seen) == [(epoch, number) for epoch in range(epochs) for number in range(NUM_SAMPLES)]
