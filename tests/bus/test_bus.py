"""The contract of buses between nodes, run on every adapter."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from tests.bus.directory import Directory, Place

from treadle.bus.base import Bus
from treadle.bus.local import LocalBus
from treadle.bus.network import NetworkBus
from treadle.bus.position import Position
from treadle.bus.socket import SocketBus
from treadle.bus.subscription import Subscription
from treadle.bus.topic import Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import RecordedEvent, RunFinishing, TextDelta, UnknownEvent

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    """Sockets live in real time."""
    return "asyncio"


class Serving:
    """A node that drives the thread `t`."""

    def __init__(self) -> None:
        self.topic = Topic()
        self.journal: list[RecordedEvent] = []
        self.rung: list[str] = []
        self.was_rung = asyncio.Event()

    def drives(self, thread_id: str) -> bool:
        return thread_id == "t"

    def subscribe(self, thread_id: str, after: Position) -> Subscription:
        assert thread_id == "t"

        async def open_topic() -> Topic:
            return self.topic

        async def read(after: int, until: int) -> list[RecordedEvent]:
            return self.journal[after:until]

        return Subscription(open_topic, read, after)

    def ring(self, thread_id: str) -> None:
        self.rung.append(thread_id)
        self.was_rung.set()

    def record(self) -> None:
        event = RunFinishing(run_id="r", seq=len(self.journal) + 1, at=1.0)
        self.journal.append(event)
        self.topic.publish(Envelope(event, event.seq))

    def say(self, text: str) -> None:
        self.topic.publish_live(TextDelta("item", text))


MakeBus = Callable[[], Bus]


@pytest.fixture(params=["local", "socket", "network"])
async def make_bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeBus]:
    class Key: ...

    key, place, buses = Key(), Place(), list[Bus]()

    def make() -> Bus:
        match request.param:
            case "local":
                bus: Bus = LocalBus(key)
            case "socket":
                bus = SocketBus(tmp_path / "treadle.db")
            case _:
                bus = NetworkBus(Directory(place, "t"))
        buses.append(bus)
        return bus

    yield make
    for bus in buses:
        await bus.close()
        await bus.close()


@pytest.fixture
async def served(make_bus: MakeBus) -> tuple[Serving, Bus]:
    node, bus = Serving(), make_bus()
    await bus.serve(node)
    return node, bus


class Followed:
    """What a process notes of the announcements of others; it watches `t`."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.was_told = asyncio.Event()

    def watches(self, thread_id: str) -> bool:
        return thread_id == "t"

    def waiting(self) -> dict[str, int]:
        return {}

    def follow(self, thread_id: str) -> None:
        self.threads.append(thread_id)
        self.was_told.set()


async def next_of(events: AsyncIterator[Envelope], count: int) -> list[Envelope]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


async def until(events: AsyncIterator[Envelope], seq: int) -> list[Envelope]:
    """Returns the events up to the durable event `seq`; deltas may have been joined."""
    found: list[Envelope] = []
    while not (found and (found[-1].seq, found[-1].n) == (seq, 0)):
        found += await next_of(events, 1)
    return found


async def unwatched(node: Serving) -> None:
    """Returns once no one watches the thread any more."""
    while node.topic.is_watched:  # noqa: ASYNC110 - a topic has no event for it
        await asyncio.sleep(0.001)


def said(envelopes: list[Envelope]) -> str:
    return "".join(one.event.delta for one in envelopes if isinstance(one.event, TextDelta))


async def test_events_arrive_with_their_places(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    node, _ = served
    node.record()
    events = make_bus().follow("t", Position(0))
    (first,) = await next_of(events, 1)
    assert (first.seq, first.event) == (1, node.journal[0])
    node.say("a")
    node.say("b")
    node.record()
    later = await until(events, 2)
    assert [(one.seq, one.n) for one in later][-2:] == [(1, 2), (2, 0)]
    assert said(later) == "ab"
    await events.aclose()


class NewDelta(msgspec.Struct, tag="new.delta"):
    """A live event of a newer version."""


async def test_events_of_a_newer_version(served: tuple[Serving, Bus], make_bus: MakeBus) -> None:
    node, bus = served
    node.record()
    events = make_bus().follow("t", Position(0))
    (first,) = await next_of(events, 1)
    node.say("a")
    if not isinstance(bus, LocalBus):
        node.topic.publish_live(NewDelta())  # type: ignore[arg-type]
    node.say("b")
    raw = b'{"type":"tool.paused","seq":2,"at":1.0,"run_id":"r","new":[1]}'
    unknown = UnknownEvent(seq=2, at=1.0, run_id="r", original_type="tool.paused", raw=raw)
    node.journal.append(unknown)
    node.topic.publish(Envelope(unknown, 2))
    node.record()
    later = await until(events, 3)
    assert said(later) == "ab"  # the live one is left out
    assert [(one.seq, one.event, one.json) for one in later[-2:]] == [
        (2, unknown, raw),
        (3, node.journal[2], msgspec.json.encode(node.journal[2])),
    ]
    assert first.event == node.journal[0]
    await events.aclose()


async def test_a_follower_that_comes_back_within_an_item_misses_and_repeats_nothing(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    node, _ = served
    node.record()
    text, after = "", Position(0)
    for piece in "abcdefgh":
        events = make_bus().follow("t", after)
        node.say(piece)
        while not text.endswith(piece):
            (one,) = await next_of(events, 1)
            text += said([one])
            after = Position(one.seq, one.n)
        await events.aclose()
    assert text == "abcdefgh"


async def test_events_are_delivered_until_no_more_are_wanted(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    node, _ = served
    for _ in range(3):
        node.record()
    taken: list[int] = []

    def take(envelope: Envelope) -> bool:
        taken.append(envelope.seq)
        return envelope.seq < 2

    async with asyncio.timeout(10):
        await make_bus().deliver("t", Position(0), take)
        assert taken == [1, 2]
        await unwatched(node)


async def test_what_a_delivery_raises_ends_it_alone(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    node, _ = served
    node.record()
    bus = make_bus()
    events = bus.follow("t", Position(0))
    await next_of(events, 1)

    def take(envelope: Envelope) -> bool:
        raise LookupError("of this reader")

    async with asyncio.timeout(10):
        with pytest.raises(LookupError, match="of this reader"):
            await bus.deliver("t", Position(0), take)
    node.record()
    assert [one.seq for one in await next_of(events, 1)] == [2]
    await events.aclose()


async def test_a_delivery_ends_with_its_task_and_with_its_node(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    node, bus = served
    node.record()
    other, taken, came = make_bus(), list[Envelope](), asyncio.Event()

    def take(envelope: Envelope) -> bool:
        taken.append(envelope)
        came.set()
        return True

    async with asyncio.timeout(10):
        left = asyncio.create_task(other.deliver("t", Position(0), take))
        await came.wait()
        left.cancel()
        await asyncio.wait([left])
        await unwatched(node)
        came.clear()
        stays = asyncio.create_task(other.deliver("t", Position(0), take))
        await came.wait()
        await bus.close()
        node.topic.close()
        await stays
    assert [one.seq for one in taken] == [1, 1]


async def test_without_a_driving_node_there_is_nothing_to_follow_or_ring(make_bus: MakeBus) -> None:
    bus = make_bus()
    async with asyncio.timeout(10):
        assert [one async for one in bus.follow("t", Position(0))] == []
    assert not await bus.ring("t")
    await bus.close()


async def test_a_node_does_not_follow_or_ring_itself(served: tuple[Serving, Bus]) -> None:
    node, bus = served
    async with asyncio.timeout(10):
        assert [one async for one in bus.follow("t", Position(0))] == []
    assert not await bus.ring("t")
    assert node.rung == []


async def test_a_ring_reaches_the_driving_node(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    node, bus = served
    if isinstance(bus, NetworkBus):
        assert not await make_bus().ring("t")  # the database does that
        return
    assert await make_bus().ring("t")
    async with asyncio.timeout(10):
        await node.was_rung.wait()
    assert node.rung == ["t"]


@pytest.mark.parametrize("how", ["bus", "topic"])
async def test_followers_end_with_what_they_follow(
    served: tuple[Serving, Bus], make_bus: MakeBus, how: str
) -> None:
    node, bus = served
    node.record()
    events = make_bus().follow("t", Position(0))
    await next_of(events, 1)
    node.topic.close()
    if how == "bus":
        await bus.close()
    async with asyncio.timeout(10):
        assert [one async for one in events] == []


async def test_what_a_node_drives_is_announced_to_those_that_watch_threads(
    served: tuple[Serving, Bus], make_bus: MakeBus
) -> None:
    _, bus = served
    if isinstance(bus, SocketBus):
        assert not bus.announces
        return
    other, followed, own = make_bus(), Followed(), Followed()
    other.listen(followed)
    bus.listen(own)
    events = other.follow("t", Position(0))
    asking = asyncio.ensure_future(anext(events))
    served[0].record()
    await asking
    bus.announce("u")
    bus.announce("t")
    async with asyncio.timeout(10):
        await followed.was_told.wait()
    assert followed.threads[-1] == "t"
    assert own.threads == []
    await events.aclose()


async def test_a_client_that_sends_what_is_no_request_is_sent_away(tmp_path: Path) -> None:
    bus, node = SocketBus(tmp_path / "treadle.db"), Serving()
    await bus.serve(node)
    for line in (b"\n", b"{}\n", b'{"type":"ring"}\n', b"\xff\xfe\n", b"x" * 100_000 + b"\n"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "treadle.db-live")
        writer.write(line)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):  # the rest of the line was not read
                assert await reader.read() == b""
        writer.close()
    other = SocketBus(tmp_path / "treadle.db")
    assert await other.ring("t")
    await other.close()
    await bus.close()
