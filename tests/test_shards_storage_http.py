"""Against small servers of the standard library, each with one habit that servers out there have."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shards.errors import UsageError
from shards.storage.download import fetch
from shards.storage.readable import ObjectChangedError
from shards.storage.storage import open_readable

CONTENT = bytes(range(256)) * 4_000
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers GET by `answer`; keeps the paths and headers that it was asked with."""

    answer: Answer
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        type(self).answer(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)


class Server:
    def __init__(self, address: str, asked: list[tuple[str, dict[str, str]]]) -> None:
        self.address, self.asked = address, asked


@contextlib.contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[Server]:
    asked: list[tuple[str, dict[str, str]]] = []
    with serving(type("Habit", (Handler,), {"answer": staticmethod(answer), "asked": asked})) as address:
        yield Server(address, asked)


def start_of(handler: Handler) -> int:
    return int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))


def say_range(handler: Handler, tag: str = '"1"', content: bytes = CONTENT) -> None:
    start = start_of(handler)
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    length = str(len(content) - start)
    handler.say(206, {"Content-Range": span, "Content-Length": length, "ETag": tag}, content[start:])


def test_query_of_a_signed_url_goes_with_every_file_and_into_no_message_or_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "httpx")

    def answer(handler: Handler) -> None:
        handler.say(404, {"Content-Length": "0"}) if "missing" in handler.path else say_range(handler)

    with answering(answer) as server:
        readable = open_readable(f"{server.address}/data/?signature=secret&x=%2F")
        assert readable.read("train/a b.tar") == CONTENT
        with pytest.raises(FileNotFoundError) as caught:
            readable.read("missing")
    assert [path for path, _ in server.asked] == [
        "/data/train/a%20b.tar?signature=secret&x=%2F",
        "/data/missing?signature=secret&x=%2F",
    ]
    assert "secret" not in f"{readable} {caught.value} {caplog.text}"
    assert "/data/missing" in caplog.text


def test_compression_is_declined() -> None:
    with answering(say_range) as server:
        open_readable(server.address).read("x")
    assert server.asked[0][1]["Accept-Encoding"] == "identity"


def test_file_that_changes_between_two_requests_is_no_mixture() -> None:
    tags = iter(['"1"', '"2"'])
    with answering(lambda handler: say_range(handler, next(tags))) as server:
        file = open_readable(server.address).open("x")
        assert file.read_at(0, 1_000) == CONTENT[:1_000]
        with pytest.raises(ObjectChangedError, match="changed while it was being read"):
            file.read_at(500_000, 1_000)


def test_file_that_changed_is_fetched_once_more() -> None:
    later = CONTENT[::-1]

    def answer(handler: Handler) -> None:
        if len(handler.asked) == 1:  # the answer breaks in the middle, and then there is another file
            handler.say(206, {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": '"1"',
                              "Content-Length": str(len(CONTENT))}, CONTENT[:600_000])  # fmt: skip
        else:
            say_range(handler, '"2"', later)

    with answering(answer) as server:
        assert fetch(open_readable(server.address), "x", deadline_s=20) == later


def test_server_without_ranges_is_read_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)

    class Plain(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with serving(Plain) as address:
        assert open_readable(address).read("x") == CONTENT
        file = open_readable(address).open("x")
        assert file.read_at(700_000, 1_000) == CONTENT[700_000:701_000]
        assert file.read_at(5, 1_000) == CONTENT[5:1_005]
        file.close()


def test_shorter_range_than_asked_is_gone_on_with() -> None:
    def answer(handler: Handler) -> None:
        start = start_of(handler)
        part = CONTENT[start : start + 300_000]
        span = f"bytes {start}-{start + len(part) - 1}/{len(CONTENT)}"
        handler.say(206, {"Content-Range": span, "Content-Length": str(len(part))}, part)

    with answering(answer) as server:
        assert fetch(open_readable(server.address), "x", deadline_s=20) == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_busy_server_is_asked_again(status: int) -> None:
    def answer(handler: Handler) -> None:
        handler.say(status, {"Content-Length": "0"}) if len(handler.asked) < 3 else say_range(handler)

    with answering(answer) as server:
        assert fetch(open_readable(server.address), "x", deadline_s=20) == CONTENT
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, PermissionError, "denies access .*sign the URL again"),
        (403, PermissionError, "denies access .*sign the URL again"),
        (404, FileNotFoundError, "no such object"),
        (410, FileNotFoundError, "no such object"),
        (400, UsageError, r"refuses the request \(HTTP 400 Bad Request\)"),
        (204, UsageError, r"refuses the request \(HTTP 204"),
    ],
)
def test_refusal_is_one_sentence_at_once(status: int, kind: type[Exception], words: str) -> None:
    with answering(lambda handler: handler.say(status, {"Content-Length": "0"})) as server:
        with pytest.raises(kind, match=words):
            fetch(open_readable(server.address), "x", deadline_s=20)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, {}, "does not declare which bytes it sends"),
        (206, {"Content-Range": "bytes 0-9/*"}, "does not declare which bytes it sends"),
        (206, {"Content-Range": "bytes 5-9/10"}, "does not declare which bytes it sends"),
        (206, {"Content-Range": "bytes 0-9/10", "Content-Encoding": "gzip"}, "is served compressed"),
    ],
)
def test_answer_that_could_be_other_bytes_is_refused(status: int, headers: dict[str, str], words: str) -> None:
    with (
        answering(lambda handler: handler.say(status, headers, b"x" * 10)) as server,
        pytest.raises(UsageError, match=words),
    ):
        fetch(open_readable(server.address), "x", deadline_s=20)
