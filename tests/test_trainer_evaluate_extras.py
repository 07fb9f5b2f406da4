"""What fails after training and is no result: it is left out of the report, which says so, and the run ends well."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import train_smoke

from shards.dataset.dataset import open_dataset
from shards.errors import ShardError
from trainer.contract.bundle import Bundle
from trainer.evaluate.files import FIGURES, METRICS, write_evaluation
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.record.run_folder import RESULT, RunFolder
from trainer.report.page import write_report
from trainer.report.sources import Finished
from trainer.run.finish import finish_run
from trainer.weights.resolve import resolve_recipe

SENTENCE = "<p class=note>{}"


@pytest.fixture(scope="module")
def trained(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a dataset of its own in several shards a part, and of a run on it."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(dataset_path, root / "data")
    return root / "data", train_smoke(root / "data", root / "runs", "model=timm/test_efficientnet")


@contextlib.contextmanager
def without(paths: list[Path]) -> Iterator[None]:
    """Files are gone while the block runs."""
    aside = [path.rename(path.with_suffix(".aside")) for path in paths]
    try:
        yield
    finally:
        for path, place in zip(paths, aside, strict=True):
            place.rename(path)


def open_run(folder: Path) -> Finished:
    recipe = load_recipe(str(folder / "recipe.yaml"))
    return Finished(folder, recipe, open_dataset(recipe.data), Bundle.load(folder / "bundle"), [], {})


def count_pictures(page: str) -> int:
    return page.count("<figure>")


def test_run_ends_well_where_nothing_can_be_drawn(dataset_path: Path, tmp_path: Path) -> None:
    """matplotlib cannot even be imported under the name of a back end that it does not know."""
    named = [f"data={dataset_path}", f"storage.root={tmp_path}", "name=run", "epochs=1", "launch=local"]
    small = ["model=timm/test_efficientnet", "track.wandb=disabled"]
    words = [sys.executable, "-m", "trainer.run", "smoke", *named, *small]
    done = subprocess.run(words, env=os.environ | {"MPLBACKEND": "none-such"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    assert (folder / RESULT).is_file()
    assert (folder / "bundle" / "bundle.json").is_file()
    metrics = json.loads((folder / "evaluation/test/metrics.json").read_text())
    assert metrics["notes"]["figures"].startswith("every figure is left out (ValueError: Key backend: 'none-such'")
    page = (folder / "report.html").read_text()
    for name in ("every figure", "the map beside each picture", "curves.png"):
        assert f"{name} is left out (ValueError: Key backend" in page
        assert f"{name} is left out (ValueError: Key backend" in done.stderr
    assert SENTENCE.format("augment.png is not in the run folder") in page
    assert "augment.png is left out (ValueError: Key backend" in done.stderr
    assert "image/png" not in page
    assert page.count("image/webp") == count_pictures(page) > 0  # pictures stay, each without its map


@pytest.mark.slow
def test_maps_alone_are_left_out_where_a_model_cannot_be_explained(
    trained: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(trained[1])
    run.bundle.model.backbone.register_forward_hook(lambda *call: call[2].detach())  # no gradient comes through
    page = write_report(run).read_text()
    reason = "the map beside each picture is left out (RuntimeError: element 0 of tensors does not require grad"
    assert SENTENCE.format(reason) in page
    assert reason in caplog.text
    assert page.count("image/webp") == count_pictures(page) > 0
    assert page.count("image/png") == 7  # figures stay


def test_picture_that_vanished_from_the_shards_is_left_out_and_the_others_stay(
    trained: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    data, folder = trained
    whole = count_pictures(write_report(open_run(folder)).read_text())
    with without(sorted((data / "test").glob("*.tar"))[1:]):
        page = write_report(open_run(folder)).read_text()
    assert 0 < count_pictures(page) < whole
    assert "pictures can no longer be read and are left out (" in page
    assert "pictures can no longer be read and are left out (" in caplog.text


def test_figure_that_cannot_be_written_is_left_out_and_the_others_stay(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    (evaluation,) = open_run(trained[1]).evaluations
    (tmp_path / "reliability.png" / "in the way").mkdir(parents=True)
    result = write_evaluation(tmp_path, evaluation.predictions)
    assert result["notes"]["figures"].startswith("reliability.png is left out (IsADirectoryError: ")
    assert {name for name in FIGURES if (tmp_path / name).is_file()} == set(FIGURES) - {"reliability.png"}
    assert json.loads((tmp_path / METRICS).read_text()) == result


def test_run_ends_well_without_the_pictures_of_its_contact_sheet(
    trained: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    data, folder = trained
    (folder / "augment.png").unlink()
    with without(list((data / "train").glob("*.tar"))):
        recipe = resolve_recipe(load_recipe(str(folder / "recipe.yaml")))
        finish_run(recipe, RunFolder.of(recipe), single_rank())
    assert SENTENCE.format("augment.png is not in the run folder") in (folder / "report.html").read_text()
    assert "augment.png is left out (" in caplog.text


def test_evaluation_that_fails_is_no_extra(trained: tuple[Path, Path]) -> None:
    data, folder = trained
    recipe = resolve_recipe(load_recipe(str(folder / "recipe.yaml")))
    with without(list((data / "test").glob("*.tar"))), pytest.raises(ShardError, match="cannot be opened"):
        finish_run(recipe, RunFolder.of(recipe), single_rank())
