"""The contenders of `pack.py` that need an environment of their own: LitData and MosaicML Streaming."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from measure import Writer, list_pictures, run_writer

SHARD_BYTES = 64 << 20


def write_mds(src: Path, out: Path) -> None:
    """MDSWriter with raw bytes and no hashes, its cheapest documented setting."""
    from streaming import MDSWriter

    pictures = list_pictures(src)
    random.Random(0).shuffle(pictures)
    with MDSWriter(out=str(out), columns={"image": "bytes", "label": "int"}, size_limit=SHARD_BYTES) as writer:
        for path, label in pictures:
            writer.write({"image": Path(path).read_bytes(), "label": label})


def read_sample(picture: tuple[str, int]) -> dict[str, Any]:
    """Return one sample as LitData wants it."""
    return {"image": Path(picture[0]).read_bytes(), "label": picture[1]}


def write_litdata(src: Path, out: Path) -> None:
    """`litdata.optimize` with raw bytes in one worker, forked, so that it need not import torch again."""
    from litdata import optimize

    pictures = list_pictures(src)
    random.Random(0).shuffle(pictures)
    optimize(
        fn=read_sample,
        inputs=pictures,
        output_dir=str(out),
        chunk_bytes=SHARD_BYTES,
        num_workers=1,
        start_method="fork",
        reorder_files=False,
        verbose=False,
    )


WRITERS: dict[str, Writer] = {"mds": write_mds, "litdata": write_litdata}

if __name__ == "__main__":
    run_writer(WRITERS)
