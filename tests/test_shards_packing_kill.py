"""SIGKILL at random moments of a parallel pack, again and again, until one run gets through."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.dataset.dataset import open_dataset
from shards.dataset.verify import verify_dataset
from shards.errors import ShardError, UsageError

ROOT = Path(__file__).parent.parent


def make_folder(root: Path, per_class: int) -> Path:
    for place, name in enumerate(("ant", "bee", "蜂")):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.random.default_rng((place, number)).integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}.{number}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("kill") / "pictures", 200)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "shards", "pack", str(folder), str(out), "--shard-bytes", "20000", *more]


def run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def unstopped(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("unstopped") / "dataset"
    run(command(folder, out))
    return digests(out)


def is_dataset(out: Path) -> bool:
    try:
        open_dataset(out)
    except (UsageError, ShardError):
        return False
    return True


def kill_once(arguments: list[str], out: Path, more_files: int) -> bool:
    """Run the command, and kill it when `more_files` files have come into `out`; return whether it was still alive."""
    target = count_files(out) + more_files
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and count_files(out) < target:
            time.sleep(0.001)
        alive = process.poll() is None
        process.kill()
    return alive


def count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def kill_until_done(arguments: list[str], out: Path, moments: list[int]) -> int:
    """Kill the command at each moment, then let it through; return how often it was killed alive."""
    kills = 0
    for moment in moments:
        kills += kill_once(arguments, out, moment)
        # The manifest is the last file: either there is no dataset, or a whole one.
        if is_dataset(out):
            verify_dataset(out)
    run(arguments)
    return kills


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_pack_killed_at_random_moments_ends_in_the_same_bytes(
    folder: Path, unstopped: dict[str, str], tmp_path: Path, workers: str
) -> None:
    rng = random.SystemRandom()
    moments = [rng.randrange(1, 30) for _ in range(2)]
    out = tmp_path / "out"
    kills = kill_until_done(command(folder, out, "--workers", workers), out, moments)
    assert digests(out) == unstopped, f"killed after {moments} files"
    assert kills > 0, f"too fast to be killed after {moments} files"


@pytest.mark.slow
def test_pack_killed_many_times_ends_in_the_same_bytes(folder: Path, unstopped: dict[str, str], tmp_path: Path) -> None:
    rng = random.SystemRandom()
    for attempt in range(12):
        moments = [rng.randrange(1, 40) for _ in range(5)]
        out = tmp_path / f"out{attempt}"
        kill_until_done(command(folder, out, "--workers", rng.choice("123")), out, moments)
        assert digests(out) == unstopped, f"killed after {moments} files"


@pytest.mark.slow
def test_update_killed_at_random_moments_leaves_the_old_dataset_whole(folder: Path, tmp_path: Path) -> None:
    first, whole, out = tmp_path / "first", tmp_path / "whole", tmp_path / "out"
    make_folder(first, 60)
    update = ["--split", "none", "--update"]
    run(command(first, whole, "--split", "none"))
    shutil.copytree(whole, out)
    run(command(folder, whole, *update))
    rng = random.SystemRandom()
    moments = [rng.randrange(1, 30) for _ in range(2)]
    for moment in moments:
        kill_once(command(folder, out, *update), out, moment)
        verify_dataset(out)  # the old one or the new one, and whole
    run(command(folder, out, *update))
    assert digests(out) == digests(whole), f"killed after {moments} files"
