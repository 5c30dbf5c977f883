"""The simulator on a loopback port of this process."""

import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from treadle.testing.simulator.app import (
    CLOSES,
    RecordedRequest,
    Respond,
    SimulatorApp,
    SimulatorStatistics,
)
from treadle.testing.simulator.turn import Turn

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
# Longer than any test: a jump of virtual time must not close idle connections.
KEEP_ALIVE = 24 * 3600

# uvicorn logs each connection that a fault breaks, which is intended here.
_SILENT = logging.getLogger("treadle.testing.simulator.server")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class ProviderSimulator:
    """An HTTP server on a free loopback port, in the formats of OpenAI, Anthropic, Google and AWS.

    `script` is a sequence of turns, one for each request in order of arrival, or a function that
    takes each request and returns its turn. A script answers every model name; without one, the
    name must be a scenario (`sim:…`). The header `x-treadle-scenario` takes precedence over both.
    `keep` bounds the recorded requests, default 1000. `seed` starts every id; the default is
    random, so that ids stay unique over restarts. `port` 0 means any free one. A request of more
    than `window` tokens, four bytes of its body each, is refused; 0 refuses none.

    An error raised by a script function is answered with HTTP 400 and raised again at the exit.
    """

    def __init__(
        self,
        script: Sequence[Turn] | Respond | None = None,
        *,
        keep: int = 1000,
        seed: str | None = None,
        port: int = 0,
        window: int = 0,
    ) -> None:
        self.app = SimulatorApp(script, keep=keep, seed=seed, window=window)
        self._requested_port = port
        self._port: int | None = None
        self._server = uvicorn.Server(_config(self.app))

    @property
    def base_url(self) -> str:
        """The base URL for clients, with the `/v1`; known once the server runs.

        The anthropic SDK expects it without the `/v1`.
        """
        if self._port is None:
            raise RuntimeError("The simulator does not run; enter it with `async with` first.")
        return f"http://{LOOPBACK}:{self._port}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests received, the oldest first."""
        return list(self.app.requests)

    def statistics(self) -> SimulatorStatistics:
        """Returns the counts of this moment."""
        return self.app.statistics()

    async def __aenter__(self) -> Self:
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        listener = _listener(self._requested_port)
        self._port = listener.getsockname()[1]
        # uvicorn's `serve` would take over the signal handlers of the process.
        await self._server.startup([listener])
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()
        self._port = None
        if exc is None and self.app.errors:
            raise self.app.errors[0]

    async def _close(self) -> None:
        """Breaks the open connections and waits until they are closed."""
        state = self._server.server_state
        for listener in self._server.servers:
            listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)
        # An aborted transport closes its socket in the next turn of the loop.
        await asyncio.sleep(0)
        for listener in self._server.servers:
            await listener.wait_closed()


def _listener(port: int) -> socket.socket:
    # asyncio turns Nagle's delay off only if the protocol is named, and `create_server` of the
    # socket module does not name it: answers would then wait 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
    except BaseException:
        listener.close()
        raise
    return listener


class _Protocol(H11Protocol):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _SILENT

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.scope.get(CLOSES):
            self.transport.close()


def _config(app: SimulatorApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
    )
