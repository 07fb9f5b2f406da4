"""Pictures with labels that nobody packed, evaluated: the same figures as packed, by class names, nothing lost."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

import trainer.evaluate.__main__ as trainer_evaluate
from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions
from trainer.evaluate.evaluate import Evaluated, evaluate
from trainer.evaluate.options import EvaluateOptions

ORDERED = ("sample_id", "path", "bundle", "dataset", "source", "source_notes", "part", "intervals", "interval")
"""What may differ: names, and intervals, whose resamples are drawn in the order of the pictures."""


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard output of trainer.evaluate in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = run_command(trainer_evaluate.main, [str(argument) for argument in arguments])
    return code, out.getvalue()


def judge(bundle: Path, data: str | Path, out: Path, **options: Any) -> Evaluated:
    return evaluate(EvaluateOptions(bundle=bundle, data=str(data), out=out, **options))


def figures(done: Evaluated) -> dict[str, Any]:
    return {name: value for name, value in done.metrics.items() if name not in ORDERED}


def assert_same(one: Any, other: Any) -> None:
    """Equal, numbers up to the rounding of a batch of another size."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    else:
        assert one == (pytest.approx(other, rel=1e-5, abs=1e-6) if isinstance(other, float) else other)


def write_archive(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for each in sorted(folder.rglob("*.*g")):
                file.write(each, each.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, arcname="around")
    return path


def write_list(folder: Path, path: Path) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([each, each.parent.name] for each in sorted(folder.glob("*/*")))
    return path


@pytest.fixture(scope="module")
def packed(bundle_path: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The pictures of `pictures/train`, packed as one split without a name for it, and evaluated."""
    root = tmp_path_factory.mktemp("packed")
    pack(find_sources(pictures / "train"), root / "set", PackOptions(split=SplitOptions(shares={}), shard_bytes=40_000))
    return judge(bundle_path, root / "set", root / "out")


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [("folder", 1), ("new.zip", 1), ("new.tar.gz", 1), ("new.csv", 1), ("new.csv", 2)],
)
def test_figures_of_unpacked_pictures_are_those_of_the_same_pictures_packed(
    kind: str, ranks: int, packed: Evaluated, bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    folder, path = pictures / "train", tmp_path / kind
    data = {"folder": lambda: folder, "new.csv": lambda: write_list(folder, path)}.get(
        kind, lambda: write_archive(folder, path)
    )()
    done = judge(bundle_path, data, tmp_path / "out", num_ranks=ranks)
    assert done.metrics["samples"] == 72
    assert_same(figures(done), figures(packed))
    for name, bounds in packed.metrics["intervals"].items():  # resamples are drawn in the order of the pictures
        assert name == "per_class" or done.metrics["intervals"][name] == pytest.approx(bounds, abs=0.04)


def test_a_packed_set_with_one_split_needs_no_name_for_it(packed: Evaluated) -> None:
    assert (packed.metrics["part"], packed.metrics["samples"]) == ("train", 72)
    assert "warning" not in packed.metrics  # another dataset than that of the bundle


def test_rows_know_of_each_picture_what_an_index_knows(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pictures / "val", tmp_path / "new"))
    gray = Image.radial_gradient("L").resize((40, 30))
    gray.convert("P").save(folder / "red" / "palette.png")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    gray.save(folder / "red" / "turned.jpg", exif=turned)
    Image.merge("RGBA", [gray, gray.rotate(90), gray, gray]).save(folder / "blue" / "transparent.png")
    pack(find_sources(folder), tmp_path / "set", PackOptions(split=SplitOptions(shares={})))
    ours, theirs = (
        {
            row["path"]: row
            for row in pq.read_table(judge(bundle_path, *each).folder / "predictions.parquet").to_pylist()
        }
        for each in ((folder, tmp_path / "ours"), (tmp_path / "set", tmp_path / "theirs"))
    )
    assert (ours["red/turned.jpg"]["width"], ours["red/turned.jpg"]["mode"]) == (30, "L")
    assert ours.keys() == theirs.keys()
    for path, row in ours.items():
        assert row["bytes"] == (folder / path).stat().st_size  # of an odd one a pack stores what it shows
        assert_same({**row, "sample_id": 0, "bytes": 0}, {**theirs[path], "sample_id": 0, "bytes": 0})


def test_a_folder_that_lacks_classes_is_evaluated_and_says_so(
    bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures / "test" / "red", tmp_path / "new" / "red")
    code, printed = run(bundle_path, tmp_path / "new", "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert (code, result["samples"], sum(map(sum, result["confusion"]))) == (0, 8, 8)
    assert [sum(row) for row in result["confusion"]] == [0, 0, 8]
    assert "no picture is of blue, green, which the bundle has" in printed


def test_class_spelt_otherwise_is_taken_with_a_sentence(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "test" / "red", tmp_path / "new" / "Red ")
    done = judge(bundle_path, tmp_path / "new", tmp_path / "out")
    assert done.metrics["per_class"]["red"]["support"] == 8
    assert f"{tmp_path / 'new'}: the class 'Red ' is matched to the bundle's 'red'" in done.metrics["source_notes"]


def test_unknown_class_is_refused_with_what_helps(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "test", tmp_path / "new")
    (tmp_path / "new" / "red").rename(tmp_path / "new" / "pink")
    with pytest.raises(UsageError, match=r"has a class 'pink', which the bundle does not have; it has blue, gr"):
        judge(bundle_path, tmp_path / "new", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "new" / "pink")  # leave its pictures out, as the sentence says
    assert judge(bundle_path, tmp_path / "new", tmp_path / "out").metrics["samples"] == 16


@pytest.mark.parametrize("archive", [False, True])
def test_unreadable_pictures_are_counted_and_named(
    archive: bool, bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pictures / "test", tmp_path / "new"))
    (folder / "red" / "bad.png").write_bytes(b"no picture")
    (folder / "blue" / "cut.jpg").write_bytes((folder / "blue" / "blue.0.jpg").read_bytes()[:400])
    data = write_archive(folder, tmp_path / "new.tar.gz") if archive else folder
    code, printed = run(bundle_path, data, "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert (code, result["samples"]) == (0, 24)
    assert (result["unreadable"]["pictures"], result["unreadable"]["of"]) == (2, 26)
    said = (
        f"left out of all metrics (as wrong answers: accuracy {result['accuracy'] * 24 / 26:.4f}); unreadable.csv names"
    )
    assert f"2 of 26 pictures could not be read and are {said} them, first " in printed
    with open(tmp_path / "out" / "unreadable.csv", newline="", encoding="utf-8") as file:
        assert [row["path"].rpartition("/")[2] for row in csv.DictReader(file)] == ["cut.jpg", "bad.png"]
    judge(bundle_path, pictures, tmp_path / "out")  # whole ones into the same folder
    assert not (tmp_path / "out" / "unreadable.csv").exists()


def test_where_no_picture_can_be_read_nothing_is_evaluated(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / "red").mkdir(parents=True)
    (tmp_path / "new" / "red" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ShardError, match=r"none of 1 picture can be read \(red/bad\.png: "):
        judge(bundle_path, tmp_path / "new", tmp_path / "out")


@pytest.mark.parametrize(("split", "samples"), [("", 24), (":train", 72), (":val", 24)])
def test_split_of_a_folder_is_named_or_test(
    split: str, samples: int, bundle_path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = evaluate(EvaluateOptions(bundle=bundle_path, data=f"{pictures}{split}"))
    assert (done.metrics["samples"], done.folder) == (samples, Path("evaluations", f"colours-{split[1:] or 'test'}"))


def test_several_splits_without_test_and_without_a_name_are_refused_with_each(
    bundle_path: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "new", ignore=shutil.ignore_patterns("test"))
    pack(find_sources(tmp_path / "new"), tmp_path / "set", PackOptions())
    for data in (tmp_path / "new", tmp_path / "set"):
        with pytest.raises(UsageError, match="and several others; give") as refused:
            judge(bundle_path, data, tmp_path / "out")
        ways = str(refused.value).rpartition("give ")[2].split(" or ")
        assert [judge(bundle_path, way, tmp_path / "out").metrics["samples"] for way in ways] == [72, 24]


def test_several_labels_are_evaluated_unpacked_as_packed(several_run: Path, multi_path: Path, tmp_path: Path) -> None:
    bundle, source = several_run / "bundle", multi_path.parent / "shapes"
    packed = judge(bundle, f"{multi_path}:test", tmp_path / "packed")
    rows = pq.read_table(packed.folder / "predictions.parquet").to_pylist()
    single = [row for row in rows if ";" not in row["label"]]
    single[0] = {**single[0], "label": ""}  # one label or none
    for name, chosen in {"all": rows, "single": single}.items():
        path = tmp_path / f"{name}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"])
            writer.writerows([source / row["path"], row["label"]] for row in chosen)
        done = judge(bundle, path, tmp_path / name)
        assert (done.metrics["samples"], done.metrics["task"]) == (len(chosen), "multi-label")
        if name == "all":
            assert_same(figures(done), figures(packed))


def test_one_class_a_folder_does_not_say_all_labels(several_run: Path, tmp_path: Path) -> None:
    for name in ("bar", "disc"):
        (tmp_path / "new" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "new" / name / "a.png")
    with pytest.raises(UsageError, match="a folder does not show the other labels of a picture"):
        judge(several_run / "bundle", tmp_path / "new", tmp_path / "out")


def test_options_of_lists_and_folders_are_those_of_packing(bundle_path: Path, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    names = sorted(each.relative_to(pictures / "test").as_posix() for each in (pictures / "test").glob("*/*"))
    path.write_text("file,kind\n" + "".join(f"{name},{name.partition('/')[0]}\n" for name in names))
    read = {"list_columns": "path=file,label=kind", "base": pictures / "test"}
    done = judge(bundle_path, path, tmp_path / "list", **read, group_regex=r"\.(\d)")
    assert (done.metrics["samples"], done.metrics["interval"]["by"]) == (24, "group")
    done = judge(bundle_path, pictures, tmp_path / "layout", layout="any/class")
    assert done.metrics["samples"] == 120


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ("PICTURES", {"base": Path("x")}, "--base sets how a list is read, but"),
        ("DATA", {"layout": "class"}, "--layout is only for unpacked pictures, but"),
        ("PICTURES:val", {"columns": "NUMBERED"}, "unpacked pictures have none; use the column path"),
        ("PICTURES/val:test", {}, "has no split 'test'; it has none: give"),
        ("LOOSE", {}, "evaluation needs labels, use trainer.predict for pictures without"),
    ],
)
def test_mistake_is_one_sentence(
    data: str,
    options: dict[str, Any],
    sentence: str,
    bundle_path: Path,
    pictures: Path,
    dataset_path: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "loose" / "a.png")
    (tmp_path / "numbered.csv").write_text("sample_id,site\n0,a\n")
    filled = data.replace("PICTURES", str(pictures)).replace("DATA", str(dataset_path))
    filled = filled.replace("LOOSE", str(tmp_path / "loose"))
    if "columns" in options:
        options = {"columns": tmp_path / "numbered.csv"}
    with pytest.raises(UsageError) as refused:
        judge(bundle_path, filled, tmp_path / "out", **options)
    assert sentence in str(refused.value)
