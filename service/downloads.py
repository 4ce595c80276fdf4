"""Files at URLs that strangers name, fetched so that nothing else can be reached by them.

The host has to be on the operator's list. Its name is resolved once, every address that it has must
be public, and the connection goes to one of those very addresses: a name cannot mean one thing to
the check and another to the connection. Where a redirect leads is a URL like the first.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx

from service.background import in_background
from service.errors import DownloadFailed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text. Raises `OSError`: it has none."""

DOWNLOADS_AT_ONCE = 32
MAX_REDIRECTS = 3
CONNECT_S = 5.0
"""For each address of a host."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"accept": "image/*, video/*", "accept-encoding": "identity", "user-agent": "wardgate"}
_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ip_network(block) for block in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")
)
"""Of IANA's special-purpose registries, what `is_global` of older Pythons lets through."""


def is_public(address: Address) -> bool:
    """Whether an address belongs to the Internet at large."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False  # loopback, link-local, multicast, and ways to write IPv4 that are out of use
    is_listed = any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not is_listed


async def resolve_host(host: str, port: int) -> list[str]:
    """See `Resolve`: as this machine resolves names."""
    # on a thread of its own: those of the event loop's pool are few, and a name may be slow
    work = in_background(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), name="resolve"
    )
    return [str(found[4][0]) for found in await asyncio.wrap_future(work)]


class Downloader:
    """Fetches files. Used on one event loop."""

    def __init__(
        self,
        hosts: Collection[str],
        networks: Sequence[Network] = (),
        *,
        deadline_s: float,
        resolve: Resolve = resolve_host,
    ) -> None:
        """
        Args:
            hosts: see `Settings.download_hosts`.
            networks: of addresses that may be asked although they are not public.
            deadline_s: seconds for one file: waiting for its turn, name, redirects, bytes.
            resolve: asked once for each URL.
        """
        self._hosts = frozenset(hosts)
        self._networks = networks
        self._deadline_s = deadline_s
        self._resolve = resolve
        self._room = asyncio.Semaphore(DOWNLOADS_AT_ONCE)
        # no client: a transport has no cookies and no proxies, and follows nothing. No connection
        # is kept: one to the same address may have been made, and its certificate checked, for
        # another host
        self._transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def fetch(self, url: str, take: Callable[[int], None]) -> bytes:
        """The bytes of the file at a URL.

        Args:
            url: as somebody wrote it.
            take: told of bytes as they come; raises where they are too many.

        Raises:
            DownloadFailed: it must not be asked for, or did not come as it should.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._room:
                return await self._follow(url, take)
        except TimeoutError as exc:
            raise DownloadFailed(
                f"the file did not come within {self._deadline_s:g} s; send the file itself"
            ) from exc
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise _refused("the URL cannot be read; expected http:// or https://") from exc
        except httpx.HTTPError as exc:
            raise DownloadFailed(
                f"the server of the URL broke off or could not be reached ({type(exc).__name__})"
            ) from exc

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.aclose()

    async def _follow(self, url: str, take: Callable[[int], None]) -> bytes:
        at = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._ask(at)
            try:
                if response.status_code not in _REDIRECTS:
                    return await _read(response, take)
                at = at.join(response.headers.get("location", ""))
            finally:
                await response.aclose()
        raise DownloadFailed(f"the URL is redirected more than {MAX_REDIRECTS} times")

    async def _ask(self, url: httpx.URL) -> httpx.Response:
        """The answer to a URL, its body not read."""
        host = url.raw_host.decode("ascii").lower().removesuffix(".")
        url = url.copy_with(host=host)
        self._check(url, host)
        failure: httpx.HTTPError | None = None
        for address in await self._addresses(host, url.port or _PORTS[url.scheme]):
            request = httpx.Request(
                "GET",
                url.copy_with(host=str(address)),
                headers={**_HEADERS, "host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": host, "timeout": {"connect": CONNECT_S}},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = exc
        assert failure is not None, "a host has an address"
        raise failure

    def _check(self, url: httpx.URL, host: str) -> None:
        """Raises `DownloadFailed` for a URL that must not be asked for."""
        if url.scheme not in _PORTS or not host:
            raise _refused("the URL, or where it leads, is not of the kind http:// or https://")
        if url.userinfo:
            raise _refused("the URL holds a user's name or password; leave it out")
        port = "" if url.port is None else f":{url.port}"  # None too where it is the usual one
        if not any(f"{name}{port}" in self._hosts for name in _entries_for(host)):
            raise _refused("the URL, or where it leads, has a host that files are not fetched from")

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, each of them checked."""
        try:
            found = [ip_address(address) for address in await self._resolve(host, port)]
        except (OSError, UnicodeError):
            found = []
        # said of a name without addresses, too: nobody shall learn here which names exist inside
        if not found or not all(self._may_ask(_meant(address)) for address in found):
            raise _refused("the host of the URL, or where it leads, has no public address")
        return found

    def _may_ask(self, address: Address) -> bool:
        return is_public(address) or any(address in network for network in self._networks)


def _entries_for(host: str) -> Iterator[str]:
    """The entries of the list that a host may stand under, without their ports."""
    yield "*"
    yield f"[{host}]" if ":" in host else host
    yield from (host[dot:] for dot, letter in enumerate(host) if letter == "." and dot)


def _meant(address: Address) -> Address:
    """The IPv4 address where an IPv6 one only carries it: mapped, 6to4, NAT64."""
    if not isinstance(address, IPv6Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


async def _read(response: httpx.Response, take: Callable[[int], None]) -> bytes:
    if response.status_code != 200:
        raise DownloadFailed(
            f"the server of the URL answered with status {response.status_code}; expected 200"
        )
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise DownloadFailed("the server of the URL sent the file compressed, unasked")
    data = bytearray()
    async for part in response.aiter_raw():
        take(len(part))
        data += part
    return bytes(data)


def _refused(problem: str) -> DownloadFailed:
    return DownloadFailed(f"{problem}; send the file itself", code="download_refused")
