"""Locations as people write them: a path, a URI, or DATA:SPLIT."""

from __future__ import annotations

import os

from shards.errors import UsageError
from shards.sources.model import MANIFEST_NAME, SPLITS


def is_uri(text: str) -> bool:
    return "://" in text


def is_dataset(text: str) -> bool:
    """Return whether a local folder is a packed dataset."""
    return os.path.isfile(os.path.join(text, MANIFEST_NAME))


def split_location(text: str) -> tuple[str, str | None]:
    """Return location and split of DATA:SPLIT; the split is None if none is named or `text` is an existing path.

    >>> split_location("data/cells:val"), split_location("s3://bucket/cells?endpoint_override=127.0.0.1:9000")
    (('data/cells', 'val'), ('s3://bucket/cells?endpoint_override=127.0.0.1:9000', None))
    """
    location, colon, split = text.rpartition(":")
    return (location, split) if colon and split in SPLITS and not os.path.exists(text) else (text, None)


def name_split(text: str, default: str) -> tuple[str, str]:
    """Return location and split of DATA[:SPLIT], one of train, val and test.

    Raises:
        UsageError: Another word follows the colon.

    >>> name_split("data/cells", default="test"), name_split("data/cells:val", default="test")
    (('data/cells', 'test'), ('data/cells', 'val'))
    """
    location, split = split_location(text)
    before, colon, after = text.rpartition(":")
    odd = after if colon and "/" not in after and "?" not in before else None  # a URI's query may contain a port
    if split == "all" or (split is None and odd is not None and not os.path.exists(text)):
        raise UsageError(f"{text}: a dataset has the splits train, val and test, got '{odd}'")
    return location, split or default
