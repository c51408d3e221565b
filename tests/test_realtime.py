"""realtime: a WebSocket with msgpack both ways."""

from __future__ import annotations

import base64
import io

from conftest import Cli, Late
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
