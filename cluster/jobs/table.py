"""Jobs as a table for people, and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cluster.jobs.follow import read_exit_code
from shards.cli.progress import describe_duration

if TYPE_CHECKING:
    from cluster.jobs.head import Job

_WORDS = {"PENDING": "waits", "RUNNING": "runs", "SUCCEEDED": "done", "STOPPED": "stopped"}


def describe_jobs(jobs: Sequence[Job], now_s: float) -> str:
    """Return a line for each job, its columns aligned: name, state, the time that it took so far, command.

    now_s: Seconds since 1970, for jobs that run.
    """
    rows = [_describe(job, now_s) for job in jobs]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def _describe(job: Job, now_s: float) -> tuple[str, str, str, str]:
    took = describe_duration((job.ended_s or now_s) - job.started_s) if job.started_s else "-"
    return job.name, _WORDS.get(job.status, f"failed ({read_exit_code(job)})"), took, job.command


def to_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON values; its exit code is the one that `--wait` would give, None while it runs."""
    return {**asdict(job), "exit_code": read_exit_code(job) if job.has_ended else None}
