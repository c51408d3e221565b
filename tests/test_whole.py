"""Files and answers arrive whole: never two versions in one, and none lost for its odd content."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Clock, Outcome, leaping
from PIL import Image
from sandbox import Reply, Sandbox
from test_saving import FLUX, PNG, RESULT, gets, image, names, run, serve

QUEUE = "queue.fal.run"
OTHER = PNG[::-1]
JSON = {"content-type": "application/json"}

# Downloads that break


@pytest.fixture
def cli(cli: Cli, clock: Clock) -> Cli:
    """Runs skill_fal.py; to look for a lost job on the account takes no time."""
    return leaping(cli, clock)


def short(**validators: str) -> Reply:
    """The first 60 of 100 bytes."""
    headers = {name.replace("_", "-"): value for name, value in validators.items()}
    return Reply(content=PNG[:60], headers={"content-length": "100", **headers})


def rest(content: bytes = OTHER, of: str = "100", **validators: str) -> Reply:
    """The bytes from the sixtieth on."""
    return Reply(
        206, content=content[60:], headers={"content-range": f"bytes 60-99/{of}", **validators}
    )


def content(done: Outcome) -> bytes:
    assert done.status == 0, done.stderr
    (file,) = done.json["downloaded_files"]
    return Path(file["path"]).read_bytes()


def test_the_same_version_is_resumed(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "v3b.fal.media", "*", short(etag='"v1"'), rest(PNG, etag='"v1"'))
    assert content(run(fal, cli, {"images": [image()]})) == PNG
    assert [one.headers.get("range") for one in gets(fal)] == [None, "bytes=60-"]


@pytest.mark.parametrize(
    "second",
    [
        rest(),
        rest(etag='"v2"'),
        rest(etag='W/"v1"'),
        rest(etag="v1"),
        rest(etag='"V1"'),
        rest(of="*", etag='"v1"'),
        rest(of="101", etag='"v1"'),
        rest(of="99", etag='"v1"'),
        rest(of="", etag='"v1"'),
    ],
    ids=[
        "no ETag",
        "another ETag",
        "a weak ETag",
        "no quotes",
        "another case",
        "no total",
        "a larger total",
        "a smaller total",
        "an empty total",
    ],
)
def test_two_versions_are_never_glued(fal: Sandbox, cli: Cli, second: Reply) -> None:
    fal.on("GET", "v3b.fal.media", "*", short(etag='"v1"'), second, Reply(content=OTHER))
    assert content(run(fal, cli, {"images": [image()]})) == OTHER
    assert [one.headers.get("range") for one in gets(fal)] == [None, "bytes=60-", None]


@pytest.mark.parametrize(
    "validators",
    [
        {"accept_ranges": "bytes"},
        {"etag": 'W/"v1"', "accept_ranges": "bytes"},
        {"etag": "", "accept_ranges": "bytes"},
        {"etag": "v1", "accept_ranges": "bytes"},
        {"last_modified": "Wed, 21 Oct 2015 07:28:00 GMT", "accept_ranges": "bytes"},
    ],
    ids=["none", "weak", "empty", "no quotes", "date"],
)
def test_what_has_no_strong_etag_starts_over(
    fal: Sandbox, cli: Cli, validators: dict[str, str]
) -> None:
    fal.on("GET", "v3b.fal.media", "*", short(**validators), Reply(content=OTHER))
    assert content(run(fal, cli, {"images": [image()]})) == OTHER
    assert [one.headers.get("range") for one in gets(fal)] == [None, None]


def test_what_changes_twice_is_not_glued(fal: Sandbox, cli: Cli) -> None:
    """A rest that breaks as well is followed by one of another version."""
    headers = {"content-range": "bytes 60-99/100", "content-length": "40", "etag": '"v1"'}
    broken = Reply(206, content=PNG[60:80], headers=headers)
    last = {"content-range": "bytes 80-99/100", "etag": '"v2"'}
    final = Reply(206, content=OTHER[80:], headers=last)
    answers = (short(etag='"v1"'), broken, final, Reply(content=OTHER))
    fal.on("GET", "v3b.fal.media", "*", *answers)
    assert content(run(fal, cli, {"images": [image()]})) == OTHER


# Halves of characters

HALF = "\ud83d"
SHOWN = r"\ud83d"


@pytest.mark.parametrize("flags", [(), ("--metadata",)], ids=["file", "metadata"])
@pytest.mark.parametrize("where", ["out/", "out/{name}-{seed}-{prompt}.{ext}", "out/{seed}"])
@pytest.mark.parametrize(
    "response",
    [
        {"images": [image()], "seed": HALF},
        {"images": [image()], "prompt": f"A {HALF} cat"},
        {"images": [image(file_name=f"{HALF}.png")]},
        {"images": [image(file_name=f"a.{HALF}")]},
        {"images": [image(content_type=f"image/{HALF}")]},
        {"images": [image()], HALF: [HALF]},
        {HALF: {"image": image()}},
    ],
    ids=["seed", "prompt", "name", "extension", "type", "key", "field"],
)
def test_half_a_character_in_an_answer_loses_nothing(
    fal: Sandbox,
    cli: Cli,
    tmp_path: Path,
    response: dict[str, Any],
    where: str,
    flags: tuple[str, ...],
) -> None:
    serve(fal)
    done = run(fal, cli, response, "--output", where, *flags)
    assert done.status == 0, done.stderr
    assert SHOWN in done.stdout
    assert {**response, **done.json} == done.json
    (file,) = done.json["downloaded_files"]
    assert Path(file["path"]).read_bytes() == PNG
    assert len(names(tmp_path / "out")) == 1 + len(flags)


@pytest.mark.parametrize("flags", [(), ("--metadata",)], ids=["file", "metadata"])
@pytest.mark.parametrize("place", ["path", "host", "query"])
def test_half_a_character_in_a_url_loses_that_file_at_most(
    fal: Sandbox, cli: Cli, place: str, flags: tuple[str, ...]
) -> None:
    serve(fal)
    url = {
        "path": f"{image()['url']}{HALF}",
        "host": f"https://a{HALF}.fal.media/files/x.png",
        "query": f"{image()['url']}?x={HALF}",
    }[place]
    response = {"images": [{"url": url, "content_type": "image/png"}, image("b.png")]}
    done = run(fal, cli, response, *flags)
    assert (done.status, SHOWN in done.stdout) in ((0, True), (1, True))
    assert done.json["images"] == response["images"]
    (good,) = [f for f in done.json["downloaded_files"] if f["url"] == image("b.png")["url"]]
    assert Path(good["path"]).read_bytes() == PNG
    if done.status:
        assert done.error["type"] == "download_failed"


@pytest.mark.parametrize("journal", [(), ("--journal", "j")], ids=["plain", "journal"])
def test_half_a_character_in_a_batch_loses_nothing(
    fal: Sandbox, cli: Cli, journal: tuple[str, ...]
) -> None:
    serve(fal)
    answer = Reply(json={"images": [image()], "seed": HALF, "prompt": HALF})
    # the answer is JSON of ASCII, as Python's json.dumps makes it
    body = json.dumps(answer.json).encode()
    fal.on("GET", QUEUE, RESULT, fal.always(Reply(content=body, headers=JSON)))
    argv = ("batch-t2i", "--model", FLUX, "--prompts", "a", "b", *journal)
    for _ in range(2):
        done = cli(*argv, "--output", "out/{seed}-{index}.{ext}", "--metadata")
        assert done.status == 0, done.stderr
        assert [line["result"]["seed"] for line in done.lines] == [HALF, HALF]
        assert all(len(line["result"]["downloaded_files"]) == 1 for line in done.lines)


# Answers that are nested beyond measure


def nested(depth: int, kind: str) -> str:
    if kind == "lists":
        return '{"seed": 7, "deep": ' + "[" * depth + "]" * depth + "}"
    return '{"a":' * depth + '"end"' + "}" * depth


DEEP = [(6000, "lists"), (100_000, "objects")]
deep = pytest.mark.parametrize(
    ("depth", "kind"), DEEP, ids=[f"{depth} {kind}" for depth, kind in DEEP]
)


def answered(fal: Sandbox, method: str, host: str, path: str, text: str) -> None:
    fal.on(method, host, path, Reply(content=text.encode(), headers=JSON))


def assert_printed(done: Outcome, text: str) -> None:
    assert done.status == 0, done.stderr[-2000:]
    assert done.stdout.strip() == text
    assert re.search("deep|nest", done.stderr)


@deep
def test_a_deep_result_is_printed_as_it_came(fal: Sandbox, cli: Cli, depth: int, kind: str) -> None:
    text = nested(depth, kind)
    answered(fal, "GET", QUEUE, RESULT, text)
    assert_printed(cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat"), text)


@deep
def test_a_deep_result_of_an_earlier_job_is_printed_as_it_came(
    fal: Sandbox, cli: Cli, depth: int, kind: str
) -> None:
    request_id = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat").json["request_id"]
    text = nested(depth, kind)
    answered(fal, "GET", QUEUE, RESULT, text)
    assert_printed(cli("result", "--model", FLUX, "--request-id", request_id), text)


@deep
def test_a_deep_answer_of_run_is_printed_as_it_came(
    fal: Sandbox, cli: Cli, depth: int, kind: str
) -> None:
    text = nested(depth, kind)
    answered(fal, "POST", "fal.run", "*", text)
    assert_printed(cli("run-t2i", "--model", FLUX, "--prompt", "A cat"), text)


@deep
@pytest.mark.parametrize("journal", [(), ("--journal", "j")], ids=["plain", "journal"])
def test_a_deep_result_of_a_batch_is_printed_in_its_line(
    fal: Sandbox, cli: Cli, depth: int, kind: str, journal: tuple[str, ...]
) -> None:
    text = nested(depth, kind)
    answered(fal, "GET", QUEUE, RESULT, text)
    argv = ("--model", FLUX, "--prompts", "a", "b", "c", *journal)
    done = cli("batch-t2i", *argv)
    assert done.status == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    (long,) = [line for line in lines if text in line]
    flat = json.loads(long.replace(text, '"deep"'))
    others = [json.loads(line) for line in lines if line != long]
    assert (len(lines), flat["result"]) == (3, "deep")
    assert {flat["index"], *(line["index"] for line in others)} == {0, 1, 2}
    assert all(line["result"]["images"] for line in others)
    assert re.search("deep|nest", done.stderr)


@deep
def test_a_deep_event_of_a_stream_is_printed_as_it_came(
    fal: Sandbox, cli: Cli, depth: int, kind: str
) -> None:
    text = nested(depth, kind)
    body = f'data: {{"n": 1}}\n\ndata: {text}\n\n'.encode()
    fal.on(
        "POST", "fal.run", "*", Reply(content=body, headers={"content-type": "text/event-stream"})
    )
    done = cli("stream-t2i", "--model", FLUX, "--prompt", "A cat")
    assert done.status == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()
    assert (json.loads(first), second == text) == ({"n": 1}, True)


UNREADABLE = {
    "a number of many digits": b'{"seed": ' + b"7" * 6000 + b"}",
    "no UTF-8": b'{"text": "caf\xe9"}',
    "a list with a number of many digits": b"[" + b"7" * 6000 + b"]",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("command", ["run-t2i", "subscribe-t2i"])
def test_what_cannot_be_read_is_printed_as_it_came(
    fal: Sandbox, cli: Cli, command: str, body: bytes
) -> None:
    reply = Reply(content=body, headers=JSON)
    fal.on("POST", "fal.run", "*", reply)
    fal.on("GET", QUEUE, RESULT, reply)
    done = cli(command, "--model", FLUX, "--prompt", "A cat")
    assert done.status == 0, done.stderr[-2000:]
    assert done.stdout.strip() == body.decode(errors="replace")


TEXTS: dict[str, tuple[str, str]] = {
    "a URL": ("text/plain", "https://v3.fal.media/files/b/a.png"),
    "words": ("text/plain; charset=utf-8", "Ein Kätzchen\nund noch eins"),
    "a document": ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "words that are called JSON": ("application/json", "A cat"),
}


HALVES = {
    "half of some JSON": ("application/json", '{"images": [{"url": "https://v3.fal'),
    "nearly all of some JSON": ("application/json", '{"images": [], "seed": 1'),
    "a text in JSON that has no end": ("application/json", '"A ca'),
}


def no_json(fal: Sandbox, content_type: str, content: bytes) -> None:
    """All that is paid for is answered so, in fal's own name."""
    head = {"content-type": content_type, "x-fal-request-id": "some-request"}
    reply = Reply(content=content, headers=head)
    fal.on("POST", "fal.run", "*", reply)
    fal.on("GET", QUEUE, RESULT, reply)


@pytest.mark.parametrize(("content_type", "text"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("command", ["run-t2i", "run-i2v", "subscribe-t2i"])
def test_a_text_that_is_paid_for_is_printed(
    fal: Sandbox, cli: Cli, command: str, content_type: str, text: str
) -> None:
    no_json(fal, content_type, text.encode())
    pictured = ("--image-url", "https://example.com/a.png") if "i2v" in command else ()
    done = cli(command, "--model", FLUX, "--prompt", "A cat", "--no-schema", *pictured)
    assert (done.status, done.json) == (0, text), done.stderr


@pytest.mark.parametrize(("content_type", "text"), HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("command", ["run-t2i", "run-i2v"])
def test_half_an_answer_is_printed_and_is_none(
    fal: Sandbox, cli: Cli, command: str, content_type: str, text: str
) -> None:
    no_json(fal, content_type, text.encode())
    pictured = ("--image-url", "https://example.com/a.png") if "i2v" in command else ()
    done = cli(command, "--model", FLUX, "--prompt", "A cat", "--no-schema", *pictured)
    assert (done.status, done.json) == (1, text), done.stderr
    assert done.error["type"] == "unexpected_answer"


@pytest.mark.parametrize("case", ["a URL", "half of some JSON"])
def test_a_text_in_place_of_a_stream_is_printed(fal: Sandbox, cli: Cli, case: str) -> None:
    content_type, text = {**TEXTS, **HALVES}[case]
    no_json(fal, content_type, text.encode())
    done = cli("stream-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema")
    assert (done.status, done.lines, done.error["type"]) == (1, [text], "not_a_stream")


def drawn(format: str) -> bytes:
    file = io.BytesIO()
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 30).convert("RGB").save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("command", ["run-t2i", "subscribe-t2i", "stream-t2i"])
def test_a_picture_that_is_answered_is_printed(
    fal: Sandbox, cli: Cli, command: str, format: str
) -> None:
    """As a data URI, from which it can be had."""
    content = drawn(format)
    no_json(fal, f"image/{format}", content)
    done = cli(command, "--model", FLUX, "--prompt", "A cat", "--no-schema")
    assert done.status == ("stream" in command), done.stderr
    head, _, packed = done.json["content"].partition(",")
    assert (head, base64.b64decode(packed)) == (f"data:image/{format};base64", content)


@pytest.mark.parametrize(("format", "ending"), [("png", "png"), ("jpeg", "jpg")], ids=str)
def test_a_picture_that_is_answered_is_saved(
    fal: Sandbox, cli: Cli, format: str, ending: str
) -> None:
    no_json(fal, f"image/{format}", drawn(format))
    done = cli("run-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema", "--output", "out/")
    assert content(done) == drawn(format)
    assert done.json["downloaded_files"][0]["path"].endswith((f".{ending}", f".{format}"))


def test_a_rest_that_was_not_asked_for_is_no_rest(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "v3b.fal.media", "*", short(), rest(), Reply(content=OTHER))
    assert content(run(fal, cli, {"images": [image()]})) == OTHER
