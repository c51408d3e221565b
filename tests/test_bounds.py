"""What a command may take of time and memory, whatever strangers send: measured by the command's
own use of them, never by a clock on the wall.
"""

from __future__ import annotations

import base64
import fcntl
import functools
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote_from_bytes

import pytest
from conftest import PATIENCE, SKILL, Cli, Outcome, paid
from sandbox import Reply, Sandbox

FLUX = "fal-ai/flux/dev"
RUN = ("run-t2i", "--model", FLUX, "--prompt", "A cat")
MEDIA = "https://v3b.fal.media/files/b"

CPU_SECONDS = 20  # a command takes one; one that takes the square of a megabyte takes hours
ADDRESS_SPACE = 6 << 30
MEGABYTE = 1_000_000
MIB = 1 << 20

# Runs a command, with bounds that only a fault exceeds, and writes down what it took. It stands
# between, since a process counts the memory of the one that has started it as its own.
METER = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, ({ADDRESS_SPACE}, {ADDRESS_SPACE}))
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as report:
    report.write(f"{{status}} {{used.ru_utime + used.ru_stime}} {{used.ru_maxrss}}")
"""


class Used(NamedTuple):
    """What a command left behind, and what it took."""

    done: Outcome
    cpu: float  # seconds
    memory: int  # bytes at most


class Measured(Protocol):
    def __call__(self, *argv: str) -> Used: ...


@pytest.fixture
def measured(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Measured:
    """Runs skill_fal.py in tmp_path; whoever is beyond the bounds of METER fails the test."""

    def run(*argv: str) -> Used:
        report = tmp_path.with_name(f"{tmp_path.name}.used")
        command = [sys.executable, "-I", "-S", "-c", METER, str(report), *SKILL, *argv]
        with subprocess.Popen(
            command,
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as meter:
            try:
                stdout, stderr = meter.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(meter.pid, signal.SIGKILL)
                raise
        status, cpu, kilobytes = report.read_text().split()
        exit_status = os.waitstatus_to_exitcode(int(status))
        assert exit_status >= 0, f"killed by signal {-exit_status} after {cpu} s of CPU time"
        done = Outcome(exit_status, stdout.decode(), stderr.decode())
        assert "Traceback" not in done.stderr
        return Used(done, float(cpu), int(kilobytes) * 1024)

    return run


def answers(fal: Sandbox, content: bytes) -> None:
    """The model's answer to run-t2i, as it goes over the wire."""
    headers = {"content-type": "application/json"}
    fal.on("POST", "fal.run", "*", Reply(content=content, headers=headers))


def answers_json(fal: Sandbox, value: Any) -> None:
    answers(fal, json.dumps(value).encode())


def model_row(**facts: Any) -> Reply:
    page = {"models": [{"endpoint_id": FLUX, **facts}], "next_cursor": None, "has_more": False}
    return Reply(json=page)


def takes(fields: Any, components: Any = None) -> Reply:
    """fal's word on what the model takes."""
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}, **fields}}
    body = {"content": {"application/json": {"schema": schema}}}
    paths = {f"/{FLUX}": {"post": {"requestBody": body}}}
    return model_row(openapi={"paths": paths, "components": {"schemas": components or {}}})


# Time


def times(text: str) -> str:
    """The text again and again, a megabyte in all."""
    return text * (MEGABYTE // len(text))


LONG_TEXTS = {
    "one long type": "data:a/" + times("a"),
    "parameters without an end": "data:a/b" + times(";a="),
    "percent signs": "data:text/plain;" + times("%2"),
    "newlines": times("\n") + "MEDIA:/etc/passwd",
    "blank lines": times(" \n") + "MEDIA:/etc/passwd",
    "tabs": times("\t") + "MEDIA:",
    "dots": times("."),
    "steps up": times("../"),
    "url_url_": times("url_"),
    "quotes": times('"\\'),
    "schemes": times("https://"),
    "hosts": "https://" + times("a.fal.media"),
    "marks": times("MEDIA:\r"),
    "digits": times("1"),
    "fractions": times("1."),
    "braces": times("{index"),
}


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_a_long_text_of_a_result(fal: Sandbox, measured: Measured, text: str) -> None:
    """Wherever a result can hold it: as a value, as a name, and beside a file."""
    file = {"url": "data:text/plain,x", "file_name": text, "content_type": text}
    response = {"seed": text, "prompt": text, text: [text], "a_url": text, "images": [file]}
    answers_json(fal, response)
    where = ("--output", "{name}_{seed}_{prompt}.{ext}", "--metadata")
    done = measured(*RUN, *where).done
    assert done.status in (0, 1), done.stderr[-500:]
    assert done.json["prompt"] == text
    assert done.json["downloaded_files"]


def test_line_breaks_in_json_that_is_printed_as_it_came(fal: Sandbox, measured: Measured) -> None:
    """JSON that is nested too deeply to be read keeps its own white space."""
    content = b"[" * 6000 + b"\n" * MEGABYTE + b'"MEDIA:/x"' + b"]" * 6000
    answers(fal, content)
    done = measured(*RUN).done
    assert done.status == 0, done.stderr[-500:]
    assert "MEDIA:/x" in done.stdout
    assert not [line for line in done.stdout.split("\n") if line.startswith("MEDIA:")]


def deep_links() -> Any:
    value: Any = [f"https://example.com/{number}" for number in range(50_000)]
    for _ in range(800):
        value = [value]
    return value


def links_under_long_names() -> Any:
    names = [f"{times('k')}{number}" for number in range(8)]
    value: Any = ["https://example.com/a"] * 20_000
    for name in names:
        value = {name: value}
    return value


WALKS: dict[str, Callable[[], Any]] = {
    "many links far down": deep_links,
    "many links under long names": links_under_long_names,
    "many links under names that end in urls": lambda: {
        times("_urls"): [{"page": ["https://example.com/a"] * 300} for _ in range(300)]
    },
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_walk_through_a_result(fal: Sandbox, measured: Measured, walk: Callable[[], Any]) -> None:
    """Where a value stands is not written out for each of them."""
    response = {"nested": walk()}
    answers_json(fal, response)
    fal.on("GET", "example.com", "*", fal.always(Reply(404, text="gone")))
    done = measured(*RUN, "--output", "out/").done
    assert (done.status, done.json["downloaded_files"]) == (0, [])


SEEDS: dict[str, Any] = {"a list": list(range(200_000)), "a text": times("7")}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_a_long_seed_of_many_files(fal: Sandbox, measured: Measured, seed: Any) -> None:
    """What all files share is made ready once."""
    files = [f"data:text/plain,{number}" for number in range(500)]
    answers_json(fal, {"seed": seed, "files": files})
    done = measured(*RUN, "--output", "{seed}/{index}.{ext}").done
    assert done.status == 0, done.stderr[-500:]
    assert len(done.json["downloaded_files"]) == 500


CHOICES: dict[str, list[str]] = {
    "labels of 100 kB": [f"{'ab' * 50_000}{number}" for number in range(100)],
    "labels that are alike": [f"{'abc' * 60}{number}" for number in range(15_000)],
}


@pytest.mark.parametrize("labels", CHOICES.values(), ids=CHOICES)
def test_the_closest_of_many_long_choices(
    fal: Sandbox, measured: Measured, labels: list[str]
) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(takes({"style": {"enum": labels}})))
    argv = ("submit-t2i", "--model", FLUX, "--prompt", "A cat")
    done = measured(*argv, "--extra-json", json.dumps({"style": "ab" * 50})).done
    assert (done.status, done.error["type"], paid(fal)) == (2, "invalid_arguments", [])
    assert len(done.stderr) <= 10_000


@pytest.mark.parametrize(
    "width", ["1" * 400_000, "1." * 200_000, "1 " * 200_000], ids=["digits", "fractions", "blanks"]
)
def test_sizes_that_are_long(fal: Sandbox, measured: Measured, width: str) -> None:
    labels = [f"{width}x{width}", f"{width}:{width}", f"{width}p", "16:9", "9:16", "1:1"]
    fields = {"aspect_ratio": {"enum": labels}, "resolution": {"enum": labels}}
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(takes(fields)))
    size = ("--width", "1600", "--height", "900")
    done = measured("submit-t2i", "--model", FLUX, "--prompt", "A cat", *size, "--dry-run").done
    assert done.status == 0, done.stderr[-500:]
    assert done.json["arguments"]["aspect_ratio"] == "16:9"


def doubling(levels: int, last: Any) -> dict[str, Any]:
    """Schemas each of which names the next one twice."""
    named: dict[str, Any] = {
        f"S{level}": {"anyOf": [{"$ref": f"#/components/schemas/S{level + 1}"}] * 2}
        for level in range(levels)
    }
    return {**named, f"S{levels}": last}


REFERENCES: dict[str, Any] = {
    "a reference of 400 kB": {"$ref": "#" + "/a" * 200_000},
    "a reference full of escapes": {"$ref": "#/" + "~1~0" * 250_000},
    "a long list of required fields": {"required": ["a"] * 300_000},
}


@pytest.mark.parametrize("last", REFERENCES.values(), ids=REFERENCES)
def test_a_schema_that_is_met_again_and_again(fal: Sandbox, measured: Measured, last: Any) -> None:
    """A document of a few kilobytes may lead to the same place thousands of times."""
    field = {"$ref": "#/components/schemas/S0"}
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(takes({"a": field}, doubling(12, last))))
    done = measured("list-models", "--schema", FLUX, "--json").done
    assert (done.status, set(done.json["properties"])) == (0, {"prompt", "a"})


HEADERS = {
    "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT " * 1000,
    "Retry-After": "1" * 40_000,
    "x-fal-request-id": "a-" * 20_000,
    "content-type": "application/json;" + "a=b; " * 8000,
    "x-fal-error-type": "a\t" * 20_000,
    "x-fal-needs-retry": "true " * 8000,
}


@pytest.mark.parametrize(("name", "value"), HEADERS.items(), ids=HEADERS)
def test_a_long_header_of_fals(fal: Sandbox, measured: Measured, name: str, value: str) -> None:
    fal.on(
        "POST", "fal.run", "*", Reply(400, json={"detail": "Oh no"}, headers={name: value.strip()})
    )
    done = measured(*RUN).done
    assert (done.status, done.error["message"]) == (1, "Oh no")
    assert len(done.stderr) <= 10_000


HOST_HEADERS = {
    "etag": f'"{"v1" * 20_000}"',
    "content-type": "image/png;" + "a=b; " * 8000,
    "content-range": "bytes 0-" + "9" * 40_000,
    "last-modified": "Wed, " * 8000,
}


@pytest.mark.parametrize(("name", "value"), HOST_HEADERS.items(), ids=HOST_HEADERS)
def test_a_long_header_of_a_media_host(
    fal: Sandbox, measured: Measured, name: str, value: str
) -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(92)
    fal.on("GET", "v3b.fal.media", "*", Reply(content=content, headers={name: value.strip()}))
    answers_json(fal, {"images": [{"url": f"{MEDIA}/a.png"}]})
    done = measured(*RUN, "--output", "a.png").done
    assert (done.status, done.json["downloaded_files"][0]["bytes"]) == (0, 100)


def test_long_texts_of_the_model_search(fal: Sandbox, measured: Measured) -> None:
    text = times("\n ") + "MEDIA:/x"
    facts = {"display_name": text, "category": text, "status": text}
    fal.on("GET", "api.fal.ai", "/v1/models", model_row(metadata=facts))
    done = measured("list-models").done
    assert (done.status, done.stdout.count("\n")) == (0, 1)


def test_long_texts_of_the_price_list(fal: Sandbox, measured: Measured) -> None:
    text = times("s")
    price = {"endpoint_id": FLUX, "unit_price": 1, "unit": f"image{text}", "currency": text}
    page = {"prices": [price] * 3, "next_cursor": None, "has_more": False}
    fal.on("GET", "api.fal.ai", "/v1/models/pricing", Reply(json=page))
    done = measured("list-models", "--price", FLUX).done
    assert (done.status, done.stdout.startswith(FLUX)) == (0, True)


def test_a_long_cursor(fal: Sandbox, measured: Measured) -> None:
    page = {"models": [], "next_cursor": times("c"), "has_more": True}
    fal.on("GET", "api.fal.ai", "/v1/models", Reply(json=page))
    done = measured("list-models").done
    assert (done.status, done.error["type"]) == (1, "unexpected_answer")
    assert len(done.stderr) <= 10_000


# Many files


def files_of(count: int) -> list[dict[str, str]]:
    return [{"url": f"data:text/plain,{number}"} for number in range(count)]


SAVE: dict[str, tuple[str, ...]] = {
    "by number": ("--output", "out/x.txt"),
    "in place of others": ("--output", "out/{name}.{ext}", "--overwrite"),
}


@pytest.mark.parametrize("where", SAVE.values(), ids=SAVE)
def test_four_times_as_many_files_take_four_times_as_long(
    fal: Sandbox, measured: Measured, where: tuple[str, ...], tmp_path: Path
) -> None:
    spent = []
    for count in (0, 250, 1000):
        answers_json(fal, {"files": files_of(count)})
        output = tuple(word.replace("out/", f"out{count}/") for word in where)
        used = measured(*RUN, *output)
        assert used.done.status == 0, used.done.stderr[-500:]
        saved = list(tmp_path.glob(f"out{count}/*"))
        assert len(saved) == count * (2 if "--metadata" in where else 1)
        spent.append(used.cpu)
    nothing, few, many = spent
    assert (many - nothing) / (few - nothing) < 8


def test_a_second_run_of_many_files(fal: Sandbox, measured: Measured, tmp_path: Path) -> None:
    """Names that are taken are not looked for from the first on, nor is what was saved before."""
    where = ("--output", "out/{name}.{ext}", "--overwrite")
    spent = []
    for count in (250, 1000):
        for _ in range(2):
            answers_json(fal, {"files": files_of(count)})
            used = measured(*RUN, *where)
            assert used.done.status == 0, used.done.stderr[-500:]
        spent.append(used.cpu)
    few, many = spent
    assert len(list(tmp_path.glob("out/*"))) == 1000
    assert many / few < 8


# Memory


def a_data_uri(size: int, kind: str) -> bytes:
    """The JSON text of a data URI of so many characters; bytes that are escaped are 3 each."""
    if kind == "base64":
        return b'"data:image/png;base64,' + base64.b64encode(bytes(size * 3 // 4)) + b'"'
    return b'"data:image/png,' + quote_from_bytes(b"\x89" * (size // 3)).encode() + b'"'


@pytest.mark.parametrize("kind", ["base64", "percent"])
def test_data_that_is_too_large_is_not_decoded(fal: Sandbox, measured: Measured, kind: str) -> None:
    """It takes what a text takes that is as long, and is no data."""
    uri = a_data_uri(60_000_000, kind)
    used = []
    for text in (uri.replace(b"data:", b"text:"), uri):
        answers(fal, b'{"images": [{"url": ' + text + b', "seed": 1}]}')
        used.append(measured(*RUN, "--output", "out/", "--max-bytes", "1000"))
    plain, data = used
    assert (plain.done.status, data.done.status) == (0, 1)
    assert "1000" in data.done.error["details"][0]["message"]
    assert len(data.done.stdout) >= 60_000_000
    assert data.memory - plain.memory < 100 * MIB
    assert data.cpu - plain.cpu < 1


@pytest.mark.parametrize("kind", ["base64", "percent"])
def test_a_large_data_uri_is_saved_in_little_memory(
    fal: Sandbox, measured: Measured, kind: str, tmp_path: Path
) -> None:
    answers(fal, b'{"images": [{"url": ' + a_data_uri(30_000_000, kind) + b"}]}")
    done, _, memory = measured(*RUN, "--output", "a.png")
    assert done.status == 0, done.stderr[-500:]
    size = 22_500_000 if kind == "base64" else 10_000_000
    assert (tmp_path / "a.png").stat().st_size == size
    assert memory < 600 * MIB


@functools.cache
def packed_blanks(mebibytes: int, around: tuple[bytes, bytes] = (b'"', b'"')) -> bytes:
    """gzip of so many MiB of blanks between two texts: each MiB of them takes a kilobyte."""
    start, end = around
    crc = zlib.crc32(start)
    blanks = b" " * MIB
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(mebibytes):
        crc = zlib.crc32(blanks, crc)
    tail = packer.compress(end) + packer.flush(zlib.Z_FINISH)
    size = len(start) + mebibytes * MIB + len(end)
    trailer = struct.pack("<II", zlib.crc32(end, crc), size & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + block * mebibytes + tail + trailer


def packed(content_type: str = "application/json", status: int = 200, start: bytes = b"") -> Reply:
    content = packed_blanks(512, (start + b'{"a": "', b'"}'))
    headers = {"content-type": content_type, "content-encoding": "gzip"}
    return Reply(status, content=content, headers=headers)


CAT = ("--model", FLUX, "--prompt", "A cat")
JOB = ("--model", FLUX, "--request-id", "some-request")
EVENT = packed("text/event-stream", start=b"data: ")
UNPACKED: dict[str, tuple[tuple[str, ...], str, str, Reply]] = {
    "the answer of a model": (("run-t2i", *CAT), "POST", "fal.run", packed()),
    "a refusal": (("run-t2i", *CAT), "POST", "fal.run", packed(status=422)),
    "a job": (("submit-t2i", *CAT), "POST", "queue.fal.run", packed()),
    "a status": (("status", *JOB), "GET", "queue.fal.run", packed()),
    "a stream's event": (("stream-t2i", *CAT), "POST", "fal.run", EVENT),
    "a list of models": (("list-models",), "GET", "api.fal.ai", packed()),
    "a list of prices": (("list-models", "--price", FLUX), "GET", "api.fal.ai", packed()),
}


@pytest.mark.parametrize(("argv", "method", "host", "answer"), UNPACKED.values(), ids=UNPACKED)
def test_an_answer_that_unpacks_without_an_end(
    fal: Sandbox, measured: Measured, argv: tuple[str, ...], method: str, host: str, answer: Reply
) -> None:
    """Half a megabyte on the wire may be half a gigabyte."""
    fal.on(method, host, "*", fal.always(answer))
    done, _, memory = measured(*argv)
    assert memory < 800 * MIB
    assert (done.status, done.error["retryable"]) == (1, False)
    assert len(paid(fal)) <= 1
    if answer.status == 200:
        assert done.error["type"] == "unexpected_answer"


def test_a_packed_answer_of_a_usual_size_is_read(fal: Sandbox, measured: Measured) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    fal.on("POST", "fal.run", "*", Reply(content=packed_blanks(2), headers=headers))
    done = measured(*RUN).done
    assert (done.status, done.json) == (0, " " * (2 * MIB))


# A dry run and its journal

BATCH = ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog")
DRY = (*BATCH, "--dry-run", "--journal", "journal.jsonl")


@pytest.fixture
def journal(cli: Cli, tmp_path: Path) -> Path:
    """The journal of a batch that has run."""
    assert cli(*BATCH, "--journal", "journal.jsonl").status == 0
    return tmp_path / "journal.jsonl"


ENDS = {
    "whole": b"",
    "torn": b'{"job": "0123',
    "torn in a character": '{"job": "ü'.encode()[:-1],
    "without the last line break": b'{"job": "x", "state": "sent", "at": "2026"}',
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_dry_run_leaves_the_journal_as_it_is(cli: Cli, journal: Path, end: bytes) -> None:
    content = journal.read_bytes() + end
    journal.write_bytes(content)
    os.utime(journal, (1, 1))
    done = cli(*DRY)
    assert done.status == 0, done.stderr
    assert journal.read_bytes() == content
    assert journal.stat().st_mtime == 1


@pytest.mark.parametrize("content", [b"", b'{"jo'], ids=["empty", "torn at once"])
def test_a_dry_run_beside_a_journal_that_has_just_begun(
    cli: Cli, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    assert cli(*DRY).status == 0
    assert path.read_bytes() == content


@pytest.fixture
def locked(journal: Path) -> Iterator[Path]:
    """The journal, on which another process works."""
    with journal.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield journal


def test_a_dry_run_waits_for_nobody(cli: Cli, locked: Path) -> None:
    content = locked.read_bytes()
    assert cli(*DRY).status == 0
    assert locked.read_bytes() == content
    assert cli(*BATCH, "--journal", "journal.jsonl").status == 2


def test_a_dry_run_of_a_journal_that_may_only_be_read(
    cli: Cli, journal: Path, tmp_path: Path
) -> None:
    """Not even a name beside it comes to be."""
    before = sorted(path.name for path in tmp_path.iterdir())
    journal.chmod(0o400)
    assert cli(*DRY).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert journal.stat().st_mode & 0o777 == 0o400


def test_a_dry_run_without_a_journal_creates_none(cli: Cli, tmp_path: Path) -> None:
    assert cli(*DRY).status == 0
    assert not (tmp_path / "journal.jsonl").exists()
