"""The transport that sends requests over the network, with one aiohttp session per event loop."""

from types import SimpleNamespace
from typing import Self, cast
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
        try:
            response = await _post(sessions.pooled, request, use)
        except aiohttp.ClientConnectionError as error:
            if not use.is_reused or isinstance(error, TimeoutError):
                raise
            response = await _post(sessions.fresh, request, use)
        # Type checkers do not take its headers, a cached property, for a property.
        return cast("HttpResponse", response)


def transport_for(own: Transport | None) -> Transport:
    """Returns the transport for a request of a model whose transport is `own`."""
    return choose_transport(own, _NETWORK)


class _Use:
    """Whether a request went out on a connection that had been used before."""

    is_reused = False


class _Sessions:
    """A session that uses connections again, and one that opens a new one for each request."""

    def __init__(self) -> None:
        self.pooled = _open_session(aiohttp.TCPConnector(limit=0, ttl_dns_cache=300))
        self.fresh = _open_session(
            aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, force_close=True)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pooled.close()
        await self.fresh.close()


async def _post(
    session: aiohttp.ClientSession, request: HttpRequest, use: _Use
) -> aiohttp.ClientResponse:
    return await session.post(
        request.url,
        data=request.body,
        headers=request.headers,
        allow_redirects=False,
        proxy=request.proxy,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=request.connect),
        trace_request_ctx=use,
    )


def _open_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]
    )


async def _note_reuse(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.is_reused = True


_SESSIONS = PerLoop(_Sessions)
_NETWORK = NetworkTransport()
