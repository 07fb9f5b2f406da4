"""`python -m tune.report SWEEP`: write the page and tables of a sweep again, also of an unfinished one."""

from __future__ import annotations

import sys

from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume
from tune.report.options import SweepReportOptions


def main(argv: list[str]) -> int:
    options = SweepReportOptions(sweep=build_parser().parse_args(argv).sweep)
    from tune.report.page import write_report  # late: torch takes seconds, and mistakes are told before
    from tune.result.sweep import open_sweep

    print(f"report  {write_report(open_sweep(options.sweep))}")
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m tune.report", description=__doc__)
    parser.add_argument("sweep", help="folder of a sweep, for example runs/demo-sweep")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
