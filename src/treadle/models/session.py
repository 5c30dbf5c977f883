"""The transport that sends requests over the network, with one aiohttp session per event loop."""

from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Self, cast
from urllib.parse import urlsplit

import aiohttp

from treadle.models import network
from treadle.models.transport import HttpRequest, HttpResponse, Transport, choose_transport
from treadle.per_loop import PerLoop


class NetworkTransport:
    """Fulfils `Transport` over the network, without following redirects.

    Connections are used again. A server may close one at the moment at which the next request is
    sent on it (llama.cpp does so after each stream), so a request that fails on such a connection
    before its response has begun is sent again at once, on a new connection.
    """

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends `request`; raises `NetworkForbidden` where tests forbid other machines."""
        network.require_allowed(urlsplit(request.url).hostname or "")
        sessions = await _SESSIONS.get()
        use = _Use()
        _use.set(use)
        try:
            response = await _post(sessions.pooled, request)
        except aiohttp.ClientConnectionError as error:
            if not use.is_reused or isinstance(error, TimeoutError):
                raise
            response = await _post(sessions.fresh, request)
        # Type checkers do not take its headers, a cached property, for a property.
        return cast("HttpResponse", response)


def transport_for(own: Transport | None) -> Transport:
    """Returns the transport for a request of a model whose transport is `own`."""
    return choose_transport(own, _NETWORK)


class _Use:
    """Whether a request went out on a connection that had been used before."""

    # A version of aiohttp without the method that tells would make every connection look used, and
    # requests would be sent twice; then none is sent again.
    is_reused = hasattr(aiohttp.TCPConnector, "_create_connection")


_use: ContextVar[_Use | None] = ContextVar("treadle_connection_use", default=None)


class _Connector(aiohttp.TCPConnector):
    """Notes which requests open a connection.

    A `TraceConfig` would report the others, at a tenth of what aiohttp takes for a request.
    """

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Any:
        use = _use.get()
        if use is not None:
            use.is_reused = False
        return await super()._create_connection(req, traces, timeout)


class _Sessions:
    """A session that uses connections again, and one that opens a new one for each request."""

    def __init__(self) -> None:
        self.pooled = _open_session(_Connector(limit=0, ttl_dns_cache=300))
        self.fresh = _open_session(_Connector(limit=0, ttl_dns_cache=300, force_close=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pooled.close()
        await self.fresh.close()


async def _post(session: aiohttp.ClientSession, request: HttpRequest) -> aiohttp.ClientResponse:
    return await session.request(
        request.method,
        request.url,
        data=request.body,
        headers=request.headers,
        allow_redirects=False,
        proxy=request.proxy,
        timeout=_timeout(request.connect),
    )


@lru_cache
def _timeout(connect: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


def _open_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


_SESSIONS = PerLoop(_Sessions)
_NETWORK = NetworkTransport()
