"""Networks as users have them: a resolver, and addresses that answer, in a namespace of their own.

    with Network() as network:
        done = network.run("run-t2i", …, names={"media.example.com": [["198.18.7.9"]]})
        assert done.connected == {"198.18.7.9"}

A child process (network/inside.py) has its own network, in which every address of the world is
its own machine: the sandbox answers at port 443 of all of them, and a resolver answers what a test
says. Where namespaces are not permitted, the child has Python's resolver and sockets pretend so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = Path(__file__).resolve().parent

# A name's answers in their order, of which the last is repeated; "*" is for all other names.
Names = Mapping[str, Sequence[Sequence[str]]]

# How a namespace may be had: as root, and as somebody who becomes root in it.
WAYS = (
    ("unshare", "--net", "--mount"),
    ("unshare", "--net", "--mount", "--map-root-user"),
    (),
)


@dataclass
class Finished:
    """What a command left behind, and what the network saw of it."""

    status: int
    stdout: str
    stderr: str
    connected: set[str]  # the addresses that were dialled without a proxy
    tunnels: set[str]  # host:port of those that were reached by the sandbox's proxy
    asked: list[str]  # the names that the resolver was asked for
    cookies: list[str]  # that the sandbox was sent

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """The error object, which is the last line of stderr."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


class Network:
    """The child process, for as long as the `with` block lasts."""

    def __enter__(self) -> Network:
        self._folder = tempfile.TemporaryDirectory(prefix="network-")
        for way in WAYS:
            self._child = self._start(way)
            assert self._child.stdout is not None
            line = self._child.stdout.readline()
            if line:
                self.env: dict[str, str] = json.loads(line)
                return self
            self._child.communicate()
        raise RuntimeError("The network did not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.communicate()
        self._folder.cleanup()

    def run(
        self,
        *argv: str,
        names: Names,
        env: Mapping[str, str],
        folder: Path,
        rules: Sequence[Mapping[str, Any]] = (),
    ) -> Finished:
        """A command's end. A rule is {"method", "host", "path", "reply": {fields of a Reply}}."""
        order = {"argv": argv, "names": names, "env": env, "folder": str(folder), "rules": rules}
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        answer["connected"] = set(answer["connected"])
        answer["tunnels"] = set(answer["tunnels"])
        return Finished(**answer)

    def _start(self, way: Sequence[str]) -> subprocess.Popen[str]:
        kind = "namespace" if way else "pretended"
        try:
            return subprocess.Popen(
                [*way, sys.executable, "-m", "network.inside", kind, self._folder.name],
                env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if not way else subprocess.DEVNULL,
                text=True,
            )
        except FileNotFoundError:  # unshare is Linux's
            return subprocess.Popen(["true"], stdin=-1, stdout=-1, text=True)
