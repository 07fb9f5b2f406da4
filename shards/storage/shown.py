"""Locations as they are printed and stored: without keys."""

from __future__ import annotations

import re

_KEYS = re.compile(r"://[^/@:]*:[^/@]*@")


def show_location(location: object) -> str:
    """Return a path or URI for display: without keys and without the query of a URI.

    >>> show_location("s3://key:secret@bucket/runs/ants?region=eu-west-1")
    's3://bucket/runs/ants'
    >>> show_location("runs/a@b?"), show_location("gs://anonymous@bucket/a/")
    ('runs/a@b?', 'gs://anonymous@bucket/a')
    """
    text = str(location)
    return _KEYS.sub("://", text.partition("?")[0]).rstrip("/") if "://" in text else text


def hide_keys(location: str) -> str:
    """Return a URI as it is stored: without keys and without signatures, but with all that it takes to find it.

    >>> hide_keys("s3://key:secret@bucket/cells?region=eu-west-1"), hide_keys("https://host/cells?signature=x")
    ('s3://bucket/cells?region=eu-west-1', 'https://host/cells')
    """
    scheme = location.partition("://")[0]
    if scheme == location:
        return location
    return _KEYS.sub("://", location.partition("?")[0] if scheme in ("http", "https") else location)


def mask_keys(text: str) -> str:
    """Return a text with the word KEYS in place of a URI's keys; without any, the text itself.

    >>> mask_keys("data=s3://key:secret@bucket/cells"), mask_keys("data=cells")
    ('data=s3://KEYS@bucket/cells', 'data=cells')
    """
    return _KEYS.sub("://KEYS@", text)
