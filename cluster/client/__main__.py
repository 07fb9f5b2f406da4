"""`python -m cluster.client URL PICTURE...`: send pictures to an endpoint."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cluster.client import Client, PictureRefusedError
from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, REFUSED, run_command
from shards.errors import UsageError


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    for path in arguments.pictures:
        if not path.is_file():
            raise UsageError(f"{path} is not a file; give pictures, for example {path.parent / '*.jpg'}")
    refused = 0
    with Client(arguments.url, arguments.timeout_s, arguments.retries) as client:
        if arguments.wait_s:
            client.wait_until_ready(arguments.wait_s)
        for path in arguments.pictures:
            refused += not _ask(client, path, arguments.json)
    if refused:
        print(f"error: {refused:,} of {len(arguments.pictures):,} pictures were refused", file=sys.stderr)
    return REFUSED if refused else DONE


def _ask(client: Client, path: Path, as_json: bool) -> bool:
    """Print one line for the picture; return whether it was answered."""
    try:
        answer = client.predict(path.read_bytes())
    except PictureRefusedError as err:
        if as_json:
            print(json.dumps({"path": str(path), "error": str(err)}), flush=True)
        else:
            print(f"{path}: {err}", file=sys.stderr, flush=True)
        return False
    line = (
        json.dumps({"path": str(path), **answer})
        if as_json
        else f"{path}  {_name(answer)}  {answer['probability']:.4f}{'  abstains' if answer.get('abstain') else ''}"
    )
    print(line, flush=True)
    return True


def _name(answer: dict[str, Any]) -> str:
    """Return the classes of an answer in words."""
    return ";".join(answer["labels"]) or "none"


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.client",
        description="Print an endpoint's answers for pictures, one line each.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("url", help="the endpoint, for example http://127.0.0.1:8000")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="picture files")
    parser.add_argument("--json", action="store_true", help="print one JSON object per picture")
    parser.add_argument(
        "--timeout-s", type=float, default=30.0, help=("seconds without an answer after which a request fails")
    )
    parser.add_argument("--wait-s", type=float, default=0.0, help="seconds to wait for an endpoint that is starting")
    parser.add_argument("--retries", type=int, default=6, help="retries if the endpoint is busy")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
