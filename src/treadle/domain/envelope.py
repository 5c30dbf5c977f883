"""An event with its position in the thread, encoded once for all subscribers."""

from collections.abc import Iterable
from typing import cast

import msgspec
from msgspec import Struct

from treadle.domain.events import Event, RecordedEvent
from treadle.errors import InvalidInput

_ENCODER = msgspec.json.Encoder()
_ONE = msgspec.json.Decoder(RecordedEvent)
_MANY = msgspec.json.Decoder(list[RecordedEvent])


class Envelope(Struct, gc=False, eq=False):
    """An event and its position `seq.n`: the n-th live event after the durable event `seq`.

    A durable event has the position `seq.0`, or `seq.` with `n` -1 for a reader that has seen none
    of the texts in flight. For `n` of joined deltas see `treadle.bus.position`.
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
        if self.n < 0:
            return f"{self.seq}."
        return f"{self.seq}.{self.n}" if self.n else str(self.seq)


def readable(event: RecordedEvent) -> tuple[RecordedEvent, bytes]:
    """Returns a durable event and its JSON, once that was decoded again.

    What a journal writes it can read, whatever a model, a tool or a hook brought into the event:
    structs do not check the types of their fields. A half of a surrogate pair, which JSON in UTF-8
    cannot contain, is replaced. Raises `InvalidInput` for a field of another type.
    """
    try:
        encoded = _ENCODER.encode(event)
        _ONE.decode(encoded)
    except UnicodeEncodeError:
        return readable(_without_surrogates(event))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{type(event).__name__} cannot be recorded: {error}.") from error
    return event, encoded


def _without_surrogates(event: RecordedEvent) -> RecordedEvent:
    try:
        return msgspec.convert(_replaced(msgspec.to_builtins(event)), RecordedEvent)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{type(event).__name__} cannot be recorded: {error}.") from error


def _replaced(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list() | tuple():
            return [_replaced(one) for one in cast("Iterable[object]", value)]
        case dict():
            fields = cast("dict[object, object]", value)
            return {_replaced(name): _replaced(one) for name, one in fields.items()}
        case _:
            return value


def recorded(envelopes: Iterable[Envelope]) -> list[RecordedEvent]:
    """Returns the events of envelopes that hold durable ones."""
    return cast("list[RecordedEvent]", [envelope.event for envelope in envelopes])


def decode_events(data: bytes | str) -> list[RecordedEvent]:
    """Returns the durable events of a JSON array; raises `msgspec.ValidationError`."""
    return _MANY.decode(data)
