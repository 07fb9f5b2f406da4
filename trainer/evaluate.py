"""`python -m trainer.evaluate BUNDLE DATA:SPLIT`: metrics, predictions and figures of a bundle on one part."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from shards.command import run_command
from shards.errors import UsageError


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    location, part = split_location(arguments.data)
    out = arguments.out or Path("evaluations") / part
    from shards.dataset import open_dataset
    from trainer.contract.bundle import read_bundle_page
    from trainer.processes import run_processes

    if arguments.workers < 1:
        raise UsageError(f"--workers is a number of threads and must be at least 1, got {arguments.workers}")
    read_bundle_page(arguments.bundle)  # the most common mistakes, before processes start
    open_dataset(location).require_labels().split(part)
    result = run_processes(evaluate, (arguments.bundle, location, part, out, arguments.workers), arguments.num_ranks)
    if arguments.json:
        print(json.dumps(result))
        return 0
    from trainer.evaluation.answers import describe_headline

    numbers = f"{describe_headline(result)}, log loss {result['log_loss']:.4f}"
    print(f"{part}: {numbers} on {result['samples']:,} pictures")
    if "warning" in result:
        print(f"note: {result['warning']}")
    print(f"files   {out}")
    return 0


def split_location(text: str, default: str = "test") -> tuple[str, str]:
    """Return location and part of `FOLDER:PART` or `URI:PART`; the part is `default` where none is named.

    >>> split_location("data/cells:val")
    ('data/cells', 'val')
    >>> split_location("s3://bucket/cells?endpoint_override=127.0.0.1:9000")
    ('s3://bucket/cells?endpoint_override=127.0.0.1:9000', 'test')
    """
    location, colon, part = text.rpartition(":")
    if colon and part in ("train", "val", "test"):
        return location, part
    if colon and "/" not in part and "?" not in location:  # a port may stand in a URI's query
        raise UsageError(f"{text}: a dataset has the parts train, val and test, got '{part}'")
    return text, default


def evaluate(ranks: object, bundle: Path, location: str, part: str, out: Path, workers: int) -> dict[str, object]:
    """Evaluate on one rank of several; return the metrics."""
    from shards.dataset import open_dataset
    from trainer.contract.bundle import Bundle
    from trainer.finish import evaluate_bundle
    from trainer.ranks import Ranks

    assert isinstance(ranks, Ranks)
    loaded = Bundle.load(bundle, str(ranks.device))
    return evaluate_bundle(loaded, open_dataset(location), part, ranks, workers, out)


def _parser() -> argparse.ArgumentParser:
    style = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description=__doc__, formatter_class=style)
    parser.add_argument("bundle", type=Path, help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("data", help="folder of a dataset and the part: data/elpv-shards:test")
    parser.add_argument("--out", type=Path, help="folder for the files; evaluations/PART where not given")
    parser.add_argument(
        "--num-ranks", type=int, default=1, help="processes that evaluate together; the numbers are the same"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads per process that decode")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
