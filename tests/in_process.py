"""A command as users run it, in the process of the tests: starting Python costs 2 seconds."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
from pathlib import Path

from shards.__main__ import main
from shards.cli.ending import run_command


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m shards` as a command does, exit code and all, but in this process, which costs no start."""
    words, out, err = [str(word) for word in arguments], io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            workers = [] if words[0] in ("index", "stat", "verify") else ["--workers", "1"]
            code = run_command(main, [*words, *workers])
    finally:
        signal.signal(signal.SIGTERM, before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
