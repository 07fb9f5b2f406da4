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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from several_labels import write_shapes
from sklearn import metrics as sk

import trainer.evaluate.__main__ as trainer_evaluate
import trainer.predict.__main__ as trainer_predict
from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.dataset.read import SampleReader
from shards.errors import ShardError
from shards.order.plan import sequential_refs
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions
from trainer.contract.bundle import Bundle
from trainer.evaluate.evaluate import evaluate
from trainer.evaluate.files import write_evaluation
from trainer.evaluate.options import EvaluateOptions
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.slices import VALUES, _cut_values

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
    code, _, err = run(trainer_evaluate.main, bundle_path, f"{dataset_path}:train", "--out", folder)
    assert code == 0, err
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_hold_every_sample_once(out: Path, dataset_path: Path) -> None:
    ids = [int(row["sample_id"]) for row in read_rows(out / "predictions.csv")]
    assert ids == list(range(open_dataset(dataset_path).split("train").num_samples))


def test_python_evaluates_a_bundle_and_its_rows_anew_and_nothing_is_printed(
    bundle_path: Path, dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = evaluate(EvaluateOptions(bundle=bundle_path, data=dataset_path, out=tmp_path / "first"))
    assert done.folder == tmp_path / "first"
    assert done.metrics == json.loads((done.folder / "metrics.json").read_bytes())
    assert (done.metrics["part"], done.metrics["samples"]) == ("test", 24)
    again = evaluate(EvaluateOptions(rows=done.folder / "predictions.parquet", positive="red", threshold=0.0))
    assert again.folder == done.folder / "threshold-0"
    assert again.metrics["sensitivity"] == 1  # every picture counts as red
    assert capsys.readouterr().out == ""


def test_predictions_name_the_file_that_a_sample_came_from(out: Path, pictures: Path) -> None:
    rows = read_rows(out / "predictions.csv")
    files = {path.relative_to(pictures).as_posix() for path in (pictures / "train").glob("*/*")}
    assert {row["path"] for row in rows} == files
    assert all(row["path"].split("/")[1] == row["label"] for row in rows)


def test_csv_and_parquet_hold_the_same(out: Path) -> None:
    table = pq.read_table(out / "predictions.parquet").to_pylist()
    assert list(table[0]) == [
        "sample_id", "path", "group", "width", "height", "mode", "bytes", "label", "prediction",
        *(f"{kind}_{name}" for kind in ("logit", "probability") for name in CLASSES),
    ]  # fmt: skip
    rows = read_rows(out / "predictions.csv")
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    assert [row["logit_red"] for row in table] == [np.float32(row["logit_red"]) for row in rows]


def test_predictions_know_each_picture_as_it_lies_in_the_folder(out: Path, pictures: Path) -> None:
    for row in pq.read_table(out / "predictions.parquet").to_pylist():
        with Image.open(pictures / row["path"]) as image:
            assert (row["width"], row["height"], row["mode"]) == (*image.size, image.mode)
        assert row["bytes"] == (pictures / row["path"]).stat().st_size


def test_text_has_probabilities_then_truth_and_prediction_one_hot_then_the_path(out: Path) -> None:
    lines = (out / "predictions.txt").read_text(encoding="utf-8").splitlines()
    rows = read_rows(out / "predictions.csv")
    for line, row in zip(lines, rows, strict=True):
        words = line.split(" ")
        assert [float(word) for word in words[:3]] == pytest.approx(
            [float(row[f"probability_{name}"]) for name in CLASSES], abs=5.1e-7
        )
        assert words[3:] == [*one_hot(row["label"]), *one_hot(row["prediction"]), row["path"]]


def one_hot(label: str) -> list[str]:
    return ["1" if name == label else "0" for name in CLASSES]


def test_evaluation_leaves_the_files_that_the_readme_names(out: Path) -> None:
    figures = {"confusion.png", "confusion_normalised.png", "curves.png", "reliability.png", "thresholds.png"}
    rows = {"predictions.parquet", "predictions.csv", "predictions.txt"}
    assert {path.name for path in out.iterdir()} == {"metrics.json", *rows, *figures}


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
    warning = "the weights were fitted to these pictures, so the numbers are too good"
    told = [
        run(trainer_evaluate.main, folder, f"{dataset_path}:{part}", "--out", tmp_path / part)[1].count(warning)
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


@dataclass(frozen=True)
class Saved:
    """Rows of a binary classifier, saved by an evaluation; 30 groups of four, a warning, and a CSV of their sites."""

    path: Path
    truth: np.ndarray
    scores: np.ndarray
    sites: Path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("saved")
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3 == 0
    logits = np.stack([np.zeros(120), rng.normal(truth * 1.5, 1)], axis=1).astype(np.float32)
    known = pa.table(
        {
            "sample_id": np.arange(120),
            "path": [f"test/a b/{number}.png" for number in range(120)],
            "group": [f"patient {number // 4}" for number in range(120)],
            "width": np.arange(120) + 100,
        }
    )
    facts = {"part": "train", "bundle": "0" * 64, "dataset": "1" * 64, "warning": "flattered"}
    predictions = Predictions(["NORMAL", "SICK"], ["正常肺部", "新冠肺炎"], truth.astype(int), logits, known, facts)
    write_evaluation(folder, predictions)
    sites = folder / "sites.csv"
    sites.write_text("path,site\n" + "".join(f"test/a b/{n}.png,{'east' if n < 80 else 'west'}\n" for n in range(110)))
    return Saved(folder / "predictions.parquet", truth, predictions.probabilities[:, 1], sites)


def judge_rows(saved: Saved, out: Path, *options: str | Path) -> dict[str, Any]:
    code, printed, err = run(trainer_evaluate.main, "--rows", saved.path, "--out", out, "--json", *options)
    assert code == 0, err
    result: dict[str, Any] = json.loads(printed)
    assert result == json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_threshold_on_saved_rows_gives_the_metrics_of_that_threshold(
    saved: Saved, tmp_path: Path, threshold: float
) -> None:
    """There is no bundle and no dataset in this test at all."""
    result = judge_rows(saved, tmp_path, "--threshold", str(threshold))
    said = saved.scores >= threshold
    assert result["confusion"] == sk.confusion_matrix(saved.truth, said).tolist()
    expected = {
        "accuracy": sk.accuracy_score(saved.truth, said),
        "sensitivity": sk.recall_score(saved.truth, said),
        "specificity": sk.recall_score(~saved.truth, ~said),
        "macro_f1": sk.f1_score(saved.truth, said, average="macro"),
        "mcc": sk.matthews_corrcoef(saved.truth, said),
        "auroc": sk.roc_auc_score(saved.truth, saved.scores),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert result["decision"] == {"rule": "threshold", "threshold": threshold, "positive": "SICK"}
    assert [row["prediction"] for row in read_rows(tmp_path / "predictions.csv")] == [
        "SICK" if each else "NORMAL" for each in said
    ]


def test_saved_rows_keep_what_they_are_of(saved: Saved, tmp_path: Path) -> None:
    before = json.loads((saved.path.parent / "metrics.json").read_text(encoding="utf-8"))
    assert judge_rows(saved, tmp_path) == before
    assert (before["part"], before["warning"], before["interval"]["by"]) == ("train", "flattered", "group")
    assert (tmp_path / "predictions.parquet").read_bytes() == saved.path.read_bytes()


def test_rows_with_a_label_that_is_no_class_are_refused(saved: Saved, tmp_path: Path) -> None:
    table = pq.read_table(saved.path)
    names = pa.array(["sick"] * len(table))
    pq.write_table(table.set_column(table.column_names.index("label"), "label", names), tmp_path / "edited.parquet")
    told = refusal(trainer_evaluate.main, "--rows", tmp_path / "edited.parquet", "--out", tmp_path / "out")
    assert "edited.parquet has no rows of an evaluation (120 rows have labels that are no classes)" in told


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_outputs_that_are_not_finite_are_refused_with_the_picture_and_leave_no_file(
    task: str, bad: float, tmp_path: Path
) -> None:
    logits = np.zeros((30, 3), np.float32)
    logits[[7, 9], 1] = bad
    labels = np.arange(30) % 3 if task == "single-label" else np.tile([0, 1, 1], (30, 1))
    known = pa.table({"sample_id": np.arange(30), "path": [f"{number}.png" for number in range(30)]})
    facts = {} if task == "single-label" else {"task": task}
    with pytest.raises(ShardError, match=r"not finite for 2 pictures of 30 \(the first is 7\.png\)"):
        write_evaluation(tmp_path / "out", Predictions([*CLASSES], [*CLASSES], labels, logits, known, facts))
    assert not (tmp_path / "out").exists()


def test_class_that_a_model_rules_out_wholly_is_evaluated_with_its_curves(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    logits[0, 1] = -np.inf  # of a sample of class 0
    known = pa.table({"sample_id": np.arange(30), "path": [f"{number}.png" for number in range(30)]})
    predictions = Predictions([*CLASSES], [*CLASSES], np.arange(30) % 3, logits, known, {})
    result = write_evaluation(tmp_path / "out", predictions)
    expected = sk.roc_auc_score(predictions.labels, predictions.probabilities, multi_class="ovr")
    assert result["auroc"] == pytest.approx(expected)
    assert (tmp_path / "out/curves.png").is_file()


def test_positive_class_can_be_the_first(saved: Saved, tmp_path: Path) -> None:
    result = judge_rows(saved, tmp_path, "--threshold", "0.8", "--positive", "NORMAL")
    said = 1 - saved.scores >= 0.8
    assert result["sensitivity"] == pytest.approx(sk.recall_score(~saved.truth, said))
    assert result["auprc"] == pytest.approx(sk.average_precision_score(~saved.truth, 1 - saved.scores))


def test_slices_hold_the_metrics_of_their_samples(saved: Saved, tmp_path: Path) -> None:
    result = judge_rows(saved, tmp_path, "--by", "site,width", "--by", "group", "--columns", saved.sites)
    said, number = saved.scores > 0.5, np.arange(120)
    parts = {"east": number < 80, "west": (number >= 80) & (number < 110), "(none)": number >= 110}
    sites = {row["value"]: row for row in result["slices"]["site"]}
    assert {name: row["samples"] for name, row in sites.items()} == {"east": 80, "west": 30, "(none)": 10}
    for name, part in parts.items():
        assert sites[name]["accuracy"] == pytest.approx(sk.accuracy_score(saved.truth[part], said[part]))
        assert sites[name]["auroc"] == pytest.approx(sk.roc_auc_score(saved.truth[part], saved.scores[part]))
        low, high = sites[name]["interval"]
        assert low < sites[name]["accuracy"] < high
    assert result["notes"] == {"columns": "10 of 120 samples are not in --columns"}
    assert len(result["slices"]["group"]) == 30
    assert all("interval" not in row for row in result["slices"]["group"])
    rows = read_rows(tmp_path / "slices.csv")
    assert [row["column"] for row in rows] == ["site"] * 3 + ["width"] * 4 + ["group"] * 30
    assert float(rows[0]["accuracy"]) == sites["east"]["accuracy"]


def test_numbers_are_sliced_into_quarters(saved: Saved, tmp_path: Path) -> None:
    rows = judge_rows(saved, tmp_path, "--by", "width")["slices"]["width"]
    assert [(row["value"], row["samples"]) for row in rows] == [
        ("100 to below 129.75", 30),
        ("129.75 to below 159.5", 30),
        ("159.5 to below 189.25", 30),
        ("189.25 to 219", 30),
    ]
    right = (saved.scores > 0.5) == saved.truth
    assert [row["accuracy"] for row in rows] == pytest.approx([part.mean() for part in np.split(right, 4)])


def test_groups_may_come_from_somebody_elses_table(saved: Saved, tmp_path: Path) -> None:
    table = tmp_path / "groups.parquet"
    pq.write_table(pa.table({"sample_id": np.arange(120), "group": [f"h{n % 40}" for n in range(120)]}), table)
    interval = judge_rows(saved, tmp_path / "out", "--columns", table)["interval"]
    assert (interval["by"], interval["units"]) == ("group", 40)
    again = Saved(tmp_path / "out" / "predictions.parquet", saved.truth, saved.scores, saved.sites)
    assert judge_rows(again, tmp_path / "again")["interval"] == interval


@pytest.mark.parametrize(
    "header", ["Sample_ID, Site ,GROUP", "sample_id;Site;group ", "\u200bsample_id\tSite\tgroup\u00a0"]
)
def test_columns_of_somebody_elses_table_are_found_in_spite_of_blanks_and_case(
    saved: Saved, tmp_path: Path, header: str
) -> None:
    delimiter = next(mark for mark in "\t;," if mark in header)
    rows = [delimiter.join((str(n), f" {'ab'[n % 2]}\u00a0", f"h{n % 40}")) for n in range(120)]
    (tmp_path / "sites.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    result = judge_rows(saved, tmp_path / "out", "--columns", tmp_path / "sites.csv", "--by", "Site")
    assert (result["interval"]["by"], result["interval"]["units"]) == ("group", 40)
    assert {row["value"]: row["samples"] for row in result["slices"]["Site"]} == {"a": 60, "b": 60}
    assert result["notes"]["columns"].startswith("columns were renamed because of spaces or case: ")


def test_column_that_may_be_meant_as_groups_is_told_of(saved: Saved, tmp_path: Path) -> None:
    rows = [f"{n},p{n % 40}" for n in range(120)]
    (tmp_path / "sites.csv").write_text("\n".join(["sample_id,patient_id", *rows]))
    notes = judge_rows(saved, tmp_path / "out", "--columns", tmp_path / "sites.csv", "--by", "patient_id")["notes"]
    assert notes["columns"] == "'patient_id' is not used as group; rename it to group for intervals by group"


def test_table_whose_key_has_another_name_is_refused_with_the_likely_one(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "sites.csv").write_text("site,filename\na,1.png\n")
    told = refusal(trainer_evaluate.main, "--rows", saved.path, "--columns", tmp_path / "sites.csv")
    assert (
        "sites.csv has the columns site, filename; it needs sample_id or path; if 'filename' is the path, rename"
        in told
    )


def test_columns_of_a_file_are_sliced_by_for_a_bundle_as_well(
    bundle_path: Path, dataset_path: Path, tmp_path: Path
) -> None:
    sites = tmp_path / "sites.csv"
    paths = [f"val/{name}/{name}.{number}.{'png' if number % 2 else 'jpg'}" for name in CLASSES for number in range(8)]
    sites.write_text("site,path\n" + "".join(f"{number % 2},{path}\n" for number, path in enumerate(paths)))
    arguments = [bundle_path, f"{dataset_path}:val", "--columns", sites, "--by", "site", "--out", tmp_path / "out"]
    code, printed, err = run(trainer_evaluate.main, *arguments)
    assert code == 0, err
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert {row["path"]: row["site"] for row in rows} == {path: number % 2 for number, path in enumerate(paths)}
    right = [[row["label"] == row["prediction"] for row in rows if row["site"] == site] for site in (0, 1)]
    for site in (0, 1):
        assert f"  site {site}: accuracy {np.mean(right[site]):.4f} on 12\n" in printed


def test_slices_of_an_earlier_evaluation_go(saved: Saved, tmp_path: Path) -> None:
    judge_rows(saved, tmp_path, "--by", "group")
    assert (tmp_path / "slices.csv").exists()
    judge_rows(saved, tmp_path)
    assert not (tmp_path / "slices.csv").exists()


def test_column_of_many_values_ends_in_one_slice_of_the_others() -> None:
    column = pa.chunked_array([[f"v{number // 2:03}" for number in range(240)] + ["v000"]])
    cut = list(_cut_values(column))
    assert [name for name, _ in cut[:2]] == ["v000", "v001"]
    assert (len(cut), cut[-1][0], int(cut[-1][1].sum())) == (VALUES + 1, "(20 others)", 40)
    assert sum(chosen.astype(int) for _, chosen in cut).tolist() == [1] * 241


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--rows", "gone.parquet"],
            "gone.parquet does not exist; an evaluation writes its rows to",
        ),
        (["--rows", "SITES"], "sites.csv has no rows of an evaluation ("),
        (["--rows", "ROWS", "BUNDLE"], "name a bundle and a split, such as runs/demo/bundle data/elpv-shards:test, or"),
        (["BUNDLE"], "name a bundle and a split, such as runs/demo/bundle data/elpv-shards:test, or only --rows"),
        (["--rows", "ROWS", "--by", "age"], "--by age: the samples have the columns group, width; give others with"),
        (["--rows", "ROWS", "--positive", "ILL"], "--positive ILL is none of the classes NORMAL, SICK"),
        (["--rows", "ROWS", "--threshold", "30"], "--threshold is a probability and must be in 0..1, got 30"),
        (["--rows", "ROWS", "--columns", "TWICE"], "twice.csv has 1 samples twice, for example sample_id 3"),
        (["--rows", "ROWS", "--columns", "ALONE"], "alone.csv has only the column path, so there is nothing to slice"),
        (["--rows", "ROWS", "--columns", "TAKEN"], "taken.csv has the column label, which an evaluation writes itself"),
        (
            ["--rows", "ROWS", "--columns", "KEYLESS"],
            "keyless.csv has the columns site, age; it needs",
        ),
        (
            ["--rows", "ROWS", "--columns", "STRANGE"],
            "none of the 120 samples has its path in --columns",
        ),
        (
            ["--rows", "ROWS", "--out", "HERE"],
            "is the folder of --rows, whose files would be overwritten; choose another one",
        ),
        (
            ["BUNDLE", "DATA:val", "--by", "age"],
            "--by age: the samples have the columns group, width, height, mode",
        ),
        (
            ["BUNDLE", "DATA:val", "--threshold", "0.5"],
            "--threshold 0.5 applies to one class",
        ),
    ],
)
def test_mistake_about_rows_is_one_sentence(
    options: list[str], sentence: str, saved: Saved, bundle_path: Path, dataset_path: Path, tmp_path: Path
) -> None:
    tables = {
        "TWICE": "sample_id,site\n3,a\n3,b\n",
        "ALONE": "path\na\n",
        "TAKEN": "path,label\na,b\n",
        "KEYLESS": "site,age\na,1\n",
        "STRANGE": "path,site\na,b\n",
    }
    places = {"BUNDLE": bundle_path, "ROWS": saved.path, "SITES": saved.sites, "HERE": saved.path.parent}
    for name, text in tables.items():
        places[name] = tmp_path / f"{name.lower()}.csv"
        places[name].write_text(text)
    filled = [str(places.get(word, word)).replace("DATA", str(dataset_path)) for word in options]
    assert sentence in refusal(trainer_evaluate.main, *filled)


def refusal(main: Callable[[list[str]], int], *arguments: str | Path) -> str:
    code, printed, err = run(main, *arguments)
    assert (code, printed, err.count("\n")) == (2, "", 1), err
    return err.removeprefix("error: ").rstrip()


@pytest.fixture(scope="module")
def whole(bundle_path: Path, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of the bundle's evaluation on test, by the name of the picture below its split."""
    out = tmp_path_factory.mktemp("whole")
    evaluate(EvaluateOptions(bundle=bundle_path, data=f"{dataset_path}:test", out=out))
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    return {row["path"].partition("/")[2]: row for row in rows}


@pytest.mark.parametrize(("kept", "flat"), [(("green", "red"), True), (("red",), False)])
def test_external_set_that_lacks_classes_is_evaluated_by_their_names(
    bundle_path: Path,
    pictures: Path,
    whole: dict[str, dict[str, Any]],
    tmp_path: Path,
    kept: tuple[str, ...],
    flat: bool,
) -> None:
    for name in kept:
        shutil.copytree(pictures / "test" / name, tmp_path / "new" / ("" if flat else "test") / name)
    shares = {"test": 1.0} if flat else {"val": 0.1, "test": 0.1}
    pack(
        find_sources(tmp_path / "new", incomplete=flat),
        tmp_path / "set",
        PackOptions(split=SplitOptions(shares=shares)),
    )
    assert open_dataset(tmp_path / "set").classes == list(kept)
    code, printed, err = run(trainer_evaluate.main, bundle_path, tmp_path / "set", "--out", tmp_path / "out")
    assert code == 0, err
    missing = [name for name in CLASSES if name not in kept]
    assert (f"note: no picture is of {', '.join(missing)}, which the bundle has" in printed) == bool(missing)
    rows = pq.read_table(tmp_path / "out/predictions.parquet").to_pylist()
    assert len(rows) == 8 * len(kept)
    for row in rows:
        same = whole[row["path"].removeprefix("test/")]
        assert {key: row[key] for key in ("label", "prediction", *(f"logit_{name}" for name in CLASSES))} == {
            key: pytest.approx(same[key], abs=1e-4) if key.startswith("logit") else same[key]
            for key in ("label", "prediction", *(f"logit_{name}" for name in CLASSES))
        }
    metrics = json.loads((tmp_path / "out/metrics.json").read_bytes())
    assert metrics["accuracy"] == np.mean([row["label"] == row["prediction"] for row in rows])
    assert np.sum(metrics["confusion"], axis=1).tolist() == [8 * (name in kept) for name in CLASSES]


def test_class_that_is_spelt_otherwise_is_named(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "test/red", tmp_path / "new/test/Red")
    pack(find_sources(tmp_path / "new"), tmp_path / "set", PackOptions(positive="Red"))
    _, printed, _ = run(trainer_evaluate.main, bundle_path, tmp_path / "set", "--out", tmp_path / "out")
    assert f"note: {tmp_path}/set: the class 'Red' is matched to the bundle's 'red'" in printed
    assert json.loads((tmp_path / "out/metrics.json").read_bytes())["positive"] == "red"


def test_external_set_of_several_labels_is_evaluated_by_their_names(several_run: Path, tmp_path: Path) -> None:
    listed = write_shapes(tmp_path / "shapes", {"test": 4}).read_text().splitlines()
    kept = [listed[0], *(row for row in listed[1:] if "bars" not in row)]
    (tmp_path / "shapes/new.csv").write_text("\n".join([*kept, ""]))
    pack(find_sources(tmp_path / "shapes/new.csv"), tmp_path / "set", PackOptions())
    found = open_dataset(tmp_path / "set")
    assert (found.classes, found.manifest.task) == (["disc", "square"], "multi-label")
    code, _, err = run(trainer_evaluate.main, several_run / "bundle", tmp_path / "set", "--out", tmp_path / "out")
    assert code == 0, err
    for row in pq.read_table(tmp_path / "out/predictions.parquet").to_pylist():
        assert set(filter(None, row["label"].split(";"))) == {
            name for name in ("disc", "square") if name in next(each for each in kept if row["path"] in each)
        }


def test_class_that_the_bundle_does_not_know_is_refused_and_so_are_two_for_one(
    bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    for name in ("pink", "Red"):
        shutil.copytree(pictures / "test/red", tmp_path / name / "test" / name)
        shutil.copytree(pictures / "test/blue", tmp_path / name / "test" / ("blue" if name == "pink" else "red"))
        listed = find_sources(tmp_path / name, alike="keep")
        pack(listed, tmp_path / f"{name}-set", PackOptions(audit="none"))
        told = refusal(trainer_evaluate.main, bundle_path, tmp_path / f"{name}-set", "--out", tmp_path / "out")
        apart = "-set keeps the classes Red and red apart, but the bundle only has red"
        assert (apart if name == "Red" else "-set has a class 'pink', which the bundle does not have") in told
    # The remedies: one class of both, and the pictures of the other left out.
    pack(find_sources(tmp_path / "Red", alike="join", incomplete=True), tmp_path / "joined", PackOptions(audit="none"))
    assert run(trainer_evaluate.main, bundle_path, tmp_path / "joined", "--out", tmp_path / "out")[0] == 0
    shutil.rmtree(tmp_path / "pink/test/pink")
    pack(find_sources(tmp_path / "pink"), tmp_path / "left", PackOptions())
    assert run(trainer_evaluate.main, bundle_path, tmp_path / "left", "--out", tmp_path / "out")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["BUNDLE", "DATA:dev"], "DATA:dev: a dataset has the splits train, val and test, got 'dev'"),
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
    assert fill(sentence) in refusal(trainer_evaluate.main, *map(fill, arguments), *out)
    assert not (tmp_path / "out").exists()


def test_predict_labels_every_picture_of_a_folder(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    code, _, err = run(trainer_predict.main, bundle_path, pictures / "test", "--out", tmp_path / "labels.csv")
    assert code == 0, err
    rows = read_rows(tmp_path / "labels.csv")
    assert {row["path"] for row in rows} == {str(path) for path in (pictures / "test").glob("*/*")}


def test_predict_says_what_evaluation_says(out: Path, bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    code, printed, err = run(trainer_predict.main, bundle_path, pictures / "train", "--json")
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
    code, printed, err = run(trainer_predict.main, bundle_path, tmp_path)
    assert code == 0
    assert run(trainer_predict.main, bundle_path, tmp_path, "--strict")[0] == 3
    assert [row["path"] for row in csv.DictReader(io.StringIO(printed))] == sorted(str(tmp_path / p.name) for p in good)
    assert err.startswith(f"{tmp_path}/cut.jpg: ")
    assert err.endswith("1 of 3 pictures could not be read; all others are done\n")


def test_missing_picture_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "gone.jpg") in refusal(trainer_predict.main, bundle_path, tmp_path / "gone.jpg")
