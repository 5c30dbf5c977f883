"""The port to wire formats: encodes requests to, and decodes streams of, a provider's API."""

from collections.abc import Iterable
from typing import Protocol

from treadle.models.base import ModelRequest
from treadle.models.wire.media import MediaRules
from treadle.models.wire.sendable import EncodedRequest
from treadle.streaming.demux import StreamEvent


class Decoder(Protocol):
    """Decodes the body of one response; pure and synchronous.

    - `finished` becomes true with the terminal event; the rest of the body is not needed.
    - `stopped` becomes true when the reason for the end has arrived; what may follow is awaited for
      a moment only, and its absence is not an error.
    - `progressed`: the last chunk contained no event, but more than a sign of life, such as the
      progress of a tool that the provider runs.

    The body is an event stream, or one JSON document if the server does not stream.
    """

    finished: bool
    stopped: bool
    progressed: bool

    def feed(self, chunk: bytes) -> Iterable[StreamEvent]:
        """Returns the events that `chunk` completes.

        Raises `ModelError`: at once, or after the last of the events if some came before it.
        """
        ...

    def end(self) -> Iterable[StreamEvent]:
        """Handles the end of the body; raises `StreamIncomplete` without a terminal event."""
        ...


class Wire(Protocol):
    """A provider's HTTP API, as pure functions."""

    path: str
    provider: str
    media: MediaRules

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the headers that authorise a request."""
        ...

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request, and how it differs from the items.

        Total: whatever the items are, the API accepts the body. Raises `ItemRefused` instead if
        the model is strict.
        """
        ...

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder for the response to `request`."""
        ...
