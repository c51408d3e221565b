"""Event streams as the standard lets them be, and upload tokens as they must not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import LEAP, Cli, Clock, paid
from sandbox import Reply, Sandbox

FLUX = "fal-ai/flux/dev"
STREAM = ("stream-t2i", "--model", FLUX, "--prompt", "A cat")
EVENTS = {"content-type": "text/event-stream"}
ONE, TWO = {"a": 1}, {"b": [2]}
FIRST, SECOND = b'data: {"a": 1}\n\n', b'data: {"b": [2]}\n\n'


def streams(fal: Sandbox, content: bytes, status: int = 200, **headers: str) -> None:
    fal.on("POST", "fal.run", "*/stream", Reply(status, content=content, headers=EVENTS | headers))


NO_EVENTS = {
    "a time to reconnect": b"retry: 5\n\n",
    "a number of an event": b"id: 7\n\n",
    "an event without data": b"event: progress\n\n",
    "an event with empty data": b"data:\n\n",
    "an event with blank data": b"data: \n\n",
    "a comment": b": keep-alive\n\n",
    "an empty comment": b":\n\n",
    "blank lines": b"\n\n\n",
    "a field that nobody knows": b"colour: red\n\n",
}


@pytest.mark.parametrize("between", NO_EVENTS.values(), ids=NO_EVENTS)
def test_what_is_no_event_is_passed_over(fal: Sandbox, cli: Cli, between: bytes) -> None:
    """Be it before, between or behind the events."""
    streams(fal, between + FIRST + between + SECOND + between)
    done = cli(*STREAM)
    assert (done.status, done.lines, done.notes) == (0, [ONE, TWO], "")
    assert len(paid(fal)) == 1


@pytest.mark.parametrize("beat", ["ping", "heartbeat", "keep alive: 3", "still at it..."])
def test_a_heartbeat_in_words(fal: Sandbox, cli: Cli, beat: str) -> None:
    """Words are told, and the events around them are printed."""
    words = f"data: {beat}\n\n".encode()
    streams(fal, words + FIRST + words + SECOND)
    done = cli(*STREAM)
    assert (done.status, done.lines) == (0, [ONE, TWO]), done.stderr
    (line,) = done.notes.splitlines()
    assert line.startswith("note: ")


def test_words_alone_are_no_result(fal: Sandbox, cli: Cli) -> None:
    streams(fal, b"data: ping\n\n" * 3)
    done = cli(*STREAM)
    assert (done.status, done.stdout) == (1, "")
    assert done.error["retryable"] is False


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_a_byte_order_mark_at_the_start(fal: Sandbox, cli: Cli, end: str) -> None:
    content = (b"\xef\xbb\xbf" + FIRST + SECOND).replace(b"\n", end.encode())
    streams(fal, content)
    done = cli(*STREAM)
    assert (done.status, done.lines) == (0, [ONE, TWO])


def test_a_byte_order_mark_before_a_comment(fal: Sandbox, cli: Cli) -> None:
    streams(fal, b"\xef\xbb\xbf: hello\n" + FIRST)
    done = cli(*STREAM)
    assert (done.status, done.lines) == (0, [ONE])


def test_data_on_many_lines_is_one_event(fal: Sandbox, cli: Cli) -> None:
    streams(fal, b'event: update\nid: 1\ndata: {"a":\ndata: 1}\n\n' + SECOND)
    done = cli(*STREAM)
    assert (done.status, done.lines) == (0, [ONE, TWO])


def test_the_last_event_is_saved_whatever_follows(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    image = b'data: {"images": [{"url": "data:text/plain,x"}]}\n\n'
    streams(fal, FIRST + image + b"data: ping\n\nretry: 5\n\n")
    done = cli(*STREAM, "--output", "out/")
    assert done.status == 0, done.stderr
    assert len(done.lines[-1]["downloaded_files"]) == len(list((tmp_path / "out").iterdir())) == 1


IMAGE = b'data: {"images": [{"url": "data:text/plain,x"}], "n": %d}\n\n'
END_MARKS = {
    "an object": b'{"done": true}',
    "a type": b'{"type": "heartbeat"}',
    "a word": b'"[DONE]"',
    "null": b"null",
    "no images": b'{"images": []}',
}


@pytest.mark.parametrize("mark", END_MARKS.values(), ids=END_MARKS)
def test_the_last_event_with_files_is_saved(
    fal: Sandbox, cli: Cli, tmp_path: Path, mark: bytes
) -> None:
    """A mark of the end in JSON is printed as any event is, and is not what was asked for."""
    marks = b"data: " + mark + b"\n\n"
    streams(fal, IMAGE % 1 + IMAGE % 2 + marks)
    done = cli(*STREAM, "--output", "out/")
    assert done.status == 0, done.stderr
    assert [line["n"] for line in done.lines if isinstance(line, dict) and "n" in line] == [1, 2]
    assert json.loads(mark) in done.lines
    assert len(done.lines[-1]["downloaded_files"]) == len(list((tmp_path / "out").iterdir())) == 1
    assert done.lines[-1]["n"] == 2


@pytest.mark.parametrize("mark", END_MARKS.values(), ids=END_MARKS)
def test_the_last_event_with_files_is_the_one_for_a_chat(
    fal: Sandbox, cli: Cli, mark: bytes
) -> None:
    streams(fal, IMAGE % 1 + b"data: " + mark + b"\n\n")
    done = cli(*STREAM, "--media")
    assert done.status == 0, done.stderr
    (path,) = done.stdout.splitlines()
    assert Path(path.removeprefix("MEDIA:")).read_bytes() == b"x"


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n", b"\r"], ids=["LF", "none", "CRLF", "CR"])
def test_a_last_event_without_a_blank_line_is_an_event(fal: Sandbox, cli: Cli, end: bytes) -> None:
    """The standard drops it, but it is paid for."""
    streams(fal, FIRST + SECOND.rstrip() + end)
    done = cli(*STREAM)
    assert (done.status, done.lines, done.notes) == (0, [ONE, TWO], "")


@pytest.mark.parametrize("end", [b"\n", b""], ids=["LF", "none"])
def test_a_last_event_without_a_blank_line_is_saved(fal: Sandbox, cli: Cli, end: bytes) -> None:
    streams(fal, IMAGE % 1 + (IMAGE % 2).rstrip() + end)
    done = cli(*STREAM, "--output", "out/")
    assert (done.status, [line["n"] for line in done.lines]) == (0, [1, 2])
    assert len(done.lines[-1]["downloaded_files"]) == 1


@pytest.mark.parametrize("rest", [b'data: {"b": [2', b'data: {"b": [2\n'], ids=["none", "LF"])
def test_half_a_last_event_is_none(fal: Sandbox, cli: Cli, rest: bytes) -> None:
    streams(fal, FIRST + rest)
    done = cli(*STREAM)
    assert (done.status, done.lines) == (1, [ONE])
    assert (done.error["retryable"], len(paid(fal))) == (False, 1)


@pytest.mark.parametrize(
    "content_type",
    ["Text/Event-Stream", "TEXT/EVENT-STREAM", "text/Event-stream; Charset=UTF-8"],
    ids=str,
)
def test_the_case_of_a_content_type_does_not_matter(
    fal: Sandbox, cli: Cli, content_type: str
) -> None:
    streams(fal, FIRST + SECOND, 200, **{"content-type": content_type})
    done = cli(*STREAM)
    assert (done.status, done.lines, done.notes) == (0, [ONE, TWO], "")


# Errors

ERRORS: dict[str, tuple[str, str]] = {
    "detail": ('{"detail": "No GPU is left"}', "No GPU is left"),
    "error": ('{"error": "No GPU is left"}', "No GPU is left"),
    "a message": ('{"message": "No GPU is left"}', "No GPU is left"),
    "error with a message": ('{"error": {"message": "No GPU is left"}}', "No GPU is left"),
    "a list": ('{"detail": [{"loc": ["body", "seed"], "msg": "too odd"}]}', "seed: too odd"),
    "JSON text": ('"No GPU is left"', "No GPU is left"),
    "words": ("No GPU is left", "No GPU is left"),
}


@pytest.mark.parametrize(("data", "reason"), ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("before", [b"", FIRST], ids=["at once", "behind an event"])
def test_an_event_that_is_an_error(
    fal: Sandbox, cli: Cli, data: str, reason: str, before: bytes
) -> None:
    streams(fal, before + f"event: error\ndata: {data}\n\n".encode())
    done = cli(*STREAM)
    assert (done.status, done.lines) == (1, [ONE] if before else [])
    assert reason in done.error["message"]
    assert (done.error["retryable"], len(paid(fal))) == (False, 1)


def test_an_error_keeps_what_was_to_be_saved(fal: Sandbox, cli: Cli) -> None:
    """The event before it is printed, since nothing else is to come."""
    streams(fal, FIRST + SECOND + b"event: error\ndata: Oh no\n\n")
    done = cli(*STREAM, "--output", "out/")
    assert done.status == 1
    assert "Oh no" in done.error["message"]
    assert [{**line, "downloaded_files": 0} for line in done.lines] == [
        {**event, "downloaded_files": 0} for event in (ONE, TWO)
    ]


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(("data", "reason"), ERRORS.values(), ids=ERRORS)
def test_an_error_status_that_is_told_as_an_event(
    fal: Sandbox, cli: Cli, status: int, data: str, reason: str
) -> None:
    streams(fal, f"event: error\ndata: {data}\n\n".encode(), status)
    done = cli(*STREAM)
    assert (done.status, done.stdout, done.error["status"]) == (1, "", status)
    assert reason in done.error["message"]
    assert "gateway" not in done.error["message"]


def test_an_error_status_with_data_alone(fal: Sandbox, cli: Cli) -> None:
    streams(fal, b': hello\nretry: 5\n\ndata: {"detail": "No GPU is left"}\n\n', 400)
    done = cli(*STREAM)
    assert (done.status, done.error["message"]) == (1, "No GPU is left")


# Upload tokens

TOKENS: dict[str, Any] = {
    "empty": "",
    "blanks": "  ",
    "a space": "dummy token",
    "a line break": "dummy\ntoken",
    "a line break at the end": "dummy-token\n",
    "a header": "dummy\r\nX-Evil: 1",
    "a null character": "dummy\0token",
    "no ASCII": "dummy-tokén",
    "null": None,
    "a number": 7,
    "a list": ["dummy-token"],
    "an object": {"token": "dummy"},
    "true": True,
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_an_upload_token_that_cannot_be_one(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path, token: Any
) -> None:
    """fal is asked for another for a while, and nothing is uploaded."""
    answer = {
        "token": token,
        "token_type": "Bearer",
        "base_url": "https://v3.fal.media",
        "expires_at": "2099-01-01T00:00:00Z",
    }
    fal.on("POST", "rest.fal.ai", "/storage/auth/token", fal.always(Reply(json=answer)))
    done = cli("upload-file", "--file", photo.name, env=clock.env(LEAP))
    assert (done.status, done.stdout) == (1, "")
    assert done.error["type"] == "unexpected_answer"
    assert {request.host for request in fal.requests} == {"rest.fal.ai"}
    assert len(json.dumps(done.error)) < 1000


@pytest.mark.parametrize("token_type", ["", "Bear er", "Bearer\n", None, 7], ids=ascii)
def test_the_type_of_an_upload_token(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path, token_type: Any
) -> None:
    answer = {
        "token": "dummy-token",
        "token_type": token_type,
        "base_url": "https://v3.fal.media",
        "expires_at": "2099-01-01T00:00:00Z",
    }
    fal.on("POST", "rest.fal.ai", "/storage/auth/token", fal.always(Reply(json=answer)))
    done = cli("upload-file", "--file", photo.name, env=clock.env(LEAP))
    assert (done.status, done.error["type"]) == (1, "unexpected_answer")
    assert {request.host for request in fal.requests} == {"rest.fal.ai"}


def test_many_heartbeats_do_not_flood(fal: Sandbox, cli: Cli) -> None:
    beats = b"".join(b"data: still at it %d\n\n" % number for number in range(500))
    streams(fal, FIRST + beats + SECOND)
    done = cli(*STREAM)
    assert (done.status, done.lines) == (0, [ONE, TWO])
    assert len(done.stderr.splitlines()) < 100
