"""A bundle in a store: each machine fetches it once, whole and checked; what is wrong there is one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from endpoints import OPTIONS
from object_stores import READER, SeaweedFS, upload

from cluster.serve import endpoint, place
from cluster.serve.__main__ import main
from cluster.serve.options import read_options
from cluster.swap import swap
from cluster.swap.service import Service
from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from shards.storage.access import CACHE_VARIABLE
from shards.storage.storage import open_storage
from trainer.contract.bundle import Bundle

NAME = "fetched"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; this process alone uses it."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def stored(s3: str, exported_path: Path, bundle_path: Path) -> None:
    """A bundle with exports, and one as a run and as a sweep keep it, in the store."""
    upload(exported_path, s3.format(path="served/exported"))
    upload(bundle_path, s3.format(path="served/run/bundle"))
    upload(bundle_path, s3.format(path="served/sweep/best/bundle"))


@pytest.mark.parametrize("name", ["exported", "run", "run/bundle", "sweep", "sweep/best"])
def test_a_location_of_a_bundle_a_run_or_a_sweep_becomes_a_folder_with_the_bundles_files(
    name: str, stored: None, s3: str, exported_path: Path, bundle_path: Path
) -> None:
    here = place.bring_bundle(s3.format(path=f"served/{name}"))
    assert read_files(here) == read_files(exported_path if name == "exported" else bundle_path)


def test_a_bundle_behind_a_web_server_can_be_loaded(stored: None, http_shards: str, bundle_path: Path) -> None:
    here = place.bring_bundle(http_shards.format(path="served/run"))
    assert Bundle.load(here).page == Bundle.load(bundle_path).page


def test_processes_of_a_machine_share_one_copy_that_is_fetched_once(
    stored: None, s3: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = place._fetch
    monkeypatch.setattr(place, "_fetch", lambda *given: (fetched.append("once"), fetch(*given)))
    location = s3.format(path="served/run")
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(place.bring_bundle, [location, s3.format(path="served/sweep"), location, location]))
    assert (len(folders), fetched, [each.name for each in cache.iterdir()]) == (1, ["once"], [folders.pop().name])


def test_a_killed_fetch_leaves_nothing_half_and_the_next_one_succeeds(
    stored: None, s3: str, cache: Path, bundle_path: Path
) -> None:
    script = (
        "import os, signal, sys; from cluster.serve import place\n"
        "def cut(store, above, files, folder):\n"
        "    (folder / 'bundle.json').write_bytes(b'{')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "place._fetch = cut; place.bring_bundle(sys.argv[1])"
    )
    location = s3.format(path="served/run")
    assert subprocess.run([sys.executable, "-c", script, location], check=False).returncode == -9
    assert [len(each.name) == 64 for each in cache.iterdir()] == [False]  # not yet under its name
    here = place.bring_bundle(location)
    assert (read_files(here), list(cache.iterdir())) == (read_files(bundle_path), [here])


def test_a_location_without_a_bundle_is_refused(s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [s3.format(path="served/none")]) == 2
    said = capsys.readouterr().err
    assert "s3://shards/served/none has no bundle (neither bundle.json, nor bundle/bundle.json or best/bundle" in said


def test_wrong_keys_are_refused_in_a_sentence_that_does_not_show_them(
    stored: None, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    location = s3.format(path="served/run").replace("s3://", f"s3://{READER[0]}:wrongsecret@")
    assert run_command(main, [location]) != 0
    said = capsys.readouterr().err
    assert "the store denies access" in said
    assert "wrongsecret" not in said
    assert "Traceback" not in said


def test_a_store_that_is_away_is_named(
    seaweedfs: SeaweedFS, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_PAGE_S", 1.0)
    assert run_command(main, [seaweedfs.s3_at(9).format(path="served/run")]) != 0
    said = capsys.readouterr().err
    assert "s3://shards/served/run/bundle.json" in said
    assert "Traceback" not in said


def test_damaged_weights_in_a_store_are_refused_and_not_kept(s3: str, bundle_path: Path, cache: Path) -> None:
    location = s3.format(path="served/damaged")
    upload(bundle_path, location)
    open_storage(location).write("weights.safetensors", b"\0" * (bundle_path / "weights.safetensors").stat().st_size)
    with pytest.raises(ShardError, match=r"sha256 differs from bundle\.json"):
        place.bring_bundle(location)
    assert list(cache.iterdir()) == []


def test_an_endpoint_serves_and_exchanges_bundles_of_a_store(
    stored: None, s3: str, endpoint_url: str, bundle_path: Path, exported_path: Path, pictures: Path
) -> None:
    """The replicas fetch by themselves; promote takes a location as it takes a folder. Keys in it are never shown."""
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    keyed = s3.replace("s3://", f"s3://{os.environ['AWS_ACCESS_KEY_ID']}:{secret}@")
    options = read_options({"bundle": keyed.format(path="served/run"), "replicas": 2, **OPTIONS})
    port = int(endpoint_url.rpartition(":")[2])
    picture = next((pictures / "test" / "red").iterdir()).read_bytes()

    def ask() -> str:
        answered: str = httpx.post(f"{endpoint_url}/fetched/v1/predict", content=picture, timeout=60).json()["bundle"]
        return answered

    try:
        endpoint.deploy(options, "127.0.0.1", port, name=NAME, route="/fetched")
        assert ask() == Bundle.load(bundle_path).page.fingerprint()
        page = httpx.get(f"{endpoint_url}/fetched/v1/model", timeout=60)
        assert page.json()["options"]["bundle"] == "s3://shards/served/run"
        service = Service(NAME)
        after = swap.promote(service, swap.PromoteOptions(bundle=s3.format(path="served/exported")))
        for said in (page.text, json.dumps(after.show()), after.describe(), json.dumps(swap.describe_service(service))):
            assert secret not in said
        assert ask() == Bundle.load(exported_path).page.fingerprint()
        said = swap.describe_service(service)
        assert (said["bundle"], said["beside"]) == ("s3://shards/served/exported", "s3://shards/served/run")
        with pytest.raises(UsageError, match=r"s3://shards/served/gone has no bundle"):
            swap.promote(service, swap.PromoteOptions(bundle=s3.format(path="served/gone")))
    finally:
        endpoint.remove(everything=False, name=NAME)
