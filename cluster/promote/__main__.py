"""`python -m cluster.promote BUNDLE`: let another bundle answer, without downtime.

cluster.promote runs/better                  # loaded and checked beside the old one in every replica, then it answers
cluster.promote runs/better --canary 0.1     # it answers a tenth of the requests
cluster.promote runs/better --shadow         # it answers none; how often both agree is counted
cluster.rollback                             # end the trial, or go back to the bundle before
"""

from __future__ import annotations

import argparse
import json
import sys

from cluster.serve.place import PLACE
from cluster.swap.swap import PromoteOptions, promote
from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    address, as_json = arguments.pop("address"), arguments.pop("json")
    options = PromoteOptions(**arguments)
    from cluster.swap.service import Service  # late: it imports ray

    after = promote(Service.join(address), options)
    print(json.dumps(after.show()) if as_json else after.describe())
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.promote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("bundle", help=PLACE)
    parser.add_argument("--canary", type=float, metavar="SHARE", help="let it answer this share of the requests")
    parser.add_argument("--shadow", action="store_true", help="let it compute all pictures without answering")
    parser.add_argument("--force", action="store_true", help="promote it although its classes differ")
    parser.add_argument("--timeout-s", type=float, help="seconds for loading it in all replicas (default: 300)")
    parser.add_argument("--address", default=None, help="Ray cluster of the endpoint (default: RAY_ADDRESS, or local)")
    parser.add_argument("--json", action="store_true", default=False, help="print what is in force as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
