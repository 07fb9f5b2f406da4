"""Policies, and operations of a library by name: build the library's objects from a recipe, or explain why not."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shards.cli.sentences import suggest
from shards.errors import UsageError
from trainer.feed.augment.seeding import SampleKey
from trainer.recipes.options.augment import Backend, Operation

Change = Callable[[Any, SampleKey], Any]
"""Picture uint8[C, H, W] and the key of its sample -> uint8[C, H, W]; the input is not modified."""


@dataclass(frozen=True)
class Policy:
    """The changes of a training picture; None changes nothing.

    before: Changes the decoded picture, uint8[C, H, W] of any sides, with the model's number of channels. after:
    Changes the model's input, uint8[C, S, S] of any strides.
    """

    before: Change | None = None
    after: Change | None = None


def build_none() -> Policy:
    return Policy()


Elsewhere = Callable[[str], str]


@dataclass(frozen=True)
class Library:
    """A library of operations.

    kinds: Classes by name. refused: Names that cannot change a training picture, and what to do instead.
    adapt: Parameter name and value from YAML -> value for the library; ValueError if that is not possible.
    seed: Operations, built separately for each thread that needs it, and the purpose of their stream -> one change.
    disturb: Sets the library's own process-wide generators to a state given by a number.
    """

    name: Backend
    kinds: Mapping[str, type]
    refused: Mapping[str, str]
    adapt: Callable[[str, Any], Any]
    seed: Callable[[Callable[[], list[Any]], int], Change]
    disturb: Callable[[int], None]


def build_operation(operation: Operation, library: Library, elsewhere: Elsewhere) -> Any:
    """Return the library's object for an operation; operations among its parameters are built too.

    elsewhere: Takes an unknown operation's name; returns a hint if another library has that operation, else "".

    Raises:
        UsageError: The operation is unknown or cannot be used here, or a parameter is invalid.
    """
    kind = _find_kind(operation.op, library, elsewhere)
    known = _name_parameters(kind)
    unknown = next((name for name in operation.parameters if name not in known), None)
    if unknown is not None:
        raise UsageError(
            f"augment.pipeline: {operation.op} has no parameter '{unknown}'{suggest(unknown, known, before=': ')}; "
            f"it takes {', '.join(known) or 'none'}"
        )
    parameters = {
        name: _build_value(operation.op, name, value, library, elsewhere)
        for name, value in operation.parameters.items()
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about ignored parameters, which were rejected above
            return kind(**parameters)
    except Exception as err:
        raise UsageError(f"augment.pipeline: {library.name} rejects {_write(operation)} ({brief(err)})") from err


def brief(err: BaseException) -> str:
    """Return an error's message on one line.

    >>> brief(ValueError("degrees should be\\n  a pair"))
    'degrees should be a pair'
    """
    told = next((one for one in (err, err.__cause__, err.__context__) if isinstance(one, ValidationError)), None)
    if told is not None:
        found = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in told.errors()]
        return "; ".join(found)
    return " ".join(str(err).split()) or type(err).__name__


def _find_kind(name: str, library: Library, elsewhere: Elsewhere) -> type:
    if name in library.refused:
        raise UsageError(f"augment.pipeline: {name} cannot be used in a pipeline: {library.refused[name]}")
    if name in library.kinds:
        return library.kinds[name]
    otherwise = "; see its documentation for their names"
    hint = elsewhere(name) or suggest(name, library.kinds, before=": ", otherwise=otherwise)
    raise UsageError(f"augment.pipeline: {library.name} has no operation '{name}'{hint}")


def _name_parameters(kind: type) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _build_value(op: str, name: str, value: Any, library: Library, elsewhere: Elsewhere) -> Any:
    if _is_operation(value):
        return _build_nested(op, value, library, elsewhere)
    if isinstance(value, list) and value and all(_is_operation(item) for item in value):
        return [_build_nested(op, item, library, elsewhere) for item in value]
    try:
        return library.adapt(name, value)
    except ValueError as err:
        raise UsageError(f"augment.pipeline: {op}'s {name} {brief(err)}, got {value!r}") from err


def _is_operation(value: Any) -> bool:
    return isinstance(value, dict) and "op" in value


def _build_nested(op: str, value: dict[str, Any], library: Library, elsewhere: Elsewhere) -> Any:
    if "when" in value:
        raise UsageError(
            f"augment.pipeline: {op} contains {value['op']} with `when`; only the outer operation takes `when`"
        )
    return build_operation(Operation.model_validate(value), library, elsewhere)


def _write(operation: Operation) -> str:
    return f"{operation.op}({', '.join(f'{name}={value!r}' for name, value in operation.parameters.items())})"
