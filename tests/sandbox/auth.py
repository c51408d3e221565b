"""The keys and tokens that the sandbox takes, and what fal says to the others."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from sandbox.answers import Answer, Refused, detail
from sandbox.endpoints import EndpointId

FAKE_KEY = "dummy-id:dummy-secret-for-the-sandbox"

MALFORMED_KEY = "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."
UNKNOWN_KEY = "No user found for Key ID and Secret"
EXHAUSTED = (
    "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
)


def check_key(headers: Mapping[str, str], without_key: str) -> None:
    """Refuse a request whose Authorization header fal would refuse."""
    refusal = key_problem(headers.get("authorization", ""), without_key)
    if refusal is not None:
        raise Refused(refusal)


def key_problem(authorization: str, without_key: str) -> Answer | None:
    scheme, _, credentials = authorization.partition(" ")
    key_id, _, secret = credentials.partition(":")
    if not authorization:
        return detail(401, without_key)
    if scheme == "Bearer" and credentials:
        return None  # the token of somebody who ran `fal auth login`
    if scheme != "Key" or not key_id or not secret:
        return detail(401, MALFORMED_KEY)
    if key_id == "wrong":
        return detail(401, UNKNOWN_KEY)
    if key_id == "locked":
        return detail(403, EXHAUSTED)
    return None


def cannot_access(endpoint: EndpointId) -> str:
    # The end of the sentence is a guess. [?]
    return f'Cannot access application "{endpoint.app}". Authentication is required.'


@dataclass(frozen=True)
class Token:
    """Good for some apps, for a while."""

    apps: tuple[str, ...]
    expires_at: float


class Tokens:
    """What browsers show in place of a key, in the URL."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def issue(self, apps: Iterable[str], seconds: float) -> str:
        text = f"sandbox-jwt-{uuid.uuid4().hex}"
        self._tokens[text] = Token(tuple(apps), time.time() + seconds)
        return text

    def admit(self, text: str, endpoint: EndpointId) -> bool:
        """Whether the token is good for an app, which it names in full or by its alias."""
        token = self._tokens.get(text)
        if token is None or token.expires_at < time.time():
            return False
        return any(endpoint.alias in app.split("/") for app in token.apps)

    def check(self, connection: HTTPConnection, endpoint: EndpointId) -> None:
        """Refuse a request that has neither a token of ours in its URL nor a key."""
        text = connection.query_params.get("fal_jwt_token")
        if text is None:
            check_key(connection.headers, cannot_access(endpoint))
        elif not self.admit(text, endpoint):
            # What fal says to a token that is unknown or too old is not on record. [?]
            raise Refused(detail(401, "Invalid token"))
