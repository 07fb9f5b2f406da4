"""A run on pictures that decode differently now: it resumes, says so, and its bundle knows what it has seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data import jpeg2000
from data.make_hostile import encode
from data.tars import write_tar
from PIL import Image
from runs import run_dir

from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.manifest import MANIFEST_NAME
from shards.packing.foreign import index_foreign
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.pictures.decoding import VERSION
from shards.sources.find import find_sources
from trainer.bundle.make import make_bundle
from trainer.contract.bundle import read_bundle_page
from trainer.loop.loop import train
from trainer.loop.session import describe_decoding
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RunFolder
from trainer.record.snapshot import STATE, RunState
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

DEEP = jpeg2000.codestream([jpeg2000.ramp(12)], [12])


def noise(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def shard(first: int, odd: bytes) -> dict[str, bytes]:
    """Return four samples of two classes, the first of them `odd`."""
    files = {f"{first}.cls": b"0", f"{first}.jp2": odd}
    for number in range(first + 1, first + 4):
        files |= {f"{number}.cls": b"%d" % (number % 2), f"{number}.png": noise(number)}
    return files


def forget(path: Path) -> Path:
    """Take the version of decoding out of a page, as if it was written before there was one."""
    page = json.loads(path.read_text())
    del page["decoding"]
    path.write_text(json.dumps(page))
    return path.parent


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars that were indexed before, and hold two pictures that decode differently now."""
    folder = tmp_path_factory.mktemp("tars")
    write_tar(folder / "set-train-0.tar", shard(0, DEEP))
    write_tar(folder / "set-val-0.tar", shard(4, DEEP))
    index_foreign(folder)
    return forget(folder / MANIFEST_NAME)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder that was packed before."""
    files = {"a/0.jp2": DEEP, "a/1.png": noise(1), "b/2.png": noise(2), "b/3.png": noise(3)}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    pack(find_sources(tmp_path / "in"), tmp_path / "out", PackOptions())
    return forget(tmp_path / "out" / MANIFEST_NAME)


def state_of(dataset: Dataset, decoding: int, samples_seen: int = 8) -> RunState:
    return RunState(samples_seen=samples_seen, dataset=dataset.fingerprint(), recipe="", decoding=decoding)


def recipe_of(data: Path, root: Path, *others: str) -> Recipe:
    options = [f"data={data}", f"storage.root={root}", "model=timm/test_efficientnet", "epochs=1", "image_size=32"]
    more = ["launch=local", "track.wandb=disabled", "probes=real", "evaluate_on=[]"]
    return resolve_recipe(load_recipe("smoke", [*options, *more, *others]))


def test_run_that_an_older_program_began_resumes_says_so_and_its_bundle_knows(
    tars: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_of(tars, tmp_path, "preprocess.channels=1")
    folder = RunFolder.of(recipe)
    folder.path.mkdir(parents=True)
    train(recipe, folder, single_rank(), lambda _: None)
    assert [message.partition(";")[0] for message in caplog.messages if "decoding" in message] == [
        "the dataset has decoding version 1"
    ]
    page = read_bundle_page(make_bundle(recipe, folder))
    assert (page.decoding, page.preprocess.luminance) == (VERSION, 2)  # all of its steps were this program's
    caplog.clear()
    for snapshot in (run_dir(recipe) / "snapshots").iterdir():
        forget(snapshot / STATE)
    train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None)
    assert caplog.messages[-1].startswith("the run so far has decoding version 1; ")
    assert "2 of its pictures come in files of such formats (the first is set-train-0.tar/0.jp2)" in caplog.messages[-1]
    assert "nothing is damaged. Train again" in caplog.messages[-1]
    page = read_bundle_page(make_bundle(recipe, folder))
    assert (page.decoding, page.preprocess.luminance) == (1, 1)


def test_what_is_packed_does_not_change_under_a_run(packed: Path) -> None:
    dataset = open_dataset(packed)
    (said,) = describe_decoding(dataset, state_of(dataset, decoding=1))
    assert said.startswith("the dataset has decoding version 1; ")
    assert "1 of its pictures comes from files of such formats (the first is a/0.jp2), and the shards contain" in said


def test_nothing_is_said_of_a_dataset_without_such_pictures(dataset_path: Path) -> None:
    dataset = open_dataset(dataset_path)
    old = Dataset(dataset.location, dataset.manifest.model_copy(update={"decoding": 1}), dataset.table)
    assert describe_decoding(old, state_of(dataset, decoding=1)) == []


def test_nothing_is_said_of_a_run_that_has_not_begun(tars: Path) -> None:
    dataset = open_dataset(tars)
    assert len(describe_decoding(dataset, state_of(dataset, decoding=1, samples_seen=0))) == 1


def test_run_of_a_later_program_asks_for_that_program(tars: Path) -> None:
    dataset = open_dataset(tars)
    said = describe_decoding(dataset, state_of(dataset, decoding=VERSION + 1))[-1]
    assert said.startswith(
        f"the run so far has decoding version {VERSION + 1}, and this program knows no version later than"
    )


def test_state_without_a_version_is_of_the_first() -> None:
    assert RunState.model_validate({"dataset": "", "recipe": ""}).decoding == 1
