"""All of fal's hosts as one ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.account_api import AccountApi
from sandbox.answers import Refused, answer_http_error, answer_refused, detail
from sandbox.files_api import CdnApi, RestApi
from sandbox.models_api import ModelsApi
from sandbox.queue_api import QueueApi
from sandbox.run_api import RunApi
from sandbox.scripting import Script, send_reply
from sandbox.world import World


def build_app(world: World) -> ASGIApp:
    models, cdn = ModelsApi(world), CdnApi(world)
    run, queue = RunApi(world).routes, QueueApi(world).routes
    hosts: dict[str, list[BaseRoute]] = {
        "fal.run": run,
        "queue.fal.run": queue,
        # Where the clients turn when the two above cannot be reached.
        "falrun.com": run,
        "queue.falrun.com": queue,
        "rest.fal.ai": RestApi(world).routes,
        "v3.fal.media": cdn.routes,
        "v3b.fal.media": cdn.routes,
        "api.fal.ai": [*models.routes, *AccountApi(world).routes],
        "fal.ai": models.site_routes,
    }
    unknown = Unknown(world.script)
    front = Route("/", front_door, methods=["HEAD"])
    routes: list[BaseRoute] = [
        Host(host, Router([front, *served], redirect_slashes=False, default=unknown))
        for host, served in hosts.items()
    ]
    handlers = {Refused: answer_refused, HTTPException: answer_http_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.default = unknown
    return app


async def front_door(request: Request) -> Response:
    """What somebody gets who only looks whether a host is there. [?]"""
    return detail(404, "Not Found").response()


class Unknown:
    """Answers what no route knows, in a way that no client takes for fal's."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method", "WEBSOCKET")
        host = HTTPConnection(scope).headers.get("host", "")
        description = f"{method} https://{host}{scope['path']}: the sandbox has no such thing"
        await send_reply(self._script.reject(description), scope, receive, send)
