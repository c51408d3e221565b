"""What the models make: results in each model's own shape."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial

from sandbox.answers import Json
from sandbox.catalog import Model
from sandbox.documents import PRESETS
from sandbox.media import CONTENT_TYPES, Scene, clip, draw, opened, picture
from sandbox.prices import unit_of
from sandbox.storage import Storage, StoredFile, data_uri

# The top-level fields of a result; the first pattern that matches an endpoint counts.
SHAPES = {
    "fal-ai/nano-banana*": "images description",
    "fal-ai/gemini-*": "images description",
    "fal-ai/flux-2-flex": "images seed",
    "fal-ai/bytedance/seedream/*": "images seed",
    "fal-ai/ideogram/*": "images seed",
    "fal-ai/recraft*": "images",
    "imagineart/*": "images",
    "fal-ai/bitdance": "images seed has_nsfw_concepts prompt",
    "bria/fibo/generate": "image images structured_prompt",
    "fal-ai/aura-flow": "images seed prompt",
    "fal-ai/fooocus": "images timings has_nsfw_concepts",
    "fal-ai/sora-2/*": "video video_id thumbnail spritesheet",
    "fal-ai/ltx-*": "video prompt seed",
    "fal-ai/wan/v2.2*": "video prompt seed",
    "fal-ai/cosmos*": "video seed",
    "fal-ai/stable-video": "video seed",
    "fal-ai/ai-avatar/*": "video seed",
    "fal-ai/cogvideox*": "video timings seed prompt",
    "fal-ai/bytedance/omnihuman/*": "video duration",
}
GENERAL_SHAPES = {
    "*-to-image": "images timings seed has_nsfw_concepts prompt",
    "*-to-video": "video",
    "*": "output",
}
FIRST_FRAME_FIELDS = ("image_url", "start_image_url", "first_frame_url")

MOST_IMAGES = 8
LONGEST_SIDE = 4096


class Output:
    """One result in the making: the fields are made as the model's shape asks for them."""

    def __init__(
        self, endpoint_id: str, model: Model | None, arguments: Mapping[str, Json], storage: Storage
    ) -> None:
        self._endpoint_id = endpoint_id
        self._model = model
        self._category = model.category if model else "text-to-image"
        self._arguments = arguments
        self._storage = storage
        self.prompt = str(arguments.get("prompt") or "")
        self.seed = _whole(arguments.get("seed"), random.getrandbits(32))
        self.count = min(max(_whole(arguments.get("num_images"), 1), 1), MOST_IMAGES)
        self.scene = Scene(self.prompt, self.seed, *picture_size(arguments))

    def body(self) -> dict[str, Json]:
        return {name: getattr(self, f"_{name}")() for name in self.fields}

    @property
    def billable_units(self) -> int:
        """How much of the unit of its price: of seconds, as many as a call used to take."""
        if "images" in self.fields:
            return self.count
        return unit_of(self._model)[1] if self._model else 1

    @property
    def fields(self) -> list[str]:
        for pattern, shape in SHAPES.items():
            if fnmatchcase(self._endpoint_id, pattern):
                return shape.split()
        general = (
            shape
            for pattern, shape in GENERAL_SHAPES.items()
            if fnmatchcase(self._category, pattern)
        )
        return next(general).split()

    @property
    def image_format(self) -> str:
        if "text-to-vector" in self._endpoint_id:
            return "svg"
        asked = self._arguments.get("output_format")
        default = "jpeg" if "timings" in self.fields else "png"
        return asked if asked in ("jpeg", "png", "webp") else default

    def _image(self, number: int = 0) -> dict[str, Json]:
        scene = replace(self.scene, seed=self.seed + number)
        make = partial(picture, scene, self.image_format)
        content_type = CONTENT_TYPES[self.image_format]
        if self._arguments.get("sync_mode") is True:
            url = data_uri(make(), content_type)
        else:
            url = self._file("image", self.image_format, make).url
        about = {"width": scene.width, "height": scene.height, "content_type": content_type}
        return {"url": url, **about}

    def _file(self, name: str, extension: str, make: Callable[[], bytes]) -> StoredFile:
        return self._storage.keep(f"{name}.{extension}", CONTENT_TYPES[extension], make)

    def _images(self) -> list[Json]:
        return [self._image(number) for number in range(self.count)]

    def _seed(self) -> int:
        return self.seed

    def _prompt(self) -> str:
        return self.prompt

    def _timings(self) -> dict[str, float]:
        return {"inference": round(0.2 + self.scene.dice.random(), 4)}

    def _has_nsfw_concepts(self) -> list[bool]:
        return [False] * self.count

    def _description(self) -> str:
        return ""

    def _structured_prompt(self) -> dict[str, str]:
        return {"short_description": self.prompt}

    def _output(self) -> str:
        return f"The sandbox read: {self.prompt}"

    def _video(self) -> dict[str, Json]:
        file = self._file("output", "mp4", self._clip)
        size = len(file.content)
        about = {"content_type": file.content_type, "file_name": file.name, "file_size": size}
        return {"url": file.url, **about}

    def _clip(self) -> bytes:
        content = self._storage.read(self._first_frame_url())
        uploaded = opened(content) if content else None
        return clip(uploaded or draw(replace(self.scene, width=1024, height=576)))

    def _first_frame_url(self) -> Json:
        for name in FIRST_FRAME_FIELDS:
            if name in self._arguments:
                return self._arguments[name]
        several = self._arguments.get("image_urls")
        return several[0] if isinstance(several, list) and several else None

    def _video_id(self) -> str:
        return f"video_{self.seed:08x}"

    def _thumbnail(self) -> Json:
        return self._image()

    def _spritesheet(self) -> None:
        return None

    def _duration(self) -> float:
        return 2.0


def picture_size(arguments: Mapping[str, Json]) -> tuple[int, int]:
    """The pixels that the size fields of the various models come to."""
    size = arguments.get("image_size")
    if isinstance(size, Mapping):
        return _side(size.get("width")), _side(size.get("height"))
    if size in PRESETS:
        return PRESETS[size]
    if isinstance(size, str) and size.startswith("auto_"):
        side = _resolution(size.removeprefix("auto_"))
        return side, side
    return _size_of_ratio(arguments.get("aspect_ratio"), arguments.get("resolution"))


def _side(value: Json) -> int:
    default = 512
    return min(max(_whole(value, default), 16), LONGEST_SIDE)


def _size_of_ratio(ratio: Json, resolution: Json) -> tuple[int, int]:
    """`16:9` of a resolution's area, or `1344x768` as it stands."""
    shape = re.fullmatch(r"(\d+)([:x])(\d+)", str(ratio))
    if shape is None:
        return (1024, 1024) if resolution else (1024, 768)
    width, height = int(shape[1]), int(shape[3])
    if shape[2] != ":":
        return _side(width), _side(height)
    area = max(1, width) * max(1, height)
    scale = _resolution(resolution) / area**0.5
    return _side(_whole_blocks(width * scale)), _side(_whole_blocks(height * scale))


def _whole_blocks(length: float, block: int = 16) -> int:
    return round(length / block) * block


def _resolution(name: Json) -> int:
    sides = {"0.5K": 512, "2K": 2048, "3K": 3072, "4K": 4096, "4MP": 2048}
    return sides.get(name, 1024) if isinstance(name, str) else 1024


def _whole(value: Json, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
