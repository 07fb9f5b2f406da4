"""What the README and the pages in docs/ say can be typed, and what they say is there."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
EVERYTHING = "\n".join(TEXTS.values())
COMMANDS = sorted(set(re.findall(r"python -m ([\w.]*\w)", EVERYTHING)))
TRAINING = TEXTS["docs/training.md"]
PACKAGES = ("shards", "trainer", "tune", "cluster")


def test_the_readme_and_docs_name_the_commands_of_every_package() -> None:
    assert {command.split(".")[0] for command in COMMANDS} == set(PACKAGES)


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_of_the_readme_and_docs_answers_help(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.match(rf"usage: python -m {module}|(?s:.*)^  python -m {module}\.", done.stdout, re.MULTILINE)


def test_every_make_target_of_the_readme_and_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", EVERYTHING, re.MULTILINE)) <= targets


@pytest.mark.parametrize(
    ("option", "table"), [("optim.name", OPTIMIZERS), ("loss.name", LOSSES), ("schedule", SCHEDULES)]
)
def test_the_docs_list_what_an_option_can_be(option: str, table: Table[Row]) -> None:
    wanted = f"`{option}={'|'.join(table)}`"
    assert wanted in TRAINING, f"write {wanted} where docs/training.md lists it"


def test_the_docs_list_the_schedules_in_one_word() -> None:
    forms = ", ".join(f"`{row.form.example}`" for row in SCHEDULES.values() if row.form)
    wanted = f"as in tutorials ({forms})"
    assert wanted in " ".join(TRAINING.split()), f"write '{wanted}' where docs/training.md lists schedules"


def test_the_docs_list_the_policies() -> None:
    listed = TRAINING.split("`augment.policy=` ")[1].split(" changes them")[0]
    wanted = [name for name in POLICIES if name != "none"]
    assert re.findall(r"`(\w+)`", listed) == wanted, f"list {', '.join(wanted)} where docs/training.md lists policies"


def test_the_docs_list_the_back_ends_and_their_extras() -> None:
    listed = TEXTS["docs/export.md"].split("measures the back ends ")[1].split(", the model alone")[0]
    extras = {row.extra: None for row in BACKENDS.values() if row.extra}
    wanted = [*BACKENDS, *extras]
    assert re.findall(r"`([\w-]+)`", listed) == wanted, f"list {', '.join(wanted)} where docs/export.md lists back ends"


def test_the_layout_names_every_room() -> None:
    named = set(re.findall(r"`([a-z_]+)`", TEXTS["docs/layout.md"]))
    rooms = {path.parent.name for package in PACKAGES for path in (ROOT / package).glob("*/__init__.py")}
    missing = sorted(rooms - named)
    assert not missing, f"docs/layout.md does not name the room {missing[0]}; write `{missing[0]}` in its package's row"


def test_the_readme_fits_in_150_lines_and_has_the_test_command() -> None:
    assert len(README.splitlines()) <= 150
    assert re.search(r"^make test\b", README, re.MULTILINE)
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("\nmake test")


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_a_page_and_a_heading_that_are_there(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", TEXTS[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}, which is not there"
        if anchor:
            assert anchor in list_anchors(path.read_text(encoding="utf-8")), f"{page}: {path.name} has no #{anchor}"


def list_anchors(text: str) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_page_in_docs_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        links = re.findall(r"\]\(([^)#\s:]+)", path.read_text(encoding="utf-8"))
        ahead += [(path.parent / link).resolve() for link in links]
    assert {path for path in PAGES if path not in seen} == set()
