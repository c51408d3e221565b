"""A clock that tests set: put on PYTHONPATH, it takes over the time of a Python process.

CLOCK names a file, which a test and its processes share: when the clock began, the seconds that
have passed since then, and what may let them pass besides the test.

- STILL: nothing. What waits goes on waiting until the test sets the clock forward.
- LEAP: each wait, which takes no time at all, unless an answer is to come by the network.
- FLY: each wait, though answers be missing.

So a process that is slow, or that gets an answer late, is not late by this clock. Whether one is
to come is told from the time limits that httpx sets, through anyio, for all but some uploads; a
WebSocket has none.

CLOCK_JUMP=86400 unsettles the wall clock besides: it is right, a day ahead, a day behind, in turn.

Python imports this before anything that could have taken hold of the clocks.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import os
import selectors
import struct
import time
from collections.abc import Callable
from typing import Any

STILL, LEAP, FLY = range(3)
FIELDS = struct.Struct("ddd")
GLANCE = 0.01  # seconds between two looks at the file, in real time
LATE = 1e-6  # seconds by which a wait is too long, as any is: none ends too early


class Clock:
    """The file, as all who share it see it."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), FIELDS.size)

    @property
    def state(self) -> tuple[float, float, float]:
        began, passed, mode = FIELDS.unpack_from(self._memory)
        return began, passed, mode

    def monotonic(self) -> float:
        return self.state[1]

    def time(self) -> float:
        began, passed, _ = self.state
        return began + passed

    def leap(self, seconds: float) -> None:
        struct.pack_into("d", self._memory, 8, self.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while self.monotonic() < until:
            if self.state[2] == STILL:
                sleep(GLANCE)
            else:
                self.leap(seconds + LATE)


def selecting(clock: Clock, selector: type[selectors.BaseSelector]) -> None:
    """Let the selector, in which an event loop waits, wait by the clock."""
    select = selector.select

    def select_by_the_clock(
        self: selectors.BaseSelector, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return select(self, timeout)
        ready = select(self, 0)
        mode = clock.state[2]
        if not ready and (mode == FLY or (mode == LEAP and not expects())):
            clock.leap(timeout + LATE)
        elif not ready:
            ready = select(self, GLANCE)
        return ready

    setattr(selector, select.__name__, select_by_the_clock)


LIMITS: list[asyncio.TimerHandle] = []  # within which an answer must come
THREADS: set[Any] = set()  # which work for the event loop


def expects() -> bool:
    """Whether something is to come that takes time in the real world."""
    LIMITS[:] = [limit for limit in LIMITS if not limit.cancelled()]
    return bool(LIMITS or THREADS)


def watching(loop: type[asyncio.BaseEventLoop]) -> None:
    """Take note of what an event loop expects."""
    call_at, run_in_executor = loop.call_at, loop.run_in_executor

    def watched_call_at(
        self: asyncio.BaseEventLoop, when: float, callback: Any, *args: Any, **context: Any
    ) -> asyncio.TimerHandle:
        handle = call_at(self, when, callback, *args, **context)
        if (getattr(callback, "__module__", None) or "").startswith("anyio."):
            LIMITS.append(handle)
        return handle

    def watched_run_in_executor(self: asyncio.BaseEventLoop, *work: Any) -> Any:
        future = run_in_executor(self, *work)
        THREADS.add(future)
        future.add_done_callback(THREADS.discard)
        return future

    setattr(loop, call_at.__name__, watched_call_at)
    setattr(loop, run_in_executor.__name__, watched_run_in_executor)


def unsettled(clock: Callable[[], float], jump: float) -> Callable[[], float]:
    """The clock, set forwards and backwards again and again."""
    steps = itertools.cycle((0.0, jump, -jump))
    return lambda: clock() + next(steps)


def replace(**clocks: Callable[..., object]) -> None:
    for name, clock in clocks.items():
        setattr(time, name, clock)


sleep = time.sleep
if path := os.environ.get("CLOCK"):
    clock = Clock(path)
    jump = float(os.environ.get("CLOCK_JUMP", "0"))
    replace(
        time=unsettled(clock.time, jump) if jump else clock.time,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
    )
    selecting(clock, selectors.DefaultSelector)
    watching(asyncio.BaseEventLoop)
