"""The two transports to a server, a child process and HTTP, in the form that `mcp` expects."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2
from mcp import StdioServerParameters
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import (
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from treadle.mcp.address import CommandAddress, UrlAddress
from treadle.mcp.error_output import ErrorOutput
from treadle.mcp.lenient import repaired

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
        async with stdio_client(parameters) as streams:
            on_begin()
            yield _watched(streams, name, on_end)
        return
    async with ErrorOutput(name, address.without_secrets) as errors:
        notes.errors = errors
        async with stdio_client(parameters, errlog=errors.child_end) as streams:
            errors.inherited()
            on_begin()
            yield _watched(streams, name, on_end)


@asynccontextmanager
async def over_http(
    address: UrlAddress,
    name: str,
    notes: Notes,
    on_begin: Callable[[], None],
    longest_call: float | None,
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
        return _Client(
            address,
            headers=dict(address.headers),
            auth=address.credentials,
            timeout=httpx2.Timeout(
                _CONNECT_SECONDS, read=max(_MIN_READ_SECONDS, longest_call or 0.0)
            ),
            event_hooks={"response": [note]},
        )

    on_begin()
    # In a thread, because it reads the certificates of the system.
    http = await asyncio.to_thread(client)
    async with (
        http,
        streamable_http_client(
            address.shown_url, http_client=http, max_sse_event_size=_MAX_MESSAGE
        ) as streams,
    ):
        yield _watched(streams, name, lambda: None)


class _Client(httpx2.AsyncClient):
    """Sends requests for the URL that is shown to the one that may contain keys.

    Both the HTTP library and `mcp` log the URLs of requests, and repeat them in errors.
    """

    def __init__(self, address: UrlAddress, **options: Any) -> None:
        super().__init__(**options)
        self._address = address

    def _transport_for_url(self, url: httpx2.URL) -> httpx2.AsyncBaseTransport:
        return _Redirected(super()._transport_for_url(url), self._address)


class _Redirected(httpx2.AsyncBaseTransport):
    """A transport, which it does not own, with the real URL in the place of the shown one."""

    def __init__(self, transport: httpx2.AsyncBaseTransport, address: UrlAddress) -> None:
        self._transport = transport
        self._address = address

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        real = httpx2.Request(
            request.method,
            self._address.url_without_credentials,
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._transport.handle_async_request(real)


def _watched(
    streams: TransportStreams, server: str, on_end: Callable[[], None]
) -> TransportStreams:
    """Returns the streams of a transport, with valid answers, and a report of their end."""
    read, write = streams
    asked: dict[str, str] = {}
    return _Watched(read, asked, server, on_end), _Asking(write, asked)


class _Asking:
    """Notes the methods of requests in `asked`, by their ids."""

    def __init__(self, stream: WriteStream[SessionMessage], asked: dict[str, str]) -> None:
        self._stream = stream
        self._asked = asked

    async def send(self, item: SessionMessage, /) -> None:
        message = item.message
        if isinstance(message, JSONRPCRequest):
            if message.method in {"tools/list", "tools/call"}:
                self._asked[str(message.id)] = message.method
        elif isinstance(message, JSONRPCNotification) and (
            message.method == "notifications/cancelled"
        ):
            self._asked.pop(str((message.params or {}).get("requestId")), None)
        await self._stream.send(item)

    async def aclose(self) -> None:
        await self._stream.aclose()

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


class _Watched:
    """The stream of a transport, which repairs answers and reports its end."""

    def __init__(
        self,
        stream: ReadStream[SessionMessage | Exception],
        asked: dict[str, str],
        server: str,
        on_end: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._asked = asked
        self._server = server
        self._on_end = on_end

    def _repaired(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, SessionMessage):
            message = item.message
            if isinstance(message, JSONRPCError):
                self._asked.pop(str(message.id), None)
            elif isinstance(message, JSONRPCResponse):
                method = self._asked.pop(str(message.id), "")
                message.result = repaired(method, message.result, self._server)
        return item

    async def receive(self) -> SessionMessage | Exception:
        try:
            return self._repaired(await self._stream.receive())
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._on_end()
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> "ReadStream[SessionMessage | Exception]":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return self._repaired(await anext(self._stream))
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
