"""Which class of a dataset is looked for: stored with it, changed alone, and no part of its identity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from in_process import command
from PIL import Image

from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME
from shards.errors import ShardError
from shards.packing.foreign import index_foreign
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources


def make_cells(root: Path, first: int = 0, count: int = 5) -> Path:
    """Pictures of two classes, all different."""
    for shade, name in enumerate(("DEFECTIVE", "NORMAL")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            Image.new("RGB", (8, 8), (shade * 100, number * 9, 50)).save(root / name / f"{number}.png")
    return root


def packed(cells: Path, out: Path, *options: str) -> str:
    done = command("pack", cells, out, "--split", "none", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def refused(*words: str | Path) -> str:
    done = command(*words)
    assert done.returncode == 2, done.stdout
    return done.stderr


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_positive_class_is_stored_beside_the_identity(tmp_path: Path) -> None:
    cells = make_cells(tmp_path / "cells")
    packed(cells, tmp_path / "plain")
    packed(cells, tmp_path / "said", "--positive", "DEFECTIVE")
    plain, said = open_dataset(tmp_path / "plain"), open_dataset(tmp_path / "said")
    assert (plain.manifest.positive, said.manifest.positive) == (None, "DEFECTIVE")
    assert plain.fingerprint() == said.fingerprint()
    content = json.loads((tmp_path / "said" / MANIFEST_NAME).read_bytes())
    assert content.pop("positive") == "DEFECTIVE"
    assert content == json.loads((tmp_path / "plain" / MANIFEST_NAME).read_bytes())  # as earlier versions wrote it


def test_packing_the_same_again_changes_the_positive_class_alone(tmp_path: Path) -> None:
    cells, out = make_cells(tmp_path / "cells"), tmp_path / "out"
    packed(cells, out)
    before = read_files(out)
    told = packed(cells, out, "--positive", "DEFECTIVE")
    assert "the positive class is DEFECTIVE from now on, it was unset; nothing else changed" in told
    after = read_files(out)
    assert {name for name in before if before[name] != after[name]} == {MANIFEST_NAME, "origin.json"}
    assert "note" not in packed(cells, out)  # who does not say it leaves it as it is
    assert open_dataset(out).manifest.positive == "DEFECTIVE"


@pytest.mark.parametrize("new", [0, 3])
def test_update_keeps_the_positive_class_or_takes_the_one_that_it_names(tmp_path: Path, new: int) -> None:
    cells, out = make_cells(tmp_path / "cells"), tmp_path / "out"
    packed(cells, out, "--positive", "DEFECTIVE")
    make_cells(cells, first=5, count=new)
    packed(cells, out, "--update")
    assert open_dataset(out).manifest.positive == "DEFECTIVE"
    make_cells(cells, first=8, count=new)
    packed(cells, out, "--update", "--positive", "NORMAL")
    assert open_dataset(out).manifest.positive == "NORMAL"
    assert open_dataset(out).split("train").num_samples == 10 + 4 * new


def test_class_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    cells = make_cells(tmp_path / "cells")
    names = tmp_path / "names.json"
    names.write_text('{"DEFECTIVE": "broken", "NORMAL": "fine"}')
    begin = ["pack", cells, tmp_path / "out"]
    told = refused(*begin, "--positive", "defective")
    assert "--positive defective is none of the classes DEFECTIVE, NORMAL; did you mean 'DEFECTIVE'?" in told
    told = refused(*begin, "--positive", "broken", "--class-names", names)
    assert "broken is the display name of 'DEFECTIVE', give that" in told
    assert "names a class, but these pictures have no labels" in refused(*begin, "--unlabelled", "--positive", "x")
    assert not (tmp_path / "out").exists()
    packed(cells, tmp_path / "out", "--positive", "DEFECTIVE")  # the remedy
    told = refused(*begin, "--update", "--split", "none", "--positive", "BROKEN")
    assert "none of the classes DEFECTIVE, NORMAL" in told


def test_no_class_is_positive_where_pictures_have_several_labels(tmp_path: Path) -> None:
    make_cells(tmp_path / "cells")
    rows = "".join(
        f"cells/{name}/{n}.png,{label}\n" for name, label in (("NORMAL", "a;b"), ("DEFECTIVE", "a")) for n in range(4)
    )
    (tmp_path / "list.csv").write_text("path,label\n" + rows)
    told = refused("pack", tmp_path / "list.csv", tmp_path / "out", "--positive", "a")
    assert "these pictures have any number of labels, so that each class is a question of its own" in told


def test_pack_and_stat_state_the_default_in_words(tmp_path: Path) -> None:
    cells = make_cells(tmp_path / "cells")
    default = "positive class: NORMAL, the second of two classes, as nothing names one"
    assert default in packed(cells, tmp_path / "out")
    assert default in command("stat", tmp_path / "out").stdout
    packed(cells, tmp_path / "out", "--positive", "NORMAL")
    assert "  positive class: NORMAL\n" in command("stat", tmp_path / "out").stdout


def test_index_stores_the_positive_class_and_keeps_it_when_it_is_done_again(tmp_path: Path) -> None:
    pack(find_sources(make_cells(tmp_path / "cells")), tmp_path / "tars", PackOptions())
    for path in [*tmp_path.glob("tars/*.*"), *tmp_path.glob("tars/*/*.parquet")]:
        path.unlink()
    plain, _ = index_foreign(tmp_path / "tars")
    first, second = plain.classes
    done = command("index", tmp_path / "tars", "--positive", first)
    assert f"positive class: {first}\n" in done.stdout
    again, _ = index_foreign(tmp_path / "tars")
    assert (again.positive, again.fingerprint()) == (first, plain.fingerprint())
    assert index_foreign(tmp_path / "tars", positive=second)[0].positive == second
    before = read_files(tmp_path / "tars")
    assert f"--positive x is none of the classes {first}, {second}" in refused(
        "index", tmp_path / "tars", "--positive", "x"
    )
    assert read_files(tmp_path / "tars") == before


def test_dataset_whose_positive_class_is_none_of_its_classes_is_damaged(dataset_path: Path, tmp_path: Path) -> None:
    page = Path(shutil.copytree(dataset_path, tmp_path / "copy")) / MANIFEST_NAME
    page.write_text(json.dumps(json.loads(page.read_text()) | {"positive": "purple"}))
    with pytest.raises(ShardError, match="positive class purple is none of the classes blue, green, red"):
        open_dataset(tmp_path / "copy")
