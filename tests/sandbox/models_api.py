"""api.fal.ai and fal.ai: the catalog, prices, and the models' OpenAPI documents."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.answers import Answer, Json, Refused, api_error
from sandbox.auth import key_problem
from sandbox.catalog import Model
from sandbox.documents import document_of
from sandbox.queue_api import read_json
from sandbox.world import World

DEFAULT_PAGE = 50
# Both are guesses: the most that fal gives depends on what is asked. [?]
LARGEST_PAGE = 100
LARGEST_EXPANDED_PAGE = 20
MOST_ENDPOINT_IDS = 50

# What the models are billed by, and how much of it a call used to take.
UNITS = {"image": ("image", 1), "video": ("seconds", 5), "speech": ("1000 characters", 2)}
# That some have no price is not documented, but a model may come from anybody. [?]
UNPRICED = {"fal-ai/kolors", "fal-ai/stable-video"}


class ModelsApi:
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/v1/models/pricing", self.pricing, methods=["GET"]),
            Route("/v1/models/pricing/estimate", self.estimate, methods=["POST"]),
        ]

    @property
    def site_routes(self) -> list[BaseRoute]:
        return [Route("/api/openapi/queue/openapi.json", self.openapi, methods=["GET"])]

    async def list_models(self, request: Request) -> Response:
        if "authorization" in request.headers:
            _check_key(request)
        expanded = "openapi-3.0" in _listed(request, "expand")
        size = _page_size(request, LARGEST_EXPANDED_PAGE if expanded else LARGEST_PAGE)
        found = self._found(request)
        page = _page_number(request)
        rows = [_row(model, expanded) for model in found[(page - 1) * size : page * size]]
        has_more = page * size < len(found)
        cursor = _cursor(page + 1) if has_more else None
        return JSONResponse({"models": rows, "next_cursor": cursor, "has_more": has_more})

    def _found(self, request: Request) -> list[Model]:
        query, category = (request.query_params.get(name) for name in ("q", "category"))
        status = request.query_params.get("status")
        if status not in (None, "active", "deprecated"):
            raise Refused(_invalid("status must be active or deprecated"))
        wanted = _endpoint_ids(request)
        return [
            model
            for model in self._world.models.catalog.models
            if (not wanted or model.endpoint_id in wanted)
            and (category is None or model.category == category)
            and (status is None or model.deprecated == (status == "deprecated"))
            and _mentions(model, query or "")
        ]

    async def pricing(self, request: Request) -> Response:
        _check_key(request)
        wanted = _endpoint_ids(request)
        if not wanted:
            raise Refused(_invalid("endpoint_id is required"))
        models = map(self._world.models.catalog.find, wanted)
        prices = [_price(model) for model in models if model and _is_priced(model)]
        return JSONResponse({"prices": prices, "next_cursor": None, "has_more": False})

    async def estimate(self, request: Request) -> Response:
        """What calls, or units, of some endpoints come to."""
        _check_key(request)
        asked = await read_json(request)
        quantities = {"historical_api_price": "call_quantity", "unit_price": "unit_quantity"}
        kind, endpoints = asked.get("estimate_type"), asked.get("endpoints")
        if kind not in quantities or not isinstance(endpoints, dict) or not endpoints:
            raise Refused(_invalid("estimate_type and endpoints are required"))
        total = sum(
            _price(model)["unit_price"]
            * endpoints[model.endpoint_id][quantities[kind]]
            * (_unit(model)[1] if kind == "historical_api_price" else 1)
            for model in self._priced(endpoints)
        )
        body = {"estimate_type": kind, "total_cost": round(total, 6), "currency": "USD"}
        return JSONResponse(body)

    def _priced(self, endpoint_ids: Iterable[str]) -> list[Model]:
        models = []
        for endpoint_id in endpoint_ids:
            model = self._world.models.catalog.find(endpoint_id)
            if model is None or not _is_priced(model):
                message = f"Endpoint '{endpoint_id}' not found"
                raise Refused(api_error(404, "not_found", message))
            models.append(model)
        return models

    async def openapi(self, request: Request) -> Response:
        endpoint_id = request.query_params.get("endpoint_id", "")
        model = self._world.models.catalog.find(endpoint_id)
        document = document_of(model) if model else None
        return JSONResponse(document, 404 if document is None else 200)


def _check_key(request: Request) -> None:
    """The keys are judged alike everywhere, but here the judgement has another shape."""
    problem = key_problem(request.headers.get("authorization", ""), "Authentication required")
    if problem is not None:
        message = problem.body["detail"]
        raise Refused(api_error(problem.status, "authorization_error", message))


def _invalid(message: str) -> Answer:
    return api_error(400, "validation_error", message)


def _listed(request: Request, name: str) -> list[str]:
    """A parameter that may be repeated, or given once with commas."""
    values = request.query_params.getlist(name)
    return [part for value in values for part in value.split(",") if part]


def _endpoint_ids(request: Request) -> list[str]:
    endpoint_ids = _listed(request, "endpoint_id")
    if len(endpoint_ids) > MOST_ENDPOINT_IDS:
        raise Refused(_invalid(f"endpoint_id takes at most {MOST_ENDPOINT_IDS} values"))
    return endpoint_ids


def _page_size(request: Request, largest: int) -> int:
    text = request.query_params.get("limit", str(DEFAULT_PAGE))
    if not text.isdigit() or int(text) < 1:
        raise Refused(_invalid("limit must be a positive integer"))
    return min(int(text), largest)


def _cursor(page: int) -> str:
    return base64.b64encode(str(page).encode()).decode()


def _page_number(request: Request) -> int:
    cursor = request.query_params.get("cursor")
    if not cursor:
        return 1
    try:
        return int(base64.b64decode(cursor, validate=True))
    except (binascii.Error, ValueError):
        raise Refused(_invalid("cursor is invalid")) from None


def _mentions(model: Model, query: str) -> bool:
    about = f"{model.endpoint_id} {model.title} {model.category}".lower()
    return all(word in about for word in query.lower().split())


def _row(model: Model, expanded: bool) -> dict[str, Json]:
    if not expanded:
        return model.row
    document = document_of(model)
    if document is None:
        message = "OpenAPI schema not available"
        document = {"error": {"code": "expansion_failed", "message": message}}
    return {**model.row, "openapi": document}


def _is_priced(model: Model) -> bool:
    return model.endpoint_id not in UNPRICED


def _unit(model: Model) -> tuple[str, int]:
    return UNITS.get(model.category.split("-")[-1], ("request", 1))


def _price(model: Model) -> dict[str, Json]:
    """Invented, but always the same."""
    cents = 1 + hashlib.sha256(model.endpoint_id.encode()).digest()[0] % 40
    price = {"unit_price": cents / 100, "unit": _unit(model)[0], "currency": "USD"}
    return {"endpoint_id": model.endpoint_id, **price}
