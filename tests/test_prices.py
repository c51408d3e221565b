"""What a job will cost: fal's units, and how much of them the arguments ask for.

The figures are worked out by hand. What is billed by another rule than the name of the unit tells
is only known to fal; here, what is asked for is never counted as less than it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Cli, paid
from PIL import Image
from sandbox import Reply, Sandbox

import skill_fal
from skill_fal import Failure, Forecast

FLUX = "fal-ai/flux/dev"
CLIPS = "somebody/image-to-video"
SOUND = "https://example.com/a.mp3"
PICTURE = "https://example.com/a.png"
WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
TEXT = {"type": "string"}
BOX = {
    "type": "object",
    "properties": {"width": {**WHOLE, "default": 512}, "height": {**WHOLE, "default": 512}},
}
PRESETS = ["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3"]
SIZES = {"anyOf": [BOX, {"enum": [*PRESETS, "landscape_16_9", "auto"]}]}


class Case(NamedTuple):
    """So many units a job takes by the list, in words; None if nobody knows, and why."""

    unit: Any
    arguments: Mapping[str, Any]
    units: float | None
    words: str = ""
    fields: Mapping[str, Any] = {}
    model: str = FLUX


def fit(arguments: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    fitted = skill_fal.Fit({"type": "object", "properties": fields})
    fitted.arguments = dict(arguments)
    return fitted


def forecast(unit: Any, *jobs: Any, model: str = FLUX, average: float = 0.0) -> Forecast:
    """What is to be expected of jobs at a USD a unit."""
    price = skill_fal.read_price({"unit": unit, "unit_price": 1, "currency": "USD"})
    demands = [skill_fal.Demand(job, model) for job in jobs]
    quantities = [skill_fal.quantity_of(demand, price.unit) for demand in demands]
    return Forecast([(price, quantities)], average)


NARROW = {"aspect_ratio": {"enum": ["16:9", "1:1", "auto"], "default": "16:9"}}
LABELS = {"resolution": {"enum": ["0.5K", "1K", "2K", "4K"], "default": "1K"}}
LINES = {"resolution": {"enum": ["480p", "720p", "1080p"], "default": "720p"}}
AUTO = {"aspect_ratio": {"enum": ["auto", "16:9"], "default": "auto"}}

# By a thing

COUNTS = {
    "images": Case("images", {"num_images": 4}, 4, "4 images x 1 USD an image"),
    "one image": Case("image", {}, 1, "1 image x 1 USD an image"),
    "a number in text": Case("images", {"num_images": "3"}, 3),
    "a default": Case("images", {}, 2, fields={"num_images": {**WHOLE, "default": 2}}),
    "two counts": Case("image", {"num_images": 4, "batch_size": 2}, 8),
    "a count of its own": Case("images", {"variations": 4, "sample_count": 2}, 8),
    "no count": Case("images", {"variations": "wild"}, 1),
    "videos": Case("videos", {"num_videos": 2}, 2, "2 videos x 1 USD a video"),
    "clips": Case("Clip", {}, 1, "1 clip x"),
    "generations": Case("generations", {"n": 3}, 3, "3 generations x 1 USD a generation"),
    "requests": Case("requests", {}, 1, "1 request x 1 USD a request"),
    "calls": Case("API calls", {}, 1, "1 call x"),
    "units": Case("units", {"num_images": 2}, 2, "1 unit (what a unit is fal does not say)"),
    "audios": Case("audios", {}, 1, "1 audio x 1 USD an audio"),
    "output": Case("per output", {}, 1, "1 output x 1 USD an output"),
    "a hundred": Case("100 images", {"num_images": 4}, 1, "(taken as 1 x 100 images)"),
    "more than a hundred": Case("100 images", {"num_images": 250}, 2.5),
    "a larger resolution": Case("images", {"resolution": "4K"}, None, "resolution 4K may", LABELS),
    "seconds of one": Case(
        "seconds",
        {"resolution": "1080p", "duration": 5},
        None,
        "1080p may",
        {**LINES, "duration": NUMBER},
    ),
    "the usual resolution": Case("images", {"resolution": "1K"}, 1, "", LABELS),
    "a smaller resolution": Case("images", {"resolution": "0.5K"}, 1, "", LABELS),
    "steps": Case("steps", {"num_inference_steps": 28, "num_images": 2}, 56, "2 images x 28 steps"),
    "steps by default": Case("step", {}, 50, fields={"steps": {**WHOLE, "default": 50}}),
}

# By pixels. A megapixel is a million; of less, and of parts, fal rounds up what it sells as one.

BIG = {"image_size": {"width": 4096, "height": 4096}}  # 16.78 million
PIXELS = {
    "an object": Case("megapixels", BIG, 16.777216, "1 image x 16.8 megapixels x 1 USD"),
    "twice": Case("megapixels", {**BIG, "num_images": 2}, 33.554432, "2 images x 16.8 megapixels"),
    "preset hd": Case("megapixels", {"image_size": "square_hd"}, 1.048576),
    "preset small": Case("megapixels", {"image_size": "square", "num_images": 3}, 3),
    "a preset of a schema": Case(
        "MP", {"image_size": "landscape_16_9"}, 1, "0.59", {"image_size": SIZES}
    ),
    "a default preset": Case(
        "MP", {}, 1, "0.786", {"image_size": {**SIZES, "default": "landscape_4_3"}}
    ),
    "an object of a schema": Case("MP", BIG, 16.777216, "16.8", {"image_size": SIZES}),
    "a side left out": Case(
        "MP", {"image_size": {"width": 4096}}, 2.097152, "2.1 megapixels", {"image_size": SIZES}
    ),
    "another key": Case("MP", {"image_size": {"w": 9}}, 1, "0.262", {"image_size": SIZES}),
    "two fields": Case("output megapixel", {"width": 2000, "height": 1500}, 3, "3 megapixels"),
    "text": Case("MP", {"width": "2000", "height": "1500.0"}, 3),
    "floats": Case("MP", {"width": 2000.0, "height": 1500.0}, 3),
    "a default side": Case(
        "MP", {"width": 2000}, 3, "", {"width": WHOLE, "height": {**WHOLE, "default": 1500}}
    ),
    "one side alone": Case("MP", {"width": 2000}, None, "size of the result"),
    "a pair": Case("MP", {"size": [3000, 2000]}, 6),
    "a text of sides": Case("MP", {"size": "2048x1024"}, 2.097152, "2.1 megapixels"),
    "a label": Case("MP", {"resolution": "2K"}, 4.194304, "4.19", LABELS),
    "4K is the larger": Case(
        "MP", {"resolution": "4K", "aspect_ratio": "16:9"}, 16.777216, "", {**LABELS, **NARROW}
    ),
    "4MP": Case("MP", {"resolution": "4MP", "aspect_ratio": "1:1"}, 4.194304),
    "720p": Case("MP", {}, 1, "0.922", {**LINES, **NARROW}),
    "1080p of a square": Case(
        "MP", {"resolution": "1080p", "aspect_ratio": "1:1"}, 2, "1.17", {**LINES, **NARROW}
    ),
    "custom": Case("MP", {"image_size": "custom", "width": 3000, "height": 1000}, 3),
    "the larger of two": Case("MP", {"image_size": "square", "width": 3000, "height": 2000}, 6),
    "auto": Case("MP", {"image_size": "auto"}, None, "size of the result", {"image_size": SIZES}),
    "null": Case("MP", {"image_size": None}, None, "size of the result", {"image_size": SIZES}),
    "lines of no shape": Case("MP", {}, None, "size of the result", {**LINES, **AUTO}),
    "a shape alone": Case("MP", {"aspect_ratio": "16:9"}, None, "size of the result", NARROW),
    "nothing": Case("MP", {}, None, "size of the result"),
    "what the model lacks": Case("MP", BIG, None, "size of the result", {"seed": WHOLE}),
    "frames": Case(
        "megapixels",  # as the page of LTX-2 has it: 1280 x 720 x 121
        {"video_size": {"width": 1280, "height": 720}, "num_frames": 121},
        111.5136,
        "1 clip x 121 frames x 0.922 megapixels x 1 USD a megapixel",
        model=CLIPS,
    ),
    "seconds at a rate": Case(
        "MP", {**BIG, "duration": 2, "fps": 10}, 335.54432, "20 frames", model=CLIPS
    ),
    "a clip of no length": Case("MP", BIG, None, "how many frames", model=CLIPS),
    "a picture that is elsewhere": Case(
        "MP", {"image_url": PICTURE, "upscale_factor": 2}, None, "size"
    ),
    "a size and a factor": Case("MP", {"width": 1000, "height": 1000, "upscale_factor": "2x"}, 4),
    "processed": Case("processed megapixels", BIG, 16.777216, "1 image x 16.8 megapixels"),
    "processed, from elsewhere": Case(
        "processed megapixels", {**BIG, "image_url": PICTURE}, None, "picture that is not here"
    ),
}

# By time

RATE = {"frames_per_second": {**WHOLE, "default": 16}}
FRAMES = {"num_frames": {**WHOLE, "default": 80}}
FIVE = {"duration": {"enum": ["5", "10"], "default": "5"}}
TIME = {
    "a text": Case("seconds", {"duration": "8"}, 8, "1 clip x 8 s x 1 USD a second"),
    "a unit": Case("second of video", {"duration": "8s"}, 8),
    "a number": Case("video seconds", {"duration": 8}, 8),
    "a default": Case("per second", {}, 5, "1 clip x 5 s", FIVE),
    "of each": Case("USD/second", {"duration": 5, "num_videos": 3}, 15, "3 clips x 5 s"),
    "a clock": Case("second-of-video", {"duration": "01:30"}, 90, "90 s"),
    "a name of its own": Case("seconds", {"video_length": 7}, 7),
    "milliseconds": Case("seconds", {"music_length_ms": 30_000}, 30, "30 s"),
    "shots": Case(
        "seconds", {"multi_prompt": [{"prompt": "A", "duration": "7"}, {"duration": 6}]}, 13
    ),
    "shots and a default": Case("seconds", {"multi_prompt": [{"duration": 9}]}, 9, "", FIVE),
    "fives": Case(
        "5 seconds", {"duration": 6}, 2, "6 s (taken as 2 x 5 seconds) x 1 USD per 5 seconds"
    ),
    "fives of each": Case("5 seconds", {"duration": 6, "num_videos": 2}, 4),
    "a ten": Case("10 second clip", {"duration": 5}, 1),
    "tens": Case("10-second clips", {"duration": 11}, 2),
    "minutes": Case("minutes", {"duration": 90}, 1.5, "90 s x 1 USD a minute"),
    "a minute at least": Case("minute of video ", {"duration": 6}, 1, "(taken as 1 minute)"),
    "hours": Case("hour", {"duration": 5400}, 1.5, "an hour"),
    "frames at a rate": Case(
        "seconds", {"num_frames": 100, "fps": 25}, 4, "100 frames at 25 a second"
    ),
    "frames by default": Case("seconds", {}, 5, "", {**FRAMES, **RATE}),
    "a default rate": Case("seconds", {"num_frames": 160}, 10, "", {**FRAMES, **RATE}),
    "another rate": Case("seconds", {"frames_per_second": 8}, 10, "", {**FRAMES, **RATE}),
    "the longer of two": Case(
        "seconds", {"duration": 3, "num_frames": 160}, 10, "", {**FRAMES, **RATE}
    ),
    "a long one beside a rate": Case(
        "seconds", {"duration": 90}, 90, "", {"duration": NUMBER, **RATE}
    ),
    "no rate": Case("seconds", {"num_frames": 100}, None, "how long"),
    "frames": Case("frames", {"num_frames": 81}, 81, "81 frames x 1 USD a frame"),
    "sixteens": Case("16 frames", {"num_frames": 81}, 6, "81 frames (taken as 6 x 16 frames)"),
    "frames of seconds": Case("frames", {"duration": 2.5, "fps": 24}, 60),
    "a sound decides": Case("seconds", {"audio_url": SOUND}, None, "a sound that is sent", FIVE),
    "a clip decides": Case(
        "seconds", {"video_url": "https://x.example/a.mp4"}, None, "a clip", FIVE
    ),
    "a sound and a length": Case("seconds", {"audio_url": SOUND, "duration": "10"}, 10, "", FIVE),
    "a model of sounds": Case("seconds", {"generate_audio": True, "duration": 8}, 8),
    "nothing": Case("seconds", {}, None, "how long"),
    "what the model lacks": Case("seconds", {"duration": 1}, None, "no duration", {"seed": WHOLE}),
    "more than the model has": Case("seconds", {"seconds": 9}, 9, "", FIVE),
}

# By text, and by what cannot be counted

A_TEXT = {"text": "a" * 2500}
OTHERS = {
    "characters": Case(
        "1000 characters", A_TEXT, 2.5, "2500 characters x 1 USD per 1000 characters"
    ),
    "with a space": Case("1000 characters ", A_TEXT, 2.5),
    "1k": Case("1k characters", A_TEXT, 2.5),
    "a comma": Case("1,000 characters", A_TEXT, 2.5),
    "a million": Case("1M characters", A_TEXT, 1, "(taken as 1 x 1000000 characters)"),
    "one": Case("characters", {"prompt": "A cat"}, 5),
    "a dialogue": Case(
        "characters", {"inputs": [{"text": "Hello", "voice": "X"}, {"text": "Hi"}]}, 7
    ),
    "a default": Case("characters", {}, 3, fields={"prompt": {**TEXT, "default": "Sea"}}),
    "what is left out": Case("characters", {"prompt": "A", "negative_prompt": "Bad"}, 1),
    "no text": Case("characters", {"image_url": PICTURE}, None, "no text"),
    **{
        f"{unit!r}": Case(
            unit, {"num_images": 2, **BIG, **A_TEXT, "duration": 5}, None, "that unit"
        )
        for unit in (
            *("tokens", "1M tokens", "compute seconds", "GPU second", "compute units", "credits"),
            *("input seconds", "cloned voices", "video segments", "trainings", "furlongs", "1"),
            *("", None, 7, ["image"], True, "\u79d2", "\u6bcf\u5f20\u56fe\u7247", "\u00bd second"),
            *("4k images", "1024x1024 image", "720p second", "0 seconds", "2 clips of 5 seconds"),
            *("image/second", "seconds per video", "images 4", "1 000 characters", "second" * 20),
        )
    },
}


@pytest.mark.parametrize(
    "case",
    [*COUNTS.values(), *PIXELS.values(), *TIME.values(), *OTHERS.values()],
    ids=[
        f"{kind}: {name}"
        for kind, cases in {
            "count": COUNTS,
            "pixels": PIXELS,
            "time": TIME,
            "other": OTHERS,
        }.items()
        for name in cases
    ],
)
def test_so_many_units_a_job_takes(case: Case) -> None:
    job = fit(case.arguments, case.fields)
    expected = forecast(case.unit, job, model=case.model)
    reckoning = expected.dearest
    if case.units is None:
        assert reckoning.unknown, reckoning
        assert case.words in reckoning.unknown
        with pytest.raises(Failure, match="no history"):
            expected.check()
        past = forecast(case.unit, job, model=case.model, average=999.0).dearest
        assert skill_fal.HISTORY_ALONE in past.basis
    else:
        assert reckoning.unknown == ""
        assert reckoning.total == pytest.approx(case.units)
        assert case.words in reckoning.basis


@pytest.mark.parametrize(
    "source", [{"video_url": "https://example.com/a.mp4"}, {"image_url": PICTURE}], ids=str
)
def test_what_is_sent_hides_nothing_of_what_is_made(source: dict[str, str]) -> None:
    """Nobody knows how large that is, and the result is billed in any case."""
    frames = {"num_frames": 10}
    for length, megapixels in ((frames, 167.77216), ({}, 16.777216)):
        job = fit({**BIG, **length, **source}, {})
        reckoning = forecast("processed megapixels", job, model=CLIPS).dearest
        assert reckoning.unknown
        assert reckoning.total == pytest.approx(megapixels)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": -5, "height": 100},
        {"width": "wide", "height": 100},
        {"width": "inf", "height": "inf"},
        {"image_size": {"width": -1, "height": 1024}},
        {"image_size": {"width": 1e300, "height": 1e300}},
        {"num_frames": -81, "fps": 16},
        {"num_frames": True, "duration": "soon"},
        {"duration": 1e300},
        {"num_images": 10**400},
    ],
    ids=str,
)
def test_what_is_no_number_is_not_billed_by(arguments: dict[str, Any]) -> None:
    unit = "seconds" if arguments.keys() & {"duration", "num_frames"} else "megapixels"
    with pytest.raises(Failure, match="no number to be billed by"):
        forecast(unit, fit(arguments, {}))


@pytest.mark.parametrize("size", ["inf", float("inf"), float("nan"), "nan", -1, True, [], "x" * 99])
@pytest.mark.parametrize("place", ["width", "image_size"])
def test_an_odd_default_is_no_size(size: Any, place: str) -> None:
    """It is what fal says of the model, and nothing that anybody asked for."""
    sides = {"width": size, "height": size}
    fields = {name: {**NUMBER, "default": side} for name, side in sides.items()}
    if place == "image_size":
        fields = {"image_size": {**SIZES, "default": size}}
    assert forecast("megapixels", fit({}, fields)).dearest.unknown


# What a description says of the price

DEARER = {
    "an amount": ("A second pass. This incurs a 2.0x cost multiplier.", True, 2),
    "a word": ("Sound doubles the price.", True, 2),
    "not asked for": ("A second pass. This incurs a 2.0x cost multiplier.", False, 1),
    "of another value": ("Vector images cost 2X as much.", "digital", 1),
    "of this value": ("Vector images cost 2X as much.", "vector_art", 2),
    "no amount": ("Will increase price.", True, None),
    "no price": ("Higher values are better at the cost of speed.", True, 1),
}


@pytest.mark.parametrize("case", DEARER)
def test_what_makes_a_job_dearer_counts(case: str) -> None:
    description, value, units = DEARER[case]
    fields: dict[str, Any] = {"extra_pass": {"description": description, "default": False}}
    if isinstance(value, str):
        fields["extra_pass"] |= {"enum": ["plain", "digital", "vector_art"], "default": "plain"}
    expected = forecast("images", fit({"extra_pass": value}, fields)).dearest
    assert bool(expected.unknown) == (units is None)
    assert expected.total == (units or 1)
    assert ("extra_pass" in expected.basis) == (units != 1)


# Jobs together


def test_jobs_that_differ_are_told_apart() -> None:
    jobs = [fit({"duration": length}, {}) for length in (8, 8, 5)]
    expected = forecast("seconds", *jobs)
    assert expected.dearest.total == 21
    assert expected.dearest.basis == "(2 clips x 8 s + 1 clip x 5 s) x 1 USD a second"
    assert expected.room_in(16) == "2 of the 3 jobs would fit into 16.00 USD"


def test_many_jobs_that_differ_are_told_in_a_line() -> None:
    jobs = [fit({"duration": length}, {}) for length in range(1, 101)]
    expected = forecast("seconds", *jobs).dearest
    assert (expected.total, expected.basis) == (
        5050,
        "100 jobs of 5050 units in all x 1 USD a second",
    )


def test_of_a_job_that_nobody_knows_history_tells() -> None:
    """Beside what the others come to."""
    jobs = [fit({"duration": 10}, {}), fit({}, {})]
    expected = forecast("seconds", *jobs, average=4).dearest
    assert expected.total == 14
    assert expected.basis == (
        "1 clip x 10 s x 1 USD a second + what 1 call cost on average in the past,"
        " from history alone: how long the result will be is not known"
    )


def test_what_another_price_does_not_know_is_told() -> None:
    fitted = fit({}, {})
    videos = forecast("videos", fitted, average=1).quantities
    seconds = forecast("seconds", fitted).quantities
    expected = Forecast([*videos, *seconds], 1).dearest
    assert expected.total == 1
    assert expected.basis == (
        "1 video x 1 USD a video, or more: how long the result will be is not known"
    )


def test_history_is_all_that_is_known_of_a_job_among_cheap_ones() -> None:
    jobs = [fit({"duration": 1}, {}), fit({}, {})]
    expected = forecast("seconds", *jobs, average=4).dearest
    assert expected.total == 8
    assert expected.basis.startswith("what 2 calls cost on average in the past, from history alone")


def test_what_is_known_is_the_least_where_more_is_not() -> None:
    sent = fit({"audio_url": SOUND}, FIVE)
    expected = forecast("seconds", sent, average=4).dearest
    assert expected.total == 5
    assert expected.basis.startswith(
        "1 clip x 5 seconds at least x 1 USD a second: a clip or a sound"
    )


# As a command


def fal_says(fal: Sandbox, amount: float, unit: Any, history: float) -> None:
    row = {"endpoint_id": FLUX, "unit_price": amount, "unit": unit, "currency": "USD"}
    told = {"estimate_type": "historical_api_price", "total_cost": history, "currency": "USD"}
    fal.on("GET", "api.fal.ai", "*/pricing", fal.always(Reply(json={"prices": [row]})))
    fal.on("POST", "api.fal.ai", "*/estimate", fal.always(Reply(json=told)))


T2I = ("submit-t2i", "--model", FLUX, "--prompt", "A cat")


def test_a_large_picture_is_not_sent_for_the_price_of_a_small_one(fal: Sandbox, cli: Cli) -> None:
    """Somebody paid many times what they expected for this."""
    fal_says(fal, 0.02, "megapixels", 0.02)
    size = ("--width", "4096", "--height", "4096")
    done = cli(*T2I, *size, "--num-images", "2", "--max-cost", "0.4")
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])
    basis = "2 images x 16.8 megapixels x 0.02 USD a megapixel"
    assert f"may cost 0.67108864 USD ({basis})" in done.error["message"]
    assert "1 of its 2 images would fit into 0.40 USD" in done.error["message"]
    done = cli(*T2I, *size, "--max-cost", "0.05")
    assert done.error["message"].endswith("it does not fit into 0.05 USD")
    done = cli(*T2I, *size, "--max-cost", "0.34")
    assert (done.status, "may be too low" in done.stderr) == (0, False)


def test_what_fits_is_told_of_jobs_in_their_order(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    fal_says(fal, 0.1, "image", 0.1)
    rows = [{"prompt": "A", "num_images": count} for count in (4, 1, 3, 1)]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    argv = ("batch-t2i", "--model", FLUX, "--prompts-file", "rows", "--max-cost")
    for limit, number in (("0.6", "2"), ("0.5", "2"), ("0.3", "none"), ("0.8", "3")):
        error = cli(*argv, limit).error
        shown = f"{float(limit):.2f}"
        assert error["message"].endswith(f"{number} of the 4 jobs would fit into {shown} USD")
    assert paid(fal) == []


def test_a_limit_that_only_history_holds_is_told(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, 0.001, "compute seconds", 0.03)
    done = cli(*T2I, "--max-cost", "0.05")
    assert (done.status, len(paid(fal))) == (0, 1)
    basis = "what 1 call cost on average in the past, from history alone: how much of that unit"
    assert f"note: --max-cost holds by an estimate that may be too low: {basis}" in done.stderr
    assert basis in cli(*T2I, "--dry-run").json["estimate"]["basis"]


def test_pictures_that_are_here_are_measured(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1000)).save(tmp_path / "wide.png")
    fal_says(fal, 1, "processed megapixels", 1)
    sent = ("--image-url", "wide.png", "--no-schema", "--dry-run")
    size = ("--extra-json", '{"image_size": {"width": 2000, "height": 1000}}')
    estimate = cli(*T2I, *sent, *size).json["estimate"]
    assert estimate["total_cost"] == 5
    assert "(3 megapixels sent + 2 megapixels)" in estimate["basis"]
    factor = ("--extra-json", '{"upscale_factor": 2}')
    assert cli(*T2I, *sent, *factor).json["estimate"]["total_cost"] == 3 + 2 * 2 * 3
    estimate = cli(*T2I, *sent).json["estimate"]
    assert (estimate["total_cost"], "at least" in estimate["basis"]) == (3, True)
