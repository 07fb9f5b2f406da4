"""Options of a command as an object, made by its parser or by callers from Python."""

from __future__ import annotations

import os
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from shards.errors import UsageError, explain_invalid
from shards.files.job_folder import refuse_job_folder

Location = Annotated[str, BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value)]
"""A path or a URI, as text."""

Output = Annotated[Path, AfterValidator(refuse_job_folder)]
"""A path for results."""


class Options(BaseModel):
    """The options of a command. Frozen; a value that does not fit raises UsageError.

    A subclass has a field with a default for each option; its validators raise UsageError for combinations that do not
    go together. A parser with `argument_default=argparse.SUPPRESS` then needs no defaults of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    there_are: ClassVar[str] = "there are"
    """The words before the list of all options, in the error for an unknown option."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise self._explain(err) from err

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the default of an option, for help texts."""
        return cls.model_fields[name].get_default(call_default_factory=True)

    @classmethod
    def choices(cls, name: str) -> tuple[Any, ...]:
        """Return the allowed values of an option besides None, for a parser."""
        of = get_args(cls.model_fields[name].annotation)
        return get_args(of[0]) if NoneType in of else of

    @classmethod
    def _explain(cls, err: ValidationError) -> UsageError:
        """Return the first error as a sentence."""
        errors = err.errors()
        # Unknown names come first: a required option may be missing because its name is misspelt.
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        own = first.get("ctx", {}).get("error")
        if isinstance(own, UsageError):
            return own
        name, known = str(first["loc"][0]), cls.model_fields
        if first["type"] == "extra_forbidden":
            from shards.cli.sentences import suggest  # late import: only a mistake needs it

            hint = suggest(name, known, before=": ", otherwise=";")
            return UsageError(f"no option '{name}'{hint} {cls.there_are} {', '.join(known)}")
        if first["type"] == "missing":
            return UsageError(f"option '{name}' is missing; give it")
        return UsageError(explain_invalid(err, "option '{}'".format))
