"""From pictures of every kind, in every kind of container, to a dataset that others read as well."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from data.make_hostile import HOSTILE, deep, deep_ramp, encode, oriented, rgb
from data.tars import write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import command
from PIL import Image

from shards.__main__ import main
from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME
from shards.dataset.verify import verify_dataset
from shards.packing.encode import StoreOptions
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.pictures.decode import DecodeOptions, decode
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions
from shards.workers.pools import open_pool

ROOT = Path(__file__).parent.parent
ALL_TRAIN = PackOptions(split=SplitOptions(shares={}))


def draw(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """Return a picture of coarse structure; two seeds give two scenes."""
    cells = np.random.default_rng((seed, 7)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def add(root: Path, count: int, names: str = "{label}/{seed:03d}.png") -> Path:
    """Write a picture for each seed, ants and bees in turn."""
    for seed in range(count):
        save(draw(seed), root / names.format(label=("ant", "bee")[seed % 2], seed=seed))
    return root


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def index(out: Path) -> list[dict[str, object]]:
    """Return the rows of all indexes in the order of their shards, each with its split."""
    rows: list[dict[str, object]] = []
    for path in sorted(out.rglob("*.index.parquet")):
        rows += [row | {"split": path.parent.name} for row in pq.read_table(path).to_pylist()]
    return rows


def packed_splits(out: Path) -> dict[str, str]:
    return {str(row["source"]): str(row["split"]) for row in index(out)}


def read_with_webdataset(out: Path) -> list[dict[str, bytes]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        import webdataset

        return list(webdataset.WebDataset([str(path) for path in sorted(out.rglob("*.tar"))], shardshuffle=False))


def picture_of(sample: dict[str, bytes]) -> bytes:
    (data,) = (sample[ending] for ending in ("png", "jpg", "webp") if ending in sample)
    return data


def pack_by_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = command("pack", *arguments)
    assert done.returncode == 0, done.stderr
    return done


# any tree, from any container

CLASSES = st.sampled_from(["ant", "bee", "正常肺部", "a b", "c.d"])
STEMS = st.text("aZ09 ._-é肺", min_size=1, max_size=8).filter(
    lambda text: text[0] not in " .~_" and text[-1] not in " ."
)
TREES = st.dictionaries(
    st.tuples(
        CLASSES, st.sampled_from(["", "deep/", "deep/deeper/"]), STEMS, st.sampled_from([".png", ".PNG", ".jpg"])
    ),
    st.none(),
    min_size=4,
    max_size=14,
).filter(lambda tree: len({name[0] for name in tree}) > 1)


def make_picture(number: int) -> bytes:
    """Return a small PNG; each number has pixels of its own."""
    pixels = np.random.default_rng((number, 3)).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def write_folder(files: dict[str, bytes], root: Path) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def list_with_tar(path: Path) -> list[str]:
    return subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True).stdout.splitlines()


@settings(max_examples=settings.default.max_examples // 4)
@given(TREES, st.integers(0, 3), st.sampled_from([1, 300, 1 << 20]))
def test_any_tree_is_packed_into_exactly_its_pictures_from_folder_and_archives(
    tree: dict[tuple[str, ...], None], seed: int, shard_bytes: int
) -> None:
    files = {f"{name[0]}/{''.join(name[1:])}": make_picture(number) for number, name in enumerate(tree)}
    options = PackOptions(shard_bytes=shard_bytes, split=SplitOptions(seed=seed, shares={"val": 0.2, "test": 0.2}))
    with tempfile.TemporaryDirectory() as text:
        root = Path(text)
        places = [
            write_folder(files, root / "in"),
            write_zip(files, root / "x.zip"),
            write_tar(root / "x.tar.gz", files),
        ]
        for number, place in enumerate(places):
            pack(find_sources(place), root / f"out{number}", options)
        assert digests(root / "out1") == digests(root / "out0")
        assert digests(root / "out2") == digests(root / "out0")
        samples = read_with_webdataset(root / "out0")
        listings = [name for path in (root / "out0").rglob("*.tar") for name in list_with_tar(path)]
    classes = sorted({name[0] for name in tree})
    read = [(json.loads(s["json"])["source"], picture_of(s), classes[int(s["cls"])]) for s in samples]
    assert sorted(read) == sorted((name, data, name.split("/")[0]) for name, data in files.items())
    assert len(set(listings)) == len(listings) == 3 * len(files)


PICTURES = st.lists(
    st.tuples(st.sampled_from(["ant", "bee"]), st.integers(0, 5), st.sampled_from([None, "train", "val", "test"])),
    min_size=6,
    max_size=24,
)


@settings(max_examples=settings.default.max_examples // 4)
@given(PICTURES, st.integers(0, 5), st.sampled_from(["none", "full"]))
def test_any_split_is_disjoint_complete_and_keeps_groups_together(
    pictures: list[tuple[str, int, str | None]], seed: int, audit: str
) -> None:
    # Two sure pictures: both classes need one in train. Groups cross classes; a list gives all splits or none.
    rows = [("ant", 90, "train"), ("bee", 91, "train"), *pictures]
    if any(split is None for _, _, split in rows):
        rows = [(label, group, None) for label, group, _ in rows]
    else:  # given splits that tear no group apart
        home = {group: split for _, group, split in reversed(rows)}
        rows = [(label, group, home[group]) for label, group, _ in rows]
    names = [f"p{group}_{number}.png" for number, (_, group, _) in enumerate(rows)]
    with tempfile.TemporaryDirectory() as text:
        root = Path(text)
        write_folder({name: make_picture(number) for number, name in enumerate(names)}, root)
        with open(root / "list.csv", "w", newline="") as file:
            table = [(name, row[0], row[2] or "") for name, row in zip(names, rows, strict=True)]
            csv.writer(file).writerows([("path", "label", "split"), *table])
        listed = find_sources(root / "list.csv", group_regex=r"^p(\d+)_")
        options = PackOptions(audit=audit, split=SplitOptions(seed=seed, shares={"val": 0.25, "test": 0.25}))
        pack(listed, root / "out", options)
        found = [(str(row["source"]), str(row["split"]), row["group"]) for row in index(root / "out")]
    assert sorted(name for name, _, _ in found) == sorted(names)
    assert len({(group, split) for _, split, group in found}) == len({group for _, _, group in found})
    given_splits = {name: row[2] for name, row in zip(names, rows, strict=True) if row[2]}
    assert {name: split for name, split, _ in found if given_splits} == given_splits


# pictures that are encoded anew


def write_odd(root: Path) -> dict[str, Path]:
    """Write pictures that no plain reader shows right, and return them by name; a 12-bit X-ray is among them."""
    odd: dict[str, bytes] = {
        item.name: item.make() for item in HOSTILE if item.size and not item.name.startswith("deep")
    }
    odd["xray.png"] = deep(deep_ramp(4095), "PNG")
    odd["xray.tif"] = deep(deep_ramp(4000)[::-1], "TIFF")
    with contextlib.suppress(ImportError):
        from test_shards_pictures_dicom import dicom

        odd["scan.dcm"] = dicom(deep_ramp(4095)[:, ::-1].copy(), PatientID="p1")
    return {path.name: path for path in write_folder(odd, root / "odd").iterdir()}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    """Odd pictures by name, and the dataset of them, packed with --bits 12."""
    root = tmp_path_factory.mktemp("odd")
    paths = write_odd(root / "in")
    add(root / "in", 4)
    pack_by_command(root / "in", root / "out", "--bits", "12", "--split", "none", "--shard-bytes", "20000")
    return paths, root / "out"


def as_others_see(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_others_see_in_the_shards_what_our_decoder_sees_in_the_files(odd: tuple[dict[str, Path], Path]) -> None:
    paths, out = odd
    options = open_dataset(out).manifest.packing.decode
    assert options.gray_range == (0, 4095)
    seen: dict[str, npt.NDArray[np.uint8]] = {}
    for sample in read_with_webdataset(out):
        seen[json.loads(sample["json"])["source"].rpartition("/")[2]] = as_others_see(picture_of(sample))
    different = [
        name for name, path in paths.items() if not np.array_equal(seen[name], decode(path.read_bytes(), options))
    ]
    assert different == []
    assert set(seen) > set(paths)


def test_facts_in_the_index_are_those_of_the_stored_picture(odd: tuple[dict[str, Path], Path]) -> None:
    stored = {json.loads(s["json"])["source"]: picture_of(s) for s in read_with_webdataset(odd[1])}
    for row in index(odd[1]):
        with Image.open(io.BytesIO(stored[str(row["source"])])) as image:
            assert (image.width, image.height, image.mode) == (row["width"], row["height"], row["mode"]), row["source"]


def test_dataset_of_odd_pictures_verifies(odd: tuple[dict[str, Path], Path]) -> None:
    assert verify_dataset(odd[1]).pictures == len(odd[0]) + 4


def test_x_ray_of_12_bits_is_stored_bright_and_plain(odd: tuple[dict[str, Path], Path]) -> None:
    (row,) = (row for row in index(odd[1]) if row["source"] == "odd/xray.png")
    assert (row["mode"], row["width"], row["height"]) == ("L", 48, 32)
    stored = {json.loads(s["json"])["source"]: picture_of(s) for s in read_with_webdataset(odd[1])}
    assert (as_others_see(stored["odd/xray.png"]).min(), as_others_see(stored["odd/xray.png"]).max()) == (0, 255)


# shrinking


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 JPEGs of 320 x 200, one of them turned, and a small one; read only."""
    root = tmp_path_factory.mktemp("large") / "in"
    for seed in range(24):
        noise = np.random.default_rng(seed).normal(0, 12, (200, 320, 3))
        pixels = (np.asarray(draw(seed, 320, 200)) + noise).clip(0, 255).astype(np.uint8)
        path = root / ("ant", "bee")[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(oriented("JPEG", 6 if seed == 3 else 1, Image.fromarray(pixels), quality=95))
    save(draw(77, 40, 30), root / "ant/small.jpg")
    return root


@pytest.fixture(scope="module")
def shrunk(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shrunk") / "out"
    options = ("--max-side", "64", "--quality", "80", "--shard-bytes", "10KB", "--split", "none")
    pack_by_command(large, out, *options)
    return out


def test_shrunk_pictures_have_the_side_asked_for_and_small_ones_stay(large: Path, shrunk: Path) -> None:
    sizes = {row["source"]: (row["width"], row["height"]) for row in index(shrunk)}
    assert sizes.pop("ant/small.jpg") == (40, 30)
    assert sizes.pop("bee/3.jpg") == (40, 64)  # upright
    assert set(sizes.values()) == {(64, 40)}
    stored = {json.loads(s["json"])["source"]: picture_of(s) for s in read_with_webdataset(shrunk)}
    assert stored["ant/small.jpg"] == (large / "ant/small.jpg").read_bytes()
    assert {Image.open(io.BytesIO(data)).size for name, data in stored.items() if name in sizes} == {(64, 40)}


def test_shrinking_is_recorded_and_the_result_verifies(shrunk: Path) -> None:
    packing = open_dataset(shrunk).manifest.packing
    assert (packing.max_side, packing.quality) == (64, 80)
    assert verify_dataset(shrunk).pictures == 25


def test_shards_of_shrunk_pictures_are_about_as_large_as_asked_for(shrunk: Path) -> None:
    held: Counter[str] = Counter()
    for path in shrunk.rglob("*.index.parquet"):
        held[path.name] += sum(pq.read_table(path)["length"].to_pylist())
    full = [held[name] for name in sorted(held)[:-1]]
    assert len(full) > 2
    assert all(6_000 < size < 14_000 for size in full), full


def test_shrunk_pictures_have_the_quality_asked_for(shrunk: Path) -> None:
    with Image.open(io.BytesIO(encode(draw(0), "JPEG", quality=80, subsampling="4:4:4"))) as image:
        tables = image.quantization
    for sample in read_with_webdataset(shrunk):
        with Image.open(io.BytesIO(picture_of(sample))) as image:
            assert image.quantization == tables or image.size == (40, 30)


def test_shrunk_bytes_do_not_depend_on_the_number_of_workers(large: Path, tmp_path: Path) -> None:
    options = ALL_TRAIN.model_copy(update={"store": StoreOptions(max_side=64), "shard_bytes": 10_000})
    pack(find_sources(large), tmp_path / "one", options)
    with open_pool(2) as pool:
        pack(find_sources(large), tmp_path / "two", options, Run(pool))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


# without an audit


def test_without_an_audit_the_same_bytes_are_stored(tmp_path: Path) -> None:
    add(tmp_path / "in", 12)
    save(draw(50).convert("CMYK"), tmp_path / "in/ant/x.jpg")
    listed = find_sources(tmp_path / "in")
    for audit in ("full", "none"):
        options = PackOptions(audit=audit, shard_bytes=20_000, split=SplitOptions(shares={"test": 0.3}))
        pack(listed, tmp_path / audit, options)
    full, none = digests(tmp_path / "full"), digests(tmp_path / "none")
    tars = {name for name in full if name.endswith(".tar")}
    assert len(tars) > 2
    assert {name: none[name] for name in tars} == {name: full[name] for name in tars}
    assert set(full) - set(none) == {"audit.html", "audit.parquet", "quarantine.csv"}
    rows = zip(index(tmp_path / "full"), index(tmp_path / "none"), strict=True)
    assert all(a | {"pixels_xxh3": ""} == b and len(str(a["pixels_xxh3"])) == 32 for a, b in rows)
    assert open_dataset(tmp_path / "none").manifest.audited.level == "none"
    assert verify_dataset(tmp_path / "none").pictures == 13


@pytest.mark.parametrize("shrink", [(), ("--max-side", "32")])
def test_without_an_audit_a_broken_picture_stops_the_pack_by_name(tmp_path: Path, shrink: tuple[str, ...]) -> None:
    add(tmp_path / "in", 6)
    (tmp_path / "in/ant/bad.jpg").write_bytes(encode(rgb(), "JPEG")[:200])
    done = command("pack", tmp_path / "in", tmp_path / "out", "--audit", "none", *shrink)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert done.stderr.startswith("error: ant/bad.jpg: ")
    assert "pack without --audit none" in done.stderr
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_without_an_audit_deep_gray_needs_a_range(tmp_path: Path) -> None:
    add(tmp_path / "in", 6)
    (tmp_path / "in/ant/xray.png").write_bytes(deep(deep_ramp(4095), "PNG"))
    done = command("pack", tmp_path / "in", tmp_path / "out", "--audit", "none")
    assert done.returncode == 3
    assert "ant/xray.png: deep gray of unknown range: give --bits or --range" in done.stderr
    pack_by_command(tmp_path / "in", tmp_path / "out", "--audit", "none", "--bits", "12")
    assert verify_dataset(tmp_path / "out").pictures == 7


# labels: none, several, shown by other names


def test_unlabelled_pictures_come_into_one_split_without_labels(tmp_path: Path) -> None:
    add(tmp_path / "in", 6)
    save(draw(50), tmp_path / "in/loose.png")
    pack_by_command(tmp_path / "in", tmp_path / "out", "--unlabelled")
    manifest = open_dataset(tmp_path / "out").manifest
    assert (manifest.task, manifest.classes, list(manifest.splits)) == ("unlabelled", [], ["all"])
    assert (manifest.splits["all"].samples, manifest.splits["all"].class_counts) == (7, [])
    for sample in read_with_webdataset(tmp_path / "out"):
        assert "cls" not in sample
        assert set(json.loads(sample["json"])) == {"source", "weight"}
    assert {(row["label"], tuple(row["labels"])) for row in index(tmp_path / "out")} == {(-1, ())}
    assert main(["stat", str(tmp_path / "out")]) == 0


def test_unlabelled_pictures_that_cannot_be_read_make_no_empty_dataset(tmp_path: Path) -> None:
    write_folder({f"{number}.png": b"" for number in range(3)}, tmp_path / "in")
    done = command("pack", tmp_path / "in", tmp_path / "out", "--unlabelled", "--max-reject-rate", "1")
    assert (done.returncode, done.stderr) == (
        3,
        "error: no picture is left to pack: all are unreadable or left out; repair them\n",
    )
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 12 pictures with one, two or three labels."""
    root = tmp_path_factory.mktemp("multi")
    labels = ("mass", "mass;fluid", "fluid;mass;node")
    write_folder({f"{n}.png": encode(draw(n), "PNG") for n in range(12)}, root / "in")
    lines = [f"{n}.png,{labels[n % 3]}" for n in range(12)]
    (root / "in/list.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    pack_by_command(root / "in/list.csv", root / "out", "--split", "none")
    return root / "out"


def test_several_labels_are_in_index_and_json_and_counted(multi: Path) -> None:
    manifest = open_dataset(multi).manifest
    assert (manifest.task, manifest.classes) == ("multi-label", ["fluid", "mass", "node"])
    assert manifest.splits["train"].class_counts == [8, 12, 4]
    several = [row for row in index(multi) if int(str(row["source"]).split(".")[0]) % 3 == 2]
    assert [(row["label"], row["labels"]) for row in several] == [(-1, [0, 1, 2])] * 4
    for sample in read_with_webdataset(multi):
        facts = json.loads(sample["json"])
        if int(facts["source"].split(".")[0]) % 3 == 1:
            assert facts["labels"] == ["mass", "fluid"]
            assert "cls" not in sample


def test_classes_are_shown_by_the_names_given(tmp_path: Path) -> None:
    add(tmp_path / "in", 8)
    (tmp_path / "names.txt").write_text("ant 正常肺部\nbee 肺炎\n", encoding="utf-8")
    names = ("--class-names", tmp_path / "names.txt")
    told = pack_by_command(tmp_path / "in", tmp_path / "out", *names, "--split", "none").stdout
    manifest = open_dataset(tmp_path / "out").manifest
    assert (manifest.classes, manifest.display_names) == (["ant", "bee"], ["正常肺部", "肺炎"])
    assert "正常肺部 4, 肺炎 4" in told


# splits from the command line


def test_every_nth_picture_of_a_class_is_for_testing(tmp_path: Path) -> None:
    pack_by_command(add(tmp_path / "in", 20), tmp_path / "out", "--every", "5")
    tested = sorted(name for name, split in packed_splits(tmp_path / "out").items() if split == "test")
    assert tested == ["ant/008.png", "ant/018.png", "bee/009.png", "bee/019.png"]


def test_fraction_thins_train_alone_and_says_so(tmp_path: Path) -> None:
    add(tmp_path / "in", 40)
    whole, part = tmp_path / "whole", tmp_path / "part"
    pack_by_command(tmp_path / "in", whole)
    told = pack_by_command(tmp_path / "in", part, "--fraction", "0.25").stderr
    assert told == "note: train has 8 of its 32 pictures (--fraction 0.25)\n"
    assert open_dataset(part).manifest.splits["train"].class_counts == [4, 4]
    kept, all_of_them = packed_splits(part), packed_splits(whole)
    assert kept.items() < all_of_them.items()
    assert {name for name, split in all_of_them.items() if split != "train"} <= set(kept)


def test_merged_splits_are_dealt_out_anew_and_test_stays(tmp_path: Path) -> None:
    for seed in range(40):
        split = "test" if seed < 8 else "val" if seed < 10 else "train"
        save(draw(seed), tmp_path / "in" / split / ("ant", "bee")[seed % 2] / f"{seed}.png")
    pack_by_command(tmp_path / "in", tmp_path / "out", "--merge-and-resplit", "train,val", "--split", "val=0.25")
    splits = open_dataset(tmp_path / "out").manifest.splits
    assert {name: split.class_counts for name, split in splits.items()} == {
        "train": [12, 12], "val": [4, 4], "test": [4, 4]
    }  # fmt: skip
    found = packed_splits(tmp_path / "out")
    assert {split for name, split in found.items() if name.startswith("test/")} == {"test"}


def test_missing_val_is_made_out_of_train_and_test_stays(tmp_path: Path) -> None:
    for seed in range(48):
        save(draw(seed), tmp_path / "in" / ("test" if seed < 8 else "train") / ("ant", "bee")[seed % 2] / f"{seed}.png")
    told = pack_by_command(tmp_path / "in", tmp_path / "out", "--split", "val=0.2").stderr
    assert told == "note: the source gives train and test, so val is made out of train's pictures\n"
    found = packed_splits(tmp_path / "out")
    assert Counter(found.values()) == {"train": 32, "val": 8, "test": 8}
    assert {name.split("/")[0] for name, split in found.items() if split == "test"} == {"test"}
    # An update deals its own new pictures out the same way.
    for seed in range(48, 68):
        save(draw(seed), tmp_path / "in" / "train" / ("ant", "bee")[seed % 2] / f"{seed}.png")
    pack_by_command(tmp_path / "in", tmp_path / "out", "--split", "val=0.2", "--update")
    assert Counter(packed_splits(tmp_path / "out").values()) == {"train": 48, "val": 12, "test": 8}
    assert found.items() < packed_splits(tmp_path / "out").items()


def test_audit_takes_missing_splits_as_pack_does(tmp_path: Path) -> None:
    for seed in range(20):
        save(draw(seed), tmp_path / "in" / "train" / ("ant", "bee")[seed % 2] / f"{seed}.png")
    done = command("audit", tmp_path / "in", "--out", tmp_path / "page", "--split", "val=0.2,test=0.2", "--json")
    assert (done.returncode, "so val and test are made" in done.stderr) == (0, True), done.stderr
    assert Counter(pq.read_table(tmp_path / "page/audit.parquet")["split"].to_pylist()) == {
        "train": 12, "val": 4, "test": 4
    }  # fmt: skip


@pytest.mark.parametrize("label", ["{label}", "ant"])
def test_external_set_is_packed_as_test_alone(tmp_path: Path, label: str) -> None:
    add(tmp_path / "in", 6, "test/" + label + "/{seed}.png")
    add(tmp_path / "flat", 6, label + "/{seed}.png")
    told = pack_by_command(tmp_path / "in", tmp_path / "out").stderr
    assert "gives test without train: the dataset can be used to evaluate a model, but not to train one" in told
    told = pack_by_command(tmp_path / "flat", tmp_path / "all", "--split", "test=1").stderr
    assert "gives test" not in told
    for name in ("out", "all"):
        manifest = open_dataset(tmp_path / name).manifest
        assert {split: each.samples for split, each in manifest.splits.items()} == {"test": 6}
        assert manifest.classes == (["ant"] if label == "ant" else ["ant", "bee"])


def test_flat_pictures_of_one_class_are_refused_with_the_way_to_evaluate_on_them(tmp_path: Path) -> None:
    add(tmp_path / "in", 4, "ant/{seed}.png")
    done = command("pack", tmp_path / "in", tmp_path / "out")
    assert done.stderr == (
        f"error: {tmp_path}/in has only one class, 'ant'; a classifier needs two or more classes (if they are only to "
        "evaluate a model on: --split test=1)\n"
    )


def test_pictures_to_train_on_are_put_into_test_by_two_options_only(tmp_path: Path) -> None:
    add(tmp_path / "in", 6, "train/{label}/{seed}.png")
    add(tmp_path / "in", 2, "val/{label}/{seed}.png")
    refused = command("pack", tmp_path / "in", tmp_path / "out", "--split", "test=1", "--allow-leaks")
    assert (refused.returncode, "the source gives train and val" in refused.stderr) == (2, True)
    both = ("--split", "test=1", "--merge-and-resplit", "train,val,test", "--allow-leaks")
    pack_by_command(tmp_path / "in", tmp_path / "out", *both)
    assert set(packed_splits(tmp_path / "out").values()) == {"test"}


def test_train_none_of_whose_pictures_can_be_read_is_no_external_set(tmp_path: Path) -> None:
    add(tmp_path / "in", 6, "test/{label}/{seed}.png")
    for name in ("ant", "bee"):
        (tmp_path / "in/train" / name).mkdir(parents=True)
        (tmp_path / "in/train" / name / "broken.png").write_bytes(b"nothing")
    done = command("pack", tmp_path / "in", tmp_path / "out", "--max-reject-rate", "1")
    assert (done.returncode, "'ant' has no readable picture in train" in done.stderr) == (3, True), done.stderr


# the outside world


def test_disk_that_fills_up_leaves_no_dataset_and_the_next_run_finishes(
    tmp_path: Path,
) -> None:
    add(tmp_path / "in", 40)  # 40 x 8 KB in one shard; the audit's files are smaller
    limit = 200_000

    def full() -> None:  # a file that cannot grow stands for a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "-m", "shards", "pack", str(tmp_path / "in"), str(tmp_path / "out"), "--split", "none"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, preexec_fn=full)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "is larger than `ulimit -f` allows" in done.stderr
    assert not list((tmp_path / "out").rglob("*.tar*"))
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()
    listed = find_sources(tmp_path / "in")
    pack(listed, tmp_path / "out", ALL_TRAIN)
    pack(listed, tmp_path / "unstopped", ALL_TRAIN)
    assert digests(tmp_path / "out") == digests(tmp_path / "unstopped")


# memory

# VmHWM, not ru_maxrss: that begins with the peak of the process that started this one, and torch is large.
MEASURE = r"""
import re, sys
from pathlib import Path
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources

pack(find_sources(Path(sys.argv[1])), sys.argv[2], PackOptions(shard_bytes=1 << 20))
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def measure_peak(root: Path, out: Path) -> int:
    """Return the peak memory in MiB of a process that packs a folder."""
    words = [sys.executable, "-c", MEASURE, str(root), str(out)]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True, env=environment)
    return int(done.stdout) // 1024


def test_peak_memory_does_not_grow_with_the_bytes_of_the_pictures(tmp_path: Path) -> None:
    """Four times the bytes in as many pictures: 58 MB more, of which not a quarter may be held at once.

    The pixels are of the same size in both, so that decoding costs the same; the bytes are comments in each JPEG.
    """
    peaks = []
    for factor in (1, 4):
        root = tmp_path / f"in{factor}"
        for number in range(64):
            comment = np.random.default_rng(number).bytes(60_000)
            data = encode(draw(number), "JPEG", comment=b"")
            # Comment segments hold at most 64 KB each; they come behind the first two bytes of the file.
            body = (b"\xff\xfe" + (60_002).to_bytes(2, "big") + comment) * (5 * factor)
            write_folder({f"{('ant', 'bee')[number % 2]}/{number}.jpg": data[:2] + body + data[2:]}, root)
        peaks.append(measure_peak(root, tmp_path / f"out{factor}"))
    assert peaks[1] - peaks[0] < 15, peaks


def test_decoding_options_reach_the_stored_pictures(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    save(clear, tmp_path / "in/ant/clear.png")
    add(tmp_path / "in", 4)
    pack_by_command(tmp_path / "in", tmp_path / "out", "--background", "10,20,30", "--split", "none")
    stored = {json.loads(s["json"])["source"]: picture_of(s) for s in read_with_webdataset(tmp_path / "out")}
    assert as_others_see(stored["ant/clear.png"])[0, 0].tolist() == [10, 20, 30]
    assert open_dataset(tmp_path / "out").manifest.packing.decode == DecodeOptions(background=(10, 20, 30))
