"""A name server that changes its mind: imported by a sitecustomize, it answers that process.

NAMES is JSON: {host: [[address, ...], ...]}, the answers in order, of which the last is repeated.
What is connected to, at ports 80 and 443, is written to the file in CONNECTED, a line each; it is
loopback, at the port in TLS_PORT, that answers in the place of every IPv4 address.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

answers: dict[str, list[list[str]]] = json.loads(os.environ.get("NAMES", "{}"))
getaddrinfo = socket.getaddrinfo
connect = socket.socket.connect


def changing(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
    name = host.decode() if isinstance(host, bytes) else host
    if name not in answers:
        return getaddrinfo(host, port, *args, **options)
    left = answers[name]
    addresses = left.pop(0) if len(left) > 1 else left[0]
    found = (getaddrinfo(each, port, type=socket.SOCK_STREAM) for each in addresses)
    return [info for infos in found for info in infos]


def watched(self: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and address[1] in (80, 443):
        with open(os.environ["CONNECTED"], "a") as file:
            file.write(f"{address[0]}\n")
        if self.family != socket.AF_INET:
            raise ConnectionRefusedError("nobody is there")
        address = ("127.0.0.1", int(os.environ["TLS_PORT"]))
    connect(self, address)


if answers:
    setattr(socket, "getaddrinfo", changing)  # noqa: B010
    setattr(socket.socket, "connect", watched)  # noqa: B010
