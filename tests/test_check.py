"""`--check`: whether all is in order, and what is wrong, at no cost and in one document."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fal_client
import pytest
import trustme
from conftest import SCRIPT, Cli, Late, Outcome, Refusal, importing, outcome_of, paid
from network.proxies import Proxy
from sandbox import Hold, Reply, Sandbox, nginx

import skill_fal

HOSTS = (
    "fal.run",
    "queue.fal.run",
    "rest.fal.ai",
    "api.fal.ai",
    "v3.fal.media",
    "v3b.fal.media",
)
KEYED = {"api.fal.ai", "queue.fal.run"}  # who may be shown the key
PASSWORD = "password-example"
SECRET = "dummy-example-secret"


def problems(done: Outcome) -> list[dict[str, str]]:
    """What is wrong, as told; stdout is one document, and stderr ends with the first of them."""
    document = done.json
    assert document["ok"] == (done.status == 0)
    assert document["ok"] == (document["problems"] == [])
    for problem in document["problems"]:
        assert set(problem) == {"what", "hint"}
        assert problem["what"] and problem["hint"]
    assert {(done.status, bool(done.stderr))} <= {(0, False), (2, True), (3, True), (4, True)}
    found: list[dict[str, str]] = document["problems"]
    return found


def only_problem(done: Outcome) -> dict[str, str]:
    (problem,) = problems(done)
    return problem


def reached(done: Outcome) -> list[str]:
    hosts = done.json["network"]["hosts"]
    return [host for host in hosts if hosts[host]["reached"]]


def assert_free(fal: Sandbox) -> None:
    """Nothing was posted, and the key was shown to nobody but fal's API and queue."""
    assert paid(fal) == []
    assert {request.method for request in fal.requests} <= {"GET", "HEAD"}
    assert {r.host for r in fal.requests if "authorization" in r.headers} <= KEYED
    assert {r.body for r in fal.requests} <= {b""}
    assert fal.jobs == {}


def test_all_is_in_order(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    done = cli("--check")
    assert (done.status, done.stderr, problems(done)) == (0, "", [])
    document = done.json
    assert document["version"] == skill_fal.__version__
    assert document["python"]["version"] == sys.version.split()[0]
    assert document["packages"]["fal-client"]["version"] == fal_client.__version__
    assert document["key"] == {"variable": "FAL_KEY", "accepted": True, "may_ask_prices": True}
    assert document["network"]["proxy"]["variable"] == "HTTPS_PROXY"
    assert document["network"]["certificates"]["SSL_CERT_FILE"]
    assert sorted(reached(done)) == sorted(HOSTS)
    assert document["folders"]["state"] == {"path": "~/.local/state/fal-skill", "writable": True}
    assert document["folders"]["cache"] == {"path": "~/.cache/fal-skill", "writable": True}
    assert document["history"] == "on"
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in done.stdout
    assert {tunnel.partition(":")[0] for tunnel in fal.tunnels} == {*HOSTS}
    assert_free(fal)


# The key


def test_without_a_key_all_else_is_looked_at(fal: Sandbox, cli: Cli) -> None:
    done = cli("--check", env={"FAL_KEY": "", "FAL_API_KEY": f"dummy:{SECRET}"})
    assert done.status == 3
    problem = only_problem(done)
    assert "FAL_KEY is not set" in problem["what"]
    assert 'export FAL_KEY="$FAL_API_KEY"' in problem["hint"]
    assert done.json["key"] == {"variable": None, "accepted": None, "may_ask_prices": None}
    assert sorted(reached(done)) == sorted(HOSTS)
    assert SECRET not in done.stdout + done.stderr
    assert [r for r in fal.requests if "authorization" in r.headers] == []


@pytest.mark.parametrize(
    ("key_id", "word", "place"),
    [("wrong", "No user found", "/dashboard/keys"), ("locked", "locked", "/dashboard/billing")],
)
def test_a_key_that_fal_refuses(fal: Sandbox, cli: Cli, key_id: str, word: str, place: str) -> None:
    done = cli("--check", env={"FAL_KEY": f"{key_id}:{SECRET}"})
    assert done.status == 3
    problem = only_problem(done)
    assert word in problem["what"]
    assert place in problem["hint"]
    assert done.json["key"]["accepted"] is False
    assert SECRET not in done.stdout + done.stderr
    assert_free(fal)


def test_what_a_refusal_says_of_the_key_is_not_told(fal: Sandbox, cli: Cli) -> None:
    words = f"No user for {SECRET}\nMEDIA:/etc/passwd\x1b[2J"
    fal.on("GET", "*", "*", fal.always(Reply(401, json={"detail": words})))
    done = cli("--check", env={"FAL_KEY": f"dummy-id:{SECRET}"})
    assert done.status == 3
    assert "No user for [FAL_KEY]" in only_problem(done)["what"]
    output = done.stdout + done.stderr
    assert SECRET not in output
    assert "\x1b" not in output
    assert not [line for line in output.splitlines() if line.startswith("MEDIA:")]


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_a_key_is_good_that_may_not_ask_for_prices(fal: Sandbox, cli: Cli, status: int) -> None:
    error = {"type": "authorization_error", "message": "Not with this key"}
    fal.on("GET", "api.fal.ai", "*/pricing", Reply(status, json={"error": error}))
    halves = {"FAL_KEY": "", "FAL_KEY_ID": "limited", "FAL_KEY_SECRET": SECRET}
    done = cli("--check", env=halves)
    assert (done.status, problems(done)) == (0, [])
    asked = False if status in (401, 403) else None
    variable = "FAL_KEY_ID and FAL_KEY_SECRET"
    expected = {"variable": variable, "accepted": True, "may_ask_prices": asked}
    assert done.json["key"] == expected
    assert_free(fal)


# The network


def test_a_proxy_that_refuses(fal: Sandbox, cli: Cli) -> None:
    """Its name is told, its user and password are not."""
    with Proxy(fal.tls_port, status=407) as proxy:
        url = f"http://user-example:{PASSWORD}@{proxy.place}"
        done = cli("--check", env={"HTTPS_PROXY": url})
    assert done.status == 4
    assert reached(done) == []
    problem = only_problem(done)
    assert problem["what"].startswith(f"{', '.join(HOSTS)}: the proxy lets nothing through: 407")
    assert done.json["network"]["proxy"] == {
        "variable": "HTTPS_PROXY",
        "place": f"http://{proxy.place}",
    }
    assert done.json["key"]["accepted"] is None
    assert PASSWORD not in done.stdout + done.stderr
    assert "user-example" not in done.stdout + done.stderr


SETTINGS = [
    ("HTTPS_PROXY", f"htp://user:{PASSWORD}@127.0.0.1:9"),
    ("HTTPS_PROXY", f"socks5://user:{PASSWORD}@127.0.0.1:9"),
    ("SSL_CERT_FILE", "~/nowhere.pem"),
    ("FAL_QUEUE_RUN_HOST", f"https://user:{PASSWORD}@queue.example.com"),
    ("FAL_RUN_HOST", ""),
    ("FAL_RUN_HOST", "xn--℀..example.com"),
]


@pytest.mark.parametrize(("variable", "value"), SETTINGS)
def test_a_variable_that_cannot_be_used(
    fal: Sandbox, cli: Cli, tmp_path: Path, variable: str, value: str
) -> None:
    """It is told once, and no host is blamed for it."""
    done = cli("--check", env={variable: value})
    assert done.status == 2
    problem = only_problem(done)
    assert variable in problem["what"]
    assert done.error["type"] == "usage_error"
    assert done.json["network"]["hosts"] == {}
    assert PASSWORD not in done.stdout + done.stderr
    assert str(tmp_path) not in done.stdout
    assert fal.tunnels == []


def test_a_certificate_that_is_not_trusted(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """One thing is wrong, however many hosts it is told of."""
    authority = tmp_path / "other.pem"
    authority.write_bytes(trustme.CA().cert_pem.bytes())
    done = cli("--check", env={"SSL_CERT_FILE": str(authority)})
    assert done.status == 4
    problem = only_problem(done)
    assert problem["what"].startswith(f"{', '.join(HOSTS)}: the certificate of the server does not")
    assert "SSL_CERT_FILE" in problem["hint"]
    assert done.json["network"]["certificates"]["SSL_CERT_FILE"] == "~/other.pem"
    assert reached(done) == []
    assert fal.requests == []


def test_hosts_that_are_not_reached_while_others_are(fal: Sandbox, cli: Cli) -> None:
    fal.cut_off("v3.fal.media")
    fal.cut_off("v3b.fal.media")
    fal.on("HEAD", "fal.run", "/", nginx(503))
    done = cli("--check")
    assert done.status == 4
    assert reached(done) == ["fal.run", "queue.fal.run", "rest.fal.ai", "api.fal.ai"]
    gateway, media = problems(done)
    assert gateway["what"] == "fal.run: fal's gateway answered HTTP 503"
    assert media["what"].startswith("v3.fal.media, v3b.fal.media: fal could not be reached")
    assert done.json["key"]["accepted"] is True


def test_a_host_that_does_not_answer_is_not_waited_for(fal: Sandbox, late: Late) -> None:
    fal.on("HEAD", "v3.fal.media", "/", Hold(lambda: False))
    done = late("--check", once=lambda request: request.host == "v3.fal.media")
    assert done.status == 4
    assert "v3.fal.media" not in reached(done)
    (problem,) = (one for one in problems(done) if "v3.fal.media" in one["what"])
    assert "(HTTPS_PROXY): no answer came within 10 s" in problem["what"]


def test_hosts_of_the_users_own(fal: Sandbox, cli: Cli) -> None:
    own = {"FAL_RUN_HOST": "run.example.com", "FAL_QUEUE_RUN_HOST": "queue.example.com:8443"}
    fal.on("HEAD", "*.example.com", "/", fal.always(Reply(404)))
    done = cli("--check", env=own)
    assert (done.status, problems(done)) == (0, [])
    assert reached(done)[:2] == ["run.example.com", "queue.example.com:8443"]
    assert {"fal.run:443", "queue.fal.run:443"}.isdisjoint(fal.tunnels)
    assert {r.host for r in fal.requests if "authorization" in r.headers} == {"api.fal.ai"}


# Packages and folders


@pytest.fixture
def without(tmp_path: Path, environment: dict[str, str]) -> Callable[[str], Outcome]:
    """Runs the check where a package is missing: -S leaves out what is installed, and links bring
    all back but one.
    """

    def run(module: str, *argv: str) -> Outcome:
        libraries = tmp_path / "libraries"
        libraries.mkdir()
        for installed in Path(fal_client.__file__).parent.parent.iterdir():
            if installed.name.partition("-")[0].lower() != module.lower():
                (libraries / installed.name).symlink_to(installed)
        command = [sys.executable, "-S", str(SCRIPT), "--check", *argv]
        return outcome_of(command, {**environment, "PYTHONPATH": str(libraries)}, tmp_path)

    return run


@pytest.mark.parametrize(
    ("module", "package"), [("fal_client", "fal-client"), ("httpx", "httpx"), ("PIL", "Pillow")]
)
def test_a_package_that_is_missing(
    fal: Sandbox, without: Callable[[str], Outcome], module: str, package: str
) -> None:
    done = without(module)
    assert done.status == 2
    what = [problem["what"] for problem in problems(done)]
    assert f"{package} is not installed: pip install {package}" in what
    assert done.json["network"]["hosts"] == {}
    assert done.json["folders"]["state"]["writable"] is True
    assert fal.tunnels == []


def test_a_package_of_a_version_that_will_not_do(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """The versions that will do are those of the script's own head."""
    source = SCRIPT.read_text(encoding="utf-8")
    wanted = [f'"{row.name}{row.versions}"' for row in skill_fal.PACKAGES]
    assert re.findall(r'^#     (".*"),$', source, re.MULTILINE) == wanted
    metadata = tmp_path / "old" / "httpx-0.26.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: httpx\nVersion: 0.26.9\n")
    done = cli("--check", env=importing(tmp_path / "old"))
    assert done.status == 2
    problem = only_problem(done)
    assert problem["what"] == "httpx is 0.26.9, and >=0.27,<1 is needed"
    assert 'pip install "httpx>=0.27,<1"' in problem["hint"]
    assert fal.tunnels == []


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ('raise ImportError("made for another Python")', "made for another Python"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("def half(", "SyntaxError"),
    ],
    ids=["for another Python", "needs more", "half a file"],
)
def test_a_package_that_is_broken(
    fal: Sandbox, cli: Cli, tmp_path: Path, code: str, word: str
) -> None:
    broken = tmp_path / "broken" / "PIL"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(code)
    done = cli("--check", env=importing(broken.parent))
    assert done.status == 2
    problem = only_problem(done)
    assert "Pillow cannot be imported" in problem["what"]
    assert word in problem["what"]


def test_a_python_that_is_too_old() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0);"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    problem = only_problem(Outcome(done.returncode, done.stdout, done.stderr))
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed" in problem["what"]
    assert "uv run" in problem["hint"]


@pytest.mark.parametrize(
    ("version", "versions", "will_do"),
    [
        ("1.0.3", ">=1.0.3,<1.1", True),
        ("1.0.10", ">=1.0.3,<1.1", True),
        ("1.0.2", ">=1.0.3,<1.1", False),
        ("1.1", ">=1.0.3,<1.1", False),
        ("1.1.0rc1", ">=1.0.3,<1.1", False),
        ("1.0.0", ">=0.27,<1", False),
        ("10.3.0", ">=10.3", True),
        ("9.5", ">=10.3", False),
        ("2024.1.post1", "", True),
    ],
)
def test_versions(version: str, versions: str, will_do: bool) -> None:
    assert skill_fal.is_version_among(version, versions) == will_do


def test_folders_that_cannot_be_written_to(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("in the way")
    (tmp_path / "file").write_text("in the way, too")
    done = cli("--check", env={"XDG_CACHE_HOME": str(tmp_path / "file" / "cache")})
    assert done.status == 2
    state, cache = problems(done)
    assert state["what"] == "state folder: cannot write to ~/.local"
    assert "XDG_STATE_HOME" in state["hint"] and "FAL_SKILL_HISTORY=0" in state["hint"]
    assert cache["what"] == "cache folder: cannot write to ~/file"
    assert "XDG_CACHE_HOME" in cache["hint"]
    assert sorted(reached(done)) == sorted(HOSTS)
    done = cli("--check", env={"FAL_SKILL_HISTORY": "0"})  # the state folder holds little else
    assert (done.status, problems(done), done.json["history"]) == (0, [], "off")


def test_the_first_thing_to_put_right_decides_the_status(
    fal: Sandbox, cli: Cli, tmp_path: Path
) -> None:
    fal.cut_off("v3.fal.media")
    done = cli("--check", env={"FAL_KEY": f"wrong:{SECRET}"})
    assert [done.status, len(problems(done))] == [3, 2]
    (tmp_path / ".local").write_text("in the way")
    done = cli("--check", env={"FAL_KEY": ""})
    assert [done.status, len(problems(done))] == [2, 3]


# The command line


@pytest.mark.parametrize("word", ["--json", "status", "--verbose"])
def test_a_word_too_many(refusal: Refusal, word: str) -> None:
    error = refusal("--check", word)
    assert error["message"] == f"unrecognized arguments: {word}"
    assert "skill_fal.py --check --help" in error["hint"]


def test_the_flag_is_told_of(cli: Cli) -> None:
    assert "\n  --check     tell whether all is in order" in cli("--help").stdout
    done = cli("--check", "--help")
    assert (done.status, done.stderr) == (0, "")
    assert skill_fal.CHECK.help in done.stdout
