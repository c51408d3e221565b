"""Bad input of every sort: exit status 2, one line that says what is wrong, and nothing sent."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, SKILL, Cli, Outcome, sent
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sandbox import Sandbox

import skill_fal

FLUX = ("--model", "fal-ai/flux/dev")
SUBMIT = ("submit-t2i", *FLUX, "--prompt", "A cat")
SUBMIT_I2V = ("submit-i2v", *FLUX, "--image-url", "https://example.com/a.png")
STATUS = ("status", *FLUX)
REALTIME = ("realtime", *FLUX, "--arguments-json", "{}")
DEEP = "[" * 200_000 + "]" * 200_000


def assert_refused(done: Outcome, fal: Sandbox, *fragments: str) -> dict[str, Any]:
    """Refused, before anything was sent, in one line that holds the fragments."""
    assert (done.status, done.stdout, fal.requests, fal.tunnels) == (2, "", [], [])
    assert len(done.stderr.splitlines()) == 1
    error: dict[str, Any] = done.error
    assert (error["type"], error["retryable"]) == ("usage_error", False)
    assert [text for text in fragments if text not in error["message"]] == []
    return error


def replaced(argv: Sequence[str], flag: str, value: str) -> tuple[str, ...]:
    at = argv.index(flag) + 1
    return (*argv[:at], value, *argv[at + 1 :])


BAD_ENDPOINTS = {
    "no slash": "flux",
    "URL": "https://fal.run/fal-ai/flux/dev",
    "parent": "fal-ai/../admin",
    "parent at the end": "fal-ai/flux/..",
    "here": "fal-ai/./flux",
    "query": "fal-ai/flux/dev?x=y",
    "fragment": "fal-ai/flux#dev",
    "empty": "",
    "blank": "  ",
    "space": "fal-ai/flux dev",
    "slashes": "//",
    "double slash": "fal-ai//flux",
    "backslash": "fal-ai\\flux\\dev",
    "percent": "fal-ai/%2e%2e/flux",
    "newline": "fal-ai/flux\n/dev",
    "at": "user@host/flux",
    "colon": "fal-ai:443/flux",
    "not ASCII": "fal-ai/flüx",
    "full-width": "fal-ai/\uff0e\uff0e",
    "workflow without a name": "workflows/x",
    "comfy without a name": "comfy/x",
    "dash": "-fal/flux",
}


@pytest.mark.parametrize("name", BAD_ENDPOINTS)
def test_bad_endpoints(fal: Sandbox, cli: Cli, name: str) -> None:
    done = cli("submit-t2i", f"--model={BAD_ENDPOINTS[name]}", "--prompt", "A cat")
    assert_refused(done, fal, "argument --model: ")


@pytest.mark.parametrize("command", sorted(skill_fal.COMMANDS))
def test_every_command_with_a_model_looks_at_it(fal: Sandbox, cli: Cli, command: str) -> None:
    """The bad value of the first flag is found before the lack of others, or there is no flag."""
    done = cli(command, "--model", "not an endpoint")
    flags = [flag.name for flag in skill_fal.COMMANDS[command].flags]
    message = assert_refused(done, fal)["message"]
    if "--model" in flags:
        assert message.startswith("argument --model: ")
    else:
        assert "--model" in message or "required" in message


def test_a_near_miss_of_an_endpoint_is_named(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", "--model", "fal-ai/flux/dev?", "--prompt", "A cat")
    assert "fal-ai/flux/dev" in assert_refused(done, fal)["hint"]


@pytest.mark.parametrize("command", ["status", "result", "cancel"])
@pytest.mark.parametrize(
    "bad", ["../x", "a/b", "", " ", "a b", "a?b", "a#b", "é", "a\nb", "%2e", ".."]
)
def test_bad_request_ids(fal: Sandbox, cli: Cli, command: str, bad: str) -> None:
    done = cli(command, *FLUX, f"--request-id={bad}")
    assert_refused(done, fal, "argument --request-id: ")


@pytest.mark.parametrize(
    "bad", ["../x", "a/../b", "a?b=c", "a#b", "", "/", "a b", "a//b", "//host/x", "a\nb", "%2e%2e"]
)
def test_bad_paths(fal: Sandbox, cli: Cli, bad: str) -> None:
    assert_refused(cli(*SUBMIT, f"--path={bad}"), fal, "argument --path: ")


NOT_NUMBERS = ("nan", "inf", "-inf", "1e999", "text", "", "1,5", "0x10", "1 2", "--5")
FLOATS = ("--guidance-scale", "--start-timeout", "--client-timeout")
INTEGERS = ("--width", "--height", "--num-images", "--num-inference-steps", "--seed")
POSITIVE = ("--width", "--height", "--num-images", "--num-inference-steps", "--client-timeout")


@pytest.mark.parametrize(
    ("flag", "bad"),
    [
        *(("--duration", bad) for bad in NOT_NUMBERS),
        *((flag, bad) for flag in FLOATS for bad in ("nan", "text")),
    ],
)
def test_bad_numbers(fal: Sandbox, cli: Cli, flag: str, bad: str) -> None:
    command = SUBMIT_I2V if flag == "--duration" else SUBMIT
    assert_refused(cli(*command, f"{flag}={bad}"), fal, f"argument {flag}: ")


@pytest.mark.parametrize(
    ("flag", "bad"),
    [
        *(("--seed", bad) for bad in ("nan", "1.5", "7.0", "1e3", "text", "")),
        *((flag, "1.5") for flag in INTEGERS[:-1]),
    ],
)
def test_bad_integers(fal: Sandbox, cli: Cli, flag: str, bad: str) -> None:
    assert_refused(cli(*SUBMIT, f"{flag}={bad}"), fal, f"argument {flag}: not a whole number")


@pytest.mark.parametrize("bad", ["0", "-1"])
@pytest.mark.parametrize("flag", [*POSITIVE, "--start-timeout"])
def test_numbers_that_make_no_sense(fal: Sandbox, cli: Cli, flag: str, bad: str) -> None:
    assert_refused(cli(*SUBMIT, f"{flag}={bad}"), fal, f"argument {flag}: ")


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        ((*SUBMIT, "--start-timeout", "1"), "--start-timeout"),
        ((*SUBMIT_I2V, "--duration", "0"), "--duration"),
        ((*SUBMIT_I2V, "--duration", "-5"), "--duration"),
        ((*SUBMIT, "--duration", "0"), "--duration"),
        ((*SUBMIT_I2V, "--num-images", "0"), "--num-images"),
        ((*SUBMIT, "--aspect-ratio", ""), "--aspect-ratio"),
        ((*SUBMIT, "--aspect-ratio", "16 : 9"), "--aspect-ratio"),
        ((*SUBMIT_I2V, "--resolution", ""), "--resolution"),
        ((*REALTIME, "--rounds", "0"), "--rounds"),
        ((*REALTIME, "--rounds", "1.5"), "--rounds"),
        (("batch-t2i", *FLUX, "--prompts", "A", "--concurrency", "0"), "--concurrency"),
        (("batch-t2i", *FLUX, "--prompts", "A", "--concurrency", "-1"), "--concurrency"),
        ((*SUBMIT, "--priority", "high"), "--priority"),
        ((*SUBMIT, "--priority", ""), "--priority"),
        ((*STATUS, "--request-id", "a", "--client-timeout", "0"), "--client-timeout"),
        (("upload-image", "--file", "photo.jpg", "--format", "gif"), "--format"),
        (("upload-raw", "--file", "photo.jpg", "--content-type", "nonsense"), "--content-type"),
        (("upload-raw", "--file", "photo.jpg", "--content-type", "a/b\r\nX: 1"), "--content-type"),
        (("upload-raw", "--file", "photo.jpg", "--content-type", "ä/b"), "--content-type"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_values_out_of_range(
    fal: Sandbox, cli: Cli, photo: Path, argv: tuple[str, ...], flag: str
) -> None:
    assert_refused(cli(*argv), fal, f"argument {flag}: ")


BAD_JSON = {
    "syntax": "{'a': 1}",
    "half": '{"a": ',
    "empty": "",
    "array": "[1]",
    "text": '"text"',
    "number": "7",
    "null": "null",
    "NaN": '{"a": NaN}',
    "Infinity": '{"a": [-Infinity]}',
    "lone surrogate": '{"a": "\\ud800"}',
    "missing file": "@missing.json",
    "no file name": "@",
    "not UTF-8": "@latin.json",
    "folder": "@folder",
    "deep": "@deep.json",
}


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize(
    ("argv", "flag"),
    [(SUBMIT, "--extra-json"), (("realtime", *FLUX), "--arguments-json")],
    ids=["extra", "arguments"],
)
def test_bad_json(
    fal: Sandbox, cli: Cli, folder: Path, argv: tuple[str, ...], flag: str, name: str
) -> None:
    assert_refused(cli(*argv, f"{flag}={BAD_JSON[name]}"), fal, f"argument {flag}: ")


def test_a_number_too_large_for_json(fal: Sandbox, cli: Cli) -> None:
    """Python reads 1e999 as infinity, and JSON cannot say that."""
    assert_refused(cli(*SUBMIT, "--extra-json", '{"a": 1e999}'), fal, "argument --extra-json: ")


@pytest.mark.parametrize("stdin", [b"", b"[1]", b"\xff\xfe"], ids=["empty", "array", "not UTF-8"])
def test_bad_json_on_stdin(fal: Sandbox, cli: Cli, stdin: bytes) -> None:
    done = cli(*SUBMIT, "--extra-json", "-", stdin=stdin)
    assert_refused(done, fal, "argument --extra-json: ")


@pytest.mark.parametrize("value", ["7", "[1]", "true"])
def test_an_image_that_is_no_text(fal: Sandbox, cli: Cli, value: str) -> None:
    """Ours to refuse, or the model's: in any case not an answer of fal's that cannot be read."""
    done = cli(*SUBMIT_I2V, "--extra-json", f'{{"image_url": {value}}}')
    assert done.status in (0, 2)
    assert "cannot be read" not in done.stderr


SECRETS = {
    "picture": '{"image_url": "text.png"}',
    "sound": '{"audio_url": "latin.txt"}',
    "list": '{"image_urls": ["https://example.com/a.png", "text.png"]}',
    "deep": '{"elements": [{"frontal_image_url": "text.png"}]}',
    "after a picture": '{"end_image_url": "photo.jpg", "image_url": "text.png"}',
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_extra_json_is_not_uploaded(
    fal: Sandbox, cli: Cli, folder: Path, photo: Path, name: str
) -> None:
    done = cli(*SUBMIT_I2V, "--no-schema", "--extra-json", SECRETS[name])
    assert_refused(done, fal, "not a media file", ".txt" if name == "sound" else "text.png")


@pytest.mark.parametrize("command", ["submit-i2v", "batch-i2v"])
def test_a_secret_is_not_uploaded_for_a_model_that_is_known(
    fal: Sandbox, cli: Cli, folder: Path, command: str
) -> None:
    flag = "--image-urls" if command.startswith("batch") else "--image-url"
    argv = ("--model", "fal-ai/minimax-video/image-to-video", flag, "https://example.com/a.png")
    extra = ("--prompt", "Rain", "--extra-json", '{"image_url": "text.png"}')
    done = cli(command, *argv, *extra)
    assert (done.status, done.stdout, sent(fal)) == (2, "", [])
    assert (done.error["type"], done.error["retryable"]) == ("usage_error", False)
    assert done.error["message"] == "not a media file: text.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the tests run, with files of which none is right."""
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "deep.json").write_text('{"a": ' + DEEP + "}")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "blank.txt").write_text(" \n\t\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("-----BEGIN EXAMPLE KEY-----\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html><body>Not found</body></html>")
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (("--prompt", ""), "--prompt"),
        (("--prompt", " \n"), "--prompt"),
        (("--prompt", "-"), "--prompt"),
        (("--prompt-file", "missing.txt"), "--prompt-file"),
        (("--prompt-file", "latin.txt"), "--prompt-file"),
        (("--prompt-file", "blank.txt"), "--prompt-file"),
        (("--prompt-file", "folder"), "--prompt-file"),
        (("--prompt-file", ""), "--prompt-file"),
        (("--prompt-file", "-"), "--prompt-file"),
        (("--prompt", "A", "--prompt-file", "blank.txt"), "--prompt-file"),
        (("--prompt-file", "latin.txt", "--prompt", "A"), "--prompt"),
        (("--prompt", "A", "--negative-prompt", ""), "--negative-prompt"),
    ],
    ids=lambda value: " ".join(map(repr, value)) if isinstance(value, tuple) else "",
)
def test_bad_prompts(
    fal: Sandbox, cli: Cli, folder: Path, argv: tuple[str, ...], flag: str
) -> None:
    assert_refused(cli("submit-t2i", *FLUX, *argv), fal, flag)


def test_a_prompt_and_a_prompt_file_exclude_each_other(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "good.txt").write_text("A cat")
    done = cli("submit-t2i", *FLUX, "--prompt", "A", "--prompt-file", "good.txt")
    assert_refused(done, fal, "--prompt-file", "not allowed with", "--prompt")


def test_stdin_is_read_once(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", *FLUX, "--prompt", "-", "--extra-json", "-", stdin="A cat")
    assert_refused(done, fal)


@pytest.mark.parametrize("flags", [("--prompts", "A", ""), ("--prompts",)], ids=["empty", "none"])
def test_bad_prompts_of_a_batch(fal: Sandbox, cli: Cli, flags: tuple[str, ...]) -> None:
    assert_refused(cli("batch-t2i", *FLUX, *flags), fal, "argument --prompts: ")


def test_a_prompt_that_is_not_utf_8(
    fal: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [os.fsencode(word) for word in (*SKILL, *SUBMIT[:-1])]
    done = subprocess.run(
        [*command, b"caf\xe9"], env=environment, cwd=tmp_path, capture_output=True, timeout=PATIENCE
    )
    outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert_refused(outcome, fal, "argument --prompt: ")


@pytest.mark.parametrize("flag", ["--width", "--height"])
def test_width_and_height_go_together(fal: Sandbox, cli: Cli, flag: str) -> None:
    """Where the model's schema is not asked what one of them means."""
    done = cli(*SUBMIT, "--no-schema", flag, "512")
    assert_refused(done, fal, "--width", "--height")


@pytest.mark.parametrize(
    "bad", ["a\r\nX-Evil: 1", "a\nb", "", "a b", "é", "\x1b[31m", "\x7f"], ids=ascii
)
def test_a_hint_that_no_header_can_carry(fal: Sandbox, cli: Cli, bad: str) -> None:
    done = cli(*SUBMIT, f"--hint={bad}")
    assert_refused(done, fal, "argument --hint: ")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "bad",
    [
        "example.com/hook",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://",
        "http:///x",
        "",
        "https://a b",
    ],
)
def test_bad_webhooks(fal: Sandbox, cli: Cli, bad: str) -> None:
    done = cli(*SUBMIT, f"--webhook-url={bad}")
    assert_refused(done, fal, "argument --webhook-url: ")


BAD_PICTURES = (
    "missing.png",
    "folder",
    "text.png",
    "empty.png",
    "page.jpg",
    "",
    "ftp://a/b.png",
    "~/missing.png",
    "data:image/png;base64",
)


@pytest.mark.parametrize("bad", BAD_PICTURES)
def test_bad_pictures(fal: Sandbox, cli: Cli, folder: Path, bad: str) -> None:
    done = cli("submit-i2v", *FLUX, f"--image-url={bad}")
    assert_refused(done, fal, "argument --image-url: ")


def test_one_bad_picture_stops_a_batch(fal: Sandbox, cli: Cli, photo: Path, folder: Path) -> None:
    done = cli("batch-i2v", *FLUX, "--image-urls", "photo.jpg", "text.png")
    assert_refused(done, fal, "argument --image-urls: ", "text.png")


@pytest.mark.parametrize("command", ["upload-file", "upload-image", "encode-file", "encode-image"])
@pytest.mark.parametrize("bad", ["missing.png", "folder", ""])
def test_bad_files(fal: Sandbox, cli: Cli, folder: Path, command: str, bad: str) -> None:
    assert_refused(cli(command, f"--file={bad}"), fal, "argument --file: ")


@pytest.mark.parametrize("command", ["upload-image", "encode-image"])
@pytest.mark.parametrize("bad", ["text.png", "empty.png", "cut.jpg"])
def test_a_file_that_is_no_picture(
    fal: Sandbox, cli: Cli, folder: Path, photo: Path, command: str, bad: str
) -> None:
    (folder / "cut.jpg").write_bytes(photo.read_bytes()[:500])
    assert_refused(cli(command, "--file", bad), fal)


@pytest.fixture
def sealed(tmp_path: Path) -> str:
    """A path below which nobody can write, root included."""
    (tmp_path / "file").write_text("in the way")
    return "file/picture.png"


def test_output_into_what_is_no_folder(fal: Sandbox, cli: Cli, sealed: str) -> None:
    argv = ("run-t2i", *FLUX, "--prompt", "A cat", "--output", sealed)
    assert_refused(cli(*argv), fal, "argument --output: ")


@pytest.mark.parametrize("deep", ["file/a/b.png", "file/a/"])
def test_output_below_what_is_no_folder(fal: Sandbox, cli: Cli, sealed: str, deep: str) -> None:
    argv = ("run-t2i", *FLUX, "--prompt", "A cat", "--output", deep)
    assert_refused(cli(*argv), fal, "argument --output: ")


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_output_overwrites_nothing(fal: Sandbox, cli: Cli, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "picture.png"
    if kind == "file":
        target.write_text("precious")
    else:
        target.symlink_to(tmp_path / "elsewhere")
        if kind == "link":
            target.write_text("precious")
    argv = ("run-t2i", *FLUX, "--prompt", "A cat", "--output", "picture.png")
    assert_refused(cli(*argv), fal, "argument --output: ", "picture.png")
    assert target.is_symlink() == (kind != "file")


def test_output_without_a_name(fal: Sandbox, cli: Cli) -> None:
    argv = ("run-t2i", *FLUX, "--prompt", "A cat", "--output=")
    assert_refused(cli(*argv), fal, "argument --output: ")


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("sumbit-t2i",), "submit-t2i"),
        (("list",), "list-"),
        (("generate", "--prompt", "A"), ""),
        ((), ""),
        (("",), ""),
        (("--prompt", "A"), ""),
        ((*SUBMIT, "--sede", "1"), "--seed"),
        ((*SUBMIT, "--pripority", "low"), "--priority"),
        ((*SUBMIT, "surplus"), ""),
        ((*SUBMIT, "--image-urls", "https://example.com/a.png"), "--image-url"),
        (("list-t2i", "--model", "fal-ai/flux/dev"), ""),
        (("list-t2i", "surplus"), ""),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_unknown_words(fal: Sandbox, cli: Cli, argv: tuple[str, ...], hint: str) -> None:
    assert hint in assert_refused(cli(*argv), fal)["hint"]


@pytest.mark.parametrize(
    "argv",
    [
        ("submit-t2i", "--mod", "fal-ai/flux/dev", "--prompt", "A"),
        ("submit-t2i", *FLUX, "--prom", "A"),
        (*SUBMIT, "--see", "1"),
        ("list-t2i", "--js"),
        ("submit-t", *FLUX, "--prompt", "A"),
    ],
)
def test_abbreviations_are_refused(fal: Sandbox, cli: Cli, argv: tuple[str, ...]) -> None:
    assert_refused(cli(*argv), fal)


@pytest.mark.parametrize("command", sorted(skill_fal.COMMANDS))
def test_required_flags(fal: Sandbox, cli: Cli, command: str) -> None:
    if command.startswith("list-"):
        assert_refused(cli(command, "surplus"), fal, "surplus")
    else:
        assert_refused(cli(command), fal, "required")


@pytest.mark.parametrize(
    "argv",
    [
        ("submit-t2i", "--prompt", "A"),
        ("submit-t2i", *FLUX),
        ("submit-i2v", *FLUX, "--prompt", "A"),
        STATUS,
        ("realtime", *FLUX),
        ("upload-raw", "--file", "photo.jpg"),
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_a_required_flag_that_is_missing(
    fal: Sandbox, cli: Cli, photo: Path, argv: tuple[str, ...]
) -> None:
    assert_refused(cli(*argv), fal, "required")


@pytest.mark.parametrize("argv", [(*SUBMIT, "--seed"), ("submit-t2i", *FLUX, "--prompt")], ids=str)
def test_a_flag_without_its_value(fal: Sandbox, cli: Cli, argv: tuple[str, ...]) -> None:
    assert_refused(cli(*argv), fal, f"argument {argv[-1]}: ")


def test_a_mistake_is_found_without_a_key(fal: Sandbox, cli: Cli) -> None:
    assert_refused(cli(*SUBMIT, "--seed", "x", env={"FAL_KEY": ""}), fal, "argument --seed: ")


# Many at once, in this process: whatever is not plainly good is refused before anything starts


def outcome_of(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Outcome:
    status = skill_fal.main(argv)
    stdout, stderr = capsys.readouterr()
    return Outcome(status, stdout, stderr)


FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PIECES = (*"ab/.?#%@:\\ \n\t\x00é~-_", "fal-ai", "flux", "..", "//")
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def is_an_endpoint(text: str) -> bool:
    segments = text.strip().strip("/").split("/")
    ok = all(s[:1].isalnum() and s.isascii() for s in segments)
    return ok and len(segments) > 1


@given(HOSTILE)
@example("fal-ai/flux/dev\n")
@example("a/b/../c")
@FUZZ
def test_any_text_as_an_endpoint(
    fal: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Without a key, a command that is in order ends with 3, and one that is not with 2."""
    monkeypatch.setenv("FAL_KEY", "")
    done = outcome_of(("status", f"--model={text}", "--request-id=a"), capsys)
    forbidden = set("?#%@:\\ \n\t\x00é~") & set(text.strip())
    assert done.status in ((2,) if forbidden or ".." in text.split("/") else (2, 3))
    assert done.status == 2 or is_an_endpoint(text)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)


@given(HOSTILE)
@FUZZ
def test_any_text_as_a_request_id(
    fal: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FAL_KEY", "")
    done = outcome_of(("status", *FLUX, f"--request-id={text}"), capsys)
    plain = bool(text) and set(text) <= set("abfli-_ux") and text[0] not in "-_"
    assert done.status in ((3,) if plain else (2,))
    assert done.stdout == ""


@given(HOSTILE)
@FUZZ
def test_any_text_as_json(
    fal: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FAL_KEY", "")
    done = outcome_of((*SUBMIT, f"--extra-json={json.dumps(text)}"), capsys)
    assert (done.status, done.stdout) == (2, "")
