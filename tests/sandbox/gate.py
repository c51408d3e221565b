"""A proxy before the sandbox's own, which keeps those waiting who want to pay."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal

from sandbox.proxy import LOOPBACK

Stage = Literal["connection", "answer", "half an answer", "handshake", "half a handshake"]

PAID = ("fal.run", "falrun.com")
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SYN_SENT = "02"  # in /proc/net/tcp: a connection that nobody has answered


class Gate:
    """Lets connections to fal's paid hosts come as far as a stage, until it opens.

    - `connection`: the connection to the proxy is not accepted, whoever it leads to;
    - `answer`, `half an answer`: the proxy does not answer CONNECT, or not to the end;
    - `handshake`, `half a handshake`: fal does not answer TLS, or not to the end.

    With `last_words` they are what the proxy says to CONNECT, after which it hangs up.
    """

    def __init__(
        self, proxy_url: str, stage: Stage = "answer", last_words: bytes | None = None
    ) -> None:
        self._next = (LOOPBACK, int(proxy_url.rpartition(":")[2]))
        self._stage = stage
        self._last_words = last_words
        self._opened = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Gate:
        self._listener = self._kept(socket.create_server((LOOPBACK, 0), backlog=0))
        self._port: int = self._listener.getsockname()[1]
        if self._stage == "connection":
            self._fill()
        else:
            self._listener.listen(100)
        self._in_background(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            for kept in self._sockets:
                with contextlib.suppress(OSError):
                    kept.shutdown(socket.SHUT_RDWR)
        self._opened.set()
        for thread in self._threads:
            thread.join()
        for kept in self._sockets:
            kept.close()

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead a child process through here."""
        url = f"http://{LOOPBACK}:{self._port}"
        return {"HTTPS_PROXY": url, "HTTP_PROXY": url}

    @property
    def waiting(self) -> int:
        """How many connections stand before it."""
        if self._stage == "connection":
            return self._unanswered() - self._fillers
        return self._waiting

    def open(self) -> None:
        """Let through who waits, and who comes."""
        self._opened.set()

    def _fill(self) -> None:
        """Have the queue of the listener full, so that the system answers nobody else."""
        while not self._unanswered():
            filler = self._kept(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((LOOPBACK, self._port))
        self._fillers = self._unanswered()

    def _unanswered(self) -> int:
        target = f"{socket.inet_aton(LOOPBACK)[::-1].hex()}:{self._port:04x}".upper()
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]
        return sum(row[2:4] == [target, SYN_SENT] for row in rows)

    def _accept(self) -> None:
        if self._stage == "connection":
            self._opened.wait()
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._in_background(self._serve, self._kept(client))

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, self._kept(socket.socket()) as server:
            head = _read_head(client)
            host = head.split(b" ")[1].rpartition(b":")[0].decode() if head else ""
            server.connect(self._next)
            if not host.endswith(PAID):
                server.sendall(head)
                self._join(client, server)
            elif self._last_words is None:
                self._hold(head, client, server)
            else:
                client.sendall(self._last_words)

    def _hold(self, head: bytes, client: socket.socket, server: socket.socket) -> None:
        """Answer as far as the stage allows, and the rest when the gate has opened."""
        early = {"half an answer": 20, "handshake": len(ESTABLISHED)}.get(self._stage, 0)
        if self._stage == "half a handshake":
            early = len(ESTABLISHED)
        client.sendall(ESTABLISHED[:early])
        server.sendall(head)
        _read_head(server)
        if self._stage == "half a handshake":
            server.sendall(client.recv(1 << 16))
            client.sendall(server.recv(100))
        with self._lock:
            self._waiting += 1
        self._opened.wait()
        client.sendall(ESTABLISHED[early:])
        self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        back = self._in_background(_pour, server, client)
        _pour(client, server)
        back.join()

    def _kept(self, new: socket.socket) -> socket.socket:
        with self._lock:
            self._sockets.append(new)
        return new

    def _in_background(self, *work: object) -> threading.Thread:
        target, *arguments = work
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread


def _read_head(connection: socket.socket) -> bytes:
    """What comes up to an empty line, or nothing if the connection ends before it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _pour(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes, and the end of it."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):  # TLS knows no half-closed connections
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
