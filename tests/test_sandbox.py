"""The sandbox as clients meet it that nobody here wrote: what they expect of fal is there."""

from __future__ import annotations

import ast
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from conftest import ROOT, Cli
from sandbox import Cut, Job, Sandbox

FLUX = "fal-ai/flux/dev"
MODELS = "https://api.fal.ai/v1/models"
REQUESTS = f"{MODELS}/requests/by-endpoint"
USAGE = f"{MODELS}/usage"
PRICING = f"{MODELS}/pricing"
BILLING = "https://api.fal.ai/v1/account/billing"
REST = "https://rest.fal.ai"
RUN = "https://fal.run"
QUEUE = "https://queue.fal.run"


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


def events(response: httpx.Response) -> list[Any]:
    """The data of a stream of server-sent events."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    lines = response.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


# fal-client's sync half, in a process of its own: it never closes its connections

FOLLOW = """
job = client.submit("fal-ai/flux/dev", {"prompt": "A cat"})
events = job.iter_events(with_logs=True, interval=0.02)
told = [*dict.fromkeys(type(event).__name__ for event in events), job.get()["prompt"]]
"""
STREAM = """
told = [list(event) for event in client.stream("fal-ai/flux/dev", {"prompt": "A cat"})]
"""
UPLOAD = """
fal_client.client.MULTIPART_THRESHOLD = 100
fal_client.client.MULTIPART_CHUNK_SIZE = 64
told = client.upload(bytes(range(200)), "application/octet-stream", "bytes.bin")
"""


def told_by_fal_client(code: str, environment: dict[str, str]) -> Any:
    """What `told` is in the end."""
    begin, end = (
        "import fal_client, json\nclient = fal_client.SyncClient()\n",
        "\nprint(json.dumps(told))",
    )
    command = [sys.executable, "-c", begin + code + end]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_fal_client_follows_a_job(fal: Sandbox, environment: dict[str, str]) -> None:
    fal.queue_seconds = fal.run_seconds = 0.2
    told = told_by_fal_client(FOLLOW, environment)
    assert told == ["Queued", "InProgress", "Completed", "A cat"]


def test_fal_client_streams(fal: Sandbox, environment: dict[str, str]) -> None:
    *previews, last = told_by_fal_client(STREAM, environment)
    assert previews
    assert "has_nsfw_concepts" in last


def test_fal_client_uploads_in_parts(fal: Sandbox, environment: dict[str, str]) -> None:
    url = told_by_fal_client(UPLOAD, environment)
    (upload,) = fal.uploads
    assert (upload.url, upload.content) == (url, bytes(range(200)))
    assert len([request for request in fal.requests if request.method == "PUT"]) == 4


# Uploads by signed URLs, which is the way of fal's JavaScript client


def announced(client: httpx.Client, call: str) -> tuple[httpx.URL, str]:
    """Where a file is to be sent, and where it will be."""
    body = {"file_name": "a clip.mp4", "content_type": "video/mp4"}
    url = f"{REST}/storage/upload/{call}?storage_type=fal-cdn-v3"
    answer = client.post(url, json=body).json()
    assert set(answer) == {"upload_url", "file_url"}
    # Whoever has the URL needs no key, and a browser would not send it elsewhere.
    del client.headers["Authorization"]
    return httpx.URL(answer["upload_url"]), answer["file_url"]


def put_part(client: httpx.Client, url: httpx.URL, number: int, content: bytes) -> httpx.Response:
    return client.put(url.copy_with(path=f"{url.path}/{number}"), content=content)


def completed(client: httpx.Client, url: httpx.URL, parts: list[Any]) -> httpx.Response:
    return client.post(url.copy_with(path=f"{url.path}/complete"), json={"parts": parts})


def test_a_file_is_put_at_a_signed_url(fal: Sandbox, client: httpx.Client) -> None:
    url, file_url = announced(client, "initiate")
    answer = client.put(url, content=b"the clip", headers={"Content-Type": "video/mp4"})
    assert answer.status_code == 200
    (upload,) = fal.uploads
    assert (upload.name, upload.content_type) == ("a clip.mp4", "video/mp4")
    fetched = client.get(file_url)
    assert (fetched.content, fetched.headers["content-type"]) == (b"the clip", "video/mp4")


def test_a_large_file_is_put_in_parts_at_a_signed_url(fal: Sandbox, client: httpx.Client) -> None:
    url, file_url = announced(client, "initiate-multipart")
    second = put_part(client, url, 2, b"and the end")
    first = put_part(client, url, 1, b"the beginning ")
    assert first.json() == {"partNumber": 1, "etag": first.headers["ETag"]}
    answer = completed(client, url, [first.json(), second.json()])
    assert (answer.status_code, answer.json()["access_url"]) == (200, file_url)
    assert not any("authorization" in r.headers for r in fal.requests if "media" in r.host)
    assert client.get(file_url).content == b"the beginning and the end"


def test_a_part_that_was_not_listed_is_missed(client: httpx.Client) -> None:
    url, _ = announced(client, "initiate-multipart")
    first = put_part(client, url, 1, b"the beginning ").json()
    put_part(client, url, 2, b"and the end")
    assert completed(client, url, [first]).status_code == 400


@pytest.mark.parametrize("call", ["initiate", "initiate-multipart"])
def test_no_file_comes_in_under_another_signature(client: httpx.Client, call: str) -> None:
    url, file_url = announced(client, call)
    forged = url.copy_set_param("signature", "forged")
    path = url.path if call == "initiate" else f"{url.path}/1"
    assert client.put(forged.copy_with(path=path), content=b"x").status_code == 403
    assert client.put(forged.copy_with(path=path, query=None), content=b"x").status_code in (
        401,
        403,
    )
    assert client.get(file_url).status_code == 404


# Tokens in the URL, which is how a browser streams


def token(client: httpx.Client, app: str) -> str:
    """A token for an app, after which the client forgets its key."""
    body = {"allowed_apps": [app], "token_expiration": 120}
    text = client.post(f"{REST}/tokens/", json=body).json()
    assert isinstance(text, str)
    del client.headers["Authorization"]
    return text


def test_a_stream_takes_a_token(client: httpx.Client) -> None:
    params = {"fal_jwt_token": token(client, "flux")}
    answer = client.post(f"{RUN}/{FLUX}/stream", params=params, json={"prompt": "A cat"})
    assert events(answer)[-1]["prompt"] == "A cat"


def test_a_stream_of_the_status_takes_a_token(client: httpx.Client) -> None:
    job = client.post(f"{QUEUE}/{FLUX}", json={"prompt": "A cat"}).json()
    params = {"fal_jwt_token": token(client, "fal-ai/flux/dev/stream"), "logs": "1"}
    answer = client.get(f"{job['status_url']}/stream", params=params)
    assert events(answer)[-1]["status"] == "COMPLETED"


def test_a_token_is_good_for_its_app_alone_and_for_streams_alone(client: httpx.Client) -> None:
    params = {"fal_jwt_token": token(client, "minimax-video")}
    arguments = {"prompt": "A cat"}
    foreign = client.post(f"{RUN}/{FLUX}/stream", params=params, json=arguments)
    unknown = client.post(f"{RUN}/{FLUX}/stream?fal_jwt_token=nobodys", json=arguments)
    path = "fal-ai/minimax-video/image-to-video"
    elsewhere = client.post(f"{RUN}/{path}", params=params, json=arguments)
    assert {foreign.status_code, unknown.status_code, elsewhere.status_code} == {401}


# Workflows


WORKFLOW = f"{RUN}/workflows/fal-ai/sdxl-sticker/stream"


def test_a_workflow_tells_of_its_steps(client: httpx.Client) -> None:
    told = events(client.post(WORKFLOW, json={"prompt": "A cat"}))
    assert [event["type"] for event in told] == [*["submit", "completion"] * 2, "output"]
    submit, completion, *_, last, output = told
    assert set(submit) == {"type", "node_id", "app_id", "request_id"}
    assert submit["node_id"] == completion["node_id"]
    assert completion["output"]["prompt"] == "A cat"
    assert set(output) == {"type", "output"}
    assert output["output"] == last["output"]


@pytest.mark.parametrize(
    ("arguments", "status"), [({"prompt": "[fail]"}, 500), ({"prompt": "A", "num_images": 9}, 422)]
)
def test_a_step_that_fails_is_the_last(
    client: httpx.Client, arguments: dict[str, Any], status: int
) -> None:
    submit, error = events(client.post(WORKFLOW, json=arguments))
    assert (error["type"], error["node_id"]) == ("error", submit["node_id"])
    assert submit["request_id"] in error["message"]
    assert error["error"]["status"] == status
    assert error["error"]["body"]["detail"][0]["loc"][0] == "body"


def test_a_workflow_without_arguments_has_no_steps(client: httpx.Client) -> None:
    assert client.post(WORKFLOW, json=[]).status_code == 422


# The platform: models, requests, usage


def test_a_model_that_fal_does_not_have_is_not_found(anybody: httpx.Client) -> None:
    answer = anybody.get(MODELS, params={"endpoint_id": "fal-ai/nothing"})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found"
    some = anybody.get(MODELS, params={"endpoint_id": [FLUX, "fal-ai/nothing"]})
    assert [row["endpoint_id"] for row in some.json()["models"]] == [FLUX]
    filtered = anybody.get(MODELS, params={"endpoint_id": FLUX, "status": "deprecated"})
    assert (filtered.status_code, filtered.json()["models"]) == (200, [])


def test_the_skill_goes_on_without_a_row(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", "--model", "fal-ai/flux/nothing", "--prompt", "A cat")
    assert done.status == 0
    (job,) = fal.jobs.values()
    assert job.arguments == {"prompt": "A cat"}


def test_models_tell_whether_they_are_ready_for_enterprises(anybody: httpx.Client) -> None:
    params = {"expand": ["enterprise_status", "openapi-3.0"], "endpoint_id": FLUX}
    (row,) = anybody.get(MODELS, params=params).json()["models"]
    assert row["enterprise_status"] == "ready"
    assert "paths" in row["openapi"]
    plain = anybody.get(MODELS, params={"limit": 100, "expand": "enterprise_status"}).json()
    assert {row["enterprise_status"] for row in plain["models"]} == {"ready", "pending"}
    assert "openapi" not in plain["models"][0]


def past(client: httpx.Client, **params: Any) -> list[Any]:
    answer = client.get(REQUESTS, params={"endpoint_id": FLUX, **params})
    assert answer.status_code == 200, answer.text
    items: list[Any] = answer.json()["items"]
    return items


def ago(seconds: float) -> str:
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


def later(job: Job, seconds: float) -> None:
    """Let some time pass for a job."""
    job.submitted_at -= seconds
    job.started_at -= seconds
    job.finished_at -= seconds


def test_a_job_is_found_by_its_endpoint(fal: Sandbox, client: httpx.Client) -> None:
    fal.run_seconds = 60
    job = client.post(f"{QUEUE}/{FLUX}", json={"prompt": "A cat"}).json()
    client.post(f"{QUEUE}/fal-ai/flux/schnell", json={"prompt": "A dog"})
    (running,) = past(client)
    assert (running["request_id"], running["endpoint_id"]) == (job["request_id"], FLUX)
    assert running["ended_at"] is running["status_code"] is running["duration"] is None
    later(fal.jobs[job["request_id"]], 90)
    (done,) = past(client)
    assert (done["status_code"], done["duration"]) == (200, 60)
    assert done["sent_at"] <= done["started_at"] < done["ended_at"]
    assert not {"json_input", "json_output"} & set(done)


def test_a_job_that_waits_has_not_begun(fal: Sandbox, client: httpx.Client) -> None:
    fal.queue_seconds = 60
    client.post(f"{QUEUE}/{FLUX}", json={"prompt": "A cat"})
    assert past(client) == []


def test_the_arguments_of_a_lost_submission_are_found(fal: Sandbox, client: httpx.Client) -> None:
    fal.on("POST", "queue.fal.run", "*", Cut("headers"))
    before, arguments = ago(1), {"prompt": "A cat", "seed": 7}
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(f"{QUEUE}/{FLUX}", json=arguments)
    (item,) = past(client, expand="payloads", start=before)
    assert item["json_input"] == arguments
    assert item["json_output"]["seed"] == 7
    assert item["request_id"] in fal.jobs


def test_direct_calls_are_among_the_requests(client: httpx.Client) -> None:
    run = client.post(f"{RUN}/{FLUX}", json={"prompt": "run"})
    stream = client.post(f"{RUN}/{FLUX}/stream", json={"prompt": "stream"})
    client.post(f"{RUN}/{FLUX}", json={"prompt": "secret"}, headers={"X-Fal-Store-IO": "0"})
    secret, second, first = past(client, expand="payloads")
    assert "json_input" not in secret
    ids = [answer.headers["x-fal-request-id"] for answer in (run, stream)]
    assert [first["request_id"], second["request_id"]] == ids
    assert (first["json_input"], first["json_output"]) == ({"prompt": "run"}, run.json())
    assert second["json_output"] == events(stream)[-1]


def test_a_stream_whose_reader_leaves_has_ended(fal: Sandbox, client: httpx.Client) -> None:
    fal.run_seconds = 60
    with client.stream("POST", f"{RUN}/{FLUX}/stream", json={"prompt": "A cat"}):
        (item,) = past(client)
        assert item["ended_at"] is None
    deadline = time.monotonic() + 10
    while past(client)[0]["ended_at"] is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert past(client)[0]["status_code"] == 499


def test_requests_are_selected(fal: Sandbox, client: httpx.Client) -> None:
    prompts = ("A cat", "[nsfw]", "[fail]")
    jobs = [client.post(f"{QUEUE}/{FLUX}", json={"prompt": p}).json() for p in prompts]
    ids = [job["request_id"] for job in jobs]
    for status, request_id in zip(("success", "user_error", "error"), ids, strict=True):
        (item,) = past(client, status=status)
        assert item["request_id"] == request_id
    assert [item["request_id"] for item in past(client)] == ids[::-1]
    (item,) = past(client, request_id=ids[1])
    assert item["status_code"] == 422
    assert past(client, end=ago(60)) == past(client, start=ago(-60), end=ago(-120)) == []
    assert len(past(client, start=ago(60), end=ago(-60))) == 3
    assert past(client, endpoint_id="fal-ai/flux/schnell") == []
    later(fal.jobs[ids[0]], 2 * 24 * 3600)
    assert len(past(client)) == 2
    assert len(past(client, request_id=ids[0])) == 1
    fal.jobs[ids[0]].finished_at += 5
    whole_week = ago(7 * 24 * 3600)[:10]
    assert past(client, start=whole_week)[-1]["request_id"] == ids[0]
    assert past(client, start=whole_week, sort_by="duration")[0]["request_id"] == ids[0]


def test_requests_come_in_pages(client: httpx.Client) -> None:
    for number in range(3):
        client.post(f"{QUEUE}/{FLUX}", json={"prompt": str(number)})
    params = {"endpoint_id": FLUX, "limit": "2"}
    first = client.get(REQUESTS, params=params).json()
    assert (len(first["items"]), first["has_more"]) == (2, True)
    params["cursor"] = first["next_cursor"]
    second = client.get(REQUESTS, params=params).json()
    assert (len(second["items"]), second["has_more"], second["next_cursor"]) == (1, False, None)


def test_what_was_used_is_charged(client: httpx.Client) -> None:
    client.post(f"{RUN}/{FLUX}", json={"prompt": "A cat", "num_images": 3})
    client.post(f"{QUEUE}/{FLUX}", json={"prompt": "A dog"})
    client.post(f"{QUEUE}/{FLUX}", json={"prompt": "[nsfw]"})
    (price,) = client.get(PRICING, params={"endpoint_id": FLUX}).json()["prices"]
    params = {"expand": ["time_series", "summary", "auth_method"], "timeframe": "day"}
    usage = client.get(USAGE, params=params).json()
    (bucket,) = usage["time_series"]
    assert datetime.fromisoformat(bucket["bucket"]).hour == 0
    (row,) = bucket["results"]
    assert usage["summary"] == [row]
    assert (row["quantity"], row["unit"], row["unit_price"]) == (4, "image", price["unit_price"])
    assert row["cost"] == row["cost_total"] == pytest.approx(4 * price["unit_price"])
    assert row["auth_method"]
    assert (usage["next_cursor"], usage["has_more"]) == (None, False)


def test_usage_is_selected(client: httpx.Client) -> None:
    client.post(f"{RUN}/{FLUX}", json={"prompt": "A cat"})
    for params in ({"endpoint_id": "fal-ai/flux/schnell"}, {"api_key_id": "another"}):
        assert client.get(USAGE, params=params).json()["time_series"] == []
    exact = {"bound_to_timeframe": "false", "start": ago(60), "end": ago(30), "timeframe": "month"}
    assert client.get(USAGE, params=exact).json()["time_series"] == []
    whole = {**exact, "bound_to_timeframe": "true", "timezone": "Asia/Kathmandu", "end": ago(0)}
    (bucket,) = client.get(USAGE, params=whole).json()["time_series"]
    assert bucket["bucket"].endswith("-01T00:00:00+05:45")


def test_an_account_tells_what_is_left(client: httpx.Client) -> None:
    assert set(client.get(BILLING).json()) == {"username"}
    credits = client.get(BILLING, params={"expand": "credits"}).json()["credits"]
    assert credits["current_balance"] > 0
    assert credits["currency"] == "USD"


def test_the_platform_tells_everybody_where_webhooks_come_from(anybody: httpx.Client) -> None:
    (network,) = anybody.get("https://api.fal.ai/v1/meta").json()["webhook_ip_ranges"]
    assert ip_network(network).is_private


@pytest.mark.parametrize(
    ("url", "params"),
    [
        (REQUESTS, {}),
        (REQUESTS, {"endpoint_id": FLUX, "limit": "101"}),
        (REQUESTS, {"endpoint_id": FLUX, "status": "failed"}),
        (REQUESTS, {"endpoint_id": FLUX, "sort_by": "price"}),
        (REQUESTS, {"endpoint_id": FLUX, "start": "yesterday"}),
        (USAGE, {"expand": "auth_method"}),
        (USAGE, {"timeframe": "year"}),
        (USAGE, {"timezone": "Nowhere/At-All"}),
    ],
)
def test_wrong_parameters_are_refused(
    client: httpx.Client, url: str, params: dict[str, str]
) -> None:
    answer = client.get(url, params=params)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "validation_error")


@pytest.mark.parametrize("url", [REQUESTS, USAGE, BILLING])
def test_the_platform_asks_for_a_key(anybody: httpx.Client, url: str) -> None:
    assert anybody.get(url, params={"endpoint_id": FLUX}).status_code == 401
    limited = {"Authorization": "Key limited:secret"}
    answer = anybody.get(url, params={"endpoint_id": FLUX}, headers=limited)
    assert answer.status_code == (200 if url == REQUESTS else 403)


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


# What is installed for it


def needed(source: str) -> set[str]:
    """The modules that a file imports and that Python does not bring."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    return modules - {"sandbox"} - sys.stdlib_module_names


def required(name: str) -> set[str]:
    """The packages of a requirements file and of those that it includes."""
    packages: set[str] = set()
    path = ROOT / name
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            packages |= required(str((path.parent / line[3:]).resolve()))
        elif line and not line.startswith("#"):
            packages.add(re.split("[<>=]", line)[0])
    return packages


def test_its_own_requirements_are_all_that_it_needs() -> None:
    files = (ROOT / "tests/sandbox").glob("*.py")
    modules = set().union(*(needed(file.read_text(encoding="utf-8")) for file in files))
    packages = {"Pillow" if name == "PIL" else name for name in modules}
    # The skill needs the one, and uvicorn the other.
    unseen = {"fal-client", "websockets"}
    assert packages | unseen == required("tests/sandbox/requirements.txt")
    assert packages < required("tests/requirements.txt")
