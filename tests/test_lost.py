"""Lost jobs: fal's answer did not come, but the account's requests tell of them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FLY,
    LEAP,
    Cli,
    Clock,
    Starter,
    finished,
    paid,
    read_until,
    wait_for,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox import Cut, Hold, Lose, Reply, Sandbox, Stall, nginx

import skill_fal

FLUX = "fal-ai/flux/dev"
CLIP = "fal-ai/runway-gen3/turbo/image-to-video"
QUEUE, API = "queue.fal.run", "api.fal.ai"
ACCOUNT = "*/requests/by-endpoint"
PROMPT = ("--model", FLUX, "--prompt", "A cat")
BATCH = ("batch-t2i", "--model", FLUX, "--prompts")
JOURNAL = ("--journal", "journal.jsonl")
UNLISTED = {"FAL_SKILL_HISTORY": "0"}

ANSWERS_LOST: dict[str, Cut | Lose] = {
    "in the head": Cut("headers"),
    "nginx 502": Lose(nginx(502)),
    "nginx 504": Lose(nginx(504)),
    "500": Lose(Reply(500, json={"detail": "Oh"})),
    "no id": Lose(Reply(json={"status": "IN_QUEUE"})),
    "an id that is none": Lose(Reply(json={"request_id": "a/b"})),
    "nothing": Lose(Reply(content=b"")),
    "a login page": Lose(Reply(text="<html>Sign in</html>")),
    "a redirect": Lose(Reply(302, headers={"location": "https://example.com/login"})),
}


def searches(fal: Sandbox) -> list[Any]:
    return [request for request in fal.requests if request.path.endswith("by-endpoint")]


def row(request_id: Any, prompt: str, age: float = 0, **told: Any) -> dict[str, Any]:
    """What fal lists of a request, changed in what is told."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.250Z", time.gmtime(time.time() - age))
    arguments = {"prompt": prompt}
    facts = {"endpoint_id": FLUX, "sent_at": at, "json_input": arguments, "json_output": None}
    return {"request_id": request_id, **facts, **told}


def list_rows(fal: Sandbox, *rows: Any) -> None:
    fal.on("GET", API, ACCOUNT, fal.always(Reply(json={"items": [*rows], "next_cursor": None})))


def listed(cli: Cli, **env: str) -> list[Any]:
    done = cli("list-jobs", "--json", env=env)
    jobs: list[Any] = done.json
    return jobs


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def forget_answers(folder: Path) -> None:
    """Leave of the journal what a command leaves that is killed before any answer comes."""
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    sent = [line for line in lines if json.loads(line)["state"] == "sent"]
    (folder / "journal.jsonl").write_text("".join(sent))


# As the answer is lost


def test_each_kind_of_lost_answer_is_made_up_for(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    fal.on("POST", QUEUE, "*", *ANSWERS_LOST.values())
    done = cli(*BATCH, *ANSWERS_LOST, "--concurrency", "3", env=clock.env(LEAP))
    assert done.status == 0
    told = {line["prompt"]: line["request_id"] for line in done.lines}
    assert told == {job.arguments["prompt"]: job.request_id for job in fal.jobs.values()}
    assert len(paid(fal)) == len(ANSWERS_LOST) == len(fal.jobs)
    assert {job["state"] for job in listed(cli)} == {"done"}
    assert {job["request_id"] for job in listed(cli)} == set(fal.jobs)


@pytest.mark.parametrize("command", ["submit-t2i", "subscribe-t2i"])
def test_the_command_goes_on_as_if_nothing_had_happened(
    fal: Sandbox, cli: Cli, clock: Clock, command: str
) -> None:
    fal.on("POST", QUEUE, "*", Cut("headers"))
    done = cli(command, *PROMPT, env=clock.env(LEAP))
    (request_id,) = fal.jobs
    assert (done.status, len(paid(fal))) == (0, 1)
    assert f"going on with request id {request_id}" in done.stderr
    if command == "submit-t2i":
        assert done.json == {"request_id": request_id, "model": FLUX}
    else:
        assert done.json["images"]
    (job,) = listed(cli)
    assert (job["request_id"], job["error"]) == (request_id, None)
    assert job["state"] == ("submitted" if command == "submit-t2i" else "done")


def test_an_uploaded_picture_and_a_path_are_found_as_they_were_sent(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path
) -> None:
    fal.on("POST", QUEUE, "*", Cut("headers"))
    model, path = CLIP.rsplit("/", 1)
    argv = ("--model", model, "--path", path, "--image-url", "photo.jpg", "--prompt", "Go")
    assert cli("submit-i2v", *argv, env=clock.env(LEAP)).status == 0
    assert searches(fal)[0].query["endpoint_id"] == CLIP


def test_the_account_is_asked_after_2_5_and_10_seconds(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    empty = Reply(json={"items": []})
    fal.on("POST", QUEUE, "*", Cut("headers"))
    fal.on("GET", API, ACCOUNT, empty, Reply(500, json={"error": {"message": "Oh"}}))
    done = cli("submit-t2i", *PROMPT, env=clock.env(LEAP))
    (post,) = [request for request in fal.requests if request.method == "POST"]
    waits = [search.at - post.at for search in searches(fal)]
    assert (done.status, done.json["request_id"]) == (0, *fal.jobs)[0:2]
    assert waits == pytest.approx([2, 5, 10], abs=0.5)
    query = searches(fal)[0].query
    start = skill_fal.read_time(query["start"])
    assert start is not None
    assert post.at - start == pytest.approx(60, abs=1.5)


def test_an_account_that_hangs_delays_no_longer_than_its_looks(
    fal: Sandbox, start: Starter, clock: Clock
) -> None:
    fal.on("POST", QUEUE, "*", Cut("headers"))
    fal.on("GET", API, ACCOUNT, fal.always(Stall(3600)))
    began = clock.now()
    child = start("submit-t2i", *PROMPT, env=clock.env(LEAP))
    wait_for(lambda: searches(fal) != [], child)
    clock.set(FLY)
    done = finished(child)
    assert (done.status, done.error["type"]) == (4, "connection_lost")
    assert "could not be asked for the job: fal did not answer within 10 s" in done.error["message"]
    assert clock.now() - began < 45


ODD: dict[str, tuple[Reply | Cut, str]] = {
    "401": (Reply(401, json={"error": {"message": "No"}}), "could not be asked"),
    "403": (Reply(403, json={"error": {"message": "No"}}), "could not be asked"),
    "404": (Reply(404, json={"error": {"message": "No"}}), "could not be asked"),
    "429": (Reply(429, json={"error": {"message": "No"}}), "could not be asked"),
    "a page, 502": (nginx(502), "could not be asked"),
    "cut": (Cut("body"), "could not be asked"),
    "no list": (Reply(json={"items": {"a": 1}}), "could not be asked"),
    "text": (Reply(text="Hello"), "could not be asked"),
    "deep": (Reply(content=b"[" * 100_000), "could not be asked"),
    "no rows": (Reply(json={"items": [None, 7, [], {}]}), "until now the account lists no such"),
}


@pytest.mark.parametrize("answer", ODD)
def test_an_account_that_does_not_tell_leaves_the_doubt(
    fal: Sandbox, cli: Cli, clock: Clock, answer: str
) -> None:
    reply, words = ODD[answer]
    fal.on("POST", QUEUE, "*", Cut("headers"))
    fal.on("GET", API, ACCOUNT, fal.always(reply))
    done = cli("subscribe-t2i", *PROMPT, env=clock.env(LEAP))
    assert (done.status, done.error["type"]) == (4, "connection_lost")
    assert (done.error["retryable"], len(paid(fal))) == (False, 1)
    assert words in done.error["message"]
    assert "dashboard/requests" in done.error["hint"]
    assert len(searches(fal)) == (1 if answer in ("401", "403", "404") else 3)
    assert [job["state"] for job in listed(cli)] == ["unknown"]


DEFAULTS = {"num_images": 1, "image_size": None, "enable_safety_checker": True}
FOUND: dict[str, dict[str, Any]] = {
    "as it was sent": {},
    "as a text": {"json_input": '{"prompt": "as a text"}'},
    "with defaults": {"json_input": {"prompt": "with defaults", **DEFAULTS}},
    "no endpoint": {"endpoint_id": None},
    "without a zone": {"sent_at": "2100-01-01 00:00:00"},
}
OTHERS: dict[str, list[dict[str, Any]]] = {
    "no id": [{"request_id": None}],
    "an id that is none": [{"request_id": "a/b"}],
    "other arguments": [{"json_input": {"prompt": "other arguments", "seed": 7}}],
    "less": [{"json_input": {}}],
    "cut off": [{"json_input": '{"prompt": "cut o'}],
    "not stored": [{"json_input": None}],
    "a list": [{"json_input": [{"prompt": "a list"}]}],
    "old": [{"sent_at": "2026-01-01T00:00:00Z"}],
    "no time": [{"sent_at": "today"}],
    "a number for a time": [{"sent_at": 1e300}],
    "another endpoint": [{"endpoint_id": "fal-ai/flux/schnell"}],
    "ours": [{"request_id": "OURS"}],
}


def test_only_what_can_be_nothing_else_is_taken_for_the_job(
    fal: Sandbox, cli: Cli, clock: Clock
) -> None:
    """One batch, all of whose answers are lost; each prompt says what fal lists for it."""
    ours = cli("submit-t2i", *PROMPT).json["request_id"]
    rows = [row(f"found-{n}", prompt) | told for n, (prompt, told) in enumerate(FOUND.items())]
    for n, (prompt, changes) in enumerate(OTHERS.items()):
        for change in changes:
            other = row(f"other-{n}", prompt) | change
            rows.append(other | ({"request_id": ours} if prompt == "ours" else {}))
    rows += [row("several-1", "several"), row("several-2", "several")]
    rows += [row("once-more", "once more"), row("once-more", "once more")]
    list_rows(fal, *rows, None, "odd")
    prompts = [*FOUND, *OTHERS, "several", "once more"]
    fal.on("POST", QUEUE, "*", fal.always(Cut("request")))
    fal.on("GET", QUEUE, "*/status", fal.always(Reply(json={"status": "COMPLETED"})))
    fal.on("GET", QUEUE, "*", fal.always(Reply(json={"images": []})))
    done = cli(*BATCH, *prompts, "--concurrency", "20", env=clock.env(LEAP))
    found = {line["prompt"]: line["request_id"] for line in done.lines if "result" in line}
    expected = {prompt: f"found-{n}" for n, prompt in enumerate(FOUND)}
    assert found == {**expected, "once more": "once-more"}
    errors = {line["prompt"]: line["error"] for line in done.lines if "error" in line}
    assert set(errors) == {*OTHERS, "several"}
    assert {error["type"] for error in errors.values()} == {"connection_lost"}
    several = errors["several"]
    assert "several-1, several-2" in several["message"]
    assert [detail["field"] for detail in several["details"]] == ["request_id"] * 2
    assert len(paid(fal)) == 1 + len(prompts)


def test_the_time_limit_holds(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    list_rows(fal)
    fal.on("POST", QUEUE, "*", fal.always(Cut("headers")))
    for limit, looks, words in (
        ("1", 0, "the time limit left no time"),
        ("6", 2, "until now the account lists no such request since"),
    ):
        fal.requests.clear()
        done = cli("submit-t2i", *PROMPT, "--client-timeout", limit, env=clock.env(LEAP))
        assert (done.status, len(searches(fal))) == (4, looks)
        assert words in done.error["message"]


def test_an_interrupt_ends_the_search(fal: Sandbox, start: Starter, clock: Clock) -> None:
    fal.on("POST", QUEUE, "*", Cut("headers"))
    child = start("subscribe-t2i", *PROMPT, env=clock.env())
    read = read_until(child, "looking for the job on the account")
    child.send_signal(signal.SIGINT)
    done = finished(child, read)
    assert (done.status, searches(fal)) == (130, [])
    assert "may be running" in done.error["message"]


def test_a_direct_call_is_looked_for_by_nobody(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "fal.run", "*", Cut("headers"))
    assert (cli("run-t2i", *PROMPT).status, searches(fal)) == (4, [])


# Twins


def test_a_twin_that_waits_for_its_answer_keeps_its_job(
    fal: Sandbox, start: Starter, clock: Clock
) -> None:
    """The first is lost before fal has it. What the account lists is the second's."""
    list_rows(fal, row("twin", "A cat"))
    urls = {f"{name}_url": f"https://{QUEUE}/fal-ai/flux/requests/twin" for name in ("response",)}
    urls["status_url"] = urls["cancel_url"] = f"{urls['response_url']}/status"
    answer = Reply(json={"request_id": "twin", **urls})
    fal.on("POST", QUEUE, "*", Cut("request"), Hold(lambda: len(searches(fal)) > 1, answer))
    fal.on("GET", QUEUE, "*/status", fal.always(Reply(json={"status": "COMPLETED"})))
    fal.on("GET", QUEUE, "*", fal.always(Reply(json={"images": []})))
    child = start(*BATCH, "A cat", "A cat", env=clock.env())
    read = read_until(child, "looking for the job on the account")
    wait_for(lambda: len(paid(fal)) == 2, child)
    for seconds in (2, 3):
        before = len(searches(fal))
        clock.advance(seconds + 0.01)
        wait_for(lambda seen=before: len(searches(fal)) > seen, child)  # type: ignore[misc]
    read += read_until(child, "request id twin")
    clock.set(LEAP)
    done = finished(child, read)
    ids = sorted((line["request_id"] or "", "error" in line) for line in done.lines)
    assert ids == [("", True), ("twin", False)]


def test_of_lost_twins_one_takes_the_one_job(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    """And of two jobs nobody knows which is whose."""
    fal.on("POST", QUEUE, "*", Cut("request"), Cut("headers"), Cut("headers"), Cut("headers"))
    one = cli(*BATCH, "A cat", "A cat", env=clock.env(LEAP))
    assert sorted("error" in line for line in one.lines) == [False, True]
    two = cli(*BATCH, "A dog", "A dog", env=clock.env(LEAP))
    dogs = [job.request_id for job in fal.jobs.values() if job.arguments["prompt"] == "A dog"]
    assert len(dogs) == 2
    for line in two.lines:
        assert all(dog in line["error"]["message"] for dog in dogs)


# When a batch goes on


@pytest.mark.parametrize("flags", [(), ("--retry-unknown",)])
def test_a_batch_that_goes_on_finds_what_it_has_sent(
    fal: Sandbox, cli: Cli, start: Starter, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    fal.run_seconds = 0
    fal.on("POST", QUEUE, "*", Hold(lambda: False))
    child = start(*BATCH, "A cat", *JOURNAL)
    wait_for(lambda: paid(fal) != [], child)
    child.kill()
    child.wait()
    fal.requests.clear()
    cli("submit-t2i", *PROMPT, env=UNLISTED)  # which fal has taken, as it would have the other
    done = cli(*BATCH, "A cat", *JOURNAL, *flags)
    (request_id,) = fal.jobs
    assert (done.status, done.lines[0]["request_id"]) == (0, request_id)
    assert len(paid(fal)) == 1
    assert [step["state"] for step in steps(tmp_path)] == ["sent", "accepted", "done"]
    assert [(job["request_id"], job["state"]) for job in listed(cli)] == [(request_id, "done")]


def test_what_was_uploaded_is_found_again(
    fal: Sandbox, cli: Cli, tmp_path: Path, photo: Path
) -> None:
    flags = ("--model", CLIP, "--image-urls", "photo.jpg", "--prompt", "Go", *JOURNAL)
    assert cli("batch-i2v", *flags, env=UNLISTED).status == 0
    forget_answers(tmp_path)
    done = cli("batch-i2v", *flags)
    assert (done.status, len(paid(fal)), len(fal.uploads)) == (0, 1, 1)
    sent = steps(tmp_path)[0]
    del sent["uploads"]
    (tmp_path / "journal.jsonl").write_text(json.dumps(sent) + "\n")
    (line,) = cli("batch-i2v", *flags, env=UNLISTED).lines
    assert line["error"]["type"] == "unknown_outcome"
    assert "does not tell where its files were uploaded" in line["error"]["message"]


def test_what_is_not_found_is_as_unknown_as_before(
    fal: Sandbox, cli: Cli, tmp_path: Path, clock: Clock
) -> None:
    cli(*BATCH, "A cat", *JOURNAL, env=UNLISTED)
    forget_answers(tmp_path)
    list_rows(fal)
    done = cli(*BATCH, "A cat", *JOURNAL, env=clock.env(LEAP))
    error = done.lines[0]["error"]
    assert (error["type"], error["retryable"]) == ("unknown_outcome", False)
    assert "the account lists no such request since" in error["message"]
    assert len(paid(fal)) == 1
    assert cli(*BATCH, "A cat", *JOURNAL, "--retry-unknown", env=clock.env(LEAP)).status == 0
    assert len(paid(fal)) == 2


def test_what_may_be_one_of_several_is_not_paid_for_again(
    fal: Sandbox, cli: Cli, tmp_path: Path, clock: Clock
) -> None:
    cli(*BATCH, "A cat", "A cat", *JOURNAL, env=UNLISTED)
    forget_answers(tmp_path)
    argv = (*BATCH, "A cat", "A cat", *JOURNAL, "--retry-unknown")
    done = cli(*argv, env=clock.env(LEAP))
    for line in done.lines:
        assert line["error"]["type"] == "unknown_outcome"
        assert {each["message"] for each in line["error"]["details"]} == set(fal.jobs)
    assert len(paid(fal)) == 2


def test_an_old_doubt_is_looked_for_once(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """From a minute before it was sent, whenever that was."""
    cli(*BATCH, "A cat", *JOURNAL, env=UNLISTED)
    forget_answers(tmp_path)
    (step,) = steps(tmp_path)
    step["at"] = "2026-01-02T03:04:05Z"
    (tmp_path / "journal.jsonl").write_text(json.dumps(step) + "\n")
    list_rows(fal, row("earlier", "A cat", sent_at="2026-01-02T03:03:04Z"))
    assert cli(*BATCH, "A cat", *JOURNAL).status == 1
    (search,) = searches(fal)
    assert search.query["start"] == "2026-01-02T03:03:05Z"


def test_a_job_of_the_journal_is_not_found_again(
    fal: Sandbox, cli: Cli, tmp_path: Path, clock: Clock
) -> None:
    """A list that is changed may leave a job out, and it is a job all the same."""
    cli(*BATCH, "A cat", *JOURNAL, env=UNLISTED)
    fal.on("POST", QUEUE, "*", Cut("request"))
    done = cli(*BATCH, "A cat", "A cat", *JOURNAL, env={**UNLISTED, **clock.env(LEAP)})
    assert sorted("error" in line for line in done.lines) == [False, True]


# Whatever fal lists

ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
SENT: dict[str, Any] = {"prompt": "A cat", "seed": 1, "size": {"width": 512, "height": 512}}
INPUTS = st.sampled_from(
    [
        SENT,
        {**SENT, "seed": 1.0},
        {**SENT, "seed": True},
        {**SENT, "seed": 2},
        {**SENT, "more": None},
        {**SENT, "more": 1},
        {**SENT, "size": {"width": 512}},
        json.dumps(SENT),
        json.dumps(SENT)[:-5],
    ]
)
TIMES = st.sampled_from(["2100-01-01T00:00:00Z", "2100-01-01", "2000-01-01T00:00:00Z", "", "x"])
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "request_id": st.sampled_from(["one", "two", "a/b", ""]) | ODD_VALUES,
        "endpoint_id": st.sampled_from([FLUX, None, "fal-ai/flux/schnell"]) | ODD_VALUES,
        "sent_at": TIMES | ODD_VALUES,
        "started_at": TIMES | ODD_VALUES,
        "json_input": INPUTS | ODD_VALUES,
    },
)
EQUAL = ({**SENT}, {**SENT, "more": None}, json.dumps(SENT))


@settings(max_examples=500, deadline=None)
@given(rows=st.lists(ROWS, max_size=4))
def test_no_shape_of_the_list_leads_to_a_wrong_claim(rows: list[dict[str, Any]]) -> None:
    skill_fal.RUN.begin()
    job = skill_fal.Job(FLUX)
    job.state = skill_fal.JobState.SENT
    job.arguments, job.sent_at = SENT, time.time()
    skill_fal.AccountSearch(job).choose(rows)
    may_be = {
        each["request_id"]
        for each in rows
        if each.get("request_id") in ("one", "two")
        and any(is_equal(each.get("json_input"), equal) for equal in EQUAL)
        and each.get("endpoint_id") in (None, FLUX)
        and str(each.get("sent_at", "")) + str(each.get("started_at", "")) != ""
    }
    assert job.request_id is None or job.request_id in may_be
    assert job.in_doubt == (job.request_id is None)


def is_equal(value: Any, other: Any) -> bool:
    """As JSON, in which 1 is 1.0 and no true."""
    texts = [json.dumps(one, sort_keys=True).replace(": 1.0", ": 1") for one in (value, other)]
    return texts[0] == texts[1]


# What a command that was killed has left unknown in the list of jobs


def leave_unknown(fal: Sandbox, cli: Cli, clock: Clock, *prompts: str) -> None:
    """Have fal take jobs, and nobody hear of it."""
    for prompt in prompts:
        fal.on("POST", QUEUE, "*", Cut("headers"))
        fal.on("GET", API, ACCOUNT, *[Reply(500, json={})] * 3)
        assert cli("submit-t2i", "--model", FLUX, "--prompt", prompt, env=clock.env(LEAP)).status


def test_the_list_learns_of_what_is_unknown(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    leave_unknown(fal, cli, clock, "A cat", "A dog")
    assert [job["state"] for job in listed(cli)] == ["unknown", "unknown"]
    done = cli("list-jobs", "--json", "--live")
    told = {job["about"]: job["request_id"] for job in done.json}
    assert told == {job.arguments["prompt"]: job.request_id for job in fal.jobs.values()}
    assert {job["state"] for job in done.json} == {"submitted"}


def test_the_list_guesses_nothing(fal: Sandbox, cli: Cli, clock: Clock) -> None:
    """Neither of twins, nor of requests that others sent, or the list has already."""
    leave_unknown(fal, cli, clock, "A cat", "A cat", "A dog")
    list_rows(
        fal,
        row("of-another-time", "A dog", age=3600),
        row("of-another-prompt", "A bird"),
        row("of-a-twin", "A cat"),
        row("without/an-id", "A dog"),
        row("of-no-time", "A dog", sent_at=None),
    )
    done = cli("list-jobs", "--json", "--live")
    assert [job["request_id"] for job in done.json] == [None] * 3
    assert len(paid(fal)) == 3
