"""The class that is looked for: who names it, what it changes, and that no figure of it stands without its name."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from runs import run_dir

import trainer.bundle.__main__ as trainer_bundle
import trainer.decide.__main__ as trainer_decide
import trainer.evaluate.__main__ as trainer_evaluate
import trainer.report.__main__
import trainer.run.__main__ as trainer_run
from shards.cli.ending import run_command
from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.bundle import Bundle, read_bundle_page
from trainer.contract.decision.stored_decision import store_positive
from trainer.contract.metrics import is_of_positive
from trainer.contract.task import ONE_LABEL
from trainer.evaluate.figures.score_figures import name_positive
from trainer.evaluate.metrics.one_label import SPECIFICITIES
from trainer.evaluate.metrics.rule import Rule
from trainer.evaluate.positive import describe_found, find_positive
from trainer.evaluate.rows import Rows
from trainer.loop.loop import judge_rows
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.misfit import refuse_misfit
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import STOP_FILE
from trainer.record.track.curves import trace_pr, trace_roc
from trainer.record.track.track import Tracker
from trainer.record.track.wandb_run import Judged
from trainer.report.reproduce import list_packing
from trainer.report.sources import Finished
from trainer.run.dry_run import _describe_positive
from trainer.run.job import run_rank
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

BINARY = re.compile(r"\b(sensitivity|specificity|AUROC|AUPRC)\b", re.IGNORECASE)


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def done(main: Callable[[list[str]], int], *arguments: str | Path) -> str:
    code, out, err = run(main, *arguments)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy cells, dark ones DEFECTIVE, fewer of them; some are hard to tell."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("cells")
    for (split, count), (name, gray) in itertools.product(
        {"train": 24, "val": 10, "test": 15}.items(), {"DEFECTIVE": 110, "NORMAL": 145}.items()
    ):
        folder = root / "cells" / split / name
        folder.mkdir(parents=True)
        for number in range(count if name == "NORMAL" else count // 2):
            pixels = rng.normal(rng.normal(gray, 15), 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    pack(find_sources(root / "cells"), root / "shards", PackOptions(shard_bytes=60_000))
    return root / "shards"


def name_class(data: Path, positive: str | None, out: Path) -> Path:
    """Return a copy of a dataset in which this class is stored as positive."""
    page = Path(shutil.copytree(data, out)) / "dataset.json"
    content = json.loads(page.read_text()) | ({"positive": positive} if positive else {})
    page.write_text(json.dumps(content))
    return out


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "name=run", "epochs=2"]
    return load_recipe("smoke", [*fixed, "optim.peak_lr=0.01", *options])


def train(data: Path, root: Path, *options: str) -> Path:
    recipe = make_recipe(data, root, *options)
    words = [
        f"{name}={json.dumps(value)}" for name, value in recipe.model_dump(mode="json", exclude_unset=True).items()
    ]
    done(trainer_run.main, "smoke", *words)
    return root / "run"


@pytest.fixture(scope="module")
def plain(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose positive class nobody names."""
    return train(cells, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def said(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, with its first class named, and tracked."""
    return train(cells, tmp_path_factory.mktemp("said"), "positive=DEFECTIVE", "track.tensorboard=true")


def read(folder: Path, part: str = "test") -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "evaluation" / part / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def count(folder: Path, positive: str) -> tuple[int, int, int, int]:
    """How many pictures are of a class, and found; how many others there are, and called so. By hand, from the CSV."""
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = [(row["label"] == positive, row["prediction"] == positive) for row in csv.DictReader(file)]
    there, others = [said for truth, said in rows if truth], [said for truth, said in rows if not truth]
    return len(there), sum(there), len(others), sum(others)


def spell(folder: Path, positive: str, other: str) -> str:
    there, found, others, wrong = count(folder, positive)
    return (
        f"of {there} {positive} pictures {found} {'was' if found == 1 else 'were'} found; "
        f"of {others} {other} pictures {wrong} {'was' if wrong == 1 else 'were'} wrongly called {positive}"
    )


def find_unnamed(text: str, positive: str) -> list[str]:
    """Return the lines in which a binary figure has a number and no class. A table of every class names it by row."""
    lines = [line for line in text.splitlines() if BINARY.search(line) and re.search(r"\d\.\d", line)]
    return [line for line in lines if positive not in line]


def test_figures_of_a_run_are_those_of_the_class_that_its_recipe_names(said: Path, plain: Path) -> None:
    metrics, default = read(said), read(plain)
    assert (metrics["positive"], metrics["positive_by"]) == ("DEFECTIVE", "recipe")
    assert (default["positive"], default["positive_by"]) == ("NORMAL", "default")
    there, found, others, wrong = count(said / "evaluation" / "test", "DEFECTIVE")
    assert (there, others) == (7, 15)
    assert metrics["sensitivity"] == pytest.approx(found / there)
    assert metrics["specificity"] == pytest.approx(1 - wrong / others)
    assert (default["sensitivity"], default["specificity"]) == (metrics["specificity"], metrics["sensitivity"])
    assert {"accuracy", "auroc", "auprc", *SPECIFICITIES} <= metrics.keys() & default.keys()


def test_naming_another_class_changes_no_weight_and_no_identity(said: Path, plain: Path) -> None:
    ours, theirs = read_bundle_page(said / "bundle"), read_bundle_page(plain / "bundle")
    assert (ours.positive, theirs.positive) == ("DEFECTIVE", None)
    assert (ours.weights_sha256, ours.fingerprint()) == (theirs.weights_sha256, theirs.fingerprint())
    assert ours.recipe == theirs.recipe
    assert "positive" not in json.loads((plain / "bundle" / "bundle.json").read_text())  # earlier versions can read it


def test_stopped_run_goes_on_with_another_positive_class_to_the_same_weights(
    cells: Path, said: Path, tmp_path: Path
) -> None:
    first, second = (make_recipe(cells, tmp_path, f"positive={name}") for name in ("NORMAL", "DEFECTIVE"))
    run_dir(first).mkdir(parents=True)
    (run_dir(first) / STOP_FILE).touch()
    assert run_rank(resolve_recipe(first), single_rank(), lambda _: None) == "interrupted"
    (run_dir(first) / STOP_FILE).unlink()
    words = [
        f"{name}={json.dumps(value)}" for name, value in second.model_dump(mode="json", exclude_unset=True).items()
    ]
    done(trainer_run.main, "smoke", *words)
    assert (
        read_bundle_page(run_dir(second) / "bundle").weights_sha256 == read_bundle_page(said / "bundle").weights_sha256
    )
    assert read(run_dir(second))["positive"] == "DEFECTIVE"


def test_best_epoch_does_not_depend_on_the_positive_class() -> None:
    """AUROC may choose it: near 1, probabilities of the first class round to equal ones; those of the second do not."""
    logits = np.array([[60, 0], [50, 0], [55, 0], [45, 0]], np.float32)
    rows = Rows(ONE_LABEL, np.arange(4), np.array([0, 1, 0, 1]), logits, [""] * 4)
    both = [judge_rows(rows, ["DEFECTIVE", "NORMAL"], name) for name in ("DEFECTIVE", "NORMAL")]
    assert [each["auroc"] for each in both] == [1.0, 1.0]
    assert [each["sensitivity"] for each in both] == [1.0, 0.0]


def test_validation_of_each_epoch_is_told_of_the_positive_class(said: Path, plain: Path) -> None:
    ours, theirs = read_metrics(said), read_metrics(plain)
    assert [row["val/positive"] for row in ours] == ["DEFECTIVE"] * 2
    assert [row["val/sensitivity"] for row in ours] == [row["val/specificity"] for row in theirs]


@pytest.mark.parametrize(
    ("recipe", "dataset", "expected"),
    [("DEFECTIVE", "NORMAL", "DEFECTIVE recipe"), (None, "DEFECTIVE", "DEFECTIVE dataset"), (None, None, "None")],
)
def test_recipe_comes_before_dataset(
    cells: Path, tmp_path: Path, recipe: str | None, dataset: str | None, expected: str
) -> None:
    data = open_dataset(name_class(cells, dataset, tmp_path / "data"))
    found = find_positive(make_recipe(cells, tmp_path, f"positive={recipe or 'null'}"), data)
    assert (f"{found.name} {found.said_by}" if found else "None") == expected


def test_evaluation_takes_the_command_before_the_bundle_before_the_dataset(
    cells: Path, plain: Path, tmp_path: Path
) -> None:
    data = name_class(cells, "DEFECTIVE", tmp_path / "data")
    bundle = Path(shutil.copytree(plain / "bundle", tmp_path / "bundle"))

    def judge(where: Path, *more: str) -> tuple[str, str]:
        found = json.loads(done(trainer_evaluate.main, bundle, where, "--out", tmp_path / "out", "--json", *more))
        return found["positive"], found["positive_by"]

    assert judge(data) == ("DEFECTIVE", "dataset")
    store_positive(bundle, "NORMAL")
    assert judge(data) == ("NORMAL", "bundle")
    assert judge(data, "--positive", "DEFECTIVE") == ("DEFECTIVE", "--positive")
    rows = json.loads(
        done(trainer_evaluate.main, "--rows", tmp_path / "out" / "predictions.parquet", "--json", "--threshold", "0.4")
    )
    assert (rows["positive"], rows["decision"]["positive"], rows["positive_by"]) == ("DEFECTIVE", "DEFECTIVE", "rows")


@pytest.mark.parametrize(("positive", "other"), [("DEFECTIVE", "NORMAL"), ("NORMAL", "DEFECTIVE")])
def test_sentence_counts_what_the_rule_in_force_says(said: Path, tmp_path: Path, positive: str, other: str) -> None:
    """At a threshold that half of the pictures reach, so that all four counts are above 0."""
    rows = said / "evaluation" / "test" / "predictions.parquet"
    more = ["--threshold", str(np.median(pq.read_table(rows)[f"probability_{positive}"].to_numpy()))]
    told = done(trainer_evaluate.main, "--rows", rows, "--out", tmp_path, "--positive", positive, *more)
    there, found, others, wrong = count(tmp_path, positive)
    assert 0 < found < there
    assert 0 < wrong < others
    assert f"        {spell(tmp_path, positive, other)}\n" in told
    assert f"positive class: {positive}, set by --positive\n" in told
    assert find_unnamed(told, positive) == []


def test_sentence_of_few_pictures_and_of_more_classes() -> None:
    def tell(confusion: list[list[int]], names: str = "ab") -> str | None:
        return describe_found({"positive": "a", "per_class": dict.fromkeys(names), "confusion": confusion})

    assert tell([[1, 0], [1, 0]]) == "of 1 a picture 1 was found; of 1 b picture 1 was wrongly called a"
    assert tell([[0, 0], [0, 2]]) == "there are no a pictures; of 2 b pictures 0 were wrongly called a"
    assert tell([[5, 1, 0], [2, 9, 0], [1, 0, 9]], "abc") == (
        "of 6 a pictures 5 were found; of 21 other pictures 3 were wrongly called a"
    )
    assert describe_found({"decision": {"rule": "argmax"}, "per_class": {}, "confusion": []}) is None


def strip(page: str) -> str:
    """A page's text, a line for each paragraph, heading and row of a table."""
    page = re.sub(r"<style>.*?</style>|<details>.*?</details>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"</(p|tr|h\d|section|header)>|<br>", "\n", page)))


def test_report_card_and_console_name_the_class_of_every_figure(said: Path) -> None:
    page = strip((said / "report.html").read_text(encoding="utf-8"))
    card = (said / "model_card.md").read_text(encoding="utf-8")
    sentence = spell(said / "evaluation" / "test", "DEFECTIVE", "NORMAL").capitalize().replace("defective", "DEFECTIVE")
    sentence = sentence.replace("normal", "NORMAL")
    for text in (page, card):
        assert f"{sentence}." in text
        assert "Positive class: DEFECTIVE, set by the recipe." in text
        for name in ("sensitivity", "specificity", "AUROC", "sensitivity at specificity 95"):
            assert f"{name} (DEFECTIVE)" in text
        assert find_unnamed(text, "DEFECTIVE") == []
    head = page.partition("Evaluation on test")[0]
    assert f"{sentence}." in head
    words = [
        f"data={load_recipe(str(said / 'recipe.yaml')).data}",
        f"storage.root={said.parent}",
        "name=run",
        "epochs=2",
    ]
    told = done(trainer_run.main, "smoke", *words, "optim.peak_lr=0.01", "track.wandb=disabled", "launch=local")
    assert "was finished before" in told
    assert f"  {spell(said / 'evaluation' / 'test', 'DEFECTIVE', 'NORMAL')}\n" in told
    metrics = read(said)
    for name in ("sensitivity", "specificity"):
        assert f" {name} (DEFECTIVE) {metrics[name]:.4f}" in told


def test_evaluation_prints_the_figures_that_the_class_changes(plain: Path, cells: Path, tmp_path: Path) -> None:
    for positive in ("DEFECTIVE", "NORMAL"):
        out = tmp_path / positive
        told = done(trainer_evaluate.main, plain / "bundle", cells, "--out", out, "--positive", positive)
        assert f"loaded  bundle {plain / 'bundle'}, data {cells}\n" in told
        assert re.search(r"\n +always answering (DEFECTIVE|NORMAL) would have accuracy 0\.", told)
        metrics = json.loads((out / "metrics.json").read_text())
        for name, spelt in (("sensitivity", "sensitivity"), ("specificity", "specificity"), ("auprc", "AUPRC")):
            assert f"{spelt} ({positive}) {metrics[name]:.4f}" in told
        assert find_unnamed(told, positive) == []


def test_default_is_stated_in_words(plain: Path, cells: Path, tmp_path: Path) -> None:
    default = "ositive class: NORMAL, the second of two classes, as nothing names one; "
    texts = [(plain / name).read_text(encoding="utf-8") for name in ("report.html", "model_card.md")]
    texts.append(done(trainer_evaluate.main, plain / "bundle", cells, "--out", tmp_path))
    for text in texts:
        assert default in html.unescape(text)
    plan = _describe_positive(make_recipe(cells, tmp_path), open_dataset(cells))
    assert plan == "NORMAL, the second of two classes, as nothing names one; positive=CLASS chooses another"


def test_finished_run_is_counted_anew_for_another_class(plain: Path, said: Path, tmp_path: Path) -> None:
    """By the command that a run prints; the old run is of an earlier version, whose metrics do not say who named it."""
    folder = Path(shutil.copytree(plain, tmp_path / "runs" / "run"))
    page = folder / "evaluation" / "test" / "metrics.json"
    page.write_text(json.dumps({k: v for k, v in json.loads(page.read_text()).items() if not k.startswith("positive")}))
    done(trainer.report.__main__.main, folder)
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "sensitivity (NORMAL)" in card
    assert "Positive class: NORMAL, the second of two classes" in card

    data = load_recipe(str(folder / "recipe.yaml")).data
    told = done(
        trainer_run.main, "smoke", f"data={data}", f"storage.root={folder.parent}", "name=run", "epochs=2",
        "optim.peak_lr=0.01", "track.wandb=disabled", "launch=local", "positive=DEFECTIVE",
    )  # fmt: skip
    (command,) = re.findall(r"with NORMAL as positive class; `(.*?)` updates it", told)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "trainer.report"]
    before = read_bundle_page(folder / "bundle").fingerprint()
    done(trainer.report.__main__.main, *words[3:])
    ours, theirs = read(folder), read(said)
    assert {name: ours[name] for name in theirs if name != "bundle"} == {
        k: v for k, v in theirs.items() if k != "bundle"
    }
    assert "sensitivity (DEFECTIVE)" in (folder / "bundle" / "model_card.md").read_text(encoding="utf-8")
    assert (Bundle.load(folder / "bundle").page.positive, read_bundle_page(folder / "bundle").fingerprint()) == (
        "DEFECTIVE",
        before,
    )
    assert load_recipe(str(folder / "recipe.yaml")).positive == "DEFECTIVE"
    code, _, err = run(trainer.report.__main__.main, folder, "--positive", "normal")
    assert (code, read(folder)) == (2, ours)
    assert "--positive normal is none of the classes DEFECTIVE, NORMAL; did you mean 'NORMAL'?" in err


def test_decision_is_about_the_stored_class_unless_another_is_named(cells: Path, plain: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(plain / "bundle", tmp_path / "bundle"))
    data = name_class(cells, "NORMAL", tmp_path / "data")
    point = ("--point", "recall>=0.6")
    code, _, err = run(trainer_decide.main, bundle, cells, *point)
    assert code == 2
    assert err.endswith("this bundle has no positive one; add --positive, one of DEFECTIVE, NORMAL\n")
    told = done(trainer_decide.main, bundle, data, *point)
    assert "decision     NORMAL from probability" in told
    store_positive(bundle, "DEFECTIVE")
    told = done(trainer_decide.main, bundle, data, *point)
    assert "decision     DEFECTIVE from probability" in told
    for name in ("recall", "precision", "specificity"):
        assert f"{name} (DEFECTIVE) " in told
    assert "recall (DEFECTIVE)" in done(trainer_decide.main, bundle, data, "--check")
    assert read_bundle_page(bundle).positive == "DEFECTIVE"
    told = done(trainer_decide.main, bundle, data, *point, "--positive", "NORMAL")
    assert "decision     NORMAL from probability" in told


def open_named(data: Path, positive: str) -> tuple[Recipe, Dataset]:
    return load_recipe("smoke", [f"data={data}", f"positive={positive}"]), open_dataset(data)


def test_class_that_the_data_lack_is_refused_and_null_takes_that_of_the_dataset(cells: Path, multi_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_misfit(*open_named(cells, "Defective"))
    assert str(caught.value) == (
        f"positive=Defective is none of the classes DEFECTIVE, NORMAL; did you mean 'DEFECTIVE'? ({cells}); name one "
        "of its classes, or set positive=null, which uses the dataset's: NORMAL, the second of two "
        "classes, as nothing names one"
    )
    for remedy in ("DEFECTIVE", "null"):
        refuse_misfit(*open_named(cells, remedy))
    dataset = open_dataset(multi_path)
    name = dataset.classes[0]
    with pytest.raises(UsageError, match=f"positive={name} names one class, but"):
        refuse_misfit(load_recipe("smoke", [f"data={multi_path}", "loss.name=bce", f"positive={name}"]), dataset)


@pytest.mark.parametrize(("text", "name"), [("1", "1"), ("NORMAL", "NORMAL"), ("'\"08\"'", "08"), ("\"'no'\"", "no")])
def test_class_may_be_called_as_a_number_or_a_truth(text: str, name: str) -> None:
    (word,) = shlex.split(text)
    assert load_recipe("smoke", ["data=x", f"positive={word}"]).positive == name


def test_truth_without_quotes_is_refused_with_a_way_that_works() -> None:
    with pytest.raises(
        UsageError, match=r"positive: expected text, but YAML reads False; quote it, on a command line as"
    ):
        load_recipe("smoke", ["data=x", "positive=no"])


def test_recipes_of_two_classes_name_the_one_that_is_looked_for() -> None:
    named = {name: load_recipe(name).positive for name in ("demo", "elpv", "chest_xray", "covid_ct", "ants_bees")}
    assert named == {
        "demo": "DEFECTIVE",
        "elpv": "DEFECTIVE",
        "chest_xray": "PNEUMONIA",
        "covid_ct": "COVID",
        "ants_bees": None,
    }


def test_trackers_get_each_figure_by_the_name_of_its_class(said: Path) -> None:
    (events,) = (said / "tensorboard").iterdir()
    tags = events.read_bytes()
    for name in (b"val/sensitivity", b"val/auprc", b"test/specificity"):
        assert name + b"__DEFECTIVE_" in tags  # TensorBoard's letters for " (DEFECTIVE)"
    assert b"val/accuracy" in tags
    labels, score = np.array([0, 1, 1]), np.array([[0.9, 0.2, 0.6], [0.1, 0.8, 0.4]]).__getitem__
    metrics = {"sensitivity": 1.0, "auroc": 0.5, "accuracy": 0.5, "positive": "a*b", "positive_by": "recipe"}
    judged = Judged("test", metrics, labels, score, ["a*b", "NORMAL"])
    assert judged.scalars() == {"test/sensitivity (a_b)": 1.0, "test/auroc (a_b)": 0.5, "test/accuracy": 0.5}
    for trace in (trace_roc, trace_pr):
        assert {row[0] for row in trace(labels, score, ["a*b", "NORMAL"], "a*b")} == {"a*b"}
        assert {row[0] for row in trace(labels, score, ["a*b", "NORMAL"])} == {"NORMAL"}


def test_bundle_of_a_bundle_keeps_the_positive_class_unless_another_is_named(
    plain: Path, said: Path, cells: Path, tmp_path: Path
) -> None:
    def bundle(weights: Path, name: str, *more: str | Path) -> str | None:
        done(trainer_bundle.main, weights / "bundle", "--out", tmp_path / name, *more)
        return read_bundle_page(tmp_path / name).positive

    assert bundle(said, "kept") == "DEFECTIVE"
    assert bundle(said, "named", "--positive", "NORMAL") == "NORMAL"
    assert bundle(plain, "unsaid") is None
    data = name_class(cells, "DEFECTIVE", tmp_path / "data")
    assert bundle(plain, "dataset", "--dataset", data) == "DEFECTIVE"
    code, _, err = run(trainer_bundle.main, plain / "bundle", "--out", tmp_path / "x", "--positive", "normal")
    assert (code, (tmp_path / "x").exists()) == (2, False)
    assert "--positive normal is none of the classes DEFECTIVE, NORMAL; did you mean 'NORMAL'?" in err


def test_commands_to_reproduce_a_dataset_name_its_positive_class(said: Path, cells: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(said / "recipe.yaml"))
    for positive in ("DEFECTIVE", None):
        data = open_dataset(name_class(cells, positive, tmp_path / str(positive)))
        (line,) = list_packing(Finished(said, recipe, data, Bundle.load(said / "bundle"), [], {}))
        assert line.endswith("--positive DEFECTIVE") == (positive is not None)


def test_best_values_before_a_restart_keep_the_class_that_they_were_of(cells: Path, said: Path, tmp_path: Path) -> None:
    recipe = make_recipe(cells, tmp_path)
    run_dir(recipe).mkdir(parents=True)
    rows = [{"epoch": 1, "val/sensitivity": 0.9}, {"epoch": 2, "val/sensitivity": 0.2, "val/positive": "DEFECTIVE"}]
    (run_dir(recipe) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracker = Tracker(recipe, run_dir(recipe), 1)
    tracker.start(open_dataset(cells), 0)
    best = tracker._take_best(tracker._name({"epoch": 2, "val/sensitivity": 0.2}, "DEFECTIVE"))
    assert best == {"val/sensitivity (NORMAL)": 0.9, "val/sensitivity (DEFECTIVE)": 0.2}


def test_figures_of_an_earlier_bundle_are_told_by_the_second_of_its_classes(plain: Path) -> None:
    page = read_bundle_page(plain / "bundle")
    assert page.metrics is not None
    assert [name for name in page.metrics if is_of_positive(name, 2)] == ["auroc"]  # either class's is the same
    old = page.model_copy(update={"metrics": {"sensitivity": 0.9, "accuracy": 0.8}, "positive": "DEFECTIVE"})
    assert old.name_metrics() == {"sensitivity (NORMAL)": 0.9, "accuracy": 0.8}


def test_bundle_whose_positive_class_is_none_of_its_classes_is_damaged(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain / "bundle", tmp_path / "bundle"))
    store_positive(folder, "BROKEN")
    with pytest.raises(ShardError, match="positive class BROKEN is none of the classes DEFECTIVE, NORMAL"):
        read_bundle_page(folder)


def test_titles_and_names_know_each_figure_of_the_positive_class() -> None:
    assert name_positive(["DEFECTIVE", "NORMAL"], Rule(ONE_LABEL, 0)) == ", positive: DEFECTIVE"
    assert name_positive(["a", "b", "c"], Rule(ONE_LABEL)) == ""
    assert all(is_of_positive(name, 3) for name in SPECIFICITIES)
    assert [name for name in ("auroc", "auprc", "sensitivity", "f1") if is_of_positive(name, 3)] == ["sensitivity"]
