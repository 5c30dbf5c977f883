"""An event with its position in the thread, encoded once for all subscribers."""

import re
from collections.abc import Iterable
from typing import cast, get_args

import msgspec
from msgspec import Struct

from treadle.domain.events import AgentEvent, Event, EventRemoved, RecordedEvent, UnknownEvent
from treadle.errors import InvalidInput

_ENCODER = msgspec.json.Encoder()
_ONE = msgspec.json.Decoder(RecordedEvent)
_MANY = msgspec.json.Decoder(list[RecordedEvent])
_ANY = msgspec.json.Decoder(Event)
_SINGLE = msgspec.json.Decoder(list[msgspec.Raw])
_NO_EVENT = msgspec.Raw(b"null")
_WORD = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")

EVENT_TYPES = frozenset(cast("str", one.type) for one in get_args(Event))
"""The types of the events that this version knows."""


class _Head(Struct):
    """The fields of an event of any type, and of the event in an `EventRemoved` or `AgentEvent`."""

    type: str
    seq: int = 0
    at: float = 0.0
    run_id: str = ""
    call_id: str = ""
    agent: str = ""
    thread_id: str = ""
    event: msgspec.Raw = _NO_EVENT


_HEAD = msgspec.json.Decoder(_Head)


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
            event = self.event
            unknown = type(event) is UnknownEvent
            self._encoded = event.raw if unknown else _ENCODER.encode(event)
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
    """Returns the durable events of a JSON array; raises `msgspec.DecodeError`.

    An event of a type that this version does not know is an `UnknownEvent`.
    """
    try:
        return _MANY.decode(data)
    except msgspec.ValidationError:
        return [decode_recorded(bytes(one)) for one in _SINGLE.decode(data)]


def decode_recorded(data: bytes) -> RecordedEvent:
    """Returns one durable event, as `decode_events` does."""
    try:
        return _ONE.decode(data)
    except msgspec.ValidationError:
        event = _recorded_by_newer(data)
        if event is None:
            raise
        return event


def decode_event(data: bytes) -> Event | None:
    """Returns one event of any kind, as `decode_events` does.

    None for a live event of a type that this version does not know: readers can do without it.
    """
    try:
        return _ANY.decode(data)
    except msgspec.ValidationError:
        head = _HEAD.decode(data)
        if head.type == AgentEvent.type:
            inner = decode_event(bytes(head.event))
            return inner and AgentEvent(head.call_id, head.agent, head.thread_id, inner)
        if head.type not in EVENT_TYPES and not head.seq:
            return None
        event = _recorded_by_newer(data)
        if event is None:
            raise
        return event


def _recorded_by_newer(data: bytes) -> UnknownEvent | EventRemoved | None:
    """Returns a durable event that a newer version wrote; None if the JSON is something else.

    Raises `msgspec.DecodeError` for JSON that cannot be the event of any version.
    """
    head = _HEAD.decode(data)
    if head.type == EventRemoved.type and head.event != _NO_EVENT:
        inner = _unknown(bytes(head.event), head.seq)
        if inner is not None:
            return EventRemoved(seq=head.seq, at=head.at, run_id=head.run_id, event=inner)
    return _unknown(data) if head.seq > 0 else None


def _unknown(data: bytes, seq: int = 0) -> UnknownEvent | None:
    head = _HEAD.decode(data)
    # A known type, or a word that no event has, is that of a damaged event.
    if head.type in EVENT_TYPES or not _WORD.fullmatch(head.type):
        return None
    msgspec.json.decode(data)  # raises if a part that is not read here is damaged
    return UnknownEvent(
        seq=head.seq or seq, at=head.at, run_id=head.run_id, original_type=head.type, raw=data
    )
