"""The access token for a remote MCP server, by the OAuth client of `mcp`."""

import json
import time
from collections.abc import Callable
from urllib.parse import parse_qs

import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata
from mcp.shared.auth import OAuthToken as Tokens

from treadle.errors import AccessDenied, ToolSourceFailed
from treadle.mcp import OAuthToken
from treadle.models.api_key import current_key

pytestmark = pytest.mark.anyio

URL = "https://mcp.example.com/mcp"


class Storage:
    """Tokens in memory."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self.tokens = tokens
        self.client: OAuthClientInformationFull | None = OAuthClientInformationFull(
            client_id="c", redirect_uris=["http://localhost/cb"], token_endpoint_auth_method="none"
        )

    async def get_tokens(self) -> Tokens | None:
        return self.tokens

    async def set_tokens(self, tokens: Tokens) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def token_of(
    storage: Storage, answer: Callable[[httpx2.Request], httpx2.Response]
) -> tuple[OAuthToken, OAuthClientProvider]:
    metadata = OAuthClientMetadata(redirect_uris=["http://localhost/cb"])
    provider = OAuthClientProvider(URL, metadata, storage)
    return OAuthToken(provider, transport=httpx2.MockTransport(answer)), provider


async def test_a_stored_token_is_checked_once_and_refreshed_when_it_has_expired() -> None:
    requests: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request.url.path)
        if request.url.path == "/token":
            assert parse_qs(request.content.decode())["refresh_token"] == ["again"]
            found = {"access_token": "second", "token_type": "Bearer", "expires_in": 60}
            return httpx2.Response(200, json=found)
        assert json.loads(request.content)["method"] == "ping"
        assert request.headers["authorization"] in {"Bearer first", "Bearer second"}
        return httpx2.Response(200)

    storage = Storage(Tokens(access_token="first", refresh_token="again"))
    token, provider = token_of(storage, answer)
    assert [await token(), await token()] == ["first", "first"]
    assert requests == ["/mcp"]
    provider.context.token_expiry_time = time.time() - 1
    assert await current_key(token, "mcp.example.com", 5) == "second"
    assert requests == ["/mcp", "/token", "/mcp"]


async def test_a_server_that_gives_no_token() -> None:
    token, _ = token_of(Storage(), lambda _: httpx2.Response(200))
    with pytest.raises(ToolSourceFailed, match=r"mcp\.example\.com gave no access token"):
        await token()
    refused, _ = token_of(Storage(), lambda request: httpx2.Response(401))
    with pytest.raises(AccessDenied, match="failed"):
        await current_key(refused, "mcp.example.com", 5)
