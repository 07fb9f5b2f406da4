"""What the README says can be typed, and what it says is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shards.cli.table import Row, Table
from trainer.contract.model.names import BACKENDS
from trainer.recipes.options.augment import POLICIES
from trainer.recipes.options.loss import LOSSES
from trainer.recipes.options.optim import OPTIMIZERS
from trainer.recipes.options.schedule import SCHEDULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python -m ([\w.]+)", README)))
PACKAGES = ("shards", "trainer", "tune", "cluster")


def test_the_readme_names_the_commands_of_every_package() -> None:
    assert {command.split(".")[0] for command in COMMANDS} == set(PACKAGES)


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_of_the_readme_answers_help(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module}")


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)) <= targets


@pytest.mark.parametrize(
    ("option", "table"), [("optim.name", OPTIMIZERS), ("loss.name", LOSSES), ("schedule", SCHEDULES)]
)
def test_the_readme_lists_what_an_option_can_be(option: str, table: Table[Row]) -> None:
    wanted = f"`{option}={'|'.join(table)}`"
    assert wanted in README, f"write {wanted} where the README lists it"


def test_the_readme_lists_the_schedules_in_one_word() -> None:
    forms = ", ".join(f"`{row.form.example}`" for row in SCHEDULES.values() if row.form)
    wanted = f"as tutorials spell it ({forms})"
    assert wanted in " ".join(README.split()), f"write '{wanted}' where the README lists schedules"


def test_the_readme_lists_the_policies() -> None:
    listed = README.split("`augment.policy=` ")[1].split(" changes them")[0]
    wanted = [name for name in POLICIES if name != "none"]
    assert re.findall(r"`(\w+)`", listed) == wanted, f"list {', '.join(wanted)} where the README lists policies"


def test_the_readme_lists_the_back_ends_and_their_extras() -> None:
    listed = README.split("measures the back ends ")[1].split(", the model alone")[0]
    extras = {row.extra: None for row in BACKENDS.values() if row.extra}
    wanted = [*BACKENDS, *extras]
    assert re.findall(r"`([\w-]+)`", listed) == wanted, f"list {', '.join(wanted)} where the README lists back ends"


def test_the_module_map_names_every_module() -> None:
    drawn = README.split("## Module map")[1].split("```")[1]
    named = set(re.findall(r"\b[a-z_][a-z0-9_]*\b", drawn))
    modules = {
        path.stem
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.stem.startswith("__") and path.parent.name != "data"
    }
    assert modules - named == set()
