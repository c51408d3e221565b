"""Never twice: what is repeated, what is not, and what stopping a command stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FLY,
    FOR_EVER,
    LEAP,
    Cli,
    Clock,
    Outcome,
    Starter,
    finished,
    importing,
    never_listed,
    paid,
    read_until,
    wait_for,
)
from sandbox import Cut, Hold, Reply, Sandbox, Stall, nginx

FLUX = "fal-ai/flux/dev"
QUEUE, RUN = "queue.fal.run", "fal.run"
PROMPT = ("--model", FLUX, "--prompt", "A cat")
AT_ONCE = {"Retry-After": "0"}


def busy(status: int, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json={"detail": "Too many requests"}, headers={**AT_ONCE, **names})


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("command", ["submit-t2i", "subscribe-t2i", "run-t2i", "batch-t2i"])
def test_a_busy_fal_is_asked_again(fal: Sandbox, cli: Cli, command: str, status: int) -> None:
    fal.on("POST", "*fal.run", "*", busy(status), busy(status))
    many = command.startswith("batch")
    done = cli(command, *PROMPT[:2], "--prompts" if many else "--prompt", "A cat")
    assert (done.status, len(paid(fal))) == (0, 3)
    assert f"note: fal is busy (HTTP {status}): asking again in 0 s" in done.stderr


def test_a_stream_is_asked_for_again(fal: Sandbox, cli: Cli) -> None:
    event = {"content-type": "text/event-stream"}
    fal.on("POST", RUN, "*", busy(429), Reply(content=b'data: {"a": 1}\n\n', headers=event))
    done = cli("stream-t2i", *PROMPT)
    assert (done.status, done.lines, len(paid(fal))) == (0, [{"a": 1}], 2)


def test_the_wait_is_as_long_as_fal_asks(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.on("POST", QUEUE, "*", busy(429, Retry_After="17"))
    done = cli("submit-t2i", *PROMPT, env=clock.env(LEAP))
    first, second = [r.at for r in fal.requests if r.method == "POST"]
    assert done.status == 0
    assert second - first == pytest.approx(17, abs=0.1)
    assert "asking again in 17 s, for 43 s more at most" in done.stderr


def test_the_wait_may_be_a_date(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", QUEUE, "*", busy(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"))
    assert (cli("submit-t2i", *PROMPT).status, len(paid(fal))) == (0, 2)


def test_nobody_waits_for_longer_than_the_bound(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", QUEUE, "*", fal.always(busy(429, Retry_After="3600")))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, len(paid(fal))) == (1, 1)
    assert (done.error["type"], done.error["retryable"]) == ("rate_limited", True)
    assert "3600 s" in done.error["hint"]


def test_a_fal_that_stays_busy_is_asked_seven_times(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", QUEUE, "*", fal.always(busy(503)))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, done.error["retryable"], len(paid(fal))) == (1, True, 7)


FINAL: dict[str, tuple[Any, int]] = {
    "cut before the answer": (Cut("request"), 4),
    "cut in the headers": (Cut("headers"), 4),
    "cut in the body": (Cut("body"), 4),
    "nginx 502": (nginx(502), 4),
    "nginx 503": (nginx(503), 4),
    "nginx 504": (nginx(504), 4),
    "a runner that went away": (busy(503, X_Fal_Error_Type="runner_disconnected"), 1),
    "a refusal to be asked again": (busy(503, X_Fal_Retryable="false"), 1),
    "a redirect": (Reply(302, headers={"location": "https://fal.run/elsewhere"}), 1),
    **{str(status): (Reply(status, json={"detail": "Oh"}), 1) for status in (408, 409, 500, 502)},
    "504": (Reply(504, json={"detail": "Oh"}), 1),
}


@pytest.mark.parametrize("fault", FINAL)
@pytest.mark.parametrize("command", ["submit-t2i", "run-t2i", "stream-t2i"])
def test_nothing_else_is_repeated(
    fal: Sandbox, cli: Cli, clock: Clock, command: str, fault: str
) -> None:
    action, status = FINAL[fault]
    if (command, fault) == ("stream-t2i", "cut in the body"):
        status = 4
    never_listed(fal)
    fal.on("POST", "*fal.run", "*", action)
    done = cli(command, *PROMPT, env=clock.env(LEAP))
    assert (done.status, done.error["retryable"], len(paid(fal))) == (status, False, 1)
    known = done.error.get("request_id")
    assert known in (None, *fal.jobs)
    assert (known or "dashboard/requests") in done.error["hint"]


def test_the_request_id_comes_before_the_wait(fal: Sandbox, cli: Cli, start: Starter) -> None:
    fal.run_seconds = FOR_EVER
    done = cli("submit-t2i", *PROMPT)
    (request_id,) = fal.jobs
    assert done.stderr == f"request id {request_id}\n"
    child = start("subscribe-t2i", *PROMPT)
    assert "request id" in read_until(child, "request id")
    child.send_signal(signal.SIGTERM)
    assert finished(child).status == 143


def test_the_second_interrupt_leaves_at_once(fal: Sandbox, start: Starter, clock: Clock) -> None:
    """No time passes here, and fal never answers."""
    fal.run_seconds = FOR_EVER
    fal.on("PUT", QUEUE, "*/cancel", fal.always(Stall(FOR_EVER)))
    child = start("subscribe-t2i", *PROMPT, env=clock.env())
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    wait_for_requests(fal, "PUT")
    clock.advance(1)
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    (request_id,) = fal.jobs
    assert (done.status, done.error["type"]) == (130, "interrupted")
    assert done.error["message"] == f"interrupted; not cancelled: {request_id}"
    assert done.error["request_id"] == request_id


def wait_for_requests(fal: Sandbox, method: str, count: int = 1) -> None:
    wait_for(lambda: sum(request.method == method for request in fal.requests) >= count)


def test_a_cancellation_that_fal_does_not_answer_is_bounded(
    fal: Sandbox, start: Starter, clock: Clock
) -> None:
    fal.run_seconds = FOR_EVER
    fal.on("PUT", QUEUE, "*/cancel", fal.always(Stall(FOR_EVER)))
    child = start("subscribe-t2i", *PROMPT, env=clock.env())
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGTERM)
    wait_for_requests(fal, "PUT")
    began = clock.now()
    clock.set(FLY)
    done = finished(child, read)
    assert clock.now() - began < 6
    assert (done.status, "not cancelled" in done.error["message"]) == (143, True)


@pytest.mark.parametrize("command", ["submit-t2i", "subscribe-t2i", "batch-t2i"])
def test_a_job_is_cancelled_though_its_request_id_is_not_here_yet(
    fal: Sandbox, start: Starter, clock: Clock, command: str
) -> None:
    """Of submit-*, which leaves jobs running, it is printed at least. The signal is half a second
    ahead of the answer; where that is too little, the request id is here, and all holds as well.
    """
    fal.run_seconds = FOR_EVER
    interrupted = threading.Event()
    fal.on("POST", QUEUE, "*", Hold(interrupted.is_set))
    flag = "--prompts" if command.startswith("batch") else "--prompt"
    child = start(command, "--model", FLUX, flag, "A cat", env=clock.env())
    wait_for_requests(fal, "POST")
    child.send_signal(signal.SIGINT)
    threading.Timer(0.5, interrupted.set).start()
    done = finished(child)
    (job,) = fal.jobs.values()
    assert (done.status, job.cancelled) == (130, command != "submit-t2i")
    assert f"request id {job.request_id}" in done.stderr


def test_a_request_id_without_anything_else_is_no_lost_job(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", QUEUE, "*", Reply(json={"request_id": "lonely-id"}))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, done.error["type"]) == (1, "unexpected_answer")
    assert (done.error["request_id"], done.error["retryable"]) == ("lonely-id", False)
    assert "request id lonely-id" in done.stderr


def test_fal_going_away_is_no_reason_to_pay_again(fal: Sandbox, cli: Cli) -> None:
    """The general hint for this failure says to repeat the command."""
    fal.on("GET", QUEUE, "*/status", fal.always(busy(429, Retry_After="3600")))
    done = cli("subscribe-t2i", *PROMPT)
    (request_id,) = fal.jobs
    assert (done.error["type"], done.error["retryable"]) == ("rate_limited", False)
    assert f"result --model {FLUX} --request-id {request_id}" in done.error["hint"]


def test_what_is_sent_and_not_answered_is_mentioned_by_a_batch(
    fal: Sandbox, start: Starter, clock: Clock
) -> None:
    fal.on("POST", QUEUE, "*", *[Stall(FOR_EVER)] * 2)
    flags = ("--model", FLUX, "--prompts", "A cat", "A dog")
    child = start("batch-t2i", *flags, env=clock.env())
    wait_for_requests(fal, "POST", 2)
    child.send_signal(signal.SIGINT)
    clock.set(FLY)
    done = finished(child)
    assert (done.status, done.stdout) == (130, "")
    assert "2 more may be running" in done.error["message"]
    assert "dashboard/requests" in done.error["hint"]


def test_a_batch_that_is_stopped_is_about_no_job_of_its(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    fal.run_seconds = FOR_EVER
    flags = ("--model", FLUX, "--prompts", "A cat", "A dog", "--client-timeout", "2")
    done = cli("batch-t2i", *flags, env=clock.env(LEAP))
    assert (done.status, "request_id" in done.error) == (5, False)
    assert len(fal.jobs) == 2
    assert all(request_id in done.error["message"] for request_id in fal.jobs)


INTERRUPTED_AS_A_JOB_ENDS = """
import os, signal, sys
write = sys.stderr.write
def interrupting(text):
    if text.startswith("[0] completed"):
        os.kill(os.getpid(), signal.SIGINT)
    return write(text)
sys.stderr.write = interrupting
"""


def test_an_interrupt_as_a_job_ends_stops_the_others(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    """It comes in the moment in which the first of them is told to have ended."""
    fal.run_seconds = 1  # so that the others are waiting when it ends
    fal.on("GET", QUEUE, "*/status", fal.always(Hold(lambda: len(fal.jobs) == 3)))
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_AS_A_JOB_ENDS)
    flags = ("--model", FLUX, "--prompts", "A cat", "[slow] A dog", "[slow] An owl")
    done = cli("batch-t2i", *flags, env=importing(tmp_path))
    assert done.status == 130
    cancelled = {job.arguments["prompt"] for job in fal.jobs.values() if job.cancelled}
    assert cancelled == {"[slow] A dog", "[slow] An owl"}


LONG = Reply(json={"images": [], "prompt": "x" * 1_000_000})


def test_a_second_signal_ends_a_write_that_nobody_reads(
    fal: Sandbox, start: Starter, clock: Clock
) -> None:
    fal.on("GET", QUEUE, "*/requests/*-????????????", LONG)
    child = start("subscribe-t2i", *PROMPT, env=clock.env(LEAP))
    read_until(child, "completed")
    assert child.stdout is not None
    child.stdout.read(1)  # the pipe is full, then
    child.send_signal(signal.SIGINT)

    def is_left_after_another_second() -> bool:
        clock.advance(1)
        child.send_signal(signal.SIGINT)
        return child.poll() is not None

    wait_for(is_left_after_another_second)
    assert child.returncode == 130


def test_a_reader_that_leaves_a_batch_loses_no_job(
    fal: Sandbox, shell: Callable[..., Outcome]
) -> None:
    flags = ("--model", FLUX, "--prompts", *"abcd", "--concurrency", "1", "--quiet")
    done = shell(("batch-t2i", *flags), "| head -1")
    assert done.status == 141
    assert [one for one in fal.jobs if one not in done.stdout + done.stderr] == []


def test_what_is_not_cancelled_is_what_the_hint_is_about(fal: Sandbox, start: Starter) -> None:
    fal.run_seconds = FOR_EVER
    child = start("batch-t2i", "--model", FLUX, "--prompts", "A cat", "--keep")
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    (request_id,) = fal.jobs
    assert f"result --model {FLUX} --request-id {request_id}" in done.error["hint"]


@pytest.mark.parametrize("command", ["submit-t2i", "subscribe-t2i"])
def test_a_reader_that_leaves_takes_no_request_id_with_it(
    fal: Sandbox, shell: Callable[..., Outcome], command: str
) -> None:
    for sink, status in (("| true", 141), ("> /dev/full", 1)):
        done = shell((command, *PROMPT, "--quiet"), sink)
        assert done.status == status
        assert list(fal.jobs)[-1] in done.stderr


def test_a_file_that_is_lost_when_nobody_reads(fal: Sandbox, shell: Callable[..., Outcome]) -> None:
    fal.on("GET", "v3b.fal.media", "*", fal.always(Reply(404)))
    assert shell(("subscribe-t2i", *PROMPT, "--output", "d/"), "| true").status == 1


@pytest.mark.parametrize(
    "asked", ["nan", "inf", "-5", "1_0", "Mon, 01 Jan 2026 00:00:00 +9999999999"]
)
def test_a_wait_that_makes_no_sense_is_our_own(fal: Sandbox, cli: Cli, asked: str) -> None:
    fal.on("POST", QUEUE, "*", busy(429, Retry_After=asked))
    done = cli("submit-t2i", *PROMPT)
    assert (done.status, len(paid(fal))) == (0, 2)
    assert "asking again in 1 s" in done.stderr


@pytest.mark.parametrize("command", ["subscribe-t2i", "batch-t2i"])
def test_keep_leaves_the_jobs_running(fal: Sandbox, start: Starter, command: str) -> None:
    fal.run_seconds = FOR_EVER
    flag = "--prompts" if command.startswith("batch") else "--prompt"
    child = start(command, "--model", FLUX, flag, "A cat", "--keep")
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    (job,) = fal.jobs.values()
    assert (done.status, job.cancelled) == (130, False)
    assert done.error["message"] == f"interrupted; not cancelled: {job.request_id}"


def test_keep_outlives_the_time_limit(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.run_seconds = FOR_EVER
    argv = (*PROMPT, "--keep", "--client-timeout", "2")
    done = cli("subscribe-t2i", *argv, env=clock.env(LEAP))
    (job,) = fal.jobs.values()
    assert (done.status, job.cancelled) == (5, False)
    assert "x-fal-request-timeout" not in job.headers
    assert job.request_id in done.error["hint"]


def test_a_silent_fal_is_mentioned(fal: Sandbox, start: Starter, clock: Clock) -> None:
    fal.on("GET", QUEUE, "*", Stall(FOR_EVER))
    argv = ("status", "--model", FLUX, "--request-id", "some-request")
    child = start(*argv, env=clock.env())
    wait_for_requests(fal, "GET")
    clock.advance(10)
    assert child.stderr is not None
    assert child.stderr.readline() == f"note: {QUEUE} has not answered for 10 s: still waiting\n"
    child.send_signal(signal.SIGINT)
    assert finished(child).status == 130


HANGING_NAMES = """
import socket, time
socket.getaddrinfo = lambda *_, **__: time.sleep(3600)
"""


def test_a_name_server_that_hangs_does_not_outlive_the_time_limit(
    fal: Sandbox, cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING_NAMES)
    proxy = environment["HTTPS_PROXY"].replace("127.0.0.1", "localhost")
    argv = ("status", "--model", FLUX, "--request-id", "x", "--client-timeout", "0.3")
    done = cli(*argv, env={**importing(tmp_path), "HTTPS_PROXY": proxy})
    assert (done.status, fal.requests) == (5, [])


@pytest.mark.parametrize("command", ["subscribe-t2i", "batch-t2i"])
def test_the_time_limit_includes_the_cancellation(
    fal: Sandbox, start: Starter, clock: Clock, command: str
) -> None:
    """To within a second, though fal does not answer."""
    fal.run_seconds = FOR_EVER
    fal.on("PUT", QUEUE, "*/cancel", fal.always(Stall(FOR_EVER)))
    flag = "--prompts" if command.startswith("batch") else "--prompt"
    argv = ("--model", FLUX, flag, "A cat", "--client-timeout", "30")
    child = start(command, *argv, env=clock.env(LEAP))
    wait_for_requests(fal, "PUT")
    clock.set(FLY)
    done = finished(child)
    (job,) = fal.jobs.values()
    assert done.status == 5
    assert fal.requests[-1].method == "PUT"
    assert 30 <= clock.now() - job.submitted_at < 31
    assert f"not cancelled: {job.request_id}" in done.error["message"]


def test_a_look_that_fails_is_repeated(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.run_seconds = 0.5
    fal.on("GET", QUEUE, "*/status", busy(500), busy(429), nginx(502), Cut("headers"), busy(503))
    done = cli("subscribe-t2i", *PROMPT, env=clock.env(LEAP))
    assert (done.status, len(paid(fal))) == (0, 1)
    assert len([request for request in fal.requests if request.path.endswith("/status")]) > 5
