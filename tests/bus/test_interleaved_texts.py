"""Texts that grow at the same time, here and at other agents: every reader gets each exactly."""

import asyncio
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treadle.bus.event_queue import EventQueue
from treadle.bus.feed import Feed
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.bus.topic import Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    Delta,
    DurableEvent,
    Event,
    LiveEvent,
    MessageAdded,
    ReasoningDelta,
    RecordedEvent,
    RunCancelled,
    RunFinishing,
    RunStarted,
    StepInterrupted,
    TextDelta,
    ToolCallStarted,
    ToolOutputRecorded,
    ToolProgress,
    delta_in,
    text_key,
)
from treadle.domain.items import FunctionCallOutput, Message, OutputText
from treadle.domain.usage import Usage
from treadle.testing import run

PIECE = re.compile(r"<(\d+)>")
WRITERS: dict[str, tuple[str, ...]] = {
    "here": (),
    "one": ("one",),
    "two": ("two",),
    "nested": ("one", "inner"),
}


def of(writer: str, event: Event) -> Event:
    """Returns an event as it is seen on the thread when it happens at the agent `writer`."""
    for agent in reversed(WRITERS[writer]):
        event = AgentEvent(f"call_{agent}", agent, f"thread_{agent}", event)
    return event


class Script:
    """A topic and its journal, and what has been written to each text."""

    def __init__(self) -> None:
        self.topic = Topic()
        self.journal: list[RecordedEvent] = []
        self.written: dict[object, str] = {}
        self.landed: dict[object, int] = {}
        self.segments: list[int] = []
        self.names: dict[tuple[str, str], int] = {}

    async def open(self) -> Topic:
        return self.topic

    async def read(self, after: int, until: int) -> list[RecordedEvent]:
        await asyncio.sleep(0)  # other things happen meanwhile
        return self.journal[after : min(until, after + 2)]

    def watch(self, after: Position, limit: int) -> Subscription:
        return Subscription(self.open, self.read, after, limit=limit)

    @property
    def seq(self) -> int:
        return len(self.journal)

    def record(self, event: RecordedEvent) -> None:
        self.journal.append(event)
        self.topic.publish(Envelope(event, event.seq))

    def item(self, writer: str, name: str) -> str:
        return f"{writer}-{name}{self.names.setdefault((writer, name), 0)}"

    def write(self, writer: str, name: str) -> None:
        item = self.item(writer, name)
        piece = f"<{len(self.segments)}>"
        self.segments.append(self.seq)
        kind = ReasoningDelta if name == "r" else TextDelta
        event = of(writer, kind(item, piece))
        key = text_key(event)
        self.written[key] = self.written.get(key, "") + piece
        self.publish(event)

    def publish(self, event: Event) -> None:
        assert isinstance(event, LiveEvent)
        self.topic.publish_live(event)

    def finish(self, writer: str, name: str) -> None:
        item = self.item(writer, name)
        self.names[writer, name] += 1
        key = text_key(of(writer, TextDelta(item, "")))
        message = Message("assistant", (OutputText(self.written.get(key, "")),), item)
        self.durable(writer, MessageAdded(run_id="r", item=message, origin="model"))
        self.land(writer, item)

    def interrupt(self, writer: str) -> None:
        self.durable(writer, StepInterrupted(run_id="r", step=1, reason="x"))
        self.land(writer, "")

    def land(self, writer: str, item: str) -> None:
        """Notes after which durable event the texts of an item, or all of a writer, are past."""
        seq = self.seq if writer == "here" else self.seq + 1
        name = f"'{item}'" if item else f"'{writer}-"
        for key in self.written:
            if name in repr(key):
                self.landed.setdefault(key, seq)
        for at in self.names:
            if at[0] == writer and not item:
                self.names[at] += 1

    def durable(self, writer: str, event: RecordedEvent) -> None:
        if writer == "here":
            event = type(event)(
                **{name: getattr(event, name) for name in event.__struct_fields__ if name != "seq"},
                seq=self.seq + 1,
            )
            self.record(event)
        else:
            self.publish(of(writer, event))

    def play(self, act: tuple[str, str, str]) -> None:
        what, writer, name = act
        if what == "write":
            self.write(writer, name)
        elif what == "finish":
            self.finish(writer, name)
        elif what == "interrupt":
            self.interrupt(writer)
        elif what == "progress":
            self.publish(of(writer, ToolProgress("c", "t", "half")))
        else:
            self.durable("here", RunFinishing(run_id="r"))


class Reader:
    """What was seen over any number of subscriptions, by position."""

    def __init__(self, script: Script, known: int | None = None) -> None:
        self.script = script
        self.known = known
        self.seen: dict[object, str] = {}
        self.durable: list[RecordedEvent] = []

    def see(self, event: Event) -> None:
        if isinstance(event, DurableEvent):
            self.durable.append(event)
            if isinstance(event, MessageAdded) and self.known is None:
                # All of a text is there before the event that ends it.
                text = self.seen.get(text_key(TextDelta(event.item.id, "")), "")
                assert text == event.item.text
        elif (delta := delta_in(event)) is not None:
            key = text_key(event)
            self.seen[key] = self.seen.get(key, "") + delta.delta
            segment = (self.known or 0) + len(self.durable)
            for piece in PIECE.findall(delta.delta):
                written = self.script.segments[int(piece)]
                assert written == segment or written < segment == self.known

    def require_exact(self) -> None:
        script, known = self.script, self.known or 0
        assert self.durable == script.journal[known:]
        assert self.seen == {
            key: text
            for key, text in script.written.items()
            if script.landed.get(key, known + 1) > known
        }


async def read_some(subscription: Subscription, reader: Reader, count: int) -> None:
    for _ in range(count):
        try:
            async with asyncio.timeout(1):
                reader.see(await anext(subscription))
        except TimeoutError:
            return


ACTS = st.tuples(
    st.sampled_from(["write"] * 12 + ["finish"] * 2 + ["durable", "progress", "interrupt"]),
    st.sampled_from(list(WRITERS)),
    st.sampled_from(["t", "u", "r"]),
)
LOOKS = st.one_of(st.just(0), st.integers(1, 4), st.sampled_from([-1, -2]))
"""How many events the reader takes after an act; below 0 it leaves and returns."""
LIMITS = st.sampled_from([1, 3, 8, 1024])


@settings(max_examples=300)
@given(st.lists(st.tuples(ACTS, LOOKS), max_size=100), LIMITS)
@example(
    # Left between the joined deltas of two texts, with more to come.
    [(("write", "here", name), 0) for name in "tututu"]
    + [(("write", "here", "t"), 1), (("write", "here", "u"), -1), (("write", "here", "t"), 1)],
    3,
)
def test_deltas_add_up_with_any_pauses_and_returns(
    acts: Sequence[tuple[tuple[str, str, str], int]], limit: int
) -> None:
    async def main() -> None:
        script = Script()
        reader = Reader(script)
        subscription = script.watch(Position(0), limit)
        for act, look in acts:
            script.play(act)
            if look < 0:
                position = Position.parse(subscription.position)
                await subscription.aclose()
                subscription = script.watch(position, limit)
            await read_some(subscription, reader, max(look, 0))
        script.topic.close()
        async for event in subscription:
            reader.see(event)
        reader.require_exact()

    run(main())


@settings(max_examples=200)
@given(st.lists(ACTS, max_size=60), st.integers(0, 60), st.lists(LOOKS, max_size=20), LIMITS)
def test_a_reader_that_begins_late_gets_each_text_from_its_start(
    acts: Sequence[tuple[str, str, str]], joined_at: int, looks: Sequence[int], limit: int
) -> None:
    """It read the journal elsewhere; later it leaves and returns like any other."""

    async def main() -> None:
        script = Script()
        for act in acts[:joined_at]:
            script.play(act)
        reader = Reader(script, known=script.seq)
        subscription = script.watch(Position(script.seq), limit)
        later = iter(acts[joined_at:])
        for look in looks:
            await read_some(subscription, reader, max(look, 0))
            for act in [act for act, _ in zip(later, range(3), strict=False)]:
                script.play(act)
            if look < 0:
                await subscription.aclose()
                subscription = script.watch(Position.parse(subscription.position), limit)
        for act in later:
            script.play(act)
        script.topic.close()
        async for event in subscription:
            reader.see(event)
        reader.require_exact()

    run(main())


@given(st.lists(ACTS, max_size=80), st.lists(LOOKS, max_size=80), LIMITS)
def test_positions_mean_the_same_where_the_events_were_followed(
    acts: Sequence[tuple[str, str, str]], looks: Sequence[int], limit: int
) -> None:
    """Another process follows with a slow connection; its readers come and go as here."""

    async def main() -> None:
        script, there = Script(), Topic()
        reader = Reader(script)
        connection = script.watch(there.position, limit)

        async def follow(subscription: Subscription, count: int) -> None:
            for _ in range(count):
                try:
                    async with asyncio.timeout(1):
                        envelope = await subscription.next()
                except (TimeoutError, StopAsyncIteration):
                    return
                if isinstance(envelope.event, DurableEvent):
                    there.publish(envelope)
                else:
                    there.publish_live(envelope.event, envelope.n)

        async def open_there() -> Topic:
            return there

        def watch(after: Position) -> Subscription:
            return Subscription(open_there, script.read, after, limit=limit)

        subscription = watch(Position(0))
        for number, act in enumerate(acts):
            script.play(act)
            look = looks[number] if number < len(looks) else 0
            await follow(connection, abs(look))
            if look == -1:
                # The connection broke: the next one begins where this one stood.
                await connection.aclose()
                connection = script.watch(Position.parse(connection.position), limit)
            if look == -2:
                await subscription.aclose()
                subscription = watch(Position.parse(subscription.position))
            await read_some(subscription, reader, look // 2 if look > 0 else 0)
        script.topic.close()
        await follow(connection, 10_000)
        there.close()
        async for event in subscription:
            reader.see(event)
        reader.require_exact()

    run(main())


@given(st.lists(ACTS, max_size=120), st.integers(1, 10))
def test_the_queue_is_bounded_by_events_and_texts(
    acts: Sequence[tuple[str, str, str]], limit: int
) -> None:
    """Without a reader there wait the events that are no deltas, and the texts between them."""
    script = Script()
    queue = EventQueue(limit, drops_overflow=False)
    dropping = EventQueue(limit, drops_overflow=True)
    script.topic.attach(queue)
    script.topic.attach(dropping)
    events, texts = 0, set[object]()

    def put(envelope: Envelope, /) -> None:
        nonlocal events
        key = text_key(envelope.event)
        if key is None:
            events += 1
        else:
            texts.add((events, key))

    class Counter:
        def __init__(self, put: Callable[[Envelope], None]) -> None:
            self.put = put

        def close(self, error: Exception | None, /) -> None:
            raise AssertionError

    script.topic.attach(Counter(put))
    for act in acts:
        script.play(act)
        assert len(queue) <= max(limit, events + len(texts))
        assert len(dropping) < limit or not limit
        if len(queue) > limit:
            assert len(queue) == events + len(texts)
    taken = len(list(iter(queue.take, None)))
    assert taken <= max(limit, events + len(texts))
    assert len(queue) == 0


def test_two_interleaved_texts_are_two_entries() -> None:
    feed = Feed(limit=4)
    for n in range(1000):
        feed.put(TextDelta("ab"[n % 2], f"{n} "))
    assert len(feed) == 2
    statistics = feed.statistics()
    assert (statistics.waiting, statistics.joined, statistics.overflows) == (2, 998, 0)


async def seen_of(subscription: Subscription) -> list[Event]:
    return [event async for event in subscription]


def test_a_durable_event_keeps_its_place_between_joined_deltas() -> None:
    async def main() -> None:
        script = Script()
        subscription = script.watch(Position(0), 6)
        script.play(("durable", "", ""))
        await anext(subscription)
        for name in ("t", "u", "t", "u"):
            script.write("here", name)
        script.play(("durable", "", ""))
        for name in ("u", "t", "u", "t"):
            script.write("here", name)
        assert subscription.statistics() == (5, 4, 0)
        script.topic.close()
        assert await seen_of(subscription) == [
            TextDelta("here-t0", "<0><2>"),
            TextDelta("here-u0", "<1><3>"),
            RunFinishing(seq=2, run_id="r"),
            TextDelta("here-u0", "<4><6>"),
            TextDelta("here-t0", "<5><7>"),
        ]

    run(main())


def test_texts_of_the_last_two_runs_are_remembered() -> None:
    async def main() -> None:
        script = Script()

        def start() -> int:
            script.durable("here", RunStarted(run_id="r", agent="a"))
            script.write("here", "t")
            script.finish("here", "t")
            return script.seq - 2

        first, _, _ = start(), start(), start()
        script.topic.close()
        remembered = [TextDelta("here-t1", "<1>"), TextDelta("here-t2", "<2>")]
        assert [one.event for one in script.topic.after(Position(first))] == remembered
        # A reader gets the others from the events of their items.
        events = await seen_of(script.watch(Position(first), 8))
        texts = [event for event in events if isinstance(event, Delta)]
        assert texts == [TextDelta("here-t0", "<0>"), *remembered]

    run(main())


def test_an_agent_that_ends_leaves_nothing_in_flight() -> None:
    async def main(end: Callable[[Script], None]) -> None:
        script = Script()
        script.play(("durable", "", ""))
        script.write("nested", "t")
        script.publish(of("one", ToolCallStarted("f", "c", "look")))
        assert script.topic.is_in_flight
        end(script)
        assert not script.topic.is_in_flight
        script.play(("durable", "", ""))
        script.topic.close()
        assert await seen_of(script.watch(Position(script.seq), 8)) == []

    def cancelled(script: Script) -> None:
        for writer in ("one", "nested"):
            script.publish(of(writer, RunCancelled(run_id="r", usage=Usage())))

    def answered(script: Script) -> None:
        output = FunctionCallOutput("call_one", "stopped")
        script.durable("here", ToolOutputRecorded(run_id="r", item=output, name="one"))

    for end in (cancelled, answered):
        run(main(end))


@pytest.mark.parametrize("limit", [1, 1024])
def test_a_call_is_announced_before_its_arguments_to_a_reader_that_returns(limit: int) -> None:
    async def main() -> None:
        script = Script()
        script.play(("durable", "", ""))
        for name in ("t", "u"):
            script.write("here", name)
        script.publish(ToolCallStarted("f", "c", "look"))
        script.write("here", "t")
        script.topic.close()
        events = await seen_of(script.watch(Position(1), limit))
        assert events == [
            TextDelta("here-t0", "<0><2>"),
            TextDelta("here-u0", "<1>"),
            ToolCallStarted("f", "c", "look"),
        ]

    run(main())
