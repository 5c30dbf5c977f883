"""An event with its position in the thread, encoded once for all subscribers."""

from collections.abc import Iterable
from typing import cast

import msgspec
from msgspec import Struct

from treadle.domain.events import Event, RecordedEvent

_ENCODER = msgspec.json.Encoder()
_MANY = msgspec.json.Decoder(list[RecordedEvent])


class Envelope(Struct, gc=False, eq=False):
    """An event and its position `seq.n`: the n-th live event after the durable event `seq`.

    A durable event has the position `seq.0`. For `n` of joined deltas see `treadle.bus.position`.
    """

    event: Event
    seq: int
    n: int = 0
    _encoded: bytes = b""

    @property
    def json(self) -> bytes:
        """The event as JSON, encoded at the first call."""
        if not self._encoded:
            self._encoded = _ENCODER.encode(self.event)
        return self._encoded

    @property
    def position(self) -> str:
        """The position as text, such as `17` or `17.4`: the id of a server-sent event."""
        return f"{self.seq}.{self.n}" if self.n else str(self.seq)


def recorded(envelopes: Iterable[Envelope]) -> list[RecordedEvent]:
    """Returns the events of envelopes that hold durable ones."""
    return cast("list[RecordedEvent]", [envelope.event for envelope in envelopes])


def decode_events(data: bytes | str) -> list[RecordedEvent]:
    """Returns the durable events of a JSON array; raises `msgspec.ValidationError`."""
    return _MANY.decode(data)
