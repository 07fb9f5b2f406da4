"""DATA:SPLIT, as commands name a dataset and one of its splits."""

from __future__ import annotations

from shards.errors import UsageError


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
