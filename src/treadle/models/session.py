"""The transport that sends requests over the network, with one aiohttp session per event loop."""

from typing import cast
from urllib.parse import urlsplit

import aiohttp

from treadle.models import network
from treadle.models.transport import HttpRequest, HttpResponse, Transport, choose_transport
from treadle.per_loop import PerLoop


class NetworkTransport:
    """Fulfils `Transport` over the network, without following redirects."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends `request`; raises `NetworkForbidden` where tests forbid other machines."""
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
        # Type checkers do not take its headers, a cached property, for a property.
        return cast("HttpResponse", response)


def transport_for(own: Transport | None) -> Transport:
    """Returns the transport for a request of a model whose transport is `own`."""
    return choose_transport(own, _NETWORK)


def _open_session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


_SESSIONS = PerLoop(_open_session)
_NETWORK = NetworkTransport()
