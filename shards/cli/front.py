"""The console script `shardline COMMAND ...`, and the list of commands that each package prints.

Imports nothing but how commands end: a command's module is imported when it is run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from shards.cli.calling import called_by_console
from shards.cli.commands import COMMANDS, CONSOLE, Command
from shards.cli.ending import DONE, MISTAKE, run_command
from shards.cli.table import load_builder
from shards.errors import UsageError

TITLES = {
    "shards": "datasets",
    "trainer": "training and bundles",
    "tune": "sweeps",
    "cluster": "endpoints",
    "": "shell",
}
"""Package -> what its commands are for, in the order of the work."""

_HELP = ("-h", "--help")


def main(argv: list[str] | None = None) -> int:
    """Run the command that the words name and return its exit code; without words, list all commands."""
    # A console script does not look for modules in the current folder. Neither may the processes that it starts.
    os.environ["PYTHONSAFEPATH"] = "1"
    with called_by_console():
        return run_command(_run, argv)


def _run(argv: list[str]) -> int:
    if argv and argv[0] not in _HELP:
        return run_named(argv, COMMANDS, CONSOLE)
    groups = [f"{title}\n{_describe({row.name: row for row in list_rows(of)})}" for of, title in TITLES.items()]
    print(
        f"usage: {CONSOLE} COMMAND ...\n\nFrom a folder of labelled pictures to a served classifier.\n\n"
        + "\n\n".join(groups)
        + f"\n\n`{CONSOLE} COMMAND --help` lists what a command takes."
    )
    return DONE


def run_named(argv: list[str], rows: Mapping[str, Command], caller: str) -> int:
    """Run the command that the first word names with the other words.

    Raises:
        UsageError: None has that name.
    """
    name, *rest = argv
    if name not in rows:
        from shards.cli.sentences import suggest  # late: a mistake alone needs it

        raise UsageError(f"there is no command '{name}'{suggest(name, rows, otherwise=f'; `{caller}` lists all')}")
    code: int = load_builder(rows[name].builder)(rest)
    return code


def run_package(package: str, argv: list[str]) -> int:
    """Do what `python -m` and a package do: list the commands, and of `shards`, run one.

    Raises:
        UsageError: There are other words.
    """
    rows = {row.name: row for row in list_rows(package)}
    runs = package == "shards"
    if not argv or argv[0] in _HELP:
        usage = f"usage: python -m shards {{{','.join(rows)}}} ...\n\n" if runs else ""
        shown = {f"python -m {row.module}": row for row in rows.values()}
        print(f"{usage}{TITLES[package]}\n{_describe(shown)}\n\nEach takes --help.")
        return DONE if argv or not runs else MISTAKE
    if runs:
        return run_named(argv, rows, "python -m shards")
    raise UsageError(
        f"`python -m {package}` lists its commands and runs none, got '{argv[0]}'; "
        f"`python -m {list_rows(package)[0].module} --help` is how one of them is called"
    )


def list_rows(package: str) -> list[Command]:
    return [row for row in COMMANDS.values() if row.package == package]


def _describe(rows: Mapping[str, Command]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {row.summary}" for name, row in rows.items())
