"""Topics and subscriptions over random streams: what any pattern of watching gets to see."""

import asyncio
import gc
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from treadle.bus import live_log
from treadle.bus.event_queue import EventQueue
from treadle.bus.position import UNSEEN, Block, Position
from treadle.bus.subscription import Subscription
from treadle.bus.topic import Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    Delta,
    DeltaKey,
    DurableEvent,
    Event,
    FieldDelta,
    HostedCallProgress,
    ItemRemoved,
    LiveEvent,
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ReasoningDelta,
    RecordedEvent,
    RunCompleted,
    RunFinishing,
    StepInterrupted,
    StepStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolProgress,
    ToUserDelta,
    UsageAdded,
    delta_key,
    with_delta,
)
from treadle.domain.items import (
    FunctionCall,
    HostedCall,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
)
from treadle.domain.usage import Usage
from treadle.errors import InvalidInput, JournalCorrupt, JournalFull, JournalLocked
from treadle.testing import run

ITEMS = ["a", "b", "c"]
DELTAS: dict[str, Delta] = {
    "delta": TextDelta("", ""),
    "arguments": ToolArgumentsDelta("", "call", ""),
    "said": ToUserDelta("", "call", ""),
    "title": FieldDelta("", "call", "title", ""),
    "body": FieldDelta("", "call", "body", ""),
}
Act = tuple[str, str]


class Stage:
    """A topic, the journal behind it, and a way to play a stream of events on them."""

    def __init__(self) -> None:
        self.topic = Topic()
        self.journal: list[RecordedEvent] = []
        self.live: list[LiveEvent] = []
        self.texts: dict[DeltaKey, str] = {}
        self.final: dict[DeltaKey, str] = {}
        self.finished = 0

    async def open(self) -> Topic:
        return self.topic

    async def read(self, after: int, until: int) -> list[RecordedEvent]:
        await asyncio.sleep(0)  # other things happen meanwhile
        return self.journal[after : min(until, after + 3)]

    def watch(self, after: Position | None = None, limit: int = 1024) -> Subscription:
        return Subscription(self.open, self.read, after or Position(0), limit=limit)

    def durable(self, event: RecordedEvent) -> None:
        self.journal.append(event)
        self.topic.publish(Envelope(event, event.seq))

    def next_seq(self) -> int:
        return len(self.journal) + 1

    def play(self, act: Act) -> None:
        what, item = act
        name = f"{item}{self.finished}"
        if what in DELTAS:
            event = replace(with_delta(DELTAS[what], f"<{name}:{len(self.live)}>"), item_id=name)
            key = delta_key(event)
            self.texts[key] = self.texts.get(key, "") + event.delta
            self.live.append(event)
            self.topic.publish_live(event)
        elif what == "finish":
            self.final |= landed(self.texts, name)
            text = self.final.setdefault((TextDelta, name, ""), "")
            message = Message("assistant", (OutputText(text),), name)
            self.durable(
                MessageAdded(seq=self.next_seq(), run_id="r", item=message, origin="model")
            )
            self.finished += 1
        elif what == "forget":  # as after the end of a run: readers read the journal
            self.topic._recent.clear()
        elif what == "progress":
            self.topic.publish_live(ToolProgress("call", "tool", "half"))
        elif what == "interrupt":
            self.texts.clear()
            self.durable(StepInterrupted(seq=self.next_seq(), run_id="r", step=1, reason="x"))
        else:
            self.durable(RunFinishing(seq=self.next_seq(), run_id="r"))


def landed(texts: dict[DeltaKey, str], item_id: str) -> dict[DeltaKey, str]:
    """Takes the texts of an item out of `texts`."""
    return {key: texts.pop(key) for key in list(texts) if key[1] == item_id}


class Reader:
    """What one subscriber has seen, over any number of subscriptions."""

    def __init__(self) -> None:
        self.durable: list[RecordedEvent] = []
        self.growing: dict[DeltaKey, str] = {}
        self.landed: dict[DeltaKey, str] = {}
        self.texts: dict[str, str] = {}

    def see(self, event: Event) -> None:
        if isinstance(event, Delta):
            key = delta_key(event)
            self.growing[key] = self.growing.get(key, "") + event.delta
        elif isinstance(event, DurableEvent):
            self.durable.append(event)
            if isinstance(event, StepInterrupted):
                self.growing.clear()
            if isinstance(event, MessageAdded):
                self.landed |= landed(self.growing, event.item.id)
                self.texts[event.item.id] = event.item.text

    def require_exact(self, stage: Stage) -> None:
        """Each text that it saw grow is there to its last piece, in flight or landed."""
        assert all(stage.final[key] == seen for key, seen in self.landed.items())
        assert self.growing == stage.texts


ACTS = st.tuples(
    st.sampled_from(
        ["delta"] * 6
        + ["finish"] * 2
        + ["other", "progress", "forget", "interrupt", *DELTAS, "said"]
    ),
    st.sampled_from(ITEMS),
)
LOOKS = st.one_of(st.integers(1, 5), st.just(0), st.just(-1))


@given(st.lists(st.tuples(ACTS, LOOKS), max_size=80), st.sampled_from([4, 16, 1024]))
def test_any_pattern_of_reading_and_coming_back_sees_everything_once(
    script: Sequence[tuple[Act, int]], limit: int
) -> None:
    """After each act the subscriber reads some events, none, or goes away and comes back."""

    async def main() -> None:
        stage, reader = Stage(), Reader()
        subscription = stage.watch(limit=limit)
        for act, look in script:
            stage.play(act)
            if look < 0:
                position = Position.parse(subscription.position)
                first = not reader.durable and not reader.growing
                await subscription.aclose()
                subscription = stage.watch(Position(0) if first else position, limit)
            for _ in range(max(look, 0)):
                try:
                    async with asyncio.timeout(1):
                        reader.see(await anext(subscription))
                except TimeoutError:
                    break
        stage.topic.close()
        async for event in subscription:
            reader.see(event)
        assert reader.durable == stage.journal
        assert reader.texts == {
            name: text for (kind, name, _), text in stage.final.items() if kind is TextDelta
        }
        reader.require_exact(stage)

    run(main())


@given(st.lists(ACTS, max_size=60), st.integers(0, 60))
def test_who_reads_elsewhere_first_gets_the_items_in_flight(
    acts: Sequence[Act], joined_at: int
) -> None:
    async def main() -> None:
        stage, reader = Stage(), Reader()
        for act in acts[:joined_at]:
            stage.play(act)
        known = len(stage.journal)
        subscription = stage.watch(Position(known))
        missing = asyncio.create_task(drain(subscription, reader))
        await asyncio.sleep(1)
        reader.require_exact(stage)
        for act in acts[joined_at:]:
            stage.play(act)
        stage.topic.close()
        await missing
        assert reader.durable == stage.journal[known:]
        reader.require_exact(stage)

    run(main())


async def drain(subscription: Subscription, reader: Reader) -> None:
    async for event in subscription:
        reader.see(event)


@given(st.lists(ACTS, max_size=40))
def test_all_subscribers_get_the_same_envelopes(acts: Sequence[Act]) -> None:
    async def main() -> None:
        stage = Stage()
        subscriptions = [stage.watch(), stage.watch()]
        tasks = [asyncio.create_task(collect(subscription)) for subscription in subscriptions]
        await asyncio.sleep(1)
        for act in acts:
            stage.play(act)
        stage.topic.close()
        one, two = await asyncio.gather(*tasks)
        assert all(a is b for a, b in zip(one, two, strict=True))
        positions = [(envelope.seq, envelope.n) for envelope in one]
        assert positions == sorted(set(positions))

    run(main())


async def collect(subscription: Subscription) -> list[Envelope]:
    return [envelope async for envelope in subscription.envelopes()]


def test_a_slow_subscriber_costs_a_bounded_queue() -> None:
    async def main() -> None:
        stage = Stage()
        subscription = stage.watch(limit=8)
        stage.play(("other", "a"))
        await anext(subscription)
        for n in range(1000):
            stage.play(("delta", ITEMS[n % 2]))
        assert len(subscription._queue) <= 2
        assert subscription.statistics().joined >= 990
        stage.topic.close()
        reader = Reader()
        await drain(subscription, reader)
        reader.require_exact(stage)

    run(main())


def test_adjacent_deltas_of_one_item_are_joined_before_anything_is_dropped() -> None:
    async def main() -> None:
        stage = Stage()
        subscription = stage.watch(limit=8)
        stage.play(("other", "a"))
        await anext(subscription)
        for _ in range(100):
            stage.play(("delta", "a"))
        assert not subscription._queue.is_lagging
        envelopes = [await subscription.next()]
        assert isinstance(envelopes[0].event, TextDelta)
        assert envelopes[0].n == 100

    run(main())


def test_joining_keeps_what_cannot_be_joined_apart() -> None:
    events: list[Event] = [
        TextDelta("a", "1"),
        TextDelta("a", "2"),
        ReasoningDelta("a", "3"),
        ToolProgress("c", "t", "x"),
        ToolProgress("c", "t", "x"),
        ToolArgumentsDelta("f", "c", "4"),
        ToolArgumentsDelta("f", "c", "5"),
        ToUserDelta("f", "c", "x"),
        ToUserDelta("f", "c", "y"),
        FieldDelta("f", "c", "title", "x"),
        FieldDelta("f", "c", "body", "x"),
        FieldDelta("f", "c", "body", "y"),
        TextDelta("b", "6"),
        TextDelta("a", "7"),
    ]
    queue = EventQueue(len(events), drops_overflow=False)
    for n, event in enumerate(events, 1):
        queue.put(Envelope(event, 1, n))
    result = list(iter(queue.take, None))
    assert [envelope.event for envelope in result] == [
        TextDelta("a", "12"),
        ReasoningDelta("a", "3"),
        ToolProgress("c", "t", "x"),
        ToolProgress("c", "t", "x"),
        ToolArgumentsDelta("f", "c", "45"),
        ToUserDelta("f", "c", "xy"),
        FieldDelta("f", "c", "title", "x"),
        FieldDelta("f", "c", "body", "xy"),
        TextDelta("b", "6"),
        TextDelta("a", "7"),
    ]
    assert [envelope.position for envelope in result] == [
        "1.2",
        "1.3",
        "1.4",
        "1.5",
        "1.7",
        "1.9",
        "1.10",
        "1.12",
        "1.13",
        "1.14",
    ]


def test_a_reader_that_comes_late_gets_the_newest_of_a_hosted_call() -> None:
    stage = Stage()
    topic = stage.topic
    begun = HostedCallProgress(HostedCall("web_search", "w"))
    known = HostedCallProgress(HostedCall("web_search", "w", arguments="q"))
    topic.publish_live(begun)
    topic.publish_live(TextDelta("m", "Hi"))
    topic.publish_live(known)
    assert [one.event for one in topic.after(Position(0))] == [known, TextDelta("m", "Hi")]
    assert [one.event for one in topic.after(Position(0, 2))] == [known]
    stage.durable(UsageAdded(seq=1, run_id="r", usage=Usage(), cost=0.0))
    topic.publish_live(known)
    again = [one.event for one in topic.after(Position(1))]
    assert again == [known, TextDelta("m", "Hi"), known]
    item = ProviderItem("p", Raw(b"{}"), known.call)
    stage.durable(ProviderItemAdded(seq=2, run_id="r", item=item))
    assert [one.event for one in topic.after(Position(2))] == [TextDelta("m", "Hi")]


def test_items_of_every_kind_land() -> None:
    stage = Stage()
    topic = stage.topic
    topic.publish_live(ReasoningDelta("rs", "hm"))
    topic.publish_live(ToolCallStarted("fc", "c", "look"))
    topic.publish_live(ToolArgumentsDelta("fc", "c", "{"))
    topic.publish_live(ToUserDelta("fc", "c", "Let me"))
    topic.publish_live(FieldDelta("fc", "c", "title", "A"))
    topic.publish_live(FieldDelta("fc", "c", "body", "B"))
    assert [type(e.event) for e in topic.after(Position(0))] == [
        ReasoningDelta,
        ToolCallStarted,
        ToolArgumentsDelta,
        ToUserDelta,
        FieldDelta,
        FieldDelta,
    ]
    assert topic.position == Position(0, 6)
    stage.durable(ReasoningAdded(seq=1, run_id="r", item=Reasoning(id="rs")))
    assert len(topic.after(Position(1))) == 5
    assert topic.is_in_flight
    call = FunctionCall("c", "look", "{}", "fc")
    stage.durable(ToolCallRequested(seq=2, run_id="r", item=call))
    assert topic.after(Position(2)) == []
    assert not topic.is_in_flight
    assert topic.position == Position(2)


def test_each_item_in_flight_comes_whole_after_reading_elsewhere() -> None:
    async def main() -> None:
        stage = Stage()
        for act in (("delta", "a"), ("delta", "b"), ("delta", "a"), ("other", ""), ("delta", "b")):
            stage.play(act)
        subscription = stage.watch(Position(1))
        seen = [await subscription.next() for _ in range(2)]
        assert [Block(0, 0, 1).n, Block(0, 0, 2).n] == [envelope.n for envelope in seen]
        assert [e.event for e in seen] == [
            TextDelta("a0", "<a0:0><a0:2>"),
            TextDelta("b0", "<b0:1>"),
        ]
        assert (await subscription.next()).event == TextDelta("b0", "<b0:3>")
        assert subscription.position == "1.1"

    run(main())


@given(
    st.lists(ACTS, max_size=60),
    st.integers(0, 60),
    st.lists(st.integers(0, 6), max_size=12),
    st.sampled_from([4, 1024]),
)
def test_who_reads_elsewhere_first_can_leave_and_come_back(
    acts: Sequence[Act], joined_at: int, looks: Sequence[int], limit: int
) -> None:
    """Joins with the number of a durable event, and comes back with positions as text."""

    async def main() -> None:
        stage, reader = Stage(), Reader()
        for act in acts[:joined_at]:
            stage.play(act)
        known = len(stage.journal)
        subscription = stage.watch(Position.parse(known), limit)
        later = iter(acts[joined_at:])
        for look in looks:
            for _ in range(look):
                try:
                    async with asyncio.timeout(1):
                        reader.see((await subscription.next()).event)
                except TimeoutError:
                    break
            await subscription.aclose()
            for act in itertools.islice(later, 3):
                stage.play(act)
            subscription = stage.watch(Position.parse(subscription.position), limit)
        for act in later:
            stage.play(act)
        stage.topic.close()
        await drain(subscription, reader)
        assert reader.durable == stage.journal[known:]
        reader.require_exact(stage)

    run(main())


def test_a_position_before_the_first_event_knows_nothing_of_items_in_flight() -> None:
    async def main() -> None:
        stage = Stage()
        for act in (("delta", "a"), ("other", ""), ("other", "")):
            stage.play(act)
        assert stage.watch(Position(0)).position == "0"
        left = stage.watch(Position(2))
        assert left.position == "2."
        back = stage.watch(Position.parse(left.position))
        assert await anext(back) == TextDelta("a0", "<a0:0>")
        assert Position.parse(back.position) == (2, Block(0, 0, 1).n)

    run(main())


def test_leaving_ends_the_wait_of_who_reads() -> None:
    async def main() -> None:
        stage, opening = Stage(), asyncio.Event()

        async def open_slowly() -> Topic:
            await opening.wait()
            return stage.topic

        stage.play(("other", "a"))
        stage.play(("forget", ""))
        slow = Subscription(open_slowly, stage.read, Position(0))
        reading = stage.watch()
        waiting = stage.watch(Position(1))
        tasks = [asyncio.create_task(collect(one)) for one in (slow, reading, waiting)]
        await asyncio.sleep(0)  # the second is in the middle of a read
        for one in (slow, reading, waiting):
            await one.aclose()
        opening.set()
        stage.play(("other", "a"))
        assert await asyncio.gather(*tasks) == [[], [], []]
        assert not stage.topic.is_watched

    run(main())


class Leaver:
    """Makes others leave in the middle of an event, as the garbage collector can."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.others: list[Leaver] = []
        self.seen = 0

    def put(self, envelope: Envelope, /) -> None:
        self.seen += 1
        for other in self.others:
            self.topic.detach(other)

    def close(self, error: Exception | None, /) -> None:
        raise AssertionError


def test_who_leaves_in_the_middle_of_an_event_disturbs_nobody() -> None:
    stage = Stage()
    one, two, three = Leaver(stage.topic), Leaver(stage.topic), Leaver(stage.topic)
    one.others = [two]
    for subscriber in (one, two, three):
        stage.topic.attach(subscriber)
    stage.play(("delta", "a"))
    stage.play(("other", "a"))
    assert (one.seen, three.seen) == (2, 2)
    for subscriber in (one, three):
        stage.topic.detach(subscriber)


def test_a_topic_remembers_the_run_in_progress_without_what_was_removed() -> None:
    topic = Topic(7)

    def publish(event: RecordedEvent) -> None:
        topic.publish(Envelope(event, event.seq))

    for seq in range(8, 50):
        publish(RunFinishing(seq=seq, run_id="r"))
    assert [event.seq for event in topic.recent(46, 49)] == [47, 48, 49]
    assert len(topic.recent(17, 49)) == 32
    assert not topic.recent(16, 49)
    assert not topic.recent(48, 50)
    publish(ItemRemoved(seq=50, run_id="r", events=(48,), keys=("k",)))
    assert not topic.recent(48, 50)
    publish(RunFinishing(seq=51, run_id="r"))
    assert [event.seq for event in topic.recent(50, 51)] == [51]
    assert not topic.recent(49, 51)
    publish(RunFinishing(seq=53, run_id="r"))  # another process drove the thread meanwhile
    assert not topic.recent(50, 53)
    publish(RunCompleted(seq=54, run_id="r", stop_reason="completed", usage=Usage()))
    assert not topic.recent(52, 54)


def test_a_journal_that_lacks_what_was_published_is_told() -> None:
    async def main() -> None:
        stage = Stage()
        for _ in range(5):
            stage.play(("other", "a"))
        stage.play(("forget", ""))
        del stage.journal[3:]
        subscription = stage.watch()
        assert [(await subscription.next()).seq for _ in range(3)] == [1, 2, 3]
        with pytest.raises(JournalCorrupt, match="no event after 3"):
            await anext(subscription)

    run(main())


def test_a_read_that_fails_can_be_repeated() -> None:
    async def main() -> None:
        stage, failures = Stage(), [JournalLocked("held")]

        async def read(after: int, until: int) -> list[RecordedEvent]:
            if failures:
                raise failures.pop()
            return await stage.read(after, until)

        for act in (("delta", "a"), ("other", ""), ("finish", "a"), ("forget", ""), ("delta", "b")):
            stage.play(act)
        stage.topic.close()
        reader, subscription = Reader(), Subscription(stage.open, read, Position(0))
        with pytest.raises(JournalLocked):
            await anext(subscription)
        await drain(subscription, reader)
        assert reader.durable == stage.journal
        reader.require_exact(stage)

    run(main())


def test_the_end_and_the_error_come_after_what_was_published() -> None:
    async def main() -> None:
        stage = Stage()
        subscription = stage.watch()
        stage.play(("other", "a"))
        await anext(subscription)
        stage.play(("other", "a"))
        stage.topic.close(JournalFull("full"))
        assert isinstance(await anext(subscription), RunFinishing)
        with pytest.raises(JournalFull):
            await anext(subscription)
        stage.topic.close()

    run(main())


def test_leaving_detaches() -> None:
    left: list[int] = []

    async def main() -> None:
        stage = Stage()
        stage.topic = Topic(0, lambda: left.append(1))
        stage.play(("other", "a"))
        async with stage.watch() as subscription:
            await anext(subscription)
            assert stage.topic.is_watched
        assert not stage.topic.is_watched
        await subscription.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)
        async for _ in stage.watch():
            break
        gc.collect()
        assert not stage.topic.is_watched
        assert len(left) == 2
        unused = stage.watch()
        await unused.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(unused)

    run(main())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1.x",
        "-1",
        "1.2.3",
        "٣",
        "9" * 16,
        "1 ",
        f"1.{'9' * 46}",
        f"1.{Block(5, 5, 1).n}",
        f"1.{Block(5, 0, 1).n}",
    ],
)
def test_invalid_positions_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="position"):
        Position.parse(text)


def test_positions() -> None:
    assert Position.parse("17.4") == (17, 4)
    assert Position.parse("17") == (17, 0)
    assert Position.parse(17) == (17, None)
    assert Position.parse("17.") == (17, None)
    within = Position(17, Block(3, 99, 2).n)
    for position in (Position(17, 4), Position(17, 0), Position(17), Position(0, 3), within):
        assert Position.parse(position.text) == position
    assert Position.parse(Position(3)) == (3, None)
    longest = Position(10**15 - 1, Block(10**15 - 2, 10**15 - 1, 10**15 - 1).n)
    assert Position.parse(longest.text) == longest
    assert len(longest.text) <= 64
    with pytest.raises(InvalidInput, match="negative"):
        Position.parse(-1)


def test_a_topic_that_is_behind_the_position_repeats_nothing() -> None:
    """A topic that follows another node gets late what its subscriber has seen there."""

    async def watch() -> None:
        stage = Stage()
        for _ in range(3):
            stage.journal.append(RunFinishing(run_id="r", seq=stage.next_seq()))
        subscription = stage.watch(Position(3, 2))
        seen: list[Envelope] = []

        async def see() -> None:
            while True:
                seen.append(await subscription.next())

        seeing = asyncio.create_task(see())
        await asyncio.sleep(0)
        for event in stage.journal:
            stage.topic.publish(Envelope(event, event.seq))
            await asyncio.sleep(0)
        for piece in "abcd":
            stage.topic.publish_live(TextDelta("i", piece))
            await asyncio.sleep(0)
        stage.durable(RunFinishing(run_id="r", seq=stage.next_seq()))
        await asyncio.sleep(0.1)
        seeing.cancel()
        texts = [one.event.delta for one in seen if isinstance(one.event, TextDelta)]
        assert ("".join(texts), seen[-1].seq, len(seen) - len(texts)) == ("cd", 4, 1)

    run(watch())


def test_all_is_collected_from_the_end_of_the_first_wait() -> None:
    async def main() -> None:
        stage = Stage()
        stage.durable(MessageAdded(seq=1, run_id="r", item=Message("user", ()), origin="user"))
        subscription = stage.watch(Position(1))
        await subscription.wait()
        done = AgentEvent(
            "call", "agent", "thread", StepInterrupted(seq=9, run_id="r", step=1, reason="")
        )
        stage.topic.publish_live(done)
        said = Message("assistant", ())
        stage.durable(MessageAdded(seq=2, run_id="r", item=said, origin="model"))
        seen = list[Event]()
        while (envelope := subscription.take()) is not None:
            seen.append(envelope.event)
        await subscription.aclose()
        assert seen == [done, stage.journal[1]]

    run(main())


AGENT_ACTS = st.lists(st.sampled_from(["work", "write", "own text", "record"]), max_size=60)


def act_of_agent(stage: Stage, act: str, number: int) -> None:
    """Plays an act on a topic, that of two agents that has the number."""
    scope = f"agent {number % 2}"
    if act == "record":
        stage.durable(RunFinishing(seq=stage.next_seq(), run_id="r"))
        return
    event: LiveEvent = TextDelta("item", f"<{number}>")
    if act == "work":
        event = AgentEvent("call", scope, scope, RunFinishing(seq=number + 1, run_id="agent"))
    elif act == "write":
        event = AgentEvent("call", scope, scope, event)
    stage.topic.publish_live(event)


async def taken(subscription: Subscription) -> list[Event]:
    """Returns all events that there are."""
    seen = list[Event]()
    while True:
        if (event := subscription.take()) is not None:
            seen.append(event.event)
        elif subscription._topic is None or subscription._read_to < subscription._until:
            await subscription.wait()
        else:
            return seen


def without_texts(events: Sequence[Event]) -> list[Event]:
    return [
        event
        for event in events
        if not isinstance(event.event if isinstance(event, AgentEvent) else event, TextDelta)
    ]


@given(AGENT_ACTS, st.integers(0, 60), st.sampled_from([2, 3, 1000]))
def test_a_reader_that_returns_gets_what_agents_did(
    acts: Sequence[str], left_at: int, limit: int
) -> None:
    """Where it left off, or where its queue was full: in the same order, each event once."""

    async def main() -> None:
        stage, after = Stage(), Position(0)
        there = stage.watch()
        seen = await taken(there)
        slow = stage.watch(limit=limit)
        slowly = await taken(slow)
        returning = list[Event]()
        for number, act in enumerate(acts):
            act_of_agent(stage, act, number)
            now = await taken(there)
            seen += now
            if number < left_at:
                after = Position.parse(there.position)
                returning += now
        back = stage.watch(after)
        returned = await taken(back)
        while slow._queue.is_lagging or len(slow._queue):
            if slow._queue.is_lagging:
                await slow.wait()
            slowly += await taken(slow)
        for events in (returning + returned, slowly):
            assert without_texts(events) == without_texts(seen)
            assert texts_of(events) == texts_of(seen)

    run(main())


def texts_of(events: Sequence[Event]) -> dict[str, str]:
    """Returns the texts of the thread and of both agents."""
    texts = dict[str, str]()
    for event in events:
        inner = event.event if isinstance(event, AgentEvent) else event
        scope = event.thread_id if isinstance(event, AgentEvent) else ""
        if isinstance(inner, TextDelta):
            texts[scope] = texts.get(scope, "") + inner.delta
    return texts


def test_a_topic_keeps_a_bounded_number_of_events_of_agents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_log, "MAX_EVENTS", 5)
    topic = Topic()
    for number in range(1, 100):
        event = RunFinishing(seq=number, run_id="agent")
        topic.publish_live(AgentEvent("call", "agent", "thread", event))
        topic.publish_live(TextDelta("item", f"<{number}>"))
        kept = topic.after(Position(0))
        there = [one for one in kept if isinstance(one.event, AgentEvent)]
        assert min(number, 5) <= len(there) < 10
        text = "".join(one.event.delta for one in kept if isinstance(one.event, TextDelta))
        assert text == "".join(f"<{one}>" for one in range(1, number + 1))


def test_a_text_does_not_come_again_after_the_thread_was_driven_here_for_a_while() -> None:
    """Its event is read from the journal: the node lost the thread before it could publish it."""

    async def main() -> None:
        stage = Stage()
        stage.topic.is_followed = stage.topic.is_served = True
        subscription = stage.watch(Position(0))
        seen = list[Event]()

        async def read() -> None:
            async for event in subscription:
                seen.append(event)

        reading = asyncio.create_task(read())
        stage.durable(StepStarted(seq=1, run_id="r", step=1, model="m"))
        await asyncio.sleep(0.01)
        stage.topic.is_followed = False
        stage.durable(StepStarted(seq=2, run_id="r", step=2, model="m"))
        for piece in ("one ", "two"):
            stage.topic.publish_live(TextDelta("i", piece))
            await asyncio.sleep(0.01)
        stage.topic.is_followed, stage.topic.is_served = True, False
        item = Message("assistant", (OutputText("one two"),), "i")
        said = MessageAdded(seq=3, run_id="r", item=item, origin="model")
        stage.journal.append(said)
        stage.topic.publish(Envelope(said, 3, UNSEEN))
        await asyncio.sleep(0.01)
        await subscription.aclose()
        await reading
        assert "".join(one.delta for one in seen if isinstance(one, TextDelta)) == "one two"
        assert seen[-1] == said

    run(main())
