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
from PIL import Image

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.model.cam import explain
from trainer.evaluate.figures.fonts import find_package_font
from trainer.evaluate.predictions import Predictions
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.report import gallery, judged
from trainer.report.__main__ import main
from trainer.report.card import describe_model, find_licence
from trainer.report.cost import list_costs
from trainer.report.gallery import LIKELY, describe_likeness, explain_images, lay_over, select_issues, select_worst
from trainer.report.markup import escape
from trainer.report.options import ReportOptions
from trainer.report.page import write_report
from trainer.report.report import report
from trainer.report.reproduce import list_commands, list_packing, tell_unrecorded
from trainer.report.sources import Finished, record_environment
from trainer.weights.resolve import resolve_recipe


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


def test_page_shows_each_worst_error_with_maps_of_the_given_and_of_the_missed_class(named_run: Path) -> None:
    run = open_run(named_run)
    (evaluation,) = run.evaluations
    worst = select_worst(evaluation.predictions)
    assert worst  # the model has seen one epoch, and some labels are wrong on purpose
    page = read_page(named_run)
    for each in worst:
        path = escape(evaluation.predictions.known["path"][each.position].as_py())
        row = evaluation.predictions.labels[each.position], evaluation.predictions.logits[each.position].argmax()
        missed, given = (escape(run.page.display_names[number]) for number in row)
        views = [(path, "picture"), (f"map of {given} on {path}", given), (f"map of {missed} on {path}", missed)]
        images = (rf"<span><img alt='{re.escape(alt)}' src='data:image/webp[^>]*>{word}</span>" for alt, word in views)
        assert re.search("".join(images), page)


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
    assert "is not a finished run (it has no result.json)" in refusal(str(tmp_path))


def test_other_dataset_is_refused(named_run: Path, dataset_path: Path) -> None:
    assert "is not the dataset that" in refusal(str(named_run), "--data", str(dataset_path))


def test_part_that_was_not_evaluated_is_refused(named_run: Path) -> None:
    sentence = "was evaluated on test, but --part asks for val; leave out --part"
    assert sentence in refusal(str(named_run), "--part", "val")


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
    assert licence("model=timm/resnet50", "weights=pretrained") == "apache-2.0, according to timm"
    assert licence("weights=s3://bucket/w.pth").startswith("unknown")


def make_predictions(labels: list[int], logits: list[list[float]]) -> Predictions:
    known = pa.table({"sample_id": range(len(labels)), "path": [f"{k}.png" for k in range(len(labels))]})
    return Predictions(["a", "b"], ["甲", "乙"], np.array(labels), np.array(logits, np.float32), known, {})


def test_label_against_a_confident_model_is_shown_with_both_names() -> None:
    predictions = make_predictions([0, 0, 1, 1, 0], [[4, 0], [3, 0], [0, 4], [0, 3], [0, 5]])
    (issue,) = select_issues(predictions)
    assert (issue.position, issue.maps) == (4, (("乙", 1), ("甲", 0)))
    assert issue.words == ["乙 0.993", "label 甲 0.007"]


def test_worst_error_of_several_labels_asks_about_the_worst_given_and_the_worst_missed_class() -> None:
    names = ["a", "b", "c", "d"]
    known = pa.table({"sample_id": [0, 1], "path": ["0.png", "1.png"]})
    logits = np.array([[1, 4, -5, -1], [3, -3, -3, -3]], np.float32)
    labels = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])
    worst = {
        each.position: each
        for each in select_worst(Predictions(names, names, labels, logits, known, {"task": "multi-label"}))
    }
    assert worst[0].maps == (("b", 1), ("c", 2))
    assert worst[0].words == ["a;b", "labels c;d", "given b 0.982", "missed c 0.007"]
    assert worst[1].maps == (("b", 1),)  # nothing was given that is not in the labels
    assert worst[1].words == ["a", "labels a;b", "missed b 0.047"]


def list_galleries(page: str) -> tuple[list[str], list[str]]:
    """Return the captions of the worst errors and of the likely label mistakes."""
    worst, issues = (page.partition(f"<h3>{name}</h3>")[2].partition("<h3>")[0] for name in GALLERIES)
    captions = [re.findall("<figcaption>(.*?)</figcaption>", text) for text in (worst, issues)]
    return captions[0], captions[1]


GALLERIES = ("Worst errors", "Likely label mistakes")


def find_path(caption: str) -> str:
    return re.findall("<span class=path>(.*)</span>", caption)[0]


def test_no_picture_is_in_both_galleries_and_likely_mistakes_among_the_worst_are_marked(
    named_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(named_run, tmp_path / "run"))
    predictions = open_run(folder).evaluations[0].predictions
    paths = predictions.known["path"].to_pylist()
    suspects = {escape(paths[each.position]) for each in select_issues(predictions)}
    assert len(suspects) >= 4  # a third of the labels are wrong
    for most in (24, 2):  # all errors fit, or two alone
        monkeypatch.setattr(judged, "MOST", most)
        monkeypatch.setattr(judged, "select_worst", lambda rows, most=most: select_worst(rows, most))
        worst, issues = list_galleries(write_report(open_run(folder)).read_text(encoding="utf-8"))
        above, below = {*map(find_path, worst)}, {*map(find_path, issues)}
        assert above.isdisjoint(below)
        assert below == suspects - above if most == 24 else len(below) == 2
        assert {find_path(each) for each in worst if LIKELY in each} == suspects & above


def test_page_goes_from_the_result_to_pictures_to_tables(named_run: Path) -> None:
    page = read_page(named_run)
    blocks = ["Confusion", *GALLERIES, "Beside validation", "Metrics", "By class", "Calibration"]
    sections = ["Model", "Course of training", "Dataset", "Environment", "To reproduce"]
    order = ["<p class=big>The model reaches accuracy", *(f"<h3>{name}</h3>" for name in blocks)]
    places = [page.index(text) for text in [*order, *(f"<h2>{name}</h2>" for name in sections)]]
    assert page.index("Most confused") < page.index("<h3>Worst errors")
    assert places == sorted(places)
    head = page.partition("<nav>")[0]
    metrics = json.loads((named_run / "evaluation/test/metrics.json").read_text(encoding="utf-8"))
    low, high = metrics["intervals"]["accuracy"]
    told = f"accuracy {metrics['accuracy']:.4f} [{low:.4f}, {high:.4f}] on the 24 test pictures; always answering "
    assert told in head
    assert " would have accuracy 0.5000" in head  # 12 of each class
    assert page.count("The model reaches") == 1


def test_notes_on_norms_and_the_feed_come_after_what_a_reader_wants(named_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(named_run, tmp_path / "run"))
    note = "each rank normalises its own pictures"
    run = replace(open_run(folder), notes=[note])
    head, _, rest = write_report(run).read_text(encoding="utf-8").partition("<h2>Notes</h2>")
    assert note[1:] not in head
    assert f"<p>E{note[1:]}.</p>" in rest
    assert head.index("<h2>Dataset</h2>") > head.index("<h3>Metrics</h3>")


def test_validation_stands_beside_test_with_the_most_frequent_class(named_run: Path) -> None:
    run = open_run(named_run)
    page = read_page(named_run).partition("<h3>Beside validation</h3>")[2]
    assert "<th>test</th><th>validation</th>" in page
    assert run.page.metrics is not None
    assert f"<td>{run.page.metrics['accuracy']:.4f}</td></tr>" in page
    assert "<tr><td>pictures</td><td>24</td><td>12</td></tr>" in page
    assert "accuracy without a model</td><td>0.5000" in page


def test_evaluated_validation_is_the_same_in_the_table(named_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(named_run, tmp_path / "run"))
    shutil.copytree(folder / "evaluation" / "test", folder / "evaluation" / "val")
    page = write_report(open_run(folder)).read_text(encoding="utf-8")
    metrics = json.loads((folder / "evaluation/val/metrics.json").read_text(encoding="utf-8"))
    low, high = metrics["intervals"]["macro_f1"]
    cell = f"<td>{metrics['macro_f1']:.4f}\n[{low:.4f}, {high:.4f}]</td>"
    assert f"<td>macro F1</td>{cell}{cell}</tr>" in page
    assert page.count("<h3>Beside validation</h3>") == 1
    assert page.count("The model reaches") == 2  # that on validation at the top of its section
    assert page.index("Evaluation on val</h2><p class=big>The model reaches") > 0


def test_headings_of_tables_are_words(named_run: Path, several_run: Path) -> None:
    for folder in (named_run, several_run):
        cells = re.findall("<(?:th|h2|h3|summary)>(.*?)</", read_page(folder))
        assert {"training loss", "validation log loss", "learning rate", "pictures a second"} <= {*cells}
        assert [cell for cell in cells if re.search(r"[a-z][_/][a-z]", html.unescape(cell))] == []


def test_size_and_latency_are_those_of_the_bundle(named_run: Path) -> None:
    section = read_page(named_run).partition("<h2>Model</h2>")[2].partition("<h2>")[0]
    run = open_run(named_run)
    parameters = sum(each.numel() for each in run.bundle.model.parameters())
    assert f"{parameters / 1e6:.2f} M parameters, " in section
    assert re.search(r"<td>\d+\.\d ms for one picture, \d+\.\d ms for each of a batch of 16 \(medians", section)
    assert list_costs(run)["latency"] == f"not measured; use `python -m trainer.bench {named_run / 'bundle'}`"


def test_latency_that_was_not_measured_is_not_in_the_environment(named_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(named_run, tmp_path / "run"))
    recipe = resolve_recipe(load_recipe(str(folder / "recipe.yaml"), [f"storage.root={tmp_path}"]))
    assert "latency" not in record_environment(recipe, folder, single_rank(), None)
    assert (folder / "environment.json").is_file()


def blur(seed: int) -> np.ndarray:
    """Return a smooth map float32[24, 24], 0..1."""
    small = np.random.default_rng(seed).random((4, 4)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC))


def test_maps_that_hardly_differ_between_pictures_are_said_to(named_run: Path) -> None:
    same = [0.9 * blur(0) + 0.1 * blur(seed) for seed in range(1, 9)]
    told = describe_likeness(same, [0] * 8)
    assert told is not None
    mean = np.corrcoef([heat.ravel() for heat in same])[np.triu_indices(8, 1)].mean()
    assert f"correlate to {mean:.2f} on average" in told
    assert describe_likeness([blur(seed) for seed in range(1, 9)], [0] * 8) is None
    assert describe_likeness(same[:3], [0] * 3) is None  # too few to say
    assert describe_likeness([np.zeros((24, 24), np.float32)] * 8, [0] * 8) is None
    # Maps of two classes may differ and be the same in each picture all the same.
    mixed = [*(blur(0) for _ in range(4)), *(1 - blur(0) for _ in range(4))]
    assert describe_likeness(mixed, [0] * 4 + [1] * 4) is not None


def test_page_has_the_caveat_where_the_model_sees_the_same_in_every_picture(named_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(named_run, tmp_path / "run"))
    run = open_run(folder)
    same = np.repeat(blur(0)[None], 64, axis=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            gallery,
            "explain_images",
            lambda _bundle, images, _asked: iter(
                [np.asarray(Image.fromarray(same[0]).resize((images[0].shape[-1],) * 2)) for _ in images]
            ),
        )
        page = write_report(run).read_text(encoding="utf-8")
    assert "<p class=note>The maps hardly differ between pictures (those of one class correlate to 1.00" in page


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
