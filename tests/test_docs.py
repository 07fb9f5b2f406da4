"""The pages of docs/ that `make docs` writes, and what they and `--print-recipe --explain` say of the options."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pydantic import BaseModel

from shards.cli.meanings import read_meanings
from shards.cli.options import Options
from trainer.recipes.explain import explain_recipe, list_options
from trainer.recipes.file import RECIPES, load_recipe, parse_recipe
from trainer.recipes.options.section import Section
from tune.space.file import load_space
from tune.space.options import Space
from tune.space.variants import make_variants

ROOT = Path(__file__).parents[1]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("infra_docs", ROOT / "infra/docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["infra_docs"] = module  # its dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


DOCS = load_generator()


@pytest.fixture(scope="module")
def pages() -> dict[Path, str]:
    made: dict[Path, str] = DOCS.make_pages()
    return made


def test_every_command_has_a_guide() -> None:
    lacking = [command.name for command in DOCS.COMMANDS if command.name not in DOCS.GUIDES]
    assert not lacking, f"give {', '.join(lacking)} a row in GUIDES of infra/docs.py: its page in docs/"
    unknown = set(DOCS.GUIDES) - {command.name for command in DOCS.COMMANDS}
    assert not unknown, f"GUIDES of infra/docs.py names {', '.join(sorted(unknown))}, which is no command"


def test_committed_pages_are_what_make_docs_writes(pages: dict[Path, str]) -> None:
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    assert not stale, f"{names} is out of date with the code; run `make docs` and commit what it writes"
    assert set((ROOT / "docs/commands").iterdir()) <= set(pages), "a page of a command that is no more; run `make docs`"


def test_each_command_has_a_page_that_names_every_option_of_its_help(pages: dict[Path, str]) -> None:
    for command in DOCS.COMMANDS:
        text = pages[ROOT / f"docs/commands/{command.name}.md"]
        for action in DOCS.find_parser(command)._actions:
            assert all(f"`{each}" in text or f", {each}" in text for each in action.option_strings if "-h" not in each)


def test_the_spelling_of_commands_comes_from_one_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DOCS, "SPELLING", "shardline {name}")
    pages = [DOCS.make_command_page(command, DOCS.find_examples()) for command in DOCS.COMMANDS]
    assert "\nshardline pack SRC OUT [options]\n" in pages[0]
    assert "\nshardline pack pictures data/mine " in pages[0]
    assert "python -m" not in "".join(pages)


def list_sections() -> list[type[BaseModel]]:
    """Every class of options that a recipe, a space or a command reads."""
    found: list[type[BaseModel]] = []
    for file in [*(ROOT / "trainer").rglob("options.py"), ROOT / "cluster/serve/options.py"]:
        importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    ahead: list[type[BaseModel]] = [Section, Options]
    while ahead:
        model = ahead.pop()
        found.append(model)
        ahead += [each for each in model.__subclasses__() if each.__module__.split(".")[0] != "tests"]
    return [model for model in found if re.match(r"(shards|trainer|tune|cluster)\.", model.__module__)]


def test_every_field_of_every_class_of_options_has_a_docstring() -> None:
    sections = list_sections()
    assert {"Recipe", "Space", "Progressive", "PredictOptions", "ServeOptions"} <= {each.__name__ for each in sections}
    missing = [
        f"{model.__name__}.{name}"
        for model in sections
        for name, field in model.model_fields.items()
        if name not in read_meanings(model)
        and not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]
    assert not missing, f"write below {', '.join(missing)} what it means, with its unit"


def test_options_page_has_each_option_of_a_recipe_and_a_space_with_meaning_values_and_default(
    pages: dict[Path, str],
) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| (.+) \| (.+) \|$", pages[ROOT / "docs/options.md"], re.MULTILINE)
    named = [row[0] for row in rows]
    assert named == [option.name for option in [*list_options(), *list_options(Space)] if not option.is_group]
    assert {"augment.progressive.start_size", "optim.peak_lr", "screen.reduction_factor"} <= set(named)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_an_explained_recipe_is_that_recipe(recipe: str) -> None:
    plain = load_recipe(recipe)
    again = parse_recipe(explain_recipe(plain), "here")
    assert again == plain
    assert again.fingerprint() == plain.fingerprint()


def test_an_explained_recipe_stays_what_it_is_with_odd_values() -> None:
    options = [
        "name='no'", "positive='1'", "freeze=['off', '#a: b']", "loss.class_weights={'yes': 2, '#': 1e-3, 新: 1}",
        "augment.policy=none", "augment.pipeline=[{op: RandomAffine, degrees: [1, 2]}]", "track.tags=['- a', 'x\\n#']",
        "augment.progressive={start_size: 16, to_epoch: 2}", "schedule=multi-30,60-0.1", "amp=off",
    ]  # fmt: skip
    plain = load_recipe("smoke", options)
    text = explain_recipe(plain)
    assert yaml.safe_load(text) == plain.model_dump(mode="json")
    assert parse_recipe(text, "here").fingerprint() == plain.fingerprint()


def test_each_option_of_an_explained_recipe_stands_below_its_meaning_values_and_default() -> None:
    lines = explain_recipe(load_recipe("smoke")).splitlines()
    at = lines.index("  momentum: null")
    default = "0.9 for sgd; 0.95 for muon; null for the others"
    assert lines[at - 1] == f"  # Values: a number at least 0 and below 1, or null. Default: {default}."
    assert lines[at - 2].startswith("  # ")
    at = lines.index("epochs: 3")
    assert lines[at - 1] == "# Values: a whole number at least 1. Default: 10."
    named = {line.strip().partition(":")[0] for line in lines if not line.lstrip().startswith(("#", "-")) and line}
    assert {option.name.rpartition(".")[2] for option in list_options() if option.name.count(".") < 2} == named


def test_the_space_of_the_page_is_one_and_makes_the_trials_that_it_names(tmp_path: Path) -> None:
    text = (ROOT / "docs/space.md").read_text(encoding="utf-8")
    written = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "space.yaml").write_text(written, encoding="utf-8")
    variants = make_variants(load_recipe("smoke"), load_space(str(tmp_path / "space.yaml")))
    assert len(variants) == 4
    assert f"`{variants[0].name}` to `{variants[-1].name}`" in text


def test_troubleshooting_quotes_what_the_code_says() -> None:
    quoted = re.findall(
        r"^\| `([^`]+)` \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    said = "\n".join(
        " ".join(list_texts(ast.parse(path.read_text(encoding="utf-8"))))
        for package in ("shards", "trainer")
        for path in (ROOT / package).rglob("*.py")
    )
    assert len(quoted) > 12
    missing = [text for text in quoted if text not in said]
    assert not missing, f"no message says '{missing[0]}' any more; change docs/troubleshooting.md"


def list_texts(tree: ast.AST) -> list[str]:
    """Return the texts of a module, those of f-strings joined as far as they have no values in them."""
    return [
        "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        if isinstance(node, ast.JoinedStr)
        else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]
