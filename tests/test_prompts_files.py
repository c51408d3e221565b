"""--prompts-file and --image-urls-file: the jobs of a batch, a line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli
from sandbox import Sandbox

FLUX = "fal-ai/flux/dev"

PROMPTS = 'A cat\n\n{"prompt": "A dog", "seed": 7, "width": 512, "height": 256}\r\n'


def test_prompts_from_a_file(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    extra = json.dumps({"prompt": "An owl", "extra": {"sync_mode": False, "seed": 9}})
    (tmp_path / "prompts.txt").write_text(PROMPTS + extra)
    shared = ("--seed", "5", "--extra-json", '{"enable_safety_checker": true}')
    done = cli("batch-t2i", "--model", FLUX, "--prompts-file", "prompts.txt", *shared)
    assert done.status == 0
    assert {line["index"]: line["prompt"] for line in done.lines} == {
        0: "A cat",
        1: "A dog",
        2: "An owl",
    }
    arguments = {job.arguments["prompt"]: job.arguments for job in fal.jobs.values()}
    assert arguments == {
        "A cat": {"prompt": "A cat", "seed": 5, "enable_safety_checker": True},
        "A dog": {
            "prompt": "A dog",
            "seed": 7,
            "image_size": {"width": 512, "height": 256},
            "enable_safety_checker": True,
        },
        "An owl": {
            "prompt": "An owl",
            "seed": 9,
            "enable_safety_checker": True,
            "sync_mode": False,
        },
    }


def test_prompts_from_stdin(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-t2i", "--model", FLUX, "--prompts-file", "-", stdin="A cat\nA dog\n")
    assert {line["prompt"] for line in done.lines} == {"A cat", "A dog"}


def test_images_from_a_file(fal: Sandbox, cli: Cli, tmp_path: Path, photo: Path) -> None:
    model = "fal-ai/kling-video/v3/pro/image-to-video"
    row = {"image_url": ["photo.jpg", "https://example.com/end.png"], "duration": 10}
    (tmp_path / "images.txt").write_text(f"photo.jpg\n{json.dumps(row)}\n")
    argv = ("--model", model, "--image-urls-file", "images.txt", "--prompt", "Rain")
    done = cli("batch-i2v", *argv)
    assert done.status == 0
    one, two = sorted(fal.jobs.values(), key=lambda job: len(job.arguments))
    assert one.arguments["start_image_url"] == two.arguments["start_image_url"]
    assert two.arguments["end_image_url"] == "https://example.com/end.png"
    assert (two.arguments["duration"], one.arguments["prompt"]) == ("10", "Rain")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "prompts.txt holds no jobs"),
        ("A cat\n{broken", "prompts.txt, line 2: not valid JSON"),
        ('{"seed": 7}', "prompts.txt, line 1: prompt is missing"),
        ('{"prompt": "A cat", "sed": 7}', "prompts.txt, line 1: no such argument: sed"),
        ('{"prompt": "A cat", "seed": "x"}', "prompts.txt, line 1: argument --seed"),
        ('{"prompt": "A cat", "extra": 7}', "prompts.txt, line 1: argument --extra-json"),
        ('{"prompt": "-"}', "prompts.txt, line 1: prompt: - does not stand for stdin"),
        ('{"prompt": " "}', "prompts.txt, line 1: argument --prompt: the text is empty"),
        ('{"prompt": null}', "prompts.txt, line 1: prompt: not a value: null"),
        ('{"prompt": ["A cat"]}', "prompts.txt, line 1: prompt: not a value"),
        ('A cat\n["A cat", "A dog"]', "prompts.txt, line 2: must be a JSON object"),
        ('[\n"A cat",\n"A dog",\n]', "prompts.txt: not valid JSON"),
    ],
)
def test_a_file_of_prompts_that_is_wrong(
    fal: Sandbox, cli: Cli, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "prompts.txt").write_text(text)
    done = cli("batch-t2i", "--model", FLUX, "--prompts-file", "prompts.txt")
    assert (done.status, fal.requests) == (2, [])
    assert said in done.error["message"]
