"""What each replica reports about the bundles that it has; kept in the Ray cluster's key-value store."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cluster.serve.rollout import Rollout
from shards.workers.ray_private import list_texts, put_text, read_text, remove_text


class ReplicaReport(BaseModel):
    """The last change that a replica was told, and what came of it."""

    model_config = ConfigDict(frozen=True)

    asked: Rollout
    """What it was told."""
    failed: str | None = None
    """Why it stays with what it had before; None if it follows."""
    bundle: str
    """Fingerprint of the bundle that answers."""
    beside: str | None = None
    """Fingerprint of the one beside it."""


def publish_report(application: str, replica: str, report: ReplicaReport) -> None:
    """Store a replica's report in place of its last one."""
    put_text(f"{_prefix(application)}{replica}", report.model_dump_json())


def read_report(application: str, replica: str) -> ReplicaReport | None:
    """Return the last report of a replica; None if there is none yet."""
    text = read_text(f"{_prefix(application)}{replica}")
    return None if text is None else ReplicaReport.model_validate_json(text)


def forget_reports(application: str) -> None:
    """Remove the reports of an application that is removed."""
    for key in list_texts(_prefix(application)):
        remove_text(key)


def _prefix(application: str) -> str:
    return f"serve/{application}/"
