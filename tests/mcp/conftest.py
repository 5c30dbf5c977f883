"""`MCPTools` of real servers: of both transports, and of both generations of the protocol."""

from collections.abc import AsyncGenerator, Generator

import pytest
from tests.mcp.running import COMMAND, free_port, http_servers

from treadle.mcp import MCPTools


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The real clock: the servers do not know of the virtual one."""
    return "asyncio"


@pytest.fixture(scope="session")
def urls() -> Generator[dict[str, str]]:
    """The URLs of one server of each generation."""
    modern, legacy = free_port(), free_port()
    with http_servers(modern, legacy, legacy=[legacy]):
        yield {
            "http": f"http://127.0.0.1:{modern}/mcp",
            "http-legacy": f"http://127.0.0.1:{legacy}/mcp",
        }


@pytest.fixture
def url(urls: dict[str, str]) -> str:
    """The URL of a server that speaks the newest version."""
    return urls["http"]


@pytest.fixture(scope="module", params=["stdio", "stdio-legacy", "http", "http-legacy"])
async def tools(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncGenerator[MCPTools]:
    """The tools of a server of each kind, shared by the tests."""
    kind: str = request.param
    env = {"LEGACY": "1"} if kind == "stdio-legacy" else {"TOKEN": "my-own-token"}
    async with MCPTools(urls[kind]) if kind in urls else MCPTools(COMMAND, env=env) as tools:
        yield tools
