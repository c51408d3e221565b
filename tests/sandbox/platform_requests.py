"""What requests to api.fal.ai have in common: keys, parameters, and pages of answers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.requests import Request

from sandbox.answers import Answer, Json, Refused, api_error
from sandbox.auth import key_problem

DEFAULT_PAGE = 50
LARGEST_PAGE = 100
MOST_ENDPOINT_IDS = 50

# The key with this id is of the scope that most have: it may not see what things cost.
LIMITED_KEY = "limited"


def check_platform_key(request: Request, admin: bool = False) -> None:
    """Refuse whom the other hosts refuse; here the refusal has another shape."""
    authorization = request.headers.get("authorization", "")
    problem = key_problem(authorization, "Authentication required")
    if problem is not None:
        message = problem.body["detail"]
        raise Refused(api_error(problem.status, "authorization_error", message))
    if admin and authorization.startswith(f"Key {LIMITED_KEY}:"):
        # Both 401 and 403 are documented; which of them it is, nobody has seen. [?]
        raise Refused(api_error(403, "authorization_error", "Admin API key required"))


def invalid(message: str) -> Answer:
    return api_error(400, "validation_error", message)


def listed(request: Request, name: str) -> list[str]:
    """A parameter that may be repeated, or given once with commas."""
    values = ",".join(request.query_params.getlist(name))
    return [value for value in values.split(",") if value]


def endpoint_ids(request: Request, required: bool = False) -> list[str]:
    wanted = listed(request, "endpoint_id")
    if required and not wanted:
        raise Refused(invalid("endpoint_id is required"))
    if len(wanted) > MOST_ENDPOINT_IDS:
        raise Refused(invalid(f"endpoint_id takes at most {MOST_ENDPOINT_IDS} values"))
    return wanted


def one_of(request: Request, name: str, *words: str) -> str | None:
    """A parameter that takes a few words only; None where it is not given."""
    word = request.query_params.get(name)
    if word is not None and word not in words:
        raise Refused(invalid(f"{name} must be one of {', '.join(words)}"))
    return word


def moment(request: Request, name: str, default: datetime) -> datetime:
    """A date, or a date and a time of day."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        # Python reads the Z since 3.11 only.
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refused(invalid(f"{name} must be an ISO 8601 date")) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def page_size(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_PAGE))
    if not text.isdigit() or int(text) < 1:
        raise Refused(invalid("limit must be a positive integer"))
    return int(text)


def page_number(request: Request) -> int:
    cursor = request.query_params.get("cursor")
    if not cursor:
        return 1
    try:
        return int(base64.b64decode(cursor, validate=True))
    except (binascii.Error, ValueError):
        raise Refused(invalid("cursor is invalid")) from None


def page(request: Request, name: str, rows: Sequence[Json], size: int) -> dict[str, Json]:
    """The rows that were asked for, and where the next ones are."""
    number = page_number(request)
    end = number * size
    has_more = end < len(rows)
    cursor = base64.b64encode(str(number + 1).encode()).decode()
    return {
        name: rows[end - size : end],
        "next_cursor": cursor if has_more else None,
        "has_more": has_more,
    }
