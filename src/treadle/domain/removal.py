"""Removing items from a history: what is left of their events, and of the state.

A removed item keeps its place, without content: compaction, pins and runs count items. A call
leaves together with its output. `remove(state, event)` gives the state that a fold of the redacted
events gives, so it does not matter whether a thread was in memory when an item was removed.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import (
    ContextCompacted,
    EventRemoved,
    HistoryReplaced,
    ItemRemoved,
    ItemsAdded,
    JobSettled,
    MessageAdded,
    MessageQueued,
    ProviderItemAdded,
    ReasoningAdded,
    RecordedEvent,
    RunCompleted,
    RunQueued,
    ScheduleCreated,
    ThreadUpdated,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
    ValidatedOutput,
)
from treadle.domain.history import History
from treadle.domain.items import FunctionCallOutput, Item, Message, ProviderItem
from treadle.domain.mentions import mentioned
from treadle.domain.open_step import Step
from treadle.domain.removed_items import is_removed, key_of, redacted
from treadle.domain.state import ThreadState
from treadle.errors import InvalidInput

Keys = frozenset[str]


class Removal(Struct, frozen=True):
    """What is removed: the `keys` of items, and the `events` to store in place of those before.

    `has_title` is set if the first message, which gives a thread its title, is among them, and no
    other title was set. `files` are the ids of the files in what is removed.
    """

    keys: Keys
    events: Sequence[RecordedEvent]
    has_title: bool = False
    files: Sequence[str] = ()


def item_in(event: RecordedEvent) -> Item | None:
    """Returns the item that an event adds to the history, or None."""
    match event:
        case (
            MessageAdded()
            | ReasoningAdded()
            | ProviderItemAdded()
            | ToolCallRequested()
            | ToolOutputRecorded()
        ):
            return event.item
        case ScheduleCreated():
            return event.schedule.item
        case _:
            return None


def item_with(event: RecordedEvent, id: str) -> Item | None:
    """Returns the item with this id that an event adds to the history, or None."""
    several = event.items if isinstance(event, HistoryReplaced | ItemsAdded) else (item_in(event),)
    for item in several:
        if item is not None and not isinstance(item, ProviderItem) and item.id == id:
            return item
    return None


def without_content(event: RecordedEvent, keys: Keys) -> RecordedEvent:
    """Returns an event without the items of `keys`; the event itself if it has none of them.

    An event that adds such an item becomes an `EventRemoved` with its number. One that contains
    others as well, or a copy, keeps the rest.
    """
    match event:
        case (
            MessageAdded()
            | ReasoningAdded()
            | ProviderItemAdded()
            | ToolCallRequested()
            | ToolOutputRecorded()
        ):
            if key_of(event.item) not in keys:
                return event
            left = replace(event, item=redacted(event.item))
            if isinstance(left, ToolCallRequested):
                left = replace(left, to_user="", parameters=None)
            return removed(event, left)
        case ToolStarted(arguments=arguments) | ToolApproved(arguments=arguments):
            found = arguments and f"call:{event.call_id}" in keys
            return removed(event, replace(event, arguments="")) if found else event
        case RunQueued(before=before, so_far=so_far) if any(
            key_of(item) in keys for item in (*before, *so_far)
        ):
            left = tuple(redacted(one) if key_of(one) in keys else one for one in before)
            event = replace(event, before=left, so_far=tuple(_redacted(so_far, keys)))
            return without_content(event, keys)
        case RunQueued() | MessageQueued():
            return (
                replace(event, item=redacted(event.item)) if key_of(event.item) in keys else event
            )
        case ScheduleCreated(schedule=schedule):
            if key_of(schedule.item) not in keys:
                return event
            return replace(event, schedule=replace(schedule, item=redacted(schedule.item)))
        case JobSettled(announcement=Message() as told):
            return replace(event, announcement=redacted(told)) if key_of(told) in keys else event
        case ContextCompacted(summary=Message() as summary):
            return replace(event, summary=None) if key_of(summary) in keys else event
        case HistoryReplaced() | ItemsAdded():
            return (
                replace(event, items=tuple(_redacted(event.items, keys)))
                if any(key_of(item) in keys for item in event.items)
                else event
            )
        case RunCompleted(output=ValidatedOutput(items=items)) if not keys.isdisjoint(items):
            return replace(event, output=None)
        case _:
            return event


def removed(event: RecordedEvent, left: RecordedEvent | None) -> EventRemoved:
    """Returns the event that takes the place of `event`; `left` is what the state needs of it."""
    return EventRemoved(seq=event.seq, at=event.at, run_id=event.run_id, event=left)


def removal_of(events: Sequence[RecordedEvent], seq: int, item: Item | None = None) -> Removal:
    """Returns what the removal of the item of event `seq` changes; nothing if it was removed.

    `events` are all events of the thread. `item` chooses one of several items. Raises
    `InvalidInput` for an event that adds no item.
    """
    require_event(seq, len(events))
    foreseen = foreseen_removal(events[seq - 1], item)
    if not foreseen.events:
        return foreseen
    keys = foreseen.keys
    changed = [without_content(one, keys) for one in events]
    left = [new for new, old in zip(changed, events, strict=True) if new is not old]
    first = next((one.seq for one in events if isinstance(one, MessageAdded)), 0)
    is_named = any(isinstance(one, ThreadUpdated) and one.title for one in events)
    has_title = not is_named and any(one.seq == first for one in left)
    files = mentioned(old for new, old in zip(changed, events, strict=True) if new is not old)
    return Removal(keys, left, has_title, sorted(files))


def require_event(seq: int, last: int) -> None:
    """Raises `InvalidInput` unless a thread whose last event is `last` has the event `seq`."""
    if not 1 <= seq <= last:
        raise InvalidInput(f"The thread has the events 1 to {last}, not {seq}.")


def foreseen_removal(event: RecordedEvent, item: Item | None = None) -> Removal:
    """Returns what the removal of the item of `event` changes in this event alone.

    That is enough to decide whether the item can be removed. Raises as `removal_of` does.
    """
    found = item_in(event)
    if found is None and isinstance(event, ContextCompacted):
        found = event.summary
    if found is None and isinstance(event, HistoryReplaced | ItemsAdded):
        found = next((one for one in event.items if one == item), None)
    if isinstance(event, EventRemoved) or (
        isinstance(event, ScheduleCreated) and is_removed(event.schedule.item)
    ):
        return Removal(frozenset(), ())
    if found is None:
        raise InvalidInput(
            f"Event {event.seq} adds no item to the history; pass the number of a message, of "
            "reasoning, of a tool call or of its output."
        )
    keys = frozenset({key_of(found)})
    return Removal(keys, [without_content(event, keys)])


def remove(state: ThreadState, event: ItemRemoved) -> ThreadState:
    """Returns the state after items were removed."""
    keys = frozenset(event.keys)
    run, context = state.run, state.context
    if run is not None and run.last_step is not None:
        run = replace(run, last_step=_redacted_step(run.last_step, keys))
    if run is not None and run.output is not None and not keys.isdisjoint(run.output.items):
        run = replace(run, output=None)
    summary = context.summary
    if summary is not None and key_of(summary) in keys:
        summary = None
    return replace(
        state,
        run=run,
        history=History(_redacted(state.history, keys)),
        context=replace(context, summary=summary, removed=True),
        edited=event.seq,
    )


def _redacted(items: Iterable[Item], keys: Keys) -> list[Item]:
    return [redacted(item) if key_of(item) in keys else item for item in items]


def _redacted_step(step: Step, keys: Keys) -> Step:
    outputs = [redacted(output) if key_of(output) in keys else output for output in step.outputs]
    return replace(
        step,
        items=tuple(
            (place, redacted(item) if key_of(item) in keys else item) for place, item in step.items
        ),
        outputs=tuple(one for one in outputs if isinstance(one, FunctionCallOutput)),
    )
