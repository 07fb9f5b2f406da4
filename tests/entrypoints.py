"""Commands in files of infra/, read by the programs that they are for, as far as those go without starting anything."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from shards.cli.commands import COMMANDS
from shards.commands.arguments import read_request
from shards.commands.options import PackRequest
from shards.errors import UsageError
from trainer.evaluate.options import EvaluateOptions
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from tune.space.file import load_space
from tune.space.options import Space

MODULES = {COMMANDS[name].module: COMMANDS[name] for name in COMMANDS}


@dataclass(frozen=True)
class Read:
    """A command, and what its own reader made of it."""

    module: str
    arguments: dict[str, Any]
    recipe: Recipe | None = None
    space: Space | None = None

    @property
    def needs(self) -> tuple[int, float, float]:
        """Return the processes that it must have room for when it starts, and the CPUs and GPUs of each."""
        if self.space is not None:
            return self.space.ranks_per_trial, self.space.cpus_per_trial, self.space.gpus_per_trial
        if self.recipe is not None:
            return self.recipe.least_ranks, self.recipe.cpus_per_rank, self.recipe.gpus_per_rank or 0.0
        return 1, 1.0, 0.0


def split_entrypoint(text: str) -> list[list[str]]:
    """Return the commands of a line of shell that joins them by &&."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(text):
        commands.append([]) if word == "&&" else commands[-1].append(word)
    return commands


def read_entrypoint(words: Sequence[str]) -> Read:
    """Return what `python -m MODULE ...` asks for.

    Raises:
        UsageError: No such command, an unknown option or value, or a recipe or space that is none.
    """
    python, flag, *rest = words
    name = next((n for n in (" ".join(rest[:2]), rest[0]) if n in MODULES), None)
    if (python, flag) != ("python", "-m") or name is None:
        raise UsageError(f"{' '.join(words[:4])} is no command of this project")
    module, _, function = MODULES[name].parser.partition(":")
    parser = getattr(import_module(module), function)()
    arguments = vars(parser.parse_intermixed_args(rest[len(name.split()) :]))
    return _read(name, dict(arguments))


def _read(name: str, arguments: dict[str, Any]) -> Read:
    if name in ("trainer.run", "tune.run"):
        recipe = load_recipe(arguments["recipe"], arguments["options"])
        return Read(name, arguments, recipe, load_space(arguments["space"]) if name == "tune.run" else None)
    if name == "trainer.evaluate":
        EvaluateOptions(**{key: value for key, value in arguments.items() if key != "json"})
    if name == "shards pack":
        read_request(argparse.Namespace(**arguments), PackRequest)
    return Read(name, arguments)
