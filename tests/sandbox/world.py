"""Everything that the parts of the stand-in share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from sandbox.answers import Json
from sandbox.auth import Tokens
from sandbox.catalog import Catalog
from sandbox.history import PastRequest
from sandbox.jobs import Latency, Models, Queue
from sandbox.scripting import Script
from sandbox.storage import Storage

REALTIME_IDLE_SECONDS = 30.0


@dataclass
class Delivery:
    """A webhook's call; `status` is what the receiver answered, None if none was asked."""

    url: str
    body: Json
    status: int | None = None


class World:
    def __init__(self) -> None:
        self.storage = Storage()
        self.models = Models(Catalog(), self.storage)
        self.queue = Queue(self.models)
        self.direct_runs: list[PastRequest] = []
        self.script = Script()
        self.webhooks: list[Delivery] = []
        # Tokens outlive a reset: a client that stays keeps the one that it got.
        self.cdn_tokens: set[str] = set()
        self.tokens = Tokens()
        self.realtime_idle_seconds = REALTIME_IDLE_SECONDS
        self.default_latency = Latency()
        self._background: set[asyncio.Task[None]] = set()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def past_requests(self) -> list[PastRequest]:
        """All that a runner has taken on, whichever way it came."""
        history = list(self.direct_runs)
        for job in list(self.queue.jobs.values()):
            # A job that waits was not sent to a runner; whether fal lists it is not known. [?]
            if job.status != "IN_QUEUE":
                history.append(await PastRequest.of_job(job))
        return history

    async def reset(self) -> None:
        self.script.clear()
        self.queue.clear()
        self.direct_runs.clear()
        self.webhooks.clear()
        self.storage.uploads.clear()
        self.realtime_idle_seconds = REALTIME_IDLE_SECONDS
        self.models.latency = Latency(
            self.default_latency.queue_seconds, self.default_latency.run_seconds
        )
        self.models.latencies.clear()
        await self.stop_background()

    async def stop_background(self) -> None:
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
