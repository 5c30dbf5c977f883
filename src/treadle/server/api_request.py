"""A request as the routes see it: authenticated, decoded and checked."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from treadle.errors import InvalidInput
from treadle.runtime.view import RuntimeView
from treadle.server.principal import Principal, Scope
from treadle.server.problems import RequestRefused
from treadle.server.services import Services
from treadle.server.stream import Receive

Q = TypeVar("Q")
B = TypeVar("B")

MAX_PARAMETERS = 100
DISCARD_SECONDS = 1.0
LEAST_RATE = 64 * 1024
"""How many bytes of a long body must arrive in a second."""
_JSON = "application/json"


class Headers:
    """The headers of a request, by lower-case name; the first of several counts."""

    __slots__ = ("_headers",)

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers

    def get(self, name: bytes) -> str:
        """Returns the value of a header, or an empty text."""
        for key, value in self._headers:
            if key == name:
                return value.decode("latin-1").strip()
        return ""

    def __contains__(self, name: bytes) -> bool:
        return any(key == name for key, _ in self._headers)

    def count(self, name: bytes) -> int:
        """Returns how often a header was sent."""
        return sum(key == name for key, _ in self._headers)


class ApiRequest(Generic[Q, B]):
    """A request of a principal: `query` and `body` have the types that its route declares.

    `runtime` shows what belongs to the owner of the principal, and records what is done as done by
    it.
    """

    def __init__(
        self,
        scope: Any,
        receive: Receive,
        services: Services,
        principal: Principal,
        runtime: RuntimeView,
        query: Q,
        body: B,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.headers = Headers(scope["headers"])
        self.path: Mapping[str, str] = scope.get("path_params", {})
        self.services = services
        self.principal = principal
        self.runtime = runtime
        self.query = query
        self.body = body

    def require(self, scope: Scope, reason: str) -> None:
        """Raises 403 `scope_missing` unless the principal has a scope."""
        if not self.principal.may(scope):
            raise scope_missing(scope, reason)


def own_owner(request: ApiRequest[Any, Any], owner: str | None) -> str:
    """Returns the owner that a request names, by default that of its key.

    Raises `InvalidInput` if a key with an owner names another one.
    """
    own = request.principal.owner
    if own is None:
        return owner or ""
    if owner not in {None, own}:
        raise InvalidInput("owner is for keys without an owner; leave it out.")
    return own


def scope_missing(scope: Scope, reason: str) -> RequestRefused:
    """Returns the error for a principal without a scope that it needs."""
    return RequestRefused(403, "scope_missing", f"{reason} needs the scope {scope}.")


def decode_query(text: bytes, kind: type[Q]) -> Q:
    """Returns the parameters of a query string; raises 400 `invalid_request`."""
    try:
        pairs = parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise _invalid(f"The query is not valid: {error}.") from error
    several = {
        field.encode_name
        for field in msgspec.structs.fields(cast("Any", kind))
        if _is_list(field.type)
    }
    values: dict[str, object] = {}
    for name, value in pairs:
        # The client of OpenAI writes the name of a list with brackets.
        if (plain := name.removesuffix("[]")) in several:
            cast("list[str]", values.setdefault(plain, [])).append(value)
        elif name in values:
            raise _invalid(f"The parameter {name[:100]!r} is there twice.")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(f"A parameter is not valid: {error}") from error


def _is_list(kind: object) -> bool:
    return getattr(kind, "__origin__", None) is tuple


def decode_body(data: bytes, kind: type[B]) -> B:
    """Returns the body of a request; raises 400 `invalid_request`."""
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(f"The body is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"The body is not JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise _invalid("The body is nested too deeply.") from error


def _invalid(detail: str) -> RequestRefused:
    return RequestRefused(400, "invalid_request", detail)


def require_json(headers: Headers) -> None:
    """Raises 415 unless the body is said to be JSON in UTF-8."""
    kind, _, rest = headers.get(b"content-type").lower().partition(";")
    charset = rest.replace(" ", "").replace('"', "")
    if kind.strip() != _JSON or charset not in ("", "charset=utf-8"):
        raise RequestRefused(
            415,
            "media_type_not_supported",
            f"The body must have the header Content-Type: {_JSON}.",
        )
    if headers.get(b"content-encoding").lower() not in ("", "identity"):
        raise RequestRefused(
            415, "media_type_not_supported", "A compressed body is not accepted; send it as it is."
        )


async def read_body(headers: Headers, receive: Receive, limit: int, seconds: float) -> bytes:
    """Returns the body of a request.

    Raises 413 for one of more than `limit` bytes, as soon as that is known, and `Disconnected` if
    the client leaves. One that takes longer than `seconds`, and a second more for each 64 KiB that
    have arrived, is 408.
    """
    length = headers.get(b"content-length")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        await _discard(receive, limit)
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        ends = asyncio.get_running_loop().time() + seconds
        async with asyncio.timeout_at(ends) as time_limit:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                part = message.get("body", b"")
                size += len(part)
                time_limit.reschedule(ends + size / LEAST_RATE)
                if size > limit:
                    await _discard(receive, limit)
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise RequestRefused(
            408,
            "request_timeout",
            f"The body did not arrive within {seconds:g} seconds, or more slowly than 64 KiB a "
            "second.",
            headers=((b"connection", b"close"),),
        ) from None


async def _discard(receive: Receive, limit: int) -> None:
    """Reads some more of a body that is too large, for a moment.

    A connection that is closed while the client still writes is reset, and the client would lose
    the answer that says why.
    """
    left = 2 * limit
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class Disconnected(Exception):
    """The client left before its request was complete."""


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        413,
        "body_too_large",
        f"The body has more than {limit:,} bytes; send large contents as files.",
        headers=((b"connection", b"close"),),
    )
