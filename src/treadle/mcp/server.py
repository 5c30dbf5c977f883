"""The server of one event loop: connected when needed, and again after it ended."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

# `mcp` imports it during the first call, which would block the event loop.
import jsonschema  # noqa: F401  # pyright: ignore[reportUnusedImport]
from mcp import Client, MCPError
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import CONNECTION_CLOSED, CallToolResult, Tool
from pydantic import ValidationError

from treadle.errors import RemoteToolFailed, ToolSourceFailed
from treadle.logging import logger_of
from treadle.mcp.connection import Connection, Dialling
from treadle.mcp.restart import RestartPause, RestartPolicy

T = TypeVar("T")

_LOGGER = logger_of("treadle.mcp")
_MAX_PAGES = 100
_END_SECONDS = 1.0


class Server:
    """Keeps at most one connection, and the list of tools until the server reports a change."""

    def __init__(self, dialling: Dialling, policy: RestartPolicy) -> None:
        self._dialling = dialling
        self._pause = RestartPause(policy)
        self._connection: Connection | None = None
        self._connections: set[Connection] = set()
        self._closed = False
        self._failure = ""
        self._listed: Sequence[Tool] | None = None
        self._changed = True
        self._listing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        for connection in tuple(self._connections):
            await connection.aclose()

    async def tools(self) -> Sequence[Tool]:
        """Returns the tools of the server: the same object as long as nothing has changed.

        While the server is not connected, these are its last known tools: a call reconnects it, or
        reports the failure. Raises `ToolSourceFailed` if the tools were never known.
        """
        if self._is_current() and self._listed is not None:
            return self._listed
        async with self._listing:
            if self._is_current() and self._listed is not None:
                return self._listed
            try:
                self._listed = await self._list()
            except ToolSourceFailed:
                if self._listed is None:
                    raise
        return self._listed

    async def call(
        self, name: str, arguments: Mapping[str, object], progress: ProgressFnT
    ) -> CallToolResult:
        """Calls a tool; cancelling the caller cancels the request.

        Waits until a server that ended may be started again. Raises `ToolSourceFailed` if the
        server cannot be reached or ends meanwhile, `RemoteToolFailed` for an error it returns.
        """
        connection = await self._connected()
        try:
            try:
                return await _call(connection, name, arguments, progress)
            except MCPError as error:
                if not connection.is_forgotten or error.code == CONNECTION_CLOSED:
                    raise
            # The call did not run: over HTTP, the end of a session shows at the next request.
            connection.retire()
            connection = await self._connected()
            return await _call(connection, name, arguments, progress)
        except MCPError as error:
            raise await self._failed(error, connection) from error
        except (RuntimeError, ValidationError) as error:
            text = self._dialling.address.without_secrets(str(error))
            raise RemoteToolFailed(f"its answer is not valid: {text}") from error

    async def connect(self) -> None:
        """Waits until the server is connected; raises `ToolSourceFailed`."""
        await (await self._connected()).client()

    async def _list(self) -> Sequence[Tool]:
        connection = self._connection
        if connection is None or not connection.usable:
            if self._pause.remaining(self._now()):
                raise ToolSourceFailed(self._failure)
            connection = self._connect()
        if self._failure and not connection.stands:
            # Only the first connection delays a step; later ones are made while the run continues.
            raise ToolSourceFailed(self._failure)
        client = await connection.client()
        self._changed = False
        try:
            with connection.use():
                async with asyncio.timeout(self._dialling.start_timeout):
                    listed = await _all_tools(client)
        except (MCPError, ValidationError, TimeoutError) as error:
            self._changed = True
            if isinstance(error, TimeoutError) or connection.is_forgotten:
                connection.retire()
            text = self._dialling.address.without_secrets(str(error)) or "no answer in time"
            self._failure = f"The MCP server {self._dialling.name} does not list its tools: {text}."
            raise ToolSourceFailed(self._failure) from error
        except BaseException:  # mostly a cancellation: the next caller starts again
            self._changed = True
            raise
        self._failure = ""
        return listed

    async def _connected(self) -> Connection:
        while self._connection is None or not self._connection.usable:
            wait = self._pause.remaining(self._now())
            if not wait:
                return self._connect()
            await asyncio.sleep(wait)
        return self._connection

    def _connect(self) -> Connection:
        if self._closed:
            raise ToolSourceFailed(f"The MCP server {self._dialling.name} was closed meanwhile.")
        self._changed = True
        connection = Connection(self._dialling, on_change=self._note_change, on_end=self._note_end)
        self._connection = connection
        self._connections.add(connection)
        return connection

    def _note_change(self) -> None:
        self._changed = True

    def _note_end(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not connection.failed:
            return
        name = self._dialling.name
        self._failure = f"The MCP server {name} is not available: {connection.reason}."
        self._pause.ended(self._now(), connection.seconds)
        _LOGGER.warning("The connection to the MCP server %s ended: %s.", name, connection.reason)

    async def _failed(self, error: MCPError, connection: Connection) -> Exception:
        if error.code != CONNECTION_CLOSED:
            return RemoteToolFailed(self._dialling.address.without_secrets(error.message))
        connection.retire()
        await connection.ended(_END_SECONDS)
        reason = connection.reason if connection.failed else error.message
        return ToolSourceFailed(
            f"The connection to the MCP server {self._dialling.name} ended during the call "
            f"({reason}); whether the call took effect is unknown."
        )

    def _is_current(self) -> bool:
        connection = self._connection
        return not self._changed and connection is not None and connection.usable

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _call(
    connection: Connection, name: str, arguments: Mapping[str, object], progress: ProgressFnT
) -> CallToolResult:
    client = await connection.client()
    with connection.use():
        return await client.call_tool(name, dict(arguments), progress_callback=progress)


async def _all_tools(client: Client) -> Sequence[Tool]:
    if client.server_capabilities.tools is None:
        return ()
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tuple(found)
