"""Files of prompts and of jobs as other systems, editors and spreadsheets write them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Outcome, Refusal
from sandbox import Sandbox

import skill_fal

FLUX = ("--model", "fal-ai/flux/dev")
SUBMIT = ("submit-t2i", *FLUX)
BATCH = ("batch-t2i", *FLUX, "--no-schema", "--dry-run")


def arguments_of(done: Outcome) -> list[Any]:
    assert done.status == 0, done.stderr
    return [line["arguments"] for line in done.lines]


def prompts_of(done: Outcome) -> list[str]:
    return [arguments["prompt"] for arguments in arguments_of(done)]


# Encodings

TEXT = "Ein Kätzchen\nпод дождём\n猫"  # noqa: RUF001
ENCODINGS = {
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16 LE": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16 BE": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-32 LE": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "UTF-32 BE": codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    "Windows' line ends": codecs.BOM_UTF16_LE + TEXT.replace("\n", "\r\n").encode("utf-16-le"),
    "an old Mac's line ends": TEXT.replace("\n", "\r").encode(),
    "the end as DOS marks it": TEXT.encode() + b"\r\n\x1a\x1a",
    "files joined by Windows": codecs.BOM_UTF8 + TEXT.replace("\n", "\n\ufeff").encode(),
}


def test_texts_of_other_systems(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """Each as a file of jobs, and all as prompts of one file each."""
    whole = [skill_fal.read_prompt_file(path) for path in written(tmp_path)]
    assert whole == [TEXT] * len(ENCODINGS)
    for path in written(tmp_path):
        lines = skill_fal.read_jobs(skill_fal.TEXT_TO_IMAGE, "prompt", path)
        assert [job["prompt"] for job in lines] == TEXT.split("\n"), path
    done = cli(*SUBMIT, "--prompt-file", "0.txt", "--no-schema", "--dry-run")
    assert done.json["arguments"] == {"prompt": TEXT}
    done = cli(*SUBMIT, "--prompt", "-", "--no-schema", stdin=ENCODINGS["UTF-16 BE"])
    assert done.status == 0, done.stderr
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": TEXT}]


def written(folder: Path) -> list[str]:
    paths = []
    for number, content in enumerate(ENCODINGS.values()):
        paths.append(folder / f"{number}.txt")
        paths[-1].write_bytes(content)
    return [str(path) for path in paths]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("A café\r\n".encode(encoding))
    assert skill_fal.read_prompt_file(str(tmp_path / "a.txt")) == "A café"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("A cat\nin a café".encode("cp1252"), "byte 15, in line 2"),
        ("кот".encode("cp1251"), "byte 1, in line 1"),
        ("ASCII\n\n\n猫".encode("shift-jis"), "line 4"),
        (codecs.BOM_UTF16_LE + b"A", "UTF-16"),
    ],
    ids=["cp1252", "cp1251", "Shift JIS", "half a character"],
)
@pytest.mark.parametrize("flag", ["--prompt-file", "--extra-json"])
def test_other_encodings_are_told(
    refusal: Refusal, tmp_path: Path, content: bytes, place: str, flag: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    argv: tuple[str, ...] = ("--extra-json", "@a.txt", "--prompt", "A cat")
    if flag == "--prompt-file":
        argv = (flag, "a.txt")
    error = refusal(*SUBMIT, *argv)
    for word in (flag, "a.txt", "UTF-", place):
        assert word in error["message"]
    assert "Out-File -Encoding utf8" in error["hint"]


# Control characters

CONTROLS = {
    "\x1b[31mred\x1b[0m": "U+001B, the escape character, as character 6",
    "\x07": "U+0007, the bell character",
    "\b\b": "U+0008, the backspace character",
    "\x0b": "U+000B, the vertical tab character",
    "\x0c": "U+000C, the form feed character",
    "\x01": "U+0001",
    "\x1f": "U+001F",
    "\x7f": "U+007F, the delete character",
    "\x9b1m": "U+009B",
}


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_refused_wherever_they_come_from(
    refusal: Refusal, tmp_path: Path, control: str
) -> None:
    text = f"A cat{control} sleeps"
    as_json = json.dumps({"prompt": text})
    (tmp_path / "prompt.txt").write_text(text)
    (tmp_path / "jobs.txt").write_text(f"A dog\n{as_json}\n")
    ways = (
        ("--prompt", text),
        ("--prompt-file", "prompt.txt"),
        ("--prompt", "A cat", "--negative-prompt", text),
        ("--arg", f"prompt={text}"),
        ("--prompt", "A cat", "--extra-json", as_json),
        ("--prompt", "A cat", "--extra-json", json.dumps({"texts": [{"a": text}]})),
    )
    for argv in ways:
        assert CONTROLS[control] in refusal(*SUBMIT, *argv)["message"]
    message = refusal(*BATCH, "--prompts-file", "jobs.txt")["message"]
    assert "jobs.txt, line 2: " in message
    assert CONTROLS[control] in message
    assert CONTROLS[control] in refusal(*BATCH, "--prompts", "A dog", text)["message"]


def test_a_null_character_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"A cat\nsleeps \x00 well")
    error = refusal(*SUBMIT, "--prompt-file", "prompt.txt")
    assert "U+0000, the null character, as character 8 of line 2" in error["message"]
    assert "UTF-16" in error["hint"]
    error = refusal(*SUBMIT, "--prompt", "A", "--extra-json", '{"a": {"b": "\\u0000"}}')
    assert "a.b: the text holds U+0000" in error["message"]
    error = refusal(*SUBMIT, "--prompt", "A", "--arg", 'texts=["a", "b\\u0000"]')
    assert "argument --arg: 1: the text holds U+0000" in error["message"]
    error = refusal(*SUBMIT, "--prompt", "A", "--arg", 'text="\\u009b2J"')
    assert "U+009B" in error["message"]


def test_tabs_and_line_ends_are_sent(cli: Cli) -> None:
    text = "A\tcat\nsleeps\u2028well\x85\u200d"
    done = cli(*SUBMIT, "--prompt", text, "--no-schema", "--dry-run")
    assert done.json["arguments"] == {"prompt": text}


# Repeated keys

REPEATED = '{"seed": 1, "prompt": "A cat", "seed": 2}'


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        ((*SUBMIT, "--prompt", "A", "--extra-json", REPEATED), "argument --extra-json: "),
        ((*SUBMIT, "--prompt", "A", "--extra-json", "@a.json"), "--extra-json: a.json: "),
        ((*SUBMIT, "--prompt", "A", "--extra-json", f'{{"a": [{REPEATED}]}}'), "--extra-json: "),
        ((*SUBMIT, "--prompt", "A", "--arg", f"loras=[{REPEATED}]"), "argument --arg: "),
        (("realtime", *FLUX, "--arguments-json", REPEATED), "argument --arguments-json: "),
        ((*BATCH, "--prompts-file", "lines.txt"), "lines.txt, line 2: "),
        ((*BATCH, "--prompts-file", "a.json"), "a.json, line 1: "),
        ((*BATCH, "--prompts-file", "list.json"), "list.json: "),
        ((*BATCH, "--prompts-file", "cells.csv"), "cells.csv, row 2: argument --extra-json: "),
    ],
    ids=["flag", "@file", "deep", "--arg", "realtime", "line", "object", "list", "cell"],
)
def test_a_repeated_key_is_refused(
    refusal: Refusal, tmp_path: Path, argv: Sequence[str], place: str
) -> None:
    (tmp_path / "a.json").write_text(REPEATED)
    (tmp_path / "lines.txt").write_text(f"A cat\n{REPEATED}\n")
    (tmp_path / "list.json").write_text(f"[\n{REPEATED}\n]")
    cell = '"{""a"": 1, ""seed"": 1, ""seed"": 2}"'
    (tmp_path / "cells.csv").write_text(f"prompt,extra\nA cat,{cell}\n")
    message = refusal(*argv)["message"]
    assert place in message
    assert "key 'seed' twice" in message


# Lists and objects of JSON

LISTS = {
    "one line": '[{"prompt": "A cat", "seed": 7}, {"prompt": "A dog"}]',
    "pretty": json.dumps([{"prompt": "A cat", "seed": 7}, {"prompt": "A dog"}], indent=2),
    "an item a line": '\ufeff\n[{"prompt": "A cat", "seed": 7},\r\n {"prompt": "A dog"}]\r\n\r\n',
    "with texts": '[\n  {"prompt": "A cat", "seed": 7},\n  "A dog"\n]',
}


def test_a_list_of_jobs(cli: Cli, tmp_path: Path) -> None:
    wanted = [{"prompt": "A cat", "seed": 7}, {"prompt": "A dog"}]
    for content in LISTS.values():
        (tmp_path / "jobs.json").write_text(content, newline="")
        read = skill_fal.read_jobs(skill_fal.TEXT_TO_IMAGE, "prompt", str(tmp_path / "jobs.json"))
        assert read == wanted
    assert arguments_of(cli(*BATCH, "--prompts-file", "jobs.json")) == wanted
    done = cli(*BATCH, "--prompts-file", "-", stdin='["{curly} cat", "# 1 dog", "[cat]"]')
    assert prompts_of(done) == ["{curly} cat", "# 1 dog", "[cat]"]


def test_an_object_on_several_lines_is_a_job(cli: Cli) -> None:
    text = json.dumps({"prompt": "A cat", "seed": 7, "arg": {"a": 1}}, indent=4)
    done = cli(*BATCH, "--prompts-file", "-", stdin=text)
    assert done.json["arguments"] == {"prompt": "A cat", "seed": 7, "a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"prompt": "A cat"},\n{"prompt": "A dog"},]', "jobs.json: not valid JSON"),
        ('[\n{"prompt": "A cat"}\n{"prompt": "A dog"}]', "jobs.json: not valid JSON"),
        ('[{prompt: "A cat"},\n{prompt: "A dog"}]', "jobs.json: not valid JSON"),
        ('["A cat",\n"A dog",\n]', "jobs.json: not valid JSON"),
        ("['A cat',\n'A dog']", "jobs.json: not valid JSON"),
        ('[{"prompt": "A cat"}, {"prompt": "A dog", "sed": 1}]', "item 2: no such argument: sed"),
        ('["A cat", 7]', "jobs.json, item 2: must be a JSON object or a text"),
        ('["A cat", ["A dog"]]', "jobs.json, item 2: must be a JSON object or a text"),
        ('["A cat", ""]', "jobs.json, item 2: argument --prompt: the text is empty"),
        ("[]", "jobs.json holds no jobs"),
        ('{\n"prompt": "A cat"\n}\n{\n"prompt": "A dog"\n}', "jobs.json, line 1: not valid JSON"),
    ],
)
def test_a_list_that_is_wrong(refusal: Refusal, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "jobs.json").write_text(content)
    assert said in refusal(*BATCH, "--prompts-file", "jobs.json")["message"]


def test_prompts_in_brackets_are_prompts(cli: Cli) -> None:
    prompts = ["[cat] on a mat", '["neon" sign] at night', "[{style}] a dog", "[wide] [low]"]
    assert prompts_of(cli(*BATCH, "--prompts-file", "-", stdin="\n".join(prompts))) == prompts


def test_stdin_is_called_so(cli: Cli) -> None:
    texts = {
        "A cat\n{": "stdin, line 2: not valid JSON",
        "[1]": "stdin, item 1: must",
        " ": "stdin h",
    }
    for text, words in texts.items():
        done = cli(*BATCH, "--prompts-file", "-", stdin=text)
        assert done.error["message"].startswith(f"argument --prompts-file: {words}")


# Comments

COMMENTED = "# my prompts\n#\n#sunset\n  # and\n#\there\nA cat # 1\n#1 fan\n## two\n- a dog\n"


def test_comments(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(COMMENTED)
    done = cli(*BATCH, "--prompts-file", "prompts.txt")
    assert prompts_of(done) == ["#sunset", "A cat # 1", "#1 fan", "## two", "- a dog"]
    assert "note: prompts.txt: 4 lines left out as comments (# and a space)" in done.stderr
    done = cli(*BATCH, "--prompts-file", "prompts.txt", "--quiet")
    assert (len(done.lines), done.stderr) == (5, "")


def test_lines_after_comments_keep_their_numbers(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text('# one\n\n{"seed": 1}\n')
    message = refusal(*BATCH, "--prompts-file", "prompts.txt")["message"]
    assert "prompts.txt, line 3: prompt is missing" in message
    (tmp_path / "prompts.txt").write_text("# one\n# two\n")
    message = refusal(*BATCH, "--prompts-file", "prompts.txt")["message"]
    assert "prompts.txt holds no jobs" in message


# Spreadsheets

WANTED = [
    {"prompt": 'A cat, with "big" eyes', "seed": 7, "num_images": 2},
    {"prompt": "A dog\non a mat", "num_images": 1},
    {"prompt": "# 1 fan", "seed": 0},
]
TABLES = {
    "comma.csv": 'prompt,seed,num_images\n"A cat, with ""big"" eyes",7,2\n'
    '"A dog\non a mat",,1\n# 1 fan,0,\n',
    "Excel.CSV": '\ufeffprompt;seed;num_images\r\n"A cat, with ""big"" eyes";7;2\r\n'
    '"A dog\non a mat";;1\r\n# 1 fan;0\r\n;;\r\n',
    "named.csv": 'sep=|\r\nprompt|seed|num_images\r\n"A cat, with ""big"" eyes"|7|2\r\n'
    '"A dog\r\non a mat"||1\r\n# 1 fan|0|\r\n',
    "tabs.tsv": 'prompt\tseed\tnum_images\n"A cat, with ""big"" eyes"\t7\t2\n'
    '"A dog\non a mat"\t\t1\n# 1 fan\t0\t\n',
    "names.csv": 'Seed,Num Images,--prompt,\n7,2,"A cat, with ""big"" eyes",\n\n'
    ' ,1,"A dog\non a mat",\n0,, # 1 fan ,\n',
}


def test_tables(cli: Cli, tmp_path: Path) -> None:
    for name, content in TABLES.items():
        (tmp_path / name).write_bytes(content.encode())
        read = skill_fal.read_jobs(skill_fal.TEXT_TO_IMAGE, "prompt", str(tmp_path / name))
        assert read == WANTED, name
    (tmp_path / "utf16.csv").write_bytes(TABLES["tabs.tsv"].encode("utf-16"))
    assert arguments_of(cli(*BATCH, "--prompts-file", "utf16.csv")) == WANTED


def test_a_table_of_one_column_needs_no_quotes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text('prompt\nA cat, asleep\n"A ""big"" dog; awake"\n')
    done = cli(*BATCH, "--prompts-file", "one.csv")
    assert prompts_of(done) == ["A cat, asleep", 'A "big" dog; awake']


def test_a_table_of_pictures(cli: Cli, tmp_path: Path, photo: Path) -> None:
    rows = f'image_url,prompt,arg\n{photo.name},Rain,"{{""mode"": ""b""}}"\n'
    (tmp_path / "pictures.csv").write_text(rows)
    argv = ("batch-i2v", *FLUX, "--no-schema", "--dry-run", "--image-urls-file", "pictures.csv")
    (arguments,) = arguments_of(cli(*argv))
    assert (arguments["prompt"], arguments["mode"]) == ("Rain", "b")
    assert photo.name in arguments["image_url"]


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        ("prompt,sed\nA cat,1\n", "row 1: no such column: sed", "seed"),
        ("A cat\nA dog\n", "row 1: no such column: A cat", "The first row names flags"),
        ("prompt,prompt\nA,B\n", "row 1: the column prompt is there twice", ""),
        ("prompt,seed\nA cat,1\nA dog,x\n", "row 3: argument --seed", ""),
        ('prompt,seed\n"A\ncat",1\n\nA dog,x\n', "row 4: argument --seed", ""),
        ("prompt,seed\nA cat, asleep,1\n", "row 2: cell 3 has no name", "quotes"),
        ("prompt,seed\n,1\n", "row 2: prompt is missing", ""),
        ("prompt,extra\nA cat,x\n", "row 2: argument --extra-json", ""),
        ('prompt,seed\n"A "big" cat",1\n', "line 2: not valid CSV", "doubled"),
        ('prompt,seed\nA cat,1\n"A dog,2\n', "not valid CSV", "doubled"),
        ("prompt\nA\x1bcat\n", "row 2: argument --prompt: the text holds U+001B", ""),
        ("prompt,seed\n", "jobs.csv holds no jobs", ""),
        ("", "jobs.csv holds no jobs", ""),
    ],
)
def test_a_table_that_is_wrong(
    refusal: Refusal, tmp_path: Path, content: str, said: str, hint: str
) -> None:
    (tmp_path / "jobs.csv").write_text(content)
    error = refusal(*BATCH, "--prompts-file", "jobs.csv")
    assert "jobs.csv" in error["message"]
    assert said in error["message"]
    assert hint in error["hint"]


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ('"A cat, ""big"""\nA dog\n"A hen, asleep"\n', ['A cat, "big"', "A dog", "A hen, asleep"]),
        ('"A cat"\n\n"A dog, awake"\n', ["A cat", "A dog, awake"]),
        ('"{""prompt"": ""A cat""}"\nA dog\n', ["A cat", "A dog"]),
        ('"A cat"\n', ['"A cat"']),
        ('"A cat"\nA dog\n', ['"A cat"', "A dog"]),
        ('"A" and "B"\n"C" or "D"\n', ['"A" and "B"', '"C" or "D"']),
        ('""big"" cat\nA dog', ['""big"" cat', "A dog"]),
    ],
)
def test_quotes_of_a_spreadsheet(tmp_path: Path, content: str, prompts: list[str]) -> None:
    """Left out where they are surely none of the prompt."""
    (tmp_path / "a.txt").write_text(content)
    read = skill_fal.read_jobs(skill_fal.TEXT_TO_IMAGE, "prompt", str(tmp_path / "a.txt"))
    assert [job["prompt"] for job in read] == prompts
