"""Pictures as programs, cameras and scanners write them, in formats that hold less."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Outcome
from PIL import Image, ImageCms, PngImagePlugin
from sandbox import Sandbox

ORIENTATION = 0x0112
SIZE = (64, 16)
RAMP = [column * 4 for _ in range(SIZE[1]) for column in range(SIZE[0])]  # black to nearly white
FLOATS = struct.Struct("<f")


def ramp(mode: str = "L") -> Image.Image:
    """Greys from black on the left to white on the right."""
    picture = Image.frombytes("L", SIZE, bytes(RAMP))
    if mode == "I;16":
        return picture.convert("I").point(lambda grey: grey * 257 + 0).convert("I;16")
    return picture.convert(mode)


def tinted(mode: str) -> Image.Image:
    """An orange, which it shows if colours are mixed up, in any mode."""
    orange = Image.new("RGB", SIZE, (255, 128, 0))
    if mode == "LAB":
        profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
        return ImageCms.profileToProfile(orange, *profiles, outputMode="LAB")  # type: ignore
    return orange.quantize() if mode == "P" else orange.convert(mode)


def encoded(done: Outcome) -> Image.Image:
    assert done.status == 0, done.stderr
    content = base64.b64decode(done.stdout.partition(",")[2])
    return Image.open(io.BytesIO(content))


def encode(cli: Cli, path: Path, format: str) -> tuple[Image.Image, str]:
    done = cli("encode-image", "--file", path.name, "--format", format)
    image = encoded(done)
    assert image.format == format.upper()
    return image, done.stderr


def greys(image: Image.Image) -> list[int]:
    """The row in the middle, in 8 bits."""
    assert image.size == SIZE
    if image.mode == "I;16":
        image = image.convert("I").point(lambda grey: grey * (1 / 257) + 0.5)
    return [int(image.convert("L").getpixel((x, 8))) for x in range(SIZE[0])]  # type: ignore


def are_near(found: list[int], expected: list[int], distance: int = 4) -> bool:
    return all(abs(one - other) <= distance for one, other in zip(found, expected, strict=True))


def assert_refused(fal: Sandbox, done: Outcome, *words: str) -> None:
    assert (done.status, done.stdout) == (2, ""), done.stderr
    error = done.error
    assert (error["type"], error["retryable"]) == ("usage_error", False)
    for word in words:
        assert word in error["message"] + error.get("hint", "")
    assert (fal.requests, fal.uploads) == ([], [])


# More than 8 bits


def plain_tiff(order: str, bits: int, photometric: int, content: bytes) -> bytes:
    """A TIFF of greys in an order of bytes: "<", or ">" as old Macs had it."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    rows = [
        (256, 3, SIZE[0]), (257, 3, SIZE[1]), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8 + 2 + 12 * 9 + 4), (277, 3, 1), (278, 3, SIZE[1]), (279, 4, len(content)),
    ]  # fmt: skip
    table = struct.pack(f"{order}H", len(rows))
    for tag, kind, value in rows:
        packed = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", value, *[0] * (4 - kind))
        table += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    return head + table + bytes(4) + content


def big_endian(path: Path) -> None:
    content = struct.pack(f">{len(RAMP)}H", *(grey * 257 for grey in RAMP))
    path.write_bytes(plain_tiff(">", 16, 1, content))


def counted_from_white(path: Path) -> None:
    """As scanners of films do it."""
    content = struct.pack(f"<{len(RAMP)}H", *(65_535 - grey * 257 for grey in RAMP))
    path.write_bytes(plain_tiff("<", 16, 0, content))


def twelve_bits(path: Path) -> None:
    """As microscopes count: two greys in three bytes."""
    content = b""
    for one, other in zip(RAMP[::2], RAMP[1::2], strict=True):
        content += ((one * 16 + one // 16) << 12 | other * 16 + other // 16).to_bytes(3, "big")
    path.write_bytes(plain_tiff("<", 12, 1, content))


def with_holes(path: Path) -> None:
    """A depth map as programs measure it: metres, some without a number, some without an end."""
    values = [grey / 100 + 3 for grey in RAMP]
    row = 8 * SIZE[0]  # that which is looked at
    values[row], values[row + SIZE[0] - 1] = float("nan"), float("inf")
    picture = Image.frombytes("F", SIZE, b"".join(map(FLOATS.pack, values)))
    picture.save(path, "TIFF")


DEEP: dict[str, tuple[Callable[[Path], None], bool]] = {
    "png": (lambda path: ramp("I;16").save(path, "PNG"), False),
    "tiff": (lambda path: ramp("I;16").save(path, "TIFF"), False),
    "tiff of the other order": (big_endian, False),
    "tiff from white": (counted_from_white, False),
    "tiff of 12 bits": (twelve_bits, False),
    "32 bits, some below zero": (
        lambda path: ramp("I").point(lambda grey: grey * 9000 + -70_000).save(path, "TIFF"),
        True,
    ),
    "floats below 1": (
        lambda path: ramp("F").point(lambda grey: grey * (1 / 252) + 0).save(path, "TIFF"),
        True,
    ),
    "floats with holes": (with_holes, True),
}


@pytest.mark.parametrize("name", DEEP)
def test_greys_of_many_bits_are_scaled(cli: Cli, tmp_path: Path, name: str) -> None:
    """Pillow would cut them off, which leaves white. A scale that is nobody's is told."""
    make, is_told = DEEP[name]
    make(tmp_path / "depth")
    stretch = 255 / 252 if is_told else 1
    expected = [int(grey * stretch) for grey in RAMP[: SIZE[0]]]
    for format in ("jpeg", "png") if is_told else ("webp", "jpeg"):
        image, notes = encode(cli, tmp_path / "depth", format)
        assert (image.mode == "I;16") == (format == "png")
        assert are_near(greys(image), expected), format
        assert notes.startswith("note: depth: its greys from ") == is_told, notes


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_a_clear_grey_of_many_is_clear(cli: Cli, tmp_path: Path, format: str) -> None:
    ramp("I;16").save(tmp_path / "scan.png", transparency=257 * 4)
    image, _ = encode(cli, tmp_path / "scan.png", format)
    if format == "webp":
        alpha = image.getchannel("A")
        assert [alpha.getpixel((x, 8)) for x in (0, 1, 2, 63)] == [255, 0, 255, 255]
    else:
        assert are_near(greys(image)[3:], RAMP[3 : SIZE[0]], 8)
        assert greys(image)[1] > 150


@pytest.mark.parametrize("format", ["png", "webp"])
def test_greys_of_many_bits_on_their_side(cli: Cli, tmp_path: Path, format: str) -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = 8
    lying = ramp("I;16").transpose(Image.Transpose.ROTATE_270)
    lying.save(tmp_path / "depth.png", exif=tags.tobytes())
    image, _ = encode(cli, tmp_path / "depth.png", format)
    assert are_near(greys(image), RAMP[: SIZE[0]])


# Other colours


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("CMYK", "png"),
        ("CMYK", "webp"),
        ("YCbCr", "png"),
        ("LAB", "jpeg"),
        ("LAB", "png"),
        ("RGBX", "png"),
        ("P", "webp"),
    ],
)
def test_colours_stay_what_they_are(cli: Cli, tmp_path: Path, mode: str, format: str) -> None:
    tinted(mode).save(tmp_path / "picture", "TIFF")
    image, notes = encode(cli, tmp_path / "picture", format)
    pixel = image.convert("RGB").getpixel((20, 8))
    assert isinstance(pixel, tuple)
    assert are_near([int(part) for part in pixel], [255, 128, 0], 12)
    assert notes == ""


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_a_picture_of_inks_leaves_its_profile(cli: Cli, tmp_path: Path, format: str) -> None:
    inks = bytes(16) + b"CMYK" + bytes(200)
    tinted("CMYK").save(tmp_path / "a.jpg", icc_profile=inks)
    colours = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tinted("RGB").save(tmp_path / "b.jpg", icc_profile=colours)
    assert "icc_profile" not in encode(cli, tmp_path / "a.jpg", format)[0].info
    assert encode(cli, tmp_path / "b.jpg", format)[0].info["icc_profile"] == colours


CLEAR: dict[str, Callable[[Path], None]] = {
    "a palette": lambda path: ramp("P").save(path, "PNG", transparency=bytes([0, 128])),
    "an entry of a palette": lambda path: ramp("P").save(path, "GIF", transparency=0),
    "grey": lambda path: ramp("L").save(path, "PNG", transparency=0),
    "a colour": lambda path: ramp("RGB").save(path, "PNG", transparency=(0, 0, 0)),
    "one bit": lambda path: ramp("1").save(path, "PNG", transparency=0),
    "grey with alpha": lambda path: with_alpha("L").save(path, "TIFF"),
    "a palette with alpha": lambda path: with_alpha("P").save(path, "TIFF"),
}


def with_alpha(mode: str) -> Image.Image:
    picture = ramp(mode).convert(f"{mode}A")
    picture.putalpha(ramp().point(lambda grey: 255 if grey else 0))
    return picture


@pytest.mark.parametrize("name", CLEAR)
def test_what_is_transparent_stays_so_or_is_white(cli: Cli, tmp_path: Path, name: str) -> None:
    CLEAR[name](tmp_path / "a")
    for format in ("jpeg", "webp" if "palette" in name else "png"):
        image, notes = encode(cli, tmp_path / "a", format)
        clear, opaque = (image.convert("RGBA").getpixel((x, 8)) for x in (0, 63))
        assert isinstance(clear, tuple) and isinstance(opaque, tuple)
        assert (clear[3], opaque[3]) == (255 if format == "jpeg" else 0, 255)
        assert ("laid on white" in notes) == (format == "jpeg")


def test_what_could_be_transparent_and_is_not_gets_no_note(cli: Cli, tmp_path: Path) -> None:
    tinted("RGBA").save(tmp_path / "a.png")
    assert encode(cli, tmp_path / "a.png", "jpeg")[1] == ""


# More than one picture


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_many_pictures_is_converted(cli: Cli, tmp_path: Path, format: str) -> None:
    orange = Image.new("RGB", SIZE, "blue")
    tinted("RGB").save(tmp_path / "a", format, save_all=True, append_images=[orange])
    image, notes = encode(cli, tmp_path / "a", "jpeg")
    pixel = image.getpixel((20, 8))
    assert isinstance(pixel, tuple)
    assert pixel[0] > pixel[2]
    assert notes == "note: a: only the first of its pictures is converted\n"


# What a format has no room for, and what is no whole picture


@pytest.mark.parametrize(
    ("verb", "size", "format", "limit"),
    [
        ("upload-image", (17_000, 3), "webp", 16_383),
        ("encode-image", (3, 16_384), "webp", 16_383),
        ("upload-image", (3, 66_000), "jpeg", 65_500),
        ("encode-image", (1, 100_000), "jpg", 65_500),
    ],
)
def test_a_picture_beyond_a_format_names_the_limit(
    fal: Sandbox,
    cli: Cli,
    tmp_path: Path,
    verb: str,
    size: tuple[int, int],
    format: str,
    limit: int,
) -> None:
    Image.new("L", size).save(tmp_path / "long.png")
    done = cli(verb, "--file", "long.png", "--format", format)
    assert_refused(fal, done, str(limit), "long.png", "--format png")


def test_a_picture_at_the_limit_is_converted(cli: Cli, tmp_path: Path) -> None:
    Image.new("L", (16_383, 2)).save(tmp_path / "a.png")
    Image.new("L", (2, 65_500)).save(tmp_path / "b.png")
    assert encode(cli, tmp_path / "a.png", "webp")[0].size == (16_383, 2)
    assert encode(cli, tmp_path / "b.png", "jpeg")[0].size == (2, 65_500)


def cut(format: str, picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format)
    content = file.getvalue()
    return content[: len(content) * 2 // 3]


def talkative() -> bytes:
    """A PNG with more words than Pillow reads."""
    tags = PngImagePlugin.PngInfo()
    tags.add_text("Comment", "A" * (70 << 20), zip=True)
    file = io.BytesIO()
    ramp().save(file, "PNG", pnginfo=tags)
    return file.getvalue()


def two_channels() -> bytes:
    """A TIFF of two greys, neither of which is its transparency."""
    file = io.BytesIO()
    with_alpha("L").save(file, "TIFF")
    content = file.getvalue()
    extra = struct.pack("<HHIH", 338, 3, 1, 2)
    assert extra in content
    return content.replace(extra, struct.pack("<HHIH", 338, 3, 1, 99))


def wrong_check() -> bytes:
    """A PNG of which a bit has fallen over."""
    file = io.BytesIO()
    ramp().save(file, "PNG")
    content = bytearray(file.getvalue())
    content[content.index(b"IDAT") + 10] ^= 0xFF
    return bytes(content)


NOISE = Image.effect_noise((200, 200), 90)
BROKEN: dict[str, Callable[[], bytes]] = {
    "cut png": lambda: cut("PNG", NOISE),
    "cut jpeg": lambda: cut("JPEG", NOISE),
    "cut gif": lambda: cut("GIF", NOISE),
    "cut webp": lambda: cut("WEBP", NOISE),
    "cut tiff": lambda: cut("TIFF", NOISE),
    "cut jpeg 2000": lambda: cut("JPEG2000", NOISE)[:60],
    "many words": talkative,
    "two channels": two_channels,
    "wrong check": wrong_check,
    "no size": lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)),
}


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


@pytest.mark.parametrize("name", BROKEN)
def test_a_picture_that_cannot_be_read_is_the_users(
    fal: Sandbox, cli: Cli, tmp_path: Path, name: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(BROKEN[name]())
    assert_refused(fal, cli("upload-image", "--file", "photo.jpg"), "photo.jpg")


def test_more_formats_are_read(cli: Cli, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"JPEG2000": {}, "MPO": {}, "AVIF": {}}
    for format in facts:
        tinted("RGB").save(tmp_path / "a", format)
        image, notes = encode(cli, tmp_path / "a", "png")
        assert (image.size, notes) == (SIZE, "")
