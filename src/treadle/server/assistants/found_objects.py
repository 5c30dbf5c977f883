"""Runs and messages of a thread, read from its events."""

from treadle.domain.events import ItemsAdded, MessageAdded, RecordedEvent
from treadle.domain.items import Item, Message
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.assistants.assistants_objects import Json, message_object
from treadle.server.assistants.run_fold import RunFold

EVENTS_AT_ONCE = 1000


async def read_run(thread: Thread, run: ThreadRun) -> tuple[RunFold, int]:
    """Returns a run as it is now, and the number of its last event so far, 0 without one."""
    record, seq = await run.info(), 0
    fold = RunFold(run.id, thread.id, record.agent)
    after = max(record.seq - 1, 0) if record.seq else await thread.last_seq()
    while page := await thread.events(after, EVENTS_AT_ONCE):
        for event in page:
            after = event.seq
            if event.run_id == run.id:
                fold.feed(event)
                seq = event.seq
        if record.last_seq and after >= record.last_seq:
            break
    return fold, seq


async def read_thread(thread: Thread) -> tuple[dict[str, RunFold], list[Json]]:
    """Returns the runs and the messages of a thread, from the oldest to the newest."""
    runs: dict[str, RunFold] = {}
    messages: list[Json] = []
    counts: dict[str, int] = {}  # how many messages of a run are among them
    after = 0
    while page := await thread.events(after, EVENTS_AT_ONCE):
        for event in page:
            after = event.seq
            messages += [
                message_object(thread.id, item, event.at)
                for item in _given(event)
                if isinstance(item, Message) and item.role in {"user", "assistant"}
            ]
            if event.run_id:
                messages += _written(thread.id, event, runs, counts)
    return runs, messages


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
