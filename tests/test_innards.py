"""The private names of libraries that the skill stands on: an upgrade that takes one away is told
here in a sentence, and not by a hundred tests of what stood on it."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import fal_client
import httpx
import pytest
import websockets

CLIENT: Any = fal_client.client


def cached_by_name(name: str) -> bool:
    """Whether the instance's own value of the name comes before the class's property."""
    client = fal_client.AsyncClient(key="example-id:example-secret")
    vars(client)[name] = "ours"
    return bool(getattr(client, name) == "ours")


def has_parameters(function: Callable[..., Any], *names: str) -> bool:
    return set(names) <= set(inspect.signature(function).parameters)


async def token_manager() -> Any:
    return CLIENT.AsyncCDNTokenManager(fal_client.auth.AuthCredentials("Key", "example:example"))


FOOTINGS: dict[str, Callable[[], bool]] = {
    "AsyncClient takes its HTTP client from its own _client": lambda: cached_by_name("_client"),
    "AsyncClient takes its upload tokens from its own _token_manager": lambda: cached_by_name(
        "_token_manager"
    ),
    "AsyncClient takes the client of its uploads from its own _cdn_client": lambda: cached_by_name(
        "_cdn_client"
    ),
    "AsyncBackupDomainTransport sends by its _client": lambda: isinstance(
        CLIENT.AsyncBackupDomainTransport(transport=httpx.AsyncBaseTransport())._client,
        httpx.AsyncClient,
    ),
    "AsyncCDNTokenManager has a URL, headers and a method for its token": lambda: (
        {
            "_url",
            "_headers",
            "_refresh_token",
        }
        <= set(dir(asyncio.run(token_manager())))
    ),
    "CDNToken has the fields that an answer fills": lambda: (
        [field.name for field in dataclasses.fields(CLIENT.CDNToken)]
        == ["token", "token_type", "base_upload_url", "expires_at"]
    ),
    "parts of an upload side by side are bounded by a constant": lambda: isinstance(
        CLIENT.MULTIPART_MAX_CONCURRENCY, int
    ),
    "uploads are cut into parts above a constant": lambda: isinstance(
        CLIENT.MULTIPART_THRESHOLD, int
    ),
    "WebSockets are opened by _connect_async_ws(url, headers)": lambda: has_parameters(
        CLIENT._connect_async_ws, "url", "headers"
    ),
    "WebSockets have a constant for how long opening may take": lambda: (
        CLIENT.REALTIME_OPEN_TIMEOUT > 0
    ),
    "what is logged is logged under the module's name": lambda: (
        CLIENT.logger.name == "fal_client.client"
    ),
    "websockets asks process_redirect before it follows": lambda: has_parameters(
        websockets.connect.process_redirect, "exc"
    ),
    "websockets takes the URL of a proxy": lambda: has_parameters(
        websockets.connect.__init__, "proxy"
    ),
    "what httpx raises keeps its request": lambda: (
        httpx.ConnectError("dummy", request=httpx.Request("GET", "https://fal.run"))._request
        is not None
    ),
}


@pytest.mark.parametrize("footing", FOOTINGS)
def test_the_libraries_are_built_as_the_skill_needs_them(footing: str) -> None:
    assert FOOTINGS[footing](), f"no longer true: {footing}"
