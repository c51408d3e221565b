"""list-t2i, list-i2v and list-models."""

from __future__ import annotations

import pytest
from conftest import Cli
from sandbox import Reply, Sandbox


@pytest.mark.parametrize(
    ("command", "count", "first", "last"),
    [
        (
            "list-t2i",
            35,
            "fal-ai/nano-banana-2\tNano Banana 2 (Gemini Flash Image)",
            "fal-ai/fooocus\tFooocus",
        ),
        (
            "list-i2v",
            38,
            "fal-ai/veo3.1/image-to-video\tVeo 3.1 (Google)",
            "fal-ai/ai-avatar/single-text\tMultiTalk Avatar",
        ),
    ],
)
def test_the_catalogs(
    fal: Sandbox, cli: Cli, command: str, count: int, first: str, last: str
) -> None:
    done = cli(command, env={"FAL_KEY": ""})
    lines = done.stdout.splitlines()
    assert (done.status, done.stderr, len(lines)) == (0, "", count)
    assert (lines[0], lines[-1]) == (first, last)
    rows = cli(command, "--json").json
    assert [f"{row['endpoint_id']}\t{row['title']}" for row in rows] == lines
    assert fal.requests == []


def test_all_pages_are_read_without_a_key(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--include-deprecated", env={"FAL_KEY": ""})
    assert (done.status, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(fal.models) > 1000
    assert len(fal.requests) > 10
    assert not [request for request in fal.requests if "authorization" in request.headers]


def test_deprecated_models_are_left_out(fal: Sandbox, cli: Cli) -> None:
    lines = cli("list-models").stdout.splitlines()
    assert len(lines) == len([model for model in fal.models if not model.deprecated])
    assert {request.query.get("status") for request in fal.requests} == {"active"}


def test_filters_are_sent_to_the_server(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--category", "text-to-image", "--search", "nano-banana")
    assert done.status == 0
    assert {(r.query["category"], r.query["q"]) for r in fal.requests} == {
        ("text-to-image", "nano-banana")
    }
    endpoint, category, title = done.stdout.splitlines()[0].split("\t")
    assert endpoint.startswith("fal-ai/nano-banana")
    assert (category, title) == ("text-to-image", "Nano Banana 2")


def test_json_is_the_full_metadata(fal: Sandbox, cli: Cli) -> None:
    found = cli("list-models", "--search", "nano-banana", "--json").json
    rows = {model.endpoint_id: model.row for model in fal.models}
    assert found
    assert all(model == rows[model["endpoint_id"]] for model in found)


def test_categories_are_counted(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--categories", "--include-deprecated")
    counts = {name: int(n) for name, n in (line.split("\t") for line in done.stdout.splitlines())}
    assert sum(counts.values()) == len(fal.models)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    argv = ("list-models", "--categories", "--include-deprecated", "--json")
    assert cli(*argv).json == counts


def test_a_key_raises_the_rate_limit(fal: Sandbox, cli: Cli) -> None:
    cli("list-models", "--search", "kling")
    assert fal.requests[0].headers["authorization"].startswith("Key ")


def test_a_cursor_that_goes_in_circles_ends(fal: Sandbox, cli: Cli) -> None:
    page = {"models": [{"endpoint_id": "a/b"}], "next_cursor": "Mg==", "has_more": True}
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(Reply(200, json=page)))
    done = cli("list-models")
    assert (done.status, done.stdout) == (0, "a/b\tuncategorised\t\n" * 2)


def test_a_list_without_an_end_is_no_answer(fal: Sandbox, cli: Cli) -> None:
    pages = [
        Reply(200, json={"models": [{"endpoint_id": "a/b"}], "next_cursor": f"{number}"})
        for number in range(1, 1002)
    ]
    fal.on("GET", "api.fal.ai", "/v1/models", *pages)
    done = cli("list-models")
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "unexpected_answer")
    assert "after 1000 pages" in done.error["message"]
    assert len(fal.requests) == 1000
