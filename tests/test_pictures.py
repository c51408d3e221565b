"""Local pictures: what is looked at is what is sent, and only what is a picture is one."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import struct
import subprocess
import sys
import wave
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import PATIENCE, Cli, Outcome, importing
from PIL import Image, PngImagePlugin
from sandbox import Sandbox

MODEL = "fal-ai/minimax-video/image-to-video"
PEM = (
    b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + base64.encodebytes(b"dummy key of an example" * 20)
    + b"-----END OPENSSH PRIVATE KEY-----\n"
)

HEADS = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a",
    "webp": b"RIFF\x10\0\0\0WEBP",
    "bmp": b"BM\x10\0\0\0\0\0\0\0",
    "tiff": b"II*\0",
    "tiff of the other order": b"MM\0*",
    "avif": b"\0\0\0\x18ftypavif",
    "heic": b"\0\0\0\x18ftypheic",
    "mp4": b"\0\0\0\x18ftypmp42",
    "m4a": b"\0\0\0\x18ftypM4A ",
    "webm": b"\x1a\x45\xdf\xa3",
    "mp3": b"ID3",
    "mp3 without a tag": b"\xff\xfb",
    "wav": b"RIFF\x10\0\0\0WAVE",
    "ogg": b"OggS",
    "flac": b"fLaC",
}
SECRETS = {
    "key": PEM,
    "key on its own line": b"\n" + PEM,
    "key behind zeros": bytes(64) + PEM,
    "words": b"\nFAL_KEY=dummy-example-key\n",
}

Measured = Callable[..., tuple[Outcome, int]]  # what a command left, and its most bytes

I2V = ("submit-i2v", "--model", MODEL, "--prompt", "It rains")


def each(table: Mapping[str, object], name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, table.values(), ids=table.keys())


def assert_refused(fal: Sandbox, done: Outcome) -> None:
    assert (done.status, done.stdout) == (2, ""), done.stderr
    assert done.error["type"] == "usage_error"
    assert (fal.uploads, fal.jobs) == ([], {})
    assert not [one for one in fal.requests if one.method == "POST"]


# What only begins like a picture


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("head", ["png", "mp4"])
def test_any_secret_stays_here(
    fal: Sandbox, cli: Cli, tmp_path: Path, head: str, secret: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(HEADS[head] + SECRETS[secret])
    extra = json.dumps({"deep": [{"end_image_url": "photo.jpg"}]})
    argv = (*I2V, "--image-url", "https://example.com/a.png", "--extra-json", extra)
    assert_refused(fal, cli(*argv))


@pytest.mark.parametrize(
    "text", ["ключ", "鍵は秘密です", "clé"], ids=["Cyrillic", "Japanese", "French"]
)
@pytest.mark.parametrize("head", ["mp4", "webm", "mp3", "wav", "ogg", "flac"])
def test_a_text_of_any_script_behind_a_media_head_stays_here(
    fal: Sandbox, cli: Cli, tmp_path: Path, head: str, text: str
) -> None:
    (tmp_path / "clip.mp4").write_bytes(HEADS[head] + (text * 100).encode())
    extra = json.dumps({"end_video_url": "clip.mp4"})
    argv = (*I2V, "--image-url", "https://example.com/a.png", "--extra-json", extra)
    assert_refused(fal, cli(*argv))


@pytest.mark.parametrize("sample", [b"\0\0", b"\1\0"], ids=["silent", "nearly silent"])
def test_a_sound_without_much_of_a_sound_is_one(
    fal: Sandbox, cli: Cli, tmp_path: Path, sample: bytes
) -> None:
    with wave.open(str(tmp_path / "voice.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(sample * 8000)
    picture = ("--image-url", "https://example.com/a.png")
    model = ("--model", "fal-ai/creatify/aurora")
    done = cli("submit-i2v", *model, *picture, "--arg", "audio_url=voice.wav")
    assert done.status == 0, done.stderr
    (upload,) = fal.uploads
    assert (upload.content_type, upload.content) == (
        "audio/wav",
        (tmp_path / "voice.wav").read_bytes(),
    )


@each(HEADS, "head")
def test_a_key_behind_a_media_head_stays_here(
    fal: Sandbox, cli: Cli, tmp_path: Path, head: bytes
) -> None:
    (tmp_path / "photo.jpg").write_bytes(head + PEM)
    extra = json.dumps({"end_image_url": "photo.jpg"})
    argv = (*I2V, "--image-url", "https://example.com/a.png", "--extra-json", extra)
    assert_refused(fal, cli(*argv))


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "webp", "bmp", "tiff"])
def test_a_key_behind_the_head_of_a_picture_is_no_first_frame(
    fal: Sandbox, cli: Cli, tmp_path: Path, name: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(HEADS[name] + PEM)
    assert_refused(fal, cli(*I2V, "--image-url", "photo.jpg"))


def test_a_key_behind_the_head_of_a_picture_is_no_job_of_a_batch(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "photo.jpg").write_bytes(HEADS["jpeg"] + PEM)
    lines = [{"image_url": name, "prompt": "It rains"} for name in ("good.png", "photo.jpg")]
    (tmp_path / "jobs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = cli("batch-i2v", "--model", MODEL, "--image-urls-file", "jobs.jsonl")
    assert done.status in (1, 2)
    assert all(PEM not in upload.content for upload in fal.uploads)


def test_a_key_behind_a_whole_head_of_a_png_stays_here(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    """The first chunk is as it should be, and all that comes is text."""
    (tmp_path / "photo.png").write_bytes(png_head(64, 64) + PEM)
    assert_refused(fal, cli(*I2V, "--image-url", "photo.png"))


@pytest.mark.parametrize("secret", ["key", "key on its own line", "key behind zeros"])
@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "GIF", "WEBP"])
def test_a_key_at_the_end_of_a_whole_picture_stays_here(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str, secret: str
) -> None:
    """Whoever reads the picture sees nothing of it."""
    (tmp_path / "photo.jpg").write_bytes(drawn(format) + SECRETS[secret])
    assert_refused(fal, cli(*I2V, "--image-url", "photo.jpg"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_key_at_the_end_of_a_picture_is_not_sent_by_another_field(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(drawn(format) + PEM)
    extra = json.dumps({"deep": [{"end_image_url": "photo.jpg"}]})
    argv = (*I2V, "--image-url", "https://example.com/a.png", "--extra-json", extra)
    assert_refused(fal, cli(*argv))


NOISE = random.Random(7).randbytes(600)


def tagged_png(text: str) -> bytes:
    """A picture with the text in a chunk of its own, before its end."""
    tags = PngImagePlugin.PngInfo()
    tags.add_text("Comment", text)
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "PNG", pnginfo=tags)
    return file.getvalue()


def commented_jpeg(text: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "JPEG", comment=text)
    return file.getvalue()


KEYED: dict[str, Callable[[], bytes]] = {
    "mp4, in the middle": lambda: HEADS["mp4"] + NOISE + PEM + NOISE,
    "mp4, at the end": lambda: HEADS["mp4"] + NOISE * 20 + PEM,
    "mp3, in the middle": lambda: HEADS["mp3"] + NOISE + PEM + NOISE,
    "webm, in the middle": lambda: HEADS["webm"] + NOISE + PEM + NOISE,
    "wav, at the end": lambda: HEADS["wav"] + NOISE * 20 + PEM,
    "png, in a comment": lambda: tagged_png(PEM.decode()),
    "png, before noise": lambda: drawn("PNG") + PEM + NOISE,
    "jpeg, in a comment": lambda: commented_jpeg(PEM),
    "jpeg, before noise": lambda: drawn("JPEG") + NOISE + PEM + NOISE,
    "bmp, at the end": lambda: drawn("BMP") + PEM,
    "tiff, at the end": lambda: drawn("TIFF") + PEM,
    "another kind of key": lambda: drawn("PNG") + NOISE + PEM.replace(b"OPENSSH", b"RSA"),
    "no kind of key": lambda: drawn("PNG") + NOISE + PEM.replace(b"OPENSSH ", b""),
}


@each(KEYED, "make")
def test_a_private_key_stays_here_wherever_it_stands(
    fal: Sandbox, cli: Cli, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    (tmp_path / "media").write_bytes(make())
    extra = json.dumps({"end_image_url": "media"})
    argv = (*I2V, "--image-url", "https://example.com/a.png", "--extra-json", extra)
    done = cli(*argv)
    assert_refused(fal, done)
    assert "private key" in done.error["message"]


WORDS = b"\nFAL_KEY=dummy-example-key\n"
ODD_ENDS = {
    "none": b"",
    "zero": b"\0",
    "zeros": bytes(64),
    "ones": b"\xff",
    "no UTF-8": b"\x80",
    "end of file": b"\x1a",
    "no ASCII": "ü".encode(),
}


@pytest.mark.parametrize("odd", ODD_ENDS)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_words_behind_a_picture_stay_here_however_they_end(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str, odd: str
) -> None:
    (tmp_path / "photo").write_bytes(drawn(format) + WORDS + ODD_ENDS[odd])
    done = cli(*I2V, "--image-url", "photo")
    assert_refused(fal, done)
    assert "behind the picture" in done.error["message"]


HARMLESS: dict[str, Callable[[], bytes]] = {
    "a prompt in a chunk": lambda: tagged_png("A cat on a sofa, in the style of an old master"),
    "a comment": lambda: commented_jpeg(b"A cat on a sofa, in the style of an old master"),
    "zeros at the end": lambda: drawn("PNG") + bytes(64),
    "a clip at the end": lambda: drawn("JPEG") + HEADS["mp4"] + NOISE,
    "a line end": lambda: drawn("GIF") + b"\r\n",
}


@each(HARMLESS, "make")
def test_what_stands_in_a_picture_or_is_no_text_may_be_sent(
    fal: Sandbox, cli: Cli, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    (tmp_path / "photo").write_bytes(make())
    assert cli(*I2V, "--image-url", "photo").status == 0
    assert [upload.content for upload in fal.uploads] == [make()]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "MPO"])
def test_a_picture_is_still_one(fal: Sandbox, cli: Cli, tmp_path: Path, format: str) -> None:
    picture = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 30).convert("RGB")
    picture.save(tmp_path / "photo", format=format)
    assert cli(*I2V, "--image-url", "photo").status == 0
    assert [upload.content for upload in fal.uploads] == [(tmp_path / "photo").read_bytes()]


# A file that becomes another

SWAP = '''
import os
import sys

PICTURE, SECRET, FLAG = {names!r}
opened = 0


def watch(event, arguments):
    """Put the secret in the place of the picture as soon as that was opened."""
    global opened
    if event == "open" and str(arguments[0]).endswith(PICTURE) and not opened:
        opened = 1
    elif event in ("open", "os.stat", "os.lstat", "socket.connect") and opened == 1:
        opened = 2
        os.replace(SECRET, PICTURE)
        open(FLAG, "w").close()


sys.addaudithook(watch)
'''


@pytest.fixture
def swapping(tmp_path: Path) -> dict[str, str]:
    """photo.jpg is a secret from the event on that follows its being opened."""
    folder = tmp_path / "swapping"
    folder.mkdir()
    code = SWAP.format(names=("photo.jpg", "secret.jpg", "swapped"))
    (folder / "sitecustomize.py").write_text(code)
    (tmp_path / "id_dummy").write_bytes(HEADS["jpeg"] + PEM)
    (tmp_path / "secret.jpg").symlink_to(tmp_path / "id_dummy")
    return importing(folder)


@pytest.mark.parametrize(
    "argv",
    [
        (*I2V, "--image-url", "photo.jpg"),
        ("subscribe-i2v", *I2V[1:], "--image-url", "photo.jpg"),
        ("batch-i2v", *I2V[1:], "--image-urls", "photo.jpg", "--journal", "j"),
        (*I2V, "--image-url", "https://example.com/a", "--extra-json", '{"x_url": "photo.jpg"}'),
    ],
    ids=["submit", "subscribe", "journal", "extra"],
)
def test_what_was_checked_is_what_is_sent(
    fal: Sandbox,
    cli: Cli,
    photo: Path,
    swapping: dict[str, str],
    tmp_path: Path,
    argv: tuple[str, ...],
) -> None:
    content = photo.read_bytes()
    done = cli(*argv, env=swapping)
    assert (tmp_path / "swapped").exists()
    assert all(upload.content == content for upload in fal.uploads)
    assert done.status != 0 or fal.uploads


# Pictures that Pillow opens


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png_head(width: int, height: int) -> bytes:
    facts = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return HEADS["png"] + png_chunk(b"IHDR", facts)


def vast_png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel: much of nothing, in few bytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png_head(width, height) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'


def drawn(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, format)
    return file.getvalue()


OTHERS: dict[str, Callable[[], bytes]] = {
    "eps": lambda: EPS,
    "eps of windows": lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<II20x", 32, len(EPS)) + EPS,
    "postscript": lambda: b"%!PS\nshowpage\n",
    "pdf": lambda: drawn("PDF"),
    "svg": lambda: SVG,
    "ppm": lambda: drawn("PPM"),
    "ico": lambda: drawn("ICO"),
    "tga": lambda: drawn("TGA"),
    "pcx": lambda: drawn("PCX"),
    "sgi": lambda: drawn("SGI"),
    "dds": lambda: drawn("DDS"),
    "icns": lambda: drawn("ICNS"),
}


@pytest.fixture
def ghostscript(tmp_path: Path) -> dict[str, str]:
    """A `gs` that leaves a file called `ran`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\n: > '{tmp_path}/ran'\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("verb", ["encode-image", "upload-image"])
@each(OTHERS, "make")
def test_what_the_web_does_not_show_is_no_picture(
    fal: Sandbox,
    cli: Cli,
    tmp_path: Path,
    ghostscript: dict[str, str],
    verb: str,
    make: Callable[[], bytes],
) -> None:
    (tmp_path / "photo.jpg").write_bytes(make())
    done = cli(verb, "--file", "photo.jpg", env=ghostscript)
    assert not (tmp_path / "ran").exists()
    assert_refused(fal, done)


@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_picture_of_the_web_is_encoded_whatever_its_name(
    cli: Cli, tmp_path: Path, format: str
) -> None:
    (tmp_path / "photo.eps").write_bytes(drawn(format))
    done = cli("encode-image", "--file", "photo.eps")
    assert (done.status, done.stdout[:23]) == (0, "data:image/jpeg;base64,")


# As users run it: no warning is an error. A small process starts it and tells of its memory.
MEASURE = """
import resource, subprocess, sys

status = subprocess.run(sys.argv[1:]).returncode
with open("peak", "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


@pytest.fixture
def measured(fal: Sandbox, environment: dict[str, str], tmp_path: Path) -> Measured:
    def run(*argv: str) -> tuple[Outcome, int]:
        command = (sys.executable, "-P", "-m", "skill_fal", *argv)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        peak = int((tmp_path / "peak").read_text()) * 1024
        return Outcome(done.returncode, done.stdout, done.stderr), peak

    return run


@pytest.mark.parametrize("verb", ["encode-image", "upload-image"])
@pytest.mark.parametrize(
    "size", [(13_000, 13_000), (200_000, 600), (10_001, 10_000)], ids=["square", "strip", "edge"]
)
def test_a_vast_picture_is_refused_before_it_is_unpacked(
    fal: Sandbox, measured: Measured, tmp_path: Path, verb: str, size: tuple[int, int]
) -> None:
    (tmp_path / "vast.png").write_bytes(vast_png(*size))
    assert (tmp_path / "vast.png").stat().st_size < 40_000
    done, peak = measured(verb, "--file", "vast.png")
    assert_refused(fal, done)
    assert "Warning" not in done.stderr
    assert peak < 200 << 20


def test_a_large_picture_is_encoded(measured: Measured, tmp_path: Path) -> None:
    """100 million pixels are none too many; their bits are few."""
    (tmp_path / "large.png").write_bytes(vast_png(10_000, 10_000))
    done, _ = measured("encode-image", "--file", "large.png", "--format", "png")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("data:image/png;base64,")
