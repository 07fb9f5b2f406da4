"""`python -m cluster.client URL PATH...`: send pictures to an endpoint.

Prints a line for each picture, or writes them to a file with --out; the order is that of the paths. The columns of a
.csv are those of `trainer.predict`; a .jsonl has all that the endpoint says. Refused pictures are listed on standard
error. A command that is stopped leaves a file with the rows that were finished.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cluster.client.clients import AsyncClient
from cluster.client.output import choose_form
from cluster.client.send import Job, send_pictures
from cluster.client.sources import find_pictures, read_token
from cluster.client.talks import Wishes
from shards.cli.arguments import read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, REFUSED, run_command
from shards.cli.messages import add_volume


def main(argv: list[str]) -> int:
    said = build_parser().parse_args(argv)
    form = choose_form(said.out, said.json)
    wishes = Wishes(top_k=said.top_k, threshold=said.threshold)
    job = Job(find_pictures(said.paths), wishes, form, said.out, said.at_once, said.wait_s)
    client = AsyncClient(said.url, read_token(said.token_file), said.timeout_s, said.retries)
    sent = send_pictures(job, client, lambda text: print(text, end="", flush=True))
    if sent.refused:
        print(f"error: {sent.refused:,} of {len(job.pictures):,} pictures were refused", file=sys.stderr)
    return REFUSED if sent.refused else DONE


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.client",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("url", help="the endpoint, for example http://127.0.0.1:8000")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="picture files, or folders of pictures")
    group = parser.add_argument_group("answers")
    group.add_argument("--out", type=Path, metavar="FILE", help="write a .csv or .jsonl file, instead of lines")
    group.add_argument("--json", action="store_true", help="print one JSON object per picture")
    group.add_argument("--top-k", type=read_count, metavar="N", help="give the N most probable classes")
    group.add_argument(
        "--threshold", type=float, metavar="P", help="decide for the positive class from this probability on"
    )
    group = parser.add_argument_group("connection")
    group.add_argument("--at-once", type=read_count, default=8, metavar="N", help="requests at a time")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with the endpoint's token; else SHARDLINE_TOKEN has it"
    )
    group.add_argument("--timeout-s", type=float, default=30.0, help="seconds without an answer until a request fails")
    group.add_argument("--wait-s", type=float, default=0.0, help="seconds to wait for an endpoint that is starting")
    group.add_argument("--retries", type=int, default=6, help="retries if the endpoint is busy")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
