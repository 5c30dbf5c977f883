"""Snapshots: the fold of a thread, kept so that loading it costs what its tail costs.

A snapshot has two parts: the head, which is all of the state but the history, and the items that
entered the history since the snapshot before. So no item is written twice, unless the history was
replaced: then the snapshots before are dropped, for loads of an earlier event fold from the start.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from treadle.domain.block_memory import NO_MEMORY, BlockMemory
from treadle.domain.context import WHOLE, Context
from treadle.domain.history import History
from treadle.domain.items import Item, Message
from treadle.domain.open_step import Step
from treadle.domain.state import NO_JOBS, Announcement, OpenJob, QueuedRun, Run, ThreadState
from treadle.domain.usage import Spent


class _Head(Struct, frozen=True, omit_defaults=True):
    seq: int
    items: int
    run: Run | None = None
    step: Step | None = None
    queue: tuple[QueuedRun, ...] = ()
    steering: tuple[Message, ...] = ()
    ended: Spent = Spent()
    edited: int = 0
    jobs: tuple[OpenJob, ...] = ()
    announced: tuple[Announcement, ...] = ()
    memory: BlockMemory = NO_MEMORY
    context: Context = WHOLE
    tended: int = 0


_HEAD = msgspec.json.Decoder(_Head)
_CHUNKS = msgspec.json.Decoder(list[list[Item]])
_ENCODER = msgspec.json.Encoder()


def encode_head(state: ThreadState) -> bytes:
    """Returns the state as JSON, with the length of its history in place of the history."""
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
            tuple(state.jobs.values()),
            state.announced,
            state.memory,
            state.context,
            state.tended,
        )
    )


def encode_items(items: Sequence[Item]) -> bytes:
    """Returns items as a JSON array."""
    return _ENCODER.encode(items)


def decode_snapshot(head: bytes, chunks: bytes) -> ThreadState:
    """Returns the state of a head and the chunks of its history, a JSON array of arrays.

    Items beyond the length that the head tells are left out: they belong to a later snapshot.
    Raises `msgspec.ValidationError` for anything else.
    """
    decoded = _HEAD.decode(head)
    items = [item for chunk in _CHUNKS.decode(chunks) for item in chunk][: decoded.items]
    if len(items) < decoded.items:
        raise msgspec.ValidationError(
            f"the snapshot of event {decoded.seq} lacks {decoded.items - len(items)} items"
        )
    return ThreadState(
        decoded.seq,
        History(items),
        decoded.run,
        decoded.step,
        decoded.queue,
        decoded.steering,
        decoded.ended,
        decoded.edited,
        {job.id: job for job in decoded.jobs} or NO_JOBS,
        decoded.announced,
        decoded.memory,
        decoded.context,
        decoded.tended,
    )
