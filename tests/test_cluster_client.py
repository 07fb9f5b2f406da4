"""The client and its command, against a real endpoint and against real servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.client import Client, PictureRefusedError
from cluster.client.__main__ import main
from shards.cli.ending import run_command
from shards.errors import UsageError

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
        yield f"http://127.0.0.1:{server.getsockname()[1]}", lambda: served
        server.shutdown(socket.SHUT_RDWR)
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
    import time

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
