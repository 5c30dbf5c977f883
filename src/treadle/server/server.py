"""The server process: listening, signals, and the order of a shutdown."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from treadle.errors import ConfigurationError
from treadle.server.app import ServerApp
from treadle.server.origins import is_loopback
from treadle.server.protocol import protocol_of

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""How long a connection without a request stays open: longer than that of usual proxies."""

CLOSE_SECONDS = 5
"""How long connections may take to close once no stream is open."""

_LOGGER = logging.getLogger("treadle.server")


class Server(uvicorn.Server):
    """Serves an application until a signal, and then ends in this order.

    1. New runs are refused, and every open stream ends after its step, with a frame that tells the
       client to connect again. Runs continue up to their next request to a model; where other nodes
       share the database, these continue them.
    2. After that, at the latest after `grace_seconds`, the runtime is shut down. Steps in progress
       are resumed by the next process, by the rules for interrupted steps. The streams that are
       left end behind the last event that was kept, so their clients have all of every text that
       the next process finds.
    3. The sockets are closed, and uvicorn waits for the connections.

    uvicorn alone begins with 3, waits for streams that nothing ends, and cuts them with a traceback
    for each.
    """

    def __init__(self, app: ServerApp, on_listening: Callable[[str], None] | None = None) -> None:
        settings = app.services.settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=protocol_of(settings),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self._app = app
        self._on_listening = on_listening
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the runtime and listens."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._on_listening is not None and sockets:
            self._on_listening(url_of(sockets[0]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the shutdown; a second signal ends the grace period."""
        self._signals += 1
        if self._loop is None or not self.started or self._signals > 2:
            super().handle_exit(sig, frame)
        elif self._signals == 1:
            self._loop.call_soon_threadsafe(self.begin_shutdown)
        else:
            self._loop.call_soon_threadsafe(self._end_grace)

    def begin_shutdown(self) -> None:
        """Begins the shutdown, on the event loop of the server; a second call does nothing."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    def _end_grace(self) -> None:
        self._app.services.open_requests.hurry()

    async def _drain(self) -> None:
        services = self._app.services
        _LOGGER.info("Shutting down: %d open requests", len(services.open_requests))
        try:
            await services.open_requests.drain(
                services.settings.grace_seconds, services.runtime.shutdown, services.runtime.drain
            )
        finally:
            self.should_exit = True


async def serve(app: ServerApp, *, on_listening: Callable[[str], None] | None = None) -> None:
    """Serves an application until SIGINT or SIGTERM; see `Server`.

    `on_listening` is called with the URL once requests are accepted. Raises `ConfigurationError`
    for an address that needs keys, or that cannot be listened on.
    """
    settings = app.services.settings
    _require_protected(app)
    with listen(settings.host, settings.port) as listener:
        await Server(app, on_listening).serve(sockets=[listener])


def _require_protected(app: ServerApp) -> None:
    """Raises `ConfigurationError` for a server on the network without keys."""
    services = app.services
    host = services.settings.host
    if services.authenticate is None and not services.settings.auth and not is_loopback(host):
        raise ConfigurationError(
            f"host={host!r} can be reached from the network, which needs keys; leave --no-auth "
            "out, or listen on 127.0.0.1."
        )


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; raises `ConfigurationError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        # asyncio turns the delay of small writes off only if the protocol is named.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise ConfigurationError(f"host={host!r} is not an address: {error}.") from error
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on: {error.strerror}; choose another port."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Returns the URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
