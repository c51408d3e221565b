"""Pictures and clips made from a prompt: a landscape, always the same one for the same seed."""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Iterator
from colorsys import hls_to_rgb
from dataclasses import dataclass
from html import escape
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

Colour = str  # as PIL and SVG both write it: rgb(1, 2, 3)

CLIP_SECONDS = 2
CLIP_RATE = 24
CLIP_LONG_SIDE = 512

CONTENT_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "mp4": "video/mp4",
}


@dataclass(frozen=True)
class Scene:
    """All that a picture depends on."""

    prompt: str
    seed: int
    width: int = 1024
    height: int = 768

    @property
    def dice(self) -> random.Random:
        digest = hashlib.sha256(f"{self.seed}:{self.prompt}".encode()).digest()
        return random.Random(digest)


def picture(scene: Scene, image_format: str) -> bytes:
    if image_format == "svg":
        return svg_picture(scene)
    return encoded(draw(scene), image_format)


def encoded(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, quality=90)
    return buffer.getvalue()


def draw(scene: Scene) -> Image.Image:
    """Sky, sun, hills that darken towards the viewer, and the prompt as a caption."""
    dice = scene.dice
    palette = Palette.rolled(dice)
    image = _sky(scene, palette)
    _draw_sun(image, palette, dice)
    canvas = ImageDraw.Draw(image)
    for outline, colour in _hills(scene, palette, dice):
        canvas.polygon(outline, colour)
    _write_caption(image, scene.prompt)
    return image


@dataclass(frozen=True)
class Palette:
    """Colours that go together: a hue for the land, a neighbouring one for the light."""

    hue: float
    light: float

    @classmethod
    def rolled(cls, dice: random.Random) -> Palette:
        hue = dice.random()
        return cls(hue, (hue + dice.uniform(0.06, 0.18)) % 1)

    @property
    def zenith(self) -> Colour:
        return _rgb(self.hue, 0.42, 0.55)

    @property
    def horizon(self) -> Colour:
        return _rgb(self.light, 0.82, 0.75)

    @property
    def sun(self) -> Colour:
        return _rgb(self.light, 0.93, 0.9)

    def hill(self, nearness: float) -> Colour:
        return _rgb(self.hue, 0.55 - 0.42 * nearness, 0.25 + 0.15 * nearness)


def _rgb(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = hls_to_rgb(hue, lightness, saturation)
    return f"rgb({round(red * 255)}, {round(green * 255)}, {round(blue * 255)})"


def _sky(scene: Scene, palette: Palette) -> Image.Image:
    gradient = Image.linear_gradient("L").resize((1, scene.height))
    column = ImageOps.colorize(gradient, palette.zenith, palette.horizon)
    return column.resize((scene.width, scene.height))


def _draw_sun(image: Image.Image, palette: Palette, dice: random.Random) -> None:
    """A disc in a glow. The glow is blurred small and enlarged: a large blur takes long."""
    width, height = image.size
    radius = min(image.size) * dice.uniform(0.06, 0.1)
    x = width * dice.uniform(0.2, 0.8)
    y = height * dice.uniform(0.22, 0.45)
    shrink = 8
    small = (max(1, width // shrink), max(1, height // shrink))
    glow = Image.new("L", small, 0)
    ImageDraw.Draw(glow).ellipse(_disc(x / shrink, y / shrink, radius * 1.8 / shrink), 150)
    glow = glow.filter(ImageFilter.GaussianBlur(radius / shrink))
    image.paste(palette.sun, (0, 0), glow.resize(image.size))
    ImageDraw.Draw(image).ellipse(_disc(x, y, radius), palette.sun)


def _disc(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


Outline = list[tuple[float, float]]


def _hills(
    scene: Scene, palette: Palette, dice: random.Random, layers: int = 5
) -> Iterator[tuple[Outline, Colour]]:
    for layer in range(layers):
        nearness = layer / (layers - 1)
        base = scene.height * (0.5 + 0.36 * nearness)
        yield _ridge(scene, base, nearness, dice), palette.hill(nearness)


def _ridge(scene: Scene, base: float, nearness: float, dice: random.Random) -> Outline:
    """The sum of three waves, closed along the picture's bottom."""
    waves = [
        (scene.height * dice.uniform(0.02, 0.06) / order, order * (2.2 - nearness), dice.random())
        for order in (1, 2, 3)
    ]
    steps = 120
    ridge = [
        (scene.width * step / steps, base - _height(step / steps, waves))
        for step in range(steps + 1)
    ]
    return [*ridge, (scene.width, scene.height), (0, scene.height)]


def _height(x: float, waves: list[tuple[float, float, float]]) -> float:
    return sum(
        amplitude * math.sin(math.tau * (frequency * x + phase))
        for amplitude, frequency, phase in waves
    )


def _write_caption(image: Image.Image, prompt: str) -> None:
    size = max(10, image.width // 36)
    line_length = max(8, int(image.width * 1.7 / size))
    caption = "\n".join(wrap(prompt, line_length, max_lines=2, placeholder=" …"))
    ImageDraw.Draw(image).multiline_text(
        (image.width / 2, image.height - size),
        caption,
        fill=(255, 255, 255),
        font=ImageFont.load_default(size),
        anchor="md",
        align="center",
    )


def svg_picture(scene: Scene) -> bytes:
    dice = scene.dice
    palette = Palette.rolled(dice)
    hills = "".join(
        f'<polygon fill="{colour}" points="{_points(outline)}"/>'
        for outline, colour in _hills(scene, palette, dice)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{scene.width}" height="{scene.height}">'
        f'<rect width="100%" height="100%" fill="{palette.horizon}"/>'
        f'<circle cx="60%" cy="32%" r="8%" fill="{palette.sun}"/>{hills}'
        f"<title>{escape(scene.prompt)}</title></svg>"
    ).encode()


def _points(outline: Outline) -> str:
    return " ".join(f"{x:.0f},{y:.0f}" for x, y in outline)


def opened(content: bytes) -> Image.Image | None:
    """The picture in `content`, unless there is none."""
    try:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    except (OSError, ValueError):
        return None


def clip(first_frame: Image.Image) -> bytes:
    """Two seconds of a slow zoom into a picture, as H.264 that every player plays."""
    import av  # here because it takes long to import, and most jobs make no clip
    from av.video.stream import VideoStream

    image = _clip_sized(first_frame)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "crf": "26"}
        stream = container.add_stream("libx264", rate=CLIP_RATE, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = image.size
        stream.pix_fmt = "yuv420p"
        for still in _zoom(image):
            frame = av.VideoFrame.from_image(still)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _clip_sized(image: Image.Image) -> Image.Image:
    """Small, with even sides: yuv420p halves the colours in both directions."""
    scale = CLIP_LONG_SIDE / max(image.size)
    width, height = image.size
    return image.resize((_even(width * scale), _even(height * scale)))


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _zoom(image: Image.Image) -> Iterator[Image.Image]:
    frames = CLIP_SECONDS * CLIP_RATE
    width, height = image.size
    for number in range(frames):
        margin = 0.1 * number / frames
        box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
        yield image.resize(image.size, Image.Resampling.BILINEAR, box=box)
