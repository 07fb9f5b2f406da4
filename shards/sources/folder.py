"""Which pictures there are: a folder per class, or split folders with a folder per class."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from shards.errors import UsageError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
ENDINGS = frozenset(
    [".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)
IGNORED = frozenset({"thumbs.db", "desktop.ini"})
SIDECAR = "samples.csv"


@dataclass(frozen=True)
class Source:
    """One picture file: `name` is its path below the source folder with `/`; split None where none is given."""

    path: Path
    name: str
    label: str
    split: str | None
    weight: float = 1.0


@dataclass(frozen=True)
class SourceList:
    """All pictures in the order of their names, the sorted class names, and what was left out by file ending."""

    sources: list[Source]
    classes: list[str]
    left_out: dict[str, int]


def scan_folder(root: Path) -> SourceList:
    """Return the pictures below `root`, sorted by name, so that any machine lists them alike.

    Subfolders named train, val (valid, validation) and test are splits; all others are classes. A file
    `samples.csv` in `root` with columns path and weight gives samples a weight in the loss.

    Raises:
        UsageError: No such folder, no pictures, one class only, or classes that differ between splits.
    """
    if not root.is_dir():
        raise UsageError(f"no such folder: {root}; give a folder that holds one subfolder of pictures per class")
    folders = _subfolders(root)
    split_of = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    if any(split_of.values()) and not all(split_of.values()):
        odd = next(folder.name for folder, split in split_of.items() if split is None)
        raise UsageError(
            f"{root} mixes split folders with '{odd}'; either every subfolder is a split "
            "(train, val, test) or every subfolder is a class"
        )
    sources: list[Source] = []
    left_out: Counter[str] = Counter()
    for folder in folders:
        split = split_of[folder]
        for class_folder in _subfolders(folder) if split else [folder]:
            for path in _walk(class_folder):
                if path.suffix.lower() in ENDINGS:
                    sources.append(Source(path, _name(root, path), class_folder.name, split))
                else:
                    left_out[path.suffix.lower() or "(no ending)"] += 1
    sources.sort(key=lambda source: source.name)
    classes = sorted({source.label for source in sources})
    _check(root, sources, classes)
    return SourceList(_apply_sidecar(root, sources), classes, dict(sorted(left_out.items())))


def _name(root: Path, path: Path) -> str:
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as err:
        raise UsageError(
            f"the name {os.fsencode(name)!r} below {root} is not UTF-8, so no index can hold it; rename it"
        ) from err
    return name


def list_pictures(paths: list[Path]) -> list[Path]:
    """Return pictures without labels: files as given, folders with all pictures below them, sorted.

    Raises:
        UsageError: A path that does not exist, or no pictures at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in _walk(path) if file.suffix.lower() in ENDINGS)
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"no such picture or folder: {path}")
    if not found:
        raise UsageError(f"no pictures in {', '.join(map(str, paths))} (looked for {', '.join(sorted(ENDINGS))})")
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _walk(folder: Path) -> list[Path]:
    """Return the visible files below `folder`; symbolic links are followed, each real folder once.

    A link back to a folder above is not followed: it would bring the pictures of all other classes in.
    """
    files: list[Path] = []
    seen = {os.path.realpath(above) for above in folder.absolute().parents}
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".") and name.lower() not in IGNORED]
    return files


def _raise(err: OSError) -> None:
    """A folder that cannot be listed stops the scan; os.walk would pass over it without a word."""
    raise err


def _check(root: Path, sources: list[Source], classes: list[str]) -> None:
    if not sources:
        raise UsageError(
            f"{root} holds no pictures in class folders (looked for {', '.join(sorted(ENDINGS))}); "
            "put the pictures of each class into a subfolder named after it"
        )
    if len(classes) == 1:
        raise UsageError(f"{root} has one class only, '{classes[0]}'; a classifier needs two or more class folders")
    splits = {source.split for source in sources}
    if splits != {None} and "train" not in splits:
        raise UsageError(f"{root} has split folders but no pictures in train; put the training pictures there")
    trained = {source.label for source in sources if source.split in (None, "train")}
    unseen = sorted(set(classes) - trained)
    if unseen:
        raise UsageError(
            f"class '{unseen[0]}' has no pictures in train, so it cannot be learnt; rename or move its folder"
        )


def _apply_sidecar(root: Path, sources: list[Source]) -> list[Source]:
    """Return the sources with the weights of `samples.csv`, where that file exists."""
    path = root / SIDECAR
    if not path.is_file():
        return sources
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not UTF-8 text (byte {err.start:,}); save it again as 'CSV UTF-8'") from err
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if sorted(reader.fieldnames or []) != ["path", "weight"]:
        raise UsageError(f"{path} must have the columns path,weight, got {','.join(reader.fieldnames or [])}")
    weights = {row["path"]: _read_weight(path, row["path"], row["weight"]) for row in reader}
    unknown = sorted(set(weights) - {source.name for source in sources})
    if unknown:
        raise UsageError(
            f"{path} names '{unknown[0]}', which is not a picture below {root}; correct the path or drop the row"
        )
    return [replace(source, weight=weights.get(source.name, 1.0)) for source in sources]


def _read_weight(path: Path, name: str, text: str) -> float:
    try:
        weight = float(text)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"{path}: the weight of '{name}' must be a number above 0, got '{text}'")
    return weight
