"""A limit holds: what cannot be counted is refused, and time is up for each command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import FOR_EVER, Cli, Clock, Late, paid
from sandbox import Reply, Sandbox, Stall
from sandbox.scripting import Recorded

FLUX = "fal-ai/flux/dev"  # 0.17 USD an image
KLING = "fal-ai/kling-video/v2/master/image-to-video"  # 0.39 USD a second
A = "https://example.com/a.png"
T2I = ("submit-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema")
I2V = ("submit-i2v", "--model", KLING, "--image-url", A, "--prompt", "Go", "--no-schema")
THREE = ("batch-t2i", "--model", FLUX, "--no-schema", "--prompts", "A", "B", "C")


def fal_says(fal: Sandbox, amount: float, unit: str, history: float) -> None:
    """The price of a unit, and what as many calls did cost."""
    fal_names(fal, [(amount, unit)], history)


def fal_names(fal: Sandbox, prices: list[tuple[float, str]], history: float) -> None:
    """Several prices of one model, each of another unit."""
    rows = [
        {"endpoint_id": FLUX, "unit_price": amount, "unit": unit, "currency": "USD"}
        for amount, unit in prices
    ]
    told = {"estimate_type": "historical_api_price", "total_cost": history, "currency": "USD"}
    fal.on("GET", "api.fal.ai", "*/pricing", fal.always(Reply(json={"prices": rows})))
    fal.on("POST", "api.fal.ai", "*/estimate", fal.always(Reply(json=told)))


def total_cost(error: Any) -> float:
    (cost,) = [row["message"] for row in error["details"] if row["field"] == "total_cost"]
    return float(cost)


# Counts


@pytest.mark.parametrize(
    ("extra", "images"),
    [
        ({"num_images": 4, "max_images": 6}, 24),
        ({"max_images": 6}, 6),
        ({"num_images": "2", "max_images": 3.0}, 6),
        ({"num_outputs": 4}, 4),
        ({"num_videos": 3}, 3),
        ({"num_samples": 2}, 2),
        ({"num_images_per_prompt": 5}, 5),
        ({"batch_size": 3, "n": 2}, 6),
        ({"num_images": 2, "num_outputs": 2, "batch_size": 2}, 8),
    ],
)
def test_counts_are_multiplied(fal: Sandbox, cli: Cli, extra: dict[str, Any], images: int) -> None:
    argv = (*T2I, "--extra-json", json.dumps(extra), "--max-cost")
    done = cli(*argv, str(round(images * 0.17 - 0.01, 2)))
    assert (done.status, paid(fal)) == (2, [])
    assert done.error["type"] == "over_budget"
    assert total_cost(done.error) == pytest.approx(images * 0.17)
    assert cli(*argv, str(round(images * 0.17, 2))).status == 0


def test_a_flag_and_an_extra_argument_are_multiplied(fal: Sandbox, cli: Cli) -> None:
    extra = ("--num-images", "4", "--extra-json", '{"max_images": 6}')
    done = cli(*T2I, *extra, "--max-cost", "4")
    assert (done.status, paid(fal)) == (2, [])
    assert done.error["type"] == "over_budget"


ARG_COUNTS = [
    (("--arg", "num_images=4"), 4),
    (("--arg", "num_images=4", "--no-schema"), 4),
    (("--arg", "num_images=2", "--arg", "max_images=3", "--no-schema"), 6),
    (("--num-images", "2", "--arg", "max_images=3", "--no-schema"), 6),
    (("--num-images", "2", "--arg", "num_images=4"), 4),
    (("--arg", "num_images=4", "--extra-json", '{"num_images": 3}'), 3),
]


@pytest.mark.parametrize(("words", "images"), ARG_COUNTS)
def test_what_arg_counts_is_paid_for(
    fal: Sandbox, cli: Cli, words: tuple[str, ...], images: int
) -> None:
    argv = ("submit-t2i", "--model", FLUX, "--prompt", "A cat", *words, "--max-cost")
    done = cli(*argv, str(round(images * 0.17 - 0.01, 2)))
    assert (done.status, paid(fal)) == (2, [])
    assert done.error["type"] == "over_budget"
    assert total_cost(done.error) == pytest.approx(images * 0.17)
    assert cli(*argv, str(round(images * 0.17, 2))).status == 0


def test_the_length_that_arg_says_is_paid_for(fal: Sandbox, cli: Cli) -> None:
    argv = ("submit-i2v", "--model", KLING, "--image-url", A, "--arg", "duration=10")
    done = cli(*argv, "--max-cost", "3.89")
    assert (done.status, paid(fal), done.error["type"]) == (2, [], "over_budget")
    assert total_cost(done.error) == pytest.approx(3.9)
    assert cli(*argv, "--max-cost", "3.9").status == 0


def test_what_arg_counts_in_a_file_of_jobs_is_paid_for(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    rows = [{"prompt": "A", "arg": {"num_images": 4}}, {"prompt": "B", "num_images": 2}]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    argv = ("batch-t2i", "--model", FLUX, "--prompts-file", "rows", "--max-cost")
    done = cli(*argv, "1.01")
    assert (done.status, paid(fal), done.error["type"]) == (2, [], "over_budget")
    assert total_cost(done.error) == pytest.approx(6 * 0.17)
    assert cli(*argv, "1.02").status == 0


@pytest.mark.parametrize("bad", ["0", "-4", "six", "true", "null", "[2]"])
def test_a_count_of_arg_that_is_none_has_no_price(fal: Sandbox, cli: Cli, bad: str) -> None:
    assert_unknown(fal, cli(*T2I, "--arg", f"num_images={bad}", "--max-cost", "9"))


@pytest.mark.parametrize("unit", ["image", "megapixels"])
def test_the_counts_of_each_job_of_a_batch_are_multiplied(
    fal: Sandbox, cli: Cli, tmp_path: Path, unit: str
) -> None:
    fal_says(fal, 0.1, unit, 0.2)
    rows = [{"prompt": "A", "extra": {"num_images": 4, "max_images": 6}}, {"prompt": "B"}]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    argv = ("batch-t2i", "--model", FLUX, "--no-schema", "--prompts-file", "rows")
    done = cli(*argv, "--max-cost", "2.49")
    assert (done.status, paid(fal)) == (2, [])
    assert done.error["type"] == "over_budget"
    assert total_cost(done.error) == pytest.approx(2.5)


NO_COUNTS: dict[str, str] = {
    "not a number": '"nan"',
    "infinite": '"inf"',
    "below nothing": "-15",
    "a part below nothing": "-0.5",
    "nothing": "0",
    "nothing in text": '"0"',
    "below nothing in text": '"-4"',
    "true": "true",
    "false": "false",
    "a word": '"six"',
    "no text": '""',
    "null": "null",
    "a list": "[2]",
    "an object": "{}",
}


def assert_unknown(fal: Sandbox, done: Any) -> None:
    assert (done.status, done.stdout, paid(fal), fal.uploads) == (2, "", [], [])
    assert done.error["type"] == "price_unknown"


@pytest.mark.parametrize("case", NO_COUNTS)
@pytest.mark.parametrize("name", ["num_images", "max_images", "num_outputs", "batch_size", "n"])
def test_a_count_that_is_none_has_no_price(fal: Sandbox, cli: Cli, name: str, case: str) -> None:
    extra = f'{{"{name}": {NO_COUNTS[case]}}}'
    assert_unknown(fal, cli(*T2I, "--extra-json", extra, "--max-cost", "1000"))


@pytest.mark.parametrize("case", [*NO_COUNTS, "of its own"])
def test_a_length_that_is_none_has_no_price(fal: Sandbox, cli: Cli, case: str) -> None:
    extra = f'{{"duration": {NO_COUNTS.get(case, json.dumps("auto"))}}}'
    assert_unknown(fal, cli(*I2V, "--extra-json", extra, "--max-cost", "1000"))


@pytest.mark.parametrize("case", ["below nothing", "nothing", "true", "null", "a word"])
def test_a_count_that_is_none_spoils_a_batch(
    fal: Sandbox, cli: Cli, tmp_path: Path, case: str
) -> None:
    row = f'{{"prompt": "B", "extra": {{"num_images": {NO_COUNTS[case]}}}}}'
    (tmp_path / "rows").write_text(f'{{"prompt": "A", "num_images": 4}}\n{row}\nC\n')
    argv = ("batch-t2i", "--model", FLUX, "--no-schema", "--prompts-file", "rows")
    assert_unknown(fal, cli(*argv, "--max-cost", "1000"))


def test_a_length_that_is_none_spoils_a_batch(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    rows = [{"image_url": A, "extra": {"duration": length}} for length in (5, -15, 10)]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    argv = ("batch-i2v", "--model", KLING, "--no-schema", "--prompt", "Go")
    assert_unknown(fal, cli(*argv, "--image-urls-file", "rows", "--max-cost", "1000"))


def test_a_count_that_is_none_spoils_another(fal: Sandbox, cli: Cli) -> None:
    """Fewer than no images, twice, would make more than none."""
    extra = '{"num_images": -4, "max_images": -6}'
    assert_unknown(fal, cli(*T2I, "--extra-json", extra, "--max-cost", "1000"))


FRACTIONS: dict[str, dict[str, Any]] = {
    "a tenth of four": {"num_images": 4, "n": 0.1},
    "an eighth of eight": {"num_images": 8, "max_images": 0.125},
    "one and a half": {"num_images": 1.5},
    "a half in text": {"num_outputs": "0.5"},
    "nearly one": {"batch_size": 0.999},
}


@pytest.mark.parametrize("unit", ["image", "megapixels", "seconds"])
@pytest.mark.parametrize("case", FRACTIONS)
def test_a_part_of_a_thing_is_no_count(fal: Sandbox, cli: Cli, case: str, unit: str) -> None:
    """It would make what the other counts come to less."""
    fal_says(fal, 0.17, unit, 0.17)
    extra = json.dumps({**FRACTIONS[case], "duration": 5})
    assert_unknown(fal, cli(*T2I, "--extra-json", extra, "--max-cost", "1000"))


def test_a_part_of_a_thing_spoils_a_batch(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    rows = [{"prompt": "A", "extra": {"num_images": count}} for count in (4, 0.5)]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    argv = ("batch-t2i", "--model", FLUX, "--no-schema", "--prompts-file", "rows")
    assert_unknown(fal, cli(*argv, "--max-cost", "1000"))


# Units that nobody counts

UNITS = ["video", "clip", "generation", "request", "megapixel", "Videos", "compute second", "step"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_job_takes_one_at_least_of_what_nobody_counts(fal: Sandbox, cli: Cli, unit: str) -> None:
    fal_says(fal, 0.5, unit, 0.03)
    done = cli(*THREE, "--max-cost", "1.49")
    assert (done.status, paid(fal)) == (2, [])
    assert done.error["type"] == "over_budget"
    assert total_cost(done.error) >= 1.5


def test_a_dry_run_tells_one_at_least_of_what_nobody_counts(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, 0.5, "video", 0.03)
    done = cli(*THREE, "--dry-run")
    assert [line["estimate"]["total_cost"] >= 1.5 for line in done.lines] == [True] * 3


@pytest.mark.parametrize("unit", ["megapixels", "compute seconds", "1000 tokens", "furlongs"])
def test_what_nobody_counts_needs_a_history(fal: Sandbox, cli: Cli, unit: str) -> None:
    fal_says(fal, 0.5, unit, 0)
    assert_unknown(fal, cli(*THREE, "--max-cost", "1000"))


def test_what_past_calls_did_cost_counts_if_it_is_more(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, 0.01, "video", 3)
    done = cli(*THREE, "--max-cost", "2.99")
    assert (done.status, paid(fal)) == (2, [])
    assert done.error["type"] == "over_budget"


# Units by the words of their names

QUANTITIES = {
    "sec": ({"duration": 90}, 90),
    "secs": ({"duration": 90}, 90),
    "Seconds": ({"duration": "90s"}, 90),
    "video second": ({"duration": 90}, 90),
    "seconds of video": ({"duration": 90}, 90),
    "minute": ({"duration": 90}, 1.5),
    "minutes of audio": ({"duration": 90}, 1.5),
    "output image": ({"num_outputs": 4}, 4),
    "generated videos": ({"num_videos": 4}, 4),
    "API call": ({"n": 4}, 4),
    "request(s)": ({"batch_size": 4}, 4),
    "seconds of each": ({"duration": 10, "num_videos": 4}, 40),
    "secs of each": ({"duration": "10s", "n": 2, "num_outputs": 3}, 60),
    "seconds, and a part of one": ({"duration": 2.5, "num_videos": 2}, 5),
    "minutes of each": ({"duration": 90, "num_outputs": 4}, 6),
}


@pytest.mark.parametrize("unit", QUANTITIES)
def test_a_unit_is_known_by_a_word_of_its_name(fal: Sandbox, cli: Cli, unit: str) -> None:
    """Without a history, what is not understood has no price."""
    extra, quantity = QUANTITIES[unit]
    fal_says(fal, 2, unit, 0)
    done = cli(*T2I, "--extra-json", json.dumps(extra), "--max-cost", str(2 * quantity - 0.01))
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])
    assert total_cost(done.error) == pytest.approx(2 * quantity)


@pytest.mark.parametrize(
    "unit", ["compute second", "seconds of compute", "input second", "secondary"]
)
def test_a_length_is_no_quantity_of_another_unit(fal: Sandbox, cli: Cli, unit: str) -> None:
    fal_says(fal, 2, unit, 0)
    assert_unknown(fal, cli(*T2I, "--extra-json", '{"duration": 90}', "--max-cost", "1000"))


@pytest.mark.parametrize(("unit", "whole"), [("minute", 60), ("second", 1)], ids=str)
def test_a_job_takes_one_unit_at_least(
    fal: Sandbox, cli: Cli, tmp_path: Path, unit: str, whole: int
) -> None:
    """Half a unit is billed as one, whatever more the others take."""
    rows = [{"prompt": "A", "extra": {"duration": share * whole}} for share in (0.5, 0.1, 3)]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    fal_says(fal, 1, unit, 0.01)
    argv = ("batch-t2i", "--model", FLUX, "--no-schema", "--prompts-file", "rows")
    done = cli(*argv, "--max-cost", "4.99")
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])
    assert total_cost(done.error) == pytest.approx(5)


# Several prices of one model

SECONDS_AND_VIDEOS = [(1.0, "video"), (0.5, "second")]


@pytest.mark.parametrize("prices", [SECONDS_AND_VIDEOS, SECONDS_AND_VIDEOS[::-1]], ids=str)
@pytest.mark.parametrize(
    ("extra", "cost"),
    [({"duration": 10}, 5), ({"duration": 1, "num_videos": 3}, 3)],
    ids=["by the second", "by the video"],
)
def test_each_price_of_a_model_is_counted(
    fal: Sandbox,
    cli: Cli,
    prices: list[tuple[float, str]],
    extra: dict[str, Any],
    cost: float,
) -> None:
    """The dearer unit may be the one of which less is taken."""
    fal_names(fal, prices, 0.01)
    argv = (*T2I, "--extra-json", json.dumps(extra), "--max-cost")
    done = cli(*argv, str(cost - 0.01))
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])
    assert total_cost(done.error) == pytest.approx(cost)
    assert cli(*argv, str(cost)).status == 0


@pytest.mark.parametrize("other", [(0.001, "furlong"), (0.001, "second"), (-1.0, "image")], ids=str)
def test_a_price_that_cannot_be_counted_spoils_the_others(
    fal: Sandbox, cli: Cli, other: tuple[float, str]
) -> None:
    fal_names(fal, [(0.5, "image"), other], 0)
    assert_unknown(fal, cli(*T2I, "--max-cost", "1000"))


NO_AMOUNTS: dict[str, dict[str, Any]] = {
    "null": {"unit_price": None, "unit": "video"},
    "none": {"unit": "video"},
    "another name": {"unit": "video", "price": 5},
    "a word": {"unit_price": "free", "unit": "video"},
}


@pytest.mark.parametrize("case", NO_AMOUNTS)
@pytest.mark.parametrize("place", ["alone", "first", "last"])
def test_a_price_without_an_amount_is_not_known(
    fal: Sandbox, cli: Cli, case: str, place: str
) -> None:
    """Whatever the others say: it may be the dearest."""
    ours = {"endpoint_id": FLUX, "currency": "USD", **NO_AMOUNTS[case]}
    other = {"endpoint_id": FLUX, "unit_price": 0.01, "unit": "image", "currency": "USD"}
    rows = {"alone": [ours], "first": [ours, other], "last": [other, ours]}[place]
    told = {"total_cost": 0.01, "currency": "USD"}
    fal.on("GET", "api.fal.ai", "*/pricing", fal.always(Reply(json={"prices": rows})))
    fal.on("POST", "api.fal.ai", "*/estimate", fal.always(Reply(json=told)))
    assert_unknown(fal, cli(*T2I, "--max-cost", "1000"))


# Time


def asks(path: str) -> Any:
    """Whether a request's path ends so."""

    def check(request: Recorded) -> bool:
        return request.path.endswith(path)

    return check


ASKED = {
    "submit": ("submit-t2i", "--model", FLUX, "--prompt", "A cat"),
    "subscribe": ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat"),
    "run": ("run-t2i", "--model", FLUX, "--prompt", "A cat"),
    "stream": ("stream-t2i", "--model", FLUX, "--prompt", "A cat"),
    "batch": ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "A dog"),
    "submit a video": ("submit-i2v", "--model", KLING, "--image-url", A, "--prompt", "Go"),
    "batch of videos": ("batch-i2v", "--model", KLING, "--image-urls", A, "--prompt", "Go"),
}
WHERE = {"the search": "/v1/models", "the price": "/pricing", "the estimate": "/estimate"}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("command", ASKED)
def test_a_dry_run_keeps_to_its_time(
    fal: Sandbox, late: Late, clock: Clock, command: str, where: str
) -> None:
    path = WHERE[where]
    fal.on("*", "api.fal.ai", f"*{path}", fal.always(Stall(FOR_EVER)))
    began = clock.now()
    done = late(*ASKED[command], "--dry-run", "--client-timeout", "1", once=asks(path))
    assert (done.status, done.stdout) == (5, "")
    assert done.error["type"] == "timeout"
    assert clock.now() - began < 2.5


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("command", ["submit", "batch"])
def test_a_command_keeps_to_its_time_before_it_pays(
    fal: Sandbox, late: Late, clock: Clock, command: str, where: str
) -> None:
    path = WHERE[where]
    fal.on("*", "api.fal.ai", f"*{path}", fal.always(Stall(FOR_EVER)))
    limits = ("--max-cost", "9", "--client-timeout", "1")
    done = late(*ASKED[command], *limits, once=asks(path))
    assert (done.status, done.stdout, paid(fal)) == (5, "", [])


@pytest.mark.parametrize(
    ("command", "path"), [("status", "/status"), ("result", "/status"), ("cancel", "/cancel")]
)
def test_a_command_about_a_job_keeps_to_its_time(
    fal: Sandbox, late: Late, command: str, path: str
) -> None:
    fal.on("*", "queue.fal.run", f"*{path}", fal.always(Stall(FOR_EVER)))
    about = ("--model", FLUX, "--request-id", "some-job", "--client-timeout", "1")
    done = late(command, *about, once=asks(path))
    assert (done.status, done.error["type"]) == (5, "timeout")
