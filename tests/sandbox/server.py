"""The sandbox's machinery: a throw-away CA, a TLS server and the proxy that leads to it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from types import TracebackType

import trustme
import uvicorn
from starlette.types import Scope

from sandbox.app import build_app
from sandbox.auth import FAKE_KEY
from sandbox.catalog import Model
from sandbox.jobs import Job, Latency
from sandbox.proxy import LOOPBACK, ConnectProxy
from sandbox.scripting import Action, Always, Recorded, Rule, ScriptedApp
from sandbox.storage import StoredFile
from sandbox.world import Delivery, World

HOSTS = (
    "fal.run",
    "*.fal.run",
    "falrun.com",
    "*.falrun.com",
    "fal.ai",
    "*.fal.ai",
    "*.fal.media",
    # Not fal's: for tests that need a file from elsewhere.
    "example.com",
    "*.example.com",
)


class Sandbox:
    """A stand-in for fal.ai's servers, on loopback, for as long as the `with` block lasts."""

    def __init__(self, queue_seconds: float = 0.0, run_seconds: float = 0.0) -> None:
        self._world = World()
        self._world.default_latency = Latency(queue_seconds, run_seconds)
        self._world.models.latency = Latency(queue_seconds, run_seconds)
        self._proxy = ConnectProxy()
        self._thread = threading.Thread(target=self._run, name="fal-sandbox", daemon=True)
        self._running = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Sandbox:
        self._directory = tempfile.TemporaryDirectory(prefix="fal-sandbox-")
        self._thread.start()
        self._running.wait()
        if self._failure is not None:
            self._directory.cleanup()
            raise RuntimeError("The sandbox did not start") from self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._directory.cleanup()

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead a child process here."""
        proxy = f"http://{LOOPBACK}:{self._proxy.port}"
        return {
            "HTTPS_PROXY": proxy,
            "HTTP_PROXY": proxy,
            "NO_PROXY": "",
            "SSL_CERT_FILE": str(self._ca_file),
            "FAL_KEY": FAKE_KEY,
        }

    @property
    def requests(self) -> list[Recorded]:
        return self._world.script.requests

    @property
    def unexpected(self) -> list[str]:
        """Descriptions of the requests that fal is not known to serve."""
        return self._world.script.unexpected

    @property
    def jobs(self) -> dict[str, Job]:
        return self._world.queue.jobs

    @property
    def uploads(self) -> list[StoredFile]:
        return self._world.storage.uploads

    @property
    def webhooks(self) -> list[Delivery]:
        return self._world.webhooks

    @property
    def models(self) -> list[Model]:
        return self._world.models.catalog.models

    @property
    def tunnels(self) -> list[str]:
        """The `host:port` of each CONNECT."""
        return self._proxy.tunnels

    @property
    def tls_port(self) -> int:
        """The port on loopback where every tunnel ends."""
        return self._proxy.target_port

    @property
    def queue_seconds(self) -> float:
        return self._world.models.latency.queue_seconds

    @queue_seconds.setter
    def queue_seconds(self, seconds: float) -> None:
        self._world.models.latency.queue_seconds = seconds

    @property
    def run_seconds(self) -> float:
        return self._world.models.latency.run_seconds

    @run_seconds.setter
    def run_seconds(self, seconds: float) -> None:
        self._world.models.latency.run_seconds = seconds

    @property
    def latencies(self) -> dict[str, Latency]:
        """Exceptions from the two above, by endpoint."""
        return self._world.models.latencies

    @property
    def idle_seconds(self) -> float:
        """How long a realtime connection stays open without a message."""
        return self._world.realtime_idle_seconds

    @idle_seconds.setter
    def idle_seconds(self, seconds: float) -> None:
        self._world.realtime_idle_seconds = seconds

    @property
    def largest_kept(self) -> float:
        """Bodies of more bytes are answered and then forgotten; without limit at first."""
        return self._world.script.largest_kept

    @largest_kept.setter
    def largest_kept(self, size: float) -> None:
        self._world.script.largest_kept = size

    def on(self, method: str, host: str, path_glob: str, *actions: Action | Always) -> None:
        """Take one action per matching request, in order; the first rule that matches acts.

        Method and host may be globs too. A WebSocket's method is "WEBSOCKET".
        """
        self._world.script.rules.append(Rule(method, host, path_glob, list(actions)))

    @staticmethod
    def always(action: Action) -> Always:
        """The action for every request that reaches it."""
        return Always(action)

    def refuse(self, host: str) -> None:
        """Hang up on each CONNECT to the host, without an answer."""
        self._proxy.refused.add(host)

    def cut_off(self, host: str) -> None:
        """Open tunnels to the host that end at once: to httpx, it cannot be connected to."""
        self._proxy.unreachable.add(host)

    def reset(self) -> None:
        """Forget what happened and what was arranged; files stay where they are."""
        asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result()

    async def _reset(self) -> None:
        self._proxy.tunnels.clear()
        self._proxy.refused.clear()
        self._proxy.unreachable.clear()
        await self._world.reset()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._running.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = TlsServer(self._world, *self._write_certificates())
        await server.start()
        await self._proxy.start(server.port)
        self._running.set()
        await self._stopping.wait()
        await self._proxy.stop()
        await server.stop()
        await self._world.stop_background()
        self._world.queue.clear()

    def _write_certificates(self) -> tuple[Path, Path]:
        directory = Path(self._directory.name)
        authority = trustme.CA()
        self._ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self._ca_file))
        leaf = authority.issue_cert(*HOSTS)
        certificate, key = directory / "leaf.pem", directory / "leaf.key"
        leaf.cert_chain_pems[0].write_to_path(str(certificate))
        leaf.private_key_pem.write_to_path(str(key))
        return certificate, key


class TlsServer:
    """uvicorn in the sandbox's own event loop."""

    def __init__(self, world: World, certificate: Path, key: Path) -> None:
        app = ScriptedApp(build_app(world), world.script, self._transport)
        config = uvicorn.Config(
            app,
            host=LOOPBACK,
            port=0,
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.005)

    @property
    def port(self) -> int:
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """At once: whoever still waits for an answer gets none."""
        assert self._task is not None
        state = self._server.server_state
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        self._server.should_exit = True
        await self._task

    def _transport(self, scope: Scope) -> asyncio.Transport:
        """The connection of a request, for those who want to cut it."""
        client = tuple(scope["client"])
        for connection in self._server.server_state.connections:
            if getattr(connection, "client", None) == client:
                return connection.transport
        raise LookupError(f"no connection from {client}")
