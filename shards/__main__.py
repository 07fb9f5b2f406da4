"""`python -m shards pack|audit|index|stat|verify`."""

from __future__ import annotations

import argparse
import sys

from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from shards.commands import audit, index, pack, stat, verify


def main(argv: list[str]) -> int:
    """Return the exit code of the command that `argv` names."""
    parser = argparse.ArgumentParser(prog="python -m shards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (pack, audit, index, stat, verify):
        command.add_parser(commands)
    for parser_of_command in commands.choices.values():
        add_volume(parser_of_command)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(run_command(main))
