"""Jobs: what the queue took in, and how each of them goes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from sandbox.answers import (
    Answer,
    Json,
    cancelled,
    error_item,
    model_error,
    path_not_found,
    start_timeout,
)
from sandbox.catalog import Catalog
from sandbox.documents import interface_of
from sandbox.endpoints import EndpointId
from sandbox.outputs import Output
from sandbox.storage import Storage
from sandbox.validation import checked

Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]

# A job finds this many others before it: the queue of an endpoint is everybody's.
OTHERS_AHEAD = 3
LOG_WINDOW = 3
SLOW_SECONDS = 20.0

FLAGGED = (
    "The content could not be processed because it contained material flagged by a content checker."
)


@dataclass
class Latency:
    """How long a job waits for its start, and how long it then runs.

    It finds `others_ahead` before it, and logs `log_lines` lines beside the usual ones.
    """

    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    others_ahead: int = OTHERS_AHEAD
    log_lines: int = 0


@dataclass
class Job:
    """A request of the queue's. Its course is laid out when it comes in, and depends on
    the clock alone: without latency, the first look finds it completed."""

    request_id: str
    endpoint: EndpointId
    arguments: Json
    headers: Mapping[str, str]
    webhook: str | None
    submitted_at: float
    started_at: float
    finished_at: float
    latency: Latency
    fate: Answer | None = None
    work: asyncio.Task[Answer] | None = None
    cancelled: bool = False

    @property
    def status(self) -> Status:
        now = time.time()
        if now >= self.finished_at:
            return "COMPLETED"
        return "IN_PROGRESS" if now >= self.started_at else "IN_QUEUE"

    @property
    def priority(self) -> str:
        """Normal or low; other words are ignored, nothing is ever hurried."""
        return "low" if self.headers.get("x-fal-queue-priority") == "low" else "normal"

    @property
    def queue_position(self) -> int:
        waiting = self.started_at - self.submitted_at
        if waiting <= 0:
            return 0
        left = self.started_at - time.time()
        return int(self.latency.others_ahead * left / waiting)

    @property
    def logs(self) -> list[dict[str, Json]]:
        """All that was logged so far, which is nothing for a job that never ran."""
        if self.work is None:
            return []
        messages = _log_messages(self.latency.log_lines)
        step = self.latency.run_seconds / len(messages)
        times = [self.started_at + step * number for number in range(len(messages))]
        until = min(time.time(), self.finished_at)
        return [
            _log_entry(message, at)
            for message, at in zip(messages, times, strict=True)
            if at <= until
        ]

    @property
    def logs_window(self) -> list[dict[str, Json]]:
        """What a poll sees of the logs: old entries drop out, so polls miss some."""
        return self.logs[-LOG_WINDOW:]

    async def outcome(self) -> Answer:
        """The model's answer, which the queue replays as the result."""
        if self.fate is None:
            assert self.work is not None
            self.fate = await self.work
        return self.fate

    def cancel(self) -> None:
        """Take it out of the queue, or stop it where it is."""
        if self.status == "IN_QUEUE":
            self.drop()
            self.started_at = time.time()
        self.cancelled = True
        self.fate = cancelled()
        self.finished_at = time.time()

    def drop(self) -> None:
        if self.work is not None:
            self.work.cancel()
        self.work = None


def _log_messages(further: int) -> list[str]:
    progress = ["0%|    |", "25%|#   |", "50%|##  |", "75%|### |", "100%|####|"]
    chatter = [f"Working on frame {number}" for number in range(1, further + 1)]
    return ["Preparing the model", *chatter, *progress, "Uploading the result"]


def _log_entry(message: str, at: float) -> dict[str, Json]:
    timestamp = datetime.fromtimestamp(at, UTC).isoformat()
    origin = {"level": "INFO", "source": "USER", "labels": {}}
    return {"message": message, "timestamp": timestamp, **origin}


@dataclass
class Models:
    """Runs models: everything short of HTTP that becomes of some arguments."""

    catalog: Catalog
    storage: Storage
    latency: Latency = field(default_factory=Latency)
    latencies: dict[str, Latency] = field(default_factory=dict)

    def latency_of(self, endpoint: EndpointId, arguments: Json) -> Latency:
        latency = self.latencies.get(str(endpoint), self.latency)
        if "[slow]" in _prompt(arguments):
            return replace(latency, run_seconds=SLOW_SECONDS)
        return latency

    async def run(self, endpoint: EndpointId, arguments: Json) -> Answer:
        return await asyncio.to_thread(self.result, endpoint, arguments)

    def result(self, endpoint: EndpointId, arguments: Json) -> Answer:
        output = self.prepared(endpoint, arguments)
        if isinstance(output, Answer):
            return output
        return Answer(200, output.body(), billed(output))

    def prepared(self, endpoint: EndpointId, arguments: Json) -> Output | Answer:
        """The output to be made, or the error that comes in its place."""
        model = self.catalog.find(str(endpoint))
        if model is None and not endpoint.namespaced:
            return path_not_found(endpoint.path or "/")
        interface = interface_of(model) if model else None
        if interface is not None:
            arguments, problems = checked(interface, arguments)
            if problems:
                return model_error(422, problems)
        if not isinstance(arguments, dict):
            msg = "Input should be a valid dictionary"
            return model_error(422, [error_item(["body"], "dict_type", msg, arguments)])
        failure = _scripted_failure(arguments)
        return failure or Output(str(endpoint), model, arguments, self.storage)


def billed(output: Output) -> dict[str, str]:
    return {"X-Fal-Billable-Units": str(output.billable_units)}


def _prompt(arguments: Json) -> str:
    return str(arguments.get("prompt", "")) if isinstance(arguments, dict) else ""


def _scripted_failure(arguments: Mapping[str, Json]) -> Answer | None:
    """The fate that the prompt asks for."""
    prompt = str(arguments.get("prompt", ""))
    if "[nsfw]" in prompt:
        kind = "content_policy_violation"
        return model_error(422, [error_item(["body", "prompt"], kind, FLAGGED, prompt)])
    if "[fail]" in prompt:
        kind, msg = "internal_server_error", "The model stumbled over this prompt."
        return model_error(500, [error_item(["body"], kind, msg, dict(arguments))])
    return None


class Queue:
    """The jobs of all endpoints, by request id."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.jobs: dict[str, Job] = {}

    def submit(
        self, endpoint: EndpointId, arguments: Json, headers: Mapping[str, str], webhook: str | None
    ) -> Job:
        latency = self._models.latency_of(endpoint, arguments)
        now = time.time()
        job = Job(
            request_id=str(uuid.uuid4()),
            endpoint=endpoint,
            arguments=arguments,
            headers=headers,
            webhook=webhook,
            submitted_at=now,
            started_at=now + latency.queue_seconds,
            finished_at=now + latency.queue_seconds + latency.run_seconds,
            latency=replace(latency),
        )
        self._start(job, allowed_wait(headers))
        self.jobs[job.request_id] = job
        return job

    def _start(self, job: Job, patience: float | None) -> None:
        if patience is not None and job.started_at - job.submitted_at > patience:
            job.started_at = job.finished_at = job.submitted_at + patience
            job.fate = start_timeout()
        else:
            job.work = asyncio.create_task(self._models.run(job.endpoint, job.arguments))

    def find(self, app: str, request_id: str) -> Job | None:
        job = self.jobs.get(request_id)
        if job is None or job.endpoint.app != app:
            return None
        return job

    def length(self, endpoint: EndpointId) -> int:
        """How many wait for the endpoint."""
        waiting = [
            job
            for job in self.jobs.values()
            if job.endpoint == endpoint and job.status == "IN_QUEUE"
        ]
        return len(waiting)

    def clear(self) -> None:
        for job in self.jobs.values():
            job.drop()
        self.jobs.clear()


def allowed_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds until the start that the caller grants; the newer header's name wins."""
    for name in ("x-fal-request-start-timeout", "x-fal-request-timeout"):
        try:
            return float(headers[name])
        except (KeyError, ValueError):
            continue
    return None
