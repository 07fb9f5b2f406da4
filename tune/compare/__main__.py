"""`python -m tune.compare --variant NAME=GLOB ... --baseline NAME`: do variants differ, or were some seeds lucky?

GLOB finds the runs of a variant, one for each seed: run folders, or predictions.parquet files. All of them must have
been evaluated on the same pictures.

  tune.compare --variant plain='runs/plain-s*' --variant mixup='runs/mixup-s*' --baseline plain
  tune.compare --variant a='runs/a-s*/evaluation/test/predictions.parquet' --variant b='runs/b-s*' --metric auroc --json

For each variant it prints mean and standard deviation over seeds, the paired difference to the baseline with its 95 %
interval, and a p-value adjusted for the number of variants (Holm). Intervals hold for new seeds and new pictures alike;
pictures of one group count as one draw.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume, print_note
from shards.errors import UsageError
from tune.compare.options import CompareOptions

if TYPE_CHECKING:
    from tune.stats.compare import Comparison


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    options = CompareOptions(
        variant=_read_variants(arguments.variant or []), baseline=arguments.baseline, metric=arguments.metric
    )
    # Late imports: scipy and statsmodels take a second, and mistakes are reported before.
    from tune.stats.compare import compare
    from tune.stats.runs import read_variants

    result = compare(read_variants(options.variant), options.baseline or next(iter(options.variant)), options.metric)
    print(result.model_dump_json() if arguments.json else describe(result))
    if result.single_seeds:
        print_note(
            f"note: {' and '.join(result.single_seeds)} with a single run: intervals hold for other pictures, and do "
            "not include how lucky the seed was; train more seeds"
        )
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m tune.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--variant",
        action="append",
        metavar="NAME=GLOB",
        help="a variant and its runs; several patterns of a name add up",
    )
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with (default: the first)")
    parser.add_argument(
        "--metric",
        default=CompareOptions.default("metric"),
        help="accuracy, log_loss, balanced_accuracy, macro_f1, auroc (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_volume(parser)
    return parser


def _read_variants(words: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, pattern = word.partition("=")
        if not (name and equals and pattern):
            raise UsageError(f"--variant is written NAME=GLOB, such as plain='runs/plain-s*', got '{word}'")
        found[name] = (*found.get(name, ()), pattern)
    return found


def describe(result: Comparison) -> str:
    """Return the table and a sentence for each variant, for people."""
    rows = [("variant", "seeds", result.metric, "sd", "difference", "95 %", "p (Holm)")]
    for row in result.rows:
        interval = row.difference_interval
        rows.append(
            (
                row.name,
                str(row.seeds),
                f"{row.mean:.4f}",
                "" if row.sd is None else f"{row.sd:.4f}",
                "" if row.difference is None else f"{row.difference:+.4f}",
                "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
                "" if row.p_holm is None else f"{row.p_holm:.3g}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    drawn = f"{result.pictures:,} pictures" + (f" in {result.groups:,} groups" if result.groups else "")
    return "\n".join(
        [*table, "", *(row.sentence for row in result.rows[1:]), f"on {drawn}; intervals are not adjusted, p is"]
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
