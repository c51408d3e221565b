"""What --overwrite and --metadata may replace, what files are called, and where they can go."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SKILL, Cli, Outcome, importing, outcome_of
from sandbox import Reply, Sandbox
from test_saving import FLUX, PNG, image, run, serve

OTHER = PNG[:-1] + b"!"  # as large
OURS = b"the user's own"


def held(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their names."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def own(path: Path, content: bytes = OURS) -> Path:
    """A file that no run has written."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def saved(done: Outcome) -> list[str]:
    return [Path(file["path"]).name for file in done.json["downloaded_files"]]


# --overwrite

PLACES = [
    ("d/{name}.{ext}", "a"),
    ("d/{name}.png", "a"),
    ("d/{name}", "a"),
    ("d/", "fal-ai-flux-dev"),
    ("d/{index}-{seed}.{ext}", "0-7"),
]


@pytest.mark.parametrize(("where", "stem"), PLACES, ids=[where for where, _ in PLACES])
def test_overwrite_leaves_what_the_user_has_not_named(
    fal: Sandbox, cli: Cli, tmp_path: Path, where: str, stem: str
) -> None:
    serve(fal)
    own(tmp_path / f"d/{stem}.png")
    argv = ("--output", where, "--overwrite", "--seed", "7")
    assert run(fal, cli, {"images": [image()]}, *argv).status == 0
    assert held(tmp_path / "d") == {f"{stem}.png": OURS, f"{stem}-2.png": PNG}


@pytest.mark.parametrize(("where", "stem"), PLACES, ids=[where for where, _ in PLACES])
def test_overwrite_replaces_what_a_run_has_written(
    fal: Sandbox, cli: Cli, tmp_path: Path, where: str, stem: str
) -> None:
    (tmp_path / "d").mkdir()
    fal.on("GET", "v3b.fal.media", "*", Reply(content=PNG), Reply(content=OTHER))
    argv = ("--output", where, "--overwrite", "--seed", "7")
    for content in (PNG, OTHER):
        assert run(fal, cli, {"images": [image()]}, *argv).status == 0
        assert held(tmp_path / "d") == {f"{stem}.png": content}


def test_overwrite_replaces_what_a_run_without_it_has_written(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    fal.on("GET", "v3b.fal.media", "*", Reply(content=PNG), Reply(content=OTHER))
    for flags in ((), ("--overwrite",)):
        done = run(fal, cli, {"images": [image()]}, "--output", "d/{name}.{ext}", *flags)
        assert saved(done) == ["a.png"]
    assert held(tmp_path / "d") == {"a.png": OTHER}


@pytest.mark.parametrize(
    ("content", "seconds"),
    [(PNG + b"mine", 0), (OTHER, 5), (PNG, 5)],
    ids=["another size", "another content", "touched"],
)
def test_overwrite_leaves_what_was_changed_since(
    fal: Sandbox, cli: Cli, tmp_path: Path, content: bytes, seconds: int
) -> None:
    """By its size or the time of its last change, that of the run's own file is not taken."""
    serve(fal)
    argv = ("--output", "d/{name}.{ext}", "--overwrite")
    run(fal, cli, {"images": [image()]}, *argv)
    path = tmp_path / "d/a.png"
    then = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(then, then + seconds * 10**9))
    assert saved(run(fal, cli, {"images": [image()]}, *argv)) == ["a-2.png"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("base", ["", "elsewhere"], ids=["home", "XDG_STATE_HOME"])
def test_what_runs_have_written_is_remembered_in_the_state_folder(
    fal: Sandbox, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    folder = tmp_path / (base or ".local/state") / "fal-skill"
    env = {"XDG_STATE_HOME": str(tmp_path / base)} if base else {}
    serve(fal)

    def again() -> list[str]:
        fal.on("POST", "fal.run", "*", Reply(json={"images": [image()]}))
        argv = ("--model", FLUX, "--prompt", "A cat", "--overwrite", "--output", "d/{name}")
        return saved(cli("run-t2i", *argv, env=env))

    assert [again(), again()] == [["a.png"]] * 2
    assert any(folder.iterdir())
    shutil.rmtree(folder)
    assert again() == ["a-2.png"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\0{", b"[7, null]\n{}\n"], ids=["empty", "junk", "odd"]
)
def test_what_cannot_be_remembered_is_not_replaced(
    fal: Sandbox, cli: Cli, tmp_path: Path, content: bytes
) -> None:
    serve(fal)
    argv = ("--output", "d/{name}.{ext}", "--overwrite")
    run(fal, cli, {"images": [image()]}, *argv)
    memory = [path for path in (tmp_path / ".local/state/fal-skill").rglob("*") if path.is_file()]
    assert memory
    for path in memory:
        path.write_bytes(content)
    done = run(fal, cli, {"images": [image()]}, *argv)
    assert (done.status, saved(done)) == (0, ["a-2.png"])


def test_a_state_folder_that_cannot_be_made_loses_no_file(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    serve(fal)
    own(tmp_path / ".local/state")
    own(tmp_path / "d/a.png")
    argv = ("--output", "d/{name}.{ext}", "--overwrite")
    done = run(fal, cli, {"images": [image()]}, *argv)
    assert (done.status, saved(done)) == (0, ["a-2.png"])


def test_overwrite_replaces_the_first_file_alone(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    serve(fal)
    (tmp_path / "d").mkdir()
    for name in ("cat.png", "cat-2.png"):
        own(tmp_path / "d" / name)
    response = {"images": [image("a.png"), image("b.png")]}
    done = run(fal, cli, response, "--output", "d/cat.png", "--overwrite")
    assert saved(done) == ["cat.png", "cat-3.png"]
    assert held(tmp_path / "d")["cat-2.png"] == OURS


@pytest.mark.parametrize("where", ["d/cat.jpg", "d/cat"])
def test_another_extension_than_the_user_named_replaces_nothing(
    fal: Sandbox, cli: Cli, tmp_path: Path, where: str
) -> None:
    serve(fal)
    own(tmp_path / "d/cat.png")
    done = run(fal, cli, {"images": [image()]}, "--output", where, "--overwrite")
    assert saved(done) == ["cat-2.png"]
    assert held(tmp_path / "d") == {"cat.png": OURS, "cat-2.png": PNG}


def test_a_link_is_not_replaced_where_the_user_has_not_named_it(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    serve(fal)
    own(tmp_path / "precious")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.png").symlink_to("../precious")
    done = run(fal, cli, {"images": [image()]}, "--output", "d/{name}.{ext}", "--overwrite")
    assert saved(done) == ["a-2.png"]
    assert (tmp_path / "d/a.png").is_symlink()


def test_a_batch_replaces_its_own_files_alone(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    own(tmp_path / "d/1.jpg")
    argv = ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog", "--overwrite")
    for _ in range(2):
        assert cli(*argv, "--output", "d/{index}.jpg").status == 0
        assert sorted(held(tmp_path / "d")) == ["0.jpg", "1-2.jpg", "1.jpg"]
        assert held(tmp_path / "d")["1.jpg"] == OURS


# --metadata


@pytest.mark.parametrize("stem", ["cat", "package"])
def test_metadata_replaces_no_file_of_the_users(
    fal: Sandbox, cli: Cli, tmp_path: Path, stem: str
) -> None:
    serve(fal)
    own(tmp_path / f"d/{stem}.json")
    argv = ("--output", f"d/{stem}.png", "--overwrite", "--metadata")
    for _ in range(2):
        assert saved(run(fal, cli, {"images": [image()]}, *argv)) == [f"{stem}.png"]
        files = held(tmp_path / "d")
        assert sorted(files) == [f"{stem}.json", f"{stem}.meta.json", f"{stem}.png"]
        assert files[f"{stem}.json"] == OURS
        assert json.loads(files[f"{stem}.meta.json"])["model"] == FLUX


def test_metadata_replaces_none_of_two_files_of_the_users(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    serve(fal)
    names = ("cat.json", "cat.meta.json")
    for name in names:
        own(tmp_path / "d" / name)
    argv = ("--output", "d/cat.png", "--overwrite", "--metadata")
    assert run(fal, cli, {"images": [image()]}, *argv).status == 0
    files = held(tmp_path / "d")
    assert [files[name] for name in names] == [OURS, OURS]
    assert PNG in files.values()


def test_metadata_replaces_its_own(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    serve(fal)
    argv = ("--output", "d/cat.png", "--overwrite", "--metadata")
    for seed in ("1", "2"):
        assert run(fal, cli, {"images": [image()]}, *argv, "--seed", seed).status == 0
    assert sorted(held(tmp_path / "d")) == ["cat.json", "cat.png"]
    assert json.loads((tmp_path / "d/cat.json").read_text())["seed"] == 2


# Extensions

DANGEROUS = (
    "sh bash zsh bat cmd com exe msi ps1 vbs desktop command py pl rb js mjs php lnk app scr"
)
DANGEROUS += " dll so dylib jar apk hta reg url webloc workflow scpt pif cpl service docm xlsm"
KNOWN = "glb gltf obj stl ply usdz fbx zip tar json txt csv srt vtt pdf safetensors npz mp4 wav"


TYPES = {
    "application/x-sh",
    "application/x-csh",
    "application/x-msdownload",
    "application/x-msdos-program",
    "application/x-bat",
    "application/javascript",
    "text/javascript",
    "text/x-python",
    "application/x-httpd-php",
    "application/x-sharedlib",
    "application/vnd.microsoft.portable-executable",
    "application/hta",
    "application/x-shockwave-flash",
    "application/vnd.ms-excel",
}


def extensions(folder: Path) -> list[str]:
    return [path.suffix for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("where", ["d/{name}.{ext}", "d/file", "d/"])
@pytest.mark.parametrize("by", ["name", "url", "capitals"])
def test_what_could_be_run_is_saved_as_bytes(
    fal: Sandbox, cli: Cli, tmp_path: Path, by: str, where: str
) -> None:
    serve(fal, b"#!/bin/sh\n", content_type="application/octet-stream")
    runnable = [f"run.{extension}" for extension in DANGEROUS.split()]
    files = {
        "name": [image(f"x{index}", file_name=name) for index, name in enumerate(runnable)],
        "url": [image(name) for name in runnable],
        "capitals": [image(name.upper()) for name in runnable],
    }[by]
    assert run(fal, cli, {"files": files}, "--output", where).status == 0
    assert extensions(tmp_path / "d") == [".bin"] * len(files)


@pytest.mark.parametrize("by", ["host", "model", "data"])
def test_a_type_that_could_be_run_is_saved_as_bytes(
    fal: Sandbox, cli: Cli, tmp_path: Path, by: str
) -> None:
    files = []
    for index, content_type in enumerate(sorted(TYPES)):
        told = {"content-type": content_type} if by == "host" else {}
        reply = Reply(content=b"words", headers=told)
        fal.on("GET", "v3b.fal.media", f"/files/b/{index}", reply)
        facts = {"content_type": content_type} if by == "model" else {}
        url = f"data:{content_type},words{index}" if by == "data" else image(str(index))["url"]
        files.append({"url": url, "file_size": 5, **facts})
    assert run(fal, cli, {"files": files}, "--output", "d/").status == 0
    assert extensions(tmp_path / "d") == [".bin"] * len(TYPES)


def test_a_known_extension_is_kept(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    serve(fal, b"words", content_type="application/octet-stream")
    expected = sorted(f"x.{extension}" for extension in KNOWN.split())
    files = [image(name) for name in expected]
    assert run(fal, cli, {"files": files}, "--output", "d/{name}.{ext}").status == 0
    assert sorted(held(tmp_path / "d")) == expected


@pytest.mark.parametrize("name", ["run.sh", "run.exe", "run.php"])
def test_the_user_may_ask_for_any_extension(
    fal: Sandbox, cli: Cli, tmp_path: Path, name: str
) -> None:
    serve(fal, b"words", content_type="application/octet-stream")
    done = run(fal, cli, {"file": image("x.bin")}, "--output", f"d/{name}")
    assert (done.status, [*held(tmp_path / "d")]) == (0, [name])


@pytest.mark.parametrize("name", ["page.html", "page.htm", "page.xhtml", "page.shtml"])
def test_a_page_is_saved_as_text(fal: Sandbox, cli: Cli, tmp_path: Path, name: str) -> None:
    serve(fal, b"<b>hi</b>", content_type="application/octet-stream")
    file = image("x", file_name=name)
    done = run(fal, cli, {"file": file}, "--output", "d/{name}.{ext}")
    assert (done.status, [*held(tmp_path / "d")]) == (0, ["page.html.txt"])
    assert ".html.txt" in done.notes


def test_a_page_in_a_data_uri_is_saved_as_text(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    done = run(fal, cli, {"file": "data:text/html,<script>x</script>"}, "--output", "d/")
    assert (done.status, [*held(tmp_path / "d")]) == (0, ["fal-ai-flux-dev.html.txt"])
    assert ".html.txt" in done.notes


def test_a_page_that_is_asked_for_is_one(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    response = {"file": "data:text/html,<script>x</script>"}
    done = run(fal, cli, response, "--output", "d/page.html")
    assert (done.status, [*held(tmp_path / "d")]) == (0, ["page.html"])


# Where files can go


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is not the one of tmp_path."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        assert os.stat(name).st_dev != tmp_path.stat().st_dev
        yield Path(name)


@pytest.mark.parametrize("flags", [(), ("--metadata",), ("--overwrite",)], ids=" ".join)
@pytest.mark.parametrize("where", ["out/{seed}/a.{ext}", "out/{seed}/more/a.png"])
def test_a_folder_of_a_template_may_be_on_another_disk(
    fal: Sandbox, cli: Cli, tmp_path: Path, memory: Path, where: str, flags: tuple[str, ...]
) -> None:
    serve(fal)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/7").symlink_to(memory)
    done = run(fal, cli, {"images": [image()]}, "--seed", "7", "--output", where, *flags)
    assert done.status == 0, done.stderr
    folder = memory / "more" if "more" in where else memory
    expected = ["a.json", "a.png"] if "--metadata" in flags else ["a.png"]
    assert sorted(held(folder)) == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["7"]


@pytest.mark.parametrize("obstacle", ["file", "link"])
@pytest.mark.parametrize("verb", ["subscribe-t2i", "batch-t2i"])
def test_the_hint_names_another_place_than_the_one_that_fails(
    fal: Sandbox, cli: Cli, tmp_path: Path, obstacle: str, verb: str
) -> None:
    (tmp_path / "out").mkdir()
    if obstacle == "file":
        own(tmp_path / "out/7")
    else:
        (tmp_path / "out/7").symlink_to("/proc/none")
    what = ("--prompts", "A cat") if verb == "batch-t2i" else ("--prompt", "A cat")
    where = "out/{seed}/{name}.jpg"
    done = cli(verb, "--model", FLUX, *what, "--seed", "7", "--output", where)
    assert done.status == 1
    error = done.lines[0]["error"] if verb == "batch-t2i" else done.error
    assert (error["type"], error["details"][0]["type"]) == ("download_failed", "write_failed")
    assert "--output" in error["hint"]
    assert "{seed}" not in error["hint"]
    assert "out/7" not in error["hint"]


# Nobody's home

HOMELESS = """
import pwd


def unknown(*identity):
    raise KeyError(identity)


pwd.getpwuid = pwd.getpwnam = unknown
"""


@pytest.fixture
def homeless(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Cli:
    """Runs skill_fal.py as somebody who has no account, in an environment without HOME."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(HOMELESS)
    env = {**environment, **importing(tmp_path / "site")}
    del env["HOME"]

    def run(*argv: str, **_: object) -> Outcome:
        return outcome_of([*SKILL, *argv], env, tmp_path)

    return run


@pytest.mark.parametrize(
    "argv",
    [
        ("run-t2i", "--model", FLUX, "--prompt", "A cat"),
        ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat", "--output", "out/", "--overwrite"),
        ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "--journal", "j", "--output", "out/"),
        ("list-models", "--schema", FLUX),
    ],
    ids=lambda argv: argv[0],
)
def test_without_a_home_no_folder_stands_for_one(
    homeless: Cli, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    done = homeless(*argv)
    assert (done.status, bool(done.stdout)) == (0, True), done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("~")]


@pytest.mark.parametrize("where", ["~/x", "~", "~/", "~/x/{index}.{ext}", "~/cat.png"])
def test_without_a_home_none_can_be_saved_to(
    homeless: Cli, fal: Sandbox, tmp_path: Path, where: str
) -> None:
    done = homeless("run-t2i", "--model", FLUX, "--prompt", "A cat", "--output", where)
    assert (done.status, done.error["type"]) == (2, "usage_error")
    assert fal.requests == []
    assert not (tmp_path / "~").exists()


# What a batch has saved before


@pytest.mark.parametrize("where", ["d/", "d/{index}.{ext}"])
def test_a_batch_that_goes_on_replaces_none_of_its_files(
    fal: Sandbox, cli: Cli, tmp_path: Path, where: str
) -> None:
    argv = ("--model", FLUX, "--journal", "j", "--output", where, "--overwrite", "--prompts")
    cli("batch-t2i", *argv, "A cat")
    first = held(tmp_path / "d")
    done = cli("batch-t2i", *argv, "A dog", "A cat")
    assert done.status == 0, done.stderr
    paths = [file["path"] for line in done.lines for file in line["result"]["downloaded_files"]]
    assert len({*paths}) == 2
    assert first.items() <= held(tmp_path / "d").items()


def test_a_dry_run_leaves_no_state(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    own(tmp_path / "d/a.png")
    argv = ("--model", FLUX, "--prompt", "A cat", "--overwrite", "--dry-run")
    cli("run-t2i", *argv, "--output", "d/a")
    assert not (tmp_path / ".local").exists()


def test_a_home_that_is_not_there_is_not_made(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    serve(fal)
    fal.on("POST", "fal.run", "*", Reply(json={"images": [image()]}))
    argv = ("--model", FLUX, "--prompt", "A cat", "--output", "d/")
    assert cli("run-t2i", *argv, env={"HOME": str(tmp_path / "gone")}).status == 0
    assert not (tmp_path / "gone").exists()
