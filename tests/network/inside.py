"""The child process of a Network: a resolver, every address, and the sandbox behind them.

`python -m network.inside namespace|pretended FOLDER` prints the sandbox's variables, then reads an
order a line and prints what became of it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from sandbox import Reply, Sandbox

from network.proxies import hand_on
from network.resolver import Resolver

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 120.0  # seconds
HTTPS, HTTP, DNS = 443, 80, 53

# What the C library reads, and what it reads in the namespace.
SETTINGS = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}

# From Linux's <linux/rtnetlink.h>, <linux/if.h> and <linux/sockios.h>.
SET_FLAGS, IS_UP, IS_RUNNING = 0x8914, 0x1, 0x40
NEW_ROUTE, REQUEST_TO_CREATE = 24, 0x1 | 0x4 | 0x400
LOCAL_TABLE, STATIC, ON_THE_HOST, IS_LOCAL, OUTPUT_DEVICE = 255, 4, 254, 2, 4


def make_the_world_ours() -> None:
    """In the namespace, every address there is is this machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", IS_UP | IS_RUNNING)
        fcntl.ioctl(control, SET_FLAGS, request)
    for family in (socket.AF_INET, socket.AF_INET6):
        add_local_route(family)


def add_local_route(family: int) -> None:
    """`ip route add local default dev lo`, for machines that have no `ip`."""
    route = struct.pack(
        "=8BI", family, 0, 0, 0, LOCAL_TABLE, STATIC, ON_THE_HOST, IS_LOCAL, 0
    ) + struct.pack("=HHI", 8, OUTPUT_DEVICE, socket.if_nametoindex("lo"))
    head = struct.pack("=IHHII", 16 + len(route), NEW_ROUTE, REQUEST_TO_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.send(head + route)
        answer = kernel.recv(4096)
    (error,) = struct.unpack_from("=i", answer, 16)
    if error:
        raise OSError(-error, os.strerror(-error))


def change_settings(folder: Path) -> None:
    for number, (path, text) in enumerate(SETTINGS.items()):
        ours = folder / str(number)
        ours.write_text(text)
        if os.path.exists(path):
            subprocess.run(["mount", "--bind", str(ours), path], check=True)


class Doors:
    """Port 443 of every address, which leads to the sandbox, and port 80, where nobody answers."""

    def __init__(self, target: int, ports: tuple[int, int]) -> None:
        self.connected: list[str] = []
        self._target = target
        self.ports = [self._open(port, number == 0) for number, port in enumerate(ports)]

    def _open(self, port: int, leads_on: bool) -> int:
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=self._accept, args=(listener, leads_on), daemon=True).start()
        number: int = listener.getsockname()[1]
        return number

    def _accept(self, listener: socket.socket, leads_on: bool) -> None:
        while True:
            guest, _ = listener.accept()
            address: str = guest.getsockname()[0]
            self.connected.append(address.removeprefix("::ffff:"))
            if not leads_on:
                guest.close()
                continue
            host = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((guest, host), (host, guest)):
                threading.Thread(target=hand_on, args=(source, sink), daemon=True).start()


class Inside:
    def __init__(self, kind: str, folder: Path, fal: Sandbox) -> None:
        self.fal = fal
        self.is_real = kind == "namespace"
        if self.is_real:
            make_the_world_ours()
            change_settings(folder)
        self.resolver = Resolver(DNS if self.is_real else 0)
        self.doors = Doors(fal.tls_port, (HTTPS, HTTP) if self.is_real else (0, 0))
        self.log = folder / "connected"
        self.site = folder / "site"
        self.site.mkdir(exist_ok=True)
        (self.site / "sitecustomize.py").write_text("import network.pretended\n")

    @property
    def env(self) -> dict[str, str]:
        """What a command needs to know of a network that only pretends."""
        paths = [str(ROOT)]
        if self.is_real:
            return {"PYTHONPATH": os.pathsep.join(paths)}
        paths = [str(self.site), str(ROOT / "tests"), *paths]
        https, http = self.doors.ports
        return {
            "PYTHONPATH": os.pathsep.join(paths),
            "NETWORK_RESOLVER": str(self.resolver.port),
            "NETWORK_DOORS": json.dumps({HTTPS: https, HTTP: http}),
            "NETWORK_LOG": str(self.log),
        }

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        self.fal.reset()
        self.resolver.reset(order["names"])
        self.doors.connected.clear()
        self.log.write_text("")
        for rule in order["rules"]:
            self.obey(rule)
        done = subprocess.run(
            [sys.executable, "-P", "-W", "error", "-m", "skill_fal", *order["argv"]],
            env={**order["env"], **self.env},
            cwd=order["folder"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return {
            "status": done.returncode,
            "stdout": done.stdout,
            "stderr": done.stderr,
            "connected": self.connected(),
            "tunnels": self.fal.tunnels,
            "asked": self.resolver.asked,
            "cookies": self.cookies(),
        }

    def obey(self, rule: dict[str, Any]) -> None:
        reply = dict(rule["reply"])
        if "content" in reply:
            reply["content"] = base64.b64decode(reply["content"])
        action = self.fal.always(Reply(**reply))
        self.fal.on(rule["method"], rule["host"], rule["path"], action)

    def cookies(self) -> list[str]:
        headers = [request.headers for request in self.fal.requests]
        return [header["cookie"] for header in headers if "cookie" in header]

    def connected(self) -> list[str]:
        return self.doors.connected if self.is_real else self.log.read_text().split()


def main(kind: str, folder: str) -> None:
    with Sandbox() as fal:
        inside = Inside(kind, Path(folder), fal)
        print(json.dumps(fal.env), flush=True)  # noqa: T201
        for line in sys.stdin:
            print(json.dumps(inside.run(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
