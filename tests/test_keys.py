"""Keys as they come from env files, dashboards, other tools and hasty hands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from conftest import Cli, sent
from sandbox import Reply, Sandbox

import skill_fal

FLUX = ("--model", "fal-ai/flux/dev")
SUBMIT = ("submit-t2i", *FLUX, "--prompt", "A cat", "--no-schema")
SECRET = "dummy-example-secret"
KEY = f"dummy-id:{SECRET}"
KEYS_PAGE = "https://fal.ai/dashboard/keys"


@pytest.mark.parametrize(
    "form",
    ['"{}"', "'{}'", "`{}`", "\u201c{}\u201d", "\u2018{}\u2019", '" {}\n"', "\u201e{}\u201c"],
    ids=ascii,
)
def test_one_pair_of_quotes_is_no_part_of_the_key(fal: Sandbox, cli: Cli, form: str) -> None:
    done = cli(*SUBMIT, env={"FAL_KEY": form.format(KEY)})
    assert done.status == 0, done.stderr
    (request,) = sent(fal)
    assert request.headers["authorization"] == f"Key {KEY}"


def test_halves_of_a_key_in_quotes(fal: Sandbox, cli: Cli) -> None:
    halves = {"FAL_KEY_ID": "'dummy-id'", "FAL_KEY_SECRET": f'"{SECRET}"'}
    assert cli(*SUBMIT, env={"FAL_KEY": "''", **halves}).status == 0
    assert sent(fal)[0].headers["authorization"] == f"Key {KEY}"


Refusal = Callable[[Mapping[str, str]], dict[str, Any]]


@pytest.fixture
def refusal(
    fal: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refusal:
    """The error of a command that needs a key, run in this process; nothing is sent."""

    def run(env: Mapping[str, str]) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            status = skill_fal.main(("cancel", *FLUX, "--request-id", "x"))
        stdout, stderr = capsys.readouterr()
        assert (status, stdout, fal.requests) == (3, "", [])
        assert "dummy" not in stderr
        error: dict[str, Any] = json.loads(stderr)["error"]
        return error

    return run


ODD = {
    "Key {}": "word before",
    "Bearer {}": "word before",
    "Authorization: Key {}": "word before",
    "FAL_KEY: {}": "word before",
    "FAL_KEY={}": "name of a variable",
    "export FAL_KEY={}": "name of a variable",
    'set FAL_KEY="{}"': "name of a variable",
    "$env:FAL_KEY = '{}'": "name of a variable",
    "'\"{}\"'": "quote",
    '"{}': "quote",
    '"{}",': "quote",
    "\ufeff{}": "unseen",
    "{}\u200b": "unseen",
    "\u202a{}": "unseen",
    "{}\\n": "line end",
    "{}\\r": "line end",
    "{};": "mark",
    "{} # of my team": "white space",
    "{}\nOTHER=x": "white space",
    "<{}>": "placeholder",
    "vault://{}": "URL",
    "${{{{ secrets.{} }}}}": "reference to a variable",
}


@pytest.mark.parametrize("form", ODD, ids=ascii)
def test_a_key_with_more_around_it_is_named_and_not_used(refusal: Refusal, form: str) -> None:
    error = refusal({"FAL_KEY": form.format(KEY)})
    assert error["type"] == "credentials_malformed"
    assert ODD[form] in error["message"]
    assert "FAL_KEY" in error["hint"]
    assert KEYS_PAGE in error["hint"]


PLACEHOLDERS = (
    "<your key>",
    "your-api-key",
    "YOUR_FAL_KEY_HERE",
    "${FAL_API_KEY}",
    "$FAL_KEY",
    "%FAL_KEY%",
    "{{ fal_key }}",
    "paste your key here",
    "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx:xxxxxxxx",
    "dummy-id:****",
    "FAL_KEY_ID:FAL_KEY_SECRET",
    "changeme",
    "my-api-key",
    "\u2026",
    KEYS_PAGE,
    "op://vault/fal/key",
)


@pytest.mark.parametrize("text", PLACEHOLDERS, ids=ascii)
def test_a_placeholder_is_no_key(refusal: Refusal, text: str) -> None:
    error = refusal({"FAL_KEY": text})
    assert error["type"] == "credentials_malformed"
    assert KEYS_PAGE in error["hint"]


OTHERS = (
    "FAL_API_KEY",
    "FAL_AI_API_KEY",
    "FAL_TOKEN",
    "FALAI_KEY",
    "FAL_SECRET",
    "VITE_FAL_KEY",
    "NEXT_PUBLIC_FAL_API_KEY",
    "FAL_CREDENTIALS",
    "fal_key_2",
    "fal_key",
)


@pytest.mark.parametrize("name", OTHERS)
def test_a_key_under_another_name_is_named_and_not_used(refusal: Refusal, name: str) -> None:
    for unset in ("", '""', "''"):
        error = refusal({"FAL_KEY": unset, name: KEY})
        assert error["type"] == "credentials_missing"
        assert f'export FAL_KEY="${name}"' in error["hint"]
        assert KEYS_PAGE in error["hint"]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"FAL_KEY_ID": "dummy-id"}, ["FAL_KEY_SECRET"]),
        ({"FAL_KEY_SECRET": SECRET}, ["FAL_KEY_ID"]),
        ({"FAL_KEY_ID": "dummy-id", "FAL_KEY_SECRET": "''"}, ["FAL_KEY_SECRET"]),
        ({"FAL_KEY_FILE": "/run/secrets/fal"}, ["$(cat $FAL_KEY_FILE)"]),
        (
            {"FALCON_TOKEN": KEY, "FALLBACK_API_KEY": KEY, "FAL_API_KEY": " ", "FAL_TOKEN_ID": "x"},
            ["Make a key"],
        ),
    ],
    ids=["id alone", "secret alone", "empty secret", "file", "no name of fal's"],
)
def test_what_there_is_in_place_of_a_key(
    refusal: Refusal, env: dict[str, str], words: list[str]
) -> None:
    error = refusal({"FAL_KEY": "", **env})
    assert error["type"] == "credentials_missing"
    assert [word for word in words if word not in error["hint"]] == []


@pytest.mark.parametrize(
    "env",
    [
        {"FAL_KEY": f'"{KEY}"'},
        {"FAL_KEY": f"\u201c{KEY}\u201d"},
        {"FAL_KEY": "", "FAL_KEY_ID": "dummy-id", "FAL_KEY_SECRET": f"'{SECRET}'"},
        {"FAL_KEY": "dummy-id:dummy-other-example", "FAL_API_KEY": f"Key {KEY}"},
        {"FAL_KEY": "dummy-id:dummy-other-example", "FALAI_TOKEN": f"'{KEY}'"},
    ],
    ids=["quotes", "curly quotes", "halves", "another variable", "another in quotes"],
)
def test_no_form_of_a_key_is_told(fal: Sandbox, cli: Cli, env: dict[str, str]) -> None:
    fal.on(
        "POST", "queue.fal.run", "*", Reply(400, json={"detail": f"No user for {KEY}; {SECRET}"})
    )
    done = cli(*SUBMIT, env=env)
    assert done.error["status"] == 400
    assert SECRET not in done.stdout + done.stderr
