"""Fetching files: from public addresses only, whatever names, redirects and servers do."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle import InputAudio, InputFile, InputImage
from treadle.errors import FetchFailed, InvalidInput, NetworkForbidden
from treadle.runtime.fetching import Fetcher, is_public

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

PUBLIC = "93.184.216.34"
PDF = b"%PDF-1.7\n" + bytes(100)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Net:
    """A server of this machine that stands for the public internet; names are looked up here."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.names: dict[str, list[str]] = {"files.example": [PUBLIC]}
        self.asked: list[str] = []
        self.handler: Handler | None = None
        self.requests: list[web.Request] = []

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        await asyncio.sleep(0)
        return self.names.get(host, [])

    async def fetch(
        self,
        path: str = "/a",
        *,
        host: str = "files.example",
        most: int = 10_000,
        timeout: float = 5.0,
    ) -> InputFile | InputImage | InputAudio:
        fetcher = Fetcher(self.look_up, lambda address: "127.0.0.1")
        url = f"http://{host}:{self.port}{path}"
        return await fetcher.fetch(url, max_bytes=most, timeout=timeout)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        self.requests.append(request)  # type: ignore[arg-type]
        assert self.handler is not None
        return await self.handler(request)  # type: ignore[arg-type]


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    net = Net(0)
    server = web.ServerRunner(web.Server(net.handle), shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    net.port = server.addresses[0][1]
    yield net
    await server.cleanup()


def sends(body: bytes, status: int = 200, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers=named)

    return handle


async def test_a_file_becomes_the_part_that_it_is(net: Net) -> None:
    net.handler = sends(PDF, Content_Type="text/html")
    assert await net.fetch("/x/r%20%C3%A4.pdf?a=b") == InputFile.from_bytes(PDF, "r ä.pdf")
    assert net.asked == ["files.example"]
    assert net.requests[0].headers["Accept-Encoding"] == "identity"
    assert not net.requests[0].cookies
    png = b"\x89PNG\r\n\x1a\n"
    net.handler = sends(png)
    assert await net.fetch() == InputImage.from_bytes(png)
    net.handler = sends(b"ID3" + bytes(9))
    assert await net.fetch() == InputAudio.from_bytes(b"ID3" + bytes(9))
    net.handler = sends(b"<html>", Content_Type="text/html")
    part = await net.fetch("/index.html")
    assert part.media_type == "text/plain"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
async def test_addresses_that_are_not_public_are_refused(net: Net, address: str) -> None:
    net.handler = sends(PDF)
    net.names["files.example"] = [PUBLIC, address]  # one of several is enough
    with pytest.raises(FetchFailed, match="not public"):
        await net.fetch()
    if "%" not in address:
        host = f"[{address}]" if ":" in address else address
        with pytest.raises(FetchFailed, match="not public"):
            await net.fetch(host=host)
        with pytest.raises(FetchFailed, match="not public"):
            await treadle.fetch_file(f"http://{host}:{net.port}/")
    net.names["files.example"] = [PUBLIC]
    net.names["inside.example"] = [address]
    net.handler = sends(b"", 302, Location=f"http://inside.example:{net.port}/")
    with pytest.raises(FetchFailed, match="not public"):
        await net.fetch()
    assert len(net.requests) == 1  # nothing else reached a server


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.0.0.1"])
async def test_other_spellings_of_this_machine_are_refused(net: Net, host: str) -> None:

    async def look_up(host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port)
        return [str(entry[4][0]) for entry in found]

    with pytest.raises(FetchFailed):
        await Fetcher(look_up).fetch(f"http://{host}:{net.port}/", max_bytes=9, timeout=5)
    with pytest.raises((FetchFailed, NetworkForbidden)):
        await treadle.fetch_file(f"http://{host}:{net.port}/")
    assert not net.requests


async def test_a_host_is_resolved_once_for_each_request(net: Net) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    net.handler = sends(PDF)
    fetcher = Fetcher(rebinding, lambda address: "127.0.0.1")
    part = await fetcher.fetch(f"http://a.example:{net.port}/", max_bytes=1000, timeout=5)
    assert part.size == len(PDF)
    assert next(answers) == ["127.0.0.1"]


async def test_redirects_are_followed_a_few_times(net: Net) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        count = int(request.path[1:])
        return web.Response(status=307, headers={"Location": f"/{count - 1}"}) if count else done

    done = web.Response(body=PDF)
    net.handler = handle
    assert (await net.fetch("/5")).size == len(PDF)
    with pytest.raises(FetchFailed, match="more than 5 times"):
        await net.fetch("/6")
    for to in ("file:///etc/passwd", "ftp://files.example/", "http://[", "http://a:b@c.example/"):
        net.handler = sends(b"", 302, Location=to)
        with pytest.raises(FetchFailed, match="not valid"):
            await net.fetch()


async def test_what_is_too_large_or_compressed_is_refused(net: Net) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1000))

    net.handler = endless
    with pytest.raises(FetchFailed, match="larger than 10,000 bytes"):
        await net.fetch()
    net.handler = sends(bytes(10_001))
    with pytest.raises(FetchFailed, match="larger than 10,000 bytes"):
        await net.fetch()
    net.handler = sends(PDF, Content_Encoding="gzip")
    with pytest.raises(FetchFailed, match="compressed"):
        await net.fetch()
    net.handler = sends(b"")
    with pytest.raises(FetchFailed, match="empty"):
        await net.fetch()


async def test_failures_are_typed(net: Net) -> None:
    for status, retryable in ((404, False), (429, True), (503, True)):
        net.handler = sends(b"", status)
        with pytest.raises(FetchFailed, match=f"status {status}") as raised:
            await net.fetch()
        assert raised.value.retryable is retryable
    with pytest.raises(FetchFailed, match="has no address"):
        await net.fetch(host="unknown.example")

    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    net.handler = silent
    with pytest.raises(FetchFailed, match=r"within 0\.1 s") as raised:
        await net.fetch(timeout=0.1)
    assert raised.value.retryable
    for url in ("ftp://x/y", "x", "http://", "file:///etc/passwd", "http://x:0/", "http://x:y/"):
        with pytest.raises(InvalidInput, match="not of the form"):
            await treadle.fetch_file(url)
    with pytest.raises(InvalidInput, match="a user or a password"):
        await treadle.fetch_file("https://me:secret@example.com/")
    with pytest.raises(InvalidInput, match="max_bytes"):
        await treadle.fetch_file("https://example.com/", max_bytes=0)


@given(st.ip_addresses(v=4))
def test_what_leads_to_an_address_is_as_public_as_it(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for outer in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert is_public(ipaddress.IPv6Address(outer)) == is_public(address)
