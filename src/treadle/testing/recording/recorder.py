"""Records the responses of providers: a transport around another one."""

import asyncio
import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec

from treadle.errors import RecordingInvalid
from treadle.models.secrets import masked, secrets_of
from treadle.models.transport import (
    HttpRequest,
    HttpResponse,
    ResponseBody,
    Transport,
    intercept,
)
from treadle.testing.recording.exchange import End, Exchange
from treadle.testing.recording.file import encode_recording
from treadle.testing.recording.masking import holds_secret, masked_chunks

_KEPT_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-amzn-errortype")
_HTTP_OK = 200


@contextmanager
def record(path: str | os.PathLike[str]) -> Generator[None]:
    """Records the responses to all requests that are made or started inside the block.

    The file at `path` is written when the block ends, even by an error, and replaces an earlier
    one. It contains the body of each request, and the status, body and relevant headers of each
    response. It never contains the headers of a request or the key: if the provider repeats the
    key, it is masked; if the conversation contains the key, no file is written. The conversation
    itself is in the file, so record with data that others may read. A response that was not read
    to its end is kept as far as it was read.

    Models that are not behind HTTP, such as `ScriptedModel`, are not recorded. Raises
    `RecordingInvalid` if no request was made, a message holds the key or the file cannot be
    written, and `TestingError` inside another `record` or `replay`.
    """
    recorder = _Recorder()
    with intercept(lambda transport: _RecordingTransport(recorder, transport)):
        try:
            yield
        except BaseException:
            if recorder.open:
                _write(Path(path), recorder)
            raise
    if not recorder.open:
        raise RecordingInvalid(
            f"No request was made to a model behind HTTP, so {path} was not written."
        )
    _write(Path(path), recorder)


def _write(path: Path, recorder: "_Recorder") -> None:
    """Replaces the file as a whole, so that a failure leaves the earlier one."""
    data = encode_recording(recorder.exchanges())
    draft = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise RecordingInvalid(f"The recording {path} cannot be written: {error}.") from error


class _Recorder:
    """Keeps the exchanges in the order of their requests, whichever thread makes them."""

    def __init__(self) -> None:
        self.open: list[_Listener] = []
        self._lock = threading.Lock()

    async def send(self, request: HttpRequest, transport: Transport) -> HttpResponse:
        """Sends `request` through `transport` and records its response."""
        listener = _Listener(request)
        with self._lock:
            self.open.append(listener)
        try:
            response = await transport.send(request)
        except (aiohttp.ClientError, OSError) as error:
            listener.unreachable(error)
            raise
        except asyncio.CancelledError:
            listener.end = "silent"  # by a timeout, or because the run was cancelled
            raise
        except Exception:
            with self._lock:
                self.open.remove(
                    listener
                )  # never sent, for example because tests forbid the network
            raise
        return listener.listen(response)

    def exchanges(self) -> list[Exchange]:
        """Returns the exchanges so far."""
        with self._lock:
            if any(listener.asked_with_secret for listener in self.open):
                raise RecordingInvalid(
                    "A message to the model holds the API key, or another secret of the request's "
                    "headers, so no recording was written; take it out of the conversation."
                )
            return [listener.exchange() for listener in self.open]


class _RecordingTransport:
    """Fulfils `Transport`: sends through another one, and a recorder keeps the exchange."""

    def __init__(self, recorder: _Recorder, transport: Transport) -> None:
        self._recorder = recorder
        self._transport = transport

    async def send(self, request: HttpRequest) -> HttpResponse:
        return await self._recorder.send(request, self._transport)


class _Listener:
    """Records one exchange."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._keys = secrets_of(request.headers)
        self._secrets = [*self._keys, *request.secrets]
        self._chunks: list[bytes] = []
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self.end: End = "left"
        self.reason = ""

    @property
    def asked_with_secret(self) -> bool:
        """Whether the conversation contains a key, which the model may then repeat in pieces."""
        return holds_secret(self._request.body, self._keys)

    def exchange(self) -> Exchange:
        """Returns the exchange so far, without secrets."""
        secrets = self._secrets
        return Exchange(
            path=self._request.path,
            model=self._request.model,
            body=masked_body(self._request),
            status=self._status,
            headers={name: masked(text, secrets) for name, text in self._headers.items()},
            chunks=masked_chunks(self._chunks, secrets),
            end=self.end,
            reason=masked(self.reason, secrets),
        )

    def unreachable(self, error: Exception) -> None:
        """Notes that there was no response."""
        self.end = "unreachable"
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            self.end = "connect_timeout"
        elif isinstance(error, aiohttp.ClientConnectorError):
            self.reason = str(error.os_error.strerror or error.os_error)
        else:
            self.end = "disconnected"
            self.reason = str(error)

    def listen(self, response: HttpResponse) -> HttpResponse:
        """Returns `response`, recorded while it is read."""
        self._status = response.status
        self._headers = {
            name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers
        }
        return _HeardResponse(response, self)

    def received(self, chunk: bytes) -> bytes:
        """Notes a piece of the body, or its end."""
        if chunk:
            self._chunks.append(bytes(chunk))
        else:
            self.end = "complete"
        return chunk

    def broken(self, error: Exception) -> None:
        """Notes that the connection broke, unless the reader closed it after a silence."""
        if self.end != "silent":
            self.end, self.reason = "broken", str(error)

    def cancelled(self) -> None:
        """Notes that the reader gave up on the body of an error: the provider was silent."""
        if self._status != _HTTP_OK:
            self.end = "silent"


class _HeardResponse:
    """A response that is recorded while it is read; fulfils `HttpResponse`."""

    def __init__(self, response: HttpResponse, listener: _Listener) -> None:
        self._response = response
        self._listener = listener
        self._body = _HeardBody(response.content, listener)
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.content_type

    @property
    def content(self) -> "_HeardBody":
        return self._body

    def release(self) -> object:
        return self._response.release()

    def close(self) -> object:
        if self._body.is_awaited:
            self._listener.end = "silent"
        return self._response.close()


class _HeardBody:
    """A body that is recorded while it is read; fulfils `ResponseBody`."""

    def __init__(self, body: ResponseBody, listener: _Listener) -> None:
        self._body = body
        self._listener = listener
        self.is_awaited = False

    async def read(self, n: int, /) -> bytes:
        self.is_awaited = True
        try:
            chunk = await self._body.read(n)
        except (aiohttp.ClientError, OSError) as error:
            self._listener.broken(error)
            raise
        except asyncio.CancelledError:
            self._listener.cancelled()
            raise
        finally:
            self.is_awaited = False
        return self._listener.received(chunk)

    async def readany(self) -> bytes:
        # The rest after the terminal event is optional, so its failure does not break the exchange.
        return self._listener.received(await self._body.readany())

    def at_eof(self) -> bool:
        ended = self._body.at_eof()
        if ended:
            self._listener.received(b"")
        return ended


def masked_body(request: HttpRequest) -> object:
    """Returns the JSON of a request's body, or its text if it is not JSON, without its secrets."""
    (body,) = masked_chunks([request.body], request.secrets)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="replace")
