"""`make docs`: write the pages of docs/ that come from the code.

`docs/options.md` comes from the fields of recipe and space and their docstrings, `docs/commands/` from the commands'
parsers and the examples on other pages, `docs/modules.md` from the modules' docstrings. `tests/test_docs.py` reports
pages that are out of date.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from infra.notebook import make_notebook  # noqa: E402
from shards.cli import commands as cli  # noqa: E402
from shards.cli.table import load_builder  # noqa: E402

DOCS = ROOT / "docs"
PACKAGES = ("shards", "trainer", "tune", "cluster")
SPELLING = "python -m {module}"
"""How commands are spelt on their pages; `shardline {name}` is the alternative."""


@dataclass(frozen=True)
class Command:
    """A command, and the page with more about it."""

    name: str
    module: str
    """Its name after `python -m`."""
    purpose: str
    guide: str
    """Page in docs/."""
    options: str = ""
    """package.module:Class whose fields have the defaults; empty if the parser has them."""

    @property
    def spelling(self) -> str:
        return SPELLING.format(module=self.module, name=self.name)


GUIDES = {
    "pack": ("packing.md", ""),
    "audit": ("packing.md#audit", ""),
    "index": ("packing.md#shards", ""),
    "stat": ("formats.md", ""),
    "verify": ("formats.md", ""),
    "run": ("training.md", ""),
    "evaluate": ("evaluation.md", "trainer.evaluate.options:EvaluateOptions"),
    "predict": ("prediction.md", "trainer.predict.options:PredictOptions"),
    "decide": ("decisions.md", "trainer.decide.options:DecideOptions"),
    "export": ("export.md", "trainer.export.options:ExportOptions"),
    "bench": ("export.md", "trainer.bench.options:BenchOptions"),
    "bundle": ("training.md#models-and-weights", "trainer.bundle.options:BundleOptions"),
    "models": ("training.md#models-and-weights", ""),
    "augment": ("training.md#pictures-for-training", ""),
    "report": ("formats.md#run-folder", "trainer.report.options:ReportOptions"),
    "sweep": ("space.md", ""),
    "sweep-report": ("space.md#what-it-writes", "tune.report.options:SweepReportOptions"),
    "dashboard": ("space.md#dashboard", "tune.dashboard.options:DashboardOptions"),
    "compare": ("space.md#compare", "tune.compare.options:CompareOptions"),
    "serve": ("serving.md", ""),
    "promote": ("serving.md#another-bundle-without-downtime", "cluster.swap.swap:PromoteOptions"),
    "rollback": ("serving.md#another-bundle-without-downtime", ""),
    "status": ("serving.md#another-bundle-without-downtime", ""),
    "client": ("serving.md#client", ""),
    "verify-endpoint": ("serving.md#verify", ""),
    "submit": ("cluster.md#jobs", "cluster.jobs.options:SubmitOptions"),
    "jobs": ("cluster.md#jobs", ""),
    "stop": ("cluster.md#jobs", ""),
    "doctor": ("doctor.md", ""),
}
"""Command -> page in docs/ with more about it, and package.module:Class whose fields have the defaults.

`tests/test_docs.py` says which command lacks a row.
"""

_ROWS = [row for row in cli.COMMANDS.values() if row.package]
COMMANDS = tuple(Command(row.name, row.module, row.summary, *GUIDES.get(row.name, ("README.md", ""))) for row in _ROWS)


def make_pages() -> dict[Path, str]:
    """Return the text of each generated page by path."""
    examples = find_examples()
    pages = {DOCS / "options.md": make_options_page(), DOCS / "modules.md": make_modules_page()}
    pages[DOCS / "metrics.md"] = make_metrics_page()
    pages[DOCS / "commands/README.md"] = make_commands_page()
    pages[DOCS / "first_steps.ipynb"] = make_notebook((DOCS / "python.md").read_text(encoding="utf-8"))
    for command in COMMANDS:
        pages[DOCS / f"commands/{command.name}.md"] = make_command_page(command, examples)
    return pages


# Options


def make_metrics_page() -> str:
    from cluster.serve.metrics import METRICS
    from shards.packing.metrics import PACKING
    from trainer.record.meters import TRAINING
    from tune.trials.metrics import SWEEP

    lines = [
        "# Metrics",
        "",
        GENERATED,
        "",
        "For Prometheus; [monitoring.md](monitoring.md) says how it gets them, and what alerts make of them. Counters",
        "have `_total` behind their names there. Ray's agents put `ray_` before each, which",
        "`infra/monitoring/prometheus.yml` takes off, and add labels of their own: each process is a series, so sum",
        "over them, as in `sum by (endpoint, outcome) (rate(shardline_requests_total[5m]))`.",
    ]
    for title, table in (
        ("Training", TRAINING),
        ("Packing", PACKING),
        ("Sweeps", SWEEP),
        ("An endpoint", METRICS),
    ):
        lines += ["", f"## {title}", "", "| Metric | Kind | Tags | What it says |", "|---|---|---|---|"]
        for each in table:
            tags = ", ".join(f"`{tag}`" for tag in each.tags)
            lines.append(draw_row(f"`{each.name}`", each.kind, tags, each.meaning))
    return "\n".join([*lines, ""])


def make_options_page() -> str:
    from trainer.recipes.choices import CHOICES, describe_row
    from trainer.recipes.explain import list_options
    from tune.space.options import Space

    lines = [
        "# Options of a recipe and of a space",
        "",
        GENERATED,
        "",
        "In a recipe's YAML, options of a group stand below its name; on the command line they are written",
        "`group.option=value`. `null` is an option that is not set. An option that the chosen optimizer, schedule or",
        "loss does not use is refused. `python -m trainer.run RECIPE --print-recipe --explain` prints a recipe with",
        "all of this as comments.",
        "",
        "## A recipe",
    ]
    for option in list_options():
        if option.is_group:
            lines += ["", f"### {option.name}", "", option.meaning, "", *HEAD]
        else:
            if lines[-1] == "## A recipe":
                lines += ["", *HEAD]
            lines.append(draw_row(f"`{option.name}`", option.meaning, option.values, option.default or "must be given"))
    for name, table in CHOICES.items():
        lines += [
            "",
            f"## {table.plural.capitalize()}",
            "",
            f"Values of `{name}`.",
            "",
            "| Name | Meaning and options |",
            "|---|---|",
        ]
        lines += [draw_row(f"`{row.name}`", describe_row(row)) for row in table.values()]
    lines += ["", "## A space", "", "What a sweep tries; see [space.md](space.md).", "", *HEAD]
    lines += [
        draw_row(f"`{option.name}`", option.meaning, option.values, option.default or "must be given")
        for option in list_options(Space)
        if not option.is_group
    ]
    return "\n".join(lines) + "\n"


HEAD = ("| Option | Meaning | Values | Default |", "|---|---|---|---|")


# Commands


def make_commands_page() -> str:
    rows = [draw_row(f"[{each.name}]({each.name}.md)", f"`{each.spelling}`", each.purpose) for each in COMMANDS]
    return "\n".join(["# Commands", "", GENERATED, "", "| Page | Command | Purpose |", "|---|---|---|", *rows]) + "\n"


def make_command_page(command: Command, examples: Mapping[str, list[str]]) -> str:
    parser = find_parser(command)
    usage = " ".join([command.spelling, *map(draw_positional, parser._actions), "[options]"])
    lines = [f"# {command.name}", "", GENERATED, "", "```text", re.sub(" +", " ", usage), "```", ""]
    lines += [f"{command.purpose[0].upper()}{command.purpose[1:]}. More: [{command.guide}](../{command.guide}).", ""]
    description, own = split_description(parser)
    lines += [description, ""] if description else []
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if not isinstance(each, argparse._HelpAction)]
        if actions:
            title = "Arguments" if group.title == "positional arguments" else (group.title or "").capitalize()
            lines += [f"## {title}", ""]
            lines += [f"{(group.description or '').capitalize()}.", ""] if group.description else []
            lines += ["| | Meaning | Default |", "|---|---|---|"]
            lines += [draw_action(command, each) for each in actions] + [""]
    others = {*map(strip_comment, examples[command.module])}
    if found := [*examples[command.module], *(each for each in own if each not in others)]:
        lines += ["## Examples", "", "```sh", *found, "```", ""]
    return respell("\n".join(lines).rstrip("\n") + "\n")


def find_parser(command: Command) -> argparse.ArgumentParser:
    """Return the command's own parser."""
    parser: argparse.ArgumentParser = load_builder(cli.COMMANDS[command.name].parser)()
    return parser


def split_description(parser: argparse.ArgumentParser) -> tuple[str, list[str]]:
    """Return a parser's description, and the examples in it: its indented lines."""
    text = re.sub(r"\s*\\\n\s*", " ", (parser.description or "").strip())
    lines = text.split("\n")
    examples = [f"python -m {line.strip()}" for line in lines if line.startswith("  ")]
    rest = "\n".join(line for line in lines if not line.startswith("  "))
    return re.sub(r"\n{3,}", "\n\n", rest), examples


def draw_positional(action: argparse.Action) -> str:
    if action.option_strings:
        return ""
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(str(action.nargs), name)


def draw_action(command: Command, action: argparse.Action) -> str:
    """Return the row of an argument; a default named in its help is moved to the column of defaults."""
    values = dict(vars(action))
    if isinstance(values.get("choices"), range):
        values["choices"] = None
    text = (action.help or "") % {"prog": command.spelling, **values}
    default = find_default(command, action)
    said = re.search(r"\s*\(default: ([^()]+)\)$|(?:; |^)default: (.+)$", text)
    if said:
        text, default = text[: said.start()], said[1] or said[2]
    elif default and text.endswith(f"({default})"):
        text = text.removesuffix(f"({default})")
    return draw_row(f"`{spell_action(action)}`", text.strip(), default)


def spell_action(action: argparse.Action) -> str:
    if not action.option_strings:
        return draw_positional(action)
    spelt = ", ".join(action.option_strings)
    if action.nargs == 0:
        return spelt
    choices = action.choices if action.choices is not None and not isinstance(action.choices, range) else None
    value = "|".join(map(str, choices)) if choices else action.metavar or action.dest.upper().replace("-", "_")
    return f"{spelt} {value}"


def find_default(command: Command, action: argparse.Action) -> str:
    """Return the default of an option as typed; empty if it is not informative."""
    default = action.default
    if default is argparse.SUPPRESS and command.options:
        module, _, name = command.options.partition(":")
        options = getattr(importlib.import_module(module), name)
        field = options.model_fields.get(action.dest)
        default = None if field is None or field.is_required() else options.default(action.dest)
    if default is None or isinstance(default, bool) or default in ("", (), [], argparse.SUPPRESS):
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple | list) else str(default)


def find_examples() -> dict[str, list[str]]:
    """Return the lines of hand-written pages that run each command, by its name after `python -m`."""
    found: dict[str, list[str]] = {command.module: [] for command in COMMANDS}
    written = [
        ROOT / "README.md",
        *(path for path in sorted(DOCS.glob("*.md")) if path.name not in ("options.md", "modules.md")),
    ]
    for line in (line for path in written for line in list_shell_lines(path.read_text(encoding="utf-8"))):
        for module, lines in found.items():
            if line.startswith(f"python -m {module} ") and strip_comment(line) not in map(strip_comment, lines):
                lines.append(line)
    return found


def respell(text: str) -> str:
    """Return a text with commands spelt as in SPELLING."""
    modules = {command.module: command.spelling for command in COMMANDS}
    return re.sub(rf"python -m ({'|'.join(map(re.escape, modules))})\b", lambda found: modules[found[1]], text)


def strip_comment(line: str) -> str:
    return re.sub(r"\s+#.*", "", line)


def list_shell_lines(text: str) -> Iterator[str]:
    """Yield the commands in a page's sh blocks, with continued lines joined.

    >>> list(list_shell_lines("```sh\\nls \\\\\\n  -l\\npwd  # here\\n```"))
    ['ls -l', 'pwd  # here']
    """
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from filter(None, re.sub(r"\s*\\\n\s*", " ", block).split("\n"))


# Modules


def make_modules_page() -> str:
    lines = [
        "# Modules",
        "",
        GENERATED,
        "",
        "The first sentence of each module; [layout.md](layout.md) has the rooms and who may import whom.",
    ]
    for folder in sorted({path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}):
        modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        purpose = read_purpose(folder / "__init__.py") if (folder / "__init__.py").exists() else ""
        lines += ["", f"## {folder.relative_to(ROOT).as_posix()}", *(["", purpose] if purpose else [])]
        lines += [""] if modules else []
        lines += [f"- `{path.stem}`: {read_purpose(path)}" for path in modules]
    return "\n".join(lines).rstrip("\n") + "\n"


def read_purpose(path: Path) -> str:
    """Return the first paragraph of a module's docstring on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


GENERATED = "<!-- Written by `make docs` from the code; change it there. -->"


def draw_row(*cells: str) -> str:
    """Return a row of a Markdown table.

    >>> draw_row("`a|b`", "or")
    '| `a\\\\|b` | or |'
    """
    escaped = [re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells]
    return f"| {' | '.join(escaped)} |"


def main() -> int:
    pages = make_pages()
    for path in sorted((DOCS / "commands").glob("*.md")):
        if path not in pages:
            path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(pages)} pages in {DOCS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
