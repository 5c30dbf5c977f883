"""What every request passes: its id, the checks of host and origin, security headers, the log."""

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from treadle.server.api_request import Disconnected, Headers
from treadle.server.origins import is_allowed_host, is_own_origin
from treadle.server.problems import (
    PROBLEMS,
    RETRY_SECONDS,
    ErrorFormat,
    RequestRefused,
    problem_of,
    retry_headers,
)
from treadle.server.services import Services
from treadle.server.stream import Receive, Scope, Send
from treadle.server.streamed import STREAMS

App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTE = "treadle.route"
"""The key of the template of the path in a scope, for log and metrics."""

IDS = "treadle.ids"
"""The key of the ids of thread and run in a scope, for the log."""

_LOGGER = logging.getLogger("treadle.server")
_ACCESS = logging.getLogger("treadle.server.access")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NO_STORE = (b"cache-control", b"no-store")
_CORS_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_CORS_HEADERS = (
    b"authorization, content-type, idempotency-key, last-event-id, x-request-id, x-thread-id, "
    b"x-to-user"
)
_CORS_EXPOSED = b"x-request-id, x-thread-id, x-run-id, x-should-retry, retry-after"


class Gate:
    """The outermost application: refuses what may not come in, and answers what goes wrong.

    `formats` are those of the errors below beginnings of paths; others are problems by RFC 9457.
    """

    def __init__(self, app: App, services: Services, formats: Mapping[str, ErrorFormat]) -> None:
        self._app = app
        self._services = services
        self._formats = formats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or the lifespan of the application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a WebSocket is closed by the server
        headers = Headers(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        origin = headers.get(b"origin")
        response = _Response(send, request_id, self._cors(origin))
        began = time.perf_counter()
        try:
            self._require_allowed(headers, origin)
            if scope["method"] == "OPTIONS" and response.cors:
                await response.preflight()
            else:
                await self._app(scope, receive, response)
        except Disconnected:
            pass  # the client has left
        except Exception as error:
            if response.status:
                _LOGGER.exception("The response %s broke off", request_id)
                raise
            await self._refuse(scope, headers, response, error, request_id)
        finally:
            self._note(scope, response, request_id, time.perf_counter() - began)

    def _require_allowed(self, headers: Headers, origin: str) -> None:
        settings, host = self._services.settings, headers.get(b"host")
        if headers.count(b"host") != 1 or not is_allowed_host(host, settings.hosts):
            raise RequestRefused(
                421,
                "host_not_allowed",
                f"The server does not answer for the host {host[:100]!r}; add its name to the "
                "setting hosts.",
            )
        if origin and not (is_own_origin(origin, host) or origin in settings.origins):
            raise RequestRefused(
                403,
                "origin_not_allowed",
                f"Pages of {origin[:100]!r} may not use this server; add the origin to the setting "
                "origins.",
            )

    def _cors(self, origin: str) -> list[tuple[bytes, bytes]]:
        if not origin or origin not in self._services.settings.origins:
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _CORS_EXPOSED),
            (b"vary", b"origin"),
        ]

    async def _refuse(
        self,
        scope: Scope,
        headers: Headers,
        response: "_Response",
        error: Exception,
        request_id: str,
    ) -> None:
        problem = problem_of(error)
        if problem.status >= 500 and problem.code != "draining":
            _LOGGER.error("The request %s failed", request_id, exc_info=error)
        extra = list[tuple[bytes, bytes]]()
        is_repeatable, retry_after = _is_repeatable(scope, headers), RETRY_SECONDS
        if isinstance(error, RequestRefused):  # nothing was done
            extra += error.headers
            is_repeatable, retry_after = True, error.retry_after
        made = self._format_of(scope["path"])
        await respond(
            response,
            problem.status,
            _encoded(made.make(problem, error)),
            made.media_type.encode(),
            [*retry_headers(problem, is_repeatable, retry_after), *extra],
        )

    def _format_of(self, path: str) -> ErrorFormat:
        for prefix, errors in self._formats.items():
            if path.startswith(f"{prefix}/"):
                return errors
        return PROBLEMS

    def _note(self, scope: Scope, response: "_Response", request_id: str, seconds: float) -> None:
        method, route, status = scope["method"], scope.get(ROUTE, "other"), response.status
        if method not in _KNOWN_METHODS:
            method = "OTHER"
        streams = bool(scope.get(STREAMS))
        self._services.metrics.count(method, route, status, None if streams else seconds)
        if self._services.settings.access_log and _ACCESS.isEnabledFor(logging.INFO):
            client = scope.get("client")
            _ACCESS.info(
                "%s %s %d",
                method,
                route,
                status,
                extra={
                    "request_id": request_id,
                    "client": client[0] if client else "",
                    "method": method,
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 6),
                    **scope.get(IDS, {}),
                },
            )


def _encoded(error: object) -> bytes:
    """Returns the body of an error, which is a text or JSON."""
    return error.encode() if isinstance(error, str) else msgspec.json.encode(error)


def _is_repeatable(scope: Scope, headers: Headers) -> bool:
    """Returns whether a request does the same if it is sent twice."""
    return scope["method"] in _REPEATABLE or b"idempotency-key" in headers


_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Response:
    """The `send` of a response: adds headers to its start, and then is out of the way."""

    __slots__ = ("_request_id", "cors", "raw", "status")

    def __init__(self, send: Send, request_id: str, cors: list[tuple[bytes, bytes]]) -> None:
        self.raw = send
        self.cors = cors
        self.status = 0
        self._request_id = request_id

    async def __call__(self, message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            given: list[tuple[bytes, bytes]] = list(message.get("headers", ()))  # type: ignore[call-overload]
            names = {name for name, _ in given}
            own = (*_SECURITY, _CSP, _NO_STORE)
            self.status = int(message["status"])  # type: ignore[call-overload]
            message["headers"] = [
                *given,
                *(one for one in own if one[0] not in names),
                (b"x-request-id", self._request_id.encode()),
                *self.cors,
            ]
        await self.raw(message)

    async def preflight(self) -> None:
        """Answers a question of a browser before it sends a request of another site."""
        await respond(
            self,
            204,
            b"",
            b"",
            [
                (b"access-control-allow-methods", _CORS_METHODS),
                (b"access-control-allow-headers", _CORS_HEADERS),
                (b"access-control-max-age", b"600"),
            ],
        )


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Sends a whole response."""
    all_headers = list(headers or [])
    if status != 204:
        all_headers.append((b"content-type", content_type))
        all_headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})
