"""`python -m shards pack|stat|verify`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from shards.command import run_command
from shards.dataset import open_dataset
from shards.decode import DecodeOptions
from shards.errors import UsageError
from shards.packing.pack import QUARANTINE, PackOptions, pack
from shards.sizes import parse_size
from shards.sources.folder import scan_folder
from shards.splits import parse_shares
from shards.verify import verify_dataset


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    commands = {"pack": _pack, "stat": _stat, "verify": _verify}
    return commands[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    style = argparse.ArgumentDefaultsHelpFormatter
    make = commands.add_parser("pack", help="image folder -> dataset of tar shards", formatter_class=style)
    make.add_argument("src", type=Path, help="folder with one subfolder per class, or train/val/test above those")
    make.add_argument("out", type=Path, help="folder of the dataset")
    make.add_argument("--split", default="val=0.1,test=0.1", help="shares where SRC has no splits; none = all train")
    make.add_argument("--seed", type=int, default=0, help="seed of the split and of the order in the shards")
    make.add_argument("--shard-bytes", default="64MiB", help="size after which a shard is closed")
    make.add_argument("--max-reject-rate", type=float, default=0.01, help="share of unreadable pictures to put up with")
    make.add_argument(
        "--range",
        help="LO,HI: values of 16-bit or float gray that are black and white; --range=-1000,400 where LO is negative",
    )
    make.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads that decode")
    make.add_argument("--json", action="store_true", help="print the manifest as JSON")
    for name, text in (("stat", "what a dataset holds"), ("verify", "hash every shard and decode every picture again")):
        command = commands.add_parser(name, help=text, formatter_class=style)
        command.add_argument("dataset", type=Path, help="folder of the dataset")
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _pack(arguments: argparse.Namespace) -> int:
    options = _read_options(arguments)
    listed = scan_folder(arguments.src)
    with tqdm(unit="picture", disable=None, leave=False) as bar:

        def show(stage: str, done: int, total: int, _size: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description(stage)
            bar.refresh() if done == total else bar.update(0)

        manifest = pack(listed, arguments.out, options, show)
    if arguments.json:
        print(manifest.model_dump_json())
        return 0
    for ending, count in listed.left_out.items():
        print(f"left out {count:,} files ending in {ending}: not pictures by their ending")
    if manifest.quarantined:
        print(f"left out {manifest.quarantined:,} unreadable pictures, listed in {arguments.out / QUARANTINE}")
    return _stat(argparse.Namespace(dataset=arguments.out, json=False))


def _read_options(arguments: argparse.Namespace) -> PackOptions:
    try:
        return PackOptions(
            seed=arguments.seed,
            shard_bytes=parse_size(arguments.shard_bytes),
            shares=parse_shares(arguments.split),
            max_reject_rate=arguments.max_reject_rate,
            workers=arguments.workers,
            decode=DecodeOptions(gray_range=_parse_range(arguments.range)),
        )
    except ValidationError as err:
        first = err.errors()[0]
        option = str(first["loc"][0]).removeprefix("gray_").replace("_", "-")
        raise UsageError(f"--{option}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}") from err


def _parse_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as err:
        raise UsageError(f"--range is LO,HI, two numbers such as 0,4095, got '{text}'") from err
    return low, high


def _stat(arguments: argparse.Namespace) -> int:
    dataset = open_dataset(arguments.dataset)
    manifest = dataset.manifest
    if arguments.json:
        print(json.dumps({**manifest.model_dump(mode="json"), "fingerprint": dataset.fingerprint()}))
        return 0
    print(f"{arguments.dataset}  {dataset.fingerprint()[:12]}")
    for name, split in manifest.splits.items():
        classes = ", ".join(f"{label} {n:,}" for label, n in zip(manifest.classes, split.class_counts, strict=True))
        size = f"{split.samples:>9,} samples in {split.shards:,} shards, {split.bytes / 2**20:,.1f} MiB"
        print(f"  {name:5}  {size}: {classes}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    count = verify_dataset(arguments.dataset)
    print(
        json.dumps({"verified": count}) if arguments.json else f"{arguments.dataset}: {count:,} pictures are as packed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
