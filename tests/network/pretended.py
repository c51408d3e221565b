"""Has a process take the test's resolver for the system's, and its doors for all addresses."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from network.resolver import AAAA, A, ask

PORT = int(os.environ["NETWORK_RESOLVER"])
DOORS = json.loads(os.environ["NETWORK_DOORS"])
getaddrinfo = socket.getaddrinfo
connect = socket.socket.connect


def is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return host == "localhost"


def resolve(host: Any, port: Any, family: int = 0, *args: Any, **options: Any) -> list[Any]:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or is_address(name):
        return getaddrinfo(host, port, family, *args, **options)
    addresses = []
    if family != socket.AF_INET6:
        addresses += ask(name, A, PORT)
    if family != socket.AF_INET:
        addresses += ask(name, AAAA, PORT)
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = (getaddrinfo(each, port, type=socket.SOCK_STREAM) for each in addresses)
    return [info for infos in found for info in infos]


def dial(self: socket.socket, address: Any) -> None:
    door = DOORS.get(str(address[1])) if isinstance(address, tuple) else None
    if door is not None:
        with open(os.environ["NETWORK_LOG"], "a") as file:
            file.write(f"{address[0]}\n")
        loopback = "127.0.0.1" if self.family == socket.AF_INET else "::ffff:127.0.0.1"
        address = (loopback, door)
    connect(self, address)


setattr(socket, "getaddrinfo", resolve)  # noqa: B010
setattr(socket.socket, "connect", dial)  # noqa: B010
