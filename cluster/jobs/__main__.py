"""`python -m cluster.jobs [JOB]`: the jobs of a Ray cluster, or one of them with the end of its log."""

from __future__ import annotations

import json
import sys
import time

from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, run_command

_LINES = 10


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    from cluster.jobs.follow import follow, read_exit_code  # late: they import ray
    from cluster.jobs.head import Head
    from cluster.jobs.table import describe_jobs, to_json

    head = Head(arguments.address)
    if arguments.job is None:
        jobs = head.list_jobs()
        print(
            json.dumps([to_json(job) for job in jobs])
            if arguments.json
            else describe_jobs(jobs, time.time()) or "no jobs"
        )
        return DONE
    if arguments.follow:
        return read_exit_code(follow(head, arguments.job, lambda text: print(text, end="", flush=True)))
    job = head.read(arguments.job)
    if arguments.json:
        print(json.dumps(to_json(job)))
        return DONE
    print(describe_jobs([job], time.time()))
    print("".join(f"  {line}\n" for line in head.read_log(job.name).splitlines()[-_LINES:]), end="")
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m cluster.jobs", description=__doc__)
    parser.add_argument("job", nargs="?", help="id of a job (default: all are listed)")
    parser.add_argument("--follow", action="store_true", help="print its log until it ends; exit with its exit code")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--address", help="head of the cluster (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
