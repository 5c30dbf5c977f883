"""Requests to a server: repeated where that cannot do something twice, answered or an error."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from treadle.client.problem_errors import decode_problem, error_of_answer, error_of_problem
from treadle.errors import JournalClosed, RequestFailed, ServerUnreachable, TreadleError
from treadle.models.network import require_allowed
from treadle.server.operation import PREFIX

T = TypeVar("T")

Query = Mapping[str, str | int | float | bool | Sequence[str] | None]
"""Parameters; those that are None, False or empty are left out, those of a list are repeated.

An `owner` that is empty is sent: it is that of the threads without one.
"""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
LONGEST_RETRY_AFTER = 30.0
SILENCE_SECONDS = 60.0
"""After how long without a byte a stream is taken for broken; a server sends comments."""

_PASSING = frozenset({408, 429, 502, 503, 504})
"""The statuses after which the same request may succeed."""

JSON = "application/json"


class Pauses:
    """The pauses between attempts: each twice as long as the one before, up to an end in time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = FIRST_PAUSE
        self._until = asyncio.get_running_loop().time() + seconds

    def succeed(self) -> None:
        """Begins anew: the server has answered."""
        self._pause = FIRST_PAUSE
        self._until = asyncio.get_running_loop().time() + self._seconds

    def next(self, least: float = 0.0) -> float | None:
        """Returns the next pause in seconds; None if there is no time for another attempt."""
        # Different for each client, so that they do not all come at the same moment.
        pause = max(self._pause * random.uniform(0.5, 1.0), least)  # noqa: S311
        if asyncio.get_running_loop().time() + pause > self._until:
            return None
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return pause


class _Sockets:
    """The open connections, which all views of a client share."""

    def __init__(self) -> None:
        self.session: aiohttp.ClientSession | None = None


class Connection:
    """Sends requests to one server; the key is in no representation and no error."""

    def __init__(self, url: str, key: str, *, timeout: float, retry_seconds: float) -> None:
        self.url = url
        self.retry_seconds = retry_seconds
        self._timeout = timeout
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._sockets = _Sockets()

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    def acting(self, owner: str | None, by: str) -> "Connection":
        """Returns the same connection, whose requests name an owner and a person.

        None is no owner, "" no person.
        """
        made = copy(self)
        made._headers = {**self._headers}
        if owner is not None:
            made._headers["x-treadle-owner"] = quote(owner, safe="")
        if by:
            made._headers["x-treadle-by"] = quote(by, safe="")
        return made

    def open(self) -> None:
        """Begins to accept requests."""
        require_allowed(urlsplit(self.url).hostname or "")
        self._sockets.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # streams stay open
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Closes all connections."""
        session, self._sockets.session = self._sockets.session, None
        if session is not None:
            await session.close()

    async def get(self, path: str, kind: type[T], query: Query | None = None) -> T:
        """Sends a GET; returns the answer as a value of `kind`."""
        return cast("T", await self.call("GET", path, kind, query=query))

    async def call(
        self,
        method: str,
        path: str,
        kind: Any = None,
        *,
        query: Query | None = None,
        body: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeats: bool = True,
        tries_once: bool = False,
        seconds: float = 0.0,
    ) -> Any:
        """Sends a request; returns its answer as a value of `kind`, its bytes for `bytes`.

        - `body`: a value that is sent as JSON; `content`: bytes in its place.
        - `repeats`: whether the request may be sent again if its answer is lost, because a second
          one has no effect. One that certainly was not sent is repeated in any case.
        - `tries_once`: whether a server that cannot be reached is an error at once.
        - `seconds`: for how long the server may delay its answer.

        Raises the errors of the runtime, the kinds of `RequestFailed`, and `JournalClosed`.
        """
        status, answer = await self.send(
            method,
            path,
            query=query,
            body=body,
            content=content,
            headers=headers,
            repeats=repeats,
            tries_once=tries_once,
            seconds=seconds,
        )
        return None if kind is None or status == 204 else decoded(answer, kind)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeats: bool = True,
        tries_once: bool = False,
        seconds: float = 0.0,
    ) -> tuple[int, bytes]:
        """Sends a request as `call` does; returns the status and the bytes of the answer."""
        sent = {"accept": JSON, **(headers or {})}
        if body is not None:
            content = msgspec.json.encode(body)
            sent["content-type"] = JSON
        pauses = Pauses(0.0 if tries_once else self.retry_seconds)
        timeout = aiohttp.ClientTimeout(total=self._timeout + seconds)
        while True:
            retry_after, may_repeat = 0.0, repeats
            try:
                async with self.request(
                    method, path, query=query, content=content, headers=sent, timeout=timeout
                ) as response:
                    answer = await response.read()
                if response.status < 300:
                    return response.status, answer
                error = refusal(response, answer)
                if response.status not in _PASSING and not error.retryable:
                    raise error
                retry_after = _retry_after(response)
                # Nothing was done for a request that was refused before it was read.
                may_repeat = repeats or error.code == "draining" or response.status == 429
                if response.headers.get("x-should-retry") == "false" and not repeats:
                    may_repeat = False
            except aiohttp.ClientConnectorError as cause:
                error, may_repeat = self.unreachable(cause), True
            except (aiohttp.ClientError, OSError) as cause:
                error = self.unreachable(cause)
            pause = pauses.next(retry_after) if may_repeat else None
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> Any:
        """Returns a request of aiohttp to await or enter; by default it has no end in time."""
        session = self._sockets.session
        if session is None:
            raise JournalClosed("The client is not open; use `async with Client(url) as client:`.")
        text = urlencode(_parameters(query or {}))
        return session.request(
            method,
            # It is encoded already, and must reach the server as it is.
            URL(f"{self.url}{PREFIX}{path}{text and '?'}{text}", encoded=True),
            data=content,
            headers={**self._headers, **headers},
            allow_redirects=False,  # the key is for this server only
            timeout=timeout
            or aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeout, sock_read=SILENCE_SECONDS
            ),
        )

    def unreachable(self, cause: BaseException) -> ServerUnreachable:
        """Returns the error for a server that could not be reached."""
        error = ServerUnreachable(
            f"The server at {self.url} could not be reached: {_reason(cause)}. Start it with "
            "`treadle serve`, or check the URL."
        )
        error.__cause__ = cause
        return error


def _reason(cause: BaseException) -> str:
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, aiohttp.ClientConnectorError):
        return str(cause.os_error.strerror or cause.os_error)
    return str(cause) or type(cause).__name__


def decoded(answer: bytes, kind: Any) -> Any:
    """Returns an answer as a value of `kind`; raises `RequestFailed` for one of another form."""
    if kind is bytes:
        return answer
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise RequestFailed(
            f"The answer of the server has a form that this version does not know: {error}. Use "
            "the same version of treadle on both sides."
        ) from error


def refusal(response: aiohttp.ClientResponse, answer: bytes) -> TreadleError:
    """Returns the error for an answer that is not a success."""
    problem = decode_problem(answer)
    if problem is None:
        return error_of_answer(response.status, response.headers.get("content-type", ""))
    return error_of_problem(problem)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    given = response.headers.get("retry-after", "")
    seconds = float(given) if given.isascii() and given.isdigit() else 0.0
    return min(seconds, LONGEST_RETRY_AFTER)


def _parameters(query: Query) -> list[tuple[str, str]]:
    given: list[tuple[str, str]] = []
    for name, value in query.items():
        match value:
            case None | False:
                continue
            case "" if name != "owner":
                continue
            case True:
                given.append((name, "true"))
            case str() | int() | float():
                given.append((name, str(value)))
            case _:
                given.extend((name, one) for one in value)
    return given
