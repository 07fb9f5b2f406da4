"""`python -m trainer.run` from its first line to the files that it leaves."""

from __future__ import annotations

import contextlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from in_process import command

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.bundle import Bundle
from trainer.evaluate.evaluate import evaluate
from trainer.evaluate.options import EvaluateOptions
from trainer.recipes.file import RECIPES, load_recipe, read_header
from trainer.record.logbook import read_metrics
from trainer.report.__main__ import main as write_report_anew
from trainer.run.__main__ import main

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run(*arguments: str) -> Done:
    """The command in this process; another process would import torch again."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, list(arguments))
    return Done(code, out.getvalue(), err.getvalue())


def options(data: Path, root: Path, *more: str) -> list[str]:
    return [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "epochs=2", *more]


def refusal(*arguments: str) -> str:
    """The one sentence of a command that ends with the caller's mistake."""
    done = run(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    return done.err.removeprefix("error: ").rstrip()


@pytest.fixture(scope="module")
def finished(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Done, Path]:
    """The command line of a finished run, what it printed with --json, and its folder."""
    root = tmp_path_factory.mktemp("runs")
    command = ["smoke", *options(dataset_path, root, "name=done", "evaluate_on=[val, test]", "probes=real")]
    return command, run(*command, "--json"), root / "done"


def test_run_ends_with_exit_code_0_and_one_json_object(finished: tuple[list[str], Done, Path]) -> None:
    _, done, folder = finished
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["run"], result["bundle"]) == (str(folder), str(folder / "bundle"))


def test_json_holds_the_metrics_of_every_evaluated_part(finished: tuple[list[str], Done, Path]) -> None:
    _, done, folder = finished
    on_disk = {
        part: json.loads((folder / "evaluation" / part / "metrics.json").read_text()) for part in ("val", "test")
    }
    assert json.loads(done.out)["evaluation"] == on_disk


def test_run_leaves_the_files_that_the_design_names(finished: tuple[list[str], Done, Path]) -> None:
    folder = finished[2]
    names = ["recipe.yaml", "metrics.jsonl", "curves.png", "report.html", "snapshots", "bundle/bundle.json"]
    names += [f"evaluation/test/{name}" for name in ("metrics.json", "predictions.parquet", "predictions.csv")]
    names += [f"evaluation/test/{name}" for name in ("confusion.png", "curves.png")]
    assert [name for name in names if not (folder / name).exists()] == []


def test_run_says_on_standard_error_what_it_does_line_by_line(finished: tuple[list[str], Done, Path]) -> None:
    """The numbers are those of metrics.jsonl; --json leaves standard output to one object."""
    _, done, folder = finished
    lines = [re.sub(r"^\d\d:\d\d:\d\d |; .* so far.*", "", line) for line in done.err.splitlines()]
    one, two = read_metrics(folder)
    best = "best" if two["val/best_epoch"] == 2 else f"best {two['val/best']:.4f} in epoch 1"
    assert lines == [
        "done: training timm/test_efficientnet_gn (0.10 M parameters) on CPU, 2 epochs of 72 pictures",
        f"epoch 1/2: loss {one['train/loss']:.4g}, val accuracy {one['val/accuracy']:.4f} (best)",
        f"epoch 2/2: loss {two['train/loss']:.4g}, val accuracy {two['val/accuracy']:.4f} ({best})",
        "writing the bundle",
        "evaluating on val: 24 pictures",
        "evaluating on test: 24 pictures",
        "writing the report",
    ]


def test_run_from_random_weights_says_so_and_what_always_one_answer_would_have(
    finished: tuple[list[str], Done, Path], dataset_path: Path
) -> None:
    words = [word for word in finished[0] if word != "--json"]
    lines = run(*words).out.splitlines()
    assert f"loaded  data {dataset_path}; no weights, timm/test_efficientnet_gn started from random numbers" in lines
    assert lines.count("  always answering blue would have accuracy 0.3333") == 2  # test and val, 8 of each class


def test_quiet_run_says_nothing_but_its_result(dataset_path: Path, tmp_path: Path) -> None:
    done = run("smoke", *options(dataset_path, tmp_path, "evaluate_on=[]", "epochs=1"), "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"report  {tmp_path}/smoke/report.html"


@pytest.fixture(scope="module")
def fine_tuned(finished: tuple[list[str], Done, Path], dataset_path: Path) -> tuple[list[str], Path]:
    """A run that begins with the weights of another one: its command line and folder."""
    root = finished[2].parent
    more = ("name=fine", f"weights={finished[2] / 'bundle'}", "epochs=1", "evaluate_on=[]")
    return ["smoke", *options(dataset_path, root, *more)], root / "fine"


def test_what_was_loaded_of_weights_is_said_by_dry_run_and_run_and_the_report_even_when_written_anew(
    fine_tuned: tuple[list[str], Path], finished: tuple[list[str], Done, Path]
) -> None:
    command, folder = fine_tuned
    plan, done = run(*command, "--dry-run"), run(*command)
    (note,) = [line for line in done.err.splitlines() if line.startswith("weights ")]
    assert note.startswith(f"weights {finished[2]}/bundle into ")
    assert " tensors loaded" in note
    assert f"note: {note}" in plan.out.splitlines()
    loaded = f"loaded  data {command[1].removeprefix('data=')}; {note.partition('; ')[0]}"
    assert loaded in done.out.splitlines()
    assert loaded in run(*command).out.splitlines()  # it was finished before
    assert plan.err == ""
    for _ in range(2):
        page = html.unescape((folder / "report.html").read_text())
        assert f": {note}</p>" in page.partition("<h2>Notes</h2>")[2]
        (folder / "report.html").unlink()
        assert run_command(write_report_anew, [str(folder), "--no-images"]) == 0


def test_bundle_is_that_of_the_best_epoch(finished: tuple[list[str], Done, Path]) -> None:
    folder = finished[2]
    rows = read_metrics(folder)
    best = max(rows, key=lambda row: row["val/accuracy"])  # max takes the first of equals, as the run does
    assert Bundle.load(folder / "bundle").page.metrics == {
        name.removeprefix("val/"): value
        for name, value in best.items()
        if name.startswith("val/") and name not in ("val/time_s", "val/predicted")
    }


def test_bundle_has_the_share_of_validation_pictures_that_get_each_label(
    finished: tuple[list[str], Done, Path],
) -> None:
    bundle = Bundle.load(finished[2] / "bundle")
    table = pq.read_table(finished[2] / "evaluation/val/predictions.parquet")
    predicted = table["prediction"].to_pylist()
    assert bundle.page.label_shares == {name: predicted.count(name) / len(predicted) for name in bundle.page.classes}
    assert bundle.page.expected_shares == bundle.page.label_shares


def test_evaluation_of_the_bundle_on_val_is_what_training_said(finished: tuple[list[str], Done, Path]) -> None:
    _, done, folder = finished
    metrics = Bundle.load(folder / "bundle").page.metrics
    evaluated = json.loads(done.out)["evaluation"]["val"]
    assert (evaluated["accuracy"], evaluated["log_loss"]) == (metrics["accuracy"], pytest.approx(metrics["log_loss"]))


def test_report_is_one_page_without_outside_parts(finished: tuple[list[str], Done, Path]) -> None:
    page = (finished[2] / "report.html").read_text()
    assert "http" not in page
    # Five figures for each of two parts, pictures as training saw them, and the course of training.
    assert page.count("data:image/png;base64,") == 12


def test_real_probes_are_validation_pictures(finished: tuple[list[str], Done, Path], pictures: Path) -> None:
    known = {path.read_bytes() for path in (pictures / "val").glob("*/*")}
    assert {path.read_bytes() for path in (finished[2] / "bundle" / "probes").glob("*.bin")} <= known


def test_finished_run_is_left_as_it_is(finished: tuple[list[str], Done, Path]) -> None:
    command, _, folder = finished
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "recipe.yaml" and path.is_file()
    }
    done = run(*command)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{folder} was finished before; choose another name= to train again\n")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_finished_run_whose_data_were_packed_anew_says_that_its_figures_are_of_the_pictures_before(
    pictures: Path, dataset_path: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(dataset_path, tmp_path / "data"))
    command = ["smoke", *options(data, tmp_path, "epochs=1", "evaluate_on=[test]")]
    assert run(*command).code == 0
    assert "has changed since" not in run(*command).out
    shutil.rmtree(data)
    pack(find_sources(pictures), data, PackOptions(shard_bytes=20_000))
    told = run(*command).out
    assert (
        f"note: {data} has changed since (packed again or updated), and the metrics below are for the pictures" in told
    )
    remedy = told.partition("`python -m trainer.evaluate ")[2].partition("`")[0].split(" ")
    done = evaluate(EvaluateOptions(bundle=remedy[0], data=remedy[1], out=tmp_path / "now"))
    assert done.metrics["dataset"] == open_dataset(data).fingerprint()


def test_other_recipe_in_the_folder_of_a_run_is_refused_and_the_difference_named(
    finished: tuple[list[str], Done, Path],
) -> None:
    command, _, folder = finished
    assert refusal(*command, "workers=5", "seed=3") == (
        f"{folder} has a run with another recipe (seed was 0, now 3); choose another name=, or delete that folder"
    )


def test_command_without_a_recipe_says_what_it_needs_and_lists_the_recipes() -> None:
    done = run()
    assert done.code == 2
    assert done.out.startswith("name a recipe, a YAML file or one of those below, and changes to it:\n")
    names = [line.split()[0] for line in done.out.splitlines() if line[:2] == "  " and line[2:3].strip()]
    assert [name for name in names if name != "python"] == sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_list_of_recipes_says_what_each_is_for(path: Path) -> None:
    first = path.read_text().splitlines()[0].removeprefix("# ")
    assert " ".join(first.split()[:12]) in " ".join(run().out.split())


def test_header_of_a_recipe_is_its_first_paragraph_and_its_cost(tmp_path: Path) -> None:
    lines = [
        "# Cats, or dogs:",
        "# which?",
        "#",
        "#   command",
        "#",
        "# Time and hardware: 3 h",
        "# on 8 GPUs.",
        "model: x",
    ]
    (tmp_path / "pets.yaml").write_text("\n".join([*lines, "# not this", ""]))
    header = read_header(tmp_path / "pets.yaml")
    assert (header.purpose, header.cost) == ("Cats, or dogs: which?", "3 h on 8 GPUs.")


def test_recipe_without_a_comment_has_an_empty_header(tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text("model: x\n")
    assert (read_header(tmp_path / "bare.yaml").purpose, read_header(tmp_path / "bare.yaml").cost) == ("", "")


EARLY = """
import sys
from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from trainer.run.__main__ import main

code = run_command(main, ["smoke", "epoch=3", "--dry-run"])
print(code, [name for name in ("torch", "wandb", "ray", "tensorboardX") if name in sys.modules])
"""


def test_mistake_in_the_recipe_is_told_before_torch_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == "2 []\n", done.stderr


def test_unknown_option_is_one_sentence_of_the_real_command() -> None:
    command = [sys.executable, "-m", "trainer.run", "smoke", "epoch=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: no option 'epoch': did you mean 'epochs'? a recipe has ")


def test_missing_dataset_is_refused(tmp_path: Path) -> None:
    assert refusal("smoke", *options(tmp_path / "gone", tmp_path)).startswith(f"{tmp_path}/gone does not exist; ")


def test_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    assert refusal("smoke", *options(tmp_path, tmp_path)).startswith(f"{tmp_path} is not a dataset (it has no ")


@pytest.fixture(scope="module")
def without(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datasets that lack the part of that name; the folder `pictures` beside each is what it was packed of."""
    datasets: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        root = tmp_path_factory.mktemp("without")
        shutil.copytree(pictures, root / "pictures", ignore=shutil.ignore_patterns(part))
        datasets[part] = root / "dataset"
        pack(find_sources(root / "pictures"), datasets[part], PackOptions())
    return datasets


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_dataset_without_a_part_that_the_run_needs_is_refused_before_it_starts(
    without: dict[str, Path], part: str, tmp_path: Path
) -> None:
    sentence = refusal("smoke", *options(without[part], tmp_path / "runs"))
    assert sentence.startswith(f"{without[part]} has no split '{part}'; it has ")
    assert ("evaluate_on=[" in sentence) == (part == "test")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["val", "test"])
def test_packing_as_the_refusal_of_a_missing_part_says_gives_a_run_that_trains(
    without: dict[str, Path], part: str, tmp_path: Path
) -> None:
    sentence = refusal("smoke", *options(without[part], tmp_path / "runs"))
    told = re.search(r"Pack its pictures again into a new folder with (--split \S+), which", sentence)
    assert told, sentence
    packed = command("pack", without[part].parent / "pictures", tmp_path / "new", *told[1].split(" "))
    assert packed.returncode == 0, packed.stderr
    before, after = (open_dataset(path).manifest.splits for path in (without[part], tmp_path / "new"))
    given = "test" if part == "val" else "val"
    assert after[given] == before[given]
    assert after["train"].samples + after[part].samples == before["train"].samples
    done = run("smoke", *options(tmp_path / "new", tmp_path / "runs", "epochs=1"))
    assert done.code == 0, done.err


@pytest.mark.parametrize(("asked", "left"), [("[test]", "[val]"), ("[train, test]", "[train]")])
def test_run_whose_evaluation_lacks_its_split_is_refused_with_what_trains(
    without: dict[str, Path], tmp_path: Path, asked: str, left: str
) -> None:
    sentence = refusal("smoke", *options(without["test"], tmp_path, f"evaluate_on={asked}"))
    told = re.search(r"; or give (evaluate_on=\S+), which does not need test$", sentence)
    assert told, sentence
    assert told[1] == f"evaluate_on={left}"
    done = run("smoke", *options(without["test"], tmp_path, told[1]), "--dry-run")
    assert done.code == 0, done.err


def test_external_set_is_trained_on_once_its_pictures_lie_in_no_split(without: dict[str, Path], tmp_path: Path) -> None:
    sentence = refusal("smoke", *options(without["train"], tmp_path / "runs"))
    assert "pack them without --split test=1 as class folders outside split folders" in sentence
    shutil.copytree(without["train"].parent / "pictures/test", tmp_path / "moved")
    packed = command("pack", tmp_path / "moved", tmp_path / "new")
    assert packed.returncode == 0, packed.stderr
    done = run("smoke", *options(tmp_path / "new", tmp_path / "runs"), "--dry-run")
    assert done.code == 0, done.err


def test_dataset_without_a_test_part_trains_when_nothing_asks_for_it(without: dict[str, Path], tmp_path: Path) -> None:
    done = run("smoke", *options(without["test"], tmp_path, "evaluate_on=[]", "epochs=1"))
    assert done.code == 0, done.err


def test_unknown_model_is_refused(dataset_path: Path, tmp_path: Path) -> None:
    assert refusal("smoke", *options(dataset_path, tmp_path, "model=resnet81")).startswith(
        "no model 'resnet81': did you mean 'resnet18' or "
    )


def test_mistyped_model_does_not_keep_the_folder_from_the_right_one(dataset_path: Path, tmp_path: Path) -> None:
    refusal("smoke", *options(dataset_path, tmp_path, "model=resnet81"))
    done = run("smoke", *options(dataset_path, tmp_path, "evaluate_on=[]", "epochs=1"))
    assert done.code == 0, done.err


def test_printed_recipe_is_the_one_that_would_run() -> None:
    done = run("smoke", "epochs=9", "--print-recipe")
    assert done.code == 0
    assert yaml.safe_load(done.out) == load_recipe("smoke", ["epochs=9"]).model_dump(mode="json")


def test_explained_recipe_is_the_printed_one_with_comments(tmp_path: Path) -> None:
    plain, explained = (
        run("digits", "epochs=9", "--print-recipe"),
        run("digits", "epochs=9", "--print-recipe", "--explain"),
    )
    assert (plain.code, explained.code) == (0, 0)
    (tmp_path / "again.yaml").write_text(explained.out, encoding="utf-8")
    assert run(str(tmp_path / "again.yaml"), "--print-recipe").out == plain.out
    assert (
        "# Passes over the training split.\n# Values: a whole number at least 1. Default: 10.\nepochs: 9\n"
        in explained.out
    )


def test_printing_the_recipe_starts_nothing(tmp_path: Path) -> None:
    run("smoke", f"storage.root={tmp_path}/runs", "--print-recipe")
    assert not (tmp_path / "runs").exists()
