"""Operations: the routes of the API as values, from which the application and OpenAPI are made."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from treadle.server.acting import acting
from treadle.server.api_request import (
    ApiRequest,
    Headers,
    decode_body,
    decode_query,
    read_body,
    require_json,
    scope_missing,
)
from treadle.server.authentication import authenticate
from treadle.server.gate import IDS, ROUTE, respond
from treadle.server.limits import rate_limited
from treadle.server.principal import Scope as KeyScope
from treadle.server.problems import PROBLEMS, ErrorFormat
from treadle.server.services import Services
from treadle.server.stream import Receive, Scope, Send
from treadle.server.streamed import EndedStream, Streamed

PREFIX = "/api/v1"
"""The beginning of all paths of the API."""

JSON = b"application/json"

PRINCIPAL = "treadle.principal"
"""The key of the principal in a scope."""

Limit = Annotated[int, Meta(ge=1, le=1000)]
"""How many entries of a list are wanted."""

Handler = Callable[[ApiRequest[Any, Any]], Awaitable[object]]


class NoFields(Struct, frozen=True, forbid_unknown_fields=True):
    """A query or a body without fields."""


class Answer:
    """What a handler returns if the status is not the first of its operation, or has headers."""

    __slots__ = ("headers", "status", "value")

    def __init__(
        self, status: int, value: object = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.status = status
        self.value = value
        self.headers = headers


class Content:
    """A body that is not JSON."""

    __slots__ = ("body", "content_type")

    def __init__(self, body: bytes, content_type: bytes) -> None:
        self.body = body
        self.content_type = content_type


class Page(Struct, frozen=True):
    """A page of a list; `next` is the `after` of the next one, None on the last.

    `position`, of calls that wait, is the `after` of `GET /events` that continues the list.
    """

    data: list[Any]
    next: str | None = None
    position: str | UnsetType = UNSET


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path; `id` is its name in the document.

    - `scope`: what the principal needs; "" for any principal, None for requests without one.
    - `query`, `body`: the types of the parameters and of the body; `body` None if there is none,
      `bytes` for a file.
    - `answers`: the type of the answer for each status that is a success, the usual one first;
      None without a body. `is_page` makes it the type of the entries of a list.
    - `is_stream`: whether it can answer with server-sent events.
    - `prefix`: the beginning of its path. `errors`: how its errors look.
    """

    id: str
    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    scope: KeyScope | str | None
    query: type[Any] = NoFields
    body: type[Any] | None = None
    answers: Mapping[int, Any]
    is_page: bool = False
    is_stream: bool = False
    prefix: str = PREFIX
    errors: ErrorFormat = PROBLEMS

    @property
    def full_path(self) -> str:
        """The path with its beginning."""
        return f"{self.prefix}{self.path}"

    @property
    def is_event_source(self) -> bool:
        """Whether it streams the events of the runtime to readers that connect again."""
        return self.is_stream and self.method == "GET" and self.errors is PROBLEMS

    async def serve(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request; raises what the gate answers as a problem."""
        value = await self._handle(services, scope, receive)
        # A stream lasts: what was needed to handle its request is not kept meanwhile.
        await self._answer(value, scope, receive, send)

    async def _handle(self, services: Services, scope: Scope, receive: Receive) -> object:
        scope[ROUTE] = self.full_path
        scope[IDS] = {
            name: value
            for name, value in scope.get("path_params", {}).items()
            if name in {"thread_id", "run_id"}
        }
        principal = scope[PRINCIPAL] = await authenticate(scope, services)
        if seconds := services.limits.seconds_to_wait(principal):
            if self.is_event_source and not _wants_json(scope):
                return EndedStream(services, "limited", seconds)
            raise rate_limited(seconds)
        if self.scope and not principal.may(cast("KeyScope", self.scope)):
            raise scope_missing(cast("KeyScope", self.scope), "This route")
        principal = acting(principal, Headers(scope["headers"]))
        query = decode_query(scope["query_string"], self.query)
        body: object = None
        if self.body is not None:
            headers = Headers(scope["headers"])
            settings = services.settings
            is_file = self.body is bytes
            limit = settings.max_file_bytes if is_file else settings.max_body_bytes
            data = await read_body(headers, receive, limit, settings.body_seconds)
            if data and not is_file:
                require_json(headers)
            body = data if is_file else decode_body(data, self.body)
        request = ApiRequest[Any, Any](
            scope, receive, services, principal, services.view_of(principal), query, body
        )
        return await self.handler(request)

    async def _answer(self, value: object, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(value, Streamed):
            await value.send(scope, receive, send)
            return
        status, headers = next(iter(self.answers)), list[tuple[bytes, bytes]]()
        if isinstance(value, Answer):
            status, headers, value = value.status, list(value.headers), value.value
        if status == 204:
            await respond(send, status, b"", b"", headers)
        elif isinstance(value, Content):
            await respond(send, status, value.body, value.content_type, headers)
        else:
            await respond(send, status, msgspec.json.encode(value), JSON, headers)


def _wants_json(scope: Scope) -> bool:
    return "application/json" in Headers(scope["headers"]).get(b"accept")


class Operations:
    """Collects the operations of a noun; `prefix` and `errors` are those of all of them."""

    def __init__(self, tag: str, *, prefix: str = PREFIX, errors: ErrorFormat = PROBLEMS) -> None:
        self.tag = tag
        self.prefix = prefix
        self.errors = errors
        self.all: list[Operation] = []

    def add(
        self,
        method: str,
        path: str,
        *,
        scope: KeyScope | str | None,
        answers: Mapping[int, Any],
        id: str = "",
        query: type[Any] = NoFields,
        body: type[Any] | None = None,
        is_page: bool = False,
        is_stream: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Makes an operation of a function, whose first line of documentation is its summary.

        `id` is by default the name of the function.
        """

        def register(handler: Handler) -> Handler:
            self.all.append(
                Operation(
                    id=id or getattr(handler, "__name__", path),
                    method=method,
                    path=path,
                    handler=handler,
                    tag=self.tag,
                    summary=(handler.__doc__ or "").strip().partition("\n")[0].rstrip("."),
                    scope=scope,
                    query=query,
                    body=body,
                    answers=answers,
                    is_page=is_page,
                    is_stream=is_stream,
                    prefix=self.prefix,
                    errors=self.errors,
                )
            )
            return handler

        return register
