"""The class that is looked for where each picture is of one class: what may be named, and which it is by default."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 20
"""Classes that a sentence names; of more there are too many to read."""


def default_positive(classes: Sequence[str]) -> str | None:
    """Return the class that is positive where nothing names one: the second of two. Of any other number, none is.

    >>> default_positive(["DEFECTIVE", "NORMAL"])
    'NORMAL'
    """
    return classes[1] if len(classes) == 2 else None


def find_misfit(
    positive: str, classes: Sequence[str], display_names: Sequence[str] = (), task: str = "single-label"
) -> str | None:
    """Return why `positive` cannot be the positive class, as the end of a sentence that begins with it; None: it can.

    >>> find_misfit("defective", ["DEFECTIVE", "NORMAL"])
    "is none of the classes DEFECTIVE, NORMAL; did you mean 'DEFECTIVE'?"
    >>> find_misfit("DEFECTIVE", ["DEFECTIVE", "NORMAL"]) is None
    True
    """
    if task == "unlabelled":
        return "names a class, and these pictures have no labels"
    if task == "multi-label":
        return (
            "names one class alone, and these pictures have any number of labels, so that each class is a question of "
            "its own; the metrics of each class are there anyway"
        )
    if positive in classes:
        return None
    from shards.cli.sentences import join_some  # late: a replica needs it for no request

    return f"is none of the classes {join_some(classes, _LISTED)}{_suggest(positive, classes, display_names)}"


def check_positive(positive: str | None, classes: Sequence[str], display_names: Sequence[str], task: str) -> None:
    """Refuse a stored positive class that its own file does not have; None is none.

    Raises:
        ValueError: The class cannot be positive there.
    """
    misfit = positive and find_misfit(positive, classes, display_names, task)
    if misfit:
        raise ValueError(f"positive class {positive} {misfit}")


def describe_default(classes: Sequence[str]) -> str | None:
    """Return in words which class is positive because nothing names one; None where none is.

    >>> describe_default(["DEFECTIVE", "NORMAL"])
    'NORMAL, the second of two classes, as nothing names one'
    """
    name = default_positive(classes)
    return None if name is None else f"{name}, the second of two classes, as nothing names one"


def _suggest(positive: str, classes: Sequence[str], display_names: Sequence[str]) -> str:
    from shards.cli.sentences import suggest  # late: a replica needs it for no request

    called = [name for name, shown in zip(classes, display_names, strict=False) if shown == positive]
    if len(called) == 1:
        return f"; {positive} is the display name of '{called[0]}', give that"
    return suggest(positive, classes)
