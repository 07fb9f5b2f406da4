"""Identity of everything that crosses a package border: sha256 of canonical JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash


def fingerprint_json(value: Any) -> str:
    """Return the sha256 (64 hex digits) of `value` as canonical JSON: sorted keys, no spaces, UTF-8.

    >>> fingerprint_json({"b": 1, "a": 2}) == fingerprint_json({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_bytes(data: bytes) -> str:
    """Return the sha256 (64 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()


def hash_bytes(data: bytes) -> str:
    """Return the xxh3-128 (32 hex digits) of bytes: detects damage, not forgery, at a tenth of the cost of sha256."""
    return xxhash.xxh3_128_hexdigest(data)


def fingerprint_file(path: Path) -> str:
    """Return the sha256 (64 hex digits) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
