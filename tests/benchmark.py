"""Measures what tests must not: how quickly the skill works, and with how little.

    python tests/benchmark.py [RUNS] [start] [beside] [job] [looks] [batch] [upload] [stream]

Everything runs on this machine, against the sandbox; ratios compare what was measured within
one run. Words choose what is measured, which is all of it without them. The exit status is 1
if a promise is missed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox import Latency, Reply, Sandbox

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = str(ROOT / "skill_fal.py")
BARE = ["-c", "import argparse, json"]
COMMANDS: list[list[str]] = [
    ["list-t2i"],
    ["--help"],
    ["subscribe-i2v", "--help"],
    ["submit-t2i", "--model", "mistyped"],
    ["encode-raw", "--file", SCRIPT, "--content-type", "text/x-python"],
]
FLUX = "fal-ai/flux/dev"
# The same job three ways, and the most that the time of each may be beside bare fal-client.
FAL_CLIENT = """
import fal_client, json
response = fal_client.subscribe(
    "fal-ai/flux/dev", {"prompt": "A cat"}, with_logs=True, on_queue_update=lambda status: None
)
print(json.dumps(response))
"""
INSTALLED = "from skill_fal import run_as_command; run_as_command()"  # as the console script
BESIDE: list[tuple[str, list[str], float]] = [
    ("the installed command", ["-c", INSTALLED], 1.0),
    ("the script", [SCRIPT], 1.2),
]
# The seconds that a job runs, and the most looks that it may cost.
LOOKS: list[tuple[str, float, float | None]] = [
    ("fal-ai/flux/dev", 1.0, None),
    ("fal-ai/flux/schnell", 10.0, None),
    ("fal-ai/recraft-v3", 60.0, 99.0),
]
MEGABYTE = 1_000_000

# A process of its own starts the skill: Linux counts as a child's memory what its parent took.
LAUNCHER = """
import os, subprocess, sys, time
start = time.time()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(start, time.time(), os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


@dataclass
class Row:
    """One measured value, and the most that was promised."""

    value: float
    name: str
    limit: float | None = None

    @property
    def missed(self) -> bool:
        return self.limit is not None and self.value > self.limit

    def __str__(self) -> str:
        promise = f"at most {self.limit:g}" if self.limit else ""
        return f"{self.value:8.2f}  {promise:12}  {self.name}"


@dataclass
class Finished:
    """When a command of the skill began and ended, and the bytes it took at its largest."""

    start: float
    end: float
    peak: float


class Skill:
    """The skill in an environment of its own, which leads to the sandbox."""

    def __init__(self, fal: Sandbox, home: str) -> None:
        self.fal = fal
        self.home = home
        self.env = {"PATH": os.environ["PATH"], "HOME": home, **fal.env}

    def run(self, *argv: str) -> Finished:
        return self.run_python(SCRIPT, *argv)

    def run_python(self, *argv: str) -> Finished:
        command = [sys.executable, "-c", LAUNCHER, sys.executable, *argv]
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, check=True)
        start, end, status, peak = map(float, done.stdout.split())
        if status:
            raise RuntimeError(f"{argv[0]} failed with exit status {status:.0f}")
        return Finished(start, end, peak if sys.platform == "darwin" else peak * 1024)

    def subscribe(self, model: str) -> Finished:
        return self.run("subscribe-t2i", "--model", model, "--prompt", "A cat")

    def arrivals(self, method: str, host: str, end: str = "") -> list[float]:
        """When the requests of a kind came in."""
        return [
            request.at
            for request in self.fal.requests
            if (request.method, request.host) == (method, host) and request.path.endswith(end)
        ]


@contextmanager
def sandboxed() -> Iterator[Skill]:
    with Sandbox() as fal, tempfile.TemporaryDirectory() as home:
        yield Skill(fal, home)
        if fal.unexpected:
            raise RuntimeError(f"unexpected requests: {fal.unexpected}")


def processor_seconds(arguments: list[str]) -> float:
    """User and system time of one Python process."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # waited for above
    return usage.ru_utime + usage.ru_stime


def ratio(arguments: list[str], runs: int) -> float:
    """The median over pairs of runs."""
    pairs = [
        (processor_seconds([SCRIPT, *arguments]), processor_seconds(BARE)) for _ in range(runs + 1)
    ]
    return statistics.median(ours / bare for ours, bare in pairs[1:])


def start(runs: int) -> Iterator[Row]:
    """Each command is run in turn with `python -c "import argparse, json"`, the least that any
    such tool does, and their processor times are divided pair by pair.
    """
    for arguments in COMMANDS:
        name = " ".join(Path(word).name for word in arguments)
        yield Row(ratio(arguments, runs), f"times the start of bare Python: {name}")


def beside(runs: int) -> Iterator[Row]:
    """What a job takes above its own time, which is none here, beside the same job on bare
    fal-client; whole processes in turn, their times divided pair by pair.
    """
    argv = ["subscribe-t2i", "--model", FLUX, "--prompt", "A cat"]
    with sandboxed() as skill, tempfile.TemporaryDirectory() as bytecode:
        skill.env |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": bytecode}
        ratios: dict[str, list[float]] = {name: [] for name, _, _ in BESIDE}
        for _ in range(runs + 1):
            bare = seconds_of(skill, ["-c", FAL_CLIENT])
            for name, command, _ in BESIDE:
                ratios[name].append(seconds_of(skill, [*command, *argv]) / bare)
    for name, _, limit in BESIDE:
        median = statistics.median(ratios[name][1:])
        yield Row(median, f"times the same job on bare fal-client: {name}", limit)


def seconds_of(skill: Skill, arguments: list[str]) -> float:
    done = skill.run_python(*arguments)
    return done.end - done.start


def job(runs: int) -> Iterator[Row]:
    """What a user waits for a job of 0.8 s: from the moment in which fal gets it, when its own
    time begins, and from the start of the process, which adds the start-up and the look-up.
    """
    seconds = 0.8
    from_submit, whole = [], []
    with sandboxed() as skill:
        for _ in range(runs + 1):
            skill.fal.reset()
            skill.fal.run_seconds = seconds
            done = skill.subscribe(FLUX)
            (submitted,) = skill.arrivals("POST", "queue.fal.run")
            from_submit.append((done.end - submitted) / seconds)
            whole.append((done.end - done.start) / seconds)
    of = f"times the job's {seconds:g} s: subscribe-t2i"
    yield Row(statistics.median(from_submit[1:]), f"{of}, from its arrival at fal to the end")
    yield Row(statistics.median(whole[1:]), f"{of}, the whole process")


def looks(runs: int) -> Iterator[Row]:
    """The status requests that jobs cost, side by side in real time; once is enough."""
    models = [model for model, _, _ in LOOKS]
    with sandboxed() as skill:
        for model, seconds, _ in LOOKS:
            skill.fal.latencies[model] = Latency(run_seconds=seconds)
        with ThreadPoolExecutor() as pool:
            list(pool.map(skill.subscribe, models))
        jobs = {str(one.endpoint): one.request_id for one in skill.fal.jobs.values()}
        for model, seconds, limit in LOOKS:
            count = len(skill.arrivals("GET", "queue.fal.run", f"{jobs[model]}/status"))
            yield Row(count, f"status requests: subscribe-t2i, a job of {seconds:g} s", limit)


def batch(runs: int) -> Iterator[Row]:
    """A batch whose jobs take five seconds if each slot is always taken."""
    jobs, at_once, seconds = 100, 20, 1.0
    ideal = jobs / at_once * seconds
    prompts = [f"Cat {number}" for number in range(jobs)]
    with sandboxed() as skill:
        skill.fal.run_seconds = seconds
        argv = ("--model", FLUX, "--prompts", *prompts, "--concurrency", str(at_once))
        done = skill.run("batch-t2i", *argv)
        first = min(skill.arrivals("POST", "queue.fal.run"))
        status = len(skill.arrivals("GET", "queue.fal.run", "/status"))
        every = len(skill.fal.requests)
    of = f"batch-t2i, {jobs} jobs of {seconds:g} s, {at_once} at once"
    yield Row((done.end - first) / ideal, f"times the ideal {ideal:g} s, from the first job: {of}")
    yield Row((done.end - done.start) / ideal, f"times the ideal {ideal:g} s, whole process: {of}")
    yield Row(status / jobs, f"status requests per job: {of}")
    yield Row(every / jobs, f"requests of any kind per job: {of}")
    yield Row(done.peak / MEGABYTE, f"MB of memory: {of}")


def upload(runs: int) -> Iterator[Row]:
    """A file much larger than what may be held of it; the sandbox keeps no part of it."""
    size = 1 << 30
    with sandboxed() as skill:
        skill.fal.largest_kept = 1 << 20
        path = Path(skill.home, "large.bin")
        with path.open("wb") as file:
            file.truncate(size)
        argv = ("--file", str(path), "--content-type", "application/octet-stream")
        done = skill.run("upload-raw", *argv)
    yield Row(done.peak / MEGABYTE, "MB of memory: upload-raw, 1 GiB", 200.0)
    speed = size / MEGABYTE / (done.end - done.start)
    yield Row(speed, "MB per second, the sandbox's own work included: upload-raw, 1 GiB")


def stream(runs: int) -> Iterator[Row]:
    """Previews of 10 kB, which fal sends as quickly as they can be taken."""
    count = 1000
    preview = {"images": [{"url": "data:image/jpeg;base64," + "A" * 10_000}]}
    content = f"data: {json.dumps(preview)}\n\n".encode() * count
    headers = {"Content-Type": "text/event-stream"}
    waits, speeds = [], []
    with sandboxed() as skill:
        for _ in range(max(runs // 4, 1) + 1):
            skill.fal.reset()
            skill.fal.on("POST", "fal.run", "*/stream", Reply(content=content, headers=headers))
            lines = line_times(skill, "stream-t2i", "--model", FLUX, "--prompt", "A cat")
            if len(lines) != count:
                raise RuntimeError(f"{len(lines)} lines in place of {count}")
            (sent,) = skill.arrivals("POST", "fal.run")
            waits.append(1000 * (lines[0] - sent))
            speeds.append(count / (lines[-1] - sent))
    of = f"stream-t2i, {count} events of 10 kB"
    yield Row(
        statistics.median(waits[1:]), f"ms from the request's arrival to the first line: {of}"
    )
    yield Row(statistics.median(speeds[1:]), f"events per second: {of}")


def line_times(skill: Skill, *argv: str) -> list[float]:
    """When each line of stdout came."""
    command = [sys.executable, SCRIPT, *argv]
    with subprocess.Popen(
        command, env=skill.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        return [time.time() for _ in process.stdout]


MEASUREMENTS: dict[str, Callable[[int], Iterator[Row]]] = {
    measure.__name__: measure for measure in (start, beside, job, looks, batch, upload, stream)
}


def main() -> int:
    words = sys.argv[1:]
    runs = [int(word) for word in words if word.isdigit()]
    chosen = [word for word in words if not word.isdigit()]
    if len(runs) > 1 or not set(chosen) <= set(MEASUREMENTS):
        sys.stderr.write(__doc__ or "")
        return 2
    missed = False
    for name in chosen or MEASUREMENTS:
        for row in MEASUREMENTS[name](*runs or [20]):
            missed = missed or row.missed
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
