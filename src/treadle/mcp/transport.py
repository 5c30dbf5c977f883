"""The two transports to a server, a child process and HTTP, in the form that `mcp` expects."""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
import httpx2
from mcp import StdioServerParameters
from mcp.client._transport import ReadStream, TransportStreams
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp.shared.message import SessionMessage

from treadle.mcp.address import CommandAddress, UrlAddress
from treadle.mcp.error_output import ErrorOutput

_NOT_FOUND = 404
_CONNECT_SECONDS = 30.0
_MIN_READ_SECONDS = 300.0
_MAX_MESSAGE = 64 * 1024 * 1024


class Notes:
    """What a transport learns about its server apart from messages, for errors."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.session_gone = False
        self.errors: ErrorOutput | None = None

    def __str__(self) -> str:
        if self.errors is not None and self.errors.last_line:
            return f"its last output: {self.errors.last_line}"
        return "" if self.status is None else f"HTTP status {self.status}"


@asynccontextmanager
async def over_stdio(
    address: CommandAddress,
    name: str,
    notes: Notes,
    on_begin: Callable[[], None],
    on_end: Callable[[], None],
) -> AsyncGenerator[TransportStreams]:
    """Starts the program; leaving the context closes its input and, if need be, kills it.

    `on_begin` is called when it runs, `on_end` when it closes its output, which shows that it died.
    The child inherits only the few environment variables that `mcp` passes on, and `env`.
    """
    parameters = StdioServerParameters(
        command=address.program,
        args=list(address.arguments),
        env=dict(address.env),
        cwd=address.folder,
    )
    if sys.platform == "win32":  # its event loop cannot read pipes
        async with stdio_client(parameters) as (read, write):
            on_begin()
            yield _Watched(read, on_end), write
        return
    async with ErrorOutput(name, address.without_secrets) as errors:
        notes.errors = errors
        async with stdio_client(parameters, errlog=errors.child_end) as (read, write):
            errors.inherited()
            on_begin()
            yield _Watched(read, on_end), write


@asynccontextmanager
async def over_http(
    address: UrlAddress, notes: Notes, on_begin: Callable[[], None], longest_call: float | None
) -> AsyncGenerator[TransportStreams]:
    """Opens streamable HTTP; a request that cannot reach the server ends it with the error."""

    async def note(response: httpx2.Response) -> None:
        if response.request.method != "POST":
            return  # not a message
        notes.status = response.status_code if response.is_error else None
        if notes.status == _NOT_FOUND and MCP_SESSION_ID in response.request.headers:
            # https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
            # "Session Management": the client must begin a new session then.
            notes.session_gone = True

    def client() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=dict(address.headers),
            timeout=httpx2.Timeout(
                _CONNECT_SECONDS, read=max(_MIN_READ_SECONDS, longest_call or 0.0)
            ),
            event_hooks={"response": [note]},
        )

    on_begin()
    # In a thread, because it reads the certificates of the system.
    http = await anyio.to_thread.run_sync(client)
    async with (
        http,
        streamable_http_client(
            address.url, http_client=http, max_sse_event_size=_MAX_MESSAGE
        ) as streams,
    ):
        yield streams


class _Watched:
    """The stream of a transport, which reports its end."""

    def __init__(
        self, stream: ReadStream[SessionMessage | Exception], on_end: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._on_end = on_end

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._on_end()
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> "ReadStream[SessionMessage | Exception]":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await anext(self._stream)
        except (StopAsyncIteration, anyio.ClosedResourceError):
            self._on_end()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._stream.__aexit__(exc_type, exc_val, exc_tb)
