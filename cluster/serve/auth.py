"""Who may ask: tokens in a file, which may change while the endpoint runs."""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cluster.serve.problem import ProblemError
from shards.errors import UsageError

logger = logging.getLogger(__name__)

SCHEME: Final = "token:"
KEY_HEADER: Final = "x-api-key"
"""Header of a token, in place of `Authorization`."""
_LOOK_S: Final = 1.0
"""Seconds after which the file is looked at again."""


class Tokens:
    """The tokens of a file with one per line; empty lines and those that begin with # are skipped.

    A file that becomes unreadable or empty later leaves the tokens as they are, and the log has a warning.

    Raises:
        UsageError: The file cannot be read, or has no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked, self._stamp = time.monotonic(), _stamp(path)
        self._tokens = read_tokens(path)

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the token of a request, `Authorization: Bearer TOKEN` or `X-API-Key: TOKEN`.

        Raises:
            ProblemError: It has none, or one that is not in the file.
        """
        self._look()
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get(KEY_HEADER, "")
        # All are compared, each in constant time: how long this takes tells nothing about them.
        found = sum([hmac.compare_digest(given.encode(), token) for token in self._tokens])
        if not found:
            what = "the token is not one of this endpoint's" if given else "this endpoint needs a token"
            raise ProblemError(
                "unauthorized",
                f"{what}; send it as `Authorization: Bearer TOKEN`, and ask the operator for one",
                headers={"www-authenticate": "Bearer"},
            )

    def _look(self) -> None:
        """Read the file again if it has changed."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._tokens, self._stamp = read_tokens(self._path), stamp
        except UsageError as err:
            logger.warning("the tokens stay as they were: %s", err)


def read_tokens(path: Path) -> list[bytes]:
    """Return the tokens of a file.

    Raises:
        UsageError: It cannot be read, or has no token.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(
            f"the tokens in {path} cannot be read ({err}); give a text file with one token per line"
        ) from err
    tokens = [line.encode() for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise UsageError(
            f"{path} has no token, so that nobody could ask; write one per line, as `openssl rand -hex 32`"
        )
    return tokens


def parse_auth(text: str | None) -> Path | None:
    """Return the file of an option `token:FILE`; None if no token is needed.

    Raises:
        UsageError: It has another form.

    >>> parse_auth("token:/run/tokens")
    PosixPath('/run/tokens')
    """
    if text is None:
        return None
    if not text.startswith(SCHEME) or text == SCHEME:
        raise UsageError(f"auth is {SCHEME}FILE, got '{text}'; the file has one token per line")
    return Path(text.removeprefix(SCHEME)).expanduser().absolute()


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes with a file's content."""
    try:
        found = os.stat(path)
    except OSError as err:
        raise UsageError(
            f"the tokens in {path} cannot be read ({err}); give a text file with one token per line"
        ) from err
    return found.st_mtime_ns, found.st_size, found.st_ino
