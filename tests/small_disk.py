"""A disk of a few megabytes: a tmpfs, which fills, grows and becomes read-only as real ones do."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted disk. Its file `ballast` is somebody else's, and takes the room that a test wants taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        """Bytes."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes free, rounded down to whole blocks."""
        with open(self._ballast, "ab") as file:
            file.write(bytes(max(0, self.free - left)))

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    def remount(self, option: str) -> None:
        """Change the disk while it is in use: size=8m, nr_inodes=100, ro, rw."""
        subprocess.run(["mount", "-o", f"remount,{option}", self.folder], check=True)


@contextlib.contextmanager
def mount_small(folder: Path, *options: str) -> Iterator[SmallDisk]:
    """Mount an empty disk on `folder` while the block runs; options of tmpfs, such as size=8m.

    The test is skipped where one may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
