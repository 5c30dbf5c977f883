"""The access token of an MCP server, by the OAuth client of the package `mcp`.

https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization
"""

import anyio.to_thread
import httpx2
from mcp.client.auth import OAuthClientProvider

from treadle.errors import ToolSourceFailed

_PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_HEADERS = {"Accept": "application/json, text/event-stream"}


class OAuthToken:
    """Returns the current access token of an MCP server, for `RemoteMCP(token=…)`.

    - `provider`: the client of OAuth, with the URL of the server, the storage of the tokens and the
      functions that lead a person through the authorization:
      `mcp.client.auth.OAuthClientProvider`.
    - `transport`: sends the requests, by default over the network.

    A token that has expired is refreshed; without one, the person is asked. Raises
    `ToolSourceFailed` if there is none after that, and what the provider raises.
    """

    def __init__(
        self, provider: OAuthClientProvider, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._provider = provider
        self._transport = transport

    async def __call__(self) -> str:
        """Returns the token."""
        context = self._provider.context
        if not context.is_token_valid():
            await self._authorize()
        tokens = context.current_tokens
        if tokens is None or not context.is_token_valid():
            host = httpx2.URL(context.server_url).host
            raise ToolSourceFailed(f"The MCP server {host} gave no access token; authorize again.")
        return tokens.access_token

    async def _authorize(self) -> None:
        """Sends a ping with the authorization, which refreshes it or asks for it."""

        def client() -> httpx2.AsyncClient:
            return httpx2.AsyncClient(auth=self._provider, transport=self._transport)

        # In a thread, because it reads the certificates of the system.
        async with await anyio.to_thread.run_sync(client) as http:
            await http.post(self._provider.context.server_url, json=_PING, headers=_HEADERS)
