"""Where the key, the tokens and the words of ours may go, and whose words are whose."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import LEAP, Cli, Clock, Outcome, leaping
from sandbox import Reply, Sandbox, run_api
from sandbox.outputs import Output

FLUX = "fal-ai/flux/dev"
QUEUE = "queue.fal.run"
CDN = "v3b.fal.media"
UPLOADS = "v3.fal.media"  # of files that are sent in one piece
PATH = "fal-ai/flux/requests/some-request"
SUBSCRIBE = ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
RUN = ("run-t2i", "--model", FLUX, "--prompt", "A cat")
REALTIME = ("realtime", "--model", FLUX, "--arguments-json", '{"prompt": "A cat", "seed": 7}')

# Hosts that an answer may name, and the one that would be asked.
STRANGERS = {
    "another port": "https://queue.fal.run:8443",
    "user": "https://user:dummy@queue.fal.run",
    "look-alike behind": "https://queue.fal.run.example.com",
    "look-alike before": "https://queue-fal.run",
    "longer name": "https://notfal.run",
    "name as user": "https://queue.fal.run@example.com",
    "port 80": "https://queue.fal.run:80",
    "clear text": "http://queue.fal.run",
    "clear text on 443": "http://queue.fal.run:443",
    "media host": "https://v3b.fal.media",
    "loopback": "https://127.0.0.1:9",
}


def each(table: Mapping[str, Any], name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, table.values(), ids=table.keys())


def urls(queue: str = f"https://{QUEUE}", **others: str) -> dict[str, str]:
    """The URLs of a job at a queue, but for those that are elsewhere."""
    places = {"status_url": f"/{PATH}/status", "response_url": f"/{PATH}"}
    places["cancel_url"] = f"/{PATH}/cancel"
    return {name: others.get(name, queue) + place for name, place in places.items()}


def taken(**answer: str) -> Reply:
    return Reply(200, json={"request_id": "some-request", "status": "IN_QUEUE", **answer})


def completed(**answer: str) -> Reply:
    return Reply(200, json={"status": "COMPLETED", "logs": None, "metrics": {}, **answer})


def asked(fal: Sandbox, *hosts: str) -> list[str]:
    """What came besides the POST of a job and looks at the model."""
    usual = ("api.fal.ai", "fal.run", *hosts)
    return [str(one) for one in fal.requests if one.host not in usual and one.path != f"/{FLUX}"]


def assert_untouched(fal: Sandbox, *usual: str) -> None:
    """No tunnel was opened but to these hosts, on the usual port if they name none."""
    hosts = ("api.fal.ai", "rest.fal.ai", *usual)
    known = {host if ":" in host else f"{host}:443" for host in hosts}
    assert {*fal.tunnels} <= known


def assert_unexpected(done: Outcome) -> None:
    assert (done.status, done.error["type"]) == (1, "unexpected_answer"), done.stderr


# The key


@each(STRANGERS, "stranger")
def test_a_status_is_read_at_fals_place_alone(fal: Sandbox, cli: Cli, stranger: str) -> None:
    fal.on("POST", QUEUE, "*", taken(**urls(stranger)))
    done = cli(*SUBSCRIBE)
    assert_unexpected(done)
    assert done.error["request_id"] == "some-request"
    assert asked(fal) == []
    assert_untouched(fal, QUEUE)


@each(STRANGERS, "stranger")
def test_a_response_is_read_at_fals_place_alone(fal: Sandbox, cli: Cli, stranger: str) -> None:
    """Though the status is where it belongs."""
    places = urls(response_url=stranger)
    fal.on("POST", QUEUE, "*", taken(**places))
    fal.on("GET", QUEUE, f"/{PATH}/status", fal.always(completed(**places)))
    done = cli(*SUBSCRIBE)
    assert_unexpected(done)
    assert {*asked(fal)} <= {f"GET https://{QUEUE}/{PATH}/status"}
    assert_untouched(fal, QUEUE)


@each(STRANGERS, "stranger")
def test_a_job_is_cancelled_at_fals_place_alone(
    fal: Sandbox, cli: Cli, clock: Clock, stranger: str
) -> None:
    places = urls(cancel_url=stranger)
    waiting = Reply(202, json={"status": "IN_QUEUE", "queue_position": 1, **places})
    fal.on("POST", QUEUE, "*", taken(**places))
    fal.on("GET", QUEUE, f"/{PATH}/status", fal.always(waiting))
    done = cli(*SUBSCRIBE, "--client-timeout", "5", env=clock.env(LEAP))
    assert done.error["request_id"] == "some-request"
    assert {one.host for one in fal.requests if one.method == "PUT"} <= {QUEUE}
    assert_untouched(fal, QUEUE)


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("queue.example.com", "https://queue.example.com:8443"),
        ("queue.example.com:8443", "https://queue.example.com"),
        ("queue.example.com:8443", "https://queue.example.com:9443"),
        ("queue.example.com", "https://www.queue.example.com"),
    ],
    ids=["another port", "no port", "two ports", "below it"],
)
def test_a_queue_of_the_users_own_is_taken_as_it_is_written(
    fal: Sandbox, cli: Cli, setting: str, place: str
) -> None:
    fal.on("POST", "queue.example.com", "*", taken(**urls(place)))
    assert_unexpected(cli(*SUBSCRIBE, env={"FAL_QUEUE_RUN_HOST": setting}))
    assert asked(fal) == []
    assert_untouched(fal, setting, setting.removesuffix(":8443"))


def test_a_queue_of_the_users_own_gets_the_key_on_its_port(fal: Sandbox, cli: Cli) -> None:
    setting = "queue.example.com:8443"
    fal.on("POST", "queue.example.com", "*", taken(**urls(f"https://{setting}")))
    fal.on("GET", "queue.example.com", "*/status", fal.always(completed()))
    fal.on("GET", "queue.example.com", "*", Reply(json={"seed": 7}))
    done = cli(*SUBSCRIBE, env={"FAL_QUEUE_RUN_HOST": setting})
    assert done.status == 0, done.stderr
    assert done.json == {"seed": 7}


# Uploads

BASES = {
    "stranger": "https://example.com",
    "clear text": f"http://{CDN}",
    "another port": f"https://{CDN}:8443",
    "user": f"https://user:dummy@{CDN}",
    "look-alike": f"https://{CDN}.example.com",
    "longer name": "https://notfal.media",
    "name as user": f"https://{CDN}@example.com",
    "loopback": "https://127.0.0.1:9",
}


@each(BASES, "base")
def test_a_file_and_its_token_go_to_fals_place_alone(
    fal: Sandbox, cli: Cli, photo: Path, base: str
) -> None:
    token = {"token": "dummy-token", "token_type": "Bearer", "base_url": base}
    answer = Reply(json={**token, "expires_at": "2099-01-01T00:00:00+00:00"})
    fal.on("POST", "rest.fal.ai", "*", answer)
    assert_unexpected(cli("upload-file", "--file", photo.name))
    assert asked(fal, "rest.fal.ai") == []
    assert_untouched(fal)


@each(BASES, "base")
def test_the_parts_of_a_file_go_to_fals_place_alone(
    fal: Sandbox, environment: dict[str, str], tmp_path: Path, base: str
) -> None:
    """fal-client leaves files open when a part fails, so that warnings are no errors here."""
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate((100 << 20) + 1)
    fal.largest_kept = 0
    started = Reply(json={"access_url": f"{base}/files/b/x.bin", "uploadId": "some-upload"})
    fal.on("POST", CDN, "/files/upload/multipart", started)
    command = [sys.executable, "-P", "-m", "skill_fal", "upload-file", "--file", "large.bin"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert_unexpected(Outcome(done.returncode, done.stdout, done.stderr))
    assert {*asked(fal, "rest.fal.ai")} <= {f"POST https://{CDN}/files/upload/multipart"}
    assert_untouched(fal, CDN)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("method", "host", "argv"),
    [
        ("POST", QUEUE, SUBSCRIBE),
        ("GET", QUEUE, SUBSCRIBE),
        ("POST", UPLOADS, ("upload-file", "--file", "photo.jpg")),
        ("POST", "rest.fal.ai", ("upload-file", "--file", "photo.jpg")),
    ],
    ids=["job", "status", "upload", "token"],
)
def test_nobody_is_led_astray(
    fal: Sandbox,
    cli: Cli,
    clock: Clock,
    photo: Path,
    method: str,
    host: str,
    argv: tuple[str, ...],
    status: int,
) -> None:
    location = {"Location": "https://example.com/files/upload"}
    fal.on(method, host, "*", fal.always(Reply(status, text="", headers=location)))
    assert leaping(cli, clock)(*argv).status == 1
    assert not [tunnel for tunnel in fal.tunnels if "example.com" in tunnel]


# The names of saved files

FORGED = [{"path": "/etc/passwd"}]
EVENTS = {"content-type": "text/event-stream"}


@pytest.fixture
def boasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model says that it has saved files, at the top of its answer and deep in it."""
    body = Output.body

    def with_files(self: Output) -> dict[str, Any]:
        answer: dict[str, Any] = body(self)
        deep = {"deep": [{"downloaded_files": FORGED}]}
        return {"downloaded_files": FORGED, **answer, **deep}

    monkeypatch.setattr(Output, "body", with_files)
    monkeypatch.setattr(run_api, "_raw_images", with_files)


def holders(document: Any, name: str) -> Iterator[Any]:
    """What stands under a name, at any depth."""
    inner = document if isinstance(document, list) else []
    if isinstance(document, dict):
        inner = list(document.values())
        if name in document:
            yield document[name]
    for value in inner:
        yield from holders(value, name)


def assert_told_apart(document: Any, saved: int) -> None:
    ours = list(holders(document, "downloaded_files"))
    assert FORGED not in ours
    assert [len(files) for files in ours] == [1] * saved
    assert list(holders(document, "model_downloaded_files")) == [FORGED, FORGED]


COMMANDS = {
    "subscribe": SUBSCRIBE,
    "run": RUN,
    "stream": ("stream-t2i", *RUN[1:]),
    "batch": ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog"),
    "realtime": REALTIME,
}


@pytest.mark.parametrize("output", [(), ("--output", "out/")], ids=["printed", "saved"])
@each(COMMANDS, "argv")
def test_files_that_a_model_names_are_not_called_ours(
    fal: Sandbox,
    cli: Cli,
    boasting: None,
    tmp_path: Path,
    argv: tuple[str, ...],
    output: tuple[str, ...],
) -> None:
    done = cli(*argv, *output)
    assert done.status == 0, done.stderr
    if "stream" in argv[0]:  # the events before the last are others
        assert_told_apart(done.lines[-1], saved=len(output) // 2)
        return
    documents = done.lines if argv[0] in ("realtime", "batch-t2i") else [done.json]
    assert documents
    for document in documents:
        assert_told_apart(document, saved=len(output) // 2)


@pytest.mark.parametrize("output", [(), ("--output", "out/")], ids=["printed", "saved"])
def test_files_that_an_earlier_result_names_are_not_called_ours(
    fal: Sandbox, cli: Cli, boasting: None, output: tuple[str, ...]
) -> None:
    request_id = cli("submit-t2i", *RUN[1:]).json["request_id"]
    done = cli("result", "--model", FLUX, "--request-id", request_id, *output)
    assert done.status == 0
    assert_told_apart(done.json, saved=len(output) // 2)


def test_files_that_a_journalled_result_names_are_not_called_ours(
    fal: Sandbox, cli: Cli, boasting: None
) -> None:
    argv = ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "--journal", "j")
    for _ in range(2):
        (line,) = cli(*argv).lines
        assert_told_apart(line, saved=0)


# It is nested more deeply than the command walks, and not too deeply for the test.
RAW = f'{{"downloaded_files": 1, "deep": [{{"downloaded_files": 2}}, {"[" * 400 + "]" * 400}]}}'
ONE = ("batch-t2i", "--model", FLUX, "--prompts", "A cat")
RAW_COMMANDS = {
    "run": RUN,
    "subscribe": SUBSCRIBE,
    "stream": COMMANDS["stream"],
    "batch": ONE,
    "journal": (*ONE, "--journal", "j"),
}


@pytest.mark.parametrize("output", [(), ("--output", "out/")], ids=["printed", "saved"])
@each(RAW_COMMANDS, "argv")
def test_an_answer_that_is_printed_as_it_came_has_no_files_of_ours(
    fal: Sandbox, cli: Cli, argv: tuple[str, ...], output: tuple[str, ...]
) -> None:
    """None of it is saved, which is told beside it; a journal prints it again."""
    event = Reply(content=f"data: {RAW}\n\n".encode(), headers=EVENTS)
    answer = Reply(content=RAW.encode(), headers={"content-type": "application/json"})
    fal.on("POST", "fal.run", "*/stream", event)
    fal.on("POST", "fal.run", f"/{FLUX}", answer)
    fal.on("GET", QUEUE, "*/requests/*-????????????", answer)
    for _ in range(2 if "--journal" in argv else 1):
        done = cli(*argv, *output)
        assert done.status == 0, done.stderr
        assert list(holders(done.json, "downloaded_files")) == ([[]] if output else [])
        assert list(holders(done.json, "model_downloaded_files")) == [1, 2]


@pytest.mark.parametrize("value", [None, 7, {"path": "/etc/passwd"}, "x"], ids=str)
def test_whatever_a_model_says_of_saved_files_keeps_its_value(
    fal: Sandbox, cli: Cli, value: Any
) -> None:
    fal.on("POST", "fal.run", "*", Reply(json={"downloaded_files": value}))
    done = cli(*RUN)
    assert (done.status, done.json) == (0, {"model_downloaded_files": value})


def test_each_event_of_a_stream_is_told_apart(fal: Sandbox, cli: Cli) -> None:
    events = [{"n": count, "downloaded_files": FORGED} for count in range(3)]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    fal.on("POST", "fal.run", "*", Reply(content=body.encode(), headers=EVENTS))
    done = cli("stream-t2i", *RUN[1:])
    assert done.status == 0
    assert [line.get("model_downloaded_files") for line in done.lines] == [FORGED] * 3
    assert not [line for line in done.lines if "downloaded_files" in line]


# Words of ours that come back

PASSWORD = "secret-example"


def proxied(fal: Sandbox, password: str = PASSWORD) -> dict[str, str]:
    proxy = fal.env["HTTPS_PROXY"].replace("://", f"://user:{password}@")
    return {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}


def assert_kept(done: Outcome, *secrets: str) -> None:
    for secret in secrets or (PASSWORD,):
        assert secret not in done.stdout + done.stderr


ECHOES = {
    "answer": Reply(json={"text": f"by http://user:{PASSWORD}@proxy.example.com"}),
    "alone": Reply(json={"text": PASSWORD, PASSWORD: 1}),
    "error": Reply(400, json={"detail": f"user:{PASSWORD} was refused"}),
    "page": Reply(502, text=f"<h1>Bad gateway http://user:{PASSWORD}@127.0.0.1</h1>"),
}


@each(ECHOES, "echo")
def test_the_password_of_a_proxy_is_never_told(fal: Sandbox, cli: Cli, echo: Reply) -> None:
    fal.on("POST", "fal.run", "*", fal.always(echo))
    done = cli(*RUN, env=proxied(fal))
    assert done.stdout or done.error["status"] == echo.status
    assert_kept(done)


def test_a_password_that_is_quoted_in_the_url_is_never_told(fal: Sandbox, cli: Cli) -> None:
    """Nor one that is not quoted there, and is when it is sent."""
    passwords = ("pass@word-example", "pass%40word-example")
    fal.on("POST", "fal.run", "*", fal.always(Reply(400, json={"detail": " or ".join(passwords)})))
    for password in passwords:
        done = cli(*RUN, env=proxied(fal, password))
        assert done.error["status"] == 400
        assert_kept(done, *passwords)


@pytest.mark.parametrize(
    "proxy",
    [
        f"http://user:{PASSWORD}@127.0.0.1:1",
        f"http://user:{PASSWORD}@127.0.0.1:port",
        f"ftp://user:{PASSWORD}@127.0.0.1:1",
        f"socks5://user:{PASSWORD}@127.0.0.1:1",
        f"http://user:{PASSWORD}@[::1",
        f"http://user:{PASSWORD}@no-such-host.invalid:1",
        f"http://user:{PASSWORD}#and-more@127.0.0.1:1",
        f"http://user:{PASSWORD}/and-more@127.0.0.1:1",
        f"http://user:{PASSWORD}?and-more@127.0.0.1:1",
        f"user:{PASSWORD}#and-more@127.0.0.1:1",
    ],
    ids=[
        "closed port",
        "no port",
        "ftp",
        "socks",
        "half an address",
        "no host",
        "hash",
        "slash",
        "question mark",
        "hash and no scheme",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_does_not_work_has_its_password_kept(
    fal: Sandbox, cli: Cli, proxy: str, variable: str
) -> None:
    env = {"HTTPS_PROXY": "", "HTTP_PROXY": "", variable: proxy}
    done = cli(*RUN, "--no-schema", env=env)
    assert done.status != 0
    assert_kept(done)


@pytest.mark.parametrize("scheme", ["http://", ""], ids=["scheme", "no scheme"])
@pytest.mark.parametrize(
    "variable",
    [
        "HTTPS_PROXY",
        "https_proxy",
        "Https_Proxy",
        "HTTPS_proxy",
        "hTTpS_PrOxY",
        "ALL_PROXY",
        "all_proxy",
        "All_Proxy",
        "ALL_proxy",
    ],
)
def test_the_password_is_known_however_the_variable_is_spelt(
    fal: Sandbox, cli: Cli, variable: str, scheme: str
) -> None:
    """The request goes by way of this proxy, and fal answers it."""
    proxy = proxied(fal)["HTTPS_PROXY"].replace("http://", scheme)
    fal.on("POST", "fal.run", "*", ECHOES["error"])
    done = cli(*RUN, "--no-schema", env={"HTTPS_PROXY": "", "HTTP_PROXY": "", variable: proxy})
    assert (done.error["status"], len(fal.tunnels)) == (400, 1)
    assert_kept(done)


# Long texts that hold the key where they are cut

KEY = "dummy-id:an-example-of-a-secret-0123456789"
SAID = {  # and the characters of it that are shown
    "type of an error": 1200,
    "message": 1200,
    "detail": 1500,
    "event": 80,
    "event of an error": 1200,
    "price": 1200 - len(f"the price of 1 job of {FLUX} is not known: fal's unit_price is 1 "),
    "upload": 80,
    "file": 200 - len("http://x/"),
}


def stranger_says(fal: Sandbox, where: str, text: str) -> tuple[str, ...]:
    """The command that is told the text."""
    detail = [{"loc": ["body"], "msg": text, "type": "odd"}]
    replies = {
        "type of an error": Reply(400, json={}, headers={"x-fal-error-type": text}),
        "message": Reply(400, json={"detail": text}),
        "detail": Reply(422, json={"detail": detail}),
        "event": Reply(content=f"data: {text}\n\n".encode(), headers=EVENTS),
        "event of an error": Reply(
            content=f"event: error\ndata: {text}\n\n".encode(), headers=EVENTS
        ),
        "file": Reply(json={"images": [{"url": f"http://x/{text}", "content_type": "image/png"}]}),
    }
    if where == "price":
        row = {"endpoint_id": FLUX, "unit_price": 1, "unit": "image", "currency": text}
        fal.on("GET", "api.fal.ai", "*/pricing", Reply(json={"prices": [row]}))
        return (*RUN, "--max-cost", "1")
    if where == "upload":
        fal.on("POST", UPLOADS, "*", Reply(json={"access_url": text}))
        return ("upload-file", "--file", "photo.jpg")
    fal.on("POST", "fal.run", "*", replies[where])
    return ("stream-t2i" if "event" in where else "run-t2i", *RUN[1:], "--output", "out/")


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize("inside", [8, 20, len(KEY) - 1])
@pytest.mark.parametrize("where", SAID)
def test_a_key_that_is_cut_with_its_text_is_never_told(
    fal: Sandbox, cli: Cli, where: str, inside: int
) -> None:
    """Some characters of it stand before the point where the text ends."""
    argv = stranger_says(fal, where, "x" * (SAID[where] - inside) + KEY + "x" * 5000)
    done = cli(*argv, env={"FAL_KEY": KEY})
    assert done.status != 0
    assert "xxxx" in done.stderr
    assert_kept(done, KEY[:6], KEY.partition(":")[2][:6])


@pytest.mark.parametrize("inside", [8, 20, len(KEY) - 1])
@pytest.mark.parametrize("head", ["data:image/png;name=", "data:text/plain;charset="])
def test_a_key_in_the_head_of_a_data_uri_is_never_told(
    fal: Sandbox, cli: Cli, head: str, inside: int
) -> None:
    """Of a saved file's URL that much is told: the first 100 characters of its head."""
    url = head + "x" * (100 - len(head) - inside) + KEY + ";base64,eHh4"
    fal.on("POST", "fal.run", "*", Reply(json={"images": [{"url": url}]}))
    done = cli(*RUN, "--no-schema", "--output", "out/", env={"FAL_KEY": KEY})
    (file,) = done.json["downloaded_files"]
    assert file["url"].startswith(head + "x")
    assert_kept(done, KEY[:6], KEY.partition(":")[2][:6])


def test_a_realtime_token_is_never_told(fal: Sandbox, cli: Cli) -> None:
    token = "dummy-jwt.of-ours.example"
    fal.on("POST", "rest.fal.ai", "/tokens/", Reply(200, json=token))
    refusal = Reply(400, json={"detail": f"no such thing: /realtime?fal_jwt_token={token}"})
    fal.on("WEBSOCKET", "fal.run", "*", refusal)
    done = cli(*REALTIME)
    assert done.status != 0
    assert_kept(done, token)


def test_a_realtime_token_is_not_told_in_an_answer(
    fal: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model repeats the URL by which it was reached."""

    def echoing(self: Output) -> dict[str, str]:
        (socket,) = [one for one in fal.requests if one.method == "WEBSOCKET"]
        return {"text": "it was ?fal_jwt_token=" + socket.query["fal_jwt_token"]}

    monkeypatch.setattr(run_api, "_raw_images", echoing)
    done = cli(*REALTIME)
    (line,) = done.lines
    (socket,) = [one for one in fal.requests if one.method == "WEBSOCKET"]
    assert line["text"].startswith("it was ")
    assert_kept(done, socket.query["fal_jwt_token"])


@pytest.mark.parametrize("status", [400, 403, 500])
def test_an_upload_token_is_never_told(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path, status: int
) -> None:
    token = "dummy-cdn-token-example"
    facts = {"token": token, "token_type": "Bearer", "base_url": f"https://{CDN}"}
    answer = Reply(json={**facts, "expires_at": "2099-01-01T00:00:00+00:00"})
    fal.on("POST", "rest.fal.ai", "*", answer)
    echo = Reply(status, json={"detail": f"Bearer {token} is not known"})
    fal.on("POST", UPLOADS, "*", fal.always(echo))
    done = leaping(cli, clock)("upload-file", "--file", photo.name)
    assert done.error["status"] == status
    assert_kept(done, token)


def test_an_upload_token_is_not_told_in_the_files_url(fal: Sandbox, cli: Cli, photo: Path) -> None:
    token = "dummy-cdn-token-example"
    facts = {"token": token, "token_type": "Bearer", "base_url": f"https://{CDN}"}
    answer = Reply(json={**facts, "expires_at": "2099-01-01T00:00:00+00:00"})
    fal.on("POST", "rest.fal.ai", "*", answer)
    fal.on("POST", UPLOADS, "*", Reply(json={"access_url": f"https://{CDN}/x?token={token}"}))
    assert_kept(cli("upload-file", "--file", photo.name), token)


def test_two_fields_of_a_model_stay_two(fal: Sandbox, cli: Cli) -> None:
    answer = {"downloaded_files": ["one"], "model_downloaded_files": ["two"]}
    fal.on("POST", "fal.run", "*", Reply(json=answer))
    done = cli(*RUN)
    assert done.json == {
        "model_model_downloaded_files": ["one"],
        "model_downloaded_files": ["two"],
    }
