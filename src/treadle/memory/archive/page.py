"""What events change in the archive; pure."""

from collections.abc import Iterable

from msgspec import Struct

from treadle.domain.events import MessageAdded, PassageAdded, PassageRemoved, RecordedEvent
from treadle.domain.passages import Passage


class Page(Struct, frozen=True):
    """What some events of a thread in a row change: what leaves, and then what comes.

    They follow event `after`; the last of them is event `until`, of the time `at`.
    """

    after: int
    until: int
    at: float
    removed: tuple[str, ...]
    added: tuple[Passage, ...]


def page_of(thread_id: str, events: Iterable[RecordedEvent]) -> Page | None:
    """Returns what `events`, which follow each other, say of passages; None without events."""
    first = last = None
    removed: list[str] = []
    added: dict[str | int, Passage] = {}
    for event in events:
        first, last = first or event, event
        if isinstance(event, PassageRemoved):
            added.pop(event.passage_id, None)
            removed.append(event.passage_id)
            continue
        passage = passage_of(thread_id, event)
        if passage is not None:
            # A passage that is put in twice is one; a message may be said again with the same id.
            added.setdefault(passage.id if passage.kind == "archive" else passage.seq, passage)
    if first is None or last is None:
        return None
    return Page(first.seq - 1, last.seq, last.at, tuple(removed), tuple(added.values()))


def passage_of(thread_id: str, event: RecordedEvent) -> Passage | None:
    """Returns the passage that an event adds, if it does: a message without text is none."""
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
