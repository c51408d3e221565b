"""Whose fault it is: what goes wrong is told by where it goes wrong.

The user's things are exit 2, the machine's exit 1 and `machine_error`, the network's exit 4, and
fal's odd answers exit 1 and `unexpected_answer`. Only what may pass by itself is retryable.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import IO, Any, Protocol

import pytest
from conftest import LEAP, PATIENCE, SKILL, Cli, Clock, Outcome, paid, sent
from PIL import Image
from sandbox import Hold, Reply, Sandbox

FLUX = ("--model", "fal-ai/flux/dev", "--no-schema")
MINIMAX = ("--model", "fal-ai/minimax-video/image-to-video", "--prompt", "Rain", "--no-schema")
CAT = (*FLUX, "--prompt", "A cat")
RUN = ("run-t2i", *CAT)
BYTES = ("--content-type", "image/jpeg")
CDN = "v3.fal.media"
MEDIA = "v3b.fal.media"


# Without the option that turns warnings into errors: what is left half made where the machine gives
# no more is not closed, of which Python warns nobody else.
PLAIN = [word for word in SKILL if word not in ("-W", "error")]


class Shell(Protocol):
    def __call__(
        self, before: str, *argv: str, rest: str = "", stdin: bytes | IO[bytes] = b""
    ) -> Outcome: ...


@pytest.fixture
def after(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Shell:
    """Runs skill_fal.py in a shell, after what is done `before`."""

    def run(before: str, *argv: str, rest: str = "", stdin: bytes | IO[bytes] = b"") -> Outcome:
        source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = subprocess.run(
            ["bash", "-c", f"{before}; exec {shlex.join([*PLAIN, *argv])} {rest}"],
            **source,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            timeout=PATIENCE,
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr
        return Outcome(done.returncode, stdout, stderr)

    return run


def assert_users(done: Outcome, *words: str) -> None:
    """It is the user's to mend, and these words say what."""
    assert (done.status, done.stdout) == (2, ""), done.stderr
    assert (done.error["type"], done.error["retryable"]) == ("usage_error", False)
    for word in words:
        assert word in done.error["message"]


def assert_machines(error: Any) -> None:
    assert (error["type"], error["retryable"]) == ("machine_error", False), error


def assert_fals(done: Outcome) -> None:
    assert (done.status, done.error["type"]) == (1, "unexpected_answer"), done.stderr
    assert done.error["retryable"] is False


# The user's things

IN_A_FOLDER = [
    (*RUN, "--output", "cat.png"),
    (*RUN, "--output", "out/"),
    ("batch-t2i", *FLUX, "--prompts", "A cat", "--journal", "batch.jsonl"),
    ("upload-file", "--file", "photo.jpg"),
    ("encode-raw", "--file", "photo.jpg", *BYTES),
    ("submit-i2v", *MINIMAX, "--image-url", "photo.jpg"),
    ("submit-t2i", *FLUX, "--prompt-file", "prompt.txt"),
]


@pytest.mark.parametrize("argv", IN_A_FOLDER, ids=lambda argv: argv[-2] + argv[0])
def test_a_folder_that_is_gone(fal: Sandbox, after: Shell, argv: tuple[str, ...]) -> None:
    """Another program has deleted the folder that the shell still stands in."""
    assert_users(after("mkdir gone; cd gone; rmdir ../gone", *argv))
    assert sent(fal) == []


def test_a_folder_that_is_gone_is_not_needed(fal: Sandbox, after: Shell, photo: Path) -> None:
    output = str(photo.parent / "out" / "cat.png")
    done = after("mkdir gone; cd gone; rmdir ../gone", *RUN, "--output", output)
    assert done.status == 0, done.stderr


FROM_STDIN = [
    ("submit-t2i", *FLUX, "--prompt", "-"),
    ("submit-t2i", *FLUX, "--prompt-file", "-"),
    ("submit-t2i", *CAT, "--extra-json", "-"),
    ("realtime", "--model", "fal-ai/flux/dev", "--arguments-json", "-"),
    ("batch-t2i", *FLUX, "--prompts-file", "-"),
    ("batch-i2v", *MINIMAX, "--image-urls-file", "-"),
    ("upload-raw", "--file", "-", *BYTES),
    ("encode-raw", "--file", "-", *BYTES),
]


def test_stdin_that_is_closed(fal: Sandbox, after: Shell) -> None:
    for argv in FROM_STDIN:
        assert_users(after(":", *argv, rest="<&-"))
    assert fal.requests == []


def test_stdin_that_cannot_be_read(fal: Sandbox, after: Shell) -> None:
    """Reading from it fails, as from a broken disk; or it is open for writing alone."""
    with open("/proc/self/mem", "rb") as broken:
        for argv in FROM_STDIN:
            assert_users(after(":", *argv, stdin=broken))
    for argv in FROM_STDIN[1::5]:
        assert_users(after(":", *argv, rest="0> written"))
    assert fal.requests == []


# A flag that names a file, and the rest of its command.
NAMING = [
    ("upload-file", "--file", "{}"),
    ("upload-raw", *BYTES, "--file", "{}"),
    ("encode-file", "--file", "{}"),
    ("encode-image", "--file", "{}"),
    ("submit-t2i", *FLUX, "--prompt-file", "{}"),
    ("submit-t2i", *CAT, "--extra-json", "@{}"),
    ("submit-i2v", *MINIMAX, "--image-url", "{}"),
    ("batch-t2i", *FLUX, "--prompts-file", "{}"),
    ("batch-i2v", *MINIMAX, "--image-urls", "{}"),
]
ODD_FILES = {
    "a folder": ".",
    "too long a name": "a" * 300,
    "too long a path": "a/" * 2500,
    "below a file": "photo.jpg/inside",
    "a link to itself": "loop",
    "a link to nothing": "dangling",
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_file_that_cannot_be_read_is_named(
    fal: Sandbox, cli: Cli, photo: Path, kind: str
) -> None:
    photo.with_name("loop").symlink_to("loop")
    photo.with_name("dangling").symlink_to("nowhere")
    name = ODD_FILES[kind]
    argv = NAMING[list(ODD_FILES).index(kind)]
    assert_users(cli(*(word.format(name) for word in argv)), name[:100])
    assert fal.requests == []


def test_a_file_on_a_broken_disk_is_named(fal: Sandbox, cli: Cli) -> None:
    """It is there, and reading from it fails."""
    for argv in NAMING:
        assert_users(cli(*(word.format("/proc/self/mem") for word in argv)), "/proc/self/mem")
    assert fal.requests == []


@pytest.mark.parametrize("where", ["photo.jpg/x", "/proc/self/mem"])
def test_a_journal_that_cannot_be_kept(fal: Sandbox, cli: Cli, photo: Path, where: str) -> None:
    done = cli("batch-t2i", *FLUX, "--prompts", "A cat", "--journal", where)
    assert_users(done, where[:100])
    assert paid(fal) == []


def test_a_picture_that_is_gone_when_its_turn_comes(fal: Sandbox, cli: Cli, photo: Path) -> None:
    """One becomes a folder, one a link to itself, one is deleted while the first job is sent."""
    names = ("folder.jpg", "link.jpg", "gone.jpg")
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(photo.with_name(name))

    def change() -> bool:
        for name in names:
            if not photo.with_name(name).is_dir():
                photo.with_name(name).unlink(missing_ok=True)
        photo.with_name("folder.jpg").mkdir(exist_ok=True)
        photo.with_name("link.jpg").symlink_to("link.jpg")
        return True

    fal.on("POST", "rest.fal.ai", "*", Hold(change))
    argv = ("batch-i2v", *MINIMAX, "--concurrency", "1", "--image-urls", "photo.jpg", *names)
    done = cli(*argv)
    assert done.status == 1
    failed = {line["image_url"]: line["error"] for line in done.lines if "error" in line}
    assert {*failed} == {*names}, done.stdout
    for name, error in failed.items():
        assert (error["type"], error["retryable"]) == ("usage_error", False)
        assert name in error["message"]


# The machine's


def starts(after_limit: str) -> bool:
    """Whether Python itself can work under a limit."""
    check = f"{after_limit}; exec {shlex.quote(SKILL[0])} -c 'import json, ssl, asyncio'"
    return subprocess.run(["bash", "-c", check], capture_output=True).returncode == 0


def assert_told(fal: Sandbox, done: Outcome) -> None:
    """It came through, or the machine is blamed; no job is lost or paid for again."""
    for request_id in fal.jobs:
        assert request_id in done.stdout + done.stderr
    if done.status == 0:
        return
    assert done.status == 1, done.stderr
    errors = [done.error] if done.error["type"] != "batch_failed" else []
    errors += [line["error"] for line in done.lines if "error" in line] if not errors else []
    for error in errors:
        assert_machines(error)


FEW = [6, 7, 8, 10]


@pytest.mark.parametrize(
    "argv",
    [
        ("subscribe-t2i", *CAT, "--output", "out/"),
        ("upload-file", "--file", "photo.jpg"),
        ("encode-raw", "--file", "photo.jpg", *BYTES),
        ("realtime", "--model", "fal-ai/flux/dev", "--arguments-json", '{"prompt": "A cat"}'),
    ],
    ids=lambda argv: argv[0],
)
def test_too_many_open_files(
    fal: Sandbox, after: Shell, photo: Path, argv: tuple[str, ...]
) -> None:
    ends = set()
    for number in FEW:
        limit = f"ulimit -n {number}"
        if starts(limit):
            fal.reset()
            done = after(limit, *argv)
            ends.add(done.status)
            if done.status and done.error["type"] == "download_failed":
                assert "images" in done.json
                continue
            assert_told(fal, done)
    assert ends <= {0, 1}


def test_a_batch_with_more_pictures_than_files_may_be_open(
    fal: Sandbox, after: Shell, photo: Path
) -> None:
    pictures = [f"{number}.png" for number in range(12)]
    for number, name in enumerate(pictures):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(photo.with_name(name))
    argv = ("batch-i2v", *MINIMAX, "--concurrency", "12", "--image-urls", *pictures)
    assert_told(fal, after("ulimit -n 14", *argv))


def test_no_memory_for_a_picture(fal: Sandbox, after: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (8000, 8000)).save(tmp_path / "big.png", compress_level=1)
    for argv in (
        ("encode-image", "--file", "big.png"),
        ("upload-image", "--file", "big.png", "--format", "webp"),
        ("encode-raw", "--file", "long.bin", *BYTES),
    ):
        done = after("ulimit -v 400000; truncate -s 500M long.bin", *argv)
        assert (done.status, done.stdout) == (1, ""), done.stderr
        assert_machines(done.error)
    assert fal.uploads == []


def test_no_place_for_what_comes_from_stdin(fal: Sandbox, after: Shell) -> None:
    """No folder takes a temporary file, or the disk is full before its end."""
    argv = ("upload-raw", "--file", "-", *BYTES)
    for blocks, stdin in ((0, b"x" * 100), (1, b"x" * 100_000)):
        done = after(f"ulimit -f {blocks}", *argv, stdin=stdin)
        assert (done.status, done.stdout) == (1, ""), done.stderr
        assert_machines(done.error)
    assert fal.uploads == []


@pytest.mark.parametrize(
    ("size", "mode", "format"),
    [((8, 8), "CMYK", "png"), ((17_000, 2), "RGB", "webp"), ((66_000, 2), "RGB", "jpeg")],
)
def test_what_a_format_cannot_hold_is_not_the_networks_fault(
    fal: Sandbox, cli: Cli, tmp_path: Path, size: tuple[int, int], mode: str, format: str
) -> None:
    Image.new(mode, size).save(tmp_path / "picture.tiff")
    for command in ("encode-image", "upload-image"):
        done = cli(command, "--file", "picture.tiff", "--format", format)
        if mode == "CMYK":
            assert done.status == 0, done.stderr
        else:
            assert_users(done)
    assert len(fal.uploads) == (1 if mode == "CMYK" else 0)


# fal's odd answers

NO_URLS = ["http://[", "http:///x.png", "https://example.com:99999/a.png", "https://user@/a.png"]


@pytest.mark.parametrize("url", NO_URLS)
def test_an_upload_that_names_no_url(fal: Sandbox, cli: Cli, photo: Path, url: str) -> None:
    """No job is started with it."""
    fal.on("POST", CDN, "*", fal.always(Reply(json={"access_url": url})))
    number = NO_URLS.index(url)
    uploading = ("upload-file", "--file", "photo.jpg"), ("upload-image", "--file", "photo.jpg")
    for argv in (uploading[number % 2], ("submit-i2v", *MINIMAX, "--image-url", "photo.jpg")):
        done = cli(*argv)
        assert_fals(done)
        assert done.stdout == ""
    assert paid(fal) == []


LATER = "2099-01-01T00:00:00+00:00"
TOKEN = {
    "token": "dummy-token",
    "token_type": "Bearer",
    "base_url": f"https://{CDN}",
    "expires_at": LATER,
}
NO_TOKENS: list[dict[str, Any]] = [
    {"base_url": f"https://{'a' * 70}.fal.media"},
    {"expires_at": "2001-01-01T00:00:00+00:00"},
    {"expires_at": "0001-01-01T00:00:00+23:00"},
]


@pytest.mark.parametrize("odd", NO_TOKENS, ids=str)
def test_a_token_of_no_use(
    fal: Sandbox, cli: Cli, clock: Clock, photo: Path, odd: dict[str, Any]
) -> None:
    """A client that takes it asks for another, and yet another, without an end."""
    fal.on("POST", "rest.fal.ai", "/storage/auth/token", fal.always(Reply(json={**TOKEN, **odd})))
    fal.on("POST", "*", "/files/*", Reply(json={"access_url": f"https://{MEDIA}/files/b/a.jpg"}))
    done = cli("upload-file", "--file", "photo.jpg", env=clock.env(LEAP))
    if done.status:
        assert_fals(done)
    assert len(fal.requests) <= 40
