"""Responses that write themselves, and the stream that only tells a reader to come again."""

from treadle.server.services import Services
from treadle.server.sse import ENDED, HEADERS, opening, own_frame
from treadle.server.stream import EndReason, Receive, Scope, Send, StreamEnd

STREAMS = "treadle.streams"
"""The key in a scope that is set once its response is a stream."""


class Streamed:
    """What a handler returns to write its response itself."""

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the response."""
        raise NotImplementedError


class EndedStream(Streamed):
    """A stream that ends at once: its reader should connect again after `seconds`.

    Readers are not refused with 429 or 503, after which an EventSource gives up.
    """

    def __init__(self, services: Services, reason: EndReason, seconds: float = 0.0) -> None:
        self._retry = max(services.settings.retry_milliseconds, round(seconds * 1000))
        self._reason: EndReason = reason

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the response."""
        if await start_stream(scope, send):
            body = opening("", self._retry) + own_frame(ENDED, StreamEnd(self._reason))
            await send({"type": "http.response.body", "body": body})


async def start_stream(
    scope: Scope, send: Send, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> bool:
    """Begins the response; returns whether events follow, which a `HEAD` does not ask for."""
    scope[STREAMS] = True
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return False
    return True
