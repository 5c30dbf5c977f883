"""Probes, metrics and the OpenAPI document."""

import asyncio

import msgspec

import treadle
from treadle.errors import TreadleError
from treadle.server.api_request import scope_missing
from treadle.server.authentication import authenticate
from treadle.server.gate import ROUTE, respond
from treadle.server.metrics import CONTENT_TYPE
from treadle.server.openapi import openapi_document
from treadle.server.operation import JSON, Operation
from treadle.server.problems import RequestRefused
from treadle.server.services import Services
from treadle.server.stream import Receive, Scope, Send

TEXT = b"text/plain; charset=utf-8"


class Health:
    """The routes for the operator, at the root of the server."""

    def __init__(self, services: Services, operations: list[Operation]) -> None:
        self._services = services
        self._operations = operations
        self._document = b""

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 200 while the process works."""
        _require_get(scope)
        await respond(send, 200, b"ok\n", TEXT)

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 200 while messages are accepted, else 503 with the reason."""
        _require_get(scope)
        reason = await self._reason()
        if reason:
            await respond(send, 503, f"{reason}\n".encode(), TEXT, [(b"retry-after", b"1")])
        else:
            await respond(send, 200, b"ok\n", TEXT)

    async def _reason(self) -> str:
        services = self._services
        if services.open_requests.is_draining:
            return "draining"
        if not services.is_ready:
            return "starting"
        try:
            await services.runtime.threads(limit=1)
        except TreadleError as error:
            return error.code
        return ""

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with the metrics; needs the scope `admin`."""
        _require_get(scope)
        principal = await authenticate(scope, self._services)
        if not principal.may("admin"):
            raise scope_missing("admin", "This route")
        open_requests = self._services.open_requests
        text = self._services.metrics.text(
            {
                "treadle_open_streams": ("Requests that wait for events.", len(open_requests)),
                "treadle_draining": ("Whether the server ends.", open_requests.is_draining),
            }
        )
        await respond(send, 200, text.encode(), CONTENT_TYPE)

    async def openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with the OpenAPI document."""
        _require_get(scope)
        if not self._document:
            # In a thread, because it takes 50 ms; and here, because few servers are asked for it.
            self._document = await asyncio.to_thread(self._described)
        await respond(send, 200, self._document, JSON)

    def _described(self) -> bytes:
        return msgspec.json.encode(openapi_document(self._operations, treadle.__version__))


def _require_get(scope: Scope) -> None:
    scope[ROUTE] = scope["path"]
    if scope["method"] not in {"GET", "HEAD"}:
        raise RequestRefused(
            405,
            "method_not_allowed",
            "This path answers GET, HEAD.",
            headers=((b"allow", b"GET, HEAD"),),
        )
