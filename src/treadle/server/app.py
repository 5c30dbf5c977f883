"""The application: the API of a runtime as ASGI."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Route, Router

from treadle.runtime.runtime import Runtime
from treadle.server.gate import Gate
from treadle.server.health import Health
from treadle.server.keys import Keys
from treadle.server.operation import Operation
from treadle.server.operations import all_operations
from treadle.server.page_files import Page
from treadle.server.problems import RequestRefused
from treadle.server.resource import Resource
from treadle.server.services import Authenticate, Services
from treadle.server.settings import ServerSettings
from treadle.server.stream import Receive, Scope, Send


class ServerApp:
    """The API of a runtime, as an ASGI application; made by `create_app`.

    Its lifespan opens the runtime and closes it.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        operations = all_operations()
        routes = [
            *_health(Health(services, operations)),
            *_resources(operations, services),
            *Page().routes(),
        ]
        router = Router(routes, redirect_slashes=False, default=_not_found, lifespan=self._lifespan)
        formats = {operation.prefix: operation.errors for operation in operations}
        self._gate = Gate(router, services, formats)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or the lifespan."""
        await self._gate(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncGenerator[None]:
        services = self.services
        async with services.runtime:
            services.open_requests.start()
            services.is_ready = True
            try:
                yield
            finally:
                services.is_ready = False
                await services.runtime.shutdown()  # streams end behind what was kept
                await services.open_requests.stop()


def create_app(
    runtime: Runtime,
    settings: ServerSettings | None = None,
    *,
    keys: Keys | None = None,
    authenticate: Authenticate | None = None,
) -> ServerApp:
    """Returns an ASGI application that serves a runtime, which it opens and closes.

        runtime = treadle.open("sqlite:///treadle.db", agents=[agent])
        app = create_app(runtime, authenticate=authenticate)

    - `settings`: by default those of the class.
    - `keys`: the keys that are let in.
    - `authenticate`: a function of the request that returns its `Principal`, or None, in place of
      keys; plain or async. It is called for every request.
    """
    return ServerApp(Services(runtime, settings or ServerSettings(), keys or Keys(), authenticate))


def _health(health: Health) -> list[Route]:
    return [
        Route("/healthz", _App(health.live)),
        Route("/readyz", _App(health.ready)),
        Route("/metrics", _App(health.metrics)),
        Route("/openapi.json", _App(health.openapi)),
    ]


def _resources(operations: list[Operation], services: Services) -> list[Route]:
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.full_path, []).append(operation)
    return [Route(path, Resource(those, services)) for path, those in by_path.items()]


class _App:
    """A method as an ASGI application; Starlette takes a function for one of its own endpoints."""

    def __init__(self, serve: Callable[[Scope, Receive, Send], Any]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise RequestRefused(404, "route_not_found", "There is no such path; see /openapi.json.")
