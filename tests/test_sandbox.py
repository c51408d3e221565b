"""The sandbox as clients meet it that nobody here wrote: what they expect of fal is there."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest
from conftest import Cli
from sandbox import Sandbox

FLUX = "fal-ai/flux/dev"
MODELS = "https://api.fal.ai/v1/models"


@pytest.fixture
def anybody(fal: Sandbox) -> Iterator[httpx.Client]:
    """A plain HTTP client without a key, led to the sandbox."""
    trusted = ssl.create_default_context(cafile=fal.env["SSL_CERT_FILE"])
    with httpx.Client(proxy=fal.env["HTTPS_PROXY"], verify=trusted) as client:
        yield client


@pytest.fixture
def client(fal: Sandbox, anybody: httpx.Client) -> httpx.Client:
    """The same with a key."""
    anybody.headers["Authorization"] = f"Key {fal.env['FAL_KEY']}"
    return anybody


# The models' documents


def input_names(client: httpx.Client, endpoint_id: str) -> list[str]:
    """The schemas of a model's document that their names make look like its input."""
    params = {"endpoint_id": endpoint_id, "expand": "openapi-3.0"}
    (row,) = client.get(MODELS, params=params).json()["models"]
    return [name for name in row["openapi"]["components"]["schemas"] if name.endswith("Input")]


def test_a_real_model_has_no_other_input_than_in_reality(anybody: httpx.Client) -> None:
    assert input_names(anybody, FLUX) == ["FluxDevInput"]
    kling = "fal-ai/kling-video/v3/pro/image-to-video"
    assert len(input_names(anybody, kling)) == 2


def test_the_name_of_an_input_may_mislead(fal: Sandbox, anybody: httpx.Client, cli: Cli) -> None:
    models = (m for m in fal.models if m.invented and m.category == "text-to-image")
    model = next(models).endpoint_id
    assert input_names(anybody, model) == ["TextToImageInput", "ImageToImageInput"]
    lines = cli("list-models", "--schema", model).stdout.splitlines()
    assert lines[0].startswith("prompt\tstring\trequired")
