"""Networks as users have them: tunnels, NAT64, proxies, certificates, and variables about them."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from conftest import Cli, Outcome
from network import Finished, Names, Network
from network.proxies import Impostor, Proxy, bundle, days
from sandbox import Sandbox

FLUX = "fal-ai/flux/dev"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(92))
FAL = "34.1.2.3"  # where the resolver finds fal's hosts
TUNNEL = "198.18.7.9"
MEDIA = "media.example.com"
PUBLIC = "8.8.8.8"
SOME = ("--model", FLUX, "--prompt", "A cat", "--no-schema")
RUN = ("run-t2i", *SOME)
REALTIME = ("realtime", "--model", FLUX, "--arguments-json", '{"prompt": "A cat"}')
UPLOAD = ("upload-file", "--file", "photo.jpg")
SEARCH = ("list-models", "--json")

# Every command that talks to fal, as far as it has a way of its own to do so.
COMMANDS = (
    RUN,
    ("submit-t2i", *SOME),
    ("subscribe-t2i", *SOME),
    ("stream-t2i", *SOME),
    ("batch-t2i", "--model", FLUX, "--prompts", "A cat", "--no-schema"),
    ("status", "--model", FLUX, "--request-id", "some-request"),
    ("result", "--model", FLUX, "--request-id", "some-request"),
    ("cancel", "--model", FLUX, "--request-id", "some-request"),
    UPLOAD,
    SEARCH,
    REALTIME,
)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with Network() as child:
        yield child


class Machine:
    """Runs commands in the network; no variable leads to a proxy but those of a test."""

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

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> Finished:
        done = self.network.run(
            *argv, names={"*": [[FAL]]}, env={**self.env, **env}, folder=self.folder
        )
        assert "Traceback" not in done.stderr
        return done


class Fetching(Machine):
    """Runs a model whose response names files."""

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
def machine(network: Network, bytecode: Path, tmp_path: Path) -> Machine:
    return Machine(network, bytecode, tmp_path)


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
        "127.0.0.1": "this machine itself",
        "169.254.169.254": "link-local",
    },
    {
        "0.0.0.0": "",
        "100.64.0.1": "",
        "224.0.0.251": "",
        "240.0.0.1": "",
        "192.0.2.7": "",
    },
    {
        "::1": "this machine itself",
        "fd00::1": "",
        "fe80::1": "link-local",
        "::": "",
        "fec0::1": "",
    },
    {
        "64:ff9b::a00:1": "private",
        "64:ff9b::7f00:1": "this machine itself",
        "64:ff9b::a9fe:a9fe": "link-local",
        "64:ff9b:1::a00:1": "private",
        "64:ff9b::c612:1": "",  # 198.18.0.1
    },
    {
        "2002:a00:1::1": "private",
        "2002:7f00:1::1": "this machine itself",
        "2002:c0a8:101::1": "private",
        "::ffff:a00:1": "private",
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


def test_no_cookie_gets_to_another_host_of_the_same_address(fetched: Fetching) -> None:
    """Many sites share an address, and what is connected to is the address."""
    onwards = {"Location": f"https://{MEDIA}/a.png", "Set-Cookie": "a=b; Path=/; Secure"}
    reply = {"status": 302, "text": "", "headers": onwards}
    rules = [{"method": "GET", "host": "cdn.example.com", "path": "*", "reply": reply}]
    names = {"cdn.example.com": [[PUBLIC]], MEDIA: [[PUBLIC]]}
    done = fetched(["https://cdn.example.com/a.png"], names, rules=rules)
    assert done.status == 0, done.stderr
    assert (done.connected, done.cookies) == ({FAL, PUBLIC}, [])


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


NOWHERE = [
    "http://",
    "http://[",
    "http:///a.png",
    "https://exa mple.com/a.png",
    "https://example.com:99999/a.png",
    "https://example.com:port/a.png",
    "https://xn--/a.png",
    f"https://{'a' * 70}.example.com/a.png",
    f"https://{'a.' * 130}example.com/a.png",
    "https://a..example.com/a.png",
    "https://[v1.x]/a.png",
    "https://\u2100.example.com/a.png",
]
NOT_OURS = (
    "refused_url",
    "unreachable",
    "certificate_refused",
    "http_error",
    "unexpected_answer",
)


def test_urls_that_no_resolver_takes(fetched: Fetching) -> None:
    """What can be saved is saved, and nobody is blamed for the rest but who named it."""
    good = f"https://{MEDIA}/a.png"
    for group in (NOWHERE[::2], NOWHERE[1::2]):
        done = fetched([*group, good], {"*": [[FAL]]})
        assert (done.status, done.error["type"]) == (1, "download_failed"), done.stderr
        assert {detail["type"] for detail in done.error["details"]} <= {*NOT_OURS}
        assert "Traceback" not in done.stderr
        assert good in done.stdout
    assert PNG in fetched.saved()


def test_redirects_that_no_resolver_takes(fetched: Fetching) -> None:
    for group in (NOWHERE[::2], NOWHERE[1::2]):
        rules = []
        for number, place in enumerate(group):
            location = place.encode().decode("latin-1")
            reply = {"status": 302, "text": "", "headers": {"Location": location}}
            path = f"/{number}.png"
            rules.append({"method": "GET", "host": MEDIA, "path": path, "reply": reply})
        urls = [f"https://{MEDIA}/{number}.png" for number in range(len(group) + 1)]
        done = fetched(urls, {"*": [[FAL]]}, rules=rules)
        assert (done.status, done.error["type"]) == (1, "download_failed"), done.stderr
        for detail in done.error["details"]:
            assert detail["type"] in NOT_OURS, detail
        assert "Traceback" not in done.stderr
    assert PNG in fetched.saved()


# What is said of it


@pytest.mark.parametrize(
    "argv",
    [
        RUN,
        ("subscribe-t2i", *SOME),
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
    assert "another tool" not in line["hint"]
    assert "--request-id" not in line["hint"]
    assert MEDIA in done.stdout


# Variables: what is for a proxy, and what is not

UNRELATED = [
    "fd00::/8",
    "[::1]",
    "::1",
    "10.0.0.0/8,fe80::/10",
    "localhost,127.0.0.1,::1,fe80::/10,*.svc",
    "*.example.com",
    "example.com:443, .example.org",
    "[fd00::1]:8080",
    "[",
    "http://x",
    "%",
    "fe80::1%eth0",
    "al.run",
    "fal.run:8443",
    ",,  ,",
]
COVERING = ["*", "fal.run", ".run", "*.run", "fal.run:443", " [::1] , FAL.RUN ", "::1,fal.run"]


@pytest.mark.parametrize("value", UNRELATED)
def test_an_entry_that_is_not_about_fal_changes_nothing(machine: Machine, value: str) -> None:
    proxy = machine.network.env["HTTPS_PROXY"]
    done = machine.run(RUN, {"HTTPS_PROXY": proxy, "NO_PROXY": value})
    assert done.status == 0, done.stderr
    assert (done.tunnels, done.connected) == ({"fal.run:443"}, set())


@pytest.mark.parametrize("value", COVERING)
def test_an_entry_that_is_about_fal_is_heeded(machine: Machine, value: str) -> None:
    proxy = machine.network.env["HTTPS_PROXY"]
    done = machine.run(RUN, {"HTTPS_PROXY": proxy, "no_proxy": value})
    assert done.status == 0, done.stderr
    assert (done.tunnels, done.connected) == (set(), {FAL})


def test_a_host_that_no_proxy_keeps_from_its_proxy(machine: Machine) -> None:
    """Where names are known to the proxy alone."""
    env = {"HTTPS_PROXY": machine.network.env["HTTPS_PROXY"], "NO_PROXY": "*"}
    done = machine.network.run(
        "submit-t2i",
        *RUN[1:],
        names={},
        env={**machine.env, **env},
        folder=machine.folder,
    )
    assert (done.status, done.error["type"]) == (4, "unreachable")
    assert re.match(r"NO_PROXY keeps \S+ from HTTPS_PROXY: ", done.error["hint"])


def test_every_command_gets_along_with_a_companys_no_proxy(
    fal: Sandbox, cli: Cli, photo: Path
) -> None:
    env = {"NO_PROXY": "localhost,127.0.0.1,::1,[::1],fd00::/8,fe80::/10,10.0.0.0/8,*.svc"}
    for argv in COMMANDS:
        done = cli(*argv, env=env)
        known = done.status == 0 or done.error["type"] == "not_found"
        assert known, f"{argv[0]}: {done.stderr}"
    assert {host.partition(":")[0] for host in fal.tunnels} >= {"fal.run", "queue.fal.run"}


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"), [("fd00::/8,[::1]", False), ("*", True), ("::1,.run", True)]
)
def test_realtime_heeds_them_too(machine: Machine, no_proxy: str, is_direct: bool) -> None:
    proxy = machine.network.env["HTTPS_PROXY"]
    done = machine.run(REALTIME, {"HTTPS_PROXY": proxy, "NO_PROXY": no_proxy})
    assert done.status == 0, done.stderr
    assert ("fal.run:443" in done.tunnels) != is_direct
    assert bool(done.connected) == is_direct


@pytest.mark.parametrize("argv", [RUN, REALTIME], ids=lambda argv: argv[0])
def test_small_letters_win(machine: Machine, argv: tuple[str, ...]) -> None:
    """As they do for curl and Python; an empty one turns the other off."""
    dead, alive = "http://127.0.0.1:9", machine.network.env["HTTPS_PROXY"]
    done = machine.run(argv, {"https_proxy": alive, "HTTPS_PROXY": dead})
    assert done.status == 0, done.stderr
    assert (done.connected, "fal.run:443" in done.tunnels) == (set(), True)
    done = machine.run(argv, {"https_proxy": "", "HTTPS_PROXY": dead})
    assert done.status == 0, done.stderr
    assert (done.connected, done.tunnels) == ({FAL}, set())


# Proxies that cannot be used, and those that can


def assert_variable_refused(done: Outcome, *words: str) -> None:
    """Nothing was sent, and the message has these words."""
    assert (done.status, done.stdout) == (2, ""), done.stderr
    error = done.error
    assert (error["type"], error["retryable"]) == ("usage_error", False)
    assert error["hint"]
    for word in words:
        assert word in error["message"]
    assert "secret-example" not in done.stderr


NO_PROXIES = {"HTTPS_PROXY": "", "HTTP_PROXY": "", "ALL_PROXY": ""}


def test_every_command_says_what_socks_needs(fal: Sandbox, cli: Cli, photo: Path) -> None:
    env = {**NO_PROXIES, "ALL_PROXY": "socks5://user:secret-example@127.0.0.1:1080"}
    for argv in COMMANDS:
        done = cli(*argv, env=env)
        assert_variable_refused(done, "ALL_PROXY")
        assert 'pip install "httpx[socks]"' in done.error["hint"], argv
    assert fal.tunnels == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1080"),
        ("https_proxy", "socks5://127.0.0.1:1080"),
        ("all_proxy", "socks5h://127.0.0.1:1080"),
    ],
)
def test_wherever_socks_is_named(fal: Sandbox, cli: Cli, variable: str, value: str) -> None:
    done = cli(*RUN, env={**NO_PROXIES, "no_proxy": "localhost", variable: value})
    assert_variable_refused(done, variable)
    assert "httpx[socks]" in done.error["hint"]


@pytest.mark.parametrize("argv", [RUN, REALTIME, UPLOAD], ids=lambda argv: argv[0])
def test_a_proxy_for_all_that_is_not_needed_costs_nothing(
    fal: Sandbox, cli: Cli, photo: Path, argv: tuple[str, ...]
) -> None:
    done = cli(*argv, env={"ALL_PROXY": "socks5://127.0.0.1:1080", "HTTP_PROXY": ""})
    assert done.status == 0, done.stderr
    assert fal.tunnels


UNUSABLE = [
    "socks4://127.0.0.1:1080",
    "socks://127.0.0.1:1080",
    "ftp://user:secret-example@127.0.0.1:21",
    "htp://proxy:3128",
    "http://user:secret-example@proxy:port",
    "http://proxy:99999",
    "http://",
    "http://:3128",
    "http://[::1",
    "http://pro xy:3128",
]


@pytest.mark.parametrize("value", UNUSABLE)
def test_a_proxy_that_means_nothing_is_named(fal: Sandbox, cli: Cli, value: str) -> None:
    variable = ("HTTPS_PROXY", "ALL_PROXY", "https_proxy")[UNUSABLE.index(value) % 3]
    done = cli(*RUN, env={**NO_PROXIES, "no_proxy": "localhost", variable: value})
    assert_variable_refused(done, variable)
    assert fal.tunnels == []


@pytest.mark.parametrize("argv", [REALTIME, SEARCH, UPLOAD], ids=lambda argv: argv[0])
def test_no_command_takes_a_proxy_that_means_nothing(
    fal: Sandbox, cli: Cli, photo: Path, argv: tuple[str, ...]
) -> None:
    assert_variable_refused(cli(*argv, env={"HTTPS_PROXY": "htp://proxy:3128"}), "HTTPS_PROXY")


PLACES = {
    "{}": "",
    "'{}'": "",
    '"http://{}"': "",
    "  http://{}/\n": "",
    "HTTP://{}": "",
    "http://user:pass-example@{}": "user:pass-example",
    "user:pass-example@{}/": "user:pass-example",
    "http://user:p@ss-example@{}": "user:p@ss-example",
    "http://user:p#ss-example@{}": "user:p#ss-example",
    "http://user:p%40ss-example@{}": "user:p@ss-example",
    "http://us%3Aer:p/ss-example@{}": "us:er:p/ss-example",
    "user:p://ss-example@{}": "user:p://ss-example",
}


@pytest.mark.parametrize("form", PLACES)
def test_a_proxy_is_understood_however_it_is_written(fal: Sandbox, cli: Cli, form: str) -> None:
    argv = (RUN, REALTIME)[list(PLACES).index(form) % 2]
    with Proxy(fal.tls_port) as proxy:
        done = cli(*argv, env={"HTTPS_PROXY": form.format(proxy.place)})
    assert done.status == 0, done.stderr
    assert {*proxy.users} == {PLACES[form]}
    assert fal.tunnels == []
    assert "ss-example" not in done.stdout + done.stderr


@pytest.mark.parametrize("form", ["http://user:p@ss-example@{}", "user:p#ss-example@{}"])
def test_realtime_understands_passwords_too(fal: Sandbox, cli: Cli, form: str) -> None:
    with Proxy(fal.tls_port) as proxy:
        done = cli(*REALTIME, env={"HTTPS_PROXY": form.format(proxy.place)})
    assert done.status == 0, done.stderr
    assert {*proxy.users} == {form.rpartition("@")[0].removeprefix("http://")}
    assert "fal.run" in proxy.hosts


# What a proxy answers


@pytest.mark.parametrize("argv", [RUN, REALTIME, SEARCH], ids=lambda argv: argv[0])
def test_a_proxy_that_wants_a_password(fal: Sandbox, cli: Cli, argv: tuple[str, ...]) -> None:
    with Proxy(fal.tls_port, 407) as proxy:
        done = cli(*argv, env={"HTTPS_PROXY": f"http://me:pass-example@{proxy.place}"})
    error = done.error
    assert (done.status, error["retryable"]) == (4, False)
    assert "HTTPS_PROXY" in error["hint"]
    assert "user:password" in error["hint"].lower()
    assert "pass-example" not in done.stderr


@pytest.mark.parametrize(
    ("status", "is_retryable"), [(403, False), (502, True), (503, True), (504, True)]
)
def test_a_proxy_that_does_not_lead_on(
    fal: Sandbox, cli: Cli, status: int, is_retryable: bool
) -> None:
    with Proxy(fal.tls_port, status) as proxy:
        done = cli(*RUN, env={"HTTPS_PROXY": f"http://{proxy.place}"})
    assert (done.status, done.error["retryable"]) == (4, is_retryable)
    assert str(status) in done.error["message"]


@pytest.mark.parametrize("status", [403, 503])
def test_realtime_by_a_proxy_that_does_not_lead_on(fal: Sandbox, cli: Cli, status: int) -> None:
    with Proxy(fal.tls_port, status) as proxy:
        done = cli(*REALTIME, env={"HTTPS_PROXY": f"http://{proxy.place}"})
    assert (done.status, done.error["retryable"]) == (4, status == 503)


class PlainProxy(Proxy):
    """Does not understand TLS, as most proxies."""

    def serve(self, guest: socket.socket) -> None:
        guest.recv(1024)
        guest.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("argv", [RUN, REALTIME], ids=lambda argv: argv[0])
def test_a_proxy_that_speaks_no_tls(fal: Sandbox, cli: Cli, argv: tuple[str, ...]) -> None:
    with PlainProxy(fal.tls_port) as proxy:
        done = cli(*argv, env={"HTTPS_PROXY": f"https://me:pass-example@{proxy.place}"})
    error = done.error
    assert (done.status, error["type"], error["retryable"]) == (4, "proxy_refused", False)
    assert "http:// in HTTPS_PROXY" in error["hint"]
    assert "pass-example" not in done.stderr


@pytest.mark.parametrize("argv", [RUN, REALTIME, SEARCH, UPLOAD], ids=lambda argv: argv[0])
def test_a_proxy_that_is_not_there_is_named(
    fal: Sandbox, cli: Cli, photo: Path, argv: tuple[str, ...]
) -> None:
    env = {**NO_PROXIES, "ALL_PROXY": "http://me:pass-example@127.0.0.1:9"}
    done = cli(*argv, env=env)
    assert (done.status, done.error["type"], done.error["retryable"]) == (4, "unreachable", True)
    assert "127.0.0.1:9" in done.error["message"]
    assert "ALL_PROXY" in done.error["message"]
    assert "pass-example" not in done.stderr


# Certificates


@pytest.fixture
def odd_files(tmp_path: Path) -> Path:
    """A folder of what is no file of certificates."""
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "text.pem").write_text("no certificate")
    (folder / "empty.pem").write_text("")
    (folder / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB")
    pem = trustme.CA().cert_pem.bytes().decode()
    (folder / "binary.der").write_bytes(ssl.PEM_cert_to_DER_cert(pem))
    (folder / "key.pem").write_bytes(trustme.CA().private_key_pem.bytes())
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    return folder


ODD_SETTINGS = [
    ("SSL_CERT_FILE", "nowhere.pem"),
    ("SSL_CERT_FILE", "empty"),
    ("SSL_CERT_FILE", "pipe"),
    ("SSL_CERT_FILE", "text.pem"),
    ("SSL_CERT_FILE", "empty.pem"),
    ("SSL_CERT_FILE", "half.pem"),
    ("SSL_CERT_FILE", "binary.der"),
    ("SSL_CERT_FILE", "key.pem"),
    ("SSL_CERT_FILE", "text.pem/inside"),
    ("SSL_CERT_DIR", "nowhere"),
    ("SSL_CERT_DIR", "text.pem"),
    ("SSL_CERT_DIR", "empty"),
    ("SSLKEYLOGFILE", "nowhere/keys.log"),
    ("SSLKEYLOGFILE", "empty"),
]


@pytest.mark.parametrize(("variable", "name"), ODD_SETTINGS)
def test_certificates_that_are_none(
    fal: Sandbox, cli: Cli, odd_files: Path, variable: str, name: str
) -> None:
    argv = (RUN, SEARCH, REALTIME)[ODD_SETTINGS.index((variable, name)) % 3]
    env = {variable: str(odd_files / name)}
    if variable == "SSL_CERT_DIR":
        env["SSL_CERT_FILE"] = ""
    done = cli(*argv, env=env)
    assert_variable_refused(done, variable, str(odd_files / name))
    assert fal.tunnels == []


def test_every_command_says_that_certificates_are_missing(
    fal: Sandbox, cli: Cli, photo: Path
) -> None:
    """As conda leaves it: the environment is gone, its variable is not."""
    env = {"SSL_CERT_FILE": "/opt/conda/envs/gone/ssl/cacert.pem"}
    for argv in COMMANDS:
        assert_variable_refused(cli(*argv, env=env), *env, *env.values())
    assert fal.tunnels == []


def test_what_needs_no_network_needs_no_certificates(fal: Sandbox, cli: Cli, photo: Path) -> None:
    env = {"SSL_CERT_FILE": "/nowhere", "HTTPS_PROXY": "htp://x", "ALL_PROXY": "socks5://x:1"}
    for argv in (
        ("encode-raw", "--file", "photo.jpg", "--content-type", "image/jpeg"),
        ("encode-image", "--file", "photo.jpg"),
        ("list-t2i",),
        ("submit-t2i", *SOME, "--dry-run"),
    ):
        done = cli(*argv, env=env)
        assert done.status == 0, done.stderr
    assert fal.requests == []


def test_a_file_of_certificates_in_quotes(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """As docker's --env-file leaves them, and as a file from Windows ends its lines."""
    path = fal.env["SSL_CERT_FILE"]
    (tmp_path / "company.pem").write_bytes(Path(path).read_bytes())
    for value in (f'"{path}"', f"'{path}'\r", "~/company.pem"):
        done = cli(*SEARCH, env={"SSL_CERT_FILE": value})
        assert done.status == 0, done.stderr


def test_both_settings_are_used(fal: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """A folder of others' certificates beside the file that fits."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "5ed36f99.0").write_bytes(trustme.CA().cert_pem.bytes())
    done = cli(*RUN, env={"SSL_CERT_DIR": str(folder)})
    assert done.status == 0, done.stderr


def assert_certificate_refused(error: Any, host: str) -> None:
    assert (error["type"], error["retryable"]) == ("certificate_refused", False)
    assert host in error["message"]
    assert "SSL_CERT_FILE" in error["hint"]


@pytest.mark.parametrize(
    ("argv", "host"),
    [
        (RUN, "fal.run"),
        (("submit-t2i", *SOME), "queue.fal.run"),
        (("stream-t2i", *SOME), "fal.run"),
        (UPLOAD, "rest.fal.ai"),
        (SEARCH, "api.fal.ai"),
        (REALTIME, "fal.ai"),
    ],
    ids=lambda argv: argv[0] if isinstance(argv, tuple) else argv,
)
def test_a_companys_certificate_is_named(
    fal: Sandbox, cli: Cli, photo: Path, argv: tuple[str, ...], host: str
) -> None:
    authority = photo.with_name("other.pem")
    authority.write_bytes(trustme.CA().cert_pem.bytes())
    done = cli(*argv, env={"SSL_CERT_FILE": str(authority)})
    assert done.status == 4
    assert_certificate_refused(done.error, host)
    assert fal.requests == []


BACKUP = "falrun.com"  # where fal-client turns to if fal.run cannot be reached
DATES = {"expired": (days(-9), days(-2)), "not yet valid": (days(2), days(9))}


def impostor_of(
    kind: str, host: str, folder: Path, fal: Sandbox
) -> tuple[Impostor, Mapping[str, str]]:
    """A server whose certificate is out of date, or another's; and who trusts its maker."""
    authority = trustme.CA()
    start, end = DATES.get(kind, (None, None))
    names = ["other.example.com"] if kind == "another host's" else [host, BACKUP]
    env = {"SSL_CERT_FILE": bundle(folder, authority, beside=fal.env["SSL_CERT_FILE"])}
    return Impostor(authority.issue_cert(*names, not_before=start, not_after=end)), env


@pytest.mark.parametrize(
    ("argv", "host"), [(RUN, "fal.run"), (REALTIME, "fal.run"), (RUN, "v3b.fal.media")]
)
@pytest.mark.parametrize("kind", ["expired", "not yet valid", "another host's"])
def test_a_certificate_that_does_not_hold(
    fal: Sandbox, cli: Cli, tmp_path: Path, kind: str, argv: tuple[str, ...], host: str
) -> None:
    impostor, trust = impostor_of(kind, host, tmp_path, fal)
    saving = ("--output", "out/") if argv == RUN else ()
    with impostor:
        elsewhere = {host: impostor.port, BACKUP: impostor.port}
        with Proxy(fal.tls_port, elsewhere=elsewhere) as proxy:
            env = {**trust, "HTTPS_PROXY": f"http://{proxy.place}"}
            done = cli(*argv, *saving, env=env)
    error = done.error
    if host == "v3b.fal.media":
        assert (done.status, error["type"]) == (1, "download_failed")
        (error,) = error["details"]
        assert error["type"] == "certificate_refused"
        assert host in error["message"]
        return
    assert done.status == 4
    assert_certificate_refused(error, host)
    assert ("clock" in error["hint"]) == (kind != "another host's")


@pytest.mark.parametrize(
    "variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]
)
def test_a_file_that_other_programs_use_is_offered(
    fal: Sandbox, cli: Cli, tmp_path: Path, variable: str
) -> None:
    """SSL_CERT_FILE is what is read here; a setting for another program is only told of."""
    theirs = tmp_path / "company.pem"
    theirs.write_bytes(Path(fal.env["SSL_CERT_FILE"]).read_bytes())
    done = cli(*RUN, env={"SSL_CERT_FILE": "", variable: str(theirs)})
    assert done.status == 4
    assert_certificate_refused(done.error, "fal.run")
    assert variable in done.error["hint"]
    gone = cli(*RUN, env={"SSL_CERT_FILE": "", variable: "/nowhere/company.pem"})
    assert variable not in gone.error["hint"]
    again = cli(*RUN, env={"SSL_CERT_FILE": str(theirs)})
    assert again.status == 0
