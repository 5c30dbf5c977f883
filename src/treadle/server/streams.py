"""Responses of server-sent events, and where they begin."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from treadle.bus.position import Position
from treadle.errors import RunNotFound, ThreadNotFound, TreadleError
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest
from treadle.server.limits import FULL_SECONDS
from treadle.server.operation import PRINCIPAL, Answer
from treadle.server.problems import RequestRefused
from treadle.server.services import Services
from treadle.server.sse import opening
from treadle.server.stream import (
    EVENTS,
    EventStream,
    Framing,
    Receive,
    Scope,
    Send,
    Source,
)
from treadle.server.streamed import EndedStream, Streamed, start_stream

Leave = Callable[[], Awaitable[None]]


class StreamAnswer(Streamed):
    """Answers with the events of a subscription, after the frames `first`.

    `on_leave` is called if the client left before the end, `on_end` if the framing came to its end.
    With a `framing` it is a stream of that protocol, which above the limit on streams is refused.
    """

    def __init__(
        self,
        services: Services,
        source: Source,
        *,
        first: bytes = b"",
        in_step: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        on_leave: Leave | None = None,
        on_end: Leave | None = None,
        framing: Framing = EVENTS,
    ) -> None:
        self._framing = framing
        self._services = services
        self._source = source
        self._first = first
        self._in_step = in_step
        self._headers = headers
        self._on_leave = on_leave
        self._on_end = on_end

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the response."""
        services, source = self._services, self._source
        limits, principal = services.limits, scope[PRINCIPAL]
        if not limits.open_stream(principal):
            await source.aclose()
            if self._framing is not EVENTS:
                limits.require_stream(principal)
            await EndedStream(services, "limited", FULL_SECONDS).send(scope, receive, send)
            return
        left = False
        try:
            if not await start_stream(scope, send, self._headers):
                await source.aclose()
                return
            head = self._first
            if self._framing is EVENTS:
                head = opening(source.position, services.settings.retry_milliseconds) + head
            stream = EventStream(
                source,
                services.stream_limits,
                services.open_requests,
                in_step=self._in_step,
                framing=self._framing,
            )
            # The headers are sent; what the gate adds to them is in the way of the events.
            left = await stream.serve(scope, receive, getattr(send, "raw", send), head)
        finally:
            limits.close_stream(principal)
        with suppress(TreadleError):  # the runtime has shut down, or the thread is deleted
            if left and self._on_leave is not None:
                await self._on_leave()
            elif self._on_end is not None and self._framing.is_over:
                await self._on_end()


def resumed_at(request: ApiRequest[Any, Any], after: str) -> str:
    """Returns the position from which a reader continues, or "" for one that begins.

    `Last-Event-ID` takes precedence: an EventSource repeats its URL when it connects again.
    """
    return request.headers.get(b"last-event-id") or after


def gone(error: ThreadNotFound | RunNotFound, position: str) -> Exception:
    """Returns the error for a thread that does not exist: 410 for a reader that continues.

    It depends on the request alone, so it does not tell which threads exist.
    """
    if not position:
        return error
    return RequestRefused(410, error.code, error.message)


def present(seq: int) -> str:
    """Returns the position after event `seq`, with the texts in flight from their start."""
    return Position(seq).text


def require_may_stream(request: ApiRequest[Any, Any], *, is_stream: bool = True) -> None:
    """Raises what a request that begins a run is refused with: 503 `draining`, 429 for a stream."""
    if request.services.open_requests.is_draining:
        raise draining()
    if is_stream:
        request.services.limits.require_stream(request.principal)


def run_headers(run: ThreadRun) -> tuple[tuple[bytes, bytes], ...]:
    """Returns the headers of a response that name a run and its thread."""
    return ((b"x-thread-id", run.thread_id.encode()), (b"x-run-id", run.id.encode()))


def draining() -> RequestRefused:
    """Returns the error for what must not begin any more."""
    return RequestRefused(
        503, "draining", "The server is about to end; send it again in a moment.", retryable=True
    )


NO_CONTENT = Answer(204)
