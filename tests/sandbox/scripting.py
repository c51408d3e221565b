"""What tests may ask of the sandbox: to remember every request, and to misbehave on some.

A request is recorded first; then the first rule that matches it and has an action left
decides what becomes of it. Without one it is answered as fal would.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.answers import Json
from sandbox.messages import unpack


@dataclass
class Recorded:
    """One request as it arrived; for a WebSocket, the method is "WEBSOCKET"."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    messages: list[Json] = field(default_factory=list)
    at: float = field(default_factory=lambda: time.time())

    @classmethod
    def from_scope(cls, scope: Scope, body: bytes) -> Recorded:
        headers = Headers(scope=scope)
        return cls(
            method=scope.get("method", "WEBSOCKET"),
            host=headers.get("host", "").partition(":")[0],
            path=scope["path"],
            query=dict(QueryParams(scope["query_string"])),
            headers=headers,
            body=body,
        )

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} https://{self.host}{self.path}"


@dataclass(frozen=True)
class Pass:
    """Answer as usual: lets a request through before the next action takes its turn."""


@dataclass(frozen=True)
class Stall:
    """Answer as usual, `seconds` late."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Answer as usual, or what is to be replied, as soon as the condition holds."""

    until: Callable[[], bool]
    reply: Reply | None = None


@dataclass(frozen=True)
class Reply:
    """Answer this in place of fal."""

    status: int = 200
    json: Json = None
    text: str | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        headers = dict(self.headers)
        if self.content is not None:
            return Response(self.content, self.status, headers)
        if self.text is not None:
            return PlainTextResponse(self.text, self.status, headers)
        return JSONResponse(self.json, self.status, headers)


@dataclass(frozen=True)
class Cut:
    """Drop the connection without a goodbye.

    - `request`: once the request was read, which is then never handled;
    - `headers`: handled, but only half of the response's head arrives
      (for a WebSocket: right after the handshake);
    - `body`: in the middle of the body, of an event stream's second event,
      of a WebSocket's first message.
    """

    at: Literal["request", "headers", "body"] = "request"


@dataclass(frozen=True)
class Lose:
    """Handle the request, and answer this: what fal would have answered is lost on the way."""

    reply: Reply


@dataclass(frozen=True)
class Always:
    """The action for every matching request from now on."""

    action: Action


Action = Pass | Stall | Hold | Reply | Lose | Cut


def nginx(status: int) -> Reply:
    """The HTML page of fal's ingress, which stands before the servers that speak JSON."""
    reasons = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
    title = f"{status} {reasons.get(status, 'Error')}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n"
        f"<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n"
        "</body>\r\n</html>\r\n"
    )
    return Reply(status, content=page.encode(), headers={"Content-Type": "text/html"})


@dataclass
class Rule:
    method: str
    host: str
    path_glob: str
    actions: list[Action | Always]

    def matches(self, request: Recorded) -> bool:
        return (
            fnmatchcase(request.method, self.method)
            and fnmatchcase(request.host, self.host)
            and fnmatchcase(request.path, self.path_glob)
        )

    def take(self) -> Action:
        first = self.actions[0]
        if isinstance(first, Always):
            return first.action
        del self.actions[0]
        return first


@dataclass
class Script:
    """The rules of a test, and everything that reached the sandbox meanwhile."""

    rules: list[Rule] = field(default_factory=list)
    requests: list[Recorded] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    largest_kept: float = math.inf

    def clear(self) -> None:
        self.largest_kept = math.inf
        self.rules.clear()
        self.requests.clear()
        self.unexpected.clear()

    def kept(self, body: bytes) -> bytes:
        """What is remembered of a body: nothing if it is larger than a test asked for."""
        return body if len(body) <= self.largest_kept else b""

    def remembers(self, request: Recorded) -> bool:
        """Whether the test that sent the request is still on."""
        return any(known is request for known in self.requests)

    def next_action(self, request: Recorded) -> Action:
        for rule in self.rules:
            if rule.actions and rule.matches(request):
                return rule.take()
        return Pass()

    def reject(self, description: str) -> Response:
        """Keep and answer what no part of fal is known to serve."""
        self.unexpected.append(description)
        return PlainTextResponse(description, 599)


FindTransport = Callable[[Scope], asyncio.Transport]


class ScriptedApp:
    """The ASGI application around the stand-in's own: records, then lets the script act."""

    def __init__(self, app: ASGIApp, script: Script, find_transport: FindTransport) -> None:
        self._app = app
        self._script = script
        self._find_transport = find_transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            body = await _read_body(receive)
            request = Recorded.from_scope(scope, self._script.kept(body))
            receive = _replay(body, receive)
        else:
            request = Recorded.from_scope(scope, b"")
            receive = _noting(request.messages, receive)
        self._script.requests.append(request)
        await self._act(request, scope, receive, send)

    async def _act(self, request: Recorded, scope: Scope, receive: Receive, send: Send) -> None:
        action = self._script.next_action(request)
        if isinstance(action, Stall | Hold):
            await self._delay(action, request)
            if not self._script.remembers(request):
                return
        if isinstance(action, Lose):
            await self._answer(request, scope, receive, _unheard)
        reply = action.reply if isinstance(action, Hold | Lose) else action
        if isinstance(reply, Reply):
            await send_reply(reply.response(), scope, receive, send)
            return
        if isinstance(action, Cut):
            await self._cut(action, request, scope, receive, send)
            return
        await self._answer(request, scope, receive, send)

    async def _delay(self, action: Stall | Hold, request: Recorded) -> None:
        if isinstance(action, Stall):
            await asyncio.sleep(action.seconds)
            return
        # Nobody tells when the condition begins to hold.
        while self._script.remembers(request) and not action.until():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def _answer(self, request: Recorded, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the stand-in answer; a mistake in it shows up as an unexpected request."""
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception:
            response = self._script.reject(f"{request}\n{traceback.format_exc()}")
            if not started:
                await send_reply(response, scope, receive, send)

    async def _cut(
        self, cut: Cut, request: Recorded, scope: Scope, receive: Receive, send: Send
    ) -> None:
        knife = _Knife(cut, self._find_transport(scope), send)
        if cut.at == "request":
            knife.abort()
        else:
            await self._answer(request, scope, receive, knife.send)
        while knife.cut_off and (await receive())["type"] not in _GOODBYES:
            pass  # uvicorn complains of an application that returns without an answer


_GOODBYES = ("http.disconnect", "websocket.disconnect")


class _Knife:
    """A `send` that ends the connection in the middle of what it should send."""

    def __init__(self, cut: Cut, transport: asyncio.Transport, send: Send) -> None:
        self._cut = cut
        self._transport = transport
        self._send = send
        self._bodies = 0
        self.cut_off = False

    def abort(self, last_words: bytes = b"") -> None:
        """Close without the end that TLS would announce, after some last bytes."""
        self.cut_off = True
        if last_words:
            self._transport.write(last_words)
        self._transport.abort()

    async def send(self, message: Message) -> None:
        if self.cut_off:
            return
        if message["type"] == "http.response.body":
            await self._send_body(message)
        elif message["type"] == "websocket.send" and self._cut.at == "body":
            self.abort(_half_a_frame(message))
        elif message["type"] == "http.response.start" and self._cut.at == "headers":
            self.abort(f"HTTP/1.1 {message['status']} OK\r\nContent-Ty".encode())
        else:
            await self._send(message)
            if message["type"] == "websocket.accept" and self._cut.at == "headers":
                self.abort()

    async def _send_body(self, message: Message) -> None:
        """Half of a body that comes in one piece, or half of a stream's second event."""
        self._bodies += 1
        streaming = message.get("more_body", False)
        if streaming and self._bodies == 1:
            await self._send(message)
            return
        body = message.get("body", b"")
        await self._send({**message, "body": body[: len(body) // 2], "more_body": True})
        self.abort()


def _half_a_frame(message: Message) -> bytes:
    payload: bytes = message.get("bytes") or (message.get("text") or "").encode()
    binary_frame, eight_byte_length = 0x82, 127
    head = struct.pack("!BBQ", binary_frame, eight_byte_length, len(payload))
    return head + payload[: len(payload) // 2]


async def _unheard(message: Message) -> None:
    """A `send` that tells nobody."""


async def send_reply(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer; to a WebSocket's handshake, with a refusal."""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await _deny(response, send)
    else:
        await response(scope, receive, send)


async def _deny(response: Response, send: Send) -> None:
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out a body which was read before."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _noting(messages: list[Json], receive: Receive) -> Receive:
    """A `receive` that keeps a WebSocket's messages, decoded, in `messages`."""

    async def noting() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive":
            messages.append(_decoded(message))
        return message

    return noting


def _decoded(message: Message) -> Json:
    if message.get("bytes") is None:
        return message["text"]
    decoded = unpack(message["bytes"])
    return message["bytes"] if decoded is None else decoded
