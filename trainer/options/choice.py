"""Options that only some choices of their group use: filled in where they are used, refused where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

REQUIRED: Final = object()
"""In the place of a default: the choice cannot do without the option."""

Uses = Mapping[str, Mapping[str, Any]]
"""Choice -> option that it uses -> its default there."""


def settle(values: dict[str, Any], choice: object, uses: Uses) -> dict[str, Any]:
    """Return the values of a group with the options that `choice` uses filled in; null means not given.

    A choice that does not exist is left to the group's own check.

    Raises:
        ValueError: A value for an option that the choice does not use, or none for one that it needs.

    >>> settle({"name": "step", "gamma": None}, "step", {"step": {"gamma": 0.1}, "cosine": {}})
    {'name': 'step', 'gamma': 0.1}
    """
    if not isinstance(choice, str) or choice not in uses:
        return values
    filled = dict(values)
    for option in {option: None for used in uses.values() for option in used}:
        given = values.get(option)
        if option not in uses[choice]:
            if given is not None:
                users = [name for name, used in uses.items() if option in used]
                raise ValueError(
                    f"{choice} does not use {option}, got {option}={given}; leave it out (null), "
                    f"or take {' or '.join(users)}"
                )
        elif given is None:
            if uses[choice][option] is REQUIRED:
                raise ValueError(f"{choice} needs {option}, got none; give it a value")
            filled[option] = uses[choice][option]
    return filled
