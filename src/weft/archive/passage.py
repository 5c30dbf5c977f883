"""Passages: what the archive holds, and what a search finds; with what events make of them."""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from weft.archive.period import Period
from weft.events import MessageAdded, PassageAdded, PassageRemoved, RecordedEvent
from weft.items import Role

Kind = Literal["archive", "message"]
"""Where a text comes from: it was put into the archive, or it was said on a thread."""

By = Literal["both", "text", "vector"]
"""How a search finds: by the words of the query, by its vector, or by both, combined."""


class Passage(Struct, frozen=True, kw_only=True):
    """A text of the archive, or a message of a conversation.

    `id` is that of the passage or of the message, `seq` the number of its event on the thread
    `thread_id`. `created_at` is in Unix seconds.
    """

    id: str
    text: str
    kind: Kind
    thread_id: str
    seq: int
    created_at: float
    run_id: str = ""
    role: Role | None = None
    tags: tuple[str, ...] = ()


class Found(Struct, frozen=True, kw_only=True):
    """A passage that a search found, and how well it fits.

    `score` is higher for what fits better, and comparable within one search only: for both ways
    combined the sum of 1 / (60 + rank), else the BM25 or the cosine. `text_rank` and `vector_rank`
    count from 1 and are None where that way did not find it; their scores are the BM25, and the
    cosine of the angle to the query.
    """

    passage: Passage
    score: float
    text_rank: int | None = None
    text_score: float | None = None
    vector_rank: int | None = None
    vector_score: float | None = None

    @property
    def text(self) -> str:
        """The text that was found."""
        return self.passage.text


class Filters(Struct, frozen=True):
    """What a passage must be, to be found: all that is given here.

    It has one of `any_tags`, and each of `all_tags`; it was said by one of `roles`, on the thread
    `thread_id`, in the `period`. Without a thread, those on which agents work for others are left
    out.
    """

    kind: Kind | None = None
    thread_id: str = ""
    roles: tuple[Role, ...] = ()
    any_tags: tuple[str, ...] = ()
    all_tags: tuple[str, ...] = ()
    period: Period = Period()


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
