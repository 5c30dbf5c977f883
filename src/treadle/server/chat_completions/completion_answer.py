"""The answer to a request for a completion, as a stream or as a whole."""

from contextlib import suppress
from typing import cast

import msgspec

from treadle.errors import TreadleError
from treadle.runtime.run_subscription import RunSubscription
from treadle.server.chat_completions.completion_mapper import CompletionMapper
from treadle.server.chat_completions.completion_start import Started
from treadle.server.gate import respond
from treadle.server.openai.errors import ErrorBody
from treadle.server.operation import JSON, PRINCIPAL
from treadle.server.services import Services
from treadle.server.stream import EventStream, Receive, Scope, Send
from treadle.server.streamed import Streamed, start_stream
from treadle.server.streams import run_headers

Header = tuple[bytes, bytes]


class CompletionAnswer(Streamed):
    """Answers with a completion.

    A client stops an answer by leaving, so its run is cancelled then; on a thread it is not if it
    waits for an approval. A run for one request alone ends with the answer.
    """

    def __init__(
        self,
        services: Services,
        started: Started,
        mapper: CompletionMapper,
        source: RunSubscription,
        *,
        is_streamed: bool,
    ) -> None:
        self._services = services
        self._started = started
        self._mapper = mapper
        self._source = source
        self._is_streamed = is_streamed

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the response."""
        limits, principal = self._services.limits, scope[PRINCIPAL]
        try:
            if not limits.open_stream(principal):
                await self._source.aclose()
                limits.require_stream(principal)
            try:
                if self._is_streamed:
                    await self._stream(scope, receive, send)
                else:
                    await self._whole(scope, receive, send)
            finally:
                limits.close_stream(principal)
        finally:
            if not self._started.is_kept and not self._source.is_over:
                await self._cancel()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await start_stream(scope, send, self._headers())
        # The headers are sent; what the gate adds to them is in the way of the chunks.
        raw = getattr(send, "raw", send)
        if await self._serve(scope, receive, raw, self._mapper.opening()):
            await self._leave()

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the stream here, so that it ends as one does: with its client, or the server."""
        if await self._serve(scope, receive, _nowhere, b""):
            await self._leave()
            return
        mapper, headers = self._mapper, [*self._headers()]
        if (failure := mapper.failure) is None:
            await respond(send, 200, msgspec.json.encode(mapper.completion), JSON, headers)
            return
        # The run may have done something, so the request must not be repeated by itself.
        headers.append((b"x-should-retry", b"false"))
        body = msgspec.json.encode(ErrorBody(failure.fields))
        await respond(send, failure.status, body, JSON, headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, head: bytes) -> bool:
        """Returns whether the client left before the end."""
        services = self._services
        stream = _CompletionStream(
            self._source,
            services.stream_limits,
            services.open_requests,
            in_step=True,
            framing=self._mapper,
        )
        return await stream.serve(scope, receive, send, head)

    def _headers(self) -> tuple[Header, ...]:
        return run_headers(self._started.run)

    async def _leave(self) -> None:
        if self._started.is_kept and not self._mapper.is_waiting:
            await self._cancel()

    async def _cancel(self) -> None:
        with suppress(TreadleError):  # the runtime has shut down, or the thread is deleted
            await self._started.run.cancel()


class _CompletionStream(EventStream):
    """A stream whose reader cannot continue it: a server that ends leaves it the grace period.

    It does not, if the run waits for an approval.
    """

    __slots__ = ()

    def _take(self) -> bytes:
        waiting = super()._take()
        self._in_step = not cast("CompletionMapper", self._framing).is_waiting
        return waiting


async def _nowhere(message: object) -> None:
    """Drops what a stream writes."""
