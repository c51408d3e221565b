"""How often a job is looked at, and how much is told of it: hours of waiting in seconds.

The skill and the sandbox's jobs go by a clock of the tests' own, which leaps over the waits. By
that clock an answer takes no time, so that these tests tell nothing of the machine.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from conftest import LEAP, Cli, Clock
from sandbox import Job, Latency, Sandbox

FLUX = "fal-ai/flux/dev"
SUBSCRIBE = ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
DAY = 86400.0
ROUNDING = 0.001  # of seconds, where they are counted from the epoch

# Seconds of a job, and the looks that it may cost.
JOBS = {"a minute": (60.0, 99), "ten minutes": (600.0, 249)}


def looks(fal: Sandbox, request_id: str = "") -> list[float]:
    """When a job was looked at, or all of them."""
    return [r.at for r in fal.requests if r.path.endswith(f"{request_id}/status")]


def allowed(age: float) -> float:
    """The seconds for which the end of a job of that age may go unnoticed."""
    return min(max(age * 0.05, 0.1), 5.0)


def check_pace(fal: Sandbox, job: Job, most: int) -> None:
    """Few looks, and yet one in time, whenever the job might have ended."""
    times = looks(fal, job.request_id)
    assert len(times) <= most
    for at, later in pairwise([job.submitted_at, *times]):
        assert later - at <= allowed(at - job.submitted_at) + ROUNDING
    assert times[-1] >= job.finished_at


CLOCK_TEST = """
import asyncio, time
start, walls = time.monotonic(), []
for _ in range(60):
    asyncio.run(asyncio.sleep(600))
    walls.append(time.time())
print(time.monotonic() - start, min(walls), max(walls))
"""


def test_the_clock_leaps_over_hours_and_jumps(clock: Clock) -> None:
    """What the other tests here rely on; the time limit is for the ten hours."""
    before, env = clock.now(), clock.env(LEAP, DAY)
    command = [sys.executable, "-c", CLOCK_TEST]
    done = subprocess.run(command, env=env, capture_output=True, check=True, timeout=120)
    waited, behind, ahead = map(float, done.stdout.split())
    assert 36000 <= waited < 36001
    assert clock.now() - before == pytest.approx(waited)
    assert ahead - behind > DAY


@pytest.mark.parametrize("name", JOBS)
def test_a_long_job_that_is_followed_costs_few_looks(
    fal: Sandbox, cli: Cli, clock: Clock, name: str
) -> None:
    seconds, most = JOBS[name]
    fal.latencies[FLUX] = Latency(run_seconds=seconds)
    assert cli(*SUBSCRIBE, env=clock.env(LEAP)).status == 0
    (job,) = fal.jobs.values()
    check_pace(fal, job, most)


@pytest.mark.parametrize("name", JOBS)
def test_a_long_job_that_result_waits_for_costs_few_looks(
    fal: Sandbox, cli: Cli, clock: Clock, name: str
) -> None:
    seconds, most = JOBS[name]
    fal.latencies[FLUX] = Latency(run_seconds=seconds)
    request_id = cli("submit-t2i", "--model", FLUX, "--prompt", "A dog").json["request_id"]
    done = cli("result", "--model", FLUX, "--request-id", request_id, env=clock.env(LEAP))
    assert done.status == 0
    check_pace(fal, fal.jobs[request_id], most)


def test_looks_get_rarer_as_a_job_grows_older(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.latencies[FLUX] = Latency(run_seconds=6)
    cli(*SUBSCRIBE, env=clock.env(LEAP))
    times = looks(fal)
    assert 20 <= len(times) <= 46  # every 0.1 s would be 60; the schedule asks for 44
    assert times[-4] - times[-5] > 2 * (times[2] - times[1])


def test_a_wall_clock_that_jumps_changes_no_pace(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    seconds, most = JOBS["a minute"]
    fal.latencies[FLUX] = Latency(run_seconds=seconds)
    done = cli(*SUBSCRIBE, env=clock.env(LEAP, DAY))
    assert (done.status, len(done.json["images"])) == (0, 1)
    (job,) = fal.jobs.values()
    check_pace(fal, job, most)


def test_a_time_limit_holds_though_the_wall_clock_jumps(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    fal.latencies[FLUX] = Latency(run_seconds=600)
    done = cli(*SUBSCRIBE, "--client-timeout", "30", env=clock.env(LEAP, DAY))
    (job,) = fal.jobs.values()
    assert (done.status, done.error["type"], job.cancelled) == (5, "timeout", True)
    assert 30 - ROUNDING <= job.finished_at - job.submitted_at < 31


def test_a_log_without_an_end_is_told_in_brief(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    """Fifteen minutes: five in a queue of 300, and ten that log a line each second."""
    fal.latencies[FLUX] = Latency(300, 600, others_ahead=300, log_lines=600)
    done = cli(*SUBSCRIBE, "--no-schema", env=clock.env(LEAP))
    assert done.status == 0
    told = done.stderr.splitlines()
    assert told[-2:] == ["completed", "billed: 1 unit"]
    assert any("ahead" in line for line in told)
    assert any("Working on frame" in line for line in told)
    assert len(told) <= 100


def test_a_batch_costs_fewer_looks_than_its_jobs_alone(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    """A job of 1.5 s alone costs 15 looks and more; none of them is noticed late for that."""
    jobs, at_once, seconds = 40, 20, 1.5
    fal.latencies[FLUX] = Latency(run_seconds=seconds)
    prompts = [f"Cat {number}" for number in range(jobs)]
    argv = ("--model", FLUX, "--prompts", *prompts, "--concurrency", str(at_once))
    done = cli("batch-t2i", *argv, env=clock.env(LEAP))
    assert (done.status, len(done.lines)) == (0, jobs)
    submitted = [job.submitted_at for job in fal.jobs.values()]
    assert max(submitted) - min(submitted) < 2 * seconds * jobs / at_once
    assert len(looks(fal)) <= 5 * jobs
