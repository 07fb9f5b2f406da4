"""What a file name means: a picture, an archive, a list, or a file to ignore."""

from __future__ import annotations

DICOM_ENDINGS = frozenset({".dcm", ".dic", ".dicom", ".ima"})
"""Endings that mean DICOM; many DICOM files have no ending or a number instead."""
ENDINGS = DICOM_ENDINGS | {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
}  # fmt: skip
UNREAD = frozenset({
    ".ai", ".arw", ".cr2", ".cr3", ".czi", ".djvu", ".dng", ".eps", ".exr", ".fit", ".fits", ".hdr", ".ico", ".jxl",
    ".lif", ".mha", ".mrxs", ".nd2", ".ndpi", ".nef", ".nii", ".nrrd", ".orf", ".psd", ".raf", ".raw", ".rw2",
    ".svg", ".svs", ".tga", ".vsi", ".xcf",
})  # fmt: skip
"""Endings of picture formats that are not supported."""
ARCHIVE_ENDINGS = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst",
)  # fmt: skip
LIST_ENDINGS = (".csv", ".tsv", ".parquet")
IGNORED = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir", "__macosx", "@eadir", "@tmp", "@recycle",
    "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found", "found.000", "system volume information",
})  # fmt: skip
"""Files and folders that operating systems, network drives and DICOM discs put beside pictures, in lower case."""
SIDECAR = "samples.csv"


def is_ignored(part: str) -> bool:
    """Return whether a file or folder of this name is hidden or made by an operating system."""
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in IGNORED


def read_ending(name: str) -> str:
    """Return the ending of a file name in lower case with its dot; `` if there is none.

    >>> read_ending("a.b/patient.1.JPEG"), read_ending("a.b/LICENSE")
    ('.jpeg', '')
    """
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""
