"""Designs of experiments against published ones: runs, generators, aliases."""

from __future__ import annotations

import itertools

import pytest

from shards.errors import UsageError
from tune.space.design import list_full, list_one_factor, make_fraction


def letters(count: int, levels: int = 2) -> dict[str, int]:
    return dict.fromkeys("ABCDEFGH"[:count], levels)


def test_half_of_two_to_the_four_is_montgomery_s() -> None:
    """Montgomery, Design and Analysis of Experiments, 8th ed., example 8.1 and table 8.3: D = ABC, I = ABCD."""
    found = make_fraction(letters(4), 4)
    signs = {"".join("-+"[level] for level in run) for run in found.runs}
    # The table's D = ABC has the level + where A, B and C have an odd number of +.
    assert signs == {"----", "+--+", "-+-+", "++--", "--++", "+-+-", "-++-", "++++"}
    assert found.resolution == 4
    assert found.generators == {"D": "A + B + C"}
    assert found.aliases == [["A x B", "C x D"], ["A x C", "B x D"], ["A x D", "B x C"]]


def test_saturated_fraction_of_seven_factors_has_the_published_aliases() -> None:
    """Montgomery, 8.5: 2^(7-4) with D = AB, E = AC, F = BC, G = ABC; A = BD = CE = FG, and so on."""
    chosen = {"D": "AB", "E": "AC", "F": "BC", "G": "ABC"}
    found = make_fraction(letters(7), 3, {name: list(text) for name, text in chosen.items()})
    assert (len(found.runs), found.resolution) == (8, 3)
    assert found.aliases == [
        ["A", "B x D", "C x E", "F x G"],
        ["B", "A x D", "C x F", "E x G"],
        ["C", "A x E", "B x F", "D x G"],
        ["D", "A x B", "C x G", "E x F"],
        ["E", "A x C", "B x G", "D x F"],
        ["F", "A x G", "B x C", "D x E"],
        ["G", "A x F", "B x E", "C x D"],
    ]


def test_nine_runs_of_four_factors_with_three_levels_are_balanced_in_every_pair() -> None:
    """The orthogonal array L9 (Taguchi): each pair of levels of any two factors comes once."""
    found = make_fraction(letters(4, 3))
    assert (len(found.runs), found.resolution) == (9, 3)
    for one, other in itertools.combinations(range(4), 2):
        assert sorted((run[one], run[other]) for run in found.runs) == list_full([3, 3])


def test_two_and_three_levels_are_fractioned_apart_and_combined() -> None:
    found = make_fraction({"A": 2, "size": 3, "B": 2, "C": 2})
    assert (len(found.runs), found.resolution) == (12, 3)
    assert found.runs[0] == (0, 0, 0, 0)
    assert {run[1] for run in found.runs if run[0]} == {0, 1, 2}
    assert found.aliases == [["A", "B x C"], ["B", "A x C"], ["C", "A x B"]]


@pytest.mark.parametrize(
    ("count", "resolution", "runs"), [(3, 3, 4), (4, 4, 8), (5, 3, 8), (5, 5, 16), (6, 4, 16), (7, 4, 16), (8, 4, 16)]
)
def test_smallest_fraction_has_the_published_number_of_runs(count: int, resolution: int, runs: int) -> None:
    """Montgomery, table 8.14."""
    assert len(make_fraction(letters(count), resolution).runs) == runs


@pytest.mark.parametrize("levels", [2, 3])
def test_what_is_called_aliased_has_equal_contrasts_and_nothing_else_has(levels: int) -> None:
    found = make_fraction(letters(5, levels) if levels == 2 else letters(4, 3))
    grouped = {name: number for number, group in enumerate(found.aliases) for name in group}
    names = list(letters(5 if levels == 2 else 4))

    def contrast(effect: str) -> tuple[int, ...]:
        parts = [part.partition("^") for part in effect.split(" x ")]
        powers = [(names.index(name), int(power or 1)) for name, _, power in parts]
        return tuple(sum(power * run[place] for place, power in powers) % levels for run in found.runs)

    def divides(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return any(tuple(factor * each % levels for each in one) == other for factor in range(1, levels))

    for one, other in itertools.combinations([each for group in found.aliases for each in group], 2):
        assert divides(contrast(one), contrast(other)) == (grouped[one] == grouped[other]), (one, other)


def test_one_factor_at_a_time_has_the_baseline_and_each_other_level_once() -> None:
    assert list_one_factor([2, 3]) == [(0, 0), (1, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("sizes", "chosen", "sentence"),
    [
        ({"A": 2, "B": 4}, None, "takes factors with 2 or 3 levels, and B has 4"),
        (letters(4), {"D": ["A"]}, "D must follow two factors or more, got A"),
        (letters(4), {"D": ["A", "X"]}, "D cannot follow 'X'"),
        (letters(4), {"Q": ["A", "B"]}, "generators name 'Q', which is no factor; there are A, B, C, D"),
        (
            letters(4),
            {"C": ["A", "B"], "D": ["A", "B"]},
            "the generators give resolution 2, below 3: C x D is ",
        ),
    ],
)
def test_design_that_is_not_possible_is_refused(
    sizes: dict[str, int], chosen: dict[str, list[str]] | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence.replace("^", r"\^")):
        make_fraction(sizes, 3, chosen)
