"""What other agents do for a thread, read in another process: nothing of it is lost.

A reader counts as attached once its first wait has ended; it may take its events much later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.bus.directory import Directory, Place

from treadle.actors.following import Following
from treadle.bus import follower_connection, network, node_link
from treadle.bus.base import Bus
from treadle.bus.local import LocalBus
from treadle.bus.network import NetworkBus
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.bus.topic import Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    Event,
    RecordedEvent,
    RunCompleted,
    RunFinishing,
    StepStarted,
    TextDelta,
)
from treadle.domain.usage import Usage
from treadle.journal.base import Journal
from treadle.journal.projection import RunRecord
from treadle.testing import run

THREADS = ("t0", "t1", "t2")


class Database:
    """The events of all threads, as the journal gives them to any process."""

    def __init__(self) -> None:
        self.events: dict[str, list[RecordedEvent]] = {id: [] for id in THREADS}

    async def last_seq(self, thread_id: str) -> int:
        await asyncio.sleep(0)
        return len(self.events[thread_id])

    async def runs(self, thread_id: str) -> list[RunRecord]:
        return []

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        await asyncio.sleep(0)
        return self.events[thread_id][after:until][:3]


class Driving:
    """The node that drives all threads; an agent works for each of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.topics = {id: Topic() for id in THREADS}
        self.done: dict[str, list[int]] = {id: [] for id in THREADS}
        for id in THREADS:
            self.record(id, lambda seq: StepStarted(seq=seq, run_id="r", step=1, model="m"))

    def drives(self, thread_id: str) -> bool:
        return thread_id in self.topics

    def ring(self, thread_id: str) -> None: ...

    def subscribe(self, thread_id: str, after: Position) -> Subscription:
        return watch(self.database, thread_id, after, self.open)

    async def open(self, thread_id: str) -> Topic:
        return self.topics[thread_id]

    def record(self, thread_id: str, make: Callable[[int], RecordedEvent]) -> None:
        event = make(len(self.database.events[thread_id]) + 1)
        self.database.events[thread_id].append(event)
        self.topics[thread_id].publish(Envelope(event, event.seq))

    def work(self, thread_id: str, *, writes: bool) -> None:
        """The agent writes, or does something that no text tells."""
        done = self.done[thread_id]
        event: Event = TextDelta("item", "<>")
        if not writes:
            done.append(len(done) + 1)
            event = RunFinishing(seq=done[-1], run_id="agent")
        self.topics[thread_id].publish_live(AgentEvent("call", "agent", f"of {thread_id}", event))


def watch(
    database: Database,
    thread_id: str,
    after: Position,
    topic: Callable[[str], Awaitable[Topic]],
) -> Subscription:
    async def open() -> Topic:
        return await topic(thread_id)

    async def read(after: int, until: int) -> list[RecordedEvent]:
        return await database.read(thread_id, after=after, until=until)

    return Subscription(open, read, after)


async def read_to_end(subscription: Subscription) -> list[int]:
    """Returns what the agent did, as the reader saw it."""
    seen: list[int] = []
    async for event in subscription:
        if isinstance(event, AgentEvent) and isinstance(event.event, RunFinishing):
            seen.append(event.event.seq)
        if isinstance(event, RunCompleted):
            break
    await subscription.aclose()
    return seen


def break_connections(bus: Bus) -> None:
    """Cuts the connections to other nodes, with what is under way in them."""
    for _, link in getattr(bus, "_links", {}).values():
        if link._writer is not None:
            link._writer.transport.abort()


ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["watch", "watch all", "work", "work", "write", "write", "record", "leave", "break"]
        ),
        st.sampled_from(THREADS),
        st.integers(0, 6),
    ),
    max_size=40,
)


async def play(make_bus: Callable[[], Bus], acts: Sequence[tuple[str, str, int]]) -> None:
    database = Database()
    driving, serving = Driving(database), make_bus()
    await serving.serve(driving)
    bus = make_bus()
    polls = not bus.announces
    following = Following(cast("Journal", database), bus, polls=polls, on_unwatched=lambda _: None)
    bus.listen(following)
    readers: list[tuple[str, int, Subscription]] = []

    async def attach(thread_id: str, after: Position) -> None:
        subscription = watch(database, thread_id, after, following.topic)
        await subscription.wait()
        readers.append((thread_id, len(driving.done[thread_id]), subscription))

    for what, thread_id, turns in acts:
        match what:
            case "watch":
                await attach(thread_id, Position(len(database.events[thread_id])))
            case "watch all":
                await attach(thread_id, Position(0))
            case "leave" if readers:
                _, _, subscription = readers.pop(turns % len(readers))
                await subscription.aclose()
            case "break":
                break_connections(bus)
            case "record":
                driving.record(thread_id, lambda seq: RunFinishing(seq=seq, run_id="r"))
            case _:
                driving.work(thread_id, writes=what == "write")
        for _ in range(turns):
            await asyncio.sleep(0)
    for id in THREADS:
        driving.record(
            id,
            lambda seq: RunCompleted(seq=seq, run_id="r", stop_reason="end_turn", usage=Usage()),
        )
    for thread_id, known, subscription in readers:
        async with asyncio.timeout(20):
            seen = await read_to_end(subscription)
        assert seen == sorted(set(seen))
        due = driving.done[thread_id][known:]
        assert seen[len(seen) - len(due) :] == due
    await following.stop()
    await bus.close()
    await serving.close()


@settings(max_examples=100)
@given(ACTS)
def test_nothing_is_lost_through_the_bus_of_a_process(acts: Sequence[tuple[str, str, int]]) -> None:
    class Key: ...

    key = Key()
    run(play(lambda: LocalBus(key), acts))


@pytest.mark.real_clock
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS)
@example([("watch", "t0", 6), ("work", "t0", 0), ("break", "t0", 0), ("work", "t0", 0)])
@example(
    [("watch", "t0", 6), ("write", "t0", 0), ("work", "t0", 0), ("write", "t0", 0)] * 2
    + [("break", "t0", 0)] * 2
)
def test_nothing_is_lost_over_the_network(
    monkeypatch: pytest.MonkeyPatch, acts: Sequence[tuple[str, str, int]]
) -> None:
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(follower_connection, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(node_link, "MAX_FAILURES", 100)  # the node can be reached
    place = Place()
    asyncio.run(play(lambda: NetworkBus(Directory(place, *THREADS)), acts))
