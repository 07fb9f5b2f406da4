"""The console script `shardline COMMAND ...`, and the list of commands that each package prints.

A command's module is imported only when the command runs.
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
    "cluster": "endpoints and clusters",
    "": "shell",
}
"""Package -> what its commands are for, in the order in which they are used."""

_HELP = ("-h", "--help")


def main(argv: list[str] | None = None) -> int:
    """Run the command that `argv` names and return its exit code; without arguments, list all commands."""
    # A console script does not search the current folder for modules. Neither may processes that it starts.
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
        + f"\n\n`{CONSOLE} COMMAND --help` lists the options of a command."
    )
    return DONE


def run_named(argv: list[str], rows: Mapping[str, Command], caller: str) -> int:
    """Run the command named by the first word, with the remaining words as its arguments.

    Raises:
        UsageError: No command has that name.
    """
    name, *rest = argv
    if name not in rows:
        from shards.cli.sentences import suggest  # late import: only a mistake needs it

        meant = next((row.name for row in rows.values() if name == row.module.replace(" ", ".")), None)
        if meant is not None:  # what stands behind `python -m`; the module itself is not named, it would be respelt
            raise UsageError(f"a module is no command; write `{caller} {meant}`")
        raise UsageError(f"there is no command '{name}'{suggest(name, rows, otherwise=f'; `{caller}` lists all')}")
    code: int = load_builder(rows[name].builder)(rest)
    return code


def run_package(package: str, argv: list[str]) -> int:
    """List the commands of a package, for `python -m` with its name; `python -m shards COMMAND` also runs one.

    Raises:
        UsageError: A package other than `shards` got arguments.
    """
    rows = {row.name: row for row in list_rows(package)}
    runs = package == "shards"
    if not argv or argv[0] in _HELP:
        usage = f"usage: python -m shards {{{','.join(rows)}}} ...\n\n" if runs else ""
        shown = {f"python -m {row.module}": row for row in rows.values()}
        print(f"{usage}{TITLES[package]}\n{_describe(shown)}\n\n--help after any of them lists its options.")
        return DONE if argv or not runs else MISTAKE
    if runs:
        return run_named(argv, rows, "python -m shards")
    raise UsageError(
        f"`python -m {package}` only lists its commands and takes no arguments, got '{argv[0]}'; run a command as "
        f"`python -m {list_rows(package)[0].module} --help`"
    )


def list_rows(package: str) -> list[Command]:
    return [row for row in COMMANDS.values() if row.package == package]


def _describe(rows: Mapping[str, Command]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {row.summary}" for name, row in rows.items())
