"""Arguments that the model really takes: from the flags and the model's own schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import FOR_EVER, ROOT, Cli, Late, importing, is_look_up
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox import Reply, Sandbox, Stall, nginx

import skill_fal
from skill_fal import fit_arguments

FLUX = "fal-ai/flux/dev"
KLING = "fal-ai/kling-video/v2/master/image-to-video"
KLING_3 = "fal-ai/kling-video/v3/pro/image-to-video"
VEO = "fal-ai/veo3.1/image-to-video"
FRAMES = "fal-ai/veo3.1/first-last-frame-to-video"
SORA = "fal-ai/sora-2/image-to-video"
WAN = "fal-ai/wan/v2.2-a14b/image-to-video"
AURORA = "fal-ai/creatify/aurora"
BANANA = "fal-ai/nano-banana-2"
FOOOCUS = "fal-ai/fooocus"
A, B = "https://example.com/a.png", "https://example.com/b.png"


def dry(cli: Cli, command: str, model: str, *argv: str) -> Any:
    """The request that a command would send."""
    done = cli(command, "--model", model, *argv, "--dry-run")
    assert (done.status, done.notes) == (0, ""), done.notes
    return done.json


def i2v(cli: Cli, model: str, *argv: str) -> Any:
    return dry(cli, "submit-i2v", model, "--image-url", A, "--prompt", "It rains", *argv)


def t2i(cli: Cli, model: str, *argv: str) -> Any:
    return dry(cli, "submit-t2i", model, "--prompt", "A cat at sea", *argv)


# Each thing in the model's own words


@pytest.mark.parametrize(
    ("model", "argv", "sent", "noted"),
    [
        (
            FLUX,
            ("--width", "640", "--height", "480"),
            {"image_size": {"width": 640, "height": 480}},
            "",
        ),
        (FLUX, ("--width", "640"), {"image_size": {"width": 640}}, "the other side is the model's"),
        (
            BANANA,
            ("--width", "1024", "--height", "1024"),
            {"aspect_ratio": "1:1", "resolution": "1K"},
            "--width 1024 --height 1024 becomes aspect_ratio 1:1 and resolution 1K",
        ),
        (
            BANANA,
            ("--width", "3000", "--height", "2000"),
            {"aspect_ratio": "3:2", "resolution": "2K"},
            "--width 3000 --height 2000 becomes aspect_ratio 3:2 and resolution 2K",
        ),
        (
            FOOOCUS,
            ("--width", "800", "--height", "600"),
            {"aspect_ratio": "800x600"},
            "--width 800 --height 600 becomes aspect_ratio 800x600",
        ),
        (FLUX, ("--seed", "0", "--num-images", "2"), {"seed": 0, "num_images": 2}, ""),
        (FLUX, ("--negative-prompt", "dogs"), {}, "the model takes no --negative-prompt"),
        (
            FLUX,
            ("--extra-json", '{"shceduler": 1}'),
            {"shceduler": 1},
            "the model has no shceduler",
        ),
        (FLUX, ("--extra-json", '{"num_image": 1}'), {"num_image": 1}, "Did you mean num_images"),
    ],
)
def test_flags_become_what_an_image_model_takes(
    cli: Cli, model: str, argv: tuple[str, ...], sent: dict[str, Any], noted: str
) -> None:
    request = t2i(cli, model, *argv)
    assert request["arguments"] == {"prompt": "A cat at sea", **sent}
    assert noted in "\n".join(request["notes"])
    assert bool(noted) == bool(request["notes"])


@pytest.mark.parametrize(
    ("model", "argv", "sent", "noted"),
    [
        (KLING, ("--duration", "5.0"), {"image_url": A, "duration": "5"}, ""),
        (KLING, ("--guidance-scale", "0.5"), {"image_url": A, "cfg_scale": 0.5}, ""),
        (VEO, ("--duration", "8"), {"image_url": A, "duration": "8s"}, ""),
        (SORA, ("--duration", "4.0"), {"image_url": A, "duration": 4}, ""),
        (
            WAN,
            ("--duration", "5"),
            {"image_url": A, "num_frames": 80},
            "--duration 5 becomes num_frames 80: 5 s at 16 frames a second",
        ),
        (KLING_3, (), {"start_image_url": A}, ""),
        (KLING_3, ("--image-url", B), {"start_image_url": A, "end_image_url": B}, ""),
        (FRAMES, ("--image-url", B), {"first_frame_url": A, "last_frame_url": B}, ""),
    ],
)
def test_flags_become_what_a_video_model_takes(
    cli: Cli, model: str, argv: tuple[str, ...], sent: dict[str, Any], noted: str
) -> None:
    request = i2v(cli, model, *argv)
    assert request["arguments"] == {"prompt": "It rains", **sent}
    assert noted in "\n".join(request["notes"])
    assert bool(noted) == bool(request["notes"])


def test_no_prompt_is_an_empty_one_where_the_model_insists(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-i2v", "--model", KLING, "--image-url", A)
    assert done.status == 0
    assert done.notes == f"note: {EMPTY_PROMPT}\n"
    assert [job.arguments for job in fal.jobs.values()] == [{"image_url": A, "prompt": ""}]
    strict = cli("submit-i2v", "--model", KLING, "--image-url", A, "--strict")
    assert (strict.status, strict.error["message"]) == (2, "prompt: required: --prompt")
    assert len(fal.jobs) == 1


TAKES_NO = "the model takes no --"
EMPTY_PROMPT = (
    "the model requires its prompt: an empty one is sent, which the model may refuse; --prompt says"
    " what to make"
)


# Problems, all at once and before anything is sent


def test_all_problems_are_told_together(fal: Sandbox, cli: Cli, photo: Path) -> None:
    flags = ("--image-url", "photo.jpg", "--duration", "7", "--guidance-scale", "9")
    done = cli("submit-i2v", "--model", KLING, *flags, "--prompt", "Rain")
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "invalid_arguments")
    assert {detail["field"]: detail["message"] for detail in done.error["details"]} == {
        "duration": '7 is not one of "5", "10"; the closest is "5"',
        "cfg_scale": "9 is above 1",
    }
    assert all(set(detail) == {"field", "message", "type"} for detail in done.error["details"])
    assert f"list-models --schema {KLING}" in done.error["hint"]
    assert (fal.uploads, fal.jobs) == ([], {})


def test_missing_fields_are_named_and_may_come_as_extra(
    fal: Sandbox, cli: Cli, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "voice.mp3").write_bytes(b"ID3\x04 not much of a song")
    argv = ("submit-i2v", "--model", AURORA, "--image-url", "photo.jpg")
    done = cli(*argv)
    assert (done.status, [d["field"] for d in done.error["details"]]) == (2, ["audio_url"])
    assert fal.uploads == []
    assert cli(*argv, "--extra-json", '{"audio_url": "voice.mp3"}').status == 0
    urls = {upload.content_type: upload.url for upload in fal.uploads}
    (job,) = fal.jobs.values()
    assert job.arguments["image_url"] == urls["image/jpeg"]
    assert job.arguments["audio_url"] == urls["audio/mpeg"]


def test_a_pipe_is_no_picture_and_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    done = cli("submit-i2v", "--model", KLING, "--image-url", "pipe.png")
    assert (done.status, done.error["message"]) == (
        2,
        "argument --image-url: not a file: pipe.png",
    )


def test_a_secret_is_no_audio_track(fal: Sandbox, cli: Cli, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "id_rsa.mp3").write_text("-----BEGIN EXAMPLE KEY-----\n")
    argv = ("--image-url", "photo.jpg", "--extra-json", '{"audio_url": "id_rsa.mp3"}')
    done = cli("submit-i2v", "--model", AURORA, *argv)
    assert (done.status, done.error["message"]) == (2, "not a media file: id_rsa.mp3")
    assert (fal.uploads, fal.jobs) == ([], {})


def test_strict_fails_on_what_the_model_has_not(fal: Sandbox, cli: Cli) -> None:
    flags = ("--prompt", "A cat", "--negative-prompt", "dogs", "--strict")
    done = cli("submit-t2i", "--model", FLUX, *flags)
    assert (done.status, fal.jobs) == (2, {})
    assert done.error["details"] == [
        {
            "field": "negative_prompt",
            "message": "the model has no such argument",
            "type": "unknown_field",
        }
    ]


def test_a_path_leads_to_another_schema(cli: Cli) -> None:
    request = t2i(cli, "fal-ai/flux", "--path", "dev", "--width", "640")
    assert request["arguments"]["image_size"] == {"width": 640}
    assert request["url"] == "https://queue.fal.run/fal-ai/flux/dev"


def test_a_picture_is_not_dropped(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-i2v", "--model", FLUX, "--image-url", A, "--prompt", "It rains")
    assert (done.status, done.error["message"]) == (2, "image_url: the model takes no image")
    assert fal.jobs == {}


def test_a_batch_without_a_schema_refuses_bad_files_at_once(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("Not a picture.")
    extra = ("--extra-json", '{"mask_url": "notes.txt"}', "--no-schema")
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A", "B", *extra)
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "usage_error")


def test_a_batch_with_one_bad_job_sends_none(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-t2i", "--model", BANANA, "--prompts", "A cat at sea", "A")
    assert (done.status, done.stdout, fal.jobs) == (2, "", {})


def test_warnings_before_money_is_spent(fal: Sandbox, cli: Cli) -> None:
    model = "fal-ai/runway-gen3/turbo/image-to-video"
    fal.on("POST", "fal.run", "*", Reply(404, json={"detail": "Path /stream not found"}))
    done = cli("stream-i2v", "--model", model, "--image-url", A, "--prompt", "Rain")
    assert "note: fal calls the model deprecated" in done.notes
    assert "note: fal does not list the model among those that stream" in done.notes


# --dry-run, --schema


def test_dry_run_sends_nothing(fal: Sandbox, cli: Cli, photo: Path) -> None:
    flags = ("--image-url", "photo.jpg", "--duration", "5", "--priority", "low", "--hint", "h")
    argv = ("--model", KLING, *flags, "--webhook-url", "https://example.com/?a=b", "--dry-run")
    done = cli("submit-i2v", *argv, env={"FAL_KEY": ""})
    assert done.json == {
        "endpoint": KLING,
        "url": f"https://queue.fal.run/{KLING}?fal_webhook=https%3A%2F%2Fexample.com%2F%3Fa%3Db",
        "headers": {"X-Fal-Runner-Hint": "h", "X-Fal-Queue-Priority": "low"},
        "arguments": {"image_url": "photo.jpg", "duration": "5", "prompt": ""},
        "notes": [
            EMPTY_PROMPT,
            "without --dry-run, photo.jpg is uploaded, and its public URL is sent",
            "no estimate: no fal.ai key: FAL_KEY is not set",
        ],
        "schema": "fresh",
        "estimate": None,
    }
    assert (fal.uploads, fal.jobs) == ([], {})
    assert [request.host for request in fal.requests] == ["api.fal.ai"]


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("submit-t2i", f"https://queue.fal.run/{FLUX}"),
        ("subscribe-t2i", f"https://queue.fal.run/{FLUX}"),
        ("run-t2i", f"https://fal.run/{FLUX}"),
        ("stream-t2i", f"https://fal.run/{FLUX}/stream"),
    ],
)
def test_dry_run_of_each_command(cli: Cli, command: str, url: str) -> None:
    assert dry(cli, command, FLUX, "--prompt", "A cat")["url"] == url


def test_dry_run_of_a_batch(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog", "--dry-run")
    assert [line["arguments"]["prompt"] for line in done.lines] == ["A cat", "A dog"]
    assert fal.jobs == {}


def test_dry_run_with_problems(fal: Sandbox, cli: Cli) -> None:
    done = cli("run-t2i", "--model", FLUX, "--prompt", "A", "--num-images", "9", "--dry-run")
    assert (done.status, done.stdout) == (2, "")
    assert [detail["field"] for detail in done.error["details"]] == ["num_images"]


def test_list_models_schema(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--schema", VEO, env={"FAL_KEY": ""})
    fields = {line.split("\t")[0]: line.split("\t") for line in done.stdout.splitlines()}
    assert fields["image_url"][1:3] == ["string", "required"]
    assert fields["duration"][1:4] == ["string", 'default "8s"', '"4s", "6s", "8s"']
    assert all(len(columns) == 6 for columns in fields.values())
    assert [fields[name][4] for name in ("image_url", "duration", "generate_audio")] == [
        "--image-url",
        "--duration",
        "--arg generate_audio=",
    ]
    schema = cli("list-models", "--schema", VEO, "--json").json
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$ref" not in json.dumps(schema)
    assert set(schema["properties"]) == set(fields)


def test_the_schema_of_no_model(cli: Cli) -> None:
    done = cli("list-models", "--schema", "fal-ai/flux/devv")
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "not_found")
    assert "Did you mean fal-ai/flux/dev" in done.error["hint"]


# The cache


def look_ups(fal: Sandbox) -> int:
    return len([request for request in fal.requests if "expand" in request.query])


def kept(tmp_path: Path) -> Path:
    (path,) = (tmp_path / ".cache/fal-skill").iterdir()
    return path


def submit(cli: Cli, **env: str) -> str:
    """What stderr says of a submission that must succeed."""
    done = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat", env=env)
    assert done.status == 0
    return done.notes


def test_a_cold_cache_costs_one_request_and_a_warm_one_none(fal: Sandbox, cli: Cli) -> None:
    assert [submit(cli), submit(cli), submit(cli)] == ["", "", ""]
    assert (look_ups(fal), len(fal.requests)) == (1, 4)


def test_no_schema_looks_nothing_up(fal: Sandbox, cli: Cli) -> None:
    argv = ("--model", FLUX, "--prompt", "A cat", "--negative-prompt", "dogs", "--no-schema")
    assert cli("submit-t2i", *argv).notes == ""
    assert look_ups(fal) == 0
    assert [job.arguments["negative_prompt"] for job in fal.jobs.values()] == ["dogs"]


def test_a_copy_is_good_for_a_day(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    submit(cli)
    for age in (86000, 87000, -5000):  # seconds; the last is from a clock that was put back
        stat = kept(tmp_path).stat()
        os.utime(kept(tmp_path), (stat.st_atime, stat.st_mtime - age))
        submit(cli)
    assert look_ups(fal) == 3


def not_checked(why: str) -> str:
    return f"note: the model's arguments were not checked: {why}"


NOT_KNOWN = not_checked(f"fal's model search does not know {FLUX}. ")
NOT_TOLD = not_checked(
    f"fal does not tell what {FLUX} takes. Its page may tell: https://fal.ai/models/{FLUX}/api\n"
)
UNCHECKED = ". With --strict nothing is sent unchecked.\n"


NO_DOCUMENTS = {
    "no such model": (
        Reply(200, json={"models": [], "next_cursor": None, "has_more": False}),
        NOT_KNOWN,
    ),
    "404": (
        Reply(404, json={"error": {"type": "not_found", "message": "No such endpoint"}}),
        NOT_KNOWN,
    ),
    "no such path": (
        Reply(200, json={"models": [{"endpoint_id": FLUX, "openapi": {"paths": {}}}]}),
        NOT_TOLD,
    ),
    "no document": (
        Reply(200, json={"models": [{"endpoint_id": FLUX, "openapi": {"error": {}}}]}),
        NOT_TOLD,
    ),
    "odd models": (Reply(200, json={"models": [7, {"endpoint_id": [FLUX]}]}), NOT_KNOWN),
}


@pytest.mark.parametrize("name", NO_DOCUMENTS)
def test_generation_works_without_a_document(fal: Sandbox, cli: Cli, name: str) -> None:
    answer, noted = NO_DOCUMENTS[name]
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(answer))
    assert submit(cli).startswith(noted)
    assert (len(fal.jobs), look_ups(fal)) == (1, 1)
    done = cli("list-models", "--schema", FLUX)
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "not_found")
    assert done.error["retryable"] is False
    strict = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--strict")
    assert (strict.status, strict.error["type"], len(fal.jobs)) == (1, "not_found", 1)


SERVER_ERROR = Reply(500, json={"error": {"type": "server_error", "message": "Oh no"}})
RATE_LIMITED = Reply(429, json={"error": {"type": "rate_limited", "message": "Too many"}})
REFUSALS = {
    "429": (RATE_LIMITED, "rate_limited", 1, True, f"Too many{UNCHECKED}"),
    "500": (SERVER_ERROR, "server_error", 1, True, f"Oh no{UNCHECKED}"),
    "503": (nginx(503), "gateway_error", 4, True, f"fal's gateway answered HTTP 503{UNCHECKED}"),
    "a list": (Reply(200, json=[1]), "unexpected_answer", 1, False, "fal gave an answer"),
    "models that are no list": (
        Reply(200, json={"models": {"endpoint_id": FLUX}}),
        "unexpected_answer",
        1,
        False,
        "fal gave an answer",
    ),
    "HTML": (Reply(200, text="<html>"), "unexpected_answer", 1, False, "fal gave an answer"),
    "deep JSON": (
        Reply(200, text="[" * 200_000),
        "unexpected_answer",
        1,
        False,
        f"the JSON is nested too deeply{UNCHECKED}",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_look_up_says_why(fal: Sandbox, cli: Cli, name: str) -> None:
    answer, error_type, status, retryable, message = REFUSALS[name]
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(answer))
    assert submit(cli).startswith(not_checked(message))
    assert len(fal.jobs) == 1
    done = cli("list-models", "--schema", FLUX)
    assert (done.status, done.stdout) == (status, "")
    assert (done.error["type"], done.error["retryable"]) == (error_type, retryable)
    assert "Did you mean" not in done.stderr


def test_a_look_up_without_a_network(fal: Sandbox, cli: Cli) -> None:
    fal.cut_off("api.fal.ai")
    done = cli("list-models", "--schema", FLUX)
    assert (done.status, done.stdout, done.error["type"]) == (4, "", "unreachable")
    assert done.error["retryable"] is True
    assert "Did you mean" not in done.stderr
    assert submit(cli).startswith(not_checked("fal could not be reached through the proxy"))
    argv = ("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--dry-run")
    notes = cli(*argv).json["notes"]
    assert notes[0].startswith(
        "the model's arguments were not checked: fal could not be reached through the proxy"
    )


@pytest.mark.parametrize("command", ["submit-i2v", "batch-i2v"])
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["sent", "dry run"])
def test_strict_insists_on_the_look_up(
    fal: Sandbox, cli: Cli, photo: Path, command: str, dry_run: tuple[str, ...]
) -> None:
    fal.cut_off("api.fal.ai")
    flag = "--image-urls" if command.startswith("batch") else "--image-url"
    done = cli(command, "--model", KLING, flag, "photo.jpg", "--strict", *dry_run)
    assert (done.status, done.stdout, done.error["type"]) == (4, "", "unreachable")
    assert done.error["retryable"] is True
    assert (fal.uploads, fal.jobs) == ([], {})


def test_a_look_up_is_tried_once_more_with_the_key(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", RATE_LIMITED)
    assert submit(cli) == ""
    keys = ["authorization" in request.headers for request in fal.requests if is_look_up(request)]
    assert keys == [False, True]


@pytest.mark.parametrize("key", ["", "two words", "unknown:key"])
def test_a_look_up_fails_as_it_did_at_first(fal: Sandbox, cli: Cli, key: str) -> None:
    """A key that is of no use is not what was missing."""
    fal.on("GET", "api.fal.ai", "/v1/models", RATE_LIMITED, RATE_LIMITED)
    done = cli("list-models", "--schema", FLUX, env={"FAL_KEY": key})
    assert (done.status, done.error["type"]) == (1, "rate_limited")
    assert look_ups(fal) == 2


def test_a_look_up_has_ten_seconds(fal: Sandbox, late: Late) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(Stall(FOR_EVER)))
    done = late("list-models", "--schema", FLUX, once=is_look_up)
    assert (done.status, done.error["type"], done.error["retryable"]) == (5, "timeout", True)
    assert done.error["message"] == "fal did not answer within 10 s"
    assert look_ups(fal) <= 1


def test_a_look_up_without_httpx(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    missing = "raise ModuleNotFoundError('No module named httpx', name='httpx')"
    (tmp_path / "broken/httpx.py").write_text(missing)
    done = cli("list-models", "--schema", FLUX, env=importing(tmp_path / "broken"))
    assert (done.status, done.error["message"]) == (
        2,
        "httpx is not installed: pip install httpx",
    )


BROKEN_FITTING = """
import skill_fal
def broken(*ignored):
    raise KeyError("a mistake")
skill_fal.fit_size = broken
raise SystemExit(skill_fal.main())
"""


@pytest.mark.parametrize(
    "argv",
    [
        ("submit-t2i", "--prompt", "A cat"),
        ("submit-t2i", "--prompt", "A cat", "--dry-run"),
        ("batch-t2i", "--prompts", "A cat", "A dog"),
    ],
    ids=["submit", "dry run", "batch"],
)
def test_a_bug_in_fitting_is_shown_and_spends_nothing(
    fal: Sandbox, environment: dict[str, str], tmp_path: Path, argv: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_FITTING, *argv, "--model", FLUX],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, fal.jobs) == (1, "", {})
    assert "Traceback" in done.stderr
    assert "KeyError: 'a mistake'" in done.stderr
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["type"] == "internal_error"


@pytest.mark.parametrize(
    "field",
    [
        {"type": ["string", "null"]},
        {"type": "string", "nullable": True},
        {"allOf": [{"$ref": "#/components/schemas/Text"}]},
        {"$ref": "#/components/schemas/Loop"},
        {},
    ],
    ids=["types", "nullable", "allOf", "a loop", "anything"],
)
def test_schemas_may_say_it_in_many_ways(fal: Sandbox, cli: Cli, field: dict[str, Any]) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", document({"prompt": field}))
    assert submit(cli) == ""
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "A cat"}]


ODD_FIELDS = {
    "a number": 7,
    "null": None,
    "type 7": {"type": 7},
    "enum 7": {"enum": 7},
    "no enum": {"type": "string", "enum": []},
    "unhashable enum": {"enum": [{}, [1], "A cat"]},
    "minLength is text": {"type": "string", "minLength": "7"},
    "minimum is text": {"minimum": "7", "maximum": True},
    "anyOf of numbers": {"anyOf": [7]},
    "anyOf 7": {"anyOf": 7},
    "items is a list": {"items": [7]},
    "properties is a list": {"type": "string", "properties": [7]},
    "required is true": {"type": "string", "required": True},
    "required is numbers": {"required": [7]},
    "default": {"type": "string", "default": {"a": [None]}},
    "description": {"type": "string", "description": {"a": "b"}},
    "reference 7": {"$ref": 7},
    "reference to nothing": {"$ref": "#/nothing/~1"},
    "reference to text": {"$ref": "#/components/schemas/Text/type"},
}


@pytest.mark.parametrize("field", ODD_FIELDS.values(), ids=ODD_FIELDS)
def test_odd_keywords_are_dropped_one_by_one(fal: Sandbox, cli: Cli, field: Any) -> None:
    seed = {"type": "integer", "minimum": 5}
    fal.on("GET", "api.fal.ai", "/v1/models", document({"prompt": field, "seed": seed}))
    assert submit(cli) == ""
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "A cat"}]
    listed = cli("list-models", "--schema", FLUX)
    assert (listed.status, listed.stderr) == (0, "")
    assert [line.split("\t")[:3:2] for line in listed.stdout.splitlines()] == [
        ["prompt", "required"],
        ["seed", "optional"],
    ]
    schema = cli("list-models", "--schema", FLUX, "--json").json
    jsonschema.Draft202012Validator.check_schema(schema)
    done = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--seed", "1")
    assert (done.status, [detail["field"] for detail in done.error["details"]]) == (2, ["seed"])


@pytest.mark.parametrize("fields", [[], [{"prompt": {}}], 7, "prompt", None], ids=repr)
def test_fields_that_are_no_object_are_none_at_all(fal: Sandbox, cli: Cli, fields: Any) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(document(fields)))
    assert submit(cli) == NOT_TOLD
    done = cli("list-models", "--schema", FLUX)
    assert (done.status, done.error["type"]) == (1, "not_found")


def test_a_required_field_may_be_described_nowhere(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", document({}))
    assert submit(cli) == ""
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "A cat"}]


@pytest.mark.parametrize("keyword", ["properties", "anyOf", "allOf"])
def test_a_small_document_does_not_unfold(fal: Sandbox, cli: Cli, keyword: str) -> None:
    """Each of twenty components refers twice to the next."""
    components: dict[str, Any] = {"C20": {"type": "string"}}
    for number in range(20):
        twice = [{"$ref": f"#/components/schemas/C{number + 1}"}] * 2
        content = dict(zip("ab", twice, strict=True)) if keyword == "properties" else twice
        components[f"C{number}"] = {keyword: content}
    field = {"$ref": "#/components/schemas/C0"}
    answer = document({"prompt": {"type": "string"}, "more": field}, components)
    fal.on("GET", "api.fal.ai", "/v1/models", answer)
    assert submit(cli) == ""
    listed = cli("list-models", "--schema", FLUX, "--json")
    assert len(listed.stdout) < 5_000_000
    assert listed.json["properties"]["prompt"] == {"type": "string"}


def test_a_long_chain_of_references(fal: Sandbox, cli: Cli) -> None:
    components: dict[str, Any] = {
        f"C{number}": {"$ref": f"#/components/schemas/C{number + 1}"} for number in range(3000)
    }
    field = {"$ref": "#/components/schemas/C0"}
    fal.on("GET", "api.fal.ai", "/v1/models", document({"prompt": field}, components))
    assert submit(cli) == ""


def document(fields: Any, others: Mapping[str, Any] | None = None) -> Reply:
    """What fal's model search tells of a model with these fields."""
    components = {
        **(others or {}),
        "Text": {"type": "string"},
        "Loop": {"anyOf": [{"$ref": "#/components/schemas/Loop"}, {"type": "string"}]},
        "Input": {"type": "object", "properties": fields, "required": ["prompt"]},
    }
    reference = {"schema": {"$ref": "#/components/schemas/Input"}}
    post = {"requestBody": {"content": {"application/json": reference}}}
    openapi = {"paths": {f"/{FLUX}": {"post": post}}, "components": {"schemas": components}}
    return Reply(200, json={"models": [{"endpoint_id": FLUX, "openapi": openapi}]})


def test_an_old_copy_is_better_than_none(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    submit(cli)
    os.utime(kept(tmp_path), (0, 0))
    fal.cut_off("api.fal.ai")
    assert submit(cli) == ""
    assert t2i(cli, FLUX)["schema"] == "stale"
    assert cli("list-models", "--schema", FLUX).status == 0
    argv = ("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--strict")
    assert cli(*argv).status == 0


@pytest.mark.parametrize(
    "content", ["", '{"endpoint_id": "x"', "[]", '{"endpoint_id": "other/one"}']
)
def test_a_torn_or_foreign_copy_is_ignored(
    fal: Sandbox, cli: Cli, tmp_path: Path, content: str
) -> None:
    submit(cli)
    kept(tmp_path).write_text(content)
    assert submit(cli) == ""
    assert look_ups(fal) == 2


def test_a_cache_folder_that_cannot_be_made_is_no_problem(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert submit(cli, XDG_CACHE_HOME=str(tmp_path / "file")) == ""


def test_a_useless_copy_does_not_stand_in_the_way(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    submit(cli)
    kept(tmp_path).write_text(json.dumps({"endpoint_id": FLUX}))
    assert t2i(cli, FLUX)["schema"] == "fresh"
    assert look_ups(fal) == 2


def test_a_pipe_in_the_place_of_the_copy_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    submit(cli)
    kept(tmp_path).unlink()
    os.mkfifo(tmp_path / f".cache/fal-skill/{FLUX.replace('/', '~')}.json")
    assert submit(cli) == ""


# The pure step


@pytest.mark.parametrize(
    ("fields", "size", "sent", "noted"),
    [
        ({"aspect_ratio": {"enum": ["1:1", "4:3"]}}, (4096, 4096), {"aspect_ratio": "1:1"}, True),
        (
            {"aspect_ratio": {"enum": ["16:9"]}, "resolution": {"enum": ["1K", "2K", "4K"]}},
            (3840, 2160),
            {"aspect_ratio": "16:9", "resolution": "4K"},
            True,
        ),
        ({"resolution": {"enum": ["480p", "720p"]}}, (1280, 720), {"resolution": "720p"}, True),
        (
            {"image_size": {"enum": ["square_hd", "square"]}},
            (512, 512),
            {"image_size": "square"},
            True,
        ),
        (
            {"image_size": {"enum": ["1024x1536", "auto"]}},
            (512, 768),
            {"image_size": "1024x1536"},
            True,
        ),
    ],
)
def test_sizes(
    fields: dict[str, Any], size: tuple[int, int], sent: dict[str, Any], noted: bool
) -> None:
    fitted = fit_arguments({"width": size[0], "height": size[1]}, {"properties": fields})
    assert (fitted.arguments, bool(fitted.notes), fitted.problems) == (sent, noted, [])


def test_a_flag_that_extra_json_overrules_is_noted() -> None:
    schema = {"properties": {"seed": {"type": "integer"}}}
    fitted = fit_arguments({"seed": 1, "extra_json": {"seed": 2}}, schema)
    assert fitted.arguments == {"seed": 2}
    assert fitted.notes == ["seed is sent as --extra-json has it"]


def test_a_number_beyond_all_measure() -> None:
    schema = {"properties": {"cfg_scale": {"type": "number", "maximum": 1}}}
    fitted = fit_arguments({"extra_json": {"cfg_scale": 10**400}}, schema)
    assert [one["field"] for one in fitted.problems] == ["cfg_scale"]


# The pure step, over generated schemas and requests

WORDS = st.text("abcxyz", min_size=1, max_size=6)
SCHEMAS_OF_FIELDS = st.one_of(
    st.just({"type": "string"}),
    st.builds(lambda low: {"type": "string", "minLength": low}, st.integers(0, 4)),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(0, 20),
        st.integers(0, 40),
    ),
    st.just({"anyOf": [{"type": "number"}, {"type": "null"}]}),
    st.builds(
        lambda values: {"type": "string", "enum": values},
        st.lists(
            st.sampled_from(["5", "8s", "10", "16:9", "1:1", "720p", "2K", "auto"]),
            min_size=1,
            unique=True,
        ),
    ),
    st.just({"enum": [4, 8, 12], "type": "integer"}),
    st.just({"type": "array", "items": {"type": "string"}, "maxItems": 3}),
    st.just(
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "width": {"type": "integer", "minimum": 64},
                        "height": {"type": "integer", "minimum": 64},
                    },
                },
                {"type": "string", "enum": ["square_hd", "landscape_16_9"]},
            ]
        }
    ),
)
FIELDS = [
    *("prompt", "negative_prompt", "num_images", "seed", "guidance_scale", "cfg_scale", "steps"),
    *("num_inference_steps", "image_url", "start_image_url", "end_image_url", "image_urls"),
    *("image_size", "video_size", "aspect_ratio", "resolution", "width", "height"),
    *("duration", "num_frames", "scheduler"),
]
SCHEMAS = st.builds(
    lambda fields, needed: {
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name in needed],
    },
    st.dictionaries(st.sampled_from(FIELDS), SCHEMAS_OF_FIELDS),
    st.sets(st.sampled_from(FIELDS), max_size=3),
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": WORDS,
        "negative_prompt": WORDS,
        "width": st.integers(1, 5000),
        "height": st.integers(1, 5000),
        "num_images": st.integers(1, 9),
        "seed": st.integers(),
        "guidance_scale": st.floats(0, 30),
        "num_inference_steps": st.integers(1, 99),
        "duration": st.sampled_from([4, 5, 5.0, 7.5, 8, 10]),
        "image_url": st.lists(st.sampled_from([A, B]), min_size=1, max_size=4),
        "extra_json": st.dictionaries(st.sampled_from([*FIELDS, "other"]), st.integers(0, 9)),
    },
)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, REQUESTS)
def test_what_passes_validates_and_nothing_is_invented(
    schema: dict[str, Any], asked: dict[str, Any]
) -> None:
    before = json.dumps([schema, asked])
    fitted = fit_arguments(asked, schema)
    if not fitted.problems:
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(fitted.arguments))
        # pydantic takes the text of a number for a number, JSON Schema does not
        assert not [error for error in errors if not isinstance(error.instance, str)]
    extra = asked.get("extra_json", {})
    assert set(fitted.arguments) <= set(schema["properties"]) | set(extra)
    assert extra.items() <= fitted.arguments.items()
    assert json.dumps([schema, asked]) == before
    assert outcome(fit_arguments(asked, schema)) == outcome(fitted)


def outcome(fitted: skill_fal.Fit) -> tuple[Any, ...]:
    return fitted.arguments, fitted.notes, fitted.problems


# What --extra-json may overrule a flag with.
TARGETS = {
    **{dest: flag.names for dest, flag in skill_fal.FLAGS_BY_DEST.items()},
    "image_url": tuple(name for name in FIELDS if "image" in name or "frame" in name),
    "size": ("image_size", "video_size", "aspect_ratio", "resolution", "width", "height"),
}


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, REQUESTS)
def test_no_flag_is_lost_without_a_word(schema: dict[str, Any], asked: dict[str, Any]) -> None:
    """Leaving a flag out must change what is sent, what is noted, or what is refused."""
    fitted = fit_arguments(asked, schema)
    for flag in asked.keys() - {"extra_json"}:
        about = {"width", "height"} if flag in ("width", "height") else {flag}
        others = {name: value for name, value in asked.items() if name not in about}
        if outcome(fit_arguments(others, schema)) == outcome(fitted):
            target = TARGETS["size" if len(about) == 2 else flag]
            assert set(target) & set(asked["extra_json"]), flag


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, REQUESTS)
def test_strict_sends_no_less_and_notes_become_problems(
    schema: dict[str, Any], asked: dict[str, Any]
) -> None:
    loose, strict = fit_arguments(asked, schema), fit_arguments(asked, schema, strict=True)
    loose.arguments.setdefault("prompt", strict.arguments.get("prompt"))
    if loose.arguments["prompt"] != "":  # an empty one is what --strict does not send
        assert loose.arguments == {"prompt": None, **strict.arguments}
    dropped = [text.partition(":")[0].split(" and ") for text in loose.notes if TAKES_NO in text]
    unknown = [one for one in strict.problems if one["type"] == "unknown_field"]
    assert len([name for names in dropped for name in names]) == len(unknown)


# Documents of any kind

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["", "string", "integer", "5s", "16:9", "0:0", "0p", "#/a", "#/schemas/Size"]
    ),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from([*skill_fal.KEYWORD_TYPES, "const", "default", *FIELDS]),
            parts,
            max_size=4,
        )
    ),
    max_leaves=8,
)
SAMPLE = {
    "endpoint_id": FLUX,
    "metadata": {"status": "active", "stream_url": "https://fal.run/stream"},
    "openapi": {
        "paths": {
            f"/{FLUX}": {
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/schemas/Input"}}}
                    }
                }
            }
        },
        "schemas": {
            "Input": {
                "properties": {
                    "prompt": {"type": "string", "minLength": 1, "maxLength": 9},
                    "image_size": {"anyOf": [{"$ref": "#/schemas/Size"}, {"enum": ["square"]}]},
                    "aspect_ratio": {"type": ["string", "null"], "enum": ["1:1", "16:9"]},
                    "resolution": {"enum": ["720p", "2K"]},
                    "duration": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
                    "num_frames": {"type": "integer", "minimum": 1},
                    "image_url": {"allOf": [{"type": "string"}], "nullable": True},
                    "image_urls": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
                },
                "required": ["prompt"],
            },
            "Size": {
                "type": "object",
                "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
                "required": ["width"],
            },
        },
    },
}


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of each value inside another."""
    found: list[tuple[Any, ...]] = [()]
    names: Any = value if isinstance(value, dict) else ()
    if isinstance(value, list):
        names = range(len(value))
    for name in names:
        found += [(name, *path) for path in places(value[name])]
    return found


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """A copy of a value with another one somewhere inside."""
    if not path:
        return odd
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], odd)
    return copy


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(places(SAMPLE)), ODD, REQUESTS, st.booleans())
def test_no_document_breaks_anything(
    path: tuple[Any, ...], odd: Any, asked: dict[str, Any], strict: bool
) -> None:
    read = skill_fal.read_model_schema(replaced(SAMPLE, path, odd), FLUX)
    if read.input_schema is not None:
        json.dumps(read.input_schema, allow_nan=False)
        fit_arguments(asked, read.input_schema, strict)
        assert skill_fal.models_text(read.input_schema).count("\n") >= 0


def test_the_sample_is_a_document_that_is_read() -> None:
    read = skill_fal.read_model_schema(SAMPLE, FLUX)
    assert read.input_schema is not None
    assert read.input_schema["properties"]["image_size"]["anyOf"][0]["required"] == ["width"]
    assert (read.streams, read.deprecated) == (True, False)
