"""api.fal.ai and fal.ai: the catalog, prices, and the models' OpenAPI documents."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.answers import Answer, Json, Refused, api_error
from sandbox.catalog import Model
from sandbox.documents import document_of
from sandbox.platform_requests import (
    LARGEST_PAGE,
    check_platform_key,
    endpoint_ids,
    invalid,
    listed,
    one_of,
    page,
    page_size,
)
from sandbox.prices import CURRENCY, is_priced, price, unit_of, unit_price
from sandbox.queue_api import read_json
from sandbox.world import World

# A guess, as is that of pages in general: the most that fal gives depends on what is asked. [?]
LARGEST_EXPANDED_PAGE = 20


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
            check_platform_key(request)
        expansions = listed(request, "expand")
        largest = LARGEST_EXPANDED_PAGE if "openapi-3.0" in expansions else LARGEST_PAGE
        size = min(page_size(request), largest)
        body = page(request, "models", self._found(request), size)
        body["models"] = [_row(model, expansions) for model in body["models"]]
        return JSONResponse(body)

    def _found(self, request: Request) -> list[Model]:
        query = request.query_params.get("q", "")
        category = request.query_params.get("category")
        status = one_of(request, "status", "active", "deprecated")
        return [
            model
            for model in self._asked_for(endpoint_ids(request))
            if (category is None or model.category == category)
            and (status is None or model.deprecated == (status == "deprecated"))
            and _mentions(model, query)
        ]

    def _asked_for(self, wanted: list[str]) -> list[Model]:
        """The models of these ids, or all. 404 is documented, but not when it comes. [?]"""
        catalog = self._world.models.catalog
        if not wanted:
            return catalog.models
        found = [model for model in catalog.models if model.endpoint_id in wanted]
        if not found:
            raise Refused(_endpoint_not_found(wanted[0]))
        return found

    async def pricing(self, request: Request) -> Response:
        check_platform_key(request)
        wanted = endpoint_ids(request, required=True)
        models = map(self._world.models.catalog.find, wanted)
        prices = [price(model) for model in models if model and is_priced(model)]
        return JSONResponse({"prices": prices, "next_cursor": None, "has_more": False})

    async def estimate(self, request: Request) -> Response:
        """What calls, or units, of some endpoints come to."""
        check_platform_key(request)
        asked = await read_json(request)
        kind, endpoints = asked.get("estimate_type"), asked.get("endpoints")
        if not isinstance(endpoints, dict) or not endpoints:
            raise Refused(invalid("endpoints are required"))
        models = self._priced(endpoints)
        if kind == "historical_api_price":
            costs = [
                endpoints[model.endpoint_id]["call_quantity"] * _price_of_a_call(model)
                for model in models
            ]
        elif kind == "unit_price":
            costs = [
                endpoints[model.endpoint_id]["unit_quantity"] * unit_price(model)
                for model in models
            ]
        else:
            raise Refused(invalid("estimate_type is required"))
        body = {"estimate_type": kind, "total_cost": round(sum(costs), 6), "currency": CURRENCY}
        return JSONResponse(body)

    def _priced(self, wanted: Iterable[str]) -> list[Model]:
        models = []
        for endpoint_id in wanted:
            model = self._world.models.catalog.find(endpoint_id)
            if model is None or not is_priced(model):
                raise Refused(_endpoint_not_found(endpoint_id))
            models.append(model)
        return models

    async def openapi(self, request: Request) -> Response:
        endpoint_id = request.query_params.get("endpoint_id", "")
        model = self._world.models.catalog.find(endpoint_id)
        document = document_of(model) if model else None
        return JSONResponse(document, 404 if document is None else 200)


def _endpoint_not_found(endpoint_id: str) -> Answer:
    return api_error(404, "not_found", f"Endpoint '{endpoint_id}' not found")


def _price_of_a_call(model: Model) -> float:
    _, units = unit_of(model)
    return units * unit_price(model)


def _mentions(model: Model, query: str) -> bool:
    about = f"{model.endpoint_id} {model.title} {model.category}".lower()
    return all(word in about for word in query.lower().split())


def _row(model: Model, expansions: Collection[str]) -> dict[str, Json]:
    row = model.row
    if "openapi-3.0" in expansions:
        row["openapi"] = document_of(model) or _expansion_failed("OpenAPI schema not available")
    if "enterprise_status" in expansions:
        # These are fal's two words; which model has which is invented.
        row["enterprise_status"] = "pending" if model.invented else "ready"
    return row


def _expansion_failed(message: str) -> dict[str, Json]:
    return {"error": {"code": "expansion_failed", "message": message}}
