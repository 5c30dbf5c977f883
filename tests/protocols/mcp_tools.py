"""The MCP server with the official client: a conversation is continued by its id."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from mcp import Client as McpClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client
from tests.protocols.protocol import ClientTool, File, Person, Protocol, Seen
from tests.server.serving import Client


class McpPerson(Person):
    """A program that calls the agent as a tool."""

    def __init__(self, mcp: McpClient, client: Client, agent: str) -> None:
        self._mcp = mcp
        self._client = client
        self._agent = agent
        self._seen = Seen()
        self._more: dict[str, str] = {}

    async def say(
        self, text: str, *, files: Sequence[File] = (), stop_after: int = 0, leave_after: int = 0
    ) -> Seen:
        assert not files
        assert not leave_after
        seen = self._seen
        arguments = {"message": text, **self._more}
        calling = asyncio.create_task(self._mcp.call_tool(self._agent, arguments))
        if stop_after:
            await self._stop(calling)
            seen.end = "cancelled"
            return seen
        try:
            result: Any = await calling
        except MCPError as error:
            seen.end, seen.error = "failed", error.message
            return seen
        said = "".join(getattr(block, "text", "") for block in result.content)
        if result.is_error:
            seen.end, seen.error = "failed", said
            return seen
        self._more = {"conversation": result.structured_content["conversation"]}
        seen.texts.append(said)
        seen.end = "completed"
        return seen

    async def _stop(self, calling: asyncio.Task[Any]) -> None:
        """Cancels the call while its run is in progress, and waits for the end of the run."""
        runtime = self._client.app.services.runtime
        threads = await runtime.threads()
        while not threads or threads[0].status != "in_progress":
            await asyncio.sleep(0.01)
            threads = await runtime.threads()
        run = await (await runtime.connect(threads[0].id)).active_run()
        assert run is not None
        calling.cancel()
        await asyncio.wait([calling])
        await run.result(raise_on_incomplete=False)


class McpTools(Protocol):
    """`mcp.Client`."""

    name = "MCP"
    shows: ClassVar = frozenset({"answers"})
    lacks: ClassVar = {
        "text": "An answer arrives whole.",
        "client tool": "A client of MCP runs no calls of a server.",
        "server and client tools at once": "A client of MCP runs no calls of a server.",
        "approval and denial": "Each is asked for by elicitation, while the call waits.",
        "growing to_user": "It is a message of progress, which is whole.",
        "disconnect and resume": "A call whose connection is lost is over for its client.",
        "image": "The message is a text.",
        "PDF": "The message is a text.",
    }

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[McpPerson]:
        transport = streamable_http_client(f"{client.http.base_url}/mcp")
        async with McpClient(transport) as mcp:
            yield McpPerson(mcp, client, agent)
