"""`python -m cluster.status`: which bundles a running endpoint has, and what its replicas do."""

from __future__ import annotations

import json
import sys

from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    from cluster.swap.service import Service  # late: they import ray
    from cluster.swap.swap import describe_service

    service = Service.join(arguments.address)
    said = describe_service(service)
    if arguments.json:
        print(json.dumps(said))
        return DONE
    print(service.rollout.describe())
    for each in said["replicas"]:
        answers = f"answers with {each['bundle'][:12]}" if each["bundle"] else "has no bundle yet"
        failed = f"; refused: {each['failed']}" if each["failed"] else ""
        print(f"  replica {each['replica']} on {each['node']}: {each['state'].lower()}, {answers}{failed}")
    print(f"  metrics {' '.join(said['metrics'])}")
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m cluster.status", description=__doc__)
    parser.add_argument("--address", help="Ray cluster of the endpoint (default: RAY_ADDRESS, or local)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
