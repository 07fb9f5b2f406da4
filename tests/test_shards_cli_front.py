"""One console command over all that `python -m` runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from shards.cli import front
from shards.cli.calling import CommandParser, called_by_console, respell
from shards.cli.commands import COMMANDS, CONSOLE, Command
from shards.cli.ending import run_command
from shards.cli.front import TITLES, list_rows
from shards.cli.messages import print_note
from shards.cli.table import load_builder

ROOT = Path(__file__).parent.parent
NAMES = list(COMMANDS)
PROMISED = (
    *("pack", "audit", "index", "stat", "verify", "run", "evaluate", "predict", "decide", "export", "bench", "bundle"),
    *("models", "augment", "sweep", "serve", "client", "verify-endpoint", "completion"),
)
MODULES = {row.name: row.module for row in COMMANDS.values() if row.package}
WRITTEN_BY_PIP = """import sys
from {module} import {function}
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit({function}())
"""


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setenv("COLUMNS", "500")  # no word is wrapped
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def call(*words: str) -> int:
    """Return the exit code of `shardline`, run in this process."""
    try:
        return front.main([*words])
    except SystemExit as err:  # of argparse
        return int(err.code or 0)


def call_module(name: str, *words: str) -> int:
    """Return the exit code of the `python -m` form of a command, run in this process."""
    row = COMMANDS[name]
    try:
        if row.package == "shards":
            return run_command(import_module("shards.__main__").main, [name, *words])
        return run_command(load_builder(row.builder), [*words])
    except SystemExit as err:
        return int(err.code or 0)


def write_script(folder: Path) -> list[str]:
    """Return how the console script is called that pip would write by pyproject.toml."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"][CONSOLE]
    module, _, function = declared.partition(":")
    (folder / CONSOLE).write_text(WRITTEN_BY_PIP.format(module=module, function=function), encoding="utf-8")
    return [sys.executable, str(folder / CONSOLE)]


def test_promised_commands_are_there() -> None:
    assert set(PROMISED) - set(COMMANDS) == set()


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_command_all_are_listed(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words) == 0
    listed = capsys.readouterr().out
    assert re.findall(r"^  ([\w-]+)  +\S", listed, re.MULTILINE) == NAMES
    assert all(row.summary in listed for row in COMMANDS.values())


def test_unknown_command_is_one_sentence_with_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("rnu", "smoke") == 2
    assert capsys.readouterr() == ("", "error: there is no command 'rnu'; did you mean 'run'?\n")
    assert call("frobnicate") == 2
    assert capsys.readouterr() == ("", "error: there is no command 'frobnicate'; `shardline` lists all\n")
    assert call("trainer.run", "smoke") == 2
    assert capsys.readouterr() == ("", "error: a module is no command; write `shardline run`\n")


@pytest.mark.parametrize("name", MODULES)
def test_help_is_that_of_the_module_but_for_how_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_module(name, "--help") == 0
    expected = capsys.readouterr().out
    assert f"usage: python -m {MODULES[name]} " in expected
    assert call(name, "--help") == 0
    shown = capsys.readouterr().out
    assert f"usage: shardline {name} " in shown
    assert "python -m" not in shown
    assert not re.search(r"(?<![\w.])(trainer|tune|cluster)\.\w+(?=[ `])", shown)
    with called_by_console():
        assert shown.split() == respell(expected).split()


@pytest.mark.parametrize("name", NAMES)
def test_options_that_do_not_exist_are_refused_alike(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--no-such-option", "a", "b", "c", "d")
    assert call(name, *words) == 2
    refused = capsys.readouterr().err
    assert refused.splitlines()[-1].startswith((f"{CONSOLE} {name}: error: ", "error: "))
    if name in MODULES:
        assert call_module(name, *words) == 2
        with called_by_console():
            assert respell(capsys.readouterr().err).split() == refused.split()


REFUSED = [
    (("verify", "nowhere"), 2, "make one with `shardline pack PICTURES "),
    (("models", "resnet1888"), 2, "; `shardline models` lists all"),
    (("index", "."), 2, "to pack pictures, use `shardline pack`"),
    (("decide", "nowhere", "--show"), 2, None),
    (("client", "http://127.0.0.1:9", "nowhere.png"), 2, None),
    (("run", "smok", "data=x"), 2, None),
    (("sweep", "smoke", "nospace", "data=x"), 2, None),
]


@pytest.mark.parametrize(("words", "code", "ending"), REFUSED, ids=[words[0] for words, *_ in REFUSED])
def test_refusals_name_commands_as_they_were_called(
    words: tuple[str, ...],
    code: int,
    ending: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call_module(*words) == code
    before = capsys.readouterr().err
    assert call(*words) == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "python -m" not in shown
    assert (ending or "") in shown
    with called_by_console():
        assert shown == respell(before)
    assert (shown != before) == (ending is not None)


def test_a_command_without_its_arguments_says_how_to_call_it_by_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run") == call_module("run") == 2
    shown = capsys.readouterr().out
    assert "  shardline run smoke data=FOLDER epochs=2     FOLDER is the output of `shardline pack`" in shown
    assert (
        "  python -m trainer.run smoke data=FOLDER epochs=2     FOLDER is the output of `python -m shards pack`"
        in shown
    )


def test_notes_name_commands_as_they_were_called(capsys: pytest.CaptureFixture[str]) -> None:
    def note(_argv: list[str]) -> int:
        print_note("note: `trainer.decide` fits one")
        return 0

    with called_by_console():
        run_command(note, [])
    run_command(note, [])
    assert capsys.readouterr().err == "note: `shardline decide` fits one\nnote: `trainer.decide` fits one\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`python -m trainer` lists", "`shardline` lists"),
        ("run `python -m shards index` once", "run `shardline index` once"),
        ("python -m\n  trainer.run smoke", "shardline run smoke"),
        ("python -m tune.run", "shardline sweep"),
        ("python -m trainer.recipes.data.elpv OUT", "python -m trainer.recipes.data.elpv OUT"),
        ("where shards pack and a trainer is", "where shards pack and a trainer is"),
        ("/home/me/trainer.run is a file", "/home/me/trainer.run is a file"),
        ("trainer.run.job: started", "trainer.run.job: started"),
        ("ask trainer.predict. It knows", "ask shardline predict. It knows"),
        ("python -m http.server", "python -m http.server"),
    ],
)
def test_names_of_commands_are_respelt_and_nothing_else(text: str, expected: str) -> None:
    assert respell(text) == text
    with called_by_console():
        assert respell(text) == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pack a b --splits val=0.1", "there is no option --splits; did you mean '--split'?"),
        ("pack a b --qualities=3", "there is no option --qualities; did you mean '--quality'?"),
        ("pack a b c", "'c' is one argument too many;"),
        ("pack a", "the following arguments are required: out;"),
        ("pack a b --alike x", "argument --alike: invalid choice: 'x' (choose from 'refuse', 'join', 'keep');"),
        ("run smoke --epochs 3", "there is no option --epochs; options of the recipe have no dashes: epochs=VALUE;"),
        ("run smoke --optim.name=sgd", "there is no option --optim.name; options of the recipe have no dashes: "
         "optim.name=VALUE;"),
        ("run smoke --bogus", "there is no option --bogus;"),
    ],
)  # fmt: skip
def test_mistake_in_the_words_is_one_sentence(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words.split()) == 2
    name = words.split()[0]
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {sentence} `shardline {name} --help` lists what it takes\n")
    assert call(name, "--help") == 0  # the remedy


@pytest.mark.parametrize("package", [package for package in TITLES if package])
def test_a_package_lists_its_commands(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(f"{package}.__main__").main(["--help"]) == 0
    listed = re.findall(r"^  python -m (\w+[. ]\w+)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE)
    assert listed == [(row.module, row.summary) for row in COMMANDS.values() if row.package == package] != []
    assert import_module(f"{package}.__main__").main([]) == (2 if package == "shards" else 0)


def test_a_package_that_runs_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(import_module("trainer.__main__").main, ["smoke"]) == 2
    assert capsys.readouterr().err == (
        "error: `python -m trainer` only lists its commands and takes no arguments, got 'smoke'; run a command as "
        "`python -m trainer.run --help`\n"
    )
    with pytest.raises(SystemExit) as exit_:  # the remedy
        load_builder(list_rows("trainer")[0].builder)(["--help"])
    assert exit_.value.code == 0
    assert run_command(import_module("shards.__main__").main, ["pakc"]) == 2
    assert "there is no command 'pakc'; did you mean 'pack'?" in capsys.readouterr().err


# a row and its module, and what is forgotten of an addition


def find_commands_without_a_row(root: Path, modules: set[str]) -> list[str]:
    """Return a sentence for each module of a command that no row names."""
    homes = [
        *root.glob("trainer/*/__main__.py"),
        *root.glob("cluster/*/__main__.py"),
        *root.glob("tune/**/__main__.py"),
        *(path for pattern in ("shards/commands/*.py", "tune/*.py") for path in root.glob(pattern)),
    ]
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in homes
        if "def main(" in path.read_text(encoding="utf-8")
    }
    return [
        f"{module} is a command without a row; add one to COMMANDS in shards/cli/commands.py"
        for module in sorted(found - modules)
    ]


def find_rows_without_a_command(rows: list[Command]) -> list[str]:
    """Return a sentence for each row whose module lacks what the console script or completion calls."""
    missing = []
    for row in rows:
        for what in (row.builder, row.parser):
            try:
                load_builder(what)
            except (ImportError, AttributeError):
                missing.append(f"the command {row.name} needs {what}, which is not there; write it, or mend the row")
    return missing


def test_every_command_has_a_row() -> None:
    sentences = find_commands_without_a_row(ROOT, {row.builder.partition(":")[0] for row in COMMANDS.values()})
    assert not sentences, "\n".join(sentences)


def test_every_row_has_its_command_and_its_parser() -> None:
    sentences = find_rows_without_a_command([*COMMANDS.values()])
    assert not sentences, "\n".join(sentences)


@pytest.mark.parametrize("row", COMMANDS.values(), ids=COMMANDS)
def test_a_parser_is_one_that_knows_how_it_was_called(row: Command) -> None:
    parser = load_builder(row.parser)()
    assert isinstance(parser, CommandParser), f"{row.parser} gives no CommandParser; its usage would be another's"
    named = f"python -m {row.module}" if row.package else f"{CONSOLE} {row.name}"
    assert parser.prog == named, f"{row.parser} is called {named}, and its prog is {parser.prog}"


def test_planted_halves_of_a_command_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "trainer/compare").mkdir(parents=True)
    (tmp_path / "trainer/compare/__main__.py").write_text("def main(argv: list[str]) -> int: ...")
    assert find_commands_without_a_row(tmp_path, {"trainer.run.__main__"}) == [
        "trainer.compare.__main__ is a command without a row; add one to COMMANDS in shards/cli/commands.py"
    ]
    rows = [Command("a", "b", "trainer.compare.__main__:main"), Command("c", "d", "shards.cli.table:load_builder")]
    assert find_rows_without_a_command(rows) == [
        f"the command {name} needs {what}, which is not there; write it, or mend the row"
        for name, what in [
            ("a", "trainer.compare.__main__:main"),
            ("a", "trainer.compare.__main__:build_parser"),
            ("c", "shards.cli.table:build_parser"),
        ]
    ]


# the script itself


LOADED = """
import sys
from shards.cli.front import main
try:
    code = main(sys.argv[1:])
except SystemExit as err:
    code = err.code
print(code, sorted({"torch", "ray", "numpy", "pyarrow", "pydantic", "PIL", "httpx"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("words", "loaded"),
    [(["--help"], "0 []"), (["rnu"], "2 []")],
)
def test_the_front_loads_no_library(words: list[str], loaded: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == loaded


def test_generic_names_in_the_current_folder_hide_nothing(tmp_path: Path) -> None:
    here = tmp_path / "here"
    plant_hiding(here)
    script = write_script(tmp_path)
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    for words, said in [(["run", "--help"], "usage: shardline run "), (["serve", "--help"], "usage: shardline serve ")]:
        done = subprocess.run([*script, *words], cwd=here, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(said)


def run_there(tmp_path: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder whose files bear the names of our packages."""
    here = tmp_path / "here"
    plant_hiding(here)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        [*write_script(tmp_path), *map(str, words)],
        cwd=here, env=environment | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""}, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip


def test_generic_names_hide_nothing_from_the_processes_of_a_pool(pictures: Path, tmp_path: Path) -> None:
    done = run_there(tmp_path, "pack", pictures, "data", "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "here/data/dataset.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["local", "ray"])
def test_generic_names_hide_nothing_from_ranks(launch: str, dataset_path: Path, tmp_path: Path) -> None:
    options = (f"data={dataset_path}", "num_ranks=2", f"launch={launch}", "epochs=1")
    done = run_there(tmp_path, "run", "smoke", *options)
    assert done.returncode == 0, done.stderr
    assert "on 2 ranks" in done.stderr
    assert (tmp_path / "here/runs/smoke/bundle/bundle.json").is_file()


@pytest.mark.slow
def test_generic_names_hide_nothing_from_ray_tasks(pictures: Path, tmp_path: Path) -> None:
    done = run_there(tmp_path, "pack", pictures, "data", "--workers", "2", "--on", "ray")
    assert (done.returncode, done.stderr) == (0, "")


def plant_hiding(here: Path) -> None:
    """Write what bears the names of our packages, as modules and as packages, and ends whoever imports it."""
    for package in ("shards", "cluster"):
        (here / package).mkdir(parents=True)
        (here / package / "__init__.py").write_text("raise SystemExit('hidden')\n")
    for module in ("trainer.py", "tune.py", "run.py"):
        (here / module).write_text("raise SystemExit('hidden')\n")
