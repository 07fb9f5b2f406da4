"""Tables of what people add, each held against its builders and options: half of an addition is one sentence."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor.checks import CHECKS
from shards.cli.table import Row, Table, load_builder
from trainer.contract.model.names import BACKENDS
from trainer.recipes.options.augment import POLICIES
from trainer.recipes.options.loss import LOSSES, LossOptions
from trainer.recipes.options.optim import OPTIMIZERS, OptimizerRow, OptimOptions
from trainer.recipes.options.schedule import SCHEDULES, ScheduleOptions
from trainer.recipes.options.section import Section

ROOT = Path(__file__).parent.parent
BUILDER = re.compile(r"[\w.]+:\w+")


@dataclass(frozen=True)
class Kind:
    """A table and what its builders have in common.

    where: the folder that they lie in. gives: their return annotation. given: the parameters that come before the
    options. others: functions with that annotation that are no builders. options: the group that holds them, if they
    are a recipe's. free: options of the group that may be null without regard to the table. plain: columns that name
    functions without options.
    """

    table: Table[Any]
    where: str
    gives: str
    given: tuple[str, ...]
    others: frozenset[str] = frozenset()
    options: type[Section] | None = None
    free: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()


KINDS = {
    "optim.name": Kind(
        OPTIMIZERS, "trainer/step", "Optimizer", ("groups", "lr"), frozenset({"build_optimizer"}), OptimOptions,
        frozenset({"clip_norm"}),
    ),
    "loss.name": Kind(
        LOSSES, "trainer/step", "PerSample", ("classes", "_classes", "positive_weights"), frozenset(), LossOptions,
        frozenset({"effective_beta", "teacher", "teacher_temperature", "teacher_share"}),
    ),
    "schedule.name": Kind(
        SCHEDULES, "trainer/step", "Share", ("at", "_at", "state", "value", "lower_is_better"), frozenset(),
        ScheduleOptions, frozenset({"warmup_epochs"}),
    ),
    "augment.policy": Kind(POLICIES, "trainer/feed/augment", "Policy", (), frozenset({"build_policy"})),
    "back end": Kind(
        BACKENDS, "trainer/contract/compute", "Compute", ("model", "device", "_device", "file"),
        plain=frozenset({"missing"}),
    ),
    "check": Kind(
        CHECKS, "cluster/doctor", "Verdict", ("view", "nodes", "options", "_"), frozenset({"make_verdict"}),
    ),
}  # fmt: skip


def list_builders(row: Row) -> dict[str, str]:
    """Return the columns of a row that name functions, and what they name."""
    columns = {column.name: getattr(row, column.name) for column in fields(row)}
    return {name: text for name, text in columns.items() if isinstance(text, str) and BUILDER.fullmatch(text)}


def find_misfits(kind: Kind) -> Iterator[str]:
    """Yield a sentence for each row whose builders take other options than it gives defaults of."""
    for row in kind.table.values():
        builders = list_builders(row)
        for column, builder in builders.items():
            try:
                taken = inspect.signature(load_builder(builder)).parameters
            except (ImportError, AttributeError):
                yield f"{kind.table.plural}: the row {row.name} names {builder}, which is not there; write it"
                continue
            rest = {name for name, parameter in taken.items() if parameter.kind is inspect.Parameter.VAR_KEYWORD}
            wanted = set(taken) - set(kind.given) - rest
            given = set() if column in kind.plain else set(row.defaults)
            # A builder that takes the rest as it comes leaves it to another one of its row.
            if not (wanted <= given if rest and len(builders) > 1 else wanted == given):
                yield (
                    f"{kind.table.plural}: the row {row.name} gives defaults of {list_names(given)}, and "
                    f"{builder} takes {list_names(wanted)}; let them be the same"
                )


def find_stray_options(kind: Kind) -> Iterator[str]:
    """Yield a sentence for each option that only one of table and group has."""
    assert kind.options is not None
    used = {option for row in kind.table.values() for option in row.uses}
    for option in sorted(used - set(kind.options.model_fields)):
        lacks = f"which {kind.options.__name__} lacks; add it there"
        yield f"{kind.table.plural}: a row gives a default of {option}, {lacks}"
    null = {name for name, option in kind.options.model_fields.items() if option.get_default() is None}
    for option in sorted(null - used - kind.free):
        yield (
            f"{kind.options.__name__}.{option} is null, and no row of the {kind.table.plural} uses it; give its "
            "default in the rows that do"
        )


def find_strays(kind: Kind, sources: dict[str, str]) -> Iterator[str]:
    """Yield a sentence for each function that gives what builders give and that no row names.

    sources: module -> its text.
    """
    named = {builder for row in kind.table.values() for builder in list_builders(row).values()}
    for module, source in sources.items():
        for node in ast.parse(source).body:
            if (
                isinstance(node, ast.FunctionDef)
                and node.returns is not None
                and ast.unparse(node.returns) == kind.gives
                and not node.name.startswith("_")
                and node.name not in kind.others
                and f"{module}:{node.name}" not in named
            ):
                yield f"{kind.table.plural}: no row names {module}:{node.name}; add one"


def list_names(names: Any) -> str:
    return ", ".join(sorted(names)) or "no option"


def read_sources(kind: Kind) -> dict[str, str]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / kind.where).glob("*.py"))
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_builders_of_rows_are_there_and_take_the_options_that_the_rows_give_defaults_of(kind: Kind) -> None:
    sentences = list(find_misfits(kind))
    assert not sentences, "\n".join(sentences)


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.options], ids=lambda kind: kind.table.plural)
def test_options_of_rows_are_those_of_their_group(kind: Kind) -> None:
    sentences = list(find_stray_options(kind))
    assert not sentences, "\n".join(sentences)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_builder_has_a_row(kind: Kind) -> None:
    sentences = list(find_strays(kind, read_sources(kind)))
    assert not sentences, "\n".join(sentences)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_row_has_a_line_for_help(kind: Kind) -> None:
    assert [row.name for row in kind.table.values() if not row.summary or "\n" in row.summary] == []


# each half of an addition, planted

ADAM = "trainer.step.optimizers:build_adam"


def plant(*rows: Row) -> Kind:
    return replace(KINDS["optim.name"], table=Table("optimizers", *rows))


def test_row_without_its_builder_is_a_sentence() -> None:
    row = OptimizerRow("planted", "Adam again", "trainer.step.optimizers:build_planted")
    assert list(find_misfits(plant(row))) == [
        "optimizers: the row planted names trainer.step.optimizers:build_planted, which is not there; write it"
    ]


def test_row_without_its_defaults_is_a_sentence() -> None:
    assert list(find_misfits(plant(OptimizerRow("planted", "Adam again", ADAM)))) == [
        f"optimizers: the row planted gives defaults of no option, and {ADAM} takes betas, eps; let them be the same"
    ]


def test_default_that_the_builder_does_not_take_is_a_sentence() -> None:
    row = OptimizerRow("planted", "Adam again", ADAM, {"betas": (0.9, 0.999), "eps": 1e-8, "momentum": 0.9})
    assert list(find_misfits(plant(row))) == [
        f"optimizers: the row planted gives defaults of betas, eps, momentum, and {ADAM} takes betas, eps; "
        "let them be the same"
    ]


def test_builder_without_a_row_is_a_sentence() -> None:
    kind = KINDS["optim.name"]
    source = "def build_planted(groups: list[Group], lr: float) -> Optimizer:\n    return Adam(groups, lr=lr)"
    assert list(find_strays(kind, {"trainer.step.planted": source})) == [
        "optimizers: no row names trainer.step.planted:build_planted; add one"
    ]


def test_option_that_no_row_uses_is_a_sentence() -> None:
    class More(OptimOptions):
        no_such_option: float | None = None

    assert list(find_stray_options(replace(KINDS["optim.name"], options=More)))[-1:] == [
        "More.no_such_option is null, and no row of the optimizers uses it; give its default in the rows that do"
    ]


def test_default_of_an_option_that_does_not_exist_is_a_sentence() -> None:
    row = OptimizerRow("planted", "Adam again", ADAM, {"no_such_option": 0.004})
    assert next(find_stray_options(plant(*OPTIMIZERS.values(), row))) == (
        "optimizers: a row gives a default of no_such_option, which OptimOptions lacks; add it there"
    )


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"^two of the optimizers have one name$"):
        plant(OptimizerRow("adam", "Adam", ADAM), OptimizerRow("adam", "Adam again", ADAM))
