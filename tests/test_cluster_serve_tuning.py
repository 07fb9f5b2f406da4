"""`cluster.serve --tune-batch`: the best batches of a machine are found by trying, kept in the bundle, and used."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from object_stores import upload

from cluster.serve import tune_batch
from cluster.serve.__main__ import main
from cluster.serve.answer import Wishes
from cluster.serve.batching import Load, find_batching
from cluster.serve.options import read_options
from cluster.serve.predictor import Predictor
from cluster.serve.rollout import Rollout
from cluster.serve.tune_batch import choose_size
from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.contract.bundle import read_bundle_page, read_bundle_probes
from trainer.contract.compute.choice import read_cpu

RECORD = "exports/batches.json"


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tune_batch, "_SECONDS", 0.05)
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


def find(bundle: Path, **options: object) -> tuple[int, float, str]:
    page = read_bundle_page(bundle)
    found = find_batching(read_options({"bundle": bundle, **options}), bundle, page.weights_sha256)
    return found.max_batch_size, found.batch_wait_ms, found.why


def test_what_was_found_is_recorded_and_used_by_replicas_with_as_many_threads(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find(bundle) == (16, 20.0, "by default; --tune-batch measures")
    assert run_command(main, [str(bundle), "--tune-batch", "60000"]) == 0
    said = capsys.readouterr().out
    (tuned,) = json.loads((bundle / RECORD).read_text())["tuned"]
    best = tuned["best"]
    assert (tuned["cpu"], tuned["threads"], tuned["target_ms"]) == (read_cpu(), 1, 60000.0)
    assert f"best: batches of {best['max_batch_size']} that wait {best['batch_wait_ms']:g} ms" in said
    sizes = [each["max_batch_size"] for each in tuned["measured"]]
    assert sizes[:6] == [1, 2, 4, 8, 16, 32]  # twice as many are on the way, and a replica takes 64
    assert [each["batch_wait_ms"] for each in tuned["measured"][6:]] == [0.0, 5.0, 20.0]
    assert all(each["p50_ms"] <= each["p99_ms"] and each["pictures_per_s"] > 0 for each in tuned["measured"])
    assert find(bundle)[:2] == (best["max_batch_size"], best["batch_wait_ms"])
    assert find(bundle)[2].startswith("as measured on 20")
    assert find(bundle, cpus_per_replica=2)[:2] == (16, 20.0)  # two threads were not measured
    assert find(bundle, max_batch_size=3)[:2] == (3, best["batch_wait_ms"])
    assert find(bundle, max_batch_size=3, batch_wait_ms=1) == (3, 1.0, "as the options say")


def test_a_replica_computes_in_batches_of_the_size_that_was_found(bundle: Path) -> None:
    assert run_command(main, [str(bundle), "--tune-batch", "60000"]) == 0
    page = json.loads((bundle / RECORD).read_text())
    page["tuned"][0]["best"]["max_batch_size"] = 3
    (bundle / RECORD).write_text(json.dumps(page))
    encoded, _, _ = read_bundle_probes(bundle)

    async def ask() -> Predictor:
        predictor = Predictor(read_options({"bundle": bundle}))
        await predictor.follow(Rollout(bundle=str(bundle)))
        await predictor.predict_all([data for data in encoded for _ in range(3)], Wishes())
        return predictor

    predictor = asyncio.run(ask())
    assert predictor.describe_model()["batching"]["max_batch_size"] == 3
    assert predictor.stats.largest_batch == 3


def test_a_second_measurement_replaces_the_first_one_and_keeps_those_of_other_machines(bundle: Path) -> None:
    for _ in range(2):
        assert run_command(main, [str(bundle), "--tune-batch", "60000"]) == 0
    page = json.loads((bundle / RECORD).read_text())
    assert len(page["tuned"]) == 1
    page["tuned"][0]["cpu"] = "another"
    (bundle / RECORD).write_text(json.dumps(page))
    assert find(bundle)[:2] == (16, 20.0)
    assert run_command(main, [str(bundle), "--tune-batch", "60000"]) == 0
    assert [each["cpu"] for each in json.loads((bundle / RECORD).read_text())["tuned"]] == ["another", read_cpu()]


def test_a_record_of_other_weights_or_a_damaged_one_does_not_count(bundle: Path) -> None:
    assert run_command(main, [str(bundle), "--tune-batch", "60000"]) == 0
    page = json.loads((bundle / RECORD).read_text())
    (bundle / RECORD).write_text(json.dumps(page | {"weights_sha256": "0" * 64}))
    assert find(bundle) == (16, 20.0, "by default; --tune-batch measures")
    (bundle / RECORD).write_text("{")
    size, wait_ms, why = find(bundle)
    assert (size, wait_ms) == (16, 20.0)
    assert why.startswith("by default: ")
    assert f"measure again: python -m cluster.serve {bundle} --tune-batch 200" in why
    assert run_command(main, [str(bundle), "--tune-batch", "60000"]) != 0  # it says so, and overwrites nothing
    (bundle / RECORD).unlink()
    assert run_command(main, [str(bundle), "--tune-batch", "60000"]) == 0


def test_a_time_that_no_size_keeps_is_refused_and_nothing_is_recorded(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [str(bundle), "--tune-batch", "0.001"]) == 2
    assert "no batch size answers 99 % of the pictures within 0.001 ms here" in capsys.readouterr().err
    assert not (bundle / RECORD).exists()


def test_a_bundle_in_a_store_is_not_tuned(
    s3: str, bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLINE_CACHE", str(tmp_path / "cache"))
    location = s3.format(path="served/tuned")
    upload(bundle, location)
    assert run_command(main, [location, "--tune-batch", "200"]) == 2
    assert "is in a store, where nothing is recorded; tune a folder of this machine" in capsys.readouterr().err


def load(size: int, pictures_per_s: float, p99_ms: float) -> Load:
    return Load(
        max_batch_size=size, batch_wait_ms=20, at_once=2 * size, pictures_per_s=pictures_per_s, p50_ms=1, p99_ms=p99_ms
    )


MEASURED = [load(1, 50, 30), load(4, 97, 80), load(8, 99, 150), load(16, 130, 300)]


@pytest.mark.parametrize(("target_ms", "size"), [(30, 1), (100, 4), (200, 4), (299.9, 4), (300, 16)])
def test_the_size_has_most_pictures_within_the_time_and_is_not_larger_for_a_trifle(target_ms: float, size: int) -> None:
    assert choose_size(MEASURED, target_ms).max_batch_size == size


def test_without_a_size_that_is_quick_enough_the_quickest_is_named() -> None:
    with pytest.raises(UsageError, match="within 29 ms here: the quickest, 1, takes 30 ms"):
        choose_size(MEASURED, 29)
