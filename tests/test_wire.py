"""Every flag that a command accepts reaches the wire, or its effect is seen here.

Each command is run once with all of its flags. A flag without a row in the tables below
fails the test of its command, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_fitting
import test_gallery
import test_journal
import test_money
import test_once
import test_prompts_files
import test_saving
from conftest import (
    FOR_EVER,
    LEAP,
    Cli,
    Clock,
    Late,
    Outcome,
    Starter,
    finished,
    is_look_up,
    leaping,
    sent,
    telling,
)
from PIL import Image
from sandbox import Latency, Reply, Sandbox, Stall
from sandbox.scripting import Recorded

import skill_fal

VERBS = ("submit", "subscribe", "run", "stream", "batch")
GENERATION = tuple(f"{verb}-{kind}" for verb in VERBS for kind in ("t2i", "i2v"))
PICTURE = "https://example.com/first.png"
OTHER_PICTURE = "https://example.com/second.png"
SIZE = {"t2i": "image_size", "i2v": "video_size"}
MODEL = {"t2i": ("fal-ai/flux", "dev"), "i2v": ("fal-ai/minimax-video", "image-to-video")}


@pytest.fixture
def cli(cli: Cli, clock: Clock) -> Cli:
    """Runs skill_fal.py; to look for a lost job on the account takes no time."""
    return leaping(cli, clock)


@dataclass(frozen=True)
class Row:
    """What stands after a flag, where to look for it in a request, and what is there."""

    values: tuple[str, ...]
    look: Callable[[Recorded], Any]
    expected: Any


def argument(name: str) -> Callable[[Recorded], Any]:
    return lambda request: request.json.get(name)


def side_of(size: str, name: str) -> Callable[[Recorded], Any]:
    return lambda request: request.json[size][name]


def header(*names: str) -> Callable[[Recorded], Any]:
    return lambda request: next((request.headers[n] for n in names if n in request.headers), None)


def query(name: str) -> Callable[[Recorded], Any]:
    return lambda request: request.query.get(name)


def first_segments(request: Recorded) -> str:
    return "/".join(request.path.split("/")[1:3])


def last_segments(request: Recorded) -> str:
    return "/".join(request.path.split("/")[3:])


def start_timeout(request: Recorded) -> float:
    """fal knows the header under an old and a new name."""
    value = header("x-fal-request-start-timeout", "x-fal-request-timeout")(request)
    return float(value or "nan")


ROWS = {
    "--prompt": Row(("A red kite",), argument("prompt"), "A red kite"),
    "--prompt-file": Row(("prompt.txt",), argument("prompt"), "A prompt from a file"),
    "--prompts": Row(("A red kite",), argument("prompt"), "A red kite"),
    "--image-url": Row((PICTURE,), argument("image_url"), PICTURE),
    "--image-urls": Row((PICTURE,), argument("image_url"), PICTURE),
    "--negative-prompt": Row(("no fog",), argument("negative_prompt"), "no fog"),
    "--num-images": Row(("3",), argument("num_images"), 3),
    "--seed": Row(("987654",), argument("seed"), 987654),
    "--guidance-scale": Row(("4.25",), argument("guidance_scale"), 4.25),
    "--num-inference-steps": Row(("17",), argument("num_inference_steps"), 17),
    "--duration": Row(("6.5",), argument("duration"), 6.5),
    "--aspect-ratio": Row(("21:9",), argument("aspect_ratio"), "21:9"),
    "--resolution": Row(("2K",), argument("resolution"), "2K"),
    "--arg": Row(('loras=[{"path": "a"}]',), argument("loras"), [{"path": "a"}]),
    "--extra-json": Row(('{"scheduler": {"k": [1]}}',), argument("scheduler"), {"k": [1]}),
    "--hint": Row(("runner-7",), header("x-fal-runner-hint"), "runner-7"),
    "--priority": Row(("low",), header("x-fal-queue-priority"), "low"),
    "--start-timeout": Row(("77",), start_timeout, 77),
    "--webhook-url": Row(
        ("https://example.com/hook?a=1&b=%C3%BC",),
        query("fal_webhook"),
        "https://example.com/hook?a=1&b=%C3%BC",
    ),
}

# What never leaves the machine, with the tests that prove what it does.
LOCAL = {
    "--client-timeout": "test_client_timeout_ends_every_verb",
    "--output": "test_output_saves_the_pictures",
    "--overwrite": "test_overwrite_replaces_a_file",
    "--max-bytes": "test_an_announced_size_is_refused_at_once",
    "--media": "test_media_lines_instead_of_the_json",
    "--metadata": "test_metadata_tells_how_to_make_it_again",
    "--gallery": "test_a_page_shows_the_jobs_of_a_batch",
    "--concurrency": "test_concurrency_bounds_the_jobs_under_way",
    "--keep": "test_keep_leaves_the_jobs_running",
    "--prompts-file": "test_prompts_from_a_file",
    "--image-urls-file": "test_images_from_a_file",
    "--journal": "test_a_journal_is_taken_up_again",
    "--retry-unknown": "test_what_is_in_doubt_is_repeated_on_request_alone",
    "--retry-failed": "test_what_failed_is_repeated_on_request_alone",
    "--json": "test_json_makes_a_document_of_text",
    "--no-logs": "test_no_logs_asks_for_none",
    "--no-wait": "test_no_wait_fails_while_the_job_runs",
    "--categories": "test_categories_counts_the_active_models",
    "--no-schema": "test_no_schema_neither_asks_nor_applies",
    "--strict": "test_strict_fails_on_what_the_model_has_not",
    "--dry-run": "test_dry_run_sends_nothing",
    "--schema": "test_list_models_schema",
    "--max-cost": "test_a_limit_lets_through_what_costs_no_more",
    "--price": "test_prices_as_text",
}


def flags_of(command: str) -> list[str]:
    return [flag.name for flag in skill_fal.COMMANDS[command].flags]


def test_every_command_is_tested_here() -> None:
    assert set(skill_fal.COMMANDS) == {
        *GENERATION,
        *OTHER_COMMANDS,
        "realtime",
        *SILENT,
        *ELSEWHERE,
    }


@pytest.mark.parametrize("name", LOCAL.values())
def test_the_tests_named_above_exist(name: str) -> None:
    modules = (
        *(test_fitting, test_gallery, test_journal, test_money, test_once),
        *(test_prompts_files, test_saving),
    )
    homes = (globals(), *map(vars, modules))
    assert any(callable(home.get(name)) for home in homes)


def sse_reply() -> Reply:
    events = b'data: {"done": true}\n\n'
    return Reply(content=events, headers={"content-type": "text/event-stream"})


def arguments_of(planned: Outcome) -> list[Any]:
    """What a dry run says that would be sent, of one job or of each of a batch."""
    texts = planned.stdout.splitlines()
    if texts[0] == "{":  # one document, over several lines
        texts = [planned.stdout]
    return [json.loads(text)["arguments"] for text in texts]


def starting_requests(fal: Sandbox) -> list[Recorded]:
    """The requests that start jobs."""
    hosts = ("queue.fal.run", "fal.run")
    return [r for r in fal.requests if r.host in hosts and r.method == "POST"]


IN_PIXELS, IN_WORDS = ("--width", "--height"), ("--aspect-ratio", "--resolution")


@pytest.mark.parametrize(
    "local",
    [("--prompt", *IN_PIXELS), ("--prompt-file", *IN_WORDS, "--quiet")],
    ids=" ".join,
)
@pytest.mark.parametrize("command", GENERATION)
def test_generation_flags(
    fal: Sandbox, cli: Cli, tmp_path: Path, command: str, local: tuple[str, ...]
) -> None:
    """Twice, for --prompt and --prompt-file exclude each other, as do the ways to say a size; the
    second time in silence.

    The flags go as they are: what a model's own schema makes of them is another matter.
    """
    verb, _, kind = command.partition("-")
    if verb == "stream":
        fal.on("POST", "fal.run", "*", sse_reply())
    (tmp_path / "prompt.txt").write_text("A prompt from a file\n")
    app, sub_path = MODEL[kind]
    rows = {
        **ROWS,
        "--model": Row((app,), first_segments, app),
        "--path": Row((sub_path,), last_segments, sub_path),
        "--width": Row(("640",), side_of(SIZE[kind], "width"), 640),
        "--height": Row(("384",), side_of(SIZE[kind], "height"), 384),
    }
    left_out = {"--prompt", "--prompt-file", *IN_PIXELS, *IN_WORDS, *LOCAL} - {*local}
    flags = [flag for flag in flags_of(command) if flag not in left_out]
    assert [flag for flag in flags if flag not in rows] == []
    argv = [word for flag in flags for word in (flag, *rows[flag].values)]
    silence = [flag for flag in local if flag == "--quiet"]
    planned = cli(command, "--no-schema", *argv, "--dry-run")
    assert (planned.status, starting_requests(fal)) == (0, [])
    done = cli(command, "--no-schema", *argv, *silence)
    assert (done.status, bool(done.stdout)) == (0, True), done.stderr
    (request,) = starting_requests(fal)
    found = {flag: rows[flag].look(request) for flag in flags}
    assert found == {flag: rows[flag].expected for flag in flags}
    assert arguments_of(planned) == [request.json]
    if silence:
        assert done.stderr == ""


IN_SCHEMA = {
    "prompt": {"type": "string"},
    "negative_prompt": {"type": "string"},
    "image_url": {"type": "string"},
    "image_size": {
        "type": "object",
        "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
    },
    "aspect_ratio": {"enum": ["1:1", "21:9"]},
    "resolution": {"enum": ["1K", "2K"]},
    "duration": {"type": "number"},
    "num_images": {"type": "integer"},
    "seed": {"type": "integer"},
    "guidance_scale": {"type": "number"},
    "num_inference_steps": {"type": "integer"},
    "loras": {"type": "array", "items": {"type": "object"}},
    "scheduler": {"type": "object"},
}


@pytest.mark.parametrize("size", [IN_PIXELS, IN_WORDS], ids=" ".join)
@pytest.mark.parametrize("command", GENERATION)
def test_generation_flags_by_a_schema(
    fal: Sandbox, cli: Cli, command: str, size: tuple[str, ...]
) -> None:
    """A model that has all that there are flags for gets all, and a dry run shows it."""
    verb, _, kind = command.partition("-")
    if verb == "stream":
        fal.on("POST", "fal.run", "*", sse_reply())
    endpoint = "/".join(MODEL[kind])
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(telling(endpoint, IN_SCHEMA)))
    rows = {
        **ROWS,
        "--width": Row(("640",), side_of("image_size", "width"), 640),
        "--height": Row(("384",), side_of("image_size", "height"), 384),
    }
    model_flags = {flag.name for flag in skill_fal.MODEL_FLAGS} | {"--prompts", "--image-urls"}
    left_out = {"--prompt-file", *IN_PIXELS, *IN_WORDS} - {*size}
    flags = [flag for flag in flags_of(command) if flag in model_flags - left_out]
    argv = [word for flag in flags for word in (flag, *rows[flag].values)]
    planned = cli(command, "--model", endpoint, *argv, "--strict", "--dry-run")
    assert (planned.status, starting_requests(fal)) == (0, []), planned.stderr
    done = cli(command, "--model", endpoint, *argv, "--strict")
    assert done.status == 0, done.stderr
    (request,) = starting_requests(fal)
    found = {flag: rows[flag].look(request) for flag in flags}
    assert found == {flag: rows[flag].expected for flag in flags}
    assert arguments_of(planned) == [request.json]


@pytest.mark.parametrize("command", GENERATION)
def test_the_common_flags_are_accepted_everywhere(command: str) -> None:
    common = {
        "--hint",
        "--priority",
        "--start-timeout",
        "--client-timeout",
        "--extra-json",
        "--path",
        "--seed",
        "--width",
        "--height",
        "--aspect-ratio",
        "--resolution",
        "--duration",
        "--num-images",
        "--arg",
        "--guidance-scale",
        "--num-inference-steps",
        "--dry-run",
        "--strict",
        "--no-schema",
        "--max-cost",
    }
    assert common <= set(flags_of(command))
    assert ("--webhook-url" in flags_of(command)) == command.startswith("submit-")


@pytest.mark.parametrize(
    ("command", "flag", "values", "name"),
    [
        ("batch-t2i", "--prompts", ("A red kite", "A blue boat"), "prompt"),
        ("batch-i2v", "--image-urls", (PICTURE, OTHER_PICTURE), "image_url"),
    ],
)
def test_each_job_of_a_batch_takes_all_flags(
    fal: Sandbox, cli: Cli, command: str, flag: str, values: tuple[str, ...], name: str
) -> None:
    shared = ("--seed", "--hint", "--priority", "--start-timeout", "--extra-json")
    app, sub_path = MODEL[command[-3:]]
    argv = [word for shared_flag in shared for word in (shared_flag, *ROWS[shared_flag].values)]
    prompt = ("--prompt", "It rains") if name == "image_url" else ()
    model = ("--model", f"{app}/{sub_path}", "--no-schema")
    done = cli(command, *model, flag, *values, *argv, *prompt)
    assert done.status == 0
    requests = starting_requests(fal)
    assert sorted(request.json[name] for request in requests) == sorted(values)
    for request in requests:
        looks = {row_flag: ROWS[row_flag].look(request) for row_flag in shared}
        assert looks == {row_flag: ROWS[row_flag].expected for row_flag in shared}


@pytest.mark.parametrize("verb", VERBS)
def test_rush_goes_out_as_normal_and_is_noted(fal: Sandbox, cli: Cli, verb: str) -> None:
    fal.on("POST", "fal.run", "*/stream", sse_reply())
    flag = "--prompts" if verb == "batch" else "--prompt"
    argv = ("--model", "fal-ai/flux/dev", flag, "A kite", "--priority", "rush")
    done = cli(f"{verb}-t2i", *argv)
    assert done.status == 0
    (request,) = starting_requests(fal)
    assert request.headers["x-fal-queue-priority"] == "normal"
    assert len([line for line in done.stderr.splitlines() if "rush" in line]) == 1


def test_extra_json_has_the_last_word(fal: Sandbox, cli: Cli) -> None:
    argv = ("--prompt", "A kite", "--seed", "1", "--extra-json", '{"seed": 2, "new": null}')
    cli("submit-t2i", "--model", "fal-ai/flux/dev", *argv)
    (request,) = starting_requests(fal)
    assert request.json == {"prompt": "A kite", "seed": 2, "new": None}


@pytest.mark.parametrize("slash", ["dev", "/dev"])
def test_a_path_may_begin_with_a_slash(fal: Sandbox, cli: Cli, slash: str) -> None:
    done = cli("submit-t2i", "--model", "fal-ai/flux", "--prompt", "A kite", "--path", slash)
    assert (done.status, [r.path for r in sent(fal)]) == (0, ["/fal-ai/flux/dev"])


# --client-timeout: once for each verb, against a job or an answer that does not come


@dataclass(frozen=True)
class Unanswered:
    """A command that must not wait, whether fal does not answer, and how many jobs were paid."""

    argv: tuple[str, ...]
    stalled: bool = True
    jobs: int = 1


LATE = {
    "submit-t2i": Unanswered(("--prompt", "A kite")),
    "subscribe-t2i": Unanswered(("--prompt", "[slow] A kite"), stalled=False),
    "run-t2i": Unanswered(("--prompt", "A kite")),
    "stream-t2i": Unanswered(("--prompt", "A kite")),
    "batch-t2i": Unanswered(("--prompts", "[slow] A", "[slow] B"), stalled=False, jobs=2),
    "realtime": Unanswered(("--arguments-json", '{"prompt": "A kite"}'), jobs=0),
    "status": Unanswered(("--request-id", "some-request"), jobs=0),
    "result": Unanswered(("--request-id", "some-request"), jobs=0),
    "cancel": Unanswered(("--request-id", "some-request"), jobs=0),
}


def test_every_verb_with_a_client_timeout_is_timed_out() -> None:
    with_it = [name for name in skill_fal.COMMANDS if "--client-timeout" in flags_of(name)]
    assert {name.replace("-i2v", "-t2i") for name in with_it} == set(LATE)


@pytest.mark.parametrize("command", LATE)
def test_client_timeout_ends_every_verb(
    fal: Sandbox, cli: Cli, clock: Clock, late: Late, command: str
) -> None:
    case = LATE[command]
    argv = (command, "--model", "fal-ai/flux/dev", *case.argv, "--client-timeout", "5")
    if case.stalled:
        fal.on("*", "*fal.run", "*", fal.always(Stall(FOR_EVER)))
        done = late(*argv, once=lambda request: request.host.endswith("fal.run"))
    else:
        done = cli(*argv, env=clock.env(LEAP))
    assert (done.status, done.stdout) == (5, "")
    assert done.error["type"] == "timeout"
    assert len(starting_requests(fal)) == case.jobs


@pytest.mark.parametrize("command", ["subscribe-t2i", "batch-t2i"])
def test_a_job_that_is_given_up_is_cancelled(
    fal: Sandbox, cli: Cli, clock: Clock, command: str
) -> None:
    flag = "--prompts" if command.startswith("batch") else "--prompt"
    argv = (command, "--model", "fal-ai/flux/dev", flag, "[slow] A kite")
    done = cli(*argv, "--client-timeout", "5", env=clock.env(LEAP))
    assert done.status == 5
    assert [job.cancelled for job in fal.jobs.values()] == [True]


# What has an effect on this side alone


@pytest.mark.parametrize("command", ["subscribe-t2i", "run-t2i", "result"])
def test_output_saves_the_pictures(fal: Sandbox, cli: Cli, tmp_path: Path, command: str) -> None:
    argv = ["--model", "fal-ai/flux/dev", "--prompt", "A kite"]
    if command == "result":
        request_id = cli("submit-t2i", *argv).json["request_id"]
        argv[2:] = ["--request-id", request_id]
    done = cli(command, *argv, "--output", "pictures/")
    assert done.status == 0
    (saved,) = done.json["downloaded_files"]
    path = tmp_path / "pictures" / Path(saved["path"]).name
    assert [path] == list((tmp_path / "pictures").iterdir())
    with Image.open(path) as image:
        assert image.size == (1024, 768)
    assert saved == {
        "path": str(path),
        "url": done.json["images"][0]["url"],
        "content_type": "image/jpeg",
        "bytes": path.stat().st_size,
        "field": "images.0",
    }


def test_output_names_a_file(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    argv = ("--model", "fal-ai/flux/dev", "--prompt", "A kite", "--output", "kite.jpg")
    done = cli("run-t2i", *argv)
    assert [file["path"] for file in done.json["downloaded_files"]] == [str(tmp_path / "kite.jpg")]
    assert (tmp_path / "kite.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_bounds_the_jobs_under_way(
    fal: Sandbox, cli: Cli, clock: Clock, concurrency: int
) -> None:
    fal.latencies["fal-ai/flux/dev"] = Latency(run_seconds=0.4)
    prompts = ("A", "B", "C")
    argv = ("--prompts", *prompts, "--concurrency", str(concurrency))
    done = cli("batch-t2i", "--model", "fal-ai/flux/dev", *argv, env=clock.env(LEAP))
    assert done.status == 0
    jobs = list(fal.jobs.values())
    assert len(jobs) == len(prompts)
    starts = [job.submitted_at for job in jobs]
    under_way = [sum(j.submitted_at <= at < j.finished_at for j in jobs) for at in starts]
    assert max(under_way) == concurrency


def flag_for(command: str, name: str) -> str:
    """The flag of that name, or of its plural, which a batch takes."""
    flag = "--" + name.replace("_", "-")
    return flag if flag in flags_of(command) else f"{flag}s"


@pytest.mark.parametrize("command", GENERATION)
def test_no_schema_neither_asks_nor_applies(fal: Sandbox, cli: Cli, command: str) -> None:
    """Neither asked for nor applied; without the flag it is both."""
    verb, _, kind = command.partition("-")
    if verb == "stream":
        fal.on("POST", "fal.run", "*", fal.always(sse_reply()))
    asked = {"prompt": "A kite"} | ({"image_url": PICTURE} if kind == "i2v" else {})
    words = [word for name, value in asked.items() for word in (flag_for(command, name), value)]
    argv = ("--model", "/".join(MODEL[kind]), *words, "--negative-prompt", "fog")
    assert cli(command, *argv, "--no-schema").status == 0
    assert not [request for request in fal.requests if is_look_up(request)]
    assert cli(command, *argv).status == 0
    assert len([request for request in fal.requests if is_look_up(request)]) == 1
    as_given, fitted = starting_requests(fal)
    assert as_given.json == {**asked, "negative_prompt": "fog"}
    assert fitted.json == asked


# Commands that generate nothing


@dataclass(frozen=True)
class Wire:
    """A command line with every flag that travels, and where each is looked for."""

    values: Mapping[str, tuple[str, ...]]
    host: str
    looks: Mapping[str, tuple[Callable[[Recorded], Any], Any]]


def content_type(request: Recorded) -> str:
    return request.headers["content-type"]


def body(request: Recorded) -> bytes:
    return request.body


def request_id(request: Recorded) -> str:
    return request.path.split("/")[4]


JOB = {"--model": ("fal-ai/flux/dev",), "--request-id": ("some-request-77",)}
ON_JOB = {
    "--model": (first_segments, "fal-ai/flux"),
    "--request-id": (request_id, "some-request-77"),
}
CDN = "v3.fal.media"
OTHER_COMMANDS = {
    "status": Wire(JOB, "queue.fal.run", ON_JOB),
    "result": Wire(JOB, "queue.fal.run", ON_JOB),
    "cancel": Wire(JOB, "queue.fal.run", ON_JOB),
    "upload-file": Wire({"--file": ("bytes.bin",)}, CDN, {"--file": (body, b"\0some bytes")}),
    "upload-image": Wire(
        {"--file": ("picture.png",), "--format": ("webp",)},
        CDN,
        {
            "--file": (lambda request: request.body[:4], b"RIFF"),
            "--format": (content_type, "image/webp"),
        },
    ),
    "upload-raw": Wire(
        {"--file": ("bytes.bin",), "--content-type": ("application/x-kite",)},
        CDN,
        {"--file": (body, b"\0some bytes"), "--content-type": (content_type, "application/x-kite")},
    ),
    "list-models": Wire(
        {"--category": ("image-to-video",), "--search": ("kling pro",)},
        "api.fal.ai",
        {
            "--category": (query("category"), "image-to-video"),
            "--search": (query("q"), "kling pro"),
        },
    ),
}
SWITCHES = ("--json", "--no-wait", "--categories", "--include-deprecated")

# Commands that send nothing.
SILENT = ("encode-file", "encode-image", "encode-raw", "list-t2i", "list-i2v")
# Commands of which test_history.py tries each flag.
ELSEWHERE = ("list-jobs",)


@pytest.mark.parametrize("command", OTHER_COMMANDS)
def test_the_flags_of_other_commands(fal: Sandbox, cli: Cli, tmp_path: Path, command: str) -> None:
    (tmp_path / "bytes.bin").write_bytes(b"\0some bytes")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "picture.png")
    wire = OTHER_COMMANDS[command]
    flags = [flag for flag in flags_of(command) if flag not in (*SWITCHES, *LOCAL)]
    assert [flag for flag in flags if flag not in wire.looks] == []
    fal.on("*", "queue.fal.run", "*", fal.always(Reply(404, json={"status": "NOT_FOUND"})))
    cli(command, *(word for flag in flags for word in (flag, *wire.values[flag])))
    requests = [request for request in fal.requests if request.host == wire.host]
    assert requests
    found = {flag: look(requests[0]) for flag, (look, _) in wire.looks.items()}
    assert found == {flag: expected for flag, (_, expected) in wire.looks.items()}


@pytest.mark.parametrize("command", SILENT)
def test_what_sends_nothing_uses_its_flags(
    fal: Sandbox, cli: Cli, tmp_path: Path, command: str
) -> None:
    (tmp_path / "bytes.bin").write_bytes(b"\0some bytes")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "picture.png")
    name = "picture.png" if command == "encode-image" else "bytes.bin"
    values = {"--file": name, "--format": "webp", "--content-type": "application/x-kite"}
    flags = [flag for flag in flags_of(command) if flag != "--json"]
    assert [flag for flag in flags if flag not in values] == []
    done = cli(command, *(word for flag in flags for word in (flag, values[flag])))
    starts = {
        "encode-file": "data:application/octet-stream;base64,AHNvbWUgYnl0ZXM=",
        "encode-raw": "data:application/x-kite;base64,AHNvbWUgYnl0ZXM=",
        "encode-image": "data:image/webp;base64,UklGR",
        "list-t2i": "fal-ai/nano-banana-2\tNano Banana 2",
        "list-i2v": "fal-ai/veo3.1/image-to-video\tVeo 3.1",
    }
    assert done.status == 0
    assert done.stdout.startswith(starts[command])
    assert fal.requests == []


@pytest.mark.parametrize("format", ["jpeg", "jpg", "png", "webp"])
def test_format_converts(fal: Sandbox, cli: Cli, tmp_path: Path, format: str) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "picture.gif")
    done = cli("upload-image", "--file", "picture.gif", "--format", format)
    assert done.status == 0
    (upload,) = fal.uploads
    assert upload.content_type == f"image/{format.replace('jpg', 'jpeg')}"
    (tmp_path / "uploaded").write_bytes(upload.content)
    with Image.open(tmp_path / "uploaded") as image:
        assert (image.format or "").lower() == format.replace("jpg", "jpeg")


JSON_CASES: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
    "upload-file": (("--file", "picture.png"), lambda found: list(found) == ["url"]),
    "upload-image": (("--file", "picture.png"), lambda found: list(found) == ["url"]),
    "upload-raw": (
        ("--file", "picture.png", "--content-type", "a/b"),
        lambda found: list(found) == ["url"],
    ),
    "encode-file": (("--file", "picture.png"), lambda found: list(found) == ["data_uri"]),
    "encode-image": (("--file", "picture.png"), lambda found: list(found) == ["data_uri"]),
    "encode-raw": (
        ("--file", "picture.png", "--content-type", "a/b"),
        lambda found: list(found) == ["data_uri"],
    ),
    "list-t2i": ((), lambda found: isinstance(found, list) and len(found) == 35),
    "list-i2v": ((), lambda found: isinstance(found, list) and len(found) == 38),
    "list-models": (
        ("--search", "kling"),
        lambda found: isinstance(found, list) and "metadata" in found[0],
    ),
    "list-jobs": ((), lambda found: found == []),
}


@pytest.mark.parametrize("command", JSON_CASES)
def test_json_makes_a_document_of_text(
    fal: Sandbox, cli: Cli, tmp_path: Path, command: str
) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "picture.png")
    argv, is_right = JSON_CASES[command]
    plain, as_json = cli(command, *argv), cli(command, *argv, "--json")
    assert (plain.status, as_json.status) == (0, 0)
    assert is_right(as_json.json)
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain.stdout)


def test_json_is_tested_wherever_it_is_accepted() -> None:
    assert {name for name, row in skill_fal.COMMANDS.items() if row.text} == set(JSON_CASES)


@pytest.mark.usefixtures("clock")  # by which it runs for ever
def test_no_wait_fails_while_the_job_runs(fal: Sandbox, cli: Cli) -> None:
    submitted = cli("submit-t2i", "--model", "fal-ai/flux/dev", "--prompt", "[slow] A kite")
    job = ("--model", "fal-ai/flux/dev", "--request-id", submitted.json["request_id"])
    done = cli("result", *job, "--no-wait")
    assert (done.status, done.stdout) == (1, "")
    assert done.error["retryable"] is True
    assert done.error["request_id"] == submitted.json["request_id"]


def test_no_logs_asks_for_none(fal: Sandbox, cli: Cli) -> None:
    cli("subscribe-t2i", "--model", "fal-ai/flux/dev", "--prompt", "A kite")
    (request_id,) = fal.jobs
    job = ("--model", "fal-ai/flux/dev", "--request-id", request_id)
    assert cli("status", *job).json["logs"]
    status = cli("status", *job, "--no-logs").json
    assert (status["status"], "logs" in status) == ("COMPLETED", False)
    assert fal.requests[-1].query.get("logs", "0").lower() in ("0", "false")


@pytest.mark.parametrize("command", LATE)
def test_a_time_limit_speaks_of_its_command_alone(command: str) -> None:
    (text,) = [
        flag.help for flag in skill_fal.COMMANDS[command].flags if flag.name == "--client-timeout"
    ]
    may_cancel = command.startswith(("subscribe", "batch"))
    assert ("cancel" in text, "-*" in text) == (may_cancel, False)


def test_categories_counts_the_active_models(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--categories", "--json")
    assert done.status == 0
    active = [model for model in fal.models if not model.deprecated]
    assert sum(done.json.values()) == len(active)
    assert done.json["text-to-image"] == len([m for m in active if m.category == "text-to-image"])


def test_include_deprecated_adds_the_deprecated_models(fal: Sandbox, cli: Cli) -> None:
    argv = ("list-models", "--category", "text-to-image", "--json")
    without, all_of_them = cli(*argv).json, cli(*argv, "--include-deprecated").json
    deprecated = {m.endpoint_id for m in fal.models if m.deprecated and m.category == argv[2]}
    assert deprecated
    names = [{model["endpoint_id"] for model in models} for models in (without, all_of_them)]
    assert names[1] - names[0] == deprecated


# realtime


@pytest.mark.parametrize(
    "local",
    [("--arguments-json", "--prompt", *IN_PIXELS), ("--prompt-file", *IN_WORDS)],
    ids=" ".join,
)
def test_realtime_sends_its_flags(
    fal: Sandbox, start: Starter, tmp_path: Path, local: tuple[str, ...]
) -> None:
    (tmp_path / "prompt.txt").write_text("A prompt from a file\n")
    values = {
        **{flag: row.values for flag, row in ROWS.items()},
        "--model": ("fal-ai/flux",),
        "--path": ("schnell/realtime",),
        "--arguments-json": ('{"prompt": "An orb", "acceleration": "none"}',),
        "--num-inference-steps": ("4",),
        "--width": ("640",),
        "--height": ("384",),
        "--rounds": ("3",),
    }
    left_out = {
        "--arguments-json",
        "--prompt",
        "--prompt-file",
        *IN_PIXELS,
        *IN_WORDS,
        *LOCAL,
    } - {*local}
    flags = [flag for flag in flags_of("realtime") if flag not in left_out]
    words = [word for flag in flags for word in (flag, *values[flag])]
    done = finished(start("realtime", *words, "--no-schema"))
    assert done.status == 0, done.stderr
    (socket,) = [request for request in fal.requests if request.method == "WEBSOCKET"]
    assert socket.path == "/fal-ai/flux/schnell/realtime"
    expected = {
        "negative_prompt": "no fog",
        "image_url": PICTURE,
        "duration": 6.5,
        "num_images": 3,
        "seed": 987654,
        "guidance_scale": 4.25,
        "num_inference_steps": 4,
        "loras": [{"path": "a"}],
        "scheduler": {"k": [1]},
    }
    if "--prompt" in local:
        expected["prompt"] = "A red kite"
        expected["acceleration"] = "none"
        expected["image_size"] = {"width": 640, "height": 384}
    else:
        expected["prompt"] = "A prompt from a file"
        expected.update(aspect_ratio="21:9", resolution="2K")
    assert socket.messages == [expected] * 3
    assert [line["seed"] for line in done.lines] == [987654] * 3
    assert done.lines[0]["images"][0]["content"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--priority", "low"),
        ("--hint", "runner-7"),
        ("--start-timeout", "77"),
        ("--webhook-url", "https://example.com/hook"),
    ],
)
def test_realtime_refuses_what_it_cannot_send(
    fal: Sandbox, cli: Cli, flag: str, value: str
) -> None:
    argv = ("--model", "fal-ai/flux/schnell", "--arguments-json", "{}", flag, value)
    done = cli("realtime", *argv)
    assert (done.status, done.stdout, fal.requests) == (2, "", [])
    assert done.error["message"].startswith(f"unrecognized arguments: {flag}")


@pytest.mark.parametrize("command", [name for name in GENERATION if "submit" not in name])
def test_webhooks_are_for_submit_alone(fal: Sandbox, cli: Cli, command: str) -> None:
    flag = "--image-url" if command.endswith("i2v") else "--prompt"
    plural = "s" if command.startswith("batch") else ""
    argv = ("--model", "fal-ai/flux/dev", f"{flag}{plural}", PICTURE)
    done = cli(command, *argv, "--webhook-url", "https://example.com/hook")
    assert (done.status, done.stdout, fal.requests) == (2, "", [])
    assert "unrecognized arguments: --webhook-url" in done.error["message"]
