"""Local pictures as they are sent: upright, without their place, and else byte for byte."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from conftest import Cli, Outcome, importing, telling
from PIL import Image, ImageChops, ImageCms, ImageOps, PngImagePlugin
from sandbox import Sandbox
from sandbox.storage import StoredFile

EDITOR = "fal-ai/flux/edit"
KLING = "fal-ai/kling-video/v2/master/image-to-video"
FIELDS = {"image_urls": {"type": "array", "items": {"type": "string"}}}
ORIENTATION, MAKE, GPS = 0x0112, 0x010F, 0x8825
PLACE = {1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    ' xmlns:exif="http://ns.adobe.com/exif/1.0/"{}/></rdf:RDF></x:xmpmeta>'
)
XMP_WITH_PLACE = XMP.format(' exif:GPSLatitude="52,30.0N" exif:GPSLongitude="13,24.0E"').encode()
XMP_WITHOUT = XMP.format(' exif:ColorSpace="1"').encode()
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
TURNED = "turned upright"
PLACELESS = "sent without the place where it was taken"

# How the picture lies on the disk if its EXIF says so, by what EXIF calls it.
LYING = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def upright(mode: str = "RGB") -> Image.Image:
    """Four colours, so that it shows how it is turned."""
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste("red", (0, 0, 32, 16))
    picture.paste("blue", (32, 0, 64, 16))
    picture.paste("green", (0, 16, 32, 32))
    if mode == "I;16":
        return picture.convert("I").convert("I;16")
    return picture.convert(mode)


def lying(orientation: int, mode: str = "RGB") -> Image.Image:
    method = LYING[orientation]
    return upright(mode) if method is None else upright(mode).transpose(method)


def exif(orientation: int | None = None, place: bool = False) -> bytes:
    tags = Image.Exif()
    tags[MAKE] = "Example"
    if orientation is not None:
        tags[ORIENTATION] = orientation
    if place:
        tags.get_ifd(GPS).update(PLACE)
    return tags.tobytes()


def save(picture: Image.Image, path: Path, format: str, **facts: Any) -> None:
    """Save a picture with EXIF, XMP or a profile, as far as they are given."""
    xmp = facts.pop("xmp", None)
    if xmp is not None and format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        facts["pnginfo"] = chunks
    elif xmp is not None:
        facts["xmp"] = xmp
    picture.save(path, format, **facts)


def submit(fal: Sandbox, cli: Cli, *names: str, env: Mapping[str, str] | None = None) -> Outcome:
    """Submit one job with all of the pictures."""
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(telling(EDITOR, FIELDS)))
    words = [word for name in names for word in ("--image-url", name)]
    done = cli("submit-i2v", "--model", EDITOR, *words, env=env)
    assert done.status == 0, done.stderr
    (job,) = fal.jobs.values()
    by_name = {upload.url: upload for upload in fal.uploads}
    assert len(job.arguments["image_urls"]) == len(names)
    assert set(by_name) == set(job.arguments["image_urls"])
    return done


def uploads(fal: Sandbox) -> list[StoredFile]:
    """The files as the job names them."""
    (job,) = fal.jobs.values()
    by_url = {upload.url: upload for upload in fal.uploads}
    return [by_url[url] for url in job.arguments["image_urls"]]


def opened(upload: StoredFile) -> Image.Image:
    image = Image.open(io.BytesIO(upload.content))
    assert upload.content_type == Image.MIME[image.format or ""]
    return image


def looks_upright(image: Image.Image) -> bool:
    """Whether the colours lie where they do in upright(), and nothing says to turn it further."""
    if image.size != (64, 32) or image.getexif().get(ORIENTATION, 1) != 1:
        return False
    places = [(x, y) for x in (16, 48) for y in (8, 24)]
    difference = ImageChops.difference(image.convert("RGB"), upright())
    return all(max(as_colour(difference.getpixel(place))) < 60 for place in places)


def as_colour(value: Any) -> tuple[int, ...]:
    assert isinstance(value, tuple)
    return value


# Upright


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_on_its_side_is_sent_upright(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str
) -> None:
    names = [f"{orientation}.{FORMATS[format]}" for orientation in LYING]
    for orientation, name in zip(LYING, names, strict=True):
        save(lying(orientation), tmp_path / name, format, exif=exif(orientation))
    before = [(tmp_path / name).read_bytes() for name in names]
    done = submit(fal, cli, *names)
    sent = uploads(fal)
    assert [looks_upright(opened(upload)) for upload in sent] == [True] * 8
    assert [opened(upload).format for upload in sent] == [format] * 8
    assert [opened(upload).getexif()[MAKE] for upload in sent] == ["Example"] * 8
    assert sent[0].content == before[0]
    assert done.notes.splitlines() == [f"note: {name}: {TURNED}" for name in names[1:]]
    assert [(tmp_path / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_that_is_turned_loses_nothing(
    fal: Sandbox, cli: Cli, tmp_path: Path, mode: str
) -> None:
    facts: dict[str, Any] = {"transparency": 0} if mode == "P" else {}
    lying(6, mode).save(tmp_path / "a.png", exif=exif(6), **facts)
    submit(fal, cli, "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        expected = ImageOps.exif_transpose(image)
    sent = opened(uploads(fal)[0])
    assert (sent.mode, sent.tobytes()) == (mode, expected.tobytes())
    assert sent.info.get("transparency") == facts.get("transparency")


def test_a_grey_jpeg_stays_grey(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    lying(8, "L").save(tmp_path / "a.jpg", exif=exif(8))
    submit(fal, cli, "a.jpg")
    assert (opened(uploads(fal)[0]).mode, opened(uploads(fal)[0]).size) == ("L", (64, 32))


# The place


@pytest.mark.parametrize("format", FORMATS)
def test_the_place_stays_here(fal: Sandbox, cli: Cli, tmp_path: Path, format: str) -> None:
    facts: list[dict[str, Any]] = [
        {"exif": exif(place=True)},
        {"xmp": XMP_WITH_PLACE},
        {"exif": exif(place=True), "xmp": XMP_WITH_PLACE},
        {"exif": exif(1, place=True), "xmp": XMP_WITHOUT},
    ]
    names = [f"{number}.{FORMATS[format]}" for number in range(len(facts))]
    for name, fact in zip(names, facts, strict=True):
        save(upright(), tmp_path / name, format, **fact)
    done = submit(fal, cli, *names)
    for upload, fact in zip(uploads(fal), facts, strict=True):
        tags = opened(upload).getexif()
        assert tags.get_ifd(GPS) == {}
        assert (b"GPSL" in upload.content, GPS in tags) == (False, False)
        assert tags.get(MAKE) == ("Example" if "exif" in fact else None)
        assert looks_upright(opened(upload))
    assert done.notes.splitlines() == [f"note: {name}: {PLACELESS}" for name in names]


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_done_is_said_in_one_note(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str
) -> None:
    name = f"a.{FORMATS[format]}"
    save(lying(3), tmp_path / name, format, exif=exif(3, place=True), xmp=XMP_WITH_PLACE)
    done = submit(fal, cli, name)
    assert done.notes == f"note: {name}: {TURNED}, {PLACELESS}\n"
    (upload,) = uploads(fal)
    assert looks_upright(opened(upload))
    assert (b"GPSL" in upload.content, opened(upload).getexif().get_ifd(GPS)) == (False, {})


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("format", [*FORMATS, "TIFF"])
def test_the_colours_stay_what_they_mean(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str, orientation: int
) -> None:
    facts = {"exif": exif(orientation, place=True), "icc_profile": PROFILE}
    save(lying(orientation), tmp_path / "picture", format, **facts)
    submit(fal, cli, "picture")
    (upload,) = uploads(fal)
    assert upload.content != (tmp_path / "picture").read_bytes()
    assert opened(upload).info["icc_profile"] == PROFILE


# Byte for byte

UNTOUCHED: dict[str, dict[str, Any]] = {
    "plain": {},
    "EXIF": {"exif": exif(1)},
    "EXIF without a side": {"exif": exif()},
    "XMP": {"xmp": XMP_WITHOUT},
    "profile": {"icc_profile": PROFILE},
    "all": {"exif": exif(1), "xmp": XMP_WITHOUT, "icc_profile": PROFILE},
}


@pytest.mark.parametrize("format", FORMATS)
def test_what_needs_no_change_is_sent_byte_for_byte(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str
) -> None:
    names = [f"{name.replace(' ', '-')}.{FORMATS[format]}" for name in UNTOUCHED]
    for number, (name, facts) in enumerate(zip(names, UNTOUCHED.values(), strict=True)):
        picture = upright()
        picture.putpixel((0, 0), (number, 0, 0))
        save(picture, tmp_path / name, format, **facts)
    done = submit(fal, cli, *names)
    assert done.notes == ""
    sent = [(upload.name, upload.content) for upload in uploads(fal)]
    assert sent == [(name, (tmp_path / name).read_bytes()) for name in names]


def test_a_picture_that_moves_is_sent_byte_for_byte(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    names = ["a.gif", "a.webp", "a.png"]
    for name in names:
        upright().save(tmp_path / name, save_all=True, append_images=[lying(3)])
    assert submit(fal, cli, *names).notes == ""
    assert [one.content for one in uploads(fal)] == [(tmp_path / n).read_bytes() for n in names]


def test_a_picture_that_moves_keeps_all_its_pictures(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    names = ["a.webp", "a.png"]
    for name in names:
        upright().save(tmp_path / name, save_all=True, append_images=[lying(3)], exif=exif(6))
    submit(fal, cli, *names)
    assert [getattr(opened(upload), "n_frames", 1) for upload in uploads(fal)] == [2, 2]


@pytest.mark.parametrize("format", ["BMP", "TIFF"])
def test_a_format_that_few_models_read_is_noted(
    fal: Sandbox, cli: Cli, tmp_path: Path, format: str
) -> None:
    upright().save(tmp_path / "picture", format)
    done = submit(fal, cli, "picture")
    assert done.notes == f"note: picture: only some models read {format}\n"
    assert uploads(fal)[0].content == (tmp_path / "picture").read_bytes()


def test_a_picture_of_several_views(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """A phone's, which is a JPEG that others follow: as it is if it is upright, else the first."""
    views = {"save_all": True, "append_images": [lying(3)]}
    upright().save(tmp_path / "as-it-is.jpg", "MPO", **views)
    lying(6).save(tmp_path / "turned.mpo", "MPO", exif=exif(6, place=True), **views)
    done = submit(fal, cli, "as-it-is.jpg", "turned.mpo")
    same, turned = uploads(fal)
    assert same.content == (tmp_path / "as-it-is.jpg").read_bytes()
    assert (turned.name, opened(turned).format) == ("turned.jpg", "JPEG")
    assert looks_upright(opened(turned))
    assert opened(turned).getexif().get_ifd(GPS) == {}
    assert done.notes == f"note: turned.mpo: {TURNED}, {PLACELESS}\n"


# HEIC


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    """A picture as a phone takes it: on its side, with its place."""
    path = tmp_path / "IMG_0001.HEIC"
    picture = pillow_heif.from_pillow(lying(6))
    picture.save(path, exif=exif(6, place=True), icc_profile=PROFILE, quality=95)
    return path


@pytest.fixture
def without_heif(tmp_path: Path) -> dict[str, str]:
    """As if pillow-heif were not installed."""
    folder = tmp_path / "broken"
    folder.mkdir()
    missing = "raise ModuleNotFoundError('No module named pillow_heif', name='pillow_heif')\n"
    (folder / "pillow_heif.py").write_text(missing)
    return importing(folder)


def test_heic_becomes_jpeg(fal: Sandbox, cli: Cli, heic: Path) -> None:
    done = submit(fal, cli, heic.name)
    (upload,) = uploads(fal)
    assert (upload.name, upload.content_type) == ("IMG_0001.jpg", "image/jpeg")
    assert opened(upload).format == "JPEG"
    assert looks_upright(opened(upload))
    assert opened(upload).getexif().get_ifd(GPS) == {}
    assert opened(upload).info["icc_profile"] == PROFILE
    (note,) = done.notes.splitlines()
    assert note.startswith(f"note: {heic.name}: sent as JPEG")
    assert note.endswith(PLACELESS)


def test_plain_heic_becomes_jpeg(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    pillow_heif.from_pillow(upright()).save(tmp_path / "a.heic", quality=95)
    done = submit(fal, cli, "a.heic")
    assert done.notes == "note: a.heic: sent as JPEG\n"
    assert looks_upright(opened(uploads(fal)[0]))


def test_without_pillow_heif_a_note_says_what_would_help(
    fal: Sandbox, cli: Cli, heic: Path, without_heif: dict[str, str]
) -> None:
    done = submit(fal, cli, heic.name, env=without_heif)
    assert done.notes == (
        f"note: {heic.name}: only some models read HEIC, and it may tell where it was taken; with"
        " pillow-heif it is sent as JPEG\n"
    )
    (upload,) = uploads(fal)
    assert (upload.name, upload.content_type) == (heic.name, "image/heic")
    assert upload.content == heic.read_bytes()


# Names, notes and journals


def test_the_name_of_what_was_changed_tells_its_content(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    names = {"a.png": "a.jpg", "b": "b.jpg", "c.JPEG": "c.jpg", "d.e.jpg": "d.e.jpg"}
    for number, name in enumerate(names):
        picture = lying(6)
        picture.putpixel((0, 0), (number, 0, 0))
        picture.save(tmp_path / name, "JPEG", exif=exif(6))
    submit(fal, cli, *names)
    assert [upload.name for upload in uploads(fal)] == list(names.values())


def test_each_picture_is_noted_once(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    fal.on("GET", "api.fal.ai", "/v1/models", fal.always(telling(EDITOR, FIELDS)))
    lying(6).save(tmp_path / "a.jpg", exif=exif(6))
    lying(8).save(tmp_path / "b.jpg", exif=exif(8))
    upright().save(tmp_path / "c.bmp")
    rows = ('{"image_url": ["a.jpg", "b.jpg"]}', '{"image_url": ["a.jpg", "c.bmp"]}', "a.jpg")
    (tmp_path / "rows").write_text("\n".join(rows))
    done = cli("batch-i2v", "--model", EDITOR, "--image-urls-file", "rows", "--dry-run")
    assert sorted(done.notes.splitlines()) == [
        f"note: a.jpg: {TURNED}",
        f"note: b.jpg: {TURNED}",
        "note: c.bmp: only some models read BMP",
    ]
    done = cli("batch-i2v", "--model", EDITOR, "--image-urls-file", "rows")
    notes = [line for line in done.notes.splitlines() if line.startswith("note: ")]
    assert sorted(note.split(": ")[1] for note in notes) == ["a.jpg", "b.jpg", "c.bmp"]
    assert sorted(upload.name for upload in fal.uploads) == ["a.jpg", "b.jpg", "c.bmp"]


def test_a_picture_that_is_changed_for_sending_is_the_same_job(
    fal: Sandbox, cli: Cli, tmp_path: Path, heic: Path, without_heif: dict[str, str]
) -> None:
    """By what lies on the disk, whatever is made of it, under whichever name."""
    lying(6).save(tmp_path / "a.jpg", exif=exif(6, place=True))
    argv = ("batch-i2v", "--model", KLING, "--prompt", "Go", "--journal", "j", "--image-urls")
    assert cli(*argv, "a.jpg", heic.name, env=without_heif).status == 0
    assert len(fal.jobs) == 2
    shutil.move(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert cli(*argv, "b.jpg", heic.name).status == 0
    assert (len(fal.jobs), len(fal.uploads)) == (2, 2)
    lying(6).save(tmp_path / "b.jpg", exif=exif(6))  # which is sent just like the first
    assert cli(*argv, "b.jpg").status == 0
    assert len(fal.jobs) == 3


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_orientation_that_is_none_turns_nothing(
    fal: Sandbox, cli: Cli, tmp_path: Path, orientation: int
) -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    upright().save(tmp_path / "a.jpg", exif=tags.tobytes())
    assert submit(fal, cli, "a.jpg").notes == ""
    assert uploads(fal)[0].content == (tmp_path / "a.jpg").read_bytes()


def test_a_place_in_an_animation_is_told(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """It is not drawn anew, which would lose its times or its quality."""
    frames = [upright(), lying(3)]
    frames[0].save(
        tmp_path / "a.webp", save_all=True, append_images=frames[1:], exif=exif(place=True)
    )
    done = submit(fal, cli, "a.webp")
    assert (
        done.notes
        == "note: a.webp: an animation is sent as it is, with what it tells of its place\n"
    )
    assert uploads(fal)[0].content == (tmp_path / "a.webp").read_bytes()


def test_a_picture_for_print_that_is_turned_loses_its_profile(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    """The profile is of inks, which the RGB that it becomes has not."""
    lying(6, "CMYK").save(tmp_path / "a.jpg", exif=exif(6), icc_profile=PROFILE)
    submit(fal, cli, "a.jpg")
    sent = opened(uploads(fal)[0])
    assert (sent.mode, sent.info.get("icc_profile")) == ("RGB", None)


def test_a_place_that_only_xmp_calls_a_destination(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    xmp = XMP.format(' exif:GPSDestLatitude="52,30.0N"').encode()
    save(upright(), tmp_path / "a.jpg", "JPEG", xmp=xmp)
    assert PLACELESS in submit(fal, cli, "a.jpg").notes
    assert b"GPSDest" not in uploads(fal)[0].content
