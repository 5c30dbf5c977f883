"""The port to wire formats: how a provider's HTTP API says a request and streams a response."""

from typing import Protocol

from treadle.models.base import ModelRequest
from treadle.streaming.demux import StreamEvent


class Decoder(Protocol):
    """Decodes the body of one streamed response; pure and synchronous.

    `finished` turns true with the terminal event; what comes after it is not needed.
    """

    finished: bool

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Returns the events that `chunk` completes; raises `ModelError`."""
        ...

    def end(self) -> list[StreamEvent]:
        """The body has ended; raises `StreamIncomplete` if its terminal event is missing."""
        ...


class Wire(Protocol):
    """A provider's HTTP API, as pure functions."""

    path: str
    provider: str

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the headers that authorise a request."""
        ...

    def encode(self, model: str, request: ModelRequest) -> bytes:
        """Returns the body of a streaming request."""
        ...

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder for the response to `request`."""
        ...
