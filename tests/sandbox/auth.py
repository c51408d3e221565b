"""The keys that the sandbox takes, and what fal says to the others."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.answers import Answer, Refused, detail

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
