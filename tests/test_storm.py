"""A storm: commands are killed and connections cut wherever chance has it. Nothing is paid twice,
nothing that fal has is missing from the list of jobs, and what the account can tell is known."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from conftest import LEAP, Cli, Clock, Outcome, Starter, finished, wait_for
from sandbox import Cut, Lose, Pass, Reply, Sandbox, nginx
from sandbox.scripting import Action

FLUX = "fal-ai/flux/dev"
QUEUE = "queue.fal.run"
COMMANDS = 40  # of which nearly half are killed
VERBS = ("submit-t2i", "subscribe-t2i", "batch-t2i")

# Each fault as often as it stands here: fal's answer to a submission, and to a look at a job.
SUBMISSIONS: tuple[Action, ...] = (
    *[Pass()] * 5,
    Cut("request"),
    Cut("headers"),
    Cut("body"),
    Lose(nginx(502)),
    Lose(Reply(200, json={})),
    Lose(Reply(500, json={"detail": "Oh"})),
)
LOOKS: tuple[Action, ...] = (
    *[Pass()] * 6,
    Cut("request"),
    Cut("body"),
    nginx(503),
    Reply(json={}),
    Reply(json=[]),
)


def asking(verb: str, prompt: str) -> tuple[str, ...]:
    flag = "--prompts" if verb == "batch-t2i" else "--prompt"
    return (verb, "--model", FLUX, flag, prompt, "--no-schema", "--output", "out/")


def run_or_kill(
    fal: Sandbox, start: Starter, clock: Clock, argv: tuple[str, ...], at: int
) -> Outcome:
    """Run a command, and kill it once it has sent so many requests, if it is not 0."""
    before = len(fal.requests)
    child = start(*argv, env=clock.env(LEAP))
    if at:
        wait_for(lambda: len(fal.requests) >= before + at, child)
        child.kill()
    return finished(child)


def listed_by_topic(cli: Cli) -> dict[str, list[dict[str, Any]]]:
    jobs: dict[str, list[dict[str, Any]]] = {}
    for job in cli("list-jobs", "--json", "--limit", str(10 * COMMANDS)).json:
        jobs.setdefault(job["about"], []).append(job)
    return jobs


def test_a_storm(fal: Sandbox, start: Starter, cli: Cli, clock: Clock, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    fal.on("POST", QUEUE, "*", *chance.choices(SUBMISSIONS, k=2 * COMMANDS))
    fal.on("GET", QUEUE, "*", *chance.choices(LOOKS, k=20 * COMMANDS))
    ended = {}
    for number in range(COMMANDS):
        prompt = f"picture {number}"
        argv = asking(chance.choice(VERBS), prompt)
        argv = argv[:-2] if argv[0] == "submit-t2i" else argv
        ended[prompt] = run_or_kill(fal, start, clock, argv, chance.choice((0, 0, 1, 2, 3, 5)))
    listed = listed_by_topic(cli)
    accepted = [(str(job.arguments["prompt"]), job.request_id) for job in fal.jobs.values()]
    assert len({prompt for prompt, _ in accepted}) == len(accepted), seed  # each was paid for once
    for prompt, request_id in accepted:
        (job,) = listed[prompt]
        assert job["request_id"] in (None, request_id), seed
        if ended[prompt].status >= 0:
            assert job["request_id"] == request_id, (seed, job, ended[prompt].stderr)
