"""Options of a command as an object: a value that does not fit is a sentence, whoever gives it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import model_validator

from shards.cli.options import Options
from shards.errors import UsageError


class Sail(Options):
    """Of a made-up command."""

    boat: Path
    wind: Literal["fair", "foul"] = "fair"
    crew: int = 2
    tide: Literal["high", "low"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.wind == "foul" and self.crew < 3:
            raise UsageError(f"--wind foul needs a --crew of at least 3, got {self.crew}")
        return self


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "option 'boat' is missing; give it"),
        ({"baot": "b"}, "no option 'baot': did you mean 'boat'? there are boat, wind, crew, tide"),
        ({"boat": "b", "crow": 3}, "no option 'crow': did you mean 'crew'? there are boat, wind, crew, tide"),
        ({"boat": "b", "wind": "far"}, "option 'wind': input should be 'fair' or 'foul', got 'far'"),
        ({"boat": "b", "crew": 2.5}, "option 'crew': input should be a valid integer, got a number with a fractional"),
        ({"boat": "b", "wind": "foul"}, "--wind foul needs a --crew of at least 3, got 2"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sail(**values)
    assert str(caught.value).startswith(sentence)


def test_a_parser_takes_defaults_and_choices_from_the_options_and_leaves_out_what_was_not_given() -> None:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    parser.add_argument("boat")
    parser.add_argument("--wind", choices=Sail.choices("wind"))
    parser.add_argument("--tide", choices=Sail.choices("tide"), help=f"{Sail.default('tide')}")
    parser.add_argument("--crew", type=int, help=f"{Sail.default('crew')}")
    assert Sail(**vars(parser.parse_args(["b"]))) == Sail(boat=Path("b"), wind="fair", crew=2, tide=None)
    assert Sail(**vars(parser.parse_args(["b", "--tide", "low"]))).model_fields_set == {"boat", "tide"}
    assert [action.choices for action in parser._actions if action.choices] == [("fair", "foul"), ("high", "low")]
    assert [action.help for action in parser._actions[3:]] == ["None", "2"]
