"""realtime: a WebSocket with msgpack both ways."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from conftest import Cli, Late, Refusal
from PIL import Image
from sandbox import Cut, Reply, Sandbox

FLUX = "fal-ai/flux/schnell"
ORB = '{"prompt": "A glowing orb", "num_images": 1}'


def test_an_answer_for_each_round(fal: Sandbox, cli: Cli) -> None:
    done = cli("realtime", "--model", FLUX, "--arguments-json", ORB, "--rounds", "3")
    assert (done.status, done.stderr, len(done.lines)) == (0, "", 3)
    (socket,) = [request for request in fal.requests if request.method == "WEBSOCKET"]
    assert socket.path == "/fal-ai/flux/schnell/realtime"
    assert socket.messages == [{"prompt": "A glowing orb", "num_images": 1}] * 3


def test_binary_values_become_data_uris(cli: Cli) -> None:
    (answer,) = cli("realtime", "--model", FLUX, "--arguments-json", ORB).lines
    (image,) = answer["images"]
    header, _, payload = image["content"].partition(",")
    assert header == f"data:{image['content_type']};base64"
    with Image.open(io.BytesIO(base64.b64decode(payload))) as picture:
        assert picture.size == (image["width"], image["height"])


def test_flags_join_the_arguments(fal: Sandbox, cli: Cli) -> None:
    flags = ("--seed", "7", "--extra-json", '{"num_images": 2}')
    assert cli("realtime", "--model", FLUX, "--arguments-json", ORB, *flags).status == 0
    (socket,) = [request for request in fal.requests if request.method == "WEBSOCKET"]
    assert socket.messages == [{"prompt": "A glowing orb", "num_images": 2, "seed": 7}]


def test_arguments_json_alone_is_sent_as_it_is(fal: Sandbox, cli: Cli) -> None:
    """Nobody is asked for a schema, and nothing is taken for a file."""
    arguments = {"prompt": "A glowing orb", "image_url": "no-such.jpg", "num_images": "1"}
    assert cli("realtime", "--model", FLUX, "--arguments-json", json.dumps(arguments)).status == 0
    assert not [request for request in fal.requests if request.host == "api.fal.ai"]
    (socket,) = [request for request in fal.requests if request.method == "WEBSOCKET"]
    assert socket.messages == [arguments]


@pytest.mark.parametrize("endpoint", [FLUX, f"{FLUX}/realtime"])
def test_flags_are_fitted_to_the_model(fal: Sandbox, cli: Cli, endpoint: str) -> None:
    """A WebSocket that fal does not list takes what its model takes."""
    orb = ("realtime", "--model", endpoint, "--prompt", "A glowing orb", "--aspect-ratio", "16:9")
    refused = cli(*orb, "--num-images", "9")
    assert (refused.status, refused.error["type"]) == (2, "invalid_arguments")
    planned = cli(*orb, "--negative-prompt", "fog", "--arg", "num_images=2", "--dry-run")
    assert planned.json["url"] == f"wss://fal.run/{FLUX}/realtime"
    assert not [request for request in fal.requests if request.method == "WEBSOCKET"]
    done = cli(*orb, "--negative-prompt", "fog", "--arg", "num_images=2")
    assert (done.status, len(done.lines)) == (0, 1)
    assert "the model takes no --negative-prompt" in done.stderr
    (socket,) = [request for request in fal.requests if request.method == "WEBSOCKET"]
    assert socket.messages == [planned.json["arguments"]]
    assert socket.messages[0]["num_images"] == 2
    assert socket.messages[0]["image_size"] == "landscape_16_9"


def test_a_local_picture_is_uploaded(fal: Sandbox, cli: Cli, photo: Path) -> None:
    flags = ("--prompt", "A glowing orb", "--image-url", "photo.jpg", "--no-schema")
    assert cli("realtime", "--model", FLUX, *flags).status == 0
    (upload,) = fal.uploads
    (socket,) = [request for request in fal.requests if request.method == "WEBSOCKET"]
    assert socket.messages[0]["image_url"].startswith("https://")
    assert upload.content_type == "image/jpeg"


def test_a_limit_is_for_all_rounds(fal: Sandbox, cli: Cli) -> None:
    argv = ("realtime", "--model", FLUX, "--prompt", "A glowing orb", "--rounds", "3")
    planned = cli(*argv, "--dry-run").json["estimate"]
    assert planned["jobs"] == 3
    limit = str(planned["total_cost"] * 0.9)
    for arguments in ((), ("--arguments-json", "{}")):
        done = cli(*argv, *arguments, "--max-cost", limit)
        assert (done.status, done.error["type"]) == (2, "over_budget")
    assert not [request for request in fal.requests if request.method == "WEBSOCKET"]


def test_unchecked_arguments_cannot_be_checked_strictly(refusal: Refusal) -> None:
    error = refusal("realtime", "--model", FLUX, "--arguments-json", ORB, "--strict")
    assert "--arguments-json" in error["message"]


def test_an_endpoint_that_ends_in_realtime_does_not_get_it_twice(fal: Sandbox, cli: Cli) -> None:
    cli("realtime", "--model", f"{FLUX}/realtime", "--arguments-json", ORB)
    paths = [request.path for request in fal.requests if request.method == "WEBSOCKET"]
    assert paths == [f"/{FLUX}/realtime"]


def test_a_refused_token(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "rest.fal.ai", "/tokens/", Reply(200, json="dummy-token"))
    done = cli("realtime", "--model", FLUX, "--arguments-json", ORB)
    assert (done.status, done.stdout, done.error["type"]) == (3, "", "unauthorized")


def test_a_refused_handshake(fal: Sandbox, cli: Cli) -> None:
    fal.on("WEBSOCKET", "fal.run", "*", Reply(403, json={"detail": "User is locked. Reason: x"}))
    done = cli("realtime", "--model", FLUX, "--arguments-json", ORB)
    assert (done.status, done.stdout, done.error["type"]) == (3, "", "account_locked")


def test_a_connection_that_breaks(fal: Sandbox, cli: Cli) -> None:
    fal.on("WEBSOCKET", "fal.run", "*", Cut("body"))
    done = cli("realtime", "--model", FLUX, "--arguments-json", ORB)
    assert (done.status, done.stdout, done.error["type"]) == (4, "", "connection_lost")


def test_an_answer_that_does_not_come_in_time(late: Late) -> None:
    flags = ("--arguments-json", '{"prompt": "[slow]"}', "--client-timeout", "5")
    done = late("realtime", "--model", FLUX, *flags, once=lambda request: bool(request.messages))
    assert (done.status, done.stdout, done.error["type"]) == (5, "", "timeout")
