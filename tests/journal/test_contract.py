"""The contract of journals; each test runs against every adapter."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.domain.fold import BACK, BACK_DONE, BACK_QUIET, BACK_QUIET_DONE, TOLD, TOLD_QUIETLY
from tests.journal.story import (
    Driver,
    conversation,
    make,
    numbered,
    run_of_key,
    thread,
    with_jobs,
)

from treadle.actors.fork import fork_of, seed_of
from treadle.domain.entries import (
    AddEntry,
    ApprovalEntry,
    CancelEntry,
    DenialEntry,
    OutputEntry,
    SendEntry,
)
from treadle.domain.envelope import Envelope, recorded
from treadle.domain.events import (
    Awaited,
    ItemsAdded,
    MessageAdded,
    RecordedEvent,
    RunCancelled,
    RunCancelling,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
    StepCompleted,
    ThreadUpdated,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
    UnknownEvent,
)
from treadle.domain.fold import apply
from treadle.domain.ids import new_id
from treadle.domain.items import FunctionCall, FunctionCallOutput, user_message
from treadle.domain.limits import Limits
from treadle.domain.options import RunOptions
from treadle.domain.schedules import Schedule
from treadle.domain.spending import SLOT, Spending
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import (
    InvalidInput,
    JournalClosed,
    JournalError,
    JournalTooNew,
    StaleWriter,
    ThreadNotFound,
)
from treadle.journal.base import (
    Batch,
    CallQuery,
    ChangeQuery,
    Due,
    Fork,
    Journal,
    ThreadOrder,
    ThreadQuery,
    WaitingCall,
    Work,
)
from treadle.journal.projection import UNUSED, Projection, RunError, RunRecord, Sent

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


async def test_what_was_appended_can_be_read(journal: Journal) -> None:
    driver = await make(journal)
    events = await driver.append(conversation())
    assert await journal.read("thread_1", after=0) == events
    assert await journal.read("thread_1", after=2, limit=2) == events[2:4]
    assert await journal.read("thread_1", after=2, until=5) == events[2:5]
    assert await journal.read("thread_1", after=7) == []
    assert await journal.load("thread_1") == driver.state
    assert await journal.load("thread_1", at=4) == fold(events[:4])
    assert await journal.load("thread_1", at=0) == ThreadState()


def fold(events: list[RecordedEvent]) -> ThreadState:
    state = ThreadState()
    for event in events:
        state = apply(state, event)
    return state


async def test_a_read_ends_with_its_thread(journal: Journal) -> None:
    """The events of other threads are stored right before and after."""
    drivers = [await make(journal, f"thread_{n}") for n in range(4)]
    for driver in drivers:
        await driver.append(conversation())
    for id in ("thread_0", "thread_1", "thread_3"):
        assert len(await journal.read(id, after=-1)) == 7
        for beyond in (8, 1 << 32, 1 << 33, 1 << 70):
            assert len(await journal.read(id, after=0, until=beyond)) == 7
            assert await journal.read(id, after=beyond) == []
            assert await journal.read(id, after=beyond, until=beyond) == []
        assert await journal.load(id, at=1 << 33) == await journal.load(id)


async def test_many_entries_are_consumed_at_once(journal: Journal) -> None:
    driver = await make(journal)
    await asyncio.gather(
        *(journal.enqueue("thread_1", CancelEntry(f"run_{n}")) for n in range(2000))
    )
    numbers = [waiting.number for waiting in await journal.inbox("thread_1")]
    assert numbers == sorted(set(numbers))
    await driver.append(conversation(), [*numbers[:-1], *range(10**6, 10**6 + 40_000)])
    (left,) = await journal.inbox("thread_1")
    assert left.number == numbers[-1]


async def test_what_was_asked_before_closing_is_answered(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append([e for n in range(60) for e in conversation(f"run_{n}")])
    loads = [asyncio.create_task(journal.load("thread_1")) for _ in range(8)]
    given_up = asyncio.create_task(journal.load("thread_1"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(journal.close(), journal.close())
    assert all(state == driver.state for state in await asyncio.gather(*loads))
    await journal.open()
    assert await journal.load("thread_1") == driver.state


async def test_shared_memories_are_found_and_not_listed(journal: Journal) -> None:
    await make(journal)
    await make(journal, "memory_1", memory="style", owner="ann", agent="")
    assert [info.id for info in await journal.threads(ThreadQuery(limit=9))] == ["thread_1"]
    assert await journal.threads(ThreadQuery(limit=9, owner="ann")) == []
    info = await journal.info("memory_1")
    assert (info.memory, info.owner, info.agent) == ("style", "ann", "")
    await make(journal, "memory_0", memory="notes", owner="bob", agent="")
    await make(journal, "memory_2", memory="notes", owner="ann", agent="")
    query = ThreadQuery(memories=True, order="created", limit=2)
    first = await journal.threads(query)
    last = await journal.threads(replace(query, after=first.next))
    names = [(info.owner, info.memory) for info in (*first, *last)]
    assert names == [("ann", "style"), ("bob", "notes"), ("ann", "notes")]
    assert last.next == ""
    of_ann = await journal.threads(replace(query, owner="ann"))
    assert [info.memory for info in of_ann] == ["style", "notes"]
    with pytest.raises(JournalError):
        await make(journal, "memory_1", memory="style")


async def test_a_thread_is_created_with_its_first_events(journal: Journal) -> None:
    start = (await journal.changes(ChangeQuery(after=""))).position
    items = [
        user_message("What is in stock?"),
        FunctionCall("c1", "look", "{}", "fc_1"),
        FunctionCallOutput("c1", "3 lamps", id="fco_1"),
    ]
    seed = seed_of("thread_1", items, "ann")
    claim = await journal.create(thread(), seed.entries, seed.projection)
    events = await journal.read("thread_1", after=0)
    assert events == recorded(seed.entries)
    assert [event.type for event in events] == ["message.added", "items.added"]
    assert await journal.load("thread_1") == seed.state
    info = await journal.info("thread_1")
    assert (info.title, info.status) == ("What is in stock?", None)
    assert await journal.runs("thread_1") == []
    assert await told(journal, start) == ["1 thread.created"]
    (mark,) = await journal.marks(owner=None)
    assert (mark.number, mark.seq) == (claim.number, 2)
    # Its claim appends behind them; a thread with an id that is taken changes nothing.
    driver = Driver(journal, claim, seed.state)
    await driver.append(conversation())
    other = seed_of("thread_1", [user_message("Another one.")], "")
    with pytest.raises(JournalError):
        await journal.create(thread(), other.entries, other.projection)
    assert await journal.load("thread_1") == driver.state
    assert (await journal.info("thread_1")).title == "What is in stock?"
    await journal.snapshot(claim, driver.state)
    assert await journal.load("thread_1") == driver.state


async def test_a_journal_that_drives_is_driven(journal: Journal) -> None:
    assert await journal.is_driven()


async def test_an_older_claim_is_refused_and_leaves_nothing(journal: Journal) -> None:
    driver = await make(journal)
    events = await driver.append(conversation()[:2])
    newer = Driver(journal, await journal.claim("thread_1"), driver.state)
    assert newer.claim.number == driver.claim.number
    assert newer.claim.epoch > driver.claim.epoch
    with pytest.raises(StaleWriter):
        await driver.append(conversation()[2:])
    assert await journal.read("thread_1", after=0) == events
    await newer.append(conversation()[2:])
    assert len(await journal.read("thread_1", after=0)) == 7


async def test_a_refused_append_does_not_touch_others(journal: Journal) -> None:
    old, other = await make(journal), await make(journal, "thread_2")
    await journal.claim("thread_1")
    results = await asyncio.gather(
        old.append(conversation()), other.append(conversation()), return_exceptions=True
    )
    assert isinstance(results[0], StaleWriter)
    assert await journal.read("thread_1", after=0) == []
    assert len(await journal.read("thread_2", after=0)) == 7


async def test_an_append_to_a_deleted_thread_is_refused(journal: Journal) -> None:
    driver = await make(journal)
    await journal.delete("thread_1")
    with pytest.raises(StaleWriter):
        await driver.append(conversation())


async def test_an_append_right_behind_the_deletion_is_refused(journal: Journal) -> None:
    driver = await make(journal)
    outcomes = await asyncio.gather(
        journal.delete("thread_1"), driver.append(conversation()), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [bool, StaleWriter]
    assert await journal.unfinished() == []


async def test_what_is_asked_in_one_turn_happens_in_its_order(journal: Journal) -> None:
    driver = await make(journal)
    batch = Batch(driver.claim, [Envelope(e, e.seq) for e in numbered(conversation())])
    nothing = Projection(None, 1.0, "", ())
    outcomes = await asyncio.gather(
        journal.append(batch),
        journal.fork(Fork("thread_1", 7, thread("thread_2"), (), nothing)),
        journal.claim("thread_1"),
        driver.append(conversation()),
        journal.delete("thread_1"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[3], StaleWriter)
    assert outcomes[4] is True
    assert len(await journal.read("thread_2", after=0)) == 7
    with pytest.raises(ThreadNotFound):
        await journal.info("thread_1")


async def test_appends_of_one_turn_keep_their_order(journal: Journal) -> None:
    drivers = [await make(journal, f"thread_{n}") for n in range(20)]

    async def talk(driver: Driver) -> None:
        for n in range(20):
            await driver.append(conversation(f"run_{n}", f"question {n}"))

    await asyncio.gather(*(talk(driver) for driver in drivers))
    for number, driver in enumerate(drivers):
        assert await journal.load(f"thread_{number}") == driver.state
        runs = await journal.runs(f"thread_{number}")
        assert len(runs) == 20


async def test_a_message_waits_once_however_often_it_is_enqueued(journal: Journal) -> None:
    driver = await make(journal)
    first = SendEntry("run_1", user_message("one"), key="k")
    for entry in (first, SendEntry("run_2", user_message("one"), key="k")):
        await journal.enqueue("thread_1", entry)
    await journal.enqueue("thread_1", SendEntry("run_3", user_message("no key")))
    await journal.enqueue("thread_1", SendEntry("run_4", user_message("no key")))
    entries = [waiting.entry for waiting in await journal.inbox("thread_1")]
    assert [i.run_id for i in entries if isinstance(i, SendEntry)] == ["run_1", "run_3", "run_4"]
    assert await run_of_key(journal, "thread_1", "k") == "run_1"
    assert await run_of_key(journal, "thread_1", "k", inbox=False) is None
    assert await run_of_key(journal, "thread_1", "") is None
    await driver.append(conversation(key="l"))
    await journal.enqueue("thread_1", SendEntry("run_5", user_message("hi"), key="l"))
    assert await run_of_key(journal, "thread_1", "l", inbox=False) == "run_1"
    assert len(await journal.inbox("thread_1")) == 3


async def test_the_key_of_added_items_is_known_while_they_wait_and_afterwards(
    journal: Journal,
) -> None:
    driver, second = await make(journal), await make(journal, "thread_2")
    items = (user_message("hi"),)
    for digest in ("d1", "d1", "d2"):
        await journal.enqueue("thread_1", AddEntry(items, "k", digest))
    (waiting,) = await journal.inbox("thread_1")
    assert await journal.sent("thread_1", "k") == Sent("", "d1")
    assert await journal.sent("thread_1", "k", inbox=False) is None
    added = [
        MessageAdded(run_id="", item=items[0], origin="user"),
        ItemsAdded(key="k", digest="d1"),
    ]
    await driver.append(added, consumed=[waiting.number])
    assert await journal.inbox("thread_1") == []
    for inbox in (True, False):
        assert await journal.sent("thread_1", "k", inbox=inbox) == Sent("", "d1")
        assert await journal.sent("thread_2", "k", inbox=inbox) is None
    await journal.enqueue("thread_1", AddEntry(items, "k", "d1"))
    assert await journal.inbox("thread_1") == []
    await second.append([ItemsAdded(items=items)])  # without a key, none is kept
    assert await journal.sent("thread_2", "") is None
    await journal.delete("thread_1")
    await make(journal)
    assert await journal.sent("thread_1", "k") is None


async def test_one_answer_to_a_call_waits(journal: Journal) -> None:
    driver = await make(journal)
    entries = [DenialEntry("c"), ApprovalEntry("c"), OutputEntry("c", "x"), OutputEntry("d", "y")]
    await asyncio.gather(*(journal.enqueue("thread_1", entry) for entry in entries))
    waiting = await journal.inbox("thread_1")
    assert sorted(getattr(one.entry, "call_id", "") for one in waiting) == ["c", "d"]
    await driver.append(conversation(), [one.number for one in waiting])
    await journal.enqueue("thread_1", ApprovalEntry("c"))
    assert [one.entry for one in await journal.inbox("thread_1")] == [ApprovalEntry("c")]


async def test_a_consumed_entry_leaves_the_inbox_with_its_events(journal: Journal) -> None:
    driver = await make(journal)
    entries = [SendEntry("run_1", user_message("hi")), CancelEntry("run_1"), ApprovalEntry("c")]
    for one in entries:
        await journal.enqueue("thread_1", one)
    waiting = await journal.inbox("thread_1")
    assert [one.entry for one in waiting] == entries
    assert await journal.waiting_threads() == ["thread_1"]
    await driver.append(conversation(), [waiting[0].number, waiting[2].number])
    assert [one.entry for one in await journal.inbox("thread_1")] == [entries[1]]
    await driver.append([], [waiting[1].number])
    assert await journal.inbox("thread_1") == []
    assert await journal.waiting_threads() == []


async def test_a_refused_append_consumes_nothing(journal: Journal) -> None:
    driver = await make(journal)
    await journal.enqueue("thread_1", CancelEntry("run_1"))
    await journal.claim("thread_1")
    (waiting,) = await journal.inbox("thread_1")
    with pytest.raises(StaleWriter):
        await driver.append(conversation(), [waiting.number])
    assert await journal.inbox("thread_1") == [waiting]


async def test_runs_keys_titles_and_statuses(journal: Journal) -> None:
    driver = await make(journal, owner="ann", metadata={"x": [1, None]}, forked_from="thread_0")
    info = await journal.info("thread_1")
    assert info == thread(owner="ann", metadata={"x": [1, None]}, forked_from="thread_0")
    await driver.append(conversation(text="first\nquestion " * 10, key="k")[:3])
    info = await journal.info("thread_1")
    assert (info.status, info.title[:16], len(info.title)) == (
        "in_progress",
        "first question f",
        80,
    )
    queued = RunQueued(run_id="run_2", item=user_message("two"), agent="b", key="k2")
    await driver.append([queued])
    first, second = await journal.runs("thread_1")
    assert first == RunRecord(
        id="run_1",
        thread_id="thread_1",
        agent="a",
        agent_hash="h",
        status="in_progress",
        seq=2,
        first_seq=2,
        message_id=first.message_id,
        started_at=3.0,
    )
    assert second == RunRecord(
        id="run_2",
        thread_id="thread_1",
        agent="b",
        seq=4,
        message_id=queued.item.id,
        queued_at=5.0,
    )
    await driver.append(conversation(text="x" * 10)[3:])
    assert (await journal.info("thread_1")).status == "queued"
    await driver.append(conversation("run_2", "two", "k2"))
    used = {"steps": 1, "usage": Usage(3, 2, requests=1), "stop_reason": "end_turn"}
    assert await journal.run("thread_1", "run_1") == replace(
        first, status="completed", last_seq=8, ended_at=9.0, **used
    )
    begun = {"agent": "a", "agent_hash": "h", "first_seq": 10, "started_at": 11.0}
    assert await journal.run("thread_1", "run_2") == replace(
        second, status="completed", last_seq=15, ended_at=16.0,
        message_id=(await journal.run("thread_1", "run_2")).message_id, **begun, **used,
    )  # fmt: skip
    assert await journal.run("thread_1", "run_3") is None
    assert await run_of_key(journal, "thread_1", "k") == "run_1"
    assert await run_of_key(journal, "thread_1", "k2") == "run_2"
    assert await run_of_key(journal, "thread_1", "") is None
    assert await run_of_key(journal, "thread_1", "k3") is None
    after = await journal.info("thread_1")
    assert (after.status, after.title, after.updated_at) == ("completed", info.title, 16.0)


async def test_a_key_belongs_to_its_thread(journal: Journal) -> None:
    one, _ = await make(journal), await make(journal, "thread_2")
    await one.append(conversation(key="k"))
    assert await run_of_key(journal, "thread_2", "k") is None


async def test_the_unfinished_are_found(journal: Journal) -> None:
    drivers = [await make(journal, f"thread_{n}") for n in range(3)]
    await drivers[0].append(conversation())
    await drivers[1].append(conversation()[:3])
    found = await journal.unfinished()
    assert [(one.thread_id, one.status) for one in found] == [("thread_1", "in_progress")]


def scheduled(id: str, at: float, **fields: Any) -> ScheduleCreated:
    return ScheduleCreated(schedule=Schedule(id=id, item=user_message("x"), due_at=at, **fields))


async def test_due_times_are_found_in_their_order(journal: Journal) -> None:
    one, two = await make(journal, owner="ann"), await make(journal, "thread_2")
    asks = ToolCallRequested(run_id="run_1", item=FunctionCall("c1", "f", "{}"), awaits="output")
    waits = RunRequiresAction(run_id="run_1", call_ids=("c1",), expires_at=30.0)
    await one.append([scheduled("s1", 20.0), scheduled("s2", 10.0, cron="* * * * *", tz="UTC")])
    await two.append([*conversation()[:3], asks, waits, scheduled("s3", 20.0)])

    async def found(**filters: Any) -> list[tuple[str, str, float]]:
        return [
            (due.thread_id, due.id or due.kind, due.at)
            for due in await journal.due(limit=9, **filters)
        ]

    everything = [
        ("thread_1", "s2", 10.0),
        ("thread_1", "s1", 20.0),
        ("thread_2", "s3", 20.0),
        ("thread_2", "approval", 30.0),
    ]
    assert await found() == everything
    assert await found(kind="schedule") == everything[:3]
    assert await found(kind="schedule", owner="ann") == everything[:2]
    page: list[Due] = []
    while due := await journal.due(limit=1, after=page[-1].place if page else None):
        page += due
    assert [(due.thread_id, due.id or due.kind, due.at) for due in page] == everything
    assert page[0].schedule == one.state.schedules["s2"]

    output = FunctionCallOutput("c1", "done")
    await two.append([ToolOutputRecorded(run_id="run_1", item=output, name="f")])
    fired = ScheduleFired(run_id="run_9", schedule_id="s2", due_at=10.0, next_at=25.0)
    await one.append([fired, ScheduleFired(run_id="run_8", schedule_id="s1", due_at=20.0)])
    assert await found() == [("thread_2", "s3", 20.0), ("thread_1", "s2", 25.0)]
    sent = await journal.sent("thread_1", "s1")
    assert sent is not None  # so that its key makes no second one
    assert sent.run_id == "run_8"
    assert await journal.sent("thread_1", "s2") is None
    await journal.delete("thread_1")
    await two.append([ScheduleCancelled(schedule_id="s3")])
    assert await found() == []


async def test_spending_is_counted_by_owners_and_slots(journal: Journal) -> None:
    ann = [await make(journal, id, owner="ann") for id in ("thread_1", "thread_2")]
    bob = await make(journal, "thread_3", owner="bob")

    [event] = numbered(conversation()[:1])
    entries = [Envelope(event, 1)]
    spent_by_ann = {10: Spending(5, 0.5), 11: Spending(1, 0.25)}
    await asyncio.gather(
        journal.append(Batch(ann[0].claim, entries, spending=spent_by_ann)),
        journal.append(Batch(ann[1].claim, entries, spending={10: Spending(2, 0.125)})),
        journal.append(Batch(bob.claim, entries, spending={10: Spending(100, 7.0)})),
    )
    await journal.append(Batch(ann[0].claim, [], spending={11: Spending(3, 0.5)}))
    await journal.claim("thread_2")
    with pytest.raises(StaleWriter):
        await journal.append(Batch(ann[1].claim, [], spending={10: Spending(9, 9.0)}))

    async def spent(owner: str, first: int, end: int) -> Spending:
        return await journal.spending(owner, since=first * SLOT, until=end * SLOT)

    for id in ("", "thread_1", "thread_2", "thread_3"):  # it stays when they are deleted
        if id:
            await journal.delete(id)
        assert await spent("ann", 10, 11) == Spending(7, 0.625)
        assert await spent("ann", 10, 12) == Spending(11, 1.375)
        assert await spent("ann", 12, 99) == await spent("", 0, 99) == Spending()
        assert await spent("bob", 0, 99) == Spending(100, 7.0)


async def test_a_fork_has_no_due_times_of_its_own(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append([scheduled("s1", 20.0)])
    await journal.fork(fork_of(driver.state, await journal.info("thread_1"), []))
    assert [due.thread_id for due in await journal.due(limit=9)] == ["thread_1"]


async def test_threads_with_open_jobs_are_found_until_the_last_end_is_announced(
    journal: Journal,
) -> None:
    driver = await make(journal)

    async def found() -> list[tuple[str | None, int]]:
        return [(one.status, one.jobs) for one in await journal.unfinished()]

    asked, started, *rest, completed = with_jobs()
    await driver.append([asked, started])
    for event in rest:
        await driver.append([event])
        assert await found() == [("in_progress", len(driver.state.jobs))]
    await driver.append([completed])
    assert await found() == [("completed", 2)]
    await driver.append([BACK_QUIET_DONE])
    assert await found() == [("completed", 1)]
    await driver.append([BACK_DONE])
    assert await found() == [("completed", 1)]  # the end of the first is not announced
    await driver.append([TOLD])
    assert await found() == []
    await driver.append([TOLD_QUIETLY])
    assert await found() == []
    assert await journal.load("thread_1") == driver.state


async def test_jobs_of_one_append_are_counted_at_its_end(journal: Journal) -> None:
    driver, other = await make(journal), await make(journal, "thread_2")
    await asyncio.gather(
        driver.append([*with_jobs(), BACK_QUIET_DONE]),
        other.append([*with_jobs(), BACK_QUIET_DONE, BACK_DONE, TOLD]),
    )
    assert [(one.thread_id, one.jobs) for one in await journal.unfinished()] == [("thread_1", 1)]


async def test_the_jobs_of_a_fork_are_its_own(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append([*conversation()[:2], BACK, BACK_QUIET])
    settled = [replace(BACK_QUIET_DONE, seq=5, at=9.0), replace(BACK_DONE, seq=6, at=9.0)]
    entries = [Envelope(event, event.seq) for event in settled]
    for id, count, jobs in (("thread_2", 2, 1), ("thread_3", 0, 0)):
        rows = Projection("completed", 5.0, "title", (), jobs=jobs)
        await journal.fork(Fork("thread_1", 4, thread(id), entries[:count], rows))
    assert [(one.thread_id, one.jobs) for one in await journal.unfinished()] == [
        ("thread_1", 2),
        ("thread_2", 1),
    ]
    assert list((await journal.load("thread_3")).jobs) == ["job_3", "job_5"]
    assert [told.wakes for told in (await journal.load("thread_2")).announced] == [False, True]


async def test_threads_come_in_pages_the_newest_first(journal: Journal) -> None:
    for n in range(5):
        await make(journal, f"thread_{n}", owner="ann" if n % 2 else "bob", updated_at=float(n))
    assert await ids(journal) == [f"thread_{n}" for n in (4, 3, 2, 1, 0)]
    first = await journal.threads(ThreadQuery(limit=2))
    second = await journal.threads(ThreadQuery(limit=2, after=first.next))
    last = await journal.threads(ThreadQuery(limit=2, after=second.next))
    assert [[one.id[-1] for one in page] for page in (first, second, last)] == [
        ["4", "3"],
        ["2", "1"],
        ["0"],
    ]
    assert last.next == ""
    assert await ids(journal, owner="ann") == ["thread_3", "thread_1"]
    assert await ids(journal, owner="") == []
    assert await ids(journal, limit=0) == []
    for wrong in ("thread_9", "é", "a" * 5000, first.next[:-3], "bnVsbA", "WzFd"):
        with pytest.raises(InvalidInput, match="not a cursor"):
            await journal.threads(ThreadQuery(after=wrong))
    with pytest.raises(InvalidInput, match="not a cursor"):
        await journal.threads(ThreadQuery(after=first.next, order="updated"))


async def ids(journal: Journal, **query: object) -> list[str]:
    """The ids of the threads that a query finds, all pages of three."""
    found: list[str] = []
    after = ""
    values: dict[str, object] = {"limit": 3, **query}
    while True:
        page = await journal.threads(ThreadQuery(after=after, **values))  # type: ignore[arg-type]
        assert len(page) <= 3
        found += [info.id for info in page]
        after = page.next
        if not after:
            return found


async def test_a_cursor_survives_moves_and_deletions(journal: Journal) -> None:
    drivers = [
        await make(journal, f"thread_{n}", created_at=float(n), updated_at=float(n))
        for n in range(6)
    ]
    pages: dict[ThreadOrder, str] = {}
    for order in ("-updated", "updated", "-created", "created"):
        page = await journal.threads(ThreadQuery(limit=3, order=order))
        assert {info.id for info in page} == {f"thread_{n}" for n in SEEN[order]}
        pages[order] = page.next
    # The thread at which a page ended moves and is deleted, and so are others.
    await drivers[3].append(conversation())
    await drivers[0].append(conversation())
    await journal.delete("thread_2")
    rest = {
        order: [
            info.id[-1]
            for info in await journal.threads(ThreadQuery(limit=9, order=order, after=after))
        ]
        for order, after in pages.items()
    }
    assert rest == {
        "-updated": ["1"],  # 0 has moved to the front
        "updated": ["4", "5", "0", "3"],  # 0 comes again, since it is used again
        "-created": ["1", "0"],
        "created": ["3", "4", "5"],
    }


SEEN: dict[ThreadOrder, tuple[int, ...]] = {
    "-updated": (5, 4, 3),
    "updated": (0, 1, 2),
    "-created": (5, 4, 3),
    "created": (0, 1, 2),
}


async def test_threads_with_a_time_in_common_are_listed_once(journal: Journal) -> None:
    for n in range(10):
        await make(journal, f"thread_{n}", metadata={"odd": n % 2 == 1})
    for order in ("updated", "created"):
        assert await ids(journal, order=order) == [f"thread_{n}" for n in range(10)]
        assert await ids(journal, order=f"-{order}") == [f"thread_{n}" for n in range(9, -1, -1)]
        assert await ids(journal, order=order, metadata={"odd": True}) == [
            f"thread_{n}" for n in range(1, 10, 2)
        ]


METADATA: list[dict[str, object]] = [
    {},
    {"ticket": "T-1"},
    {"ticket": "T-1", "n": 1},
    {"ticket": "T-2", "n": 1.5, "deep": {"b": [1, None], "a": "é"}},
    {"ticket": None, "long": "x" * 5000},
    {"": "", "a.b": 'say "hi"\n', "nul": "\0"},
]


async def test_threads_are_filtered(journal: Journal) -> None:
    drivers: list[Driver] = []
    for n, metadata in enumerate(METADATA):
        fields = {"owner": "ann" if n % 2 else "bob", "agent": "b" if n > 3 else "a"}
        drivers.append(await make(journal, f"thread_{n}", metadata=metadata, **fields))
    for n, metadata in enumerate(METADATA):
        wanted = [m for m, other in enumerate(METADATA) if metadata.items() <= other.items()]
        assert await ids(journal, metadata=metadata, order="created") == [
            f"thread_{m}" for m in wanted
        ]
        for owner, rest in (("ann", 1), ("bob", 0)):
            assert await ids(journal, metadata=metadata, owner=owner, order="created") == [
                f"thread_{m}" for m in wanted if m % 2 == rest
            ]
        assert f"thread_{n}" in await ids(journal, metadata=metadata)
    assert await ids(journal, metadata={"n": 1.0}) == []
    assert await ids(journal, metadata={"deep": {"a": "é", "b": [1, None]}}) == ["thread_3"]
    assert await ids(journal, agent="b") == ["thread_5", "thread_4"]
    assert await ids(journal, agent="c") == []
    await drivers[4].append(conversation())
    await drivers[1].append(conversation()[:4])
    assert await ids(journal, status=["completed"]) == ["thread_4"]
    assert await ids(journal, status=["completed", "in_progress"], owner="ann") == ["thread_1"]
    assert await ids(journal, status=["in_progress"], agent="b") == []
    await journal.delete("thread_1")
    assert await ids(journal, metadata={"ticket": "T-1"}) == ["thread_2"]


async def test_the_work_for_other_threads_is_listed_with_them(journal: Journal) -> None:
    work = Work("thread_0", "run_1", "call_1", 1, Limits())
    await make(journal, "thread_0", owner="ann")
    await make(journal, "thread_1", owner="ann", work=work, metadata={"a": 1})
    for query in ({}, {"owner": "ann"}, {"metadata": {"a": 1}}, {"status": []}):
        for order in ("-updated", "created"):
            listed = await ids(journal, order=order, **query)
            assert listed == ([] if "metadata" in query else ["thread_0"])
            assert await ids(journal, order=order, parent="thread_0", **query) == ["thread_1"]
    assert await ids(journal, parent="thread_0", owner="bob") == []
    assert await ids(journal, parent="thread_1") == []


async def test_runs_come_in_pages(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append(conversation("run_5")[:2])
    for n in (4, 3, 2, 1, 0):
        await driver.append([RunQueued(run_id=f"run_{n}", item=user_message("x"), agent="a")])
    first = await journal.runs("thread_1", limit=3)
    assert [run.id for run in first] == ["run_5", "run_4", "run_3"]
    newest = await journal.runs("thread_1", limit=2, order="desc")
    assert [run.id for run in newest] == ["run_0", "run_1"]
    # The runs of the page end and begin; their places stay the same.
    await driver.append(conversation("run_5")[2:])
    await driver.append(conversation("run_4"))
    await driver.append(conversation("run_2")[:4])
    rest = await journal.runs("thread_1", limit=3, after=first.next)
    assert [run.id for run in rest] == ["run_2", "run_1", "run_0"]
    assert rest.next == ""
    older = await journal.runs("thread_1", limit=9, after=newest.next, order="desc")
    assert [run.id for run in older] == ["run_2", "run_3", "run_4", "run_5"]
    assert len(await journal.runs("thread_1")) == 6
    for wrong in (newest.next, "x"):
        with pytest.raises(InvalidInput, match="not a cursor"):
            await journal.runs("thread_1", after=wrong)


async def test_runs_are_open_until_they_end(journal: Journal) -> None:
    async def open_runs() -> list[tuple[str, str | None]]:
        runs = await journal.open_runs("thread_1")
        assert runs == [run for run in await journal.runs("thread_1") if run.id in dict(opened)]
        return [(run.id, run.status) for run in runs]

    driver = await make(journal)
    await (await make(journal, "thread_2")).append(conversation("run_9")[:2])
    await driver.append(conversation("run_5"))
    opened: list[tuple[str, str]] = []
    assert await open_runs() == opened
    await driver.append(conversation("run_4")[:2])
    for n in (3, 2, 1):
        await driver.append([RunQueued(run_id=f"run_{n}", item=user_message("x"), agent="a")])
    opened = [("run_4", "in_progress"), *((f"run_{n}", "queued") for n in (3, 2, 1))]
    assert await open_runs() == opened
    await driver.append([RunCancelled(run_id="run_2", usage=Usage())])
    await driver.append([RunCancelling(run_id="run_4")])
    opened = [("run_4", "cancelling"), ("run_3", "queued"), ("run_1", "queued")]
    assert await open_runs() == opened
    await driver.append([RunCancelled(run_id="run_4", usage=Usage())])
    opened = opened[1:]
    assert await open_runs() == opened  # no run is active, and the thread is not idle
    with pytest.raises(ThreadNotFound):
        await journal.open_runs("thread_0")


async def test_a_run_is_found_by_its_id(journal: Journal) -> None:
    first, second = await make(journal, owner="ann"), await make(journal, "thread_2", owner="bob")
    await first.append(conversation("run_1"))
    await second.append(conversation("run_2")[:3])
    found = await journal.find_run("run_1")
    assert found == await journal.run("thread_1", "run_1")
    assert found is not None
    assert (found.thread_id, found.status) == ("thread_1", "completed")
    assert await journal.find_run("run_1", owner="ann", thread_id="thread_1") == found
    for owner, thread_id in (("bob", ""), ("", ""), (None, "thread_2"), ("bob", "thread_1")):
        assert await journal.find_run("run_1", owner=owner, thread_id=thread_id) is None
    # Its message waits in the inbox, behind other entries.
    await journal.enqueue("thread_2", CancelEntry("run_3"))
    asked = SendEntry("run_3", user_message("hi"), agent="b")
    await journal.enqueue("thread_2", asked)
    waiting = await journal.find_run("run_3", owner="bob")
    assert waiting == RunRecord(
        id="run_3", thread_id="thread_2", agent="b", message_id=asked.item.id
    )
    assert await journal.find_run("run_3", owner="ann") is None
    assert await journal.find_run("run_3", thread_id="thread_1") is None
    assert await journal.run("thread_2", "run_3") is None
    # A copy has the same run; that of the older thread is returned while it exists.
    run = replace(found, thread_id="")
    projection = Projection("completed", 9.0, "", (run,))
    info = thread("thread_0", owner="ann")
    await journal.fork(Fork("thread_1", 7, info, (), projection))
    assert await journal.find_run("run_1") == found
    await journal.delete("thread_1")
    assert await journal.find_run("run_1") == replace(found, thread_id="thread_0")
    await journal.delete("thread_0")
    assert await journal.find_run("run_1") is None


def asking(run_id: str, *calls: str, awaits: Awaited = "approval") -> list[RecordedEvent]:
    """The beginning of a run that waits for answers to calls."""
    requested = [
        ToolCallRequested(
            run_id=run_id, item=FunctionCall(id, "pay", '{"euros": 5}'), index=n, awaits=awaits
        )
        for n, id in enumerate(calls)
    ]
    response = conversation(run_id)[4]
    waits = RunRequiresAction(run_id=run_id, call_ids=calls, expires_at=99.0)
    return [*conversation(run_id)[:3], *requested, response, waits]


def answer(run_id: str, call_id: str) -> ToolOutputRecorded:
    return ToolOutputRecorded(run_id=run_id, item=FunctionCallOutput(call_id, "done"), name="pay")


async def waiting(journal: Journal, **query: object) -> list[str]:
    """The ids of the calls that a query finds, all pages of two."""
    found: list[str] = []
    after = ""
    while True:
        page = await journal.calls(CallQuery(limit=2, after=after, **query))  # type: ignore[arg-type]
        found += [one.call.call_id for one in page]
        after = page.next
        if not after:
            return found


async def test_calls_that_wait_are_listed(journal: Journal) -> None:
    first = await make(journal, owner="ann")
    second = await make(journal, "thread_2", owner="bob")
    await first.append(asking("run_1", "call_1", "call_2"))
    await second.append(asking("run_2", "call_1", awaits="output"))
    assert await waiting(journal) == ["call_1", "call_1", "call_2"]
    (one, two) = await journal.calls(CallQuery(owner="ann"))
    assert one == WaitingCall(
        thread_id="thread_1",
        owner="ann",
        run_id="run_1",
        agent="a",
        call=FunctionCall("call_1", "pay", '{"euros": 5}'),
        awaits="approval",
        since=5.0,
        expires_at=99.0,
        seq=4,
    )
    assert (one.tool, one.arguments) == ("pay", {"euros": 5})
    assert two.since == 6.0
    assert await waiting(journal, thread_id="thread_2", agent="a") == ["call_1"]
    assert await waiting(journal, awaits="output") == ["call_1"]
    assert await waiting(journal, awaits="approval", owner="bob") == []
    assert await waiting(journal, agent="b") == []
    # The answer is on its way.
    await journal.enqueue("thread_1", CancelEntry("run_1"))
    await journal.enqueue("thread_1", ApprovalEntry("call_2"))
    assert await waiting(journal, owner="ann") == ["call_1"]
    (_, number) = [entry.number for entry in await journal.inbox("thread_1")]
    approved = ToolApproved(run_id="run_1", call_id="call_2")
    await first.append([approved], consumed=[number])
    assert await waiting(journal, owner="ann") == ["call_1"]
    await first.append([answer("run_1", "call_1")])
    assert await waiting(journal) == ["call_1"]
    with pytest.raises(InvalidInput, match="not a cursor"):
        await journal.calls(CallQuery(after="x"))
    await journal.delete("thread_2")
    assert await waiting(journal) == []


async def test_a_call_whose_run_ends_waits_no_more(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append(asking("run_1", "call_1"))
    assert await waiting(journal) == ["call_1"]
    cancelled = [answer("run_1", "call_1"), StepCompleted(run_id="run_1", step=1)]
    await driver.append([*cancelled, RunCancelled(run_id="run_1", usage=Usage())])
    assert await waiting(journal) == []
    # The provider uses the id again.
    await driver.append(asking("run_2", "call_1"))
    (call,) = await journal.calls(CallQuery())
    assert (call.run_id, call.seq) == ("run_2", 13)


async def test_a_run_that_waits_while_it_works_requires_action(journal: Journal) -> None:
    driver = await make(journal)
    *before, response, waits = asking("run_1", "call_1")
    look = ToolCallRequested(run_id="run_1", item=FunctionCall("call_2", "look", "{}"), index=1)

    async def statuses() -> tuple[str, str | None, str]:
        (run,) = await journal.runs("thread_1")
        found = await journal.find_run("run_1")
        assert found == run
        (one,) = await journal.unfinished()
        return run.status, (await journal.info("thread_1")).status, one.status

    await driver.append([*before, look, response])
    assert await statuses() == ("in_progress", "in_progress", "in_progress")
    await driver.append([waits])
    # The thread is resumed after a crash, because a call of it still works.
    assert await statuses() == ("requires_action", "in_progress", "in_progress")
    await driver.append([answer("run_1", "call_2")])
    assert await statuses() == ("requires_action", "requires_action", "requires_action")
    await driver.append([answer("run_1", "call_1")])
    assert await statuses() == ("in_progress", "in_progress", "in_progress")


async def test_a_thread_is_updated(journal: Journal) -> None:
    driver = await make(journal, metadata={"a": 1, "b": {"c": 2}}, owner="ann")
    await driver.append(conversation(text="hello"))
    await driver.append([ThreadUpdated(title="Named", metadata={"a": None, "d": "x"})])
    info = await journal.info("thread_1")
    assert (info.title, info.metadata) == ("Named", {"b": {"c": 2}, "d": "x"})
    assert info.updated_at == 9.0
    assert await ids(journal, metadata={"d": "x"}, agent="a") == ["thread_1"]
    assert await ids(journal, metadata={"a": 1}) == []
    await driver.append(conversation("run_2", "other"))
    assert (await journal.info("thread_1")).title == "Named"
    await driver.append([ThreadUpdated(title="")])
    await driver.append(conversation("run_3", "third"))
    assert (await journal.info("thread_1")).title == "third"


@pytest.mark.parametrize("every", [1, 2, 3, 7])
async def test_a_load_with_snapshots_is_the_fold(journal: Journal, every: int) -> None:
    driver = await make(journal)
    events = [e for n in range(6) for e in conversation(f"run_{n}", f"question {n}")]
    events += [*with_jobs(), BACK_DONE, TOLD, BACK_QUIET_DONE]
    for n, event in enumerate(events):
        await driver.append([event])
        if n % every == 0:
            await journal.snapshot(driver.claim, driver.state)
    await journal.snapshot(driver.claim, driver.state)
    await journal.snapshot(driver.claim, driver.state)
    stored = await journal.read("thread_1", after=0)
    assert await journal.load("thread_1") == driver.state
    for at in range(len(events) + 1):
        assert await journal.load("thread_1", at=at) == fold(stored[:at])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("snapshot"), st.integers(0, 12)),
        st.tuples(st.just("claim"), st.just(0)),
    ),
    max_size=20,
)


@settings(
    max_examples=25,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
    ],
)
@given(steps=STEPS)
async def test_whatever_was_snapshot_a_load_is_the_fold(
    journal: Journal, steps: list[tuple[str, int]]
) -> None:
    """Snapshots of the newest state and of older ones, in any pattern, over any claims."""
    id = new_id("thread")
    driver = await make(journal, id)
    told = iter([e for n in range(20) for e in conversation(f"run_{n}", f"question {n}")])
    states, stored, newest = [driver.state], list[RecordedEvent](), 0
    for what, count in steps:
        if what == "append":
            for event in itertools.islice(told, count):
                stored += await driver.append([event])
                states.append(driver.state)
        elif what == "snapshot":
            at = max(0, len(states) - 1 - count)
            await journal.snapshot(driver.claim, states[at])
            newest = max(newest, at)
        else:
            driver = Driver(journal, await journal.claim(id), driver.state)
    assert await journal.load(id) == states[-1]
    head = await journal.head(id)
    assert len(head.history) == len(states[-1].history)
    assert replace(head, history=states[-1].history) == states[-1]
    assert await journal.snapshot_seq(id) == newest
    for at, state in enumerate(states):
        assert await journal.load(id, at=at) == state
    assert fold(stored) == states[-1]


async def test_a_snapshot_by_an_older_claim_is_refused(journal: Journal) -> None:
    old, other = await make(journal), await make(journal, "thread_2")
    await old.append(conversation())
    ahead = fold(numbered(conversation()))
    await journal.claim("thread_1")
    await journal.delete("thread_2")
    for claim in (old.claim, other.claim):
        with pytest.raises(StaleWriter):
            await journal.snapshot(claim, ahead)
    await make(journal, "thread_2")
    assert await journal.load("thread_2") == ThreadState()


async def test_a_snapshot_ahead_of_the_events_is_refused(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append(conversation()[:3])
    await journal.snapshot(driver.claim, driver.state)
    with pytest.raises(JournalError, match="not kept"):
        await journal.snapshot(driver.claim, fold(numbered(conversation())))
    assert await journal.load("thread_1") == driver.state
    await driver.append(conversation()[3:])
    assert await journal.load("thread_1") == driver.state


@pytest.mark.parametrize("at", [0, 3, 7, 10, 14])
async def test_a_fork_is_a_copy_with_its_own_end(journal: Journal, at: int) -> None:
    driver = await make(journal)
    for n in range(2):
        await driver.append(conversation(f"run_{n}", f"question {n}", key=f"k{n}"))
        await journal.snapshot(driver.claim, driver.state)
    stored = await journal.read("thread_1", after=0)
    state = fold(stored[:at])
    run = RunRecord(
        id="run_0",
        agent="a",
        status="completed",
        seq=2,
        first_seq=2,
        last_seq=7,
        error=RunError("c", "m", True),
        stop_reason="failed",
        ended_at=2.5,
        usage=Usage(1),
        cost=0.25,
    )
    added = [RunQueued(seq=at + 1, at=1.0, run_id="run_9", item=user_message("x"), agent="a")]
    entries = [Envelope(event, event.seq) for event in added]
    await journal.fork(
        Fork(
            "thread_1",
            at,
            thread("thread_2", forked_from="thread_1"),
            entries,
            Projection("queued", 5.0, "title", (run,)),
        )
    )
    assert await journal.read("thread_2", after=0) == [*stored[:at], *added]
    assert await journal.load("thread_2") == apply(state, added[0])
    assert await journal.runs("thread_2") == [replace(run, thread_id="thread_2")]
    assert await run_of_key(journal, "thread_2", "k0") is None
    info = await journal.info("thread_2")
    assert (info.status, info.title, info.forked_from) == ("queued", "title", "thread_1")
    assert await journal.read("thread_1", after=0) == stored
    await journal.delete("thread_1")
    assert await journal.load("thread_2") == apply(state, added[0])


async def test_an_event_of_a_newer_version_keeps_its_number_and_its_json(journal: Journal) -> None:
    driver = await make(journal)
    events = await driver.append(conversation())
    raw = b'{"type":"tool.paused", "seq":8,"run_id":"r","at":2.0,"new":[1,{"a":"\xc3\xa9"}]}'
    unknown = UnknownEvent(seq=8, at=2.0, run_id="r", original_type="tool.paused", raw=raw)
    await journal.append(Batch(driver.claim, [Envelope(unknown, 8)], []))
    after = numbered(conversation("run_2"), 8)
    await journal.append(Batch(driver.claim, [Envelope(event, event.seq) for event in after], []))
    assert await journal.last_seq("thread_1") == 15
    assert await journal.read("thread_1", after=0) == [*events, unknown, *after]
    assert (await journal.stored("thread_1", after=7, limit=1)) == {8: raw}
    assert await journal.load("thread_1", at=7) == driver.state
    for at in (8, 12, None):
        with pytest.raises(JournalTooNew, match="'tool.paused'.*newer treadle") as caught:
            await journal.load("thread_1", at=at)
        assert not caught.value.retryable
    for id, at in (("thread_2", 9), ("thread_3", 7)):
        fork = Fork("thread_1", at, thread(id), [], Projection(None, 5.0, "", ()))
        await journal.fork(fork)
        assert await journal.last_seq(id) == at
    assert (await journal.stored("thread_2", after=7)).get(8) == raw
    assert await journal.load("thread_3") == driver.state


async def test_a_deleted_thread_leaves_nothing(journal: Journal) -> None:
    driver, other = await make(journal), await make(journal, "thread_2")
    for one in (driver, other):
        await one.append(conversation(key="k"))
        await journal.snapshot(one.claim, one.state)
    await journal.enqueue("thread_1", CancelEntry("run_1"))
    await journal.delete("thread_1")
    assert [info.id for info in await journal.threads(ThreadQuery(limit=9))] == ["thread_2"]
    assert await journal.waiting_threads() == []
    assert await journal.load("thread_2") == other.state
    again = await make(journal)
    assert await journal.load("thread_1") == ThreadState()
    assert await run_of_key(journal, "thread_1", "k") is None
    await again.append(conversation())


async def test_a_thread_that_does_not_exist(journal: Journal) -> None:
    nothing = Projection(None, 1.0, "", ())
    for asked in (
        journal.info("thread_9"),
        journal.claim("thread_9"),
        journal.load("thread_9"),
        journal.read("thread_9", after=0),
        journal.run("thread_9", "run_1"),
        journal.sent("thread_9", "k"),
        journal.runs("thread_9"),
        journal.enqueue("thread_9", CancelEntry("run_1")),
        journal.inbox("thread_9"),
        journal.delete("thread_9"),
        journal.fork(Fork("thread_9", 0, thread("thread_8"), (), nothing)),
    ):
        with pytest.raises(ThreadNotFound):
            await asked
    with pytest.raises(ThreadNotFound):
        await journal.info("thread_8")


async def test_closing_twice_and_use_after_closing(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append(conversation())
    await journal.close()
    await journal.close()
    with pytest.raises(JournalClosed):
        await driver.append([RunStarted(run_id="run_2", agent="a")])
    with pytest.raises(JournalClosed):
        await journal.info("thread_1")
    with pytest.raises(JournalClosed):
        await journal.claim("thread_1")


async def test_what_waits_when_it_is_closed_is_kept(journal: Journal) -> None:
    driver = await make(journal)
    appending = asyncio.create_task(driver.append(conversation()))
    await asyncio.sleep(0)
    await journal.close()
    await appending
    await journal.open()
    assert len(await journal.read("thread_1", after=0)) == 7


async def test_a_waiter_that_gives_up_does_not_stop_the_append(journal: Journal) -> None:
    driver = await make(journal)
    entries = [Envelope(e, e.seq) for e in numbered(conversation())]
    future = journal.append(Batch(driver.claim, entries))
    future.cancel()
    await make(journal, "thread_2")
    assert len(await journal.read("thread_1", after=0)) == 7


async def test_marks_are_the_last_events_of_threads(journal: Journal) -> None:
    first = await make(journal, "thread_1", owner="ann")
    await make(journal, "thread_2", owner="bob")
    work = Work("thread_1", "run_1", "call_1", 1, Limits())
    await make(journal, "thread_3", owner="ann", work=work)
    await make(journal, "memory_1", owner="ann", agent="", memory="notes")
    await first.append(conversation())
    marks = {mark.id: mark for mark in await journal.marks(owner=None)}
    assert {id: (mark.owner, mark.seq, mark.parent) for id, mark in marks.items()} == {
        "thread_1": ("ann", 7, ""),
        "thread_2": ("bob", 0, ""),
        "thread_3": ("ann", 0, "thread_1"),
        "memory_1": ("ann", 0, ""),
    }
    assert {mark.id for mark in await journal.marks(owner="ann")} == {
        "thread_1", "thread_3", "memory_1"
    }  # fmt: skip
    assert await journal.marks(owner="") == []
    await journal.delete("thread_1")
    again = await make(journal, "thread_1", owner="ann")
    await again.append(conversation()[:2])
    (mark,) = [mark for mark in await journal.marks(owner="ann") if mark.id == "thread_1"]
    assert mark.seq == 2
    assert mark.number > max(one.number for one in marks.values())


async def told(journal: Journal, after: str = "start", **query: object) -> list[str]:
    """Thread and type of what a desk gets after a position, in pages of two."""
    found: list[str] = []
    while True:
        page = await journal.changes(ChangeQuery(after=after, limit=2, **query))  # type: ignore[arg-type]
        assert len(page.events) <= 2
        found += [f"{one.thread_id[-1]} {one.type}" for one in page.events]
        after = page.position
        if page.is_end:
            return found


async def test_a_desk_gets_the_events_of_all_threads(journal: Journal) -> None:
    start = (await journal.changes(ChangeQuery(after=""))).position
    first = await make(journal, owner="ann")
    second = await make(journal, "thread_2", owner="bob")
    await first.append(conversation())
    await second.append(asking("run_2", "call_1"))
    middle = (await journal.changes(ChangeQuery(after=""))).position
    await second.append([ToolApproved(run_id="run_2", call_id="call_1")])
    await second.append([answer("run_2", "call_1")])
    await first.append([ThreadUpdated(title="x")])
    everything = [
        "1 thread.created",
        "2 thread.created",
        "1 run.started",
        "1 run.completed",
        "2 run.started",
        "2 tool.requested",
        "2 run.requires_action",
        "2 tool.approved",
        "1 thread.updated",
    ]
    assert await told(journal) == await told(journal, start) == everything
    assert await told(journal, middle) == everything[7:]
    assert await told(journal, owner="ann") == [one for one in everything if one[0] == "1"]
    ends = await told(journal, types=["run.completed", "thread.updated"])
    assert ends == ["1 run.completed", "1 thread.updated"]
    assert await told(journal, owner="bob", types=["run.completed"]) == []
    page = await journal.changes(ChangeQuery(after="start", types=["run.started"]))
    (one, _) = page.events
    assert one.event == (await journal.read("thread_1", after=1, limit=1))[0]
    assert await told(journal, one.position) == everything[3:]
    for wrong in ("x", "-1", "9" * 30, "1.5", str(10**6), "²"):
        with pytest.raises(InvalidInput, match="not a position of this desk"):
            await journal.changes(ChangeQuery(after=wrong))
    # A deleted thread leaves nothing but its end, and no position is used again.
    await journal.delete("thread_1")
    end = (await journal.changes(ChangeQuery(after=""))).position
    assert await told(journal, middle) == ["2 tool.approved", "1 thread.deleted"]
    assert await told(journal, middle, owner="ann") == ["1 thread.deleted"]
    assert await told(journal, middle, owner="bob") == ["2 tool.approved"]
    await make(journal, owner="eve")
    assert await told(journal, end) == ["1 thread.created"]


async def test_of_a_copy_only_what_is_new_is_told(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append(conversation())
    after = (await journal.changes(ChangeQuery(after=""))).position
    fork = Fork("thread_1", 7, thread("thread_2"), (), Projection("completed", 9.0, "", ()))
    await journal.fork(fork)
    assert await told(journal, after) == ["2 thread.created"]


async def test_of_a_batch_that_is_refused_nothing_is_told(journal: Journal) -> None:
    driver = await make(journal)
    await driver.append(conversation()[:2])
    after = (await journal.changes(ChangeQuery(after=""))).position
    newer = Driver(journal, await journal.claim("thread_1"), driver.state)
    with pytest.raises(StaleWriter):
        await driver.append([RunCancelling(run_id="run_1")])
    await newer.append([RunCancelling(run_id="run_1")])
    assert await told(journal, after) == ["1 run.cancelling"]


async def test_readers_miss_nothing_while_writers_commit(journal: Journal) -> None:
    drivers = [await make(journal, f"thread_{n}") for n in range(8)]

    async def write(driver: Driver) -> None:
        for n in range(20):
            await driver.append(conversation(f"run_{n}"))

    writing = asyncio.gather(*(write(driver) for driver in drivers))
    seen: list[tuple[str, int]] = []
    position = "start"
    while True:
        was_done = writing.done()
        page = await journal.changes(
            ChangeQuery(after=position, limit=7, types=["run.started", "run.completed"])
        )
        seen += [(one.thread_id, one.event.seq) for one in page.events]  # type: ignore[union-attr]
        position = page.position
        if page.is_end and was_done:
            break
        await asyncio.sleep(0)
    await writing
    assert len(seen) == len(set(seen)) == 8 * 20 * 2
    for n in range(8):
        numbers = [seq for id, seq in seen if id == f"thread_{n}"]
        assert numbers == sorted(numbers)


async def deletions(journal: Journal) -> list[tuple[str, str, float]]:
    due = await journal.due(limit=9, kind="deletion")
    return [(one.thread_id, one.id, one.at) for one in due]


async def test_when_threads_are_to_be_deleted(journal: Journal) -> None:
    driver = await make(journal, expires_at=50.0)
    await make(journal, "thread_2", store=False)
    info = [await journal.info(id) for id in ("thread_1", "thread_2")]
    assert [(one.expires_at, one.store) for one in info] == [(50.0, True), (None, False)]
    assert await deletions(journal) == [("thread_1", "", 50.0), ("thread_2", UNUSED, 601.0)]
    await driver.append([ThreadUpdated(expires_at=70.0), ThreadUpdated(title="x")])
    assert await deletions(journal) == [("thread_1", "", 70.0), ("thread_2", UNUSED, 601.0)]
    fork = fork_of(driver.state, await journal.info("thread_1"), [])
    await journal.fork(fork)
    await driver.append([ThreadUpdated(expires_at="never")])
    assert (await journal.info("thread_1")).expires_at is None
    assert (await journal.info(fork.info.id)).expires_at == 70.0
    assert await deletions(journal) == [(fork.info.id, "", 70.0), ("thread_2", UNUSED, 601.0)]


async def test_a_thread_that_is_not_stored_is_kept_while_it_is_used(journal: Journal) -> None:
    driver = await make(journal, store=False)
    asked, started, *rest = conversation()
    await driver.append([asked, started])
    assert await deletions(journal) == []
    running = await journal.load("thread_1")
    copy = fork_of(running, await journal.info("thread_1"), [])
    await driver.append(rest)
    assert await deletions(journal) == [("thread_1", UNUSED, 608.0)]
    await driver.append([scheduled("s1", 20.0)])
    assert await deletions(journal) == []
    await driver.append([ScheduleCancelled(schedule_id="s1")])
    assert await deletions(journal) == [("thread_1", UNUSED, 610.0)]
    await journal.fork(copy)
    assert copy.info.id in {id for id, _, _ in await deletions(journal)}
    queued = RunQueued(run_id="run_9", item=user_message("x"), agent="a")
    busy = fork_of(driver.state, await journal.info("thread_1"), [], then=queued)
    await journal.fork(busy)
    assert busy.info.id not in {id for id, _, _ in await deletions(journal)}


async def test_what_is_due_is_deleted_and_nothing_else(journal: Journal) -> None:
    driver = await make(journal, store=False)
    [due] = await journal.due(limit=9)
    await driver.append(conversation())
    assert not await journal.delete("thread_1", due=due)  # it was used since
    [due] = await journal.due(limit=9)
    message = SendEntry(run_id="run_2", item=user_message("x"))
    await journal.enqueue("thread_1", message)
    assert not await journal.delete("thread_1", due=due)
    await journal.discard([one.number for one in await journal.inbox("thread_1")])
    assert await journal.delete("thread_1", due=due)
    with pytest.raises(ThreadNotFound):
        await journal.delete("thread_1", due=due)
    assert await journal.due(limit=9) == []


async def test_the_metadata_of_a_run(journal: Journal) -> None:
    driver = await make(journal)
    options = RunOptions(metadata={"ticket": "T-1"})
    asked, started, *rest = conversation()
    assert isinstance(started, RunStarted)
    message = user_message("hi")
    await driver.append([RunQueued(run_id="run_1", item=message, agent="a", options=options)])
    [run] = await journal.runs("thread_1")
    assert run.metadata == {"ticket": "T-1"}
    await driver.append([asked, replace(started, options=options), *rest])
    await driver.append(conversation("run_2"))
    assert [run.metadata for run in await journal.runs("thread_1")] == [{"ticket": "T-1"}, {}]
    entry = SendEntry(run_id="run_3", item=message, options=options)
    await journal.enqueue("thread_1", entry)
    waiting = await journal.find_run("run_3")
    assert waiting is not None
    assert waiting.metadata == {"ticket": "T-1"}
