"""Serves a recording: a transport that answers like the provider, without a network."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from aiohttp.client_reqrep import ConnectionKey

from treadle.errors import RecordingInvalid, UnconsumedSteps, UnexpectedRequest
from treadle.models.transport import HttpRequest, HttpResponse, intercept
from treadle.testing.recording.cuts import Cut, pieces, require_valid
from treadle.testing.recording.exchange import Exchange
from treadle.testing.recording.file import decode_recording
from treadle.testing.recording.matching import canonical, differences
from treadle.testing.recording.recorder import masked_body

_NO_KEY = ConnectionKey("", None, False, True, None, None, None, None)


@contextmanager
def replay(
    path: str | os.PathLike[str], *, chunk: Cut | None = None, partial: bool = False
) -> Generator["Replay"]:
    """Answers every request that is made or started inside the block from a recording.

    A request is answered by the first unused exchange with the same endpoint, model and body; ids
    that treadle makes in each run may differ. Key, host and headers do not matter. Failures, broken
    streams and timeouts are replayed without waiting; waits of the agent itself, such as the delay
    of a retry, are not skipped (use the virtual clock).

    `chunk` cuts the bodies: None keeps the recorded pieces, a number cuts pieces of that many
    bytes, a `random.Random` cuts at random, and a function returns the pieces of a body.

    A run that was started before the block, or by code that does not inherit its context, is not
    answered here: give its model or its runtime a `Replay` as `transport` instead.

    Raises `RecordingInvalid` for a file that is missing, damaged or of another version; a request
    that was not recorded fails with `UnexpectedRequest`, which lists the differences. At the end,
    unused exchanges raise `UnconsumedSteps`, unless `partial` is set.
    """
    served = Replay(path, chunk=chunk)
    with intercept(lambda _: served):
        yield served
    if not partial:
        served.require_consumed()


class Replay:
    """A transport that serves the recording at `path`; see `replay` for `chunk` and the errors.

        model = OpenAIResponses("gpt-5", api_key="", transport=Replay("tests/weather.jsonl"))

    `remaining` counts the unused exchanges.
    """

    def __init__(self, path: str | os.PathLike[str], *, chunk: Cut | None = None) -> None:
        require_valid(chunk)
        path = Path(path)
        self._name = path.name
        self._chunk = chunk
        self._waiting = deque((exchange, canonical(exchange.body)) for exchange in _read(path))
        self._count = len(self._waiting)
        self._lock = threading.Lock()

    @property
    def remaining(self) -> int:
        """The number of unused exchanges."""
        return len(self._waiting)

    def require_consumed(self) -> None:
        """Raises `UnconsumedSteps` when recorded exchanges are left."""
        if self.remaining:
            raise UnconsumedSteps(
                f"{self.remaining} of {self._count} recorded requests were never made; the agent "
                f"ended earlier than in {self._name}."
            )

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Answers `request`; fulfils `Transport`."""
        with self._lock:
            exchange = self._take(request)
        await asyncio.sleep(0)
        if exchange.status is None:
            raise _no_response(exchange)
        return _ServedResponse(exchange, exchange.status, pieces(exchange.chunks, self._chunk))

    def _take(self, request: HttpRequest) -> Exchange:
        path, model, body = request.path, request.model, canonical(masked_body(request))
        for place, (exchange, recorded) in enumerate(self._waiting):
            if (exchange.path, exchange.model, recorded) == (path, model, body):
                del self._waiting[place]
                return exchange
        raise UnexpectedRequest(self._mismatch(path, model, body))

    def _mismatch(self, path: str, model: str, body: object) -> str:
        if not self._waiting:
            return (
                f"{self._name} has {self._count} requests, and the model was asked once more; "
                "record it again if the agent should make more requests."
            )
        exchange, recorded = next(
            (entry for entry in self._waiting if (entry[0].path, entry[0].model) == (path, model)),
            self._waiting[0],
        )
        before = {"endpoint": exchange.path, "model": exchange.model, "body": recorded}
        after = {"endpoint": path, "model": model, "body": body}
        found = "; ".join(differences(before, after))
        return f"{self._name} has no such request; it differs from the next one at {found}."


def _read(path: Path) -> list[Exchange]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordingInvalid(
            f"The recording {path} cannot be read: {error.strerror or error}. Make it with "
            "treadle.testing.record."
        ) from error
    return decode_recording(data, path.name)


def _no_response(exchange: Exchange) -> Exception:
    match exchange.end:
        case "connect_timeout":
            return aiohttp.ConnectionTimeoutError(exchange.reason)
        case "silent" | "left":
            return TimeoutError(exchange.reason)
        case "unreachable":
            # Its text would name the host and port of the key; only the cause is shown.
            return aiohttp.ClientConnectorError(_NO_KEY, OSError(0, exchange.reason))
        case _:
            return aiohttp.ClientConnectionError(exchange.reason)


class _ServedResponse:
    """A recorded response; fulfils `HttpResponse` and, as its own body, `ResponseBody`."""

    def __init__(self, exchange: Exchange, status: int, chunks: Iterator[bytes]) -> None:
        self.status = status
        self.headers: Mapping[str, str] = exchange.headers
        self.content_type = (
            exchange.headers.get("content-type", "application/octet-stream")
            .partition(";")[0]
            .strip()
        )
        self._exchange = exchange
        self._chunks = chunks
        self._next = next(chunks, b"")

    @property
    def content(self) -> "_ServedResponse":
        return self

    async def read(self, n: int, /) -> bytes:
        # Like a socket: other tasks run before each piece.
        await asyncio.sleep(0)
        if not self._next:
            self._end()
        chunk, rest = self._next[:n], self._next[n:]
        self._next = rest or next(self._chunks, b"")
        return chunk

    async def readany(self) -> bytes:
        return await self.read(len(self._next))

    def at_eof(self) -> bool:
        return not self._next and self._exchange.end in {"complete", "left"}

    def release(self) -> None:
        """Does nothing: a replay has no connection."""

    def close(self) -> None:
        """Does nothing: a replay has no connection."""

    def _end(self) -> None:
        """Ends the body as it ended when recorded; raises unless it was complete."""
        match self._exchange.end:
            case "complete":
                return
            case "left":
                raise RecordingInvalid(
                    "The recorded run did not read this response to its end, but this run does; "
                    "record it again."
                )
            case "silent":
                raise TimeoutError
            case _:
                raise aiohttp.ClientPayloadError(self._exchange.reason)
