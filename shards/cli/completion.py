"""`shardline completion SHELL`: print a script that completes commands, options and choices without starting Python.

  bash   shardline completion bash > ~/.local/share/bash-completion/completions/shardline
  zsh    shardline completion zsh > FOLDER/_shardline, in a FOLDER of $fpath
  fish   shardline completion fish > ~/.config/fish/completions/shardline.fish

It takes effect in the next shell. It knows the commands of this version: print it again after an update.
Where no option or choice fits, file names are completed.
"""

from __future__ import annotations

import argparse
import re
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from shards.cli.calling import CommandParser
from shards.cli.commands import COMMANDS, CONSOLE
from shards.cli.table import load_builder

_PLAIN = re.compile(r"[\w./+-]+")


@dataclass(frozen=True)
class Option:
    """An option of a command.

    names: as typed. takes: whether a value follows. choices: allowed values, empty if any value is allowed.
    """

    names: tuple[str, ...]
    takes: bool
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Completed:
    """A command as completion scripts need it; choices: allowed values of positional arguments."""

    name: str
    summary: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]

    @property
    def words(self) -> str:
        """Return the names of all options, separated by spaces."""
        return " ".join(name for option in self.options for name in option.names)


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    print(SHELLS[arguments.shell]([read_command(name) for name in COMMANDS]))
    return 0


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog=f"{CONSOLE} completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


def read_command(name: str) -> Completed:
    """Return the options and choices of a command, read from its parser."""
    row = COMMANDS[name]
    parser: argparse.ArgumentParser = load_builder(row.parser)()
    named = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    places = [action for action in parser._actions if not action.option_strings]
    options = (
        Option(tuple(action.option_strings), action.nargs != 0, _list_choices(action), _shorten(action.help or ""))
        for action in named
    )
    return Completed(
        name, row.summary, tuple(options), tuple(choice for action in places for choice in _list_choices(action))
    )


def _list_choices(action: argparse.Action) -> tuple[str, ...]:
    """Return the choices that need no quoting in a shell; none if a metavar stands for them, as for port numbers."""
    choices = [] if action.metavar else [str(choice) for choice in action.choices or ()]
    return tuple(choice for choice in choices if _PLAIN.fullmatch(choice))


def _shorten(text: str) -> str:
    """Return help shortened to one line."""
    return textwrap.shorten(re.split(r"[;(]", text.replace("%%", "%"))[0], 70, placeholder=" ...")


def write_bash(commands: list[Completed]) -> str:
    valued = [f'    *" {words}") words="{" ".join(option.choices)}" ;;' for words, option in _list_valued(commands)]
    return "\n".join(
        [
            f"# bash completion of {CONSOLE}, made by `{CONSOLE} completion bash`",
            f"_{CONSOLE}() {{",
            '    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=""',
            '    if [[ $cur == "=" ]]; then cur=""; elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
            '    case "$COMP_CWORD ${COMP_WORDS[1]} $prev" in',
            f'    "1 "*) words="{" ".join(command.name for command in commands)}" ;;',
            *valued,
            "    *)",
            '        case "${COMP_WORDS[1]} $cur" in',
            *(f'        "{command.name} -"*) words="{command.words}" ;;' for command in commands),
            *(f'        "{each.name} "*) words="{" ".join(each.choices)}" ;;' for each in commands if each.choices),
            "        esac ;;",
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            f"complete -o default -F _{CONSOLE} {CONSOLE}",
        ]
    )


def write_zsh(commands: list[Completed]) -> str:
    """Return a file for $fpath, which also works with `source`."""
    valued = [f"  '{words}') {_offer(option.choices)}; return ;;" for words, option in _list_valued(commands)]
    return "\n".join(
        [
            f"#compdef {CONSOLE}",
            f"# made by `{CONSOLE} completion zsh`",
            f"_{CONSOLE}() {{",
            "  local -a offered",
            "  if (( CURRENT == 2 )); then",
            f"    offered=({' '.join(_describe_zsh(command.name, command.summary) for command in commands)})",
            "    _describe -t commands command offered; return",
            "  fi",
            '  case "$words[2] $words[CURRENT-1]" in',
            *valued,
            "  esac",
            '  case "$words[2] $words[CURRENT]" in',
            *(f"  '{command.name} -'*) offered=({_list_zsh(command)}) ;;" for command in commands),
            *(f"  '{each.name} '*) {_offer(each.choices)}; return ;;" for each in commands if each.choices),
            "  *) _files; return ;;",
            "  esac",
            "  _describe -o -t options option offered",
            "}",
            f'if [[ $funcstack[1] == _{CONSOLE} ]]; then _{CONSOLE} "$@"; else compdef _{CONSOLE} {CONSOLE}; fi',
        ]
    )


def _offer(choices: tuple[str, ...]) -> str:
    return f"compadd -- {' '.join(choices)}" if choices else "_files"


def _list_zsh(command: Completed) -> str:
    return " ".join(_describe_zsh(name, option.help) for option in command.options for name in option.names)


def _describe_zsh(name: str, text: str) -> str:
    return shlex.quote(f"{name}:{text}")


def write_fish(commands: list[Completed]) -> str:
    first = f"__{CONSOLE}_first"
    lines = [
        f"# fish completion of {CONSOLE}, made by `{CONSOLE} completion fish`",
        f"function {first}",
        "    set -l words (commandline -opc)",
        '    test (count $words) -ge 2; and test "$words[2]" = "$argv[1]"',
        "end",
    ]
    none = f"complete -c {CONSOLE} -n 'test (count (commandline -opc)) -eq 1' -f"
    for command in commands:
        lines.append(f"{none} -a {command.name} -d {_quote_fish(command.summary)}")
        here = f"complete -c {CONSOLE} -n '{first} {command.name}'"
        lines += [f"{here} {_spell_fish(option)} -d {_quote_fish(option.help)}" for option in command.options]
        if command.choices:
            lines.append(f"{here} -f -a '{' '.join(command.choices)}'")
    return "\n".join(lines)


def _spell_fish(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    values = [f"-x -a '{' '.join(option.choices)}'"] if option.choices else ["-r"] if option.takes else []
    return " ".join([*names, *values])


def _quote_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _list_valued(commands: list[Completed]) -> list[tuple[str, Option]]:
    """Return "COMMAND --OPTION" and the option, for each option that takes a value."""
    return [
        (f"{command.name} {name}", option)
        for command in commands
        for option in command.options
        for name in option.names
        if option.takes
    ]


SHELLS: dict[str, Callable[[list[Completed]], str]] = {"bash": write_bash, "zsh": write_zsh, "fish": write_fish}
