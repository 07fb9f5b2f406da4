"""Packing into real object stores, and on a real Ray cluster: the bytes are those of a folder on one machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import command as local_command

from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME
from shards.dataset.origin import ORIGIN_NAME
from shards.dataset.verify import verify_dataset
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.sources.find import find_sources
from shards.sources.model import SourceList
from shards.storage.storage import open_storage
from shards.workers.pools import open_pool

ROOT = Path(__file__).parent.parent
SMALL = PackOptions(shard_bytes=40_000)


@pytest.fixture(scope="module")
def listed(pictures: Path) -> SourceList:
    return find_sources(pictures)


def digests(target: str | Path) -> dict[str, str]:
    storage = open_storage(target)
    return {name: hashlib.sha256(storage.read(name)).hexdigest() for name in storage.sizes()}


@pytest.fixture(scope="module")
def commanded(pictures: Path, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the command makes on this disk: the dataset as a program packs it, and the record of the command."""
    out = tmp_path_factory.mktemp("commanded") / "out"
    done = local_command("pack", pictures, out, "--shard-bytes", "40000")
    assert done.returncode == 0, done.stderr
    made = digests(out)
    assert {name: digest for name, digest in made.items() if name != ORIGIN_NAME} == digests(dataset_path)
    return made


def stop_after(count: int) -> Run:
    """Return a run that is interrupted when `count` shards are written."""
    written: list[str] = []

    def press(stage: str, *_: int) -> None:
        written.extend([stage] * (stage == "write"))
        if len(written) == count:
            raise KeyboardInterrupt

    return Run(progress=press)


@pytest.fixture(params=["s3", "gcs"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    uri: str = request.getfixturevalue(request.param).format(path=f"pack/{tmp_path.name}")
    return uri


def test_object_store_gets_the_bytes_of_a_folder(listed: SourceList, dataset_path: Path, target: str) -> None:
    pack(listed, target, SMALL)
    assert digests(target) == digests(dataset_path)


def test_worker_processes_write_to_an_object_store(listed: SourceList, dataset_path: Path, target: str) -> None:
    with open_pool(2) as pool:
        pack(listed, target, SMALL, Run(pool))
    assert digests(target) == digests(dataset_path)


def test_stopped_upload_goes_on_to_the_same_bytes(listed: SourceList, dataset_path: Path, target: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(listed, target, SMALL, stop_after(4))
    assert MANIFEST_NAME not in open_storage(target).sizes()
    pack(listed, target, SMALL)
    assert digests(target) == digests(dataset_path)


def test_finished_dataset_in_a_store_is_refused_to_other_options(listed: SourceList, target: str) -> None:
    pack(listed, target, SMALL)
    before = digests(target)
    with pytest.raises(UsageError, match="already holds a dataset of other pictures or options"):
        pack(listed, target, PackOptions(shard_bytes=20_000))
    assert digests(target) == before


def test_copy_of_a_dataset_from_a_store_opens_and_verifies(listed: SourceList, target: str, tmp_path: Path) -> None:
    pack(listed, target, SMALL)
    storage = open_storage(target)
    for name in storage.sizes():
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read(name))
    assert verify_dataset(tmp_path / "copy").pictures == len(listed.sources)


def test_command_packs_to_s3(pictures: Path, commanded: dict[str, str], s3: str, tmp_path: Path) -> None:
    target = s3.format(path=f"command/{tmp_path.name}")
    command = [sys.executable, "-m", "shards", "pack", str(pictures), target, "--shard-bytes", "40000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert digests(target) == commanded


def test_store_that_refuses_the_key_is_told_in_one_sentence(pictures: Path, s3: str) -> None:
    command = [sys.executable, "-m", "shards", "pack", str(pictures), s3.format(path="nobody")]
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("ray_cluster")
def test_ray_tasks_pack_the_same_bytes(listed: SourceList, dataset_path: Path, tmp_path: Path) -> None:
    from shards.workers.ray_pool import open_ray_pool

    with open_ray_pool(None) as pool:
        pack(listed, tmp_path / "out", SMALL, Run(pool))
    assert digests(tmp_path / "out") == digests(dataset_path)


@pytest.mark.usefixtures("ray_cluster")
def test_refusal_of_a_ray_task_is_our_sentence(pictures: Path, tmp_path: Path) -> None:
    from shards.workers.ray_pool import open_ray_pool

    listed = find_sources(pictures)
    victim = listed.store.root / listed.sources[7].name  # type: ignore[attr-defined]
    content = victim.read_bytes()

    def truncate(stage: str, done: int, total: int, _: int) -> None:
        if stage == "audit" and done == total:
            victim.write_bytes(content[:100])

    try:
        with open_ray_pool(2) as pool, pytest.raises(ShardError, match=f"^{listed.sources[7].name} changed while"):
            pack(listed, tmp_path / "out", SMALL, Run(pool, truncate))
    finally:
        victim.write_bytes(content)
        os.utime(victim, ns=(listed.sources[7].stamp, listed.sources[7].stamp))


@pytest.mark.slow
def test_command_packs_on_ray(
    ray_cluster: str, pictures: Path, commanded: dict[str, str], dataset_path: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "shards", "pack", str(pictures), str(tmp_path / "out"), "--shard-bytes", "40000"]
    done = subprocess.run([*command, "--on", "ray"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == commanded
    assert open_dataset(tmp_path / "out").fingerprint() == open_dataset(dataset_path).fingerprint()
