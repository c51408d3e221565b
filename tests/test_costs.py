"""What jobs did cost: the units that fal billed, and what they come to by its list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from sandbox import Reply, Sandbox

FLUX = "fal-ai/flux/dev"
SCHNELL = "fal-ai/flux/schnell"
CLIP = "fal-ai/runway-gen3/turbo/image-to-video"
PHOTO = "https://example.com/a.png"
API, QUEUE = "api.fal.ai", "queue.fal.run"
RESULT = "*/requests/*-????????????"  # and not its status
T2I = ("--model", FLUX, "--prompt", "A cat")
BASIS = "a reckoning of billed units by fal's list prices of today, and not the bill"


def listed(unit: Any, amount: Any, *endpoints: str, currency: str = "USD") -> Reply:
    """fal's price list."""
    facts = {"unit_price": amount, "unit": unit, "currency": currency}
    rows = [{"endpoint_id": endpoint, **facts} for endpoint in endpoints or (FLUX,)]
    return Reply(json={"prices": rows, "next_cursor": None, "has_more": False})


def billing(units: Any, status: int = 200, body: Any = None) -> Reply:
    headers = {} if units is None else {"x-fal-billable-units": str(units)}
    return Reply(status, json=body or {"images": []}, headers=headers)


def billed(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("billed")]


# After a job


@pytest.mark.parametrize(
    ("units", "unit", "said"),
    [
        (2, "images", "2 images, 0.05 USD by fal's list"),
        (1, "image", "1 image, 0.025 USD by fal's list"),
        ("1.049", "megapixels", "1.049 megapixels, 0.026225 USD by fal's list"),
        (3, "5 seconds", "3 x 5 seconds, 0.075 USD by fal's list"),
        ("0.5", "compute seconds", "0.5 x compute seconds, 0.0125 USD by fal's list"),
        (123456, "1000 characters", "123456 x 1000 characters, 3086.40 USD by fal's list"),
        (0, "seconds", "0 seconds, 0.00 USD by fal's list"),
    ],
)
def test_the_units_are_told_in_fals_words(
    fal: Sandbox, cli: Cli, units: Any, unit: str, said: str
) -> None:
    fal.on("GET", API, "/v1/models/pricing", listed(unit, 0.025))
    fal.on("GET", QUEUE, RESULT, billing(units))
    done = cli("subscribe-t2i", *T2I, "--max-cost", "9")
    assert (done.status, done.stderr.splitlines()[-1]) == (0, f"billed: {said}")
    assert billed(done.stderr) == [f"billed: {said}"]


def test_each_command_tells_what_was_billed(fal: Sandbox, cli: Cli) -> None:
    four = ("--num-images", "4")
    assert billed(cli("subscribe-t2i", *T2I, *four).stderr) == ["billed: 4 units"]
    assert billed(cli("run-t2i", *T2I).stderr) == ["billed: 1 unit"]
    clip = ("--model", CLIP, "--image-url", PHOTO, "--max-cost", "9")
    (said,) = billed(cli("subscribe-i2v", *clip).stderr)
    assert said.startswith("billed: 5 seconds, ")
    headers = {"content-type": "text/event-stream", "x-fal-billable-units": "2"}
    fal.on("POST", "fal.run", "*", Reply(text='data: {"images": []}\n\n', headers=headers))
    assert billed(cli("stream-t2i", *T2I).stderr) == ["billed: 2 units"]
    submitted = cli("submit-t2i", *T2I)
    assert billed(submitted.stderr) == []
    argv = ("result", "--request-id", submitted.json["request_id"])
    assert billed(cli(*argv).stderr) == ["billed: 1 unit"]
    assert billed(cli(*argv, "--quiet").stderr) == []
    assert billed(cli("list-jobs", "--live").stderr) == []


def test_what_fal_does_not_tell_is_not_told(fal: Sandbox, cli: Cli) -> None:
    for units in (None, "many", "-1"):
        fal.on("GET", QUEUE, RESULT, billing(units))
        assert billed(cli("subscribe-t2i", *T2I).stderr) == []


def test_a_failure_tells_what_it_cost_nonetheless(fal: Sandbox, cli: Cli) -> None:
    for units, said in ((2, ["billed: 2 units"]), (0, [])):
        fal.on("GET", QUEUE, RESULT, billing(units, 422, {"detail": "No example today"}))
        done = cli("subscribe-t2i", *T2I)
        assert (done.status, billed(done.stderr)) == (1, said)
        assert done.error["status"] == 422


def test_of_several_prices_none_is_chosen(fal: Sandbox, cli: Cli) -> None:
    rows = [*listed("images", 0.02).json["prices"], *listed("requests", 0.03).json["prices"]]
    fal.on("GET", API, "/v1/models/pricing", Reply(json={"prices": rows}))
    done = cli("subscribe-t2i", *T2I, "--max-cost", "9")
    assert (done.status, billed(done.stderr)) == (0, ["billed: 1 unit"])


def metadata(folder: Path) -> Any:
    (path,) = folder.glob("*.json")
    document = json.loads(path.read_text())
    return document["billable_units"], document["list_price_usd"]


def test_metadata_have_units_and_list_price(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    argv = ("subscribe-t2i", *T2I, "--metadata", "--output")
    assert cli(*argv, "one/").status == 0
    assert metadata(tmp_path / "one") == (1, None)
    fal.on("GET", API, "/v1/models/pricing", fal.always(listed("images", 0.04)))
    assert cli(*argv, "two/", "--max-cost", "9").status == 0
    assert metadata(tmp_path / "two") == (1, 0.04)
    batch = ("batch-t2i", "--model", FLUX, "--prompts", "A", "--metadata", "--max-cost", "9")
    done = cli(*batch, "--output", "three/")
    assert metadata(tmp_path / "three") == (1, 0.04)
    said = "1 billable unit (0.04 USD by fal's list), estimated at "
    assert said in done.stderr.splitlines()[-1]
    assert billed(done.stderr) == []


# list-jobs --costs


def write_list(folder: Path, *jobs: tuple[str, str, Mapping[str, Any]]) -> None:
    """A list of these jobs: when they were sent, where to, and what else is known."""
    path = folder / ".local/state/fal-skill/jobs.jsonl"
    path.parent.mkdir(parents=True)
    lines = []
    for number, (at, model, facts) in enumerate(jobs):
        job = {"job": f"{number:032x}-1"}
        sent = {**job, "state": "sent", "at": at, "model": model, "command": "run-t2i", "about": ""}
        lines += [sent, {**job, "state": "done", "at": at, **facts}]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


EVENING, NIGHT = "2026-03-01T23:59:59Z", "2026-03-02T00:00:01Z"


def write_some(folder: Path) -> None:
    write_list(
        folder,
        (EVENING, FLUX, {"billable_units": 0.1, "state": "failed", "error": {"type": "odd"}}),
        (EVENING, SCHNELL, {"billable_units": 4}),
        (EVENING, FLUX, {"billable_units": 0.2}),
        (NIGHT, FLUX, {"billable_units": 3}),
        (NIGHT, FLUX, {}),
        (NIGHT, "somebody/secret", {"billable_units": 7}),
        (NIGHT, "somebody/silent", {}),
    )


def test_costs_are_summed_by_day_and_endpoint(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    write_some(tmp_path)
    prices = listed("images", 0.1, FLUX).json["prices"]
    prices += listed("megapixels", 0.003, SCHNELL).json["prices"]
    fal.on("GET", API, "/v1/models/pricing", fal.always(Reply(json={"prices": prices})))
    done = cli("list-jobs", "--costs")
    assert done.status == 0
    assert done.stdout.splitlines() == [
        "2026-03-02\tsomebody/silent\t1\t-\t-\t-",
        "2026-03-02\tsomebody/secret\t1\t7\t-\t-",
        f"2026-03-02\t{FLUX}\t2\t3\timages\t0.30",
        f"2026-03-01\t{FLUX}\t2\t0.3\timages\t0.03",
        f"2026-03-01\t{SCHNELL}\t1\t4\tmegapixels\t0.012",
        "total\t-\t7\t-\t-\t0.342",
    ]
    assert done.stderr.splitlines() == [
        "note: fal names no price of somebody/secret: what its jobs come to is not known",
        "note: 2 of 7 jobs are in no sum: fal has told no units of them, as of no call of realtime;"
        " --live asks about those that have not ended",
        f"note: costs are {BASIS}, which is at https://fal.ai/dashboard/billing",
    ]
    (request,) = fal.requests
    assert request.headers["authorization"].startswith("Key ")
    rows = cli("list-jobs", "--costs", "--json", "--model", "fal-ai/flux").json
    assert rows[0] == {
        "day": "2026-03-02",
        "endpoint": FLUX,
        "jobs": 2,
        "units": 3,
        "unit": "images",
        "usd": 0.3,
        "unknown": 1,
    }
    assert [row["usd"] for row in rows] == [0.3, 0.03, 0.012, 0.342]
    assert rows[-1] == {**dict.fromkeys(rows[0]), **rows[-1], "day": "total", "basis": BASIS}
    assert [row["jobs"] for row in rows] == [2, 2, 1, 5]
    assert [row["jobs"] for row in cli("list-jobs", "--costs", "--json", "--limit", "1").json] == [
        *(1, 1),
    ]
    found = cli("list-jobs", "--costs", "--json", "--search", "schnell").json
    assert [row["endpoint"] for row in found] == [SCHNELL, None]


ODD_PRICES = {
    "of another currency": listed("images", 0.1, currency="EUR"),
    "none": listed("images", None),
    "no number": listed("images", "much"),
    "several": Reply(
        json={"prices": [*listed("a", 1).json["prices"], *listed("b", 2).json["prices"]]}
    ),
    "unknown": Reply(404, json={"error": {"message": "No such"}}),
}


def test_odd_prices_leave_units_alone(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    write_list(tmp_path, (NIGHT, FLUX, {"billable_units": 3}))
    for name, reply in ODD_PRICES.items():
        fal.on("GET", API, "/v1/models/pricing", reply)
        done = cli("list-jobs", "--costs", "--json")
        assert done.status == 0, name
        assert [(row["units"], row["usd"]) for row in done.json] == [(3, None), (None, None)], name
        assert f"{FLUX}: what its jobs come to is not known" in done.stderr, name


def test_an_endpoint_that_is_gone_takes_no_other_with_it(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    write_list(
        tmp_path,
        (NIGHT, "somebody/gone", {"billable_units": 3}),
        (NIGHT, FLUX, {"billable_units": 1}),
    )
    fal.on("GET", API, "/v1/models/pricing", Reply(404, json={"error": {"message": "No such"}}))
    rows = cli("list-jobs", "--costs", "--json").json
    assert [(row["endpoint"], row["usd"] is None) for row in rows[:2]] == [
        (FLUX, False),
        ("somebody/gone", True),
    ]


def test_many_endpoints_are_asked_about_in_parts(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """fal takes 50 at once."""
    jobs = [(NIGHT, f"somebody/{number}", {"billable_units": 1}) for number in range(120)]
    write_list(tmp_path, *jobs)
    fal.on("GET", API, "/v1/models/pricing", fal.always(Reply(json={"prices": []})))
    done = cli("list-jobs", "--costs", "--json")
    assert (done.status, len(done.json), len(fal.requests)) == (0, 121, 3)


def test_nothing_to_price_asks_nobody(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    no_key = {"FAL_KEY": ""}
    done = cli("list-jobs", "--costs", "--json", env=no_key)
    assert (done.status, done.json, done.stderr) == (0, [], "note: no job matches\n")
    write_list(tmp_path, (NIGHT, FLUX, {}))
    done = cli("list-jobs", "--costs", env=no_key)
    lines = [f"2026-03-02\t{FLUX}\t1\t-\t-\t-", "total\t-\t1\t-\t-\t-"]
    assert (done.status, done.stdout.splitlines()) == (0, lines)
    assert fal.requests == []


def test_prices_need_a_key_and_an_answer(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    write_list(tmp_path, (NIGHT, FLUX, {"billable_units": 1}))
    done = cli("list-jobs", "--costs", env={"FAL_KEY": ""})
    assert (done.status, done.stdout, done.error["type"]) == (3, "", "credentials_missing")
    fal.on("GET", API, "/v1/models/pricing", fal.always(Reply(500, json={})))
    done = cli("list-jobs", "--costs")
    assert (done.status, done.stdout) == (1, "")
    done = cli("list-jobs", "--costs", "--account", "--model", FLUX)
    assert (done.status, done.error["type"]) == (2, "usage_error")


def test_a_job_counts_from_its_command_to_the_sum(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", API, "/v1/models/pricing", fal.always(listed("images", 0.02)))
    assert cli("subscribe-t2i", *T2I, "--num-images", "3").status == 0
    assert cli("submit-t2i", *T2I).status == 0
    before = cli("list-jobs", "--costs", "--json").json[-1]
    after = cli("list-jobs", "--costs", "--json", "--live").json[-1]
    assert [(row["jobs"], row["unknown"], row["usd"]) for row in (before, after)] == [
        (2, 1, 0.06),
        (2, 0, 0.08),
    ]
