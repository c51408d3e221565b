"""Results that are not what they seem: flagged pictures, no file, errors, another medium."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from conftest import Cli
from sandbox import Reply, Sandbox

import skill_fal

FLUX = "fal-ai/flux/dev"
QUEUE = "queue.fal.run"
RESULT = "*/requests/*-????????????"  # and not its status
TO_VIDEO = "comfy/somebody/text-to-video"
LINK = "https://v3.fal.media/files/b/"
NOTE = "note: [{}] "


def png(mark: str) -> dict[str, str]:
    """A file of its own in a response, which needs no server."""
    content = base64.b64encode(b"\x89PNG\r\n\x1a\n" + mark.encode()).decode()
    return {"url": f"data:image/png;base64,{content}", "content_type": "image/png"}


A, B, C = png("a"), png("b"), png("c")


def notes_on(
    fal: Sandbox, cli: Cli, responses: Sequence[Any], *flags: str, model: str = FLUX
) -> list[list[str]]:
    """What is noted on each of these responses, as those of a batch in turn."""
    fal.on("GET", QUEUE, RESULT, *(Reply(json=response) for response in responses))
    prompts = [f"A cat {number}" for number in range(len(responses))]
    argv = ("--model", model, "--no-schema", "--concurrency", "1", "--prompts", *prompts)
    done = cli("batch-t2i", *argv, *flags)
    assert done.status == 0, done.stderr
    told = done.stderr.splitlines()
    return [
        [line.removeprefix(start) for line in told if line.startswith(start)]
        for start in map(NOTE.format, range(len(responses)))
    ]


# Flags of content checkers

FLAGGED: dict[str, tuple[Mapping[str, Any], str]] = {
    "a list": ({"images": [A, B], "has_nsfw_concepts": [False, True]}, "images.1: it"),
    "a list, all": ({"images": [A, B], "nsfw": [True, True]}, "images.0, images.1: they"),
    "one of all": ({"images": [A, B], "safety_flagged": True}, "images.0, images.1: they"),
    "one picture": ({"image": A, "nsfw_content_detected": True}, "image: it"),
    "a list of one": ({"image": A, "has_nsfw_content": [True]}, "image: it"),
    "in the file": ({"images": [A, {**B, "is_nsfw": True}, C]}, "images.1: it"),
    "beneath the file": ({"images": [A, {**B, "safety": {"unsafe": True}}]}, "images.1: it"),
    "beside the files": (
        {"images": [A, B], "moderation": {"flagged": True, "score": 0.9}},
        "images.0, images.1: they",
    ),
    "a list of objects": (
        {"images": [A, B, C], "checks": [{"isNsfw": False}, {"isNsfw": True}, {"isNsfw": True}]},
        "images.1, images.2: they",
    ),
    "in camel case": ({"image": A, "contentFiltered": True}, "image: it"),
    "deeper": ({"data": {"images": [A, B], "nudity_detected": [True, False]}}, "data.images.0: it"),
    "a clip": ({"video": {"url": f"{LINK}a.mp4"}, "policy_violation": True}, "video: it"),
    "nothing beside it": ({"images": [], "has_nsfw_concepts": [True]}, "the result: has_nsfw"),
    "one twice": ({"image": A, "images": [A, B], "nsfw": [True, False]}, "images.0: it"),
}


def test_flagged_pictures_are_named(fal: Sandbox, cli: Cli) -> None:
    notes = notes_on(fal, cli, [response for response, _ in FLAGGED.values()])
    for name, (_, said), lines in zip(FLAGGED, FLAGGED.values(), notes, strict=True):
        assert len(lines) == 1, name
        assert lines[0].startswith(f"fal's content checker flagged {said}"), name


NOT_FLAGGED: tuple[Mapping[str, Any], ...] = (
    {"images": [A], "has_nsfw_concepts": [False]},
    {"images": [A], "enable_safety_checker": True, "safety_tolerance": True},
    {"images": [A], "safety_checker": True, "nsfw_filter": True, "allow_nsfw": True},
    {"images": [A], "nsfw_check_passed": True, "moderation_enabled": True, "nsfw_free": True},
    {
        "images": [A],
        "has_nsfw_concepts": None,
        "nsfw": "no",
        "flagged": 0,
        "is_case_sensitive": True,
    },
    {"images": [A], "safe": True, "seed": True, "transparent": True, "nsfw_score": 0.9},
)


def test_settings_and_what_is_well_are_no_flags(fal: Sandbox, cli: Cli) -> None:
    assert notes_on(fal, cli, NOT_FLAGGED) == [[]] * len(NOT_FLAGGED)


def test_a_setting_that_comes_back_is_no_flag(fal: Sandbox, cli: Cli) -> None:
    responses = [{"images": [A], "moderation": True}, {"images": [A], "censored": True}]
    notes = notes_on(fal, cli, responses, "--extra-json", '{"moderation": true}')
    assert [len(lines) for lines in notes] == [0, 1]


def test_the_rows_of_flagged_files_say_so(fal: Sandbox, cli: Cli) -> None:
    """And the answer itself stays as the model gave it."""
    response = {"images": [A, B, C], "has_nsfw_concepts": [False, True, False]}
    for argv, host, path in (
        (("subscribe-t2i",), QUEUE, RESULT),
        (("run-t2i", "--metadata"), "fal.run", "*"),
    ):
        method = "GET" if host == QUEUE else "POST"
        fal.on(method, host, path, Reply(json=response))
        done = cli(*argv, "--model", FLUX, "--prompt", "A cat", "--output", "out/")
        assert done.notes.endswith(
            "note: fal's content checker flagged images.1: it may be black\n"
        )
        rows = done.json.pop("downloaded_files")
        assert [row.get("flagged") for row in rows] == [None, True, None]
        assert done.json == {**response, "downloaded_files": rows}


# No file, and errors

ERRORS: dict[str, tuple[Any, str]] = {
    "error": ({"error": "No face was found"}, "error: No face was found"),
    "errors": ({"errors": ["Too dark", "", "Too small"]}, "errors.0: Too dark; errors.2: Too"),
    "error_message": ({"error_message": "Out of memory"}, "error_message: Out of memory"),
    "an object": ({"error": {"code": 7, "text": "Lost"}}, "error.text: Lost"),
    "camel case": ({"errorMessage": "Lost"}, "errorMessage: Lost"),
    "of a part": ({"render_error": "Lost"}, "render_error: Lost"),
    "deep": ({"steps": [{"ok": True}, {"failure_reason": "Lost"}]}, "steps.1.failure_reason: Lost"),
}
NO_ERRORS: tuple[Any, ...] = (
    {"error": None, "errors": [], "error_message": ""},
    {"error": "none", "error_rate": 0.1, "mean_error": 3},
    {"errors": {}, "error_correction": "high", "terror": "A film"},
    {"error": False, "description": "error"},
)


def test_an_error_in_a_result_is_shown(fal: Sandbox, cli: Cli) -> None:
    responses = [{"images": [A], **response} for response, _ in ERRORS.values()]
    responses += [{"images": [A], **response} for response in NO_ERRORS]
    notes = notes_on(fal, cli, responses)
    for (name, (_, said)), lines in zip(ERRORS.items(), notes, strict=False):
        assert len(lines) == 1, name
        start = "the job is done, but its response tells of an error: "
        assert lines[0].startswith(start + said), name
    assert notes[len(ERRORS) :] == [[]] * len(NO_ERRORS)


NO_FILE = "the response holds no file to save"


@pytest.mark.parametrize("flags", [("--output", "out/"), ("--media",)])
def test_a_result_without_a_file_is_noted(fal: Sandbox, cli: Cli, flags: tuple[str, ...]) -> None:
    responses = [{}, {"images": []}, {"text": "A cat"}, {"images": [A]}]
    notes = notes_on(fal, cli, responses, *flags)
    assert notes == [[NO_FILE]] * 3 + [[]]


def test_without_a_place_for_files_none_is_missed(fal: Sandbox, cli: Cli) -> None:
    assert notes_on(fal, cli, [{}, {"images": []}]) == [[], []]


def test_streams_results_and_rounds_are_looked_at(fal: Sandbox, cli: Cli) -> None:
    said = "note: fal's content checker flagged images.0: it may be black"
    response = {"images": [A], "nsfw": True, "error": "Odd"}
    fal.on(
        "POST",
        "fal.run",
        "*",
        Reply(
            text='data: {"images": [{"url": "data:image/png;base64,AAAA"}], "nsfw": true}\n\n',
            headers={"content-type": "text/event-stream"},
        ),
    )
    assert said in cli("stream-t2i", "--model", FLUX, "--prompt", "A cat").stderr
    request_id = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat").json["request_id"]
    fal.on("GET", QUEUE, RESULT, fal.always(Reply(json=response)))
    argv = ("result", "--model", FLUX, "--request-id", request_id)
    done = cli(*argv)
    assert said in done.stderr.splitlines()
    assert "tells of an error: error: Odd" in done.stderr
    assert done.json == response
    assert "note" not in cli(*argv, "--quiet").stderr


# A clip that was asked for, and did not come

NO_VIDEO: tuple[Any, ...] = (
    {},
    {"video": None},
    {"images": [A]},
    {"video": {"url": f"{LINK}a.png", "content_type": "image/png"}},
    {"audio": {"url": f"{LINK}a"}},
    {"output": {"url": f"{LINK}sound.mp3"}},
    {"thumbnail_url": f"{LINK}a"},
    {"output": {"url": f"{LINK}a", "content_type": "model/gltf-binary"}},
)
PERHAPS_VIDEO: tuple[Any, ...] = (
    {"video": {"url": f"{LINK}a.mp4"}},
    {"url": f"{LINK}a"},
    {"result": {"url": "https://example.com/clip"}},
    {"status_url": "https://example.com/x"},
    {"output": {"url": f"{LINK}a", "content_type": "video/webm"}},
    {"output": {"url": f"{LINK}a.webm", "content_type": "application/octet-stream"}},
    {"clips": [{"url": f"{LINK}a"}], "thumbnail": A},
    {"output": {"url": f"{LINK}a.gif", "content_type": "image/gif"}},
    {"files": {"url": f"{LINK}all.zip", "content_type": "application/zip"}},
    {"data": "A" * 2000},
    {"video": {"url": "data:video/mp4;base64,AAAA"}},
    {"output": "gs://bucket/clip"},
)
VIDEO_ENDPOINTS = (
    *("a/image-to-video", "a/video-to-video/fast", "a/b/reference-to-video", "a/wan-i2v-lora"),
    *("a/grok/text-to-video", "a/x/audio-to-video", "a/o1/video-to-video/edit"),
)
IMAGE_ENDPOINTS = ("a/text-to-image", "a/image-to-image", "a/nano/edit", "a/sdxl/text-to-image/v2")
OTHERS = (
    *("fal-ai/flux/dev", "a/text-to-speech", "a/video-to-audio", "a/image-to-3d", "a/whisper"),
    *("a/flux-trainer/edit", "a/i2v-trainer", "a/music/edit", "a/kling-video/voice"),
)


def test_a_clip_that_is_missing_is_noted(fal: Sandbox, cli: Cli) -> None:
    notes = notes_on(fal, cli, [*NO_VIDEO, *PERHAPS_VIDEO], model=TO_VIDEO)
    said = f"{TO_VIDEO} is for videos, and the response holds none"
    assert notes[: len(NO_VIDEO)] == [[said]] * len(NO_VIDEO)
    assert notes[len(NO_VIDEO) :] == [[]] * len(PERHAPS_VIDEO)


def test_a_picture_that_is_missing_is_noted(fal: Sandbox, cli: Cli) -> None:
    model = "comfy/somebody/edit"
    clip = {"video": {"url": f"{LINK}a.mp4"}}
    svg = {"url": f"{LINK}a.svg", "content_type": "image/svg+xml"}
    responses = [clip, {"text": "A cat"}, {"image": A}, {"output": svg}, {"url": f"{LINK}a"}]
    said = f"{model} is for images, and the response holds none"
    assert notes_on(fal, cli, responses, model=model) == [[said], [said], [], [], []]


def test_what_an_endpoint_makes_is_told_by_its_path(fal: Sandbox, cli: Cli) -> None:
    for medium, endpoints in (("video", VIDEO_ENDPOINTS), ("image", IMAGE_ENDPOINTS)):
        assert {skill_fal.medium_asked_of(endpoint) for endpoint in endpoints} == {medium}
    assert {skill_fal.medium_asked_of(endpoint) for endpoint in OTHERS} == {None}


def test_a_medium_that_was_sent_is_none_that_came(fal: Sandbox, cli: Cli) -> None:
    """A model may tell its arguments again."""
    source = f"{LINK}mine.mp4"
    responses = [{"input": {"video_url": source}, "images": [A]}]
    extra = f'{{"video_url": "{source}"}}'
    notes = notes_on(
        fal, cli, responses, "--extra-json", extra, model="comfy/somebody/video-to-video"
    )
    assert [len(lines) for lines in notes] == [1]
