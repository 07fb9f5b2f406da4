"""`python -m trainer.evaluate BUNDLE DATA[:SPLIT]`: metrics, predictions and figures of a bundle on labelled pictures.

DATA is a packed dataset, or a folder, an archive or a list as `shards pack` takes them. Classes are matched to those of
the bundle by name; any may be missing. Without SPLIT, the split test is evaluated, or the only one. Unreadable pictures
are counted, and listed in unreadable.csv.

`python -m trainer.evaluate --rows predictions.parquet --threshold 0.3`: the same from saved rows, without a model.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume
from shards.commands.arguments import add_layout_argument, add_list_arguments, add_names_argument
from shards.sources.kinds import PACKED_KINDS, describe
from shards.storage.shown import show_location
from trainer.evaluate.options import EvaluateOptions


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_intermixed_args(argv))
    as_json = arguments.pop("json", False)
    options = EvaluateOptions(**arguments)
    from trainer.evaluate.evaluate import evaluate  # late: torch takes seconds, and mistakes are told before

    done = evaluate(options)
    if as_json:
        print(json.dumps(done.metrics, ensure_ascii=False))
        return DONE
    print(respell(_describe(done.metrics)))
    print(respell(f"loaded  {_describe_loaded(options)}"))
    print(f"files   {done.folder}")
    return DONE


def _describe(result: dict[str, Any]) -> str:
    """Return an evaluation in a few lines."""
    from trainer.contract.metrics import describe_headline, describe_of_positive
    from trainer.evaluate.baseline import describe_baseline
    from trainer.evaluate.positive import list_lines

    numbers = [describe_headline(result), f"log loss {result['log_loss']:.4f}"]
    lines = [f"{result['part']}: {', '.join(numbers)} on {result['samples']:,} pictures"]
    lines += [f"        (95 % intervals in brackets, resampled by {result['interval']['by']})"]
    told = filter(None, (describe_baseline(result), describe_of_positive(result)))
    lines += [f"        {line}" for line in told]
    lines += [f"        {told}" for told in list_lines(result, "--positive CLASS names another")]
    for name, rows in result.get("slices", {}).items():
        lines += [f"  {name} {row['value']}: {describe_headline(row)} on {row['samples']:,}" for row in rows]
    notes = [result[key] for key in ("warning",) if key in result]
    notes += [_describe_unreadable(result), *result.get("source_notes", [])]
    notes += [f"{name}: {note}" for name, note in result.get("notes", {}).items()]
    return "\n".join([*lines, *(f"note: {note}" for note in notes if note)])


def _describe_unreadable(result: dict[str, Any]) -> str:
    """Return the number of unreadable pictures and their possible effect on the metrics; "" if there are none."""
    from trainer.contract.metrics import find_right

    lost = result.get("unreadable")
    if lost is None:
        return ""
    first, right = lost["first"][0], find_right(result)
    worst = result[right.key] * result["samples"] / lost["of"]
    return (
        f"{lost['pictures']:,} of {lost['of']:,} pictures could not be read and are left out of all metrics (as wrong "
        f"answers: {right.name} {worst:.4f}); unreadable.csv names them, first {first['path']}: {first['reason']}"
    )


def _describe_loaded(options: EvaluateOptions) -> str:
    if options.rows is not None:
        return f"rows {options.rows}"
    return f"bundle {options.bundle}, data {show_location(str(options.data))}"


def _split(text: str) -> list[str]:
    return text.split(",")


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m trainer.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    ranks, workers = EvaluateOptions.default("num_ranks"), EvaluateOptions.default("workers")
    parser.add_argument("bundle", nargs="?", help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("data", nargs="?", help=f"packed dataset, or {describe(PACKED_KINDS)}; one split is DATA:test")
    parser.add_argument("--rows", help="predictions.parquet of an evaluation, instead of bundle and data")
    parser.add_argument("--out", help="output folder (default: evaluations/SPLIT, or one beside --rows)")
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        help="positive class (default: that of the bundle or dataset, else the second of two)",
    )
    parser.add_argument(
        "--threshold", type=float, help="predict the positive class if its probability is at least this"
    )
    parser.add_argument(
        "--by",
        action="extend",
        type=_split,
        metavar="COLUMN",
        help="metrics by group, width, height, mode, bytes, or a column of --columns; repeat or use commas for more",
    )
    parser.add_argument(
        "--columns", help="CSV or Parquet with sample_id or path and more columns; `group` sets the groups"
    )
    group = parser.add_argument_group("pictures", "how unpacked pictures are read")
    add_layout_argument(group)
    add_names_argument(group)
    group.add_argument("--group-regex", metavar="RE", help="groups by path, such as '(person\\d+)'")
    add_list_arguments(parser, "--list-columns")
    parser.add_argument("--num-ranks", type=int, help=f"number of processes; does not change the results ({ranks})")
    parser.add_argument("--workers", type=int, help=f"decoding threads per process ({workers})")
    parser.add_argument("--json", action="store_true", help="print metrics.json")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
