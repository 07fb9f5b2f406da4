"""The positive class of a single-label task: which class may be chosen, and the default."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 20
"""The most class names that a message lists."""


def default_positive(classes: Sequence[str]) -> str | None:
    """Return the positive class if none is set: the second of two classes, else None.

    >>> default_positive(["DEFECTIVE", "NORMAL"])
    'NORMAL'
    """
    return classes[1] if len(classes) == 2 else None


def find_misfit(
    positive: str, classes: Sequence[str], display_names: Sequence[str] = (), task: str = "single-label"
) -> str | None:
    """Return why `positive` cannot be the positive class, as the end of a sentence that begins with it; None if it can.

    >>> find_misfit("defective", ["DEFECTIVE", "NORMAL"])
    "is none of the classes DEFECTIVE, NORMAL; did you mean 'DEFECTIVE'?"
    >>> find_misfit("DEFECTIVE", ["DEFECTIVE", "NORMAL"]) is None
    True
    """
    if task == "unlabelled":
        return "names a class, but these pictures have no labels"
    if task == "multi-label":
        return (
            "names one class, but these pictures have any number of labels, so that each class is a question of "
            "its own; the metrics include each class anyway"
        )
    if positive in classes:
        return None
    from shards.cli.sentences import join_some  # late import: serving never needs it

    return f"is none of the classes {join_some(classes, _LISTED)}{_suggest(positive, classes, display_names)}"


def check_positive(positive: str | None, classes: Sequence[str], display_names: Sequence[str], task: str) -> None:
    """Refuse a stored positive class that does not fit its file's classes; None is fine.

    Raises:
        ValueError: The class cannot be positive there.
    """
    misfit = positive and find_misfit(positive, classes, display_names, task)
    if misfit:
        raise ValueError(f"positive class {positive} {misfit}")


def describe_default(classes: Sequence[str]) -> str | None:
    """Return in words the default positive class; None if there is none.

    >>> describe_default(["DEFECTIVE", "NORMAL"])
    'NORMAL, the second of two classes, as nothing names one'
    """
    name = default_positive(classes)
    return None if name is None else f"{name}, the second of two classes, as nothing names one"


def _suggest(positive: str, classes: Sequence[str], display_names: Sequence[str]) -> str:
    from shards.cli.sentences import suggest  # late import: serving never needs it

    called = [name for name, shown in zip(classes, display_names, strict=False) if shown == positive]
    if len(called) == 1:
        return f"; {positive} is the display name of '{called[0]}', give that"
    return suggest(positive, classes)
