"""Models behind an HTTP API: timeouts and clear errors around a wire and a transport."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

import aiohttp
from msgspec import Struct

from treadle.domain.files import Media
from treadle.domain.hosted_tools import HostedTool
from treadle.domain.schema import OutputMode
from treadle.domain.urls import masked_url, secrets_in_url
from treadle.errors import (
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    ItemRefused,
    MissingKey,
    ModelError,
    ModelTimeout,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.api_key import ApiKey, current_key
from treadle.models.base import HostsTools, ItemsAdapted, ModelEvent, ModelRequest
from treadle.models.endpoint import key_headers, request_url
from treadle.models.failure import http_failure
from treadle.models.remote_tokens import tokens_of, with_tokens, without_secrets
from treadle.models.secrets import long_enough, masked, secrets_of
from treadle.models.session import transport_for
from treadle.models.transport import HttpRequest, HttpResponse, ResponseBody, Transport
from treadle.models.wire.base import Decoder, Wire
from treadle.models.wire.refused_item import named_item
from treadle.models.wire.sendable import EncodedRequest
from treadle.streaming.demux import StreamEvent
from treadle.streaming.event_stream import CONTENT_TYPE as EVENT_STREAM

_HTTP_OK = 200
# Servers that do not stream answer with JSON, and some name no type, or a wrong one.
_READABLE = {
    "text/event-stream",
    "application/octet-stream",
    "text/plain",
    "application/json",
    "application/x-ndjson",
    EVENT_STREAM,
}
_ERROR_BODY_LIMIT = 64 * 1024
_END_OF_BODY_WAIT = 0.05
_AFTER_STOP_WAIT = 5.0
_MAX_READ = 64 * 1024
_SILENCES_WITHOUT_CONTENT = 5
_LONGEST_REASON = 200

Phase = Literal["first_byte", "between_chunks"]


class Timeouts(Struct, frozen=True, kw_only=True):
    """The longest waits for a provider, in seconds.

    - `connect`: until the connection is open.
    - `first_byte`: from sending the request to the first byte of the body.
    - `between_chunks`: for each further chunk, whatever is in it.
    - `content`: for content, while only signs of life arrive, such as comments and pings. Content
      is text, reasoning, tool calls, and the progress of a queue or of a tool that the provider
      runs. None, the default, is five times the longer of the two limits above: 10 minutes.
    - `max_idle_bytes`: the most bytes without content, after decompression.
    """

    connect: float = 10.0
    first_byte: float = 120.0
    between_chunks: float = 60.0
    content: float | None = None
    max_idle_bytes: int = 32 * 1024 * 1024

    @property
    def content_seconds(self) -> float:
        """The longest wait for content."""
        if self.content is None:
            return max(self.first_byte, self.between_chunks) * _SILENCES_WITHOUT_CONTENT
        return self.content


class HttpModel:
    """A model behind an HTTP API whose format is a `Wire`.

    - `base_url`: the root of the API; a query in it is kept.
    - `api_key`: sent to that host only; never part of an error. A function is called for each
      request; see `ApiKey`.
    - `timeouts`: see `Timeouts`. `proxy`: the URL of an HTTP proxy.
    - `transport`: sends the requests; by default the transport of the runtime, else the network.
    - `output_mode`: how agents ask for structured output, unless they set it themselves.
    - `schema_with_tools`: False if the server lets a model that is held to a schema call no tools,
      so that agents with tools ask with a tool.
    """

    def __init__(
        self,
        name: str,
        wire: Wire,
        *,
        base_url: str,
        api_key: ApiKey,
        output_mode: OutputMode = "native",
        schema_with_tools: bool = True,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        url = require_url(base_url)
        if proxy is not None and _parsed(proxy) is None:
            raise ConfigurationError(
                f"The proxy {masked_url(proxy)!r} is not of the form http(s)://host:port."
            )
        if isinstance(api_key, str):
            require_key(api_key)
            api_key = api_key.strip()
        shown = api_key if isinstance(api_key, str) else "key"
        if url.username is not None and "Authorization" in wire.headers(shown):
            raise ConfigurationError(
                f"The base URL {masked_url(base_url)!r} contains a user, but api_key is set too; "
                "remove one of them."
            )
        self.output_mode: OutputMode = output_mode
        self.schema_with_tools = schema_with_tools
        self._name = name
        self._wire = wire
        self._url = request_url(base_url, wire.path)
        self._host = url.hostname or ""
        self._secrets = long_enough(secrets_in_url(base_url))
        self._api_key: ApiKey = api_key
        self._timeouts = timeouts or Timeouts()
        self._proxy = proxy
        self._transport = transport

    @property
    def name(self) -> str:
        """The provider's name of the model."""
        return self._name

    @property
    def provider(self) -> str:
        """The mark of the reasoning items this model writes."""
        return self._wire.provider

    def refusal(self, part: Media, /) -> str:
        """Returns why the API does not read a part, as a sentence; "" if it does."""
        return self._wire.media.refusal(part)

    def tool_refusal(self, tool: HostedTool, /) -> str:
        """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
        if isinstance(self._wire, HostsTools):
            return self._wire.tool_refusal(tool)
        return f"The API of the model {self._name!r} has no hosted tools."

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, url={masked_url(self._url)!r})"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Sends `request` once and yields the response as it arrives; see `Model.stream`."""
        if request.hosted:
            request = await with_tokens(request, self._timeouts.first_byte)
        encoded = self._wire.encode(self._name, request)
        key = self._api_key
        if not isinstance(key, str):
            key = await current_key(key, self._host, self._timeouts.first_byte)
        call = await self._authorized(self._call(request, encoded, key))
        try:
            response = await self._send(call)
        except BadRequest as error:
            raise _naming_item(error, encoded) from error.__cause__
        if encoded.changes:
            yield ItemsAdapted(encoded.changes)
        decoder = self._wire.decoder(request)
        content = response.content
        try:
            with _Watchdog(response, self._host, self._timeouts) as watchdog:
                while not decoder.finished:
                    watchdog.wait()
                    try:
                        chunk = await content.read(_MAX_READ)
                    except (aiohttp.ClientError, OSError) as error:
                        # The response may be complete although the connection broke after it.
                        failure = watchdog.failure_of(error)
                        for event in _rest(decoder, failure, error):
                            yield event
                        return
                    watchdog.received()
                    events = decoder.feed(chunk) if chunk else decoder.end()
                    if events or decoder.progressed:
                        watchdog.progressed()
                    else:
                        watchdog.idled(len(chunk))
                    if call.secrets:
                        events = [without_secrets(event, call.secrets) for event in events]
                    for event in events:
                        yield event
                    if decoder.stopped:
                        watchdog.stopped()
                    if len(chunk) == _MAX_READ:
                        # More data is buffered already: let tools and readers run first.
                        await asyncio.sleep(0)
            await _reach_end(content)
        except ModelError as error:
            hide_secrets(error, call)
            raise _naming_item(error, encoded) from error.__cause__
        finally:
            # Returns the connection to the pool if the body was read to its end, else closes it.
            response.release()

    def _call(self, request: ModelRequest, encoded: EncodedRequest, key: str) -> HttpRequest:
        return HttpRequest(
            model=self._name,
            path=self._wire.path,
            url=self._url,
            headers={
                "Content-Type": "application/json",
                "Accept": "text/event-stream",
                **key_headers(self._wire.headers(key), self._host, key),
                **request.settings.extra_headers,
                **encoded.headers,
            },
            body=encoded.body,
            secrets=(*self._secrets, *tokens_of(request)) if request.hosted else self._secrets,
            proxy=self._proxy,
            connect=self._timeouts.connect,
        )

    async def _authorized(self, call: HttpRequest) -> HttpRequest:
        """Returns a request as it is sent; the key, if there is one, is in it already."""
        return call

    async def _send(self, call: HttpRequest) -> HttpResponse:
        try:
            async with asyncio.timeout(self._timeouts.first_byte):
                response = await transport_for(self._transport).send(call)
        except (aiohttp.ClientError, OSError) as error:
            failure = connection_failure(error, self._host, self._timeouts, "first_byte")
            cause = harmless_cause(error)
        else:
            await self._require_stream(response, call)
            return response
        # Raised outside of `except`, so that the caught error, which may contain the key, is not
        # kept as its context.
        hide_secrets(failure, call)
        raise failure from cause

    async def _require_stream(self, response: HttpResponse, call: HttpRequest) -> None:
        """Raises the error that the response reports, unless it is an event stream."""
        if response.status != _HTTP_OK:
            failure = await self._http_failure(response)
            hide_secrets(failure, call)
            raise failure
        kind = response.content_type
        if kind not in _READABLE and not kind.endswith("+json"):
            response.close()
            raise StreamInvalid(
                f"{self._host} answered with {kind} instead of an event stream; check that the "
                "base URL is that of the API."
            )

    async def _http_failure(self, response: HttpResponse) -> ModelError:
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeouts.between_chunks):
                while len(body) < _ERROR_BODY_LIMIT and not response.content.at_eof():
                    body += await response.content.read(_ERROR_BODY_LIMIT - len(body))
        except (aiohttp.ClientError, OSError):  # includes TimeoutError; use what has arrived
            pass
        finally:
            response.close()
        return http_failure(response.status, response.headers, bytes(body), time.time())


class _Watchdog:
    """Closes a response if its next chunk, or the next chunk with content, comes too late.

    One timer serves a whole response, and is set again only when it fires: a timer for each chunk
    would cost more than reading the chunk. It acts only while a chunk is awaited, so a slow
    consumer of the events never looks like a silent provider.
    """

    def __init__(self, response: HttpResponse, host: str, timeouts: Timeouts) -> None:
        self._response = response
        self._host = host
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self._idle_since: float | None = None
        self._idle_bytes = 0
        self._limit = timeouts.first_byte
        self._phase: Phase = "first_byte"
        self._content_limit = timeouts.content_seconds
        self._has_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._failure: ModelError | None = None

    def __enter__(self) -> Self:
        # It first fires at the shortest of all limits, so that most responses set it once.
        limits = self._limit, self._content_limit, self._timeouts.between_chunks, _AFTER_STOP_WAIT
        self._timer = self._loop.call_later(min(limits), self._check)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def wait(self) -> None:
        """Notes that a chunk is awaited from now on."""
        now = self._waiting_since = self._loop.time()
        if self._idle_since is None:
            self._idle_since = now

    def received(self) -> None:
        """Notes that the chunk has arrived."""
        self._waiting_since = None
        if self._phase == "first_byte":
            self._phase, self._limit = "between_chunks", self._timeouts.between_chunks
            self._check_within(self._limit)

    def progressed(self) -> None:
        """Notes that the chunk had content."""
        self._idle_bytes = 0
        self._idle_since = None

    def idled(self, size: int) -> None:
        """Notes that `size` bytes had no content; raises `StreamInvalid` for too many."""
        self._idle_bytes += size
        if self._idle_bytes > self._timeouts.max_idle_bytes:
            raise StreamInvalid(
                f"{self._host} sent {self._idle_bytes:,} bytes without content; try again or raise "
                "Timeouts.max_idle_bytes."
            )

    def stopped(self) -> None:
        """Notes that the reason for the end has arrived: what may follow is awaited briefly."""
        if not self._has_stopped:
            self._has_stopped = True
            self._idle_since = None
            self._content_limit = min(self._content_limit, _AFTER_STOP_WAIT)
            self._check_within(self._content_limit)

    def failure_of(self, error: Exception) -> ModelError | None:
        """Returns the error for a read that was ended by this watchdog, or by a silence."""
        if self._failure is None and isinstance(error, TimeoutError):
            self._failure = silence(self._host, self._timeouts, self._phase)
        return self._failure

    def _check_within(self, seconds: float) -> None:
        """Sets the timer again if it would fire later, because a limit has become shorter."""
        timer, due = self._timer, self._loop.time() + seconds
        if timer is not None and timer.when() > due:
            timer.cancel()
            self._timer = self._loop.call_at(due, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        if self._waiting_since is None or self._idle_since is None:
            wait = min(self._limit, self._content_limit)
            self._timer = self._loop.call_at(now + wait, self._check)
            return
        chunk_due = self._waiting_since + self._limit
        content_due = self._idle_since + self._content_limit
        if min(chunk_due, content_due) > now:
            self._timer = self._loop.call_at(min(chunk_due, content_due), self._check)
            return
        if chunk_due <= now:
            self._failure = silence(self._host, self._timeouts, self._phase)
        else:
            self._failure = ModelTimeout(
                f"{self._host} sent no content for {self._content_limit:g} s, only signs of life; "
                "try again or raise Timeouts.content."
            )
            self._failure.retry_once = True
        self._response.close()


def require_url(base_url: str) -> SplitResult:
    """Returns the parts of the root URL of an API; raises `ConfigurationError`."""
    url = _parsed(base_url)
    if url is None:
        raise ConfigurationError(
            f"The base URL {masked_url(base_url)!r} is not of the form http(s)://host/path."
        )
    return url


def require_key(api_key: str) -> None:
    """Raises `MissingKey` for a text that cannot be a key."""
    if not api_key.isascii() or not api_key.isprintable():
        raise MissingKey(
            "The API key contains characters that are not printable ASCII; check its source."
        )


def _parsed(url: str) -> SplitResult | None:
    """Returns the parts of an absolute HTTP URL, None for anything else."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may contain a password
        return None
    return parts if parts.scheme in {"http", "https"} and parts.hostname else None


def _naming_item(error: ModelError, encoded: EncodedRequest) -> ModelError:
    """Returns `error`, or an `ItemRefused` if it names an item of the request."""
    if type(error) is not BadRequest:
        return error
    item = named_item(encoded.sources, error.message)
    if item is None:
        return error
    return ItemRefused(error.message, item, status=error.status, provider_code=error.provider_code)


def hide_secrets(error: ModelError, call: HttpRequest) -> None:
    """Masks the keys of `call` in `error`, in case the provider has repeated them."""
    secrets = [*secrets_of(call.headers), *call.secrets]
    error.message = masked(error.message, secrets)
    error.args = (error.message,)
    if error.provider_code is not None:
        error.provider_code = masked(error.provider_code, secrets)


def connection_failure(error: Exception, host: str, timeouts: Timeouts, phase: Phase) -> ModelError:
    """Returns the error for a connection to `host` that failed or stayed silent in `phase`."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ModelTimeout(
            f"No connection to {host} within {timeouts.connect:g} s; check the network or raise "
            "Timeouts.connect."
        )
    if isinstance(error, TimeoutError):
        return silence(host, timeouts, phase)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectionFailed(
            f"The proxy refused to connect to {host}: HTTP status {error.status}. Check the proxy "
            "and its password."
        )
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return ConnectionFailed(f"No connection to the proxy: {_reason(error)}. Check its address.")
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectionFailed(
            f"No secure connection to {host}: {_reason(error)}. Check the address and the "
            "certificates."
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectionFailed(
            f"No connection to {host}: {_reason(error)}. Check the address and the network."
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return ConnectionFailed(
            f"{host} answered with invalid HTTP: {_reason(error)}. Check that the base URL is that "
            "of the API."
        )
    return ConnectionFailed(f"The connection to {host} broke: {_reason(error)}. Try again.")


def _reason(error: BaseException) -> str:
    """Returns a short reason without the URL of the request, which may contain a key."""
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message.split("\n")[0][:_LONGEST_REASON]
    if isinstance(error, aiohttp.ClientOSError) and error.errno is None:
        # aiohttp puts its own text with the URL in the place of the reason.
        error = error.__cause__ or OSError(None, "the request could not be sent")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:_LONGEST_REASON]
    return (str(error) or type(error).__name__)[:_LONGEST_REASON]


def silence(host: str, timeouts: Timeouts, phase: Phase) -> ModelTimeout:
    """Returns the error for a host that sent nothing in `phase` for as long as it may."""
    seconds: float = getattr(timeouts, phase)
    return ModelTimeout(
        f"{host} sent nothing for {seconds:g} s; try again or raise Timeouts.{phase}."
    )


def harmless_cause(error: Exception) -> Exception | None:
    """Returns the cause to show for an error, or None.

    aiohttp's own errors contain the headers of the request, or the proxy with its password.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    return None if isinstance(error, aiohttp.ClientError) else error


def _rest(decoder: Decoder, failure: ModelError | None, error: Exception) -> Generator[StreamEvent]:
    """Yields the events of the end of a body that broke off with `error`.

    Raises `failure`, or what the decoder raises, if the response is not complete.
    """
    try:
        yield from decoder.end()
    except ModelError as incomplete:
        if failure is not None and isinstance(incomplete, StreamIncomplete):
            raise failure from error
        raise incomplete from error


async def _reach_end(content: ResponseBody) -> None:
    """Waits a moment for the end of the body, so that the connection can be used again."""
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(_END_OF_BODY_WAIT):
            while not content.at_eof():
                await content.readany()
    except (aiohttp.ClientError, OSError):  # includes TimeoutError; the connection is closed then
        return
