"""One connection to a server, from its opening to its end."""

import asyncio
import math
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from importlib.metadata import version

import anyio
from mcp import Client, MCPError
from mcp.client import IncomingMessage
from mcp.client._transport import TransportStreams
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import Implementation, ToolListChangedNotification
from msgspec import Struct

from treadle.errors import ToolSourceFailed
from treadle.mcp.address import Address, CommandAddress
from treadle.mcp.failure import explain_end
from treadle.mcp.transport import Notes, over_http, over_stdio
from treadle.tools.output import truncated

_VERSION = version("treadle")
_LEAVE_SECONDS = 5.0
_LISTEN_AGAIN_SECONDS = 1.0
_MAX_REASON = 1000


class Dialling(Struct, frozen=True, kw_only=True):
    """The parameters of a connection: address, name, and timeouts in seconds."""

    address: Address
    name: str
    start_timeout: float
    longest_call: float | None


class Connection:
    """A connection in a task of its own: `mcp` must be entered and left by the same task.

    Requests are made by the tasks of the callers. `on_change` is called when the tools of the
    server have changed, `on_end` when the connection has ended after `seconds`; `reason` describes
    the end, and `failed` is set unless this side closed it. `usable` is true from the start,
    because callers can wait for the connection, until it breaks or is retired.
    """

    def __init__(
        self,
        dialling: Dialling,
        *,
        on_change: Callable[[], None],
        on_end: Callable[["Connection"], None],
    ) -> None:
        self._dialling = dialling
        self._on_change = on_change
        self._on_end = on_end
        self._notes = Notes()
        self._client: Client | None = None
        self._opened = asyncio.Event()
        self._leaving = anyio.Event()
        self._scope = anyio.CancelScope()
        self._begun = False
        self._requests = 0
        self.usable = True
        self.failed = False
        self.reason = "the connection was closed"
        self.seconds = 0.0
        self._owner = asyncio.create_task(self._own(), name=f"treadle mcp {dialling.name}")

    @property
    def stands(self) -> bool:
        """Whether requests can be made without waiting."""
        return self._client is not None and self.usable

    @property
    def is_forgotten(self) -> bool:
        """Whether a server behind HTTP no longer knows the session, so that it ran nothing."""
        return self._notes.session_gone

    async def client(self) -> Client:
        """Waits until the connection is open; raises `ToolSourceFailed` if that fails."""
        await self._opened.wait()
        if self._client is None:
            raise ToolSourceFailed(
                f"The MCP server {self._dialling.name} is not available: {self.reason}."
            )
        return self._client

    @contextmanager
    def use(self) -> Generator[None]:
        """Keeps the connection open until the request is answered, even if it is retired."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if not self.usable and not self._requests:
                self._leave()

    def retire(self) -> None:
        """Accepts no more requests, and closes when the current ones are answered."""
        self.usable = False
        if not self._requests:
            self._leave()

    async def ended(self, patience: float | None = None) -> None:
        """Waits until everything is closed, at most `patience` seconds."""
        await asyncio.wait([self._owner], timeout=patience)

    async def aclose(self) -> None:
        """Closes, and waits for the end: a child process gets time to end by itself."""
        self.usable = False
        self._leave()
        await self.ended()

    def _leave(self) -> None:
        self._leaving.set()
        if self._begun and not self._opened.is_set():
            self._scope.cancel()

    def _begin(self) -> None:
        """Allows opening to be cancelled; before, it would leave half a child process."""
        self._begun = True
        self._scope.deadline = anyio.current_time() + self._dialling.start_timeout
        if self._leaving.is_set():
            self._scope.cancel()

    def _broke(self) -> None:
        """The server closed its end."""
        self.usable = False
        if not self._leaving.is_set():
            self._fail("it ended")
            self._leaving.set()

    async def _own(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            with self._scope:
                await self._live()
            if self._scope.cancelled_caught and not self._leaving.is_set():
                seconds = self._dialling.start_timeout
                self._fail(self._explained(f"it did not answer within {seconds:g} s"))
        except Exception as error:  # noqa: BLE001 - the callers must learn of every end
            self._fail(self._explained(explain_end(error)))
        finally:
            self.usable = False
            self.seconds = loop.time() - start
            self._opened.set()
            self._on_end(self)

    def _fail(self, reason: str) -> None:
        self.failed = True
        self.reason = reason

    def _explained(self, reason: str) -> str:
        notes = str(self._notes)
        text = f"{reason} ({notes})" if notes else reason
        return truncated(self._dialling.address.without_secrets(text), _MAX_REASON)

    async def _live(self) -> None:
        if self._leaving.is_set():
            return
        async with self._new_client() as client, anyio.create_task_group() as tasks:
            listening = anyio.Event()
            tasks.start_soon(self._listen, client, listening)
            await listening.wait()
            self._scope.deadline = math.inf
            self._client = client
            self._opened.set()
            try:
                await self._leaving.wait()
            finally:
                # Leaving a server behind HTTP is another request, which may hang.
                self._scope.deadline = anyio.current_time() + _LEAVE_SECONDS
                tasks.cancel_scope.cancel()

    def _new_client(self) -> Client:
        return Client(
            self._transport(),
            client_info=Implementation(name="treadle", version=_VERSION),
            message_handler=self._message,
            cache=None,
        )

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        dialling = self._dialling
        if isinstance(dialling.address, CommandAddress):
            return over_stdio(
                dialling.address, dialling.name, self._notes, self._begin, self._broke
            )
        return over_http(
            dialling.address, dialling.name, self._notes, self._begin, dialling.longest_call
        )

    async def _message(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_change()

    async def _listen(self, client: Client, ready: anyio.Event) -> None:
        """Subscribes to changes, as servers since 2026-07-28 require; others send them anyway.

        Changes arrive as messages, so this only keeps the stream open. `ready` is set when it is
        open, or when it is known that the server has none.
        """
        try:
            while True:
                with suppress(SubscriptionLost):
                    async with client.listen(tools_list_changed=True) as changes:
                        if not changes.honored.tools_list_changed:
                            return ready.set()  # its tools never change
                        if ready.is_set():
                            self._on_change()  # one may have been missed
                        ready.set()
                        async for _ in changes:
                            pass
                ready.set()
                await anyio.sleep(_LISTEN_AGAIN_SECONDS)
        except (ListenNotSupportedError, MCPError):
            ready.set()  # the server does not announce changes
