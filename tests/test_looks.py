"""A look at a paid job is free: one odd answer ends nothing, and what ends a command says how to
get the response. What comes before a job, tokens and uploads, is free as well."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import LEAP, PATIENCE, Cli, Clock, Outcome, importing, paid
from sandbox import Cut, Reply, Sandbox, nginx

FLUX = "fal-ai/flux/dev"
MINIMAX = "fal-ai/minimax-video/image-to-video"
QUEUE, REST, CDN = "queue.fal.run", "rest.fal.ai", "v3.fal.media"
STATUS = "*/status"
RESULT = "*/requests/*-????????????"  # the end of a UUID
PROMPT = ("--model", FLUX, "--prompt", "A cat")
SUBSCRIBE = ("subscribe-t2i", *PROMPT)
BATCH = ("batch-t2i", "--model", FLUX, "--prompts", "A cat")
JOURNAL = (*BATCH, "--journal", "journal.jsonl")


def page(status: int) -> Reply:
    html = b"<html><title>Sign in</title></html>"
    return Reply(status, content=html, headers={"Content-Type": "text/html"})


def says(status: int, **answer: Any) -> Reply:
    return Reply(status, json=answer or {"detail": "Oh no"}, headers={"Retry-After": "0"})


UNPACKED = Reply(200, content=b"junk", headers={"Content-Encoding": "gzip"})
LOGIN = Reply(302, headers={"Location": "https://example.com/login"})
FORGOTTEN = Reply(404, json={"status": "NOT_FOUND"})
HALF = Reply(200, content=b'{"status": "IN_PR', headers={"Content-Type": "application/json"})

# Answers that are no word on the job, whatever is asked.
ANYWHERE: dict[str, Reply | Cut] = {
    "empty": Reply(200, content=b""),
    "a login page": page(200),
    "a page, 403": page(403),
    "a page, 401": page(401),
    "a page, 404": page(404),
    "a page, 520": page(520),
    "nginx, 502": nginx(502),
    "500": says(500),
    "503": says(503),
    "408": says(408),
    "409": says(409),
    "425": says(425),
    "429": says(429),
    "a redirect": LOGIN,
    "still in progress": says(400, detail="Request is still in progress"),
    "nothing, 204": Reply(204, content=b""),
    "junk for gzip": UNPACKED,
    "half of some JSON": HALF,
    "no reason, 403": Reply(403, json={}),
    "a list, 403": Reply(403, json=["no"]),
    "cut": Cut("request"),
    "cut in the head": Cut("headers"),
    "cut in the body": Cut("body"),
}
OF_STATUS: dict[str, Reply | Cut] = {
    "an empty object": Reply(json={}),
    "null": Reply(),
    "a list": Reply(json=[1]),
    "a number": Reply(json=7),
    "a text": Reply(json="IN_QUEUE"),
    "a number for a word": Reply(202, json={"status": 7}),
    "an empty word": Reply(202, json={"status": " "}),
    "a refusal of arguments": says(422),
}
OF_RESULT: dict[str, Reply | Cut] = {
    "no JSON": Reply(200, text="Service is warming up"),
    "a status, 202": Reply(202, json={"status": "IN_PROGRESS"}),
    "a status, 200": Reply(200, json={"status": "IN_QUEUE", "queue_position": 3}),
}

# Statuses that make sense, though something is missing.
SPARSE = (
    Reply(202, json={"status": "IN_QUEUE"}),
    Reply(202, json={"status": "IN_PROGRESS"}),
    Reply(202, json={"status": "in_queue", "queue_position": "many", "logs": 7}),
    Reply(200, json={"status": "DREAMING"}),
)


def interspersed(odd: list[Reply | Cut]) -> Iterator[Reply | Cut]:
    """Some odd answers in a row, and then one that makes sense, again and again."""
    sparse = itertools.cycle(SPARSE)
    for start in range(0, len(odd), 8):
        yield from odd[start : start + 8]
        yield next(sparse)
    yield from SPARSE


def looks(fal: Sandbox) -> list[str]:
    """The paths of the questions about jobs."""
    there = [request for request in fal.requests if request.host == QUEUE]
    return [request.path for request in there if request.method == "GET"]


def asked(fal: Sandbox, host: str, ending: str = "") -> int:
    there = [r for r in fal.requests if r.host == host and r.path.endswith(ending)]
    return len(there)


def submitted(fal: Sandbox, cli: Cli) -> tuple[str, ...]:
    """A command line for the response of a job of an earlier command."""
    request_id = cli("submit-t2i", *PROMPT).json["request_id"]
    return ("result", "--model", FLUX, "--request-id", request_id)


def begun(fal: Sandbox, cli: Cli) -> tuple[str, ...]:
    """A command line for a batch that was stopped when its job was accepted."""
    fal.on("GET", QUEUE, STATUS, Reply(401, json={"detail": "Come back later"}))
    assert cli(*JOURNAL).status == 1
    return JOURNAL


COMMANDS: dict[str, Callable[[Sandbox, Cli], tuple[str, ...]]] = {
    "subscribe": lambda fal, cli: SUBSCRIBE,
    "batch": lambda fal, cli: BATCH,
    "result": submitted,
    "resume": begun,
}


def in_halves(odd: dict[str, Reply | Cut]) -> list[list[Reply | Cut]]:
    """Nobody waits for two minutes and more."""
    answers = list(odd.values())
    return [answers[0::2], answers[1::2]]


@pytest.mark.parametrize("half", [0, 1], ids=["one half", "the other"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_odd_answer_ends_the_wait_for_a_job(
    fal: Sandbox, cli: Cli, clock: Clock, command: str, half: int
) -> None:
    argv = COMMANDS[command](fal, cli)
    of_status = in_halves({**ANYWHERE, **OF_STATUS})[half]
    if command != "result":  # where it may be the user who is mistaken
        of_status.insert(0, FORGOTTEN)
    of_result = in_halves({**ANYWHERE, **OF_RESULT})[half]
    expected = [*interspersed(of_status), "completed", *of_result, "the response"]
    fal.on("GET", QUEUE, STATUS, *interspersed(of_status))
    fal.on("GET", QUEUE, RESULT, *of_result)
    before = len(looks(fal))
    done = cli(*argv, env=clock.env(LEAP))
    assert (done.status, '"images"' in done.stdout) == (0, True), done.stderr
    assert (len(looks(fal)) - before, len(paid(fal))) == (len(expected), 1)
    told = [line for line in done.stderr.splitlines() if "asking again" in line]
    assert len(told) == len({*told}) > 5


# What does not end by itself

LASTING: dict[str, tuple[str, Reply | Cut, int]] = {
    "no status": (STATUS, Reply(json={}), 1),
    "a page, 403": (STATUS, page(403), 4),
    "forgotten": (STATUS, FORGOTTEN, 1),
    "500": (RESULT, says(500), 1),
    "nothing": (RESULT, Reply(200, content=b""), 1),
    "cut": (RESULT, Cut("headers"), 4),
}


def look_up(error: Any) -> str:
    return f"result --model {FLUX} --request-id {error['request_id']}"


@pytest.mark.parametrize("case", LASTING)
def test_what_stays_odd_ends_after_two_minutes(
    fal: Sandbox, cli: Cli, clock: Clock, case: str
) -> None:
    path, answer, status = LASTING[case]
    fal.on("GET", QUEUE, path, fal.always(answer))
    for argv in (SUBSCRIBE, BATCH):
        started = clock.now()
        done = cli(*argv, env=clock.env(LEAP))
        assert 100 < clock.now() - started < 130
        batch = argv is BATCH
        error = done.lines[0]["error"] if batch else done.error
        assert (done.status, error["retryable"]) == (1 if batch else status, False), done.stderr
        assert look_up(error) in error["hint"]
    assert len(paid(fal)) == 2
    request_id = next(iter(fal.jobs))
    done = cli("result", "--model", FLUX, "--request-id", request_id, env=clock.env(LEAP))
    assert (done.status, done.error["retryable"]) == (status, case != "forgotten")


def test_a_text_that_nobody_vouches_for_is_printed_in_the_end(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    """It is paid for; and so is what a connection has left of a response."""
    for content, status in ((b"A cat in words", 0), (b'{"images": [', 1)):
        fal.on("GET", QUEUE, RESULT, *[Reply(200, content=content)] * 30)
        done = cli(*SUBSCRIBE, env=clock.env(LEAP))
        assert (done.status, done.json) == (status, content.decode())
        fal.reset()


def test_a_half_that_becomes_whole_is_printed_once(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.on("GET", QUEUE, RESULT, Reply(200, content=b'{"images": ['))
    done = cli(*SUBSCRIBE, env=clock.env(LEAP))
    assert (done.status, len(done.json["images"])) == (0, 1)


# What ends a command at once

FINAL: dict[str, tuple[str, Reply, int, bool]] = {
    "the key, at the status": (STATUS, says(401), 3, True),
    "the key, at the response": (RESULT, says(403), 3, True),
    "arguments": (RESULT, says(422, detail=[{"msg": "Too wide", "type": "less_than"}]), 1, False),
    "cancelled": (RESULT, says(499, detail="Cancelled", error_type="client_cancelled"), 1, False),
    "no such path": (RESULT, says(404, detail="Path /x not found"), 1, False),
    "what the model says, 500": (
        RESULT,
        says(500, detail=[{"msg": "Oh", "type": "internal_server_error"}]),
        1,
        False,
    ),
    "a word on repetitions": (
        RESULT,
        Reply(503, json={"detail": "Oh"}, headers={"X-Fal-Needs-Retry": "0"}),
        1,
        False,
    ),
    "too late": (
        RESULT,
        Reply(504, json={"detail": "Oh"}, headers={"X-Fal-Request-Timeout-Type": "user"}),
        5,
        False,
    ),
}


@pytest.mark.parametrize("case", FINAL)
def test_what_is_final_ends_a_command_at_once(fal: Sandbox, cli: Cli, case: str) -> None:
    path, answer, status, is_there = FINAL[case]
    fal.on("GET", QUEUE, path, fal.always(answer))
    done = cli(*SUBSCRIBE)
    assert done.status == status, done.stderr
    assert (look_up(done.error) in done.error.get("hint", "")) == is_there
    assert len([one for one in looks(fal) if one.endswith("/status") == (path == STATUS)]) == 1


def test_a_job_that_failed_is_not_asked_about_again(fal: Sandbox, cli: Cli) -> None:
    """The status says so, and the answer is in fal's words, whatever they are."""
    failed = Reply(200, json={"status": "COMPLETED", "error": "Invalid status code: 500"})
    fal.on("GET", QUEUE, STATUS, failed)
    fal.on("GET", QUEUE, RESULT, fal.always(says(500)))
    done = cli(*SUBSCRIBE)
    assert (done.status, done.error["message"]) == (1, "Oh no")
    assert asked(fal, QUEUE, "/status") == 1
    assert "result" not in done.error.get("hint", "")


def test_a_request_that_the_user_made_up_is_not_waited_for(fal: Sandbox, cli: Cli) -> None:
    for command in ("status", "result"):
        done = cli(command, "--model", FLUX, "--request-id", "made-up")
        assert (done.status, done.error["type"], done.error["retryable"]) == (1, "not_found", False)
    assert len(looks(fal)) == 2


def test_a_job_that_fal_has_forgotten_does_not_hold_up_a_batch(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    argv = begun(fal, cli)
    fal.on("GET", QUEUE, STATUS, fal.always(FORGOTTEN))
    started = clock.now()
    done = cli(*argv, env=clock.env(LEAP))
    assert (done.status, len(paid(fal))) == (1, 1)
    assert 2 < clock.now() - started < 6
    assert cli(*argv, "--retry-failed", env=clock.env(LEAP)).status == 1
    assert len(paid(fal)) == 2


# A glance


def test_the_status_is_asked_for_again_for_a_moment(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    *_, request_id = submitted(fal, cli)
    argv = ("status", "--model", FLUX, "--request-id", request_id)
    fal.on("GET", QUEUE, STATUS, Reply(json={}), page(403), Cut("request"))
    assert cli(*argv, env=clock.env(LEAP)).json["status"] == "COMPLETED"
    fal.on("GET", QUEUE, STATUS, Reply(202, json={"status": "DREAMING"}))
    done = cli(*argv, env=clock.env(LEAP))
    assert (done.json["status"], "DREAMING" in done.stderr) == ("IN_PROGRESS", True)
    for answer, status in ((Reply(json=[1]), 1), (page(200), 1), (LOGIN, 1), (says(500), 1)):
        fal.on("GET", QUEUE, STATUS, *[answer] * 9)
        started = clock.now()
        done = cli(*argv, env=clock.env(LEAP))
        assert (done.status, done.error["retryable"]) == (status, True)
        assert clock.now() - started < 6
        fal.reset()


def test_a_word_that_nobody_knows_does_not_hold_a_response_back(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    """The HTTP status tells, too, whether a job has ended."""
    fal.on("GET", QUEUE, STATUS, fal.always(Reply(200, json={"status": "SUCCEEDED"})))
    started = clock.now()
    done = cli(*SUBSCRIBE, env=clock.env(LEAP))
    assert (done.status, len(done.json["images"])) == (0, 1)
    assert 115 < clock.now() - started < 130


# Whatever ends a command


def python(code: str, environment: dict[str, str], folder: Path, *argv: str) -> Outcome:
    """A process that runs some code before it runs the command line."""
    code = f"import sys, skill_fal\n{code}\nsys.exit(skill_fal.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env={**environment, **importing()},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


ACCIDENTS = {
    "a bug of ours": ("raise KeyError('dummy')", 1),
    "no more descriptors": ("raise OSError(24, 'Too many open files', 'some file')", 1),
    "no more memory": ("raise MemoryError", 1),
}


@pytest.mark.parametrize("case", ACCIDENTS)
def test_an_accident_leaves_no_job_without_a_way_to_it(
    fal: Sandbox, environment: dict[str, str], tmp_path: Path, case: str
) -> None:
    line, status = ACCIDENTS[case]
    code = f"def broken(*_):\n    {line}\nskill_fal.state_in_words = broken"
    for argv in (SUBSCRIBE, BATCH):
        done = python(code, environment, tmp_path, *argv)
        request_id = list(fal.jobs)[-1]
        assert (done.status, len(paid(fal))) == (status, len(fal.jobs))
        told = done.stdout + done.stderr
        assert f"result --model {FLUX} --request-id {request_id}" in told
        assert done.error["retryable"] is False


@pytest.mark.parametrize("webhook", [(), ("--webhook-url", "https://example.com/hook")], ids=len)
def test_an_output_that_takes_nothing_leaves_a_way_to_the_job(
    fal: Sandbox, shell: Callable[..., Outcome], webhook: tuple[str, ...]
) -> None:
    argvs = [("submit-t2i", *PROMPT, *webhook)]
    if not webhook:
        argvs += [SUBSCRIBE, BATCH]
    for argv, sink in itertools.product(argvs, ("> /dev/full", "| true")):
        done = shell(argv, sink)
        assert done.status in (1, 141)
        request_id = list(fal.jobs)[-1]
        last_line = done.stderr.splitlines()[-1]
        assert f"result --model {FLUX} --request-id {request_id}" in last_line


# Before a job: tokens and uploads

RAIN = ("submit-i2v", "--model", MINIMAX, "--image-url", "photo.jpg", "--prompt", "Rain")
TOKEN = {
    "token": "dummy-token",
    "token_type": "Bearer",
    "base_url": f"https://{CDN}",
    "expires_at": "2099-01-01T00:00:00+00:00",
}
ODD_TOKENS = (
    Reply(json={**TOKEN, "token": ""}),
    Reply(json={**TOKEN, "base_url": None}),
    Reply(json={}),
    Reply(json=[1]),
    page(200),
)
BUSY = (says(429), says(500), nginx(503), Cut("request"), says(504), Cut("body"))


def test_what_comes_before_a_job_is_asked_for_again(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path
) -> None:
    fal.on("POST", REST, "/storage/*", *BUSY, *ODD_TOKENS)
    fal.on("POST", CDN, "/files/upload", *BUSY)
    done = cli(*RAIN, env=clock.env(LEAP))
    assert (done.status, len(paid(fal))) == (0, 1), done.stderr
    (job,) = fal.jobs.values()
    assert job.arguments["image_url"] == fal.uploads[-1].url
    assert (asked(fal, REST), asked(fal, CDN)) == (12, 7)


def test_a_token_that_stays_odd_is_fals_fault(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path
) -> None:
    for answer in ODD_TOKENS:
        fal.on("POST", REST, "/storage/*", fal.always(answer))
        started = clock.now()
        done = cli(*RAIN, env=clock.env(LEAP))
        assert (done.status, done.error["type"]) == (1, "unexpected_answer"), done.stderr
        assert clock.now() - started < 65
        fal.reset()
    assert paid(fal) == []


def test_an_upload_that_stays_refused_ends_after_a_minute(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path
) -> None:
    fal.on("POST", CDN, "/files/upload", fal.always(says(500)))
    started = clock.now()
    done = cli(*RAIN, env=clock.env(LEAP))
    assert (done.status, done.error["status"], done.error["retryable"]) == (1, 500, True)
    assert (45 < clock.now() - started < 65, paid(fal)) == (True, [])


def test_an_upload_that_failed_is_tried_again_for_the_next_job(
    fal: Sandbox, cli: Cli, photo: Path
) -> None:
    fal.on("POST", CDN, "/files/upload", Reply(403, json={"detail": "Not now"}))
    pictures = ("--image-urls", "photo.jpg", "photo.jpg", "photo.jpg", "--concurrency", "1")
    argv = ("batch-i2v", "--model", MINIMAX, *pictures, "--prompt", "Rain")
    done = cli(*argv)
    assert done.status == 1
    assert sorted("error" in line for line in done.lines) == [False, False, True]
    assert (len(paid(fal)), asked(fal, CDN, "/upload")) == (2, 2)


def test_a_token_for_realtime_is_asked_for_again(fal: Sandbox, cli: Cli) -> None:
    odd = (Reply(json=""), Reply(json={"token": ""}), Reply(json={"detail": "Later"}))
    fal.on("POST", REST, "/tokens/", says(500), *odd)
    argv = ("realtime", "--model", FLUX, "--arguments-json", '{"prompt": "A cat"}')
    done = cli(*argv)
    assert (done.status, asked(fal, REST, "/tokens/")) == (0, 5), done.stderr
