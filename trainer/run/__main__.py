"""`python -m trainer.run RECIPE [name=value ...]`: train, evaluate, bundle. The same command resumes after a stop."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
import textwrap

import yaml

from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, MISTAKE, run_command
from shards.cli.messages import add_volume
from shards.dataset.manifest import find_manifest
from shards.errors import ShardError, UsageError
from shards.storage.shown import show_location
from shards.storage.storage import open_readable
from trainer.recipes.file import RECIPES, load_recipe, read_header
from trainer.recipes.place import is_remote
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RESULT, RunFolder


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_intermixed_args(argv)
    if arguments.recipe is None:
        print(respell(_explain_usage()))
        return MISTAKE
    recipe = load_recipe(arguments.recipe, arguments.options)
    if arguments.explain:
        from trainer.recipes.explain import explain_recipe  # late: few ask for it

        print(explain_recipe(recipe), end="")
        return 0
    if arguments.print_recipe:
        print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
        return 0
    if arguments.dry_run:
        return _plan(recipe, arguments.json)
    if not is_remote(recipe.data):
        find_manifest(open_readable(recipe.data))
    from trainer.run.launch import launch  # late: torch takes seconds, and mistakes are reported before

    before = _read_end(RunFolder.of(recipe))
    folder = launch(recipe)
    was_finished = before is not None and before == _read_end(folder)
    if arguments.json:
        print(json.dumps(_collect(folder)))
    else:
        _print_results(recipe, folder, was_finished)
    return 0


class _Parser(CommandParser):
    def explain_unknown(self, word: str) -> str:
        name = word.partition("=")[0].lstrip("-")
        if name.partition(".")[0] in Recipe.model_fields:
            return f"there is no option --{name}; options of the recipe have no dashes: {name}=VALUE"
        return super().explain_unknown(word)

    def format_help(self) -> str:
        from trainer.recipes.choices import describe_choices  # late: most runs are not asked for help

        self.epilog = describe_choices()
        return super().format_help()


def build_parser() -> CommandParser:
    parser = _Parser(
        prog="python -m trainer.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument(
        "options", nargs="*", metavar="name=value", help="changes to the recipe: epochs=5 optim.peak_lr=0.01"
    )
    parser.add_argument("--print-recipe", action="store_true", help="print the resolved recipe and do nothing")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="with --print-recipe: each option's meaning, values and default above it, as comments",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check data, memory, devices and storage, time a few steps, print the plan of the run and write nothing",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the results, or the plan of a dry run, as one JSON object"
    )
    add_volume(parser)
    return parser


def _explain_usage() -> str:
    """Return the usage of the command, with the purpose of each built-in recipe."""
    lines = [
        "name a recipe, a YAML file or one of those below, and changes to it:",
        "",
        "  python -m trainer.run smoke data=FOLDER epochs=2     FOLDER is the output of `python -m shards pack`",
        "  python -m trainer.run smoke data=FOLDER --dry-run    checks everything and estimates the time",
        "  python -m trainer.run smoke --print-recipe --explain    lists every option with its meaning",
        "  python -m trainer.run --help                         lists optimizers, schedules, losses and policies",
        "",
    ]
    for path in sorted(RECIPES.glob("*.yaml")):
        header = read_header(path)
        texts = [header.purpose, f"takes {header.cost}"] if header.cost else [header.purpose]
        wrapped = [line for text in texts for line in textwrap.wrap(text, 98)]
        lines += [f"  {name:<18} {line}" for name, line in itertools.zip_longest([path.stem], wrapped, fillvalue="")]
    return "\n".join(lines)


def _plan(recipe: Recipe, as_json: bool) -> int:
    from trainer.run.dry_run import describe, plan_run

    plan = plan_run(recipe)
    print(json.dumps(plan.to_json()) if as_json else respell(describe(plan)))
    return DONE


def _read_end(folder: RunFolder) -> int | None:
    """Return when a run was finished, in nanoseconds; None if it is not. Extending it with epochs changes this time."""
    return (folder.path / RESULT).stat().st_mtime_ns if folder.is_finished else None


def _collect(folder: RunFolder) -> dict[str, object]:
    return {"run": str(folder.path), "bundle": str(folder.bundle), "evaluation": folder.read_evaluations()}


def _note_repacked(recipe: Recipe, run: RunFolder) -> None:
    """Print a note if the dataset has changed since the run was trained and evaluated."""
    from shards.dataset.dataset import open_dataset
    from trainer.contract.bundle import read_bundle_page

    try:
        trained = read_bundle_page(run.path / "bundle").dataset
        now = open_dataset(recipe.data, recipe.cache_options()).fingerprint()
    except (UsageError, ShardError, OSError):  # results can be read without the data
        return
    if trained is not None and trained != now:
        shown, bundle = show_location(recipe.data), shlex.quote(str(run.path / "bundle"))
        print(
            f"note: {shown} has changed since (packed again or updated), and the metrics below are for the pictures "
            + respell(f"before; `python -m trainer.evaluate {bundle} {shlex.quote(shown)}` evaluates on these, ")
            + "another name= trains on them"
        )


def _print_results(recipe: Recipe, run: RunFolder, was_finished: bool) -> None:
    from trainer.contract.metrics import describe_headline, describe_of_positive
    from trainer.evaluate.baseline import describe_baseline
    from trainer.evaluate.positive import list_lines, read_positive
    from trainer.record.notes import read_notes

    folder = run.path
    if was_finished:
        print(f"{folder} was finished before; choose another name= to train again")
        _note_repacked(recipe, run)
    for part, metrics in run.read_evaluations().items():
        print(f"{part}: {describe_headline(metrics)} on {metrics['samples']:,} pictures")
        told = filter(None, (describe_baseline(metrics), describe_of_positive(metrics)))
        print("".join(f"  {line}\n" for line in told), end="")
        remedy = respell(f"`python -m trainer.report {shlex.quote(str(folder))} --positive CLASS` chooses another")
        print("".join(f"  {line}\n" for line in list_lines(metrics, remedy)), end="")
        positive = read_positive(metrics)
        if recipe.positive and positive and positive.name != recipe.positive:
            other = respell("python -m trainer.report")
            other = f"`{other} {shlex.quote(str(folder))} --positive {shlex.quote(recipe.positive)}`"
            print(f"note: the run was evaluated before with {positive.name} as positive class; {other} updates it")
    notes = [note.text for note in read_notes(folder)]
    said = set() if was_finished else set(notes)
    for note in json.loads((folder / RESULT).read_text())["notes"]:
        if note not in said:  # already on standard error
            print(respell(f"note: {note}"))
    print(respell(f"loaded  {_describe_loaded(recipe, notes)}"))
    print(f"bundle  {run.bundle}\nreport  {folder / 'report.html'}")
    if run.uri:
        print(f"store   {run}")


def _describe_loaded(recipe: Recipe, notes: list[str]) -> str:
    """Return the inputs of a run: its dataset and initial weights, with their file if recorded."""
    told = recipe.describe()
    known = [note.removeprefix("weights ") for note in notes if note.startswith("weights ")]
    weights = known[-1].partition("; ")[0] if known else f"{told['weights']} into {recipe.model}"
    began = (
        f"no weights, {recipe.model} started from random numbers" if recipe.weights == "none" else f"weights {weights}"
    )
    return f"data {told['data']}; {began}"


if __name__ == "__main__":
    sys.exit(run_command(main))
