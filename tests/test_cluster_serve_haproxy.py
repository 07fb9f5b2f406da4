"""HAProxy in front of an endpoint: what our edits of Ray's configuration make of it, by the real program."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from endpoints import find_free_port

from cluster.serve.haproxy import find_haproxy, write_script

pytestmark = pytest.mark.skipif(find_haproxy() is None, reason="no HAProxy here")

CONFIG = """global
    stats socket {folder}/admin.sock mode 666 level admin
defaults
    mode http
    option log-health-checks
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    errorfile 503 /of/ray
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend endpoint
backend endpoint
    http-reuse always
    server replica 127.0.0.1:{replica}
"""
"""The lines of Ray's configuration that matter here."""


class Replica(ThreadingHTTPServer):
    """Answers every POST by 503; `asked` counts them, and `headers` are those of the next answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked, self.headers = 0, {"retry-after": "1"}


class _Handler(BaseHTTPRequestHandler):
    server: Replica
    protocol_version, wbufsize = "HTTP/1.1", 1 << 16  # an answer is sent at once

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        self._answer(503)

    def do_GET(self) -> None:
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        for name, value in {**self.server.headers, "content-length": "7"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"replica")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def run_haproxy(folder: Path, replica: int) -> Iterator[str]:
    """Run HAProxy as Ray does, by our script; yield its address."""
    binary, port = find_haproxy(), find_free_port()
    assert binary is not None
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=folder, port=port, replica=replica))
    process = subprocess.Popen([write_script(folder, binary), "-db", "-f", config])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(url, timeout=10)
                break
            except httpx.TransportError:
                time.sleep(0.02)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def replica() -> Iterator[Replica]:
    with Replica() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def url(tmp_path: Path, replica: Replica) -> Iterator[str]:
    with run_haproxy(tmp_path, replica.server_port) as address:
        yield address


@pytest.mark.parametrize("size", [1, 60_000, 5_000_000])
def test_for_a_moment_after_a_replica_was_full_requests_are_turned_away_without_it(
    url: str, replica: Replica, size: int
) -> None:
    body, turned_away = b"x" * size, []
    with httpx.Client(timeout=30) as client:
        for _ in range(50):  # a busy machine may be late by more than the moment
            asked = replica.asked
            said = [client.post(url, content=body) for _ in range(2)]
            assert [each.status_code for each in said] == [503, 503]
            turned_away = [each for each in said if each.text != "replica"]
            assert replica.asked - asked == 2 - len(turned_away)
            if turned_away:
                break
    page = turned_away[0].json()
    assert (page["type"], page["status"]) == ("urn:shardline:busy", 503)
    assert page["detail"] == "the replicas are full at present; send this request again"
    assert turned_away[0].headers["retry-after"] == "1"
    assert turned_away[0].headers["content-type"] == "application/problem+json"
    assert httpx.get(url).text == "replica"  # its state can be asked for at any time
    time.sleep(0.1)
    assert httpx.post(url, content=body, timeout=30).text == "replica"


def test_a_fault_of_a_replica_turns_nobody_away(url: str, replica: Replica) -> None:
    replica.headers = {}
    assert {httpx.post(url, content=b"x").text for _ in range(20)} == {"replica"}


def test_without_a_replica_the_answer_is_a_problem(tmp_path: Path) -> None:
    with run_haproxy(tmp_path, find_free_port()) as url:
        answer = httpx.post(url, content=b"x", timeout=30)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "no replica answers at present; send this request again"
