"""The head of a Ray cluster as it takes jobs: over HTTP, with a token, its errors as sentences."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.jobs.options import DASHBOARD
from shards.errors import UsageError

from shards.workers.ray_cluster import require_listener  # isort: skip, it quiets Ray

import aiohttp
import requests
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobSubmissionClient, JobType

for _chatty in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
    logging.getLogger(f"ray.{_chatty}").setLevel(logging.WARNING)  # of every upload and every closed connection

_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_YOUNG_S = 60.0
"""A head answers for some seconds before it can start jobs."""
COMMAND = "shardline_command"
"""Key of a job's metadata with its command as people write it."""


@dataclass(frozen=True)
class Job:
    """A job as its head knows it; times in seconds since 1970.

    status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
    exit_code: Of its process; None until it ends, and if it ended without one.
    message: Ray's words about the status, with the end of the log if it failed.
    """

    name: str
    status: str
    command: str
    started_s: float | None
    ended_s: float | None
    exit_code: int | None
    message: str

    @property
    def has_ended(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


class Head:
    """Connects to the head that takes jobs.

    Args:
        address: http://HOST:8265, or the HOST:PORT of its cluster; None: that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS,
            or the one on this machine.

    Raises:
        ConnectionError: Nothing answers there.
        UsageError: It asks for another token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or next((os.environ[name] for name in _ADDRESSES if os.environ.get(name)), DASHBOARD)
        with self._explaining(), _without(_ADDRESSES):  # Ray prefers them to what it is given
            if "://" not in self.address:
                require_listener(self.address)
            self._client = JobSubmissionClient(self.address)

    def submit(self, entrypoint: str, name: str, runtime_env: dict[str, Any], **options: Any) -> None:
        """Start a job.

        Raises:
            UsageError: There is a job of this name, or what goes along is too large.
        """
        with self._explaining():
            if name in (job.name for job in self.list_jobs()):
                raise UsageError(f"the cluster has had a job '{name}', and a name is used once; choose another --name")
            self._submit(entrypoint=entrypoint, submission_id=name, runtime_env=runtime_env, **options)

    def _submit(self, **options: Any) -> None:
        until = time.monotonic() + _YOUNG_S
        while True:
            try:
                self._client.submit_job(**options)
            except RuntimeError as err:
                if "No available agent" not in str(err) or time.monotonic() > until:
                    raise
                time.sleep(1.0)
            else:
                return

    def read(self, name: str) -> Job:
        """Return the job of this name.

        Raises:
            UsageError: There is none.
        """
        with self._explaining(name):
            return _describe(self._client.get_job_info(name))

    def list_jobs(self) -> list[Job]:
        """Return all jobs that were submitted, oldest first."""
        with self._explaining():
            found = [_describe(each) for each in self._client.list_jobs() if each.type == JobType.SUBMISSION]
        return sorted(found, key=lambda job: job.started_s or 0.0)

    def stop(self, name: str) -> None:
        """Send the job its stop signal; it ends later."""
        with self._explaining(name):
            self._client.stop_job(name)

    def read_log(self, name: str) -> str:
        """Return all that a job has printed so far."""
        with self._explaining(name):
            return str(self._client.get_job_logs(name))

    async def tail(self, name: str) -> AsyncIterator[str]:
        """Yield what a job prints, from its first line to its last, as it comes.

        Raises:
            ConnectionError: The connection was lost.
        """
        try:
            async for text in self._client.tail_job_logs(name):
                yield text
        except (OSError, RuntimeError, aiohttp.ClientError) as err:
            raise ConnectionError(f"the head at {self.address} was lost: {err}") from err

    @contextlib.contextmanager
    def _explaining(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except AuthenticationError as err:
            raise UsageError(_explain_token(self.address, str(err))) from err
        except (OSError, RayError, requests.RequestException) as err:
            raise ConnectionError(
                f"no head that takes jobs answers at {self.address}; start one with `ray start --head`, or give its "
                "--address, such as http://HOST:8265"
            ) from err
        except RuntimeError as err:
            if name and "does not exist" in str(err):
                raise UsageError(
                    f"the cluster at {self.address} has no job '{name}'; `python -m cluster.jobs` lists all"
                ) from err
            raise ConnectionError(f"the head at {self.address} refuses: {_last_line(str(err))}") from err


def _explain_token(address: str, text: str) -> str:
    found = "another token than it has" if "Invalid" in text else "none"
    return (
        f"the head at {address} asks for a token and got {found}; export RAY_AUTH_MODE=token, and copy the head's "
        "~/.ray/auth_token to this machine (or export RAY_AUTH_TOKEN_PATH with the path of a copy)"
    )


def _describe(details: JobDetails) -> Job:
    return Job(
        name=details.submission_id,
        status=str(details.status.value),
        command=(details.metadata or {}).get(COMMAND, details.entrypoint),
        started_s=details.start_time / 1000 if details.start_time else None,
        ended_s=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.strip().splitlines()) if line.strip(" .")), "no reason given")


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Hide environment variables from the block."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
