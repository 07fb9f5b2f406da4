"""How every command of the project ends: exit codes, one-sentence errors, Ctrl-C.

0 done, 1 a fault of ours (with a traceback), 2 the caller's mistake, 3 refused data or a failed check,
130 interrupted and resumable.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

from shards.errors import Interrupted, ShardError, UsageError

DONE, MISTAKE, REFUSED, INTERRUPTED = 0, 2, 3, 130


def run_command(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Return the exit code of `main(argv)`; a foreseen error becomes one sentence on stderr.

    SIGTERM is treated as Ctrl-C, so that `ray job stop` and `docker stop` leave a resumable state too.
    """
    signal.signal(signal.SIGTERM, _raise_keyboard_interrupt)
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except UsageError as err:
        return _say(err, MISTAKE)
    except ShardError as err:
        return _say(err, REFUSED)
    except OSError as err:  # a full disk, a missing permission, a vanished file: the outside world
        return _say(f"{err.strerror or err}: {err.filename}" if err.filename else err, MISTAKE)
    except Interrupted as err:
        return _say(err, INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on where this one stopped", INTERRUPTED)


def _raise_keyboard_interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(message: object, code: int) -> int:
    if code == INTERRUPTED:
        # Under `python -m`, CPython remembers a KeyboardInterrupt that passed through an exec or eval of text (a lazy
        # import of pandas has some) and dies by SIGINT whatever the exit code. Running any text makes it forget.
        exec("")
    sys.stderr.write(f"\n{message}\n" if code == INTERRUPTED else f"error: {message}\n")
    return code
