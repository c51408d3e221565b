"""upload-*, encode-* and --output."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from conftest import FOR_EVER, Cli, Late
from PIL import Image
from sandbox import Reply, Sandbox, Stall

FLUX = "fal-ai/flux/dev"
MINIMAX = "fal-ai/minimax-video/image-to-video"


def picture_in(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def decoded(data_uri: str) -> tuple[str, bytes]:
    header, _, payload = data_uri.strip().partition(";base64,")
    return header.removeprefix("data:"), base64.b64decode(payload, validate=True)


# Uploads


def test_upload_file_prints_the_url_alone(fal: Sandbox, cli: Cli, photo: Path) -> None:
    done = cli("upload-file", "--file", "./photo.jpg")
    (upload,) = fal.uploads
    assert (done.status, done.stdout, done.stderr) == (0, upload.url + "\n", "")
    assert (upload.name, upload.content_type) == ("photo.jpg", "image/jpeg")
    assert upload.content == photo.read_bytes()


def test_upload_file_json(fal: Sandbox, cli: Cli, photo: Path) -> None:
    done = cli("upload-file", "--file", "photo.jpg", "--json")
    assert done.json == {"url": fal.uploads[0].url}


@pytest.mark.parametrize("name", ["фото.jpg", "a b.jpg", "new\nline.jpg", ".hidden.jpg", "ü"])
def test_upload_file_of_any_name(fal: Sandbox, cli: Cli, photo: Path, name: str) -> None:
    photo.rename(photo.with_name(name))
    assert cli("upload-file", "--file", name).status == 0
    assert fal.uploads[0].content == photo.with_name(name).read_bytes()


def test_upload_file_takes_anything(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Not a picture.")
    assert cli("upload-file", "--file", "notes.txt").status == 0
    assert fal.uploads[0].content_type == "text/plain"


@pytest.mark.parametrize(
    ("flags", "format", "content_type"),
    [
        ((), "JPEG", "image/jpeg"),
        (("--format", "jpg"), "JPEG", "image/jpeg"),
        (("--format", "jpeg"), "JPEG", "image/jpeg"),
        (("--format", "png"), "PNG", "image/png"),
        (("--format", "webp"), "WEBP", "image/webp"),
    ],
)
def test_upload_image_converts(
    fal: Sandbox, cli: Cli, photo: Path, flags: tuple[str, ...], format: str, content_type: str
) -> None:
    done = cli("upload-image", "--file", "photo.jpg", *flags)
    (upload,) = fal.uploads
    assert (done.status, done.stdout) == (0, upload.url + "\n")
    assert upload.content_type == content_type
    assert picture_in(upload.content).format == format


def test_upload_raw(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0\1\2")
    done = cli("upload-raw", "--file", "data.bin", "--content-type", "application/x-thing")
    (upload,) = fal.uploads
    assert (done.status, done.stdout) == (0, upload.url + "\n")
    assert (upload.content_type, upload.content) == ("application/x-thing", b"\0\1\2")


def test_upload_raw_from_stdin(fal: Sandbox, cli: Cli) -> None:
    argv = ("--file", "-", "--content-type", "text/plain")
    assert cli("upload-raw", *argv, stdin=b"\xff\0").status == 0
    assert fal.uploads[0].content == b"\xff\0"


# Encoding


@pytest.mark.parametrize("command", [("upload-raw", "--content-type", "a/b"), ("upload-file",)])
def test_a_large_file_arrives_as_it_is(
    fal: Sandbox, cli: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Above 100 MiB it goes in parts, some of them side by side."""
    content = b"".join(number.to_bytes(1 << 20, "big") for number in range(103)) + b"end"
    (tmp_path / "large.bin").write_bytes(content)
    done = cli(*command, "--file", "large.bin")
    assert (done.status, len(fal.uploads)) == (0, 1)
    assert fal.uploads[0].content == content


def test_encode_file(cli: Cli, photo: Path) -> None:
    done = cli("encode-file", "--file", "photo.jpg", env={"FAL_KEY": ""})
    assert decoded(done.stdout) == ("image/jpeg", photo.read_bytes())
    assert (done.status, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_encode_json(cli: Cli, photo: Path) -> None:
    done = cli("encode-file", "--file", "photo.jpg", "--json")
    assert decoded(done.json["data_uri"])[1] == photo.read_bytes()


def test_encode_raw_of_stdin(cli: Cli) -> None:
    done = cli("encode-raw", "--file", "-", "--content-type", "text/plain", stdin="hello")
    assert done.stdout == "data:text/plain;base64,aGVsbG8=\n"


def test_encode_image_turns_the_picture_upright(cli: Cli, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter to the right
    Image.new("RGB", (40, 20), "red").save(tmp_path / "lying.jpg", exif=exif)
    _, data = decoded(cli("encode-image", "--file", "lying.jpg", "--format", "png").stdout)
    assert picture_in(data).size == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_encode_image_lays_transparency_on_white(cli: Cli, tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0)).convert(mode)
    options: dict[str, Any] = {"transparency": 0} if mode == "P" else {}
    clear.save(tmp_path / "clear.png", **options)
    done = cli("encode-image", "--file", "clear.png")
    assert "transparency" in done.stderr
    content_type, data = decoded(done.stdout)
    assert (content_type, picture_in(data).getpixel((0, 0))) == ("image/jpeg", (255, 255, 255))


def test_encode_image_keeps_transparency_in_png(cli: Cli, tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    done = cli("encode-image", "--file", "clear.png", "--format", "png")
    assert (done.stderr, picture_in(decoded(done.stdout)[1]).mode) == ("", "RGBA")


@pytest.mark.parametrize("verb", ["encode-image", "upload-image"])
def test_what_is_no_picture_is_refused(fal: Sandbox, cli: Cli, tmp_path: Path, verb: str) -> None:
    (tmp_path / "notes.png").write_text("Not a picture.")
    done = cli(verb, "--file", "notes.png")
    assert (done.status, done.error["type"], fal.requests) == (2, "usage_error", [])


# Saving


def subscribe(cli: Cli, *argv: str) -> list[dict[str, object]]:
    done = cli("subscribe-t2i", "--model", FLUX, "--prompt", "A cat", *argv)
    assert done.status == 0
    files: list[dict[str, object]] = done.json["downloaded_files"]
    return files


@pytest.mark.parametrize("verb", ["subscribe-t2i", "run-t2i"])
def test_output_into_a_folder(cli: Cli, tmp_path: Path, verb: str) -> None:
    flags = ("--model", FLUX, "--prompt", "A cat", "--num-images", "2")
    done = cli(verb, *flags, "--output", "pictures/")
    assert done.status == 0
    assert [set(file) for file in done.json["downloaded_files"]] == [
        {"path", "url", "content_type", "bytes", "field"}
    ] * 2
    for file, image in zip(done.json["downloaded_files"], done.json["images"], strict=True):
        path = Path(file["path"])
        assert path.parent == tmp_path / "pictures"
        assert path.suffix == ".jpg"
        assert file["url"] == image["url"]
        assert file["bytes"] == path.stat().st_size
        with Image.open(path) as picture:
            assert picture.size == (image["width"], image["height"])


def test_output_of_result_to_a_file(cli: Cli, tmp_path: Path) -> None:
    request_id = cli("submit-t2i", "--model", FLUX, "--prompt", "A cat").json["request_id"]
    flags = ("--model", FLUX, "--request-id", request_id)
    done = cli("result", *flags, "--output", "cat.jpg")
    assert [file["path"] for file in done.json["downloaded_files"]] == [str(tmp_path / "cat.jpg")]
    with Image.open(tmp_path / "cat.jpg") as picture:
        assert picture.format == "JPEG"


def test_output_of_a_video(cli: Cli, photo: Path) -> None:
    flags = ("--model", MINIMAX, "--image-url", "photo.jpg", "--prompt", "It rains")
    done = cli("subscribe-i2v", *flags, "--output", "clip")
    (file,) = done.json["downloaded_files"]
    assert (Path(file["path"]).name, file["content_type"]) == ("clip.mp4", "video/mp4")


def test_output_never_overwrites(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    names = [Path(str(subscribe(cli, "--output", "cats")[0]["path"])).name for _ in range(2)]
    assert names == ["fal-ai-flux-dev.jpg", "fal-ai-flux-dev-2.jpg"]


def test_output_leaves_no_traces(cli: Cli, tmp_path: Path) -> None:
    subscribe(cli, "--output", "cats/")
    assert [path.name for path in (tmp_path / "cats").iterdir()] == ["fal-ai-flux-dev.jpg"]
    assert (tmp_path / "cats/fal-ai-flux-dev.jpg").stat().st_mode & 0o777 == 0o644


def test_output_takes_data_uris(cli: Cli) -> None:
    (file,) = subscribe(cli, "--output", "cats/", "--extra-json", '{"sync_mode": true}')
    assert str(file["path"]).endswith(".jpg")


@pytest.mark.parametrize("name", ["../../escape.png", "/etc/escape.png", "..", "a\0b", ".bashrc"])
def test_names_from_the_server_lead_nowhere(
    fal: Sandbox, cli: Cli, tmp_path: Path, name: str
) -> None:
    url = f"https://v3.fal.media/files/{name.replace(chr(0), '%00')}"
    response = {"images": [{"url": url, "file_name": name, "content_type": "image/png"}]}
    fal.on("POST", "fal.run", "*", Reply(200, json=response))
    fal.on("GET", "v3.fal.media", "*", Reply(200, content=b"\x89PNG\r\n\x1a\n"))
    done = cli("run-t2i", "--model", FLUX, "--prompt", "A cat", "--output", "cats/")
    assert done.status == 0
    assert [path.name for path in (tmp_path / "cats").iterdir()] == ["fal-ai-flux-dev.png"]


def test_no_key_leaves_for_a_media_host(fal: Sandbox, cli: Cli) -> None:
    response = {"images": [{"url": "https://example.com/cat.png"}]}
    fal.on("POST", "fal.run", "*", Reply(200, json=response))
    fal.on("GET", "example.com", "*", Reply(200, content=b"\x89PNG\r\n\x1a\n"))
    assert cli("run-t2i", "--model", FLUX, "--prompt", "A cat", "--output", "cats/").status == 0
    (request,) = [r for r in fal.requests if r.host == "example.com"]
    assert not {"authorization", "cookie"} & {name.lower() for name in request.headers}


def test_a_lost_file_loses_no_result(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "*.fal.media", "*", fal.always(Reply(404, text="gone")))
    done = cli("run-t2i", "--model", FLUX, "--prompt", "A cat", "--output", "cats/")
    assert (done.status, done.error["type"]) == (1, "download_failed")
    assert done.json["downloaded_files"] == []
    assert [detail["field"] for detail in done.error["details"]] == [done.json["images"][0]["url"]]


def test_running_out_of_time_while_saving_loses_no_result(fal: Sandbox, late: Late) -> None:
    fal.on("GET", "*.fal.media", "*", fal.always(Stall(FOR_EVER)))
    flags = ("--model", FLUX, "--prompt", "A cat", "--output", "cats/", "--client-timeout", "5")
    done = late("subscribe-t2i", *flags, once=lambda request: "fal.media" in request.host)
    assert (done.status, done.error["type"]) == (5, "timeout")
    assert done.json["images"]
