"""Keys that a user gives in URIs and variables stand in nothing that a run writes or prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from object_stores import SeaweedFS

ROOT = Path(__file__).parent.parent.parent
SECRET, WANDB_KEY = os.environ["AWS_SECRET_ACCESS_KEY"], "feed" * 10


def call(folder: Path, *words: str) -> str:
    """Run `python -m WORDS` with no keys in its environment but W&B's; return what it printed, and its exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "WANDB_API_KEY": WANDB_KEY, "PYTHONPATH": str(ROOT)}
    environment |= {"HOME": str(folder / "home"), "SHARDLINE_WORK": str(folder / "work")}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    return f"{done.stdout}{done.stderr}exit code {done.returncode}"


def find_planted(folder: Path) -> list[str]:
    """Return the files below `folder` that hold one of the secrets."""
    planted = [SECRET.encode(), WANDB_KEY.encode()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path.relative_to(folder)) for path in files if any(word in path.read_bytes() for word in planted)]


@pytest.fixture(scope="module")
def keyed(seaweedfs: SeaweedFS) -> str:
    """A format string for URIs with keys in them."""
    key = os.environ["AWS_ACCESS_KEY_ID"]
    return seaweedfs.s3.replace("s3://", f"s3://{key}:{SECRET}@")


@pytest.mark.parametrize("kept", ["here", pytest.param("in a store", marks=pytest.mark.slow)])
def test_keys_stand_in_nothing_that_pack_run_and_evaluate_write_or_print(
    keyed: str, pictures: Path, tmp_path: Path, kept: str
) -> None:
    data = keyed.format(path=f"secrets/{kept.replace(' ', '-')}/cells")
    root = str(tmp_path / "runs") if kept == "here" else keyed.format(path="secrets/runs")
    packed = call(tmp_path, "shards", "pack", str(pictures), data)
    assert packed.endswith("exit code 0"), packed
    run = ["smoke", f"data={data}", f"storage.root={root}", "name=run", "epochs=1", "launch=local"]
    trained = call(tmp_path, "trainer.run", *run, "track.wandb=offline", "track.tensorboard=true")
    assert trained.endswith("exit code 0"), trained
    bundle = next(tmp_path.rglob("bundle/bundle.json")).parent
    evaluated = call(tmp_path, "trainer.evaluate", str(bundle), f"{data}:test", "--out", str(tmp_path / "evaluated"))
    assert evaluated.endswith("exit code 0"), evaluated
    lost = call(
        tmp_path, "trainer.run", "smoke", f"data={data.replace('/cells', '/lost')}", "name=lost", "launch=local"
    )
    assert lost.endswith("exit code 2")
    for said in (packed, trained, evaluated, lost):
        assert SECRET not in said
        assert WANDB_KEY not in said
    assert find_planted(tmp_path) == []


def test_planted_secret_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text(f"x{SECRET}y")
    (tmp_path / "fine").write_text("x")
    assert find_planted(tmp_path) == ["deep/file"]
