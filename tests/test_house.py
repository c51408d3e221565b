"""How the file is built: what its next owner may rely on."""

from __future__ import annotations

import ast
import builtins
import collections
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SCRIPT, Cli, Outcome
from sandbox import Sandbox

SOURCE = SCRIPT.read_text(encoding="utf-8")
TREE = ast.parse(SOURCE)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def bindings(function: ast.AST) -> Iterator[str]:
    """The names of parameters and variables that a function brings."""
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_no_name_hides_a_function_or_class_of_the_file_or_of_python() -> None:
    """But for the keywords of the public functions, which are named as their flags are."""
    own = {node.name for node in TREE.body if isinstance(node, DEFINITIONS)}
    functions = [node for node in ast.walk(TREE) if isinstance(node, DEFINITIONS[:2])]
    hidden = collections.Counter(
        f"{function.name}: {name}"
        for function in functions
        for name in bindings(function)
        if name in own | set(dir(builtins))
    )
    allowed = {"upload_image: format", "encode_image: format"}
    assert set(hidden) <= allowed


def test_an_older_python_is_told_what_is_needed() -> None:
    """The file can be read by Python 3.7, and says in one line what it lacks."""
    ast.parse(SOURCE, feature_version=(3, 7))
    code = (
        "import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0);"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    error = json.loads(line)["error"]
    assert (done.returncode, done.stdout, error["type"]) == (2, "", "usage_error")
    assert "Python 3.11 or newer is needed" in error["message"]
    assert "uv run" in error["hint"]


@pytest.mark.parametrize(
    "argv",
    [
        ("submit-t2i", "--modle", "fal-ai/flux/dev", "--prompt", "A cat"),
        ("submit-t2i", "--model", "fal-ai/flux/dev", "--promt=A cat"),
        ("result", "--model", "fal-ai/flux/dev", "--request_id", "x"),
    ],
    ids=lambda argv: argv[-2] if "=" not in argv[-1] else argv[-1],
)
def test_a_misspelt_required_flag_is_named(cli: Cli, argv: tuple[str, ...]) -> None:
    error = cli(*argv).error
    assert error["message"].startswith("unrecognized arguments: --")
    assert error["hint"].startswith("Did you mean --")


COUNT_CONTEXTS = """
import ssl, sys
made = []
make = ssl.create_default_context
def counted(*args, **keywords):
    made.append(args)
    return make(*args, **keywords)
ssl.create_default_context = counted
import skill_fal
status = skill_fal.main(sys.argv[1:])
print(f"{len(made)} TLS contexts", file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ("subscribe-t2i", "--prompt", "A cat", "--output", "pictures/"),
        ("subscribe-i2v", "--image-url", "photo.jpg"),
        ("stream-t2i", "--prompt", "A cat"),
        ("batch-t2i", "--prompts", "A cat", "A dog", "--output", "pictures/"),
        ("realtime", "--arguments-json", '{"prompt": "A cat"}'),
        ("upload-file", "--file", "photo.jpg"),
        ("list-models", "--schema", "fal-ai/flux/dev"),
    ],
    ids=lambda argv: argv[0],
)
def test_a_command_makes_one_tls_context(
    fal: Sandbox, environment: dict[str, str], photo: Path, argv: tuple[str, ...]
) -> None:
    model = "fal-ai/veo3.1/image-to-video" if "i2v" in argv[0] else "fal-ai/flux/dev"
    if "upload" not in argv[0] and "list" not in argv[0]:
        argv = (*argv, "--model", model)
    done = subprocess.run(
        [sys.executable, "-c", COUNT_CONTEXTS, *argv],
        env={**environment, "PYTHONPATH": str(SCRIPT.parent)},
        cwd=photo.parent,
        capture_output=True,
        text=True,
    )
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert (outcome.status, outcome.stderr.splitlines()[-1]) == (0, "1 TLS contexts")
    assert fal.requests
