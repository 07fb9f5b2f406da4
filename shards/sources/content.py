"""Pictures whose names do not show it: DICOM files without an ending, or with part of a number as ending."""

from __future__ import annotations

from shards.pictures.signature import DICOM_BYTES, is_dicom
from shards.sources.endings import ENDINGS, read_ending

_OTHERS = frozenset({
    ".cls", ".csv", ".gz", ".htm", ".html", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".parquet", ".pdf",
    ".pt", ".pth", ".py", ".tar", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip", ".zst",
})  # fmt: skip
"""Endings of files beside pictures that are not opened to check their content."""


def may_be_dicom(name: str) -> bool:
    """Return whether a file of this name should be opened to check its content.

    >>> [name for name in ("IM-0001", "1.2.840.7", "a.jpg", "notes.txt", "a.dcm") if may_be_dicom(name)]
    ['IM-0001', '1.2.840.7']
    """
    ending = read_ending(name)
    return ending not in ENDINGS and ending not in _OTHERS


def is_picture(name: str, path: str) -> bool:
    """Return whether a file is a picture by its name or, if the name does not show it, DICOM by its first bytes."""
    if not may_be_dicom(name):
        return read_ending(name) in ENDINGS
    try:
        with open(path, "rb", buffering=0) as file:
            return is_dicom(file.read(DICOM_BYTES))
    except OSError:
        return False
