"""The skill as its users meet it: a process, an environment, and fal on the other side."""

from __future__ import annotations

import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from PIL import Image
from sandbox import Reply, Sandbox, account_api, jobs, scripting
from sandbox.scripting import Recorded

import skill_fal

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "skill_fal.py"

# How most tests run skill_fal.py: Python keeps the bytecode of a module, and compiles a script anew
# each time. A warning is an error.
SKILL = (sys.executable, "-P", "-W", "error", "-m", "skill_fal")

PATIENCE = 120.0  # seconds until a test gives up on what hangs

# Longer than the tests take: the sandbox acts when it is over, and must not do so in another test.
FOR_EVER = 3600.0


def pytest_make_parametrize_id(val: object) -> str | None:
    """Words in place of a number, for what pytest finds none for."""
    if isinstance(val, scripting.Reply):
        return f"HTTP {val.status}"
    if isinstance(val, scripting.Cut):
        return f"cut {val.at}"
    if isinstance(val, tuple) and all(isinstance(word, str) for word in val):
        return shortened(" ".join(val) or "nothing")
    if isinstance(val, dict | list | tuple):
        return shortened(json.dumps(val, default=str))
    return shortened(val) if isinstance(val, str) and len(val) > 50 else None


def shortened(text: str) -> str:
    return ascii(text)[1:-1] if len(text) <= 50 else f"{ascii(text[:50])[1:-1]}..."


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
        """stderr without the request ids and what was billed."""
        lines = self.stderr.splitlines(keepends=True)
        told = ("request id ", "billed: ")
        return "".join(line for line in lines if not line.startswith(told))

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


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Python keeps bytecode, for all the processes that run the tests side by side."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bytecode"


@pytest.fixture
def environment(sandbox: Sandbox, tmp_path: Path, bytecode: Path) -> dict[str, str]:
    """Built, not inherited: no key, proxy or home of whoever runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPYCACHEPREFIX": str(bytecode),
        **importing(),
        **sandbox.env,
    }


def importing(*folders: Path) -> dict[str, str]:
    """The variable that lets Python import from the folders, and skill_fal."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT)))}


STILL, LEAP, FLY = range(3)


class Clock:
    """The time by which the sandbox's jobs go, and the processes that get `env`.

    It stands still at first. When it leaps, waits take no time if no answer of fal's is to come;
    when it flies, none does. See clock/sitecustomize.py.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(struct.pack("ddd", time.time(), 0.0, STILL))

    def env(self, mode: int = STILL, jump: float = 0.0) -> dict[str, str]:
        """For a process that goes by the clock, which then runs in this mode."""
        self.set(mode)
        folder = Path(__file__).with_name("clock")
        return {**importing(folder), "CLOCK": str(self._path), "CLOCK_JUMP": str(jump)}

    def set(self, mode: int) -> None:
        self._write(2, mode)

    def advance(self, seconds: float) -> None:
        """Set it forward, while no process does so."""
        self._write(1, self._read()[1] + seconds)

    def now(self) -> float:
        began, passed, _ = self._read()
        return began + passed

    def _read(self) -> tuple[float, float, float]:
        began, passed, mode = struct.unpack("ddd", self._path.read_bytes())
        return began, passed, mode

    def _write(self, field: int, value: float) -> None:
        with self._path.open("r+b") as file:
            file.seek(8 * field)
            file.write(struct.pack("d", value))


@pytest.fixture
def clock(fal: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of the test's own, which the sandbox goes by as well."""
    clock = Clock(tmp_path.with_name(f"{tmp_path.name}.clock"))
    for module in (jobs, scripting, account_api):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock.now))
    return clock


@pytest.fixture
def cli(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Cli:
    """Runs skill_fal.py in tmp_path."""

    def run(*argv: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Outcome:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*SKILL, *argv],
            input=data,
            env={**environment, **(env or {})},
            cwd=tmp_path,
            capture_output=True,
            timeout=PATIENCE,
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr
        assert sandbox_secret not in stdout + stderr
        return Outcome(done.returncode, stdout, stderr)

    sandbox_secret = environment["FAL_KEY"].rpartition(":")[2]
    return run


def leaping(cli: Cli, clock: Clock) -> Cli:
    """Runs skill_fal.py; waits take no time where no answer of fal's is to come."""

    def run(*argv: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Outcome:
        return cli(*argv, stdin=stdin, env={**clock.env(LEAP), **(env or {})})

    return run


class Refusal(Protocol):
    def __call__(self, *argv: str) -> dict[str, Any]: ...


@pytest.fixture
def refusal(
    fal: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Refusal:
    """The error of a command line that is wrong, run in this process; nothing is sent."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> dict[str, Any]:
        status = skill_fal.main(argv)
        stdout, stderr = capsys.readouterr()
        assert (status, stdout, fal.requests) == (2, "", [])
        error: dict[str, Any] = json.loads(stderr.splitlines()[-1])["error"]
        assert (error["type"], error["retryable"]) == ("usage_error", False)
        return error

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A local photo, small and unlike any other."""
    path = tmp_path / "photo.jpg"
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 30).convert("RGB").save(path)
    return path


class Starter(Protocol):
    def __call__(
        self, *argv: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def start(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Iterator[Starter]:
    """Starts skill_fal.py and leaves it running; what hangs, or is left at the end, is killed."""
    children: list[subprocess.Popen[str]] = []
    watchdogs: list[threading.Timer] = []

    def run(*argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*SKILL, *argv],
            env={**environment, **(env or {})},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        watchdogs.append(threading.Timer(PATIENCE, child.kill))
        watchdogs[-1].start()
        return child

    yield run
    for watchdog in watchdogs:
        watchdog.cancel()
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


class Late(Protocol):
    def __call__(self, *argv: str, once: Callable[[Recorded], bool]) -> Outcome: ...


@pytest.fixture
def late(fal: Sandbox, start: Starter, clock: Clock) -> Late:
    """Runs skill_fal.py; its time stands still until such a request has come, then it flies."""

    def run(*argv: str, once: Callable[[Recorded], bool]) -> Outcome:
        child = start(*argv, env=clock.env(STILL))
        wait_for(lambda: any(map(once, list(fal.requests))), child)
        clock.set(FLY)
        return finished(child)

    return run


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str] | None = None) -> None:
    """Wait until something has happened, or is not going to since the child has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and (child is None or child.poll() is None):
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
    stdout, stderr = child.communicate(timeout=PATIENCE)
    assert "Traceback" not in stderr
    return Outcome(child.returncode, stdout, read + stderr)


def small_disk(child_limit: int) -> Callable[[], None]:
    """Lets no file of the process grow beyond so many bytes."""

    def limit() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (child_limit, child_limit))

    return limit


def outcome_of(
    command: Sequence[str], env: Mapping[str, str], folder: Path, **settings: Any
) -> Outcome:
    """The end of a command that runs in a folder; the settings are those of subprocess.run."""
    done = subprocess.run(
        command,
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **settings,
    )
    assert "Traceback" not in done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs skill_fal.py in a shell, followed by the rest of a line, such as a redirection; the
    status is that of skill_fal.py."""

    def run(argv: Sequence[str], rest: str) -> Outcome:
        line = f"{shlex.join([*SKILL, *argv])} {rest}"
        command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
        return outcome_of(command, environment, tmp_path)

    return run


def telling(endpoint: str, fields: Mapping[str, Any], *required: str) -> Reply:
    """What fal's model search tells of a model with these fields."""
    schema = {"type": "object", "properties": fields, "required": required}
    content = {"application/json": {"schema": schema}}
    paths = {f"/{endpoint}": {"post": {"requestBody": {"content": content}}}}
    return Reply(json={"models": [{"endpoint_id": endpoint, "openapi": {"paths": paths}}]})


def is_look_up(request: Recorded) -> bool:
    """Whether it asks for a model's schema, as is done before a generation."""
    place = (request.method, request.host, request.path)
    return place == ("GET", "api.fal.ai", "/v1/models") and "expand" in request.query


def sent(fal: Sandbox) -> list[Recorded]:
    """The requests to fal, but for the look-up of the model's schema."""
    return [request for request in fal.requests if not is_look_up(request)]


def never_listed(fal: Sandbox) -> None:
    """Let nobody see the account's requests, by which a job is found whose answer was lost."""
    fal.on("GET", "api.fal.ai", "*/requests/by-endpoint", fal.always(Reply(403)))


def paid(fal: Sandbox) -> list[str]:
    """The endpoints of the requests that fal bills."""
    hosts = ("queue.fal.run", "fal.run", "queue.falrun.com", "falrun.com")
    posts = (r for r in fal.requests if r.method == "POST" and r.host in hosts)
    return [request.path.strip("/") for request in posts]
