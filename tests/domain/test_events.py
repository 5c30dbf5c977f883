"""Every event names its type, in the program as in its JSON."""

from typing import get_args

import msgspec
import pytest
from msgspec.structs import FieldInfo, fields

from treadle.domain.envelope import EVENT_TYPES
from treadle.domain.events import DurableEvent, Event, RecordedEvent, UnknownEvent

CLASSES: tuple[type[Event], ...] = get_args(Event)


def names(field: FieldInfo) -> bool:
    return field.name == "type"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_type_of_a_class_is_the_word_in_its_json(kind: type[Event]) -> None:
    assert kind.type == kind.__struct_config__.tag
    assert get_args(get_args(kind.__annotations__["type"])[0]) == (kind.type,)
    assert not any(names(field) for field in fields(kind))  # it costs an event nothing
    assert issubclass(kind, DurableEvent) == (kind in get_args(RecordedEvent))


def test_no_two_classes_have_the_same_type() -> None:
    assert len(EVENT_TYPES) == len(CLASSES)


def test_the_json_of_an_unknown_event_is_what_was_recorded() -> None:
    raw = b'{"type": "tool.paused", "seq": 3}'
    event = UnknownEvent(seq=3, original_type="tool.paused", raw=raw)
    assert event.type == "unknown"
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
