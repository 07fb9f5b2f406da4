"""Every remedy that an error about sources, splits or a dataset names is followed here, as its reader would."""

from __future__ import annotations

import ast
import io
import re
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import command
from PIL import Image

ROOT = Path(__file__).parent.parent
Content = int | str | bytes | None
"""A picture by its number, a text, bytes; None: nothing is there."""
Tree = Mapping[str, Content]


def draw(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def encode(content: int | str | bytes) -> bytes:
    return draw(content) if isinstance(content, int) else content.encode() if isinstance(content, str) else content


def write(root: Path, tree: Tree) -> None:
    for name, content in tree.items():
        path = root / name
        if content is None and path.is_dir():
            shutil.rmtree(path)
        elif content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(content))


@dataclass(frozen=True)
class Remedy:
    """What is run in place of what was refused, once the files are changed; None: the same again."""

    words: str | None = None
    change: Tree = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """says: of the error. words: of the command that is refused. first: commands before it. change: of files between.

    Words are those of `shards pack`, without the dataset.
    """

    says: str
    files: Tree
    words: str
    remedies: tuple[Remedy, ...]
    first: tuple[str, ...] = ()
    change: Tree = field(default_factory=dict)


def case(
    says: str,
    files: Tree,
    words: str,
    *remedies: str | Tree | Remedy,
    first: tuple[str, ...] = (),
    change: Tree | None = None,
) -> Case:
    made = [
        each if isinstance(each, Remedy) else Remedy(each) if isinstance(each, str) else Remedy(None, each)
        for each in remedies
    ]
    return Case(says, files, words, tuple(made), first, change or {})


def zipped(tree: Tree) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, encode(content or ""))
    return file.getvalue()


def tarred(tree: Tree) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(encode(content or ""))
            archive.addfile(info, io.BytesIO(encode(content or "")))
    return file.getvalue()


def encrypted(tree: Tree) -> bytes:
    data = bytearray(zipped(tree))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def lzma_zip(tree: Tree) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in tree.items():
            archive.writestr(name, encode(content or ""))
    return file.getvalue()


def doubled(tree: Tree, again: str) -> bytes:
    """A tar in which one of the files stands twice."""
    first = tarred({again: tree[again]})
    return first.rstrip(b"\0") + bytes(-len(first.rstrip(b"\0")) % 512) + tarred(tree)


def parquet(**columns: list[object]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


FLAT: Tree = {f"in/{label}/{n}.png": 10 * n + len(label) for label in ("ant", "wasp") for n in range(6)}
SPLITS: Tree = {
    f"in/{split}/{label}/{n}.png": 100 * len(split) + 10 * n + k
    for split in ("train", "val", "test")
    for k, label in enumerate(("ant", "wasp"))
    for n in range(6 if split == "train" else 2)
}
TRAIN_VAL: Tree = {name: content for name, content in SPLITS.items() if "/test/" not in name}
WITHOUT_ANTS: Tree = {name: None for name in FLAT if "/ant/" in name}
ROWS = "1.png,ant\n2.png,wasp\n"
FILES: Tree = {"1.png": 1, "2.png": 2}
SAMPLES: Tree = {"1.png": 1, "1.cls": "ant", "2.png": 2, "2.cls": "wasp"}


def listed(text: str) -> Tree:
    return {"l.csv": text, **FILES}


def archive(tree: Tree) -> Tree:
    return {name.removeprefix("in/"): content for name, content in tree.items()}


CASES = [
    # splits
    case(
        "--split is of the form",
        FLAT,
        "in --split val:0.1",
        "in --split val=0.1",
        "in --split none",
        "in --split test=1",
    ),
    case(
        "--merge-and-resplit: name two or three",
        SPLITS,
        "in --merge-and-resplit train",
        "in --merge-and-resplit train,val",
    ),
    case(
        "nothing would be left to train on; name it too",
        SPLITS,
        "in --merge-and-resplit val,test",
        "in --merge-and-resplit train,val,test",
    ),
    case("give --every or --split", FLAT, "in --every 3 --split val=0.2", "in --every 3", "in --split val=0.2"),
    case(
        "give --split instead of --every",
        SPLITS,
        "in --every 3 --merge-and-resplit train,val",
        "in --split val=0.2 --merge-and-resplit train,val",
    ),
    case("the source gives no split 'train'", FLAT, "in --merge-and-resplit train,val", "in --split val=0.2"),
    case(
        "--split has no share for val",
        SPLITS,
        "in --merge-and-resplit train,val --split test=0.1",
        "in --merge-and-resplit train,val --split test=0.1,val=0.1",
    ),
    case("would split groups", FLAT, "in --every 3 --group-regex [0-3]", "in --split val=0.2 --group-regex [0-3]"),
    case(
        "--split test=1 is only for pictures to evaluate on",
        SPLITS,
        "in --split test=1",
        "in",
        "in --split test=1 --merge-and-resplit train,val,test",
    ),
    case(
        "leaves nothing to train on: the shares sum to 1",
        FLAT,
        "in --split val=0.5,test=0.5",
        "in --split val=0.4,test=0.5",
    ),
    # layout
    case(
        "a classifier needs two or more classes", {"in/ant/1.png": 1}, "in", "in --split test=1", {"in/wasp/1.png": 2}
    ),
    case(
        "has only one class, 'x'; if the folders in it",
        {f"in/x/{name[3:]}": data for name, data in FLAT.items()},
        "in",
        "in/x",
    ),
    case(
        "has no pictures in train, so it cannot be learnt",
        SPLITS | {"in/val/fly/1.png": 9},
        "in",
        {"in/train/fly/2.png": 8},
        {"in/val/fly": None, "in/val/ant/9.png": 9},
    ),
    case("holds no pictures in class folders", {"in/1.png": 1}, "in", "in --unlabelled", {"in/1.png": None, **FLAT}),
    case("has no picture in folders that fit --layout", FLAT, "in --layout split/class", "in --layout class/...", "in"),
    case("--layout sets what the folders mean", FLAT, "in --layout classes", "in --layout class/..."),
    case(
        "mixes split folders with",
        SPLITS | {"in/extra/ant/1.png": 7},
        "in",
        "in --layout split/class",
        "in --layout class/...",
    ),
    case(
        "but there are no class folders in them",
        {f"in/{name}/{n}.png": n + 9 * len(name) for name in ("training", "testing") for n in range(3)},
        "in",
        "in --layout class/...",
        "in --unlabelled",
        {f"in/{name}/{n}.png": None for name in ("training", "testing") for n in range(3)} | SPLITS,
    ),
    case(
        "all read as train, so it is unclear",
        {
            f"in/{top}/{label}/1.png": 10 * k + j
            for k, top in enumerate(("train_a", "train_b", "test_a"))
            for j, label in enumerate(("ant", "wasp"))
        },
        "in",
        "in --layout class/...",
        {f"in/train_b/{label}/1.png": None for label in ("ant", "wasp")},
    ),
    case(
        "--layout sets which folders are classes, but --unlabelled",
        FLAT,
        "in --layout class/... --unlabelled",
        "in --layout class/...",
        "in --unlabelled",
    ),
    case(
        "--class-names names classes, but --unlabelled",
        FLAT | {"n.txt": "ant a\nwasp w\n"},
        "in --class-names n.txt --unlabelled",
        "in --class-names n.txt",
        "in --unlabelled",
    ),
    case("no such folder", FLAT, "gone", "in"),
    case("is neither a folder nor a file that can be packed", FLAT | {"a.rar": "x"}, "a.rar", "in"),
    case(
        "--layout sets what folders of pictures mean",
        listed(f"path,label\n{ROWS}"),
        "l.csv --layout class/...",
        "l.csv",
    ),
    case("sets how a list is read", FLAT | listed(f"path,label\n{ROWS}"), "in --base in", "in", "l.csv --base ."),
    case("--names sets how the names in an archive are encoded", FLAT, "in --names cp850", "in"),
    case("to pack by the list in it, give", listed(f"path,label\n{ROWS}"), ".", "l.csv"),
    case("finds a group in no picture", FLAT, "in --group-regex x(d+)y", "in --group-regex ant"),
    case("is not a regular expression", FLAT, "in --group-regex (", "in --group-regex [0-3] --split none"),
    # names of classes
    case(
        "look alike",
        FLAT | {"in/Ant/1.png": 99},
        "in",
        "in --alike join",
        "in --alike keep",
        {"in/Ant/1.png": None, "in/bee/1.png": 99},
    ),
    case(
        "has only one class once look-alike classes",
        {"in/ant/1.png": 1, "in/Ant/1.png": 2},
        "in --alike join",
        "in --alike keep",
    ),
    case(
        "so it would not be a class",
        FLAT | {"in/bee/1.psd": "x"},
        "in",
        "in --drop-empty-classes",
        {"in/bee/1.png": 5},
        {"in/bee": None},
    ),
    case(
        "--class-names: no such file",
        FLAT | {"n.txt": "ant a\nwasp w\n"},
        "in --class-names gone",
        "in --class-names n.txt",
    ),
    case(
        "that the pictures do not have",
        FLAT | {"n.txt": "ant a\nwasp w\nfly f\n"},
        "in --class-names n.txt",
        {"n.txt": "ant a\nwasp w\n"},
    ),
    case("has no name for class", FLAT | {"n.txt": "ant a\n"}, "in --class-names n.txt", {"n.txt": "ant a\nwasp w\n"}),
    case(
        "names class 'ant' twice",
        FLAT | {"n.txt": "ant a\nwasp w\nant b\n"},
        "in --class-names n.txt",
        {"n.txt": "ant a\nwasp w\n"},
    ),
    case(
        "has an empty name for class",
        FLAT | {"n.json": '{"ant": "", "wasp": "w"}'},
        "in --class-names n.json",
        {"n.json": '{"ant": "a", "wasp": "w"}'},
    ),
    case("cannot be read", FLAT | {"n.json": "{"}, "in --class-names n.json", {"n.json": '{"ant": "a", "wasp": "w"}'}),
    case(
        "is not one mapping of class to name",
        FLAT | {"n.json": "[]"},
        "in --class-names n.json",
        {"n.json": '{"ant": "a", "wasp": "w"}'},
    ),
    case(
        "is not a class and its name",
        FLAT | {"n.txt": "ant\n"},
        "in --class-names n.txt",
        {"n.txt": "ant,a\nwasp,w\n"},
        {"n.txt": "ant\ta\nwasp\tw\n"},
    ),
    # samples.csv
    case(
        "must have the columns path and weight",
        FLAT | {"in/samples.csv": "path,x\nant/0.png,1\n"},
        "in",
        {"in/samples.csv": "path,weight\nant/0.png,1\n"},
    ),
    case(
        "has two rows for",
        FLAT | {"in/samples.csv": "path,weight\nant/0.png,1\nant/0.png,2\n"},
        "in",
        {"in/samples.csv": "path,weight\nant/0.png,1\n"},
    ),
    case(
        "which is not a picture below",
        FLAT | {"in/samples.csv": "path,weight\nant/x.png,1\n"},
        "in",
        {"in/samples.csv": "path,weight\nant/1.png,1\n"},
        {"in/samples.csv": "path,weight\n"},
    ),
    case(
        "must be a number above 0",
        FLAT | {"in/samples.csv": "path,weight\nant/0.png,-1\n"},
        "in",
        {"in/samples.csv": "path,weight\nant/0.png,1\n"},
    ),
    # lists
    case("has no rows", listed("path,label\n"), "l.csv", {"l.csv": f"path,label\n{ROWS}"}),
    case("has no such column", listed(f"path,label\n{ROWS}"), "l.csv --columns label=x", "l.csv --columns label=label"),
    case(
        "rename one of them",
        listed("path,a,a\n1.png,x,ant\n2.png,x,wasp\n"),
        "l.csv --columns label=a",
        {"l.csv": "path,b,a\n1.png,x,ant\n2.png,x,wasp\n"},
    ),
    case(
        "keep one of them",
        listed("path,label,label\n1.png,x,ant\n2.png,x,wasp\n"),
        "l.csv",
        {"l.csv": f"path,label\n{ROWS}"},
    ),
    case(
        "name one column as",
        listed("path,ant,wasp\n1.png,1,0\n2.png,0,1\n"),
        "l.csv --columns label=ant --one-hot ant,wasp",
        "l.csv --one-hot ant,wasp",
    ),
    case(
        "must be ROLE=NAME", listed(f"path,label\n{ROWS}"), "l.csv --columns tag=label", "l.csv --columns label=label"
    ),
    case(
        "twice; keep one of them",
        listed(f"path,label\n{ROWS}"),
        "l.csv --columns label=label,label=path",
        "l.csv --columns label=label",
    ),
    case(
        "takes names separated by commas",
        listed("path,ant,wasp\n1.png,1,0\n2.png,0,1\n"),
        "l.csv --one-hot ant,,wasp",
        "l.csv --one-hot ant,wasp",
    ),
    case(
        "--ending is the ending of file names",
        listed("path,label\n1,ant\n2,wasp\n"),
        "l.csv --ending img/.png",
        "l.csv --ending .png",
    ),
    case(
        "--labels-as is one, list",
        listed("path,label\n1.png,ant|wasp\n2.png,wasp\n"),
        "l.csv --labels-as ''",
        "l.csv --labels-as '|'",
        "l.csv --labels-as one",
    ),
    case(
        "cannot be read (", listed(f"path,label\n{ROWS}"), "l.csv --columns '\"label=x'", "l.csv --columns label=label"
    ),
    case(
        "there is no file",
        {"l.csv": "path,label\n1,ant\n2,wasp\n", "img/1.png": 1, "img/2.png": 2},
        "l.csv",
        "l.csv --base img --ending .png",
    ),
    case(
        "as row 2 does",
        listed("path,label\n1.png,ant\n1.png,wasp\n2.png,ant\n"),
        "l.csv",
        {"l.csv": "path,label\n1.png,ant;wasp\n2.png,ant\n"},
    ),
    case(
        "has no split but other rows do",
        listed("path,label,split\n1.png,ant,train\n2.png,wasp,\n"),
        "l.csv",
        {"l.csv": "path,label,split\n1.png,ant,train\n2.png,wasp,train\n"},
        {"l.csv": f"path,label\n{ROWS}"},
    ),
    case(
        "is not a split; write train, val (validation) or test, or ",
        listed("path,label,split\n1.png,ant,train\n2.png,wasp,odd\n"),
        "l.csv",
        "l.csv --columns split=",
        {"l.csv": "path,label,split\n1.png,ant,train\n2.png,wasp,train\n"},
    ),
    case(
        "sets where labels or splits are",
        listed(f"path,label\n{ROWS}"),
        "l.csv --unlabelled --columns label=label",
        "l.csv --unlabelled",
        "l.csv --columns label=label",
    ),
    case(
        "and no row has several",
        listed(f"path,label\n{ROWS}3.png,\n") | {"3.png": 3},
        "l.csv",
        "l.csv --empty-labels",
        "l.csv --unlabelled",
        {"l.csv": f"path,label\n{ROWS}3.png,ant\n"},
        {"l.csv": f"path,label\n{ROWS}"},
    ),
    case(
        "has no label in any row",
        listed("path,label\n1.png,\n2.png,\n"),
        "l.csv",
        "l.csv --unlabelled",
        {"l.csv": f"path,label\n{ROWS}"},
    ),
    case(
        "is a vector of 0 and 1",
        listed("path,label\n1.png,[1 0]\n2.png,[0 1]\n"),
        "l.csv",
        "l.csv --labels-as one",
        Remedy("l.csv --one-hot ant,wasp", {"l.csv": "path,ant,wasp\n1.png,1,0\n2.png,0,1\n"}),
    ),
    case(
        "of --one-hot; write 1",
        listed("path,ant,wasp\n1.png,1,0\n2.png,x,1\n"),
        "l.csv --one-hot ant,wasp",
        {"l.csv": "path,ant,wasp\n1.png,1,0\n2.png,0,1\n"},
    ),
    case(
        "may be one class or several labels",
        listed("path,label\n1.png,ant|wasp\n2.png,wasp\n"),
        "l.csv",
        "l.csv --labels-as '|'",
        "l.csv --labels-as one",
    ),
    case(
        "is not a list like",
        listed("path,label\n1.png,ant\n2.png,['wasp']\n"),
        "l.csv --labels-as list",
        {"l.csv": "path,label\n1.png,['ant']\n2.png,['wasp']\n"},
    ),
    case(
        "put each of its labels into quotes",
        listed("path,label\n1.png,\"['ant', x]\"\n2.png,['wasp']\n"),
        "l.csv --labels-as list",
        {"l.csv": "path,label\n1.png,\"['ant', 'x']\"\n2.png,['wasp']\n"},
    ),
    case(
        "has a label twice",
        listed('path,label\n1.png,"[0, 0, 1]"\n2.png,"[1, 2]"\n'),
        "l.csv --labels-as list",
        Remedy("l.csv --one-hot a,b", {"l.csv": "path,a,b\n1.png,0,1\n2.png,1,0\n"}),
    ),
    case(
        "save it again as 'CSV UTF-8'",
        {"l.csv": "path,label\n1.png,müll\n2.png,b\n".encode("latin-1"), **FILES},
        "l.csv",
        {"l.csv": "path,label\n1.png,müll\n2.png,b\n"},
    ),
    case("save it again as CSV", listed('path,label\n1.png,a\n2.png,"b\n'), "l.csv", {"l.csv": f"path,label\n{ROWS}"}),
    case(
        "put a value that contains the separator into quotes",
        listed("path,label\n1.png,a,b\n2.png,b\n"),
        "l.csv",
        {"l.csv": 'path,label\n1.png,"ant, red"\n2.png,b\n'},
    ),
    case(
        "write it as text",
        {"l.parquet": parquet(path=["1.png", "2.png"], label=[0.5, 1.5]), **FILES},
        "l.parquet",
        {"l.parquet": parquet(path=["1.png", "2.png"], label=["0.5", "1.5"])},
    ),
    case(
        "is damaged or not a Parquet file",
        {"l.parquet": b"x", **FILES},
        "l.parquet",
        {"l.parquet": parquet(path=["1.png", "2.png"], label=["a", "b"])},
    ),
    # archives
    case(
        "twice, so it is unknown which one",
        {"x.tar": doubled(archive(FLAT), "ant/1.png")},
        "x.tar",
        {"x.tar": tarred(archive(FLAT))},
    ),
    case("there is no text encoding", {"x.zip": zipped(archive(FLAT))}, "x.zip --names cp9999", "x.zip --names cp850"),
    case("there is no list", {"x.zip": zipped(listed(f"path,label\n{ROWS}"))}, "x.zip/m.csv", "x.zip/l.csv"),
    case("to pack by the list in it, give", {"x.zip": zipped(listed(f"path,label\n{ROWS}"))}, "x.zip", "x.zip/l.csv"),
    case("is compressed by method", {"x.zip": lzma_zip(archive(FLAT)), **FLAT}, "x.zip", "in"),
    case("is damaged or not what its ending indicates", {"x.zip": b"x"}, "x.zip", {"x.zip": zipped(archive(FLAT))}),
    case(
        "without the mark that ends a tar",
        {"x.tar": tarred(archive(FLAT))[:2048]},
        "x.tar",
        {"x.tar": tarred(archive(FLAT))},
    ),
    # tars of samples
    case(
        " tars without pictures (looked for ",
        {"t/a.tar": tarred({"1.cls": "a"}), "t/b.tar": tarred({"2.cls": "b"})},
        "t",
        {"t/a.tar": tarred(SAMPLES)},
    ),
    case(
        "names no split but other tars do",
        {"t/train-0.tar": tarred(SAMPLES), "t/x.tar": tarred({"3.png": 3, "3.cls": "ant"})},
        "t",
        {"t/x.tar": None, "t/val-0.tar": tarred({"3.png": 3, "3.cls": "ant"})},
    ),
    case(
        "has no label: there is no",
        {"t/a.tar": tarred(SAMPLES | {"3.png": 3})},
        "t",
        "t --unlabelled",
        {"t/a.tar": tarred(SAMPLES | {"3.png": 3, "3.cls": "ant"})},
    ),
    case(
        "gives no label",
        {"t/a.tar": tarred(SAMPLES | {"3.png": 3, "3.json": "{"})},
        "t",
        {"t/a.tar": tarred(SAMPLES | {"3.png": 3, "3.json": '{"label": "ant"}'})},
    ),
    case(
        "holds '1.png' twice; write the shard again",
        {"t/a.tar": doubled(SAMPLES, "1.png")},
        "t",
        {"t/a.tar": tarred(SAMPLES)},
    ),
    # datasets
    case("is not empty (", FLAT | {"out/mine.txt": "x"}, "in", "in --to new"),
    case(
        "already holds a dataset of other pictures or options",
        FLAT,
        "in",
        "in --update",
        "in --to new",
        first=("in",),
        change={"in/ant/9.png": 77},
    ),
    case("--positive fly is none of the classes", FLAT, "in --positive fly", "in --positive ant", "in"),
    case("holds no finished dataset to update", FLAT, "in --update", "in"),
    case(
        "the dataset was packed with other options",
        FLAT,
        "in --update --max-side 4",
        "in --update",
        first=("in",),
        change={"in/ant/9.png": 77},
    ),
    case(
        "--fraction and --update do not go together",
        FLAT,
        "in --update --fraction 0.5",
        "in --update",
        first=("in",),
        change={"in/ant/9.png": 77},
    ),
    case(
        "the new pictures are",
        FLAT | listed("path,label\n1.png,ant;wasp\n2.png,wasp\n"),
        "l.csv --update",
        "l.csv --to new",
        first=("in",),
    ),
    case(
        "no picture is left to pack",
        {"in/ant/1.png": "x", "in/wasp/1.png": "y"},
        "in --audit full --max-reject-rate 1",
        {"in/ant/1.png": 1, "in/wasp/1.png": 2},
    ),
    case(
        "has no readable picture in train",
        FLAT | {"in/bee/1.png": "x"},
        "in --audit full --max-reject-rate 1",
        {"in/bee/1.png": 9},
        {"in/bee": None},
    ),
]


DATASETS = [
    case(
        "sha256 differs from dataset.json; restore it from a backup or pack again",
        FLAT,
        "in --update",
        "in --to new",
        first=("in",),
        change={"out/shards.parquet": "x"},
    ),
    case(
        "shards.parquet is missing; restore it from a backup or pack again",
        FLAT,
        "in --update",
        "in --to new",
        first=("in",),
        change={"out/shards.parquet": None},
    ),
    case(
        "sha256 differs from the shard table",
        FLAT,
        "in --update",
        "in --to new",
        first=("in",),
        change={"out/train/000000.index.parquet": "x"},
    ),
    case(
        "so new pictures cannot be compared",
        FLAT,
        "in --update --audit full",
        "in --to new",
        first=("in --audit full",),
        change={"out/audit.parquet": "x", "in/ant/9.png": 77},
    ),
    case(
        "is not the picture that was packed under this name",
        FLAT,
        "in --update --audit full",
        "in --to new",
        {"in/ant/1.png": FLAT["in/ant/1.png"], "in/ant/9.png": 77},
        first=("in --audit full",),
        change={"in/ant/1.png": 77},
    ),
    case(
        "but the source gives no groups now",
        FLAT,
        "in --update",
        "in --update --group-regex [0-5]",
        "in --to new",
        first=("in --group-regex [0-5]",),
        change={"in/ant/9.png": 77},
    ),
    case(
        "the dataset was indexed, not packed",
        {"out/a.tar": tarred(SAMPLES), "t/a.tar": tarred(SAMPLES)},
        "t --update",
        "t --to new",
        first=("index out",),
        change={"t/b.tar": tarred({"3.png": 3, "3.cls": "ant"})},
    ),
    case(
        "has the name of a tar",
        {"t/a.tar/b.tar": tarred(SAMPLES)},
        "t",
        {"t/a.tar": None, "t/a/b.tar": tarred(SAMPLES)},
    ),
    case("is encrypted", {"x.zip": encrypted(archive(FLAT)), **FLAT}, "x.zip", "in"),
    case("holds no tars to index", FLAT, "index in", "in"),
    case("give the folder of the tars", {"t/a.tar": tarred(SAMPLES)}, "index gone", "index t"),
]


def run(root: Path, words: str) -> tuple[int, str]:
    """Pack by words of a command line, into `out` unless --to names another folder, and without looking at pixels."""
    src, *options = shlex.split(words)
    if src == "index":
        done = command("index", root / options[0])
        return done.returncode, done.stderr
    out = "out"
    if "--to" in options:
        place = options.index("--to")
        out = options[place + 1]
        del options[place : place + 2]
    audit = [] if "--audit" in options else ["--audit", "none"]
    done = command("pack", root / src, root / out, *_place(root, options), *audit)
    return done.returncode, done.stderr


def _place(root: Path, options: list[str]) -> list[str]:
    """Return options whose files and folders lie below `root`."""
    files = {"--class-names", "--base"}
    return [
        str(root / word) if before in files else word for before, word in zip(["", *options], options, strict=False)
    ]


def name(case: Case) -> str:
    return case.says


@pytest.mark.parametrize("case", [*CASES, *DATASETS], ids=name)
def test_error_is_as_it_says_and_each_of_its_remedies_packs(case: Case, tmp_path: Path) -> None:
    for number, remedy in enumerate([None, *case.remedies]):
        root = tmp_path / str(number)
        root.mkdir()
        write(root, case.files)
        for words in case.first:
            assert run(root, words)[0] == 0
        write(root, case.change)
        if remedy is None:
            code, said = run(root, case.words)
            assert code in (2, 3), said
            assert case.says in said
            assert said.splitlines()[-1].startswith("error: ")
        else:
            write(root, remedy.change)
            code, said = run(root, remedy.words or case.words)
            assert code == 0, f"{remedy}: {said}"


ELSEWHERE = {
    "differently now, so that old and new": "test_shards_pictures_decoding.py::test_remedy_of_verify_gives_a_set",
    "is new, and an update keeps the classes": "test_shards_packing_compare.py::test_dataset_whose_classes_were_split",
    "another split or label now": "test_shards_packing_compare.py::test_command_of_the_refusal_packs_anew",
    "lies in several splits with the present groups": "test_shards_packing_compare.py::test_command_for_torn_groups",
    "whose meaning is unclear": "test_shards_sources_layout.py::test_splits_below_classes_are_refused_with_an_option",
    "keeps no blocks of its": "test_shards_audit_edited.py::test_update_with_the_option_is_refused",
    "so --edited-copies would find nothing": "test_shards_audit_edited.py::test_option_without_an_audit_is_refused",
    "which is invalid in": "test_shards_sources_archive.py::test_wrong_encoding_is_refused_by_its_fact",
    "\0 row \0: '\0' \0": "test_shards_remedies.py::test_error_is_as_it_says_and_each_of_its_remedies_packs",
}
"""Errors whose remedies another test follows, by words of them."""
NOT_FOLLOWED = {
    "changed while the pictures were packed": "run the command again: of a race",
    "vanished while the pictures were packed": "run the command again: of a race",
    "it has changed since. Run the command again": "run the command again: of a race",
    "it was truncated after it was listed": "fetch it again: of a race",
    "does not know": "restore it from a backup: a table of other pictures, which nothing writes",
    "is not UTF-8, so no index can hold it": "rename it: no path of this file can be spelt here",
    "is already a packed dataset with its own index": "names none: nothing is to be done",
    "no such picture or folder": "names none",
    "no pictures in ": "names none",
    "holds no pictures (looked for": "names none",
    "a dataset has the splits train, val and test": "names the splits that there are",
}


def list_errors() -> list[tuple[str, str]]:
    """Return place and words of each UsageError and ShardError of the three packages; what it fills in is a blank."""
    found = []
    for path in sorted(
        each for part in ("splits", "packing", "sources") for each in (ROOT / "shards" / part).glob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                kind, words = ast.unparse(node.exc.func), _read(node.exc.args[0])
                if kind in ("UsageError", "ShardError") and re.search(r"[a-z]{3}", words):
                    found.append((f"{path.name}:{node.lineno}", words))
    return found


def _read(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_read(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _read(node.left) + _read(node.right)
    return "\0"


def _matches(says: str, words: str) -> bool:
    """Say whether a fragment of a message comes of these words, each blank of which may be anything."""
    if says in words:
        return True
    parts = [part for part in words.split("\0") if len(part) > 8]
    return any(part.strip() in says for part in parts) and bool(parts)


def test_every_error_has_its_remedies_followed_here_or_elsewhere() -> None:
    known = [*(case.says for case in [*CASES, *DATASETS]), *ELSEWHERE]
    strays = [
        f"{place}: {words}"
        for place, words in list_errors()
        if not any(_matches(says, words) for says in [*known, *NOT_FOLLOWED])
    ]
    assert strays == [], "no remedy of these is tried; add a case"


def test_every_test_that_is_named_is_there() -> None:
    for named in ELSEWHERE.values():
        file, _, test = named.partition("::")
        assert f"def {test}" in (ROOT / "tests" / file).read_text(encoding="utf-8")
