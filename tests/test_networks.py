"""Networks as users have them: tunnels, NAT64, proxies, certificates, and variables about them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from network import Finished, Names, Network

FLUX = "fal-ai/flux/dev"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(92))
FAL = "34.1.2.3"  # where the resolver finds fal's hosts
TUNNEL = "198.18.7.9"
MEDIA = "media.example.com"
PUBLIC = "8.8.8.8"
RUN = ("run-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema")


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with Network() as child:
        yield child


class Fetching:
    """Runs a model whose response names files."""

    def __init__(self, network: Network, bytecode: Path, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "SSL_CERT_FILE": network.env["SSL_CERT_FILE"],
            "FAL_KEY": network.env["FAL_KEY"],
        }

    def __call__(
        self,
        urls: Sequence[str],
        names: Names,
        argv: Sequence[str] = RUN,
        rules: Sequence[dict[str, Any]] = (),
    ) -> Finished:
        """The end of a command that saves the files at these URLs."""
        response = {"images": [{"url": url, "file_name": "a.png"} for url in urls]}
        picture = {"content": base64.b64encode(PNG).decode()}
        return self.network.run(
            *argv,
            "--output",
            "out/",
            names={"*": [[FAL]], **names},
            env=self.env,
            folder=self.folder,
            rules=[
                *rules,
                {"method": "POST", "host": "fal.run", "path": "*", "reply": {"json": response}},
                {"method": "GET", "host": "*.example.com", "path": "*", "reply": picture},
                {"method": "GET", "host": "*.fal.media", "path": "*", "reply": picture},
            ],
        )

    def saved(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.folder / "out").iterdir()]


@pytest.fixture
def fetched(network: Network, bytecode: Path, tmp_path: Path) -> Fetching:
    return Fetching(network, bytecode, tmp_path)


def asked(names: Names) -> list[str]:
    return [f"https://{name}/a.png" for name in names]


def numbered(answers: Sequence[Sequence[str]]) -> Names:
    """A name for each answer."""
    return {f"host-{n}.example.com": [answer] for n, answer in enumerate(answers)}


# What the resolver says of a public name


def test_a_users_tunnel_is_dialled(fetched: Fetching) -> None:
    """A VPN in fake-ip mode answers for every name, fal's own among them."""
    fakes = ["198.18.0.1", TUNNEL, "198.19.255.254"]
    names = numbered([[fake] for fake in fakes])
    done = fetched(asked(names), {"*": [["198.18.0.2"]], **names})
    assert done.status == 0, done.stderr
    assert done.connected == {"198.18.0.2", *fakes}
    assert fetched.saved() == [PNG] * 3


def test_what_leads_to_a_public_address_is_dialled(fetched: Fetching) -> None:
    good = [
        PUBLIC,
        "2606:4700::1111",
        "64:ff9b::808:808",
        "64:ff9b:1::808:404",
        "2002:808:808::1",
    ]
    names = numbered([[address] for address in good])
    done = fetched(asked(names), names)
    assert done.status == 0, done.stderr
    assert done.connected == {FAL, *good}


# What is asked for, and a word of the reason that is given.
REFUSED = (
    {
        "10.0.0.1": "private",
        "192.168.1.20": "private",
        "172.16.9.9": "private",
        "127.0.0.1": "loopback",
        "169.254.169.254": "link-local",
    },
    {
        "0.0.0.0": "",
        "100.64.0.1": "",
        "224.0.0.251": "multicast",
        "240.0.0.1": "",
        "192.0.2.7": "",
    },
    {
        "::1": "loopback",
        "fd00::1": "",
        "fe80::1": "link-local",
        "::": "",
        "fec0::1": "",
    },
    {
        "64:ff9b::a00:1": "private",
        "64:ff9b::7f00:1": "loopback",
        "64:ff9b::a9fe:a9fe": "link-local",
        "64:ff9b:1::a00:1": "private",
        "64:ff9b::c612:1": "",  # 198.18.0.1
    },
    {
        "2002:a00:1::1": "private",
        "2002:7f00:1::1": "loopback",
        "2002:c0a8:101::1": "private",
        "::ffff:10.0.0.1": "private",
    },
)


@pytest.mark.parametrize("group", REFUSED, ids=lambda group: next(iter(group)))
def test_what_leads_home_is_refused(fetched: Fetching, group: dict[str, str]) -> None:
    names = numbered([[address] for address in group])
    done = fetched(asked(names), names)
    assert (done.status, done.error["type"]) == (1, "download_failed")
    assert done.connected == {FAL}
    for detail, name, (address, reason) in zip(
        done.error["details"], names, group.items(), strict=True
    ):
        assert detail["type"] == "refused_url"
        assert name in detail["message"]
        assert address in detail["message"]
        assert reason in detail["message"]


def test_one_bad_address_among_good_ones_is_enough(fetched: Fetching) -> None:
    mixed = [
        [PUBLIC, "10.0.0.1"],
        ["2606:4700::1111", "127.0.0.1"],
        [PUBLIC, "fe80::1"],
        [TUNNEL, "192.168.0.1"],
        [PUBLIC, "64:ff9b::a00:1"],
    ]
    names = numbered(mixed)
    done = fetched(asked(names), names)
    assert [one["type"] for one in done.error["details"]] == ["refused_url"] * len(mixed)
    assert done.connected == {FAL}


def test_a_tunnels_other_half_is_not_dialled(fetched: Fetching) -> None:
    """A VPN gives a unique-local address beside its 198.18 one."""
    names = numbered([[TUNNEL, "fd00::7"], ["fdfe:dcba:9876::3", "198.18.0.3"]])
    done = fetched(asked(names), names)
    assert done.status == 0, done.stderr
    assert done.connected == {FAL, TUNNEL, "198.18.0.3"}


NAT64 = {
    "a prefix of 96 bits": ("fd00:64::c000:aa", "fd00:64::808:808", "fd00:64::a00:1"),
    "a prefix of 64 bits": (
        "fd00:64:0:1:c0:0:aa00:0",
        "fd00:64:0:1:8:808:800:0",
        "fd00:64:0:1:a:0:100:0",
    ),
    "the other address": ("fd00:64::c000:ab", "fd00:64::808:808", "fd00:64::7f00:1"),
}


@pytest.mark.parametrize("kind", NAT64)
def test_a_providers_own_prefix_is_learned(fetched: Fetching, kind: str) -> None:
    """RFC 7050: the provider puts two well-known addresses behind it."""
    known, good, bad = NAT64[kind]
    names = {
        "ipv4only.arpa": [["192.0.0.170", "192.0.0.171", known]],
        **numbered([[good], [bad], ["fd99::808:808"]]),
    }
    done = fetched([f"https://host-{n}.example.com/a.png" for n in range(3)], names)
    assert done.connected == {FAL, good}
    assert [one["type"] for one in done.error["details"]] == ["refused_url"] * 2
    assert fetched.saved() == [PNG]


@pytest.mark.parametrize(
    "answer",
    [["192.0.0.170"], ["198.18.0.9", "fd00:64::808:808"], ["::c000:aa"]],
    ids=lambda answer: answer[0],
)
def test_a_prefix_that_nobody_vouches_for_is_refused(fetched: Fetching, answer: list[str]) -> None:
    names = {"ipv4only.arpa": [answer], MEDIA: [["fd00:64::808:808"]]}
    done = fetched([f"https://{MEDIA}/a.png"], names)
    assert done.error["details"][0]["type"] == "refused_url"
    assert done.connected == {FAL}


@pytest.mark.parametrize("answer", ["10.0.0.1", TUNNEL, "fd00::1"])
def test_fals_own_hosts_are_not_looked_at(fetched: Fetching, answer: str) -> None:
    hosts = ("v3b.fal.media", "v3.fal.media", "storage.fal.media")
    names = {host: [[answer]] for host in hosts}
    done = fetched(asked(names), names)
    assert done.status == 0, done.stderr
    assert done.connected == {FAL, answer}
    assert fetched.saved() == [PNG] * 3


def test_what_only_looks_like_fals_hosts_is_looked_at(fetched: Fetching) -> None:
    urls = [
        "http://v3b.fal.media/a.png",
        "https://v3b.fal.media:8443/a.png",
        "https://v3b.fal.media.example.com/a.png",
        "https://notfal.media/a.png",
    ]
    done = fetched(urls, {"*": [["10.0.0.1"]], "fal.run": [[FAL]]})
    assert [one["type"] for one in done.error["details"]] == ["refused_url"] * 4
    assert done.connected == {FAL}


@pytest.mark.parametrize("first", [TUNNEL, PUBLIC, "64:ff9b::808:808"])
@pytest.mark.parametrize("hop", ["first", "redirect"])
def test_a_second_look_up_changes_nothing(fetched: Fetching, first: str, hop: str) -> None:
    names = {MEDIA: [[first], ["127.0.0.1"], ["10.0.0.1"]]}
    url = f"https://{MEDIA}/a.png"
    rules = []
    if hop == "redirect":
        reply = {"status": 302, "text": "", "headers": {"Location": url}}
        rules = [{"method": "GET", "host": "v3b.fal.media", "path": "*", "reply": reply}]
        url = "https://v3b.fal.media/files/b/a.png"
    done = fetched([url], names, rules=rules)
    assert done.status == 0, done.stderr
    assert done.connected == {FAL, first}
    assert fetched.saved() == [PNG]


def test_a_redirect_home_is_refused(fetched: Fetching) -> None:
    reply = {"status": 302, "text": "", "headers": {"Location": f"https://{MEDIA}/a.png"}}
    rules = [{"method": "GET", "host": "v3b.fal.media", "path": "*", "reply": reply}]
    done = fetched(["https://v3b.fal.media/a.png"], {MEDIA: [["10.0.0.1"]]}, rules=rules)
    (detail,) = done.error["details"]
    assert detail["type"] == "refused_url"
    assert MEDIA in detail["message"]
    assert done.connected == {FAL}


# What an answer's URL says

TYPED = (
    (
        "http://198.18.0.5/a.png",
        "https://198.19.1.1/a.png",
        "http://10.0.0.1/a.png",
        "https://[64:ff9b::a00:1]/a.png",
        "https://[fd00::1]/a.png",
    ),
    (
        "https://100.64.0.1/a.png",
        "https://127.0.0.1/a.png",
        "https://[2002:7f00:1::1]/a.png",
        "https://localhost/a.png",
        "https://printer.local/a.png",
    ),
)


@pytest.mark.parametrize("urls", TYPED, ids=["networks", "this machine"])
def test_an_address_that_is_typed_is_judged_as_it_is(fetched: Fetching, urls: list[str]) -> None:
    done = fetched(urls, {"*": [["198.18.0.1"]], "fal.run": [[FAL]]})
    assert (done.status, done.error["type"]) == (1, "download_failed")
    assert [one["type"] for one in done.error["details"]] == ["refused_url"] * len(urls)
    assert (done.connected, done.asked.count("printer.local")) == ({FAL}, 0)


# What is said of it


@pytest.mark.parametrize(
    "argv",
    [
        ("run-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema"),
        ("subscribe-t2i", "--model", FLUX, "--prompt", "A cat", "--no-schema"),
        ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "--no-schema"),
    ],
    ids=lambda argv: argv[0],
)
def test_nobody_is_told_to_repeat_what_is_refused_for_good(
    fetched: Fetching, argv: tuple[str, ...]
) -> None:
    response = {"images": [{"url": f"https://{MEDIA}/a.png", "file_name": "a.png"}]}
    rule = {
        "method": "GET",
        "host": "queue.fal.run",
        "path": "*/requests/*-????????????",
        "reply": {"json": response},
    }
    done = fetched([f"https://{MEDIA}/a.png"], {MEDIA: [["10.0.0.1"]]}, argv, [rule])
    line = done.error
    if argv[0] == "batch-t2i":
        line = done.json["error"]
    (detail,) = line["details"]
    assert line["type"] == "download_failed"
    assert line["retryable"] is False
    for word in (MEDIA, "10.0.0.1", "a private address"):
        assert word in detail["message"]
    assert "stdout" in line["hint"]
    assert "another tool" in line["hint"]
    assert "--request-id" not in line["hint"]
    assert MEDIA in done.stdout
