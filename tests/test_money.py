"""What jobs cost: --max-cost, the estimate of --dry-run, list-models --price, a batch's sum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import FOR_EVER, LEAP, Cli, Clock, leaping, paid
from sandbox import Cut, Reply, Sandbox, Stall
from sandbox.scripting import Recorded

FLUX = "fal-ai/flux/dev"  # 0.17 USD an image
KLING = "fal-ai/kling-video/v2/master/image-to-video"  # 0.39 USD a second
VEO = "fal-ai/veo3.1/image-to-video"  # 0.18 USD a second, 8 seconds by default
WAN = "fal-ai/wan/v2.2-a14b/image-to-video"  # 0.25 USD a second; frames, not seconds
KOLORS = "fal-ai/kolors"  # no price
A = "https://example.com/a.png"
PICTURES = ("One", "Two", "Three", "Four", "Five")

T2I = ("--model", FLUX, "--prompt", "A cat")
BATCH = ("--model", FLUX, "--prompts", *PICTURES)
I2V = ("--model", KLING, "--image-url", "photo.jpg", "--prompt", "Rain")
COMMANDS = {
    "submit-t2i": (T2I, 0.17),
    "subscribe-t2i": (T2I, 0.17),
    "run-t2i": (T2I, 0.17),
    "stream-t2i": (T2I, 0.17),
    "batch-t2i": (BATCH, 0.85),
    "submit-i2v": (I2V, 1.95),
    "subscribe-i2v": (I2V, 1.95),
    "run-i2v": (I2V, 1.95),
    "stream-i2v": (I2V, 1.95),
    "batch-i2v": (("--model", KLING, "--image-urls", "photo.jpg", A, "--prompt", "Rain"), 3.9),
}
BASES = {
    "batch-t2i": "5 images x 0.17 USD an image",
    "batch-i2v": "2 clips x 5 s x 0.39 USD a second",
    "t2i": "1 image x 0.17 USD an image",
    "i2v": "1 clip x 5 s x 0.39 USD a second",
}


@pytest.fixture
def cli(cli: Cli, clock: Clock) -> Cli:
    """Runs skill_fal.py; to look for a lost job on the account takes no time."""
    return leaping(cli, clock)


def questions(fal: Sandbox) -> list[Recorded]:
    """What fal was asked about prices."""
    return [request for request in fal.requests if "/pricing" in request.path]


def quantities(fal: Sandbox) -> list[Any]:
    """For how many calls of which endpoint fal was asked to say the price."""
    return [request.json["endpoints"] for request in questions(fal) if request.method == "POST"]


def price(amount: Any, unit: str = "image", currency: str = "USD", model: str = FLUX) -> Reply:
    row = {"endpoint_id": model, "unit_price": amount, "unit": unit, "currency": currency}
    return Reply(200, json={"prices": [row], "next_cursor": None, "has_more": False})


def history(amount: Any, currency: str = "USD") -> Reply:
    told = {"estimate_type": "historical_api_price", "total_cost": amount, "currency": currency}
    return Reply(200, content=json.dumps(told).encode())  # NaN, too


def fal_says(fal: Sandbox, unit_price: Reply | None, calls: Reply | None) -> None:
    for method, path, reply in (("GET", "pricing", unit_price), ("POST", "estimate", calls)):
        if reply:
            fal.on(method, "api.fal.ai", f"*/{path}", fal.always(reply))


def dry(cli: Cli, command: str, *argv: str) -> Any:
    done = cli(command, *argv, "--dry-run")
    assert (done.status, done.stderr) == (0, ""), done.stderr
    return done.json


# --max-cost


@pytest.mark.parametrize("command", ["submit", "subscribe", "run", "stream", "batch"])
def test_a_limit_lets_through_what_costs_no_more(fal: Sandbox, cli: Cli, command: str) -> None:
    argv, cost = COMMANDS[f"{command}-t2i"]
    done = cli(f"{command}-t2i", *argv, "--max-cost", str(cost))
    assert done.status == 0, done.stderr
    jobs = 5 if command == "batch" else 1
    assert len(paid(fal)) == jobs
    assert sorted((r.method, r.path) for r in questions(fal)) == [
        ("GET", "/v1/models/pricing"),
        ("POST", "/v1/models/pricing/estimate"),
    ]
    assert quantities(fal) == [{FLUX: {"call_quantity": jobs}}]
    first_job = next(request for request in fal.requests if request.host.endswith("fal.run"))
    for request in questions(fal):
        assert request.headers["authorization"].startswith("Key ")
        assert fal.requests.index(request) < fal.requests.index(first_job)


@pytest.mark.parametrize("command", COMMANDS)
def test_above_the_limit_nothing_is_sent(fal: Sandbox, cli: Cli, photo: Path, command: str) -> None:
    argv, cost = COMMANDS[command]
    basis = BASES.get(command) or BASES[command[-3:]]
    done = cli(command, *argv, "--max-cost", str(round(cost - 0.01, 2)))
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "over_budget")
    assert {row["field"]: row["message"] for row in done.error["details"]} == {
        "jobs": {"batch-t2i": "5", "batch-i2v": "2"}.get(command, "1"),
        "total_cost": str(cost),
        "currency": "USD",
        "basis": basis,
    }
    assert f"may cost {cost} USD ({basis}), more than --max-cost" in done.error["message"]
    assert done.error["retryable"] is False
    assert "list-models --price" in done.error["hint"]
    assert {request.host for request in fal.requests} == {"api.fal.ai"}
    assert (fal.uploads, fal.jobs) == ([], {})
    assert "billable" not in done.stderr


def test_without_a_limit_nothing_is_asked(fal: Sandbox, cli: Cli) -> None:
    assert cli("submit-t2i", *T2I).status == 0
    assert cli("batch-t2i", *BATCH).status == 0
    assert questions(fal) == []


UNKNOWN: dict[str, tuple[Reply | None, Reply | None, str]] = {
    "an error": (Reply(500, json={"error": {"type": "server_error", "message": "Oh"}}), None, "Oh"),
    "no estimate": (None, Reply(404, json={"error": {"message": "No such"}}), "No such"),
    "no price": (Reply(200, json={"prices": []}), None, "fal names no price"),
    "another's price": (price(0.1, model="a/b"), None, "fal names no price"),
    "an empty price": (price(None), None, "None USD"),
    "no amount": (price("much"), None, "much USD"),
    "euros": (price(0.1, currency="EUR"), None, "0.1 EUR"),
    "yen": (None, history(0.1, "JPY"), "0.1 JPY"),
    "less than nothing": (None, history(-1), "-1 USD"),
    "not a number": (None, history(float("nan")), "nan USD"),
    "no history": (price(0.1, "furlongs"), history(0), "no history"),
    "HTML": (None, Reply(200, text="<html>"), "cannot be read"),
    "a list": (Reply(200, json=[1]), None, "cannot be read"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_price_that_is_not_known_is_above_any_limit(fal: Sandbox, cli: Cli, case: str) -> None:
    unit_price, calls, said = UNKNOWN[case]
    fal_says(fal, unit_price, calls)
    done = cli("batch-t2i", *BATCH, "--max-cost", "1000")
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "price_unknown")
    assert said in done.error["message"]
    assert f"the price of 5 jobs of {FLUX} is not known" in done.error["message"]
    assert "--max-cost" in done.error["hint"]
    assert done.error["retryable"] == (case == "an error")
    assert paid(fal) == []
    assert len(done.stderr.splitlines()) == 1


def test_a_model_without_a_price(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", "--model", KOLORS, "--prompt", "A cat", "--max-cost", "9")
    assert (done.status, done.error["type"], done.error["status"]) == (2, "price_unknown", 404)
    assert paid(fal) == []


def test_a_model_that_costs_nothing(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, price(0), history(0))
    assert cli("submit-t2i", *T2I, "--max-cost", "0.01").status == 0


def test_one_question_that_fails_ends_the_other(fal: Sandbox, cli: Cli) -> None:
    fal.on("POST", "api.fal.ai", "*/estimate", Stall(FOR_EVER))
    fal_says(fal, Reply(403, json={"error": {"message": "Not with this key"}}), None)
    done = cli("submit-t2i", *T2I, "--max-cost", "1")
    assert (done.status, done.error["type"], done.error["status"]) == (2, "price_unknown", 403)
    assert len(done.stderr.splitlines()) == 1


def test_a_limit_needs_the_key(fal: Sandbox, cli: Cli) -> None:
    for switch in ((), ("--dry-run",)):
        done = cli("submit-t2i", *T2I, "--max-cost", "1", *switch, env={"FAL_KEY": ""})
        assert (done.status, done.stdout, done.error["type"]) == (3, "", "credentials_missing")
    assert questions(fal) == []


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1 USD", ""])
def test_a_limit_is_an_amount(fal: Sandbox, cli: Cli, text: str) -> None:
    done = cli("submit-t2i", *T2I, f"--max-cost={text}")
    assert (done.status, done.error["type"], fal.requests) == (2, "usage_error", [])
    assert "--max-cost" in done.error["message"]


@pytest.mark.parametrize(
    "argv", [("--num-images", "4"), ("--extra-json", '{"num_images": 4}')], ids=["flag", "extra"]
)
def test_all_images_count(fal: Sandbox, cli: Cli, argv: tuple[str, ...]) -> None:
    done = cli("submit-t2i", *T2I, *argv, "--max-cost", "0.67")
    assert (done.status, paid(fal)) == (2, [])
    assert "0.68 USD (4 images x 0.17 USD an image)" in done.error["message"]
    assert cli("submit-t2i", *T2I, *argv, "--max-cost", "0.68").status == 0


def test_the_images_of_each_job_of_a_batch_count(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text('{"prompt": "A", "num_images": 3}\nB\n')
    argv = ("--model", FLUX, "--prompts-file", "jobs", "--num-images", "2")
    done = cli("batch-t2i", *argv, "--max-cost", "0.5")
    assert "2 jobs may cost 0.85 USD (5 images x 0.17 USD an image)" in done.error["message"]


def test_a_job_makes_an_image_where_nothing_tells_how_many(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, price(1), history(0.2))
    estimate = dry(cli, "submit-t2i", *T2I, "--no-schema")["estimate"]
    assert (estimate["total_cost"], estimate["basis"]) == (1, "1 image x 1 USD an image")


def test_the_cents_of_an_estimate_are_exact(fal: Sandbox, cli: Cli) -> None:
    """As binary fractions, three times 0.1 is more than 0.3."""
    fal_says(fal, price(0.1), history(0.2))
    argv = ("--model", FLUX, "--prompts", "A", "B", "C")
    assert cli("batch-t2i", *argv, "--max-cost", "0.3").status == 0


ALONE = "what a call cost on average in the past, from history alone"
UNKNOWN_UNIT = "how much of that unit a job takes is not known before it has run"


@pytest.mark.parametrize(
    ("unit", "cost", "basis"),
    [
        ("image", 4, "4 images x 1 USD an image"),
        (" Images", 4, "4 images x 1 USD an image"),
        ("megapixels", 10, "4 images x what a call cost on average in the past"),
        ("seconds", 10, f"4 clips x {ALONE}: how long the result will be is not known"),
        ("", 10, f"4 images x {ALONE}: {UNKNOWN_UNIT}"),
        ("None", 10, f"4 images x {ALONE}: {UNKNOWN_UNIT}"),
    ],
)
def test_the_unit_of_the_price_tells_what_counts(
    fal: Sandbox, cli: Cli, unit: str, cost: float, basis: str
) -> None:
    fal_says(fal, price(1, unit), history(2.5))
    estimate = dry(cli, "submit-t2i", *T2I, "--num-images", "4")["estimate"]
    assert estimate == {"jobs": 1, "total_cost": cost, "currency": "USD", "basis": basis}


@pytest.mark.parametrize(
    ("model", "argv", "cost", "basis"),
    [
        (KLING, (), 1.95, "1 clip x 5 s x 0.39 USD a second"),
        (KLING, ("--duration", "10"), 3.9, "1 clip x 10 s x 0.39 USD a second"),
        (VEO, ("--duration", "4"), 0.9, "what 1 call cost on average in the past"),
        (VEO, ("--duration", "8"), 1.44, "1 clip x 8 s x 0.18 USD a second"),
        (VEO, (), 1.44, "1 clip x 8 s x 0.18 USD a second"),
        (
            WAN,
            (),
            1.265625,
            "1 clip x 5.062 s (81 frames at 16 a second) x 0.25 USD a second",
        ),
    ],
)
def test_seconds_count(
    cli: Cli, model: str, argv: tuple[str, ...], cost: float, basis: str
) -> None:
    request = dry(cli, "submit-i2v", "--model", model, "--image-url", A, "--prompt", "Rain", *argv)
    assert (request["estimate"]["total_cost"], request["estimate"]["basis"]) == (cost, basis)


# --dry-run


def test_a_dry_run_estimates(fal: Sandbox, cli: Cli) -> None:
    request = dry(cli, "submit-t2i", *T2I, "--num-images", "3")
    basis = "3 images x 0.17 USD an image"
    expected = {"jobs": 1, "total_cost": 0.51, "currency": "USD", "basis": basis}
    assert (request["estimate"], request["notes"]) == (expected, [])
    assert paid(fal) == []


def test_a_dry_run_needs_neither_key_nor_network(fal: Sandbox, cli: Cli) -> None:
    done = cli("submit-t2i", *T2I, "--dry-run", env={"FAL_KEY": ""})
    assert (done.status, done.stderr, done.json["estimate"]) == (0, "", None)
    assert done.json["notes"] == ["no estimate: no fal.ai key: FAL_KEY is not set"]
    assert questions(fal) == []
    fal.on("*", "api.fal.ai", "*", fal.always(Cut("request")))
    done = cli("submit-t2i", *T2I, "--dry-run")
    assert (done.status, done.stderr, done.json["estimate"]) == (0, "", None)
    assert f"no estimate: the price of 1 job of {FLUX} is not known" in done.json["notes"][-1]


def test_a_dry_run_of_a_model_without_a_price(cli: Cli) -> None:
    request = dry(cli, "run-t2i", "--model", KOLORS, "--prompt", "A cat")
    assert request["estimate"] is None
    assert "no estimate" in request["notes"][-1]


def test_a_dry_run_of_a_batch_asks_once(fal: Sandbox, cli: Cli) -> None:
    done = cli("batch-t2i", *BATCH, "--dry-run", "--max-cost", "0.85")
    basis = BASES["batch-t2i"]
    whole = {"jobs": 5, "total_cost": 0.85, "currency": "USD", "basis": basis}
    assert [line["estimate"] for line in done.lines] == [whole] * 5
    assert quantities(fal) == [{FLUX: {"call_quantity": 5}}]


@pytest.mark.parametrize("command", ["submit-t2i", "batch-t2i"])
def test_a_dry_run_keeps_to_the_limit(fal: Sandbox, cli: Cli, command: str) -> None:
    done = cli(command, *COMMANDS[command][0], "--dry-run", "--max-cost", "0.16")
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "over_budget")
    argv = ("--model", KOLORS, *COMMANDS[command][0][2:], "--dry-run", "--max-cost", "9")
    done = cli(command, *argv)
    assert (done.status, done.stdout, done.error["type"]) == (2, "", "price_unknown")


# Journals


def cut_short(journal: Path, ends: tuple[str, ...]) -> None:
    """Take the journal back to where its jobs, in order, were in these states."""
    steps = [json.loads(line) for line in journal.read_text().splitlines()]
    order = ("sent", "accepted", "done")
    names = {step["about"]: step["job"] for step in steps if step["state"] == "sent"}
    last = {names[name]: order.index(end) for name, end in zip(PICTURES, ends, strict=True)}
    kept = [step for step in steps if order.index(step["state"]) <= last[step["job"]]]
    journal.write_text("".join(json.dumps(step) + "\n" for step in kept))


@pytest.mark.parametrize(
    ("switches", "count"),
    [((), 2), (("--retry-unknown",), 4), (("--retry-failed",), 3)],
    ids=["none", "unknown", "failed"],
)
def test_only_what_will_be_submitted_counts(
    fal: Sandbox, cli: Cli, tmp_path: Path, switches: tuple[str, ...], count: int
) -> None:
    """Of seven jobs, two are new, two in doubt, one accepted, and two done."""
    journal = tmp_path / "journal"
    assert cli("batch-t2i", *BATCH, "--journal", "journal").status == 0
    cut_short(journal, ("done", "sent", "accepted", "sent", "done"))
    before, jobs = journal.read_text(), len(fal.jobs)
    argv = (*BATCH, "Six", "Seven", "--journal", "journal", *switches)
    cost = round(count * 0.17, 2)
    done = cli("batch-t2i", *argv, "--dry-run")
    assert {line["estimate"]["jobs"] for line in done.lines} == {count}
    done = cli("batch-t2i", *argv, "--max-cost", str(cost - 0.01))
    assert (done.status, done.error["type"]) == (2, "over_budget")
    assert (journal.read_text(), len(fal.jobs)) == (before, jobs)
    done = cli("batch-t2i", *argv, "--max-cost", str(cost))
    assert f"estimated at {cost} USD" in done.stderr
    assert quantities(fal) == [{FLUX: {"call_quantity": count}}] * 3


def test_a_journal_that_has_all_asks_nothing(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, None, Reply(500))
    argv = (*BATCH, "--journal", "journal")
    assert cli("batch-t2i", *argv).status == 0
    done = cli("batch-t2i", *argv, "--max-cost", "0.01")
    assert (done.status, len(done.lines), questions(fal)) == (0, 5, [])


def test_a_dry_run_makes_no_journal(cli: Cli, tmp_path: Path) -> None:
    done = cli("batch-t2i", *BATCH, "--journal", "journal", "--dry-run")
    assert (done.status, (tmp_path / "journal").exists()) == (0, False)


# A batch's sum


def last_line(stderr: str) -> str:
    return [line for line in stderr.splitlines() if not line.startswith("{")][-1]


def test_a_batch_ends_with_a_sum(cli: Cli) -> None:
    argv = ("--model", FLUX, "--prompts", "A", "B", "--num-images", "3")
    done = cli("batch-t2i", *argv, "--max-cost", "2")
    billed = "6 billable units (1.02 USD by fal's list)"
    said = f"jobs: 2 done, 0 failed, 0 skipped, {billed}, estimated at 1.02 USD"
    assert done.stderr.splitlines()[-1] == said
    assert cli("batch-t2i", *argv, "--max-cost", "2", "--quiet").stderr == ""


def test_the_sum_stands_before_the_error(cli: Cli) -> None:
    argv = ("--model", FLUX, "--prompts", "A", "[nsfw]", "[fail]", "B", "C")
    done = cli("batch-t2i", *argv)
    assert done.stderr.splitlines()[-2] == "jobs: 3 done, 2 failed, 0 skipped, 3 billable units"
    assert done.error["type"] == "batch_failed"
    quiet = cli("batch-t2i", *argv, "--quiet")
    assert [list(json.loads(line)) for line in quiet.stderr.splitlines()] == [["error"]]


def test_results_from_the_journal_are_skipped_and_not_billed(cli: Cli) -> None:
    argv = ("batch-t2i", "--model", FLUX, "--journal", "journal", "--prompts", "A", "B")
    assert cli(*argv).status == 0
    said = "jobs: 1 done, 0 failed, 2 skipped, 1 billable unit"
    assert last_line(cli(*argv, "C").stderr) == said
    assert last_line(cli(*argv).stderr) == "jobs: 0 done, 0 failed, 2 skipped"


def test_the_sum_of_a_batch_that_is_given_up(cli: Cli, clock: Clock) -> None:
    argv = ("--model", FLUX, "--prompts", "A", "[slow]", "--client-timeout", "5")
    done = cli("batch-t2i", *argv, env=clock.env(LEAP))
    assert (done.status, last_line(done.stderr)) == (
        5,
        "jobs: 1 done, 0 failed, 0 skipped, 1 billable unit",
    )


RESULT = "*/requests/*-????????????"  # and not its status


@pytest.mark.parametrize("told", [None, "", "many", "nan", "-1", "inf"])
def test_units_that_are_not_told_are_left_out(fal: Sandbox, cli: Cli, told: str | None) -> None:
    headers = {} if told is None else {"X-Fal-Billable-Units": told}
    fal.on("GET", "queue.fal.run", RESULT, Reply(200, json={"images": []}, headers=headers))
    argv = ("--model", FLUX, "--prompts", "A", "B")
    alone = last_line(cli("batch-t2i", *argv).stderr)
    assert alone == "jobs: 2 done, 0 failed, 0 skipped, 1 billable unit"
    fal.on("GET", "queue.fal.run", RESULT, fal.always(Reply(200, json={}, headers=headers)))
    assert last_line(cli("batch-t2i", *argv).stderr) == "jobs: 2 done, 0 failed, 0 skipped"


def test_parts_of_units_add_up(fal: Sandbox, cli: Cli) -> None:
    for told in ("0.1", "0.2"):
        headers = {"X-Fal-Billable-Units": told}
        fal.on("GET", "queue.fal.run", RESULT, Reply(200, json={}, headers=headers))
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A", "B")
    assert last_line(done.stderr).endswith("0 skipped, 0.3 billable units")


def test_a_result_that_is_fetched_twice_counts_once(fal: Sandbox, cli: Cli) -> None:
    fal.on("GET", "queue.fal.run", RESULT, Cut("body"))
    done = cli("batch-t2i", "--model", FLUX, "--prompts", "A")
    assert len([r for r in fal.requests if r.path.endswith(next(iter(fal.jobs)))]) == 2
    assert last_line(done.stderr).endswith("0 skipped, 1 billable unit")


# list-models --price


def test_prices_as_text(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--price", KLING, FLUX, KLING)
    assert (done.status, done.stderr) == (0, "")
    lines = [f"{KLING}\t0.39\tseconds\tUSD", f"{FLUX}\t0.17\timage\tUSD"]
    assert done.stdout.splitlines() == lines
    (request,) = fal.requests
    assert request.headers["authorization"].startswith("Key ")


def test_prices_as_json(cli: Cli) -> None:
    (found,) = cli("list-models", "--price", FLUX, "--json").json
    expected = {"endpoint_id": FLUX, "unit_price": 0.17, "unit": "image", "currency": "USD"}
    assert found == expected


def test_a_price_that_is_missing_is_noted(cli: Cli) -> None:
    done = cli("list-models", "--price", FLUX, KOLORS)
    assert (done.status, done.stdout) == (0, f"{FLUX}\t0.17\timage\tUSD\n")
    assert done.stderr == f"note: fal names no price of {KOLORS}\n"
    assert cli("list-models", "--price", FLUX, KOLORS, "--quiet").stderr == ""


def test_no_price_at_all(cli: Cli) -> None:
    done = cli("list-models", "--price", KOLORS, "a/b")
    assert (done.status, done.stdout, done.error["type"]) == (1, "", "not_found")
    assert KOLORS in done.error["message"]
    assert "a/b" in done.error["message"]


def test_prices_need_the_key(fal: Sandbox, cli: Cli) -> None:
    done = cli("list-models", "--price", FLUX, env={"FAL_KEY": ""})
    assert (done.status, done.error["type"], fal.requests) == (3, "credentials_missing", [])
    done = cli("list-models", "--price", FLUX, env={"FAL_KEY": "wrong:secret-of-nobody"})
    assert (done.status, done.stdout, done.error["type"]) == (3, "", "authorization_error")


def test_a_price_cannot_steer_the_terminal(fal: Sandbox, cli: Cli) -> None:
    fal_says(fal, price(0.1, "image\n\x1b[2J\ta/b"), None)
    done = cli("list-models", "--price", FLUX)
    assert done.stdout == f"{FLUX}\t0.1\timage  [2J a/b\tUSD\n"


def test_prices_come_in_pages(fal: Sandbox, cli: Cli) -> None:
    row = {"endpoint_id": FLUX, "unit_price": 0.17, "unit": "image", "currency": "USD"}
    page = {"prices": [row], "next_cursor": "Mg==", "has_more": True}
    fal.on("GET", "api.fal.ai", "*/pricing", Reply(200, json=page))
    done = cli("list-models", "--price", FLUX, KLING)
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [FLUX, KLING]
    assert [request.query.get("cursor") for request in fal.requests] == [None, "Mg=="]


def test_many_prices_take_no_time(fal: Sandbox, cli: Cli) -> None:
    """Each is looked at once: to compare all with all would outlast the test's patience."""
    rows = [
        {"endpoint_id": FLUX, "unit_price": number, "unit": "image", "currency": "USD"}
        for number in range(1, 20_001)
    ]
    page = {"prices": rows + rows[:1], "next_cursor": None, "has_more": False}
    fal.on("GET", "api.fal.ai", "*/pricing", Reply(200, json=page))
    done = cli("list-models", "--price", FLUX)
    assert len(done.stdout.splitlines()) == 20_000


@pytest.mark.parametrize("images", ['"nan"', '"inf"'])
def test_what_is_no_finite_number_has_no_price(fal: Sandbox, cli: Cli, images: str) -> None:
    extra = f'{{"num_images": {images}}}'
    done = cli("submit-t2i", *T2I, "--extra-json", extra, "--max-cost", "9", "--no-schema")
    assert (done.status, done.error["type"], paid(fal)) == (2, "price_unknown", [])


# What makes a limit too generous


@pytest.mark.parametrize("images", ['"+4"', '" 4 "', '"4e0"', "4"])
def test_a_number_in_text_is_a_number(fal: Sandbox, cli: Cli, images: str) -> None:
    extra = f'{{"num_images": {images}}}'
    done = cli("submit-t2i", *T2I, "--extra-json", extra, "--max-cost", "0.17", "--no-schema")
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])


@pytest.mark.parametrize("images", ['"many"', "[4]", '{"a": 1}'])
def test_a_number_that_cannot_be_read_has_no_price(fal: Sandbox, cli: Cli, images: str) -> None:
    extra = f'{{"num_images": {images}}}'
    done = cli("submit-t2i", *T2I, "--extra-json", extra, "--max-cost", "9", "--no-schema")
    assert (done.status, done.error["type"], paid(fal)) == (2, "price_unknown", [])


def test_four_images_cost_four_times_what_a_call_did(fal: Sandbox, cli: Cli) -> None:
    """Whatever the unit is: nobody knows how many images the calls of the past made."""
    fal_says(fal, price(0.025, "megapixels"), history(0.025))
    done = cli("submit-t2i", *T2I, "--num-images", "4", "--max-cost", "0.03")
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])


def test_no_job_rides_along_with_one_that_has_a_price(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    fal_says(fal, price(0.39, "seconds", model=KLING), history(0))
    rows = [{"image_url": A, "extra": {"duration": "5"}}, {"image_url": A}]
    (tmp_path / "rows.txt").write_text("\n".join(map(json.dumps, rows)))
    argv = ("--model", KLING, "--image-urls-file", "rows.txt", "--no-schema", "--max-cost", "9")
    done = cli("batch-i2v", *argv, "--prompt", "Rain")
    assert (done.status, done.error["type"], paid(fal)) == (2, "price_unknown", [])


def test_of_several_prices_the_dearest_counts(fal: Sandbox, cli: Cli) -> None:
    rows = [
        {"endpoint_id": FLUX, "unit_price": cost, "unit": "image", "currency": "USD"}
        for cost in (0.001, 5, 0.01)
    ]
    fal_says(fal, Reply(json={"prices": rows}), history(0.001))
    done = cli("submit-t2i", *T2I, "--max-cost", "0.1")
    assert (done.status, done.error["type"], paid(fal)) == (2, "over_budget", [])
    assert cli("list-models", "--price", FLUX).stdout.count(FLUX) == 3
