"""The tables that recipe options choose from, and their help texts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any, Final

from shards.cli.table import Row, Table
from trainer.recipes.options.augment import POLICIES
from trainer.recipes.options.choice import REQUIRED
from trainer.recipes.options.loss import LOSSES
from trainer.recipes.options.optim import OPTIMIZERS
from trainer.recipes.options.schedule import SCHEDULES

CHOICES: Final[Mapping[str, Table[Any]]] = {
    "optim.name": OPTIMIZERS,
    "schedule.name": SCHEDULES,
    "loss.name": LOSSES,
    "augment.policy": POLICIES,
}
"""Option -> its table of choices."""


_WIDTH = 118
_NAMES = 18
"""Width of help in columns, and of its name column."""


def describe_choices() -> str:
    """Return the help text: each option that names a row of a table, followed by the rows."""
    parts = [[f"{option} is one of", *map(_lay_out, table.values())] for option, table in CHOICES.items()]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _lay_out(row: Row) -> str:
    first, rest = f"  {row.name:<{_NAMES - 2}}", " " * _NAMES
    return textwrap.fill(describe_row(row), _WIDTH, initial_indent=first, subsequent_indent=rest)


def describe_row(row: Row) -> str:
    """Return the help of a row, and the options it uses with their defaults, as they would be typed.

    >>> describe_row(SCHEDULES["multistep"])
    'multiplied by gamma at each of the milestones, in epochs (milestones=..., gamma=0.1)'
    """
    used = ", ".join(f"{option}={_write(default)}" for option, default in row.uses.items())
    return f"{row.help} ({used})" if used else row.help


def _write(default: object) -> str:
    """Return a default as JSON, which is also YAML; "..." if there is none.

    >>> _write(None), _write((0.9, 0.999)), _write(1e-08), _write(True)
    ('null', '[0.9, 0.999]', '1e-08', 'true')
    """
    return "..." if default is REQUIRED else json.dumps(default)
