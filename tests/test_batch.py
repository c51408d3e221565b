"""batch-t2i and batch-i2v."""

from __future__ import annotations

from pathlib import Path

from conftest import LEAP, Cli, Clock, paid
from sandbox import Hold, Latency, Reply, Sandbox
from sandbox.scripting import Recorded

FLUX = "fal-ai/flux/schnell"
RUNWAY = "fal-ai/runway-gen3/turbo/image-to-video"
PROMPTS = ("A red car", "A blue boat", "A green plane")


def test_a_line_for_each_prompt(fal: Sandbox, cli: Cli) -> None:
    flags = ("--width", "512", "--height", "256")
    done = cli("batch-t2i", "--model", FLUX, "--prompts", *PROMPTS, *flags)
    assert done.status == 0
    assert all(set(line) == {"index", "prompt", "request_id", "result"} for line in done.lines)
    assert {line["index"]: line["prompt"] for line in done.lines} == dict(enumerate(PROMPTS))
    assert {line["result"]["prompt"] for line in done.lines} == set(PROMPTS)
    assert {line["request_id"] for line in done.lines} == set(fal.jobs)
    sizes = [job.arguments["image_size"] for job in fal.jobs.values()]
    assert sizes == [{"width": 512, "height": 256}] * 3


def test_a_failure_takes_no_other_job_with_it(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A car", "[nsfw]", "[fail]", "A boat")
    assert done.status == 1
    outcomes = {line["index"]: line for line in done.lines}
    assert [("result" in outcomes[i], "error" in outcomes[i]) for i in range(4)] == [
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]
    error = outcomes[1]["error"]
    assert (error["type"], error["status"]) == ("content_policy_violation", 422)
    assert error["request_id"] == outcomes[1]["request_id"]
    assert done.error["type"] == "batch_failed"
    assert done.error["message"] == "2 of 4 jobs failed: see their lines"


def test_a_refused_submission_is_a_line_too(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "queue.fal.run", "*", Reply(500, json={"detail": "Internal Server Error"}))
    done = cli("batch-t2i", "--model", FLUX, "--prompts", *PROMPTS)
    failed = [line for line in done.lines if "error" in line]
    assert (done.status, len(done.lines), len(failed)) == (1, 3, 1)
    assert failed[0]["request_id"] is None


def test_lines_come_as_jobs_end(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    argv = ("--model", FLUX, "--prompts", "[slow]", "A boat", "--client-timeout", "4")
    done = cli("batch-t2i", *argv, env=clock.env(LEAP))
    assert (done.status, done.error["type"]) == (5, "timeout")
    assert [line["prompt"] for line in done.lines] == ["A boat"]
    assert {job.arguments["prompt"]: job.cancelled for job in fal.jobs.values()} == {
        "[slow]": True,
        "A boat": False,
    }


def test_concurrency_bounds_what_is_under_way(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.latencies[FLUX] = Latency(run_seconds=0.3)
    argv = ("--model", FLUX, "--prompts", *map(str, range(1, 7)), "--concurrency", "2")
    assert cli("batch-t2i", *argv, env=clock.env(LEAP)).status == 0
    jobs = sorted(fal.jobs.values(), key=lambda job: job.submitted_at)
    for earlier, later in zip(jobs, jobs[2:], strict=False):
        assert later.submitted_at >= earlier.submitted_at + 0.3


def test_the_same_picture_is_uploaded_once(fal: Sandbox, cli: Cli, photo: Path) -> None:
    photo.with_name("other.jpg").write_bytes(photo.read_bytes() + b"\0")
    sources = ("photo.jpg", "./photo.jpg", "other.jpg", "https://example.com/a.png")
    done = cli("batch-i2v", "--model", RUNWAY, "--image-urls", *sources, "--prompt", "Rain")
    assert done.status == 0
    assert sorted(upload.name for upload in fal.uploads) == ["other.jpg", "photo.jpg"]
    sent = [job.arguments["image_url"] for job in fal.jobs.values()]
    assert len(sent) == 4
    assert len(set(sent)) == 3
    assert {line["image_url"] for line in done.lines} == set(sources)


def test_pictures_are_uploaded_side_by_side(fal: Sandbox, cli: Cli, photo: Path) -> None:
    """Neither is answered before the other has arrived."""
    photo.with_name("other.jpg").write_bytes(photo.read_bytes())

    def uploads() -> list[Recorded]:
        return [request for request in fal.requests if request.path == "/files/upload"]

    both = Hold(lambda: len(uploads()) == 2)
    fal.on("POST", "v3.fal.media", "/files/upload", both, both)
    sources = ("photo.jpg", "other.jpg")
    done = cli("batch-i2v", "--model", RUNWAY, "--image-urls", *sources, "--prompt", "Rain")
    assert (done.status, len(uploads())) == (0, 2)


def test_nothing_is_sent_when_one_picture_is_missing(fal: Sandbox, cli: Cli, photo: Path) -> None:
    done = cli("batch-i2v", "--model", RUNWAY, "--image-urls", "photo.jpg", "missing.jpg")
    assert (done.status, done.stdout, fal.requests) == (2, "", [])


def test_each_job_is_paid_once(fal: Sandbox, cli: Cli) -> None:
    cli("batch-t2i", "--model", FLUX, "--prompts", *PROMPTS)
    assert paid(fal) == [FLUX] * 3


def test_progress_names_the_job(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A car", "A boat")
    for line in done.lines:
        assert f"[{line['index']}] request id {line['request_id']}" in done.stderr.splitlines()
