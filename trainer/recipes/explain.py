"""List every option with its meaning, values and default, and print a recipe's YAML with these as comments."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shards.cli.meanings import read_meanings
from trainer.recipes.choices import CHOICES
from trainer.recipes.options.choice import REQUIRED, Uses, list_uses
from trainer.recipes.options.loss import LOSSES, USES_OF_TEACHER, USES_OF_WEIGHTS
from trainer.recipes.options.optim import OPTIMIZERS
from trainer.recipes.options.schedule import SCHEDULES
from trainer.recipes.options.section import Size
from trainer.recipes.recipe import Recipe

USES: Final[dict[str, Sequence[Uses]]] = {
    "optim": (list_uses(OPTIMIZERS),),
    "schedule": (list_uses(SCHEDULES),),
    "loss": (list_uses(LOSSES), USES_OF_WEIGHTS, USES_OF_TEACHER),
}
"""Group -> the options its choices use: such an option has a default for these choices and is null for others."""

_BOUNDS: Final = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
_PLAIN: Final = {bool: "true, false", int: "a whole number", float: "a number", str: "text"}
_MANY: Final = {int: "whole numbers", float: "numbers", str: "texts", Any: "values"}
_WIDTH: Final = 118


@dataclass(frozen=True)
class Option:
    """One option: its name with its group, meaning, values and default. A group has no values or default."""

    name: str
    meaning: str
    values: str = ""
    default: str = ""
    is_group: bool = False

    def describe(self) -> list[str]:
        """Return the meaning and the line about values and default."""
        takes = f"Values: {self.values}. Default: {self.default or 'none, it must be given'}."
        return [self.meaning] if self.is_group else [self.meaning, takes]


def list_options(model: type[BaseModel] = Recipe, group: str = "") -> Iterator[Option]:
    """Yield each option in the order of the file, a group before its options.

    >>> next(option for option in list_options() if option.name == "optim.momentum").default
    '0.9 for sgd; 0.95 for muon; null for the others'
    """
    meanings = {name: re.sub(r"\bNone\b", "null", text) for name, text in read_meanings(model).items()}
    for name, field in model.model_fields.items():
        full = f"{group}.{field.alias or name}" if group else name
        inner = find_section(field.annotation)
        is_plain = field.annotation != inner
        if inner is None or is_plain:
            values, default = describe_values(full, field), describe_default(group, name, field)
            yield Option(full, meanings.get(name, ""), values, default)
        else:
            yield Option(full, describe_class(inner), is_group=True)
        if inner is not None:
            yield from list_options(inner, f"{full}.OPTION" if get_origin(field.annotation) is dict else full)


def find_section(kind: Any) -> type[BaseModel] | None:
    """Return the options class that a type is or contains."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def describe_class(model: type[BaseModel]) -> str:
    """Return the purpose of a group of options: the first paragraph of its docstring."""
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def describe_values(name: str, field: FieldInfo) -> str:
    """Return the values of an option in words, null last."""
    if name in CHOICES:
        return ", ".join(CHOICES[name])
    bounds = [
        pattern.format(_write(limit))
        for limits in field.metadata
        for key, pattern in _BOUNDS.items()
        if (limit := getattr(limits, key, None)) is not None
    ]
    limits = f" {' and '.join(bounds)}" if bounds else ""
    if get_args(Size)[1] in field.metadata:
        return f"bytes, as a number or with a unit (64MiB),{limits}"
    return ", or ".join(_describe_type(field.annotation, limits))


def _describe_type(kind: Any, limits: str = "") -> list[str]:
    """Return the kinds of values of a type in words; `limits` are appended to numbers.

    >>> _describe_type(int | Literal["auto"]), _describe_type(float | None, " above 0"), _describe_type(list[str])
    (['a whole number', 'auto'], ['a number above 0', 'null'], ['a list of texts'])
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return [", ".join(_write(value) for value in args)]
    if origin in (Union, UnionType):
        words = [word for part in args if part is not NoneType for word in _describe_type(part, limits)]
        return [*words, "null"] if NoneType in args else words
    if origin is list:
        if find_section(args[0]):
            return ["a list of groups of the options below"]
        return [f"a list of {_MANY.get(args[0]) or ', '.join(_describe_type(args[0]))}"]
    if origin is tuple:
        return [f"[{', '.join('number' for _ in args)}]"]
    if origin is dict:
        if find_section(args[1]):
            return ["{name: a group of the options below, ...}"]
        return ["{name: number, ...}" if args[1] is float else "{name: value, ...}"]
    if kind is Any:
        return ["a value of the option"]
    if find_section(kind):
        return ["a group of the options below"]
    return [_PLAIN[kind] + (limits if kind in (int, float) else "")]


def describe_default(group: str, name: str, field: FieldInfo) -> str:
    """Return the default of an option in words; "" if the option is required."""
    by_choice = next((uses for uses in USES.get(group, ()) if any(name in used for used in uses.values())), None)
    if by_choice is not None:
        said: dict[str, list[str]] = {}
        for choice, used in by_choice.items():
            if name in used:
                default = "none (it must be given)" if used[name] is REQUIRED else _write(used[name])
                said.setdefault(default, []).append(choice)
        told = "; ".join(f"{default} for {', '.join(choices)}" for default, choices in said.items())
        return told if sum(map(len, said.values())) == len(by_choice) else f"{told}; null for the others"
    default = field.get_default(call_default_factory=True)
    return "" if default is PydanticUndefined else _write(default)


def _write(value: object) -> str:
    """Return a value as YAML on one line.

    >>> _write(True), _write((0.08, 1.0)), _write("off"), _write(None), _write(20 << 30)
    ('true', '[0.08, 1.0]', 'off', 'null', '21474836480')
    """
    return value if isinstance(value, str) else json.dumps(value)


def explain_recipe(recipe: Recipe) -> str:
    """Return the recipe's YAML with each option's meaning, values and default as comments; it is a valid recipe."""
    options = {option.name: option for option in list_options()}
    return "\n".join(_explain_group(recipe.model_dump(mode="json"), Recipe, options, "")) + "\n"


def _explain_group(values: dict[str, Any], model: type[BaseModel], options: dict[str, Option], group: str) -> list[str]:
    lines: list[str] = []
    indent = "  " * (group.count(".") + 1 if group else 0)
    for name, field in model.model_fields.items():
        option = options[f"{group}.{name}" if group else name]
        comment = [line for text in option.describe() for line in _comment(text, indent)]
        lines += comment if group else ["", *comment]
        if option.is_group:
            inner = find_section(field.annotation)
            assert inner is not None
            lines += [f"{indent}{name}:", *_explain_group(values[name], inner, options, option.name)]
        else:
            text = yaml.safe_dump({name: values[name]}, sort_keys=False, allow_unicode=True, width=_WIDTH)
            lines += textwrap.indent(text.rstrip("\n"), indent).split("\n")
    return lines if group else lines[1:]


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)
