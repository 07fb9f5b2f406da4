"""`python -m cluster.stop JOB`: stop a job of a Ray cluster, so that it saves its state and can be resumed."""

from __future__ import annotations

import sys

from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, run_command


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    from cluster.jobs.follow import follow  # late: they import ray
    from cluster.jobs.head import Head

    head = Head(arguments.address)
    before = head.read(arguments.job)
    if before.has_ended:
        print(f"job {before.name} had ended before: {before.status.lower()}")
        return DONE
    head.stop(before.name)
    print(f"job {before.name} was told to save its state and end", flush=True)
    after = follow(head, before.name)
    print(f"job {after.name} has ended: {after.status.lower()}")
    print(respell(f"the same command resumes it: `python -m cluster.submit -- {after.command}`"))
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m cluster.stop", description=__doc__)
    parser.add_argument("job", help="id of the job; `python -m cluster.jobs` lists them")
    parser.add_argument(
        "--address", help="head of the cluster (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
