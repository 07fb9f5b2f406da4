"""How every command ends: exit codes, one-sentence errors, Ctrl-C.

0 done, 1 a bug in Shardline (with a traceback), 2 the caller's mistake, 3 refused data or a failed check,
130 interrupted and resumable, 141 the reader of its output has closed the pipe (`| head`).
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType

from shards.cli.calling import respell
from shards.cli.messages import showing_messages
from shards.errors import Interrupted, ShardError, UsageError
from shards.files.disk import explain_disk

DONE, MISTAKE, REFUSED, INTERRUPTED, UNREAD = 0, 2, 3, 130, 141


def run_command(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Return the exit code of `main(argv)`; print messages and expected errors, one sentence each, on standard error.

    SIGTERM is treated like Ctrl-C, so that `ray job stop` and `docker stop` also leave a resumable state.
    """
    signal.signal(signal.SIGTERM, _raise_keyboard_interrupt)
    try:
        with showing_messages():
            code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, where a closed pipe is handled, not when Python exits
        return code
    except UsageError as err:
        return _report(err, MISTAKE)
    except ShardError as err:
        return _report(err, REFUSED)
    except BrokenPipeError as err:
        return UNREAD if _is_unread() else _report(err, MISTAKE)
    except Interrupted as err:
        return _report(err, INTERRUPTED)
    except KeyboardInterrupt:
        return _report("interrupted; the same command resumes where this one stopped", INTERRUPTED)
    except Exception as err:
        refused = explain_disk(err)  # safetensors and torch raise error types of their own
        if refused is not None:
            return _report(f"{refused}, and run the command again: it was stopped before its end", MISTAKE)
        if isinstance(err, OSError):  # for example a missing permission or a vanished file
            return _report(f"{err.strerror or err}: {err.filename}" if err.filename else err, MISTAKE)
        raise


def _is_unread() -> bool:
    """Return whether standard output is a closed pipe; if so, redirect it to /dev/null."""
    waiting = select.poll()
    try:
        waiting.register(sys.stdout.fileno(), 0)
    except OSError:  # not a file descriptor
        return False
    if not waiting.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _raise_keyboard_interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(message: object, code: int) -> int:
    if code == INTERRUPTED:
        # Under `python -m`, CPython remembers a KeyboardInterrupt that passed through an exec or eval of text (a lazy
        # import of pandas has some) and dies by SIGINT whatever the exit code. Running any text clears that.
        exec("")  # noqa: S102
    message = respell(str(message))
    sys.stderr.write(f"\n{message}\n" if code == INTERRUPTED else f"error: {message}\n")
    return code
