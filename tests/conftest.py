"""The skill as its users meet it: a process, an environment, and fal on the other side."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from PIL import Image
from sandbox import Sandbox
from sandbox.scripting import Recorded

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "skill_fal.py"


@dataclass
class Outcome:
    """What a finished command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def notes(self) -> str:
        """stderr without the request ids."""
        lines = self.stderr.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("request id "))

    @property
    def error(self) -> Any:
        """The error object, which is the last line of stderr."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


class Cli(Protocol):
    def __call__(
        self, *argv: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None
    ) -> Outcome: ...


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as fal:
        yield fal


@pytest.fixture
def fal(sandbox: Sandbox) -> Iterator[Sandbox]:
    """fal's servers without a memory; a request that fal does not know fails the test."""
    sandbox.reset()
    yield sandbox
    assert sandbox.unexpected == []


@pytest.fixture
def environment(sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    """Built, not inherited: no key, proxy or home of whoever runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **sandbox.env}


@pytest.fixture
def cli(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Cli:
    """Runs skill_fal.py in tmp_path; a warning in it is an error."""

    def run(*argv: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Outcome:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-W", "error", str(SCRIPT), *argv],
            input=data,
            env={**environment, **(env or {})},
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr
        assert sandbox_secret not in stdout + stderr
        return Outcome(done.returncode, stdout, stderr)

    sandbox_secret = environment["FAL_KEY"].rpartition(":")[2]
    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A local photo, small and unlike any other."""
    path = tmp_path / "photo.jpg"
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 30).convert("RGB").save(path)
    return path


Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Iterator[Starter]:
    """Starts skill_fal.py and leaves it running; whatever is left at the end is killed."""
    children: list[subprocess.Popen[str]] = []

    def run(*argv: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", str(SCRIPT), *argv],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def read_until(child: subprocess.Popen[str], text: str) -> str:
    """The stderr of a process up to the line that holds the text."""
    assert child.stderr is not None
    read = ""
    while text not in read:
        line = child.stderr.readline()
        assert line, f"no {text!r} in {read!r}"
        read += line
    return read


def finished(child: subprocess.Popen[str], read: str = "") -> Outcome:
    stdout, stderr = child.communicate(timeout=30)
    assert "Traceback" not in stderr
    return Outcome(child.returncode, stdout, read + stderr)


def small_disk(child_limit: int) -> Callable[[], None]:
    """Lets no file of the process grow beyond so many bytes."""

    def limit() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (child_limit, child_limit))

    return limit


@pytest.fixture
def shell(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs skill_fal.py in a shell, followed by the rest of a line, such as a redirection; the
    status is that of skill_fal.py."""

    def run(argv: Sequence[str], rest: str) -> Outcome:
        line = f"{shlex.join([sys.executable, str(SCRIPT), *argv])} {rest}"
        done = subprocess.run(
            ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def is_look_up(request: Recorded) -> bool:
    """Whether it asks for a model's schema, as is done before a generation."""
    place = (request.method, request.host, request.path)
    return place == ("GET", "api.fal.ai", "/v1/models") and "expand" in request.query


def sent(fal: Sandbox) -> list[Recorded]:
    """The requests to fal, but for the look-up of the model's schema."""
    return [request for request in fal.requests if not is_look_up(request)]


def paid(fal: Sandbox) -> list[str]:
    """The endpoints of the requests that fal bills."""
    hosts = ("queue.fal.run", "fal.run", "queue.falrun.com", "falrun.com")
    posts = (r for r in fal.requests if r.method == "POST" and r.host in hosts)
    return [request.path.strip("/") for request in posts]
