"""What the name of a file says it is: a picture, an archive, a list, or nothing of ours."""

from __future__ import annotations

ENDINGS = frozenset(
    [".bmp", ".dcm", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
LIST_ENDINGS = (".csv", ".tsv", ".parquet")
IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
SIDECAR = "samples.csv"


def is_ignored(part: str) -> bool:
    """Say whether a file or folder of this name is hidden, or the mark of an operating system."""
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in IGNORED


def read_ending(name: str) -> str:
    """Return the ending of a file name in lower case with its dot; `` where there is none.

    >>> read_ending("a.b/patient.1.JPEG"), read_ending("a.b/LICENSE")
    ('.jpeg', '')
    """
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""
