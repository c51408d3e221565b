"""Every fault at every step: whatever breaks, nothing is paid twice, lost, or left unsaid.

A command is a walk of requests to fal. A fault hits one of them, once or for good, and the
same invariants hold afterwards; only the exit status depends on what was hit, and by what.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
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
    never_listed,
    paid,
    wait_for,
)
from sandbox import Always, Cut, Recorded, Reply, Sandbox, Stall, nginx

FLUX = "fal-ai/flux/dev"
MINIMAX = "fal-ai/minimax-video/image-to-video"
STRANGER = "evil.example.com"

# Seconds: the time limit of a command that may get over a fault, of one that cannot, and how
# late the end may come.
UNHURRIED, HURRY, SLACK = 12.0, 0.8, 1.0
MANY = 9  # repetitions at most, whoever refuses


# Commands, and the steps they take


class Kind(Enum):
    """What becomes of a step that fails."""

    PAID = "repeated only if fal surely did not take it"
    READ = "repeated when fal has a hiccup"
    FREE = "may be repeated"
    OPTIONAL = "done without"


BYTES, JSON, KEYS = range(3)  # how closely an answer is read


@dataclass(frozen=True)
class Step:
    name: str
    method: str
    host: str
    path: str
    kind: Kind = Kind.FREE
    reads: int = KEYS
    repeated: int = 0  # how the command may end when a step is repeated that fal had taken

    def matches(self, request: Recorded) -> bool:
        there = (request.method, request.host) == (self.method, self.host)
        return there and fnmatchcase(request.path, self.path)


A_RESULT = "*/requests/*-????????????"  # the end of a UUID
SCHEMA = Step("schema", "GET", "api.fal.ai", "/v1/models", Kind.OPTIONAL)
SEARCH = Step("search", "GET", "api.fal.ai", "/v1/models")
SUBMIT = Step("submit", "POST", "queue.fal.run", "/fal-ai/*", Kind.PAID)
RUN = Step("run", "POST", "fal.run", "/fal-ai/*", Kind.PAID, JSON)
STREAM = Step("stream", "POST", "fal.run", "/fal-ai/*/stream", Kind.PAID)
POLL = Step("poll", "GET", "queue.fal.run", "*/status", Kind.READ)
FETCH = Step("fetch", "GET", "queue.fal.run", A_RESULT, Kind.READ, JSON)
CANCEL = Step("cancel", "PUT", "queue.fal.run", "*/cancel", Kind.FREE, BYTES, repeated=1)
STORAGE_TOKEN = Step("storage token", "POST", "rest.fal.ai", "/storage/auth/token")
UPLOAD = Step("upload", "POST", "v3.fal.media", "/files/upload")
DOWNLOAD = Step("download", "GET", "v3b.fal.media", "/files/*", Kind.FREE, BYTES)
REALTIME_TOKEN = Step("realtime token", "POST", "rest.fal.ai", "/tokens/")
SOCKET = Step("socket", "WEBSOCKET", "fal.run", "*/realtime")


@dataclass(frozen=True)
class Command:
    """What is typed, the steps where faults hit it, and a word of what it then delivers."""

    argv: tuple[str, ...]
    steps: tuple[Step, ...]
    delivers: str
    jobs: int = 0
    prints_lines: bool = False
    takes_limit: bool = True
    queue_seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.argv[0]


CAT = ("--model", FLUX, "--prompt", "A cat")
RAIN = ("--model", MINIMAX, "--image-url", "photo.jpg", "--prompt", "Rain")
BOTH = ("--model", FLUX, "--prompts", "A cat", "A dog")
LIVE = ("--model", FLUX, "--arguments-json", '{"prompt": "A cat"}')
FILE = ("--file", "photo.jpg", "--content-type", "image/jpeg")
JOB = ("--model", FLUX, "--request-id")  # the id of an earlier job follows
SAVE = ("--output", "saved/")
QUEUE = (SUBMIT, POLL, FETCH)
BATCH = Command(("batch-t2i", *BOTH), QUEUE, "images", jobs=2, prints_lines=True)
COMMANDS = (
    Command(("submit-t2i", *CAT), (SCHEMA, SUBMIT), "request_id", jobs=1),
    Command(("submit-i2v", *RAIN), (STORAGE_TOKEN, UPLOAD), "request_id", jobs=1),
    Command(("subscribe-t2i", *CAT, *SAVE), (*QUEUE, DOWNLOAD), "path", jobs=1),
    Command(("run-t2i", *CAT, *SAVE), (RUN, DOWNLOAD), "path", jobs=1),
    Command(("stream-t2i", *CAT), (STREAM,), "images", jobs=1, prints_lines=True),
    BATCH,
    Command(("status", *JOB), (POLL,), "status"),
    Command(("result", *SAVE, *JOB), (POLL, FETCH, DOWNLOAD), "path"),
    Command(("cancel", *JOB), (CANCEL,), "CANCELLATION", queue_seconds=FOR_EVER),
    Command(("realtime", *LIVE), (REALTIME_TOKEN, SOCKET), "images", prints_lines=True),
    Command(("upload-raw", *FILE, "--json"), (STORAGE_TOKEN, UPLOAD), "url", takes_limit=False),
    Command(("list-models", "--json"), (SEARCH,), "endpoint_id", takes_limit=False),
)
STEPS = tuple(dict.fromkeys(step for command in COMMANDS for step in command.steps))
PAID = tuple(step for step in STEPS if step.kind is Kind.PAID)
READ = tuple(step for step in STEPS if step.kind is Kind.READ)


# Faults


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and the exit status where that is the end of the command."""

    name: str
    exit: int
    action: Reply | Cut | Stall | None = None
    steps: tuple[Step, ...] = STEPS
    lasting: bool = False
    untaken: bool = False  # fal surely did not take the request
    repeats: int = 0  # of what is untaken, at most
    hiccup: bool = False  # a read gets over it
    passes: int = -1  # the closest reading that takes it for an answer
    bars: Callable[[Sandbox, str], None] | None = None  # a host
    queue_seconds: float = 0.0


def says(status: int, retry_after: str = "0") -> Reply:
    return Reply(status, json={"detail": "Oh no"}, headers={"Retry-After": retry_after})


def leads(status: int, where: str) -> Reply:
    return Reply(status, headers={"Location": where})


HALF = Reply(content=b'{"images": [', headers={"Content-Type": "application/json"})
FAULTS = (
    Fault("cut request", 4, Cut("request"), hiccup=True),
    Fault("cut headers", 4, Cut("headers"), hiccup=True),
    Fault("cut body", 4, Cut("body"), hiccup=True),
    Fault("401", 3, says(401)),
    Fault("403", 3, says(403)),
    Fault("404", 1, says(404)),
    Fault("408", 1, says(408), PAID),
    Fault("409", 1, says(409), PAID),
    Fault("429", 1, says(429), untaken=True, repeats=1, hiccup=True),
    Fault("500", 1, says(500)),
    Fault("502", 1, says(502), PAID),
    Fault("503", 1, says(503), untaken=True, repeats=1),
    Fault("504", 1, says(504), PAID),
    Fault("nginx 502", 4, nginx(502), PAID),
    Fault("nginx 503", 4, nginx(503), hiccup=True),
    Fault("nginx 504", 4, nginx(504), PAID),
    Fault("broken JSON", 1, HALF, passes=BYTES),
    Fault("no keys", 1, Reply(json={}), passes=JSON),
    Fault("a number", 1, Reply(json=7), passes=JSON),
    Fault("redirect abroad", 1, leads(302, f"//{STRANGER}/x")),
    Fault("redirect within", 1, leads(307, "?again=1")),
    Fault("cut off", 4, lasting=True, untaken=True, bars=Sandbox.cut_off),
    Fault("refused", 4, lasting=True, untaken=True, bars=Sandbox.refuse),
    Fault("never starts", 5, steps=(FETCH,), lasting=True, queue_seconds=FOR_EVER),
    Fault("stall", 5, Stall(FOR_EVER), lasting=True),
    Fault("429 for good", 1, says(429), (*PAID, POLL), True, True, repeats=MANY),
    Fault("503 for good", 1, says(503), PAID, True, True, repeats=MANY),
    Fault("429 for an hour", 1, says(429, "3600"), PAID, True, True),
    Fault("500 for good", 1, says(500), READ, lasting=True),
    Fault("nginx 503 for good", 4, nginx(503), READ, lasting=True),
    Fault("cut body for good", 4, Cut("body"), READ, lasting=True),
)


# The matrix


@dataclass(frozen=True)
class Case:
    """A fault that hits a step of a command."""

    command: Command
    step: Step
    fault: Fault

    def __str__(self) -> str:
        return f"{self.command.name}: {self.step.name}: {self.fault.name}"

    @property
    def limit(self) -> float:
        return HURRY if self.fault.lasting else UNHURRIED

    @property
    def stalls(self) -> bool:
        return isinstance(self.fault.action, Stall)

    @property
    def leaps(self) -> bool:
        """Whether the clock can tell when an answer is to come: of uploads and of WebSockets it
        cannot, which go by the real time then.
        """
        return not self.stalls and not {UPLOAD, SOCKET} & {*self.command.steps}

    @property
    def possible(self) -> bool:
        """What lasts wants a time limit; a host that is barred is so from the first step."""
        before = self.command.steps[: self.command.steps.index(self.step)]
        reached = self.step.host in [step.host for step in before]
        endless = self.fault.lasting and not self.command.takes_limit
        return not endless and not (self.fault.bars and reached)

    @property
    def answered(self) -> bool:
        """Whether the step takes the fault for an answer of fal's."""
        return self.step.reads <= self.fault.passes

    @property
    def untaken(self) -> bool:
        """Whether fal surely did not take what it would bill."""
        return self.step.kind is Kind.PAID and self.fault.untaken

    @property
    def endings(self) -> set[int]:
        """The exit statuses that are right."""
        fault, step = self.fault, self.step
        if fault.exit == 5:
            return {5}
        if step.kind is Kind.OPTIONAL or self.answered or (self.untaken and not fault.lasting):
            return {0}
        end = 1 if self.command is BATCH or step is DOWNLOAD else fault.exit
        if fault.lasting:
            return {end, 5}
        if step.kind is Kind.READ and fault.hiccup:
            return {0}
        return {end} if step.kind is Kind.PAID else {0, end, step.repeated}

    def arrange(self, fal: Sandbox) -> None:
        fault, step = self.fault, self.step
        never_listed(fal)
        fal.on("*", STRANGER, "*", Always(Reply(json={})))
        if fault.bars:
            for host in (step.host, step.host.replace("fal.run", "falrun.com")):
                fault.bars(fal, host)
        if fault.action:
            action = Always(fault.action) if fault.lasting else fault.action
            fal.on(step.method, step.host, step.path, action)


def matrix() -> Iterator[Case]:
    """Each fault at each step: where it costs, of all commands, or else of one in turn."""
    for turn, fault in enumerate(FAULTS):
        for step in fault.steps:
            cases = [Case(one, step, fault) for one in COMMANDS if step in one.steps]
            cases = [case for case in cases if case.possible]
            if fault.action is None or (step.kind is Kind.PAID and not fault.lasting):
                yield from cases
            elif cases:
                yield cases[turn % len(cases)]


# What holds whatever happened


@dataclass(frozen=True)
class Aftermath:
    case: Case
    done: Outcome
    fal: Sandbox
    accepted: set[str]  # the jobs of this command

    @property
    def documents(self) -> list[Any]:
        """stdout: one JSON document, or one on each line."""
        lines = self.case.command.prints_lines
        return self.done.lines if lines else [self.done.json] if self.done.stdout else []

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The error object, and those of a batch's lines."""
        lines = self.documents if self.case.command is BATCH else []
        return [self.done.error, *(line["error"] for line in lines if "error" in line)]


def check(after: Aftermath) -> None:
    case, requests = after.case, after.fal.requests
    assert after.done.status in case.endings, after.done.stderr
    hits = sum(map(case.step.matches, requests))
    assert hits or case.fault.action is None, "never hit"
    assert hits <= 2 * (1 + MANY)
    strangers = [request for request in requests if request.host == STRANGER]
    assert not strangers or case.step is DOWNLOAD  # a picture may lie anywhere
    assert not [request for request in strangers if "authorization" in request.headers]
    check_money(after)
    (check_failure if after.done.status else check_delivery)(after)


def check_money(after: Aftermath) -> None:
    """Nothing is bought twice, and every job whose id can be known can be found again."""
    done, case = after.done, after.case
    again = case.fault.repeats if case.untaken else 0
    assert len(paid(after.fal)) <= case.command.jobs * (1 + again)
    assert len(after.accepted) <= case.command.jobs
    assert sum(len(request.messages) for request in after.fal.requests) <= 1  # of a WebSocket
    told = done.stderr if done.status else done.stdout + done.stderr
    unanswered = case.step is SUBMIT and isinstance(case.fault.action, Cut)
    assert len([one for one in after.accepted if one not in told]) <= unanswered


def check_failure(after: Aftermath) -> None:
    """stdout holds what came before, and stderr says at last what to do."""
    case = after.case
    is_half = case.fault.action is HALF  # of an answer that is paid for
    assert not after.documents or case.command.prints_lines or case.step is DOWNLOAD or is_half
    assert {"type", "message", "retryable"} <= set(after.done.error)
    if paid(after.fal) and not case.untaken:
        assert not [error for error in after.errors if error["retryable"]]
    if case.step.kind is Kind.PAID and not case.untaken:
        assert [error for error in after.errors if error.get("hint")]


def check_delivery(after: Aftermath) -> None:
    """All is there, whatever fal has answered."""
    assert after.documents
    if not after.case.answered:
        assert after.case.command.delivers in json.dumps(after.documents)
    for document in after.documents:
        for file in document.get("downloaded_files", []) if isinstance(document, dict) else []:
            assert Path(file["path"]).stat().st_size == file["bytes"] > 0


def earlier_job(fal: Sandbox) -> str:
    """The id of a job that somebody else has queued."""
    trust = ssl.create_default_context(cafile=fal.env["SSL_CERT_FILE"])
    headers = {"Authorization": f"Key {fal.env['FAL_KEY']}"}
    with httpx.Client(proxy=fal.env["HTTPS_PROXY"], verify=trust, headers=headers) as client:
        answer = client.post(f"https://queue.fal.run/{FLUX}", json={"prompt": "A cat"})
    fal.requests.clear()
    return str(answer.json()["request_id"])


@pytest.mark.parametrize("case", list(matrix()), ids=str)
def test_fault(
    fal: Sandbox, cli: Cli, start: Starter, clock: Clock, photo: Path, case: Case
) -> None:
    fal.queue_seconds = max(case.command.queue_seconds, case.fault.queue_seconds)
    known = [earlier_job(fal)] if case.command.argv[-1] == JOB[-1] else []
    case.arrange(fal)
    argv = (*case.command.argv, *known)
    if case.command.takes_limit:
        in_time = case.fault.lasting or case.leaps
        argv = (*argv, "--client-timeout", str(case.limit if in_time else 5 * UNHURRIED))
    started = clock.now()
    if case.stalls:
        child = start(*argv, env=clock.env(STILL))
        wait_for(lambda: any(map(case.step.matches, list(fal.requests))), child)
        clock.set(FLY)
        done = finished(child)
    else:
        done = cli(*argv, env=clock.env(LEAP) if case.leaps else {})
    assert clock.now() - started <= case.limit + SLACK
    check(Aftermath(case, done, fal, set(fal.jobs) - set(known)))
    assert not list(photo.parent.rglob("*.part"))


@pytest.mark.parametrize(
    ("command", "status"),
    [("submit-t2i", 429), ("subscribe-t2i", 503), ("run-t2i", 429), ("stream-t2i", 503)],
)
def test_a_wait_that_fal_asks_for_is_kept_and_told(
    fal: Sandbox, cli: Cli, clock: Clock, command: str, status: int
) -> None:
    fal.on("POST", "*fal.run", "*", says(status, retry_after="1"))
    done = cli(command, *CAT, env=clock.env(LEAP))
    assert (done.status, len(paid(fal))) == (0, 2), done.stderr
    refused, taken = (request.at for request in fal.requests if request.method == "POST")
    assert taken - refused >= 1
    assert re.search(r"\b1(\.\d+)? s", done.stderr)
