"""The HTTP protocol of our server: that of uvicorn, with limits on what comes before a body."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from treadle.server.api_request import DISCARD_SECONDS
from treadle.server.problems import RequestRefused, problem_of
from treadle.server.settings import ServerSettings
from treadle.server.stream import TRANSPORT


def protocol_of(settings: ServerSettings) -> type[asyncio.Protocol]:
    """Returns what makes a protocol for each connection."""
    return cast("type[asyncio.Protocol]", partial(Protocol, settings))


class Protocol(HttpToolsProtocol):
    """Limits the head of a request, which the parser reads without any limit.

    - A head of more bytes or headers than the settings allow is answered with 431, one that does
      not arrive in time with 408, and what is not HTTP with 400. The connection is closed.
    - The connection is in the scope, so that a client that takes nothing can be cut. Through ASGI
      alone a response to such a client cannot be ended: the transport would wait until the client
      has read what was written before.
    """

    transport: asyncio.Transport

    def __init__(self, settings: ServerSettings, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._settings = settings
        self._is_head = True  # the next bytes belong to the head of a request
        self._head_bytes = self._size = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._refusal: RequestRefused | None = None
        self._is_refused = False

    def connection_made(self, transport: Any) -> None:
        """Begins a connection, on which a request must arrive in time."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a connection."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads from the client; the parser keeps a header until its end, however long it is."""
        if self._is_refused or self.transport.is_closing():
            return
        if self._is_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_refused:
            return
        if not self._is_head and self._is_answering():
            self._stop_head_timer()
        elif self._head_bytes > self._settings.max_header_bytes:
            self._refuse(_too_large(self._settings))
        elif self._head_timer is None:
            # Also for empty lines between requests, which end the timer of uvicorn.
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """Makes the scope of a request."""
        super().on_message_begin()
        self._is_head, self._head_bytes, self._size = True, 0, 0
        cast("dict[str, Any]", self.scope)[TRANSPORT] = self.transport

    def on_url(self, url: bytes) -> None:
        """Adds a part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > self._settings.max_headers:
            self._refusal = _too_large(self._settings)
            raise self._refusal

    def on_headers_complete(self) -> None:
        """Starts the request."""
        super().on_headers_complete()
        self._is_head, self._head_bytes = False, 0

    def send_400_response(self, msg: str) -> None:
        """Answers what the parser did not accept."""
        if not self._is_refused:
            self._refuse(
                self._refusal
                or RequestRefused(400, "invalid_http", "The request is not valid HTTP/1.1.")
            )

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._settings.max_header_bytes:
            self._refusal = _too_large(self._settings)
            raise self._refusal

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.header_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        seconds = self._settings.header_seconds
        self._refuse(
            RequestRefused(
                408, "request_timeout", f"The headers did not arrive within {seconds:g} seconds."
            )
        )

    def _refuse(self, error: RequestRefused) -> None:
        """Closes the connection, with an answer unless one is being written.

        What the client still sends is dropped for a moment: a connection that is closed with bytes
        that were not read is reset, and the client would lose the answer.
        """
        self._stop_head_timer()
        self._is_refused = True
        if not self._is_head or self._is_answering():
            self.transport.close()
            return
        body = msgspec.json.encode(problem_of(error))
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\nx-should-retry: false\r\n\r\n%b"
            % (error.status, HTTPStatus(error.status).phrase.encode(), len(body), body)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._head_timer = self.loop.call_later(DISCARD_SECONDS, self.transport.close)
        else:
            self.transport.close()


def _too_large(settings: ServerSettings) -> RequestRefused:
    return RequestRefused(
        431,
        "headers_too_large",
        f"The URL and the headers have more than {settings.max_header_bytes:,} bytes, or there "
        f"are more than {settings.max_headers} headers.",
    )
