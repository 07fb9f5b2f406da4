"""`python -m cluster.submit [options] -- trainer.run RECIPE ...`: run a command as a job of a Ray cluster.

The code of this project goes along, and so do small files that the command names, such as a recipe. Data and results do
not: name them by paths that every node sees, or by s3:// URIs. trainer.run and tune.run are checked on the cluster
before they start. Without --follow or --wait this command ends as soon as the job has started.
"""

from __future__ import annotations

import argparse
import json
import sys

from cluster.jobs.options import SubmitOptions
from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, run_command


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    words = arguments.pop("command")
    address, as_json = arguments.pop("address"), arguments.pop("json")
    follows, waits = arguments.pop("follow"), arguments.pop("wait")
    options = SubmitOptions(command=tuple(words[1:] if words[:1] == ["--"] else words), **arguments)
    from cluster.jobs.command import read_command

    read_command(options.command)  # mistakes are reported before ray is imported, which takes a second
    from cluster.jobs.follow import follow, read_exit_code
    from cluster.jobs.head import Head
    from cluster.jobs.submit import read_refusal, submit

    head = Head(address)
    done = submit(head, options, lambda line: None if as_json else print(respell(line), flush=True))
    if not done.is_started:
        reason, code = read_refusal(done, options.python)
        print(f"error: {respell(reason)}", file=sys.stderr)
        return code
    if not as_json:
        print(respell(f"job {done.name}: `python -m cluster.jobs {done.name} --follow` shows it"), flush=True)
    code = DONE
    if follows or waits:
        write = None if (waits and not follows) or as_json else _write
        code = read_exit_code(follow(head, done.name, write))
    if as_json:
        print(
            json.dumps({"job": done.name, "address": head.address, **({"exit_code": code} if waits or follows else {})})
        )
    return code


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.submit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="the command with its arguments: trainer.run ...",
    )
    parser.add_argument(
        "--address",
        default=None,
        help="head that takes the job (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265)",
    )
    parser.add_argument("--name", metavar="ID", help="the job's id (default: the command's name and the time)")
    parser.add_argument("--follow", action="store_true", default=False, help="print its log until it ends")
    parser.add_argument(
        "--wait", action="store_true", default=False, help="wait until it ends; exit with its exit code"
    )
    parser.add_argument("--no-check", dest="check", action="store_false", help="start it without the check")
    parser.add_argument("--json", action="store_true", default=False, help="print the job's id as JSON")
    group = parser.add_argument_group(
        "what the command's own process gets; ranks, trials and replicas ask for their own"
    )
    group.add_argument("--cpus", type=float, metavar="N", help="CPUs reserved for it (default: 0)")
    group.add_argument("--gpus", type=float, metavar="N", help="GPUs reserved for it (default: 0)")
    group.add_argument(
        "--env", action="append", metavar="NAME[=VALUE]", help="environment variable; who lists the jobs can read it"
    )
    group.add_argument(
        "--code",
        metavar="here|there|WHEEL",
        help="this code goes along, what the nodes have installed is used, or a wheel goes along (default: here)",
    )
    group.add_argument("--python", metavar="PATH", help="interpreter on the cluster (default: python)")
    group.add_argument(
        "--stop-wait-s", type=int, metavar="S", help="seconds to save its state when it is stopped (default: 120)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
