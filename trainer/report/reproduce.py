"""The commands that made a run, and those that use it."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

from shards.dataset.manifest import INDEXED, Packing
from shards.dataset.origin import PackCommand, read_origin
from shards.pictures.decode import DecodeOptions
from shards.splits.splits import SplitOptions
from shards.storage.shown import show_location
from shards.storage.storage import open_readable
from trainer.report.sources import Finished

SOURCE = "SOURCE"
Words = list[str | Path | int | float]


def list_commands(run: Finished) -> list[str]:
    """Return shell commands in the order of the work; SOURCE and PICTURES replace paths that are not recorded."""
    return list_packing(run) + list_training(run)


def list_packing(run: Finished) -> list[str]:
    """Return the commands that make the dataset: as recorded with it, else as far as its manifest shows."""
    data, manifest = show_location(run.dataset.location), run.dataset.manifest
    if manifest.packing.plan.startswith(INDEXED):
        return _spell([["shards", "index", data, *_tell_positive(manifest.positive, [])]])
    lines: list[Words] = []
    recorded = _read_packing(run)
    for number, known in enumerate(recorded):
        words = [known.source, data, *known.options] if known else [SOURCE, data, *_tell_options(manifest.packing)]
        lines.append(["shards", "pack", *words, *(["--update"] if number else [])])
    lines[-1] += _tell_positive(manifest.positive, [word for known in recorded if known for word in known.options])
    return _spell(lines)


def _tell_positive(positive: str | None, recorded: list[str]) -> list[str]:
    """Return the option that sets the positive class, unless the recorded command already does."""
    named = [value for option, value in itertools.pairwise(recorded) if option == "--positive"]
    return ["--positive", positive] if positive is not None and positive not in named[-1:] else []


def tell_unrecorded(run: Finished) -> str:
    """Return what is not recorded about packing; "" if everything is."""
    if run.dataset.manifest.packing.plan.startswith(INDEXED):
        return "The file of class names, if there was one, is not recorded with the dataset."
    if None not in _read_packing(run):
        return ""
    return (
        f"{SOURCE}, where the pictures came from, is not recorded with the dataset, nor are the regular expression of "
        "groups and the file of class names, if there were any: it was packed from Python, or by an earlier version."
    )


def _read_packing(run: Finished) -> list[PackCommand | None]:
    """Return the commands that packed and updated a dataset; None for those not recorded."""
    known = {each.update: each for each in read_origin(open_readable(run.dataset.location)).commands}
    return [known.get(number) for number in range(run.dataset.manifest.updates + 1)]


def list_training(run: Finished) -> list[str]:
    """Return the commands that make the run from the dataset, and those that use it."""
    folder, data = run.folder, show_location(run.dataset.location)
    evaluations: list[Words] = [["trainer.evaluate", folder / "bundle", f"{data}:{e.part}"] for e in run.evaluations]
    lines: list[Words] = [
        ["trainer.run", folder / "recipe.yaml", "name=again"],
        *evaluations,
        ["trainer.report", folder],
        ["trainer.predict", folder / "bundle", "PICTURES"],
        ["cluster.serve", folder / "bundle"],
    ]
    return _spell(lines)


def _spell(lines: list[Words]) -> list[str]:
    return ["python -m " + " ".join(shlex.quote(str(word)) for word in line) for line in lines]


def _tell_options(packing: Packing) -> Words:
    """Return the options that a dataset was packed with, as far as recorded, except defaults."""
    usual = SplitOptions()
    split, words = packing.split, Words()
    if split.seed:
        words += ["--seed", split.seed]
    if split.every:
        words += ["--every", split.every]
    elif split.shares != usual.shares:
        words += ["--split", ",".join(f"{name}={share:g}" for name, share in split.shares.items()) or "none"]
    if split.merge:
        words += ["--merge-and-resplit", ",".join(split.merge)]
    if split.fraction != usual.fraction:
        words += ["--fraction", split.fraction]
    words += _decode(packing.decode)
    if packing.max_side:
        words += ["--max-side", packing.max_side]
        words += ["--quality", packing.quality] if packing.quality else []
    return [*words, "--shard-bytes", packing.shard_bytes]


def _decode(decode: DecodeOptions) -> Words:
    usual, words = DecodeOptions(), Words()
    if decode.gray_range:
        words.append(f"--range={decode.gray_range[0]:g},{decode.gray_range[1]:g}")
    if decode.background != usual.background:
        words += ["--background", ",".join(map(str, decode.background))]
    if decode.frames != usual.frames:
        words += ["--frames", decode.frames]
    if decode.max_pixels != usual.max_pixels:
        words += ["--max-pixels", decode.max_pixels]
    return words
