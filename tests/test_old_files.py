"""Datasets, bundles and runs that an earlier version made: opened, evaluated and resumed as that version did.

`data/e9839c9.tar.xz` was made at that commit: a dataset of 32 pictures, a finished run with its bundle and evaluation,
a run stopped in its second epoch, and `resumed.jsonl`, the metrics with which that version finished it.
`data/e9839c9-gray.tar.xz` is what another bundle of its weights has of its own, which takes pictures of one channel,
and `answers.json`, what that version made of eight pictures.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from shards.dataset.dataset import open_dataset
from shards.dataset.verify import verify_dataset
from trainer.contract.bundle import Bundle
from trainer.contract.probes import synthesise_pictures
from trainer.evaluate.bundle import evaluate_on_rank
from trainer.loop.build import build_preprocess
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.options.preprocess import PreprocessOptions
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.run.launch import launch
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)

ARCHIVE = Path(__file__).parent / "data" / "e9839c9.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "e9839c9"


def load(old: Path, name: str) -> Recipe:
    return load_recipe(
        str(old / "runs" / name / "recipe.yaml"), [f"data={old / 'dataset'}", f"storage.root={old / 'runs'}"]
    )


def test_dataset_keeps_its_fingerprint_and_is_not_called_damaged(old: Path) -> None:
    made = json.loads((old / "runs/finished/bundle/bundle.json").read_text())
    assert open_dataset(str(old / "dataset")).fingerprint() == made["dataset"]
    assert verify_dataset(old / "dataset").pictures == 32


def test_bundle_gives_the_logits_that_it_gave(old: Path, tmp_path: Path) -> None:
    bundle = old / "runs/finished/bundle"
    Bundle.load(bundle)  # recomputes the probes
    evaluate_on_rank(single_rank(), bundle, str(old / "dataset"), "test", tmp_path, 1)
    before = pq.read_table(old / "runs/finished/evaluation/test/predictions.parquet")
    after = pq.read_table(tmp_path / "predictions.parquet")
    assert after["sample_id"].to_pylist() == before["sample_id"].to_pylist()
    for name in [column for column in before.column_names if column.startswith("logit")]:
        np.testing.assert_allclose(after[name].to_numpy(), before[name].to_numpy(), atol=1e-4)


def test_bundle_of_one_channel_loads_and_answers_as_before(old: Path, tmp_path: Path) -> None:
    """Its luminance is cut off to whole numbers: white is 254."""
    shutil.copytree(old / "runs/finished/bundle", tmp_path / "e9839c9-gray")
    with tarfile.open(ARCHIVE.with_name("e9839c9-gray.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    bundle = Bundle.load(tmp_path / "e9839c9-gray")
    answers = json.loads((tmp_path / "e9839c9-gray/answers.json").read_text())
    images = torch.stack([bundle.prepare(data) for data in synthesise_pictures(7)])
    assert hashlib.sha256(images.numpy().tobytes()).hexdigest() == answers["input_sha256"]
    np.testing.assert_allclose(bundle.compute_logits(images).numpy(), answers["logits"], atol=1e-4)


@pytest.mark.parametrize(("begun", "rule"), [(1, 1), (2, 1), (3, 2)])
def test_run_of_one_channel_keeps_the_luminance_that_it_began_with(old: Path, begun: int, rule: int) -> None:
    recipe = resolve_recipe(load(old, "stopped").model_copy(update={"preprocess": PreprocessOptions(channels=1)}))
    assert build_preprocess(recipe, open_dataset(recipe.data), begun).luminance == rule


def test_stopped_run_is_resumed_to_the_numbers_of_the_version_that_began_it(old: Path) -> None:
    launch(load(old, "stopped"))
    expected = [json.loads(line) for line in (old / "resumed.jsonl").read_text().splitlines()]
    rows = read_metrics(old / "runs/stopped")
    for row, before in zip(rows, expected, strict=True):
        assert row["samples_seen"] == before["samples_seen"]
        for name in ("train/loss", "val/log_loss", "val/accuracy"):
            assert row[name] == pytest.approx(before[name], abs=1e-4)


def test_finished_run_is_left_as_it_is(old: Path) -> None:
    folder = old / "runs/finished"
    files = (path for path in folder.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files if path.name != "recipe.yaml"}  # it says where the data lie now
    launch(load(old, "finished"))
    assert {path: path.read_bytes() for path in before} == before
