"""What refusals share: the first thing that a pydantic model refuses, near words, counts and shares."""

from __future__ import annotations

import argparse

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shards.cli.arguments import check_count, check_share, read_at_least
from shards.cli.sentences import suggest
from shards.errors import UsageError, explain_invalid


class Inner(BaseModel):
    rate: float = Field(default=1.0, gt=0)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner = Inner()
    sizes: list[int] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Outer:
        if self.name == "none":
            raise ValueError("a name and sizes are wanted, got neither")
        return self


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "a", "inner": {"rate": 0}}, "<inner.rate>: input should be greater than 0, got 0"),
        ({"name": "a", "sizes": [1, "x"], "more": 1}, "<sizes.1>: input should be a valid integer, "),
        ({}, "<name>: field required"),
        ({"name": "a", "more": 1}, "<more>: extra inputs are not permitted"),
        ({"name": "none"}, "a name and sizes are wanted, got neither"),
    ],
)
def test_first_thing_that_is_refused_is_named_with_what_it_got(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    assert explain_invalid(caught.value, spell="<{}>".format).startswith(sentence)


def test_long_input_is_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"name": list(range(10_000))})
    assert len(explain_invalid(caught.value)) < 300


def test_nearest_words_are_suggested_in_the_spelling_that_is_known() -> None:
    assert suggest("resnet81 ", ["ResNet18", "vit", "resnet101"], most=2) == "; did you mean 'ResNet18' or 'resnet101'?"
    assert suggest("vit_b", [], before=": ", otherwise=";") == ";"


@pytest.mark.parametrize("text", ["1", "-2", "2.5", "", "two", "1e3"])
def test_text_that_is_no_such_count_is_refused_and_shown(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"at least 2, got {text}$"):
        read_at_least(2)(text)
    assert read_at_least(2)("2") == 2


@pytest.mark.parametrize("share", [0.0, 1.0, 90.0, -0.1, float("nan")])
def test_share_of_none_or_of_all_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="lies between 0 and 1"):
        check_share("--ood", share)
    check_share("--ood", 0.9)
    check_share("--ood", None)


def test_option_that_was_not_given_is_no_wrong_count() -> None:
    check_count("--workers", None, of="threads")
    check_count("--workers", 1, of="threads")
