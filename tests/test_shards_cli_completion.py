"""Completion scripts, read by real shells."""

from __future__ import annotations

import argparse
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shards.cli.calling import called_by_console
from shards.cli.commands import COMMANDS
from shards.cli.completion import SHELLS, Completed, main, read_command
from shards.cli.table import load_builder
from shards.errors import UsageError
from trainer.contract.model.names import BACKENDS

ROOT = Path(__file__).parent.parent
CALL = """
import sys
from shards.cli.front import main
code = main()
print(code, *sorted({"torch", "ray"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def commands() -> list[Completed]:
    with called_by_console():
        return [read_command(name) for name in COMMANDS]


@pytest.fixture(scope="module", params=["bash", "fish"])
def shell(request: pytest.FixtureRequest) -> str:
    """Return a shell that says what it offers."""
    require_shell(request.param)
    return str(request.param)


def require_shell(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here, and its completion is read by nothing else")


@pytest.fixture(scope="module")
def script(commands: list[Completed], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    for name, write in SHELLS.items():
        (folder / name).write_text(write(commands), encoding="utf-8")
    return folder


def complete_bash(script: Path, words: list[str], here: Path) -> set[str]:
    """Return what bash offers for the last word, by the function that it has for `shardline`."""
    command = (
        f'source {script}/bash; [[ $(complete -p shardline) == *" -F _shardline shardline" ]] || exit 9; '
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shardline; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return ask(["bash", "--norc", "-c", command, "bash", "shardline", *words], here)


def complete_zsh(script: Path, words: list[str], here: Path) -> str:
    """Return the command line that zsh makes of words when TAB is pressed behind them."""
    begin = (
        f"PS1= PS2= RPS1=; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -d {here}/dump; "
        f'source {script}/zsh; show() {{ print -r -- "<<$BUFFER>>"; BUFFER=; }}; zle -N show; bindkey "^X" show; '
        f"bindkey '^I' complete-word; cd {here}; print BE''GUN\n"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "HOME": str(here), "TERM": "dumb", "COLUMNS": "500"})
    try:
        os.write(terminal, begin.encode())
        read_until(terminal, "BEGUN")
        os.write(terminal, f"{' '.join(['shardline', *words])}\t\x18".encode())
        return re.findall("<<(.*)>>", read_until(terminal, ">>"))[-1]
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def read_until(terminal: int, ending: str) -> str:
    text = ""
    while ending not in text:
        text += os.read(terminal, 4096).decode()
    return text


def complete_fish(script: Path, words: list[str], here: Path) -> set[str]:
    line = " ".join(["shardline", *words])
    lines = ask(["fish", "--no-config", "-c", f'source {script}/fish; complete -C "{line}"'], here)
    return {line.split("\t")[0] for line in lines}


ASK = {"bash": complete_bash, "fish": complete_fish}


def ask(command: list[str], here: Path) -> set[str]:
    environment = {**os.environ, "HOME": str(here)}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return {line for line in done.stdout.splitlines() if line}


def list_own_options(name: str) -> set[str]:
    """Return the options that a command's own help lists."""
    parser: argparse.ArgumentParser = load_builder(COMMANDS[name].parser)()
    return {word for action in parser._actions for word in action.option_strings}


def test_shell_completes_commands(shell: str, script: Path, tmp_path: Path) -> None:
    complete = ASK[shell]
    assert complete(script, [""], tmp_path) == set(COMMANDS)
    assert complete(script, ["ev"], tmp_path) == {"evaluate"}
    assert complete(script, ["b"], tmp_path) == {"bench", "bundle"}


@pytest.mark.parametrize("name", ["pack", "run", "decide", "report", "sweep", "serve", "client"])
def test_shell_completes_the_options_of_a_command(shell: str, name: str, script: Path, tmp_path: Path) -> None:
    own = {word for word in list_own_options(name) if word.startswith("--")}
    assert ASK[shell](script, [name, "here", "--"], tmp_path) == own
    assert ASK[shell](script, [name, "--j"], tmp_path) == {word for word in own if word.startswith("--j")}


def test_shell_completes_choices(shell: str, script: Path, tmp_path: Path) -> None:
    complete = ASK[shell]
    assert complete(script, ["bench", "here", "--device", ""], tmp_path) == {"cpu", "cuda"}
    assert complete(script, ["serve", "--backend", ""], tmp_path) == {"auto", *BACKENDS}
    assert complete(script, ["export", "--to", "torch-"], tmp_path) == {"torch-export"}
    assert complete(script, ["completion", ""], tmp_path) == set(SHELLS)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ev"], "evaluate "),
        (["bench", "x", "--dev"], "bench x --device "),
        (["bench", "x", "--device", "cu"], "bench x --device cuda "),
        (["completion", "f"], "completion fish "),
        (["report", "sm"], "report smoke.yaml "),
        (["report", "--data", "sm"], "report --data smoke.yaml "),
    ],
)
def test_zsh_completes_commands_options_choices_and_files(
    words: list[str], line: str, script: Path, tmp_path: Path
) -> None:
    require_shell("zsh")
    (tmp_path / "smoke.yaml").touch()
    assert complete_zsh(script, words, tmp_path) == f"shardline {line}"


def test_bash_completes_a_value_behind_an_equals_sign(script: Path, tmp_path: Path) -> None:
    assert complete_bash(script, ["bench", "--device", "="], tmp_path) == {"cpu", "cuda"}
    assert complete_bash(script, ["bench", "--device", "=", "cu"], tmp_path) == {"cuda"}


@pytest.mark.parametrize(
    "words", [["bench", ""], ["run", "--json", "sm"], ["bench", "--out", ""], ["serve", "--port", ""]]
)
def test_bash_leaves_the_rest_to_file_names(words: list[str], script: Path, tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").touch()
    assert complete_bash(script, words, tmp_path) == set()
    assert "complete -o default -F" in (script / "bash").read_text(encoding="utf-8")


def test_script_of_bash_starts_no_program(script: Path, tmp_path: Path) -> None:
    """A TAB must not wait for Python: with an empty PATH nothing can be started."""
    code = f'PATH=; source {script}/bash; COMP_WORDS=(shardline ru); COMP_CWORD=1; _shardline; echo "$COMPREPLY"'
    assert ask([shutil.which("bash") or "bash", "--norc", "-c", code], tmp_path) == {"run"}


def test_scripts_are_made_without_torch_and_ray(commands: list[Completed]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, "completion", "bash"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "0\n")
    assert done.stdout == SHELLS["bash"](commands) + "\n"


def test_shell_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="invalid choice: 'tcsh'"):
        main(["tcsh"])
