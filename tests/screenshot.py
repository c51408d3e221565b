"""Take the picture of a gallery that README shows: python tests/screenshot.py

It has the sandbox make six pictures and skill_fal.py a page of them, and Chromium take its picture:
tests/gallery.png. Debian has Chromium as `apt-get install chromium`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from sandbox import Sandbox

HERE = Path(__file__).resolve().parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH, HEIGHT = 1120, 880
MAX_BYTES = 150_000
PATIENCE = 120.0  # seconds
ATTEMPTS = 6
PROMPTS = (
    "A lighthouse at dusk",
    "Snow on the mountains, seen from a train",
    "Red rocks in the morning light",
    "A valley full of fog",
    "The hills behind the harbour, late summer",
    "Northern forest, long shadows, nobody there",
)


def main() -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is here: install Chromium", file=sys.stderr)  # noqa: T201
        return 1
    with tempfile.TemporaryDirectory() as folder:
        page = make_gallery(Path(folder))
        picture = take_picture(browser, page)
        size = save_small(picture, HERE / "gallery.png")
    print(f"tests/gallery.png: {size} bytes")  # noqa: T201
    return int(size > MAX_BYTES)


def make_gallery(folder: Path) -> Path:
    """The page of a batch, with the sandbox in fal's place."""
    argv = ("batch-t2i", "--model", "fal-ai/flux/schnell", "--prompts", *PROMPTS, "--seed", "4")
    where = ("--output", "album/{index}.{ext}", "--gallery", "album.html")
    with Sandbox(0.1, 0.1) as fal:
        subprocess.run(
            [sys.executable, str(HERE.parent / "skill_fal.py"), *argv, *where, "--quiet"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **fal.env},
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    return folder / "album.html"


def take_picture(browser: str, page: Path) -> Path:
    """The picture of a page: the second of two that are alike, for a busy machine paints late."""
    picture = page.with_name("page.png")
    flags = [
        "--headless",
        "--disable-gpu",
        "--hide-scrollbars",
        "--run-all-compositor-stages-before-draw",
        "--virtual-time-budget=20000",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={picture}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # root has no other way
    earlier = b""
    for _ in range(ATTEMPTS):
        command = [browser, *flags, page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        if picture.read_bytes() == earlier:
            return picture
        earlier = picture.read_bytes()
    raise SystemExit("no two pictures of the page are alike")


def save_small(picture: Path, path: Path) -> int:
    """Save a picture in as many colours as there is room for; returns its bytes."""
    with Image.open(picture) as image:
        plain = image.convert("RGB")
    for colours in (240, 192, 128, 96, 64):
        few = plain.quantize(palette=palette_of(plain, colours))
        few.save(path, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break
    return path.stat().st_size


def palette_of(image: Image.Image, colours: int) -> Image.Image:
    """So many colours of a picture; those that most of it has are to stay as they are."""
    counted: Any = image.getcolors(image.width * image.height)
    plain = [colour for _, colour in sorted(counted, reverse=True)[:8]]
    channels = image.quantize(colours).getpalette() or []
    mixed = [channels[start : start + 3] for start in range(0, len(channels), 3)]
    others = [colour for colour in mixed if not any(are_alike(colour, other) for other in plain)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(list(itertools.chain(*plain, *others)))
    return palette


def are_alike(colour: Sequence[int], other: Sequence[int]) -> bool:
    return sum(abs(a - b) for a, b in zip(colour, other, strict=True)) < 16


if __name__ == "__main__":
    sys.exit(main())
