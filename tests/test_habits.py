"""What a contributor finds besides code: the licence, make targets, hooks, and how to debug and profile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(
    line.lower().split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split() if "==" in line
)


def test_licence_is_the_one_that_readme_citation_and_package_name() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text.splitlines()[0]
    assert "Version 2.0, January 2004" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["project"]["license"] == citation["license"] == "Apache-2.0"
    assert PROJECT["project"]["version"] == str(citation["version"])
    assert "Apache-2.0" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (declared,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == set(declared.split()) - {"help"}


def test_every_direct_dependency_is_pinned() -> None:
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    names = {re.split(r"[\[<>= ]", line)[0].lower().replace("_", "-") for group in groups for line in group}
    assert {name for name in names if name not in PINS} == set()


def test_hooks_run_the_tools_of_the_environment() -> None:
    page = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in page["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "docs"}
    for hook in hooks:
        tool, *rest = hook["entry"].split()
        assert tool.startswith(".venv/bin/")
        assert all((ROOT / word).exists() for word in rest if word.endswith(".py"))
    lint = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0]
    for tool in (".venv/bin/ruff check", ".venv/bin/ruff format", ".venv/bin/mypy"):
        assert tool in lint


@pytest.mark.slow
def test_debugger_and_profiler_of_contributing_see_a_step(dataset_path: Path, tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Debugging and profiling")[2].partition("## Refactoring")[0]
    (command,) = re.findall(r"^python -m pdb -m (.*)$", section, re.MULTILINE)
    (line,) = re.findall(r"`b trainer/step/engine.py:(\d+)`", section)
    words = command.replace("data/mine", str(dataset_path)).split()
    script = f"b {ROOT}/trainer/step/engine.py:{line}\nc\np 'stopped', type(self).__name__\nq\n"
    places = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}}
    done = subprocess.run(
        [sys.executable, "-m", "pdb", "-m", *words], input=script, capture_output=True, text=True, timeout=300, **places
    )
    assert "('stopped', 'Engine')" in done.stdout, done.stdout + done.stderr
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("data/mine", str(dataset_path))],
        capture_output=True,
        text=True,
        timeout=300,
        **places,
    )
    assert "convolution_backward" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "trace.json").is_file()
