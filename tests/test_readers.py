"""What is read, and by whom: files that are none, logs and messages without an end, characters
that nobody sees, readers that are slow, and Ctrl-C before the command has begun.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    LEAP,
    PATIENCE,
    SKILL,
    Cli,
    Clock,
    Outcome,
    importing,
    outcome_of,
    paid,
    wait_for,
)
from sandbox import Reply, Sandbox

FLUX = "fal-ai/flux/dev"
MINIMAX = "fal-ai/minimax-video/image-to-video"
T2I = ("--model", FLUX, "--prompt", "A cat")
JOB = ("--model", FLUX, "--request-id", "some-request")
SUBSCRIBE = ("subscribe-t2i", *T2I)
RUN = ("run-t2i", *T2I)
STREAM = ("stream-t2i", *T2I)
BATCH = ("batch-t2i", "--model", FLUX, "--prompts", "A cat")


# Files that are none


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


NO_FILES: dict[str, Callable[[Path], str]] = {
    "a pipe": a_pipe,
    "/dev/zero": lambda path: "/dev/zero",
}

JOURNAL = ("--journal", "journal.jsonl")


def bounds() -> None:
    """Who reads a file without an end gets no further than this."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))


@pytest.fixture
def bounded(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs skill_fal.py in tmp_path, with little memory and time."""

    def run(*argv: str) -> Outcome:
        settings = {"stdin": subprocess.DEVNULL, "preexec_fn": bounds}
        return outcome_of([*SKILL, *argv], environment, tmp_path, **settings)

    return run


RAIN = ("--model", MINIMAX, "--prompt", "Rain")
EXTRA = '{{"tail_image_url": "{source}"}}'
ASKED: dict[str, tuple[str, ...]] = {
    "submit": ("submit-i2v", *RAIN, "--image-url", "{source}"),
    "submit, unchecked": ("submit-i2v", *RAIN, "--image-url", "{source}", "--no-schema"),
    "dry run": ("submit-i2v", *RAIN, "--image-url", "{source}", "--dry-run"),
    "extra": ("submit-t2i", *T2I, "--extra-json", EXTRA),
    "extra, unchecked": ("submit-t2i", *T2I, "--no-schema", "--extra-json", EXTRA),
    "batch": ("batch-i2v", *RAIN, "--image-urls", "{source}"),
    "batch with a journal": ("batch-i2v", *RAIN, *JOURNAL, "--image-urls", "{source}"),
    "extra of a batch": (*BATCH, "--extra-json", EXTRA),
    "extra of a batch with a journal": (*BATCH, *JOURNAL, "--extra-json", EXTRA),
    "extra of a dry batch with a journal": (*BATCH, *JOURNAL, "--dry-run", "--extra-json", EXTRA),
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("argv", ASKED.values(), ids=ASKED)
def test_what_is_no_file_is_not_opened(
    fal: Sandbox,
    bounded: Callable[..., Outcome],
    tmp_path: Path,
    argv: tuple[str, ...],
    make: Callable[[Path], str],
) -> None:
    source = make(tmp_path / "photo.jpg")
    extra = EXTRA.format(source=source)
    done = bounded(*(extra if word is EXTRA else word.replace("{source}", source) for word in argv))
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "usage_error")
    assert source in done.error["message"]
    assert paid(fal) == []
    assert [request for request in fal.requests if request.method == "POST"] == []


LINES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a line's picture": ("batch-i2v", "--image-urls-file", {"image_url": "{source}"}),
    "a line's extra": (
        "batch-t2i",
        "--prompts-file",
        {"prompt": "A cat", "extra": {"mask_url": "{source}"}},
    ),
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("journal", [(), JOURNAL], ids=["no journal", "journal"])
@pytest.mark.parametrize(("command", "flag", "line"), LINES.values(), ids=LINES)
def test_what_is_no_file_in_a_file_of_jobs(
    fal: Sandbox,
    bounded: Callable[..., Outcome],
    tmp_path: Path,
    command: str,
    flag: str,
    line: dict[str, Any],
    journal: tuple[str, ...],
    make: Callable[[Path], str],
) -> None:
    """The whole batch is refused, before any job of it is sent."""
    source = make(tmp_path / "photo.jpg")
    good = {"prompt": "A dog", **({} if "prompt" in line else {"image_url": "https://a.example/b"})}
    jobs = [good, json.loads(json.dumps(line).replace("{source}", source))]
    (tmp_path / "jobs").write_text("".join(f"{json.dumps(job)}\n" for job in jobs))
    model = MINIMAX if command == "batch-i2v" else FLUX
    prompt = ("--prompt", "Rain") if command == "batch-i2v" else ()
    done = bounded(command, "--model", model, *prompt, flag, "jobs", *journal)
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "usage_error")
    assert source in done.error["message"]
    assert paid(fal) == []


# Logs and messages without an end

MANY = 5000
LOGS: dict[str, list[dict[str, str]]] = {
    "one entry of many lines": [{"message": "step\n" * MANY, "timestamp": "1"}],
    "one entry of many other lines": [{"message": "step\r\u2028" * MANY, "timestamp": "1"}],
    "one entry of empty lines": [{"message": "\n" * MANY, "timestamp": "1"}],
    "entries of many lines": [
        {"message": f"{number}\n" * 50, "timestamp": str(number)} for number in range(100)
    ],
}


@pytest.mark.parametrize("logs", LOGS.values(), ids=LOGS)
@pytest.mark.parametrize("argv", [SUBSCRIBE, BATCH, ("result", *JOB)], ids=lambda argv: argv[0])
def test_a_log_of_many_lines(
    fal: Sandbox, cli: Cli, argv: tuple[str, ...], logs: list[dict[str, str]]
) -> None:
    told = Reply(202, json={"status": "IN_PROGRESS", "logs": logs})
    fal.on("GET", "queue.fal.run", "*/status", told)
    ended = Reply(json={"status": "COMPLETED", "logs": None})
    fal.on("GET", "queue.fal.run", "*/some-request/status", fal.always(ended))
    fal.on("GET", "queue.fal.run", "*/some-request", Reply(json={"images": []}))
    done = cli(*argv)
    assert done.status == 0, done.stderr[-500:]
    assert len(done.stderr.splitlines()) <= 100


@pytest.mark.parametrize("message", ["x" * 1_000_000, "ü\t" * 500_000], ids=["letters", "tabs"])
def test_a_long_line_of_a_log_is_cut(fal: Sandbox, cli: Cli, message: str) -> None:
    logs = [{"message": f"{message}\nand on", "timestamp": "1"}]
    told = Reply(202, json={"status": "IN_PROGRESS", "logs": logs})
    fal.on("GET", "queue.fal.run", "*/status", told)
    done = cli(*SUBSCRIBE)
    assert done.status == 0
    assert max(len(line) for line in done.stderr.splitlines()) <= 10_000
    assert "| and on" in done.stderr.splitlines()
    assert message[:20].replace("\t", " ") in done.stderr


def test_the_status_shows_a_log_whole(fal: Sandbox, cli: Cli) -> None:
    """stdout is data, and complete."""
    logs = [{"message": "step\n" * MANY + "x" * 1_000_000, "timestamp": "1"}]
    told = Reply(202, json={"status": "IN_PROGRESS", "logs": logs})
    fal.on("GET", "queue.fal.run", "*/status", told)
    assert cli("status", *JOB).json["logs"] == logs


LONG = "Oh no! " * 150_000
MANY_DETAILS = [{"loc": ["body", f"f{n}"], "msg": "odd", "type": "odd"} for n in range(50_000)]
LONG_DETAIL = [{"loc": ["body", LONG], "msg": LONG, "type": LONG, "input": LONG}]
HUGE: dict[str, Reply] = {
    "a message": Reply(400, json={"detail": LONG * 20}),
    "a message of quotes": Reply(400, json={"detail": '"' * 1_000_000}),
    "a message of what is escaped": Reply(400, json={"detail": "\x1b" * 1_000_000}),
    "a type": Reply(400, json={"detail": "Oh no", "error_type": LONG}),
    "an object": Reply(400, json={"detail": {"why": LONG}}),
    "many details": Reply(422, json={"detail": MANY_DETAILS}),
    "a long detail": Reply(422, json={"detail": LONG_DETAIL}),
    "a page": Reply(502, text=f"<html>{LONG}", headers={"content-type": "text/html"}),
    "a status that nobody knows": Reply(202, json={"request_id": LONG, "status": LONG}),
}


@pytest.mark.parametrize("answer", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("command", ["submit-t2i", "stream-t2i"])
def test_the_last_line_is_short(fal: Sandbox, cli: Cli, command: str, answer: Reply) -> None:
    """An agent reads it whole."""
    fal.on("POST", "*fal.run", "*", answer)
    done = cli(command, *T2I)
    if done.status == 0:  # to run-t2i, any JSON is a result
        assert (command, answer.status) == ("run-t2i", 202)
        return
    assert done.status in (1, 4)
    assert len(done.stderr.encode()) <= 10_000 + len("request id \n") + 200
    assert len(done.stderr.splitlines()[-1].encode()) <= 10_000
    assert {"type", "message", "retryable"} <= set(done.error)


def test_a_long_error_in_a_line_of_a_batch(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "queue.fal.run", "*", HUGE["a message"], HUGE["many details"])
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog", "An owl")
    assert (done.status, len(done.lines)) == (1, 3)
    errors = [line for line in done.stdout.splitlines() if "error" in json.loads(line)]
    assert [len(line.encode()) for line in errors if len(line.encode()) > 10_000] == []
    assert len(errors) == 2
    assert len(done.stderr.splitlines()[-1].encode()) <= 10_000


def test_the_start_of_a_long_message_is_told(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "fal.run", "*", Reply(400, json={"detail": f"No GPU is left. {LONG}"}))
    assert cli(*RUN).error["message"].startswith("No GPU is left. Oh no!")


def test_a_short_message_and_its_details_are_told_whole(fal: Sandbox, cli: Cli) -> None:
    details = [{"loc": ["body", f"f{n}"], "msg": "odd " * 10, "type": "odd"} for n in range(10)]
    fal.on("POST", "fal.run", "*", Reply(422, json={"detail": details}))
    error = cli(*RUN).error
    assert [one["field"] for one in error["details"]] == [f"f{number}" for number in range(10)]
    assert error["message"].count("odd odd") >= 10


# Characters that nobody sees

UNSEEN: dict[str, str] = {
    "in a line": (
        "\U000e0000\U000e0001\U000e0041\U000e007f"  # tags
        "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # directions
        "\u200b\u200c\u200d\ufeff\u2060\u00ad"  # zero width, soft hyphen
        "\ufe00\ufe0f\U000e0100\U000e01ef"  # variation selectors
        "\u115f\u1160\u3164\uffa0"  # Hangul fillers
        "\ue000\uf8ff\U000f0000\U0010fffd"  # private use
        "\u2061\u2062\u2063\u2064"  # operators
    ),
    "line ends": "\u2028\u2029\x85\x0b",
}


def seen(text: str) -> str:
    """What of an output nobody sees."""
    return "".join(character for character in text if character in "".join(UNSEEN.values()))


@pytest.mark.parametrize("characters", UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("command", ["run-t2i", "stream-t2i", "batch-t2i", "subscribe-t2i"])
def test_unseen_characters_in_a_result(
    fal: Sandbox, cli: Cli, command: str, characters: str
) -> None:
    """They are escaped, in names too, and the text that they are read as is the same."""
    answer = {"text": f"a{characters}b", f"key{characters}": [characters]}
    content = json.dumps(answer).encode()
    streamed = Reply(
        content=b"data: " + content + b"\n\n", headers={"content-type": "text/event-stream"}
    )
    fal.on("POST", "fal.run", "*/stream", streamed)
    fal.on("POST", "fal.run", "*", Reply(json=answer))
    fal.on("GET", "queue.fal.run", "*/requests/*[0-9a-f]", Reply(json=answer))
    argv = BATCH if command == "batch-t2i" else (command, *T2I)
    done = cli(*argv)
    assert done.status == 0, done.stderr
    assert seen(done.stdout) == ""
    (line,) = done.lines if command in ("stream-t2i", "batch-t2i") else [done.json]
    assert (line["result"] if command == "batch-t2i" else line) == answer


@pytest.mark.parametrize("characters", UNSEEN.values(), ids=UNSEEN)
def test_unseen_characters_in_an_error(fal: Sandbox, cli: Cli, characters: str) -> None:
    text = f"a{characters}b"
    details = [{"loc": ["body", text], "msg": text, "type": text}]
    fal.on("POST", "fal.run", "*", Reply(422, json={"detail": details}))
    done = cli(*RUN)
    assert (done.status, seen(done.stderr)) == (1, "")
    assert done.error["details"] == [{"field": text, "message": text, "type": text}]


@pytest.mark.parametrize("characters", UNSEEN.values(), ids=UNSEEN)
def test_unseen_characters_in_a_dry_run_and_its_metadata(
    fal: Sandbox, cli: Cli, tmp_path: Path, characters: str
) -> None:
    """What the user has typed comes back as it is read, and so does what is kept on disk."""
    fal.on("POST", "fal.run", "*", Reply(json={"file": {"url": "data:text/plain,x"}}))
    prompt = ("--model", FLUX, "--prompt", f"A{characters.strip()}cat")
    dry = cli("submit-t2i", *prompt, "--dry-run")
    assert (dry.status, seen(dry.stdout)) == (0, "")
    assert dry.json["arguments"]["prompt"] == prompt[-1]
    assert cli("run-t2i", *prompt, "--output", "a.txt", "--metadata").status == 0
    metadata = (tmp_path / "a.json").read_text()
    assert seen(metadata) == ""
    assert json.loads(metadata)["arguments"]["prompt"] == prompt[-1]


@pytest.mark.parametrize("characters", UNSEEN.values(), ids=UNSEEN)
def test_unseen_characters_in_lines_for_people(
    fal: Sandbox, cli: Cli, clock: Clock, characters: str
) -> None:
    """Each is a space: in a table, and in what stderr tells of a log."""
    name = f"a{characters}b"
    spaces = f"a{' ' * len(characters)}b"
    row = {"endpoint_id": name, "metadata": {"display_name": name, "category": name}}
    fal.on("GET", "api.fal.ai", "/v1/models", Reply(json={"models": [row], "next_cursor": None}))
    assert cli("list-models").stdout == f"{spaces}\t{spaces}\t{spaces}\n"
    if len(name.splitlines()) > 1:
        return  # a log is told line by line
    told = Reply(202, json={"status": "IN_PROGRESS", "logs": [{"message": name}]})
    fal.on("GET", "queue.fal.run", "*/status", told)
    done = cli(*SUBSCRIBE, env=clock.env(LEAP))
    assert f"| {spaces}" in done.stderr.splitlines()
    assert seen(done.stderr) == ""


def test_letters_of_all_scripts_stay_as_they_are(fal: Sandbox, cli: Cli) -> None:
    text = "für Ελλάδα, 東京, मुंबई, تهران, 🦊 e\u0301"
    assert not [character for character in text if unicodedata.category(character) == "Cf"]
    fal.on("POST", "fal.run", "*", Reply(json={"text": text}))
    assert text in cli(*RUN).stdout


# Slow readers

PIPE_SIZE = 16 * 4096
PAGE = 4096


def waiting_bytes(pipe: int) -> int:
    """How much of a pipe nobody has read yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


class Pipe:
    """A pipe whose writer does not wait, and whose reader begins when it is full."""

    def __init__(self, filled: int = 0) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        os.set_blocking(self.writer, False)
        os.write(self.writer, b"." * filled)

    def read_once_full(self, child: subprocess.Popen[str]) -> bytes:
        """All that comes, from when the pipe is about full, or the child at its end, on; a page of
        it may hold a single line.
        """
        os.close(self.writer)
        wait_for(lambda: waiting_bytes(self.reader) >= PIPE_SIZE // 2, child)
        with os.fdopen(self.reader, "rb") as reader:
            return reader.read()


Piped = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def piped(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Iterator[Piped]:
    """Runs skill_fal.py with a Pipe as its stdout or its stderr; returns its exit status, and
    what came out of the Pipe and at the other end.
    """
    children: list[subprocess.Popen[str]] = []

    def run(*argv: str, stdout: Pipe | None = None, stderr: Pipe | None = None) -> Any:
        pipe = stdout or stderr
        assert pipe
        with (tmp_path.with_name(f"{tmp_path.name}.other")).open("w+b") as other:
            child = subprocess.Popen(
                [*SKILL, *argv],
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=stdout.writer if stdout else other,
                stderr=stderr.writer if stderr else other,
                text=True,
            )
            children.append(child)
            shown = pipe.read_once_full(child)
            status = child.wait(PATIENCE)
            other.seek(0)
            return status, shown, other.read()

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()


def test_all_of_stdout_arrives_late(fal: Sandbox, piped: Piped) -> None:
    text = "0123456789" * 300_000
    fal.on("POST", "fal.run", "*", Reply(json={"text": text}))
    status, shown, notes = piped(*RUN, stdout=Pipe())
    assert (status, notes) == (0, b"")
    assert json.loads(shown) == {"text": text}


def test_all_lines_of_a_stream_arrive_late(fal: Sandbox, piped: Piped) -> None:
    events = [{"step": number, "text": "x" * 50_000} for number in range(60)]
    content = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    headers = {"content-type": "text/event-stream"}
    fal.on("POST", "fal.run", "*/stream", Reply(content=content, headers=headers))
    status, shown, notes = piped(*STREAM, stdout=Pipe())
    assert (status, notes) == (0, b"")
    assert [json.loads(line) for line in shown.splitlines()] == events


def test_the_line_of_a_batch_arrives_late(fal: Sandbox, piped: Piped) -> None:
    text = "0123456789" * 300_000
    answer = Reply(json={"text": text})
    fal.on("GET", "queue.fal.run", "*/requests/*[0-9a-f]", answer)
    status, shown, _ = piped(*BATCH, "--quiet", stdout=Pipe())
    assert (status, json.loads(shown)["result"]) == (0, {"text": text})


def test_the_last_line_arrives_late(fal: Sandbox, piped: Piped) -> None:
    """stderr has room for less than the line."""
    fal.on("POST", "fal.run", "*", Reply(400, json={"detail": "No GPU is left. " * 450}))
    filled = PIPE_SIZE - PAGE
    status, shown, stdout = piped(*RUN, stderr=Pipe(filled))
    assert (status, stdout) == (1, b"")
    error = json.loads(shown[filled:].splitlines()[-1])["error"]
    assert error["message"].startswith("No GPU is left. ")


def test_a_long_log_and_the_last_line_arrive_late(fal: Sandbox, piped: Piped) -> None:
    """Neither progress that found no room nor its reader takes the last line with it."""
    logs = [{"message": f"{number} {'x' * 900}", "timestamp": str(number)} for number in range(20)]
    told = Reply(202, json={"status": "IN_PROGRESS", "logs": logs})
    fal.on("GET", "queue.fal.run", "*/status", told)
    fal.on("GET", "queue.fal.run", "*/requests/*[0-9a-f]", Reply(422, json={"detail": "Oh no"}))
    status, shown, stdout = piped(*SUBSCRIBE, stderr=Pipe(PIPE_SIZE - PAGE))
    assert (status, stdout) == (1, b"")
    assert json.loads(shown.splitlines()[-1])["error"]["message"] == "Oh no"


# Ctrl-C while Python imports

# Whoever imports the module finds that Ctrl-C is pressed meanwhile.
PRESSING = """
import importlib.abc, os, signal, sys

class Pressing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["PRESSED_AT"] and "skill_fal" in sys.modules_seen:
            sys.meta_path.remove(self)
            open(os.environ["PRESSED"], "w").close()
            os.kill(os.getpid(), signal.SIGINT)

class Seeing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        sys.modules_seen.add(name)

sys.modules_seen = set()
sys.meta_path[:0] = [Seeing(), Pressing()]
"""

# What an installer writes into a file that has the name of the command.
INSTALLED = "import sys; from skill_fal import run_as_command; sys.exit(run_as_command())"

COMMANDS: dict[str, tuple[str, ...]] = {
    "module": (sys.executable, "-P", "-m", "skill_fal"),
    "installed command": (sys.executable, "-P", "pressing/skill-fal"),
}


@pytest.fixture
def pressing(environment: Mapping[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    folder = tmp_path / "pressing"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PRESSING)
    (folder / "skill-fal").write_text(INSTALLED)

    def run(command: tuple[str, ...], pressed_at: str, *argv: str) -> Outcome:
        done = subprocess.run(
            [*command, *argv],
            env={
                **environment,
                **importing(folder),
                "PRESSED_AT": pressed_at,
                "PRESSED": str(folder / "pressed"),
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (folder / "pressed").exists()
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("module", ["argparse", "shlex", "asyncio", "httpx", "fal_client"])
def test_ctrl_c_while_modules_are_imported(
    fal: Sandbox, pressing: Callable[..., Outcome], command: tuple[str, ...], module: str
) -> None:
    done = pressing(command, module, *RUN)
    assert (done.status, done.stdout) == (130, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr
    assert paid(fal) == []
    if done.stderr:
        assert done.error["type"] == "interrupted"
