"""Short stories of threads, as the events a driver would append."""

from collections.abc import Sequence

from msgspec.structs import replace
from tests.domain.fold import (
    BACK,
    BACK_QUIET,
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    JOB_BELOW_DONE,
    JOB_DELEGATED,
    JOB_DONE,
)

from treadle.domain.envelope import Envelope, recorded
from treadle.domain.events import (
    MessageAdded,
    RecordedEvent,
    ResponseCompleted,
    RunCompleted,
    RunStarted,
    StepCompleted,
    StepStarted,
    TerminalEvent,
)
from treadle.domain.fold import apply
from treadle.domain.items import Message, OutputText, user_message
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.journal.base import Batch, Claim, Journal, ThreadInfo
from treadle.journal.projection import project, standing_of


def thread(id: str = "thread_1", **fields: object) -> ThreadInfo:
    values = {"agent": "a", "created_at": 1.0, "updated_at": 1.0, **fields}
    return ThreadInfo(id=id, **values)  # type: ignore[arg-type]


def conversation(run_id: str = "run_1", text: str = "hi", key: str = "") -> list[RecordedEvent]:
    """A run of one step, from the message to the terminal event."""
    usage = Usage(3, 2, requests=1)
    said = Message("assistant", (OutputText(f"answer to {text}"),), f"msg_{run_id}")
    return [
        MessageAdded(run_id=run_id, item=user_message(text), origin="user"),
        RunStarted(run_id=run_id, agent="a", agent_hash="h", key=key),
        StepStarted(run_id=run_id, step=1, model="m"),
        MessageAdded(run_id=run_id, item=said, origin="model"),
        ResponseCompleted(run_id=run_id, response_id="r", finish_reason="stop", usage=usage),
        StepCompleted(run_id=run_id, step=1),
        RunCompleted(run_id=run_id, stop_reason="end_turn", usage=usage),
    ]


def with_jobs() -> list[RecordedEvent]:
    """The run `run_1`, with jobs that end before it does and two that outlive it."""
    asked, started, *rest, completed = conversation()
    jobs = (JOB, JOB_BELOW, JOB_DELEGATED, BACK, BACK_QUIET, JOB_AGAIN, JOB_BELOW_DONE, JOB_DONE)
    return [asked, started, *jobs[:4], *rest, *jobs[4:], completed]


def numbered(events: Sequence[RecordedEvent], after: int = 0) -> list[RecordedEvent]:
    """The events as those that follow event `after`."""
    return [replace(event, seq=n) for n, event in enumerate(events, after + 1)]


class Driver:
    """Appends to a thread the way a driver does, and keeps the fold."""

    def __init__(self, journal: Journal, claim: Claim, state: ThreadState | None = None) -> None:
        self.journal = journal
        self.claim = claim
        self.state = state or ThreadState()
        self.is_stored = True

    async def append(
        self, events: Sequence[RecordedEvent], consumed: Sequence[int] = ()
    ) -> list[RecordedEvent]:
        before, state, entries = standing_of(self.state), self.state, []
        final: dict[str, ThreadState] = {}
        for event in events:
            event = replace(event, seq=state.seq + 1, at=float(state.seq + 2))
            state = apply(state, event)
            entries.append(Envelope(event, event.seq))
            if isinstance(event, TerminalEvent):
                final[event.run_id] = state
        events, projection = recorded(entries), None
        if entries:
            projection = project(events, before, state, final, is_stored=self.is_stored)
        await self.journal.append(Batch(self.claim, entries, consumed, projection))
        self.state = state
        return events


async def make(journal: Journal, id: str = "thread_1", **fields: object) -> Driver:
    driver = Driver(journal, await journal.create(thread(id, **fields)))
    driver.is_stored = bool(fields.get("store", True))
    return driver


async def run_of_key(
    journal: Journal, thread_id: str, key: str, *, inbox: bool = True
) -> str | None:
    sent = await journal.sent(thread_id, key, inbox=inbox)
    return sent.run_id if sent is not None else None
