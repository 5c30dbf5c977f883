"""Snapshots: the fold of a thread is stored, so that a load folds only the events after it.

A snapshot has two parts: the head, which is the state without its history, and the items added to
the history since the previous snapshot. So no item is written twice. If the history was replaced,
earlier snapshots are dropped, and a load of an earlier event folds from the start. A snapshot of a
version of treadle that knows other events is not used.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec import Struct

from treadle.domain.block_memory import NO_MEMORY, BlockMemory
from treadle.domain.context import WHOLE, Context
from treadle.domain.envelope import EVENT_TYPES
from treadle.domain.history import History, UnreadHistory
from treadle.domain.items import Item
from treadle.domain.open_step import Step
from treadle.domain.schedules import NO_SCHEDULES, Schedule
from treadle.domain.state import (
    NO_JOBS,
    NOBODY,
    Announcement,
    OpenJob,
    QueuedRun,
    Run,
    SteeringMessage,
    ThreadState,
)
from treadle.domain.usage import Spent


class _Head(Struct, frozen=True, omit_defaults=True):
    seq: int
    items: int
    run: Run | None = None
    step: Step | None = None
    queue: tuple[QueuedRun, ...] = ()
    steering: tuple[SteeringMessage, ...] = ()
    ended: Spent = Spent()
    edited: int = 0
    approved: tuple[str, ...] = ()
    jobs: tuple[OpenJob, ...] = ()
    announced: tuple[Announcement, ...] = ()
    memory: BlockMemory = NO_MEMORY
    context: Context = WHOLE
    tended: int = 0
    event_types: str = ""
    answered_by: dict[str, str] = {}
    said: int = 0
    schedules: tuple[Schedule, ...] = ()


class _Extent(Struct, frozen=True):
    items: int
    edited: int = 0


_HEAD = msgspec.json.Decoder(_Head)
_EXTENT = msgspec.json.Decoder(_Extent)
_CHUNKS = msgspec.json.Decoder(list[list[Item]])
_ENCODER = msgspec.json.Encoder()
_EVENT_TYPES = sha256(" ".join(sorted(EVENT_TYPES)).encode()).hexdigest()[:16]


def encode_head(state: ThreadState) -> bytes:
    """Returns the state as JSON, with the length of its history instead of the history."""
    return _ENCODER.encode(
        _Head(
            state.seq,
            len(state.history),
            state.run,
            state.step,
            state.queue,
            state.steering,
            state.ended,
            state.edited,
            tuple(sorted(state.approved)),
            tuple(state.jobs.values()),
            state.announced,
            state.memory,
            state.context,
            state.tended,
            _EVENT_TYPES,
            dict(state.answered_by),
            state.said,
            tuple(state.schedules.values()),
        )
    )


def encode_items(items: Sequence[Item]) -> bytes:
    """Returns items as a JSON array."""
    return _ENCODER.encode(items)


def extent_of(head: bytes | str) -> tuple[int, int]:
    """Returns how long the history of a snapshot is, and which edit of it came last.

    A damaged head has none, and comes before every edit.
    """
    try:
        extent = _EXTENT.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return (0, -1)
    return (extent.items, extent.edited)


def decode_snapshot(head: bytes | str, chunks: bytes | str | None) -> ThreadState:
    """Returns the state with this head and history; `chunks` is a JSON array of arrays of items.

    Without chunks (None) its items count as not read; see `UnreadHistory`. Items beyond the length
    in the head are left out: they belong to a later snapshot. Raises `msgspec.DecodeError` for
    other JSON, or if items are missing, and for the snapshot of a version with other events: it may
    be the fold of one that this version does not know.
    """
    decoded = _HEAD.decode(head)
    if decoded.event_types not in {"", _EVENT_TYPES}:
        raise msgspec.ValidationError(
            f"the snapshot of event {decoded.seq} was made by another version"
        )
    return ThreadState(
        decoded.seq,
        UnreadHistory(decoded.items, History()) if chunks is None else _history(decoded, chunks),
        decoded.run,
        decoded.step,
        decoded.queue,
        decoded.steering,
        decoded.ended,
        decoded.edited,
        frozenset(decoded.approved),
        decoded.answered_by or NOBODY,
        {job.id: job for job in decoded.jobs} or NO_JOBS,
        decoded.announced,
        decoded.memory,
        decoded.context,
        decoded.tended,
        decoded.said,
        {one.id: one for one in decoded.schedules} or NO_SCHEDULES,
    )


def _history(head: _Head, chunks: bytes | str) -> History:
    items = [item for chunk in _CHUNKS.decode(chunks) for item in chunk][: head.items]
    if len(items) < head.items:
        raise msgspec.ValidationError(
            f"the snapshot of event {head.seq} lacks {head.items - len(items)} items"
        )
    return History(items)
