"""The table of what a path may be: each row is recognised, packed, predicted from and named in help and refusals."""

from __future__ import annotations

import importlib
import inspect
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from shards.__main__ import main as shards_main
from shards.errors import UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.sources.kinds import KINDS, PACKED_KINDS, How, Kind, find_kind, name_kind
from shards.sources.model import SourceList
from shards.splits.splits import SplitOptions
from trainer.predict.__main__ import main as predict_main
from trainer.unpacked.asked import PARTS, find_asked


def draw(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


CONTENT = {f"{label}/{n}.png": draw(20 * n + len(label)) for label in ("ant", "wasp") for n in range(3)}
Make = Callable[[Path, Path], str]
"""Makes an example of a kind in the empty folder that comes second, of the pictures in the first; returns its path."""


def make_list(pictures: Path, root: Path) -> str:
    (root / "list.csv").write_text("path,label\n" + "".join(f"{pictures / n},{n.split('/')[0]}\n" for n in CONTENT))
    return str(root / "list.csv")


def make_archive(pictures: Path, root: Path) -> str:
    with zipfile.ZipFile(root / "pictures.zip", "w") as file:
        for name in CONTENT:
            file.write(pictures / name, name)
    return str(root / "pictures.zip")


def make_archived_list(pictures: Path, root: Path) -> str:
    with zipfile.ZipFile(root / "pictures.zip", "w") as file:
        for number, name in enumerate(CONTENT):
            file.write(pictures / name, f"in/{number}.png")
        rows = "".join(f"{number}.png,{name.split('/')[0]}\n" for number, name in enumerate(CONTENT))
        file.writestr("in/list.csv", "path,label\n" + rows)
    return str(root / "pictures.zip/in/list.csv")


def make_tars(pictures: Path, root: Path) -> str:
    for label in ("ant", "wasp"):
        with tarfile.open(root / f"{label}.tar", "w") as file:
            for name in (name for name in CONTENT if name.startswith(label)):
                file.add(pictures / name, Path(name).name)
                info = tarfile.TarInfo(f"{Path(name).stem}.cls")
                info.size = len(label)
                file.addfile(info, io.BytesIO(label.encode()))
    return str(root)


def make_dataset(pictures: Path, root: Path) -> str:
    pack(find_sources(pictures), root / "out", PackOptions(split=SplitOptions(shares={})))
    return str(root / "out")


EXAMPLES: dict[str, Make] = {
    "uri": lambda _pictures, _root: "s3://bucket/a?endpoint_override=127.0.0.1:9000",
    "glob": lambda pictures, _: str(pictures / "*" / "*.png"),
    "list": make_list,
    "archived list": make_archived_list,
    "archive": make_archive,
    "dataset": make_dataset,
    "tars": make_tars,
    "folder": lambda pictures, _: str(pictures),
    "picture": lambda pictures, _: str(pictures / "ant/0.png"),
}

KIND_CASES = [pytest.param(kind, id=kind.name) for kind in KINDS]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for name, data in CONTENT.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    return tmp_path / "plain"


def make_example(kind: Kind, pictures: Path, root: Path) -> str:
    assert kind.name in EXAMPLES, f"no test meets the kind '{kind.name}'; add what makes one of it to EXAMPLES"
    root.mkdir()
    return EXAMPLES[kind.name](pictures, root)


def hold(pictures: dict[str, bytes]) -> list[bytes]:
    return sorted(pictures.values())


@pytest.mark.parametrize("kind", KIND_CASES)
def test_example_is_recognised_as_its_kind(kind: Kind, plain: Path, tmp_path: Path) -> None:
    found = find_kind(make_example(kind, plain, tmp_path / "made"))
    assert found is kind, f"an example of '{kind.name}' is taken for '{found and found.name}'; move its row up"


@pytest.mark.parametrize("kind", KIND_CASES[1:])
def test_kind_is_packed_or_predicted_from_with_all_its_pictures(kind: Kind, plain: Path, tmp_path: Path) -> None:
    """All but URIs, which need a store: see test_trainer_predict."""
    path = make_example(kind, plain, tmp_path / "made")
    expected = {"0": CONTENT["ant/0.png"]} if kind.name == "picture" else CONTENT
    assert kind.load or kind.name in PARTS, (
        f"the kind '{kind.name}' has no function that loads it and none in trainer.unpacked.asked.PARTS; add one"
    )
    if kind.load is not None:
        listed = find_sources(Path(path))
        assert {each.labels for each in listed.sources} == {("ant",), ("wasp",)}
        assert hold({each.name: listed.store.read(each) for each in listed.sources}) == hold(expected)
        assert {each.labels for each in find_sources(Path(path), unlabelled=True).sources} == {()}
    asked = find_asked([path])
    read = [asked.parts[place.part].read(place.picture.key) for place in asked.list()]
    assert sorted(read) == hold(expected)


def test_split_of_a_dataset_is_a_dataset_and_so_is_what_a_glob_matches(dataset_path: Path, pictures: Path) -> None:
    assert find_kind(f"{dataset_path}:test") is find_kind(str(dataset_path))
    assert find_asked([str(dataset_path)]).count == 120
    assert find_asked([f"{dataset_path}:test"]).count == 24
    assert find_asked([f"{dataset_path.parent}/colour*"]).parts[0].where == f"{dataset_path}:train,val,test"
    assert find_asked([str(pictures)]).count is None  # a stream


@pytest.mark.parametrize("kind", KIND_CASES)
def test_help_names_the_kind(kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    helps = [(predict_main, ["--help"])] + [(shards_main, ["pack", "--help"])] * (kind in PACKED_KINDS)
    for main, arguments in helps:
        with pytest.raises(SystemExit):
            main(arguments)
        assert "".join(kind.summary.split()) in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endings], ids=lambda kind: kind.name)
def test_refusal_of_another_file_names_the_endings_that_can_be_packed(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "a.rar").touch()
    with pytest.raises(UsageError, match="neither a folder nor a file that can be packed") as caught:
        find_sources(tmp_path / "a.rar")
    for ending in kind.endings:
        assert (f"{ending}," in f"{caught.value},".replace(")", "")) == (kind in PACKED_KINDS)
        assert name_kind(f"s3://bucket/A{ending.upper()}") is kind
        assert find_kind(str(tmp_path / f"nowhere{ending}")) is None


@pytest.mark.parametrize("kind", [kind for kind in PACKED_KINDS if kind.no_layout], ids=lambda kind: kind.name)
def test_layout_is_refused_where_folders_mean_nothing(kind: Kind, plain: Path, tmp_path: Path) -> None:
    path = make_example(kind, plain, tmp_path / "made")
    with pytest.raises(UsageError, match=f"is {kind.no_layout}; leave it out"):
        find_sources(Path(path), layout="class/...")


def test_every_function_that_loads_a_source_has_a_row() -> None:
    folder = Path(inspect.getfile(Kind)).parent
    modules = [importlib.import_module(f"shards.sources.{path.stem}") for path in sorted(folder.glob("*.py"))]
    strays = [
        f"no row of KINDS names {module.__name__}.{name}; add one"
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and _loads(function) and function not in [kind.load for kind in KINDS]
    ]
    assert strays == []


def _loads(function: Callable[..., object]) -> bool:
    """Say whether a function takes a path and `How`, and gives pictures."""
    signature = inspect.signature(function, eval_str=True)
    kinds = [each.annotation for each in signature.parameters.values()]
    return kinds == [Path, How] and signature.return_annotation is SourceList


def test_loaders_are_known_by_their_signature() -> None:
    assert all(_loads(kind.load) for kind in PACKED_KINDS if kind.load)


def test_predict_reads_only_kinds_that_there_are() -> None:
    assert set(PARTS) <= {kind.name for kind in KINDS}, "a reader of trainer.unpacked.asked.PARTS has no row; add one"


def test_names_of_kinds_differ_and_no_summary_is_empty() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) == len({kind.summary for kind in KINDS})
    assert all(kind.summary for kind in KINDS)


def test_folder_with_a_picture_is_no_folder_of_tars(plain: Path, tmp_path: Path) -> None:
    make_tars(plain, tmp_path / "plain")
    found = find_kind(str(plain))
    assert found is not None
    assert found.name == "folder"
    shutil.rmtree(plain / "ant")
    shutil.rmtree(plain / "wasp")
    found = find_kind(str(plain))
    assert found is not None
    assert found.name == "tars"


def test_path_that_is_there_is_neither_a_glob_nor_a_split(plain: Path, tmp_path: Path) -> None:
    for name in ("a[1].png", "a:test"):
        shutil.copyfile(plain / "ant/0.png", tmp_path / name)
    found = find_kind(str(tmp_path / "a[1].png"))
    assert found is not None
    assert found.name == "picture"
    assert find_kind(str(tmp_path / "a:test")) is None
    assert find_asked([str(tmp_path / "a:test")]).count == 1  # the user names it, so it is meant as a picture
