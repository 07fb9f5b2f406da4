"""`python -m trainer.evaluate BUNDLE DATA:SPLIT`: metrics, predictions and figures of a bundle on one part.

`python -m trainer.evaluate --rows predictions.parquet --threshold 0.3`: the same anew from saved rows, without a model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume
from shards.dataset.location import split_location
from shards.errors import UsageError

if TYPE_CHECKING:
    from trainer.evaluate.files import Judging


def main(argv: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    given = [arguments.bundle is not None, arguments.data is not None]
    if not all(given) if arguments.rows is None else any(given):
        raise UsageError("name a bundle and a part, such as runs/demo/bundle data/elpv-shards:test, or --rows alone")
    result, out = _judge_rows(arguments) if arguments.rows else _judge_bundle(arguments)
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return DONE
    print(_describe(result))
    print(f"files   {out}")
    return DONE


def _judge_bundle(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    location, part = split_location(arguments.data)
    out = arguments.out or Path("evaluations") / part
    from shards.dataset.dataset import open_dataset
    from trainer.contract.bundle import read_bundle_page
    from trainer.contract.task import make_task
    from trainer.evaluate.bundle import evaluate
    from trainer.evaluate.columns import check_samples
    from trainer.evaluate.positive import take_first
    from trainer.ranks.processes import run_processes

    if arguments.workers < 1:
        raise UsageError(f"--workers is a number of threads and must be at least 1, got {arguments.workers}")
    page = read_bundle_page(arguments.bundle)  # the most common mistakes, before processes start
    dataset = open_dataset(location).require_labels()
    split = dataset.split(part)
    stored = take_first(bundle=page.positive, dataset=dataset.manifest.positive)
    judging = _read_judging(arguments).with_stored(stored)
    judging.check(make_task(page.task), page.classes)
    if judging.columns is not None:
        check_samples(judging.columns, split)
    task = (arguments.bundle, location, part, out, arguments.workers, judging)
    return run_processes(evaluate, task, arguments.num_ranks), out


def _judge_rows(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    from trainer.evaluate.files import write_evaluation
    from trainer.evaluate.predictions import read_predictions

    predictions = read_predictions(arguments.rows)
    name = "again" if arguments.threshold is None else f"threshold-{arguments.threshold:g}"
    out = arguments.out or arguments.rows.parent / name
    if out.absolute() == arguments.rows.absolute().parent:
        raise UsageError(f"--out {out} is the folder of --rows, whose files would be lost; name another one")
    return write_evaluation(out, predictions, _read_judging(arguments)), out


def _read_judging(arguments: argparse.Namespace) -> Judging:
    from trainer.evaluate.columns import read_columns
    from trainer.evaluate.files import Judging

    by = tuple(name for names in arguments.by for name in names.split(","))
    columns = read_columns(arguments.columns) if arguments.columns else None
    return Judging(arguments.positive, arguments.threshold, by, columns)


def _describe(result: dict[str, Any]) -> str:
    """Return an evaluation in a few lines."""
    from trainer.contract.metrics import name_figure
    from trainer.evaluate.answers import describe_headline
    from trainer.evaluate.positive import list_lines, read_positive

    positive = read_positive(result)
    name = positive.name if positive else None
    numbers = [describe_headline(result), f"log loss {result['log_loss']:.4f}"]
    if "threshold" in result["decision"]:
        shown = [each for each in ("sensitivity", "specificity") if each in result]
        numbers += [f"{name_figure(each, name, len(result['per_class']))} {result[each]:.4f}" for each in shown]
    lines = [f"{result['part']}: {', '.join(numbers)} on {result['samples']:,} pictures"]
    lines += [f"        (95 % intervals in brackets, by {result['interval']['by']})"]
    lines += [f"        {told}" for told in list_lines(result, "--positive CLASS names another")]
    for name, rows in result.get("slices", {}).items():
        lines += [f"  {name} {row['value']}: {describe_headline(row)} on {row['samples']:,}" for row in rows]
    notes = [result[key] for key in ("warning",) if key in result]
    notes += [f"{name}: {note}" for name, note in result.get("notes", {}).items()]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description=__doc__, formatter_class=style)
    parser.add_argument("bundle", type=Path, nargs="?", help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("data", nargs="?", help="folder of a dataset and the part: data/elpv-shards:test")
    parser.add_argument("--rows", type=Path, help="predictions.parquet of an evaluation, in place of bundle and data")
    parser.add_argument("--out", type=Path, help="folder for the files; evaluations/PART, or one beside --rows")
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        help="class that is looked for (default: what bundle or dataset say; else of two the second)",
    )
    parser.add_argument(
        "--threshold", type=float, help="predict the positive class where its probability is at least this"
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="metrics by group, width, height, mode, bytes, or a column of --columns; again or with commas for more",
    )
    parser.add_argument(
        "--columns", type=Path, help="CSV or Parquet with sample_id or path and more about the samples; group counts"
    )
    parser.add_argument(
        "--num-ranks", type=int, default=1, help="processes that evaluate together; the numbers are the same (1)"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads per process that decode (2)")
    parser.add_argument("--json", action="store_true", help="print metrics.json")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
