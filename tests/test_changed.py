"""What a journal believes of the jobs that it knows: changed pictures, forgotten jobs, old ids."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    LEAP,
    Cli,
    Clock,
    Outcome,
    Starter,
    finished,
    is_look_up,
    never_listed,
    paid,
    wait_for,
)
from PIL import Image
from sandbox import Cut, Hold, Reply, Sandbox, nginx

FLUX = "fal-ai/flux/schnell"
KLING = "fal-ai/kling-video/v2/master/image-to-video"
QUEUE = "queue.fal.run"
STATUS = "*/status"
RESULT = "*/requests/*-????????????"  # and not its status
JOURNAL = ("--model", FLUX, "--journal", "journal.jsonl")
CAT = ("batch-t2i", *JOURNAL, "--prompts", "A cat")


def steps(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# Pictures that change


def picture(path: Path, color: str) -> Path:
    Image.new("RGB", (32, 32), color).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three of the same size in bytes."""
    names = ("red", "green", "blue")
    return [picture(tmp_path / f"{name}.bmp", name) for name in names]


def write_over(path: Path, other: Path) -> None:
    """With the same size and times as before."""
    before = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, other: Path) -> None:
    copy = path.with_suffix(".new")
    copy.write_bytes(other.read_bytes())
    copy.rename(path)


def link_elsewhere(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def append(path: Path, other: Path) -> None:
    with path.open("ab") as file:
        file.write(other.read_bytes()[:1])


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "written over": write_over,
    "replaced": replace,
    "a link": link_elsewhere,
    "longer": append,
}
I2V = ("batch-i2v", "--model", KLING, "--journal", "journal.jsonl", "--prompt", "Go")


def outcome_when_changed_late(
    fal: Sandbox, start: Starter, argv: tuple[str, ...], change: Callable[[], None]
) -> Outcome:
    """What becomes of a batch whose picture changes while the model is looked up."""
    changed = threading.Event()
    fal.on("GET", "api.fal.ai", "/v1/models", Hold(changed.is_set))
    child = start(*argv)
    wait_for(lambda: any(map(is_look_up, list(fal.requests))), child)
    change()
    changed.set()
    return finished(child)


def by_picture(done: Outcome) -> dict[str, Any]:
    return {line["image_url"]: line for line in done.lines}


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_that_changes_after_it_was_named_is_not_sent(
    fal: Sandbox, cli: Cli, start: Starter, tmp_path: Path, pictures: list[Path], change: str
) -> None:
    red, green, blue = pictures
    argv = (*I2V, "--image-urls", red.name, green.name)
    done = outcome_when_changed_late(fal, start, argv, lambda: CHANGES[change](red, blue))
    lines = by_picture(done)
    error = lines[red.name]["error"]
    assert (done.status, error["type"], "result" in lines[green.name]) == (1, "usage_error", True)
    assert "changed" in error["message"]
    assert [file.content for file in fal.uploads] == [green.read_bytes()]
    assert len(paid(fal)) == 1
    assert sum(step["state"] == "done" for step in steps(tmp_path)) == 1
    again = cli(*argv)
    assert (again.status, len(paid(fal))) == (0, 2)
    assert fal.uploads[-1].content == red.read_bytes()


def test_a_picture_that_changes_while_another_job_runs_is_not_sent(
    fal: Sandbox, start: Starter, tmp_path: Path, pictures: list[Path]
) -> None:
    changed = threading.Event()
    fal.on("POST", QUEUE, "*", Hold(changed.is_set))
    red, green, blue = pictures
    argv = (*I2V, "--concurrency", "1", "--image-urls", green.name, red.name)
    child = start(*argv)
    wait_for(lambda: len(paid(fal)) == 1, child)
    replace(red, blue)
    changed.set()
    done = finished(child)
    lines = by_picture(done)
    assert (done.status, lines[red.name]["error"]["type"]) == (1, "usage_error")
    assert ("result" in lines[green.name], len(paid(fal))) == (True, 1)
    assert [file.content for file in fal.uploads] == [green.read_bytes()]
    assert [step["state"] for step in steps(tmp_path)].count("done") == 1


def test_a_picture_of_an_extra_argument_that_changes_is_not_sent(
    fal: Sandbox, start: Starter, tmp_path: Path, pictures: list[Path]
) -> None:
    """It is a picture of all jobs, none of which is sent then."""
    red, green, blue = pictures
    extra = json.dumps({"tail_image_url": red.name})
    argv = (*I2V, "--extra-json", extra, "--image-urls", green.name)
    done = outcome_when_changed_late(fal, start, argv, lambda: replace(red, blue))
    (line,) = done.lines
    assert (done.status, line["error"]["type"], paid(fal)) == (1, "usage_error", [])
    assert "changed" in line["error"]["message"]
    assert blue.read_bytes() not in [file.content for file in fal.uploads]
    assert "done" not in [step["state"] for step in steps(tmp_path)]


# Jobs that fal has forgotten


def take_back(folder: Path, state: str) -> None:
    """Let the journal of one job end with the step, as that of an earlier run might."""
    sent, accepted = steps(folder)[:2]
    known = [sent, accepted]
    if state == "cancelled":
        known.append({"job": sent["job"], "state": state, "at": sent["at"]})
    text = "".join(json.dumps(step) + "\n" for step in known)
    (folder / "journal.jsonl").write_text(text)


NOT_FALS: dict[str, Reply] = {
    "a page": nginx(404),
    "a page of words": Reply(404, text="NOT_FOUND"),
    "nothing": Reply(404, content=b""),
    "a detail": Reply(404, json={"detail": "Not Found"}),
    "an application": Reply(404, json={"detail": "Application 'flux' not found"}),
    "another status": Reply(404, json={"status": "not found"}),
    "a status inside": Reply(404, json={"detail": {"status": "NOT_FOUND"}}),
    "a list": Reply(404, json=[{"status": "NOT_FOUND"}]),
    "a text": Reply(404, json="NOT_FOUND"),
    "gone": Reply(410, json={"status": "NOT_FOUND"}),
    "gone, a page": nginx(410),
}
PLACES = {"status": STATUS, "result": RESULT}
FALS_OWN = Reply(404, json={"status": "NOT_FOUND"})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", NOT_FALS)
def test_only_fal_says_that_a_cancelled_job_is_gone(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path, case: str, place: str
) -> None:
    assert cli(*CAT).status == 0
    take_back(tmp_path, "cancelled")
    fal.on("GET", QUEUE, PLACES[place], fal.always(NOT_FALS[case]))
    done = cli(*CAT, env=clock.env(LEAP))
    (line,) = done.lines
    assert (done.status, "error" in line, len(paid(fal))) == (1, True, 1)
    assert (line["request_id"] in fal.jobs, steps(tmp_path)[-1]["state"]) == (True, "cancelled")


@pytest.mark.parametrize("case", ["a page", "a detail", "a status inside"])
def test_what_is_not_found_is_not_a_job_that_failed(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path, case: str
) -> None:
    assert cli(*CAT).status == 0
    take_back(tmp_path, "accepted")
    fal.on("GET", QUEUE, STATUS, fal.always(NOT_FALS[case]))
    done = cli(*CAT, "--retry-failed", env=clock.env(LEAP))
    assert (done.status, "error" in done.lines[0], len(paid(fal))) == (1, True, 1)


@pytest.mark.parametrize("end", ["/status", ""], ids=["status", "result"])
def test_what_fal_has_forgotten_is_submitted_anew(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path, end: str
) -> None:
    assert cli(*CAT).status == 0
    take_back(tmp_path, "cancelled")
    forgotten = steps(tmp_path)[-2]["request_id"]
    fal.on("GET", QUEUE, f"*/requests/{forgotten}{end}", fal.always(FALS_OWN))
    assert (cli(*CAT, env=clock.env(LEAP)).status, len(paid(fal))) == (0, 2)


# Jobs that ran on and failed though they were cancelled

FAILED = Reply(json={"status": "COMPLETED", "logs": None, "metrics": {}, "error": "It failed"})
NO_WORD_OF_FALS: dict[str, Cut | Reply] = {
    "cut": Cut("request"),
    "half an answer": Cut("body"),
    "a page, 503": nginx(503),
    "a page, 404": nginx(404),
    "a page, 410": nginx(410),
}


@pytest.mark.parametrize("flags", [(), ("--retry-failed",)], ids=["plain", "retry"])
@pytest.mark.parametrize("case", NO_WORD_OF_FALS)
def test_only_fal_says_that_a_cancelled_job_has_failed(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path, case: str, flags: tuple[str, ...]
) -> None:
    """Its status says so, but there may be a response all the same."""
    assert cli(*CAT).status == 0
    take_back(tmp_path, "cancelled")
    fal.on("GET", QUEUE, STATUS, FAILED)
    fal.on("GET", QUEUE, RESULT, fal.always(NO_WORD_OF_FALS[case]))
    done = cli(*CAT, *flags, env=clock.env(LEAP))
    (line,) = done.lines
    assert (done.status, "error" in line, len(paid(fal))) == (1, True, 1)
    assert line["request_id"] in fal.jobs


@pytest.mark.parametrize("flags", [(), ("--retry-failed",)], ids=["plain", "retry"])
@pytest.mark.parametrize("text", ["It is done", "https://v3.fal.media/files/b/a.png"], ids=str)
def test_a_text_is_the_result_of_a_job_whatever_its_status_says(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path, text: str, flags: tuple[str, ...]
) -> None:
    assert cli(*CAT).status == 0
    take_back(tmp_path, "cancelled")
    fal.on("GET", QUEUE, STATUS, FAILED)
    fal.on("GET", QUEUE, RESULT, fal.always(Reply(text=text)))
    for _ in range(2):
        done = cli(*CAT, *flags, env=clock.env(LEAP))
        assert (done.status, done.lines[0]["result"], len(paid(fal))) == (0, text, 1)


@pytest.mark.parametrize("status", [422, 500])
def test_a_cancelled_job_that_failed_is_repeated_on_request_alone(
    fal: Sandbox, cli: Cli, tmp_path: Path, status: int
) -> None:
    """Nothing but its own mistake is what became of it."""
    assert cli(*CAT).status == 0
    take_back(tmp_path, "cancelled")
    fal.on("GET", QUEUE, STATUS, fal.always(FAILED))
    mistake = Reply(status, json={"detail": "The model stumbled"})
    fal.on("GET", QUEUE, RESULT, fal.always(mistake))
    assert (cli(*CAT).status, len(paid(fal))) == (1, 1)
    assert (cli(*CAT, "--retry-failed").status, len(paid(fal))) == (1, 2)


# Attempts before the last


def assert_in_doubt_without_an_id(fal: Sandbox, done: Outcome) -> None:
    (line,) = done.lines
    error = line["error"]
    assert (error["type"], line["request_id"]) == ("unknown_outcome", None)
    assert error.get("request_id") is None
    assert not [one for one in fal.jobs if one in done.stdout + done.stderr]


def test_a_doubt_has_no_id_of_the_attempt_that_failed(fal: Sandbox, cli: Cli) -> None:
    never_listed(fal)
    argv = ("batch-t2i", *JOURNAL, "--prompts", "[nsfw]")
    assert cli(*argv).lines[0]["request_id"] in fal.jobs
    fal.on("POST", QUEUE, "*", Cut("request"))
    cli(*argv, "--retry-failed")
    assert_in_doubt_without_an_id(fal, cli(*argv))
    assert_in_doubt_without_an_id(fal, cli(*argv, "--retry-failed"))
    assert len(paid(fal)) == 2


def test_a_doubt_has_no_id_of_the_attempt_that_was_cancelled(
    fal: Sandbox, cli: Cli, clock: Clock, tmp_path: Path
) -> None:
    cli(*CAT)
    take_back(tmp_path, "cancelled")
    fal.on("GET", QUEUE, STATUS, fal.always(FALS_OWN))
    never_listed(fal)
    fal.on("POST", QUEUE, "*", Cut("headers"))
    cli(*CAT, env=clock.env(LEAP))
    known = set(fal.jobs)
    done = cli(*CAT)
    (line,) = done.lines
    assert (line["error"]["type"], line["request_id"]) == ("unknown_outcome", None)
    assert not [one for one in known if one in done.stdout + done.stderr]


def test_a_doubt_has_no_facts_of_a_journal_that_was_written_before(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    """A result and files of an attempt that was done are none of the one in doubt."""
    never_listed(fal)
    cli(*CAT)
    sent = steps(tmp_path)[0]
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(json.dumps(sent) + "\n")
    done = cli(*CAT)
    assert_in_doubt_without_an_id(fal, done)
    assert ("result" in done.lines[0], len(paid(fal))) == (False, 1)
