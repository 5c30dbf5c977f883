"""A run of a chat as a stream of chunks, and what the journal has of it."""

from treadle.domain.events import RecordedEvent, RunRequiresAction, ToolOutputRecorded
from treadle.runtime.run_subscription import RunSubscription
from treadle.runtime.runtime import Runtime
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.ai_sdk.chat_framing import ChatFraming
from treadle.server.ai_sdk.tool_kinds import tool_kinds
from treadle.server.problems import RequestRefused
from treadle.server.run_events import before_messages, run_events


async def stream_run(
    runtime: Runtime, thread: Thread, run: ThreadRun, known: set[str] | None = None
) -> tuple[ChatFraming, RunSubscription]:
    """Returns the message that is a run as it is now, and the events that continue it.

    `known` are the ids of the calls that the client has: the stream begins after the last wait for
    one of them. None streams the message from its beginning. Raises 400 if the run never waited for
    one of them.
    """
    record = await run.info()
    stored = [event async for event in run_events(thread, record, before_messages(record))]
    seen = 0 if known is None else _last_wait(stored, known)
    answered = {one.item.call_id for one in stored if isinstance(one, ToolOutputRecorded)}
    framing = ChatFraming(thread.id, run.id, tool_kinds(runtime, record.agent), answered)
    for event in stored:
        framing.feed(event)
        if event.seq <= seen:
            framing.skip()
    framing.settle()
    return framing, await run.subscribe(stored[-1].seq if stored else None)


def _last_wait(events: list[RecordedEvent], known: set[str]) -> int:
    for event in reversed(events):
        if isinstance(event, RunRequiresAction) and not known.isdisjoint(event.call_ids):
            return event.seq
    raise RequestRefused(
        400,
        "invalid_request",
        "The message answers no call, and no message of the user follows it.",
    )
