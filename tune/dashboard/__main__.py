"""`python -m tune.dashboard SWEEP`: make a W&B workspace and a report about a sweep, also of an unfinished one.

Tables, figures and confusion matrices go to W&B as one more run. Offline, that run and the specs are files in
SWEEP/dashboard, and the command that uploads everything later is printed, with one for a look on this machine.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume
from tune.dashboard.options import DashboardOptions

if TYPE_CHECKING:
    from tune.dashboard.make import Dashboard


def main(argv: list[str]) -> int:
    options = DashboardOptions(sweep=build_parser().parse_args(argv).sweep)
    from tune.dashboard.make import make_dashboard  # late: torch takes seconds, and mistakes are reported before
    from tune.result.sweep import open_sweep

    print(respell(_describe(make_dashboard(open_sweep(options.sweep)))))
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m tune.dashboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", help="folder of a sweep, for example runs/demo-sweep")
    add_volume(parser)
    return parser


def _describe(made: Dashboard) -> str:
    if made.upload is None:
        return "\n".join(made.urls)
    lines = [
        ("workspace", made.workspace),
        ("report", made.report),
        ("look", f"wandb leet {shlex.quote(str(made.local))}"),
    ]
    return "\n".join(f"{name:9}  {text}" for name, text in [*lines, ("upload", made.upload)])


if __name__ == "__main__":
    sys.exit(run_command(main))
