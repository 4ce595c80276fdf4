"""What strangers name is fetched from the hosts of the operator's list and from public addresses,
and nothing else is ever connected to."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.downloads import MAX_REDIRECTS, Downloader, Network, Resolve, is_public, resolve_host
from service.errors import DownloadFailed
from service.remote_files import Allowance
from tests.service.file_server import Files, file_server

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
FILE = b"\x89PNG and so on"

SPECIAL = [
    ip_network(block)
    for block in (
        # of IANA's special-purpose registries, what is not globally reachable
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
]


class Names:
    """A resolver with its own idea of names: the answers to a name in order, then the last one."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.answers.get(host.partition(".")[0], [])
        found = answers[0] if len(answers) == 1 else answers.pop(0) if answers else ""
        if not found:
            raise socket.gaierror("no such name")
        return found.split()


def fetch(
    url: str,
    *hosts: str,
    networks: Sequence[Network] = LOOPBACK,
    resolve: Resolve = resolve_host,
    deadline_s: float = 10.0,
    max_bytes: int = 1_000_000,
) -> bytes:
    async def run() -> bytes:
        downloader = Downloader(hosts, networks, deadline_s=deadline_s, resolve=resolve)
        try:
            return await downloader.fetch(url, Allowance(max_bytes).take)
        finally:
            await downloader.close()

    return asyncio.run(run())


@pytest.fixture
def files() -> Iterator[Files]:
    with file_server(file=[FILE]) as files:
        yield files


def public(files: Files) -> Names:
    """Names that all mean the server, which `LOOPBACK` lets pass for a public address."""
    return Names(cdn=["127.0.0.1"], other=["127.0.0.1"])


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("cdn.example", "cdn.example"),
        ("CDN.Example.", "cdn.example"),
        ("cdn.a.example", ".example"),
        ("cdn.a.example", ".a.example"),
        ("cdn.example", "*"),
        ("cdn.bücher.example", ".xn--bcher-kva.example"),
    ],
)
def test_a_file_of_a_listed_host_comes_as_it_is(files: Files, host: str, entry: str) -> None:
    resolve = resolve_host if host == "127.0.0.1" else public(files)
    got = fetch(f"http://{host}:{files.port}/file", f"{entry}:{files.port}", resolve=resolve)
    assert got == FILE


def test_a_server_is_told_the_host_and_nothing_of_ours(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    host = f"cdn.example:{files.port}"
    fetch(f"http://{host}/to?/file", host, resolve=public(files))
    assert files.paths == ["/to", "/file"]
    for request in files.asked:
        assert request.headers["host"] == host
        assert request.headers["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "referer"} & set(request.headers)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example:{port}/file", "has a host that files are not fetched from"),
        ("http://cdn.example.evil:{port}/file", "has a host that"),
        ("http://evilcdn.example:{port}/file", "has a host that"),
        ("http://a.cdn.example:{port}/file", "has a host that"),
        ("http://cdn.example/file", "has a host that"),
        ("http://cdn.example:1/file", "has a host that"),
        ("http://evil\\@cdn.example:{port}/file", "a user's name"),
        ("http://cdn.example:{port}@evil/file", "a user's name"),
        ("http://user:word@cdn.example:{port}/file", "a user's name"),
        ("ftp://cdn.example:{port}/file", "not of the kind"),
        ("file:///etc/passwd", "not of the kind"),
        ("http:///file", "not of the kind"),
        ("http:cdn.example", "not of the kind"),
        ("http://cdn.example:99999/file", "has a host that"),
        ("http://[::1/file", "cannot be read"),
        ("http://cdn.example:{port}/\n", "cannot be read"),
    ],
)
def test_what_is_not_on_the_list_is_not_even_resolved(files: Files, url: str, reason: str) -> None:
    names = public(files)
    with pytest.raises(DownloadFailed, match=reason) as caught:
        fetch(url.format(port=files.port), f"cdn.example:{files.port}", resolve=names)
    assert caught.value.code == "download_refused"
    assert (names.asked, files.paths) == ([], [])


def test_a_suffix_is_of_hosts_below_it_only(files: Files) -> None:
    with pytest.raises(DownloadFailed, match="has a host that"):
        fetch(f"http://example:{files.port}/file", f".example:{files.port}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_usual_port_is_that_of_the_scheme(scheme: str) -> None:
    names = Names()
    for port in ("", f":{80 if scheme == 'http' else 443}"):
        with pytest.raises(DownloadFailed, match="no public address"):
            fetch(f"{scheme}://cdn.example{port}/", "cdn.example", resolve=names)
    with pytest.raises(DownloadFailed, match="has a host that"):
        fetch(f"{scheme}://cdn.example:{443 if scheme == 'http' else 80}/", "cdn.example")
    assert names.asked == ["cdn.example"] * 2


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7F.1",
        "0177.0.0.01",
        "017700000001",
        "localhost",
        "LOCALHOST.",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "①②⑦.0.0.1",
        "127。0。0。1",
    ],
)
def test_no_spelling_of_this_machine_is_connected_to(files: Files, host: str) -> None:
    with pytest.raises(DownloadFailed, match=r"no public address|cannot be read"):
        fetch(f"http://{host}:{files.port}/file", f"*:{files.port}", networks=())
    assert files.paths == []


def addresses_in(networks: Sequence[Network]) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    return st.sampled_from(networks).flatmap(
        lambda network: st.integers(0, network.num_addresses - 1).map(lambda n: network[n])
    )


def spellings(address: IPv4Address | IPv6Address) -> list[str]:
    """How an address can be told, as itself and inside of another."""
    if isinstance(address, IPv6Address):
        return [str(address), address.exploded, f"{address}%1"]
    n = int(address)
    high, low = n >> 16, n & 0xFFFF
    return [
        str(address),
        f"::ffff:{address}",
        f"::ffff:{high:x}:{low:x}",
        f"64:ff9b::{address}",
        f"2002:{high:x}:{low:x}::1",
        f"::{address}",
    ]


def refused(urls: Sequence[str], resolve: Resolve) -> list[str]:
    """Why each of these is, from one downloader of any public host."""

    async def run() -> list[str]:
        downloader = Downloader("*", deadline_s=10, resolve=resolve)
        reasons = []
        for url in urls:
            with pytest.raises(DownloadFailed) as caught:
                await downloader.fetch(url, Allowance(1).take)
            assert caught.value.code == "download_refused"
            reasons.append(str(caught.value))
        return reasons

    return asyncio.run(run())


@settings(deadline=None, max_examples=10)
@given(addresses=st.lists(addresses_in(SPECIAL), min_size=20, max_size=20))
def test_no_address_of_special_purpose_is_connected_to(
    addresses: list[IPv4Address | IPv6Address],
) -> None:
    assert not any(map(is_public, addresses))
    answers = [
        answer
        for address in addresses
        for spelling in spellings(address)
        for answer in (spelling, f"93.184.215.14 {spelling}", f"{spelling} 2606:4700::1111")
    ]
    reasons = refused(["http://cdn.example/"] * len(answers), Names(cdn=answers))
    assert all("no public address" in reason for reason in reasons)


@st.composite
def hosts_of_special_purpose(draw: st.DrawFn) -> str:
    """An IPv4 address as old parsers of addresses read it."""
    whole = int(draw(addresses_in(SPECIAL[:15]))).to_bytes(4, "big")
    num_parts = draw(st.integers(1, 4))
    base = draw(st.sampled_from(["{:d}", "0x{:x}", "0X{:X}", "0{:o}"]))
    parts = [*whole[: num_parts - 1], int.from_bytes(whole[num_parts - 1 :], "big")]
    return ".".join(base.format(part) for part in parts) + draw(st.sampled_from(["", "."]))


@settings(deadline=None, max_examples=10)
@given(hosts=st.lists(hosts_of_special_purpose(), min_size=20, max_size=20))
def test_no_spelling_in_a_url_is_connected_to(hosts: list[str]) -> None:
    """The names are those of this machine's own resolver, which reads them as numbers."""
    reasons = refused([f"http://{host}/" for host in hosts], resolve_host)
    assert all(("no public address" in r) or ("cannot be read" in r) for r in reasons)


@settings(deadline=None, max_examples=10)
@given(
    ends=st.lists(
        st.text(st.characters() | st.just("\ud800"), max_size=9), min_size=30, max_size=30
    ),
    start=st.sampled_from(["http:", "http://", "http://cdn.example", "https://[", "HTTP://a@"]),
)
def test_whatever_is_written_for_a_url_is_refused_as_one(ends: list[str], start: str) -> None:
    refused([start + end for end in ends], Names())


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001:81b::200e"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_an_address_that_carries_another_is_judged_as_that_one(files: Files) -> None:
    host = f"cdn.example:{files.port}"
    names = Names(cdn=["::ffff:127.0.0.1", "64:ff9b::127.0.0.1"])
    assert fetch(f"http://{host}/file", host, resolve=names) == FILE
    with pytest.raises(DownloadFailed, match=r"could not be reached|did not come"):
        fetch(f"http://{host}/file", host, resolve=names, deadline_s=1)


def test_a_name_is_resolved_once(files: Files) -> None:
    """A second answer, to whoever asks again for the connection, is never heard."""
    names = Names(cdn=["127.0.0.1", "127.9.9.9"])
    host = f"cdn.example:{files.port}"
    assert fetch(f"http://{host}/file", host, networks=LOOPBACK[:1], resolve=names) == FILE
    assert names.asked == ["cdn.example"]


def test_the_next_address_is_tried_where_one_does_not_answer(files: Files) -> None:
    names = Names(cdn=["::1 127.0.0.1"])
    host = f"cdn.example:{files.port}"
    assert fetch(f"http://{host}/file", host, resolve=names) == FILE


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://inside.example:{port}/file", "no public address"),
        ("//inside.example:{port}/file", "no public address"),
        ("http://elsewhere:{port}/file", "has a host that"),
        ("http://127.0.0.1:{port}/file", "has a host that"),
        ("file:///etc/passwd", "not of the kind"),
        ("http://a:b@cdn.example:{port}/file", "a user's name"),
        ("http://cdn.example:x/", "cannot be read"),
    ],
)
def test_where_a_redirect_leads_is_checked_as_a_url_is(
    files: Files, location: str, reason: str
) -> None:
    names = Names(cdn=["127.0.0.1"], inside=["10.0.0.1"])
    location = location.format(port=files.port)
    with pytest.raises(DownloadFailed, match=reason):
        fetch(
            f"http://cdn.example:{files.port}/to?{location}",
            f".example:{files.port}",
            resolve=names,
        )
    assert files.paths == ["/to"]


def test_a_redirect_resolves_its_name_anew(files: Files) -> None:
    names = Names(cdn=["127.0.0.1", "10.0.0.1"])
    host = f"cdn.example:{files.port}"
    with pytest.raises(DownloadFailed, match="no public address"):
        fetch(f"http://{host}/to?/file", host, resolve=names)
    assert files.paths == ["/to"]


def test_redirects_are_followed_up_to_a_bound(files: Files) -> None:
    host = f"127.0.0.1:{files.port}"
    url = f"http://{host}/" + "to?/" * MAX_REDIRECTS + "file"
    assert fetch(url, host) == FILE
    with pytest.raises(DownloadFailed, match=f"more than {MAX_REDIRECTS} times"):
        fetch(f"http://{host}/to?/" + "to?/" * MAX_REDIRECTS + "file", host)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("endless", "more than 100000 bytes"),
        ("gzip", "compressed, unasked"),
        ("slow", "did not come within 0.5 s"),
        ("status?404", "status 404"),
        ("status?206", "status 206"),
        ("status?304", "status 304"),
    ],
)
def test_what_does_not_come_as_it_should_is_told_and_not_shown(
    files: Files, path: str, reason: str
) -> None:
    host = f"127.0.0.1:{files.port}"
    with pytest.raises(DownloadFailed, match=reason) as caught:
        fetch(f"http://{host}/{path}", host, deadline_s=0.5, max_bytes=100_000)
    assert caught.value.code == "download_failed"
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answers_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(DownloadFailed, match=r"did not come within 0\.2 s"):
            fetch(f"http://{host}/", host, deadline_s=0.2)
    assert time.monotonic() - started < 5


def test_a_name_that_never_resolves_is_left() -> None:
    async def resolve(_: str, __: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    with pytest.raises(DownloadFailed, match="did not come within"):
        fetch("http://cdn.example/", "cdn.example", resolve=resolve, deadline_s=0.2)


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        host = f"127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(DownloadFailed, match=r"could not be reached \(ConnectError\)"):
        fetch(f"http://{host}/", host)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_a_certificate_is_checked_for_the_host_and_not_for_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=test"),
            *("-addext", "subjectAltName=DNS:cdn.example"),
        ],
        check=True,
        capture_output=True,
    )
    with file_server(key=key, certificate=certificate, file=[FILE]) as files:
        names = public(files)
        url = f"https://{{}}.example:{files.port}/file"
        with pytest.raises(DownloadFailed, match="could not be reached"):
            fetch(url.format("cdn"), "*", f"*:{files.port}", resolve=names)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async def run() -> None:
            downloader = Downloader([f"*:{files.port}"], LOOPBACK, deadline_s=10, resolve=names)
            take = Allowance(1000).take
            assert await downloader.fetch(url.format("cdn"), take) == FILE
            # nor is the connection used again that was made for the first host
            with pytest.raises(DownloadFailed, match="could not be reached"):
                await downloader.fetch(url.format("other"), take)
            await downloader.close()

        asyncio.run(run())
        assert files.paths == ["/file"]
