"""HTTP as models use it: a request goes out, a response comes in.

`post` does it over the network. `treadle.testing.record` and `treadle.testing.replay` put a
transport of their own in its place; everything above, from
the request's encoding to the timeouts, stays.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from treadle.models import network
from treadle.per_loop import PerLoop


class HttpRequest(Struct, frozen=True, kw_only=True):
    """A POST to a provider.

    `path` is that of the endpoint below the API's root, `model` the provider's name of the model;
    both are part of `url` and `body`, and here for who tells requests apart. `connect` is the
    longest wait for a connection, in seconds.
    """

    model: str
    path: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    proxy: str | None = None
    connect: float | None = None

    def __repr__(self) -> str:
        # Headers hold the key, and what is printed lands in logs and reports.
        return f"HttpRequest(model={self.model!r}, path={self.path!r})"


class ResponseBody(Protocol):
    """The body of a response as it arrives.

    Reading raises `aiohttp.ClientError` or `OSError` when the connection breaks, `TimeoutError`
    (which is one) for a silence that was too long.
    """

    async def read(self, n: int, /) -> bytes:
        """Waits for some bytes and returns at most `n` of them; none at the end of the body."""
        ...

    async def readany(self) -> bytes:
        """Waits for some bytes and returns all that have come; none at the end of the body."""
        ...

    def at_eof(self) -> bool:
        """Whether the body was read to its end."""
        ...


class HttpResponse(Protocol):
    """A response whose head has come."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names are found in lower case."""
        ...

    @property
    def content_type(self) -> str: ...

    @property
    def content(self) -> ResponseBody: ...

    def release(self) -> object:
        """Gives the connection back, or closes it where the body was not read to its end."""
        ...

    def close(self) -> object:
        """Closes the connection; who reads gets an error."""
        ...


Transport = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Sends a request and returns once the head of its response has come.

Raises what `ResponseBody` raises, and `aiohttp.ConnectionTimeoutError`.
"""


async def post(request: HttpRequest) -> HttpResponse:
    """Sends `request` over the network, without following redirects.

    Raises `NetworkForbidden` for a host beyond this machine where tests forbid it.
    """
    network.require_allowed(urlsplit(request.url).hostname or "")
    session = await _SESSIONS.get()
    response = await session.post(
        request.url,
        data=request.body,
        headers=request.headers,
        allow_redirects=False,
        proxy=request.proxy,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=request.connect),
    )
    # Its headers are a cached property, which type checkers do not take for a property.
    return cast("HttpResponse", response)


_transport: Transport = post


def current() -> Transport:
    """Returns the transport that requests go through now."""
    return _transport


def use(transport: Transport) -> Transport:
    """Has the requests of all models of this process go through `transport` from now on.

    Returns what they went through before.
    """
    global _transport
    before, _transport = _transport, transport
    return before


def _open_session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


_SESSIONS = PerLoop(_open_session)
