"""What the README says can be typed, and what it says is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
