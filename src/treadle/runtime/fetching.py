"""Fetches a file from the web for a program, and from no address of the program's own network.

A URL may come from a person or a model. Without a guard it could name a service that only this
machine reaches, such as the metadata of a cloud ("server-side request forgery"):
https://owasp.org/www-community/attacks/Server_Side_Request_Forgery. Each host is resolved once, all
its addresses are checked, and the connection goes to one of these addresses, so that a second
answer of the name server has no effect.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from treadle.domain.arguments import require_count, require_text
from treadle.domain.files import InputAudio, InputFile, InputImage, Media
from treadle.domain.media import IMAGES, MAX_CONTENT, media_type
from treadle.domain.urls import masked_url
from treadle.errors import FetchFailed, InvalidInput
from treadle.models import network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host."""

MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_OK = 200
_CHUNK = 64 * 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Fetcher:
    """Fetches files; `look_up` resolves hosts, `route` chooses where a checked address is."""

    def __init__(
        self, look_up: LookUp | None = None, route: Callable[[str], str] = lambda address: address
    ) -> None:
        self._look_up = look_up or _addresses
        self._route = route

    async def fetch(self, url: str, *, max_bytes: int, timeout: float) -> Media:
        """Does what `treadle.fetch_file` does."""
        most = min(require_count("max_bytes", max_bytes, 1), MAX_CONTENT)
        _require_url(url)
        try:
            async with asyncio.timeout(timeout):
                content, at, claimed = await self._followed(url, most)
        except TimeoutError as error:
            raise FetchFailed(
                f"{_host(url)} did not send the file within {timeout:g} s; try again later.",
                retryable=True,
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(
                f"The file could not be fetched from {_host(url)} ({type(error).__name__}).",
                retryable=True,
            ) from error
        if not content:
            raise FetchFailed(f"{_host(at)} sent an empty file.")
        return _part(content, unquote(urlsplit(at).path), claimed)

    async def _followed(self, url: str, most: int) -> tuple[bytes, str, str]:
        connector = aiohttp.TCPConnector(
            resolver=_Guard(self._look_up, self._route), use_dns_cache=False, force_close=True
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small body could become a huge one
            headers={"Accept-Encoding": "identity", "Accept": "*/*"},
        ) as session:
            for _ in range(MAX_REDIRECTS + 1):
                self._require_public_literal(url)
                async with session.get(url, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        claimed = response.headers.get("Content-Type", "")
                        return await _body(response, most), url, claimed
                    to = response.headers.get("Location", "")
                url = _redirected(url, to)
        raise FetchFailed(f"{_host(url)} redirects more than {MAX_REDIRECTS} times.")

    def _require_public_literal(self, url: str) -> None:
        """Checks a host that is an address: the session would ask no resolver for it."""
        try:
            address = ipaddress.ip_address(_host(url))
        except ValueError:
            return
        _require_public(_host(url), address)
        if self._look_up is _addresses:
            network.require_allowed(_host(url))


class _Guard(AbstractResolver):
    """Resolves a host to its addresses if all of them are public."""

    def __init__(self, look_up: LookUp, route: Callable[[str], str]) -> None:
        self._look_up = look_up
        self._route = route

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses; raises `FetchFailed` if one is not public."""
        found = await self._look_up(host, port)
        for address in found:
            _require_public(host, ipaddress.ip_address(address.partition("%")[0]))
        if not found:
            raise FetchFailed(f"{host} has no address.", retryable=True)
        return [self._result(host, self._route(address), port) for address in found]

    def _result(self, host: str, address: str, port: int) -> ResolveResult:
        is_six = ":" in address
        return ResolveResult(
            hostname=host,
            host=address,
            port=port,
            family=socket.AF_INET6 if is_six else socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )

    async def close(self) -> None:
        """Has nothing to close."""


async def _addresses(host: str, port: int) -> Sequence[str]:
    network.require_allowed(host)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _require_public(host: str, address: Address) -> None:
    if not is_public(address):
        raise FetchFailed(
            f"{host} has the address {address}, which is not public; files are fetched from the "
            "public internet only."
        )


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, and so does one that it contains."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Returns the address of IPv4 to which one of IPv6 leads."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or int(address) >> 32 == 0:  # the latter is "IPv4-compatible"
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _require_url(url: str) -> None:
    text = require_text("url", url)
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        port, host, parts = None, None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise InvalidInput(f"url={masked_url(text)[:200]!r} is not of the form https://host/file.")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("url= contains a user or a password; leave them out.")


def _redirected(url: str, to: str) -> str:
    """Returns the URL to which one redirects; raises `FetchFailed` for one of another form."""
    try:
        to = urljoin(url, to)
        _require_url(to)
    except (InvalidInput, ValueError) as error:
        raise FetchFailed(f"{_host(url)} redirects to an address that is not valid.") from error
    if urlsplit(url).scheme == "https" and urlsplit(to).scheme == "http":
        raise FetchFailed(f"{_host(url)} redirects from https to http.")
    return to


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    host = response.url.host
    if response.status != _OK:
        raise FetchFailed(
            f"{host} answered with status {response.status}.",
            retryable=response.status >= 500 or response.status == 429,
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{host} sent a compressed response that was not asked for.")
    too_large = f"The file at {host} is larger than {most:,} bytes."
    if (response.content_length or 0) > most:
        raise FetchFailed(too_large)
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > most:
            raise FetchFailed(too_large)
    return bytes(body)


def _part(content: bytes, path: str, claimed: str) -> Media:
    kind = media_type(content, path, claimed)
    if kind in IMAGES:
        return InputImage.from_bytes(content)
    if kind.startswith("audio/"):
        return InputAudio.from_bytes(content)
    return InputFile.from_bytes(content, path, claimed)
