"""Recipes as users write them: YAML files, `name=value` on the command line."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from shards.cli.sentences import suggest
from shards.errors import UsageError, explain_invalid
from trainer.recipes.options.choice import ChoiceSection
from trainer.recipes.options.schedule import parse_schedule
from trainer.recipes.recipe import Recipe

RECIPES = Path(__file__).parent
COST = "Time and hardware:"


def load_recipe(location: str, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of a YAML file, or of a name in trainer/recipes, with changes applied.

    Args:
        location: The file or the name.
        overrides: Options `name=value`, as on the command line.
        changes: A tree of values, as from Python: {"epochs": 3, "optim": {"peak_lr": 0.001}}.

    Raises:
        UsageError: No such recipe, not YAML, an unknown option (with a suggestion), or a bad value.
    """
    path = find_recipe(location)
    values = {"name": path.stem, **_read_yaml(path)}
    for override in overrides:
        apply_override(values, override)
    _merge(values, changes or {})
    recipe = build_recipe(values)
    _refuse_unused(recipe, overrides, changes or {})
    return recipe


def _refuse_unused(recipe: Recipe, overrides: Sequence[str], changes: Mapping[str, Any]) -> None:
    """Raise UsageError if a change sets an option that the choice of its group does not use.

    In a file such an option may have the default of another choice, because a resolved recipe has it.
    """
    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    _merge(given, changes)
    for name, group in given.items():
        section = getattr(recipe, name)
        if not isinstance(section, ChoiceSection) or not isinstance(group, Mapping):
            continue
        for option, value in group.items():
            if value is not None and getattr(section, option) is None:
                raise UsageError(f"{name}: {section.explain_unused(option, value)}")


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set the leaves of `changes` in `values`; a group in one word, such as `schedule: cosine`, is expanded first.

    >>> values = {"optim": {"name": "sgd"}, "schedule": "cosine"}
    >>> _merge(values, {"optim": {"peak_lr": 0.1}, "schedule": {"warmup": 0}})
    >>> values
    {'optim': {'name': 'sgd', 'peak_lr': 0.1}, 'schedule': {'name': 'cosine', 'warmup': 0}}
    """
    for name, value in changes.items():
        if name == "schedule" and isinstance(values.get(name), str) and isinstance(value, Mapping):
            values[name] = _open_schedule(values[name])
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = value


def find_recipe(location: str) -> Path:
    """Return the path of a recipe given as a path or as the name of a built-in recipe."""
    for path in (Path(location), RECIPES / f"{location}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    raise UsageError(f"no recipe '{location}': neither a file nor one of {', '.join(names)}")


@dataclass(frozen=True)
class Header:
    """A recipe's leading comment: its first paragraph, and its time and hardware; empty if missing."""

    purpose: str
    cost: str


def read_header(path: Path) -> Header:
    """Return a recipe's purpose, and its cost from the paragraph that begins with `Time and hardware:`."""
    comment = list(
        itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    )
    lines = [line.lstrip("#").strip() for line in comment]
    costs = [number for number, line in enumerate(lines) if line.startswith(COST)]
    cost = itertools.takewhile(bool, lines[costs[0] :]) if costs else []
    return Header(" ".join(itertools.takewhile(bool, lines)), " ".join(cost).removeprefix(COST).strip())


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `group.name=value` in a tree of values; the value is read as YAML.

    >>> values = {"epochs": 1}
    >>> apply_override(values, "optim.peak_lr=1e-3")
    >>> values
    {'epochs': 1, 'optim': {'peak_lr': 0.001}}
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UsageError(f"an option has the form name=value, for example epochs=5, got '{override}'")
    *groups, last = name.split(".")
    for group in groups:
        if group == "schedule" and isinstance(values.get(group), str):
            values[group] = _open_schedule(values[group])
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise UsageError(f"'{group}' in '{override}' is an option, not a group of options")
    values[last] = _read_value(text)


def _open_schedule(text: str) -> dict[str, Any]:
    """Expand a schedule in one word to its options, so that more can be set."""
    try:
        return parse_schedule(text)
    except ValueError as err:
        raise UsageError(f"schedule: {err}") from err


def build_recipe(values: dict[str, Any]) -> Recipe:
    """Return the validated recipe; raises UsageError with one sentence about the first error."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as err:
        raise UsageError(_explain(err)) from err


def parse_recipe(text: str, where: str) -> Recipe:
    """Return the recipe from a YAML text read at `where`; raises UsageError like `load_recipe`."""
    return build_recipe(_parse_yaml(text, where))


def _explain(err: ValidationError) -> str:
    first = err.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _explain_unknown(name, isinstance(first["input"], dict))
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):
        return f"{'.'.join(map(str, first['loc'][:-1]))}: too few numbers, got {first['input']!r}; give all of them"
    if first["type"] == "missing":
        return f"the recipe has no '{name}'; add it to the file or give {name}=VALUE"
    if first["type"] == "string_type":
        wanted = f"expected text, but YAML reads {first['input']!r}"
        return f"{name}: {wanted}; quote it, on a command line as {name}='\"...\"'"
    return explain_invalid(err)


def _explain_unknown(name: str, is_group: bool) -> str:
    from trainer.recipes.meanings import find_meant  # late: few recipes have a misspelt option

    group_name, _, last = name.rpartition(".")
    group: type[BaseModel] = Recipe
    for part in filter(None, group_name.split(".")):
        annotation = group.model_fields[part].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)  # only groups contain names
        group = annotation
    meant = None if is_group else find_meant(name)
    near = suggest(last, group.model_fields, before=": ", otherwise=";")
    hint = near if meant is None else f": did you mean '{meant}'?"
    return f"no option '{name}'{hint} {group_name or 'a recipe'} has {', '.join(group.model_fields)}"


def _read_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise UsageError(f"the value '{text}' is not YAML ({str(err).splitlines()[0]}); quote it") from err
    if isinstance(value, str) and text.strip()[:1] not in ("'", '"'):  # quoted values are meant as text
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            return value
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    return _parse_yaml(text, str(path))


def _parse_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise UsageError(f"{where} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(values, dict):
        raise UsageError(f"{where} has no options; a recipe consists of `name: value` lines")
    return values
