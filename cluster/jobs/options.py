"""How a command is submitted as a job."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar, Literal

from pydantic import Field

from shards.cli.options import Options
from shards.errors import UsageError

DASHBOARD = "http://127.0.0.1:8265"
"""Where the head of this machine takes jobs."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*")


class SubmitOptions(Options):
    """A command, and what its process on the cluster gets."""

    there_are: ClassVar[str] = "submit has"

    command: tuple[str, ...]
    """The command and its arguments: ("trainer.run", "demo", ...), ("shards", "pack", ...) or ("run", "demo", ...)."""
    name: str | None = None
    """The job's id; None: the command's name, the time and four random digits."""
    code: Literal["here", "there"] | str = "here"
    """here: the packages of this process go along; there: those that the cluster has installed; or a wheel's path."""
    cpus: float | None = Field(default=None, ge=0)
    """CPUs reserved for the command's own process; its ranks, trials and replicas reserve their own."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs reserved for the command's own process, for commands that compute in it."""
    env: tuple[str, ...] = ()
    """NAME=VALUE, or NAME for its value here; shown to everybody who may list the cluster's jobs."""
    python: str = "python"
    """The interpreter on the cluster, as its shell finds it."""
    check: bool = True
    """Let the command check itself on the cluster first, where it can."""
    stop_wait_s: int = Field(default=120, gt=0)
    """Seconds that the job gets to save its state when it is stopped; Ray's default is 3."""

    def model_post_init(self, _: Any) -> None:
        if self.name is not None and not _ID.fullmatch(self.name):
            raise UsageError(
                f"a job's name becomes part of file names and addresses: letters, digits, '.', '_' and '-', got "
                f"'{self.name}'"
            )
        for each in self.env:
            _read_variable(each)

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment variables that were given by `env`."""
        return dict(map(_read_variable, self.env))


def _read_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier():
        raise UsageError(f"an environment variable is given as NAME=VALUE or NAME, got '{text}'")
    if not equals and name not in os.environ:
        raise UsageError(f"{name} is not set here, so the job would not get it; set it, or give {name}=VALUE")
    return name, value if equals else os.environ[name]
