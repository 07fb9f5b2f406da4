"""`python -m cluster.doctor` as users run it, and what it says as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor.__main__ import main
from shards.cli.ending import run_command

ROOT = Path(__file__).parents[1]


def doctor(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m cluster.doctor` as users do."""
    command = [sys.executable, "-m", "cluster.doctor", *map(str, words)]
    # `shardline` sets it: workers then do not search the folder of the command for modules before PYTHONPATH.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT), **variables}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


@dataclass
class Looked:
    """What `--json` printed."""

    page: dict[str, Any]
    code: int
    said: str

    @classmethod
    def here(cls, *words: str | Path, **variables: str) -> Looked:
        """Examine this machine alone, in this process, which costs no start."""
        out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run_command(main, ["--address", "local", *map(str, words), "--json"])
        signal.signal(signal.SIGTERM, before)
        assert code in (0, 3), err.getvalue()
        return cls(json.loads(out.getvalue()), code, err.getvalue())

    @classmethod
    def at(cls, *words: str | Path, **variables: str) -> Looked:
        done = doctor(*words, "--json", **variables)
        assert done.returncode in (0, 3), done.stderr
        return cls(json.loads(done.stdout), done.returncode, done.stderr)

    def red(self, check: str) -> list[tuple[str, list[str]]]:
        """Return the red facts of a check with their nodes."""
        found = self.page["checks"][check]["findings"]
        return [(each["fact"], each["nodes"]) for each in found if each["level"] == "red"]

    def remedy(self, check: str) -> str:
        (found,) = (each for each in self.page["checks"][check]["findings"] if each["level"] == "red")
        remedy: str = found["remedy"]
        return remedy

    def all_red(self) -> list[str]:
        return [name for name in self.page["checks"] if self.red(name)]
