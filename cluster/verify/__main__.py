"""`python -m cluster.verify URL BUNDLE [DATA:split]`: compare an endpoint's answers with those of a bundle in process.

Sends the bundle's probes, or pictures of a packed dataset, and compares fingerprint, logits, labels and decisions.
Logits agree within the tolerance of the probes: 1e-4 of the largest, or 2e-2 if the endpoint computes with another back
end. Ends with 3 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.client.sources import read_token
from shards.cli.arguments import read_at_least, read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, REFUSED, run_command
from shards.cli.messages import add_volume
from trainer.contract.intact import check_intact

if TYPE_CHECKING:
    from cluster.verify.differences import Difference
    from cluster.verify.verify import Verified

_SAMPLES = 200


def main(argv: list[str]) -> int:
    said = build_parser().parse_args(argv)
    token = read_token(said.token_file)
    check_intact(said.bundle)
    from cluster.verify.verify import verify_endpoint  # late: torch takes seconds, and mistakes are told before

    verified = verify_endpoint(said.url, said.bundle, said.data, samples=said.samples, seed=said.seed, token=token)
    print(json.dumps(verified.describe(), ensure_ascii=False, indent=2) if said.json else draw_table(verified))
    if verified.agrees:
        return DONE
    print(f"error: {explain(verified, said.bundle)}", file=sys.stderr)
    return REFUSED


def draw_table(verified: Verified) -> str:
    """Return one line for each kind of difference, and the pictures that differ."""
    lines = [f"{'':14}{'differs':>8}{'of':>7}{'largest':>10}   first"]
    lines += [_draw_row(each) for each in verified.differences]
    lines.append(f"{verified.url}: {verified.backend}; logits may differ by {verified.tolerance:g} of the largest")
    return "\n".join(lines)


def _draw_row(each: Difference) -> str:
    largest = "" if each.largest is None else f"{each.largest:.1e}"
    first = f"{', '.join(each.pictures)}: {each.example}" if each.differs else ""
    return f"{each.kind:14}{each.differs:>8,}{each.compared:>7,}{largest:>10}   {first}".rstrip()


def explain(verified: Verified, bundle: Path) -> str:
    """Return the sentence for an endpoint that differs."""
    kinds = ", ".join(each.kind for each in verified.differences if each.differs)
    names = next((each.pictures for each in verified.differences if each.differs), [])
    where = f" in {kinds}, first at {', '.join(names)}" if kinds else ""
    if verified.served != verified.bundle:
        remedy = f"it serves the bundle {verified.served}, and {bundle} is {verified.bundle}: deploy that one"
    else:
        remedy = "it serves this bundle: compare the versions of its libraries in /v1/model with those here"
    return f"{verified.url} differs from {bundle}{where}; {remedy}"


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.verify",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("url", help="the endpoint, for example http://127.0.0.1:8000")
    parser.add_argument("bundle", type=Path, help="folder of the bundle that it should serve")
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="packed dataset, DATA:split; the bundle's probes if none"
    )
    parser.add_argument(
        "--samples", type=read_count, default=_SAMPLES, metavar="N", help="pictures drawn from the split"
    )
    parser.add_argument("--seed", type=read_at_least(0), default=0, metavar="N", help="seed of the draw")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with the endpoint's token; else SHARDLINE_TOKEN has it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
