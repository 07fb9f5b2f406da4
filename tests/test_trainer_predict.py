"""Prediction by the command line: whatever holds pictures, any number of them, stopped and gone on with."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import COLOURS, make_bundle
from PIL import Image

import trainer.predict.__main__ as trainer_predict
from shards.cli.ending import run_command
from shards.errors import UsageError
from shards.sources.folder import list_pictures
from shards.sources.walk import walk_pictures
from shards.storage.storage import open_storage
from trainer.contract.bundle import Bundle, read_bundle_page, save_bundle
from trainer.contract.decision.conformal import ConformalSets
from trainer.contract.decision.decision import Decision, Fitted
from trainer.contract.decision.stored_decision import store_decision
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.probes import synthesise_pictures
from trainer.predict.answer import Row, answer_stream
from trainer.predict.grid import find_truth, make_title
from trainer.predict.options import PredictOptions
from trainer.predict.partial import Partial, name_partial
from trainer.predict.predict import predict as predict_rows
from trainer.unpacked.ahead import AHEAD, Speed
from trainer.unpacked.asked import Place, find_asked
from trainer.unpacked.parts import Files, Picture

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent


def predict(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(trainer_predict.main, [str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)
    return code, out.getvalue(), err.getvalue()


def ask(*arguments: object) -> list[dict[str, Any]]:
    """Rows of a command that must end well, as JSON."""
    code, out, err = predict(*arguments, "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers within a millisecond."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    return make_bundle(folder, pictures, "timm/test_resnet", PreprocessSpec(size=32))


@pytest.fixture(scope="module")
def of_folder(small_path: Path, pictures: Path) -> dict[str, dict[str, Any]]:
    """The answers for the test pictures in a folder, by file name."""
    rows = ask(small_path, pictures / "test")
    assert len(rows) == 24
    return {Path(row["path"]).name: row for row in rows}


def test_python_gets_rows_or_a_file_and_nothing_is_printed(
    small_path: Path, pictures: Path, of_folder: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pictures / "test" / "red", tmp_path / "red")
    (tmp_path / "red" / "x.png").write_bytes(b"no picture")
    told: list[str] = []
    done = predict_rows(PredictOptions(bundle=small_path, paths=[tmp_path / "red"]), report=told.append)
    assert (done.pictures, done.unreadable) == (9, 1)
    assert [row.answer and row.answer["label"] for row in done.rows] == [
        of_folder[Path(row.path).name]["label"] if row.unreadable is None else None for row in done.rows
    ]
    bad = next(row for row in done.rows if row.unreadable is not None)
    assert told == [f"{tmp_path / 'red' / 'x.png'}: {bad.unreadable}"]
    out = tmp_path / "answers.csv"
    filed = predict_rows(
        PredictOptions(bundle=small_path, paths=[tmp_path / "red"], out=out, columns=["path", "label"])
    )
    assert (filed.pictures, filed.unreadable, filed.rows) == (9, 1, [])
    assert [row["path"] for row in read_csv(out)] == [row.path for row in done.rows if row.unreadable is None]
    assert capsys.readouterr() == ("", "")


# what may be asked about


def make_zip(root: Path, pictures: Path, _s3: Callable[[], str]) -> list[str]:
    with zipfile.ZipFile(root / "test.zip", "w") as file:
        for path in sorted((pictures / "test").glob("*/*")):
            file.write(path, path.relative_to(pictures))
    return [str(root / "test.zip")]


def make_tar(ending: str) -> Callable[[Path, Path, Callable[[], str]], list[str]]:
    def make(root: Path, pictures: Path, _s3: Callable[[], str]) -> list[str]:
        with tarfile.open(root / "plain.tar", "w") as file:
            file.add(pictures / "test", "test")
        if ending == "tar.zst":
            import pyarrow as pa

            with pa.output_stream(str(root / "test.tar.zst"), compression="zstd") as packed:
                packed.write((root / "plain.tar").read_bytes())
        elif ending == "tar.gz":
            with tarfile.open(root / "test.tar.gz", "w:gz") as file:
                file.add(pictures / "test", "test")
        else:
            (root / "plain.tar").rename(root / "test.tar")
        return [str(root / f"test.{ending}")]

    return make


def make_webdataset(root: Path, pictures: Path, _s3: Callable[[], str]) -> list[str]:
    (root / "tars").mkdir()
    for colour in COLOURS:
        with tarfile.open(root / "tars" / f"{colour}.tar", "w") as file:
            for path in sorted((pictures / "test" / colour).iterdir()):
                file.add(path, path.name)
                label = tarfile.TarInfo(f"{path.stem}.cls")
                label.size = 1
                file.addfile(label, io.BytesIO(b"0"))
    return [str(root / "tars")]


def make_list(root: Path, pictures: Path, _s3: Callable[[], str]) -> list[str]:
    lines = ["path,who", *(f"{path},me" for path in (pictures / "test").glob("*/*"))]
    (root / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return [str(root / "list.csv")]


def make_text(root: Path, pictures: Path, _s3: Callable[[], str]) -> list[str]:
    names = [os.path.relpath(path, root) for path in (pictures / "test").glob("*/*")]
    (root / "list.txt").write_text("\n".join(names) + "\n\n", encoding="utf-8")
    return ["--list", str(root / "list.txt")]


def make_glob(_root: Path, pictures: Path, _s3: Callable[[], str]) -> list[str]:
    return [str(pictures / "test" / "*" / "*.jpg"), str(pictures / "te*" / "**" / "*.png")]


def make_prefix(_root: Path, pictures: Path, store: Callable[[], str]) -> list[str]:
    uri = store().format(path="plain")
    storage = open_storage(uri)
    for path in (pictures / "test").glob("*/*"):
        storage.write(str(path.relative_to(pictures)), path.read_bytes())
    storage.write("test/notes.txt", b"none")
    return [uri]


KINDS = {
    "zip": make_zip,
    "tar": make_tar("tar"),
    "tar.gz": make_tar("tar.gz"),
    "tar.zst": make_tar("tar.zst"),
    "webdataset": make_webdataset,
    "csv": make_list,
    "text": make_text,
    "glob": make_glob,
    "s3": make_prefix,
    "gcs": make_prefix,
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_holds_the_pictures_the_answers_are_those_of_the_folder(
    kind: str,
    small_path: Path,
    pictures: Path,
    of_folder: dict[str, dict[str, Any]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    arguments = KINDS[kind](tmp_path, pictures, lambda: str(request.getfixturevalue(kind)))
    check_same(ask(small_path, *arguments), of_folder)
    if "--list" not in arguments:
        check_travels(arguments)


def test_names_in_an_archive_are_read_in_the_encoding_that_the_user_gives(
    small_path: Path, pictures: Path, of_folder: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="cp850") as file:
        for path in (pictures / "test").glob("*/*"):
            file.add(path, f"Käfer/ð {path.name}")
    rows = ask(small_path, tmp_path / "x.tar", "--names", "cp850")
    check_same([row | {"path": row["path"].replace("ð ", "")} for row in rows], of_folder)
    assert all(row["path"].startswith(f"{tmp_path}/x.tar/Käfer/ð ") for row in rows)
    _, out, err = predict(small_path, tmp_path / "x.tar", "--json")
    assert "which is a guess: 'K" in err
    assert "give the encoding with --names (cp850, " in err
    assert "Käfer/ð" not in out
    code, _, err = predict(small_path, pictures / "test", "--names", "cp850")
    assert (code, err.strip()) == (
        2,
        "error: --names applies to archives (.zip, .tar), and none is given; remove the option",
    )


def check_travels(paths: list[str]) -> None:
    """What another machine is sent reads the same bytes, and does not carry the names of all pictures."""
    asked = find_asked(paths)
    place = list(asked.list())[-1]
    sent = pickle.dumps(asked.parts)
    read = [part.read(place.picture.key) for part in (asked.parts[place.part], pickle.loads(sent)[place.part])]
    assert read[0] == read[1] != b""
    names = [each.picture.path.rpartition("/")[2].encode() for each in asked.list()]
    assert all(isinstance(part, Files) or not any(name in sent for name in names) for part in asked.parts)


def check_same(rows: list[dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    assert sorted(Path(row["path"]).name for row in rows) == sorted(expected)
    for row in rows:
        other = expected[Path(row["path"]).name]
        assert row["label"] == other["label"]
        assert row["probabilities"] == pytest.approx(other["probabilities"], rel=1e-4)


def test_a_split_of_a_packed_dataset_is_answered_here_and_from_a_store(
    small_path: Path, dataset_path: Path, of_folder: dict[str, dict[str, Any]], s3: str, http_shards: str
) -> None:
    check_same(ask(small_path, f"{dataset_path}:test"), of_folder)
    uri = s3.format(path="packed")
    storage = open_storage(uri)
    for path in dataset_path.rglob("*"):
        if path.is_file():
            storage.write(str(path.relative_to(dataset_path)), path.read_bytes())
    check_same(ask(small_path, f"{uri}:test"), of_folder)
    check_same(ask(small_path, f"{http_shards.format(path='packed')}:test"), of_folder)
    check_travels([f"{uri}:test"])
    check_travels([f"{dataset_path}:test"])
    assert len(ask(small_path, uri)) == 120  # all splits


@pytest.mark.parametrize("store", ["s3", "gcs", "http_shards"])
def test_one_picture_of_a_store_is_answered_by_its_name(
    store: str, small_path: Path, pictures: Path, request: pytest.FixtureRequest
) -> None:
    """Its name has a blank and Chinese letters, which a URL encodes."""
    path = next((pictures / "test" / "red").iterdir())
    written = request.getfixturevalue("s3" if store == "http_shards" else store).format(path="single")
    name = f"病人 1{path.suffix}"
    open_storage(written).write(name, path.read_bytes())
    where = request.getfixturevalue(store).format(path="single")
    folder, question_mark, query = where.partition("?")
    asked = f"{folder}/{quote(name) if store == 'http_shards' else name}{question_mark}{query}"
    (row,) = ask(small_path, asked)
    (expected,) = ask(small_path, path)
    assert row["path"] == f"{folder}/{name}"
    assert row["probabilities"] == pytest.approx(expected["probabilities"], rel=1e-4)
    part = pickle.loads(pickle.dumps(find_asked([asked]).parts[0]))  # what another machine is sent
    assert part.read(name) == path.read_bytes()


def test_list_may_hold_urls_beside_paths_and_those_that_are_gone_are_unreadable(
    small_path: Path, pictures: Path, s3: str, http_shards: str, tmp_path: Path
) -> None:
    here, there = sorted((pictures / "test" / "red").iterdir())[:2]
    open_storage(s3.format(path="listed")).write(there.name, there.read_bytes())
    urls = [f"{http_shards.format(path='listed')}/{name}" for name in (there.name, "gone.png")]
    (tmp_path / "list.txt").write_text("\n".join([str(here), *urls, str(there)]))
    code, _, err = predict(small_path, "--list", tmp_path / "list.txt", "--out", tmp_path / "a.csv")
    assert code == 0, err
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(here), urls[0], str(there)]
    assert rows[1]["label"] == rows[2]["label"]
    assert f"{urls[1]},no such object" in (tmp_path / "a.csv.unreadable.csv").read_text()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("plain", "is not a packed dataset (it has no dataset.json), and a web server's files cannot be listed"),
        ("plain:test", "is not a packed dataset (it has no dataset.json); remove the split"),
        ("plain/test.zip", "archives can only be read from disk; download it first"),
        ("plain/list.csv", "lists can only be read from disk; download it first"),
    ],
)
def test_what_a_web_server_cannot_give_is_refused_in_a_sentence(
    name: str, sentence: str, small_path: Path, http_shards: str
) -> None:
    code, out, err = predict(small_path, http_shards.format(path=name))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_list_of_names_alone_is_answered_by_the_options_that_its_refusals_give(
    small_path: Path, pictures: Path, tmp_path: Path, of_folder: dict[str, dict[str, Any]]
) -> None:
    (tmp_path / "images").symlink_to(pictures / "test/red")
    names = [f"red.{number}" for number in (0, 2, 4)]
    asked = tmp_path / "submission.csv"
    asked.write_text("Image_Id,label,patient_id,subset\n" + "".join(f"{name},?,p,test\n" for name in names))
    code, _, err = predict(small_path, asked)
    assert (code, err.rpartition("; give ")[2]) == (2, "--list-columns path=Image_Id\n")
    code, _, err = predict(small_path, "--list", asked, "--list-columns", "path=Image_Id")
    assert f"; give --base {tmp_path}/images --ending .jpg for " in err
    place = ["--base", f"{tmp_path}/images", "--ending", ".jpg"]
    rows = ask(small_path, asked, "--list-columns", "path=Image_Id", *place)
    assert [row["path"] for row in rows] == [f"{tmp_path}/images/{name}.jpg" for name in names]
    check_same(rows, {f"{name}.jpg": of_folder[f"{name}.jpg"] for name in names})
    code, _, err = predict(small_path, pictures / "test", *place)
    assert (code, err) == (
        2,
        "error: --base applies to .csv and .parquet lists, and none is given; remove the option\n",
    )


def test_pictures_come_in_the_order_of_their_names_with_links_followed_once(tmp_path: Path) -> None:
    for name in ("b/2.png", "b.png", "a/x/1.png", "a/y.jpg", "c/.hidden.png", "c/notes.txt", "c/10.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "c" / "above").symlink_to(tmp_path)
    walked = [tmp_path / name for name in walk_pictures(str(tmp_path))]
    assert walked == list_pictures([tmp_path])
    assert [path.name for path in walked] == ["1.png", "y.jpg", "2.png", "b.png", "10.PNG"]
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(walk_pictures(str(tmp_path)))[-1] == "gone.png"  # it was meant, so somebody should hear of it


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("PICTURES/nothing.png", "no such picture or folder: "),
        ("PICTURES/*.bmp", "no pictures match "),
        ("EMPTY", "no pictures in "),
        ("DATASET:all", "has no split 'all'; it has train, val, test"),
        ("PICTURES:test", "is not a dataset"),
        ("ftp://host/a", "ftp:// is not supported"),
        ("ftp://host/a/b.png", "ftp:// is not supported; name a path of this machine, s3://, gs:// or http(s)://"),
    ],
)
def test_what_holds_no_pictures_is_refused_in_a_sentence(
    path: str, sentence: str, small_path: Path, pictures: Path, dataset_path: Path, tmp_path: Path
) -> None:
    for name, place in {"PICTURES": pictures, "DATASET": dataset_path, "EMPTY": tmp_path}.items():
        path = path.replace(name, str(place))
    code, out, err = predict(small_path, path, "--out", tmp_path / "a.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_no_path_is_refused(small_path: Path) -> None:
    assert predict(small_path)[::2] == (
        2,
        "error: no PATH given; name pictures or sources of pictures, or use --list FILE\n",
    )


def test_a_file_name_that_is_no_text_is_escaped(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(next((pictures / "test").glob("*/*.png")), name)
    (row,) = ask(small_path, tmp_path)
    assert row["path"] == f"{tmp_path}/caf\\xe9.png"


# streaming


def test_threads_and_batches_change_no_label_and_logits_hardly(
    small_path: Path, pictures: Path, of_folder: dict[str, dict[str, Any]]
) -> None:
    for options in (["--workers", 1], ["--workers", 5, "--batch-size", 3], ["--batch-size", 24, "--workers", "auto"]):
        check_same(ask(small_path, pictures / "test", *options), of_folder)


def test_pictures_are_listed_and_read_only_as_far_ahead_as_the_batches_need(small_path: Path, pictures: Path) -> None:
    bundle, path = Bundle.load(small_path), str(next((pictures / "test").glob("*/*.png")))
    asked = find_asked([path])
    listed = itertools.count(1)
    seen = 0

    def endless() -> Iterator[Place]:
        nonlocal seen
        while True:
            seen = next(listed)
            yield Place(0, Picture(path, path))

    batches = answer_stream(bundle, asked, endless(), Speed(workers=2, batch_size=4))
    for number in range(1, 50):
        assert len(next(batches)) == 4
        assert seen <= (number + AHEAD) * 4
    batches.close()


@pytest.mark.slow
def test_five_thousand_pictures_take_no_more_memory_than_a_few(
    small_path: Path, pictures: Path, tmp_path: Path
) -> None:
    picture = next((pictures / "test").glob("*/*.png"))
    for number in range(5000):
        (tmp_path / f"{number % 50}").mkdir(exist_ok=True)
        os.link(picture, tmp_path / f"{number % 50}" / f"{number}.png")
    bundle, asked = Bundle.load(small_path), find_asked([str(tmp_path)])
    batches = answer_stream(bundle, asked, asked.list(), Speed(workers=2, batch_size=32))
    warm = [len(next(batches)) for _ in range(20)]
    before, most, count = read_memory(), 0, sum(warm)
    for batch in batches:
        count += len(batch)
        most = max(most, read_memory())
    assert count == 5000
    # 4,360 prepared pictures would be 13 MB, and as many answers and encoded pictures as much again;
    # it grows by less than 1 MiB.
    assert most - before < 6 << 20


def read_memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# rows


def test_columns_are_chosen_by_name_and_order(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    picture = next((pictures / "test").glob("*/*.png"))
    code, out, err = predict(small_path, picture, "--columns", "image_id,label")
    assert code == 0, err
    (row,) = ask(small_path, picture)
    assert out.splitlines() == ["image_id,label", f"{picture.stem},{row['label']}"]
    chosen = ask(small_path, picture, "--columns", "probability_red,image_id")
    assert chosen == [{"probability_red": row["probabilities"]["red"], "image_id": picture.stem}]
    for columns, sentence in {"imageid": "there are image_id, path, label", "label,label": "is named twice"}.items():
        code, _, err = predict(small_path, picture, "--columns", columns)
        assert code == 2
        assert sentence in err


@pytest.fixture(scope="module")
def decided_path(small_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle with a decision that has sets and abstains."""
    fitted = Fitted(dataset="0" * 64, part="val", samples=24, notes=[])
    sets = ConformalSets(level=0.9, score="lac", thresholds=[0.7] * 3, samples=24, mean_size=1.5)
    out = tmp_path_factory.mktemp("decided") / "bundle"
    store_decision(small_path, Decision(fitted=fitted, conformal=sets, abstain_below=0.4), out=out)
    return out


@pytest.fixture(scope="module")
def several_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of several labels."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("several") / "bundle"
    facts: dict[str, Any] = {"dataset": None, "recipe": None, "metrics": None, "probes": "synthetic"}
    model = Classifier(ModelSpec(name="timm/test_resnet", num_classes=3))
    names = {"classes": list(COLOURS), "display_names": list(COLOURS), "task": "multi-label"}
    page = {"preprocess": PreprocessSpec(size=32), "decision": Decision(rule="each")}
    save_bundle(folder, model, synthesise_pictures(), **facts, **names, **page)
    return folder


@pytest.mark.parametrize("kind", ["small_path", "decided_path", "several_path"])
def test_parquet_holds_what_csv_says(kind: str, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(kind)
    for form in ("csv", "parquet", "jsonl"):
        code, out, err = predict(bundle, pictures / "test", "--out", tmp_path / f"a.{form}")
        assert (code, out, err) == (0, "", "")
    table = pq.read_table(tmp_path / "a.parquet")
    rows = read_csv(tmp_path / "a.csv")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(rows[0]) == table.column_names
    assert ("abstain" in rows[0], "set" in rows[0]) == (kind == "decided_path", kind == "decided_path")
    assert len(rows) == len(table) == len(lines) == 24
    for text, row, line in zip(rows, table.to_pylist(), lines, strict=True):
        assert text["label"] == row["label"] == ";".join(line["labels"])
        assert row["probability"] == line["probability"]
        for name, value in row.items():
            if isinstance(value, float):
                assert float(text[name]) == pytest.approx(value, abs=1e-6)
            else:
                assert text[name] == (str(value).lower() if isinstance(value, bool) else value)
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.parquet", "a.jsonl"}


def test_parquet_is_written_a_row_group_at_a_time(
    small_path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.predict.tables._GROUP", 10)
    assert predict(small_path, pictures / "test", "--out", tmp_path / "a.parquet")[0] == 0
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [10, 10, 4]


def test_the_ending_says_what_is_written(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    code, _, err = predict(small_path, pictures, "--out", tmp_path / "answers.xlsx")
    assert code == 2
    assert "must end in one of .csv, .parquet, .jsonl" in err
    assert predict(small_path, pictures, "--out", tmp_path / "answers.csv", "--json")[0] == 2


# unreadable pictures


def test_unreadable_pictures_are_listed_and_the_rest_is_done(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "asked", tmp_path / "a.csv"
    shutil.copytree(pictures / "test" / "red", folder)
    data = next(folder.glob("*.jpg")).read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "text.png").write_text("no picture")
    code, _, err = predict(small_path, folder, "--out", out)
    assert code == 0
    assert len(read_csv(out)) == 8
    listed = read_csv(tmp_path / "a.csv.unreadable.csv")
    assert [Path(row["path"]).name for row in listed] == ["cut.jpg", "gone.png", "text.png"]
    assert listed[1]["reason"] == "no such file or directory"
    assert all(f"{row['path']}: {row['reason']}\n" in err for row in listed)
    assert err.endswith("3 of 11 pictures could not be read; all others are done\n")
    assert predict(small_path, folder, "--out", out, "--strict")[0] == 3
    assert len(read_csv(out)) == 8
    for row in listed:
        Path(row["path"]).unlink()
    said = f"{out} exists; its answers are replaced once all new ones are complete\n"
    assert predict(small_path, folder, "--out", out, "--strict")[::2] == (0, said)
    assert not (tmp_path / "a.csv.unreadable.csv").exists()


def test_a_damaged_picture_in_an_archive_disturbs_no_other(
    small_path: Path, pictures: Path, tmp_path: Path, of_folder: dict[str, dict[str, Any]]
) -> None:
    (path,) = make_zip(tmp_path, pictures, str)
    with zipfile.ZipFile(path) as file:
        info = file.infolist()[5]
    data = bytearray(Path(path).read_bytes())
    data[info.header_offset + 200] ^= 0xFF
    Path(path).write_bytes(data)
    code, out, err = predict(small_path, path, "--json")
    assert code == 0
    lost = Path(info.filename).name
    check_same(
        [json.loads(line) for line in out.splitlines()],
        {name: row for name, row in of_folder.items() if name != lost},
    )
    assert "size or CRC differs from the archive's directory" in err


# stopped and gone on with


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Have the command stopped by Ctrl-C when some batches are written."""
    append, left = Partial.append, itertools.count(batches - 1, -1)

    def stopping(self: Partial, rows: list[Row]) -> None:
        append(self, rows)
        if next(left) == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Partial, "append", stopping)


@pytest.mark.parametrize(("form", "kind"), [("csv", "folder"), ("parquet", "folder"), ("jsonl", "tar.gz")])
def test_a_stopped_command_goes_on_and_ends_with_the_same_bytes(
    form: str, kind: str, small_path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pictures / "test"
    if kind == "tar.gz":  # stored in another order than that of the names
        path = tmp_path / "test.tar.gz"
        with tarfile.open(path, "w:gz") as file:
            for picture in sorted((pictures / "test").glob("*/*"), reverse=True):
                file.add(picture, picture.name)
    arguments = [small_path, path, "--batch-size", 5, "--out"]
    assert predict(*arguments, tmp_path / f"whole.{form}")[0] == 0
    out = tmp_path / f"a.{form}"
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        code, _, err = predict(*arguments, out)
    assert (code, out.exists()) == (130, False)
    assert "the same command resumes where this one stopped" in err
    os.truncate(name_partial(out), name_partial(out).stat().st_size - 9)  # killed in the middle of its 15th row
    code, _, err = predict(*arguments, out)
    assert (code, err) == (0, "10 pictures are already done; resuming from there\n")  # what is computed together stays
    assert out.read_bytes() == (tmp_path / f"whole.{form}").read_bytes()
    assert not name_partial(out).exists()


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_with_the_same_bytes(
    small_path: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "0.jpg").write_bytes(b"no picture")
    arguments = [str(small_path), str(tmp_path / "asked"), *[str(pictures)] * 6, "--batch-size", "2", "--out"]
    out = tmp_path / "a.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.predict", *arguments, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while count_lines(name_partial(out)) < 20 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = count_lines(name_partial(out)) - 1
    assert 19 <= done < 720
    code, _, err = predict(*arguments, out)
    assert code == 0
    assert err.startswith(f"{done - done % 2:,} pictures are already done; resuming from there\n")
    assert predict(*arguments, tmp_path / "whole.csv")[0] == 0
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(read_csv(out)) == 720
    assert [row["path"] for row in read_csv(tmp_path / "a.csv.unreadable.csv")] == [f"{tmp_path}/asked/0.jpg"]


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture
def stopped(small_path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Arguments of a command that was stopped after 10 of 24 pictures; they are a copy, `asked`."""
    shutil.copytree(pictures / "test", tmp_path / "asked")
    arguments = [small_path, tmp_path / "asked", "--batch-size", 5, "--out", tmp_path / "a.csv"]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert predict(*arguments)[0] == 130
    return arguments


def test_another_question_is_refused_where_answers_are_half_done(
    stopped: list[object], bundle_path: Path, pictures: Path
) -> None:
    for position, (value, name) in {
        0: (bundle_path, "bundle"),
        1: (pictures / "test", "PATH"),
        3: (6, "--batch-size"),
    }.items():
        code, _, err = predict(*stopped[:position], value, *stopped[position + 1 :])
        assert code == 2
        assert f"has answers of a command with another {name}; run that command again" in err
    assert predict(*stopped)[0] == 0


def test_other_pictures_than_before_are_refused(stopped: list[object], tmp_path: Path) -> None:
    first = sorted((tmp_path / "asked").glob("*/*"))[0]
    first.rename(first.with_name("aaa.jpg"))
    code, _, err = predict(*stopped)
    assert code == 2
    assert f"is for {first}, but number 1 is now {first.with_name('aaa.jpg')}: the pictures have changed" in err
    shutil.rmtree(tmp_path / "asked" / "red")
    shutil.rmtree(tmp_path / "asked" / "green")
    first.with_name("aaa.jpg").rename(first)
    code, _, err = predict(*stopped)
    assert code == 2
    assert "but there are fewer pictures now" in err


def test_answers_to_pictures_that_have_gone_are_not_kept(stopped: list[object], tmp_path: Path) -> None:
    with open(name_partial(tmp_path / "a.csv"), "rb+") as file:
        lines = file.readlines()
        file.truncate(sum(map(len, lines[:-1])))  # 9 of 10 answers: the last 4 are computed again
    for path in sorted((tmp_path / "asked").glob("*/*"))[7:]:
        path.unlink()
    assert predict(*stopped)[0] == 0
    assert len(read_csv(tmp_path / "a.csv")) == 7


def test_two_commands_do_not_write_one_output(stopped: list[object], tmp_path: Path) -> None:
    with open(name_partial(tmp_path / "a.csv"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = predict(*stopped)
    assert code == 2
    assert "another process is writing" in err
    assert predict(*stopped)[0] == 0


def test_a_file_of_somebody_else_is_not_overwritten(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    name_partial(tmp_path / "a.csv").write_text("mine\n")
    code, _, err = predict(small_path, pictures, "--out", tmp_path / "a.csv")
    assert code == 2
    assert "was not written by trainer.predict" in err
    assert name_partial(tmp_path / "a.csv").read_text() == "mine\n"


def test_a_command_that_fails_before_its_first_answer_leaves_nothing(
    small_path: Path, pictures: Path, tmp_path: Path
) -> None:
    assert predict(small_path, pictures, "--backend", "onnx", "--out", tmp_path / "a.csv")[0] == 2
    assert list(tmp_path.iterdir()) == []


# pages of pictures


def test_pages_show_the_first_pictures_with_what_was_said(
    small_path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tmp_path / "grid"
    grid.mkdir()
    (grid / "page-009.png").touch()
    code, _, err = predict(small_path, pictures / "test", "--out", tmp_path / "a.csv", "--grid", grid)
    assert (code, err) == (0, f"{grid}: 2 pages\n")
    assert sorted(path.name for path in grid.iterdir()) == ["page-001.png", "page-002.png"]
    with Image.open(grid / "page-001.png") as whole, Image.open(grid / "page-002.png") as half:
        assert whole.width == half.width
        assert half.height == pytest.approx(whole.height / 2, rel=0.02)  # 8 pictures are two rows
        drawn = np.asarray(whole.convert("RGB")).reshape(-1, 3)
    assert (abs(drawn.astype(int).mean(axis=0) - 255) > 20).any()
    arguments = [small_path, pictures / "test", "--batch-size", 5, "--out", tmp_path / "b.csv", "--grid", grid]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert predict(*arguments)[0] == 130
    assert predict(*arguments, "--grid-pages", 1)[0] == 0  # with pictures that the stopped command had answered
    assert [path.name for path in grid.iterdir()] == ["page-001.png"]


def test_a_page_of_a_compressed_tar_is_drawn(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    (path,) = make_tar("tar.gz")(tmp_path, pictures, str)
    code, _, err = predict(small_path, path, "--grid", tmp_path / "grid")
    assert code == 0, err
    assert len(list((tmp_path / "grid").iterdir())) == 2


def test_titles_say_prediction_probability_and_truth_where_it_is_known(small_path: Path) -> None:
    page = read_bundle_page(small_path).model_copy(update={"display_names": ["蓝", "绿", "红"]})
    row = Row("x/red/1.png", {"labels": ["red"], "probability": 0.876})
    known = find_truth(page, Place(0, Picture("x/red/1.png", "")))
    assert make_title(page, row, known)[0] == "红 0.88\ntrue: 红"
    assert make_title(page, row, ("blue",))[0] == "红 0.88\ntrue: 蓝"
    assert make_title(page, row, ("blue",))[1] != make_title(page, row, known)[1]
    assert find_truth(page, Place(0, Picture("x/red/more/1.png", ""))) is None
    assert make_title(page, row, None)[0] == "红 0.88"
    assert find_truth(page, Place(0, Picture("red/1.png", "", ("green",)))) == ("green",)


# a cluster


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows_in_the_same_order(
    ray_cluster: str, small_path: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"no picture")
    (zipped,) = make_zip(tmp_path, pictures, str)
    arguments = [small_path, tmp_path / "cut.jpg", pictures / "val", zipped, "--batch-size", 5]
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    assert predict(*arguments, "--out", here)[0] == 0
    code, _, err = predict(*arguments, "--out", there, "--on", "ray", "--workers", 2)
    assert code == 0, err
    assert [row["path"] for row in read_csv(here)] == [row["path"] for row in read_csv(there)]
    for one, two in zip(read_csv(here), read_csv(there), strict=True):
        assert one["label"] == two["label"]
        assert float(one["probability"]) == pytest.approx(float(two["probability"]), abs=2e-5)
    assert f"{tmp_path}/cut.jpg: " in err
    assert len(read_csv(tmp_path / "there.csv.unreadable.csv")) == 1
    from trainer.predict.ray import Asking, answer_on_ray

    asked = find_asked([str(pictures)])
    with pytest.raises(UsageError, match=f"{tmp_path}/unseen does not exist"):  # no folder that the nodes see
        next(answer_on_ray(Asking(f"{tmp_path}/unseen", "eager", asked), asked.list(), 32, 1))


def test_what_is_read_from_its_beginning_alone_is_not_spread(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    (path,) = make_tar("tar.gz")(tmp_path, pictures, str)
    code, _, err = predict(small_path, path, "--on", "ray")
    assert code == 2
    assert "can only be read from its beginning" in err


def test_answers_that_are_there_already_are_said_to_be_replaced(
    small_path: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    assert "its answers are replaced" not in predict(small_path, pictures / "test" / "red", "--out", out)[2]
    code, _, err = predict(small_path, pictures / "test" / "blue", "--out", out)
    assert code == 0
    assert f"{out} exists; its answers are replaced" in err
    assert all(row["path"].split("/")[-2] == "blue" for row in read_csv(out))


def test_answers_do_not_replace_the_list_that_is_asked_about(small_path: Path, pictures: Path, tmp_path: Path) -> None:
    mine = tmp_path / "a.csv"
    mine.write_text(f"path\n{next((pictures / 'test').glob('*/*'))}\n")
    before = mine.read_bytes()
    for asked in ([mine], ["--list", mine]):
        code, _, err = predict(small_path, *asked, "--out", tmp_path / "." / "a.csv")
        assert (code, mine.read_bytes()) == (2, before)
        assert "is a source and would be overwritten; choose another file" in err
    assert predict(small_path, mine, "--out", tmp_path / "b.csv")[0] == 0
