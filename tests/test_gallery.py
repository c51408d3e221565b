"""--gallery: a page or a contact sheet, whatever the jobs and their prompts are."""

from __future__ import annotations

import base64
import html.parser
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from conftest import STILL, Cli, Clock, Refusal, Starter, paid, wait_for
from PIL import Image
from sandbox import Reply, Sandbox

import skill_fal

FLUX = "fal-ai/flux/schnell"
BATCH = ("batch-t2i", "--model", FLUX, "--output", "out/{index}.{ext}")
VOID = {"meta", "img"}
TAGS = VOID | {
    *("html", "head", "title", "style", "body", "header", "main", "article", "div"),
    *("figure", "figcaption", "a", "bdi", "span", "h1", "h2", "p", "dl", "dt", "dd"),
    *("details", "summary", "video", "audio", "strong"),
}


class Element:
    """An element of a page, with what is in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.parts: list[Element | str] = []

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def all(self, *tags: str) -> Iterator[Element]:
        for part in self.parts:
            if isinstance(part, Element):
                if part.tag in tags:
                    yield part
                yield from part.all(*tags)


class Tree(html.parser.HTMLParser):
    """Reads a page; what is not closed, or not known, fails the test."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        assert len(dict(attrs)) == len(attrs)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].parts.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)


def articles(path: Path) -> list[Element]:
    return list(Tree(path).root.all("article"))


def files_of(page: Path, element: Element) -> list[Path]:
    """The files that an element shows or links to, which are there."""
    paths = []
    for part in element.all("a", "img", "video", "audio"):
        url = urljoin(page.as_uri(), part.attributes.get("href") or part.attributes["src"])
        assert urlsplit(url).scheme == "file"
        paths.append(Path(unquote(urlsplit(url).path)))
    assert all(path.is_file() for path in paths), paths
    return paths


def png(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(content: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def answers(fal: Sandbox, *uris: str, **more: Any) -> None:
    """A model that answers with these files."""
    body = json.dumps({"images": [{"url": uri} for uri in uris], **more}).encode()
    fal.on(
        "POST", "fal.run", "*", Reply(content=body, headers={"content-type": "application/json"})
    )


RUN = ("run-t2i", "--model", FLUX, "--prompt", "A cat")
OVERRIDE = "\u202e"
HOSTILE = (
    "A lighthouse",
    "</script></style></title>--><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\"' onload='x\" & &amp; {0} {summary} %s",
    f"{OVERRIDE}gpj.exe مرحبا",
    "[nsfw] <b>bold",
    "word " * 400 + "end",
)


def test_a_page_shows_the_jobs_of_a_batch(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "pages" / "g.html"
    secret = environment["FAL_KEY"].rpartition(":")[2]
    where = ("--output", "a #?%25 'ü\"/{index}:{prompt}.{ext}", "--gallery", "pages/g.html")
    done = cli(*BATCH[:3], "--prompts", *HOSTILE, f"A {secret}", *where)
    assert done.status == 1
    shown = articles(page)
    lines = sorted(done.lines, key=lambda line: line["index"])
    for prompt, line, job in zip(HOSTILE, lines, shown, strict=False):
        assert line["request_id"] in job.text
        (title,) = job.all("h2")
        told = prompt.replace(OVERRIDE, "[U+202E]")
        assert title.text.split(" ", 1)[1].rstrip("…") == told[: skill_fal.MAX_HEADING].rstrip()
        if "error" in line:
            assert line["error"]["message"] in job.text
            assert line["error"]["hint"] in job.text
            assert not list(job.all("img"))
            continue
        (image,) = job.all("img")
        assert image.attributes["alt"] == told
        assert (image.attributes["width"], image.attributes["height"]) == ("1024", "768")
        saved = Path(line["result"]["downloaded_files"][0]["path"])
        assert set(files_of(page, job)) == {saved}
        assert str(line["result"]["seed"]) in job.text
    assert [detail.text.endswith("end") for detail in shown[5].all("details")] == [True]
    assert "7 jobs, 1 failed" in Tree(page).root.text
    assert secret not in page.read_text(encoding="utf-8")


def test_nothing_in_a_page_can_run(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """Sounds and clips wait to be played, and what no browser shows is a link."""
    clip, sound = b"\0\0\0\x18ftypisom" + bytes(40), b"ID3\x04" + bytes(40)
    uris = (data_uri(clip, "video/mp4"), data_uri(sound, "audio/mpeg"))
    answers(fal, *uris, data_uri(b"II*\0" + bytes(40)), data_uri(png("red")))
    assert cli(*RUN, "--gallery", "g.html").status == 0
    page = tmp_path / "g.html"
    tree = Tree(page).root
    (policy,) = [
        meta.attributes["content"] for meta in tree.all("meta") if "http-equiv" in meta.attributes
    ]
    (style,) = tree.all("style")
    assert style.text == skill_fal.GALLERY_STYLE
    assert policy.startswith("default-src 'none'; ")
    assert "script" not in policy and "unsafe" not in policy and "http" not in policy
    (video,) = tree.all("video")
    assert {"controls", "muted", "playsinline"} <= set(video.attributes)
    (audio,) = tree.all("audio")
    assert "autoplay" not in {*video.attributes, *audio.attributes}
    assert len(list(tree.all("img"))) == 1
    assert len(set(files_of(page, tree))) == 4


def test_a_batch_that_goes_on_shows_its_earlier_jobs(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    argv = (*BATCH, "--journal", "j.jsonl", "--gallery", "g.html", "--prompts", "A cat", "[nsfw]")
    assert cli(*argv).status == 1
    first = [job.text for job in articles(tmp_path / "g.html")]
    again = cli(*argv, "A dog", "--media")
    second = articles(tmp_path / "g.html")
    assert (again.status, len(paid(fal))) == (1, 3)
    assert [job.text.split() for job in second[:2]] == [text.split() for text in first]
    assert "A dog" in second[2].text
    assert "Billed" in first[0]
    images = [image for job in second for image in job.all("img")]
    assert [image.attributes["src"] for image in images] == ["out/0.jpg", "out/2.jpg"]
    lines = again.stdout.splitlines()
    assert lines[-1] == f"MEDIA:{tmp_path}/g.html"
    assert sum(line.startswith("MEDIA:") for line in lines) == 3


def test_what_a_killed_batch_leaves_is_whole(
    fal: Sandbox, start: Starter, clock: Clock, tmp_path: Path
) -> None:
    page = tmp_path / "g.html"
    argv = (*BATCH, "--gallery", "g.html", "--prompts", "[fail]", "[slow]")
    fal.on("POST", "queue.fal.run", "*", Reply(403, json={"detail": "Not for you"}))
    child = start(*argv, env=clock.env(STILL))
    wait_for(page.exists, child)
    child.kill()
    child.communicate()
    (job,) = articles(page)
    assert "Not for you" in job.text
    assert "1 of 2 jobs, 1 failed" in Tree(page).root.text


@pytest.mark.parametrize("command", ["subscribe", "stream", "realtime", "result"])
def test_every_command_that_saves_has_a_gallery(
    fal: Sandbox, cli: Cli, tmp_path: Path, command: str
) -> None:
    flags: tuple[str, ...] = ("--gallery", "g.png", "--gallery", "g.html", "--media")
    generation = ("--model", "fal-ai/flux/dev", "--prompt", "A cat")
    answers_expected = 1
    if command == "realtime":
        answers_expected = 2
        flags = (*flags, "--arguments-json", '{"prompt": "A cat"}', "--rounds", "2")
        done = cli(command, "--model", FLUX, *flags)
    elif command == "result":
        cli("subscribe-t2i", *generation)
        done = cli(command, "--request-id", "last", *flags)
    else:
        done = cli(f"{command}-t2i", *generation, *flags)
    *lines, sheet_line, page_line = done.stdout.splitlines()
    handed_over = [f"MEDIA:{tmp_path}/g.png", f"MEDIA:{tmp_path}/g.html"]
    assert (done.status, [sheet_line, page_line]) == (0, handed_over), done.stderr
    page = tmp_path / "g.html"
    shown = articles(page)
    assert len(shown) == answers_expected
    assert all("A cat" in job.text for job in shown)
    saved = {Path(line.removeprefix("MEDIA:")) for line in lines}
    assert {path for job in shown for path in files_of(page, job)} == saved


def test_a_file_that_is_lost_or_flagged_is_told(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    uris = (data_uri(png("red")), "http://127.0.0.1/lost.png", data_uri(png("blue")))
    answers(fal, *uris, has_nsfw_concepts=[True, False, False])
    done = cli(*RUN, "--gallery", "g.html", "--output", "out/")
    assert (done.status, len(done.json["downloaded_files"])) == (1, 2)
    (job,) = articles(tmp_path / "g.html")
    assert done.error["message"] in job.text
    assert done.error["details"][0]["message"] in job.text
    captions = [caption.text for caption in job.all("figcaption")]
    assert ["Flagged" in caption for caption in captions] == [True, False]


def test_a_job_that_fails_is_shown_and_handed_to_nobody(cli: Cli, tmp_path: Path) -> None:
    flags = ("--gallery", "g.html", "--media")
    done = cli("subscribe-t2i", "--model", FLUX, "--prompt", "[nsfw]", *flags)
    assert (done.status, done.stdout) == (1, "")
    (job,) = articles(tmp_path / "g.html")
    assert done.error["message"] in job.text


@pytest.mark.usefixtures("clock")  # by which it runs for ever
def test_a_job_that_goes_on_is_not_shown(cli: Cli, tmp_path: Path) -> None:
    cli("submit-t2i", "--model", FLUX, "--prompt", "[slow]")
    done = cli("result", "--request-id", "last", "--no-wait", "--gallery", "g.html")
    assert (done.status, done.error["type"]) == (1, "not_finished")
    assert not (tmp_path / "g.html").exists()


def test_a_picture_that_may_run_is_shown_and_not_opened(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    answers(fal, data_uri(svg, "image/svg+xml"))
    assert cli(*RUN, "--output", "out/", "--gallery", "g.html").status == 0
    (job,) = articles(tmp_path / "g.html")
    (link,) = job.all("a")
    assert "download" in link.attributes
    (image,) = job.all("img")
    assert image.attributes["src"] == link.attributes["href"]


def test_a_gallery_that_cannot_be_written_loses_nothing(cli: Cli, tmp_path: Path) -> None:
    """Its folder has the name that the picture gets."""
    where = ("--output", "a.jpg", "--gallery", "a.jpg/g.html")
    done = cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat", *where)
    assert (done.status, done.error["type"]) == (1, "write_failed")
    assert done.json["downloaded_files"][0]["path"] == str(tmp_path / "a.jpg")
    batch = ("--output", "b.jpg", "--gallery", "b.jpg/g.html", "--prompts", "A cat", "A dog")
    done = cli(*BATCH[:3], *batch)
    assert (done.status, done.error["type"]) == (1, "write_failed")
    assert ["error" in line for line in done.lines] == [False, False]
    assert done.stderr.count("note: the gallery cannot be written") == 1


def test_what_is_no_gallery_is_not_replaced(cli: Cli, refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("my page")
    (tmp_path / "folder.html").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    for name in ("mine.html", "mine.png", "folder.html", "mine.html/g.html", "g.txt", "g", "-"):
        refusal(*RUN, "--gallery", name)
    error = refusal(*RUN, "--output", "g.PNG", "--gallery", "./g.png")
    assert "the same file" in error["message"]
    error = refusal(*BATCH, "--prompts", "A", "--journal", "j.html", "--gallery", "j.html")
    assert "the same file" in error["message"]
    for name in ("mine.html", "mine.png"):
        argv = (*RUN, "--output", "out/", "--gallery", name)
        assert cli(*argv, "--overwrite").status == 0
        assert cli(*argv).status == 0  # it is a gallery now
    assert articles(tmp_path / "mine.html")


def colours_of(path: Path) -> dict[tuple[int, int, int], list[int]]:
    """The places of the pictures of one colour, from left to right and downwards, by colour."""
    with Image.open(path) as sheet:
        image = sheet.convert("RGB")
        assert max(image.size) <= skill_fal.SHEET_SIDE
        places: dict[tuple[int, int, int], list[int]] = {}
        for y in range(0, image.height, 4):
            for x in range(0, image.width, 4):
                colour: Any = image.getpixel((x, y))
                places.setdefault(colour, []).append(y * 10_000 + x)
    return places


def test_a_contact_sheet_shows_each_picture_in_its_place(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    """Of 211, with clips, broken and vast pictures among them, each gets a tile."""
    colours = [(40 + index % 15 * 10, 30, 30 + index // 15 * 12) for index in range(208)]
    uris = [data_uri(png("rgb({}, {}, {})".format(*colour))) for colour in colours]
    vast = png("red").replace((64).to_bytes(4, "big"), (60_000).to_bytes(4, "big"))
    vast = vast.replace((48).to_bytes(4, "big"), (60_000).to_bytes(4, "big"))
    clip = b"\0\0\0\x18ftypisom" + bytes(40)
    answers(fal, data_uri(clip, "video/mp4"), data_uri(vast), data_uri(png("red")[:50]), *uris)
    done = cli(*RUN, "--output", "out/", "--gallery", "g.png", "--media")
    assert (done.status, done.stdout.splitlines()[-1]) == (0, f"MEDIA:{tmp_path}/g.png")
    shown = colours_of(tmp_path / "g.png")
    firsts = [min(shown[colour]) for colour in colours]
    assert firsts == sorted(firsts)
    tile = Image.new("RGB", (1, 1), skill_fal.SHEET_COLOURS["tile"]).getpixel((0, 0))
    assert min(shown[tile]) < firsts[0]  # type: ignore[index]
    assert {len(shown[colour]) for colour in colours} == {64 * 48 // 16}
    assert len(done.stdout.splitlines()) == 212


@pytest.mark.parametrize("count", [1, 2, 7, 650, 3000])
def test_a_sheet_has_room_for_all_that_can_be_seen(count: int) -> None:
    grids = [skill_fal.sheet_grid(count, shape) for shape in (0.5, 0.75, 1.0, 1.8)]
    for grid in grids:
        assert max(grid.size) <= skill_fal.SHEET_SIDE
        assert grid.width >= skill_fal.SMALLEST_TILE
        assert grid.columns * grid.rows >= min(count, 250)
        assert grid.columns * grid.rows <= skill_fal.MAX_TILES


def test_a_sheet_takes_any_text(cli: Cli, tmp_path: Path) -> None:
    prompts = ("漢字 \U0001f600 é\n\tx", f"{OVERRIDE}مرحبا", "[nsfw]", "x" * 2000)
    assert cli(*BATCH, "--gallery", "g.jpg", "--prompts", *prompts).status == 1
    with Image.open(tmp_path / "g.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert max(sheet.size) <= skill_fal.SHEET_SIDE
    assert cli(*BATCH, "--gallery", "g.jpg", "--prompts", "A cat").status == 0


def test_a_sheet_keeps_the_order_of_jobs_and_what_agents_can_take(tmp_path: Path) -> None:
    """Whatever job ends first, and though noise is not to be compressed."""
    sheet = skill_fal.Sheet("g.png")
    for place, colour in ((2, "#0000ff"), (0, "#ff0000"), (1, "#00ff00")):
        path = tmp_path / f"{place}.png"
        path.write_bytes(png(colour))
        file = skill_fal.GalleryFile(str(path), "image/png", 1, None, place, False)
        sheet.add(place, skill_fal.GalleryEntry(str(place), "", {}, [file]))
    (tmp_path / "g.png").write_bytes(sheet.content(""))
    shown = colours_of(tmp_path / "g.png")
    firsts = [min(shown[colour]) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert firsts == sorted(firsts)
    noise = [Image.effect_noise((2048, 1024), 120) for _ in range(3)]
    assert len(sheet._encoded(Image.merge("RGB", noise))) <= skill_fal.MAX_SHEET_BYTES
