"""The client and its command, against a real endpoint and against real servers that misbehave."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.client import AsyncClient, Client, EndpointError, PictureRefusedError, RequestRefusedError
from cluster.client.__main__ import main
from cluster.client.problem import Limit
from shards.cli.ending import run_command
from shards.errors import UsageError
from shards.pictures.decode import decode

ANSWER = {"label": "blue", "labels": ["blue"], "probability": 0.5}


def write_response(status: str, body: str, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


OK = write_response("200 OK", json.dumps(ANSWER))
BUSY = write_response("503 Service Unavailable", "Request dropped due to backpressure", "retry-after: 0")
TOO_MANY = write_response("429 Too Many Requests", "slow down", "retry-after: 0")
REPLICA_DIED = write_response("500 Internal Server Error", "Internal Server Error")
FAULT = write_response("500 Internal Server Error", '{"detail": "the endpoint failed"}')
REFUSED = write_response("422 Unprocessable Entity", '{"detail": "the picture is empty (0 bytes)"}')
CUT = b""


@contextmanager
def serving(*responses: bytes) -> Iterator[tuple[str, Callable[[], int]]]:
    """A server that gives one of `responses` to each connection in turn; yields its address and its count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        served = 0

        def work() -> None:
            nonlocal served
            for response in responses:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed, with responses left over
                    return
                with connection:
                    read_request(connection)
                    served += 1
                    connection.sendall(response)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", lambda: served
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends the waiting for a connection
    thread.join(10)


def read_request(connection: socket.socket) -> None:
    """Read the whole request: closing on unread bytes would reset the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < sum(sizes):
        body += connection.recv(65536)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (ANSWER, "blue  0.5000"),
        ({"label": "red", "labels": ["blue", "red"], "probability": 0.75}, "blue;red  0.7500"),
        ({"label": None, "labels": [], "probability": 0.25}, "none  0.2500"),
    ],
)
def test_the_command_prints_all_labels_of_an_answer(
    answer: dict[str, object], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    with serving(write_response("200 OK", json.dumps(answer))) as (url, _):
        assert run_command(main, [url, str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.png  {line}\n"


@pytest.mark.parametrize("trouble", [BUSY, TOO_MANY, REPLICA_DIED, CUT])
def test_passing_troubles_are_tried_again_until_the_answer_comes(trouble: bytes) -> None:
    with serving(trouble, trouble, OK) as (url, served), Client(url) as client:
        assert client.predict(b"picture") == ANSWER
        assert served() == 3


@pytest.mark.parametrize(("trouble", "reason"), [(BUSY, "is busy or restarting"), (CUT, "breaks connections")])
def test_trouble_that_stays_is_given_up_after_the_retries(trouble: bytes, reason: str) -> None:
    with serving(trouble, trouble, trouble, OK) as (url, served), Client(url, retries=2) as client:
        with pytest.raises(ConnectionError, match=rf"{reason}.*, 3 times; send fewer"):
            client.predict(b"picture")
        assert served() == 3


def test_the_wait_that_the_endpoint_asks_for_is_kept() -> None:
    asked = write_response("503 Service Unavailable", "", "retry-after: 1")
    with serving(asked, OK) as (url, _), Client(url) as client:
        started = time.monotonic()
        client.predict(b"picture")
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("response", "error", "sentence"),
    [
        (REFUSED, PictureRefusedError, r"^the picture is empty \(0 bytes\)$"),
        (FAULT, ConnectionError, "answers with status 500: the endpoint failed"),
        (write_response("404 Not Found", "<html>"), UsageError, "status 404, not as a Shardline endpoint does"),
        (write_response("200 OK", "<html>"), UsageError, "status 200, not as a Shardline endpoint does"),
    ],
)
def test_what_waiting_cannot_heal_is_not_tried_again(response: bytes, error: type[Exception], sentence: str) -> None:
    with serving(response, OK) as (url, served), Client(url) as client:
        with pytest.raises(error, match=sentence):
            client.predict(b"picture")
        assert served() == 1


def test_an_endpoint_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout_s=0.2) as client, pytest.raises(TimeoutError, match="did not answer in time"):
            client.predict(b"picture")


def test_waiting_for_an_endpoint_ends_when_it_answers_or_when_the_time_is_over() -> None:
    with serving(CUT, write_response("503 Service Unavailable", ""), OK) as (url, served), Client(url) as client:
        client.wait_until_ready(10)
        assert served() == 3
    with Client(find_dead_url()) as client, pytest.raises(TimeoutError, match=r"did not get ready within 0.3 s"):
        client.wait_until_ready(0.3)


def find_dead_url() -> str:
    """Return an address that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"http://127.0.0.1:{gone.getsockname()[1]}"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not the address of an endpoint; give one like"):
        Client(url)


def test_the_command_says_when_no_endpoint_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = write_picture(tmp_path, "a.jpg")
    assert run_command(main, [find_dead_url(), str(picture)]) == 2
    assert "error: no endpoint answers at http://127.0.0.1:" in capsys.readouterr().err


def test_the_command_lists_refused_pictures_and_does_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (write_picture(tmp_path, name) for name in ("1.jpg", "2.jpg", "3.jpg"))
    with serving(OK, REFUSED, OK) as (url, _):
        assert run_command(main, [url, str(one), str(two), str(three), "--at-once", "1"]) == 3
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{one}  blue  0.5000", f"{three}  blue  0.5000"]
    assert err.splitlines() == [f"{two}: the picture is empty (0 bytes)", "error: 1 of 3 pictures were refused"]


def test_the_command_prints_one_json_object_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = write_picture(tmp_path, "1.jpg"), write_picture(tmp_path, "2.jpg")
    with serving(OK, REFUSED) as (url, _):
        assert run_command(main, [url, str(one), str(two), "--json", "--at-once", "1"]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"path": str(one), **ANSWER}, {"path": str(two), "error": "the picture is empty (0 bytes)"}]


def test_the_command_asks_nothing_when_a_picture_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(OK) as (url, served):
        assert run_command(main, [url, str(write_picture(tmp_path, "1.jpg")), str(tmp_path / "none.jpg")]) == 2
        assert served() == 0
    assert "none.jpg is not a file or folder; give pictures" in capsys.readouterr().err


def write_picture(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"picture")
    return path


def test_the_command_waits_for_an_endpoint_only_as_long_as_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = write_picture(tmp_path, "a.jpg")
    assert run_command(main, [find_dead_url(), str(picture), "--wait-s", "0.3"]) == 2
    assert "did not get ready within 0.3 s" in capsys.readouterr().err


# Both clients do the same steps; each claim below is made of both.

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A function that calls a method of a new client: ask(URL, "predict", PICTURE, ..., client={...})."""

    def block(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        with Client(url, **client or {}) as connection:
            return getattr(connection, method)(*args, **options)

    async def wait(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        async with AsyncClient(url, **client or {}) as connection:
            return await getattr(connection, method)(*args, **options)

    if request.param == "sync":
        return block
    return lambda *args, **options: asyncio.run(wait(*args, **options))


@dataclass
class Endpoint:
    """A server with the endpoint's pages: it answers with the picture's text as label, and refuses `bad`."""

    url: str = ""
    limits: dict[str, float] = field(
        default_factory=lambda: {"max_pictures": 3, "max_mib": 1000 / 2**20, "max_request_mib": 3000 / 2**20}
    )
    delays: dict[str, float] = field(default_factory=dict)
    """Seconds that pictures take."""
    requests: list[list[bytes]] = field(default_factory=list)
    """The pictures of each request."""
    heard: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Address and headers of each request."""
    hook: Callable[[int], object] = lambda _: None
    """Called with the number of each request for pictures."""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def count(self) -> Iterator[None]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1

    def answer(self, data: bytes) -> dict[str, Any]:
        if len(data) > 1000:
            return describe_problem("too-large", 413, f"the picture has {len(data)} bytes", name="max_mib", value=0.001)
        text = data.decode(errors="replace")
        if text == "bad":
            return describe_problem("picture-refused", 422, "the picture is bad")
        if text == "fault":
            return describe_problem("fault", 500, "the endpoint failed")
        time.sleep(self.delays.get(text, 0))
        ranked = [{"label": "red", "probability": 0.75}, {"label": "blue", "probability": 0.25}]
        return {
            "label": text, "labels": [text], "probability": 0.75, "probabilities": {"blue": 0.25, "red": 0.75},
            "top_k": ranked, "logits": [0.0, 1.0],
        }  # fmt: skip


def describe_problem(kind: str, status: int, detail: str, **limit: Any) -> dict[str, Any]:
    page = {"type": f"urn:shardline:{kind}", "title": "t", "status": status, "detail": detail, "request_id": "r-1"}
    return {**page, "limit": limit} if limit else page


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.endpoint.heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self._give({"classes": ["blue", "red"], "decision": {"rule": "argmax"}, "limits": self.endpoint.limits})

    def do_POST(self) -> None:
        endpoint, kind = self.endpoint, self.headers["content-type"]
        body = self.rfile.read(int(self.headers["content-length"]))
        pictures = [body]
        if kind.startswith("multipart/"):
            parts = BytesParser().parsebytes(f"content-type: {kind}\r\n\r\n".encode() + body).get_payload()
            pictures = [part.get_payload(decode=True) for part in parts]  # type: ignore[union-attr, misc]
        with endpoint.count():
            endpoint.heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            endpoint.requests.append(pictures)
            endpoint.hook(len(endpoint.requests))
            if kind.startswith("multipart/") and (len(body) > 3000 or not 1 < len(pictures) <= 3):
                self._give(describe_problem("too-large", 413, "the request is too large"))
                return
            answers = [endpoint.answer(picture) for picture in pictures]
        self._give(answers if kind.startswith("multipart/") else answers[0])

    def _give(self, page: Any) -> None:
        status = page.get("status", 200) if isinstance(page, dict) else 200
        data = json.dumps(page).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave, which the tests make do so."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"endpoint": made}))
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def test_both_clients_try_again_until_the_answer_comes(ask: Ask) -> None:
    with serving(BUSY, CUT, REPLICA_DIED, OK) as (url, served):
        assert ask(url, "predict", b"picture") == ANSWER
        assert served() == 4


def test_a_proxy_that_finds_no_replica_is_tried_again_whatever_its_status(ask: Ask) -> None:
    page = json.dumps(describe_problem("busy", 503, "no replica answers at present"))
    with serving(write_response("502 Bad Gateway", page), write_response("504 Gateway Timeout", "late"), OK) as (
        url,
        _,
    ):
        assert ask(url, "predict", b"picture") == ANSWER


def test_a_retry_after_that_is_a_date_is_kept(ask: Ask) -> None:
    date = formatdate(time.time() + 3, usegmt=True)
    with serving(write_response("503 Service Unavailable", "", f"retry-after: {date}"), OK) as (url, _):
        started = time.time()
        ask(url, "predict", b"picture")
    assert time.time() - started >= 2 - 0.01  # dates have whole seconds


def test_an_error_has_the_sentence_the_limit_and_the_id_of_the_request(ask: Ask, endpoint: Endpoint) -> None:
    with pytest.raises(PictureRefusedError, match=r"^the picture has 5000 bytes$") as caught:
        ask(endpoint.url, "predict", b"x" * 5000)
    problem = caught.value.problem
    assert problem is not None
    assert (problem.status, problem.kind, problem.limit) == (413, "too-large", Limit("max_mib", 0.001))
    assert (problem.detail, problem.request_id) == ("the picture has 5000 bytes", "r-1")
    with pytest.raises(EndpointError, match="status 500: the endpoint failed") as failed:
        ask(endpoint.url, "predict", b"fault")
    assert failed.value.problem is not None
    assert failed.value.problem.request_id == "r-1"


@pytest.mark.parametrize(("kind", "status"), [("unauthorized", 401), ("invalid-request", 422), ("no-such-page", 404)])
def test_a_problem_of_the_request_is_the_callers_mistake_and_not_tried_again(ask: Ask, kind: str, status: int) -> None:
    response = write_response(f"{status} X", json.dumps(describe_problem(kind, status, "correct it")))
    with serving(response, OK) as (url, served):
        with pytest.raises(RequestRefusedError, match="refuses the request: correct it"):
            ask(url, "predict", b"picture")
        assert served() == 1


def test_what_stays_busy_is_told_with_its_last_problem(ask: Ask) -> None:
    page = json.dumps(describe_problem("busy", 503, "too many pictures", name="max_waiting", value=8))
    busy = write_response("503 Service Unavailable", page, "retry-after: 0")
    with serving(busy, busy) as (url, _), pytest.raises(EndpointError, match="2 times; send fewer") as caught:
        ask(url, "predict", b"picture", client={"retries": 1})
    assert caught.value.problem is not None
    assert caught.value.problem.limit == Limit("max_waiting", 8)


def test_token_key_and_options_are_sent(ask: Ask, endpoint: Endpoint) -> None:
    options = {"top_k": 2, "explain": True, "threshold": 0.25, "client_key": "k"}
    ask(endpoint.url, "predict", b"red", client={"token": "secret"}, **options)
    ask(endpoint.url, "predict_many", [b"red", b"blue"], client={"token": "secret"}, **options)
    for path, headers in (each for each in endpoint.heard if each[0] != "/v1/model"):
        assert path == "/v1/predict?top_k=2&explain=true&threshold=0.25"
        assert (headers["authorization"], headers["x-client-key"]) == ("Bearer secret", "k")
    ask(endpoint.url, "predict", b"red")
    assert endpoint.heard[-1][0] == "/v1/predict"
    assert not {"authorization", "x-client-key"} & endpoint.heard[-1][1].keys()


@pytest.mark.parametrize("token", ["", "a b\nc", " x", "schlüssel"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="the token must be visible ASCII characters"):
        Client("http://127.0.0.1:1", token)


def test_pil_pictures_and_arrays_are_sent_without_loss(ask: Ask, endpoint: Endpoint) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    held = Image.fromarray(pixels)
    held.getexif()[0x0112] = 6
    for picture in (pixels, pixels[:, :, 0], pixels[:, :, :1], Image.fromarray(pixels), held):
        ask(endpoint.url, "predict", picture)
    sent = [decode(request[0]) for request in endpoint.requests]
    gray = np.repeat(pixels[:, :, :1], 3, axis=2)
    for actual, expected in zip(sent, (pixels, gray, gray, pixels, np.rot90(pixels, -1)), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_what_is_no_picture_is_refused_before_anything_is_sent(ask: Ask, endpoint: Endpoint) -> None:
    for odd in (3, np.zeros((4, 4), np.float32)):
        with pytest.raises(UsageError, match="is not a picture; give"):
            ask(endpoint.url, "predict", odd)
    assert not endpoint.requests


def test_many_pictures_are_answered_in_order_within_the_limits_of_a_request(ask: Ask, endpoint: Endpoint) -> None:
    pictures = [b"a", b"bad", b"c", b"d", b"x" * 1500, b"y" * 990, b"z" * 990, b"w" * 990, b"f"]
    answers = ask(endpoint.url, "predict_many", pictures)
    said = [answer if isinstance(answer, PictureRefusedError) else answer["label"] for answer in answers]
    assert [str(each) for each in said if isinstance(each, PictureRefusedError)] == [
        "the picture is bad",
        "the picture has 1500 bytes",
    ]
    assert [said[place][0] for place in (0, 2, 3, 5, 6, 7, 8)] == ["a", "c", "d", "y", "z", "w", "f"]
    assert [len(request) for request in endpoint.requests] == [3, 1, 1, 2, 2]
    assert ask(endpoint.url, "predict_many", []) == []


def test_a_failure_for_one_of_many_pictures_is_raised(ask: Ask, endpoint: Endpoint) -> None:
    with pytest.raises(EndpointError, match="the endpoint failed"):
        ask(endpoint.url, "predict_many", [b"a", b"fault"])


def test_the_async_client_waits_for_an_endpoint(ask: Ask) -> None:
    with serving(CUT, write_response("503 Service Unavailable", ""), OK) as (url, served):
        ask(url, "wait_until_ready", 10)
        assert served() == 3
    with pytest.raises(TimeoutError, match=r"did not get ready within 0.3 s"):
        ask(find_dead_url(), "wait_until_ready", 0.3)


def test_the_client_imports_no_torch() -> None:
    script = "import sys, cluster, cluster.client.__main__; cluster.AsyncClient; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# The command.


def write_tree(folder: Path, names: list[str]) -> Path:
    """Write files whose text is their name without its ending."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(Path(name).stem)
    return folder


def test_the_command_searches_folders_for_pictures(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path / "in", ["b/two.PNG", "b/deep/three.tiff", "one.jpg", "notes.txt", ".hidden.png"])
    odd = write_tree(tmp_path, ["four.odd"]) / "four.odd"
    assert run_command(main, [endpoint.url, str(odd), str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    paths = [str(odd), *(f"{root}/{name}" for name in ("b/deep/three.tiff", "b/two.PNG", "one.jpg"))]
    assert lines == [f"{path}  {Path(path).stem}  0.7500  red 0.7500, blue 0.2500" for path in paths]
    (tmp_path / "empty").mkdir()
    assert run_command(main, [endpoint.url, str(tmp_path / "empty")]) == 2
    assert "empty has no picture; give a folder of pictures" in capsys.readouterr().err


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_requests_at_once_are_bounded_and_rows_keep_the_order_of_the_pictures(
    endpoint: Endpoint, tmp_path: Path, at_once: int
) -> None:
    names = [f"p{number:02}" for number in range(30)]
    endpoint.delays = {name: 0.02 * (number % 3) for number, name in enumerate(names)} | {"p00": 0.2}
    together = threading.Barrier(at_once, timeout=30)
    endpoint.hook = lambda number: number > at_once or together.wait()
    root = write_tree(tmp_path / "in", [f"{name}.png" for name in names])
    out = tmp_path / "answers.jsonl"
    assert run_command(main, [endpoint.url, str(root), "--out", str(out), "--at-once", str(at_once)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["label"] for row in rows] == names
    assert endpoint.most_at_once == at_once


def test_the_command_writes_csv_and_lists_what_is_refused(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write_tree(tmp_path / "in", ["a,b.png", "bad.png", "c.png"]), tmp_path / "answers.csv"
    assert run_command(main, [endpoint.url, str(root), "--out", str(out)]) == 3
    with open(out, newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "label", "probability", "probability_blue", "probability_red"],
            [f"{root}/a,b.png", "a,b", "0.750000", "0.250000", "0.750000"],
            [f"{root}/c.png", "c", "0.750000", "0.250000", "0.750000"],
        ]
    printed, err = capsys.readouterr()
    assert printed == ""
    assert err.splitlines() == [
        f"{root}/bad.png: the picture is bad",
        f"{out} has the answers of 2 of 3 pictures",
        "error: 1 of 3 pictures were refused",
    ]


def test_the_csv_of_the_most_probable_classes_has_them_in_columns(endpoint: Endpoint, tmp_path: Path) -> None:
    root, out = write_tree(tmp_path / "in", ["a.png"]), tmp_path / "answers.csv"
    wish = ["--top-k", "5", "--threshold", "0.25"]
    assert run_command(main, [endpoint.url, str(root), "--out", str(out), *wish]) == 0
    assert list(csv.DictReader(io.StringIO(out.read_text()))) == [
        {
            "path": f"{root}/a.png", "label": "a", "probability": "0.750000", "top_1": "red",
            "top_1_probability": "0.750000", "top_2": "blue", "top_2_probability": "0.250000",
        }
    ]  # fmt: skip
    assert endpoint.heard[-1][0] == "/v1/predict?top_k=5&threshold=0.25"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "none/a.csv"], "there is no folder none; make it first"),
        (["--out", "a.txt"], "must end in .csv or .jsonl"),
        (["--out", "a.csv", "--json"], "contradict each other"),
        (["--at-once", "0"], "must be a whole number of at least 1"),
        (["--token-file", "none"], "--token-file none cannot be read"),
        (["--token-file", "p.png"], "the token in p.png must be visible ASCII"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.png").write_text("a b\nc\n")
    assert run_command(main, [endpoint.url, "p.png", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not endpoint.heard


def test_the_token_is_that_of_the_file_or_of_the_environment(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "in", ["a.png"])
    monkeypatch.setenv("SHARDLINE_TOKEN", "environment")
    (tmp_path / "token").write_text("file\n")
    for words in (["--token-file", str(tmp_path / "token")], []):
        assert run_command(main, [endpoint.url, str(root), *words]) == 0
    assert [headers["authorization"] for _, headers in endpoint.heard] == ["Bearer file", "Bearer environment"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_stopped_command_leaves_the_finished_rows_whole(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, ending: str
) -> None:
    root = write_tree(tmp_path / "in", [f"p{place:02}.png" for place in range(40)])
    endpoint.delays = {f"p{place:02}": 5 for place in range(10, 40)}
    out, before = tmp_path / f"answers.{ending}", signal.getsignal(signal.SIGTERM)

    def stop(count: int) -> None:
        if count == 12:  # the first ten are answered: two requests at a time
            os.kill(os.getpid(), number)

    endpoint.hook = stop
    try:
        assert run_command(main, [endpoint.url, str(root), "--out", str(out), "--at-once", "2"]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    lines = out.read_text().splitlines()[ending == "csv" :]
    assert len(lines) == 10
    for place, line in enumerate(lines):
        assert f"{root}/p{place:02}.png" in line
    assert f"interrupted; {out} has the answers of 10 of 40 pictures" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "in"]


def test_an_endpoint_that_fails_in_between_leaves_the_finished_rows(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write_tree(tmp_path / "in", ["a.png", "b.png", "fault.png", "g.png"]), tmp_path / "answers.jsonl"
    assert run_command(main, [endpoint.url, str(root), "--out", str(out), "--at-once", "1"]) == 2
    assert [json.loads(line)["label"] for line in out.read_text().splitlines()] == ["a", "b"]
    assert re.search(r"2 of 4 pictures\nerror: .*the endpoint failed", capsys.readouterr().err)


def test_an_endpoint_that_answers_nothing_leaves_the_old_file(endpoint: Endpoint, tmp_path: Path) -> None:
    root, out = write_tree(tmp_path / "in", ["fault.png"]), tmp_path / "answers.csv"
    out.write_text("old")
    assert run_command(main, [endpoint.url, str(root), "--out", str(out)]) == 2
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "in"]
