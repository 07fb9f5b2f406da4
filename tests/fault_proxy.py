"""A TCP proxy before a real server that cuts, stalls or slows down the connections it is told to, by their number."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self


@dataclass(frozen=True)
class Fault:
    """What happens to a connection once `after` bytes of answers went through it.

    reset: RST; close: FIN; stall: nothing more comes; refuse: RST before anything; throttle: `rate`
    bytes a second from then on.
    """

    kind: Literal["pass", "reset", "close", "stall", "refuse", "throttle"] = "pass"
    after: int = 0
    rate: int = 0


PASS = Fault()


class FaultProxy:
    """A proxy on a free port to `port` of this machine; `plan(i)` says what becomes of the i-th connection.

    connections, sent: how many there were, and bytes of answers; struck: set when a fault took effect.
    """

    def __init__(self, port: int, plan: Callable[[int], Fault] = lambda _: PASS) -> None:
        self._upstream, self._plan = port, plan
        self.connections, self.sent, self.port = 0, 0, 0
        self.struck = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._plan(self.connections)
        self.connections += 1
        task = self._loop.create_task(self._serve(fault, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault.kind == "refuse":
            return self._reset(writer)
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            return self._reset(writer)
        asking = self._loop.create_task(_copy(reader, requests))
        try:
            with contextlib.suppress(ConnectionError):
                await self._answer(fault, answers, writer, asking)
        finally:
            asking.cancel()
            requests.transport.abort()
            if not writer.transport.is_closing():
                writer.close()

    async def _answer(
        self, fault: Fault, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, asking: asyncio.Task[None]
    ) -> None:
        cut = fault.after if fault.kind in ("reset", "close", "stall") else 1 << 62
        passed = 0
        while data := await answers.read(65536):
            self.sent += len(data[:cut])  # before the client has it all, and looks
            writer.write(data[:cut])
            await writer.drain()
            cut -= len(data[:cut])
            passed += len(data)
            if fault.kind == "throttle" and passed > fault.after:
                self.struck.set()
                await asyncio.sleep(len(data) / fault.rate)
            if cut == 0:
                self.struck.set()
                if fault.kind == "reset":
                    self._reset(writer)
                if fault.kind == "stall":
                    await asking  # until the client gives up
                return

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self.struck.set()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
