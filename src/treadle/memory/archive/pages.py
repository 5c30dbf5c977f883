"""What the index of the archive takes from events, and how much it has; pure."""

from collections.abc import Iterable

from msgspec import Struct

from treadle.domain.events import (
    ItemRemoved,
    MessageAdded,
    PassageAdded,
    PassageRemoved,
    RecordedEvent,
)
from treadle.domain.passages import Passage


class Page(Struct, frozen=True):
    """The changes of consecutive events of a thread: passages removed first, then passages added.

    `forgotten` are the numbers of events whose messages were removed from the history.
    The events follow event `after`; the last of them is event `until`, recorded at the time `at`.
    """

    after: int
    until: int
    at: float
    removed: tuple[str, ...]
    added: tuple[Passage, ...]
    forgotten: tuple[int, ...] = ()


def page_of(thread_id: str, events: Iterable[RecordedEvent]) -> Page | None:
    """Returns the changes of consecutive `events`; None without events."""
    first = last = None
    removed: list[str] = []
    added: dict[str | int, Passage] = {}
    forgotten: list[int] = []
    for event in events:
        first, last = first or event, event
        if isinstance(event, PassageRemoved):
            added.pop(event.passage_id, None)
            removed.append(event.passage_id)
            continue
        if isinstance(event, ItemRemoved):
            forgotten += event.events
            for seq in event.events:
                added.pop(seq, None)
            continue
        passage = passage_of(thread_id, event)
        if passage is not None:
            # A passage that is added twice is one passage. A message with the same id is another
            # message: some providers repeat ids.
            added.setdefault(passage.id if passage.kind == "archive" else passage.seq, passage)
    if first is None or last is None:
        return None
    return Page(
        first.seq - 1, last.seq, last.at, tuple(removed), tuple(added.values()), tuple(forgotten)
    )


def passage_of(thread_id: str, event: RecordedEvent) -> Passage | None:
    """Returns the passage that an event adds, or None, for example for a message without text."""
    match event:
        case PassageAdded():
            return Passage(
                id=event.passage_id,
                text=event.text,
                kind="archive",
                thread_id=thread_id,
                seq=event.seq,
                created_at=event.at if event.written_at is None else event.written_at,
                run_id=event.run_id,
                tags=event.tags,
            )
        case MessageAdded() if event.item.text.strip():
            return Passage(
                id=event.item.id or f"{thread_id}/{event.seq}",
                text=event.item.text,
                kind="message",
                thread_id=thread_id,
                seq=event.seq,
                created_at=event.at,
                run_id=event.run_id,
                role=event.item.role,
            )
        case _:
            return None


class Statistics(Struct, frozen=True):
    """The size of an owner's part of the index.

    - `passages`: texts that were added to the archive.
    - `messages`: messages of threads.
    - `threads`: threads with any of them.
    - `without_vector`: passages and messages that have no vector yet.
    """

    passages: int
    messages: int
    threads: int
    without_vector: int
