"""A quick clock: put on PYTHONPATH, it makes time fly for a Python process, from outside.

CLOCK_SPEED=60 lets a minute of every wait and of every clock pass in a second. CLOCK_JUMP=86400
unsettles the wall clock besides: it is right, a day ahead, a day behind, 50 ms each, in turn.

Python imports this before anything that could have taken hold of the clocks. Hastened is what
waits by the event loop or by time.sleep; but the other side of a connection lives in real time,
and so do the time limits by which httpx, through anyio, gives up on it.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections.abc import Callable
from typing import Any

Clock = Callable[[], float]

SPEED = float(os.environ.get("CLOCK_SPEED", "1"))
JUMP = float(os.environ.get("CLOCK_JUMP", "0"))


def hastened(clock: Clock) -> Clock:
    """The clock, as many times faster from now on."""
    start = clock()
    return lambda: start + (clock() - start) * SPEED


def unsettled(clock: Clock) -> Clock:
    """The clock, set forwards and backwards again and again."""
    steps, steady = (0.0, JUMP, -JUMP), time.monotonic
    return lambda: clock() + steps[int(steady() / 0.05) % len(steps)]


def shortened(selector: type[selectors.BaseSelector]) -> None:
    """Let the selector, in which an event loop waits, wait less."""
    select = selector.select

    def select_sooner(
        self: selectors.BaseSelector, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        return select(self, timeout and timeout / SPEED)

    setattr(selector, select.__name__, select_sooner)


def patient(loop: type[asyncio.BaseEventLoop]) -> None:
    """Leave anyio's time limits as long as they were."""
    call_at = loop.call_at

    def call_in_real_time(
        self: asyncio.BaseEventLoop, when: float, callback: Any, *args: Any, **context: Any
    ) -> asyncio.TimerHandle:
        if (getattr(callback, "__module__", None) or "").startswith("anyio."):
            when += (when - self.time()) * (SPEED - 1)
        return call_at(self, when, callback, *args, **context)

    setattr(loop, call_at.__name__, call_in_real_time)


def replace(**clocks: Callable[..., object]) -> None:
    for name, clock in clocks.items():
        setattr(time, name, clock)


sleep = time.sleep
replace(
    time=unsettled(hastened(time.time)),
    monotonic=hastened(time.monotonic),
    sleep=lambda seconds: sleep(seconds / SPEED),
)
shortened(selectors.DefaultSelector)
patient(asyncio.BaseEventLoop)
