"""api.fal.ai: what an account has asked for, what it cost, and what is left."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.answers import Json, Refused
from sandbox.catalog import Model
from sandbox.history import PastRequest
from sandbox.platform_requests import (
    LARGEST_PAGE,
    check_platform_key,
    endpoint_ids,
    invalid,
    listed,
    moment,
    one_of,
    page,
    page_size,
)
from sandbox.prices import CURRENCY, is_priced, unit_of, unit_price
from sandbox.world import World

DAY = timedelta(days=1)
# How far back a request is looked for that is named by its id.
RETENTION = timedelta(days=90)

USERNAME = "sandbox"
BALANCE = 25.0
KEY_ID, KEY_NAME = "sandbox-key", "Sandbox key"
# Where fal's webhooks come from; this range is reserved for examples.
WEBHOOK_IP_RANGES = ["192.0.2.0/24"]

# The longest span of time that is told in pieces of each size.
TIMEFRAMES = {
    "minute": timedelta(hours=2),
    "hour": timedelta(days=2),
    "day": timedelta(days=64),
    "week": timedelta(days=183),
    "month": timedelta.max,
}


class AccountApi:
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/models/requests/by-endpoint", self.requests, methods=["GET"]),
            Route("/v1/models/usage", self.usage, methods=["GET"]),
            Route("/v1/account/billing", self.billing, methods=["GET"]),
            Route("/v1/meta", self.meta, methods=["GET"]),
        ]

    async def requests(self, request: Request) -> Response:
        """The requests to some endpoints, those that ended last first."""
        check_platform_key(request)
        wanted = endpoint_ids(request, required=True)
        size = page_size(request)
        if size > LARGEST_PAGE:
            raise Refused(invalid(f"limit must be at most {LARGEST_PAGE}"))
        found = _newest_first(request, await self._selected(request, wanted))
        with_payloads = "payloads" in listed(request, "expand")
        items = [past.item(with_payloads) for past in found]
        return JSONResponse(page(request, "items", items, size))

    async def _selected(self, request: Request, wanted: list[str]) -> list[PastRequest]:
        """By when they were sent; it is not on record which of the three times counts. [?]"""
        request_id = request.query_params.get("request_id")
        verdict = one_of(request, "status", "success", "error", "user_error")
        now = datetime.fromtimestamp(time.time(), UTC)
        start = moment(request, "start", now - (RETENTION if request_id else DAY)).timestamp()
        end = moment(request, "end", now).timestamp()
        return [
            past
            for past in await self._world.past_requests()
            if str(past.endpoint) in wanted
            and start <= past.sent_at < end
            and (request_id is None or past.request_id == request_id)
            and (verdict is None or past.verdict == verdict)
        ]

    async def usage(self, request: Request) -> Response:
        """What was used when, and what it cost."""
        check_platform_key(request, admin=True)
        expansions = listed(request, "expand") or ["time_series"]
        if not {"time_series", "summary"} & set(expansions):
            raise Refused(invalid("expand must name time_series or summary"))
        period = Period.asked_for(request)
        charges = [*self._charges(request, await self._world.past_requests(), period)]
        body: dict[str, Json] = {"next_cursor": None, "has_more": False}
        if "time_series" in expansions:
            body = page(request, "time_series", _buckets(charges, expansions), page_size(request))
        if "summary" in expansions:
            body["summary"] = _rows(charges, expansions)
        return JSONResponse(body)

    def _charges(
        self, request: Request, history: Iterable[PastRequest], period: Period
    ) -> Iterator[Charge]:
        wanted = endpoint_ids(request)
        # The sandbox has one user with one key, whatever the keys are that come in.
        if not {*listed(request, "api_key_id")} <= {KEY_ID}:
            return
        if not {*listed(request, "login_username")} <= {USERNAME}:
            return
        for past in history:
            model = self._world.models.catalog.find(str(past.endpoint))
            if model is None or not is_priced(model) or past.ended_at is None:
                continue
            if wanted and model.endpoint_id not in wanted:
                continue
            bucket = period.bucket(past.ended_at)
            if bucket is not None and past.billable_units:
                yield Charge(bucket, model, past.billable_units)

    async def billing(self, request: Request) -> Response:
        check_platform_key(request, admin=True)
        body: dict[str, Json] = {"username": USERNAME}
        if "credits" in listed(request, "expand"):
            # It never runs low: what is used up here is nobody's.
            body["credits"] = {"current_balance": BALANCE, "currency": CURRENCY}
        return JSONResponse(body)

    async def meta(self, request: Request) -> Response:
        """Open to everybody."""
        return JSONResponse({"webhook_ip_ranges": WEBHOOK_IP_RANGES})


@dataclass(frozen=True)
class Period:
    """A span of time in pieces of one size."""

    start: datetime
    end: datetime
    timeframe: str
    zone: tzinfo
    bound: bool

    @classmethod
    def asked_for(cls, request: Request) -> Period:
        """What the parameters say: the last day in hours, if they say nothing."""
        now = datetime.fromtimestamp(time.time(), UTC)
        start = moment(request, "start", now - DAY)
        end = moment(request, "end", now)
        timeframe = one_of(request, "timeframe", *TIMEFRAMES)
        bound = one_of(request, "bound_to_timeframe", "true", "false")
        return cls(
            start=start,
            end=end,
            timeframe=timeframe or _fitting_timeframe(end - start),
            zone=_zone(request),
            bound=bound != "false",
        )

    def bucket(self, at: float) -> datetime | None:
        """The beginning of the piece that a moment is in; None outside of the whole span.

        If the span is bound to the timeframe, the first and the last piece are whole ones.
        """
        local = datetime.fromtimestamp(at, self.zone)
        beginning = self._floor(local)
        if self.bound:
            return beginning if self._floor(self.start) <= beginning < self.end else None
        return beginning if self.start <= local < self.end else None

    def _floor(self, at: datetime) -> datetime:
        minute = at.astimezone(self.zone).replace(second=0, microsecond=0)
        if self.timeframe == "minute":
            return minute
        hour = minute.replace(minute=0)
        if self.timeframe == "hour":
            return hour
        day = hour.replace(hour=0)
        if self.timeframe == "week":
            return day - timedelta(days=day.weekday())
        return day if self.timeframe == "day" else day.replace(day=1)


@dataclass(frozen=True)
class Charge:
    """So many units of a model, used in the piece of time that begins at `bucket`."""

    bucket: datetime
    model: Model
    quantity: float


def _newest_first(request: Request, found: list[PastRequest]) -> list[PastRequest]:
    """By their ends, or the longest first; what still runs is before all others. [?]"""
    by_duration = one_of(request, "sort_by", "ended_at", "duration") == "duration"

    def rank(past: PastRequest) -> float:
        value = past.duration if by_duration else past.ended_at
        return math.inf if value is None else value

    return sorted(found, key=rank, reverse=True)


def _zone(request: Request) -> tzinfo:
    name = request.query_params.get("timezone", "UTC")
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Refused(invalid(f"timezone {name} is unknown")) from None


def _fitting_timeframe(span: timedelta) -> str:
    return next(name for name, longest in TIMEFRAMES.items() if span < longest)


def _buckets(charges: Iterable[Charge], expansions: Iterable[str]) -> list[Json]:
    """The charges by when they arose; whether fal lists empty pieces too is not known. [?]"""
    by_time: dict[datetime, list[Charge]] = defaultdict(list)
    for charge in charges:
        by_time[charge.bucket].append(charge)
    return [
        {"bucket": bucket.isoformat(), "results": _rows(by_time[bucket], expansions)}
        for bucket in sorted(by_time)
    ]


def _rows(charges: Iterable[Charge], expansions: Iterable[str]) -> list[Json]:
    """One row for each model."""
    quantities: dict[Model, float] = defaultdict(float)
    for charge in charges:
        quantities[charge.model] += charge.quantity
    return [
        {**_row(model, quantity), **_auth_method(expansions)}
        for model, quantity in quantities.items()
    ]


def _row(model: Model, quantity: float) -> dict[str, Json]:
    cost = round(quantity * unit_price(model), 6)
    unit, _ = unit_of(model)
    return {
        "endpoint_id": model.endpoint_id,
        "unit": unit,
        "quantity": quantity,
        "unit_price": unit_price(model),
        "percent_discount": None,
        "cost_subtotal": cost,
        "cost_discount": 0,
        "cost_total": cost,
        "cost": cost,
        "currency": CURRENCY,
    }


def _auth_method(expansions: Iterable[str]) -> dict[str, Json]:
    method: dict[str, Json] = {}
    if "auth_method" in expansions:
        method["auth_method"] = KEY_NAME
    if "auth_method_structured" in expansions:
        # Documented are the three fields, the words of `detail` are not. [?]
        structured = {"detail": KEY_NAME, "api_key_id": KEY_ID, "login_username": USERNAME}
        method["auth_method_structured"] = structured
    return method
