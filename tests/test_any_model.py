"""Any model, any argument: what no test names is fitted as well as what one does.

The models here are invented: what they take is told by their schemas alone, and each case is one
of a kind. A case that fails calls for a better rule, not for another name in a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skill_fal
from skill_fal import LocalFile, SchemaReader, fit_arguments

A, B, C = (f"https://example.com/{name}.png" for name in "abc")
TEXT = {"type": "string"}
LINK = {"type": "string", "format": "uri"}
TEXTS = {"type": "array", "items": TEXT}
WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
YES_OR_NO = {"type": "boolean"}
BOX = {"type": "object", "properties": {"width": WHOLE, "height": WHOLE}}


def model(*required: str, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


def one_of(*values: Any, **keywords: Any) -> dict[str, Any]:
    return {"enum": list(values), **keywords}


def list_of(items: Any, **keywords: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **keywords}


def thing(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


def maybe(schema: Any, **keywords: Any) -> dict[str, Any]:
    """An optional value as pydantic writes it."""
    return {"anyOf": [schema, {"type": "null"}], **keywords}


class Case(NamedTuple):
    """What is asked of a model, and what comes of it: the arguments, all notes by a part of
    each, or all problems by field, a part of the message each.
    """

    schema: dict[str, Any]
    asked: dict[str, Any]
    sent: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}

    def check(self) -> None:
        fitted = fit_arguments(self.asked, self.schema)
        problems = {one["field"]: one["message"] for one in fitted.problems}
        assert [one["field"] for one in fitted.problems] == list(self.refused), fitted.problems
        for field, message in self.refused.items():
            assert message in problems[field]
        if self.sent is not None:
            assert fitted.arguments == self.sent
            assert typed_alike(fitted.arguments, self.sent)
            assert len(fitted.notes) == len(self.notes), fitted.notes
        for note, part in zip(fitted.notes, self.notes, strict=False):
            assert part in note


def typed_alike(one: Any, other: Any) -> bool:
    """Whether equal values are of the same types: 1, 1.0 and True are equal in Python."""
    if isinstance(one, dict):
        return all(typed_alike(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return all(map(typed_alike, one, other))
    if isinstance(one, skill_fal.FileSource):
        return isinstance(other, str)
    return type(one) is type(other)


def cases(rows: Mapping[str, Case]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return pytest.mark.parametrize("case", rows.values(), ids=list(rows))


# Nothing that nobody asked for


@cases(
    {
        "a list of links": Case(
            model("photos", prompt=TEXT, photos=TEXTS),
            {"prompt": "Rain"},
            refused={"photos": "required: --image-url"},
        ),
        "a list of many names": Case(
            model("prompt", "input_pictures", prompt=TEXT, input_pictures=list_of(LINK)),
            {"prompt": "Rain"},
            refused={"input_pictures": "required: --image-url"},
        ),
        "a list of objects": Case(
            model("base_images", base_images=list_of(thing(url=LINK))),
            {},
            refused={"base_images": "required"},
        ),
        "a list that may be null": Case(
            model("ref_images", ref_images=maybe(TEXTS)),
            {},
            refused={"ref_images": "required"},
        ),
        "two lists": Case(
            model("room_photos", "chair_photos", room_photos=TEXTS, chair_photos=TEXTS),
            {},
            refused={"room_photos": "required: --", "chair_photos": "required: --"},
        ),
        "a list of which a picture is the least": Case(
            model("photos", photos=list_of(LINK, minItems=1)),
            {},
            refused={"photos": "required"},
        ),
        "a list whose default is empty": Case(
            model("photos", photos=list_of(LINK, default=[])),
            {},
            refused={"photos": "required"},
        ),
        "a list in which something else is asked for": Case(
            model("photos", photos=TEXTS, seed=WHOLE),
            {"seed": 1},
            refused={"photos": "required"},
        ),
        "a list of objects whose default is empty": Case(
            model("base_images", base_images=list_of(thing(url=LINK), default=[])),
            {},
            refused={"base_images": "required"},
        ),
        "a picture whose default is somebody else's": Case(
            model("photo_url", photo_url={**TEXT, "default": "https://example.com/demo.png"}),
            {},
            refused={"photo_url": "required: --image-url"},
        ),
    }
)
def test_pictures_that_are_required_are_asked_for(case: Case) -> None:
    case.check()


@cases(
    {
        "a list": Case(model(photos=TEXTS), {}, {}),
        "a list with a default": Case(model(photos=list_of(LINK, default=[])), {}, {}),
        "a list or null": Case(model(style_pictures=maybe(TEXTS, default=None)), {}, {}),
        "a single one": Case(model(first_picture=LINK), {}, {}),
        "one beside a prompt": Case(
            model("caption", caption=TEXT, photos=TEXTS),
            {"arg": {"caption": "Rain"}},
            {"caption": "Rain"},
        ),
        "other things with defaults": Case(
            model(steps={**WHOLE, "default": 4}, shape=one_of("1:1", default="1:1")), {}, {}
        ),
    }
)
def test_what_is_optional_and_not_asked_for_is_not_sent(case: Case) -> None:
    case.check()


# Frames

TICKS = {**WHOLE, "minimum": 1, "maximum": 1000}


@cases(
    {
        "the default rate": Case(
            model(frame_count=TICKS, frame_rate={**WHOLE, "default": 24}),
            {"duration": 5},
            {"frame_count": 120},
            ("--duration 5 becomes frame_count 120: 5 s at 24 frames a second",),
        ),
        "a rate that is no whole number": Case(
            model(video_frames=TICKS, frames_per_second={**NUMBER, "default": 12.5}),
            {"duration": 4},
            {"video_frames": 50},
            ("--duration 4 becomes video_frames 50",),
        ),
        "a rate that may be null": Case(
            model(frames=TICKS, frames_per_second=maybe(WHOLE, default=30)),
            {"duration": 2},
            {"frames": 60},
            ("--duration 2 becomes frames 60",),
        ),
        "a rate by its own name": Case(
            model(frame_count=TICKS, fps={**WHOLE, "default": 24}),
            {"duration": 5, "arg": {"fps": "10"}},
            {"frame_count": 50, "fps": 10},
            ("50: 5 s at 10 frames a second",),
        ),
        "a rate as extra": Case(
            model(frames=TICKS, video_fps={**WHOLE, "default": 24}),
            {"duration": 5, "extra_json": {"video_fps": 8}},
            {"frames": 40, "video_fps": 8},
            ("40: 5 s at 8 frames a second",),
        ),
        "extra before the own name": Case(
            model(frames=TICKS, frame_rate=WHOLE),
            {"duration": 3, "arg": {"frame_rate": "10"}, "extra_json": {"frame_rate": 20}},
            {"frames": 60, "frame_rate": 20},
            ("60: 3 s at 20 frames a second", "frame_rate is sent as --extra-json has it"),
        ),
        "a rate that is offered as text": Case(
            model(number_of_frames=TICKS, output_fps=one_of("24", "30", default="30")),
            {"duration": 2},
            {"number_of_frames": 60},
            ("60: 2 s at 30 frames a second",),
        ),
        "a rate in words": Case(
            model(frames={**TICKS, "description": "How many; the clip plays at 25 fps."}),
            {"duration": 2},
            {"frames": 50},
            ("50: 2 s at 25 frames a second",),
        ),
        "a rate in more words": Case(
            model(frame_count={**TICKS, "description": "Played at 16 frames per second."}),
            {"duration": 2.5},
            {"frame_count": 40},
            ("--duration 2.5 becomes frame_count 40: 2.5 s at 16",),
        ),
        "a rate in capitals": Case(
            model(frame_count={**TICKS, "description": "Frames to render (24 FPS)."}),
            {"duration": 2},
            {"frame_count": 48},
            ("48: 2 s at 24",),
        ),
        "a length that counts frames": Case(
            model(
                clip_length={**TICKS, "description": "Number of frames to make."},
                fps={**WHOLE, "default": 20},
            ),
            {"duration": 3},
            {"clip_length": 60},
            ("--duration 3 becomes clip_length 60",),
        ),
        "frames that are named by another word": Case(
            model(total_frames=TICKS, fps={**WHOLE, "default": 20}),
            {"duration": 3},
            {"total_frames": 60},
            ("--duration 3 becomes total_frames 60",),
        ),
        "a rate that is named by another word": Case(
            model(frames=TICKS, target_fps={**WHOLE, "default": 20}),
            {"duration": 3},
            {"frames": 60},
            ("--duration 3 becomes frames 60",),
        ),
        "frames as text": Case(
            model(frame_count=TEXT, fps={**WHOLE, "default": 20}),
            {"duration": 3},
            {"frame_count": "60"},
            ("becomes frame_count 60",),
        ),
        "seconds go before frames": Case(
            model(frames=TICKS, fps={**WHOLE, "default": 20}, seconds=WHOLE),
            {"duration": 3},
            {"seconds": 3},
        ),
    }
)
def test_seconds_become_frames_at_the_models_rate(case: Case) -> None:
    case.check()


def ticking(**keywords: Any) -> dict[str, Any]:
    """A model of 24 frames a second."""
    return model(frame_count={**WHOLE, **keywords}, frame_rate={**WHOLE, "default": 24})


@cases(
    {
        "multipleOf": Case(
            ticking(multipleOf=10), {"duration": 3}, {"frame_count": 70}, ("70: 2.92 s",)
        ),
        "multiples in words": Case(
            ticking(description="A multiple of 16."),
            {"duration": 3.2},
            {"frame_count": 80},
            ("80: 3.33 s",),
        ),
        "8n+1": Case(
            ticking(description="Must be 8n+1."), {"duration": 3}, {"frame_count": 73}, ("73:",)
        ),
        "4k + 1": Case(
            ticking(description="Of the form 4k + 1, as the encoder wants."),
            {"duration": 2.5},
            {"frame_count": 61},
            ("61:",),
        ),
        "16*n + 1": Case(
            ticking(description="16*n + 1 frames"), {"duration": 3}, {"frame_count": 65}, ("65:",)
        ),
        "one of a few": Case(
            ticking(enum=[49, 97, 145]), {"duration": 5}, {"frame_count": 97}, ("97: 4.04 s",)
        ),
        "one of a few texts": Case(
            model(frames=one_of("25", "50", "75"), fps={**WHOLE, "default": 25}),
            {"duration": 2},
            {"frames": "50"},
            ("becomes frames 50",),
        ),
        "just above": Case(
            ticking(description="8n+1", maximum=121),
            {"duration": 5.04},
            {"frame_count": 121},
            ("121:",),
        ),
        "just below": Case(
            ticking(minimum=17, maximum=99, multipleOf=1),
            {"duration": 0.69},
            {"frame_count": 17},
            ("17:",),
        ),
        "a limit between two steps": Case(
            ticking(multipleOf=8, maximum=100), {"duration": 4.25}, {"frame_count": 96}, ("96:",)
        ),
        "a limit between two steps in words": Case(
            ticking(description="8n+1", maximum=120),
            {"duration": 5},
            {"frame_count": 113},
            ("113:",),
        ),
        "a lower limit between two steps": Case(
            ticking(multipleOf=8, minimum=20), {"duration": 0.75}, {"frame_count": 24}, ("24:",)
        ),
        "a limit in a variant": Case(
            model(frames=maybe({**WHOLE, "maximum": 60}), fps={**WHOLE, "default": 24}),
            {"duration": 2.51},
            {"frames": 60},
            ("60:",),
        ),
        "far above": Case(
            ticking(minimum=9, maximum=121), {"duration": 60}, refused={"frame_count": "above 121"}
        ),
        "far below": Case(
            ticking(minimum=81, maximum=121), {"duration": 1}, refused={"frame_count": "below 81"}
        ),
        "8N+1": Case(
            ticking(description="8N+1 frames"), {"duration": 3}, {"frame_count": 73}, ("73:",)
        ),
        "a limit that is excluded": Case(
            ticking(exclusiveMaximum=97, multipleOf=8),
            {"duration": 4.05},
            {"frame_count": 96},
            ("96:",),
        ),
    }
)
def test_frames_keep_to_the_steps_and_limits(case: Case) -> None:
    case.check()


NO_RATE = {
    "limits": (
        model(frame_count={**WHOLE, "minimum": 9, "maximum": 257}),
        "--arg frame_count=N 9..257",
    ),
    "a lower limit": (model(frames={**WHOLE, "minimum": 1}), "--arg frames=N"),
    "no limits": (model(number_of_frames=WHOLE), "--arg number_of_frames=N"),
    "limits in a variant": (
        model(video_frames=maybe({**WHOLE, "minimum": 2, "maximum": 8})),
        "--arg video_frames=N 2..8",
    ),
    "a rate of nothing": (
        model(frames=WHOLE, fps={**WHOLE, "default": 0}),
        "--arg frames=N",
    ),
    "a rate without a default": (model(frames=WHOLE, frame_rate=WHOLE), "--arg frames=N"),
}


@pytest.mark.parametrize(("schema", "hint"), NO_RATE.values(), ids=list(NO_RATE))
def test_without_a_rate_the_hint_says_how_to_give_frames(schema: dict[str, Any], hint: str) -> None:
    """The default clip would be billed: that the length is not sent must be plain to see."""
    fitted = fit_arguments({"duration": 5}, schema)
    (note,) = fitted.notes
    assert (fitted.arguments, fitted.problems) == ({}, [])
    assert "--duration: it is not sent" in note and hint in note
    assert not re.search(r"(?<!\d)\.\.(?!\d)", note), "an empty range"
    (problem,) = fit_arguments({"duration": 5}, schema, strict=True).problems
    assert problem["field"] == "duration" and hint in problem["message"]


# Ties and squares


def sized(width: int, height: int) -> dict[str, Any]:
    return {"width": width, "height": height}


def became(width: int, height: int, what: str) -> tuple[str]:
    return (f"--width {width} --height {height} becomes {what}",)


@cases(
    {
        "a portrait among three": Case(
            model(shape=one_of("16:9", "9:16", "1:1")),
            sized(768, 1024),
            {"shape": "9:16"},
            became(768, 1024, "shape 9:16"),
        ),
        "a landscape among three": Case(
            model(output_ratio=one_of("1:1", "9:16", "16:9")),
            sized(1024, 768),
            {"output_ratio": "16:9"},
            became(1024, 768, "output_ratio 16:9"),
        ),
        "a portrait, the square first": Case(
            model(shape=one_of("1:1", "16:9", "9:16")),
            sized(600, 800),
            {"shape": "9:16"},
            became(600, 800, "shape 9:16"),
        ),
        "shapes in words": Case(
            model(orientation=one_of("square", "landscape", "portrait")),
            sized(1200, 900),
            {"orientation": "landscape"},
            became(1200, 900, "orientation landscape"),
        ),
        "shapes in pixels": Case(
            model(frame_format=one_of("960x960", "1280x720", "720x1280")),
            sized(720, 960),
            {"frame_format": "720x1280"},
            became(720, 960, "frame_format 720x1280"),
        ),
        "between a square and 4:1": Case(
            model(shape=one_of("1:1", "4:1", "1:4")),
            sized(1000, 500),
            {"shape": "4:1"},
            became(1000, 500, "shape 4:1"),
        ),
    }
)
def test_a_tie_keeps_the_orientation(case: Case) -> None:
    case.check()


@cases(
    {
        "auto": Case(
            model(shape=one_of("9:16", "16:9", "auto")),
            sized(1024, 1024),
            {"shape": "auto"},
            became(1024, 1024, "shape auto"),
        ),
        "auto, and the default is another": Case(
            model(output_ratio=one_of("auto", "16:9", "9:16", default="16:9")),
            sized(512, 512),
            {"output_ratio": "auto"},
            became(512, 512, "output_ratio auto"),
        ),
        "the default": Case(
            model(shape=one_of("16:9", "9:16", default="16:9")),
            sized(1024, 1024),
            {},
            ("--width 1024 --height 1024: shape offers nothing of that shape",),
        ),
        "the default, whatever comes first": Case(
            model(shape=one_of("9:16", "16:9", default="16:9")),
            sized(640, 640),
            {},
            ("--width 640 --height 640: shape offers nothing of that shape",),
        ),
        "in words": Case(
            model(orientation=one_of("portrait", "landscape", default="landscape")),
            sized(640, 640),
            {},
            ("orientation offers nothing of that shape",),
        ),
        "in pixels": Case(
            model(clip_size=one_of("1280x720", "720x1280", default="1280x720")),
            sized(900, 900),
            {},
            ("clip_size offers nothing of that shape",),
        ),
        "the default of a required one": Case(
            model("shape", shape=one_of("3:2", "2:3", default="3:2")),
            sized(900, 900),
            {"shape": "3:2"},
            ("shape offers nothing of that shape",),
        ),
        "asked by its shape": Case(
            model(shape=one_of("16:9", "9:16", default="16:9")),
            {"aspect_ratio": "1:1"},
            {},
            ("--aspect-ratio 1:1: shape offers nothing of that shape",),
        ),
        "a square that is offered": Case(
            model(shape=one_of("16:9", "1:1", "auto")),
            sized(700, 700),
            {"shape": "1:1"},
            became(700, 700, "shape 1:1"),
        ),
    }
)
def test_a_square_where_none_is_offered(case: Case) -> None:
    case.check()


# A size that costs more


@cases(
    {
        "a square between two": Case(
            model(quality=one_of("720p", "1080p")),
            sized(1024, 1024),
            {"quality": "720p"},
            became(1024, 1024, "quality 720p"),
        ),
        "a square between two, the larger first": Case(
            model(video_quality=one_of("1080p", "720p")),
            sized(1024, 1024),
            {"video_quality": "720p"},
            became(1024, 1024, "video_quality 720p"),
        ),
        "a film between two": Case(
            model(shape=one_of("16:9", "1:1"), output_resolution=one_of("1K", "2K", "4K")),
            sized(1920, 1080),
            {"shape": "16:9", "output_resolution": "1K"},
            became(1920, 1080, "shape 16:9 and output_resolution 1K"),
        ),
        "what fits is noted too": Case(
            model(tier=one_of("480p", "720p")), sized(1280, 720), {"tier": "720p"}, ("tier 720p",)
        ),
        "a portrait of a film": Case(
            model(tier=one_of("480p", "720p", "1080p")),
            sized(1080, 1920),
            {"tier": "1080p"},
            ("tier 1080p",),
        ),
        "megapixels": Case(
            model(quality=one_of("0.5 MP", "1 MP", "4 MP")),
            sized(1100, 1100),
            {"quality": "1 MP"},
            ("quality 1 MP",),
        ),
        "pixels of one shape": Case(
            model(picture_size=one_of("512x512", "1024x1024", "2048x2048")),
            sized(1200, 1200),
            {"picture_size": "1024x1024"},
            ("picture_size 1024x1024",),
        ),
        "shape before area": Case(
            model(picture_size=one_of("1024x1024", "1536x864")),
            sized(640, 360),
            {"picture_size": "1536x864"},
            ("picture_size 1536x864",),
        ),
        "what is 4K in film": Case(
            model(tier=one_of("1K", "2K", "4K")), sized(3840, 2160), {"tier": "4K"}, ("tier 4K",)
        ),
        "bare numbers": Case(
            model(base_resolution=one_of("256", "512", "1024")),
            sized(500, 500),
            {"base_resolution": "512"},
            ("base_resolution 512",),
        ),
        "a name in words": Case(
            model(format=one_of("square", "square_hd", "landscape_4_3")),
            sized(1000, 1000),
            {"format": "square_hd"},
            ("format square_hd",),
        ),
    }
)
def test_the_nearest_by_area_is_sent_and_always_noted(case: Case) -> None:
    case.check()


# Sizes said otherwise


@cases(
    {
        "an object": Case(model(canvas=BOX), sized(640, 480), {"canvas": sized(640, 480)}),
        "an object or a name": Case(
            model(picture_format={"anyOf": [one_of("square_hd"), BOX]}),
            sized(640, 480),
            {"picture_format": sized(640, 480)},
        ),
        "an object or nothing": Case(
            model(target=maybe(BOX)), sized(640, 480), {"target": sized(640, 480)}
        ),
        "names alone": Case(
            model(preset=one_of("square_hd", "landscape_16_9", "portrait_16_9")),
            sized(1600, 900),
            {"preset": "landscape_16_9"},
            ("preset landscape_16_9",),
        ),
        "a ratio in an object": Case(
            model(shape=thing(ratio=one_of("16:9", "4:3", "1:1"))),
            sized(800, 600),
            {"shape": {"ratio": "4:3"}},
            ("shape 4:3",),
        ),
        "a ratio in an object of another name": Case(
            model(framing=thing(proportion=one_of("3:2", "2:3"))),
            sized(600, 900),
            {"framing": {"proportion": "2:3"}},
            ("framing 2:3",),
        ),
        "a ratio in an object or nothing": Case(
            model(framing=maybe(thing(value=one_of("3:2", "2:3")))),
            {"aspect_ratio": "3:2"},
            {"framing": {"value": "3:2"}},
        ),
        "free text in an object": Case(
            model(shape=thing(ratio={**TEXT, "default": "16:9"})),
            sized(800, 600),
            {"shape": {"ratio": "4:3"}},
            ("4:3",),
        ),
        "labels under a name that says nothing": Case(
            model(variant=one_of("1280x720", "720x1280")),
            sized(1920, 1080),
            {"variant": "1280x720"},
            ("variant 1280x720",),
        ),
        "labels with a star": Case(
            model(clip_format=one_of("1280*720", "720*1280")),
            sized(720, 1280),
            {"clip_format": "720*1280"},
            ("clip_format 720*1280",),
        ),
        "labels with a sign and words": Case(
            model(picture=one_of("1024\u00d71024 (square)", "832\u00d71216 (portrait)")),
            sized(832, 1216),
            {"picture": "832\u00d71216 (portrait)"},
            ("picture 832\u00d71216",),
        ),
        "free text as a ratio, by default": Case(
            model(screen_shape={**TEXT, "default": "16:9"}),
            sized(900, 600),
            {"screen_shape": "3:2"},
            ("screen_shape 3:2",),
        ),
        "free text as a ratio, by pattern": Case(
            model(output_aspect={**TEXT, "pattern": r"^\d+:\d+$"}),
            sized(1920, 1080),
            {"output_aspect": "16:9"},
            ("output_aspect 16:9",),
        ),
        "free text as a ratio, by example": Case(
            model(canvas={**TEXT, "examples": ["21:9"]}),
            {"aspect_ratio": "4:3"},
            {"canvas": "4:3"},
        ),
        "free text as pixels, by default": Case(
            model(canvas_size={**TEXT, "default": "1024x1024"}),
            sized(800, 600),
            {"canvas_size": "800x600"},
            ("canvas_size 800x600",),
        ),
        "free text as pixels, by example": Case(
            model(out_size={**TEXT, "examples": ["640x640"]}),
            sized(320, 200),
            {"out_size": "320x200"},
            ("out_size 320x200",),
        ),
        "free text as pixels, by pattern": Case(
            model(out_size={**TEXT, "pattern": r"^\d+x\d+$"}),
            sized(320, 200),
            {"out_size": "320x200"},
            ("out_size 320x200",),
        ),
        "free text as pixels with a star": Case(
            model(out_size={**TEXT, "default": "1024*1024", "pattern": r"^\d+\*\d+$"}),
            sized(320, 200),
            {"out_size": "320*200"},
            ("out_size 320*200",),
        ),
        "numbers by other names": Case(
            model(output_width=WHOLE, output_height=WHOLE),
            sized(640, 480),
            {"output_width": 640, "output_height": 480},
        ),
        "numbers that are texts": Case(
            model(target_width=TEXT, target_height=TEXT),
            sized(640, 480),
            {"target_width": "640", "target_height": "480"},
        ),
        "free text as a ratio, or nothing": Case(
            model(screen_shape=maybe(TEXT, default="16:9")),
            {"aspect_ratio": "4:3"},
            {"screen_shape": "4:3"},
        ),
        "free text by a pattern, or nothing": Case(
            model(screen_shape=maybe({**TEXT, "pattern": r"^\d+:\d+$"})),
            {"aspect_ratio": "4:3"},
            {"screen_shape": "4:3"},
        ),
    }
)
def test_sizes_are_found_by_what_the_schema_takes(case: Case) -> None:
    case.check()


@cases(
    {
        "words that are no shapes": Case(
            model(mood=one_of("calm", "wild")), sized(640, 480), {}, ("takes no --width",)
        ),
        "one shape among other words": Case(
            model(picture_style=one_of("photo", "drawing", "portrait")),
            sized(480, 640),
            {},
            ("takes no --width",),
        ),
        "free text about anything": Case(
            model(topic=TEXT), {"aspect_ratio": "1:1"}, {}, ("takes no --aspect-ratio",)
        ),
        "the size of what is put in": Case(
            model(mask_size=BOX), sized(640, 480), {}, ("takes no --width",)
        ),
        "a switch": Case(
            model(keep_ratio=YES_OR_NO), {"aspect_ratio": "4:3"}, {}, ("takes no --aspect-ratio",)
        ),
        "a switch or nothing": Case(
            model(keep_ratio=maybe(YES_OR_NO)),
            {"aspect_ratio": "4:3"},
            {},
            ("takes no --aspect-ratio",),
        ),
        "a number or nothing": Case(
            model(canvas_scale=maybe(NUMBER)),
            {"aspect_ratio": "4:3"},
            {},
            ("takes no --aspect-ratio",),
        ),
    }
)
def test_what_is_no_size_is_not_taken_for_one(case: Case) -> None:
    case.check()


# Limits in prose


@cases(
    {
        "steps of an object": Case(
            model(canvas={**BOX, "description": "Both sides must be multiples of 32."}),
            sized(640, 480),
            {"canvas": sized(640, 480)},
            ("Both sides must be multiples of 32.",),
        ),
        "a range of an object": Case(
            model(target={**BOX, "description": "Between 1024 and 4096 pixels a side."}),
            sized(640, 480),
            {"target": sized(640, 480)},
            ("Between 1024 and 4096 pixels a side.",),
        ),
        "limits beside the sides": Case(
            model(
                canvas=thing(
                    width={**WHOLE, "description": "Divisible by 16."},
                    height={**WHOLE, "description": "At most 1440."},
                )
            ),
            sized(640, 480),
            {"canvas": sized(640, 480)},
            ("Divisible by 16. At most 1440.",),
        ),
        "limits of a number": Case(
            model(
                output_width={**WHOLE, "description": "Pixels, at least 256."}, output_height=WHOLE
            ),
            sized(640, 480),
            {"output_width": 640, "output_height": 480},
            ("output_width has limits: Pixels, at least 256.",),
        ),
        "limits of free text": Case(
            model(out_size={**TEXT, "default": "64x64", "description": "Up to 512 a side."}),
            sized(640, 480),
            {"out_size": "640x480"},
            ("Up to 512 a side.", "becomes out_size 640x480"),
        ),
        "none": Case(
            model(canvas={**BOX, "description": "How large the picture is."}),
            sized(640, 480),
            {"canvas": sized(640, 480)},
        ),
        "of a label, which is within them": Case(
            model(picture_size=one_of("640x480", "480x640", description="Up to 2 of 640 pixels.")),
            sized(640, 480),
            {"picture_size": "640x480"},
            ("becomes picture_size 640x480",),
        ),
        "what is too much": Case(
            model(canvas={**BOX, "description": "No side must exceed 2048 pixels."}),
            sized(640, 480),
            {"canvas": sized(640, 480)},
            ("No side must exceed 2048 pixels.",),
        ),
        "what is refused": Case(
            model(canvas={**BOX, "description": "Sides larger than 2048 are refused."}),
            sized(640, 480),
            {"canvas": sized(640, 480)},
            ("Sides larger than 2048 are refused.",),
        ),
        "of what a shape comes to": Case(
            model(canvas={**BOX, "description": "Minimum side: 512 pixels."}),
            {"aspect_ratio": "1:1"},
            {"canvas": sized(1024, 1024)},
            ("Minimum side: 512 pixels.", "becomes 1024x1024"),
        ),
    }
)
def test_limits_that_stand_in_words_are_shown(case: Case) -> None:
    case.check()


# Pictures by other names


@cases(
    {
        "a word before": Case(
            model("pet_photo_url", pet_photo_url=TEXT),
            {"image_url": [A]},
            {"pet_photo_url": A},
        ),
        "another word for a picture": Case(
            model("selfie", selfie=LINK, prompt=TEXT), {"image_url": [A]}, {"selfie": A}
        ),
        "a garment": Case(
            model("garment_image", garment_image=TEXT, fit=one_of("slim", "wide")),
            {"image_url": [A]},
            {"garment_image": A},
        ),
        "in capitals": Case(
            model("roomPhotoUrl", roomPhotoUrl=TEXT), {"image_url": [A]}, {"roomPhotoUrl": A}
        ),
        "told by the description": Case(
            model("input_url", input_url={**TEXT, "description": "URL of the photo to restore."}),
            {"image_url": [A]},
            {"input_url": A},
        ),
        "told by an example": Case(
            model("source_link", source_link={**TEXT, "examples": ["https://example.com/x.webp"]}),
            {"image_url": [A]},
            {"source_link": A},
        ),
        "told by its format and description": Case(
            model("subject", subject={**LINK, "description": "The picture of whom to paint."}),
            {"image_url": [A]},
            {"subject": A},
        ),
        "told by its format and an example": Case(
            model("original", original={**LINK, "examples": ["https://example.com/x.jpg"]}),
            {"image_url": [A]},
            {"original": A},
        ),
        "a lone required one beside optional ones": Case(
            model("portrait_url", portrait_url=TEXT, backdrop_photo=TEXT, mask_picture=TEXT),
            {"image_url": [A]},
            {"portrait_url": A},
        ),
        "a lone optional one": Case(
            model("caption", caption=TEXT, style_photo_url=TEXT),
            {"image_url": [A], "arg": {"caption": "Rain"}},
            {"caption": "Rain", "style_photo_url": A},
        ),
        "an object": Case(
            model("hero", hero=thing(picture_url=LINK, zoom=NUMBER)),
            {"image_url": [A]},
            {"hero": {"picture_url": A}},
        ),
        "objects in a list": Case(
            model("shots", shots=list_of(thing(photo_url=LINK, weight=NUMBER))),
            {"image_url": [A, B]},
            {"shots": [{"photo_url": A}, {"photo_url": B}]},
        ),
        "frames as objects in a list": Case(
            model("story_frames", story_frames=list_of(thing(url=TEXT, second=NUMBER))),
            {"image_url": [A]},
            {"story_frames": [{"url": A}]},
        ),
        "objects in a list that may be null": Case(
            model(input_pictures=maybe(list_of(thing(url=TEXT)))),
            {"image_url": [A, B]},
            {"input_pictures": [{"url": A}, {"url": B}]},
        ),
        "the first of two frames": Case(
            model("opening_frame", opening_frame=TEXT, closing_frame=TEXT),
            {"image_url": [A]},
            {"opening_frame": A},
        ),
        "both of two frames": Case(
            model("opening_frame", opening_frame=TEXT, closing_frame=TEXT),
            {"image_url": [A, B]},
            {"opening_frame": A, "closing_frame": B},
        ),
        "both of two frames, the last first": Case(
            model(tail_picture_url=TEXT, head_picture_url=TEXT),
            {"image_url": [A, B]},
            {"head_picture_url": A, "tail_picture_url": B},
        ),
        "a picture or nothing": Case(
            model(pet_photo=maybe(LINK)), {"image_url": [A]}, {"pet_photo": A}
        ),
        "an object or nothing": Case(
            model(hero_photo=maybe(thing(url=LINK))),
            {"image_url": [A]},
            {"hero_photo": {"url": A}},
        ),
        "the last frame, where there is no other": Case(
            model(last_frame=TEXT), {"image_url": [A]}, {"last_frame": A}
        ),
    }
)
def test_a_lone_picture_takes_it_whatever_its_name(case: Case) -> None:
    case.check()


@cases(
    {
        "two that are required": Case(
            model("room_photo", "chair_photo", room_photo=TEXT, chair_photo=TEXT),
            {"image_url": [A]},
            refused={"image_url": "--arg room_photo=FILE or --arg chair_photo=FILE"},
        ),
        "two that are optional": Case(
            model(face_picture=TEXT, pose_picture=TEXT),
            {"image_url": [A]},
            refused={"image_url": "--arg face_picture=FILE or --arg pose_picture=FILE"},
        ),
        "two lists": Case(
            model("cat_photos", "dog_photos", cat_photos=TEXTS, dog_photos=list_of(LINK)),
            {"image_url": [A, B]},
            refused={"image_url": "--arg cat_photos=FILE or --arg dog_photos=FILE"},
        ),
        "three objects": Case(
            model("hat", "coat", hat=thing(photo_url=LINK), coat=thing(photo_url=LINK)),
            {"image_url": [A]},
            refused={"image_url": "--arg hat="},
        ),
        "none": Case(
            model("prompt", prompt=TEXT),
            {"image_url": [A], "prompt": "Rain"},
            refused={"image_url": "the model takes no image"},
        ),
        "words about pictures": Case(
            model(picture_style=TEXT, photo_count=WHOLE, image_prompt=TEXT),
            {"image_url": [A]},
            refused={"image_url": "the model takes no image"},
        ),
        "a choice of pictures": Case(
            model(sample_picture=one_of("cat", "dog")),
            {"image_url": [A]},
            refused={"image_url": "the model takes no image"},
        ),
        "a choice or nothing": Case(
            model(sample_picture=maybe(one_of("cat", "dog"))),
            {"image_url": [A]},
            refused={"image_url": "the model takes no image"},
        ),
        "a switch or nothing": Case(
            model(keep_photo=maybe(YES_OR_NO)),
            {"image_url": [A]},
            refused={"image_url": "the model takes no image"},
        ),
    }
)
def test_pictures_of_several_names_are_named(case: Case) -> None:
    case.check()


@cases(
    {
        "both by their names": Case(
            model("room_photo", "chair_photo", room_photo=TEXT, chair_photo=TEXT),
            {"arg": {"room_photo": A, "chair_photo": B}},
            {"room_photo": A, "chair_photo": B},
        ),
        "one by its name, the other by the flag": Case(
            model("room_photo", "chair_photo", room_photo=TEXT, chair_photo=TEXT),
            {"image_url": [A], "arg": {"chair_photo": B}},
            {"room_photo": A, "chair_photo": B},
        ),
        "an object by its name": Case(
            model("hat", "coat", hat=thing(photo_url=LINK), coat=thing(photo_url=LINK)),
            {"image_url": [A], "arg": {"hat": json.dumps({"photo_url": B})}},
            {"coat": {"photo_url": A}, "hat": {"photo_url": B}},
        ),
    }
)
def test_what_is_named_is_served_by_arg(case: Case) -> None:
    case.check()


# One or many


@cases(
    {
        "one to a list": Case(model("photos", photos=TEXTS), {"image_url": [A]}, {"photos": [A]}),
        "three to a list": Case(
            model("photos", photos=TEXTS), {"image_url": [A, B, C]}, {"photos": [A, B, C]}
        ),
        "one where both are taken": Case(
            model("pictures", pictures={"anyOf": [TEXT, TEXTS]}),
            {"image_url": [A]},
            {"pictures": A},
        ),
        "a required one before a list": Case(
            model("photo_url", photo_url=TEXT, reference_photos=TEXTS),
            {"image_url": [A]},
            {"photo_url": A},
        ),
        "a required one, and the rest to the list": Case(
            model("photo_url", reference_photos=TEXTS, photo_url=TEXT),
            {"image_url": [A, B, C]},
            {"photo_url": A, "reference_photos": [B, C]},
        ),
        "two, both are required": Case(
            model("photo", "ref_photos", ref_photos=TEXTS, photo=TEXT),
            {"image_url": [A, B]},
            {"photo": A, "ref_photos": [B]},
        ),
        "a required list before an optional one": Case(
            model("subject_photos", photo=TEXT, subject_photos=TEXTS),
            {"image_url": [A, B]},
            {"subject_photos": [A, B]},
        ),
        "a required list after an optional list": Case(
            model("photos", style_photos=TEXTS, photos=TEXTS),
            {"image_url": [A, B]},
            {"photos": [A, B]},
        ),
        "a required list of a special name": Case(
            model("garment_photos", photos=TEXTS, garment_photos=TEXTS),
            {"image_url": [A, B]},
            {"garment_photos": [A, B]},
        ),
        "references are no frames": Case(
            model("references", references=list_of({**LINK, "examples": [A]}), last_frame=TEXT),
            {"image_url": [A, B]},
            {"references": [A, B]},
        ),
        "reference pictures beside frames": Case(
            model("ref_pictures", first_frame=TEXT, last_frame=TEXT, ref_pictures=TEXTS),
            {"image_url": [A, B]},
            {"ref_pictures": [A, B]},
        ),
        "three beside frames": Case(
            model(ref_pictures=TEXTS, head_frame=TEXT, tail_frame=TEXT),
            {"image_url": [A, B, C]},
            {"ref_pictures": [A, B, C]},
        ),
        "more than a list takes": Case(
            model("photos", photos=list_of(TEXT, maxItems=2)),
            {"image_url": [A, B, C]},
            refused={"photos": "more items than 2"},
        ),
        "two where the names say nothing of an end": Case(
            model("photo", photo=TEXT, costume_photo=TEXT),
            {"image_url": [A, B]},
            refused={"photo": "takes 1 image(s), not 2"},
        ),
        "one to a list or nothing": Case(
            model(photos=maybe(TEXTS)), {"image_url": [A]}, {"photos": [A]}
        ),
        "two to a list or nothing": Case(
            model("photos", photos=maybe(TEXTS)), {"image_url": [A, B]}, {"photos": [A, B]}
        ),
        "frames where the names say frames": Case(
            model(start_photo=TEXT, end_photo=TEXT, style_photos=TEXTS),
            {"image_url": [A, B]},
            {"start_photo": A, "end_photo": B},
        ),
    }
)
def test_one_or_many_pictures(case: Case) -> None:
    case.check()


# A video is the input


@cases(
    {
        "a local clip": Case(
            model("clip_url", clip_url=TEXT, prompt=TEXT),
            {"arg": {"clip_url": "film.mp4"}},
            {"clip_url": LocalFile("film.mp4")},
        ),
        "a clip of the web": Case(
            model("footage_url", footage_url=LINK),
            {"arg": {"footage_url": "https://example.com/film.mp4"}},
            {"footage_url": "https://example.com/film.mp4"},
        ),
        "clips": Case(
            model("clips", clips=list_of(LINK)),
            {"arg": {"clips": ["one.mp4", "two.mp4"]}},
            {"clips": [LocalFile("one.mp4"), LocalFile("two.mp4")]},
        ),
        "a clip and a picture": Case(
            model("clip_url", "face_photo", clip_url=TEXT, face_photo=TEXT),
            {"arg": {"clip_url": "film.mp4"}, "image_url": [A]},
            {"clip_url": LocalFile("film.mp4"), "face_photo": A},
        ),
        "nothing is given": Case(
            model("movie_file", movie_file=LINK),
            {},
            refused={"movie_file": "required: --arg movie_file=FILE"},
        ),
        "a picture is given": Case(
            model("clip_url", clip_url=TEXT),
            {"image_url": [A]},
            refused={"image_url": "the model takes no image, but --arg clip_url=FILE"},
        ),
        "a picture is given beside": Case(
            model("clip_url", clip_url=TEXT),
            {"image_url": [A], "arg": {"clip_url": "film.mp4"}},
            refused={"image_url": "the model takes no image"},
        ),
        "a sound": Case(
            model("song_url", "photo", song_url=TEXT, photo=TEXT),
            {"image_url": [A], "arg": {"song_url": "hum.mp3"}},
            {"photo": A, "song_url": LocalFile("hum.mp3")},
        ),
        "a clip that its description tells": Case(
            model("original", original={**LINK, "description": "The video to go on with."}),
            {"arg": {"original": "film.mp4"}},
            {"original": LocalFile("film.mp4")},
        ),
        "a clip and a list": Case(
            model("clip_url", "photos", clip_url=TEXT, photos=TEXTS),
            {"arg": {"clip_url": "film.mp4"}, "image_url": [A, B]},
            {"clip_url": LocalFile("film.mp4"), "photos": [A, B]},
        ),
    }
)
def test_a_model_that_starts_from_a_clip(case: Case) -> None:
    case.check()


# Names of flags

FLAGS_BY_WORDS = {
    "guidance_scale": (
        "7.5",
        NUMBER,
        ["true_cfg_scale", "cfg_value", "prompt_guidance", "cfgScale"],
    ),
    "num_images": (
        "3",
        WHOLE,
        ["num_outputs", "number_of_pictures", "n_images", "image_count", "numVariations"],
    ),
    "num_inference_steps": (
        "12",
        WHOLE,
        ["sampling_steps", "num_denoising_steps", "diffusion_steps_count", "numberOfSteps"],
    ),
    "seed": ("7", WHOLE, ["random_seed", "noise_seed", "rngSeed", "seed_value"]),
    "prompt": (
        "A cat",
        TEXT,
        ["edit_prompt", "caption", "user_prompt", "image_description", "editing_instructions"],
    ),
    "negative_prompt": ("dogs", TEXT, ["neg_prompt", "negative_text", "negativePrompts"]),
    "duration": (
        "6",
        WHOLE,
        ["clip_length", "video_duration", "length_in_seconds", "durationSeconds"],
    ),
}


def by_words() -> dict[str, tuple[str, Any, Any, str]]:
    found = {}
    for flag, (text, kind, names) in FLAGS_BY_WORDS.items():
        for name in names:
            found[f"{flag}: {name}"] = (flag, skill_fal.FLAGS_BY_DEST[flag].read(text), kind, name)
    return found


@pytest.mark.parametrize(
    ("flag", "value", "kind", "name"), by_words().values(), ids=list(by_words())
)
def test_a_flag_is_found_by_words_and_noted(
    flag: str, value: Any, kind: dict[str, Any], name: str
) -> None:
    decoys = {"enable_safety": YES_OR_NO, "mood": TEXT, "strength": NUMBER}
    fitted = fit_arguments({flag: value}, model(**decoys, **{name: maybe(kind)}))
    assert fitted.arguments == {name: value}
    assert fitted.problems == []
    assert fitted.notes == [f"--{flag.replace('_', '-')} becomes {name}"]
    line = skill_fal.schema_text(model(**{name: kind}))
    assert f"--{flag.replace('_', '-')}" in line.split("\t")


@cases(
    {
        "the usual name goes first": Case(
            model(caption=TEXT, prompt=TEXT), {"prompt": "A cat"}, {"prompt": "A cat"}
        ),
        "the required one of two": Case(
            model("user_prompt", caption=TEXT, user_prompt=TEXT),
            {"prompt": "A cat"},
            {"user_prompt": "A cat"},
            ("--prompt becomes user_prompt",),
        ),
        "two that may be meant": Case(
            model(num_outputs=WHOLE, image_count=WHOLE),
            {"num_images": 2},
            {},
            ("the model takes no --num-images: it is not sent",),
        ),
        "a switch is no number": Case(
            model(cfg=YES_OR_NO), {"guidance_scale": 2}, {}, ("takes no --guidance-scale",)
        ),
        "a choice is no prompt": Case(
            model(caption=one_of("on", "off")), {"prompt": "A cat"}, {}, ("takes no --prompt",)
        ),
        "a number is no text": Case(
            model(negative_text=NUMBER),
            {"negative_prompt": "dogs"},
            {},
            ("takes no --negative-prompt",),
        ),
        "a limit is kept": Case(
            model(true_cfg={**NUMBER, "maximum": 5}),
            {"guidance_scale": 9},
            refused={"true_cfg": "9 is above 5"},
        ),
        "an object of steps": Case(
            model(sampling_steps=thing(high=WHOLE, low=WHOLE)),
            {"num_inference_steps": 9},
            {},
            ("takes no --num-inference-steps",),
        ),
        "words are no number": Case(
            model(guidance_strength={**TEXT, "enum": ["low", "high"]}),
            {"guidance_scale": 7.5},
            {},
            ("takes no --guidance-scale",),
        ),
        "words are no count": Case(
            model(num_outputs=one_of("one", "many")),
            {"num_images": 2},
            {},
            ("takes no --num-images",),
        ),
        "a list of objects is no prompt": Case(
            model(captions=list_of(thing(text=TEXT, second=NUMBER))),
            {"prompt": "A cat"},
            {},
            ("takes no --prompt",),
        ),
        "a list of texts is one": Case(
            model(captions=TEXTS),
            {"prompt": "A cat"},
            {"captions": ["A cat"]},
            ("--prompt becomes captions",),
        ),
        "thousandths of a second": Case(
            model(duration_ms=WHOLE),
            {"duration": 2.5},
            {"duration_ms": 2500},
            ("--duration becomes duration_ms",),
        ),
    }
)
def test_a_flag_is_found_only_where_type_and_limits_agree(case: Case) -> None:
    case.check()


# Numbers that are texts, texts that are numbers


@cases(
    {
        "steps": Case(
            model(steps=one_of("1", "2", "4")), {"num_inference_steps": 4}, {"steps": "4"}
        ),
        "how many, by words": Case(
            model(num_outputs={**TEXT, "enum": ["1", "2"]}),
            {"num_images": 2},
            {"num_outputs": "2"},
            ("--num-images becomes num_outputs",),
        ),
        "a seed": Case(model(seed=TEXT), {"seed": 7}, {"seed": "7"}),
        "guidance with a point": Case(
            model(cfg_scale=one_of("1.5", "3.5")), {"guidance_scale": 3.5}, {"cfg_scale": "3.5"}
        ),
        "a length": Case(model(seconds=one_of("4", "8")), {"duration": 8.0}, {"seconds": "8"}),
        "a length with its unit": Case(
            model(clip_length=one_of("4s", "8s")),
            {"duration": 8},
            {"clip_length": "8s"},
            ("--duration becomes clip_length",),
        ),
        "a length in free text": Case(model(seconds=TEXT), {"duration": 5}, {"seconds": "5"}),
        "a length in text with a unit": Case(
            model(seconds={**TEXT, "default": "5s", "pattern": r"^\d+s$"}),
            {"duration": 8},
            {"seconds": "8s"},
        ),
        "a width": Case(
            model(width=one_of("512", "768"), height=one_of("512", "768")),
            sized(512, 768),
            {"width": "512", "height": "768"},
        ),
        "a number by its own name": Case(
            model(tempo=WHOLE), {"arg": {"tempo": "90"}}, {"tempo": 90}
        ),
        "a number that is offered": Case(
            model(tempo=one_of(60, 90)), {"arg": {"tempo": "90"}}, {"tempo": 90}
        ),
        "a text that is offered": Case(
            model(tempo=one_of("60", "90")), {"arg": {"tempo": "90"}}, {"tempo": "90"}
        ),
        "a number in a batch's file": Case(
            model(label=TEXT, tempo=one_of("60", "90")),
            {"arg": {"label": 12, "tempo": 60}},
            {"label": "12", "tempo": "60"},
        ),
        "a number that is not offered": Case(
            model(steps=one_of("1", "2", "4")),
            {"num_inference_steps": 3},
            refused={"steps": "3 is not one of"},
        ),
        "a seed or nothing": Case(model(seed=maybe(TEXT)), {"seed": 7}, {"seed": "7"}),
        "steps or nothing": Case(
            model(steps=maybe({**TEXT, "enum": ["4", "8"]})),
            {"num_inference_steps": 8},
            {"steps": "8"},
        ),
        "a number that is written otherwise": Case(
            model(cfg_scale=one_of("1.0", "2.0")), {"guidance_scale": 2}, {"cfg_scale": "2.0"}
        ),
        "numbers and words": Case(
            model(level=one_of(1, "auto"), other=one_of(1, "auto"), version={"const": 2}),
            {"arg": {"level": "1", "other": "auto", "version": "2"}},
            {"level": 1, "other": "auto", "version": 2},
        ),
    }
)
def test_numbers_and_texts_become_what_is_taken(case: Case) -> None:
    case.check()


# Required with a default


@cases(
    {
        "a word": Case(
            model("mode", mode=one_of("fast", "fine", default="fast")), {}, {"mode": "fast"}
        ),
        "a number": Case(model("weight", weight={**NUMBER, "default": 0.5}), {}, {"weight": 0.5}),
        "zero and no": Case(
            model(
                "zoom", "loop", zoom={**WHOLE, "default": 0}, loop={**YES_OR_NO, "default": False}
            ),
            {},
            {"zoom": 0, "loop": False},
        ),
        "an object": Case(
            model("canvas", canvas={**BOX, "default": sized(512, 512)}),
            {},
            {"canvas": sized(512, 512)},
        ),
        "a list": Case(model("tags", tags={**TEXTS, "default": []}), {}, {"tags": []}),
        "beside one that has none": Case(
            model("mode", "mood", mode={**TEXT, "default": "fast"}, mood=TEXT),
            {},
            refused={"mood": "required: --arg mood=VALUE"},
        ),
        "what is asked goes before": Case(
            model("mode", mode={**TEXT, "default": "fast"}),
            {"arg": {"mode": "fine"}},
            {"mode": "fine"},
        ),
        "a flag goes before": Case(
            model("steps", steps={**WHOLE, "default": 4}),
            {"num_inference_steps": 8},
            {"steps": 8},
        ),
        "extra goes before": Case(
            model("mode", mode={**TEXT, "default": "fast"}),
            {"extra_json": {"mode": "odd"}},
            {"mode": "odd"},
        ),
        "nothing": Case(model("mood", mood=maybe(TEXT, default=None)), {}, {"mood": None}),
    }
)
def test_a_required_default_is_sent(case: Case) -> None:
    case.check()


# One mistake, one problem


@cases(
    {
        "one picture too many": Case(
            model("photo_url", photo_url=TEXT),
            {"image_url": [A, B]},
            refused={"photo_url": "takes 1 image(s), not 2"},
        ),
        "two pictures too many": Case(
            model("opening_frame", "closing_frame", opening_frame=TEXT, closing_frame=TEXT),
            {"image_url": [A, B, C]},
            refused={"opening_frame": "not 3"},
        ),
        "pictures that could go to several": Case(
            model("room_photo", "chair_photo", room_photo=TEXT, chair_photo=TEXT),
            {"image_url": [A]},
            refused={"image_url": "have other names"},
        ),
        "a length that is not offered": Case(
            model("seconds", seconds=one_of("4", "8")),
            {"duration": 5},
            refused={"seconds": "5 is not one of"},
        ),
        "a value of the wrong type": Case(
            model("tempo", tempo={**WHOLE, "minimum": 1}),
            {"arg": {"tempo": "brisk"}},
            refused={"tempo": "not integer"},
        ),
        "a name that is unknown": Case(
            model(tempo=WHOLE),
            {"arg": {"tempi": "90"}},
            refused={"tempi": "Did you mean tempo?"},
        ),
        "a name that is unknown to a closed model": Case(
            {**model(tempo=WHOLE), "additionalProperties": False},
            {"arg": {"tempi": "90"}},
            refused={"tempi": "Did you mean tempo?"},
        ),
        "a size that is none": Case(
            model("shape", shape=one_of("16:9", "1:1")),
            {"aspect_ratio": "round"},
            refused={"aspect_ratio": "round is none of 16:9, 1:1"},
        ),
        "one side": Case(
            model("shape", shape=one_of("16:9", "1:1")),
            {"width": 512},
            refused={"size": "give both --width and --height"},
        ),
        "a choice between types": Case(
            model(level={"anyOf": [{**WHOLE, "maximum": 9}, one_of("low", "high")]}),
            {"arg": {"level": "12"}},
            refused={"level": "12 is above 9"},
        ),
        "two mistakes are two": Case(
            model("photo_url", photo_url=TEXT, steps={**WHOLE, "maximum": 9}),
            {"num_inference_steps": 10},
            refused={"photo_url": "required: --image-url", "steps": "above 9"},
        ),
    }
)
def test_one_mistake_is_one_problem(case: Case) -> None:
    case.check()


# Closed models


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "additionalProperties": False}


@cases(
    {
        "an unknown name": Case(
            closed(model(tempo=WHOLE)),
            {"extra_json": {"volume": 3}},
            refused={"volume": "the model has no such argument, and refuses others"},
        ),
        "a name that is nearly known": Case(
            closed(model(tempo=WHOLE)),
            {"extra_json": {"temp": 3}},
            refused={"temp": "Did you mean tempo?"},
        ),
        "two unknown names": Case(
            closed(model(tempo=WHOLE)),
            {"extra_json": {"volume": 3, "pitch": 4}},
            refused={"volume": "refuses others", "pitch": "refuses others"},
        ),
        "a known name": Case(
            closed(model(tempo=WHOLE)), {"extra_json": {"tempo": 3}}, {"tempo": 3}
        ),
        "a flag is left out": Case(
            closed(model(tempo=WHOLE)), {"seed": 3}, {}, ("takes no --seed: it is not sent",)
        ),
        "a closed object": Case(
            model(voice=closed(thing(name=TEXT))),
            {"arg": {"voice": '{"name": "Ann", "age": 4}'}},
            refused={"voice.age": "not allowed"},
        ),
        "an open model": Case(
            model(tempo=WHOLE),
            {"extra_json": {"volume": 3}},
            {"volume": 3},
            ("the model has no volume: it is sent all the same. fal ignores",),
        ),
        "a model that says it is open": Case(
            {**model(tempo=WHOLE), "additionalProperties": True},
            {"extra_json": {"volume": 3}},
            {"volume": 3},
            ("sent all the same",),
        ),
    }
)
def test_a_closed_model_refuses_what_it_does_not_know(case: Case) -> None:
    case.check()


UNKNOWN = {
    "nothing like it": (closed(model(tempo=WHOLE)), {"volume": 3}),
    "nearly known": (closed(model(sharpness=NUMBER, mood=TEXT)), {"sharpnes": 3, "mood": "calm"}),
    "a model without fields": (closed(model()), {"tone": None}),
    "two": (closed(model(tempo=maybe(WHOLE))), {"volume": 3, "pitch": "high"}),
}


@pytest.mark.parametrize(("schema", "extra"), UNKNOWN.values(), ids=list(UNKNOWN))
def test_an_unknown_name_is_not_sent_to_a_closed_model(
    schema: dict[str, Any], extra: dict[str, Any]
) -> None:
    """fal would answer 422; to an open model it is sent."""
    unknown = extra.keys() - schema["properties"].keys()
    fitted = fit_arguments({"extra_json": extra}, schema)
    assert {one["field"] for one in fitted.problems} == unknown
    assert "sent all the same" not in "".join(fitted.notes)
    open_model = {**schema, "additionalProperties": True}
    fitted = fit_arguments({"extra_json": extra}, open_model)
    assert (fitted.problems, len(fitted.notes)) == ([], len(unknown))


# --arg


@cases(
    {
        "text stays text": Case(
            model(subtitle=TEXT), {"arg": {"subtitle": "123"}}, {"subtitle": "123"}
        ),
        "text stays text, whatever it says": Case(
            model(a_text=TEXT, b_text=TEXT, c_text=maybe(TEXT)),
            {"arg": {"a_text": "true", "b_text": '{"a": 1}', "c_text": "null"}},
            {"a_text": "true", "b_text": '{"a": 1}', "c_text": "null"},
        ),
        "an empty text": Case(model(subtitle=TEXT), {"arg": {"subtitle": ""}}, {"subtitle": ""}),
        "text with an equals sign and line breaks": Case(
            model(subtitle=TEXT), {"arg": {"subtitle": "a=b\nc"}}, {"subtitle": "a=b\nc"}
        ),
        "a number": Case(
            model(blur=NUMBER, tempo=WHOLE),
            {"arg": {"blur": "0.8", "tempo": "-3"}},
            {"blur": 0.8, "tempo": -3},
        ),
        "a number or null": Case(
            model(blur=maybe(NUMBER)), {"arg": {"blur": "1e-3"}}, {"blur": 0.001}
        ),
        "booleans": Case(
            model(loop=YES_OR_NO, sharp=YES_OR_NO, wide=maybe(YES_OR_NO)),
            {"arg": {"loop": "false", "sharp": "True", "wide": "FALSE"}},
            {"loop": False, "sharp": True, "wide": False},
        ),
        "null": Case(model(blur=maybe(NUMBER)), {"arg": {"blur": "null"}}, {"blur": None}),
        "null as OpenAPI 3.0 has it": Case(
            model(blur={**NUMBER, "nullable": True}), {"arg": {"blur": "null"}}, {"blur": None}
        ),
        "null where a list of types has it": Case(
            model(blur={"type": ["number", "null"]}), {"arg": {"blur": "null"}}, {"blur": None}
        ),
        "an object": Case(
            model(voice=thing(name=TEXT, speed=NUMBER)),
            {"arg": {"voice": '{"name": "Ann", "speed": 2}'}},
            {"voice": {"name": "Ann", "speed": 2}},
        ),
        "a list as JSON": Case(
            model(tags=TEXTS), {"arg": {"tags": '["red", "7"]'}}, {"tags": ["red", "7"]}
        ),
        "a list of one": Case(model(tags=TEXTS), {"arg": {"tags": "red"}}, {"tags": ["red"]}),
        "a list by repetition": Case(
            model(tags=TEXTS), {"arg": {"tags": ["red", "7"]}}, {"tags": ["red", "7"]}
        ),
        "a list of numbers by repetition": Case(
            model(levels=maybe(list_of(WHOLE))),
            {"arg": {"levels": ["1", "20"]}},
            {"levels": [1, 20]},
        ),
        "a list of objects by repetition": Case(
            model(styles=list_of(thing(name=TEXT, weight=NUMBER))),
            {"arg": {"styles": ['{"name": "a"}', '{"weight": 1}']}},
            {"styles": [{"name": "a"}, {"weight": 1}]},
        ),
        "a list of objects as JSON": Case(
            model(styles=list_of(thing(name=TEXT))),
            {"arg": {"styles": '[{"name": "a"}]'}},
            {"styles": [{"name": "a"}]},
        ),
        "one object where a list of them goes": Case(
            model(styles=list_of(thing(name=TEXT))),
            {"arg": {"styles": '{"name": "a"}'}},
            {"styles": [{"name": "a"}]},
        ),
        "a field of any type is read as JSON": Case(
            model(data={}, more={}),
            {"arg": {"data": '{"a": 1}', "more": "plain words"}},
            {"data": {"a": 1}, "more": "plain words"},
        ),
        "values that are typed already": Case(
            model(loop=YES_OR_NO, tags=list_of(WHOLE), voice=thing(name=TEXT), blur=maybe(NUMBER)),
            {"arg": {"loop": True, "tags": [1, 2], "voice": {"name": "Ann"}, "blur": None}},
            {"loop": True, "tags": [1, 2], "voice": {"name": "Ann"}, "blur": None},
        ),
        "one of two types": Case(
            model(level={"anyOf": [WHOLE, one_of("low", "high")]}, other={"anyOf": [TEXT, WHOLE]}),
            {"arg": {"level": "3", "other": "3"}},
            {"level": 3, "other": "3"},
        ),
        "what no flag may say again": Case(
            model(seed=WHOLE),
            {"arg": {"seed": "3"}, "seed": 4},
            {"seed": 3},
            ("--seed is not sent: --arg has seed",),
        ),
        "a list of booleans by repetition": Case(
            model(steps_on=list_of(YES_OR_NO)),
            {"arg": {"steps_on": ["true", "false"]}},
            {"steps_on": [True, False]},
        ),
        "a list of lists": Case(
            model(points=list_of(list_of(NUMBER)), more=list_of(list_of(NUMBER))),
            {"arg": {"points": "[[1, 2]]", "more": ["[1, 2]", "[3, 4]"]}},
            {"points": [[1, 2]], "more": [[1, 2], [3, 4]]},
        ),
    }
)
def test_arg_gives_the_type_that_the_model_takes(case: Case) -> None:
    case.check()


@cases(
    {
        "a name that is nearly known": Case(
            model(sharpness=NUMBER),
            {"arg": {"sharpnes": "1"}},
            refused={"sharpnes": "the model has no such argument. Did you mean sharpness?"},
        ),
        "a name like no other": Case(
            model(sharpness=NUMBER, mood=TEXT),
            {"arg": {"zq": "1"}},
            refused={"zq": "It has sharpness, mood."},
        ),
        "two names": Case(
            model(mood=TEXT),
            {"arg": {"moods": "a", "zq": "b"}},
            refused={"moods": "mood?", "zq": "mood"},
        ),
        "a word for a number": Case(
            model(blur=NUMBER), {"arg": {"blur": "much"}}, refused={"blur": '"much" is not number'}
        ),
        "a number for a switch": Case(
            model(loop=YES_OR_NO), {"arg": {"loop": "2"}}, refused={"loop": "not boolean"}
        ),
        "twice where one goes": Case(
            model(mood=TEXT), {"arg": {"mood": ["a", "b"]}}, refused={"mood": "not string"}
        ),
        "a part of an object": Case(
            model(voice=thing(speed={**NUMBER, "maximum": 2})),
            {"arg": {"voice": '{"speed": 3}'}},
            refused={"voice.speed": "3 is above 2"},
        ),
        "an item of a list": Case(
            model(levels=list_of({**WHOLE, "maximum": 9})),
            {"arg": {"levels": ["1", "12"]}},
            refused={"levels.1": "12 is above 9"},
        ),
        "broken JSON": Case(
            model(voice=thing(name=TEXT)),
            {"arg": {"voice": "{name"}},
            refused={"voice": "not object"},
        ),
    }
)
def test_arg_refuses_what_the_model_does_not_take(case: Case) -> None:
    case.check()


@cases(
    {
        "a sound": Case(
            model(voice_file=TEXT),
            {"arg": {"voice_file": "ann.mp3"}},
            {"voice_file": LocalFile("ann.mp3")},
        ),
        "a file URL": Case(
            model(song_url=LINK),
            {"arg": {"song_url": "file:///music/a%20b.mp3"}},
            {"song_url": LocalFile("/music/a b.mp3")},
        ),
        "a picture in a list": Case(
            model(moodPictures=TEXTS),
            {"arg": {"moodPictures": ["a.png", A]}},
            {"moodPictures": [LocalFile("a.png"), A]},
        ),
        "one picture where a list goes": Case(
            model(style_photos=maybe(TEXTS)),
            {"arg": {"style_photos": "a.png"}},
            {"style_photos": [LocalFile("a.png")]},
        ),
        "a data URI": Case(
            model(mask_picture=TEXT),
            {"arg": {"mask_picture": "data:image/png;base64,AA=="}},
            {"mask_picture": "data:image/png;base64,AA=="},
        ),
        "a web address": Case(
            model(mask_picture=TEXT), {"arg": {"mask_picture": A}}, {"mask_picture": A}
        ),
        "words that look like a file": Case(
            model(subtitle=TEXT), {"arg": {"subtitle": "a.png"}}, {"subtitle": "a.png"}
        ),
        "a choice that looks like a file": Case(
            model(sample_picture=one_of("a.png", "b.png")),
            {"arg": {"sample_picture": "a.png"}},
            {"sample_picture": "a.png"},
        ),
    }
)
def test_a_local_file_is_marked_for_uploading_where_a_file_goes(case: Case) -> None:
    """Only a LocalFile is uploaded whatever its name; `typed_alike` tells it from a text."""
    case.check()


# --aspect-ratio and --resolution


@cases(
    {
        "the very shape": Case(
            model(shape=one_of("16:9", "1:1")), {"aspect_ratio": "16:9"}, {"shape": "16:9"}
        ),
        "the nearest shape": Case(
            model(shape=one_of("16:9", "4:3", "1:1")),
            {"aspect_ratio": "3:2"},
            {"shape": "4:3"},
            ("--aspect-ratio 3:2 becomes shape 4:3",),
        ),
        "a shape in other words": Case(
            model(orientation=one_of("square", "portrait", "landscape")),
            {"aspect_ratio": "9:16"},
            {"orientation": "portrait"},
            ("--aspect-ratio 9:16 becomes orientation portrait",),
        ),
        "a shape of another writing": Case(
            model(frame_shape=one_of("landscape_16_9", "portrait_16_9", "square_hd")),
            {"aspect_ratio": "9:16"},
            {"frame_shape": "portrait_16_9"},
            ("--aspect-ratio 9:16 becomes frame_shape portrait_16_9",),
        ),
        "a shape in pixels": Case(
            model(clip_size=one_of("1280x720", "720x1280")),
            {"aspect_ratio": "9:16"},
            {"clip_size": "720x1280"},
            ("--aspect-ratio 9:16 becomes clip_size 720x1280",),
        ),
        "a shape as an object": Case(
            model(canvas=BOX),
            {"aspect_ratio": "16:9"},
            {"canvas": sized(1360, 768)},
            ("--aspect-ratio 16:9 becomes 1360x768",),
        ),
        "a shape as numbers": Case(
            model(output_width=WHOLE, output_height=WHOLE),
            {"aspect_ratio": "1:1"},
            {"output_width": 1024, "output_height": 1024},
            ("--aspect-ratio 1:1 becomes 1024x1024",),
        ),
        "a shape as numbers of the default's area": Case(
            model(
                output_width={**WHOLE, "default": 512},
                output_height={**WHOLE, "default": 512},
            ),
            {"aspect_ratio": "4:1"},
            {"output_width": 1024, "output_height": 256},
            ("--aspect-ratio 4:1 becomes 1024x256",),
        ),
        "a shape where an object or a name goes": Case(
            model(canvas={"anyOf": [BOX, one_of("square_hd", "landscape_4_3")]}),
            {"aspect_ratio": "4:3"},
            {"canvas": "landscape_4_3"},
            ("--aspect-ratio 4:3 becomes canvas landscape_4_3",),
        ),
        "a shape no name has": Case(
            model(canvas={"anyOf": [BOX, one_of("square_hd", "landscape_4_3")]}),
            {"aspect_ratio": "1:2"},
            {"canvas": sized(720, 1448)},
            ("--aspect-ratio 1:2 becomes 720x1448",),
        ),
        "a word of the model's own": Case(
            model(shape=one_of("auto", "16:9")), {"aspect_ratio": "auto"}, {"shape": "auto"}
        ),
        "a word that nobody has": Case(
            model(shape=one_of("16:9")),
            {"aspect_ratio": "auto"},
            refused={"aspect_ratio": "auto is none of 16:9"},
        ),
        "no shape at all": Case(
            model(mood=TEXT), {"aspect_ratio": "16:9"}, {}, ("takes no --aspect-ratio",)
        ),
    }
)
def test_an_aspect_ratio_in_the_models_own_words(case: Case) -> None:
    case.check()


@cases(
    {
        "the very name": Case(
            model(quality=one_of("720p", "1080p")), {"resolution": "720p"}, {"quality": "720p"}
        ),
        "in other letters": Case(
            model(quality=one_of("1K", "2K")), {"resolution": "2k"}, {"quality": "2K"}
        ),
        "the nearest": Case(
            model(tier=one_of("480p", "720p")),
            {"resolution": "1080p"},
            {"tier": "720p"},
            ("--resolution 1080p becomes tier 720p",),
        ),
        "megapixels": Case(
            model(tier=one_of("0.5 MP", "1 MP", "2 MP")),
            {"resolution": "1MP"},
            {"tier": "1 MP"},
            ("--resolution 1MP becomes tier 1 MP",),
        ),
        "K as megapixels": Case(
            model(tier=one_of("1 MP", "4 MP")),
            {"resolution": "2K"},
            {"tier": "4 MP"},
            ("--resolution 2K becomes tier 4 MP",),
        ),
        "p as K": Case(
            model(tier=one_of("1K", "2K", "4K")),
            {"resolution": "720p"},
            {"tier": "1K"},
            ("--resolution 720p becomes tier 1K",),
        ),
        "4K as pixels of film": Case(
            model(tier=one_of("720p", "2160p")),
            {"resolution": "4K"},
            {"tier": "2160p"},
            ("--resolution 4K becomes tier 2160p",),
        ),
        "bare numbers": Case(
            model(output_resolution=one_of(512, 768)),
            {"resolution": "768p"},
            {"output_resolution": 768},
            ("--resolution 768p becomes output_resolution 768",),
        ),
        "an object": Case(
            model(canvas=BOX),
            {"resolution": "1K"},
            {"canvas": sized(1024, 1024)},
            ("--resolution 1K becomes 1024x1024",),
        ),
        "an object whose shape has a default": Case(
            model(canvas={**BOX, "default": sized(1280, 720)}),
            {"resolution": "1080p"},
            {"canvas": sized(1920, 1080)},
            ("--resolution 1080p becomes 1920x1080",),
        ),
        "labels in pixels": Case(
            model(picture_size=one_of("512x512", "1024x1024", "2048x2048")),
            {"resolution": "2K"},
            {"picture_size": "2048x2048"},
            ("--resolution 2K becomes picture_size 2048x2048",),
        ),
        "free text": Case(
            model(render_resolution={**TEXT, "default": "720p"}),
            {"resolution": "1080p"},
            {"render_resolution": "1080p"},
        ),
        "a word that is no size": Case(
            model(tier=one_of("720p")),
            {"resolution": "huge"},
            refused={"resolution": "huge is none of 720p"},
        ),
        "no resolution at all": Case(
            model(shape=one_of("1:1")), {"resolution": "720p"}, {}, ("takes no --resolution",)
        ),
    }
)
def test_a_resolution_in_the_models_own_words(case: Case) -> None:
    case.check()


@cases(
    {
        "a field for each": Case(
            model(shape=one_of("16:9", "9:16"), tier=one_of("720p", "1080p")),
            {"aspect_ratio": "9:16", "resolution": "1080p"},
            {"shape": "9:16", "tier": "1080p"},
        ),
        "one of them in other words": Case(
            model(shape=one_of("16:9", "9:16"), tier=one_of("720p", "1080p")),
            {"aspect_ratio": "9:16", "resolution": "1K"},
            {"shape": "9:16", "tier": "720p"},
            ("--resolution 1K becomes tier 720p",),
        ),
        "an object": Case(
            model(canvas=BOX),
            {"aspect_ratio": "16:9", "resolution": "720p"},
            {"canvas": sized(1280, 720)},
            ("--aspect-ratio 16:9 --resolution 720p becomes 1280x720",),
        ),
        "numbers": Case(
            model(video_width=WHOLE, video_height=WHOLE),
            {"aspect_ratio": "9:16", "resolution": "1080p"},
            {"video_width": 1080, "video_height": 1920},
            ("becomes 1080x1920",),
        ),
        "labels of both": Case(
            model(clip_size=one_of("1280x720", "720x1280", "1920x1080", "1080x1920")),
            {"aspect_ratio": "9:16", "resolution": "1080p"},
            {"clip_size": "1080x1920"},
            ("becomes clip_size 1080x1920",),
        ),
        "free text of both": Case(
            model(out_size={**TEXT, "default": "1024x1024"}),
            {"aspect_ratio": "16:9", "resolution": "720p"},
            {"out_size": "1280x720"},
            ("becomes out_size 1280x720",),
        ),
        "a shape alone is offered": Case(
            model(shape=one_of("16:9", "9:16")),
            {"aspect_ratio": "16:9", "resolution": "720p"},
            {"shape": "16:9"},
            ("takes no --resolution",),
        ),
    }
)
def test_a_shape_and_a_resolution_together(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("task", [skill_fal.T2I, skill_fal.I2V], ids=["t2i", "i2v"])
@pytest.mark.parametrize(
    "asked",
    [
        {"width": 512, "height": 512, "aspect_ratio": "1:1"},
        {"width": 512, "resolution": "720p"},
        {"height": 512, "aspect_ratio": "1:1", "resolution": "720p"},
    ],
    ids=" and ".join,
)
def test_pixels_and_words_do_not_go_together(task: skill_fal.Task, asked: dict[str, Any]) -> None:
    with pytest.raises(skill_fal.Failure) as caught:
        skill_fal.new_order("submit", task, {"prompt": "Rain", "image_url": A, **asked}, {})
    assert caught.value.type == "usage_error"
    assert all(f"--{name.replace('_', '-')}" in caught.value.message for name in asked)


# One set of flags


def test_both_tasks_take_the_same_flags_and_differ_in_what_they_require() -> None:
    words, pictures = skill_fal.T2I.flags, skill_fal.I2V.flags
    assert [flag.name for flag in words] == [flag.name for flag in pictures]
    assert {flag.dest for flag in words if flag.required} == {"prompt"}
    assert {flag.dest for flag in pictures if flag.required} == {"image_url"}
    wanted = {"image_url", "duration", "num_images", "aspect_ratio", "resolution", "arg"}
    assert wanted <= {flag.dest for flag in words}


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["mood=calm"], {"mood": "calm"}),
        (["mood="], {"mood": ""}),
        (["formula=a=b"], {"formula": "a=b"}),
        (["tag=a", "blur=1", "tag=b"], {"tag": ["a", "b"], "blur": "1"}),
        (["tag=a", "tag=b", "tag=a"], {"tag": ["a", "b", "a"]}),
        (['styles=[{"name": "a"}]'], {"styles": '[{"name": "a"}]'}),
    ],
    ids=["a word", "nothing", "an equals sign", "twice", "three times", "JSON"],
)
def test_arg_is_read_as_names_and_values(argv: list[str], value: dict[str, Any]) -> None:
    given = [part for text in argv for part in ("--arg", text)]
    line = ["submit-t2i", "--model", "a/b", "--prompt", "Rain", *given]
    _, keywords = skill_fal.parse(line)
    assert keywords["arg"] == value


@pytest.mark.parametrize("task", [skill_fal.T2I, skill_fal.I2V], ids=["t2i", "i2v"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.8", 0.8),
        ("true", True),
        ("null", None),
        ('{"a": [1]}', {"a": [1]}),
        ("plain words", "plain words"),
        ("{broken", "{broken"),
        ('"7"', "7"),
    ],
)
def test_without_a_schema_arg_is_json_if_it_is_json(
    task: skill_fal.Task, text: str, value: Any
) -> None:
    built = task.build(arg={"odd_name": text})
    assert built == {"odd_name": value} and typed_alike(built["odd_name"], value)


@pytest.mark.parametrize("task", [skill_fal.T2I, skill_fal.I2V], ids=["t2i", "i2v"])
def test_without_a_schema_extra_is_merged_last(task: skill_fal.Task) -> None:
    asked = {"seed": 1, "arg": {"seed": "2", "blur": "3"}, "extra_json": {"blur": 4}}
    assert task.build(**asked) == {"seed": 2, "blur": 4}


@cases(
    {
        "after a flag": Case(
            model(seed=WHOLE),
            {"seed": 1, "extra_json": {"seed": 2}},
            {"seed": 2},
            ("seed is sent as --extra-json has it",),
        ),
        "after an own name": Case(
            model(mood=TEXT),
            {"arg": {"mood": "calm"}, "extra_json": {"mood": "wild"}},
            {"mood": "wild"},
            ("mood is sent as --extra-json has it",),
        ),
        "after a default": Case(
            model("mood", mood={**TEXT, "default": "calm"}),
            {"extra_json": {"mood": "wild"}},
            {"mood": "wild"},
        ),
        "as it is": Case(model(mood=TEXT), {"extra_json": {"mood": "7"}}, {"mood": "7"}),
    }
)
def test_extra_is_merged_last(case: Case) -> None:
    case.check()


@pytest.mark.parametrize(
    ("task", "flags", "first"),
    [
        (skill_fal.T2I, skill_fal.TEXT_TO_IMAGE, {"prompt": "Rain"}),
        (skill_fal.I2V, skill_fal.IMAGE_TO_VIDEO, {"image_url": A}),
    ],
    ids=["t2i", "i2v"],
)
def test_the_same_names_stand_in_a_file_of_jobs(
    tmp_path: Path, task: skill_fal.Task, flags: tuple[skill_fal.Flag, ...], first: dict[str, str]
) -> None:
    job = {
        **first,
        "duration": 5,
        "num_images": 2,
        "aspect_ratio": "16:9",
        "resolution": "720p",
        "arg": {"blur": 0.8, "tags": ["a", 7], "voice": {"name": "Ann"}, "loop": False},
    }
    (tmp_path / "jobs").write_text(json.dumps(job))
    (read,) = skill_fal.read_jobs(flags, task.varied, str(tmp_path / "jobs"))
    assert read == job


SHOWN = {
    "a picture": (model("pet_photo_url", pet_photo_url=TEXT), "pet_photo_url", "--image-url"),
    "a list of pictures": (model("photos", photos=TEXTS), "photos", "--image-url"),
    "the second picture": (
        model(head_frame=TEXT, tail_frame=TEXT),
        "tail_frame",
        "--image-url (the second)",
    ),
    "a prompt": (model(caption=TEXT), "caption", "--prompt"),
    "frames": (model(frame_count=WHOLE), "frame_count", "--duration"),
    "a shape": (model(shape=one_of("1:1", "16:9")), "shape", "--aspect-ratio"),
    "a resolution": (model(tier=one_of("720p", "1080p")), "tier", "--resolution"),
    "an object": (model(canvas=BOX), "canvas", "--width and --height"),
    "a side": (model(output_width=WHOLE, output_height=WHOLE), "output_height", "--height"),
    "how many": (model(num_outputs=WHOLE), "num_outputs", "--num-images"),
    "what has no flag": (model(blur=NUMBER), "blur", "--arg blur="),
    "a clip": (model("clip_url", clip_url=TEXT), "clip_url", "--arg clip_url="),
}


@pytest.mark.parametrize(("schema", "name", "way"), SHOWN.values(), ids=list(SHOWN))
def test_the_schema_shows_which_flag_sets_a_field(
    schema: dict[str, Any], name: str, way: str
) -> None:
    lines = {
        line.split("\t")[0]: line.split("\t") for line in skill_fal.schema_text(schema).split("\n")
    }
    assert list(lines) == list(schema["properties"])
    assert way in lines[name][4]


# The rest of JSON Schema
#
# fal checks with pydantic, `jsonschema` with the letter of the standard. Where the two differ,
# `violations` sides with pydantic, and nothing is generated here:
# - The text of a number is a number to pydantic: texts have no digits, nor letters of nan and inf.
# - oneOf is taken for anyOf, as pydantic's unions are: only alternatives that exclude each other,
#   as different constants do, stand in a oneOf.
# - multipleOf allows for the rounding of floats: numbers and divisors are whole or of quarters.
# - Nothing that a model takes tells [1], [1.0] and [true] apart: a listed value has texts alone in
#   it, and whole numbers stand in lists without a point.

LETTERS = "abxyz"
WITH_A_POINT = st.integers(-48, 48).map(lambda count: count / 4)
SOME_NUMBERS = st.integers(-12, 12) | WITH_A_POINT.filter(lambda number: number % 1)
SOME_TEXTS = st.text(LETTERS, max_size=6)
NAMES = st.sampled_from(["a", "b", "c", "d"])
SCALARS = st.none() | st.booleans() | SOME_NUMBERS | SOME_TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(NAMES, parts, max_size=4),
    max_leaves=10,
)
LISTED = SCALARS | st.lists(SOME_TEXTS, max_size=2) | st.dictionaries(NAMES, SOME_TEXTS, max_size=2)
COUNTS = st.integers(0, 4)
PATTERNS = st.sampled_from(["^a", "b$", "x+", "^[a-b]*$", "^(x|y)", "ab", "^.{2,4}$", "z?$", "^$"])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
DIVISORS = st.sampled_from([1, 2, 3, 5, 0.5, 0.25, 1.5])


def some_of(keywords: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict(keywords))


def with_type(name: str, keywords: Mapping[str, st.SearchStrategy[Any]]) -> Any:
    return some_of(keywords).map(lambda schema: {"type": name, **schema})


NUMBER_KEYWORDS = {
    "minimum": SOME_NUMBERS,
    "maximum": SOME_NUMBERS,
    "exclusiveMinimum": SOME_NUMBERS,
    "exclusiveMaximum": SOME_NUMBERS,
    "multipleOf": DIVISORS,
}
TEXT_KEYWORDS = {"minLength": COUNTS, "maxLength": COUNTS, "pattern": PATTERNS}
LIST_KEYWORDS = {"minItems": COUNTS, "maxItems": COUNTS, "uniqueItems": st.booleans()}
OBJECT_KEYWORDS = {
    "minProperties": COUNTS,
    "maxProperties": COUNTS,
    "required": st.lists(NAMES, max_size=2, unique=True),
}


def constants_apart(values: list[Any]) -> list[dict[str, Any]]:
    return [{"const": value} for value in values]


ALTERNATIVES_APART = st.lists(
    st.booleans() | st.integers(-12, 12) | SOME_TEXTS, min_size=1, max_size=4, unique_by=repr
).map(constants_apart)
LEAVES = st.one_of(
    some_of({"type": TYPES}),
    some_of({"type": st.lists(TYPES, min_size=1, max_size=3, unique=True)}),
    with_type("number", NUMBER_KEYWORDS),
    with_type("integer", NUMBER_KEYWORDS),
    with_type("string", TEXT_KEYWORDS),
    with_type("array", LIST_KEYWORDS),
    with_type("object", OBJECT_KEYWORDS),
    some_of({**NUMBER_KEYWORDS, **TEXT_KEYWORDS, **LIST_KEYWORDS, **OBJECT_KEYWORDS}),
    some_of({"enum": st.lists(LISTED, min_size=1, max_size=4), "type": TYPES}),
    some_of({"const": LISTED, "type": TYPES}),
    ALTERNATIVES_APART.map(lambda parts: {"oneOf": parts}),
)


def deeper(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas that hold others."""
    fields = {
        "properties": st.dictionaries(NAMES, parts, max_size=3),
        "additionalProperties": st.booleans() | parts,
    }
    alternatives = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        with_type("array", {**LIST_KEYWORDS, "items": parts}),
        with_type("object", {**OBJECT_KEYWORDS, **fields}),
        some_of({**OBJECT_KEYWORDS, **fields, **LIST_KEYWORDS, "items": parts}),
        alternatives.map(lambda schemas: {"anyOf": schemas}),
    )


ANY_SCHEMA = st.recursive(LEAVES, deeper, max_leaves=6)


def agrees(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    is_valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (not skill_fal.violations(value, schema)) == is_valid, (value, schema)


@settings(max_examples=600, deadline=None)
@given(VALUES, ANY_SCHEMA)
def test_a_value_is_right_where_jsonschema_says_so(value: Any, schema: dict[str, Any]) -> None:
    agrees(value, schema)


@settings(max_examples=300, deadline=None)
@given(
    SCALARS,
    st.lists(LEAVES, min_size=1, max_size=3),
    some_of({**NUMBER_KEYWORDS, **TEXT_KEYWORDS, "type": TYPES}),
)
def test_what_stands_beside_alternatives_counts_as_well(
    value: Any, parts: list[dict[str, Any]], beside: dict[str, Any]
) -> None:
    agrees(value, {**beside, "anyOf": parts})


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([0, 0.0, 1, 1.0, True, False, "0", None, [1], [1.0], [2]])),
    st.booleans(),
)
def test_what_is_the_same_in_a_list(values: list[Any], wanted: bool) -> None:
    """Without [True], which jsonschema takes for [1] when it stands beside others."""
    agrees(values, {"type": "array", "uniqueItems": wanted})


NEAR = st.sampled_from([0, 0.0, 1, 1.0, True, False, "0", None])
NESTED = NEAR | st.lists(NEAR, max_size=2) | st.dictionaries(NAMES, NEAR, max_size=2)


@settings(max_examples=300, deadline=None)
@given(NEAR, st.lists(NEAR, min_size=1, max_size=3))
def test_what_is_the_same_as_a_listed_value(value: Any, listed: list[Any]) -> None:
    agrees(value, {"enum": listed})
    agrees(value, {"const": listed[0]})


@settings(max_examples=300, deadline=None)
@given(NESTED, st.lists(NESTED, min_size=1, max_size=3))
def test_what_is_the_same_as_a_listed_list_or_object(value: Any, listed: list[Any]) -> None:
    agrees(value, {"enum": listed})
    agrees(value, {"const": listed[0]})


@pytest.mark.parametrize(
    ("values", "schemas"),
    [
        (SOME_NUMBERS | WITH_A_POINT, with_type("number", NUMBER_KEYWORDS)),
        (SOME_NUMBERS | WITH_A_POINT, with_type("integer", NUMBER_KEYWORDS)),
        (SOME_TEXTS, with_type("string", TEXT_KEYWORDS)),
        (st.lists(SCALARS, max_size=5), with_type("array", LIST_KEYWORDS)),
        (st.dictionaries(NAMES, SCALARS), with_type("object", OBJECT_KEYWORDS)),
        (SCALARS | WITH_A_POINT, some_of({"enum": st.lists(SCALARS, min_size=1)})),
        (SCALARS | WITH_A_POINT, some_of({"const": SCALARS})),
        (SCALARS, st.lists(LEAVES, min_size=1).map(lambda parts: {"anyOf": parts})),
        (SCALARS, ALTERNATIVES_APART.map(lambda parts: {"oneOf": parts})),
        (SCALARS, ALTERNATIVES_APART.map(lambda parts: {"anyOf": parts})),
        (
            st.lists(SCALARS, max_size=3),
            LEAVES.map(lambda part: {"type": "array", "items": part}),
        ),
        (
            st.dictionaries(NAMES, SCALARS, max_size=3),
            st.builds(
                lambda fields, others: {"properties": fields, "additionalProperties": others},
                st.dictionaries(NAMES, LEAVES, max_size=2),
                st.booleans() | LEAVES,
            ),
        ),
    ],
    ids=[
        *("numbers", "whole numbers", "texts", "lists", "objects", "enum", "const"),
        *("anyOf", "oneOf of constants", "anyOf of constants", "items", "properties"),
    ],
)
def test_each_keyword_is_held_against_jsonschema(
    values: st.SearchStrategy[Any], schemas: st.SearchStrategy[Any]
) -> None:
    """Values of the type that the keywords are about, so that each of them decides often."""

    @settings(max_examples=200, deadline=None)
    @given(values, schemas)
    def hold(value: Any, schema: dict[str, Any]) -> None:
        agrees(value, schema)

    hold()


KEYWORDS = {
    "multipleOf": (12, 13, {"type": "integer", "multipleOf": 4}),
    "multipleOf a half": (1.5, 1.25, {"type": "number", "multipleOf": 0.5}),
    "exclusiveMinimum": (0.5, 0, {"type": "number", "exclusiveMinimum": 0}),
    "exclusiveMaximum": (0.5, 1, {"type": "number", "exclusiveMaximum": 1}),
    "pattern": ("ab", "ba", {"type": "string", "pattern": "^a"}),
    "minProperties": ({"a": 1}, {}, {"type": "object", "minProperties": 1}),
    "maxProperties": ({}, {"a": 1}, {"type": "object", "maxProperties": 0}),
    "uniqueItems": ([1, 2], [1, 1], {"type": "array", "uniqueItems": True}),
    "const": ("a", "b", {"const": "a"}),
    "const in a union": ("b", "c", {"oneOf": [{"const": "a"}, {"const": "b"}]}),
    "const of a number": (1, True, {"anyOf": [{"const": 1}, {"const": "1"}]}),
}


@pytest.mark.parametrize(("right", "wrong", "schema"), KEYWORDS.values(), ids=list(KEYWORDS))
def test_what_a_keyword_allows_and_what_not(right: Any, wrong: Any, schema: Any) -> None:
    agrees(right, schema)
    agrees(wrong, schema)
    assert skill_fal.violations(right, schema) == []
    (problem,) = skill_fal.violations(wrong, schema, "field")
    assert problem["field"] == "field"


def test_tenths_are_multiples_of_a_tenth() -> None:
    """To the letter of floats, 0.3 is none of 0.1, which no user would understand."""
    assert not skill_fal.violations(0.3, {"type": "number", "multipleOf": 0.1})
    assert skill_fal.violations(0.35, {"type": "number", "multipleOf": 0.1})


# OpenAPI 3.0, whose exclusiveMinimum is a switch of the minimum beside it

OLD_BOUNDS = some_of(
    {
        "minimum": SOME_NUMBERS,
        "maximum": SOME_NUMBERS,
        "exclusiveMinimum": st.booleans(),
        "exclusiveMaximum": st.booleans(),
    }
).filter(
    lambda schema: (
        not (
            ("exclusiveMinimum" in schema and "minimum" not in schema)
            or ("exclusiveMaximum" in schema and "maximum" not in schema)
        )
    )
)


@settings(max_examples=300, deadline=None)
@given(
    SOME_NUMBERS | WITH_A_POINT,
    OLD_BOUNDS,
    st.sampled_from(["as it is", "reference", "allOf", "anyOf"]),
)
def test_bounds_of_openapi_3_0_are_read_as_they_were_meant(
    value: float, bounds: dict[str, Any], place: str
) -> None:
    """Draft 4 of JSON Schema has these bounds as OpenAPI 3.0 has them."""
    node = {
        "as it is": bounds,
        "reference": {"$ref": "#/parts/Bounds"},
        "allOf": {"allOf": [{"$ref": "#/parts/Bounds"}], "title": "A number"},
        "anyOf": {"anyOf": [{"$ref": "#/parts/Bounds"}]},
    }[place]
    read = SchemaReader({"parts": {"Bounds": bounds}}).read(node)
    jsonschema.Draft202012Validator.check_schema(read)
    is_valid = jsonschema.Draft4Validator(bounds).is_valid(value)
    assert (not skill_fal.violations(value, read)) == is_valid
    assert jsonschema.Draft202012Validator(read).is_valid(value) == is_valid


@pytest.mark.parametrize(
    ("node", "read"),
    [
        ({"minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
        ({"maximum": 1, "exclusiveMaximum": True}, {"exclusiveMaximum": 1}),
        ({"minimum": 0, "exclusiveMinimum": False}, {"minimum": 0}),
        ({"exclusiveMinimum": True}, {}),
        ({"minimum": 0, "exclusiveMinimum": 2.5}, {"minimum": 0, "exclusiveMinimum": 2.5}),
    ],
    ids=["lower", "upper", "a switch that is off", "without a bound", "as it is today"],
)
def test_an_exclusive_bound_is_read(node: dict[str, Any], read: dict[str, Any]) -> None:
    assert SchemaReader({}).read(node) == read
    problems = skill_fal.violations(0.5, SchemaReader({}).read({"type": "number", **node}))
    assert bool(problems) == (node.get("exclusiveMinimum") == 2.5)


# What further unseen models asked for


def fitted_to(properties: dict[str, Any], *required: str, **asked: Any) -> dict[str, Any]:
    """What a model with these fields is sent."""
    schema = SchemaReader({}).read({"properties": properties, "required": [*required]})
    return fit_arguments(asked, schema).arguments


WIDE = {"enum": ["512x992", "992x512"], "default": "992x512"}


@pytest.mark.parametrize(
    ("properties", "asked", "sent"),
    [
        ({"resolution": WIDE}, {"resolution": "512x992"}, {"resolution": "512x992"}),
        ({"tier": WIDE}, {"resolution": "512X992"}, {"tier": "512x992"}),
        (
            {"canvas": {"anyOf": [BOX, {"enum": ["square_hd"]}], "default": "square_hd"}},
            {"resolution": "1920x1080"},
            {"canvas": {"width": 1920, "height": 1080}},
        ),
        (
            {"form": {"enum": ["square", "square_hd"]}},
            {"aspect_ratio": "square"},
            {"form": "square"},
        ),
        ({"tier": {"enum": ["720p", "1080p"]}}, {"resolution": "1080"}, {"tier": "1080p"}),
        (
            {"picture_size": {**TEXT, "default": "square_hd"}},
            {"width": 1024, "height": 768},
            {"picture_size": "landscape_4_3"},
        ),
        (
            {"board_size": {"type": "array", "items": WHOLE, "default": [1000, 1000]}},
            {"width": 1920, "height": 1080},
            {"board_size": [1920, 1080]},
        ),
        (
            {"canvas": {"anyOf": [{"anyOf": [BOX, {"enum": ["square_hd"]}]}, {"type": "null"}]}},
            {"width": 640, "height": 480},
            {"canvas": {"width": 640, "height": 480}},
        ),
        (
            {"tier": {"enum": ["768x512"]}, "shape": {"enum": ["3:2", "2:3"]}},
            {"width": 512, "height": 768},
            {"shape": "2:3"},
        ),
    ],
    ids=[
        "a label of pixels",
        "a label in capitals",
        "pixels that are called a resolution",
        "a shape by its very name",
        "lines without a p",
        "names of sizes in free text",
        "a list of two sides",
        "a choice in a choice",
        "a shape where no whole label has it",
    ],
)
def test_further_sizes(
    properties: dict[str, Any], asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert fitted_to(properties, **asked) == sent


@pytest.mark.parametrize("seconds", [3, 10])
def test_limits_of_frames_in_words_are_kept(seconds: int) -> None:
    ticks = {**WHOLE, "description": "Must be between 81 to 100 (inclusive)."}
    fitted = fit_arguments(
        {"duration": seconds},
        {"properties": {"num_frames": ticks, "fps": {**WHOLE, "default": 16}}},
    )
    assert [problem["field"] for problem in fitted.problems] == ["num_frames"]


@pytest.mark.parametrize(("seconds", "frames"), [(5, 81), (5.1, 82), (6.3, 100)])
def test_a_frame_beside_the_limit_is_the_limit(seconds: float, frames: int) -> None:
    ticks = {**WHOLE, "minimum": 81, "maximum": 100}
    properties = {"frame_num": ticks, "sample_fps": {**WHOLE, "default": 16}}
    assert fitted_to(properties, duration=seconds) == {"frame_num": frames}


A, B = "https://example.com/a.png", "https://example.com/b.png"


@pytest.mark.parametrize(
    ("properties", "required", "sources", "sent"),
    [
        (
            {"input_urls": {"type": "array", "items": TEXT, "description": "URLs of the images."}},
            ("input_urls",),
            [A, B],
            {"input_urls": [A, B]},
        ),
        (
            {"input": {**TEXT, "description": "URL of the input image"}},
            ("input",),
            [A],
            {"input": A},
        ),
        ({"input": {**TEXT, "format": "uri"}}, ("input",), [A], {"input": A}),
        (
            {"photo_url_1": TEXT, "photo_url_2": TEXT},
            ("photo_url_1", "photo_url_2"),
            [A, B],
            {"photo_url_1": A, "photo_url_2": B},
        ),
        ({"image": TEXT, "image_2": TEXT}, (), [A, B], {"image": A, "image_2": B}),
        ({"mask_photo": TEXT, "photo": TEXT}, ("mask_photo",), [A], {"photo": A}),
        (
            {
                "photos": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"photo_url": TEXT, "tag": {**TEXT, "default": "a"}},
                        "required": ["photo_url", "tag"],
                    },
                }
            },
            ("photos",),
            [A],
            {"photos": [{"photo_url": A, "tag": "a"}]},
        ),
    ],
    ids=[
        "a list by its description",
        "one by its description",
        "an address of whatever",
        "numbered and required",
        "numbered and optional",
        "not the mask",
        "objects with defaults",
    ],
)
def test_further_pictures(
    properties: dict[str, Any], required: tuple[str, ...], sources: list[str], sent: dict[str, Any]
) -> None:
    assert fitted_to(properties, *required, image_url=sources) == sent


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("song_length", {"duration": 8}),
        ("variations", {"num_images": 3}),
        ("ddim_steps", {"num_inference_steps": 9}),
        ("prompt_negative", {"negative_prompt": "fog"}),
    ],
)
def test_further_names_of_flags(name: str, asked: dict[str, Any]) -> None:
    (value,) = asked.values()
    schema = TEXT if isinstance(value, str) else WHOLE
    assert fitted_to({name: schema}, **asked) == {name: value}
