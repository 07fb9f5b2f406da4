"""The commands that made a run, and those that use it."""

from __future__ import annotations

import shlex
from pathlib import Path

from shards.dataset import shorten
from shards.decode import DecodeOptions
from shards.manifest import INDEXED, Packing
from shards.splits import SplitOptions
from trainer.report.sources import Finished

Words = list[str | Path | int | float]


def list_commands(run: Finished) -> list[str]:
    """Return commands for a shell, in the order of the work; SOURCE and PICTURES stand for what nobody recorded."""
    folder, data = run.folder, shorten(run.dataset.location)
    evaluations: list[Words] = [["trainer.evaluate", folder / "bundle", f"{data}:{e.part}"] for e in run.evaluations]
    lines: list[Words] = [
        ["shards", *_pack(run.dataset.manifest.packing, data)],
        ["trainer.run", folder / "recipe.yaml", "name=again"],
        *evaluations,
        ["trainer.report", folder],
        ["trainer.predict", folder / "bundle", "PICTURES"],
        ["cluster.serve", folder / "bundle"],
    ]
    return ["python -m " + " ".join(shlex.quote(str(word)) for word in line) for line in lines]


def _pack(packing: Packing, data: str) -> Words:
    """Return the words of the command that makes such a dataset; options that have their defaults are left out."""
    if packing.plan.startswith(INDEXED):
        return ["index", data]
    usual = SplitOptions()
    split, words = packing.split, Words(["pack", "SOURCE", data])
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
