"""status, result and cancel: jobs that were submitted before."""

from __future__ import annotations

from conftest import FOR_EVER, LEAP, Cli, Clock, sent
from sandbox import Latency, Sandbox

FLUX = "fal-ai/flux/dev"


def submit(cli: Cli, prompt: str = "A cat") -> str:
    request_id: str = cli("submit-t2i", "--model", FLUX, "--prompt", prompt).json["request_id"]
    return request_id


def job_flags(request_id: str) -> tuple[str, ...]:
    return ("--model", FLUX, "--request-id", request_id)


def test_status_of_a_job_that_waits(fal: Sandbox, cli: Cli) -> None:
    fal.latencies[FLUX] = Latency(queue_seconds=FOR_EVER)
    request_id = submit(cli)
    done = cli("status", *job_flags(request_id))
    assert (done.status, done.stderr) == (0, "")
    assert done.json == {
        "request_id": request_id,
        "model": FLUX,
        "status": "IN_QUEUE",
        "queue_position": 2,
        "logs": [],
    }


def test_status_of_a_job_that_runs(fal: Sandbox, cli: Cli) -> None:
    fal.latencies[FLUX] = Latency(run_seconds=FOR_EVER)
    request_id = submit(cli)
    found = cli("status", *job_flags(request_id)).json
    assert set(found) == {"request_id", "model", "status", "logs"}
    assert found["status"] == "IN_PROGRESS"
    assert found["logs"][0]["message"]


def test_status_of_a_job_that_is_done(cli: Cli) -> None:
    found = cli("status", *job_flags(submit(cli))).json
    assert set(found) == {"request_id", "model", "status", "logs", "metrics"}
    assert found["status"] == "COMPLETED"
    assert "inference_time" in found["metrics"]


def test_status_of_a_job_that_failed_shows_the_error(cli: Cli) -> None:
    done = cli("status", *job_flags(submit(cli, "[fail]")))
    assert (done.status, done.json["status"]) == (0, "COMPLETED")
    assert done.json["error"]


def test_result_waits_with_progress(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.latencies[FLUX] = Latency(queue_seconds=0.5, run_seconds=0.5)
    request_id = submit(cli)
    done = cli("result", *job_flags(request_id), env=clock.env(LEAP))
    assert done.status == 0
    assert done.json["images"]
    assert {"in queue", "in progress", "completed"} <= set(done.stderr.splitlines())


def test_result_of_a_finished_job_is_that_of_subscribe(cli: Cli) -> None:
    done = cli("result", *job_flags(submit(cli)))
    assert set(done.json) == {"images", "timings", "seed", "has_nsfw_concepts", "prompt"}


def test_result_no_wait_answers_at_once(fal: Sandbox, cli: Cli) -> None:
    fal.latencies[FLUX] = Latency(queue_seconds=FOR_EVER)
    request_id = submit(cli)
    done = cli("result", *job_flags(request_id), "--no-wait")
    assert (done.status, done.stdout) == (1, "")
    assert done.error["type"] == "not_finished"
    assert done.error["request_id"] == request_id
    assert done.error["retryable"] is True


def test_result_no_wait_of_a_finished_job(cli: Cli) -> None:
    assert cli("result", *job_flags(submit(cli)), "--no-wait").json["images"]


def test_result_gives_up_in_time_and_leaves_the_job_alone(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    fal.latencies[FLUX] = Latency(queue_seconds=FOR_EVER)
    request_id = submit(cli)
    done = cli("result", *job_flags(request_id), "--client-timeout", "5", env=clock.env(LEAP))
    assert (done.status, done.error["type"], done.stdout) == (5, "timeout", "")
    assert not fal.jobs[request_id].cancelled


def test_subscribe_gives_up_in_time_and_cancels_the_job(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    fal.latencies[FLUX] = Latency(queue_seconds=FOR_EVER)
    argv = ("--model", FLUX, "--prompt", "A cat", "--client-timeout", "1")
    done = cli("subscribe-t2i", *argv, env=clock.env(LEAP))
    (job,) = fal.jobs.values()
    assert (done.status, done.stdout) == (5, "")
    assert done.error["type"] == "timeout"
    assert done.error["request_id"] == job.request_id
    assert job.request_id in done.error["hint"]
    assert job.cancelled


def test_cancel_stops_the_job(fal: Sandbox, cli: Cli) -> None:
    fal.latencies[FLUX] = Latency(queue_seconds=FOR_EVER)
    request_id = submit(cli)
    done = cli("cancel", *job_flags(request_id))
    assert done.status == 0
    assert done.json == {
        "request_id": request_id,
        "model": FLUX,
        "status": "CANCELLATION_REQUESTED",
    }
    assert fal.jobs[request_id].cancelled


def test_the_queue_is_asked_under_the_app_and_not_the_sub_path(fal: Sandbox, cli: Cli) -> None:
    request_id = submit(cli)
    cli("result", *job_flags(request_id))
    paths = {request.path for request in sent(fal) if request.method == "GET"}
    assert paths == {
        f"/fal-ai/flux/requests/{request_id}",
        f"/fal-ai/flux/requests/{request_id}/status",
    }
