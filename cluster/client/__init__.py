"""The client of an endpoint: sends pictures, returns answers, and waits if the endpoint is busy."""

from __future__ import annotations

import os
import random
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from shards.errors import ShardError, UsageError

CONNECT_TIMEOUT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
_REFUSED = {413, 415, 422}
_BUSY = {429, 503}


class PictureRefusedError(ShardError):
    """The endpoint refuses this picture; the message is the endpoint's."""


class Client(AbstractContextManager["Client"]):
    """A connection to one endpoint, kept open between requests; also a context manager."""

    def __init__(self, url: str, timeout_s: float = 30.0, retries: int = 6) -> None:
        """Prepare a connection; nothing is sent yet.

        Args:
            url: The endpoint, for example http://127.0.0.1:8000.
            timeout_s: Seconds without a byte from the endpoint after which a request fails.
            retries: Retries if the endpoint is busy or a connection breaks; they wait 0.1 s, 0.2 s, ...

        Raises:
            UsageError: `url` is not an http(s) address.
        """
        self.url = url.rstrip("/")
        self._retries = retries
        try:
            self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S))
            usable = self._http.base_url.scheme in ("http", "https") and bool(self._http.base_url.host)
        except httpx.InvalidURL:
            usable = False
        if not usable:
            raise UsageError(f"'{url}' is not the address of an endpoint; give one like http://127.0.0.1:8000")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def predict(self, picture: str | os.PathLike[str] | bytes) -> dict[str, Any]:
        """Return label, labels, probability, probabilities, logits and the bundle's fingerprint for a picture.

        For a bundle changed by trainer.decide, also decision and abstain, and ood_score and set if it has them.

        Args:
            picture: Its path, or the bytes of the file.

        Raises:
            PictureRefusedError: The picture is damaged, empty or too large.
            OSError: The file cannot be read, or the endpoint is not reachable, stays busy, or failed.
        """
        # Sending a picture twice does no harm, so requests on broken connections are retried.
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        return self._ask("POST", "/v1/predict", data)

    def model(self) -> dict[str, Any]:
        """Return a description of the served bundle and its options; raises like `predict`."""
        return self._ask("GET", "/v1/model")

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the endpoint answers.

        Raises:
            TimeoutError: It does not answer within `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while True:
            try:
                if self._http.get("/healthz").is_success:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self.url} did not get ready within {timeout_s:g} s; see the output of its command"
                )
            time.sleep(0.2)

    def _ask(self, method: str, path: str, content: bytes | None = None) -> dict[str, Any]:
        reason = ""
        for attempt in range(self._retries + 1):
            try:
                response = self._send(method, path, content)
            except httpx.TransportError as err:
                response, reason = None, f"breaks connections ({err})"
            if response is not None and not _is_passing(response):
                return self._read(response)
            if response is not None:
                reason = f"is busy or restarting (status {response.status_code})"
            if attempt < self._retries:
                time.sleep(_wait_s(attempt, response))
        raise ConnectionError(
            f"{self.url} {reason}, {self._retries + 1} times; send fewer pictures at once, or give it more replicas"
        )

    def _send(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        """Return the response of one attempt; errors that waiting cannot cure are raised as OSError."""
        try:
            return self._http.request(
                method, path, content=content, headers={"content-type": "application/octet-stream"} if content else None
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as err:
            raise ConnectionError(
                f"no endpoint answers at {self.url} ({err}); start it, or correct the address"
            ) from err
        except httpx.TimeoutException as err:
            raise TimeoutError(f"{self.url} did not answer in time; check its load, or allow more time") from err

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        page = _read_json(response)
        if response.is_success and page is not None:
            return page
        sentence = (page or {}).get("detail")
        if sentence is None:
            raise UsageError(
                f"{response.url} answers with status {response.status_code}, not as a Shardline endpoint does; "
                "correct the address"
            )
        if response.status_code in _REFUSED:
            raise PictureRefusedError(sentence)
        raise ConnectionError(f"{self.url} answers with status {response.status_code}: {sentence}")


def _is_passing(response: httpx.Response) -> bool:
    """Return whether a retry may succeed: the endpoint is busy, or a replica died during the request.

    The endpoint's own errors are JSON; those of Ray's proxy for a lost replica are plain text.
    """
    return response.status_code in _BUSY or (response.is_server_error and _read_json(response) is None)


def _wait_s(attempt: int, response: httpx.Response | None) -> float:
    """Return the seconds until the next attempt: half to all of 0.1 * 2**attempt, or what the endpoint requests if
    longer.
    """
    wait_s = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1)
    asked = response.headers.get("retry-after", "") if response is not None else ""
    return min(max(wait_s, float(asked) * random.uniform(1, 1.5) if asked.isdigit() else 0), LONGEST_WAIT_S)


def _read_json(response: httpx.Response) -> dict[str, Any] | None:
    try:
        page = response.json()
    except ValueError:
        return None
    return page if isinstance(page, dict) else None
