"""Submit a command as a job: checked on the cluster first, then started, with the code that it needs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.jobs.code import staged
from cluster.jobs.command import JobCommand, read_command
from cluster.jobs.follow import follow, read_exit_code
from cluster.jobs.options import SubmitOptions
from shards.cli.ending import DONE, MISTAKE

if TYPE_CHECKING:
    from cluster.jobs.head import Head, Job

CHECK = "check"
_NO_PYTHON = 127
_BEGUN = "Running entrypoint for job"
"""The last of Ray's own lines in a job's log."""


@dataclass(frozen=True)
class Submitted:
    """A job that was started, or whose check was refused.

    check: The job that checked the command; None if there was no check.
    log: What the check printed.
    """

    name: str
    command: JobCommand
    check: Job | None = None
    log: str = field(default="", repr=False)

    @property
    def is_started(self) -> bool:
        return self.check is None or read_exit_code(self.check) == DONE

    def list_lines(self) -> list[str]:
        """Return the lines that the command itself printed in its check."""
        lines = [line for line in self.log.splitlines() if line.strip()]
        begun = next((number for number, line in enumerate(lines) if line.startswith(_BEGUN)), -1)
        return lines[begun + 1 :]


def submit(head: Head, options: SubmitOptions, say: Callable[[str], None] = lambda _: None) -> Submitted:
    """Start a job, unless the command's own check on the cluster fails.

    Args:
        head: Where it is submitted.
        options: The command, and what it gets.
        say: Called with a line for each stage.

    Raises:
        UsageError: See `read_command`, `staged` and `Head.submit`.
        ConnectionError: The head does not answer.
    """
    command = read_command(options.command)
    name = options.name or f"{command.row.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with staged(options.code, command.files) as folder:
        check, log = None, ""
        if options.check and command.row.check:
            say(f"checking `{command}` on the cluster")
            check_name = f"{name}-{CHECK}"
            _start(head, options, command, check_name, folder, *command.row.check)
            check, log = follow(head, check_name), head.read_log(check_name)
        submitted = Submitted(name, command, check, log)
        if submitted.is_started:
            for line in submitted.list_lines():
                say(f"  {line}")
            _start(head, options, command, name, folder)
    return submitted


def _start(head: Head, options: SubmitOptions, command: JobCommand, name: str, folder: Path | None, *more: str) -> None:
    from cluster.jobs.head import COMMAND  # late: it imports ray

    shown = " ".join([str(command), *more])
    head.submit(
        command.spell(options.python, *more),
        name,
        make_runtime_env(options, folder),
        metadata={COMMAND: shown},
        entrypoint_num_cpus=options.cpus,
        entrypoint_num_gpus=options.gpus,
    )


def make_runtime_env(options: SubmitOptions, folder: Path | None) -> dict[str, Any]:
    """Return Ray's runtime environment of the job: its folder, and its variables."""
    variables = {
        "RAY_JOB_STOP_SIGNAL": "SIGTERM",
        "RAY_JOB_STOP_WAIT_TIME_S": str(options.stop_wait_s),
        **options.variables,
    }
    return {"env_vars": variables, **({"working_dir": str(folder)} if folder is not None else {})}


def read_refusal(submitted: Submitted, python: str) -> tuple[str, int]:
    """Return why the check failed, in a sentence, the command's own if it has one; and the exit code."""
    assert submitted.check is not None
    lines = submitted.list_lines()
    last = lines[-1] if lines else ""
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    if said is not None:
        return f"on the cluster: {said}", read_exit_code(submitted.check)
    if submitted.check.exit_code == _NO_PYTHON or "No module named" in last:
        return (
            f"on the cluster, '{python}' is no Python that has what the command needs ({last}); give --python with the "
            "path of the interpreter that its nodes were started with"
        ), MISTAKE
    reason = last or submitted.check.message.strip().partition("\n")[0] or "nothing was printed"
    return f"the check on the cluster ended without a reason: {reason}", read_exit_code(submitted.check)
