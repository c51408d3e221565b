"""submit-*, subscribe-*, run-* and stream-*: the main job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import LEAP, Cli, Clock, paid, sent
from PIL import Image
from sandbox import Latency, Reply, Sandbox

FLUX = "fal-ai/flux/dev"
KLING = "fal-ai/kling-video/v2/master/image-to-video"
MINIMAX = "fal-ai/minimax-video/image-to-video"


def test_submit_prints_the_request_id(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat")
    (request_id,) = fal.jobs
    assert (done.status, done.stderr) == (0, f"request id {request_id}\n")
    assert done.json == {"request_id": request_id, "model": FLUX}
    assert fal.jobs[request_id].arguments == {"prompt": "A cat"}


def test_subscribe_prints_the_response_whole_and_unescaped(fal: Sandbox, cli: Cli) -> None:
    done = cli("subscribe-t2i", "--model", FLUX, "--prompt", "Ein Käfer 🪲", "--seed", "7")
    (job,) = fal.jobs.values()
    assert done.status == 0
    assert done.json["prompt"] == "Ein Käfer 🪲"
    assert done.json["seed"] == 7
    assert "Käfer 🪲" in done.stdout
    assert done.stderr.splitlines()[0] == f"request id {job.request_id}"


def test_the_connection_goes_through_the_proxy(fal: Sandbox, cli: Cli) -> None:
    """A canary: without it every other test might be talking to someone else."""
    cli("submit-t2i", "--model", FLUX, "--prompt", "A cat")
    assert fal.tunnels == ["api.fal.ai:443", "queue.fal.run:443"]


def test_run_answers_without_the_queue(fal: Sandbox, cli: Cli) -> None:
    done = cli("run-t2i", "--model", FLUX, "--prompt", "A logo")
    assert (done.status, done.stderr) == (0, "billed: 1 unit\n")
    assert done.json["images"][0]["url"].startswith("https://")
    assert [(r.method, r.host, r.path) for r in sent(fal)] == [
        ("POST", "fal.run", "/fal-ai/flux/dev")
    ]


def test_stream_prints_an_event_a_line(fal: Sandbox, cli: Cli) -> None:
    done = cli("stream-t2i", "--model", FLUX, "--prompt", "Art")
    assert (done.status, done.stderr) == (0, "")
    assert len(done.lines) > 1
    assert done.lines[-1]["images"][0]["url"].startswith("https://")
    assert [r.path for r in sent(fal)] == ["/fal-ai/flux/dev/stream"]


def test_an_endpoint_that_ends_in_stream_does_not_get_it_twice(fal: Sandbox, cli: Cli) -> None:
    done = cli("stream-t2i", "--model", "fal-ai/flux-krea-lora/stream", "--prompt", "Art")
    assert done.status == 0
    assert [r.path for r in sent(fal)] == ["/fal-ai/flux-krea-lora/stream"]


@pytest.mark.parametrize(
    ("flags", "added"), [((), {"prompt": ""}), (("--no-schema",), {})], ids=["checked", "as it is"]
)
def test_a_flag_that_is_not_given_is_not_sent(
    fal: Sandbox, cli: Cli, flags: tuple[str, ...], added: dict[str, str]
) -> None:
    """But for the prompt that the model's schema requires."""
    cli("submit-i2v", "--model", MINIMAX, "--image-url", "https://example.com/a.png", *flags)
    (job,) = fal.jobs.values()
    assert job.arguments == {"image_url": "https://example.com/a.png", **added}
    assert not [name for name in job.headers if name.lower().startswith("x-fal")]


@pytest.mark.parametrize("verb", ["submit", "subscribe", "run", "stream"])
def test_a_local_picture_is_uploaded_first(fal: Sandbox, cli: Cli, photo: Path, verb: str) -> None:
    fal.on("POST", "fal.run", "*/stream", sse_reply())
    done = cli(f"{verb}-i2v", "--model", MINIMAX, "--image-url", "photo.jpg", "--prompt", "Rain")
    assert done.status == 0
    (upload,) = fal.uploads
    assert (upload.content_type, upload.content) == ("image/jpeg", photo.read_bytes())
    (request,) = [r for r in fal.requests if "minimax" in r.path and r.method == "POST"]
    assert request.json == {"image_url": upload.url, "prompt": "Rain"}


def sse_reply() -> Reply:
    return Reply(
        200, content=b'data: {"done": true}\n\n', headers={"content-type": "text/event-stream"}
    )


def test_a_picture_in_the_home_folder(fal: Sandbox, cli: Cli, photo: Path) -> None:
    done = cli("submit-i2v", "--model", MINIMAX, "--image-url", "~/photo.jpg")
    assert done.status == 0
    assert [upload.name for upload in fal.uploads] == ["photo.jpg"]


def test_a_picture_whose_name_no_header_can_carry(fal: Sandbox, cli: Cli, photo: Path) -> None:
    photo.rename(photo.with_name("Снимок экрана\n1.jpg"))
    done = cli("submit-i2v", "--model", MINIMAX, "--image-url", "Снимок экрана\n1.jpg")
    assert done.status == 0
    assert [upload.content_type for upload in fal.uploads] == ["image/jpeg"]


def test_the_content_type_is_that_of_the_content(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture", format="png")
    cli("submit-i2v", "--model", MINIMAX, "--image-url", "picture")
    assert [upload.content_type for upload in fal.uploads] == ["image/png"]


def test_a_data_uri_is_sent_as_it_is(fal: Sandbox, cli: Cli) -> None:
    uri = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    cli("submit-i2v", "--model", MINIMAX, "--image-url", uri, "--prompt", "Rain")
    (job,) = fal.jobs.values()
    assert (job.arguments, fal.uploads) == ({"image_url": uri, "prompt": "Rain"}, [])


def test_a_secret_cannot_be_animated(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "id_rsa.png").write_text("-----BEGIN EXAMPLE KEY-----\n")
    done = cli("submit-i2v", "--model", MINIMAX, "--image-url", "id_rsa.png")
    assert (done.status, done.stdout, fal.requests) == (2, "", [])
    assert done.error["message"] == "argument --image-url: not a picture: id_rsa.png"


@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (("--prompt", "-"), "A cat\n"),
        (("--prompt-file", "-"), "A cat\n"),
        (("--prompt-file", "prompt.txt"), ""),
        (("--prompt", "A cat", "--extra-json", '{"prompt": "A cat"}'), ""),
        (("--prompt", "no", "--extra-json", "@extra.json"), ""),
        (("--prompt", "no", "--extra-json", "-"), '{"prompt": "A cat"}'),
    ],
)
def test_texts_come_from_anywhere(
    fal: Sandbox, cli: Cli, tmp_path: Path, argv: tuple[str, ...], stdin: str
) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbfA cat\r\n")
    (tmp_path / "extra.json").write_text(json.dumps({"prompt": "A cat"}))
    done = cli("submit-t2i", "--model", FLUX, *argv, stdin=stdin)
    assert done.status == 0
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "A cat"}]


def test_rush_is_sent_as_normal_and_says_so(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--priority", "rush")
    (job,) = fal.jobs.values()
    assert job.headers["x-fal-queue-priority"] == "normal"
    assert done.stderr == (
        "note: fal's queue has nothing above normal priority: rush is sent as normal\n"
        f"request id {job.request_id}\n"
    )


def test_progress_says_each_thing_once(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    """fal shows the last three log lines at each look; all of them come out, in order, once."""
    fal.latencies[FLUX] = Latency(queue_seconds=0.6, run_seconds=1.2)
    done = cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat", env=clock.env(LEAP))
    said = done.stderr.splitlines()
    assert len(said) == len(set(said))
    states = [line for line in said if not line.startswith("| ")]
    assert states[1:] == [
        "in queue, 3 ahead",
        "in queue, 2 ahead",
        "in queue, 1 ahead",
        "in queue",
        "in progress",
        "completed",
        "billed: 1 unit",
    ]
    (job,) = fal.jobs.values()
    logged = [line.removeprefix("| ") for line in said if line.startswith("| ")]
    assert logged == [line for entry in job.logs for line in entry["message"].splitlines()]


def test_quiet_leaves_stderr_empty(cli: Cli) -> None:
    argv = ("--model", FLUX, "--prompt", "A cat", "--priority", "rush", "--quiet")
    done = cli("subscribe-t2i", *argv)
    assert (done.status, done.stderr) == (0, "")


def test_one_job_is_one_paid_request(fal: Sandbox, cli: Cli) -> None:
    cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
    assert paid(fal) == [FLUX]


def test_the_webhook_is_called(fal: Sandbox, cli: Cli) -> None:
    url = "https://example.com/hook?a=1&b=2"
    done = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--webhook-url", url)
    assert done.status == 0
    assert [job.webhook for job in fal.jobs.values()] == [url]
