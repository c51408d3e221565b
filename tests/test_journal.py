"""--journal: a batch that was killed goes on where it stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FOR_EVER,
    LEAP,
    PATIENCE,
    SKILL,
    Cli,
    Clock,
    Outcome,
    Starter,
    finished,
    leaping,
    never_listed,
    paid,
    read_until,
    small_disk,
    wait_for,
)
from sandbox import Cut, Latency, Reply, Sandbox, Stall

FLUX = "fal-ai/flux/schnell"
QUEUE = "queue.fal.run"
JOURNAL = ("--model", FLUX, "--journal", "journal.jsonl")
PROMPTS = ("A cat", "A dog", "An owl")


@pytest.fixture
def cli(cli: Cli, clock: Clock) -> Cli:
    """Runs skill_fal.py; to look for a lost job on the account takes no time."""
    return leaping(cli, clock)


def steps(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def by_prompt(done: Outcome) -> dict[str, Any]:
    return {line["prompt"]: line.get("result") or line["error"] for line in done.lines}


def test_each_step_is_on_disk_before_the_next(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    sent, accepted, ended = steps(tmp_path)
    (request_id,) = fal.jobs
    assert [sent["state"], accepted["state"], ended["state"]] == ["sent", "accepted", "done"]
    assert (sent["model"], sent["about"]) == (FLUX, "A cat")
    assert accepted["request_id"] == request_id
    assert ended["result"] == done.lines[0]["result"]
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


def test_what_is_done_is_not_run_again(fal: Sandbox, cli: Cli) -> None:
    first = cli("batch-t2i", *JOURNAL, "--prompts", *PROMPTS)
    fal.requests.clear()
    second = cli("batch-t2i", *JOURNAL, "--prompts", *PROMPTS)
    assert (second.status, by_prompt(second)) == (0, by_prompt(first))
    assert {line["request_id"] for line in second.lines} == set(fal.jobs)
    assert [r for r in fal.requests if r.host == QUEUE] == []


def test_a_changed_list_is_matched_by_content(fal: Sandbox, cli: Cli) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", *PROMPTS)
    changed = ("A fox", *reversed(PROMPTS), "A cat")
    done = cli("batch-t2i", *JOURNAL, "--prompts", *changed)
    assert [line["prompt"] for line in sorted(done.lines, key=lambda one: one["index"])] == [
        *changed
    ]
    assert Counter(job.arguments["prompt"] for job in fal.jobs.values()) == Counter(
        [*PROMPTS, "A fox", "A cat"]
    )


@pytest.mark.parametrize(
    "other", [("--seed", "8"), ("--model", "fal-ai/flux/dev"), ("--extra-json", '{"a": 1}')]
)
def test_other_arguments_are_other_jobs(fal: Sandbox, cli: Cli, other: tuple[str, ...]) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat", *other)
    assert len(fal.jobs) == 2


def test_how_a_job_is_sent_makes_no_other_of_it(fal: Sandbox, cli: Cli) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    how = ("--priority", "low", "--client-timeout", "30", "--concurrency", "1", "--no-schema")
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat", *how)
    assert len(fal.jobs) == 1


def test_pictures_are_matched_by_content(
    fal: Sandbox, cli: Cli, tmp_path: Path, photo: Path
) -> None:
    argv = (
        "--model",
        "fal-ai/runway-gen3/turbo/image-to-video",
        "--journal",
        "j",
        "--prompt",
        "Go",
    )
    assert cli("batch-i2v", *argv, "--image-urls", "photo.jpg").status == 0
    photo.rename(tmp_path / "other.jpg")
    assert cli("batch-i2v", *argv, "--image-urls", "other.jpg").status == 0
    assert len(fal.jobs) == 1
    with (tmp_path / "other.jpg").open("ab") as file:
        file.write(b"\0")
    assert cli("batch-i2v", *argv, "--image-urls", "other.jpg").status == 0
    assert len(fal.jobs) == 2


def cut_after(folder: Path, state: str) -> None:
    """Leave of the journal what a power cut right after the first such step would leave."""
    path = folder / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    last = next(n for n, line in enumerate(lines) if json.loads(line)["state"] == state)
    path.write_text("".join(lines[: last + 1]))


def test_a_journal_is_taken_up_again(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """By the request id, where fal has taken the job."""
    first = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    cut_after(tmp_path, "accepted")
    second = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    assert (second.status, by_prompt(second)) == (0, by_prompt(first))
    assert len(paid(fal)) == 1


def test_what_is_in_doubt_is_repeated_on_request_alone(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    never_listed(fal)
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    cut_after(tmp_path, "sent")
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    error = done.lines[0]["error"]
    assert (done.status, error["type"], error["retryable"]) == (1, "unknown_outcome", False)
    assert "--retry-unknown" in error["hint"]
    assert len(paid(fal)) == 1
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "--retry-unknown").status == 0
    assert len(paid(fal)) == 2


def test_a_connection_that_breaks_leaves_a_doubt(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    never_listed(fal)
    fal.on("POST", QUEUE, "*", Cut("headers"))
    argv = ("batch-t2i", *JOURNAL, "--prompts", "A cat")
    first, second = [cli(*argv, env=clock.env(LEAP)) for _ in range(2)]
    assert first.lines[0]["error"]["type"] == "connection_lost"
    assert second.lines[0]["error"]["type"] == "unknown_outcome"
    assert len(paid(fal)) == 1


@pytest.mark.parametrize("status", [401, 404, 422, 429])
def test_what_fal_refused_is_sent_again(fal: Sandbox, cli: Cli, status: int) -> None:
    refusal = Reply(status, json={"detail": "No"}, headers={"Retry-After": "3600"})
    fal.on("POST", QUEUE, "*", refusal)
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 1
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0
    assert len(fal.jobs) == 1


def test_what_failed_is_repeated_on_request_alone(fal: Sandbox, cli: Cli) -> None:
    done = [cli("batch-t2i", *JOURNAL, "--prompts", "[nsfw]") for _ in range(2)]
    types = [one.lines[0]["error"]["type"] for one in done]
    assert (types, len(paid(fal))) == (["content_policy_violation"] * 2, 1)
    cli("batch-t2i", *JOURNAL, "--prompts", "[nsfw]", "--retry-failed")
    assert len(paid(fal)) == 2


def test_a_look_that_fails_does_not_make_a_job_a_failed_one(fal: Sandbox, cli: Cli) -> None:
    unavailable = Reply(400, json={"detail": "No"})
    fal.on("GET", QUEUE, "*", *[unavailable] * 2)
    for _ in range(3):
        done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "--retry-failed")
    assert (done.status, len(paid(fal))) == (0, 1)


@pytest.mark.parametrize("status", [400, 500, 503])
def test_a_result_that_cannot_be_fetched_is_not_paid_for_again(
    fal: Sandbox, cli: Cli, status: int
) -> None:
    """fal called the job a success."""
    fault = Reply(status, json={"detail": "No"})
    fal.on("GET", QUEUE, "*/requests/*-????????????", fault, fault)
    for _ in range(3):
        done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "--retry-failed")
    assert (done.status, len(paid(fal))) == (0, 1)


def test_a_repetition_in_doubt_is_not_looked_for_under_the_old_id(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", "[nsfw]")
    fal.on("POST", QUEUE, "*", Cut("request"))
    argv = ("batch-t2i", *JOURNAL, "--prompts", "[nsfw]", "--retry-failed")
    (line,) = cli(*argv, env=clock.env(LEAP)).lines
    assert line["request_id"] is None
    assert "dashboard/requests" in line["error"]["hint"]


@pytest.mark.parametrize("flag", ["--retry-failed", "--retry-unknown"])
def test_what_needs_a_journal_is_refused_without(fal: Sandbox, cli: Cli, flag: str) -> None:
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A cat", flag)
    assert (done.status, fal.requests) == (2, [])


def test_a_text_that_is_no_unicode_is_recorded(fal: Sandbox, cli: Cli) -> None:
    odd = Reply(content=b'{"prompt": "cat \\ud83d"}', headers={"content-type": "application/json"})
    fal.on("GET", QUEUE, "*/requests/*-????????????", odd)
    first, second = [cli("batch-t2i", *JOURNAL, "--prompts", "A cat") for _ in range(2)]
    assert (first.status, second.status, len(paid(fal))) == (0, 0, 1)
    assert first.stdout == second.stdout


def test_a_job_that_fal_was_too_busy_for_is_in_no_doubt(
    fal: Sandbox, cli: Cli, start: Starter
) -> None:
    fal.on("POST", QUEUE, "*", Reply(429, json={}, headers={"Retry-After": "30"}))
    child = start("batch-t2i", *JOURNAL, "--prompts", "A cat")
    read = read_until(child, "fal is busy")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    assert (done.status, "may be running" in done.stderr) == (130, False)
    assert done.error["hint"] == "Repeat the command: it goes on where it stopped."
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0


def test_the_journal_holds_no_part_of_the_key(
    fal: Sandbox, cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    key = environment["FAL_KEY"]
    cli("batch-t2i", *JOURNAL, "--prompts", "y" * (201 - len(key)) + key)
    assert key[:-1] not in (tmp_path / "journal.jsonl").read_text()


def test_what_is_done_needs_no_schema(fal: Sandbox, cli: Cli, photo: Path, tmp_path: Path) -> None:
    """Without one nobody knows where a second picture goes."""
    row = json.dumps({"image_url": ["photo.jpg", "photo.jpg"]})
    model = "fal-ai/kling-video/v3/pro/image-to-video"
    argv = ("--model", model, "--journal", "j", "--image-urls-file", "-", "--prompt", "Go")
    assert cli("batch-i2v", *argv, stdin=row).status == 0
    fal.on("GET", "api.fal.ai", "*", fal.always(Reply(500)))
    again = cli("batch-i2v", *argv, stdin=row, env={"XDG_CACHE_HOME": str(tmp_path / "new")})
    assert (again.status, len(again.lines), len(paid(fal))) == (0, 1, 1)


def test_a_run_that_goes_on_says_what_it_found(fal: Sandbox, cli: Cli) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "[nsfw]")
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "[nsfw]", "A dog")
    assert "note: journal: 1 done, 1 to look up, 0 in doubt, 1 to submit" in done.stderr


def test_interrupted_jobs_run_when_the_batch_goes_on(
    fal: Sandbox, cli: Cli, start: Starter, clock: Clock
) -> None:
    fal.run_seconds = FOR_EVER
    child = start("batch-t2i", *JOURNAL, "--prompts", "A cat", env=clock.env())
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    assert finished(child, read).status == 130
    fal.run_seconds = 0
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    assert (done.status, [job.cancelled for job in fal.jobs.values()]) == (0, [True, False])


def test_a_kept_job_is_picked_up(fal: Sandbox, cli: Cli, start: Starter, clock: Clock) -> None:
    fal.run_seconds = 2
    child = start("batch-t2i", *JOURNAL, "--prompts", "A cat", "--keep", env=clock.env())
    read = read_until(child, "in progress")
    child.send_signal(signal.SIGINT)
    assert finished(child, read).status == 130
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat", env=clock.env(LEAP))
    assert (done.status, len(paid(fal))) == (0, 1)
    assert "in progress" in done.stderr


@pytest.mark.parametrize("end", ["last", "second"])
def test_a_torn_last_line_does_no_harm(fal: Sandbox, cli: Cli, tmp_path: Path, end: str) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    if end == "second":
        whole = b"".join(whole.splitlines(keepends=True)[:2])
    for size in (len(whole) - 1, len(whole) - 20):
        path.write_bytes(whole[:size])
        done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
        assert len(done.lines) == 1
        assert all(json.loads(line) for line in path.read_text().splitlines())
    assert len(paid(fal)) == 1


@pytest.mark.parametrize("content", [b'{"job', b"", b"{"])
def test_a_journal_that_was_hardly_begun(
    fal: Sandbox, cli: Cli, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "journal.jsonl").write_bytes(content)
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0
    assert len(steps(tmp_path)) == 3


@pytest.mark.parametrize(
    "end",
    ['{"job": "', "0123", "abcdef-0", '", "st', '"state": "sen', "}"],
    ids=["name", "id", "number", "next name", "state", "line end"],
)
def test_a_journal_whose_first_step_is_torn_is_gone_on_with(
    fal: Sandbox, cli: Cli, tmp_path: Path, end: str
) -> None:
    """Nothing was sent before that step was whole on disk."""
    step = '{"job": "0123456789abcdef0123456789abcdef-0", "state": "sent", "about": "A cat"}'
    whole, found, _ = step.partition(end)
    (tmp_path / "journal.jsonl").write_text(whole + found)
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0
    assert [step["state"] for step in steps(tmp_path)] == ["sent", "accepted", "done"]


@pytest.mark.parametrize("bytes_left", [12, 30, 60, 150])
def test_a_first_step_of_ours_that_is_torn_is_gone_on_with(
    fal: Sandbox, cli: Cli, tmp_path: Path, bytes_left: int
) -> None:
    cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().partition(b"\n")[0][:bytes_left])
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat").status == 0
    assert [step["state"] for step in steps(tmp_path)] == ["sent", "accepted", "done"]


@pytest.mark.parametrize("rest", ["> j", ">> j", "2> j", "2>> j", "> j 2>&1", "> ./j"])
def test_a_journal_is_not_where_the_output_goes(
    fal: Sandbox, shell: Callable[..., Outcome], tmp_path: Path, rest: str
) -> None:
    argv = ("batch-t2i", "--model", FLUX, "--journal", "j", "--prompts", "A cat", "A dog")
    done = shell(argv, rest)
    assert (done.status, paid(fal)) == (2, [])
    said = done.stderr + (tmp_path / "j").read_text()
    assert "the journal j is where the output goes" in said


def test_a_journal_keeps_what_it_has_when_the_output_was_to_follow(
    fal: Sandbox, cli: Cli, shell: Callable[..., Outcome], tmp_path: Path
) -> None:
    argv = ("batch-t2i", *JOURNAL, "--prompts", "A cat")
    assert cli(*argv).status == 0
    before = (tmp_path / "journal.jsonl").read_bytes()
    assert shell(argv, ">> journal.jsonl").status == 2
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert (cli(*argv).status, len(paid(fal))) == (0, 1)


def test_the_output_may_go_to_any_other_file(
    fal: Sandbox, shell: Callable[..., Outcome], tmp_path: Path
) -> None:
    done = shell(("batch-t2i", *JOURNAL, "--prompts", "A cat"), "> out 2> notes")
    assert (done.status, len((tmp_path / "out").read_text().splitlines())) == (0, 1)
    assert [step["state"] for step in steps(tmp_path)] == ["sent", "accepted", "done"]


@pytest.mark.parametrize(
    "content",
    [
        b"My notes\n",
        b"no line end",
        b'{"job": "1", "state": "sent"}\nnonsense\n',
        b'{"job": "1"\n',
        b'{"job": "1"}\n',
        b'{"job": "nightly build"}',
        b'{"job": "nightly build", "steps": [1, 2], "owner": "me"}',
        b'{"job": "cafe"}',
        b'{"job": "2024-11", "steps": [1, 2], "owner": "me"}',
        b'{"job": 7, "steps": []}',
        b'{"job": "1", "state": "Sent"}\n',
        b'{"job": "1", "state": "accepted"}\n',
        b'{"job": "1", "state": "done"}\n',
    ],
)
def test_a_file_that_is_no_journal_stays_as_it_is(
    fal: Sandbox, cli: Cli, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat")
    assert (done.status, paid(fal), path.read_bytes()) == (2, [], content)


@pytest.mark.parametrize("place", ["", "-", ".", "missing/journal", "/dev/null"])
def test_a_place_where_no_journal_can_be(fal: Sandbox, cli: Cli, place: str) -> None:
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A cat", "--journal", place)
    assert (done.status, fal.requests) == (2, [])
    assert done.error["message"].startswith("argument --journal: ")


def test_two_processes_on_one_journal(fal: Sandbox, cli: Cli, start: Starter) -> None:
    fal.run_seconds = FOR_EVER
    child = start("batch-t2i", *JOURNAL, "--prompts", "A cat")
    read = read_until(child, "in progress")
    done = cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "A dog")
    assert (done.status, len(paid(fal))) == (2, 1)
    assert "another process works on the journal" in done.error["message"]
    child.send_signal(signal.SIGTERM)
    assert finished(child, read).status == 143


def test_a_dry_run_writes_no_journal(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    assert cli("batch-t2i", *JOURNAL, "--prompts", "A cat", "--dry-run").status == 0
    assert not (tmp_path / "journal.jsonl").exists()


def test_a_reader_that_leaves_loses_no_result(fal: Sandbox, cli: Cli, start: Starter) -> None:
    child = start("batch-t2i", *JOURNAL, "--prompts", *PROMPTS, "--concurrency", "1")
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(PATIENCE) == 141
    done = cli("batch-t2i", *JOURNAL, "--prompts", *PROMPTS)
    assert (done.status, set(by_prompt(done))) == (0, set(PROMPTS))
    ended = [job for job in fal.jobs.values() if not job.cancelled]
    assert sorted(job.arguments["prompt"] for job in ended) == sorted(PROMPTS)


def test_what_cannot_be_recorded_is_not_sent(
    fal: Sandbox, environment: Mapping[str, str], tmp_path: Path
) -> None:
    command = [*SKILL, "batch-t2i", *JOURNAL, "--prompts", *PROMPTS]
    done = subprocess.run(
        [*command, "--concurrency", "1", "--no-schema"],
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},  # or it is cut as well
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=small_disk(200),
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(paid(fal))) == (1, 1)
    assert ["result" in line for line in lines] == [True, False, False]
    assert lines[1]["error"]["type"] == "journal_failed"
    assert "note: the journal cannot be written to" in done.stderr
    assert [step["state"] for step in steps(tmp_path)] == ["sent"]


@pytest.mark.parametrize("seed", range(3), ids=lambda seed: f"seed {seed}")
def test_a_batch_that_is_killed_again_and_again(
    fal: Sandbox, cli: Cli, start: Starter, clock: Clock, seed: int
) -> None:
    """Every prompt gets one result for one job, but for those whose submission was cut short:
    these are reported, and whoever looks at fal knows whether to submit them again.

    Each run but the last is killed when fal has got some requests of it, which are too few for
    twelve jobs, and mostly before fal has answered the last of them.
    """
    chance = random.Random(seed)
    fal.queue_seconds, fal.run_seconds = 0.05, 0.1
    fal.on("POST", QUEUE, "*", *[Stall(chance.choice([0, 0, 0.1])) for _ in range(50)])
    prompts = tuple(f"A cat, {number}" for number in range(12))
    argv = ("batch-t2i", *JOURNAL, "--prompts", *prompts, "--no-schema")
    kills, done = 0, None
    while done is None:
        child = start(*argv, env=clock.env(LEAP))
        done = run_until_killed(child, fal, chance.randint(6, 20))
        kills += done is None
    assert kills > 0
    accepted = Counter(job.arguments["prompt"] for job in fal.jobs.values())
    in_doubt = {line["prompt"] for line in done.lines if "error" in line}
    assert sorted(line["prompt"] for line in done.lines) == sorted(prompts)
    assert {line["error"]["type"] for line in done.lines if "error" in line} <= {"unknown_outcome"}
    assert {prompt: accepted[prompt] for prompt in prompts if prompt not in in_doubt} == {
        prompt: 1 for prompt in prompts if prompt not in in_doubt
    }
    assert all(accepted[prompt] <= 1 for prompt in in_doubt)
    last = cli(*argv, "--retry-unknown")
    assert (last.status, len({line["prompt"] for line in last.lines})) == (0, len(prompts))
    assert all("result" in line for line in last.lines)


def run_until_killed(child: subprocess.Popen[str], fal: Sandbox, requests: int) -> Outcome | None:
    """The outcome of a process, or None if it was killed, once fal has got so many requests
    about jobs."""

    def came() -> int:
        return sum(request.host == QUEUE for request in fal.requests)

    enough = came() + requests
    wait_for(lambda: came() >= enough, child)
    if came() < enough:
        return finished(child)
    child.kill()
    child.communicate()
    return None


def test_a_job_that_is_submitted_again_is_looked_at_in_peace(fal: Sandbox, cli: Cli) -> None:
    """Its own pace begins anew: it is not looked at without a pause."""
    cli("batch-t2i", *JOURNAL, "--prompts", "[fail]")
    fal.requests.clear()
    fal.latencies[FLUX] = Latency(run_seconds=1.0)
    done = cli("batch-t2i", *JOURNAL, "--prompts", "[fail]", "--retry-failed")
    assert (done.status, len(paid(fal))) == (1, 1)
    assert len([request for request in fal.requests if request.path.endswith("/status")]) < 40
