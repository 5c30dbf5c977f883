"""The last run of a chat: the one whose message may be edited, or answered again."""

from typing import Any, NamedTuple

from treadle.domain.events import MessageAdded, RecordedEvent, RunQueued, RunStarted
from treadle.domain.ids import run_id_of_key
from treadle.domain.removal import item_in
from treadle.errors import RunNotFound
from treadle.journal.projection import RunRecord
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.ai_sdk.chats import message_key, message_of_key
from treadle.server.api_request import ApiRequest
from treadle.server.problems import RequestRefused
from treadle.server.routes.runs import wait_for
from treadle.server.run_events import before_messages, run_events

CANCEL_SECONDS = 10.0
"""How long an edit waits for the end of the run that it replaces."""


class AnsweringRun(NamedTuple):
    """A run that answers a message; `attempt` counts its answers, `is_last` of the thread."""

    run: ThreadRun
    attempt: int
    is_last: bool


async def run_of_message(thread: Thread, message_id: str) -> AnsweringRun:
    """Returns the run that answers a message of the thread, the last if there are several."""
    found = await thread.runs(limit=1, order="desc")
    for record in found:
        events = [event async for event in run_events(thread, record, before_messages(record))]
        id, attempt = sent_as(events)
        if message_id == id or _has_message(events, message_id):
            return AnsweringRun(await thread.run(record.id), attempt, True)
    try:
        run = await thread.run(run_id_of_key(thread.id, message_key(message_id)))
    except RunNotFound:
        raise RequestRefused(
            409,
            "conflict",
            f"The message {message_id[:100]!r} is in the chat, and is not the last one.",
        ) from None
    return AnsweringRun(run, 0, False)


def sent_as(events: list[RecordedEvent]) -> tuple[str, int]:
    """Returns the id that a client gave to the message of a run, and the number of the answer."""
    for event in events:
        if isinstance(event, RunQueued | RunStarted) and event.key:
            return message_of_key(event.key)
    return "", 0


def _has_message(events: list[RecordedEvent], id: str) -> bool:
    return any(isinstance(event, MessageAdded) and event.item.id == id for event in events)


async def remove_last_run(
    request: ApiRequest[Any, Any], thread: Thread, found: AnsweringRun
) -> int:
    """Removes a run with its messages from the history; returns the number of the next answer.

    Raises 409 if the chat continued after it: a client that has not seen that would remove more
    than it knows.
    """
    run = found.run
    if not found.is_last:
        raise RequestRefused(
            409,
            "conflict",
            "The chat continued after this message; only the last one can be edited or answered "
            "again; load its messages, or fork the thread.",
        )
    await run.cancel()
    if not await wait_for(request, thread, run, CANCEL_SECONDS):
        raise RequestRefused(
            409, "run_in_progress", "The run has not ended yet; send it again.", retryable=True
        )
    record: RunRecord = await run.info()
    events = [event async for event in run_events(thread, record, before_messages(record))]
    for event in events:
        if item_in(event) is not None:
            await thread.remove_event(event.seq)
    return found.attempt + 1
