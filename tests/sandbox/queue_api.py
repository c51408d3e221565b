"""queue.fal.run: submit, status, result, cancel."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from sandbox.answers import Answer, Json, Refused, application_not_found, detail
from sandbox.auth import cannot_access, check_key
from sandbox.endpoints import EndpointId
from sandbox.jobs import Job
from sandbox.world import Delivery, World

KEEP_ALIVE_SECONDS = 15.0
STREAM_TICK = 0.05
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

NOT_FOUND = Answer(404, {"status": "NOT_FOUND"})


class QueueApi:
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def routes(self) -> list[BaseRoute]:
        request = "/{app:path}/requests/{request_id}"
        table = [
            (f"{request}/status/stream", self.stream_status, "GET"),
            (f"{request}/status", self.status, "GET"),
            (f"{request}/cancel", self.cancel, "PUT"),
            (request, self.result, "GET"),
            ("/{endpoint:path}", self.submit, "POST"),
        ]
        return [
            Route(path + slash, handler, methods=[method])
            for path, handler, method in table
            for slash in ("", "/")
        ]

    async def submit(self, request: Request) -> Response:
        endpoint = known_endpoint(self._world, request, request.path_params["endpoint"])
        self._check_queue_length(request, endpoint)
        webhook = request.query_params.get("fal_webhook")
        arguments = await read_json(request)
        job = self._world.queue.submit(endpoint, arguments, request.headers, webhook)
        if webhook:
            self._world.in_background(self._deliver(job, webhook))
        body = {**_urls(job), "status": "IN_QUEUE", "queue_position": job.queue_position}
        return Answer(200, body).response(_request_id(job))

    def _check_queue_length(self, request: Request, endpoint: EndpointId) -> None:
        limit = request.query_params.get("fal_max_queue_length", "")
        if not limit.isdigit():
            return
        if self._world.queue.length(endpoint) > int(limit):
            # The status is documented, the words are not. [?]
            raise Refused(detail(429, "Queue length limit exceeded"))

    async def status(self, request: Request) -> Response:
        job = self._job(request)
        body = await status_body(job, with_logs(request))
        return Answer(status_code(job, body), body).response(_request_id(job))

    async def stream_status(self, request: Request) -> Response:
        """The status as events; a token in the URL is enough, for browsers."""
        job = self._job(request, with_token=True)
        events = _status_events(job, with_logs(request))
        return StreamingResponse(events, media_type="text/event-stream")

    async def result(self, request: Request) -> Response:
        job = self._job(request)
        if job.status != "COMPLETED":
            return detail(400, "Request is still in progress").response()
        outcome = await job.outcome()
        return outcome.response(_request_id(job))

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        status = job.status
        if status == "COMPLETED":
            return Answer(400, {"status": "ALREADY_COMPLETED"}).response()
        # A running model may ignore the signal; in the sandbox all of them obey.
        job.cancel()
        if status == "IN_PROGRESS":
            return Answer(202, {"status": "CANCELLATION_REQUESTED"}).response()
        # That OK comes with 200 is a guess. [?]
        return Answer(200, {"status": "OK"}).response()

    def _job(self, request: Request, with_token: bool = False) -> Job:
        """The job of the path: under its app alone, though it may have a longer id."""
        endpoint = EndpointId.parse(request.path_params["app"])
        check_caller(self._world, request, endpoint, with_token=with_token)
        if endpoint.path:
            raise Refused(detail(405, "Method Not Allowed"))
        job = self._world.queue.find(endpoint.app, request.path_params["request_id"])
        if job is None:
            raise Refused(NOT_FOUND)
        return job

    async def _deliver(self, job: Job, url: str) -> None:
        """Call the webhook, were it fal's to call; from here only this machine is called."""
        await asyncio.sleep(max(0.0, job.finished_at - time.time()))
        delivery = Delivery(url, _webhook_body(job, await job.outcome()))
        self._world.webhooks.append(delivery)
        if httpx.URL(url).host in LOOPBACK_HOSTS:
            async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
                delivery.status = await _post(client, delivery)


async def _post(client: httpx.AsyncClient, delivery: Delivery) -> int | None:
    try:
        response = await client.post(delivery.url, json=delivery.body)
    except httpx.HTTPError:
        return None  # fal would try again for hours
    return response.status_code


def check_caller(
    world: World, request: Request, endpoint: EndpointId, *, with_token: bool = False
) -> None:
    if with_token:
        world.tokens.check(request, endpoint)
    else:
        check_key(request.headers, cannot_access(endpoint))


def known_endpoint(
    world: World, request: Request, text: str, *, with_token: bool = False
) -> EndpointId:
    """The endpoint of a path, for a caller whom fal lets in and if its app exists."""
    endpoint = EndpointId.parse(text)
    check_caller(world, request, endpoint, with_token=with_token)
    if not world.models.catalog.serves_app(endpoint):
        raise Refused(application_not_found(endpoint.alias))
    return endpoint


async def read_json(request: Request) -> Json:
    try:
        return await request.json()
    except json.JSONDecodeError:
        raise Refused(detail(400, "Invalid JSON body", "bad_request")) from None


def with_logs(request: Request) -> bool:
    return request.query_params.get("logs", "0").lower() in ("1", "true")


def _urls(job: Job) -> dict[str, Json]:
    """fal names a request under its app, whatever the endpoint's path."""
    url = f"https://queue.fal.run/{job.endpoint.app}/requests/{job.request_id}"
    return {
        "request_id": job.request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }


def _request_id(job: Job) -> dict[str, str]:
    return {"x-fal-request-id": job.request_id}


def status_code(job: Job, body: dict[str, Json]) -> int:
    return 200 if body["status"] == "COMPLETED" else 202


async def status_body(job: Job, logs: bool) -> dict[str, Json]:
    status = job.status
    body = {"status": status, **_urls(job), "logs": None, "metrics": {}}
    if status == "IN_QUEUE":
        return {**body, "queue_position": job.queue_position}
    if logs:
        body["logs"] = job.logs_window
    if status == "IN_PROGRESS":
        return body
    body["metrics"] = {"inference_time": round(job.finished_at - job.started_at, 3)}
    return {**body, **_failure(await job.outcome())}


def _failure(outcome: Answer) -> dict[str, str]:
    """What the status tells of a failure; the texts are no closed list. [?]"""
    if outcome.ok:
        return {}
    error_type = outcome.headers.get("X-Fal-Error-Type")
    if error_type is not None:
        return {"error": outcome.body["detail"], "error_type": error_type}
    error = {"error": f"Invalid status code: {outcome.status}"}
    return error if outcome.status < 500 else {**error, "error_type": "runner_server_error"}


def _webhook_body(job: Job, outcome: Answer) -> dict[str, Json]:
    ids = {"request_id": job.request_id, "gateway_request_id": job.request_id}
    if outcome.ok:
        return {**ids, "status": "OK", "payload": outcome.body}
    error = f"Invalid status code: {outcome.status}"
    return {**ids, "status": "ERROR", "error": error, "payload": outcome.body}


async def _status_events(job: Job, logs: bool) -> AsyncIterator[str]:
    """An event for each change, in which the logs are only those since the last."""
    told: tuple[Json, ...] = ()
    seen = 0
    silent_since = time.time()
    while True:
        body = await status_body(job, logs)
        news = (body["status"], body.get("queue_position"), len(job.logs))
        if news != told:
            if logs and body["logs"] is not None:
                body["logs"] = job.logs[seen:]
                seen += len(body["logs"])
            yield f"data: {json.dumps(body)}\n\n"
            told, silent_since = news, time.time()
        elif time.time() - silent_since > KEEP_ALIVE_SECONDS:
            yield ": keep-alive\n\n"
            silent_since = time.time()
        if body["status"] == "COMPLETED":
            return
        await asyncio.sleep(STREAM_TICK)
