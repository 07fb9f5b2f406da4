"""Requests that are sent when they are due, whether or not earlier ones were answered: an open loop.

  python tests/bench/open_loop.py URL FOLDER --rate 60 --seconds 10

Posts the JPEGs of a folder to URL/v1/predict as a Poisson process does, on connections that are kept, and prints one
line of JSON. Latency counts from when a request was due. It is written for little CPU time a request, so that it can
send more than a replica answers from the same two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Measured:
    """Answers by status, 0 where there was none, and milliseconds of latency by status."""

    statuses: Counter[int] = field(default_factory=Counter)
    ms: dict[int, list[float]] = field(default_factory=dict)
    in_time: int = 0
    """Answers with status 200 that came before the last request was due; others drain what had queued."""
    late_ms: float = 0.0
    """The longest time by which a request was sent after it was due; a generator that lags measures itself."""

    def add(self, status: int, ms: float) -> None:
        self.statuses[status] += 1
        self.ms.setdefault(status, []).append(ms)

    def percentile(self, share: float, status: int = 200) -> float:
        """Return a percentile of the latency of answers with a status, in ms; infinite if there are none."""
        values = self.ms.get(status, [])
        return statistics.quantiles(values, n=1000)[round(share * 1000) - 1] if len(values) > 1 else float("inf")

    def describe(self) -> dict[str, object]:
        """Return it as JSON."""
        latency = {
            str(status): [round(self.percentile(share, status), 1) for share in (0.5, 0.95, 0.99)] for status in self.ms
        }
        return {
            "statuses": dict(self.statuses),
            "in_time": self.in_time,
            "p50_p95_p99_ms": latency,
            "sent_late_ms": round(self.late_ms, 1),
        }


class Connections:
    """Connections to one server that are kept open between requests; as many as requests are on the way."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(self, request: bytes) -> int:
        """Send a request and read its answer; return the status, 0 if the connection ended before."""
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
        except (OSError, asyncio.IncompleteReadError):
            return 0
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(None, 2)[1])


async def load(
    url: str, bodies: list[bytes], rate: float, seconds: float, kind: str = "image/jpeg", seed: int = 0
) -> Measured:
    """Send `rate` requests per second for so many seconds, and return what came of them.

    kind: content type of the bodies.
    """
    at = urlsplit(url)
    connections = Connections(str(at.hostname), at.port or 80)
    head = f"POST /v1/predict HTTP/1.1\r\nhost: {at.netloc}\r\ncontent-type: {kind}\r\ncontent-length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    measured, rng = Measured(), random.Random(seed)
    due = time.monotonic()
    end, tasks = due + seconds, set()

    async def ask(due: float, request: bytes) -> None:
        measured.late_ms = max(measured.late_ms, 1e3 * (time.monotonic() - due))
        status = await connections.ask(request)
        measured.add(status, 1e3 * (time.monotonic() - due))
        measured.in_time += status == 200 and time.monotonic() < end

    number = 0
    while (due := due + rng.expovariate(rate)) < end:
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
        task = asyncio.create_task(ask(due, requests[number % len(requests)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    if tasks:
        await asyncio.wait(tasks, timeout=60)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=10, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    bodies = [path.read_bytes() for path in sorted(arguments.folder.glob("*.jpg"))]
    measured = asyncio.run(load(arguments.url, bodies, arguments.rate, arguments.seconds))
    print(json.dumps(measured.describe()))


if __name__ == "__main__":
    main()
