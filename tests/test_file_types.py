"""What files are: the same rule for what is saved and for what is sent."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import PATIENCE, SKILL, Cli, telling
from PIL import Image
from sandbox import Reply, Sandbox
from test_saving import image, names, run

import skill_fal

BINARY = "application/octet-stream"


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "some content")
    return file.getvalue()


def boxed(brand: bytes, *compatible: bytes) -> bytes:
    """The start of a file of MP4's family, and something behind it."""
    brands = brand + bytes(4) + b"".join(compatible)
    return (len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands + bytes(range(256))


def matroska(kind: bytes) -> bytes:
    facts = b"\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08"
    facts += b"\x42\x82" + bytes([0x80 + len(kind)]) + kind
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 + len(facts)]) + facts + bytes(range(256))


def transport(packets: int = 5) -> bytes:
    return b"".join(
        b"G\x40\x11" + bytes([0x10 + count, *range(72, 256)]) for count in range(packets)
    )


QUICKTIME = boxed(b"qt  ", b"qt  ")
OLD_QUICKTIME = b"\0\0\0\x08wide\0\0\x10\0mdat" + bytes(range(256))
ANY_MP4 = boxed(b"isom", b"isom", b"iso2", b"mp41")
TEXT = b"some words\n"
SVG = b'<?xml version="1.0"?>\n<!-- ' + b"a drawing " * 60 + b'-->\n<svg xmlns="w"/>'
GLB = b"glTF\x02\0\0\0" + bytes(40)


class Case(NamedTuple):
    """What a file holds, what servers tell of it, how it is called, and how it is saved."""

    content: bytes
    header: str
    told: str
    name: str
    extension: str


BY_BYTES = [
    Case(QUICKTIME, "video/mp4", "video/mp4", "clip.mp4", ".mov"),
    Case(OLD_QUICKTIME, BINARY, "", "clip", ".mov"),
    Case(matroska(b"matroska"), "video/webm", "", "a.webm", ".mkv"),
    Case(matroska(b"webm"), "video/x-matroska", "", "a.mkv", ".webm"),
    Case(boxed(b"3gp5", b"isom"), "video/mp4", "", "a.mp4", ".3gp"),
    Case(boxed(b"3g2a"), BINARY, "", "", ".3g2"),
    Case(boxed(b"M4V ", b"mp42"), BINARY, "", "", ".m4v"),
    Case(boxed(b"M4A ", b"mp42"), "video/mp4", "", "", ".m4a"),
    Case(boxed(b"mif1", b"mif1", b"avif"), "image/jpeg", "", "", ".avif"),
    Case(boxed(b"hevc", b"msf1"), BINARY, "", "", ".heic"),
    Case(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30), "image/jpeg", "", "", ".jxl"),
    Case(b"\xff\x4f\xff\x51\0\x2f" + bytes(30), "image/png", "", "", ".jp2"),
    Case(transport(), "application/x-mpegurl", "", "", ".ts"),
    Case(b"RIFF\x20\0\0\0AVI LIST" + bytes(40), BINARY, "", "", ".avi"),
    Case(b"FORM\0\0\0\x20AIFCFVER" + bytes(40), "audio/wav", "", "", ".aiff"),
    Case(b"\xff\xf1\x50\x80\x2e\x7f\xfc" + bytes(40), "audio/mpeg", "", "", ".aac"),
    Case(b"\xff\xe3\x28\xc4" + bytes(range(100)), BINARY, "", "", ".mp3"),
    Case(b"OggS\0\x02" + bytes(22) + b"\x80theora" + bytes(30), "audio/ogg", "", "", ".ogv"),
    Case(b"MThd\0\0\0\x06\0\x01" + bytes(20), "audio/wav", "", "", ".mid"),
    Case(GLB, "text/html", "", "", ".glb"),
    Case(GLB, "application/json", "", "", ".glb"),
    Case(b"Kaydara FBX Binary  \0" + bytes(9), "text/plain", "", "", ".fbx"),
    Case(SVG, "text/plain", "text/plain", "drawing", ".svg"),
    Case(b"\xef\xbb\xbf<svg width='1'/>", "application/xml", "", "", ".svg"),
    Case(b"%PDF-1.7\n" + bytes(9), "text/html", "", "", ".pdf"),
    Case(b"#?RADIANCE\nFORMAT=32-bit\n" + bytes(9), BINARY, "", "", ".hdr"),
    Case(b"v/1\x01" + bytes(30), "image/png", "", "", ".exr"),
    Case(zipped("a"), "text/plain", "", "x.txt", ".zip"),
]
BY_NARROWER_CLAIMS = [
    Case(TEXT, "text/plain", "", "robot.obj", ".obj"),
    Case(TEXT, "text/plain; charset=utf-8", BINARY, "words.SRT", ".srt"),
    Case(TEXT, "text/plain", "", "words.vtt", ".vtt"),
    Case(TEXT, "text/plain", "", "song.lrc", ".lrc"),
    Case(TEXT, "text/plain", "text/csv", "table", ".csv"),
    Case(TEXT, "text/plain", "", "cube.stl", ".stl"),
    Case(b"{}", "application/json", "", "robot.gltf", ".gltf"),
    Case(b"{}\n{}", "text/plain", "application/json", "rows.jsonl", ".jsonl"),
    Case(b"<COLLADA/>", "text/xml", "", "robot.dae", ".dae"),
    Case(zipped("a.usdc"), "application/zip", "", "robot.usdz", ".usdz"),
    Case(zipped("3D"), "application/x-zip-compressed", BINARY, "part.3mf", ".3mf"),
    Case(zipped("a.npy"), BINARY, "", "arrays.npz", ".npz"),
    Case(gzip.compress(b"a"), "application/gzip", "", "scene.spz", ".spz"),
    Case(GLB, BINARY, "", "avatar.vrm", ".vrm"),
    Case(b"weights\0", "text/plain", "", "lora.safetensors", ".safetensors"),
    Case(b"OggS" + bytes(60), "application/ogg", "", "voice.opus", ".opus"),
    Case(ANY_MP4, "binary/octet-stream", "", "clip.mov", ".mov"),
    Case(ANY_MP4, "audio/mp4", "", "song", ".m4a"),
    Case(ANY_MP4, BINARY, "", "song.m4a", ".m4a"),
]
BY_WHO_KNOWS_BEST = [
    Case(ANY_MP4, "video/mp4", "", "clip.mov", ".mp4"),
    Case(ANY_MP4, BINARY, "", "clip", ".mp4"),
    Case(ANY_MP4, "image/png", "", "", ".mp4"),
    Case(b"\x1a\x45\xdf\xa3" + bytes(60), "", "", "", ".webm"),
    Case(TEXT, "text/csv", "", "words.srt", ".csv"),
    Case(TEXT, "audio/x-wav", "", "a.mp3", ".wav"),
]
BY_NOBODY = [
    Case(TEXT, "text/plain", "", "run.sh", ".txt"),
    Case(TEXT, "text/plain", "", "run.js", ".txt"),
    Case(TEXT, "text/plain", "text/javascript", "a.txt", ".txt"),
    Case(zipped("a"), BINARY, "", "report.docx", ".zip"),
    Case(zipped("a"), "application/java-archive", "", "app.jar", ".zip"),
    Case(b"\x7fELF\0", "application/x-executable", "", "run.appimage", ".bin"),
    Case(b"MZ\0", BINARY, "", "clip.mp4.exe", ".bin"),
    Case(b"<x/>", "application/xml", "", "a.xml", ".bin"),
    Case(TEXT, "text/plain", "", "page.html", ".html.txt"),
    Case(TEXT, "application/xhtml+xml", "", "page.xht", ".html.txt"),
]
CASES = {
    "bytes": BY_BYTES,
    "narrower claims": BY_NARROWER_CLAIMS,
    "who knows best": BY_WHO_KNOWS_BEST,
    "nobody": BY_NOBODY,
}


def save(fal: Sandbox, cli: Cli, cases: Sequence[Case], where: str) -> list[tuple[str, str]]:
    """The extensions and content types under which the files of one response are saved."""
    files = []
    for index, case in enumerate(cases):
        headers = {"content-type": case.header} if case.header else {}
        reply = Reply(content=case.content, headers=headers)
        fal.on("GET", "v3b.fal.media", f"/files/b/{index}", reply)
        files.append(image(str(index), file_name=case.name, content_type=case.told))
    done = run(fal, cli, {"files": files}, "--output", where)
    assert done.status == 0, done.stderr
    saved = done.json["downloaded_files"]
    suffixes = ["".join(re.findall(r"\.\w+", Path(file["path"]).name)) for file in saved]
    return list(zip(suffixes, [file["content_type"] for file in saved], strict=True))


@pytest.mark.parametrize("kind", CASES)
def test_a_file_is_saved_as_what_it_is(fal: Sandbox, cli: Cli, kind: str) -> None:
    cases = CASES[kind]
    saved = save(fal, cli, cases, "d/{index}.{ext}")
    assert [extension for extension, _ in saved] == [case.extension for case in cases]


def test_what_everybody_says_is_believed(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """Server, name and request, where the bytes say no more than which family it is."""
    for number, (extension, content_type) in enumerate(
        {".mov": "video/quicktime", ".m4a": "audio/mp4", ".3gp": "video/3gpp"}.items()
    ):
        case = Case(ANY_MP4, content_type, content_type, f"clip{extension}", extension)
        assert save(fal, cli, [case], f"d/{number}{extension}") == [(extension, content_type)]


ASKED = [
    ("clip.mov", Case(QUICKTIME, "video/mp4", "", "clip.mp4", ".mov")),
    ("clip.MOV", Case(ANY_MP4, BINARY, "", "", ".MOV")),
    ("clip.mkv", Case(matroska(b"matroska"), "video/webm", "", "", ".mkv")),
    ("clip.mov", Case(matroska(b"matroska"), "video/quicktime", "", "a.mov", ".mkv")),
    ("clip.mov", Case(ANY_MP4, "video/mp4", "", "a.mp4", ".mp4")),
    ("words.txt", Case(TEXT, "text/plain", "", "words.srt", ".txt")),
    ("words.srt", Case(TEXT, "text/plain", "", "words", ".srt")),
    ("all.zip", Case(zipped("a"), BINARY, "", "a.usdz", ".zip")),
    ("a.yaml", Case(TEXT, "text/plain", "", "", ".yaml")),
    ("a.strange", Case(TEXT, BINARY, "", "page.html", ".strange")),
]


@pytest.mark.parametrize(("output", "case"), ASKED, ids=[f"{name}-{c.header}" for name, c in ASKED])
def test_the_extension_that_is_asked_for(
    fal: Sandbox, cli: Cli, tmp_path: Path, output: str, case: Case
) -> None:
    fal.on(
        "GET",
        "v3b.fal.media",
        "*",
        Reply(content=case.content, headers={"content-type": case.header}),
    )
    file = image("x", file_name=case.name)
    done = run(fal, cli, {"file": file}, "--output", output)
    (saved,) = (name for name in names(tmp_path) if not name.startswith("."))
    assert saved == Path(output).stem + case.extension
    assert ("is saved as" in done.notes) == (saved != output)


# What is sent

SENT = {
    "IMG.MOV": (QUICKTIME, "video/quicktime"),
    "old.mov": (OLD_QUICKTIME, "video/quicktime"),
    "plain.mov": (ANY_MP4, "video/quicktime"),
    "wrong.mp4": (matroska(b"matroska"), "video/x-matroska"),
    "photo.txt": (b"\x89PNG\r\n\x1a\n" + bytes(30), "image/png"),
    "song.aac": (b"\xff\xf9\x50\x80\x2e\x7f\xfc" + bytes(range(256)), "audio/aac"),
    "song.aif": (b"FORM\0\0\0\x20AIFFCOMM" + bytes(range(256)), "audio/aiff"),
    "robot.glb": (GLB, "model/gltf-binary"),
    "robot.obj": (TEXT, "model/obj"),
    "words.srt": (TEXT, "application/x-subrip"),
    "lora.safetensors": (b"\x40\0\0\0\0\0\0\0{}", "application/x-safetensors"),
    "robot.usdz": (zipped("a"), "model/vnd.usdz+zip"),
    "report.docx": (
        zipped("a"),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    "drawing": (SVG, "image/svg+xml"),
    "empty.png": (b"", BINARY),
    "strange.xyz": (TEXT, BINARY),
}


def test_a_file_is_encoded_as_what_it_is(cli: Cli, tmp_path: Path) -> None:
    told = {}
    for name, (content, _) in SENT.items():
        (tmp_path / name).write_bytes(content)
        done = cli("encode-file", "--file", name)
        assert done.status == 0, done.stderr
        told[name] = done.stdout[len("data:") :].partition(";")[0]
    assert told == {name: content_type for name, (_, content_type) in SENT.items()}


@pytest.mark.parametrize("name", ["IMG.MOV", "words.srt", "report.docx", "empty.png", "drawing"])
def test_a_file_is_uploaded_as_what_it_is(
    fal: Sandbox, cli: Cli, tmp_path: Path, name: str
) -> None:
    content, content_type = SENT[name]
    (tmp_path / name).write_bytes(content)
    assert cli("upload-file", "--file", name).status == 0
    (upload,) = fal.uploads
    assert (upload.name, upload.content) == (name, content)
    assert upload.content_type == content_type


def test_the_tables_of_the_machine_do_not_count(
    fal: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    """Python's own are read from the system's, where anything may stand."""
    (tmp_path / "sitecustomize.py").write_text(
        "import mimetypes\n"
        "for ending in ('.mov', '.srt', '.bin2', '.png'):\n"
        "    mimetypes.add_type('application/x-wrong', ending)\n"
    )
    (tmp_path / "clip.mov").write_bytes(ANY_MP4)
    paths = f"{tmp_path}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        [*SKILL, "encode-file", "--file", "clip.mov"],
        env={**environment, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.startswith("data:video/quicktime;base64,"), done.stderr


MEDIA = {
    "song.aac": (SENT["song.aac"][0], "audio/aac"),
    "song.aiff": (SENT["song.aif"][0], "audio/aiff"),
    "clip.avi": (b"RIFF\x20\0\0\0AVI LIST" + bytes(range(256)), "video/x-msvideo"),
    "clip.ts": (transport(), "video/mp2t"),
    "clip.3gp": (boxed(b"3gp4"), "video/3gpp"),
    "clip.mov": (QUICKTIME, "video/quicktime"),
    "clip.m4v": (ANY_MP4, "video/x-m4v"),
    "tune.mid": (b"MThd\0\0\0\x06\0\x01" + bytes(range(256)), "audio/midi"),
    "a.jxl": (b"\xff\x0a" + bytes(range(256)), "image/jxl"),
    "voice.amr": (b"#!AMR\n" + bytes(range(256)), "audio/amr"),
    "clip.flv": (b"FLV\x01\x05" + bytes(range(256)), "video/x-flv"),
}


FIELDS = {"media_urls": {"type": "array", "items": {"type": "string"}}}
SUBMIT = ("submit-t2i", "--model", "fal-ai/flux/dev", "--prompt", "A cat")


def test_media_in_arguments_are_uploaded(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(telling("fal-ai/flux/dev", FIELDS)))
    for name, (content, _) in MEDIA.items():
        (tmp_path / name).write_bytes(content)
    done = cli(*SUBMIT, "--arg", f"media_urls={json.dumps([*MEDIA])}")
    assert done.status == 0, done.stderr
    (job,) = fal.jobs.values()
    by_url = {upload.url: upload for upload in fal.uploads}
    uploads = [by_url[url] for url in job.arguments["media_urls"]]
    told = {upload.name: upload.content_type for upload in uploads}
    assert told == {name: content_type for name, (_, content_type) in MEDIA.items()}
    assert "a.jxl: only some models read JXL" in done.notes


@pytest.mark.parametrize("name", ["drawing.svg", "words.vtt", "robot.glb", "all.zip", "a.pdf"])
def test_what_is_no_media_is_not_uploaded_for_its_first_bytes(
    fal: Sandbox, cli: Cli, tmp_path: Path, name: str
) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(telling("fal-ai/flux/dev", FIELDS)))
    contents = {".svg": SVG, ".vtt": b"WEBVTT\n\n", ".glb": GLB, ".zip": zipped("a")}
    (tmp_path / name).write_bytes(
        contents.get(Path(name).suffix, b"%PDF-1.7\n" + bytes(range(256)))
    )
    done = cli(*SUBMIT, "--arg", f'media_urls=["{name}"]')
    assert (done.status, fal.uploads, fal.jobs) == (2, [], {})
    assert f"not a media file: {name}" in done.error["message"]


def test_words_behind_the_start_of_a_clip_stay_here(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """As many bytes as are looked at to tell types are not too many to be words."""
    for name in ("clip.avi", "clip.flv", "voice.amr", "a.jxl"):
        (tmp_path / name).write_bytes(MEDIA[name][0][:12] + b"\nFAL_KEY=dummy-example-key\n" * 9)
        done = cli(*SUBMIT, "--extra-json", json.dumps({"media_url": name}))
        assert (done.status, fal.uploads, fal.jobs) == (2, [], {})


def test_a_pipe_is_uploaded(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> None:
    """As shells name one for `<(command)`."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    words = " ".join([*SKILL, "upload-file", "--file", "<(cat a.png)"])
    done = subprocess.run(
        ["bash", "-c", words], env=environment, cwd=tmp_path, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert fal.uploads[0].content_type == "image/png"
    assert fal.uploads[0].content == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    "argv",
    [
        ("upload-file", "--file"),
        ("upload-raw", "--content-type", "a/b", "--file"),
        ("upload-image", "--file"),
        ("encode-file", "--file"),
        (*SUBMIT, "--no-schema", "--image-url"),
    ],
    ids=lambda argv: argv[0],
)
def test_a_disk_that_gives_nothing_is_no_broken_connection(
    fal: Sandbox, cli: Cli, argv: tuple[str, ...]
) -> None:
    """A file whose reading fails, as on a worn disk, for as long as the test runs."""
    done = cli(*argv, "/proc/self/mem")
    error = done.error
    assert (done.status, error["type"], error["retryable"]) == (2, "usage_error", False)
    assert "/proc/self/mem" in error["message"]
    assert fal.requests == []


# The table


def test_the_rows_fit_together() -> None:
    rows = {row.content_type: row for row in skill_fal.FILE_TYPES}
    assert len(rows) == len(skill_fal.FILE_TYPES)
    assert {row.within for row in rows.values()} - {""} <= rows.keys()
    assert {*skill_fal.FAMILIES, *skill_fal.FAMILIES.values()} <= rows.keys()
    assert set(skill_fal.TYPE_NAMES.values()) <= rows.keys()
    assert not set(skill_fal.TYPE_NAMES) & rows.keys()
    for row in rows.values():
        assert re.compile(row.signature or b"").groups >= 0
        assert all(re.fullmatch(r"\.[\da-z]+", ending) for ending in row.extensions.split())
