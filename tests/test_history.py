"""The list of all jobs: what commands record, what list-jobs tells, and who finds a job by it."""

from __future__ import annotations

import base64
import fcntl
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
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
    never_listed,
    paid,
    read_until,
    sent,
    small_disk,
    wait_for,
)
from sandbox import Cut, Reply, Sandbox, Stall

FLUX = "fal-ai/flux/dev"
SCHNELL = "fal-ai/flux/schnell"
CLIP = "fal-ai/runway-gen3/turbo/image-to-video"
QUEUE, RUN = "queue.fal.run", "fal.run"
KEYS = {
    "request_id",
    "model",
    "command",
    "state",
    "submitted_at",
    "ended_at",
    "about",
    "files",
    "billable_units",
    "error",
    "result",
}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20).decode()


def flux(prompt: str = "A cat") -> tuple[str, ...]:
    return ("--model", FLUX, "--prompt", prompt)


def list_file(folder: Path) -> Path:
    return folder / ".local/state/fal-skill/jobs.jsonl"


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list_file(folder).read_text().splitlines()]


def jobs(cli: Cli, *argv: str) -> list[Any]:
    done = cli("list-jobs", "--json", *argv)
    assert done.status == 0
    found: list[Any] = done.json
    return found


def submit(cli: Cli, prompt: str = "A cat") -> str:
    request_id: str = cli("submit-t2i", *flux(prompt)).json["request_id"]
    return request_id


# What is recorded


def test_every_generation_command_records_its_jobs(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    cli("submit-t2i", *flux("one"))
    cli("subscribe-t2i", *flux("two"), "--output", "out/")
    cli("run-t2i", *flux("three"))
    cli("stream-t2i", *flux("four"))
    cli("batch-t2i", "--model", SCHNELL, "--prompts", "five", "--journal", "j")
    cli("realtime", "--model", SCHNELL, "--arguments-json", '{"prompt": "six"}', "--rounds", "2")
    cli("submit-i2v", "--model", CLIP, "--image-url", "https://example.com/seven.png")
    found = jobs(cli)
    found.reverse()
    one, two, *others, seven = found
    assert all(set(job) == KEYS for job in found)
    assert [job["about"] for job in found] == [
        *("one", "two", "three", "four", "five", "six", "six"),
        "https://example.com/seven.png",
    ]
    assert [job["command"] for job in found] == [
        *("submit-t2i", "subscribe-t2i", "run-t2i", "stream-t2i", "batch-t2i"),
        *("realtime", "realtime", "submit-i2v"),
    ]
    assert [job["model"] for job in (one, two, seven)] == [FLUX, FLUX, CLIP]
    assert one["request_id"] in fal.jobs
    assert {(job["state"], job["ended_at"], job["result"]) for job in (one, seven)} == {
        ("submitted", None, None)
    }
    assert {job["state"] for job in (two, *others)} == {"done"}
    assert two["request_id"] in fal.jobs
    assert two["result"]["images"]
    assert [file["path"] for file in two["files"]] == [str(tmp_path / "out/fal-ai-flux-dev.jpg")]
    assert two["billable_units"] > 0
    assert two["submitted_at"] <= two["ended_at"]
    assert [job["error"] for job in found] == [None] * 8


def test_each_step_is_on_disk_before_the_next(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """In the format of a journal, whose steps of the same job are the same but for the name."""
    argv = ("batch-t2i", "--model", SCHNELL, "--prompts", "A cat", "--journal", "journal")
    assert cli(*argv).status == 0
    journal = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    listed = steps(tmp_path)
    assert [step["state"] for step in listed] == ["sent", "accepted", "done"]
    for ours, theirs in zip(listed, journal, strict=True):
        assert theirs.keys() <= ours.keys()
        assert ours["state"] == theirs["state"]
    assert len({step["job"] for step in listed}) == 1


def test_nobody_else_reads_the_list(cli: Cli, tmp_path: Path) -> None:
    cli("submit-t2i", *flux(), env={"XDG_STATE_HOME": str(tmp_path / "state")})
    folder = tmp_path / "state/fal-skill"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "jobs.jsonl").stat().st_mode & 0o777 == 0o600
    assert not list_file(tmp_path).exists()


def test_the_list_keeps_no_secret_and_no_picture(
    fal: Sandbox, cli: Cli, environment: Mapping[str, str], tmp_path: Path
) -> None:
    key = environment["FAL_KEY"]
    secret = key.rpartition(":")[2]
    answer = {
        "images": [{"url": f"data:image/png;base64,{PNG}", "content_type": "image/png"}],
        "raw": PNG,
        "drawing": f"data:image/svg+xml;utf8,<svg id='{PNG}'/>",
        "prompt": key,
    }
    fal.on("POST", RUN, "*", Reply(json=answer))
    cli("run-t2i", *flux(f"{'y' * (201 - len(key))}{key}"), "--no-schema")
    image = f"data:image/png;base64,{PNG}"
    cli("submit-i2v", "--model", CLIP, "--image-url", image, "--no-schema")
    cli("submit-t2i", *flux(f"Like {image}, but red"), "--no-schema")
    content = list_file(tmp_path).read_text()
    assert secret not in content
    assert key[:-1] not in content
    assert PNG[100:200] not in content
    like, clip, run = jobs(cli)
    assert like["about"] == "Like data:image/png;base64,… but red"
    assert clip["about"] == "data:image/png;base64,…"
    assert (run["state"], run["about"]) == ("done", f"{'y' * (201 - len(key))}[FAL_KEY]")
    assert run["result"]["images"][0]["url"] == "data:image/png;base64,…"


def test_of_a_large_response_the_addresses_are_kept(fal: Sandbox, cli: Cli) -> None:
    url = "https://v3.fal.media/files/a/cat.png"
    answer = {"images": [{"url": url, "content_type": "image/png"}], "words": ["dog "] * 20_000}
    fal.on("POST", RUN, "*", Reply(json=answer))
    cli("run-t2i", *flux())
    (job,) = jobs(cli)
    assert job["result"]["files"] == [
        {"url": url, "content_type": "image/png", "file_name": "cat.png"}
    ]
    assert "bytes" in job["result"]["left_out"]


def test_a_busy_fal_makes_one_job(fal: Sandbox, cli: Cli) -> None:
    busy = Reply(429, json={"detail": "Busy"}, headers={"Retry-After": "0"})
    fal.on("POST", QUEUE, "*", busy, busy)
    submit(cli)
    assert [job["state"] for job in jobs(cli)] == ["submitted"]


def test_what_fal_refuses_or_fails_is_told_with_the_error(fal: Sandbox, cli: Cli) -> None:
    cli("subscribe-t2i", *flux("[fail]"))
    cli("subscribe-t2i", *flux("[nsfw]"))
    cli("run-t2i", *flux("[nsfw]"))
    fal.on("POST", QUEUE, "*", Reply(422, json={"detail": "No example today"}))
    cli("submit-t2i", *flux())
    never_listed(fal)
    fal.on("POST", QUEUE, "*", Cut("headers"))
    cli("submit-t2i", *flux())
    fal.on("GET", QUEUE, "*", Reply(410, json={"detail": "Odd"}))
    cli("subscribe-t2i", *flux())
    event = Reply(
        content=b'event: error\ndata: {"detail": "Odd"}\n\n',
        headers={"content-type": "text/event-stream"},
    )
    fal.on("POST", RUN, "*", event)
    cli("stream-t2i", *flux())
    assert [(job["state"], job["error"]["type"]) for job in jobs(cli)] == [
        ("failed", "stream_failed"),
        ("submitted", "bad_request"),
        ("unknown", "connection_lost"),
        ("failed", "invalid_arguments"),
        ("failed", "content_policy_violation"),
        ("failed", "content_policy_violation"),
        ("failed", "internal_server_error"),
    ]


def test_a_direct_call_has_the_id_of_its_answer(fal: Sandbox, cli: Cli) -> None:
    reply = Reply(json={"images": []}, headers={"x-fal-request-id": "example-id"})
    fal.on("POST", RUN, "*", reply)
    cli("run-t2i", *flux())
    assert [(job["request_id"], job["state"]) for job in jobs(cli)] == [("example-id", "done")]


def test_a_job_that_was_given_up_is_cancelled(fal: Sandbox, cli: Cli, start: Starter) -> None:
    fal.run_seconds = FOR_EVER
    for flags in ((), ("--keep",)):
        child = start("subscribe-t2i", *flux(), *flags)
        read = read_until(child, "in progress")
        child.send_signal(signal.SIGINT)
        assert finished(child, read).status == 130
    assert [job["state"] for job in jobs(cli)] == ["submitted", "cancelled"]


def test_a_killed_command_has_left_what_it_knew(fal: Sandbox, cli: Cli, start: Starter) -> None:
    """Before fal's answer to the submission, and after it; --live learns how it went on."""
    fal.on("POST", QUEUE, "*", Stall(FOR_EVER))
    unheard = start("submit-t2i", *flux("unheard"))
    wait_for(lambda: paid(fal) != [], unheard)
    unheard.kill()
    unheard.wait()
    fal.run_seconds = FOR_EVER
    followed = start("subscribe-t2i", *flux("followed"))
    read_until(followed, "in progress")
    followed.kill()
    followed.wait()
    heard, unknown = jobs(cli)
    assert (heard["state"], heard["about"]) == ("submitted", "followed")
    assert (unknown["state"], unknown["about"]) == ("unknown", "unheard")
    assert (unknown["request_id"], unknown["ended_at"]) == (None, None)


def test_an_importer_records_nothing(
    fal: Sandbox, environment: Mapping[str, str], tmp_path: Path
) -> None:
    code = f"import asyncio, skill_fal\nasyncio.run(skill_fal.submit_job('{FLUX}', {{}}))"
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=dict(environment), cwd=tmp_path, check=True, timeout=PATIENCE)
    assert len(fal.jobs) == 1
    assert not list_file(tmp_path).exists()


# Where nothing can be recorded


def test_the_list_can_be_turned_off(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    done = cli("submit-t2i", *flux(), env={"FAL_SKILL_HISTORY": "0"})
    assert (done.status, done.notes) == (0, "")
    assert not list_file(tmp_path).exists()


def one_note(done: Outcome) -> bool:
    lines = done.notes.splitlines()
    return len(lines) == 1 and lines[0].startswith("note: the job is not in the list of jobs: ")


def test_a_place_that_cannot_be_written_to_costs_one_note(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    """A file in place of the folder, a folder in place of the file, a link, no home."""
    blocked = tmp_path / "blocked"
    blocked.write_text("mine")
    (tmp_path / "folder/fal-skill/jobs.jsonl").mkdir(parents=True)
    (tmp_path / "link/fal-skill").mkdir(parents=True)
    (tmp_path / "link/fal-skill/jobs.jsonl").symlink_to(blocked)
    places = [{"XDG_STATE_HOME": str(tmp_path / name)} for name in ("blocked", "folder", "link")]
    for env in (*places, {"HOME": str(tmp_path / "gone")}):
        done = cli("subscribe-t2i", *flux(), "--quiet", "--no-schema", env=env)
        assert (done.status, done.stderr) == (0, "")
        done = cli("submit-t2i", *flux(), "--no-schema", env=env)
        assert (done.status, one_note(done)) == (0, True), done.stderr
    assert blocked.read_text() == "mine"
    assert not (tmp_path / "gone").exists()


def test_a_full_disk_costs_one_note(
    fal: Sandbox, environment: Mapping[str, str], tmp_path: Path
) -> None:
    command = [*SKILL, "batch-t2i", "--model", SCHNELL, "--prompts", "A cat", "A dog"]
    done = subprocess.run(
        [*command, "--no-schema"],
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=small_disk(300),
    )
    notes = [line for line in done.stderr.splitlines() if "list of jobs" in line]
    assert (done.returncode, len(notes), len(paid(fal))) == (0, 1, 2)
    assert all(step["state"] == "sent" for step in steps(tmp_path))


def test_a_lock_that_is_never_given_back_costs_one_note(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path
) -> None:
    submit(cli)
    with list_file(tmp_path).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = cli("submit-t2i", *flux(), env=clock.env(LEAP))
    assert (done.status, one_note(done)) == (0, True), done.stderr
    assert "another process works on the list of jobs" in done.stderr


# One file for all


def test_twenty_commands_at_once_write_one_list(
    fal: Sandbox, cli: Cli, start: Starter, tmp_path: Path
) -> None:
    """Of which some rewrite it, since it has grown too large."""
    fill(list_file(tmp_path), 19_499_000)
    argv = ("batch-t2i", "--model", SCHNELL, "--no-schema", "--prompts")
    children = [start(*argv, f"A {number}", f"B {number}") for number in range(20)]
    assert all(finished(child).status == 0 for child in children)
    ours = {job["about"]: job for job in jobs(cli, "--limit", "40", "--model", SCHNELL)}
    assert set(ours) == {f"{letter} {number}" for letter in "AB" for number in range(20)}
    assert {job["state"] for job in ours.values()} == {"done"}
    assert {job["request_id"] for job in ours.values()} == set(fal.jobs)
    assert Counter(step["job"] for step in steps(tmp_path)).most_common(1)[0][1] == 3


def fill(path: Path, size: int) -> int:
    """Fill the list with jobs that are done, up to the size; returns how many it takes."""
    path.parent.mkdir(parents=True)
    count, room = 0, size
    with path.open("w") as file:
        while room > 0:
            name = f"{count:032x}-1"
            about = {"model": "a/b", "command": "run-t2i", "about": f"Old {count}"}
            at = "2026-01-01T00:00:00Z"
            result = {"words": "x" * 60_000}
            for facts in ({"state": "sent", "at": at, **about}, done_step(at, result)):
                room -= file.write(json.dumps({"job": name, **facts}) + "\n")
            count += 1
    return count


def done_step(at: str, result: Any) -> dict[str, Any]:
    return {"state": "done", "at": at, "result": result}


def test_the_list_stays_below_its_bound(cli: Cli, tmp_path: Path) -> None:
    """The oldest jobs go, whole."""
    path = list_file(tmp_path)
    count = fill(path, 19_990_000)
    request_id = submit(cli)
    assert 14_000_000 < path.stat().st_size < 20_000_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["jobs.jsonl"]
    newest, *older = jobs(cli, "--limit", "1000")
    assert newest["request_id"] == request_id
    numbers = [int(job["about"].removeprefix("Old ")) for job in older]
    assert numbers == list(range(count - 1, count - 1 - len(numbers), -1))
    assert {job["state"] for job in older} == {"done"}


def test_a_torn_line_is_cut_off_and_a_strange_one_ended(cli: Cli, tmp_path: Path) -> None:
    first = submit(cli)
    path = list_file(tmp_path)
    whole = path.read_bytes()
    for torn in (whole.splitlines()[0][:70], b"strange"):
        with path.open("ab") as file:
            file.write(torn)
        submit(cli)
    lines = path.read_bytes().splitlines()
    assert lines.count(b"strange") == 1
    assert len(lines) == 2 * 3 + 1
    done = cli("list-jobs")
    assert (len(done.stdout.splitlines()), first in done.stdout) == (3, True)
    assert done.stderr.count("lines of the list of jobs cannot be read, and are left out: ") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\x00",
        b'{"job": "1"}',
        b"[" * 100_000,
        b'{"job": 1, "state": "sent", "at": "", "model": "a/b"}',
        b'{"job": "x", "state": ["sent"], "at": ""}',
        b'{"job": "x", "state": "sent", "at": "", "model": 7, "about": [], "saved": 3}',
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_a_damaged_line_does_not_end_the_command(cli: Cli, tmp_path: Path, line: bytes) -> None:
    request_id = submit(cli)
    path = list_file(tmp_path)
    path.write_bytes(line + b"\n" + path.read_bytes())
    done = cli("list-jobs")
    assert (done.status, done.stdout.split("\t")[0]) == (0, request_id)
    assert len(done.stdout.splitlines()) == 1
    assert cli("status", "--request-id", request_id).status == 0


# What list-jobs tells


def test_the_newest_come_first_and_can_be_chosen(cli: Cli) -> None:
    cat = submit(cli, "A cat\nin a red hat")
    dog = cli("submit-t2i", "--model", SCHNELL, "--prompt", "A red dog").json["request_id"]
    owl = submit(cli, "An owl")
    rows = [line.split("\t") for line in cli("list-jobs").stdout.splitlines()]
    assert [row[0] for row in rows] == [owl, dog, cat]
    assert rows[2][2:] == ["submitted", FLUX, "A cat in a red hat"]
    assert rows[0][1].endswith("Z")
    choices = {
        ("--limit", "2"): [owl, dog],
        ("--model", FLUX): [owl, cat],
        ("--model", "fal-ai/flux", "--limit", "1"): [owl],
        ("--search", "RED a"): [dog, cat],
        ("--search", f"red {cat[:20]}"): [cat],
        ("--search", "schnell dog"): [dog],
        ("--search", "red owl"): [],
    }
    for flags, chosen in choices.items():
        assert [job["request_id"] for job in jobs(cli, *flags)] == chosen
    assert "note: no job matches" in cli("list-jobs", "--search", "fox").stderr


def test_live_asks_fal_about_what_has_not_ended(fal: Sandbox, cli: Cli) -> None:
    """A response is fetched with it; what fal says of one job ends no look at another."""
    done, failed, gone = submit(cli), submit(cli, "[nsfw]"), submit(cli)
    fal.run_seconds = FOR_EVER
    running = submit(cli)
    del fal.jobs[gone]
    found = cli("list-jobs", "--json", "--live")
    states = {job["request_id"]: job["state"] for job in found.json}
    assert states == {done: "done", failed: "failed", gone: "unknown", running: "submitted"}
    assert [line for line in found.notes.splitlines() if line.startswith("note: ")] == [
        f"note: {gone}: fal knows no such request"
    ]
    assert found.json[3]["result"]["images"]
    assert found.json[2]["error"]["type"] == "content_policy_violation"
    fal.requests.clear()
    assert cli("list-jobs", "--json").json == found.json
    assert fal.requests == []


def test_the_account_is_listed_with_what_is_ours(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    theirs = cli("run-t2i", *flux("Theirs"), env={"FAL_SKILL_HISTORY": "0"})
    ours = submit(cli, "Ours")
    cli("result", "--request-id", ours)
    listed = jobs(cli, "--account", "--model", FLUX)
    assert (theirs.status, [set(job) for job in listed]) == (0, [{*KEYS, "ours"}] * 2)
    told = {job["about"]: (job["ours"], job["state"], job["command"]) for job in listed}
    assert told == {"Theirs": (False, "done", None), "Ours": (True, "done", "submit-t2i")}
    rows = cli("list-jobs", "--account", "--model", FLUX).stdout.splitlines()
    assert [row.endswith("\tours") for row in rows] == [job["ours"] for job in listed]


def test_odd_rows_of_the_account_are_told_as_far_as_they_go(fal: Sandbox, cli: Cli) -> None:
    rows: list[Any] = [
        "row",
        {},
        {"request_id": 7, "status_code": "200", "sent_at": 5, "json_input": ["a"]},
        {"request_id": "x", "status_code": 500, "json_output": [], "ended_at": {}},
        {"request_id": "y", "status_code": 499, "json_input": {"prompt": {"a": 1}}},
    ]
    fal.on("GET", "api.fal.ai", "/v1/models/requests/*", fal.always(Reply(json={"items": rows})))
    listed = jobs(cli, "--account", "--model", FLUX)
    assert [(job["request_id"], job["state"]) for job in listed] == [
        (None, "submitted"),
        (None, "submitted"),
        ("x", "failed"),
        ("y", "cancelled"),
    ]
    assert len(cli("list-jobs", "--account", "--model", FLUX).stdout.splitlines()) == 4


def test_the_account_is_asked_for_one_model(fal: Sandbox, cli: Cli) -> None:
    for flags in (("--account",), ("--account", "--live", "--model", FLUX)):
        assert cli("list-jobs", *flags).status == 2
    assert fal.requests == []
    fal.on("GET", "api.fal.ai", "/v1/models/requests/*", Reply(403, json={"error": {}}))
    assert cli("list-jobs", "--account", "--model", FLUX).status == 3


# Jobs that are found by the list


def test_the_id_alone_is_enough_for_a_job_of_the_list(fal: Sandbox, cli: Cli) -> None:
    done = submit(cli)
    failed = submit(cli, "[nsfw]")
    fal.run_seconds = FOR_EVER
    cancelled = submit(cli)
    found = cli("status", "--request-id", done).json
    assert (found["model"], found["status"]) == (FLUX, "COMPLETED")
    assert [job["state"] for job in jobs(cli)] == ["submitted", "submitted", "done"]
    assert cli("status", "--request-id", failed).status == 0
    assert cli("cancel", "--request-id", cancelled).json["model"] == FLUX
    assert cli("result", "--request-id", done).json["images"]
    states = [(job["state"], bool(job["result"])) for job in jobs(cli)]
    assert states == [("cancelled", False), ("failed", False), ("done", True)]
    assert jobs(cli)[1]["error"]["message"]


def test_a_job_that_is_looked_at_again_is_not_told_again(cli: Cli, tmp_path: Path) -> None:
    request_id = submit(cli)
    for _ in range(2):
        assert cli("status", "--request-id", request_id).json["status"] == "COMPLETED"
    assert [step["state"] for step in steps(tmp_path)] == ["sent", "accepted", "done"]


def test_the_last_job_is_that_of_the_queue(fal: Sandbox, cli: Cli) -> None:
    error = cli("result", "--request-id", "last").error
    assert (error["type"], "list-jobs" in error["hint"]) == ("usage_error", True)
    assert error["message"] == "the list of jobs has none that was queued"
    dog = cli("submit-t2i", "--model", SCHNELL, "--prompt", "A dog").json["request_id"]
    cat = submit(cli)
    cli("run-t2i", "--model", SCHNELL, "--prompt", "An owl")
    assert cli("status", "--request-id", "last").json["request_id"] == cat
    by_model = cli("status", "--model", SCHNELL, "--request-id", "last").json
    assert by_model["request_id"] == dog
    never_listed(fal)
    fal.on("POST", QUEUE, "*", Cut("headers"))
    cli("submit-t2i", *flux("A fox"))
    done = cli("result", "--request-id", "last")
    assert (done.status, done.stdout) == (2, "")
    assert "the newest job has no request id: its state is unknown" in done.error["message"]


@pytest.mark.parametrize("command", ["status", "result", "cancel"])
def test_a_job_that_the_list_does_not_know_needs_its_model(
    fal: Sandbox, cli: Cli, command: str
) -> None:
    submit(cli)
    fal.requests.clear()
    done = cli(command, "--request-id", "another")
    assert (done.status, done.error["type"], fal.requests) == (2, "usage_error", [])
    assert "--model" in done.error["hint"]
    assert "list-jobs" in done.error["hint"]
    assert cli(command, "--model", FLUX, "--request-id", "another").error["status"] == 404


def test_a_path_is_a_part_of_the_endpoint(fal: Sandbox, cli: Cli) -> None:
    cli("submit-t2i", "--model", "fal-ai/flux", "--path", "dev", "--prompt", "A cat")
    assert [job["model"] for job in jobs(cli)] == [FLUX]
    assert cli("result", "--request-id", "last").json["images"]


@pytest.mark.parametrize(
    "answer", [Reply(404, json={"status": "NOT_FOUND"}), Reply(410, json={"detail": "Expired"})]
)
def test_what_fal_has_forgotten_is_in_the_list(
    fal: Sandbox, cli: Cli, tmp_path: Path, answer: Reply
) -> None:
    first = cli("subscribe-t2i", *flux())
    (request_id,) = fal.jobs
    fal.on("GET", QUEUE, "*", fal.always(answer))
    assert cli("status", "--request-id", request_id).error["status"] == answer.status
    assert jobs(cli)[0]["state"] == "done"
    done = cli("result", "--model", FLUX, "--request-id", request_id, "--output", "out/")
    files = done.json.pop("downloaded_files")
    response = {name: value for name, value in done.json.items() if name != "downloaded_files"}
    assert (done.status, response) == (0, first.json)
    assert "note: fal has forgotten the job: this is the response that" in done.stderr
    (job,) = jobs(cli)
    assert job["files"] == files
    assert Path(files[0]["path"]).is_file()
    assert (job["state"], job["result"]) == ("done", first.json)
    other = submit(cli)
    assert cli("result", "--request-id", other).error["status"] == answer.status


def test_a_batch_that_goes_on_tells_the_list_of_its_jobs(
    fal: Sandbox, cli: Cli, start: Starter
) -> None:
    fal.run_seconds = FOR_EVER
    argv = ("batch-t2i", "--model", SCHNELL, "--prompts", "A cat", "--journal", "journal")
    child = start(*argv)
    read_until(child, "in progress")
    child.kill()
    child.wait()
    (request_id,) = fal.jobs
    assert cli("cancel", "--request-id", "last").status == 0
    fal.run_seconds = 0
    assert cli(*argv, "--retry-failed").status == 0
    again, first = jobs(cli)
    assert (first["request_id"], first["state"]) == (request_id, "cancelled")
    assert (again["state"], len(paid(fal))) == ("done", 2)
    assert sent(fal)
