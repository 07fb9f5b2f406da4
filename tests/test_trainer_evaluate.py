"""What a bundle says of labelled and unlabelled pictures, through the command lines and without them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import trainer.evaluate
import trainer.predict
from shards.command import run_command
from shards.dataset import open_dataset
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.plan import sequential_refs
from shards.read import SampleReader
from shards.sources.find import find_sources
from trainer.contract.bundle import Bundle

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent
CLASSES = ("blue", "green", "red")


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def out(bundle_path: Path, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an evaluation on train, which has more than one chunk."""
    folder = tmp_path_factory.mktemp("evaluation")
    code, _, err = run(trainer.evaluate.main, bundle_path, f"{dataset_path}:train", "--out", folder)
    assert code == 0, err
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_hold_every_sample_once(out: Path, dataset_path: Path) -> None:
    ids = [int(row["sample_id"]) for row in read_rows(out / "predictions.csv")]
    assert ids == list(range(open_dataset(dataset_path).split("train").num_samples))


def test_predictions_name_the_file_that_a_sample_came_from(out: Path, pictures: Path) -> None:
    rows = read_rows(out / "predictions.csv")
    files = {path.relative_to(pictures).as_posix() for path in (pictures / "train").glob("*/*")}
    assert {row["path"] for row in rows} == files
    assert all(row["path"].split("/")[1] == row["label"] for row in rows)


def test_csv_and_parquet_hold_the_same(out: Path) -> None:
    table = pq.read_table(out / "predictions.parquet").to_pylist()
    rows = read_rows(out / "predictions.csv")
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    assert [row["logit_red"] for row in table] == [np.float32(row["logit_red"]) for row in rows]


def test_metrics_are_those_of_the_predictions(out: Path) -> None:
    rows, metrics = read_rows(out / "predictions.csv"), json.loads((out / "metrics.json").read_text())
    assert metrics["samples"] == len(rows)
    assert metrics["accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in rows]))
    assert metrics["log_loss"] == pytest.approx(
        -np.mean([np.log(float(row[f"probability_{row['label']}"])) for row in rows])
    )


def test_evaluation_gives_the_logits_of_the_bundle(out: Path, bundle_path: Path, dataset_path: Path) -> None:
    """Training's evaluation and whoever loads the bundle see the same pictures and the same weights."""
    bundle, split = Bundle.load(bundle_path), open_dataset(dataset_path).split("train")
    refs = sequential_refs(split.counts, 0, split.num_samples)
    with SampleReader(split) as reader:
        places = zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)
        images = torch.stack([bundle.prepare(reader.read_one(*place).data) for place in places])
    table = pq.read_table(out / "predictions.parquet")
    evaluated = np.stack([table[f"logit_{name}"].to_numpy() for name in CLASSES], axis=1)
    expected = bundle.compute_logits(images).numpy()
    assert np.abs(evaluated - expected).max() <= 1e-4 * np.abs(expected).max()


def test_evaluation_on_the_training_part_says_so(bundle_path: Path, dataset_path: Path, tmp_path: Path) -> None:
    """The bundle has to be of this dataset: weights that never saw it are not flattered."""
    folder = shutil.copytree(bundle_path, tmp_path / "bundle")
    page = json.loads((folder / "bundle.json").read_text())
    page["dataset"] = open_dataset(dataset_path).fingerprint()
    (folder / "bundle.json").write_text(json.dumps(page))
    warning = "these are the pictures that the weights were fitted to; the numbers flatter them"
    told = [
        run(trainer.evaluate.main, folder, f"{dataset_path}:{part}", "--out", tmp_path / part)[1].count(warning)
        for part in ("train", "val")
    ]
    assert told == [1, 0]


def test_evaluation_is_a_command(bundle_path: Path, dataset_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.evaluate", str(bundle_path), str(dataset_path), "--json"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "metrics.json").read_text())
    assert json.loads(done.stdout)["part"] == "test"


def refusal(main: Callable[[list[str]], int], *arguments: str | Path) -> str:
    code, printed, err = run(main, *arguments)
    assert (code, printed, err.count("\n")) == (2, "", 1), err
    return err.removeprefix("error: ").rstrip()


def test_dataset_of_other_classes_is_refused_with_both_lists(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "pictures", ignore=shutil.ignore_patterns("red"))
    pack(find_sources(tmp_path / "pictures"), tmp_path / "two", PackOptions())
    assert refusal(trainer.evaluate.main, bundle_path, f"{tmp_path}/two:val", "--out", tmp_path / "out") == (
        "the bundle knows the classes blue, green, red, the dataset has blue, green; "
        "labels would not mean the same, so nothing was evaluated"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["BUNDLE", "DATA:dev"], "DATA:dev: a dataset has the parts train, val and test, got 'dev'"),
        (["BUNDLE", "gone:val"], "/gone does not exist; make one with `python -m shards pack PICTURES "),
        (["gone", "DATA:val"], "gone does not exist; a finished run keeps its bundle in runs/NAME/bundle"),
        (["BUNDLE", "DATA", "--num-ranks", "0"], "num_ranks is a number of processes and must be at least 1, got 0"),
        (["BUNDLE", "DATA", "--workers", "0"], "--workers is a number of threads and must be at least 1, got 0"),
    ],
)
def test_mistake_is_one_sentence(
    arguments: list[str], sentence: str, bundle_path: Path, dataset_path: Path, tmp_path: Path
) -> None:
    places = {"BUNDLE": str(bundle_path), "DATA": str(dataset_path)}

    def fill(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    out = ["--out", str(tmp_path / "out")]
    assert fill(sentence) in refusal(trainer.evaluate.main, *map(fill, arguments), *out)
    assert not (tmp_path / "out").exists()


def test_predict_labels_every_picture_of_a_folder(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    code, _, err = run(trainer.predict.main, bundle_path, pictures / "test", "--out", tmp_path / "labels.csv")
    assert code == 0, err
    rows = read_rows(tmp_path / "labels.csv")
    assert {row["path"] for row in rows} == {str(path) for path in (pictures / "test").glob("*/*")}


def test_predict_says_what_evaluation_says(out: Path, bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    code, printed, err = run(trainer.predict.main, bundle_path, pictures / "train", "--json")
    assert code == 0, err
    predicted = {Path(row["path"]).name: row for row in map(json.loads, printed.splitlines())}
    evaluated = {Path(row["path"]).name: row for row in read_rows(out / "predictions.csv")}
    assert set(predicted) == set(evaluated)
    for name, row in evaluated.items():
        assert [predicted[name]["probabilities"][colour] for colour in CLASSES] == pytest.approx(
            [float(row[f"probability_{colour}"]) for colour in CLASSES], rel=1e-4
        )


def test_unreadable_picture_is_named_and_the_others_are_labelled(
    bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    good = sorted((pictures / "test" / "red").iterdir())[:2]
    for path in good:
        shutil.copy(path, tmp_path)
    (tmp_path / "cut.jpg").write_bytes(good[0].read_bytes()[:100])
    code, printed, err = run(trainer.predict.main, bundle_path, tmp_path)
    assert code == 3
    assert [row["path"] for row in csv.DictReader(io.StringIO(printed))] == sorted(str(tmp_path / p.name) for p in good)
    assert err.startswith(f"{tmp_path}/cut.jpg: ")
    assert err.endswith("1 of 3 pictures could not be read; the others are done\n")


def test_missing_picture_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "gone.jpg") in refusal(trainer.predict.main, bundle_path, tmp_path / "gone.jpg")
