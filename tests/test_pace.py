"""How often a job is looked at, and how much is told of it: hours of waiting in seconds.

`clock/sitecustomize.py` makes time fly for the skill alone; the sandbox's jobs are as many
times shorter. What a request takes on the way is not: the skill sees it stretched, so bounds
on times are widened by what the first looks show that a look takes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Cli
from sandbox import Job, Latency, Sandbox

FLUX = "fal-ai/flux/dev"
SUBSCRIBE = ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
CLOCK = str(Path(__file__).with_name("clock"))
DAY = 86400.0
# Seconds of this machine's that it may have no time for us: once, and usually.
HICCUP, BUSY = 0.4, 0.03

# Seconds of a job, how many times faster they pass, and the looks that it may cost.
MINUTE = (60.0, 10.0, 99)
TEN_MINUTES = (600.0, 60.0, 249)


def quick(speed: float, jump: float = 0.0) -> dict[str, str]:
    """The environment in which time flies, and the wall clock jumps."""
    return {"PYTHONPATH": CLOCK, "CLOCK_SPEED": str(speed), "CLOCK_JUMP": str(jump)}


def looks(fal: Sandbox, request_id: str = "") -> list[float]:
    """When a job was looked at, or all of them."""
    return [r.at for r in fal.requests if r.path.endswith(f"{request_id}/status")]


def allowed(age: float) -> float:
    """The seconds for which the end of a job of that age may go unnoticed."""
    return min(max(age * 0.05, 0.1), 5.0)


def check_pace(fal: Sandbox, job: Job, speed: float, most: int) -> None:
    """Few looks, and yet one in time, whenever the job might have ended."""
    times = looks(fal, job.request_id)
    assert len(times) <= most

    def due(at: float) -> float:
        """The most that may pass from that moment to the next look, on the sandbox's clock."""
        return allowed((at - job.submitted_at) * speed) / speed

    noticed = next(at for at in times if at >= job.finished_at)
    assert noticed - job.finished_at <= due(job.finished_at) + HICCUP
    waits = [later - at for at, later in pairwise(times)]
    excess = [wait - due(at) for at, wait in zip(times, waits, strict=False)]
    assert max(excess) <= HICCUP
    a_look, quarter = statistics.median(waits[:10]), len(waits) // 4
    for first in range(0, 4 * quarter, quarter):
        most_of = statistics.quantiles(excess[first : first + quarter], n=5)[-1]
        assert most_of <= 2 * a_look + BUSY


def test_the_quick_clock_is_quick_and_jumps() -> None:
    """What the other tests here rely on."""
    code = (
        "import asyncio, time; start, walls = time.monotonic(), []\n"
        "for _ in range(60): asyncio.run(asyncio.sleep(1)); walls.append(time.time())\n"
        "print(time.monotonic() - start, min(walls), max(walls))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=quick(100, DAY), capture_output=True, check=True
    )
    assert time.monotonic() - began < 30
    waited, behind, ahead = map(float, done.stdout.split())
    assert waited >= 60
    assert ahead - behind > DAY


@pytest.mark.parametrize(("seconds", "speed", "most"), [MINUTE, TEN_MINUTES])
def test_a_long_job_costs_few_looks(
    fal: Sandbox, cli: Cli, seconds: float, speed: float, most: int
) -> None:
    """Whether it is followed from the start, or waited for by `result` alone."""
    fal.latencies[FLUX] = Latency(run_seconds=seconds / speed)
    with ThreadPoolExecutor() as pool:
        subscribed = pool.submit(cli, *SUBSCRIBE, env=quick(speed))
        request_id = cli("submit-t2i", "--model", FLUX, "--prompt", "A dog").json["request_id"]
        fetched = cli("result", "--model", FLUX, "--request-id", request_id, env=quick(speed))
        assert (fetched.status, subscribed.result().status) == (0, 0)
    assert len(fal.jobs) == 2
    for job in fal.jobs.values():
        check_pace(fal, job, speed, most)


def test_a_wall_clock_that_jumps_changes_nothing(fal: Sandbox, cli: Cli) -> None:
    seconds, speed, most = MINUTE
    fal.latencies[FLUX] = Latency(run_seconds=seconds / speed)
    done = cli(*SUBSCRIBE, env=quick(speed, DAY))
    assert (done.status, len(done.json["images"])) == (0, 1)
    (job,) = fal.jobs.values()
    check_pace(fal, job, speed, most)


def test_a_time_limit_holds_though_the_wall_clock_jumps(fal: Sandbox, cli: Cli) -> None:
    fal.latencies[FLUX] = Latency(run_seconds=60)
    done = cli(*SUBSCRIBE, "--client-timeout", "30", env=quick(20, DAY))
    (job,) = fal.jobs.values()
    assert (done.status, done.error["type"], job.cancelled) == (5, "timeout", True)
    assert job.finished_at - job.submitted_at < 10


def test_a_log_without_an_end_is_told_in_brief(fal: Sandbox, cli: Cli) -> None:
    """Fifteen minutes: five in a queue of 300, and ten that log a line each second."""
    speed = 100
    fal.latencies[FLUX] = Latency(300 / speed, 600 / speed, others_ahead=300, log_lines=600)
    done = cli(*SUBSCRIBE, "--no-schema", env=quick(speed))
    assert done.status == 0
    told = done.stderr.splitlines()
    assert told[-1] == "completed"
    assert any("ahead" in line for line in told)
    assert any("Working on frame" in line for line in told)
    assert len(told) <= 100


def test_a_batch_costs_fewer_looks_than_its_jobs_alone(fal: Sandbox, cli: Cli) -> None:
    """A job of 1.5 s alone costs 15 looks and more; none of them is noticed late for that."""
    jobs, at_once, seconds = 40, 20, 1.5
    fal.latencies[FLUX] = Latency(run_seconds=seconds)
    prompts = [f"Cat {number}" for number in range(jobs)]
    argv = ("--model", FLUX, "--prompts", *prompts, "--concurrency", str(at_once))
    done = cli("batch-t2i", *argv)
    assert (done.status, len(done.lines)) == (0, jobs)
    submitted = [job.submitted_at for job in fal.jobs.values()]
    assert max(submitted) - min(submitted) < 2 * seconds * jobs / at_once
    assert len(looks(fal)) <= 5 * jobs
