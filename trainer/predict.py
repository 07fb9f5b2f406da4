"""`python -m trainer.predict BUNDLE PATH...`: label pictures that have no label; one CSV row a picture.

Several labels of a picture are joined by `;`; none are an empty cell, or an empty list with --json.
Where the bundle has a decision of trainer.decide, rows say `decision` and `abstain`, too, and what else it has of
`ood_score` and `set` (classes joined by ;).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.command import REFUSED, run_command
from shards.errors import DecodeError
from trainer.contract.names import AUTO, BACKENDS

if TYPE_CHECKING:
    from trainer.contract.bundle import Bundle, BundlePage
    from trainer.contract.decision import Decision

BATCH = 32


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    from shards.sources.folder import list_pictures
    from trainer.contract.choice import load_with_backend

    paths = list_pictures(arguments.paths)
    bundle, _ = load_with_backend(arguments.bundle, backend=arguments.backend)
    unreadable = 0
    with _open_writer(arguments.out, arguments.json, bundle.page) as write:
        for path, row in predict(bundle, paths):
            if isinstance(row, DecodeError):
                unreadable += 1
                print(f"{path}: {row}", file=sys.stderr)
            else:
                write({"path": str(path), **row})
    if unreadable:
        print(f"{unreadable:,} of {len(paths):,} pictures could not be read; the others are done", file=sys.stderr)
    return REFUSED if unreadable else 0


def predict(bundle: Bundle, paths: list[Path]) -> Iterator[tuple[Path, dict[str, Any] | DecodeError]]:
    """Yield each path with its answer but for the logits, or with the reason why it cannot be read."""
    import torch

    for start in range(0, len(paths), BATCH):
        prepared = [(path, _prepare(bundle, path)) for path in paths[start : start + BATCH]]
        images = [image for _, image in prepared if not isinstance(image, DecodeError)]
        outputs = iter(bundle.compute(torch.stack(images)) if images else ())
        for path, image in prepared:
            if isinstance(image, DecodeError):
                yield path, image
            else:
                row = bundle.answer(*next(outputs)).describe()
                del row["logits"]
                yield path, row


def _prepare(bundle: Bundle, path: Path) -> Any:
    try:
        return bundle.prepare(path.read_bytes())
    except DecodeError as err:
        return err


@contextlib.contextmanager
def _open_writer(out: Path | None, as_json: bool, page: BundlePage) -> Iterator[Any]:
    """Yield a function that writes one row, to a file or to standard output."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(out, "w", newline="", encoding="utf-8")) if out else sys.stdout
        if as_json:
            yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + os.linesep)
            return
        writer = csv.writer(file, lineterminator="\n")
        decided = _list_decided(page.decision)
        probabilities = [f"probability_{name}" for name in page.classes]
        writer.writerow(["path", "label", "probability", *decided, *probabilities])
        yield lambda row: writer.writerow(
            [
                row["path"],
                ";".join(row["labels"]),
                f"{row['probability']:.6f}",
                *(_format(row[name]) for name in decided),
                *(f"{p:.6f}" for p in row["probabilities"].values()),
            ]
        )


def _list_decided(decision: Decision) -> list[str]:
    """Return the columns that only a bundle with a fitted decision has."""
    there = {
        "decision": decision.fitted,
        "abstain": decision.fitted,
        "ood_score": decision.ood,
        "set": decision.conformal,
    }
    return [name for name, value in there.items() if value is not None]


def _format(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ";".join(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="pictures, or folders of pictures")
    parser.add_argument("--out", type=Path, help="write here instead of to standard output")
    parser.add_argument(
        "--backend",
        choices=(AUTO, *BACKENDS),
        default=AUTO,
        help="what computes; auto is the one that `trainer.bench --choose` recorded for this CPU, or eager",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of CSV")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
