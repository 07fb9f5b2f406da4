"""Which bundles a service has loaded, and which of them answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shards.storage.shown import show_location


class Rollout(BaseModel):
    """Which bundles a service has, and which of them answers.

    It is the user_config of Ray Serve, which changes without a restart of replicas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    """Folder of the bundle that answers, or its location in a store."""
    beside: str | None = None
    """Place of another one that is kept loaded: the previous one, or one that is tried."""
    share: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that the one beside answers."""
    shadow: bool = False
    """Whether the one beside also computes every picture, to count how often both agree."""

    def show(self) -> dict[str, Any]:
        """Return its fields for output, with locations that are free of keys."""
        return self.model_dump() | {"bundle": show_location(self.bundle), "beside": _show(self.beside)}

    def describe(self) -> str:
        """Return it in words, in one or two lines."""
        bundle, other = show_location(self.bundle), _show(self.beside)
        if self.shadow:
            beside = f"{other} computes every picture beside it, without answering"
        elif self.share:
            beside = f"{other} answers {self.share:.0%} of the requests"
        else:
            beside = f"{other} is kept loaded for `python -m cluster.rollback`" if self.beside else ""
        return f"{bundle} answers" + (f"\n{beside}" if beside else "")


def _show(place: str | None) -> str | None:
    return None if place is None else show_location(place)
