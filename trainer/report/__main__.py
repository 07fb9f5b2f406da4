"""`python -m trainer.report RUN_DIR`: write report.html and model_card.md of a finished run again."""

from __future__ import annotations

import argparse
import sys

from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume
from trainer.report.options import SPLITS, ReportOptions


def main(argv: list[str]) -> int:
    options = ReportOptions(**vars(build_parser().parse_args(argv)))
    from trainer.report.report import report  # late: torch takes seconds, and mistakes are told before

    written = report(options)
    print(f"report  {written.report}\ncard    {written.card}")
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m trainer.report", description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("run_dir", help="folder of a finished run, for example runs/demo")
    parser.add_argument("--part", action="append", choices=SPLITS, help="report only this split; may be repeated (all)")
    parser.add_argument(
        "--positive", metavar="CLASS", help="set the run's positive class and compute its metrics again"
    )
    parser.add_argument("--data", help="location of the dataset, if it has moved")
    parser.add_argument("--images", action=argparse.BooleanOptionalAction, help="show pictures of the dataset (yes)")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
