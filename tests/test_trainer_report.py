"""report.html and model_card.md: what they say, what they must not say, and the command that writes them anew."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from fontTools.ttLib import TTFont
from in_process import command

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.model.cam import explain
from trainer.evaluate.figures.fonts import find_package_font
from trainer.evaluate.predictions import Predictions
from trainer.recipes.file import load_recipe
from trainer.report.__main__ import main
from trainer.report.card import describe_model, find_licence
from trainer.report.gallery import explain_images, lay_over, select_issues, select_worst
from trainer.report.markup import escape
from trainer.report.options import ReportOptions
from trainer.report.page import write_report
from trainer.report.report import report
from trainer.report.reproduce import list_commands, list_packing, tell_unrecorded
from trainer.report.sources import Finished


def open_run(folder: Path) -> Finished:
    recipe = load_recipe(str(folder / "recipe.yaml"))
    notes = json.loads((folder / "result.json").read_text(encoding="utf-8"))["notes"]
    return Finished(folder, recipe, open_dataset(recipe.data), Bundle.load(folder / "bundle"), notes, {})


def read_page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def refusal(*arguments: str) -> str:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert run_command(main, list(arguments)) == 2
    return err.getvalue()


def test_page_shows_each_worst_error_with_its_path_and_its_map(named_run: Path) -> None:
    run = open_run(named_run)
    (evaluation,) = run.evaluations
    worst = select_worst(evaluation.predictions)
    assert worst  # the model has seen one epoch, and some labels are wrong on purpose
    page = read_page(named_run)
    for each in worst:
        path = escape(evaluation.predictions.known["path"][each.position].as_py())
        pair = rf"<img alt='{re.escape(path)}' src='data:image/webp[^>]*><img alt='map on {re.escape(path)}'"
        assert re.search(pair, page)


def test_python_writes_the_report_anew_and_nothing_is_printed(
    named_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(named_run, tmp_path / "run"))
    (folder / "report.html").unlink()
    (folder / "model_card.md").unlink()
    written = report(ReportOptions(run_dir=folder, images=False))
    assert (written.report, written.card) == (folder / "report.html", folder / "model_card.md")
    assert "data:image/webp" in read_page(named_run)
    assert "data:image/webp" not in read_page(folder)
    assert written.card.read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""


def test_names_of_classes_and_files_are_text_and_never_markup(named_run: Path) -> None:
    page = read_page(named_run)
    assert "<i>x" not in page
    assert html.escape("<i>x") in page
    assert "新冠肺炎" in page


def test_metrics_stand_with_their_intervals(named_run: Path) -> None:
    metrics = json.loads((named_run / "evaluation/test/metrics.json").read_text(encoding="utf-8"))
    low, high = metrics["intervals"]["accuracy"]
    row = ["accuracy", f"{metrics['accuracy']:.4f}", f"[{low:.4f}, {high:.4f}]"]
    assert "".join(f"<td>{cell}</td>" for cell in row) in read_page(named_run)
    assert "| " + " | ".join(row) + " |" in (named_run / "model_card.md").read_text(encoding="utf-8")


def test_page_needs_nothing_from_outside(named_run: Path) -> None:
    page = read_page(named_run)
    assert re.findall(r"<script|<link|url\((?!data:)|https?:", page) == []
    assert set(re.findall(r"src='([a-z]+):", page)) == {"data"}
    assert len(page) < 3_000_000


def test_font_of_the_page_has_the_chinese_letters_that_it_uses_and_no_others(named_run: Path) -> None:
    page = read_page(named_run)
    (data,) = re.findall(r"url\(data:font/woff;base64,([^)]*)\)", page)
    with TTFont(io.BytesIO(base64.b64decode(data))) as font:
        letters, changed = {chr(code) for code in font.getBestCmap()}, font["head"].modified
    assert letters == set("新冠肺炎病人")
    assert len(data) < 10_000
    with TTFont(find_package_font()) as whole:
        assert changed == whole["head"].modified  # the same page always has the same bytes


def test_page_without_chinese_letters_has_no_font(several_run: Path) -> None:
    assert "@font-face" not in read_page(several_run)


def test_without_images_the_page_has_figures_alone(named_run: Path, tmp_path: Path) -> None:
    before = read_page(named_run)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            assert run_command(main, [str(named_run), "--no-images"]) == 0
        page = read_page(named_run)
        assert "image/webp" in before
        assert "image/webp" not in page
        assert "Pictures as training sees them" not in page
        assert page.count("image/png") == 6  # five of the evaluation, and the course of training
    finally:
        (named_run / "report.html").write_text(before, encoding="utf-8")


def test_page_written_anew_is_that_of_the_run(named_run: Path) -> None:
    before = read_page(named_run)
    with contextlib.redirect_stdout(io.StringIO()):
        assert run_command(main, [str(named_run), "--part", "test"]) == 0
    assert read_page(named_run) == before


def test_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    assert "is no folder of a finished run (it has no result.json)" in refusal(str(tmp_path))


def test_other_dataset_is_refused(named_run: Path, dataset_path: Path) -> None:
    assert "is not the dataset that" in refusal(str(named_run), "--data", str(dataset_path))


def test_part_that_was_not_evaluated_is_refused(named_run: Path) -> None:
    assert "was evaluated on test, asked for was val; leave out --part" in refusal(str(named_run), "--part", "val")


def test_packing_command_of_the_page_makes_the_same_dataset(named_run: Path, tmp_path: Path) -> None:
    run = open_run(named_run)
    words = shlex.split(list_commands(run)[0])
    assert words[:4] == ["python", "-m", "shards", "pack"]
    source = Path(run.dataset.location).with_name("named")
    out = str(tmp_path / "again")
    places = {"SOURCE": str(source), run.dataset.location: out}
    done = command(*(places.get(word, word) for word in words[3:]))
    assert done.returncode == 0, done.stderr
    assert open_dataset(out).fingerprint() == run.dataset.fingerprint()


def test_recorded_commands_of_the_page_make_the_same_dataset_again(
    named_run: Path, pictures: Path, tmp_path: Path
) -> None:
    """Groups, names, and an update: what no manifest tells. The class of a picture is a word of its name as well."""
    part, out = tmp_path / "part of it", tmp_path / "out"
    shutil.copytree(pictures, part)
    for path in part.glob("*/*/*.1.*"):
        path.unlink()
    (tmp_path / "names.json").write_text('{"blue": "青", "green": "绿", "red": "红"}')
    options = ["--class-names", str(tmp_path / "names.json"), "--group-regex", r"([a-z]+\.\d+)", "--allow-leaks"]
    for words in ([part, out, *options], [pictures, out, *options, "--update"]):
        done = command("pack", *words)
        assert done.returncode == 0, done.stderr
    run = replace(open_run(named_run), dataset=open_dataset(out))
    again = str(tmp_path / "again")
    commands = list_packing(run)
    for line in commands:
        words = shlex.split(line)
        assert words[:4] == ["python", "-m", "shards", "pack"]
        assert command(*(again if word == str(out) else word for word in words[3:])).returncode == 0
    assert open_dataset(again).fingerprint() == open_dataset(out).fingerprint()
    assert len(commands) == 2
    assert tell_unrecorded(run) == ""
    (out / "origin.json").unlink()
    assert [line.split()[4] for line in list_packing(run)] == ["SOURCE", "SOURCE"]
    assert tell_unrecorded(run).startswith("SOURCE, where the pictures came from, is not recorded")


def test_page_has_no_keys_of_a_store(named_run: Path, tmp_path: Path) -> None:
    run = open_run(Path(shutil.copytree(named_run, tmp_path / "run")))
    secret = replace(run, recipe=run.recipe.model_copy(update={"data": "s3://key:secret@bucket/a?token=x"}))
    page = write_report(secret).read_text(encoding="utf-8")
    assert "s3://bucket/a" in page
    assert [word for word in ("//key", "secret", "token") if word in page] == []


def test_bundle_that_carries_its_card_loads(named_run: Path) -> None:
    card = (named_run / "bundle" / "model_card.md").read_text(encoding="utf-8")
    assert card == describe_model(open_run(named_run))


def test_licence_of_weights_is_that_of_their_library() -> None:
    def licence(*options: str) -> str:
        return find_licence(load_recipe("smoke", ["data=x", *options]))

    assert licence().startswith("none needed")
    assert licence("model=timm/resnet50", "weights=pretrained") == "apache-2.0, as timm states it"
    assert licence("weights=s3://bucket/w.pth").startswith("not known here")


def make_predictions(labels: list[int], logits: list[list[float]]) -> Predictions:
    known = pa.table({"sample_id": range(len(labels)), "path": [f"{k}.png" for k in range(len(labels))]})
    return Predictions(["a", "b"], ["甲", "乙"], np.array(labels), np.array(logits, np.float32), known, {})


def test_label_against_a_confident_model_is_shown_with_both_names() -> None:
    predictions = make_predictions([0, 0, 1, 1, 0], [[4, 0], [3, 0], [0, 4], [0, 3], [0, 5]])
    (issue,), number = select_issues(predictions)
    assert (issue.position, issue.asked, number) == (4, 1, 1)
    assert issue.words == ["乙 0.993", "label 甲 0.007"]


def test_maps_are_those_of_each_picture_alone(bundle_path: Path) -> None:
    bundle = Bundle.load(bundle_path)
    images = list(torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    asked = [0, 1, 2, 0, 1]
    for image, number, heat in zip(images, asked, explain_images(bundle, images, asked), strict=True):
        alone = explain(bundle.model, image[None], torch.tensor([number]))[0]
        np.testing.assert_allclose(heat, alone.numpy(), atol=1e-4)


def test_map_colours_only_where_it_says_something() -> None:
    pixels = np.full((2, 2, 3), 100, np.uint8)
    mixed = lay_over(pixels, np.array([[0, 1], [0, 0]], np.float32))
    assert (mixed != pixels).any(axis=2).tolist() == [[False, True], [False, False]]


def test_other_kinds_of_recipe_options_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no option 'report\.image': did you mean 'images'\?"):
        load_recipe("smoke", ["data=x", "report.image=false"])
