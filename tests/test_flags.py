"""A flag is one row: a row that is added is read, fitted, sent and shown without another line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import SCRIPT, Outcome
from sandbox import Sandbox

FLUX = ("--model", "fal-ai/flux/dev")
SUBMIT = ("submit-t2i", *FLUX, "--prompt", "A cat")
ROWS_START = "\nMODEL_FLAGS = (\n"


class Row(NamedTuple):
    """A row to add, what it is given on the command line and in JSON, and what becomes of it."""

    code: str
    argv: tuple[str, ...]
    dest: str
    value: Any
    sent: dict[str, Any]


ROWS = {
    "the model's name": Row(
        'argument_flag("--acceleration NAME", "speed for quality", read_plain_text),',
        ("--acceleration", "high"),
        "acceleration",
        "high",
        {"acceleration": "high"},
    ),
    "another name": Row(
        'argument_flag("--file-type NAME", "type of the files", read_plain_text,'
        ' names=("file_type", "output_format")),',
        ("--file-type", "png"),
        "file_type",
        "png",
        {"output_format": "png"},
    ),
    "one of a few": Row(
        'argument_flag("--acceleration {none,high}", "speed", read_choice("none", "high")),',
        ("--acceleration", "none"),
        "acceleration",
        "none",
        {"acceleration": "none"},
    ),
    "a switch": Row(
        'argument_flag("--enable-safety-checker", "look the output over"),',
        ("--enable-safety-checker",),
        "enable_safety_checker",
        True,
        {"enable_safety_checker": True},
    ),
}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture
def run(
    row: Row, fal: Sandbox, environment: Mapping[str, str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Runs a copy of skill_fal.py that has one row more."""
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count(ROWS_START) == 1
    copy = tmp_path / "skill_fal.py"
    copy.write_text(source.replace(ROWS_START, f"{ROWS_START}    {row.code}\n"), encoding="utf-8")

    def run(*argv: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, str(copy), *argv],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def test_it_is_fitted(row: Row, run: Callable[..., Outcome]) -> None:
    request = run(*SUBMIT, *row.argv, "--dry-run").json
    assert request["arguments"] == {"prompt": "A cat", **row.sent}
    assert (request["notes"], request["schema"]) == ([], "fresh")


def test_what_is_not_given_is_not_sent(row: Row, run: Callable[..., Outcome]) -> None:
    for argv in ((), ("--no-schema",)):
        assert run(*SUBMIT, *argv, "--dry-run").json["arguments"] == {"prompt": "A cat"}


def test_it_is_sent(row: Row, run: Callable[..., Outcome], fal: Sandbox) -> None:
    done = run(*SUBMIT, *row.argv)
    assert done.status == 0, done.stderr
    (job,) = fal.jobs.values()
    assert job.arguments == {"prompt": "A cat", **row.sent}


def test_a_file_of_jobs_takes_it(row: Row, run: Callable[..., Outcome], tmp_path: Path) -> None:
    line = json.dumps({"prompt": "A cat", row.dest: row.value})
    (tmp_path / "jobs.txt").write_text(line)
    done = run("batch-t2i", *FLUX, "--prompts-file", "jobs.txt", "--dry-run")
    assert done.status == 0, done.stderr
    assert done.json["arguments"] == {"prompt": "A cat", **row.sent}


def test_the_help_shows_it(row: Row, run: Callable[..., Outcome]) -> None:
    for command in ("submit-t2i", "subscribe-i2v", "run-t2i", "stream-i2v", "batch-t2i"):
        assert f"\n  {row.argv[0]}" in run(command, "--help").stdout
    assert row.argv[0] not in run("result", "--help").stdout
