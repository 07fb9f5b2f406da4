"""`python -m cluster.rollback`: go back to the bundle before, or end the trial of one, without downtime."""

from __future__ import annotations

import json
import sys

from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    from cluster.swap.service import Service  # late: they import ray
    from cluster.swap.swap import roll_back

    after = roll_back(Service.join(arguments.address), arguments.timeout_s)
    print(json.dumps(after.show()) if arguments.json else after.describe())
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m cluster.rollback", description=__doc__)
    parser.add_argument("--timeout-s", type=float, default=300.0, help="seconds for all replicas (default: 300)")
    parser.add_argument("--address", help="Ray cluster of the endpoint (default: RAY_ADDRESS, or local)")
    parser.add_argument("--json", action="store_true", help="print what is in force as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
