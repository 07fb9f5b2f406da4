"""The contenders of `pack.py` that run in the project's own environment: ours, ShardWriter, tar, cp."""

from __future__ import annotations

import random
import subprocess
from contextlib import ExitStack
from pathlib import Path

from measure import Writer, list_pictures, run_writer

SHARD_BYTES = 64 << 20


def pack_ours(src: Path, out: Path, audit: str = "none", workers: int = 1) -> None:
    """Our pack as a user gets it: scan, seeded order, shards, index with sizes, sha256 of everything, fsync."""
    from shards.packing.options import PackOptions
    from shards.packing.pack import Run, pack
    from shards.sources.find import find_sources

    # Noise and crops of the same ten photographs: near duplicates may be found, and are not the question here.
    options = PackOptions.model_validate({"audit": audit, "shard_bytes": SHARD_BYTES, "allow_leaks": True})
    pack(find_sources(src), out, options, Run(pool=_pool(workers)))


_pools = ExitStack()
_opened: dict[int, object] = {}


def _pool(workers: int) -> object:
    """Return the same pool for the warm-up and the measured call: its start is paid once for any number of pictures."""
    from shards.workers.pools import open_pool

    if workers not in _opened:
        _opened[workers] = _pools.enter_context(open_pool(workers))
    return _opened[workers]


def write_webdataset(src: Path, out: Path) -> None:
    """ShardWriter as its documentation has it: shuffled list, raw bytes, class; no index, no hash."""
    from webdataset import ShardWriter

    pictures = list_pictures(src)
    random.Random(0).shuffle(pictures)
    out.mkdir(parents=True)
    with ShardWriter(f"{out}/%06d.tar", maxsize=SHARD_BYTES, verbose=0) as writer:
        for number, (path, label) in enumerate(pictures):
            with open(path, "rb") as file:
                writer.write({"__key__": f"{number:09d}", "jpg": file.read(), "cls": label})


def write_tar(src: Path, out: Path) -> None:
    """`tar cf` of the folder."""
    out.mkdir(parents=True)
    subprocess.run(["tar", "cf", out / "all.tar", "-C", src, "."], check=True)


def copy_files(src: Path, out: Path) -> None:
    """`cp -r` of the folder."""
    subprocess.run(["cp", "-r", src, out], check=True)


def decode_all(src: Path, out: Path) -> None:
    """`shards.pictures.decode.decode` on each picture, and nothing else."""
    from shards.pictures.decode import decode

    for path, _ in list_pictures(src):
        decode(Path(path).read_bytes())


WRITERS: dict[str, Writer] = {
    "ours": pack_ours,
    "ours-2": lambda src, out: pack_ours(src, out, workers=2),
    "ours-audit": lambda src, out: pack_ours(src, out, audit="full"),
    "webdataset": write_webdataset,
    "tar": write_tar,
    "cp": copy_files,
    "decode": decode_all,
}

if __name__ == "__main__":
    with _pools:
        run_writer(WRITERS)
