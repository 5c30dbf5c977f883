"""How a node and Restate reach each other: a virtual object for each thread, and the ingress.

Restate calls `drive` of the object of a thread with one HTTP/1.1 request, which is answered when
the thread needs no more attention. Nothing is sent in between, so no streams of HTTP/2 are needed.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from urllib.parse import quote

import aiohttp
import restate
import uvicorn
from yarl import URL

from treadle.actors.restate import Restate
from treadle.errors import ConfigurationError
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.engine")

HOLD_SECONDS = 30.0
"""How long an invocation lasts: then it is followed by another one, for which Restate may choose
another node and a newer deployment. Shorter than what proxies and `abort_timeout` allow."""

ABORT_SECONDS = 45.0
"""When Restate gives up an invocation that a node does not answer, and calls another one."""

AGAIN_SECONDS = 1.0
"""The pause between the two: a node that drains is called until its balancer knows."""

MAX_ATTEMPTS = 30
"""How often Restate repeats an invocation, in about a minute: then it ends without effect, so that
no thread is left paused."""

ANSWER_SECONDS = 5.0
"""How long Restate may take to accept an invocation or a registration."""

MAX_AT_ONCE = 32
MAX_WAITING = 10_000
"""How many invocations are sent at once, and how many wait for that."""

MAX_REQUESTS = 10_000
"""How many invocations a node has at most; Restate calls again after the next ones are refused."""

REGISTER_PAUSE_SECONDS = 5.0

_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)

Hold = Callable[[str], Awaitable[bool]]
"""Waits until a thread needs no more attention; returns True if another invocation is to do so."""


class Ingress:
    """Asks Restate for invocations; `failed` is called with a thread for which it could not."""

    def __init__(self, settings: Restate, failed: Callable[[str], None]) -> None:
        self._settings = settings
        self._failed = failed
        self._session: aiohttp.ClientSession | None = None
        self._waiting: dict[str, None] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._is_away = False

    def start(self) -> None:
        """Makes it ready to ask."""
        self._session = _session(self._settings)

    async def close(self) -> None:
        """Ends what is being sent; a second call does nothing."""
        session, self._session = self._session, None
        for task in self._sending:
            task.cancel()
        if self._sending:
            await asyncio.wait(list(self._sending))
        if session is not None:
            await session.close()

    def ask(self, thread_id: str) -> None:
        """Asks that a node drives the thread, or waits for the one that does; never waits."""
        if self._session is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._failed(thread_id)
            return
        self._waiting[thread_id] = None
        if len(self._sending) < MAX_AT_ONCE:
            task = asyncio.create_task(self._send_all(self._session), name="treadle ingress")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while self._waiting:
            thread_id = next(iter(self._waiting))
            del self._waiting[thread_id]
            try:
                await self._send(session, thread_id)
            except _FAILURES as error:
                if not self._is_away:
                    self._is_away = True
                    _LOGGER.warning(
                        "Restate does not accept invocations (%s); threads are driven without it.",
                        _shown(error),
                    )
                self._failed(thread_id)
            else:
                if self._is_away:
                    self._is_away = False
                    _LOGGER.warning("Restate accepts invocations again.")

    async def _send(self, session: aiohttp.ClientSession, thread_id: str) -> None:
        base, service = self._settings.ingress.rstrip("/"), self._settings.service
        url = URL(f"{base}/{service}/{quote(thread_id, safe='')}/drive/send", encoded=True)
        async with session.post(url, skip_auto_headers=["Content-Type"]) as response:
            response.raise_for_status()


class Endpoint:
    """The HTTP server that Restate calls; `hold` is awaited for each invocation."""

    def __init__(self, settings: Restate, hold: Hold) -> None:
        self._settings = settings
        try:
            app = restate.app(
                [_object(settings.service, hold)],
                protocol="request_response",
                identity_keys=list(settings.identity_keys),
            )
        except Exception as error:
            raise ConfigurationError(
                f"identity_keys cannot be used: {error}. A key begins with publickeyv1_."
            ) from error
        self._app = app
        self._server: uvicorn.Server | None = None
        self._registering: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listens, and registers; raises `ConfigurationError` if it cannot listen."""
        host, port = self._settings.host, self._settings.port
        try:
            listener = await asyncio.to_thread(_listen, host, port)
        except OSError as error:
            raise ConfigurationError(
                f"The node cannot listen on {host}:{port} for Restate ({error}); choose another "
                "host or port."
            ) from error
        self.port = listener.getsockname()[1]
        server = await asyncio.to_thread(self._load)
        await server.startup(sockets=[listener])
        self._server = server
        if self._settings.admin:
            self._registering = asyncio.create_task(self._register(), name="treadle registration")

    def _load(self) -> uvicorn.Server:
        # With the first request, the app would take SIGTERM from the program. It does not in a
        # thread other than the main one, and tries once.
        with suppress(ValueError):
            asyncio.run(self._app({"type": "lifespan"}, None, None))
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            ws="none",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_REQUESTS,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        return server

    async def stop(self) -> None:
        """Stops listening, and waits for the answers; a second call does nothing."""
        registering, self._registering = self._registering, None
        if registering is not None:
            registering.cancel()
            await asyncio.wait([registering])
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown()

    async def _register(self) -> None:
        async with _session(self._settings) as session:
            while True:
                if await self._is_registered(session):
                    return
                await asyncio.sleep(REGISTER_PAUSE_SECONDS)

    async def _is_registered(self, session: aiohttp.ClientSession) -> bool:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = settings.url or f"http://{host}:{self.port}"
        # What an earlier version registered is replaced; its invocations continue.
        deployment = {"uri": url, "use_http_11": True, "force": True}
        try:
            admin = f"{settings.admin.rstrip('/')}/deployments"
            async with session.post(admin, json=deployment) as response:
                if response.status < 300:
                    return True
                problem = f"{response.status} {(await response.text())[:500]}"
        except _FAILURES as error:
            problem = _shown(error)
        _LOGGER.warning("Restate could not register the nodes at %s: %s", url, problem)
        return False


def _object(name: str, hold: Hold) -> restate.VirtualObject:
    """Returns the virtual object of the threads."""
    threads = restate.VirtualObject(
        name,
        description="The threads of treadle; an invocation lasts while one has something to do.",
        abort_timeout=timedelta(seconds=ABORT_SECONDS),
        journal_retention=timedelta(0),
        invocation_retry_policy=restate.InvocationRetryPolicy(
            initial_interval=timedelta(milliseconds=50),
            exponentiation_factor=2,
            max_interval=timedelta(seconds=2),
            max_attempts=MAX_ATTEMPTS,
            on_max_attempts="kill",
        ),
    )

    @threads.handler()
    async def drive(context: restate.ObjectContext) -> None:
        """Drives the thread, or waits for the node that does, until nothing is left to do."""
        thread_id = context.key()
        if await hold(thread_id):
            pause = timedelta(seconds=AGAIN_SECONDS)
            context.object_send(drive, thread_id, None, send_delay=pause)

    return threads


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _session(settings: Restate) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    return aiohttp.ClientSession(headers=headers, timeout=timeout)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
