"""The error contract: what went wrong decides the exit status and the last line of stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FOR_EVER,
    LEAP,
    PATIENCE,
    SKILL,
    Cli,
    Clock,
    Late,
    Outcome,
    Starter,
    finished,
    is_look_up,
    never_listed,
    paid,
    read_until,
    sent,
    wait_for,
)
from PIL import Image
from sandbox import Always, Cut, Reply, Sandbox, Stall, nginx

FLUX = "fal-ai/flux/dev"
MINIMAX = "fal-ai/minimax-video/image-to-video"
QUEUE, RUN, REST, CDN = "queue.fal.run", "fal.run", "rest.fal.ai", "*.fal.media"
SUBMIT = ("submit-t2i", "--model", FLUX, "--prompt", "A cat")
SUBSCRIBE = ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
RUN_IT = ("run-t2i", "--model", FLUX, "--prompt", "A cat")
STREAM = ("stream-t2i", "--model", FLUX, "--prompt", "A cat")
UPLOAD = ("upload-file", "--file", "file.bin")
SEARCH = ("list-models", "--search", "kling")
REALTIME = ("realtime", "--model", FLUX, "--arguments-json", '{"prompt": "A cat"}')
JOB = ("--model", FLUX, "--request-id", "no-such-request")

RESULT = "*/requests/*-????????????"  # the end of a UUID

KEYS = ["type", "message", "model", "request_id", "status", "retryable", "hint", "details"]
REQUIRED = {"type", "message", "retryable"}
EXIT_STATUSES = {0, 1, 2, 3, 4, 5}


def the_error(done: Outcome) -> dict[str, Any]:
    """The error object, once all that holds for any failure has been checked."""
    lines = done.stderr.splitlines()
    assert done.stderr.endswith("\n")
    assert [line for line in lines if line.startswith('{"error"')] == lines[-1:]
    document = json.loads(lines[-1])
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    assert list(error) == [key for key in KEYS if key in error]
    assert set(error) >= REQUIRED
    assert all(value is not None for value in error.values())
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert isinstance(error["retryable"], bool)
    return error


@dataclass(frozen=True)
class Case:
    """A command that fails: how, and what it says then."""

    argv: tuple[str, ...]
    exit: int
    type: str
    retryable: bool | None = False  # None if that depends on what was sent before
    hint: str = ""
    message: str = ""
    status: int | None = None
    details: list[dict[str, str]] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    script: Callable[[Sandbox], None] = lambda fal: None
    jobs: int = 0  # that were paid for
    late: bool = False  # time flies, once fal was asked for something


def on(method: str, host: str, path: str, *actions: Any) -> Callable[[Sandbox], None]:
    return lambda fal: fal.on(method, host, path, *actions)


def refuse(host: str) -> Callable[[Sandbox], None]:
    return lambda fal: fal.refuse(host)


def cut_off(*hosts: str) -> Callable[[Sandbox], None]:
    def arrange(fal: Sandbox) -> None:
        for host in hosts:
            fal.cut_off(host)

    return arrange


def prompted(argv: tuple[str, ...], prompt: str) -> tuple[str, ...]:
    return (*argv[:-1], prompt)


def html(status: int) -> Reply:
    return Reply(status, content=b"<h1>Hello</h1>", headers={"content-type": "text/html"})


KEYS_PAGE = "https://fal.ai/dashboard/keys"
BILLING_PAGE = "https://fal.ai/dashboard/billing"
REQUESTS_PAGE = "https://fal.ai/dashboard/requests"
NSFW = {"field": "prompt", "type": "content_policy_violation"}
INVALID = {
    "detail": [
        {"loc": ["body", "image_size", "width"], "msg": "Too wide", "type": "less_than"},
        {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"},
        {"loc": ["body"], "msg": "All wrong", "type": "value_error"},
        {"loc": ["body", "loras", 0, "path"], "msg": "No", "type": "file_download_error"},
    ]
}
FLAT = [
    {"field": "image_size.width", "message": "Too wide", "type": "less_than"},
    {"field": "prompt", "message": "Field required", "type": "missing"},
    {"field": "", "message": "All wrong", "type": "value_error"},
    {"field": "loras.0.path", "message": "No", "type": "file_download_error"},
]
PLATFORM = {"detail": "Runner fell over", "error_type": "runner_server_error"}

CREDENTIALS = {
    "no key": Case(SUBMIT, 3, "credentials_missing", hint=KEYS_PAGE, env={"FAL_KEY": ""}),
    "blank key": Case(SUBMIT, 3, "credentials_missing", hint=KEYS_PAGE, env={"FAL_KEY": " \n\t"}),
    "half a pair": Case(
        SUBMIT,
        3,
        "credentials_missing",
        hint=KEYS_PAGE,
        env={"FAL_KEY": "", "FAL_KEY_ID": "dummy-id"},
    ),
    "unknown key": Case(
        SUBMIT,
        3,
        "unauthorized",
        hint=KEYS_PAGE,
        message="No user found",
        status=401,
        env={"FAL_KEY": "wrong:dummy-example-secret"},
        jobs=1,
    ),
    "key without a colon": Case(
        SUBMIT,
        3,
        "unauthorized",
        hint=KEYS_PAGE,
        message="Invalid Key Authorization header format",
        status=401,
        env={"FAL_KEY": "dummy-example-secret"},
        jobs=1,
    ),
    "locked account at submit": Case(
        SUBMIT,
        3,
        "account_locked",
        hint=BILLING_PAGE,
        message="User is locked",
        status=403,
        env={"FAL_KEY": "locked:dummy-example-secret"},
        jobs=1,
    ),
    "locked account at run": Case(
        RUN_IT,
        3,
        "account_locked",
        hint=BILLING_PAGE,
        status=403,
        env={"FAL_KEY": "locked:dummy-example-secret"},
        jobs=1,
    ),
    "unknown key at status": Case(
        ("status", *JOB),
        3,
        "unauthorized",
        hint=KEYS_PAGE,
        status=401,
        env={"FAL_KEY": "wrong:dummy-example-secret"},
    ),
    "unknown key at upload": Case(
        UPLOAD,
        3,
        "unauthorized",
        hint=KEYS_PAGE,
        message="No user found",
        status=401,
        env={"FAL_KEY": "wrong:dummy-example-secret"},
    ),
    "unknown key at stream": Case(
        STREAM,
        3,
        "unauthorized",
        hint=KEYS_PAGE,
        message="No user found",
        status=401,
        env={"FAL_KEY": "wrong:dummy-example-secret"},
        jobs=1,
    ),
    "unknown key at realtime": Case(
        REALTIME,
        3,
        "unauthorized",
        hint=KEYS_PAGE,
        message="No user found",
        status=401,
        env={"FAL_KEY": "wrong:dummy-example-secret"},
    ),
    "unknown key at model search": Case(
        SEARCH,
        3,
        "authorization_error",
        hint=KEYS_PAGE,
        message="No user found",
        status=401,
        env={"FAL_KEY": "wrong:dummy-example-secret"},
    ),
}

REFUSED = {
    "unknown model at submit": Case(
        ("submit-t2i", "--model", "fal-ai/fluxx/dev", "--prompt", "A cat"),
        1,
        "not_found",
        hint="fal-ai/flux/dev",
        message='Application "fluxx" not found',
        status=404,
        jobs=1,
    ),
    "unknown model at stream": Case(
        ("stream-t2i", "--model", "fal-ai/fluxx/dev", "--prompt", "A cat"),
        1,
        "not_found",
        hint="fal-ai/flux/dev",
        message='Application "fluxx" not found',
        status=404,
        jobs=1,
    ),
    "unknown sub-path, known at the result alone": Case(
        ("subscribe-t2i", "--model", "fal-ai/flux/nonsense", "--prompt", "A cat"),
        1,
        "not_found",
        message="Path /nonsense not found",
        status=404,
        jobs=1,
    ),
    "status of no request": Case(
        ("status", *JOB), 1, "not_found", hint="--request-id", message="no such request", status=404
    ),
    "result of no request": Case(
        ("result", *JOB), 1, "not_found", hint="--request-id", message="no such request", status=404
    ),
    "cancel of no request": Case(
        ("cancel", *JOB), 1, "not_found", hint="--request-id", message="no such request", status=404
    ),
    "failed job": Case(
        prompted(SUBSCRIBE, "[fail] A cat"),
        1,
        "internal_server_error",
        message="The model stumbled over this prompt.",
        status=500,
        jobs=1,
    ),
    "failed run": Case(
        prompted(RUN_IT, "[fail] A cat"), 1, "internal_server_error", status=500, jobs=1
    ),
    "failed stream": Case(
        prompted(STREAM, "[fail] A cat"),
        1,
        "internal_server_error",
        message="The model stumbled over this prompt.",
        status=500,
        jobs=1,
    ),
    "refused picture": Case(
        prompted(SUBSCRIBE, "[nsfw] A cat"),
        1,
        "content_policy_violation",
        hint="Reword",
        message="content checker",
        status=422,
        jobs=1,
    ),
    "refused stream": Case(
        prompted(STREAM, "[nsfw] A cat"),
        1,
        "content_policy_violation",
        message="content checker",
        status=422,
        jobs=1,
    ),
    "bad arguments at the result": Case(
        SUBSCRIBE,
        1,
        "less_than",
        message="image_size.width: Too wide; prompt: Field required",
        status=422,
        details=FLAT,
        script=on("GET", QUEUE, RESULT, Reply(422, json=INVALID)),
        jobs=1,
    ),
    "bad arguments at run": Case(
        RUN_IT,
        1,
        "less_than",
        hint=FLUX,
        status=422,
        details=FLAT,
        script=on("POST", RUN, "*", Reply(422, json=INVALID)),
        jobs=1,
    ),
    "bad arguments at stream": Case(
        STREAM,
        1,
        "less_than",
        hint=FLUX,
        message="image_size.width: Too wide; prompt: Field required",
        status=422,
        details=FLAT,
        script=on("POST", RUN, "*", Reply(422, json=INVALID)),
        jobs=1,
    ),
    "platform error at run": Case(
        RUN_IT,
        1,
        "runner_server_error",
        message="Runner fell over",
        status=500,
        script=on("POST", RUN, "*", Reply(500, json=PLATFORM)),
        jobs=1,
    ),
    "platform error in a header": Case(
        ("status", *JOB),
        1,
        "internal_error",
        retryable=True,
        status=500,
        script=on(
            "GET",
            QUEUE,
            "*",
            Always(
                Reply(
                    500,
                    json={"detail": "Oh"},
                    headers={"X-Fal-Error-Type": "internal_error", "Retry-After": "0"},
                )
            ),
        ),
    ),
    "an error that is worth another try": Case(
        RUN_IT,
        1,
        "generation_timeout",
        retryable=True,
        status=500,
        script=on(
            "POST",
            RUN,
            "*",
            Reply(
                500,
                json={"detail": [{"loc": ["body"], "msg": "Slow", "type": "generation_timeout"}]},
                headers={"X-Fal-Retryable": "true"},
            ),
        ),
        jobs=1,
    ),
    "404 that is null": Case(
        ("status", *JOB), 1, "not_found", status=404, script=on("GET", QUEUE, "*", Reply(404))
    ),
    "detail that is an object": Case(
        RUN_IT,
        1,
        "bad_request",
        message="too many",
        status=400,
        script=on("POST", RUN, "*", Reply(400, json={"detail": {"msg": "too many"}})),
        jobs=1,
    ),
    "detail that is an empty list": Case(
        RUN_IT,
        1,
        "invalid_arguments",
        status=422,
        script=on("POST", RUN, "*", Reply(422, json={"detail": []})),
        jobs=1,
    ),
    "details that are no objects": Case(
        RUN_IT,
        1,
        "invalid_arguments",
        message="nothing works",
        status=422,
        details=[{"field": "", "message": "nothing works", "type": "invalid_arguments"}],
        script=on("POST", RUN, "*", Reply(422, json={"detail": ["nothing works"]})),
        jobs=1,
    ),
    "model search in the third shape": Case(
        SEARCH,
        1,
        "validation_error",
        message="limit must be positive",
        status=400,
        script=on(
            "GET",
            "api.fal.ai",
            "*",
            Reply(
                400,
                json={"error": {"type": "validation_error", "message": "limit must be positive"}},
            ),
        ),
    ),
    "model search too often": Case(
        SEARCH,
        1,
        "rate_limited",
        retryable=True,
        hint="Wait",
        status=429,
        script=on(
            "GET",
            "api.fal.ai",
            "*",
            Reply(429, json={"error": {"type": "rate_limited", "message": "Too many requests"}}),
        ),
    ),
    "refused by realtime": Case(
        (*REALTIME[:-1], '{"num_images": 1}'), 1, "realtime_error", message="INVALID_INPUT"
    ),
}

# Answers that are not fal's: a page, a redirect, JSON of the wrong shape.
MISREAD = {
    f"{stage}: {name}": Case(
        argv, 1, "unexpected_answer", script=on("*", host, path, reply), jobs=jobs
    )
    for stage, argv, host, path, jobs in (
        ("submit", SUBMIT, QUEUE, "*", 1),
        ("upload", UPLOAD, CDN, "*", 0),
        ("model search", SEARCH, "api.fal.ai", "*", 0),
    )
    for name, reply in (
        ("HTML with 200", html(200)),
        ("keys missing", Reply(json={})),
        ("null", Reply()),
        ("list", Reply(json=[1])),
        ("number", Reply(json=7)),
    )
    if stage in ("submit", "model search") or name in ("HTML with 200", "null")
}
MISREAD |= {
    "run: HTML with 200": Case(
        RUN_IT, 1, "unexpected_answer", script=on("POST", RUN, "*", html(200)), jobs=1
    ),
    "run: nothing with 200": Case(
        RUN_IT, 1, "unexpected_answer", script=on("POST", RUN, "*", Reply(content=b"")), jobs=1
    ),
    "run: a redirect": Case(
        RUN_IT,
        1,
        "unexpected_answer",
        status=307,
        script=on("POST", RUN, "*", Reply(307, headers={"location": "https://fal.run/other"})),
        jobs=1,
    ),
    "submit: a redirect": Case(
        SUBMIT,
        1,
        "unexpected_answer",
        status=302,
        script=on("POST", QUEUE, "*", Reply(302, headers={"location": "https://fal.ai/login"})),
        jobs=1,
    ),
    "stream: HTML with 200": Case(
        STREAM, 1, "not_a_stream", script=on("POST", RUN, "*", html(200)), jobs=1
    ),
    "realtime: no WebSocket": Case(
        REALTIME,
        1,
        "not_found",
        status=404,
        script=on("WEBSOCKET", RUN, "*", Reply(404, json={"detail": "Path /realtime not found"})),
    ),
}

# The ingress answers for fal: its pages are no words of fal's.
GATEWAY = {
    f"{stage}: nginx {status}": Case(
        argv, 4, "gateway_error", status=status, script=on("POST", host, "*", nginx(status)), jobs=1
    )
    for stage, argv, host in (
        ("submit", SUBMIT, QUEUE),
        ("run", RUN_IT, RUN),
        ("stream", STREAM, RUN),
    )
    for status in (502, 503, 504)
}
BROKEN = {
    f"{stage}: cut at {at}": Case(
        argv,
        4,
        "connection_lost",
        hint="result" if (stage, at) == ("submit", "body") else REQUESTS_PAGE,  # the head came
        script=on("POST", host, "*", Cut(at)),
        jobs=1,
    )
    for stage, argv, host in (
        ("submit", SUBMIT, QUEUE),
        ("run", RUN_IT, RUN),
        ("stream", STREAM, RUN),
    )
    for at in ("request", "headers", "body")
    if (stage, at) != ("stream", "body")
}
UNREACHABLE = {
    f"{stage}: unreachable": Case(
        argv, 4, "unreachable", retryable=True, hint="network", script=cut_off(*hosts)
    )
    for stage, argv, *hosts in (
        ("submit", SUBMIT, QUEUE, "queue.falrun.com"),
        ("status", ("status", *JOB), QUEUE, "queue.falrun.com"),
        ("result", ("result", *JOB), QUEUE, "queue.falrun.com"),
        ("cancel", ("cancel", *JOB), QUEUE, "queue.falrun.com"),
        ("run", RUN_IT, RUN, "falrun.com"),
        ("stream", STREAM, RUN, "falrun.com"),
        ("model search", SEARCH, "api.fal.ai"),
        ("upload token", UPLOAD, REST),
        ("realtime", REALTIME, REST),
    )
}
UNREACHABLE |= {
    "no proxy there": Case(
        SUBMIT,
        4,
        "unreachable",
        retryable=True,
        hint="HTTPS_PROXY",
        env={"HTTPS_PROXY": "http://127.0.0.1:9"},
    ),
    "model search: cut": Case(
        SEARCH, 4, "connection_lost", True, script=on("GET", "api.fal.ai", "*", Cut("request"))
    ),
    "model search: cut in the body": Case(
        SEARCH, 4, "connection_lost", True, script=on("GET", "api.fal.ai", "*", Cut("body"))
    ),
    "realtime: cut before the handshake": Case(
        REALTIME, 4, "unreachable", True, script=on("WEBSOCKET", RUN, "*", Cut("request"))
    ),
    "realtime: cut after the handshake": Case(
        REALTIME, 4, "connection_lost", None, script=on("WEBSOCKET", RUN, "*", Cut("headers"))
    ),
    "realtime: cut in an answer": Case(
        REALTIME, 4, "connection_lost", script=on("WEBSOCKET", RUN, "*", Cut("body"))
    ),
    "proxy: hangs up on submit": Case(SUBMIT, 4, "unreachable", True, script=refuse(QUEUE)),
    "proxy: hangs up on run": Case(RUN_IT, 4, "unreachable", True, script=refuse(RUN)),
    "proxy: hangs up on stream": Case(STREAM, 4, "unreachable", True, script=refuse(RUN)),
    "proxy: hangs up on realtime": Case(REALTIME, 4, "unreachable", True, script=refuse(RUN)),
}


def stall(host: str) -> Callable[[Sandbox], None]:
    return on("*", host, "*", Stall(FOR_EVER))


def never_starts(fal: Sandbox) -> None:
    fal.queue_seconds = FOR_EVER


def soon(argv: tuple[str, ...]) -> tuple[str, ...]:
    return (*argv, "--client-timeout", "5")


LATE = {
    "submit: stalled": Case(soon(SUBMIT), 5, "timeout", script=stall(QUEUE), jobs=1, late=True),
    "status: stalled": Case(soon(("status", *JOB)), 5, "timeout", script=stall(QUEUE), late=True),
    "upload of the picture: stalled": Case(
        soon(("submit-i2v", "--model", MINIMAX, "--image-url", "dot.gif", "--prompt", "Rain")),
        5,
        "timeout",
        script=stall(REST),
        late=True,
    ),
    "start timeout in the queue": Case(
        (*SUBSCRIBE, "--start-timeout", "1.1"),
        5,
        "request_timeout",
        retryable=True,
        status=504,
        script=never_starts,
        jobs=1,
    ),
    "start timeout at run": Case(
        (*RUN_IT, "--start-timeout", "1.1"),
        5,
        "request_timeout",
        retryable=True,
        status=504,
        script=never_starts,
        jobs=1,
    ),
    "start timeout at stream": Case(
        (*STREAM, "--start-timeout", "1.1"),
        5,
        "request_timeout",
        retryable=True,
        status=504,
        script=never_starts,
        jobs=1,
    ),
}
USAGE = {"usage": Case(("submit-t2i", "--prompt", "A cat"), 2, "usage_error", hint="--help")}
TABLE = {**CREDENTIALS, **REFUSED, **MISREAD, **GATEWAY, **BROKEN, **UNREACHABLE, **LATE, **USAGE}


@pytest.mark.parametrize("name", TABLE)
def test_failure(
    fal: Sandbox,
    cli: Cli,
    files: None,
    request: pytest.FixtureRequest,
    name: str,
) -> None:
    case = TABLE[name]
    never_listed(fal)
    case.script(fal)
    if case.late:
        late: Late = request.getfixturevalue("late")
        done = late(*case.argv, once=lambda request: not is_look_up(request))
    elif case.argv[0].startswith("submit"):  # a job may be looked for, for seconds
        clock: Clock = request.getfixturevalue("clock")
        done = cli(*case.argv, env={**clock.env(LEAP), **case.env})
    else:
        done = cli(*case.argv, env=case.env)
    error = the_error(done)
    assert (done.status, done.stdout, error["type"]) == (case.exit, "", case.type), done.stderr
    assert case.message in error["message"]
    assert case.hint in error.get("hint", "")
    assert error.get("status") == case.status
    assert case.retryable in (error["retryable"], None)
    if case.details is not None:
        assert error["details"] == case.details
    if "--model" in case.argv and case.exit not in (2, 3):
        assert error["model"] == case.argv[case.argv.index("--model") + 1]
    if "--request-id" in case.argv:
        assert error["request_id"] == "no-such-request"
    if case.argv[0].startswith("subscribe"):
        assert [error["request_id"]] == list(fal.jobs)
    assert len(paid(fal)) == case.jobs
    secret = case.env.get("FAL_KEY", "").rpartition(":")[2]
    assert len(secret) < 8 or secret not in done.stdout + done.stderr


@pytest.fixture
def files(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"bytes")
    Image.new("L", (1, 1)).save(tmp_path / "dot.gif")


def test_every_exit_status_is_in_the_table() -> None:
    assert {case.exit for case in TABLE.values()} | {0} == EXIT_STATUSES


# The key


ODD_SECRET = "dummy-\"example\\secret'"


@pytest.mark.parametrize("key", ["{}\n", "\r\n {}", "\t{} \n\n"], ids=repr)
def test_white_space_around_the_key(fal: Sandbox, cli: Cli, key: str) -> None:
    done = cli(*SUBMIT, env={"FAL_KEY": key.format("dummy-id:dummy-example-secret")})
    assert done.status == 0
    (request,) = sent(fal)
    assert request.headers["authorization"] == "Key dummy-id:dummy-example-secret"


def test_the_key_in_two_halves(fal: Sandbox, cli: Cli) -> None:
    halves = {"FAL_KEY_ID": "dummy-id", "FAL_KEY_SECRET": "dummy-example-secret"}
    done = cli(*SUBMIT, env={"FAL_KEY": "", **halves})
    assert done.status == 0
    assert sent(fal)[0].headers["authorization"] == "Key dummy-id:dummy-example-secret"


@pytest.mark.parametrize(
    "argv", [SUBMIT, RUN_IT, STREAM, ("status", *JOB), UPLOAD, REALTIME], ids=lambda argv: argv[0]
)
def test_no_command_that_needs_a_key_runs_without(
    fal: Sandbox, cli: Cli, files: None, argv: tuple[str, ...]
) -> None:
    done = cli(*argv, env={"FAL_KEY": ""})
    assert (done.status, the_error(done)["type"]) == (3, "credentials_missing")
    assert fal.requests == []


@pytest.mark.parametrize("inside", ["\n", "\r\nX-Evil: 1\r\n", " ", "é", "\x7f"], ids=ascii)
def test_a_key_that_no_header_can_carry(fal: Sandbox, cli: Cli, inside: str) -> None:
    key = f"dummy-id:dummy-first{inside}example-rest"
    done = cli(*SUBMIT, env={"FAL_KEY": key})
    error = the_error(done)
    assert (done.status, done.stdout, fal.requests) == (3, "", [])
    assert KEYS_PAGE in error["hint"]
    assert not [half for half in ("dummy-first", "example-rest") if half in done.stderr]


def spellings(secret: str) -> list[str]:
    """The secret as it is, and as JSON and Python write it."""
    return [secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], repr(secret.encode())[2:-1]]


@pytest.mark.parametrize(
    "echo",
    [
        lambda key: Reply(401, json={"detail": f"No user found for {key}"}),
        lambda key: Reply(401, json={"detail": {"key": key}}),
        lambda key: Reply(401, json=key),
        lambda key: Reply(401, text=f"<p>No user found for {key}</p>"),
        lambda key: Reply(
            422, json={"detail": [{"loc": ["body", key], "msg": f"Not {key}", "type": key}]}
        ),
        lambda key: Reply(500, json={"detail": "Oh", "error_type": key}),
        lambda key: Reply(json={key: key}),
    ],
    ids=["detail", "object", "text", "html", "details", "type", "200"],
)
def test_a_key_that_fal_echoes(fal: Sandbox, cli: Cli, echo: Callable[[str], Reply]) -> None:
    key = f"dummy-id:{ODD_SECRET}"
    fal.on("POST", QUEUE, "*", echo(key))
    done = cli(*SUBMIT, env={"FAL_KEY": key})
    error = the_error(done)
    assert (done.status in (1, 3), done.stdout) == (True, "")
    for text in (done.stderr, json.dumps(error), error["message"]):
        assert [form for form in spellings(ODD_SECRET) if form in text] == []


def test_a_key_in_the_log_of_a_job(fal: Sandbox, cli: Cli) -> None:
    key = f"dummy-id:{ODD_SECRET}"
    log = {"message": f"key={key}", "timestamp": "2026-01-01T00:00:00+00:00"}
    fal.on("GET", QUEUE, "*/status", Reply(202, json={"status": "IN_PROGRESS", "logs": [log]}))
    done = cli(*SUBSCRIBE, env={"FAL_KEY": key})
    assert done.status == 0
    assert "| key=" in done.stderr
    assert [form for form in spellings(ODD_SECRET) if form in done.stderr] == []


# Jobs


def submit(cli: Cli, prompt: str) -> tuple[str, ...]:
    """Flags that name a new job."""
    done = cli(*prompted(SUBMIT, prompt))
    return "--model", FLUX, "--request-id", done.json["request_id"]


@pytest.mark.usefixtures("clock")  # by which the job does not end before
def test_a_cancelled_job(fal: Sandbox, cli: Cli) -> None:
    job = submit(cli, "[slow] A cat")
    assert cli("cancel", *job).json["status"] == "CANCELLATION_REQUESTED"
    done = cli("result", *job)
    error = the_error(done)
    assert (done.status, done.stdout, error["status"]) == (1, "", 499)
    assert (error["type"], error["retryable"]) == ("client_cancelled", False)
    assert error["request_id"] == job[-1]


def test_too_late_to_cancel(fal: Sandbox, cli: Cli) -> None:
    job = submit(cli, "A cat")
    done = cli("cancel", *job)
    error = the_error(done)
    assert (done.status, done.stdout, error["status"]) == (1, "", 400)
    assert (error["type"], error["message"]) == ("already_completed", "the job has ended already")
    assert "result" in error["hint"]


@pytest.mark.parametrize(("prompt", "words"), [("[fail] A cat", "500"), ("[nsfw] A cat", "422")])
def test_the_status_of_a_failed_job(fal: Sandbox, cli: Cli, prompt: str, words: str) -> None:
    done = cli("status", *submit(cli, prompt))
    assert (done.status, done.stderr, done.json["status"]) == (0, "", "COMPLETED")
    assert words in done.json["error"]


@pytest.mark.parametrize("prompt", ["[fail] A cat", "[nsfw] A cat"])
def test_the_result_of_a_failed_job(fal: Sandbox, cli: Cli, prompt: str) -> None:
    job = submit(cli, prompt)
    done = cli("result", *job)
    error = the_error(done)
    assert (done.status, done.stdout, error["request_id"]) == (1, "", job[-1])
    (item,) = error["details"]
    assert list(item) == ["field", "message", "type"]
    assert item["type"] == error["type"]


ODD_ERRORS = {
    "detail without parts": Reply(422, json={"detail": [{}]}),
    "detail with odd parts": Reply(422, json={"detail": [{"loc": "body", "msg": 7, "type": []}]}),
    "type is a number": Reply(500, json={"detail": "Oh", "error_type": 7}),
    "type is an object": Reply(500, json={"detail": "Oh", "error_type": {"a": 1}}),
    "error is empty": Reply(500, json={"error": {}}),
    "error is odd": Reply(500, json={"error": {"type": [5], "message": None}}),
    "null": Reply(500),
    "lone surrogate": Reply(500, content=b'{"detail": "\\ud800"}'),
    "deep": Reply(500, content=b"[" * 200_000),
    "timeout of a proxy": Reply(408, json={"detail": "Oh"}),
    "conflict": Reply(409, json={"detail": "Oh"}),
}


@pytest.mark.parametrize("name", ODD_ERRORS)
def test_an_odd_error_is_a_refusal(fal: Sandbox, cli: Cli, name: str) -> None:
    """Whatever the shape: one try, fal's refusal is a refusal, and no Python in the words."""
    fal.on("POST", RUN, "*", ODD_ERRORS[name])
    done = cli(*RUN_IT)
    error = the_error(done)
    assert (done.status, done.stdout, len(paid(fal))) == (1, "", 1)
    assert error["type"] not in ("internal_error", "None")
    assert error["message"]
    assert "None" not in json.dumps(error)


ODD_MODELS = {
    "a number": [1],
    "null": [None],
    "without an id": [{}],
    "metadata is a list": [{"endpoint_id": "a/b", "metadata": [1]}],
    "category is a list": [{"endpoint_id": "a/b", "metadata": {"category": ["x"]}}],
}


@pytest.mark.parametrize("name", ODD_MODELS)
def test_an_odd_list_of_models_is_no_bug(fal: Sandbox, cli: Cli, name: str) -> None:
    """Shown or refused, but no bug of ours; cli looks for the traceback."""
    page = {"models": ODD_MODELS[name], "next_cursor": None, "has_more": False}
    fal.on("GET", "api.fal.ai", "*", fal.always(Reply(json=page)))
    for argv in (("list-models",), ("list-models", "--categories")):
        done = cli(*argv)
        assert "bug" not in done.stderr
        assert done.status == 0 or the_error(done)["type"] == "unexpected_answer"


@pytest.mark.parametrize(
    "hiccup",
    [
        Reply(429, json={"detail": "Too many requests"}),
        nginx(502),
        nginx(503),
        nginx(504),
        Cut("request"),
        Cut("headers"),
        Cut("body"),
    ],
    ids=["429", "nginx 502", "nginx 503", "nginx 504", "cut", "cut head", "cut body"],
)
@pytest.mark.parametrize(
    "path", ["*/status", "*/requests/*-????????????"], ids=["status", "result"]
)
def test_a_read_that_fails_once_is_repeated(
    fal: Sandbox, cli: Cli, path: str, hiccup: Reply | Cut
) -> None:
    fal.on("GET", QUEUE, path, hiccup)
    done = cli(*SUBSCRIBE)
    assert (done.status, next(iter(done.json))) == (0, "images")
    assert paid(fal) == [FLUX]


@pytest.mark.parametrize(
    "answer",
    [Reply(429, json={"detail": "Too many requests"}), nginx(502), Cut("request")],
    ids=["429", "nginx", "cut"],
)
def test_a_read_that_keeps_failing_ends_with_the_time_limit(
    fal: Sandbox, cli: Cli, clock: Clock, answer: Reply | Cut
) -> None:
    fal.on("GET", QUEUE, "*", fal.always(answer))
    done = cli("status", *JOB, "--client-timeout", "2", env=clock.env(LEAP))
    assert (done.status, done.stdout, the_error(done)["type"]) == (5, "", "timeout")
    assert len(fal.requests) > 1


def test_the_backup_domain_is_used_in_silence(fal: Sandbox, cli: Cli) -> None:
    fal.cut_off(QUEUE)
    done = cli(*SUBMIT, "--quiet")
    assert (done.status, done.stderr) == (0, "")
    assert [request.host for request in sent(fal)] == ["queue.falrun.com"]


@pytest.mark.parametrize("cut", ["request", "headers", "body"])
def test_a_submit_that_breaks_is_not_repeated(
    fal: Sandbox, cli: Cli, clock: Clock, cut: Any
) -> None:
    """One after the other: a job of --start-timeout, of a batch, and one that is followed."""
    never_listed(fal)
    fal.on("POST", QUEUE, "*", fal.always(Cut(cut)))
    for argv in ((*SUBMIT, "--start-timeout", "30"), SUBSCRIBE):
        before = len(paid(fal))
        done = cli(*argv, env=clock.env(LEAP))
        assert (done.status, done.stdout, the_error(done)["retryable"]) == (4, "", False)
        assert len(paid(fal)) == before + 1


@pytest.mark.parametrize("fault", [nginx(503), Cut("request")], ids=["nginx", "cut"])
def test_an_upload_that_breaks_once(
    fal: Sandbox, cli: Cli, files: None, fault: Reply | Cut
) -> None:
    """Whether it is repeated or not: no job without its picture, no failure without a word."""
    fal.on("POST", CDN, "*", fault)
    done = cli("submit-i2v", "--model", MINIMAX, "--image-url", "dot.gif", "--prompt", "Rain")
    if done.status == 0:
        (job,) = fal.jobs.values()
        assert job.arguments["image_url"] == fal.uploads[-1].url
    else:
        assert (done.status, done.stdout, the_error(done)["retryable"]) == (4, "", True)
        assert paid(fal) == []


# Streams


def events(*lines: bytes) -> Reply:
    content = b"".join(b"data: " + line + b"\n\n" for line in lines)
    return Reply(content=content, headers={"content-type": "text/event-stream"})


def test_a_stream_that_is_cut_keeps_what_came(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", RUN, "*", Cut("body"))
    done = cli(*STREAM)
    error = the_error(done)
    assert (done.status, error["type"], error["model"]) == (4, "connection_lost", FLUX)
    (line,) = done.lines
    assert line["images"]
    assert len(paid(fal)) == 1


@pytest.mark.parametrize(
    "garbage", [b'{"half": ', b"[1, ", b"\xff\xfe"], ids=["half", "half a list", "not UTF-8"]
)
@pytest.mark.parametrize("behind", [(), (b'{"step": 3}',)], ids=["at the end", "in the middle"])
def test_garbage_in_a_stream(
    fal: Sandbox, cli: Cli, garbage: bytes, behind: tuple[bytes, ...]
) -> None:
    """All that can be read is printed, and that it is not all is no success."""
    fal.on("POST", RUN, "*", events(b'{"step": 1}', garbage, *behind))
    done = cli(*STREAM)
    assert (done.status, done.error["type"]) == (1, "unexpected_answer")
    assert done.error["retryable"] is False
    assert done.lines == [{"step": 1}, *map(json.loads, behind)]


def test_what_is_paid_for_is_printed_though_it_is_no_stream(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", RUN, "*", Reply(json={"images": []}))
    done = cli(*STREAM)
    assert (done.status, done.error["type"], done.lines) == (1, "not_a_stream", [{"images": []}])
    assert "subscribe" in done.error["hint"]
    assert len(paid(fal)) == 1


def test_done_ends_a_stream(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", RUN, "*", events(b'{"step": 1}', b"[DONE]"))
    done = cli(*STREAM)
    assert (done.status, done.lines, done.stderr) == (0, [{"step": 1}], "")


def test_a_stream_without_an_event_is_a_failure(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", RUN, "*", events())
    done = cli(*STREAM)
    assert (done.status, done.stdout) == (4, "")
    assert the_error(done)["type"] == "connection_lost"


@pytest.mark.parametrize("event", [b"null", b"[1]", b'"text"', b"7", b"{}"], ids=bytes.decode)
def test_an_event_may_be_any_json(fal: Sandbox, cli: Cli, event: bytes) -> None:
    fal.on("POST", RUN, "*", events(event))
    done = cli(*STREAM)
    assert (done.status, done.lines) == (0, [json.loads(event)])


def test_a_stream_that_stalls(fal: Sandbox, late: Late) -> None:
    fal.on("POST", RUN, "*", Stall(FOR_EVER))
    done = late(*soon(STREAM), once=lambda request: request.method == "POST")
    assert (done.status, done.stdout, the_error(done)["type"]) == (5, "", "timeout")
    assert len(paid(fal)) == 1


def test_a_batch_keeps_what_other_jobs_gave(fal: Sandbox, cli: Cli) -> None:
    prompts = ("A cat", "[fail] A dog", "[nsfw] A cow")
    done = cli("batch-t2i", "--model", FLUX, "--prompts", *prompts)
    error = the_error(done)
    assert (done.status, error["type"], error["retryable"]) == (1, "batch_failed", False)
    lines = sorted(done.lines, key=lambda line: int(line["index"]))
    assert [line["prompt"] for line in lines] == [*prompts]
    assert {line["request_id"] for line in lines} == set(fal.jobs)
    assert lines[0]["result"]["images"]
    types = [line["error"]["type"] for line in lines[1:]]
    assert types == ["internal_server_error", "content_policy_violation"]


# Interrupts and readers that leave


def test_an_interrupted_job_is_cancelled(fal: Sandbox, start: Starter, clock: Clock) -> None:
    child = start(*prompted(SUBSCRIBE, "[slow] A cat"), env=clock.env())
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    (job,) = fal.jobs.values()
    assert job.cancelled
    error = the_error(done)
    assert (done.status, done.stdout) == (130, "")
    assert (error["type"], error["request_id"]) == ("interrupted", job.request_id)
    assert job.request_id in error["hint"]


def test_an_interrupted_run(fal: Sandbox, start: Starter) -> None:
    """It is dropped at fal with the connection; nothing can be looked up."""
    fal.on("POST", RUN, "*", Stall(FOR_EVER))
    child = start(*RUN_IT)
    wait_for(lambda: len(paid(fal)) == 1)
    child.send_signal(signal.SIGINT)
    done = finished(child)
    assert (done.status, done.stdout) == (130, "")
    assert the_error(done)["type"] == "interrupted"
    assert len(paid(fal)) == 1


def test_an_interrupted_batch(fal: Sandbox, start: Starter, clock: Clock) -> None:
    argv = ("batch-t2i", "--model", FLUX, "--prompts", "[slow] A", "[slow] B")
    child = start(*argv, env=clock.env())
    read = read_until(child, "[0] in progress")
    if "[1] in progress" not in read:
        read += read_until(child, "[1] in progress")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    assert (done.status, done.stdout) == (130, "")
    assert the_error(done)["type"] == "interrupted"
    assert [job.cancelled for job in fal.jobs.values()] == [True, True]
    assert all(request_id in done.stderr for request_id in fal.jobs)


def test_an_interrupted_wait_for_a_result_leaves_the_job_alone(
    fal: Sandbox, cli: Cli, start: Starter, clock: Clock
) -> None:
    job = submit(cli, "[slow] A cat")
    child = start("result", *job, env=clock.env())
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    assert (done.status, done.stdout, the_error(done)["request_id"]) == (130, "", job[-1])
    assert not fal.jobs[job[-1]].cancelled


def without_a_reader(
    argv: tuple[str, ...], environment: Mapping[str, str], folder: Path
) -> tuple[int, str]:
    """Exit status and stderr of a process whose stdout nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*SKILL, *argv],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "argv",
    [("list-t2i",), ("list-t2i", "--json"), ("list-models",), STREAM, RUN_IT, ("--help",)],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_a_closed_stdout(
    fal: Sandbox, environment: dict[str, str], tmp_path: Path, argv: tuple[str, ...]
) -> None:
    status, stderr = without_a_reader(argv, environment, tmp_path)
    assert (status, stderr.removeprefix("billed: 1 unit\n")) == (141, "")


def test_a_reader_of_one_line(fal: Sandbox, start: Starter) -> None:
    """The second event is long enough to fill the pipe, if it were still open."""
    fal.on("POST", RUN, "*", events(b'{"step": 1}', b'"' + b"x" * 1_000_000 + b'"'))
    child = start(*STREAM)
    assert child.stdout is not None
    assert json.loads(child.stdout.readline()) == {"step": 1}
    child.stdout.close()
    assert child.stderr is not None
    assert (child.stderr.read(), child.wait(PATIENCE)) == ("", 141)


def test_nobody_reads_stderr(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*SKILL, *SUBSCRIBE],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=writing,
        timeout=PATIENCE,
    )
    os.close(writing)
    assert (done.returncode, next(iter(json.loads(done.stdout)))) == (0, "images")


def test_the_key_goes_to_fal_only(fal: Sandbox, cli: Cli) -> None:
    """Even where an answer of fal's says to look elsewhere."""
    urls = {
        name: f"https://example.com/{name}" for name in ("status_url", "response_url", "cancel_url")
    }
    fal.on("POST", QUEUE, "*", Reply(200, json={"request_id": "r-1", **urls}))
    done = cli(*SUBSCRIBE)
    error = the_error(done)
    assert (done.status, error["type"], error["request_id"]) == (1, "unexpected_answer", "r-1")
    assert not [request for request in fal.requests if request.host == "example.com"]


OH_NO = Reply(500, json={"detail": "Oh no"}, headers={"Retry-After": "0"})


def test_what_was_paid_is_not_called_retryable(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    """Reading the status may be tried again; the command that paid may not."""
    fal.on("GET", QUEUE, "*/status", fal.always(OH_NO))
    error = the_error(cli(*SUBSCRIBE, env=clock.env(LEAP)))
    assert (error["status"], error["retryable"]) == (500, False)
    (request_id,) = fal.jobs
    argv = ("status", "--model", FLUX, "--request-id", request_id)
    again = the_error(cli(*argv, env=clock.env(LEAP)))
    assert (again["status"], again["retryable"]) == (500, True)


def test_an_unreadable_answer_to_a_paid_request(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", RUN, "*", Reply(200, content=b"junk", headers={"content-encoding": "gzip"}))
    done = cli(*RUN_IT)
    assert (done.status, the_error(done)["retryable"], len(paid(fal))) == (4, False, 1)


def test_other_hosts_of_fal_client_are_paid_hosts_too(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "queue.example.com", "*", fal.always(Cut("headers")))
    done = cli(*SUBMIT, env={"FAL_QUEUE_RUN_HOST": "queue.example.com"})
    assert (done.status, the_error(done)["retryable"]) == (4, False)
    assert [r.host for r in fal.requests if r.method == "POST"] == ["queue.example.com"]
    fal.unexpected.clear()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream(closed: str, shell: Callable[..., Outcome]) -> None:
    done = shell(SUBSCRIBE, closed)
    assert done.status == 0
    assert ("images" in done.stdout) == (closed != ">&-")


def test_a_full_disk_loses_no_request_id(fal: Sandbox, shell: Callable[..., Outcome]) -> None:
    done = shell(SUBMIT, "> /dev/full")
    (request_id,) = fal.jobs
    assert (done.status, done.error["type"]) == (1, "output_failed")
    assert (done.error["request_id"], done.error["retryable"]) == (request_id, False)


@pytest.mark.parametrize("argv", [("--help",), ("--version",)], ids=lambda argv: argv[0])
def test_a_full_disk_takes_no_help(shell: Callable[..., Outcome], argv: tuple[str, ...]) -> None:
    done = shell(argv, "> /dev/full")
    assert (done.status, done.error["type"]) == (1, "output_failed")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_signal_cancels_the_job(number: int, fal: Sandbox, start: Starter, clock: Clock) -> None:
    fal.run_seconds = FOR_EVER
    child = start(*SUBSCRIBE, env=clock.env())
    read = read_until(child, "request id")  # fal has taken the job
    child.send_signal(number)
    done = finished(child, read)
    (job,) = fal.jobs.values()
    error = the_error(done)
    assert (done.status, done.stdout, job.cancelled) == (143, "", True)
    assert (error["type"], error["request_id"]) == ("terminated", job.request_id)
    assert error["message"] == f"terminated; fal was asked to cancel {job.request_id}"


@pytest.mark.parametrize("word", [[], {}, 7, None], ids=str)
def test_an_odd_word_in_an_error_is_no_bug_of_ours(fal: Sandbox, cli: Cli, word: Any) -> None:
    fal.on("GET", QUEUE, "*/status", Reply(404, json={"status": word}))
    done = cli("status", "--model", FLUX, "--request-id", "some-request")
    assert (done.status, done.error["type"], done.error["status"]) == (1, "not_found", 404)


def test_the_key_does_not_leave_in_clear_text(fal: Sandbox, cli: Cli) -> None:
    place = f"http://{QUEUE}/fal-ai/flux/requests/some-request"
    urls = {"status_url": f"{place}/status", "response_url": place, "cancel_url": f"{place}/cancel"}
    fal.on("POST", QUEUE, "*", Reply(200, json={"request_id": "some-request", **urls}))
    done = cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
    assert (done.status, done.error["type"]) == (1, "unexpected_answer")
    assert f"http://{QUEUE}, which is not fal's" in done.error["message"]
    assert [request.method for request in fal.requests if request.host == QUEUE] == ["POST"]


@pytest.mark.parametrize("url", ["", "no URL", "ftp://example.com/x", None, 7], ids=str)
def test_an_upload_without_a_url_is_not_the_users_fault(
    fal: Sandbox, cli: Cli, photo: Path, url: Any
) -> None:
    fal.on("POST", CDN, "*", Reply(200, json={"access_url": url}))
    done = cli("upload-file", "--file", str(photo))
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "unexpected_answer")
