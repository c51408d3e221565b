"""fal.run: the same models without the queue, at once, as a stream, or over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from sandbox.answers import Answer, Json, disconnected, path_not_found, start_timeout
from sandbox.auth import key_problem
from sandbox.endpoints import EndpointId
from sandbox.history import PastRequest, may_store
from sandbox.jobs import Latency, allowed_wait, billed
from sandbox.media import CONTENT_TYPES, draw, encoded
from sandbox.messages import pack, unpack
from sandbox.outputs import Output
from sandbox.queue_api import known_endpoint, read_json
from sandbox.storage import data_uri
from sandbox.workflows import workflow_events
from sandbox.world import World

PREVIEWS = 3
PREVIEW_SIDE = 128

# Closing codes of the sandbox's choosing: none is documented. [?]
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011


class RunApi:
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route("/{endpoint:path}", self.post, methods=["POST"]),
            WebSocketRoute("/{endpoint:path}/realtime", self.realtime),
            WebSocketRoute("/{endpoint:path}", self.no_websocket),
        ]

    async def post(self, request: Request) -> Response:
        """Run, or stream: a model's `/stream` is a path like any other to fal.

        To a stream, a token in the URL is enough, for browsers.
        """
        path = request.path_params["endpoint"]
        endpoint = known_endpoint(self._world, request, path, with_token=path.endswith("/stream"))
        arguments = await read_json(request)
        sent_at = time.time()
        request_id = str(uuid.uuid4())
        latency = self._world.models.latency_of(endpoint, arguments)
        if not await _started_in_time(request, latency):
            return start_timeout().response({"x-fal-request-id": request_id})
        streamed = self._streamed(endpoint)
        run = PastRequest(
            request_id=request_id,
            endpoint=streamed or endpoint,
            arguments=arguments,
            sent_at=sent_at,
            started_at=time.time(),
            stored=may_store(request.headers.get("x-fal-store-io")),
        )
        self._world.direct_runs.append(run)
        if streamed is not None:
            return await self._stream(run, latency.run_seconds)
        return await self._run(run, latency.run_seconds)

    def _streamed(self, endpoint: EndpointId) -> EndpointId | None:
        """The endpoint that streams at this path, if one does."""
        if not endpoint.path.endswith("/stream"):
            return None
        base = EndpointId(endpoint.app, endpoint.path.removesuffix("/stream"))
        if base.is_workflow:
            return base
        model = self._world.models.catalog.find(str(base))
        return base if model is not None and model.streams else None

    async def _run(self, run: PastRequest, seconds: float) -> Response:
        await asyncio.sleep(seconds)
        run.end(await self._world.models.run(run.endpoint, run.arguments))
        return _response(run)

    async def _stream(self, run: PastRequest, seconds: float) -> Response:
        """What goes wrong before the first event comes as ordinary JSON."""
        models = self._world.models
        if run.endpoint.is_workflow and isinstance(run.arguments, dict):
            return _event_stream(run, workflow_events(models, run.arguments, seconds), {})
        output = models.prepared(run.endpoint, run.arguments)
        if isinstance(output, Answer):
            run.end(output)
            return _response(run)
        return _event_stream(run, _previews_and_output(output, seconds), billed(output))

    async def realtime(self, socket: WebSocket) -> None:
        endpoint = EndpointId.parse(socket.path_params["endpoint"])
        model = self._world.models.catalog.find(str(endpoint))
        if model is None or not model.streams:
            await _deny(socket, path_not_found(f"{endpoint.path}/realtime"))
            return
        await socket.accept()
        if not self._may_enter(socket, endpoint):
            await socket.send_json({"status": "error", "error": "Unauthorized"})
            await socket.close(POLICY_VIOLATION)
            return
        await RealtimeConnection(self._world, endpoint, socket).serve()

    async def no_websocket(self, socket: WebSocket) -> None:
        endpoint = EndpointId.parse(socket.path_params["endpoint"])
        if self._world.models.catalog.serves_app(endpoint):
            await _deny(socket, path_not_found(endpoint.path or "/"))
        else:
            description = f"WEBSOCKET https://fal.run/{endpoint}: unknown to the sandbox"
            await socket.send_denial_response(self._world.script.reject(description))

    def _may_enter(self, socket: WebSocket, endpoint: EndpointId) -> bool:
        token = socket.query_params.get("fal_jwt_token")
        if token is None:
            return key_problem(socket.headers.get("authorization", ""), "") is None
        return self._world.tokens.admit(token, endpoint)


async def _started_in_time(request: Request, latency: Latency) -> bool:
    """Wait for a runner, as long as the caller is willing to."""
    patience = allowed_wait(request.headers)
    if patience is not None and latency.queue_seconds > patience:
        await asyncio.sleep(patience)
        return False
    await asyncio.sleep(latency.queue_seconds)
    return True


async def _deny(socket: WebSocket, answer: Answer) -> None:
    await socket.send_denial_response(JSONResponse(answer.body, answer.status))


def _response(run: PastRequest) -> Response:
    assert run.answer is not None
    return run.answer.response({"x-fal-request-id": run.request_id})


def _event_stream(
    run: PastRequest, events: AsyncIterator[Json], headers: Mapping[str, str]
) -> Response:
    """The events, the last of which is what the run has made."""

    async def texts() -> AsyncIterator[str]:
        answer = disconnected()
        try:
            async for data in events:
                last = data
                yield f"data: {json.dumps(data)}\n\n"
            answer = Answer(200, last, headers)
        finally:
            run.end(answer)

    named = {"x-fal-request-id": run.request_id}
    return StreamingResponse(texts(), headers=named, media_type="text/event-stream")


async def _previews_and_output(output: Output, seconds: float) -> AsyncIterator[Json]:
    """Ever sharper previews, then the output itself; each model has shapes of its own. [?]"""
    if "images" in output.fields:
        for step in range(1, PREVIEWS + 1):
            await asyncio.sleep(seconds / PREVIEWS)
            yield await asyncio.to_thread(_preview, output, step)
    yield await asyncio.to_thread(output.body)


def _preview(output: Output, step: int) -> Json:
    side = PREVIEW_SIDE * step // PREVIEWS
    image = draw(replace(output.scene, width=512, height=512)).resize((side, side))
    content_type = CONTENT_TYPES["jpeg"]
    url = data_uri(encoded(image, "jpeg"), content_type)
    about = {"width": side, "height": side, "content_type": content_type}
    return {"images": [{"url": url, **about}], "seed": output.seed}


class RealtimeConnection:
    """One realtime connection: a result for each message, until nobody sends any more."""

    def __init__(self, world: World, endpoint: EndpointId, socket: WebSocket) -> None:
        self._world = world
        self._endpoint = endpoint
        self._socket = socket

    async def serve(self) -> None:
        try:
            while await self._serve_message():
                pass
        except TimeoutError:
            await self._error("TIMEOUT", "no inputs, reconnect when needed!")
            await self._socket.close()
        except WebSocketDisconnect:
            pass

    async def _serve_message(self) -> bool:
        idle = self._world.realtime_idle_seconds
        message = await asyncio.wait_for(self._socket.receive(), idle)
        if message["type"] == "websocket.disconnect":
            return False
        arguments = unpack(message.get("bytes") or b"")
        if arguments is None:
            await self._error("INTERNAL_ERROR", "only msgpack is understood")
            await self._socket.close(INTERNAL_ERROR)
            return False
        await self._run(arguments)
        return self._socket.application_state is WebSocketState.CONNECTED

    async def _run(self, arguments: Json) -> None:
        started = time.perf_counter()
        output = self._world.models.prepared(self._endpoint, arguments)
        if isinstance(output, Answer):
            # fal reports a validation error's text; how it looks is not on record. [?]
            await self._error("INVALID_INPUT", json.dumps(output.body["detail"]))
            return
        latency = self._world.models.latency_of(self._endpoint, arguments)
        await asyncio.sleep(latency.run_seconds)
        result = await asyncio.to_thread(_raw_images, output)
        await self._control("x-fal-message", action="timings", timing=_since(started))
        await self._socket.send_bytes(pack(result))

    async def _error(self, error: str, reason: str) -> None:
        await self._control("x-fal-error", error=error, reason=reason)

    async def _control(self, kind: str, **fields: Json) -> None:
        await self._socket.send_text(json.dumps({"type": kind, **fields}))


def _raw_images(output: Output) -> dict[str, Json]:
    """Pictures as bytes: this result cannot be printed as JSON."""
    scenes = [replace(output.scene, seed=output.seed + number) for number in range(output.count)]
    images = [
        {
            "content": encoded(draw(scene), "jpeg"),
            "content_type": CONTENT_TYPES["jpeg"],
            "height": scene.height,
            "width": scene.width,
        }
        for scene in scenes
    ]
    return {"images": images, "seed": output.seed}


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 4)
