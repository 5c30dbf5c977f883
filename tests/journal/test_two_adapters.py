"""The contract of journals with two adapters on one database: each is fenced by the other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.journal.story import Driver, conversation, make, run_of_key, thread
from tests.postgres import pooler, server

from treadle.domain.entries import CancelEntry, SendEntry
from treadle.domain.events import PassageRemoved, RecordedEvent
from treadle.domain.items import user_message
from treadle.domain.state import ThreadState
from treadle.errors import JournalError, StaleWriter, ThreadNotFound
from treadle.journal.base import Batch, ChangeQuery, Claim, Journal
from treadle.journal.memory import MemoryJournal
from treadle.journal.postgres import PostgresJournal
from treadle.journal.sql_writes import Transactions
from treadle.journal.sqlite import SqliteJournal

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

Pair = tuple[Journal, Journal]


OTHER_WAY = ", the other way round"
NAMES = ("sqlite", f"sqlite{OTHER_WAY}")
POSTGRES = [
    pytest.param(name, marks=pytest.mark.needs("postgres"))
    for name in ("postgres", f"postgres{OTHER_WAY}")
]
POOLED = pytest.param(f"pooled{OTHER_WAY}", marks=pytest.mark.needs("pgbouncer"))


@pytest.fixture(params=["memory", *NAMES, *POSTGRES, POOLED])
async def pair(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Pair]:
    """Two adapters on one database; in SQL one of them holds the lock of the driver.

    In memory the object is the database: two runtimes share it and open it twice.
    """
    one: Journal
    two: Journal
    if request.param == "memory":
        one = two = MemoryJournal()
    elif request.param.startswith("sqlite"):
        one, two = SqliteJournal(path), SqliteJournal(path, drive=False)
    else:
        url = server().url()
        behind = pooler().url() if request.param.startswith("pooled") else ""
        one = PostgresJournal(url, pooler=behind)
        two = PostgresJournal(url, pooler=behind, drive=False)
    for journal in (one, two):
        await journal.open()
    yield (two, one) if request.param.endswith(OTHER_WAY) else (one, two)
    for journal in (two, one):
        await journal.close()


async def test_what_one_appends_the_other_reads(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await driver.append(conversation())
    await one.snapshot(driver.claim, driver.state)
    await driver.append(conversation("run_2"))
    assert await two.load("thread_1") == driver.state
    assert await two.load("thread_1", at=9) == await one.load("thread_1", at=9)
    assert await two.runs("thread_1") == await one.runs("thread_1")
    assert await two.info("thread_1") == await one.info("thread_1")
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


async def test_of_appends_at_once_only_those_without_a_valid_claim_fail(pair: Pair) -> None:
    one, two = pair
    threads = [await make(one, f"thread_{n}") for n in range(6)]
    taken, deleted = 1, 4
    for lost in ({taken}, {taken, deleted}):
        if deleted in lost:
            await two.delete(f"thread_{deleted}")
        else:
            await two.claim(f"thread_{taken}")
        done = await asyncio.gather(
            *(driver.append(conversation()) for driver in threads), return_exceptions=True
        )
        assert {n for n, result in enumerate(done) if isinstance(result, StaleWriter)} == lost
    assert sorted((mark.id, mark.seq) for mark in await two.marks(owner=None)) == [
        (f"thread_{n}", 0 if n == taken else 14) for n in range(6) if n != deleted
    ]


async def test_a_deletion_is_noticed_by_a_group_without_other_lost_claims(pair: Pair) -> None:
    one, two = pair
    kept, gone = await make(one), await make(one, "thread_2")
    await two.delete("thread_2")
    done = await asyncio.gather(
        *(driver.append(conversation()[:2]) for driver in (kept, gone)), return_exceptions=True
    )
    assert [type(result) for result in done] == [list, StaleWriter]
    await two.create(thread("thread_2"))
    assert await one.load("thread_2") == ThreadState()
    assert await one.load("thread_1") == kept.state


async def test_an_entry_is_not_consumed_by_an_older_claim(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await two.enqueue("thread_1", CancelEntry("run_1"))
    (waiting,) = await one.inbox("thread_1")
    await two.claim("thread_1")
    with pytest.raises(StaleWriter):
        await one.append(Batch(driver.claim, [], [waiting.number]))
    assert await two.inbox("thread_1") == [waiting]


async def test_a_claim_between_two_queued_appends_fences_the_second(pair: Pair) -> None:
    """In any order of commits, the new claim finds each append that succeeded."""
    one, two = pair
    threads = [await make(one, f"thread_{n}") for n in range(8)]

    async def write(driver: Driver) -> int:
        for n, event in enumerate(conversation()):
            try:
                await driver.append([event])
            except StaleWriter:
                return n
        return 7

    written = [asyncio.create_task(write(driver)) for driver in threads]
    await asyncio.sleep(0)
    claims = await asyncio.gather(*(two.claim(f"thread_{n}") for n in range(8)))
    states = [await two.load(f"thread_{n}") for n in range(8)]
    assert [state.seq for state in states] == await asyncio.gather(*written)
    for claim, state in zip(claims, states, strict=True):
        await Driver(two, claim, state).append([PassageRemoved(run_id="", passage_id="p")])


@pytest.mark.parametrize("length", [1, 300])
async def test_a_batch_of_any_length_is_fenced_whole(pair: Pair, length: int) -> None:
    """A long one needs several statements."""
    one, two = pair
    driver, other = await make(one), await make(one, "thread_2")
    await two.claim("thread_1")
    events = [PassageRemoved(run_id="", passage_id=f"p{n}") for n in range(length)]
    lost, kept = await asyncio.gather(
        driver.append(events), other.append(events), return_exceptions=True
    )
    assert isinstance(lost, StaleWriter)
    assert await two.read("thread_1", after=0) == []
    assert await two.read("thread_2", after=0, limit=length + 1) == kept


async def test_a_thread_that_the_other_adapter_deleted_refuses_all(pair: Pair) -> None:
    one, two = pair
    driver = await make(one)
    await two.delete("thread_1")
    for _ in range(2):
        with pytest.raises(StaleWriter):
            await driver.append(conversation())
        with pytest.raises(StaleWriter):
            await one.snapshot(driver.claim, ThreadState())
        with pytest.raises(ThreadNotFound):
            await one.load("thread_1")
    await make(two)  # the same id, another thread
    with pytest.raises(StaleWriter):
        await driver.append(conversation())
    assert await one.read("thread_1", after=0) == []


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
    runs: list[str] = []
    for n in range(20):
        senders = enumerate((one, two, one, two) if n % 2 else (two, one, two, one))
        message, key = user_message("hi"), f"k{n}"
        await asyncio.gather(
            *(
                journal.enqueue("thread_1", SendEntry(f"run_{n}.{m}", message, key=key))
                for m, journal in senders
            )
        )
        promised = await run_of_key(one, "thread_1", key)
        assert promised is not None
        assert await run_of_key(two, "thread_1", key) == promised
        runs.append(promised)
    waiting = [entry.entry for entry in await two.inbox("thread_1")]
    assert [entry.run_id for entry in waiting if isinstance(entry, SendEntry)] == runs


async def test_entries_of_both_adapters_are_consumed_once_and_in_order(pair: Pair) -> None:
    """A reader between two commits may not miss the one that becomes visible later."""
    one, two = pair
    driver = await make(one)

    async def send(journal: Journal, name: str) -> None:
        for n in range(30):
            await journal.enqueue("thread_1", CancelEntry(f"{name}.{n}"))

    sent = asyncio.gather(send(one, "one"), send(two, "two"))
    taken: list[str] = []
    while not sent.done() or await one.inbox("thread_1"):
        waiting = await one.inbox("thread_1")
        taken += [each.entry.run_id for each in waiting if isinstance(each.entry, CancelEntry)]
        await driver.append([], [each.number for each in waiting])
        await asyncio.sleep(0)  # a journal in memory never waits
    await sent
    for name in ("one", "two"):
        assert [id for id in taken if id.startswith(name)] == [f"{name}.{n}" for n in range(30)]
    assert await two.inbox("thread_1") == []


async def test_one_of_two_creates_a_thread(pair: Pair) -> None:
    one, two = pair
    done = await asyncio.gather(one.create(thread()), two.create(thread()), return_exceptions=True)
    assert sorted(isinstance(result, JournalError) for result in done) == [False, True]
    (refused,) = [result for result in done if isinstance(result, JournalError)]
    assert str(refused) == "The thread 'thread_1' already exists; use another id."
    (claim,) = [result for result in done if isinstance(result, Claim)]
    await Driver(one, claim).append(conversation())
    assert len(await two.read("thread_1", after=0)) == 7


async def test_drivers_that_fight_for_a_thread_leave_no_gap_and_no_repeat(pair: Pair) -> None:
    await make(pair[0])
    kept: list[RecordedEvent] = []
    refused = 0
    both = asyncio.Barrier(2)

    async def fight(journal: Journal, name: str) -> None:
        nonlocal refused
        for n in range(15):
            claim = await journal.claim("thread_1")
            if n == 0:
                await both.wait()  # so that one is refused, however they are scheduled later
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


class HeldCommits:
    """Lets the appends to one thread be written, and keeps them from being committed.

    It stands in the transaction of any SQL adapter. Where the database has one writer, the others
    wait for it; where it has several, they commit meanwhile. In memory nothing can be held.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._number = 0
        self.written, self.released = threading.Event(), threading.Event()
        append = Transactions._append  # type: ignore[reportPrivateUsage]

        def held(transactions: Transactions, batches: Sequence[Batch]) -> None:
            append(transactions, batches)
            if any(batch.claim.number == self._number for batch in batches):
                self.written.set()
                assert self.released.wait(10)

        monkeypatch.setattr(Transactions, "_append", held)

    async def append(
        self, driver: Driver, events: Sequence[RecordedEvent]
    ) -> asyncio.Future[list[RecordedEvent]]:
        """Begins to append, and returns once the events are written, or were committed."""
        self._number = driver.claim.number
        self.written.clear()
        self.released.clear()
        appending = asyncio.ensure_future(driver.append(events))
        written = asyncio.ensure_future(asyncio.to_thread(self.written.wait, 10))
        await asyncio.wait([written, appending], return_when=asyncio.FIRST_COMPLETED)
        self.written.set()  # nothing waits for it any more
        await written
        return appending


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldCommits:
    return HeldCommits(monkeypatch)


@pytest.mark.parametrize("owner", [None, "ann"])
async def test_a_desk_misses_nothing_if_writers_commit_in_the_opposite_order(
    pair: Pair, held: HeldCommits, owner: str | None
) -> None:
    """What is written first may be committed last; no position leads past it."""
    one, two = pair
    first, second = await make(one, owner="ann"), await make(two, "thread_2", owner="ann")
    positions = [(await two.changes(ChangeQuery(after="", owner=owner))).position] * 2
    seen: list[list[str]] = [[], []]

    async def read() -> None:
        """Both readers continue, one of them through the adapter that is held."""
        for n, journal in enumerate((one, two)):
            page = await journal.changes(
                ChangeQuery(after=positions[n], owner=owner, types=["run.started"])
            )
            seen[n] += [event.event.run_id for event in page.events]  # type: ignore[union-attr]
            positions[n] = page.position

    for n in range(3):
        late = await held.append(first, conversation(f"run_{n}"))
        early = asyncio.ensure_future(second.append(conversation(f"run_{n} early")))
        await read()
        await asyncio.wait([early], timeout=0.1)
        await read()
        held.released.set()
        await asyncio.gather(late, early)
        await read()
        await read()
    for runs in seen:
        assert sorted(runs) == [f"run_{n}{when}" for n in range(3) for when in ("", " early")]


async def test_every_adapter_sees_that_the_threads_are_driven(pair: Pair) -> None:
    assert [await journal.is_driven() for journal in pair] == [True, True]


async def test_a_desk_misses_nothing_of_a_writer_that_commits_last(pair: Pair) -> None:
    """Of two writers the one that began first may commit last; its events come all the same."""
    one, two = pair
    drivers = [await make(one), await make(two, "thread_2")]
    seen: list[tuple[str, int]] = []
    position = "start"

    async def read() -> None:
        nonlocal position
        page = await two.changes(ChangeQuery(after=position, types=["run.started"]))
        seen.extend((event.thread_id, event.event.seq) for event in page.events)  # type: ignore[union-attr]
        position = page.position

    for n in range(30):
        appends = [
            asyncio.ensure_future(driver.append(conversation(f"run_{n}")))
            for driver in (drivers if n % 2 else drivers[::-1])
        ]
        while not all(append.done() for append in appends):
            await read()
            await asyncio.sleep(0)
        await asyncio.gather(*appends)
    await read()
    assert len(seen) == len(set(seen)) == 60
