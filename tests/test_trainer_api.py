"""What `import trainer` offers to Python: recipes, runs, and bundles with what is done to them."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import shards
import trainer
from tests.conftest import COLOURS
from trainer.recipes.file import load_recipe as load_words

ROOT = Path(__file__).parent.parent


# recipes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"epochs": 3, "optim": {"peak_lr": 1e-3}}, ["epochs=3", "optim.peak_lr=0.001"]),
        ({"augment": {"policy": "flip", "mixup": 0.2}}, ["augment.policy=flip", "augment.mixup=0.2"]),
        ({"schedule": {"warmup_epochs": 1}}, ["schedule.warmup_epochs=1"]),
        ({"freeze": ["stem"]}, ["freeze=[stem]"]),
    ],
)
def test_recipe_changed_from_python_is_that_of_the_command_line(changes: dict[str, Any], words: list[str]) -> None:
    assert trainer.load_recipe("smoke", data="d", **changes) == load_words("smoke", ["data=d", *words])


def test_recipe_takes_an_opened_dataset_and_paths(dataset_path: Path, tmp_path: Path) -> None:
    recipe = trainer.load_recipe("smoke", data=shards.open_dataset(dataset_path), storage={"root": tmp_path})
    assert (recipe.data, recipe.storage.root) == (str(dataset_path), str(tmp_path))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("smok", {}, "no recipe 'smok': neither a file nor one of"),
        ("smoke", {"optim": {"peek_lr": 1}}, r"no option 'optim\.peek_lr'.*peak_lr"),
        ("smoke", {"epochs": "many"}, "epochs"),
    ],
)
def test_recipe_that_is_none_is_refused_in_a_sentence(name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(shards.UsageError, match=sentence):
        trainer.load_recipe(name, **changes)


# runs


@pytest.fixture(scope="module")
def finished(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[trainer.Recipe, trainer.Run]:
    root = tmp_path_factory.mktemp("api")
    places = {"storage": {"root": root}, "track": {"wandb": "disabled"}}
    recipe = trainer.load_recipe("smoke", data=dataset_path, epochs=2, workers=1, **places)
    return recipe, trainer.train(recipe)


def test_run_has_its_metrics_recipe_report_and_bundle(finished: tuple[trainer.Recipe, trainer.Run]) -> None:
    recipe, run = finished
    stored = json.loads((run.folder / "evaluation/test/metrics.json").read_text())
    assert run.metrics == {"test": stored}
    assert (run.recipe.epochs, run.recipe.name) == (2, recipe.name)
    assert run.report.is_file()
    assert run.bundle.page.recipe is not None
    assert repr(run) == f"Run('{run.folder}')"


def test_finished_run_is_only_opened(finished: tuple[trainer.Recipe, trainer.Run]) -> None:
    recipe, run = finished
    files = [path for path in run.folder.rglob("*") if path.is_file() and path.name != "recipe.yaml"]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = trainer.train(recipe)
    assert again.metrics == run.metrics
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_folder_without_a_finished_run_is_refused(finished: tuple[trainer.Recipe, trainer.Run], tmp_path: Path) -> None:
    with pytest.raises(shards.UsageError, match=r"is not a run \(it has no recipe\.yaml\); name a folder such as"):
        trainer.Run(tmp_path)
    shutil.copy(finished[1].folder / "recipe.yaml", tmp_path)
    with pytest.raises(shards.UsageError, match=r"is not finished; `trainer\.train` with its recipe resumes it"):
        trainer.Run(tmp_path)


@pytest.mark.slow
def test_script_without_a_main_guard_trains_on_two_ranks_and_ctrl_c_leaves_what_resumes(
    dataset_path: Path, tmp_path: Path
) -> None:
    script = f"""
import shards, trainer
recipe = trainer.load_recipe("smoke", data={str(dataset_path)!r}, num_ranks=2, launch="local", epochs=8, workers=1,
    storage={{"root": {str(tmp_path)!r}}}, track={{"wandb": "disabled"}})
try:
    print("finished", trainer.train(recipe).metrics["test"]["samples"])
except shards.Interrupted as err:
    print("interrupted", err)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert process.stdin is not None
        process.stdin.write(script)
        process.stdin.close()
        process.stdin = None
        return process

    process = start()
    until = time.monotonic() + 120
    while not list(tmp_path.glob("smoke/snapshots/*[0-9]")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert told.startswith("interrupted interrupted; the state is saved in"), told
    begun = len((tmp_path / "smoke/metrics.jsonl").read_text().splitlines())
    assert 1 <= begun < 8
    told, _ = start().communicate(timeout=240)
    assert told == "finished 24\n"
    rows = [json.loads(line)["epoch"] for line in (tmp_path / "smoke/metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, 9))


# pictures and answers


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> trainer.Bundle:
    return trainer.Bundle.load(bundle_path)


def save(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def draw(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).normal(COLOURS["red"], 60, (40, 56, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray((pixels[..., 0].astype(np.uint16) << 8) + 7)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(pixels[..., 1]))
        return image
    return image.convert(mode)


def test_every_form_of_a_picture_gives_the_same_answer(bundle: trainer.Bundle, tmp_path: Path) -> None:
    image = draw("RGB")
    data = save(image, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), image, np.asarray(image)]
    expected = bundle.answer(*bundle.compute(bundle.prepare(data)[None])[0])
    assert [bundle.predict(form) for form in forms] == [expected] * len(forms)
    answers = bundle.predict(forms)
    assert [answer.label for answer in answers] == [expected.label] * len(forms)
    torch.testing.assert_close([answer.logits for answer in answers], [expected.logits] * len(forms))


def test_list_longer_than_a_batch_keeps_its_order_and_an_empty_one_is_empty(
    bundle: trainer.Bundle, pictures: Path
) -> None:
    paths = sorted((pictures / "train").glob("*/*"))
    assert len(paths) > 64
    alone = [bundle.predict(path).label for path in paths[::10]]
    assert [answer.label for answer in bundle.predict(paths)][::10] == alone
    assert bundle.predict([]) == []


@pytest.mark.parametrize(
    ("mode", "form"),
    [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("CMYK", "TIFF")],
)
def test_pil_picture_of_any_mode_answers_as_its_file(bundle: trainer.Bundle, mode: str, form: str) -> None:
    data = save(draw(mode), form)
    assert bundle.predict(Image.open(io.BytesIO(data))) == bundle.predict(data)


def test_pil_picture_that_lies_on_its_side_is_turned_as_its_file_is(bundle: trainer.Bundle) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(draw("RGB"), "PNG", exif=exif)
    turned = bundle.predict(Image.open(io.BytesIO(data)))
    assert turned == bundle.predict(data)
    assert turned != bundle.predict(draw("RGB"))


def test_gray_array_is_repeated(bundle: trainer.Bundle) -> None:
    gray = np.asarray(draw("L"))
    expected = bundle.predict(np.stack([gray] * 3, axis=-1))
    assert bundle.predict(gray) == bundle.predict(gray[..., None]) == expected


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (3, "a int is not a picture; give a path, the bytes of a file, a PIL picture, or an array"),
        (np.zeros((4, 4, 3)), r"an array float64\[4, 4, 3\] is not a picture; give uint8\[H, W, 3\] in RGB"),
        (np.zeros((3, 4, 4), np.uint8), r"an array uint8\[3, 4, 4\] is not a picture"),
        (np.zeros((0, 4, 3), np.uint8), r"an array uint8\[0, 4, 3\] is not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(bundle: trainer.Bundle, picture: object, sentence: str) -> None:
    with pytest.raises(shards.UsageError, match=sentence):
        bundle.predict(picture)
    with pytest.raises(shards.DecodeError):
        bundle.predict(b"no picture")
    with pytest.raises(FileNotFoundError):
        bundle.predict("gone.png")


def test_answer_is_shown_as_a_table_with_names_escaped(bundle: trainer.Bundle) -> None:
    answer = bundle.predict(draw("RGB"))
    named = answer.model_copy(update={"label": "<b>", "probabilities": {"<b>": 0.75, "a": 0.25}})
    shown = named._repr_html_()
    assert "<b>" not in shown
    assert "<td>&lt;b&gt;</td>" in shown
    assert shown.index("75.0%") < shown.index("25.0%")


# bundles


def test_bundle_is_evaluated_as_its_run_was(finished: tuple[trainer.Recipe, trainer.Run], tmp_path: Path) -> None:
    recipe, run = finished
    data = shards.open_dataset(recipe.data)
    for place in (data["test"], f"{recipe.data}:test", data):
        evaluated = trainer.evaluate_bundle(run.bundle, place, out=tmp_path / "e")
        assert evaluated.metrics["accuracy"] == run.metrics["test"]["accuracy"]
    with pytest.raises(shards.UsageError, match="was not evaluated on 'val' but on test; evaluate_bundle"):
        _ = run.metrics["val"]
    assert "samples" in trainer.evaluate_bundle(run.bundle, data["val"], out=tmp_path / "v").metrics  # the remedy
    assert (tmp_path / "e/predictions.csv").is_file()
    with pytest.raises(shards.UsageError, match="no option 'outt': did you mean 'out'"):
        trainer.evaluate_bundle(run.bundle, data, outt="x")


def test_evaluation_of_something_else_is_not_overwritten(
    finished: tuple[trainer.Recipe, trainer.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, run = finished
    data = shards.open_dataset(recipe.data)
    trainer.decide_bundle(run.bundle, data["val"], out="other")
    first = trainer.evaluate_bundle(run.bundle, data["test"])
    other = trainer.evaluate_bundle("other", data["test"])
    assert first.folder == Path("evaluations/test")
    assert other.folder.parent == first.folder.parent
    assert other.folder != first.folder
    stored = [json.loads((each.folder / "metrics.json").read_text())["bundle"] for each in (first, other)]
    assert stored == [run.bundle.page.fingerprint(), trainer.Bundle.load("other").page.fingerprint()]
    assert trainer.evaluate_bundle(run.bundle, data["test"]).folder == first.folder
    assert trainer.evaluate_bundle("other", data["test"]).folder == other.folder


def test_decision_is_fitted_into_a_bundle_of_its_own(
    finished: tuple[trainer.Recipe, trainer.Run], tmp_path: Path
) -> None:
    recipe, run = finished
    val = shards.open_dataset(recipe.data)["val"]
    careful = trainer.decide_bundle(run.bundle, val, conformal=0.8, out=tmp_path / "careful")
    assert careful.folder == tmp_path / "careful"
    assert careful.predict(draw("RGB")).set is not None
    assert run.bundle.predict(draw("RGB")).set is None


def test_bundle_is_exported(bundle_path: Path, tmp_path: Path) -> None:
    exported = trainer.export_bundle(bundle_path, "torchscript", out=tmp_path / "m.pt")
    assert exported.file == tmp_path / "m.pt"
    assert exported.file.is_file()


def test_bundle_that_was_never_saved_has_no_folder_to_work_on(bundle: trainer.Bundle, tmp_path: Path) -> None:
    made = trainer.Bundle(bundle.page, bundle.model, bundle.device)
    with pytest.raises(shards.UsageError, match="exists only in memory; save it, and load it from the folder"):
        trainer.export_bundle(made, "torchscript")
