"""The contact sheet: the run's own pictures, and a file that a person can look at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from trainer.augment.__main__ import main
from trainer.augment.sheet import collect_pictures, describe_augment, write_contact_sheet
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.feed.augment.mix import mix_images
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_preprocess
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.options.augment import AugmentOptions
from trainer.recipes.recipe import Recipe
from trainer.weights.resolve import resolve_recipe

ROOT = Path(__file__).parent.parent


def make_recipe(data: Path, *options: str) -> Recipe:
    return resolve_recipe(load_recipe("smoke", [f"data={data}", "augment.policy=strong", *options]))


def test_rows_are_the_pictures_of_the_runs_epochs(dataset_path: Path) -> None:
    recipe, dataset = make_recipe(dataset_path, "augment.crop=random", "augment.erase=0.5"), open_dataset(dataset_path)
    sheet = collect_pictures(recipe, dataset, 4)
    stream = TrainStream(dataset.split("train"), recipe, build_preprocess(recipe, dataset), single_rank())
    for epoch in range(5):
        trained: dict[bytes, int] = {}
        for batch in stream.iterate(epoch, 0):
            trained |= zip((image.numpy().tobytes() for image in batch.images), batch.labels.tolist(), strict=True)
        for name, row in zip(sheet.names, sheet.rows, strict=True):
            assert dataset.classes[trained[row[1 + epoch].image.numpy().tobytes()]] == name
    stream.close()


def test_first_column_is_what_evaluation_sees(dataset_path: Path, pictures: Path) -> None:
    dataset = open_dataset(dataset_path)
    spec = PreprocessSpec(size=32)
    seen = {prepare(path.read_bytes(), spec).numpy().tobytes() for path in (pictures / "train").glob("*/*")}
    sheet = collect_pictures(make_recipe(dataset_path), dataset, 6)
    assert all(row[0].image.numpy().tobytes() in seen for row in sheet.rows)


def test_classes_come_in_turn(dataset_path: Path) -> None:
    names = collect_pictures(make_recipe(dataset_path), open_dataset(dataset_path), 5).names
    assert sorted(names) == names
    assert [names.count(name) for name in ("blue", "green", "red")] == [2, 2, 1]


def test_mixed_pictures_are_those_of_the_first_steps_that_mix(dataset_path: Path) -> None:
    recipe = make_recipe(dataset_path, "augment.mixup=0.4", "augment.cutmix=1", "augment.mix_prob=0.5")
    dataset = open_dataset(dataset_path)
    sheet = collect_pictures(recipe, dataset, 1)
    stream = TrainStream(dataset.split("train"), recipe, build_preprocess(recipe, dataset), single_rank())
    expected = [mix_images(batch.images, batch.pairs)[0] for batch in stream.iterate(0, 0) if batch.pairs]
    stream.close()
    assert 0 < len(expected) < 6
    assert all(torch.equal(cell.image, one) for cell, one in zip(sheet.mixed, expected, strict=True))


def test_nothing_is_mixed_where_the_recipe_mixes_nothing(dataset_path: Path) -> None:
    assert collect_pictures(make_recipe(dataset_path), open_dataset(dataset_path), 1).mixed == []


@pytest.mark.parametrize(("channels", "name"), [(1, "新冠肺炎"), (3, "of a character that no font has, \ue123")])
def test_sheet_is_a_png_that_shows_the_pictures(
    dataset_path: Path, tmp_path: Path, channels: int, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cells hold the classes' colours, or their luminance; a blank page would have none.

    A glyph that is missing in a name would be a warning, which is an error here.
    """
    recipe = make_recipe(dataset_path, f"preprocess.channels={channels}", "augment.mixup=1", f"name={name}")
    write_contact_sheet(recipe, open_dataset(dataset_path), tmp_path / "sheet.png", 3)
    with Image.open(tmp_path / "sheet.png") as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    assert pixels.shape[1] > 900
    assert 0.2 < float((pixels.min(axis=2) < 200).mean()) < 0.9
    coloured = float((pixels.max(axis=2) - pixels.min(axis=2) > 100).mean())
    assert (coloured > 0.1) == (channels == 3)
    assert caplog.text == ""


DESCRIBED = {
    "stretch to 224, as in evaluation": {},
    "random 8% to 100% of the picture to 224  →  flip (torchvision)": {"crop": "random", "policy": "flip"},
    "manual: AutoAugment on the decoded picture  →  stretch to 256, random crop of 224 with padding 4": {
        "policy": "manual"
    },
    "RandomCrop on the decoded picture  →  stretch to 224, as in evaluation  →  RandomInvert (torchvision)  →  "
    "erasing with p = 0.1  →  mixup (alpha 0.2) or cutmix (alpha 1) on 50% of the steps": {
        "pipeline": [{"op": "RandomCrop", "size": 9, "when": "before"}, {"op": "RandomInvert"}],
        "erase": 0.1,
        "mixup": 0.2,
        "cutmix": 1,
        "mix_prob": 0.5,
    },
}


@pytest.mark.parametrize("words", DESCRIBED)
def test_caption_says_what_happens_in_order(words: str) -> None:
    assert describe_augment(AugmentOptions.model_validate(DESCRIBED[words]), PreprocessSpec(size=224)) == words


def start_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.augment", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_command_writes_the_sheet_and_says_where(dataset_path: Path, tmp_path: Path) -> None:
    done = start_command("smoke", f"data={dataset_path}", "name=mine", "--samples", "2", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "sheet   mine-augment.png\n"), done.stderr
    with Image.open(tmp_path / "mine-augment.png") as file:
        assert file.format == "PNG"


def test_command_refuses_a_bad_pipeline_in_a_sentence(
    dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = "augment.pipeline=[{op: RandomRotatoin, degrees: 5}]"
    code = run_command(main, ["smoke", f"data={dataset_path}", "augment.policy=none", bad])
    expected = (
        "error: augment.pipeline: torchvision has no operation 'RandomRotatoin': did you mean 'RandomRotation'?\n"
    )
    assert (code, capsys.readouterr().err) == (2, expected)
    assert list(tmp_path.glob("*.png*")) == []
