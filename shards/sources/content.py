"""Files whose names do not say that they are pictures: DICOM without an ending, or with the end of a number for one."""

from __future__ import annotations

from shards.pictures.signature import DICOM_BYTES, is_dicom
from shards.sources.endings import ENDINGS, read_ending

_OTHERS = frozenset({
    ".cls", ".csv", ".gz", ".htm", ".html", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".parquet", ".pdf",
    ".pt", ".pth", ".py", ".tar", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip", ".zst",
})  # fmt: skip
"""Endings of files that lie beside pictures and are not opened to see what they are."""


def may_be_dicom(name: str) -> bool:
    """Return whether a look into a file of this name is worth it.

    >>> [name for name in ("IM-0001", "1.2.840.7", "a.jpg", "notes.txt", "a.dcm") if may_be_dicom(name)]
    ['IM-0001', '1.2.840.7']
    """
    ending = read_ending(name)
    return ending not in ENDINGS and ending not in _OTHERS


def is_picture(name: str, path: str) -> bool:
    """Return whether a file is a picture by its name or, where that says nothing, a DICOM file by its first bytes."""
    if not may_be_dicom(name):
        return read_ending(name) in ENDINGS
    try:
        with open(path, "rb", buffering=0) as file:
            return is_dicom(file.read(DICOM_BYTES))
    except OSError:
        return False
