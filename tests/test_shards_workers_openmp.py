"""How OpenMP's threads wait, and the CPUs that a process may use."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shards.workers.openmp import SPINS, count_cpus, limit_spinning

ROOT = Path(__file__).parents[1]
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


@pytest.mark.parametrize("module", ["trainer.contract.model.backbone", "cluster.serve.predictor"])
def test_openmp_is_loaded_with_few_spins_whichever_module_comes_first(module: str) -> None:
    """OpenMP itself prints what it has read: a variable that is set too late would not be in it."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}, torch"],
        cwd=ROOT, env=kept | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = {line.strip() for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line}
    assert shown == {f"GOMP_SPINCOUNT = '{SPINS}'"}
    assert "torch was imported" not in done.stderr


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    limit_spinning()
    assert dict(os.environ) == before


def test_torch_that_was_loaded_before_is_met_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    assert "torch" in sys.modules  # of conftest.py
    with caplog.at_level(logging.WARNING, "shards"):
        limit_spinning()
    assert f"set GOMP_SPINCOUNT={SPINS} before Python starts" in caplog.text


QUOTAS = [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 1), ("200000 100000", 2)]


@pytest.mark.parametrize(("quota", "expected"), QUOTAS)
def test_a_containers_quota_limits_the_cpus(quota: str, expected: int | None, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota + "\n")
    allowed = len(os.sched_getaffinity(0))
    assert count_cpus(path) == (allowed if expected is None else min(allowed, expected))


def test_cpus_are_those_that_the_process_may_run_on(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert count_cpus(tmp_path / "no-group") == 1
    finally:
        os.sched_setaffinity(0, allowed)
