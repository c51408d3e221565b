"""A CONNECT proxy that never dials out: every tunnel, wherever to, ends at the sandbox."""

from __future__ import annotations

import asyncio
import contextlib

LOOPBACK = "127.0.0.1"

_NOT_CONNECT = b"This proxy knows CONNECT alone: fal is reached by https and wss.\n"
_FORBIDDEN = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_NOT_CONNECT), _NOT_CONNECT)
)
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class ConnectProxy:
    """Accepts CONNECT on a free port and forwards each tunnel to one local server."""

    def __init__(self) -> None:
        self.tunnels: list[str] = []
        self.refused: set[str] = set()
        self.unreachable: set[str] = set()
        self.port = 0
        self.target_port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, target_port: int) -> None:
        self.target_port = target_port
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain callback, so that the tasks are ours to cancel.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()  # also when the sandbox ends in the middle of it
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, _, rest = head.decode("latin-1").partition(" ")
            await self._open(method, rest.partition(" ")[0], reader, writer)

    async def _open(
        self, method: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if method != "CONNECT":
            writer.write(_FORBIDDEN)
            return
        self.tunnels.append(target)
        host = target.rpartition(":")[0]
        if host in self.refused:
            return
        writer.write(_ESTABLISHED)
        if host in self.unreachable:
            await reader.read(1)  # the client's half of the TLS handshake, left unanswered
            return
        await self._tunnel(reader, writer)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self.target_port)
        # Either side's end ends the tunnel: TLS knows no half-closed connections.
        pipes = [_pipe(reader, inner_writer), _pipe(inner_reader, writer)]
        tasks = [asyncio.create_task(pipe) for pipe in pipes]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            inner_writer.close()
            for task in tasks:
                task.cancel()
        with contextlib.suppress(OSError):
            await inner_writer.wait_closed()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
