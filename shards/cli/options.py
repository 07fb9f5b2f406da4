"""Options of a command as an object: what its parser reads, and what its function takes from Python."""

from __future__ import annotations

import os
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from shards.errors import UsageError, explain_invalid

Location = Annotated[str, BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value)]
"""A path or a URI, as text."""


class Options(BaseModel):
    """What a command takes. Frozen; raises UsageError where it is made with a value that does not fit.

    A subclass has a field for each option, with its default, and checks in validators, which raise UsageError, what
    does not go together. A parser with `argument_default=argparse.SUPPRESS` then needs no defaults of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    there_are: ClassVar[str] = "there are"
    """What stands before the names of all options, where one is unknown."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise self._explain(err) from err

    @classmethod
    def default(cls, name: str) -> Any:
        """Return what an option is where it is not given, for help texts."""
        return cls.model_fields[name].get_default(call_default_factory=True)

    @classmethod
    def choices(cls, name: str) -> tuple[Any, ...]:
        """Return the values that an option may have besides None, for a parser."""
        of = get_args(cls.model_fields[name].annotation)
        return get_args(of[0]) if NoneType in of else of

    @classmethod
    def _explain(cls, err: ValidationError) -> UsageError:
        """Return the first thing that is wrong, as a sentence."""
        errors = err.errors()
        # A required option may be missing because its name is misspelt.
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        own = first.get("ctx", {}).get("error")
        if isinstance(own, UsageError):
            return own
        name, known = str(first["loc"][0]), cls.model_fields
        if first["type"] == "extra_forbidden":
            from shards.cli.sentences import suggest  # late: a mistake alone needs it

            hint = suggest(name, known, before=": ", otherwise=";")
            return UsageError(f"no option '{name}'{hint} {cls.there_are} {', '.join(known)}")
        if first["type"] == "missing":
            return UsageError(f"option '{name}' is missing; give it")
        return UsageError(explain_invalid(err, "option '{}'".format))
