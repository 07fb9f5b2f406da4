"""`python -m cluster.doctor`: look at every node of a Ray cluster, or at this machine, before a run needs it.

Versions, GPUs, CPUs, memory, disks, limits, clocks, names, storage, data and the network between the nodes. Each line
that is red comes with its remedy. Ends with 3 if a line is red. The checks need no free CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from cluster.doctor.options import DoctorOptions
from cluster.doctor.tracking import find_url
from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, REFUSED, run_command
from shards.cli.messages import add_volume
from shards.cli.sentences import count_things


def main(argv: list[str]) -> int:
    said = build_parser().parse_args(argv)
    options = read_options(said)
    from cluster.doctor.draw import draw
    from cluster.doctor.examine import examine

    with contextlib.redirect_stdout(sys.stderr):  # Ray prints what it notices of a cluster
        examined = examine(options)
    print(json.dumps(examined.describe(), ensure_ascii=False, indent=2) if said.json else draw(examined))
    red = examined.find("red")
    if not red:
        return DONE
    names = ", ".join(dict.fromkeys(name for name, _ in red))
    print(f"error: {count_things(len(red), 'line is', 'lines are')} red: {names}; see the remedies", file=sys.stderr)
    return REFUSED


def read_options(said: argparse.Namespace) -> DoctorOptions:
    """Return the options; folders become absolute, because nodes work in other folders."""
    values = {name: value for name, value in vars(said).items() if name in DoctorOptions.model_fields}
    for name in ("storage", "data"):
        if values.get(name) is not None and "://" not in values[name]:
            values[name] = str(Path(values[name]).expanduser().absolute())
    return DoctorOptions(**{**values, "wandb": find_url(os.environ, said.wandb)})


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.doctor", description=__doc__.partition("\n\n")[2] if __doc__ else None
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster; `local`: this machine alone (default: RAY_ADDRESS, or the cluster that runs here, or this "
        "machine)",
    )
    parser.add_argument("--storage", metavar="URI|FOLDER", help="where runs write: every node writes and reads there")
    parser.add_argument("--data", metavar="DATASET", help="dataset that every node must see")
    parser.add_argument("--quick", action="store_true", help="measure no bandwidths")
    parser.add_argument(
        "--pairs", action="store_true", help="measure each pair of nodes, also if there are more than 4 nodes"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="ask the W&B server, also without WANDB_API_KEY or WANDB_MODE=online"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DoctorOptions.default("timeout_s"),
        metavar="S",
        help="seconds that a node may take for each question (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print all facts and findings as JSON")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
