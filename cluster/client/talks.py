"""What a client can ask an endpoint, each as a generator of steps; see `cluster.client.attempts`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import httpx

from cluster.client.answer import Answer
from cluster.client.attempts import Send, Talk, Wait, Work, ask
from cluster.client.problem import PictureRefusedError, make_error, read_problem
from shards.errors import UsageError
from trainer.contract.encoded import Picture, encode_file

CONNECT_TIMEOUT_S: Final = 5.0
_READY_POLL_S: Final = 0.2
_COMPRESSION: Final = 1
"""Of PNGs, 0..9: the fastest that makes them smaller."""
_FIELD: Final = "file"
_CLIENT_HEADER: Final = "x-client-key"
_MIB: Final = 2**20
_FRAMING_BYTES: Final = 256
"""Room in a multipart request for the lines around one picture."""


@dataclass(frozen=True)
class Wishes:
    """What a request asks for; see `Client.predict`."""

    top_k: int | None = None
    explain: bool = False
    threshold: float | None = None
    client_key: str | None = None

    @property
    def query(self) -> dict[str, str]:
        """The options in the address."""
        said = {"top_k": self.top_k, "explain": "true" if self.explain else None, "threshold": self.threshold}
        return {name: str(value) for name, value in said.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        if self.client_key is None:
            return {}
        return {_CLIENT_HEADER: check_header("the client's key", self.client_key)}


@dataclass(frozen=True)
class Room:
    """What fits into one request."""

    max_pictures: int
    max_bytes: int
    """Of one picture."""
    max_request_bytes: int

    @classmethod
    def read(cls, model: Mapping[str, Any]) -> Room:
        """Return the limits that /v1/model states; one picture a request if it states none."""
        limits = model.get("limits", {})
        return cls(
            max_pictures=int(limits.get("max_pictures", 1)),
            max_bytes=int(limits.get("max_mib", 0) * _MIB),
            max_request_bytes=int(limits.get("max_request_mib", 0) * _MIB),
        )

    def takes(self, held: Sequence[int], size: int) -> bool:
        """Return whether a picture of `size` bytes fits into a request that has pictures of the sizes `held`.

        A picture over the limit gets a request of its own, so that its refusal is only its own.

        >>> room = Room(max_pictures=3, max_bytes=1000, max_request_bytes=3000)
        >>> room.takes([], 5000), room.takes([900], 900), room.takes([900, 900], 900), room.takes([9] * 3, 9)
        (True, True, False, False)
        """
        if not held:
            return True
        sizes = [*held, size]
        return (
            len(sizes) <= self.max_pictures
            and max(sizes) <= self.max_bytes
            and sum(sizes) + _FRAMING_BYTES * len(sizes) <= self.max_request_bytes
        )


@dataclass(frozen=True)
class Talks:
    """The conversations with one endpoint."""

    url: str
    retries: int

    def predict(self, picture: Picture, wishes: Wishes) -> Talk[Answer]:
        data = yield Work(partial(encode_file, picture, _COMPRESSION))
        return (yield from self._predict_one(data, wishes))

    def _predict_one(self, data: bytes, wishes: Wishes) -> Talk[Answer]:
        headers = {**wishes.headers, "content-type": "application/octet-stream"}
        send = Send("POST", "/v1/predict", data, query=wishes.query, headers=headers)
        answer: Answer = yield from ask(self.url, send, self.retries)
        if not isinstance(answer, dict):
            raise self._explain_stranger()
        return answer

    def predict_many(self, pictures: Iterable[Picture], wishes: Wishes) -> Talk[list[Answer | PictureRefusedError]]:
        room = Room.read((yield from self.model()))
        answers: list[Answer | PictureRefusedError] = []
        held: list[bytes] = []
        for picture in pictures:
            data = yield Work(partial(encode_file, picture, _COMPRESSION))
            if not room.takes([len(each) for each in held], len(data)):
                answers += yield from self._predict_group(held, wishes)
                held = []
            held.append(data)
        if held:
            answers += yield from self._predict_group(held, wishes)
        return answers

    def _predict_group(self, group: list[bytes], wishes: Wishes) -> Talk[list[Answer | PictureRefusedError]]:
        """Return an answer or a refusal for each picture of one request."""
        if len(group) == 1:
            try:
                return [(yield from self._predict_one(group[0], wishes))]
            except PictureRefusedError as err:
                return [err]
        send = Send("POST", "/v1/predict", files=group, query=wishes.query, headers=wishes.headers)
        found = yield from ask(self.url, send, self.retries)
        if not isinstance(found, list) or len(found) != len(group) or not all(isinstance(each, dict) for each in found):
            raise self._explain_stranger()
        return [self._read_item(item) for item in found]

    def _explain_stranger(self) -> UsageError:
        return UsageError(f"{self.url} does not answer as a Shardline endpoint does; correct the address")

    def _read_item(self, item: Any) -> Answer | PictureRefusedError:
        """Return the answer or the refusal; raise a problem that is not the picture's."""
        problem = read_problem(item, int(item.get("status", 0)))
        if problem is None:
            answer: Answer = item
            return answer
        err = make_error(self.url, problem)
        if isinstance(err, PictureRefusedError):
            return err
        raise err

    def model(self) -> Talk[dict[str, Any]]:
        page: dict[str, Any] = yield from ask(self.url, Send("GET", "/v1/model"), self.retries)
        if not isinstance(page, dict):
            raise self._explain_stranger()
        return page

    def wait_until_ready(self, timeout_s: float) -> Talk[None]:
        until = time.monotonic() + timeout_s
        while True:
            received: httpx.Response | httpx.RequestError = yield Send("GET", "/healthz")
            if isinstance(received, httpx.Response) and received.is_success:
                return
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self.url} did not get ready within {timeout_s:g} s; see the output of its command"
                )
            yield Wait(_READY_POLL_S)


def make_options(url: str, token: str | None, timeout_s: float) -> dict[str, Any]:
    """Return the arguments for httpx's clients; nothing is sent yet.

    Raises:
        UsageError: `url` is not an http(s) address, or the token cannot be sent.
    """
    try:
        parsed = httpx.URL(url)
        usable = parsed.scheme in ("http", "https") and bool(parsed.host)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise UsageError(f"'{url}' is not the address of an endpoint; give one like http://127.0.0.1:8000")
    return {
        "base_url": url,
        "headers": {} if token is None else {"authorization": f"Bearer {check_header('the token', token)}"},
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
    }


def make_arguments(send: Send) -> dict[str, Any]:
    """Return the arguments for the `request` of httpx's clients."""
    files = [(_FIELD, (str(place), data)) for place, data in enumerate(send.files or [])]
    return {
        "method": send.method,
        "url": send.path,
        "content": send.content,
        "params": dict(send.query),
        "headers": dict(send.headers),
        **({"files": files} if files else {}),
    }


def check_header(what: str, value: str) -> str:
    """Return a value that a header can hold.

    Raises:
        UsageError: It is empty, or has characters that a header cannot hold.
    """
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise UsageError(f"{what} must be visible ASCII characters on one line; correct it")
    return value
