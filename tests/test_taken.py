"""What fal has taken, and what never left: one POST a job, whatever is answered or stopped."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FLY,
    FOR_EVER,
    LEAP,
    STILL,
    Cli,
    Clock,
    Outcome,
    Starter,
    finished,
    importing,
    leaping,
    never_listed,
    paid,
    wait_for,
)
from sandbox import Cut, Hold, Pass, Reply, Sandbox, Stall, nginx
from sandbox.gate import Gate, Stage

FLUX = "fal-ai/flux/dev"
QUEUE = "queue.fal.run"
STATUS = "*/status"
RESULT = "*/requests/*-????????????"  # and not its status
PROMPT = ("--model", FLUX, "--prompt", "A cat")
JOURNAL = ("--model", FLUX, "--journal", "journal.jsonl", "--no-schema")
ID = "0123-the-job-that-fal-has"
UNITS = "x-fal-billable-units"
NOTHING: Mapping[str, str] = {}
HAS_ID = {"x-fal-request-id": ID}
NAMED = [429, 503, 408, 409, 500, 502, 504]
OTHERS = [425, 529]
BUSY = [429, 503]  # what is asked again if nothing shows that fal has the job


@pytest.fixture
def cli(cli: Cli, clock: Clock) -> Cli:
    """Runs skill_fal.py; to look for a lost job on the account takes no time."""
    return leaping(cli, clock)


def answer(status: int, head: Mapping[str, str] = NOTHING, body: Any = NOTHING) -> Reply:
    """An answer that asks to be asked again at once, unless its head says something else."""
    return Reply(status, json={"detail": "Oh", **body}, headers={"Retry-After": "0", **head})


def last_states(folder: Path) -> list[str]:
    """Where the journal has its jobs."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    return list({step["job"]: step["state"] for step in steps}.values())


def posts(fal: Sandbox) -> int:
    """How many requests were sent that any of fal's servers may bill."""
    return sum(request.method == "POST" for request in fal.requests)


# Answers that show that fal has the job


@pytest.mark.parametrize(
    ("place", "status"),
    [*(("head", status) for status in NAMED + OTHERS), *(("body", status) for status in BUSY)],
)
def test_an_answer_that_names_the_job_is_the_last(
    fal: Sandbox, cli: Cli, place: str, status: int
) -> None:
    body, head = ({"request_id": ID}, {}) if place == "body" else ({}, HAS_ID)
    fal.on("POST", QUEUE, "*", answer(status, head, body))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, len(paid(fal))) == (1, 1)
    assert (done.error["request_id"], done.error["retryable"]) == (ID, False)
    assert f"result --model {FLUX} --request-id {ID}" in done.error["hint"]


@pytest.mark.parametrize("status", [*BUSY, 409, 500])
@pytest.mark.parametrize("command", ["run-t2i", "stream-t2i"])
def test_a_call_that_has_a_request_id_is_the_last(
    fal: Sandbox, cli: Cli, command: str, status: int
) -> None:
    fal.on("POST", "fal.run", "*", answer(status, HAS_ID))
    done = cli(command, *PROMPT)
    assert (done.status, done.error["retryable"], len(paid(fal))) == (1, False, 1)


@pytest.mark.parametrize(
    ("status", "units"),
    [*((status, "1") for status in NAMED), (429, "0"), (503, "0"), (429, "0.25"), (503, "1e3")],
)
@pytest.mark.parametrize("command", ["submit-t2i", "run-t2i"])
def test_what_is_billed_is_not_asked_for_again(
    fal: Sandbox, cli: Cli, command: str, status: int, units: str
) -> None:
    fal.on("POST", "*fal.run", "*", answer(status, {UNITS: units}))
    done = cli(command, *PROMPT)
    assert (done.status, done.error["retryable"], len(paid(fal))) == (1, False, 1)


@pytest.mark.parametrize("sign", [HAS_ID, {UNITS: "1"}], ids=["id", "units"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_no_refusal_of_what_fal_has(
    fal: Sandbox, cli: Cli, sign: dict[str, str], status: int
) -> None:
    fal.on("POST", QUEUE, "*", answer(status, {**sign, "Retry-After": "3600"}))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, done.error["retryable"], len(paid(fal))) == (1, False, 1)
    assert "repeat the command" not in done.error["hint"]


@pytest.mark.parametrize("units", ["many", "nan", "1, 1", "1 image", "inf"])
@pytest.mark.parametrize("command", ["submit-t2i", "run-t2i"])
def test_units_that_are_no_number_are_units(
    fal: Sandbox, cli: Cli, command: str, units: str
) -> None:
    fal.on("POST", "*fal.run", "*", answer(429, {UNITS: units}))
    assert (cli(command, *PROMPT).status, len(paid(fal))) == (1, 1)


BODIES = {
    "inside": b'{"data": {"request_id": "a-job"}}',
    "a URL alone": b'{"status_url": "https://queue.fal.run/x/requests/a-job/status"}',
    "of a gateway": b'{"gateway_request_id" : "a-job"}',
    "no JSON": b'{"request_id": "a-job"',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_names_a_job_in_any_way_is_the_last(
    fal: Sandbox, cli: Cli, body: bytes
) -> None:
    fal.on("POST", QUEUE, "*", Reply(429, content=body, headers={"content-type": "a/json"}))
    assert (cli("submit-t2i", *PROMPT).status, len(paid(fal))) == (1, 1)


def told(body: Any) -> Reply:
    """A busy answer that says this."""
    return Reply(503, json=body, headers={"Retry-After": "0"})


SPELLINGS: dict[str, Any] = {
    "requestId": {"requestId": ID},
    "REQUEST_ID": {"REQUEST_ID": ID},
    "request-id": {"request-id": ID},
    "job_id": {"job_id": ID},
    "a number": {"request_id": 123},
    "JSON in a text": {"detail": json.dumps({"request_id": ID})},
    "JSON in JSON in a text": {"detail": json.dumps(json.dumps({"request_id": ID}))},
    "a URL to cancel": {"cancel_url": f"https://queue.fal.run/fal-ai/flux/requests/{ID}/cancel"},
    "a URL in words": {"detail": f"See https://queue.fal.run/fal-ai/flux/requests/{ID}"},
    "a place in the queue": {"queue_position": 3},
    "a status": {"status": "IN_QUEUE"},
    "units": {"billable_units": 3},
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("status", BUSY)
def test_a_job_is_known_by_any_spelling(fal: Sandbox, cli: Cli, status: int, body: Any) -> None:
    fal.on("POST", QUEUE, "*", Reply(status, json=body, headers={"Retry-After": "0"}))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, done.error["retryable"], len(paid(fal))) == (1, False, 1)


@pytest.mark.parametrize("case", ["requestId", "JSON in a text", "units"])
@pytest.mark.parametrize("command", ["run-t2i", "stream-t2i"])
def test_a_call_is_known_by_any_spelling(fal: Sandbox, cli: Cli, command: str, case: str) -> None:
    fal.on("POST", "fal.run", "*", told(SPELLINGS[case]))
    done = cli(command, *PROMPT)
    assert (done.status, done.error["retryable"], len(paid(fal))) == (1, False, 1)


NO_JOB: dict[str, Any] = {
    "words": {"detail": "Too many requests: the queue of this job is full"},
    "a limit": {"detail": "Busy", "request_limit": 10, "jobs": 3, "queue_length": 100},
    "the URL of a page": {"detail": "Busy", "url": "https://fal.ai/dashboard/requests"},
    "another id": {"detail": "Busy", "trace_id": ID},
    "a list": [{"msg": "Too many requests"}],
    "nothing": None,
}


@pytest.mark.parametrize("body", NO_JOB.values(), ids=NO_JOB)
@pytest.mark.parametrize("command", ["submit-t2i", "run-t2i"])
def test_a_busy_answer_that_tells_of_no_job_is_not_the_last(
    fal: Sandbox, cli: Cli, command: str, body: Any
) -> None:
    fal.on("POST", "*fal.run", "*", told(body))
    done = cli(command, *PROMPT)
    assert (done.status, len(paid(fal))) == (0, 2), done.stderr


HIDDEN: dict[str, Any] = {
    "an escape": lambda request_id: rb'{"request\u005fid": "%s"}' % request_id.encode(),
    "UTF-16": lambda request_id: json.dumps({"request_id": request_id}).encode("utf-16"),
    "UTF-16 without a mark": lambda one: json.dumps({"request_id": one}).encode("utf-16-le"),
}
LEARNED = [*BUSY, 400]  # and what is a refusal if fal has no job


@pytest.mark.parametrize("case", HIDDEN)
@pytest.mark.parametrize("status", LEARNED)
def test_an_answer_whose_request_id_was_learned_is_the_last(
    fal: Sandbox, cli: Cli, case: str, status: int
) -> None:
    head = {"content-type": "application/json", "Retry-After": "0"}
    fal.on("POST", QUEUE, "*", Reply(status, content=HIDDEN[case](ID), headers=head))
    done = cli("submit-t2i", *PROMPT)
    assert (done.stdout, len(paid(fal))) == ("", 1)
    assert (done.error["request_id"], done.error["retryable"]) == (ID, False)


RUNNERS_LATE = [
    "runner_disconnected",
    "runner_connection_error",
    "runner_incomplete_response",
    "runner_server_error",
    "runner_of_a_kind_to_come",
]
RUNNERS_EARLY = [
    "runner_scheduling_failure",
    "runner_connection_refused",
    "runner_connection_timeout",
]


def of_a_runner(kind: str, place: str) -> Reply:
    if place == "head":
        return answer(503, {"x-fal-error-type": kind})
    return answer(503, body={"error_type": kind})


@pytest.mark.parametrize("place", ["head", "body"])
@pytest.mark.parametrize("kind", RUNNERS_LATE)
def test_what_a_runner_has_had_is_not_sent_again(
    fal: Sandbox, cli: Cli, kind: str, place: str
) -> None:
    fal.on("POST", QUEUE, "*", of_a_runner(kind, place))
    assert (cli("submit-t2i", *PROMPT).status, len(paid(fal))) == (1, 1)


@pytest.mark.parametrize("place", ["head", "body"])
@pytest.mark.parametrize("kind", RUNNERS_EARLY)
def test_what_no_runner_has_had_is_sent_again(
    fal: Sandbox, cli: Cli, kind: str, place: str
) -> None:
    fal.on("POST", QUEUE, "*", of_a_runner(kind, place))
    assert (cli("submit-t2i", *PROMPT).status, len(paid(fal))) == (0, 2)


@pytest.mark.parametrize("request_id", ["f", "flux", "requests", "another-jo", "job"])
def test_a_short_request_id_is_not_found_in_the_url_of_another(
    fal: Sandbox, cli: Cli, request_id: str
) -> None:
    """Its characters stand there, but it does not."""
    url = f"https://{QUEUE}/fal-ai/flux/requests/another-job"
    urls = {"status_url": f"{url}/status", "response_url": url, "cancel_url": f"{url}/cancel"}
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": request_id, **urls}))
    done = cli("subscribe-t2i", *PROMPT)
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "unexpected_answer")
    assert (done.error["request_id"], len(paid(fal))) == (request_id, 1)
    assert [request.method for request in fal.requests if request.host == QUEUE] == ["POST"]


@pytest.mark.parametrize("name", ["status_url", "response_url"])
def test_a_job_is_not_looked_up_under_the_url_of_another(fal: Sandbox, cli: Cli, name: str) -> None:
    base = f"https://{QUEUE}/fal-ai/flux/requests/"
    urls = {"status_url": "", "response_url": "", "cancel_url": ""}
    urls = {one: base + ID for one in urls} | {name: f"{base}another"}
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": ID, **urls}))
    done = cli("subscribe-t2i", *PROMPT)
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "unexpected_answer")
    assert (done.error["request_id"], len(paid(fal))) == (ID, 1)
    assert [request.method for request in fal.requests if request.host == QUEUE] == ["POST"]


def job_of_fals(fal: Sandbox, cli: Cli) -> str:
    """The request id of a job that can be looked up."""
    assert cli("submit-t2i", *PROMPT).status == 0
    fal.requests.clear()
    (request_id,) = fal.jobs
    return request_id


ANSWERS: dict[str, Any] = {
    **{f"a head, {status}": answer(status) for status in NAMED + OTHERS},
    "a head, a long wait": answer(429, {"Retry-After": "3600"}),
    "a head, to be repeated": answer(503, {"x-fal-retryable": "true"}),
    "a head, a page": nginx(503),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_journal_looks_up_the_job_that_an_answer_named(
    fal: Sandbox, cli: Cli, tmp_path: Path, case: str
) -> None:
    request_id = job_of_fals(fal, cli)
    reply: Reply = ANSWERS[case]
    headers = {**reply.headers, "x-fal-request-id": request_id}
    fal.on("POST", QUEUE, "*", Reply(reply.status, reply.json, None, reply.content, headers))
    first = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    assert (first.status, last_states(tmp_path)) == (1, ["accepted"])
    assert first.lines[0]["error"]["retryable"] is False
    second = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    assert (second.status, second.lines[0]["request_id"]) == (0, request_id)
    assert len(paid(fal)) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_journal_looks_up_the_job_that_a_body_named(
    fal: Sandbox, cli: Cli, tmp_path: Path, status: int
) -> None:
    request_id = job_of_fals(fal, cli)
    fal.on("POST", QUEUE, "*", answer(status, body={"request_id": request_id}))
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 1
    assert last_states(tmp_path) == ["accepted"]
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0
    assert len(paid(fal)) == 1


@pytest.mark.parametrize("case", HIDDEN)
@pytest.mark.parametrize("status", LEARNED)
def test_a_journal_looks_up_the_job_whose_request_id_was_learned(
    fal: Sandbox, cli: Cli, tmp_path: Path, status: int, case: str
) -> None:
    request_id = job_of_fals(fal, cli)
    head = {"content-type": "application/json", "Retry-After": "3600"}
    fal.on("POST", QUEUE, "*", Reply(status, content=HIDDEN[case](request_id), headers=head))
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 1
    assert last_states(tmp_path) == ["accepted"]
    (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat").lines
    assert (line["request_id"], "result" in line, len(paid(fal))) == (request_id, True, 1)


@pytest.mark.parametrize("status", [499, 460, 444, 408, 502])
def test_a_page_of_a_gateway_that_somebody_hung_up_on_leaves_a_doubt(
    fal: Sandbox, cli: Cli, tmp_path: Path, status: int
) -> None:
    """The request may have come through before."""
    never_listed(fal)
    fal.on("POST", QUEUE, "*", nginx(status))
    (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat").lines
    assert (line["error"]["retryable"], last_states(tmp_path)) == (False, ["sent"])
    (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat").lines
    assert (line["error"]["type"], len(paid(fal))) == ("unknown_outcome", 1)


@pytest.mark.parametrize("status", [403, 404, 413])
def test_a_page_that_refuses_leaves_no_doubt(
    fal: Sandbox, cli: Cli, tmp_path: Path, status: int
) -> None:
    fal.on("POST", QUEUE, "*", nginx(status))
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 1
    assert last_states(tmp_path) == ["refused"]
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("status", [422, 429, 401])
def test_a_refusal_that_comes_after_a_stop_is_recorded(
    fal: Sandbox,
    cli: Cli,
    start: Starter,
    clock: Clock,
    tmp_path: Path,
    status: int,
    number: int,
) -> None:
    """It comes when fal is asked to cancel another job: the stop is known to all of them then."""

    def methods() -> list[str]:
        return [request.method for request in list(fal.requests) if request.host == QUEUE]

    fal.run_seconds = FOR_EVER
    refusal = Reply(status, json={"detail": "No"})
    fal.on("POST", QUEUE, "*", Pass(), Hold(lambda: "PUT" in methods(), refusal))
    argv = ("batch-t2i", *JOURNAL, "--prompts", "A cat", "A dog")
    child = start(*argv, env=clock.env())
    wait_for(lambda: methods().count("POST") == 2 and "GET" in methods(), child)
    child.send_signal(number)
    assert finished(child).status == 128 + number
    assert sorted(last_states(tmp_path)) == ["cancelled", "refused"]
    fal.run_seconds = 0
    done = cli(*argv)
    assert (done.status, ["result" in line for line in done.lines]) == (0, [True, True])


@pytest.mark.parametrize("units", ["0", "2"])
@pytest.mark.parametrize("status", [429, 503, 500])
def test_what_is_billed_without_an_id_is_in_doubt(
    fal: Sandbox, cli: Cli, tmp_path: Path, status: int, units: str
) -> None:
    reply = answer(status, {UNITS: units, "x-fal-retryable": "true"})
    fal.on("POST", QUEUE, "*", reply)
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 1
    assert last_states(tmp_path) == ["sent"]
    (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat").lines
    assert (line["error"]["type"], len(paid(fal))) == ("unknown_outcome", 1)


# Stopped while the connection is being made

STAGES: list[Stage] = ["connection", "answer", "half an answer", "handshake", "half a handshake"]
EIGHT = tuple(f"A cat, {number}" for number in range(8))
BATCH = ("batch-t2i", *JOURNAL, "--keep", "--concurrency", "8", "--prompts", *EIGHT)


@pytest.fixture
def proxy(environment: dict[str, str]) -> str:
    return environment["HTTPS_PROXY"]


def stopped_at(gate: Gate, child: subprocess.Popen[str], jobs: int, number: int) -> Outcome:
    """What becomes of a process that gets a signal at the gate, which opens then."""
    wait_for(lambda: gate.waiting == jobs, child)
    child.send_signal(number)
    gate.open()
    return finished(child)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_stop_before_there_is_a_connection_sends_nothing(
    fal: Sandbox, start: Starter, clock: Clock, proxy: str, stage: Stage, number: int
) -> None:
    with Gate(proxy, stage) as gate:
        child = start("submit-t2i", *PROMPT, "--no-schema", env={**clock.env(), **gate.env})
        done = stopped_at(gate, child, 1, number)
    assert (done.status, posts(fal)) == (128 + number, 0)
    assert "request id" not in done.stderr
    assert "may be running" not in done.stderr


@pytest.mark.parametrize("command", ["subscribe-t2i", "run-t2i", "stream-t2i"])
@pytest.mark.parametrize("stage", ["answer", "handshake"])
def test_no_command_sends_what_was_stopped_before(
    fal: Sandbox, start: Starter, clock: Clock, proxy: str, stage: Stage, command: str
) -> None:
    with Gate(proxy, stage) as gate:
        child = start(command, *PROMPT, "--no-schema", env={**clock.env(), **gate.env})
        done = stopped_at(gate, child, 1, signal.SIGINT)
    assert (done.status, posts(fal)) == (130, 0)
    assert "dashboard/requests" not in done.stderr  # there is nothing to look for


@pytest.mark.parametrize("stage", STAGES)
def test_a_batch_that_was_stopped_before_is_sent_by_its_repetition(
    fal: Sandbox,
    cli: Cli,
    start: Starter,
    clock: Clock,
    proxy: str,
    tmp_path: Path,
    stage: Stage,
) -> None:
    with Gate(proxy, stage) as gate:
        child = start(*BATCH, env={**clock.env(), **gate.env})
        done = stopped_at(gate, child, 8, signal.SIGINT)
    assert (done.status, posts(fal)) == (130, 0)
    assert "may be running" not in done.stderr
    if (tmp_path / "journal.jsonl").read_bytes():
        assert "sent" not in last_states(tmp_path)
    again = cli(*BATCH)
    assert (again.status, len(again.lines), len(paid(fal))) == (0, 8, 8)


@pytest.mark.parametrize("stage", STAGES)
def test_a_time_limit_that_ends_before_there_is_a_connection(
    fal: Sandbox,
    cli: Cli,
    start: Starter,
    clock: Clock,
    proxy: str,
    tmp_path: Path,
    stage: Stage,
) -> None:
    with Gate(proxy, stage) as gate:
        child = start(*BATCH, "--client-timeout", "2", env={**clock.env(), **gate.env})
        wait_for(lambda: gate.waiting == 8, child)
        clock.set(FLY)
        done = finished(child)
    assert (done.status, posts(fal)) == (5, 0)
    assert "may be running" not in done.stderr
    if (tmp_path / "journal.jsonl").read_bytes():
        assert "sent" not in last_states(tmp_path)
    again = cli(*BATCH)
    assert (again.status, len(paid(fal))) == (0, 8)


# It tells that it was asked, and answers when somebody opens the pipe.
A_NAME_SERVER_THAT_WAITS = """
import socket
look_up = socket.getaddrinfo
def waiting(*args, **keywords):
    open("asked", "w").close()
    open("answer").close()
    return look_up(*args, **keywords)
socket.getaddrinfo = waiting
"""


def test_a_stop_while_a_name_is_looked_up(
    fal: Sandbox, start: Starter, proxy: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(A_NAME_SERVER_THAT_WAITS)
    os.mkfifo(tmp_path / "answer")
    env = {**importing(tmp_path), "HTTPS_PROXY": proxy.replace("127.0.0.1", "localhost")}
    child = start("batch-t2i", *JOURNAL, "--prompts", "A cat", env=env)
    wait_for((tmp_path / "asked").exists, child)
    child.send_signal(signal.SIGINT)
    pipe = os.open(tmp_path / "answer", os.O_RDWR)
    done = finished(child)
    os.close(pipe)
    assert (done.status, posts(fal)) == (130, 0)
    assert "may be running" not in done.stderr
    if (tmp_path / "journal.jsonl").read_bytes():
        assert "sent" not in last_states(tmp_path)


LAST_WORDS = {
    "nothing": b"",
    "half a line": b"HTTP/1.1 200 Conn",
    "half a head": b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "zeros": bytes(100),
    "no TLS": b"HTTP/1.1 200 OK\r\n\r\n<html>",
    "a refusal": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("words", LAST_WORDS)
@pytest.mark.parametrize("command", ["submit-t2i", "run-t2i", "stream-t2i"])
def test_a_proxy_that_hangs_up_has_handed_on_nothing(
    fal: Sandbox, cli: Cli, proxy: str, command: str, words: str
) -> None:
    with Gate(proxy, last_words=LAST_WORDS[words]) as gate:
        done = cli(command, *PROMPT, "--no-schema", env=gate.env)
    assert (done.status, done.error["type"]) == (4, "unreachable")
    assert (done.error["retryable"], posts(fal)) == (True, 0)


@pytest.mark.parametrize("words", LAST_WORDS)
def test_a_batch_behind_a_proxy_that_hangs_up_is_sent_by_its_repetition(
    fal: Sandbox, cli: Cli, proxy: str, tmp_path: Path, words: str
) -> None:
    with Gate(proxy, last_words=LAST_WORDS[words]) as gate:
        done = cli(*BATCH, env=gate.env)
    assert {line["error"]["type"] for line in done.lines} == {"unreachable"}
    assert all(line["error"]["retryable"] for line in done.lines)
    if (tmp_path / "journal.jsonl").read_bytes():
        assert "sent" not in last_states(tmp_path)
    again = cli(*BATCH)
    assert (again.status, len(again.lines), len(paid(fal))) == (0, 8, 8)


# Stopped while a picture is on its way

I2V = ("--model", "fal-ai/minimax-video/image-to-video", "--prompt", "It rains", "--no-schema")
PICTURED = {
    "submit": ("submit-i2v", *I2V, "--image-url", "photo.jpg"),
    "subscribe": ("subscribe-i2v", *I2V, "--image-url", "photo.jpg"),
    "run": ("run-i2v", *I2V, "--image-url", "photo.jpg"),
    "batch": ("batch-i2v", *I2V, "--image-urls", "photo.jpg", "./photo.jpg"),
    "journal": ("batch-i2v", *I2V, "--image-urls", "photo.jpg", "--journal", "journal.jsonl"),
}


def was_uploaded(fal: Sandbox) -> bool:
    """Whether the content of a picture was sent."""
    return any(request.path == "/files/upload" for request in fal.requests)


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("command", PICTURED)
def test_nobody_waits_for_an_upload_whose_jobs_are_stopped(
    fal: Sandbox, start: Starter, clock: Clock, command: str, number: int
) -> None:
    """It never ends, and no time passes in which the command could give it up."""
    fal.on("POST", "v3.fal.media", "*", fal.always(Stall(FOR_EVER)))
    child = start(*PICTURED[command], env=clock.env())
    wait_for(lambda: was_uploaded(fal), child)
    child.send_signal(number)
    done = finished(child)
    assert (done.status, done.stdout, paid(fal)) == (128 + number, "", [])
    assert "may be running" not in done.stderr
    assert "dashboard/requests" not in done.stderr  # there is nothing to look for


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_upload_is_stopped_with_its_jobs(
    fal: Sandbox, cli: Cli, start: Starter, clock: Clock, number: int
) -> None:
    """The token for it comes while fal is asked to cancel another job, which takes as long as a
    whole other command does.
    """

    def are_asked(*places: tuple[str, str]) -> bool:
        return {*places} <= {(request.method, request.host) for request in fal.requests}

    fal.run_seconds = FOR_EVER
    other_ended = threading.Event()
    fal.on("PUT", QUEUE, "*/cancel", Hold(other_ended.is_set))
    fal.on("POST", "rest.fal.ai", "*", Hold(lambda: are_asked(("PUT", QUEUE))))
    argv = (*I2V, "--image-urls", "https://example.com/a.png", "photo.jpg")
    child = start("batch-i2v", *argv, env=clock.env())
    wait_for(lambda: are_asked(("GET", QUEUE), ("POST", "rest.fal.ai")), child)
    child.send_signal(number)
    wait_for(lambda: are_asked(("PUT", QUEUE)), child)
    assert cli("list-models").status == 0
    other_ended.set()
    done = finished(child)
    (job,) = fal.jobs.values()
    assert (done.status, job.cancelled, was_uploaded(fal)) == (128 + number, True, False)


# Two signals

TOGETHER = {
    "SIGINT, SIGTERM": (signal.SIGINT, signal.SIGTERM),
    "SIGTERM, SIGINT": (signal.SIGTERM, signal.SIGINT),
    "SIGHUP, SIGTERM": (signal.SIGHUP, signal.SIGTERM),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "three": (signal.SIGTERM, signal.SIGHUP, signal.SIGINT),
}


def running(start: Starter, *argv: str, jobs: int, fal: Sandbox, env: Any) -> subprocess.Popen[str]:
    """A process whose jobs are all being followed."""
    child = start(*argv, env=env)
    wait_for(lambda: len({r.path for r in fal.requests if r.method == "GET"}) == jobs, child)
    return child


MANY = ("batch-t2i", "--model", FLUX, "--no-schema", "--prompts", "A", "B", "C", "D")
ONE = ("subscribe-t2i", *PROMPT, "--no-schema")
WATCHED = {"one job": (ONE, 1), "a batch": (MANY, 4)}


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["loud", "quiet"])
@pytest.mark.parametrize("command", WATCHED)
@pytest.mark.parametrize("signals", TOGETHER)
def test_signals_that_come_together_are_one_stop(
    fal: Sandbox,
    start: Starter,
    clock: Clock,
    signals: str,
    command: str,
    quiet: tuple[str, ...],
) -> None:
    """The others come while fal is asked to cancel, within the same second of the clock."""
    fal.run_seconds = FOR_EVER
    others_came = threading.Event()
    fal.on("PUT", QUEUE, "*/cancel", fal.always(Hold(others_came.is_set)))
    argv, jobs = WATCHED[command]
    child = running(start, *argv, *quiet, jobs=jobs, fal=fal, env=clock.env())
    first, *others = TOGETHER[signals]
    child.send_signal(first)
    wait_for(lambda: sum(r.method == "PUT" for r in fal.requests) == jobs, child)
    clock.advance(0.9)
    for other in others:
        child.send_signal(other)
    others_came.set()
    done = finished(child)
    assert done.status == (130 if first == signal.SIGINT else 143)
    assert [job.cancelled for job in fal.jobs.values()] == [True] * jobs
    assert "fal was asked to cancel" in done.error["message"]
    assert all(request_id in done.error["message"] for request_id in fal.jobs)
    assert "not cancelled" not in done.error["message"]


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["loud", "quiet"])
@pytest.mark.parametrize("command", WATCHED)
def test_signals_at_the_same_moment_are_one_stop(
    fal: Sandbox, start: Starter, clock: Clock, command: str, quiet: tuple[str, ...]
) -> None:
    fal.run_seconds = FOR_EVER
    argv, jobs = WATCHED[command]
    child = running(start, *argv, *quiet, jobs=jobs, fal=fal, env=clock.env())
    for number in (signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    done = finished(child)
    assert done.status == 130
    assert [job.cancelled for job in fal.jobs.values()] == [True] * jobs
    assert all(request_id in done.error["message"] for request_id in fal.jobs)


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["loud", "quiet"])
@pytest.mark.parametrize("command", WATCHED)
def test_a_signal_a_second_later_leaves_and_names_the_jobs(
    fal: Sandbox, start: Starter, clock: Clock, command: str, quiet: tuple[str, ...]
) -> None:
    fal.run_seconds = FOR_EVER
    fal.on("PUT", QUEUE, "*/cancel", fal.always(Stall(FOR_EVER)))
    argv, jobs = WATCHED[command]
    child = running(start, *argv, *quiet, jobs=jobs, fal=fal, env=clock.env())
    child.send_signal(signal.SIGTERM)
    wait_for(lambda: sum(r.method == "PUT" for r in fal.requests) == jobs, child)
    clock.advance(1.1)
    child.send_signal(signal.SIGTERM)
    done = finished(child)
    assert done.status in (130, 143)
    assert len(fal.jobs) == jobs
    assert all(request_id in done.error["message"] for request_id in fal.jobs)


LONG = Reply(json={"images": [], "prompt": "x" * 1_000_000})


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["loud", "quiet"])
def test_jobs_are_named_though_a_write_hangs(
    fal: Sandbox, start: Starter, clock: Clock, quiet: tuple[str, ...]
) -> None:
    """Nobody reads stdout, while three jobs of a batch are under way."""
    fal.run_seconds = 1e9
    fal.on("GET", QUEUE, RESULT, fal.always(LONG))
    child = running(start, *MANY, *quiet, jobs=4, fal=fal, env=clock.env())
    next(iter(fal.jobs.values())).finished_at = 0.0
    clock.set(LEAP)
    assert child.stdout is not None
    child.stdout.read(1)  # the pipe is full, then
    clock.set(STILL)
    child.send_signal(signal.SIGINT)

    def is_left_after_another_second() -> bool:
        clock.advance(1)
        child.send_signal(signal.SIGTERM)
        return child.poll() is not None

    wait_for(is_left_after_another_second)
    assert child.returncode in (130, 143)
    assert child.stderr is not None
    told = child.stderr.read()
    under_way = [one for one, job in fal.jobs.items() if job.finished_at > 0]
    assert len(under_way) == 3
    last_line = told.splitlines()[-1]
    assert [one for one in under_way if one not in last_line] == []


# Request ids that are none

NO_IDS: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a flag": "--help",
    "a dash first": "-x",
    "an underscore first": "_x",
    "a path": "../../x",
    "a slash": "a/b",
    "a space": "a b",
    "a line end": "a\n",
    "an escape": "a%2fb",
    "no ASCII": "é1",
    "a digit of elsewhere": "\u0663",
    "too long": "a" * 201,
    "nothing": "",
    "an object": {},
    "a list": ["a"],
    "true": True,
}
HEADER_IDS = ["--help", "../../x", "a b", "_x", "a" * 201]


def assert_in_doubt(fal: Sandbox, error: Any) -> None:
    assert (error["type"], error["retryable"]) == ("unexpected_answer", False)
    assert error.get("request_id") is None
    assert "may have" in error["message"]
    assert "https://fal.ai/dashboard/requests" in error["hint"]
    assert [r.method for r in fal.requests if r.host == QUEUE] == ["POST"]


@pytest.mark.parametrize("case", NO_IDS)
def test_a_request_id_that_is_none_is_not_believed(fal: Sandbox, cli: Cli, case: str) -> None:
    url = f"https://{QUEUE}/fal-ai/flux/requests/x"
    urls = {"status_url": f"{url}/status", "response_url": url, "cancel_url": f"{url}/cancel"}
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": NO_IDS[case], **urls}))
    done = cli("subscribe-t2i", *PROMPT)
    assert (done.status, done.stdout) == (1, "")
    assert_in_doubt(fal, done.error)
    assert "request id " not in done.stderr


@pytest.mark.parametrize("request_id", HEADER_IDS)
def test_a_request_id_in_the_head_that_is_none_is_not_believed(
    fal: Sandbox, cli: Cli, request_id: str
) -> None:
    head = {"x-fal-request-id": request_id}
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": request_id}, headers=head))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, done.stdout) == (1, "")
    assert_in_doubt(fal, done.error)


@pytest.mark.parametrize("case", ["null", "a number", "a flag", "a path", "an object"])
def test_a_request_id_that_is_none_is_not_recorded(
    fal: Sandbox, cli: Cli, tmp_path: Path, case: str
) -> None:
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": NO_IDS[case]}))
    (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat").lines
    assert line["request_id"] is None
    assert_in_doubt(fal, line["error"])
    assert last_states(tmp_path) == ["sent"]
    assert '"request_id"' not in (tmp_path / "journal.jsonl").read_text()
    (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat").lines
    assert (line["error"]["type"], len(paid(fal))) == ("unknown_outcome", 1)


@pytest.mark.parametrize("request_id", ["0", "A-_", "a" * 200], ids=["short", "signs", "long"])
def test_a_request_id_may_be_short_and_long(fal: Sandbox, cli: Cli, request_id: str) -> None:
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": request_id}))
    assert cli("submit-t2i", *PROMPT).error["request_id"] == request_id


@pytest.mark.parametrize("command", ["result", "cancel"])
@pytest.mark.parametrize(
    "request_id", ["--help", "-x", "_x", "../../x", "a/b", "a b", "a\n", "", "é", "a" * 201]
)
def test_a_request_id_of_the_users_that_is_none(
    fal: Sandbox, cli: Cli, command: str, request_id: str
) -> None:
    done = cli(command, "--model", FLUX, f"--request-id={request_id}")
    assert (done.status, done.error["type"], fal.requests) == (2, "usage_error", [])
    assert "--request-id" in done.error["message"]


# Hosts of the user's own

HOSTS = ["something.fal.ai", "rest.fal.ai", "api.fal.ai", "v9.fal.media", "queue.example.com"]
FAULTS: dict[str, Any] = {
    "cut": Cut("request"),
    "a page": nginx(503),
    "a conflict": answer(409),
    "an error": answer(500),
}


PLACES = [(host, "cut") for host in HOSTS] + [(HOSTS[0], fault) for fault in FAULTS]


@pytest.mark.parametrize(("host", "fault"), PLACES)
@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("submit-t2i", "FAL_QUEUE_RUN_HOST"),
        ("run-t2i", "FAL_RUN_HOST"),
        ("stream-t2i", "FAL_RUN_HOST"),
    ],
)
def test_what_is_paid_for_is_sent_once_to_any_host(
    fal: Sandbox, cli: Cli, command: str, setting: str, host: str, fault: str
) -> None:
    fal.on("POST", host, "*", fal.always(FAULTS[fault]))
    done = cli(command, *PROMPT, "--no-schema", env={setting: host})
    assert (done.error["retryable"], posts(fal)) == (False, 1)


def test_a_journal_doubts_what_was_cut_at_any_host(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    host = {"FAL_QUEUE_RUN_HOST": "something.fal.ai"}
    fal.on("POST", "something.fal.ai", "*", fal.always(Cut("request")))
    for said in ("connection_lost", "unknown_outcome"):
        (line,) = cli("batch-t2i", *JOURNAL, "--prompts", "A cat", env=host).lines
        assert (line["error"]["type"], last_states(tmp_path)) == (said, ["sent"])
    assert posts(fal) == 1


# Looks at a job whose end fal forgets for a while


@pytest.mark.parametrize("state", ["IN_PROGRESS", "IN_QUEUE"])
@pytest.mark.parametrize("command", ["subscribe-t2i", "batch-t2i", "result"])
def test_a_job_that_is_called_unfinished_again_is_looked_at_in_peace(
    fal: Sandbox, cli: Cli, clock: Clock, command: str, state: str
) -> None:
    argv = {
        "subscribe-t2i": PROMPT,
        "batch-t2i": ("--model", FLUX, "--prompts", "A cat"),
        "result": ("--model", FLUX, "--request-id"),
    }[command]
    if command == "result":
        argv = (*argv, job_of_fals(fal, cli))
    ended, stale = [
        Reply(json={"status": word, "queue_position": 0, "logs": None, "metrics": {}})
        for word in ("COMPLETED", state)
    ]
    fal.on("GET", QUEUE, STATUS, ended, *[stale] * 60)
    done = cli(command, *argv, env=clock.env(LEAP))
    assert (done.status, "images" in done.stdout) == (0, True)
    looks = [request.at for request in fal.requests if request.path.endswith("/status")]
    waits = [after - before for before, after in itertools.pairwise(looks[1:])]
    assert len(looks) <= 62
    assert [wait for wait in waits if not 0.09 <= wait <= 5.5] == []
