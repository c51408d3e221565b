"""What shells, terminals, editors and file managers do to arguments on their way here."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import PATIENCE, SKILL, Cli, Refusal, telling
from PIL import Image
from sandbox import Sandbox

import skill_fal

FLUX = ("--model", "fal-ai/flux/dev")
SUBMIT = ("submit-t2i", *FLUX, "--prompt", "A cat")
NO_BREAK, ZERO_WIDTH = "\u00a0", "\u200b"


# JSON

SPOILT = {
    "PowerShell": ('{"a": "b"}'.replace('"', ""),),
    "PowerShell, in words": ("{a: b", "c}"),
    "cmd.exe": ("'{\"a\":1}'",),
    "cmd.exe, in words": ('\'{"a":', "1}'"),
    "cmd.exe, in words without quotes": ("'{a:", "1,", "b:", "2}'"),
    "backslashes": ('{\\"a\\": 1}',),
    "curly": ("{\u201ca\u201d: 1}",),
    "German": ("{\u201ea\u201c: 1}",),
    "French": ("{\u00aba\u00bb: 1}",),
    "curly outside": ('\u2018{"a": 1}\u2019',),
    "single inside": ("{'a': 1}",),
    "half": ('{"a":',),
}


@pytest.mark.parametrize("words", SPOILT.values(), ids=SPOILT.keys())
@pytest.mark.parametrize(
    ("argv", "flag"),
    [(SUBMIT, "--extra-json"), (("realtime", *FLUX), "--arguments-json")],
    ids=["extra", "arguments"],
)
def test_spoilt_json(
    refusal: Refusal, argv: Sequence[str], flag: str, words: Sequence[str]
) -> None:
    hint = refusal(*argv, flag, *words)["hint"]
    assert "@args.json" in hint
    assert "--arg NAME=VALUE" in hint


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{a: b}", "no double quotes"),
        ("'{\"a\": 1}'", "single quotes"),
        ("{\u201ca\u201d: 1}", "curly"),
        ('{\\"a\\": 1}', "backslashes"),
    ],
)
def test_what_has_spoilt_it(refusal: Refusal, text: str, cause: str) -> None:
    assert cause in refusal(*SUBMIT, "--extra-json", text)["hint"]


def test_spoilt_json_after_arg(fal: Sandbox, cli: Cli) -> None:
    loras = {"type": "array", "items": {"type": "object", "properties": {}}}
    fields = {"prompt": {"type": "string"}, "loras": loras}
    fal.on("GET", "api.fal.ai", "*", telling("fal-ai/flux/dev", fields))
    done = cli(*SUBMIT, "--arg", "loras=[{path: x}]")
    assert (done.status, done.error["type"]) == (2, "invalid_arguments")
    assert "--arg NAME=VALUE" in done.error["hint"]
    assert "@args.json" in done.error["hint"]


@pytest.mark.parametrize("source", ["'@args.json'", '"@args.json"', "@'args.json'", "@args.json "])
def test_a_file_of_json_in_quotes(cli: Cli, tmp_path: Path, source: str) -> None:
    (tmp_path / "args.json").write_text('{"seed": 7}')
    done = cli(*SUBMIT, "--no-schema", "--dry-run", "--extra-json", source)
    assert done.json["arguments"] == {"prompt": "A cat", "seed": 7}


# Texts that are split

SPLIT = (
    ("--prompt", "'A", "red", "car'"),
    ("--prompt", "\u201cA", "red", "car\u201d"),
    ("--prompt", "\u201eA", "red", "car\u201c"),
    ("--prompt", "\u00abA", "red", "car\u00bb"),
    ("--prompt='A", "red", "car'"),
    ("--prompt", "A", "red", "car"),
)


@pytest.mark.parametrize("words", SPLIT)
def test_a_text_that_the_shell_has_split(refusal: Refusal, words: Sequence[str]) -> None:
    assert "double quotes" in refusal("submit-t2i", *FLUX, *words)["hint"]


@pytest.mark.parametrize("words", [words for words in SPLIT if words[1] != "A"])
def test_one_prompt_does_not_become_several(refusal: Refusal, words: Sequence[str]) -> None:
    argv = [words[0].replace("--prompt", "--prompts"), *words[1:]]
    error = refusal("batch-t2i", *FLUX, *argv, "--seed", "5")
    assert "several words of one text" in error["message"]


def test_quotes_that_are_the_users_own(cli: Cli) -> None:
    prompts = ["'70s car", "cars'", "the cars'", "'neon'", "\u201cA sign\u201d", "'", "It's"]
    done = cli("batch-t2i", *FLUX, "--no-schema", "--dry-run", "--prompts", *prompts)
    assert done.status == 0, done.stderr
    assert [line["arguments"]["prompt"] for line in done.lines] == prompts


# Flags

FLAGS = {
    "em dash": "\u2014seed",
    "en dash": "\u2013seed",
    "en dash and hyphen": "\u2013-seed",
    "two en dashes": "\u2013\u2013seed",
    "minus": "\u2212seed",
    "figure dash": "\u2012seed",
    "horizontal bar": "\u2015seed",
    "full width": "\uff0d\uff0dseed",
    "no-break hyphens": "\u2011\u2011seed",
    "soft hyphens": "--\u00adseed",
    "one hyphen": "-seed",
    "three hyphens": "---seed",
    "capital": "--Seed",
    "no-break space before": f"{NO_BREAK}--seed",
    "zero width before": f"{ZERO_WIDTH}--seed",
    "byte order mark before": "\ufeff--seed",
    "space after": "--seed ",
    "no-break space after": f"--seed{NO_BREAK}",
}


@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS.keys())
def test_a_flag_that_an_editor_has_changed(refusal: Refusal, flag: str) -> None:
    """It takes no part in a list of prompts either, with the value that follows it."""
    lists = ("batch-t2i", *FLUX, "--prompts", "A cat")
    for words in ((flag, "5"), (f"{flag}=5",)):
        for argv in (SUBMIT, lists):
            error = refusal(*argv, *words)
            assert error["message"].startswith("unrecognized arguments: ")
            assert "Did you mean --seed?" in error["hint"]


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (("submit-t2i", "\u2014model", "fal-ai/flux/dev", "--prompt", "A"), "--model"),
        (("submit-t2i", *FLUX, "\u2014prompt", "A cat"), "--prompt"),
        ((*SUBMIT, "--negative\u2013prompt", "rain"), "--negative-prompt"),
        ((*SUBMIT, "\u2014num\u2011images=2"), "--num-images"),
        ((*SUBMIT, "-height", "512"), "--height"),
        ((*SUBMIT, "-seed:5"), "--seed"),
        ((*SUBMIT, "--seed:5"), "--seed"),
        ((*SUBMIT, "--seed 5"), "--seed"),
        ((*SUBMIT, f"--seed{NO_BREAK}5"), "--seed"),
        ((*SUBMIT, "/seed", "5"), "--seed"),
        ((*SUBMIT, "/seed:5"), "--seed"),
        (("batch-t2i", *FLUX, "--prompts", "A", "--seed 5"), "--seed"),
        (("\u2014help",), "--help"),
        (("-help",), "--help"),
        (("\u2013-version",), "--version"),
        (("submit-t2i", "\u2013help"), "--help"),
        (("submit\u2013t2i", *FLUX), "submit-t2i"),
        (("list-models", "\u2014search", "flux"), "--search"),
        (("upload-file", "\u2014file", "a.png"), "--file"),
    ],
    ids=lambda value: ascii(" ".join(value)) if isinstance(value, tuple) else None,
)
def test_the_flag_that_was_meant(refusal: Refusal, argv: Sequence[str], flag: str) -> None:
    assert f"Did you mean {flag}" in refusal(*argv)["hint"]


def test_texts_that_start_with_a_dash_are_texts(cli: Cli) -> None:
    prompts = [
        "\u2014 rain",
        "\u2014Seed of doubt",
        "-Width: 5 m, a road",
        "\u2013\u2013",
        "\u2014",
    ]
    done = cli("batch-t2i", *FLUX, "--no-schema", "--dry-run", "--prompts", *prompts)
    assert done.status == 0, done.stderr
    assert [line["arguments"]["prompt"] for line in done.lines] == prompts
    place = ("--hint=/seed", "--negative-prompt", "/seed")
    done = cli(*SUBMIT, "--no-schema", "--dry-run", *place)
    assert done.json["arguments"]["negative_prompt"] == "/seed"


# Paths

NAME = "my photo (1).png"
SPELLINGS = {
    "single quotes": f"'{NAME}'",
    "double quotes": f'"{NAME}"',
    "curly quotes": f"\u201c{NAME}\u201d",
    "backslashes": "my\\ photo\\ \\(1\\).png",
    "backslashes of some": "my\\ photo (1).png",
    "space after": f"{NAME} ",
    "line end after": f"{NAME}\r\n",
    "quotes and space": f"'{NAME}' ",
    "PowerShell": f"& '{NAME}'",
    "Windows' properties": f"\u202a{NAME}",
    "no-break space": f"{NO_BREAK}{NAME}",
    "backticks": f"`{NAME}`",
    "a folder as on Windows": f".\\{NAME}",
    "half in quotes": "my' photo 'f1f.png".replace("f1f", "\\(1\\)"),
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def test_a_path_as_it_is_dragged_or_pasted(
    picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By every reader of files that exist; the sandbox has no part in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my prompt (1).txt").write_text("A cat")
    for spelling in (*SPELLINGS.values(), f"'{picture.as_uri()}'", f"{picture.as_uri()}\n"):
        assert Path(skill_fal.read_local_file(spelling)).name == NAME, spelling
        assert skill_fal.is_media_file(spelling), spelling
        assert skill_fal.source_key(spelling) == str(picture), spelling
        assert skill_fal.open_media_file(spelling).content == picture.read_bytes(), spelling
        text = spelling.replace("photo", "prompt").replace(".png", ".txt")
        assert skill_fal.read_prompt_file(text) == "A cat", text


def test_accents_may_be_letters_of_their_own(
    picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """macOS writes them so, and what is typed is one letter."""
    monkeypatch.chdir(tmp_path)
    for kept, given in (("M\u00fcll.png", "Mu\u0308ll.png"), ("cafe\u0301.png", "caf\u00e9.png")):
        (tmp_path / kept).write_bytes(picture.read_bytes())
        for spelling in (given, f"'{given}'"):
            assert skill_fal.source_key(spelling) == str(tmp_path / kept), ascii(spelling)


@pytest.mark.parametrize("form", ["'{}'", '"{}"', "\u201c{}\u201d", " {}\n"], ids=ascii)
def test_a_url_in_quotes(form: str) -> None:
    for url in ("https://example.com/a.png", "data:image/png;base64,AAAA"):
        assert skill_fal.read_picture(form.format(url)) == url


def test_the_file_is_sent(fal: Sandbox, cli: Cli, picture: Path) -> None:
    argv = ("submit-i2v", "--model", "fal-ai/minimax-video/image-to-video", "--prompt", "Rain")
    for source in (SPELLINGS["backslashes"], SPELLINGS["double quotes"]):
        done = cli(*argv, "--image-url", source)
        assert done.status == 0, done.stderr
    done = cli("batch-i2v", *argv[1:], "--image-urls-file", "-", stdin=SPELLINGS["single quotes"])
    assert done.status == 0, done.stderr
    done = cli(*argv, "--arg", f"image_url={SPELLINGS['single quotes']}")
    assert done.status == 0, done.stderr
    urls = [job.arguments["image_url"] for job in fal.jobs.values()]
    assert len(urls) == 4
    assert [url for url in urls if not url.startswith("https://")] == []


def test_the_name_as_it_is_written_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "'a.txt'", "a\\b.txt", "ab.txt", "a.txt "):
        (tmp_path / name).write_text(name)
    for name in ("'a.txt'", "a\\b.txt", "a.txt "):
        assert skill_fal.read_text(name) == name


@pytest.mark.parametrize("source", ["'missing.png'", "my\\ missing.png", '"', "''", "missing\n"])
def test_what_is_not_there_is_told(refusal: Refusal, source: str) -> None:
    message = refusal("upload-file", "--file", source)["message"]
    assert "argument --file: no such file" in message
    argv = ("submit-t2i", *FLUX, "--prompt-file", source)
    assert "argument --prompt-file: cannot read" in refusal(*argv)["message"]


def test_new_files_are_named_as_they_are_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("")
    argv = ("batch-t2i", *FLUX, "--no-schema", "--prompts", "A cat", "--journal", "'out.jsonl'")
    assert cli(*argv).status == 0
    assert (tmp_path / "'out.jsonl'").exists()


# --help

WIDTHS = ((0, 0), (24, 0), (0, 80), (24, 1), (24, 19))


@pytest.fixture
def help_at(environment: Mapping[str, str]) -> Callable[..., str]:
    """What --help prints on a terminal that says it has so many lines and columns."""

    def run(size: tuple[int, int], **variables: str) -> str:
        import fcntl
        import termios

        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        env = {**environment, "TERM": "xterm", **variables}
        command = [*SKILL, "result", "--help"]
        child = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        shown = b""
        try:
            while chunk := os.read(master, 65536):
                shown += chunk
        except OSError:  # the terminal's other end is gone
            pass
        os.close(master)
        assert child.wait(timeout=PATIENCE) == 0, shown
        return shown.decode().replace("\r\n", "\n")

    return run


def test_help_on_a_terminal_without_columns(help_at: Callable[..., str]) -> None:
    usual = help_at((24, 80))
    wrapped = usual.partition("example:")[0].splitlines()
    assert 70 < max(map(len, wrapped)) <= 80
    for size in WIDTHS:
        assert help_at(size) == usual, size
    for columns in ("0", "-5", "junk", "1", "7"):
        assert help_at((0, 0), COLUMNS=columns) == usual, columns


def test_help_has_the_width_that_there_is(help_at: Callable[..., str]) -> None:
    wide = help_at((24, 200))
    assert max(map(len, wide.splitlines())) > 100
    narrow = help_at((24, 50))
    assert "--request-id" in narrow
    assert len(narrow.splitlines()) > len(wide.splitlines())
