"""Two names of a file system that change places in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of renameat2(2), which Python has no name for."""
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def exchange_names(one: Path, other: Path) -> bool:
    """Let two paths change places; False, and nothing is done, where the system or the file system cannot.

    Raises:
        OSError: One is not there, or must not be renamed.
    """
    if _renameat2 is None:
        return False
    if _renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNABLE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
