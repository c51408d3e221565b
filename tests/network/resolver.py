"""A resolver that answers what a test says, and the question that it understands."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections import Counter

A, AAAA = 1, 28
TYPES = {4: A, 6: AAAA}  # by the version of the address
NO_SUCH_NAME = 3
ANSWER, RECURSIVE = 0x8000, 0x0180
HEAD = struct.Struct("!HHHHHH")


class Resolver:
    """Answers over UDP; what it is asked for a second time, it may answer differently."""

    def __init__(self, port: int) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._times: Counter[tuple[str, int]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def reset(self, names: dict[str, list[list[str]]]) -> None:
        self.names = names
        self.asked.clear()
        self._times.clear()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(4096)
            self._socket.sendto(self._answer(question), sender)

    def _answer(self, question: bytes) -> bytes:
        (number,) = struct.unpack_from("!H", question)
        name, end = read_name(question, HEAD.size)
        (kind,) = struct.unpack_from("!H", question, end)
        self.asked.append(name)
        addresses = self._addresses(name, kind)
        found = [each for each in addresses or [] if TYPES[each.version] == kind]
        flags = ANSWER | RECURSIVE | (NO_SUCH_NAME if addresses is None else 0)
        head = HEAD.pack(number, flags, 1, len(found), 0, 0)
        records = (
            struct.pack("!HHHIH", 0xC000 | HEAD.size, kind, 1, 0, len(each.packed)) + each.packed
            for each in found
        )
        return head + question[HEAD.size : end + 4] + b"".join(records)

    def _addresses(
        self, name: str, kind: int
    ) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address] | None:
        """All of a name's; a look-up asks for each kind once."""
        answers = self.names.get(name, self.names.get("*"))
        if not answers or (name == "ipv4only.arpa" and name not in self.names):
            return None
        times = self._times[name, kind]
        self._times[name, kind] += 1
        return [ipaddress.ip_address(each) for each in answers[min(times, len(answers) - 1)]]


def read_name(message: bytes, at: int) -> tuple[str, int]:
    """A name without its last dot, and where it ends."""
    labels = []
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    return ".".join(labels), at + 1


def ask(name: str, kind: int, port: int) -> list[str]:
    """The addresses of a kind that the resolver at the port gives for a name."""
    labels = name.rstrip(".").encode("idna").split(b".")
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(
            HEAD.pack(1, 0x0100, 1, 0, 0, 0) + question + struct.pack("!HH", kind, 1),
            ("127.0.0.1", port),
        )
        answer = asking.recv(4096)
    size = 4 if kind == A else 16
    count = HEAD.unpack_from(answer)[3]
    start = HEAD.size + len(question) + 4
    record = 12 + size  # a pointer to the name, kind, class, lifetime, length, the address
    packed = (answer[start + record * n + 12 :][:size] for n in range(count))
    return [str(ipaddress.ip_address(each)) for each in packed]
