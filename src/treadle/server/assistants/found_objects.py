"""Runs and messages of a thread, read from its events."""

from contextlib import suppress

from treadle.domain.events import ItemsAdded, MessageAdded, RecordedEvent
from treadle.domain.items import Item, Message
from treadle.errors import RunNotFound
from treadle.journal.projection import RunRecord
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.assistants.assistants_objects import Json, message_object, run_of
from treadle.server.assistants.run_fold import RunFold
from treadle.server.run_events import run_events, thread_events

_RUNS_AT_ONCE = 1000


async def read_run(thread: Thread, run: ThreadRun) -> tuple[RunFold, int]:
    """Returns a run as it is now, and the number of its last event so far, 0 without one."""
    record, seq = await run.info(), 0
    fold = RunFold(run.id, thread.id, record.agent)
    async for event in run_events(thread, record):
        fold.feed(event)
        seq = event.seq
    return fold, seq


async def read_object(thread: Thread, record: RunRecord) -> Json:
    """Returns a run as it is now. Its row is enough, unless it asks the client for outputs."""
    if record.status == "requires_action" and await _asks(thread):
        fold, _ = await read_run(thread, await thread.run(record.id))
        return fold.run
    return run_of(record, thread.id)


async def read_objects(thread: Thread) -> list[Json]:
    """Returns the runs of a thread, from the oldest to the newest."""
    runs: list[Json] = []
    after = ""
    while True:
        page = await thread.runs(limit=_RUNS_AT_ONCE, after=after)
        runs += [await read_object(thread, record) for record in page]
        after = page.next
        if not after:
            return runs


async def _asks(thread: Thread) -> bool:
    """Whether only the client can continue the active run, as far as its calls that wait tell."""
    pending = await thread.pending_calls()
    return all(call.awaits == "output" for call in pending)


async def read_messages(thread: Thread, run_id: str = "") -> list[Json]:
    """Returns the messages of a thread, or those of a run, from the oldest to the newest."""
    if run_id:
        with suppress(RunNotFound):
            fold, _ = await read_run(thread, await thread.run(run_id))
            return fold.messages
        return []
    runs: dict[str, RunFold] = {}
    messages: list[Json] = []
    counts: dict[str, int] = {}  # how many messages of a run are among them
    async for event in thread_events(thread):
        messages += [
            message_object(thread.id, item, event.at)
            for item in _given(event)
            if isinstance(item, Message) and item.role in {"user", "assistant"}
        ]
        if event.run_id:
            messages += _written(thread.id, event, runs, counts)
    return messages


def _written(
    thread_id: str, event: RecordedEvent, runs: dict[str, RunFold], counts: dict[str, int]
) -> list[Json]:
    """Returns the messages of a run that an event completes."""
    id = event.run_id
    fold = runs.get(id)
    if fold is None:
        fold = runs[id] = RunFold(id, thread_id, "")
    fold.feed(event)
    known = counts.get(id, 0)
    counts[id] = len(fold.messages)
    return fold.messages[known:]


def _given(event: RecordedEvent) -> tuple[Item, ...]:
    """Returns the items that came from outside of a run."""
    match event:
        case MessageAdded(origin="model" | "runtime" | "hook"):
            return ()
        case MessageAdded():
            return (event.item,)
        case ItemsAdded():
            return event.items
        case _:
            return ()
