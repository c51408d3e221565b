"""What messages and hints tell somebody who does what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import Cli, Refusal, Starter, finished, paid
from sandbox import Reply, Sandbox

FLUX = "fal-ai/flux/dev"
MINIMAX = "fal-ai/minimax-video/image-to-video"
QUEUE = "queue.fal.run"
STATUS = "*/status"
RESULT = "*/requests/*-????????????"  # and not its status
A = "https://example.com/a.png"


# Hints around no refusal


def test_no_hint_leads_around_a_refusal(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "id_dummy.png").write_text("-----BEGIN EXAMPLE KEY-----\n")
    argv = ("submit-i2v", "--model", MINIMAX, "--no-schema", "--image-url")
    for words in (("id_dummy.png",), (A, "--extra-json", '{"mask_url": "id_dummy.png"}')):
        done = cli(*argv, *words)
        assert (done.status, paid(fal), fal.uploads) == (2, [], [])
        assert "id_dummy.png" in done.error["message"]
        assert not re.search("upload-|encode-|-raw|-file", done.error["hint"])


def test_a_clip_in_the_place_of_a_picture_has_its_own_way(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    error = refusal("submit-i2v", "--model", MINIMAX, "--image-url", "clip.mp4")
    assert "not a picture, but video/mp4: clip.mp4" in error["message"]
    assert "--arg NAME=FILE" in error["hint"]


# Models and searches


def test_did_you_mean_a_model_of_the_same_kind(fal: Sandbox, cli: Cli) -> None:
    def hint(*argv: str) -> str:
        return str(cli(*argv, "--dry-run").json["notes"][0])

    unknown = "fal-ai/flux/devv"
    assert f"Did you mean {FLUX}" in hint("submit-t2i", "--model", unknown, "--prompt", "A cat")
    assert "Did you mean" not in hint("submit-i2v", "--model", unknown, "--image-url", A)
    clip = "fal-ai/kling-video/v2.1/master/text-to-vide"
    meant = hint("submit-t2i", "--model", clip, "--prompt", "A cat")
    assert re.search("Did you mean .*text-to-video", meant)
    assert "image-to-video" not in meant


@pytest.mark.parametrize(
    ("flags", "said", "not_said"),
    [
        (
            ("--category", "image-to-video", "--search", "klng"),
            "no model of the category image-to-video matches 'klng': ",
            "--categories",
        ),
        (("--search", "klng"), "no model matches 'klng': ", "categor"),
        (("--category", "image-to-vido"), "'image-to-vido'. Did you mean image-to-video", "word"),
        (("--category", "image-to-vido", "--search", "kling"), "'image-to-vido'. Did you", "word"),
        (("--category", "pottery"), "'pottery'. --categories alone shows", "word"),
    ],
)
def test_what_no_model_matches(cli: Cli, flags: tuple[str, ...], said: str, not_said: str) -> None:
    done = cli("list-models", *flags)
    assert (done.status, done.stdout) == (0, "")
    assert said in done.notes
    assert not_said not in done.notes


def test_few_models_stream(cli: Cli) -> None:
    picture = ("--image-url", "https://example.com/a.png")
    done = cli("stream-i2v", "--model", "fal-ai/kling-video/v3/pro/image-to-video", *picture)
    assert done.error["hint"].startswith("Few models stream")
    done = cli("subscribe-t2i", "--model", "fal-ai/flux/dve", "--prompt", "A cat")
    assert done.error["message"] == "Path /dve not found"
    assert "stream" not in done.error["hint"]


# What is sent


def test_rounds_with_one_seed_are_alike(cli: Cli) -> None:
    argv = ("realtime", "--model", FLUX, "--prompt", "A cat", "--rounds", "2")
    assert "alike" in cli(*argv, "--seed", "7").notes
    assert cli(*argv).notes == ""


def test_what_stands_around_a_prompt_is_left_out_with_a_word(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    prompt = tmp_path / "prompt.txt"
    argv = ("submit-t2i", "--model", FLUX, "--prompt-file", "prompt.txt")
    for text, notes in {
        "A cat": "",
        "A cat\n": "",
        "A\n\ncat\r\n": "",
        "\n  A cat\n\n": "note: prompt.txt: blanks and line ends around the prompt are left out\n",
    }.items():
        prompt.write_bytes(text.encode())
        assert cli(*argv).notes == notes
    prompts = [job.arguments["prompt"] for job in fal.jobs.values()]
    assert prompts == ["A cat", "A cat", "A\n\ncat", "A cat"]


def test_a_dry_run_tells_what_is_uploaded(fal: Sandbox, cli: Cli, photo: Path) -> None:
    def notes(*words: str) -> str:
        done = cli("submit-i2v", "--model", MINIMAX, "--prompt", "Rain", *words, "--dry-run")
        return " ".join(done.json["notes"])

    assert "photo.jpg is uploaded" in notes("--image-url", "photo.jpg")
    assert "photo.jpg is uploaded" in notes("--arg", "image_url=photo.jpg")
    assert "uploaded" not in notes("--image-url", A)
    assert fal.uploads == []


@pytest.mark.parametrize(
    "flags", [("--num-images", "10"), ("--arg", "num_images=10")], ids=" ".join
)
def test_more_images_than_a_job_makes(fal: Sandbox, cli: Cli, flags: tuple[str, ...]) -> None:
    done = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat", *flags)
    assert (done.status, done.error["message"]) == (2, "num_images: 10 is above 4")
    words = re.search(
        r"(batch-t2i) with .* (\d+) times after (--prompts), (--num-images) (\d+)",
        done.error["hint"],
    )
    assert words
    command, times, many, count_flag, count = words.groups()
    prompts = ["A cat"] * int(times)
    made = cli(command, "--model", FLUX, many, *prompts, count_flag, count)
    assert sum(len(line["result"]["images"]) for line in made.lines) == 10


def test_what_a_batch_cannot_mend_has_another_hint(cli: Cli) -> None:
    argv = ("submit-t2i", "--model", FLUX, "--prompt", "A cat")
    for flags in (("--num-images", "10", "--arg", "x=1"), ("--num-images", "1000003")):
        assert "list-models --schema" in cli(*argv, *flags).error["hint"]


# Jobs


def test_a_cancellation_may_come_too_late(fal: Sandbox, cli: Cli) -> None:
    def next_command(text: str, name: str) -> list[str]:
        """The words of the command that a message ends with."""
        words = shlex.split(text.strip())
        return words[words.index(name) :]

    job = ("--model", FLUX, "--request-id")
    submitted = cli("submit-t2i", "--model", FLUX, "--prompt", "[slow] A cat")
    done = cli("cancel", *job, submitted.json["request_id"])
    status = cli(*next_command(done.stderr, "status"))
    assert status.json["status"] == "COMPLETED"
    over = cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat")
    assert over.status == 0
    late = cli("cancel", *job, list(fal.jobs)[-1])
    assert late.error["type"] == "already_completed"
    assert cli(*next_command(late.error["hint"], "result")).json == over.json


def test_each_failed_job_of_a_batch_has_its_way_on(fal: Sandbox, cli: Cli) -> None:
    """No flag is told that does nothing for any of them."""
    failed = Reply(200, json={"status": "COMPLETED", "error": "Invalid status code: 500"})
    argv = ("batch-t2i", "--model", FLUX, "--journal", "journal.jsonl", "--concurrency", "1")
    refused = cli(*argv, "--prompts", "[nsfw] A cat", "A dog")
    assert refused.error["hint"] == "Change job 0 first: the same fails again."
    fal.on("GET", QUEUE, STATUS, failed)
    fal.on("GET", QUEUE, RESULT, Reply(500, json={"detail": "Oh no"}))
    prompts = ("--prompts", "A fish", "[nsfw] A bird", "A dog")
    both = cli(*argv, *prompts)
    assert both.error["hint"] == (
        "--retry-failed submits job 0 again, for money. Change job 1 first: the same fails again."
    )
    jobs = len(paid(fal))
    assert [
        line["index"] for line in cli(*argv, *prompts, "--retry-failed").lines if "result" in line
    ]
    assert len(paid(fal)) > jobs
    fal.on("POST", QUEUE, "*", Reply(422, json={"detail": "No"}), Reply(401, json={"detail": "No"}))
    mixed = cli(*argv, "--prompts", "A cow", "A hen")
    assert "Change job 0 first" in mixed.error["hint"]
    assert "Repeating the command goes on with job 1" in mixed.error["hint"]


def test_the_media_of_a_batch_come_with_their_jobs(fal: Sandbox, start: Starter) -> None:
    """What is saved by several jobs under one name is told apart by stderr, with each MEDIA line
    after the one that explains it.
    """
    argv = ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog", "--num-images", "2")
    done = finished(start(*argv, "--media"))
    told = re.findall(r"^\[(\d)\] saved (.*)$", done.stderr, re.MULTILINE)
    paths = [line.removeprefix("MEDIA:") for line in done.stdout.splitlines()]
    assert [path for _, path in told] == paths
    assert sorted(index for index, _ in told) == ["0", "0", "1", "1"]
    assert told[0][0] == told[1][0]
