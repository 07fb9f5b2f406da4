"""How every command of the project ends: exit codes, one-sentence errors, Ctrl-C.

0 done, 1 a fault of ours (with a traceback), 2 the caller's mistake, 3 refused data or a failed check,
130 interrupted and resumable, 141 nobody reads on what it prints (`| head`).
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
    """Return the exit code of `main(argv)`; a foreseen error becomes one sentence on stderr, as does what is logged.

    SIGTERM is treated as Ctrl-C, so that `ray job stop` and `docker stop` leave a resumable state too.
    """
    signal.signal(signal.SIGTERM, _raise_keyboard_interrupt)
    try:
        with showing_messages():
            code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, where a reader that left is met, and not when Python ends
        return code
    except UsageError as err:
        return _say(err, MISTAKE)
    except ShardError as err:
        return _say(err, REFUSED)
    except BrokenPipeError as err:
        return UNREAD if _is_unread() else _say(err, MISTAKE)
    except Interrupted as err:
        return _say(err, INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on where this one stopped", INTERRUPTED)
    except Exception as err:
        refused = explain_disk(err)  # safetensors and torch have errors of their own for it
        if refused is not None:
            return _say(f"{refused}, and run the command again: it was stopped before its end", MISTAKE)
        if isinstance(err, OSError):  # a missing permission, a vanished file: the outside world
            return _say(f"{err.strerror or err}: {err.filename}" if err.filename else err, MISTAKE)
        raise


def _is_unread() -> bool:
    """Say whether the reader of standard output has left; what is still to be written then goes nowhere."""
    waiting = select.poll()
    try:
        waiting.register(sys.stdout.fileno(), 0)
    except OSError:  # not a file at all
        return False
    if not waiting.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _raise_keyboard_interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(message: object, code: int) -> int:
    if code == INTERRUPTED:
        # Under `python -m`, CPython remembers a KeyboardInterrupt that passed through an exec or eval of text (a lazy
        # import of pandas has some) and dies by SIGINT whatever the exit code. Running any text makes it forget.
        exec("")
    message = respell(str(message))
    sys.stderr.write(f"\n{message}\n" if code == INTERRUPTED else f"error: {message}\n")
    return code
