"""The look-alikes: laid out as the real sets, told apart by what the real task is about, the same every time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shards.cli.ending import run_command
from shards.dataset.manifest import Audited
from shards.errors import UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.preprocess import PreprocessSpec, apply_geometry
from trainer.recipes.data.layout import plan_pictures
from trainer.recipes.data.lookalike import LOOK_ALIKES, LookAlikeOptions, main, make_look_alike
from trainer.recipes.data.photographs import draw_poster

SMALL = ("--samples", "40", "--size", "48")


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and errors of the command."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = run_command(main, [str(word) for word in arguments])
    return code, err.getvalue()


def make(name: str, out: Path, *options: object) -> Path:
    assert run(name, out, *options) == (0, "")
    return out


def digest(folder: Path) -> dict[str, str]:
    """Hash of each file, by its name in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_python_makes_what_the_command_makes_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_look_alike(LookAlikeOptions(name="posters", out=tmp_path / "a", samples=40, size=48)) == 40
    assert digest(tmp_path / "a") == digest(make("posters", tmp_path / "b", *SMALL))
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match="no look-alike 'poster'; there are ants_bees, chest_xray, "):
        LookAlikeOptions(name="poster", out=tmp_path / "c")


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others(name: str, tmp_path: Path) -> None:
    first = digest(make(name, tmp_path / "a", *SMALL))
    assert digest(make(name, tmp_path / "b", *SMALL)) == first
    other = digest(make(name, tmp_path / "c", *SMALL, "--seed", 1))
    assert list(other) == list(first)
    assert not set(other.values()) & set(first.values())


PARTS = {
    "ants_bees": ["train", "val"],
    "chest_xray": ["test", "train", "val"],
    "covid_ct": [""],
    "digits": [""],
    "elpv": ["test", "train", "val"],
    "imagenet": ["train", "val"],
    "posters": [""],
}
MODES = {"chest_xray": {"L"}, "covid_ct": {"L", "RGB"}, "digits": {"L"}, "elpv": {"L"}}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_pictures_lie_in_the_folders_of_the_real_set_and_have_its_modes(name: str, tmp_path: Path) -> None:
    files = list(make(name, tmp_path / name, "--samples", 120, "--size", 32).rglob("*.*"))
    folders = {path.parent.relative_to(tmp_path / name).as_posix() for path in files}
    parts = [f"{part}/" if part else "" for part in PARTS[name]]
    assert folders == {part + label for part in parts for label in LOOK_ALIKES[name].classes}
    assert {Image.open(path).mode for path in files} == MODES.get(name, {"RGB"})


def test_chest_xrays_are_as_large_as_real_ones_imbalanced_and_have_16_for_validation(tmp_path: Path) -> None:
    files = list(make("chest_xray", tmp_path / "chest", "--samples", 48).rglob("*.jpeg"))
    sides = [max(Image.open(path).size) for path in files]
    assert 600 <= min(sides) < 660
    assert 940 < max(sides) <= 1000
    counts = Counter("/".join(path.parts[-3:-1]) for path in files)
    assert (counts["val/NORMAL"], counts["val/PNEUMONIA"]) == (8, 8)
    assert counts["train/PNEUMONIA"] / counts["train/NORMAL"] == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_shuffled_labels_keep_the_files_and_the_number_of_each_class(name: str) -> None:
    look = LOOK_ALIKES[name]
    plain, shuffled = (plan_pictures(look, 400, 0, shuffle) for shuffle in (False, True))
    assert [picture.path for picture in shuffled] == [picture.path for picture in plain]
    assert Counter(picture.drawn for picture in shuffled) == Counter(picture.drawn for picture in plain)
    agree = np.mean([f"/{picture.drawn}/" in f"/{picture.path}" for picture in shuffled])
    shares = np.array(list(look.classes.values())) / sum(look.classes.values())
    assert agree == pytest.approx(sum(shares**2), abs=0.1)  # two independent draws from the same shares
    assert all(f"/{picture.drawn}/" in f"/{picture.path}" for picture in plain)


@pytest.mark.parametrize("name", sorted(set(LOOK_ALIKES) - {"digits"}))
def test_plain_colour_does_not_tell_the_classes(name: str) -> None:
    look = LOOK_ALIKES[name]
    planned = plan_pictures(look, 200, 0, shuffle_labels=False)
    pictures = [look.draw(item.drawn, 48, np.random.default_rng((0, item.number))) for item in planned]
    colours = np.array([np.asarray(picture.convert("RGB")).mean((0, 1)) for picture in pictures])
    labels = np.array([item.drawn for item in planned])
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[::2], order[1::2]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(colours[train], labels[train])
    commonest = max(Counter(labels[test]).values()) / len(test)
    assert model.score(colours[test], labels[test]) < commonest + 0.15


@pytest.mark.parametrize("seed", range(12))
def test_a_centre_crop_loses_the_logo_of_a_poster_and_a_stretch_keeps_it(seed: int) -> None:
    acme, globex = (np.array(draw_poster(label, 320, np.random.default_rng(seed))) for label in ("acme", "globex"))
    crop, stretch = PreprocessSpec(size=64, policy="crop"), PreprocessSpec(size=64, policy="stretch")
    assert apply_geometry(acme, crop).equal(apply_geometry(globex, crop))
    assert not apply_geometry(acme, stretch).equal(apply_geometry(globex, stretch))


@pytest.mark.parametrize("name", ["chest_xray", "covid_ct", "digits", "posters"])
def test_the_audit_finds_nothing_wrong_with_a_look_alike(name: str, tmp_path: Path) -> None:
    source = make(name, tmp_path / name, "--samples", "60", "--size", "96")
    audited = pack(find_sources(source), tmp_path / "packed", PackOptions()).audited
    assert audited == Audited(level="full")  # and all else is 0


def test_a_zip_holds_the_files_of_the_folder_and_is_the_same_every_time(tmp_path: Path) -> None:
    folder = digest(make("covid_ct", tmp_path / "covid_ct", *SMALL))
    with zipfile.ZipFile(make("covid_ct", tmp_path / "covid_ct.zip", *SMALL)) as archive:
        zipped = {name.partition("/")[2]: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    assert zipped == folder
    (tmp_path / "again").mkdir()
    again = make("covid_ct", tmp_path / "again" / "covid_ct.zip", *SMALL)
    assert again.read_bytes() == (tmp_path / "covid_ct.zip").read_bytes()


def test_real_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    out = make("digits_sklearn", tmp_path / "digits")
    digits = load_digits()
    files = sorted(out.rglob("*.png"), key=lambda path: path.name)
    assert [int(path.parent.name) for path in files] == digits.target.tolist()
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    assert (np.rint(pixels * (16 / 255)) == digits.images).all()


def test_shuffled_real_digits_keep_their_pictures_and_lose_their_classes(tmp_path: Path) -> None:
    files = make("digits_sklearn", tmp_path / "digits", "--shuffle-labels").rglob("*.png")
    classes = np.array([int(path.parent.name) for path in sorted(files, key=lambda path: path.name)])
    target = load_digits().target
    assert (np.bincount(classes) == np.bincount(target)).all()
    assert np.mean(classes == target) == pytest.approx(0.1, abs=0.03)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    code, sentence = run("digits", tmp_path / "mine")
    assert (code, sentence) == (
        2,
        f"error: {tmp_path}/mine exists and nothing was written; choose another path, or delete it\n",
    )


def test_real_digits_have_one_size(tmp_path: Path) -> None:
    code, sentence = run("digits_sklearn", tmp_path / "digits", "--size", 28)
    assert code == 2
    assert sentence.startswith("error: digits_sklearn are 8x8 pixels and written as a folder; ")
