"""`--update` and what a source says now of pictures that are packed already."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from data.scenes import draw
from in_process import command

from shards.__main__ import main
from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import Manifest
from shards.dataset.read import SampleReader
from shards.dataset.verify import verify_dataset
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions
from shards.storage.storage import open_storage

SMALL = PackOptions(shard_bytes=30_000, split=SplitOptions(shares={}))
LABELS = ("ant", "bee")
Rows = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder img of 16 pictures; read only."""
    root = tmp_path_factory.mktemp("compare")
    (root / "img").mkdir()
    for seed in range(16):
        draw(seed).save(root / f"img/{seed:02d}.png")
    return root


@pytest.fixture
def root(pixels: Path, tmp_path: Path) -> Path:
    shutil.copytree(pixels / "img", tmp_path / "in/img")
    return tmp_path / "in"


def make_rows(numbers: Iterable[int] = range(12), **columns: str) -> Rows:
    """Return a row for each picture: ants and bees in turn, four of train for two of test."""
    return {
        f"img/{n:02d}.png": {"label": LABELS[n % 2], "split": "test" if n % 6 >= 4 else "train"} | columns
        for n in numbers
    }


def write(root: Path, rows: Rows, name: str = "list.csv") -> Path:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [",".join([path, *(row[column] for column in columns)]) for path, row in rows.items()]
    (root / name).write_text("\n".join([",".join(["path", *columns]), *lines]) + "\n")
    return root / name


def packed(listed: Path, out: Path, options: PackOptions = SMALL) -> Manifest:
    return pack(find_sources(listed), out, options)


def update(listed: Path, out: Path, options: PackOptions = SMALL) -> list[str]:
    """Update, and return what was said."""
    said: list[str] = []
    pack(find_sources(listed), out, options, Run(report=said.append), update=True)
    return said


def read_column(out: Path, column: str) -> dict[str, object]:
    """Return a column of the indexes that count, by the picture's name; `split` is the one it lies in."""
    dataset = open_dataset(out)
    found: dict[str, object] = {}
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        for shard in range(len(split.counts)):
            table = pq.read_table(out / split.wanted_index(shard).name)
            values = [name] * len(table) if column == "split" else table[column].to_pylist()
            found |= dict(zip(table["source"].to_pylist(), values, strict=True))
    return found


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refuse(listed: Path, out: Path, options: PackOptions = SMALL, error: type[Exception] = ShardError) -> str:
    """See that an update is refused and changes no byte of the dataset; return the words."""
    before = digests(out)
    with pytest.raises(error) as caught:
        update(listed, out, options)
    assert digests(out) == before
    return str(caught.value)


def read_command(message: str) -> list[str]:
    """Return the words of the command, or of several, that a message gives in full."""
    (found,) = re.findall(r"`python -m shards ([^`]*)`", message)
    return shlex.split(found)


# another split or label


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("split", "test", "img/00.png (split train, now test)"),
        ("split", "val", "img/00.png (split train, now val)"),
        ("label", "bee", "img/00.png (label ant, now bee)"),
    ],
)
@pytest.mark.parametrize("audit", ["full", "none"])
def test_changed_split_or_label_is_refused_by_its_row(
    root: Path, tmp_path: Path, column: str, value: str, says: str, audit: str
) -> None:
    options = SMALL.model_copy(update={"audit": audit})
    packed(write(root, make_rows()), tmp_path / "out", options)
    rows = make_rows(range(14))
    rows["img/00.png"][column] = value
    assert refuse(write(root, rows), tmp_path / "out", options) == (
        f"1 picture of the dataset has another split or label now: {says}; an update does not move packed pictures, "
        "so nothing was changed. To use the new splits and labels, pack all pictures into a new folder"
    )


def test_message_names_five_rows_and_counts_the_others(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    rows = {path: row | {"split": "train"} for path, row in make_rows().items()}
    rows |= {path: row | {"label": LABELS[0]} for path, row in list(rows.items())[:4]}
    message = refuse(write(root, rows), tmp_path / "out")
    assert message.startswith("6 pictures of the dataset have another split or label now: img/01.png (label bee, now")
    assert "img/04.png (split test, now train), img/05.png (split test, now train), img/10.png" in message
    assert ", and 1 more; an update" in message


def test_split_that_the_source_does_not_give_is_no_change(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    rows = {path: {"label": row["label"]} for path, row in make_rows().items()}
    assert update(write(root, rows), tmp_path / "out") == [
        "nothing to add: the dataset holds every picture of the source that can be packed"
    ]


def test_splits_given_now_that_were_dealt_out_then_are_compared_with_where_the_pictures_are(
    root: Path, tmp_path: Path
) -> None:
    dealt = SMALL.model_copy(update={"split": SplitOptions(shares={"test": 0.3})})
    packed(write(root, {path: {"label": row["label"]} for path, row in make_rows().items()}), tmp_path / "out", dealt)
    splits = read_column(tmp_path / "out", "split")
    rows = {path: row | {"split": str(splits[path])} for path, row in make_rows().items()}
    assert len(update(write(root, rows), tmp_path / "out", dealt)) == 1
    for row in rows.values():
        row["split"] = {"train": "test", "test": "train"}[row["split"]]
    assert refuse(write(root, rows), tmp_path / "out", dealt).startswith("12 pictures of the dataset have another")


def test_merged_splits_are_no_changes_and_a_third_is(root: Path, tmp_path: Path) -> None:
    merge = SplitOptions(merge=("train", "val"), shares={"val": 0.5})
    options = SMALL.model_copy(update={"split": merge})
    rows = make_rows()
    rows["img/00.png"]["split"] = "val"
    packed(write(root, rows), tmp_path / "out", options)
    for again in (options, SMALL):  # it was packed so, whether it is said again or not
        assert update(write(root, rows), tmp_path / "out", again)[-1].startswith("nothing to add")
    rows["img/00.png"]["split"] = "test"
    assert "now test" in refuse(write(root, rows), tmp_path / "out", options)


def test_splits_merged_by_an_update_alone_hide_no_changed_split_of_an_old_picture(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    rows = make_rows(range(16))
    rows["img/00.png"]["split"] = "test"
    merge = SMALL.model_copy(update={"split": SplitOptions(merge=("train", "test"), shares={"test": 0.5})})
    message = refuse(write(root, rows), tmp_path / "out", merge)
    assert message.startswith("1 picture of the dataset has another split or label now: img/00.png (split train, now")
    for _ in range(2):  # the second time what the first one dealt out is old as well
        update(write(root, make_rows(range(16))), tmp_path / "out", merge)
    assert len(read_column(tmp_path / "out", "split")) == 16


def test_picture_in_quarantine_may_change_its_split_and_label(root: Path, tmp_path: Path) -> None:
    loose = SMALL.model_copy(update={"max_reject_rate": 1.0})
    (root / "img/00.png").write_bytes(b"")
    packed(write(root, make_rows()), tmp_path / "out", loose)
    rows = make_rows()
    rows["img/00.png"] |= {"split": "test", "label": "bee"}
    assert update(write(root, rows), tmp_path / "out", loose)[-1].startswith("nothing to add")
    draw(0).save(root / "img/00.png")
    update(write(root, rows), tmp_path / "out", loose)
    assert read_column(tmp_path / "out", "split")["img/00.png"] == "test"


def test_picture_dropped_as_a_duplicate_may_change_its_split(root: Path, tmp_path: Path) -> None:
    drop = SMALL.model_copy(update={"drop_duplicates": True})
    shutil.copy(root / "img/00.png", root / "img/copy.png")
    rows = make_rows() | {"img/copy.png": {"label": "ant", "split": "test"}}
    packed(write(root, rows), tmp_path / "out", drop)
    kept = read_column(tmp_path / "out", "split")
    assert ("img/00.png" in kept, kept["img/copy.png"]) == (False, "test")
    rows["img/00.png"]["split"] = "test"
    assert update(write(root, rows), tmp_path / "out", drop)[-1].startswith("nothing to add")


def test_rows_that_are_gone_stay_in_the_dataset_and_are_counted(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    said = update(write(root, make_rows(range(2, 12))), tmp_path / "out")
    assert said[0] == "2 pictures of the dataset are no longer in the source; they stay in it"
    assert len(read_column(tmp_path / "out", "split")) == 12


# the command that packs anew


def run_refused(*words: str | Path) -> str:
    done = command("pack", *words, "--update")
    assert done.returncode == 3, done.stderr
    return done.stderr


def test_command_of_the_refusal_packs_anew_as_the_dataset_was_packed(root: Path, tmp_path: Path) -> None:
    options = ["--split", "none", "--seed", "3", "--shard-bytes", "30000"]
    assert command("pack", write(root, make_rows()), tmp_path / "my out", *options).returncode == 0
    (tmp_path / "my out-2").mkdir()  # taken
    (tmp_path / "my out-2/file").touch()
    rows = make_rows(range(14))
    rows["img/00.png"]["split"] = "test"
    words = read_command(run_refused(write(root, rows), tmp_path / "my out"))
    assert words == ["pack", str(root / "list.csv"), f"{tmp_path}/my out-3", *options]
    assert main([*words, "--workers", "1"]) == 0
    assert read_column(tmp_path / "my out-3", "split") == {path: row["split"] for path, row in rows.items()}
    assert len({*read_column(tmp_path / "my out", "split")}) == 12


def test_options_of_the_update_take_the_place_of_those_of_then(root: Path, tmp_path: Path) -> None:
    assert command("pack", write(root, make_rows()), tmp_path / "out", "--split", "none").returncode == 0
    rows = make_rows()
    rows["img/00.png"]["split"] = "test"
    message = run_refused(write(root, rows, "other.csv"), tmp_path / "out", "--split", "val=0.2", "--allow-leaks")
    assert read_command(message)[-3:] == ["--split", "val=0.2", "--allow-leaks"]
    assert main([*read_command(message), "--workers", "1"]) == 0


def test_dataset_of_several_sources_is_packed_anew_by_all_of_their_commands(root: Path, tmp_path: Path) -> None:
    first, second = write(root, make_rows(range(8)), "a.csv"), write(root, make_rows(range(8, 14)), "b.csv")
    assert command("pack", first, tmp_path / "out", "--split", "none").returncode == 0
    assert command("pack", second, tmp_path / "out", "--update").returncode == 0
    rows = make_rows(range(8))
    rows["img/00.png"]["split"] = "test"
    message = run_refused(write(root, rows, "a.csv"), tmp_path / "out")
    assert f"make {second} give the same where they list these pictures, and pack again" in message
    words = read_command(message)
    new = f"{tmp_path}/out-2"
    again = ["&&", "python", "-m", "shards", "pack", str(second), new, "--update"]
    assert words == ["pack", str(first), new, "--split", "none", *again]
    place = words.index("&&")
    assert main([*words[:place], "--workers", "1"]) == 0
    assert main([*words[place + 4 :], "--workers", "1"]) == 0
    splits = read_column(tmp_path / "out-2", "split")
    assert (len(splits), splits["img/00.png"]) == (14, "test")


def test_new_class_is_refused_with_the_command_as_well(root: Path, tmp_path: Path) -> None:
    assert command("pack", write(root, make_rows()), tmp_path / "out", "--split", "none").returncode == 0
    rows = make_rows()
    rows["img/00.png"]["label"] = "cat"
    done = command("pack", write(root, rows), tmp_path / "out", "--update")
    assert (done.returncode, "class 'cat' is new" in done.stderr) == (2, True)
    assert main([*read_command(done.stderr), "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "out-2").classes == ["ant", "bee", "cat"]


def test_new_class_in_a_list_of_new_rows_names_a_command_that_packs_all_at_once(root: Path, tmp_path: Path) -> None:
    first = write(root, make_rows(), "base.csv")
    assert command("pack", first, tmp_path / "out", "--split", "none", "--seed", "3").returncode == 0
    fresh = {"img/12.png": {"label": "cat", "split": "train"}, "img/13.png": {"label": "bee", "split": "train"}}
    new = write(root, fresh, "new.csv")
    done = command("pack", new, tmp_path / "out", "--update")
    assert (done.returncode, "class 'cat' is new" in done.stderr) == (2, True)
    assert "put all of them, old and new, into one list or folder, here called ALL" in done.stderr
    words = read_command(done.stderr)
    assert words == ["pack", "ALL", f"{tmp_path}/out-2", "--split", "none", "--seed", "3"]  # no update that is refused
    (root / "all.csv").write_text(first.read_text() + new.read_text().partition("\n")[2])
    words[1] = str(root / "all.csv")
    assert main([*words, "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "out-2").classes == ["ant", "bee", "cat"]
    assert len(read_column(tmp_path / "out-2", "split")) == 14


def test_command_of_a_list_that_lost_rows_packs_what_it_holds_now(root: Path, tmp_path: Path) -> None:
    assert command("pack", write(root, make_rows()), tmp_path / "out", "--split", "none").returncode == 0
    rows = make_rows(range(10))
    rows["img/00.png"]["split"] = "test"
    message = run_refused(write(root, rows), tmp_path / "out")
    assert "pack what the source holds now into a new folder: `" in message
    assert main([*read_command(message), "--workers", "1"]) == 0
    assert read_column(tmp_path / "out-2", "split") == {path: row["split"] for path, row in rows.items()}


def test_dataset_whose_classes_were_split_folders_is_refused_with_the_way_to_update_it(
    root: Path, tmp_path: Path
) -> None:
    for number in range(12):
        place = tmp_path / "set" / ("Testing" if number % 3 == 2 else "Training") / LABELS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"img/{number:02d}.png", place)
    pack(find_sources(tmp_path / "set", layout="class/..."), tmp_path / "out", SMALL)  # as it was read before
    message = refuse(tmp_path / "set", tmp_path / "out", error=UsageError)
    assert "class 'ant' is new, and an update keeps the classes as they are (Testing, Training)" in message
    assert message.endswith("or give --layout class/... if folders of these names were taken for classes")
    shutil.copy(root / "img/12.png", tmp_path / "set/Training/ant")
    pack(find_sources(tmp_path / "set", layout="class/..."), tmp_path / "out", SMALL, update=True)
    assert open_dataset(tmp_path / "out").manifest.splits["train"].samples == 13


# weights and groups


def test_changed_weights_and_groups_are_in_the_dataset_and_said(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(write(root, make_rows(weight="1", group="g")), out, SMALL.model_copy(update={"allow_leaks": True}))
    before, table = digests(out), open_dataset(out)
    rows = make_rows(weight="1", group="g")
    rows["img/00.png"]["weight"] = "0.1"
    rows["img/03.png"] |= {"weight": "2.5", "group": "other"}
    said = update(write(root, rows), out, SMALL.model_copy(update={"allow_leaks": True}))
    rest = (
        "the indexes have the new one from now on, the JSON in the tars keeps the old one, and a running training "
        "reads the old indexes to its end, but cannot resume with the new ones"
    )
    assert said == [
        f"2 pictures of the dataset have another weight now (img/00.png: 1, now 0.1, ...); {rest}",
        f"1 picture of the dataset has another group now (img/03.png: 'g', now 'other'); {rest}",
    ]
    weights, groups = read_column(out, "weight"), read_column(out, "group")
    assert weights == {path: float(np.float32(row["weight"])) for path, row in rows.items()}
    assert groups == {path: row["group"] for path, row in rows.items()}
    assert verify_dataset(out).pictures == 12
    after = digests(out)
    assert {n: d for n, d in after.items() if n in before and n.endswith((".tar", ".index.parquet"))} == {
        n: d for n, d in before.items() if n.endswith((".tar", ".index.parquet"))
    }
    now = open_dataset(out)
    assert (now.manifest.updates, now.fingerprint() != table.fingerprint()) == (1, True)
    assert set(pq.read_table(out / "audit.parquet")["group"].to_pylist()) == {"g", "other"}


def test_training_reads_the_new_weights(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows(weight="1")), tmp_path / "out")
    before = open_dataset(tmp_path / "out").split("train")
    update(write(root, make_rows(weight="3")), tmp_path / "out")
    with SampleReader(open_dataset(tmp_path / "out").split("train")) as reader:
        assert {reader.read_one(0, row).weight for row in range(2)} == {3.0}
    with SampleReader(before) as reader:  # of a run that opened the dataset before
        assert {reader.read_one(0, row).weight for row in range(2)} == {1.0}


def test_second_change_and_new_pictures_come_on_top_of_the_first(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(write(root, make_rows(weight="1")), out)
    rows = make_rows(range(14), weight="1")
    rows["img/00.png"]["weight"] = "2"
    update(write(root, rows), out)
    rows = make_rows(range(16), weight="1")
    rows["img/13.png"]["weight"] = "5"
    update(write(root, rows), out)
    assert read_column(out, "weight") == {path: float(row["weight"]) for path, row in rows.items()}
    assert open_dataset(out).manifest.updates == 2
    assert verify_dataset(out).pictures == 16
    assert update(write(root, rows), out)[-1].startswith("nothing to add")


def test_update_without_an_audit_takes_weights_and_groups_as_well(root: Path, tmp_path: Path) -> None:
    blind = SMALL.model_copy(update={"audit": "none"})
    packed(write(root, make_rows(weight="1", group="")), tmp_path / "out", blind)
    rows = make_rows(weight="2", group="")
    rows["img/01.png"]["group"] = "g"
    update(write(root, rows), tmp_path / "out", blind)
    assert set(read_column(tmp_path / "out", "weight").values()) == {2.0}
    assert read_column(tmp_path / "out", "group")["img/01.png"] == "g"
    assert verify_dataset(tmp_path / "out").pictures == 12


def test_weight_that_the_index_rounds_is_no_change(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows(weight="0.1")), tmp_path / "out")
    (said,) = update(write(root, make_rows(weight="0.1")), tmp_path / "out")
    assert said.startswith("nothing to add")


def test_source_without_weights_leaves_them_and_a_column_of_ones_takes_them_away(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows(weight="2")), tmp_path / "out")
    assert update(write(root, make_rows()), tmp_path / "out")[0] == (
        "the source gives no weights, so 12 pictures of the dataset keep theirs; give a column of ones to remove them"
    )
    assert set(read_column(tmp_path / "out", "weight").values()) == {2.0}
    update(write(root, make_rows(weight="1")), tmp_path / "out")
    assert set(read_column(tmp_path / "out", "weight").values()) == {1.0}


def test_source_that_gives_no_groups_at_all_is_refused(root: Path, tmp_path: Path) -> None:
    rows = {path: row | {"group": row["split"]} for path, row in make_rows().items()}
    packed(write(root, rows), tmp_path / "out")
    assert "packed with group 'train' but the source gives no groups now" in refuse(
        write(root, make_rows(range(14))), tmp_path / "out"
    )
    update(write(root, {path: row | {"group": ""} for path, row in rows.items()}), tmp_path / "out")
    assert set(read_column(tmp_path / "out", "group").values()) == {""}


def test_command_for_dropped_groups_packs_anew_without_them(root: Path, tmp_path: Path) -> None:
    rows = {path: row | {"group": row["split"]} for path, row in make_rows().items()}
    assert command("pack", write(root, rows), tmp_path / "out", "--split", "none").returncode == 0
    message = run_refused(write(root, make_rows(range(14))), tmp_path / "out")
    assert "give the groups as before, or, to do without them, pack all pictures into a new folder" in message
    assert main([*read_command(message), "--workers", "1"]) == 0
    assert set(read_column(tmp_path / "out-2", "group").values()) == {""}
    assert len(read_column(tmp_path / "out-2", "group")) == 14


@pytest.mark.parametrize("audit", ["full", "none"])
def test_groups_that_the_splits_tear_are_refused_unless_one_insists(root: Path, tmp_path: Path, audit: str) -> None:
    options = SMALL.model_copy(update={"audit": audit})
    packed(write(root, make_rows(group="")), tmp_path / "out", options)
    rows = make_rows(group="")
    for number in (0, 4):
        rows[f"img/{number:02d}.png"]["group"] = "p1"
    message = refuse(write(root, rows), tmp_path / "out", options)
    assert (
        "group 'p1' lies in several splits with the present groups (img/04.png in test, img/00.png in train)" in message
    )
    update(root / "list.csv", tmp_path / "out", options.model_copy(update={"allow_leaks": True}))
    assert read_column(tmp_path / "out", "group")["img/04.png"] == "p1"
    if audit == "full":
        assert open_dataset(tmp_path / "out").manifest.audited.crossing_groups == 1


def test_command_for_torn_groups_deals_the_pictures_out_anew(root: Path, tmp_path: Path) -> None:
    plain = {path: {"label": row["label"]} for path, row in make_rows().items()}
    assert command("pack", write(root, plain), tmp_path / "out", "--split", "test=0.5").returncode == 0
    split_of = read_column(tmp_path / "out", "split")
    pair = [next(path for path in plain if split_of[path] == split) for split in ("train", "test")]
    rows = {path: row | {"group": "p1" if path in pair else ""} for path, row in plain.items()}
    words = read_command(run_refused(write(root, rows), tmp_path / "out"))
    assert main([*words, "--workers", "1"]) == 0
    split_of = read_column(tmp_path / "out-2", "split")
    assert split_of[pair[0]] == split_of[pair[1]]


def test_new_picture_follows_the_new_group_of_an_old_one(root: Path, tmp_path: Path) -> None:
    shares = SMALL.model_copy(update={"split": SplitOptions(shares={"test": 0.5})})
    plain = {path: {"label": row["label"], "group": ""} for path, row in make_rows(range(14)).items()}
    packed(write(root, dict(list(plain.items())[:12])), tmp_path / "out", shares)
    splits = read_column(tmp_path / "out", "split")
    for number, split in ((12, "test"), (13, "train")):
        old = next(path for path in plain if splits.get(path) == split)
        plain[old]["group"] = plain[f"img/{number}.png"]["group"] = f"p{number}"
    update(write(root, plain), tmp_path / "out", shares)
    splits = read_column(tmp_path / "out", "split")
    assert (splits["img/12.png"], splits["img/13.png"]) == ("test", "train")


def test_groups_and_weights_beside_folders_are_compared_as_well(root: Path, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "set" / LABELS[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"img/{number:02d}.png", tmp_path / "set" / LABELS[number % 2])
    packed(tmp_path / "set", tmp_path / "out")
    (tmp_path / "set/samples.csv").write_text("path,weight\nant/00.png,2\n")
    update(tmp_path / "set", tmp_path / "out")
    assert read_column(tmp_path / "out", "weight")["ant/00.png"] == 2.0
    listed = find_sources(tmp_path / "set", group_regex=r"/(\d)")
    pack(listed, tmp_path / "out", SMALL, update=True)
    assert set(read_column(tmp_path / "out", "group").values()) == {"0", "1"}


# stopped in between


def test_change_that_fails_at_its_table_leaves_the_dataset_whole_and_comes_to_the_same_bytes(
    root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    packed(write(root, make_rows(weight="1")), out)
    shutil.copytree(out, tmp_path / "unstopped")
    listed = write(root, make_rows(range(14), weight="2"))
    update(listed, tmp_path / "unstopped")
    manifest = open_dataset(out).manifest
    (out / "shards.1.parquet").mkdir()  # what cannot be replaced stands for what cannot be written
    with pytest.raises(IsADirectoryError):
        update(listed, out)
    assert (out / "train/000000.index.1.parquet").exists()
    assert open_dataset(out).manifest == manifest
    assert verify_dataset(out).pictures == 12
    assert set(read_column(out, "weight").values()) == {1.0}
    (out / "shards.1.parquet").rmdir()
    update(listed, out)
    assert digests(out) == digests(tmp_path / "unstopped")


def test_change_that_was_given_up_is_tidied_away(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(write(root, make_rows(weight="1")), out)
    before = digests(out)
    (out / "shards.1.parquet").mkdir()
    with pytest.raises(IsADirectoryError):
        update(write(root, make_rows(weight="2")), out)
    (out / "shards.1.parquet").rmdir()
    update(write(root, make_rows(weight="1")), out)
    assert {name for name in digests(out) if not name.startswith("audit.")} == {
        name for name in before if not name.startswith("audit.")
    }
    assert verify_dataset(out).pictures == 12


def test_other_change_after_one_that_was_given_up_leaves_nothing_of_it(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(write(root, make_rows(weight="1")), out)
    (first,) = pq.read_table(out / "train/000000.index.parquet").slice(0, 1)["source"].to_pylist()
    (last,) = pq.read_table(out / "test/000000.index.parquet").slice(0, 1)["source"].to_pylist()
    for path, fails in ((first, True), (last, False)):
        rows = make_rows(weight="1")
        rows[path]["weight"] = "2"
        if fails:
            (out / "shards.1.parquet").mkdir()
            with pytest.raises(IsADirectoryError):
                update(write(root, rows), out)
            (out / "shards.1.parquet").rmdir()
        else:
            update(write(root, rows), out)
    assert [path.relative_to(out).as_posix() for path in out.rglob("*.index.1.parquet")] == [
        "test/000000.index.1.parquet"
    ]


def test_plain_pack_of_the_list_of_before_or_after_says_that_the_dataset_is_another(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows(weight="1")), tmp_path / "out")
    update(write(root, make_rows(weight="2")), tmp_path / "out")
    for weight in "12":
        with pytest.raises(UsageError, match="already holds a dataset of other pictures or options"):
            packed(write(root, make_rows(weight=weight)), tmp_path / "out")


# one file under several names


@pytest.mark.parametrize("spelt", ["./img/{}", "{root}/img/{}", "img/../img/{}", "{link}/{}", "{up}/img/{}"])
@pytest.mark.parametrize("audit", ["full", "none"])
def test_names_of_one_file_are_one_picture(root: Path, tmp_path: Path, spelt: str, audit: str) -> None:
    options = SMALL.model_copy(update={"audit": audit})
    packed(write(root, make_rows()), tmp_path / "out", options)
    (tmp_path / "link").symlink_to(root / "img")
    names = {
        path: spelt.format(path.removeprefix("img/"), root=root, link=tmp_path / "link", up=f"../{root.name}")
        for path in make_rows()
    }
    said = update(write(root, {names[path]: row for path, row in make_rows().items()}), tmp_path / "out", options)
    assert said[0].startswith("the dataset has 12 pictures of the source under another name (")
    assert said[1].startswith("nothing to add")
    moved = {names[path]: row for path, row in make_rows().items()}
    moved[names["img/00.png"]]["split"] = "test"
    assert "(split train, now test)" in refuse(write(root, moved), tmp_path / "out", options)


def test_names_are_the_same_file_from_a_list_and_a_folder_elsewhere(root: Path, tmp_path: Path) -> None:
    for number in range(12):
        (root / LABELS[number % 2]).mkdir(exist_ok=True)
        shutil.move(root / f"img/{number:02d}.png", root / LABELS[number % 2] / f"{number:02d}.png")
    shutil.rmtree(root / "img")
    assert command("pack", root, tmp_path / "out", "--split", "none").returncode == 0
    (tmp_path / "lists").mkdir()
    lines = [f"../in/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(root.glob("*/*.png"))]
    (tmp_path / "lists/a.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    done = command("pack", tmp_path / "lists/a.csv", tmp_path / "out", "--split", "none", "--update")
    assert done.returncode == 0, done.stderr
    assert "note: nothing to add" in done.stderr
    assert set(read_column(tmp_path / "out", "split")) == {f"{LABELS[n % 2]}/{n:02d}.png" for n in range(12)}


def test_other_content_of_a_file_is_refused_however_it_is_spelt(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    (tmp_path / "link").symlink_to(root / "img")
    draw(99).save(root / "img/00.png")
    for spelt in ("./img/00.png", f"{root}/img/00.png", f"{tmp_path}/link/00.png"):
        rows = make_rows(range(1, 12)) | {spelt: {"label": "ant", "split": "train"}}
        message = refuse(write(root, rows), tmp_path / "out")
        assert message.startswith(f"{spelt} is not the picture that was packed under this name")


@pytest.mark.parametrize("audit", ["full", "none"])
def test_picture_moved_into_the_folder_of_another_split_or_class_is_refused(
    root: Path, tmp_path: Path, audit: str
) -> None:
    options = SMALL.model_copy(update={"audit": audit})
    for number in range(12):
        place = tmp_path / "set" / ("test" if number % 6 >= 4 else "train") / LABELS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"img/{number:02d}.png", place)
    packed(tmp_path / "set", tmp_path / "out", options)
    shutil.move(tmp_path / "set/train/ant/00.png", tmp_path / "set/test/ant")
    assert "test/ant/00.png (split train, now test)" in refuse(tmp_path / "set", tmp_path / "out", options)
    shutil.move(tmp_path / "set/test/ant/00.png", tmp_path / "set/train/bee")
    assert "train/bee/00.png (label ant, now bee)" in refuse(tmp_path / "set", tmp_path / "out", options)
    (tmp_path / "set/train/ant/deep").mkdir()
    shutil.move(tmp_path / "set/train/bee/00.png", tmp_path / "set/train/ant/deep")
    assert update(tmp_path / "set", tmp_path / "out", options)[0] == (
        "the dataset has 1 picture of the source under another name ('train/ant/deep/00.png' is 'train/ant/00.png' "
        "in it)"
    )
    assert len(read_column(tmp_path / "out", "split")) == 12


def test_other_picture_of_an_old_file_name_in_another_folder_is_new(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    (root / "more").mkdir()
    draw(99).save(root / "more/00.png")
    rows = make_rows(range(1, 12)) | {"more/00.png": {"label": "ant", "split": "train"}}
    update(write(root, rows), tmp_path / "out")
    assert len(read_column(tmp_path / "out", "split")) == 13


def test_link_to_a_picture_is_another_picture_as_when_it_is_packed_first(root: Path, tmp_path: Path) -> None:
    packed(write(root, make_rows()), tmp_path / "out")
    (root / "img/more.png").symlink_to("00.png")
    rows = make_rows() | {"img/more.png": {"label": "ant", "split": "train"}}
    update(write(root, rows), tmp_path / "out")
    assert "img/more.png" in read_column(tmp_path / "out", "split")


def test_two_spellings_of_one_file_in_a_list_are_refused_from_wherever_the_command_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    rows = make_rows() | {f"{root}/img/00.png": {"label": "ant", "split": "train"}}
    write(root, rows)
    with pytest.raises(UsageError, match="as row 2 does"):
        find_sources(Path("list.csv"))


# where the dataset lies


@pytest.mark.parametrize("store", ["s3", "gcs"])
def test_weights_of_a_dataset_in_an_object_store_are_updated(
    root: Path, tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    target = request.getfixturevalue(store).format(path=f"compare/{tmp_path.name}")
    packed(write(root, make_rows(weight="1")), target)
    listed = write(root, make_rows(weight="2"))
    packed(write(root, make_rows(weight="1")), tmp_path / "out")
    update(write(root, make_rows(weight="2")), tmp_path / "out")
    update(listed, target)
    storage = open_storage(target)
    there = {name: hashlib.sha256(storage.read(name)).hexdigest() for name in storage.sizes()}
    assert there == digests(tmp_path / "out")
    assert verify_dataset(target).pictures == 12
