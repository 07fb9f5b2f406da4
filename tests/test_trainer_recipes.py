"""Every recipe end to end on its look-alike: the commands of its header, with fewer and smaller pictures.

What a recipe learns with (model, loss, optimizer, schedule, policy) stays; the same run on shuffled labels must stay at
chance, or the accuracy would say nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from in_process import command
from scipy.stats import binom

from shards.cli.ending import run_command
from trainer.recipes.data import lookalike
from trainer.recipes.file import RECIPES, load_recipe, read_header
from trainer.run.__main__ import main

torch.set_num_threads(1)  # a team of threads costs more than it brings on shared cores


@dataclass(frozen=True)
class Case:
    """How much smaller a recipe is run.

    options: Numbers of the recipe that follow from fewer samples and pixels.
    """

    recipe: str
    name: str
    samples: int | None
    side: int | None
    options: tuple[str, ...]

    @property
    def header(self) -> str:
        """Comment at the top of the recipe's file."""
        lines = (RECIPES / f"{self.recipe}.yaml").read_text(encoding="utf-8").splitlines()
        return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))

    @property
    def pack_options(self) -> list[str]:
        """Words behind SRC and OUT of the header's packing command."""
        text = self.header.replace("\\\n", " ")
        found = re.search(r"python -m shards pack \S+ \S+(.*)", text)
        return shlex.split(found[1], comments=True) if found else []


CASES = {
    "digits": Case("digits", "digits_sklearn", None, None, ("image_size=32", "epochs=8")),
    "digits_drawn": Case("digits", "digits", 3000, None, ("image_size=32", "epochs=14")),
    "posters": Case("posters", "posters", 600, 128, ("image_size=64", "epochs=14")),
    "ants_bees": Case("ants_bees", "ants_bees", 500, 112, ("image_size=48", "preprocess.resize=55", "epochs=9")),
    "covid_ct": Case("covid_ct", "covid_ct", 900, 112, ("image_size=32", "epochs=4")),
    "chest_xray": Case("chest_xray", "chest_xray", 900, 100, ("image_size=48", "epochs=26")),
    "elpv": Case("elpv", "elpv", 300, 150, ("image_size=96", "epochs=3")),
    "imagenet_resnet50": Case(
        "imagenet_resnet50",
        "imagenet",
        700,
        96,
        (
            "image_size=64",
            "preprocess.resize=73",
            "epochs=20",
            "batch_size_global=32",
            "optim.peak_lr=0.013",
            "augment.progressive={start_size: 48, from_epoch: 12, to_epoch: 16, multiple: 16}",
        ),
    ),
}
ELSEWHERE = {"demo", "smoke"}
"""`make demo` runs demo on the real cells; tests/test_trainer_run.py runs smoke on the three colours."""


@dataclass(frozen=True)
class Outcome:
    """Accuracy on the part that the recipe evaluates on, its samples, and the share of its largest class."""

    accuracy: float
    samples: int
    commonest: float


def run_recipe(case: Case, folder: Path, *, shuffle_labels: bool = False) -> Outcome:
    """Make the look-alike, pack it as the header says, and run the recipe."""
    source = make_look_alike(case, folder, shuffle_labels)
    packed = command("pack", source, folder / "shards", *case.pack_options)
    assert packed.returncode == 0, packed.stderr
    options = [f"data={folder / 'shards'}", f"storage.root={folder / 'runs'}", *case.options, *PLAIN]
    recipe = load_recipe(case.recipe)
    if recipe.weights == "pretrained":
        options += ["weights=none", *(("freeze=[]", "freeze_epochs=null") if recipe.freeze else ())]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run_command(main, [case.recipe, *options, "--json"])
    assert code == 0, err.getvalue()
    (metrics,) = json.loads(out.getvalue())["evaluation"].values()
    counts = metrics["confusion"]
    rows = [sum(row) for row in counts]
    return Outcome(metrics["accuracy"], sum(rows), max(rows) / sum(rows))


PLAIN = (
    "track.wandb=disabled", "launch=local", "num_ranks=1", "workers=0", "amp=off",
    "snapshot.every_epochs=99", "snapshot.every_s=9999",
)  # fmt: skip
"""Where and how a run is computed here; nothing of it is learnt with."""


def make_look_alike(case: Case, folder: Path, shuffle_labels: bool) -> Path:
    zipped = f"data/{case.name}.zip" in case.header
    source = folder / f"{case.name}{'.zip' if zipped else ''}"
    words = [case.name, str(source)]
    words += ["--samples", str(case.samples)] if case.samples else []
    words += ["--size", str(case.side)] if case.side else []
    words += ["--shuffle-labels"] if shuffle_labels else []
    with contextlib.redirect_stdout(io.StringIO()):
        assert run_command(lookalike.main, words) == 0
    return source


def assert_learnt(outcome: Outcome) -> None:
    assert outcome.accuracy >= 0.9
    assert outcome.accuracy > limit_of_chance(outcome)


def limit_of_chance(outcome: Outcome) -> float:
    """Accuracy that always naming the commonest class exceeds in one of 1,000 sets of this size."""
    return float(binom.ppf(0.999, outcome.samples, outcome.commonest)) / outcome.samples


def list_cases(cases: dict[str, Case]) -> list[object]:
    return [pytest.param(case, id=name) for name, case in cases.items()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", list_cases(CASES))
def test_a_recipe_learns_what_tells_the_classes_apart(case: Case, tmp_path: Path) -> None:
    assert_learnt(run_recipe(case, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", list_cases(CASES))
def test_a_recipe_stays_at_chance_on_shuffled_labels(case: Case, tmp_path: Path) -> None:
    outcome = run_recipe(case, tmp_path, shuffle_labels=True)
    assert outcome.accuracy <= limit_of_chance(outcome) < 0.9


def test_every_recipe_is_run_end_to_end() -> None:
    assert {case.recipe for case in CASES.values()} | ELSEWHERE == {path.stem for path in RECIPES.glob("*.yaml")}


SIZES = {"data", "name", "image_size", "epochs", "batch_size_global", "weights"}


@pytest.mark.parametrize("case", list_cases(CASES))
def test_a_smaller_run_keeps_what_the_recipe_learns_with(case: Case) -> None:
    whole, small = (load_recipe(case.recipe, options) for options in ((), case.options))
    scale = small.batch_size_global / whole.batch_size_global
    assert (scale < 1) == (case.recipe == "imagenet_resnet50")  # whose 4,096 are more than all of the pictures
    assert small.optim.peak_lr == pytest.approx(whole.optim.peak_lr * scale, rel=0.05)
    assert bool(small.augment.progressive) == bool(whole.augment.progressive)
    plain = {
        "optim": {"peak_lr": small.optim.peak_lr},
        "preprocess": {"resize": small.preprocess.resize},
        "augment": {"progressive": small.augment.progressive and small.augment.progressive.model_dump()},
    }
    expected = whole.model_dump()
    for group, values in plain.items():
        expected[group] |= values
    assert {name for name, value in small.model_dump().items() if value != expected[name]} <= SIZES


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_says_how_to_run_it_what_to_expect_and_what_it_takes(path: Path) -> None:
    header = Case(path.stem, "", None, None, ()).header
    assert f"python -m trainer.run {path.stem}" in header
    assert re.search(r"\b(Result|Expected)\b", header)
    cost = read_header(path).cost  # what `python -m trainer.run` shows beside the purpose
    assert re.search(r"CPU cores|GPU", cost)
    assert re.search(r"\b(seconds|minutes|hour)", cost)
