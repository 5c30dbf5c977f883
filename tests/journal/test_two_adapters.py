"""The contract of journals with two adapters on one database: each is fenced by the other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.journal.story import Driver, conversation, make, thread

from treadle.domain.entries import CancelEntry, SendEntry
from treadle.domain.events import PassageRemoved, RecordedEvent
from treadle.domain.items import user_message
from treadle.domain.state import ThreadState
from treadle.errors import JournalError, StaleWriter, ThreadNotFound
from treadle.journal.base import Batch, Claim, Journal
from treadle.journal.memory import MemoryJournal
from treadle.journal.sqlite import SqliteJournal

pytestmark = pytest.mark.anyio

Pair = tuple[Journal, Journal]


class MemoryView(MemoryJournal):
    """A second adapter on the memory of another."""

    def __init__(self, other: MemoryJournal) -> None:
        super().__init__()
        self.__dict__.update({**other.__dict__, **_own(self)})


def _own(view: MemoryJournal) -> dict[str, object]:
    """What belongs to the adapter, and not to the memory behind it."""
    return {name: view.__dict__[name] for name in ("_opened", "_is_new")}


@pytest.fixture(params=["memory", "sqlite"])
async def pair(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Pair]:
    """Two adapters on one database; in SQLite one of them holds the lock of the driver."""
    one: Journal
    if request.param == "memory":
        one = memory = MemoryJournal()
        two: Journal = MemoryView(memory)
    else:
        one, two = SqliteJournal(path), SqliteJournal(path, drive=False)
    for journal in (one, two):
        await journal.open()
    yield one, two
    for journal in (two, one):
        await journal.close()


async def test_what_one_appends_the_other_reads(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await driver.append(conversation())
    assert await two.load("thread_1") == driver.state
    assert await two.read("thread_1", after=0) == await one.read("thread_1", after=0)


async def test_a_claim_through_the_other_adapter_ends_a_driver(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    *begun, last = conversation()
    await driver.append(begun)
    claim = await two.claim("thread_1")
    for _ in range(2):
        with pytest.raises(StaleWriter):
            await driver.append([last])
    assert len(await one.read("thread_1", after=0)) == len(begun)
    assert [run.status for run in await two.runs("thread_1")] == ["in_progress"]
    heir = Driver(two, claim, await two.load("thread_1"))
    await heir.append([last])
    assert await one.load("thread_1") == heir.state


async def test_of_appends_at_once_only_those_of_older_claims_fail(pair: Pair) -> None:
    one, two = pair
    threads = [await make(one, f"thread_{n}") for n in range(6)]
    lost = {1, 4}
    for n in lost:
        await two.claim(f"thread_{n}")
    done = await asyncio.gather(
        *(driver.append(conversation()) for driver in threads), return_exceptions=True
    )
    assert {n for n, result in enumerate(done) if isinstance(result, StaleWriter)} == lost
    for n in range(6):
        assert len(await two.read(f"thread_{n}", after=0)) == (0 if n in lost else 7)


async def test_an_input_is_not_consumed_by_an_older_claim(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await two.enqueue("thread_1", CancelEntry("run_1"))
    (waiting,) = await one.inbox("thread_1")
    await two.claim("thread_1")
    with pytest.raises(StaleWriter):
        await one.append(Batch(driver.claim, [], [waiting.number]))
    assert await two.inbox("thread_1") == [waiting]


async def test_a_thread_that_the_other_adapter_deleted_takes_nothing(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await two.delete("thread_1")
    with pytest.raises(StaleWriter):
        await driver.append(conversation())
    with pytest.raises(StaleWriter):
        await one.snapshot(driver.claim, ThreadState())
    with pytest.raises(ThreadNotFound):
        await one.load("thread_1")


async def test_a_snapshot_of_an_older_claim_is_refused(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await driver.append(conversation())
    await two.claim("thread_1")
    with pytest.raises(StaleWriter):
        await one.snapshot(driver.claim, driver.state)


async def test_two_senders_of_one_key_promise_one_run(pair: Pair) -> None:
    one, two = pair
    await make(one)
    for n in range(20):
        key = f"k{n}"
        await asyncio.gather(
            *(
                journal.enqueue("thread_1", SendEntry(f"run_{n}", user_message("hi"), key=key))
                for journal in (one, two, one, two)
            )
        )
        assert await one.run_of_key("thread_1", key) == f"run_{n}"
    assert len(await two.inbox("thread_1")) == 20


async def test_one_of_two_creates_a_thread(pair: Pair) -> None:
    one, two = pair
    done = await asyncio.gather(one.create(thread()), two.create(thread()), return_exceptions=True)
    assert sorted(isinstance(result, JournalError) for result in done) == [False, True]


async def test_drivers_that_fight_for_a_thread_leave_no_gap_and_no_repeat(pair: Pair) -> None:
    await make(pair[0])
    kept: list[RecordedEvent] = []
    refused = 0

    async def fight(journal: Journal, name: str) -> None:
        nonlocal refused
        for n in range(15):
            claim = await journal.claim("thread_1")
            driver = Driver(journal, claim, await journal.load("thread_1"))
            for m in range(7):
                try:
                    event = PassageRemoved(run_id="", passage_id=f"{name}{n}.{m}")
                    kept.extend(await driver.append([event]))
                    await asyncio.sleep(0)  # the other one may take the thread at any moment
                except StaleWriter:
                    refused += 1
                    break

    await asyncio.gather(fight(pair[0], "a"), fight(pair[1], "b"))
    events = await pair[0].read("thread_1", after=0, limit=1000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sorted(kept, key=lambda event: event.seq) == events
    assert refused
    with pytest.raises(StaleWriter):
        await pair[1].append(Batch(Claim(1, 1), [], []))
