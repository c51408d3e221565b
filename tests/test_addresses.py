"""Which addresses are open to everybody, and that the one that was checked is connected to."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from conftest import Cli, Outcome, importing
from sandbox import Reply, Sandbox

import skill_fal

FLUX = "fal-ai/flux/dev"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(92))
HOST = "media.example.com"
GOOGLE = "8.8.8.8"


@pytest.mark.parametrize(
    "address",
    [
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2002:c0a8:101::1",
        "2002:a9fe:a9fe::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        "2001:0:4136:e378:8000:63bf:5601:5601",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::224.0.0.1",
        "64:ff9b:1::a00:1",
        "::ffff:127.0.0.1",
        "::ffff:192.168.1.1",
        "::ffff:100.64.0.1",
        "::127.0.0.1",
        "::10.0.0.1",
        "::169.254.169.254",
        "fec0::1",
        "fec0:0:0:ffff::1",
        "feff::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "100.64.0.1",
        "0.0.0.0",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "192.0.0.192",
        "192.0.0.9",
        "168.63.129.16",
        "192.88.99.1",
        "::ffff:168.63.129.16",
        "64:ff9b::192.0.0.192",
        "2002:a83f:8110::1",
        "3fff::1",
        "3fff:fff:ffff::1",
        "2001:4860::5efe:127.0.0.1",
        "2001:4860::5efe:169.254.169.254",
        "2001:4860::200:5efe:127.0.0.1",
        "2001:4860::200:5efe:10.0.0.1",
        "fe80::5efe:127.0.0.1",
    ],
)
def test_an_address_that_leads_to_neighbours_is_not_public(address: str) -> None:
    assert skill_fal.is_public_address(ipaddress.ip_address(address)) is False


@pytest.mark.parametrize(
    "address",
    [
        GOOGLE,
        "2606:4700::1111",
        "2002:808:808::1",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
        "192.0.1.1",
        "168.63.129.17",
        "192.88.98.1",
        "2001:4860::5efe:8.8.8.8",
        "2001:4860::5eff:127.0.0.1",
    ],
)
def test_an_address_that_leads_to_the_world_is_public(address: str) -> None:
    assert skill_fal.is_public_address(ipaddress.ip_address(address)) is True


def fetched(
    fal: Sandbox, cli: Cli, folder: Path, url: str, *answers: list[str]
) -> tuple[Outcome, list[str]]:
    """A result with a file at HOST, which no proxy leads to; and what was connected to."""
    fal.on("POST", "fal.run", "*", Reply(json={"images": [{"url": url, "file_name": "a.png"}]}))
    fal.on("GET", HOST, "*", fal.always(Reply(content=PNG)))
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import changing_names\n")
    env = {
        **importing(site, Path(__file__).with_name("names")),
        "NAMES": json.dumps({HOST: answers}),
        "CONNECTED": str(folder / "connected"),
        "TLS_PORT": str(fal.tls_port),
        "NO_PROXY": HOST,
    }
    argv = ("--model", FLUX, "--prompt", "A cat", "--output", "out/")
    done = cli("run-t2i", *argv, env=env)
    connected = folder / "connected"
    return done, connected.read_text().split() if connected.exists() else []


@pytest.mark.parametrize(
    "later",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        [GOOGLE, "127.0.0.1"],
        ["127.0.0.1", GOOGLE],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("hop", ["first", "redirect"])
def test_what_was_checked_is_connected_to(
    fal: Sandbox, cli: Cli, tmp_path: Path, later: list[str], hop: str
) -> None:
    """The name leads elsewhere as soon as it was looked up; the file is fetched all the same."""
    url = f"https://{HOST}/a.png"
    if hop == "redirect":
        away = Reply(302, text="", headers={"Location": url})
        fal.on("GET", "v3b.fal.media", "*", away)
        url = "https://v3b.fal.media/files/b/a.png"
    done, connected = fetched(fal, cli, tmp_path, url, [GOOGLE], later)
    assert connected == [GOOGLE]
    assert done.status == 0, done.stderr
    (request,) = [one for one in fal.requests if one.host == HOST]
    assert request.headers["host"] == HOST
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [PNG]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_of_the_new_kind_stays_the_one_that_was_checked(
    fal: Sandbox, cli: Cli, tmp_path: Path, scheme: str
) -> None:
    """Nobody answers there, and the name is looked up anew for each attempt."""
    public = "2606:4700::1111"
    url = f"{scheme}://{HOST}/a.png"
    done, connected = fetched(fal, cli, tmp_path, url, [public], ["::1", "127.0.0.1"])
    assert done.error["type"] == "download_failed"
    assert {*connected} == {public}


def test_a_name_that_leads_home_is_not_connected_to(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    done, connected = fetched(fal, cli, tmp_path, f"https://{HOST}/a.png", [GOOGLE, "fec0::1"])
    assert done.error["type"] == "download_failed"
    assert connected == []


@pytest.mark.parametrize(
    "address", ["192.0.0.192", "168.63.129.16", "2001:4860::5efe:127.0.0.1"], ids=str
)
def test_a_name_that_leads_to_a_clouds_secrets_is_not_connected_to(
    fal: Sandbox, cli: Cli, tmp_path: Path, address: str
) -> None:
    done, connected = fetched(fal, cli, tmp_path, f"https://{HOST}/a.png", [address])
    assert (done.error["type"], connected) == ("download_failed", [])


# Names that mean something at home or at work alone

LOCAL_NAMES = [
    "localhost.localdomain",
    "printer.local",
    "Printer.LOCAL.",
    "x.internal",
    "wiki.intranet",
    "nas.lan",
    "nas.home",
    "nas.home.arpa",
    "mail.corp",
    "db.private",
    "api.default.svc",
]


@pytest.mark.parametrize("hop", ["first", "redirect"])
@pytest.mark.parametrize("name", LOCAL_NAMES)
def test_a_local_name_is_not_asked_for(fal: Sandbox, cli: Cli, name: str, hop: str) -> None:
    """A proxy inside such a network would know it, so that it is not told of it."""
    local = f"https://{name}/a.png"
    fal.on("GET", "v3b.fal.media", "*", Reply(302, text="", headers={"Location": local}))
    url = local if hop == "first" else "https://v3b.fal.media/files/b/a.png"
    fal.on("POST", "fal.run", "*", Reply(json={"images": [{"url": url, "file_name": "a.png"}]}))
    done = cli("run-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema", "--output", "out/")
    assert (done.status, done.error["type"]) == (1, "download_failed")
    (detail,) = done.error["details"]
    assert (detail["type"], detail["field"]) == ("refused_url", url)
    assert {*fal.tunnels} == {"fal.run:443"} | ({"v3b.fal.media:443"} if hop != "first" else set())


@pytest.mark.parametrize("name", ["local.example.com", "lan-party.example.com", "example.homes"])
def test_a_public_name_may_have_a_local_word_in_it(name: str) -> None:
    assert skill_fal.is_public_name(name) is True
