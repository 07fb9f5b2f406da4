"""The folder that goes along with a job: this project's packages, and the files that its command names."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.cli.messages import PACKAGES
from shards.errors import UsageError

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@contextlib.contextmanager
def staged(code: str, files: Sequence[Path]) -> Iterator[Path | None]:
    """Yield a temporary folder with the code and the files, None if nothing goes along.

    Args:
        code: here, there, or a wheel; see `SubmitOptions.code`.
        files: Relative paths; they have the same ones in the folder.

    Raises:
        UsageError: There is no such wheel, or it is none of this project.
    """
    with tempfile.TemporaryDirectory(prefix="shardline-job-") as name:
        folder = Path(name)
        if code == "here":
            for package in PACKAGES:
                shutil.copytree(_find_package(package), folder / package, ignore=_LEFT_OUT)
        elif code != "there":
            _unpack(Path(code), folder)
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / file)
        yield folder if any(folder.iterdir()) else None


def _find_package(name: str) -> Path:
    """Return the folder of a package, wherever this process has it from, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack this project's packages; extraction by zipfile keeps every file inside of the folder."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [each for each in archive.namelist() if each.partition("/")[0] in PACKAGES]
            archive.extractall(folder, members)
    except (OSError, zipfile.BadZipFile) as err:
        raise UsageError(f"code is here, there or the path of a wheel, and {wheel} cannot be read: {err}") from err
    missing = [name for name in PACKAGES if not (folder / name).is_dir()]
    if missing:
        raise UsageError(f"{wheel} is no wheel of this project: it has no {' and no '.join(missing)}")
