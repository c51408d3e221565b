"""Proxies and servers as companies have them, with passwords, refusals and certificates."""

from __future__ import annotations

import base64
import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import trustme

LOOPBACK = "127.0.0.1"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REASONS = {
    403: "Forbidden",
    407: "Proxy Authentication Required",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Listener:
    """A port on loopback, each connection to which is served in a thread."""

    def __enter__(self) -> Listener:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def serve(self, guest: socket.socket) -> None:
        raise NotImplementedError

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(guest,), daemon=True).start()

    def _serve(self, guest: socket.socket) -> None:
        with contextlib.suppress(OSError), guest:
            self.serve(guest)


class Proxy(Listener):
    """Answers each CONNECT with a status, or leads on: to other ports for some hosts."""

    def __init__(
        self, target: int, status: int = 200, elsewhere: Mapping[str, int] | None = None
    ) -> None:
        self.users: list[str] = []  # what each CONNECT gave for user:password
        self.hosts: list[str] = []
        self._target = target
        self._status = status
        self._elsewhere = elsewhere or {}

    def __enter__(self) -> Proxy:
        super().__enter__()
        return self

    @property
    def place(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def serve(self, guest: socket.socket) -> None:
        head = read_head(guest)
        host = head.split(" ")[1].rpartition(":")[0]
        self.hosts.append(host)
        self.users.append(user_in(head))
        if self._status != 200:
            answer = f"HTTP/1.1 {self._status} {REASONS[self._status]}\r\nContent-Length: 0\r\n\r\n"
            guest.sendall(answer.encode())
            return
        guest.sendall(ESTABLISHED)
        target = self._elsewhere.get(host, self._target)
        with socket.create_connection((LOOPBACK, target)) as server:
            back = threading.Thread(target=hand_on, args=(server, guest), daemon=True)
            back.start()
            hand_on(guest, server)
            back.join()


class Impostor(Listener):
    """A TLS server with a certificate that no client should take."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._tls)

    def __enter__(self) -> Impostor:
        super().__enter__()
        return self

    def serve(self, guest: socket.socket) -> None:
        with self._tls.wrap_socket(guest, server_side=True) as secure:
            secure.recv(1)


def read_head(guest: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = guest.recv(1)
        if not data:
            raise ConnectionError("half a head")
        head += data
    return head.decode("latin-1")


def user_in(head: str) -> str:
    for line in head.splitlines():
        name, _, value = line.partition(": ")
        if name.lower() == "proxy-authorization":
            return base64.b64decode(value.removeprefix("Basic ")).decode()
    return ""


def hand_on(source: socket.socket, sink: socket.socket) -> None:
    """All that comes; either side's end ends both."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def bundle(folder: Path, *authorities: trustme.CA, beside: str) -> str:
    """A file with these authorities' certificates and those of another file."""
    path = folder / "bundle.pem"
    own = b"".join(authority.cert_pem.bytes() for authority in authorities)
    path.write_bytes(own + Path(beside).read_bytes())
    return str(path)


def days(number: int) -> datetime.datetime:
    """So many days from now."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=number)
