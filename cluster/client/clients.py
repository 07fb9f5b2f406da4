"""The two clients: one blocks, the other awaits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar

import httpx

from cluster.client.answer import Answer
from cluster.client.attempts import Send, Talk, Wait, Work
from cluster.client.problem import PictureRefusedError
from cluster.client.talks import Talks, Wishes, make_arguments, make_options
from trainer.contract.encoded import Picture

T = TypeVar("T")


class Client(AbstractContextManager["Client"]):
    """A connection to one endpoint, kept open between requests; also a context manager. Threads may share it."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, retries: int = 6) -> None:
        """Prepare a connection; nothing is sent yet.

        Args:
            url: The endpoint, for example http://127.0.0.1:8000.
            token: Sent as a bearer token, if the endpoint wants one.
            timeout_s: Seconds without a byte from the endpoint after which a request fails.
            retries: Retries if the endpoint is busy or a connection breaks; they wait 0.1 s, 0.2 s, ... up to 10 s, or
                what the endpoint's Retry-After asks for, up to 60 s.

        Raises:
            UsageError: `url` is not an http(s) address, or the token has other characters than visible ASCII.
        """
        self.url = url.rstrip("/")
        self._talks = Talks(self.url, retries)
        self._http = httpx.Client(**make_options(self.url, token, timeout_s))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def predict(
        self,
        picture: Picture,
        *,
        top_k: int | None = None,
        explain: bool = False,
        threshold: float | None = None,
        client_key: str | None = None,
    ) -> Answer:
        """Return the answer for a picture.

        Args:
            picture: Its path; the bytes of its file; a PIL picture; or an array uint8[H, W, 3], RGB, or uint8[H, W].
                PIL pictures and arrays are sent as PNG, without loss.
            top_k: Give the most probable classes in `top_k`, and leave out `probabilities` and `logits`; at least 1.
            explain: Add `explanation`: which places of the picture speak for the decided class.
            threshold: Decide for the positive class from this probability on, 0..1, or with several labels for each.
            client_key: While another bundle is tried, requests with the same key are answered by the same bundle.

        Raises:
            PictureRefusedError: The endpoint refuses the picture: it is damaged, empty or too large.
            UsageError: The argument is no picture; the endpoint refuses an option or the token
                (`RequestRefusedError`); or the address is not that of an endpoint.
            TimeoutError: There was no answer in time.
            OSError: The file cannot be read; or the endpoint is not reachable, stays busy, or failed (`EndpointError`).
        """
        return self._run(self._talks.predict(picture, Wishes(top_k, explain, threshold, client_key)))

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        top_k: int | None = None,
        explain: bool = False,
        threshold: float | None = None,
        client_key: str | None = None,
    ) -> list[Answer | PictureRefusedError]:
        """Return an answer, or the error of a refused picture, for each picture, in the same order.

        They are sent several per request, within the limits that the endpoint states.

        Args:
            pictures: Pictures as in `predict`; files are read when their request is made.
            top_k, explain, threshold, client_key: As in `predict`, for each picture.

        Raises:
            UsageError, TimeoutError, OSError: As `predict`.
        """
        return self._run(self._talks.predict_many(pictures, Wishes(top_k, explain, threshold, client_key)))

    def model(self) -> dict[str, Any]:
        """Return a description of the served bundle, its limits and options; raises like `predict`."""
        return self._run(self._talks.model())

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the endpoint answers.

        Raises:
            TimeoutError: It does not answer within `timeout_s`.
        """
        self._run(self._talks.wait_until_ready(timeout_s))

    def _run(self, talk: Talk[T]) -> T:
        """Do the steps of a conversation, and return its result."""
        done = None
        while True:
            try:
                step = talk.send(done)
            except StopIteration as end:
                result: T = end.value
                return result
            done = self._do(step)

    def _do(self, step: Send | Wait | Work) -> Any:
        if isinstance(step, Wait):
            return time.sleep(step.seconds)
        if isinstance(step, Work):
            return step.function()
        try:
            return self._http.request(**make_arguments(step))
        except httpx.RequestError as err:
            return err


class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """What `Client` is, for asyncio: its methods are awaited, and any number may run at a time."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, retries: int = 6) -> None:
        """Prepare connections; nothing is sent yet. Arguments and errors are those of `Client`."""
        self.url = url.rstrip("/")
        self._talks = Talks(self.url, retries)
        self._http = httpx.AsyncClient(**make_options(self.url, token, timeout_s))

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(
        self,
        picture: Picture,
        *,
        top_k: int | None = None,
        explain: bool = False,
        threshold: float | None = None,
        client_key: str | None = None,
    ) -> Answer:
        """Return the answer for a picture; see `Client.predict`."""
        return await self._run(self._talks.predict(picture, Wishes(top_k, explain, threshold, client_key)))

    async def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        top_k: int | None = None,
        explain: bool = False,
        threshold: float | None = None,
        client_key: str | None = None,
    ) -> list[Answer | PictureRefusedError]:
        """Return an answer or a refusal for each picture, one request after another; see `Client.predict_many`."""
        return await self._run(self._talks.predict_many(pictures, Wishes(top_k, explain, threshold, client_key)))

    async def model(self) -> dict[str, Any]:
        """Return a description of the served bundle; see `Client.model`."""
        return await self._run(self._talks.model())

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the endpoint answers; see `Client.wait_until_ready`."""
        await self._run(self._talks.wait_until_ready(timeout_s))

    async def _run(self, talk: Talk[T]) -> T:
        """Do the steps of a conversation, and return its result."""
        done = None
        while True:
            try:
                step = talk.send(done)
            except StopIteration as end:
                result: T = end.value
                return result
            done = await self._do(step)

    async def _do(self, step: Send | Wait | Work) -> Any:
        if isinstance(step, Wait):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Work):
            return await asyncio.to_thread(step.function)
        try:
            return await self._http.request(**make_arguments(step))
        except httpx.RequestError as err:
            return err
