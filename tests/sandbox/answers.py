"""What fal answers: the shapes of its replies, its errors above all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Json = Any

# What a job reads when somebody cancelled it; 499 is nginx's "client closed request".
CANCELLED_STATUS = 499


@dataclass(frozen=True)
class Answer:
    """One JSON answer: a status, a body and the headers that are fal's own."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status < 400

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        return JSONResponse(self.body, self.status, {**self.headers, **(headers or {})})


class Refused(Exception):
    """Raised by a handler in order to answer at once."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


async def answer_refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refused)
    return refusal.answer.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own 405, in the JSON that FastAPI makes of it at fal."""
    assert isinstance(error, HTTPException)
    return detail(error.status_code, error.detail).response(error.headers)


def detail(status: int, text: str, error_type: str | None = None) -> Answer:
    """An error of the platform: a sentence, for a request error with its documented code."""
    if error_type is None:
        return Answer(status, {"detail": text})
    body = {"detail": text, "error_type": error_type}
    return Answer(status, body, {"X-Fal-Error-Type": error_type})


def error_item(
    loc: list[str | int], kind: str, msg: str, given: Json, ctx: Mapping[str, Json] | None = None
) -> dict[str, Json]:
    """One entry of the list that is the `detail` of a model's error."""
    item: dict[str, Json] = {"loc": loc, "msg": msg, "type": kind, "input": given}
    if ctx:
        item["ctx"] = dict(ctx)
    # Documented as always present; pydantic's own types are reported to come without it. [?]
    item["url"] = f"https://docs.fal.ai/errors/#{kind}"
    return item


def model_error(status: int, items: list[dict[str, Json]]) -> Answer:
    """An error of the model's: never worth a retry, and free when the input was refused."""
    # The documents name one header or the other. [?]
    headers = {"X-Fal-Retryable": "false", "X-Fal-Needs-Retry": "0"}
    if status == 422:
        headers["X-Fal-Billable-Units"] = "0"
    return Answer(status, {"detail": items}, headers)


def path_not_found(path: str) -> Answer:
    return detail(404, f"Path {path} not found")


def application_not_found(alias: str) -> Answer:
    return detail(404, f'Application "{alias}" not found')


def start_timeout() -> Answer:
    """The request waited longer for its start than its caller allowed."""
    answer = detail(504, "Request timed out", "request_timeout")
    return Answer(
        answer.status, answer.body, {**answer.headers, "X-Fal-Request-Timeout-Type": "user"}
    )


def cancelled() -> Answer:
    return detail(CANCELLED_STATUS, "Request was cancelled by the client", "client_cancelled")


def disconnected() -> Answer:
    """What becomes of a direct call whose caller has gone."""
    return detail(CANCELLED_STATUS, "Client disconnected", "client_disconnected")


def api_error(status: int, kind: str, message: str) -> Answer:
    """The third shape of an error, which only api.fal.ai has."""
    return Answer(status, {"error": {"type": kind, "message": message}})
