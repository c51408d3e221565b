"""Arguments by the model's own names, files and URLs among them, and models nobody knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Outcome, is_look_up, paid, telling
from PIL import Image
from sandbox import Reply, Sandbox

import skill_fal

FLUX = "fal-ai/flux/dev"
KLING = "fal-ai/kling-video/v2/master/image-to-video"
MODEL = FLUX  # which the tests let take other things
A = "https://example.com/a.png"
TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
SUBMIT = ("submit-t2i", "--model", MODEL, "--prompt", "A cat")
SUBMIT_I2V = ("submit-i2v", "--model", MODEL, "--prompt", "It rains")


def tell(fal: Sandbox, fields: Mapping[str, Any], *required: str) -> None:
    """Let fal's model search tell of a model that takes these fields, and a prompt."""
    told = telling(MODEL, {"prompt": TEXT, **fields}, *required)
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(told))


def arguments(fal: Sandbox) -> Any:
    """Those of the only job."""
    (job,) = fal.jobs.values()
    return job.arguments


def assert_nothing_sent(fal: Sandbox, done: Outcome) -> None:
    assert (done.status, done.stdout) == (2, ""), done.stderr
    assert (fal.uploads, fal.jobs, paid(fal)) == ([], {}, [])


# Types

OBJECT = {"type": "object", "properties": {"width": {"type": "integer"}}}
TYPED: dict[str, tuple[dict[str, Any], tuple[str, ...], Any]] = {
    "number": (NUMBER, ("0.8",), 0.8),
    "integer": ({"type": "integer"}, ("-3",), -3),
    "false": ({"type": "boolean"}, ("false",), False),
    "True": ({"type": "boolean"}, ("True",), True),
    "digits where text is wanted": (TEXT, ("123",), "123"),
    "true where text is wanted": (TEXT, ("true",), "true"),
    "JSON where text is wanted": (TEXT, ('{"a": 1}',), '{"a": 1}'),
    "text with an equals sign": (TEXT, ("a=b=c",), "a=b=c"),
    "nothing": (TEXT, ("",), ""),
    "label": ({"enum": ["5", "10"]}, ("10",), "10"),
    "number of several": ({"enum": [4, 8]}, ("8",), 8),
    "either, the text": ({"anyOf": [NUMBER, TEXT]}, ("8x",), "8x"),
    "null": ({"anyOf": [NUMBER, {"type": "null"}]}, ("null",), None),
    "nullable": ({"anyOf": [NUMBER, {"type": "null"}]}, ("4",), 4),
    "list": ({"type": "array", "items": NUMBER}, ("[1, 2.5]",), [1, 2.5]),
    "list of one": ({"type": "array", "items": NUMBER}, ("7",), [7]),
    "name given twice": ({"type": "array", "items": TEXT}, ("7", "8"), ["7", "8"]),
    "name given three times": ({"type": "array", "items": TEXT}, ("7", "b", "c"), ["7", "b", "c"]),
    "object": (OBJECT, ('{"width": 5}',), {"width": 5}),
    "objects": (
        {"type": "array", "items": OBJECT},
        ('{"width": 5}', '{"width": 6}'),
        [{"width": 5}, {"width": 6}],
    ),
    "anything": ({}, ("plain words",), "plain words"),
}


@pytest.mark.parametrize("case", TYPED)
def test_arg_has_the_type_that_the_model_takes(fal: Sandbox, cli: Cli, case: str) -> None:
    schema, values, expected = TYPED[case]
    tell(fal, {"whatever": schema})
    words = [word for value in values for word in ("--arg", f"whatever={value}")]
    done = cli(*SUBMIT, *words)
    assert (done.status, done.notes) == (0, ""), done.stderr
    assert arguments(fal) == {"prompt": "A cat", "whatever": expected}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.8", 0.8),
        ("true", True),
        ("null", None),
        ('[{"path": "a"}]', [{"path": "a"}]),
        ("some words", "some words"),
        ('{"torn', '{"torn'),
        ("", ""),
    ],
)
def test_arg_is_json_if_it_is_json_where_no_schema_tells(
    fal: Sandbox, cli: Cli, value: str, expected: object
) -> None:
    assert cli(*SUBMIT, "--no-schema", "--arg", f"whatever={value}").status == 0
    assert arguments(fal) == {"prompt": "A cat", "whatever": expected}


WRONG = {
    "a name that the model lacks": ("strenght=0.5", "strenght", "Did you mean strength?"),
    "a name unlike any": ("zzz=1", "zzz", "It has prompt, strength, mode."),
    "too much": ("strength=1.5", "strength", "1.5 is above 1"),
    "no number": ("strength=big", "strength", '"big" is not number'),
    "no such label": ("mode=c", "mode", '"c" is not one of "a", "b"'),
}


@pytest.mark.parametrize(
    ("case", "flags"),
    [
        *((case, ()) for case in WRONG),
        ("a name unlike any", ("--strict",)),
        ("a name unlike any", ("--dry-run",)),
    ],
)
def test_arg_that_the_model_would_not_take(
    fal: Sandbox, cli: Cli, case: str, flags: tuple[str, ...]
) -> None:
    text, field, said = WRONG[case]
    tell(fal, {"strength": {**NUMBER, "maximum": 1}, "mode": {"enum": ["a", "b"]}})
    done = cli(*SUBMIT, "--arg", text, *flags)
    assert_nothing_sent(fal, done)
    assert done.error["type"] == "invalid_arguments"
    ((name, message),) = [(one["field"], one["message"]) for one in done.error["details"]]
    assert (name, said in message) == (field, True), message


@pytest.mark.parametrize("bad", ["strength", "=0.5", "", "="])
def test_arg_that_names_nothing(fal: Sandbox, cli: Cli, bad: str) -> None:
    done = cli(*SUBMIT, f"--arg={bad}")
    assert_nothing_sent(fal, done)
    assert done.error["message"].startswith("argument --arg: not NAME=VALUE")
    assert fal.requests == []


@pytest.mark.parametrize("spelt", [("--arg", "prompt=A dog"), ("--arg=prompt=A dog",)], ids=str)
def test_arg_stands_for_the_flag_that_is_required(
    fal: Sandbox, cli: Cli, spelt: tuple[str, ...]
) -> None:
    tell(fal, {}, "prompt")
    assert cli("submit-t2i", "--model", MODEL, *spelt).status == 0
    assert arguments(fal) == {"prompt": "A dog"}


def test_a_model_that_starts_from_a_clip(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42 not much of a clip")
    tell(fal, {"video_url": TEXT}, "video_url", "prompt")
    done = cli(*SUBMIT_I2V, "--arg", "video_url=clip.mp4")
    assert done.status == 0, done.stderr
    (upload,) = fal.uploads
    assert upload.content_type == "video/mp4"
    assert arguments(fal) == {"prompt": "It rains", "video_url": upload.url}


def test_extra_json_overrules_arg(fal: Sandbox, cli: Cli) -> None:
    tell(fal, {"strength": NUMBER})
    extra = ("--extra-json", '{"strength": 0.9, "prompt": "A dog"}')
    done = cli(*SUBMIT, "--arg", "strength=0.5", *extra)
    assert done.status == 0
    assert arguments(fal) == {"strength": 0.9, "prompt": "A dog"}


# Local files

OBJECTS = {"type": "array", "items": {"type": "object", "properties": {"image_url": TEXT}}}
FILES: dict[str, tuple[str, dict[str, Any], str]] = {
    "url": ("image_url", TEXT, "{}"),
    "picture of a model": ("model_image", TEXT, "{}"),
    "picture": ("image", TEXT, "{}"),
    "frame": ("first_frame", TEXT, "{}"),
    "source of a video": ("source_video", TEXT, "{}"),
    "or null": ("mask_image", {"anyOf": [TEXT, {"type": "null"}]}, "{}"),
    "list of one": ("image_urls", {"type": "array", "items": TEXT}, "{}"),
    "list of pictures": ("images", {"type": "array", "items": TEXT}, "{}"),
    "list in JSON": ("image_urls", {"type": "array", "items": TEXT}, '["{}"]'),
    "objects": ("keyframes", OBJECTS, '[{{"image_url": "{}"}}]'),
}


@pytest.mark.parametrize("case", FILES)
def test_a_local_file_is_uploaded_where_a_file_goes(
    fal: Sandbox, cli: Cli, photo: Path, case: str
) -> None:
    name, schema, form = FILES[case]
    tell(fal, {name: schema})
    done = cli(*SUBMIT, "--arg", f"{name}={form.format(photo.name)}")
    assert done.status == 0, done.stderr
    (upload,) = fal.uploads
    assert upload.content == photo.read_bytes()
    assert [value for value in leaves(arguments(fal)) if value != "A cat"] == [upload.url]


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_there_is_refused(fal: Sandbox, cli: Cli, case: str) -> None:
    name, schema, form = FILES[case]
    tell(fal, {name: schema})
    done = cli(*SUBMIT, "--arg", f"{name}={form.format('missing.png')}")
    assert_nothing_sent(fal, done)
    assert done.error["type"] == "usage_error"
    assert "missing.png" in done.error["message"]


@pytest.mark.parametrize("field", ["image_url", "model_image"])
def test_a_text_is_no_media_file(fal: Sandbox, cli: Cli, tmp_path: Path, field: str) -> None:
    (tmp_path / "id_dummy").write_text("-----BEGIN EXAMPLE KEY-----\n")
    tell(fal, {field: TEXT})
    done = cli(*SUBMIT, "--arg", f"{field}=id_dummy")
    assert_nothing_sent(fal, done)
    assert done.error["message"] == "not a media file: id_dummy"


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_each_of_several_files_is_uploaded(
    fal: Sandbox, cli: Cli, photo: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "b.png")
    tell(fal, {"image_urls": {"type": "array", "items": TEXT}})
    words = [word for name in ("b.png", A, photo.name) for word in ("--arg", f"image_urls={name}")]
    assert cli(*SUBMIT, *words).status == 0
    urls = {upload.name: upload.url for upload in fal.uploads}
    assert arguments(fal)["image_urls"] == [urls["b.png"], A, urls[photo.name]]


@pytest.mark.parametrize("field", ["title", "seed_text"])
def test_the_name_of_a_file_stays_text_where_text_is_wanted(
    fal: Sandbox, cli: Cli, photo: Path, field: str
) -> None:
    tell(fal, {field: TEXT})
    assert cli(*SUBMIT, "--arg", f"{field}={photo.name}").status == 0
    assert (arguments(fal)[field], fal.uploads) == (photo.name, [])


def test_a_dry_run_shows_the_file_and_uploads_nothing(fal: Sandbox, cli: Cli, photo: Path) -> None:
    tell(fal, {"model_image": TEXT})
    done = cli(*SUBMIT, "--arg", f"model_image={photo.name}", "--dry-run")
    assert done.json["arguments"] == {"prompt": "A cat", "model_image": photo.name}
    assert (fal.uploads, fal.jobs) == ([], {})


@pytest.mark.parametrize(("field", "flags"), [("model_image", ()), ("mask_url", ("--no-schema",))])
def test_a_journal_matches_files_by_what_they_hold(
    fal: Sandbox, cli: Cli, photo: Path, tmp_path: Path, field: str, flags: tuple[str, ...]
) -> None:
    tell(fal, {field: TEXT})
    batch = ("batch-t2i", "--model", MODEL, "--prompts", "A cat", "--journal", "j", *flags)
    assert cli(*batch, "--arg", f"{field}={photo.name}").status == 0
    photo.rename(tmp_path / "other.jpg")
    assert cli(*batch, "--arg", f"{field}=other.jpg").status == 0
    assert len(fal.jobs) == 1
    Image.new("RGB", (4, 4), "red").save(tmp_path / "other.jpg")
    assert cli(*batch, "--arg", f"{field}=other.jpg").status == 0
    assert len(fal.jobs) == 2


# Files of jobs


def rows(tmp_path: Path, *jobs: Mapping[str, Any]) -> tuple[str, ...]:
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, jobs)))
    return ("batch-t2i", "--model", MODEL, "--prompts-file", "rows")


def test_arg_in_a_file_of_jobs(fal: Sandbox, cli: Cli, photo: Path, tmp_path: Path) -> None:
    fields = {"strength": NUMBER, "seed_text": TEXT, "model_image": TEXT, "loud": {}}
    tell(fal, {**fields, "images": {"type": "array", "items": TEXT}})
    own = {"strength": "0.25", "seed_text": 123, "model_image": photo.name, "images": [A]}
    done = cli(*rows(tmp_path, {"prompt": "A", "arg": own}, {"prompt": "B", "arg": {"loud": True}}))
    assert done.status == 0, done.stderr
    (upload,) = fal.uploads
    by_prompt = {job.arguments["prompt"]: job.arguments for job in fal.jobs.values()}
    assert by_prompt == {
        "A": {
            "prompt": "A",
            "strength": 0.25,
            "seed_text": "123",
            "model_image": upload.url,
            "images": [A],
        },
        "B": {"prompt": "B", "loud": True},
    }


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ({"strenght": 0.5}, "strenght: the model has no such argument. Did you mean strength?"),
        ({"strength": "big"}, 'strength: "big" is not number'),
        ({"model_image": "missing.png"}, "missing.png"),
        (7, "rows, line 2: argument --arg: must be a JSON object"),
        ("strength=0.5", "rows, line 2: argument --arg: not valid JSON"),
    ],
)
def test_a_wrong_arg_in_a_file_of_jobs(
    fal: Sandbox, cli: Cli, tmp_path: Path, arg: object, said: str
) -> None:
    tell(fal, {"strength": NUMBER, "model_image": TEXT})
    done = cli(*rows(tmp_path, {"prompt": "A"}, {"prompt": "B", "arg": arg}))
    assert_nothing_sent(fal, done)
    assert said in done.error["message"]


# One size, said in one way

TWO_SIZES = [
    {"width": 512, "aspect_ratio": "1:1"},
    {"height": 512, "resolution": "2K"},
    {"width": 512, "height": 256, "aspect_ratio": "2:1"},
    {"width": 512, "height": 256, "aspect_ratio": "2:1", "resolution": "1K"},
]


def flagged(values: Mapping[str, Any]) -> dict[str, str]:
    return {f"--{name.replace('_', '-')}": str(value) for name, value in values.items()}


@pytest.mark.parametrize("schema", [(), ("--no-schema",)], ids=["schema", "no schema"])
@pytest.mark.parametrize("size", TWO_SIZES)
def test_a_size_that_is_said_in_two_ways(
    fal: Sandbox, cli: Cli, size: dict[str, Any], schema: tuple[str, ...]
) -> None:
    words = [word for pair in flagged(size).items() for word in pair]
    for argv in (SUBMIT, (*SUBMIT_I2V, "--image-url", A)):
        done = cli(*argv, *words, *schema)
        assert_nothing_sent(fal, done)
        assert done.error["type"] == "usage_error"
        assert [flag for flag in flagged(size) if flag not in done.error["message"]] == []
    assert fal.requests == []


@pytest.mark.parametrize("shared", [(), ("--width", "512", "--height", "256")], ids=" ".join)
def test_a_job_in_a_file_says_its_size_in_one_way(
    fal: Sandbox, cli: Cli, tmp_path: Path, shared: tuple[str, ...]
) -> None:
    """Be it in its own line, or in its line and in the flags of all."""
    own = {"aspect_ratio": "2:1"} if shared else TWO_SIZES[-1]
    done = cli(*rows(tmp_path, {"prompt": "A"}, {"prompt": "B", **own}), *shared)
    assert_nothing_sent(fal, done)
    assert done.error["type"] == "usage_error"
    assert "--aspect-ratio" in done.error["message"]
    assert "--width" in done.error["message"]
    assert fal.requests == []


# Which flag sets a field


def test_the_schema_names_the_flag_of_each_field(fal: Sandbox, cli: Cli) -> None:
    flags = {
        "prompt": "--prompt",
        "start_image_url": "--image-url",
        "end_image_url": "--image-url (the second)",
        "negative_prompt": "--negative-prompt",
        "aspect_ratio": "--aspect-ratio",
        "resolution": "--resolution",
        "duration": "--duration",
        "num_images": "--num-images",
        "seed": "--seed",
        "cfg_scale": "--guidance-scale",
        "steps": "--num-inference-steps",
        "audio_url": "--arg audio_url=",
        "loras": "--arg loras=",
    }
    numbers = ("duration", "num_images", "seed", "cfg_scale", "steps")
    schemas: dict[str, Any] = {name: NUMBER if name in numbers else TEXT for name in flags}
    schemas["aspect_ratio"] = {"enum": ["1:1", "16:9"]}
    schemas["resolution"] = {"enum": ["720p", "1080p"]}
    schemas["loras"] = {"type": "array", "items": {"type": "object"}}
    tell(fal, schemas)
    done = cli("list-models", "--schema", MODEL)
    table = [line.split("\t") for line in done.stdout.splitlines()]
    assert {columns[0]: columns[4] for columns in table} == flags


# file: URLs and model pages


@pytest.fixture
def spaced(tmp_path: Path, photo: Path) -> Path:
    """A picture whose path needs quoting in a URL."""
    path = tmp_path / "a b%é.jpg"
    photo.rename(path)
    return path


@pytest.mark.parametrize("form", ["file://{}", "FILE://{}", "file://localhost{}"])
@pytest.mark.parametrize("way", ["--image-url", "--arg"])
def test_a_file_url_is_the_path_that_it_names(
    fal: Sandbox, cli: Cli, spaced: Path, way: str, form: str
) -> None:
    url = form.format(spaced.as_uri().removeprefix("file://"))
    words = ("--image-url", url) if way == "--image-url" else ("--arg", f"image_url={url}")
    done = cli("submit-i2v", "--model", KLING, "--prompt", "Go", *words)
    assert done.status == 0, done.stderr
    (upload,) = fal.uploads
    assert upload.content == spaced.read_bytes()
    assert arguments(fal) == {"prompt": "Go", "image_url": upload.url}


def test_a_dry_run_shows_the_path_of_a_file_url(fal: Sandbox, cli: Cli, spaced: Path) -> None:
    argv = ("--model", KLING, "--prompt", "Go", "--image-url", spaced.as_uri())
    done = cli("submit-i2v", *argv, "--dry-run")
    assert done.json["arguments"]["image_url"] == str(spaced)


def test_a_file_url_of_no_file(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    url = (tmp_path / "missing.png").as_uri()
    done = cli("submit-i2v", "--model", KLING, "--image-url", url)
    assert_nothing_sent(fal, done)
    assert f"no such file: {tmp_path}/missing.png" in done.error["message"]


PAGES = [
    f"https://fal.ai/models/{FLUX}",
    f"https://fal.ai/models/{FLUX}/",
    f"http://www.fal.ai/models/{FLUX}",
    f"HTTPS://Fal.AI/models/{FLUX}",
    f" https://fal.ai/models/{FLUX}\n",
]


@pytest.mark.parametrize("page", PAGES, ids=ascii)
def test_the_page_of_a_model_names_it(fal: Sandbox, cli: Cli, page: str) -> None:
    done = cli("submit-t2i", "--model", page, "--prompt", "A cat")
    assert (done.status, done.json["model"], paid(fal)) == (0, FLUX, [FLUX])


def test_the_page_of_a_model_names_it_in_every_command(fal: Sandbox, cli: Cli) -> None:
    request_id = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat").json["request_id"]
    job = ("--model", PAGES[0], "--request-id", request_id)
    assert [cli(command, *job).status for command in ("status", "result")] == [0, 0]
    by_page = cli("list-models", "--schema", PAGES[0])
    assert (by_page.status, by_page.stdout) == (0, cli("list-models", "--schema", FLUX).stdout)


@pytest.mark.parametrize(
    "page",
    [
        "https://fal.ai/models",
        "https://fal.ai/models/flux",
        f"https://fal.ai/docs/{FLUX}",
        f"https://example.com/models/{FLUX}",
        f"https://fal.ai.example.com/models/{FLUX}",
        f"ftp://fal.ai/models/{FLUX}",
        "https://fal.ai/models/fal-ai/../admin",
    ],
)
def test_another_page_is_no_model(fal: Sandbox, cli: Cli, page: str) -> None:
    done = cli("submit-t2i", "--model", page, "--prompt", "A cat")
    assert_nothing_sent(fal, done)
    assert done.error["message"].startswith("argument --model: not an endpoint")
    assert fal.requests == []


# URLs that fal cannot reach

HERE = [
    "http://localhost/a.png",
    "HTTPS://LOCALHOST:8000/a.png",
    "http://127.0.0.1:8000/a.png",
    "http://127.1/a.png",
    "http://2130706433/a.png",
    "http://10.0.0.5/a.png",
    "http://172.16.0.5/a.png",
    "http://192.168.1.5./a.png",
    "http://169.254.169.254/a.png",
    "http://[::1]/a.png",
    "http://[fd00::5]/a.png",
    "http://[::ffff:10.0.0.5]/a.png",
    "http://nas/a.png",
    "http://printer.local/a.png",
    "http://me@localhost/a.png",
]
ITSELF = "Name the local file itself: it is uploaded."


REFUSED = f"fal cannot reach {HERE[0]}"


@pytest.mark.parametrize("url", HERE)
def test_a_picture_where_fal_cannot_fetch_it(fal: Sandbox, cli: Cli, url: str) -> None:
    done = cli("submit-i2v", "--model", KLING, "--image-url", url, "--no-schema")
    assert_nothing_sent(fal, done)
    assert (done.error["type"], done.error["hint"]) == ("usage_error", ITSELF)
    assert (
        done.error["message"] == f"argument --image-url: fal cannot reach {url.replace('me@', '')}"
    )
    assert fal.requests == []


@pytest.mark.parametrize("flags", [(), ("--no-schema",), ("--dry-run",)], ids=" ".join)
@pytest.mark.parametrize(
    "words",
    [
        ("--image-url", HERE[0]),
        ("--arg", f"image_url={HERE[0]}"),
        ("--arg", f"image_urls={HERE[0]}", "--arg", f"image_urls={A}"),
        ("--arg", json.dumps([{"image_url": HERE[0]}]).join(("frames=", ""))),
        ("--image-url", A, "--extra-json", json.dumps({"deep": [{"mask_url": HERE[0]}]})),
        ("--image-url", A, "--extra-json", json.dumps({"audio_urls": [A, HERE[0]]})),
    ],
)
def test_a_url_that_fal_cannot_reach_is_refused_wherever_it_stands(
    fal: Sandbox, cli: Cli, words: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    if words.count("--arg") == 2 and "--no-schema" in flags:
        words = ("--arg", f'image_urls=["{A}", "{HERE[0]}"]')
    tell(
        fal, {"image_url": TEXT, "image_urls": {"type": "array", "items": TEXT}, "frames": OBJECTS}
    )
    done = cli(*SUBMIT_I2V, *words, *flags)
    assert_nothing_sent(fal, done)
    assert done.error["message"].removeprefix("argument --image-url: ") == REFUSED
    assert done.error["hint"] == ITSELF


def test_one_url_that_fal_cannot_reach_stops_a_batch(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-i2v", "--model", KLING, "--prompt", "Go", "--image-urls", A, HERE[0])
    assert_nothing_sent(fal, done)
    assert HERE[0] in done.error["message"]


@pytest.mark.parametrize("url", HERE)
def test_fal_cannot_call_back_here(
    fal: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
) -> None:
    monkeypatch.setenv("FAL_KEY", "")
    assert skill_fal.main((*SUBMIT, "--no-schema", "--webhook-url", url)) == 2
    error = Outcome(2, *capsys.readouterr()).error
    assert error["message"] == f"argument --webhook-url: fal cannot reach {url.replace('me@', '')}"


def test_what_fal_can_reach_is_sent(fal: Sandbox, cli: Cli) -> None:
    urls = [
        A,
        "https://8.8.8.8/a.png",
        "https://[2606:4700:4700::1111]/a.png",
        "https://localhost.example.com:8443/a.png?from=localhost",
        "https://example.com/http://localhost/a.png",
        "data:image/png;base64,aGkgbG9jYWxob3N0",
    ]
    tell(fal, {"image_urls": {"type": "array", "items": TEXT}})
    words = [word for url in urls for word in ("--image-url", url)]
    done = cli(*SUBMIT_I2V, *words, "--webhook-url", "https://8.8.8.8/hook")
    assert done.status == 0, done.stderr
    assert arguments(fal)["image_urls"] == urls


# Endpoints that fal does not know

UNKNOWN = "fal-ai/flux-9/dev"
NO_SUCH = Reply(404, json={"error": {"type": "not_found", "message": "No such endpoint"}})
NOT_KNOWN = f"fal's model search does not know {UNKNOWN}"


def found(*ids: str) -> Reply:
    rows = [{"endpoint_id": endpoint_id} for endpoint_id in ids]
    return Reply(json={"models": rows, "next_cursor": None, "has_more": False})


def accepted(fal: Sandbox) -> None:
    """Let fal's queue take the job, whatever the endpoint."""
    url = f"https://queue.fal.run/{UNKNOWN}/requests/some-id"
    names = {"response_url": "", "status_url": "/status", "cancel_url": "/cancel"}
    urls = {name: url + end for name, end in names.items()}
    fal.on("POST", "queue.fal.run", "*", Reply(json={"request_id": "some-id", **urls}))


def searches(fal: Sandbox) -> list[dict[str, str]]:
    place = ("GET", "api.fal.ai", "/v1/models")
    found = [one for one in fal.requests if (one.method, one.host, one.path) == place]
    return [one.query for one in found if not is_look_up(one)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (found("acme/other", "acme/flux-9/dev"), ". Did you mean acme/flux-9/dev?"),
        (found("fal-ai/flux-9/dev/edit"), ". Did you mean fal-ai/flux-9/dev/edit?"),
        (found("quite/another"), ". Search fal's models: "),
        (found(), ". Search fal's models: "),
    ],
    ids=["owner", "longer", "unlike", "none"],
)
def test_likely_endpoints_come_from_one_search(
    fal: Sandbox, cli: Cli, answer: Reply, said: str
) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", NO_SUCH, answer)
    accepted(fal)
    done = cli("submit-t2i", "--model", UNKNOWN, "--prompt", "A cat", "--seed", "5")
    assert (done.status, done.json["request_id"], paid(fal)) == (0, "some-id", [UNKNOWN])
    (note,) = done.notes.splitlines()
    start = f"note: the model's arguments were not checked: {NOT_KNOWN}"
    assert note.startswith(start + said)
    assert [query["q"] for query in searches(fal)] == ["flux-9"]
    assert len(fal.requests) == 3  # the look-up, the search, the job
    assert fal.requests[-1].json == {"prompt": "A cat", "seed": 5}


def test_the_likely_endpoints_are_those_of_the_catalog(fal: Sandbox, cli: Cli) -> None:
    model = "fal-ai/kling-video/v2/mastr/image-to-video"
    done = cli("list-models", "--schema", model)
    assert (done.status, done.error["type"]) == (1, "not_found")
    assert done.error["message"] == f"fal's model search does not know {model}"
    assert done.error["hint"].startswith(f"Did you mean {KLING}")
    assert len(searches(fal)) == 1


ODD_SEARCHES = {
    "an error": Reply(500, json={"error": {"type": "server_error", "message": "Oh no"}}),
    "HTML": Reply(text="<html>"),
    "a list": Reply(json=[1]),
    "no list": Reply(json={"models": {"endpoint_id": "a/b"}}),
    "odd rows": Reply(json={"models": [7, None, [], {"endpoint_id": 7}, {}]}),
}


@pytest.mark.parametrize("case", ODD_SEARCHES)
def test_a_search_that_fails_stands_in_nobodys_way(fal: Sandbox, cli: Cli, case: str) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", NO_SUCH, fal.always(ODD_SEARCHES[case]))
    accepted(fal)
    done = cli("submit-t2i", "--model", UNKNOWN, "--prompt", "A cat")
    assert (done.status, paid(fal)) == (0, [UNKNOWN])
    assert f"{NOT_KNOWN}. Search fal's models: " in done.notes
    assert "Did you mean" not in done.notes


def test_strict_pays_for_nothing_that_fal_does_not_know(fal: Sandbox, cli: Cli) -> None:
    likely = found("acme/flux-9/dev")
    fal.on("GET", "api.fal.ai", "/v1/models", NO_SUCH, likely)
    done = cli("submit-t2i", "--model", UNKNOWN, "--prompt", "A cat", "--strict")
    assert (done.status, done.stdout, paid(fal)) == (1, "", [])
    assert (done.error["type"], done.error["message"]) == ("not_found", NOT_KNOWN)
    assert done.error["hint"] == "Did you mean acme/flux-9/dev?"


def test_a_dry_run_says_that_fal_does_not_know_the_endpoint(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", NO_SUCH, found("acme/flux-9/dev"))
    done = cli("submit-t2i", "--model", UNKNOWN, "--prompt", "A cat", "--dry-run")
    assert done.json["schema"] == "none"
    said = f"the model's arguments were not checked: {NOT_KNOWN}. Did you mean acme/flux-9/dev?"
    assert done.json["notes"][0] == said


def test_a_batch_searches_once(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", NO_SUCH, found("acme/flux-9/dev"))
    done = cli("batch-t2i", "--model", UNKNOWN, "--prompts", "A", "B", "C", "--dry-run")
    assert (done.status, len(done.lines), len(searches(fal))) == (0, 3, 1)


def test_who_wants_no_schema_wants_no_search(fal: Sandbox, cli: Cli) -> None:
    accepted(fal)
    done = cli("submit-t2i", "--model", UNKNOWN, "--prompt", "A cat", "--no-schema")
    assert (done.status, done.notes, searches(fal), len(fal.requests)) == (0, "", [], 1)


# Files whatever their field is called, and what is told where something is not sent


@pytest.mark.parametrize("field", ["model_image", "portrait", "reference"])
def test_a_local_picture_is_uploaded_whatever_its_field_is_called(
    fal: Sandbox, cli: Cli, photo: Path, field: str
) -> None:
    described = {**TEXT, "format": "uri", "description": "The picture to start from."}
    tell(fal, {field: described}, field)
    assert cli(*SUBMIT_I2V, "--image-url", photo.name).status == 0
    (upload,) = fal.uploads
    assert arguments(fal)[field] == upload.url


@pytest.mark.parametrize("field", ["model_image", "portrait"])
def test_a_url_that_fal_cannot_reach_is_refused_in_any_field(
    fal: Sandbox, cli: Cli, field: str
) -> None:
    tell(fal, {field: TEXT}, field)
    done = cli(*SUBMIT_I2V, "--arg", f"{field}=http://192.168.1.2/a.png")
    assert_nothing_sent(fal, done)
    assert done.error["message"] == "fal cannot reach http://192.168.1.2/a.png"


@pytest.mark.parametrize("flag", ["--image-url", "--webhook-url"])
def test_a_url_that_is_none(fal: Sandbox, cli: Cli, flag: str) -> None:
    done = cli(*SUBMIT, flag, "http://[bad/a.png")
    assert_nothing_sent(fal, done)
    assert "not a URL: http://[bad/a.png" in done.error["message"]


def test_the_name_of_a_picture_that_goes_as_text_is_noted(
    fal: Sandbox, cli: Cli, photo: Path
) -> None:
    tell(fal, {"outfit": {**TEXT, "description": "What to wear."}})
    done = cli(*SUBMIT, "--arg", f"outfit={photo.name}")
    assert f"note: outfit is sent as text, not as the file {photo.name}\n" in done.notes
    assert arguments(fal)["outfit"] == photo.name


def test_numbers_given_twice_make_a_list_of_numbers(fal: Sandbox, cli: Cli) -> None:
    tell(fal, {"levels": {"type": "array", "items": NUMBER}})
    assert cli(*SUBMIT, "--arg", "levels=7", "--arg", "levels=8").status == 0
    assert json.dumps(arguments(fal)["levels"]) == "[7, 8]"


def test_names_given_twice_go_without_a_schema(fal: Sandbox, cli: Cli) -> None:
    assert cli(*SUBMIT, "--no-schema", "--arg", "m=1", "--arg", "m=b").status == 0
    assert arguments(fal)["m"] == [1, "b"]


def test_a_jobs_own_arguments_come_beside_those_of_all(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    tell(fal, {"mode": TEXT, "strength": NUMBER})
    (tmp_path / "jobs.txt").write_text('{"prompt": "A", "arg": {"strength": 0.5}}')
    argv = ("--model", MODEL, "--prompts-file", "jobs.txt", "--arg", "mode=b")
    assert cli("batch-t2i", *argv).status == 0
    assert arguments(fal) == {"prompt": "A", "mode": "b", "strength": 0.5}


def test_a_job_may_name_its_prompt_as_the_model_does(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    tell(fal, {})
    (tmp_path / "jobs.txt").write_text('{"arg": {"prompt": "A"}}')
    assert cli("batch-t2i", "--model", MODEL, "--prompts-file", "jobs.txt").status == 0
    assert arguments(fal) == {"prompt": "A"}


@pytest.mark.parametrize(
    ("flags", "noted"),
    [
        (("--width", "640", "--height", "480"), "--width and --height"),
        (("--aspect-ratio", "4:3"), "--aspect-ratio"),
    ],
    ids=["pixels", "shape"],
)
def test_a_size_that_arg_has_said_already(
    fal: Sandbox, cli: Cli, flags: tuple[str, ...], noted: str
) -> None:
    tell(fal, {"image_size": {"enum": ["square", "landscape_4_3"]}})
    done = cli(*SUBMIT, *flags, "--arg", "image_size=square")
    assert done.notes == f"note: {noted}: --arg has image_size, which is sent as it is\n"
    assert arguments(fal)["image_size"] == "square"


def test_a_picture_that_arg_has_given_already(fal: Sandbox, cli: Cli) -> None:
    tell(fal, {"image_url": TEXT})
    done = cli(*SUBMIT, "--image-url", A, "--arg", f"image_url={A}")
    assert_nothing_sent(fal, done)
    assert "the model takes no further image: --arg has image_url" in done.error["message"]


@pytest.mark.parametrize("tail", ["/api", "/playground", "?share=1", "/api/#top"])
def test_the_pages_beside_a_models_page_name_it(fal: Sandbox, cli: Cli, tail: str) -> None:
    done = cli("submit-t2i", "--model", f"https://fal.ai/models/{FLUX}{tail}", "--prompt", "A cat")
    assert (done.status, done.json["model"]) == (0, FLUX)


def test_a_file_url_with_one_slash(fal: Sandbox, cli: Cli, photo: Path) -> None:
    done = cli("submit-i2v", "--model", KLING, "--image-url", f"file:{photo.resolve()}")
    assert (done.status, len(fal.uploads)) == (0, 1)


def test_a_file_url_in_extra_json(fal: Sandbox, cli: Cli, photo: Path) -> None:
    extra = json.dumps({"mask_url": f"file://{photo.resolve()}"})
    assert cli(*SUBMIT, "--extra-json", extra).status == 0
    (upload,) = fal.uploads
    assert arguments(fal)["mask_url"] == upload.url
