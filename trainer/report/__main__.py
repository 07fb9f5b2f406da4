"""`python -m trainer.report RUN_DIR`: report.html and model_card.md of a finished run anew, without training."""

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
    parser.add_argument("--part", action="append", choices=SPLITS, help="this part alone; again for more (all)")
    parser.add_argument(
        "--positive", metavar="CLASS", help="look for this class: count its figures anew and keep it as the run's"
    )
    parser.add_argument("--data", help="the dataset, where it is no longer where the recipe says")
    parser.add_argument("--images", action=argparse.BooleanOptionalAction, help="show pictures of the dataset (yes)")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
