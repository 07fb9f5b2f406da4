"""Class names of weights: given by the user, or from a bundle or the library."""

from __future__ import annotations

from pathlib import Path

from shards.errors import UsageError
from trainer.contract.bundle import read_bundle_page
from trainer.contract.intact import is_bundle
from trainer.weights.published import find_published
from trainer.weights.read import hide_query
from trainer.weights.saved import is_saved_folder, read_saved_classes


def read_classes(said: str | None, model: str, weights: str) -> tuple[list[str], list[str]]:
    """Return names and display names of the classes, in the order of the model's outputs.

    Args:
    said: `a,b`, or a file with one class per line and an optional display name after a tab or comma; None: the classes
        that come with the weights.
        model: The library's name of the model.
        weights: As in a recipe.

    Raises:
        UsageError: Fewer than two classes, a duplicate name, or an empty one.
    """
    if said is None:
        return _find_classes(model, weights)
    if "," not in said and Path(said).is_file():
        pairs = [_split_line(line) for line in _read_lines(Path(said))]
    else:
        pairs = [(name.strip(), name.strip()) for name in said.split(",")]
    classes = [name for name, _ in pairs]
    if len(classes) < 2:
        raise UsageError(
            f"--classes names {', '.join(classes) or 'nothing'}; a classifier has two classes or more, given as a,b or "
            "as an existing file"
        )
    odd = next((name for pair in pairs for name in pair if name and not name.isprintable()), None)
    if odd is not None:
        raise UsageError(f"--classes has {odd!r}, with a character that cannot be printed; remove it")
    wrong = next((name for number, name in enumerate(classes) if not name or name in classes[:number]), None)
    if wrong is not None:
        raise UsageError(f"--classes has the name '{wrong}' {'twice' if wrong else 'somewhere'}; names must differ")
    return classes, [shown for _, shown in pairs]


def _find_classes(model: str, weights: str) -> tuple[list[str], list[str]]:
    if is_bundle(Path(weights)):
        page = read_bundle_page(Path(weights))
        return page.classes, page.display_names
    saved = read_saved_classes(Path(weights)) if is_saved_folder(Path(weights)) else None
    if saved is not None:
        return saved, saved
    published = find_published(model, weights)
    if published is None or published.classes is None:
        raise UsageError(
            f"the classes of {hide_query(weights)} are unknown; give --classes a,b or a file with one per line"
        )
    return list(published.classes), list(published.classes)


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as err:
        raise UsageError(f"--classes {path} is not UTF-8 text ({err.reason}); save it as UTF-8") from err
    return [line.strip() for line in lines if line.strip()]


def _split_line(line: str) -> tuple[str, str]:
    for separator in ("\t", ","):
        name, found, shown = line.partition(separator)
        if found:
            return name.strip(), shown.strip() or name.strip()
    return line, line
