"""Options that only some choices of their group use: given a default if they are used, rejected if not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import ModelWrapValidatorHandler, model_validator

from shards.cli.table import Row, Table
from trainer.recipes.options.section import Section

REQUIRED: Final = object()
"""Marks an option without a default, which the choice requires."""

Uses = Mapping[str, Mapping[str, Any]]
"""Choice -> option it uses -> default with this choice."""


def list_uses(table: Table[Any]) -> Uses:
    """Return the options that each row uses."""
    return {name: row.uses for name, row in table.items()}


def select_taken(options: Section, row: Row) -> dict[str, Any]:
    """Return the options that a row's builder takes, as keyword arguments."""
    return {option: getattr(options, option) for option in row.defaults}


def settle(values: dict[str, Any], choice: object, uses: Uses) -> dict[str, Any]:
    """Return the values of a group, with defaults for the options that `choice` uses; null means unset.

    A value equal to another choice's default counts as unset, because a recipe resolved with that choice contains it.
    An unknown choice is left to the group's own check.

    Raises:
        ValueError: An option that the choice does not use is set, or a required one is unset.

    >>> settle({"name": "step", "gamma": None}, "step", {"step": {"gamma": 0.1}, "cosine": {}})
    {'name': 'step', 'gamma': 0.1}
    """
    if not isinstance(choice, str) or choice not in uses:
        return values
    filled = dict(values)
    for option in {option: None for used in uses.values() for option in used}:
        given = values.get(option)
        if option not in uses[choice]:
            filled[option] = None
            if given is not None and not any(_is_default(given, used.get(option)) for used in uses.values()):
                users = [name for name, used in uses.items() if option in used]
                raise ValueError(
                    f"{choice} does not use {option}, got {option}={given}; leave it out (null), "
                    f"or use {' or '.join(users)}"
                )
        elif given is None:
            if uses[choice][option] is REQUIRED:
                raise ValueError(f"{choice} needs {option}, got none; give it a value")
            filled[option] = uses[choice][option]
    return filled


def _is_default(given: object, default: object) -> bool:
    return given == (list(default) if isinstance(default, tuple) and isinstance(given, list) else default)


class _Given:
    """A value that no default equals."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return str(self.value)


class ChoiceSection(Section):
    """A group with such options. Options filled in do not count as set: `exclude_unset` omits them, so that another
    choice can be made from the rest."""

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        given = cls._open(given)
        if not isinstance(given, dict):
            return build(given)
        group = build(cls._settle(given))
        named = {name for name, value in given.items() if value is not None}
        object.__setattr__(group, "__pydantic_fields_set__", named & set(cls.model_fields))
        return group

    @classmethod
    def _open(cls, given: Any) -> Any:
        """Expand a group written in a short form to its options; return others unchanged."""
        return given

    @classmethod
    def _settle(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the options with defaults filled in for their choices; raises ValueError like `settle`."""
        raise NotImplementedError

    def explain_unused(self, option: str, value: object) -> str:
        """Return the message about an option that this group's choices do not use, also for another choice's default.

        >>> from trainer.recipes.options.optim import OptimOptions
        >>> OptimOptions(name="adamw").explain_unused("momentum", 0.9)
        'adamw does not use momentum, got momentum=0.9; leave it out (null), or use sgd or muon'
        """
        try:
            self._settle({**self.model_dump(), option: _Given(value)})
        except ValueError as err:
            return str(err)
        return f"{option}={value} has no effect; leave it out"
