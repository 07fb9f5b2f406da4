"""The Python API of `shards`: pack a folder of pictures, open a dataset."""

from __future__ import annotations

import os
from typing import Any

from shards.cli.messages import showing_messages_by_default
from shards.commands.options import PackRequest
from shards.commands.pack import run_pack
from shards.dataset.dataset import Dataset, open_dataset

Location = str | os.PathLike[str]


def pack(src: Location, out: Location, **options: Any) -> Dataset:
    """Pack labelled pictures into a dataset of tar shards and return it, opened.

    If `out` already holds the same pictures packed with the same options, it is only opened.

    Args:
        src: A folder, archive, list or set of tars, as for `python -m shards pack`.
        out: Folder, s3://BUCKET/PATH or gs://BUCKET/PATH of the dataset.
        **options: The long options of `python -m shards pack`, with underscores: `split="val=0.1,test=0.1"` or
            `split={"val": 0.1, "test": 0.1}`, `positive="CAT"`, `seed=0`, `workers=4`, ...

    Raises:
        UsageError: Unknown option, nothing to pack, or `out` holds something else.
        ShardError: Pictures that must not be packed as they are: unreadable, leaking between splits, in conflict.
        OSError: `out` cannot be written.
    """
    request = PackRequest(**{"src": src, **options})
    with showing_messages_by_default():
        run_pack(request, os.fspath(out))
    return open_dataset(os.fspath(out))
