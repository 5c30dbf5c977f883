"""Readers in several processes: whatever they do, and wherever they return, each text is exact."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.bus.directory import Directory, Place

from treadle.actors import following
from treadle.actors.following import Following
from treadle.bus import follower_connection, network
from treadle.bus.base import Bus
from treadle.bus.local import LocalBus
from treadle.bus.network import NetworkBus
from treadle.bus.position import Position
from treadle.bus.socket import SocketBus
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
    delta_in,
    streamed,
    text_key,
    with_delta,
)
from treadle.domain.items import (
    FunctionCall,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
)
from treadle.domain.usage import Usage
from treadle.journal.base import Journal
from treadle.journal.projection import RunRecord
from treadle.testing import run

KINDS = ("text", "reasoning", "arguments")
WRITERS = ("", "one", "two")
Act = tuple[str, str, str]


class Journaled:
    """The events of the thread `t`, as a journal gives them to any process."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    async def last_seq(self, thread_id: str) -> int:
        await asyncio.sleep(0)
        return len(self.events)

    async def runs(self, thread_id: str) -> list[RunRecord]:
        return []

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        await asyncio.sleep(0)
        return self.events[after:until][:3]


class Driving:
    """The node that drives `t`: it writes items of several kinds, as other agents do for it."""

    def __init__(self, journal: Journaled, limit: int, topic: Topic | None = None) -> None:
        self.journal = journal
        self.topic = topic or Topic(len(journal.events))
        self.limit = limit
        self.subscriptions: list[Subscription] = []
        self.began: dict[Subscription, str] = {}
        self.written: dict[object, str] = {}
        self.count = 0
        self.step = 0
        self.opened: dict[tuple[str, str], str] = {}
        self.held: list[Envelope | LiveEvent] | None = None
        if journal.events:  # of a node that was killed within a step
            self.interrupt()
        self.start()

    def drives(self, thread_id: str) -> bool:
        return thread_id == "t"

    def ring(self, thread_id: str) -> None: ...

    def subscribe(self, thread_id: str, after: Position) -> Subscription:
        subscription = Subscription(self.open, self.read, after, limit=self.limit)
        self.subscriptions.append(subscription)
        self.began[subscription] = subscription.position
        return subscription

    async def open(self) -> Topic:
        return self.topic

    async def read(self, after: int, until: int) -> list[RecordedEvent]:
        return await self.journal.read("t", after=after, until=until)

    async def cut(self) -> None:
        """Breaks the connections that have brought something, as if they were new each time.

        Without anything, a reader takes the node for gone, and continues in the journal.
        """
        for subscription in self.subscriptions:
            if subscription.position != self.began[subscription]:
                await subscription.aclose()

    @property
    def has_served_all(self) -> bool:
        """Whether each connection has brought something."""
        return all(one.position != self.began[one] for one in self.subscriptions)

    def record(self, make: Callable[[int], RecordedEvent], *, is_lost: bool = False) -> None:
        event = make(len(self.journal.events) + 1)
        self.journal.events.append(event)
        if not is_lost:
            self.show(Envelope(event, event.seq))

    def hold(self) -> None:
        """From now on the journal has what is recorded before any reader is shown it."""
        self.held = [] if self.held is None else self.held

    def release(self) -> None:
        held, self.held = self.held or [], None
        for one in held:
            self.show(one)

    def show(self, one: Envelope | LiveEvent) -> None:
        if self.held is not None and (self.held or isinstance(one, Envelope)):
            self.held.append(one)
        elif isinstance(one, Envelope):
            self.topic.publish(one)
        else:
            self.topic.publish_live(one)

    @property
    def seq(self) -> int:
        return len(self.journal.events)

    def start(self) -> None:
        self.step += 1
        self.record(lambda seq: StepStarted(seq=seq, run_id="r", step=self.step, model="m"))

    def play(self, act: Act) -> None:
        what, writer, kind = act
        if what == "write":
            self.write(writer, kind)
        elif what == "finish":
            self.finish(writer, kind)
        elif what == "interrupt":
            self.interrupt()
            self.start()
        elif what == "hold":
            self.hold()
        elif what == "release":
            self.release()
        else:
            self.record(lambda seq: RunFinishing(seq=seq, run_id="r"))

    def write(self, writer: str, kind: str) -> None:
        id, piece = self.open_id(writer, kind), f"<{self.count}😀>"
        self.count += 1
        event: LiveEvent
        match kind:
            case "text":
                event = TextDelta(id, piece)
            case "reasoning":
                event = ReasoningDelta(id, piece)
            case _:
                event = ToolArgumentsDelta(id, "call", piece)
        event = of(writer, event)
        key = text_key(event)
        self.written[key] = self.written.get(key, "") + piece
        self.show(event)

    def finish(self, writer: str, kind: str, *, is_lost: bool = False) -> None:
        id = self.opened.pop((writer, kind), None)
        if id is None:
            return
        if writer:
            event = of(writer, landing(kind, id, self.text(writer, kind, id), 0))
            self.show(cast("LiveEvent", event))
        else:
            text = self.text(writer, kind, id)
            self.record(lambda seq: landing(kind, id, text, seq), is_lost=is_lost)

    def interrupt(self) -> None:
        """Cuts the response off: the texts of its open items are void."""
        for writer, kind in list(self.opened):
            if not writer:
                id = self.opened.pop((writer, kind))
                self.written.pop(key_of(writer, kind, id))
        self.record(lambda seq: StepInterrupted(seq=seq, run_id="r", step=self.step, reason="x"))

    def open_id(self, writer: str, kind: str) -> str:
        return self.opened.setdefault((writer, kind), f"{writer}-{kind}-{self.seq}-{self.count}")

    def text(self, writer: str, kind: str, id: str) -> str:
        return self.written[key_of(writer, kind, id)]


def key_of(writer: str, kind: str, id: str) -> object:
    return text_key(of(writer, streamed(landing(kind, id, "x", 0))[-1]))


def of(writer: str, event: Any) -> Any:
    return AgentEvent(f"call_{writer}", writer, f"thread_{writer}", event) if writer else event


def landing(kind: str, id: str, text: str, seq: int) -> RecordedEvent:
    match kind:
        case "text":
            message = Message("assistant", (OutputText(text),), id)
            return MessageAdded(seq=seq, run_id="r", item=message, origin="model")
        case "reasoning":
            reasoning = Reasoning(id, content=(ReasoningText(text),))
            return ReasoningAdded(seq=seq, run_id="r", item=reasoning)
        case _:
            return ToolCallRequested(seq=seq, run_id="r", item=FunctionCall("call", "t", text, id))


class Process:
    """A process in which readers watch `t`: it follows, or is the one that drives."""

    def __init__(
        self, journal: Journaled, bus: Bus | None, limit: int, driving: Driving | None = None
    ) -> None:
        self.journal, self.bus, self.limit, self.driving = journal, bus, limit, driving
        if bus is not None:
            polls = not bus.announces
            self.following = Following(
                cast("Journal", journal), bus, polls=polls, on_unwatched=lambda _: None
            )
            bus.listen(self.following)

    def watch(self, after: Position) -> Subscription:
        async def open_topic() -> Topic:
            return await self.following.topic("t") if self.driving is None else self.driving.topic

        async def read(after: int, until: int) -> list[RecordedEvent]:
            return await self.journal.read("t", after=after, until=until)

        bus = self.bus
        follow = (lambda position: bus.follow("t", position)) if bus is not None else None
        return Subscription(open_topic, read, after, follow=follow, limit=self.limit)

    async def stop(self) -> None:
        if self.bus is not None:
            await self.following.stop()
            await self.bus.close()


class Reader:
    """Accumulates what it sees, as the glossary says, and returns wherever it is sent."""

    def __init__(self, processes: Sequence[Process], known: int) -> None:
        self.processes = processes
        self.known = self.last = known
        self.may_miss = False
        self.position: str | int = known
        self.seen: dict[object, str] = {}
        self.finished = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.task: asyncio.Task[None] | None = None

    async def go(self, where: int) -> None:
        """Leaves wherever it is, and returns at its position."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        self.task = asyncio.create_task(self.read(self.processes[where]))

    async def read(self, process: Process) -> None:
        async with process.watch(Position.parse(self.position)) as subscription:
            while True:
                await self.gate.wait()
                envelope = await subscription.next()
                self.position = envelope.position
                self.see(envelope.event)

    def see(self, event: Event) -> None:
        delta = delta_in(event)
        if delta is not None:
            key = text_key(event)
            self.seen[key] = self.seen.get(key, "") + delta.delta
        elif isinstance(event, DurableEvent):
            assert event.seq == self.last + 1
            self.last = event.seq
            for whole in streamed(event):
                if (key := text_key(whole)) is not None:
                    self.check(key, delta_text(whole))
            if isinstance(event, StepStarted):
                self.may_miss = False
            if isinstance(event, StepInterrupted):
                self.seen = {
                    key: text
                    for key, text in self.seen.items()
                    if "thread_" in repr(key) or key in self.landed()
                }
            if isinstance(event, RunCompleted):
                self.finished.set()

    def check(self, key: object, whole: str) -> None:
        """A text is exact; if the reader left in it, and the node was killed, its start is."""
        if self.may_miss:
            assert whole.startswith(self.seen.get(key, ""))
            self.seen[key] = whole
        assert self.seen[key] == whole

    def landed(self) -> set[object]:
        events = self.processes[0].journal.events[: self.last]
        return {text_key(one) for event in events for one in streamed(event)}


def delta_text(event: LiveEvent) -> str:
    delta = delta_in(event)
    assert delta is not None
    return delta.delta


def completed(seq: int) -> RunCompleted:
    return RunCompleted(seq=seq, run_id="r", stop_reason="end_turn", usage=Usage())


async def settle(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


ACTS = st.tuples(
    st.sampled_from(
        ["write"] * 14 + ["finish"] * 2 + ["durable", "interrupt"] + ["hold"] * 2 + ["release"] * 2
    ),
    st.sampled_from(["", "", *WRITERS]),
    st.sampled_from(KINDS),
)
DOINGS = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.sampled_from(["pause", "resume", "cut"]), st.integers(0, 2)),
    st.tuples(st.just("go"), st.integers(0, 2)),
)
SCRIPTS = st.lists(st.tuples(ACTS, DOINGS, st.integers(0, 12)), max_size=80)


async def play(
    make_bus: Callable[[], Bus],
    script: Sequence[tuple[Act, tuple[str, int] | None, int]],
    joined_at: int,
    limit: int,
) -> None:
    journal = Journaled()
    driving, bus = Driving(journal, limit), make_bus()
    await bus.serve(driving)
    processes = [Process(journal, None, limit, driving)]
    processes += [Process(journal, make_bus(), limit) for _ in range(2)]
    readers: list[Reader] = []
    for number, (act, doing, turns) in enumerate(script):
        if number == joined_at or not number:
            new = [Reader(processes, len(journal.events) if number else 0) for _ in processes]
            for where, reader in enumerate(new):
                await reader.go(where)
            readers += new
        driving.play(act)
        match doing:
            case None:
                pass
            case "cut", 0 if isinstance(bus, NetworkBus) and driving.has_served_all:
                assert bus._followers is not None
                for connection in list(bus._followers._connections):
                    connection.disconnect()
            case "cut", _:
                await driving.cut()
            case "go", where:
                for reader in readers:
                    await reader.go(where)
            case what, which:
                for reader in readers[which::3]:
                    reader.gate.set() if what == "resume" else reader.gate.clear()
        await settle(turns)
    for writer, kind in list(driving.opened):
        driving.finish(writer, kind)
    driving.record(completed)
    driving.release()
    for reader in readers:
        reader.gate.set()
        async with asyncio.timeout(20):
            await asyncio.wait(
                [asyncio.create_task(reader.finished.wait()), cast("Any", reader.task)],
                return_when="FIRST_COMPLETED",
            )
        assert reader.task is not None
        if reader.task.done():
            reader.task.result()
    for reader in readers:
        assert reader.task is not None
        reader.task.cancel()
        await asyncio.wait([reader.task])
        # Texts of other agents that ended before it came are not among them.
        expected = {key: text for key, text in driving.written.items() if key in reader.seen}
        assert reader.seen == expected
        if not reader.known:
            assert reader.seen == driving.written
    for process in processes:
        await process.stop()
    await bus.close()
    driving.topic.close()


@settings(max_examples=150)
@given(SCRIPTS, st.integers(0, 60), st.sampled_from([2, 8, 1024]))
def test_each_text_is_exact_through_the_bus_of_a_process(
    script: Sequence[tuple[Act, tuple[str, int] | None, int]], joined_at: int, limit: int
) -> None:
    class Key: ...

    key = Key()
    run(play(lambda: LocalBus(key), script, joined_at, limit))


@pytest.mark.real_clock
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SCRIPTS, st.integers(0, 60), st.sampled_from([2, 8, 1024]))
def test_each_text_is_exact_through_a_socket(
    monkeypatch: pytest.MonkeyPatch,
    script: Sequence[tuple[Act, tuple[str, int] | None, int]],
    joined_at: int,
    limit: int,
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.002)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.db"
        asyncio.run(play(lambda: SocketBus(path), script, joined_at, limit))


@pytest.mark.real_clock
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SCRIPTS, st.integers(0, 60), st.sampled_from([2, 8, 1024]))
def test_each_text_is_exact_over_the_network(
    monkeypatch: pytest.MonkeyPatch,
    script: Sequence[tuple[Act, tuple[str, int] | None, int]],
    joined_at: int,
    limit: int,
) -> None:
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.002)
    monkeypatch.setattr(follower_connection, "TICK_SECONDS", 0.001)
    place = Place()
    asyncio.run(play(lambda: NetworkBus(Directory(place, "t")), script, joined_at, limit))


class Server:
    """A node that serves readers of `t` before it drives it, as a process that was just started."""

    def __init__(self, journal: Journaled, limit: int) -> None:
        self.journal, self.limit = journal, limit
        self.bus = LocalBus(journal)
        self.following = Following(
            cast("Journal", journal), self.bus, polls=False, on_unwatched=lambda _: None
        )
        self.subscriptions: list[Subscription] = []
        self.began: dict[Subscription, str] = {}

    def drives(self, thread_id: str) -> bool:
        return thread_id == "t"

    def ring(self, thread_id: str) -> None: ...

    def subscribe(self, thread_id: str, after: Position) -> Subscription:
        async def read(after: int, until: int) -> list[RecordedEvent]:
            return await self.journal.read("t", after=after, until=until)

        one = Subscription(lambda: self.following.topic("t"), read, after, limit=self.limit)
        self.subscriptions.append(one)
        self.began[one] = one.position
        return one

    async def load(self) -> Driving:
        seq = len(self.journal.events)
        await self.following.hand_over("t", seq)
        return Driving(self.journal, self.limit, self.following.open("t", seq))

    async def kill(self) -> None:
        for one in self.subscriptions:
            await one.aclose()
        await self.following.stop()


LIVES = st.lists(
    st.tuples(
        st.integers(0, 12),  # turns until the thread is driven; 12: a second
        st.integers(0, 12),  # and until readers are served
        st.lists(st.tuples(ACTS, DOINGS, st.integers(0, 8)), max_size=30),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150)
@given(LIVES, st.sampled_from([2, 1024]))
def test_readers_outlive_nodes_that_serve_before_they_drive(
    lives: Sequence[tuple[int, int, Sequence[tuple[Act, tuple[str, int] | None, int]], bool]],
    limit: int,
) -> None:
    class Key: ...

    key = Key()

    async def wait(turns: int, most: int) -> None:
        # The journal is read every 0.05 s, and the node asked every 0.5 s.
        pause = (0.06, 0.2, 0.6)[most - turns] if most - turns < 3 else 0
        await (asyncio.sleep(pause) if pause else settle(turns))

    async def main() -> None:
        journal, written = Journaled(), dict[object, str]()
        processes = [Process(journal, LocalBus(key), limit) for _ in range(2)]
        readers = [Reader(processes, 0) for _ in range(3)]
        for number, reader in enumerate(readers):
            await reader.go(number % 2)
        served: list[tuple[LocalBus, Server]] = []
        for life, (unserved, idle, script, is_kept) in enumerate(lives):
            server, bus = Server(journal, limit), LocalBus(key)
            served.append((bus, server))
            await wait(unserved, 12)
            await bus.serve(cast("Any", server))
            await wait(idle, 12)
            driving = await server.load()
            for (what, _, kind), doing, turns in script:
                driving.play((what, "", kind))
                match doing:
                    case "go", where:
                        for reader in readers:
                            await reader.go(where % 2)
                            reader.may_miss = True
                    case ("pause" | "resume") as what, which:
                        for reader in readers[which::3]:
                            reader.gate.set() if what == "resume" else reader.gate.clear()
                    case _:
                        pass
                await wait(turns, 8)
            if life == len(lives) - 1:
                for writer, kind in list(driving.opened):
                    driving.finish(writer, kind)
                driving.record(completed)
                driving.release()
            elif is_kept:
                driving.finish("", "text", is_lost=True)
            for writer, kind in driving.opened:
                driving.written.pop(key_of(writer, kind, driving.opened[writer, kind]))
            written |= driving.written
            if life < len(lives) - 1:
                await bus.close()
                await server.kill()
        for reader in readers:
            reader.gate.set()
            async with asyncio.timeout(20):
                await asyncio.wait(
                    [asyncio.create_task(reader.finished.wait()), cast("Any", reader.task)],
                    return_when="FIRST_COMPLETED",
                )
            assert reader.task is not None
            if reader.task.done():
                reader.task.result()
            reader.task.cancel()
            await asyncio.wait([reader.task])
            assert reader.seen == written
        for process in processes:
            await process.stop()
        for bus, server in served[-1:]:
            await bus.close()
            await server.kill()

    run(main())


SCRIPTS_TO_DEATH = st.lists(st.tuples(ACTS, st.integers(0, 6)), max_size=40)


@settings(max_examples=150)
@given(
    SCRIPTS_TO_DEATH,
    st.booleans(),
    st.integers(0, 20),
    SCRIPTS_TO_DEATH,
    st.sampled_from([2, 1024]),
    st.booleans(),
)
def test_a_reader_outlives_the_node_that_drives(
    before: Sequence[tuple[Act, int]],
    is_kept: bool,
    served_at: int,
    after: Sequence[tuple[Act, int]],
    limit: int,
    returns: bool,
) -> None:
    """The node ends in the middle of texts; of one of them the journal has the item already.

    The next one works for a while before it can be followed.
    """

    class Key: ...

    key = Key()

    async def main() -> None:
        journal, written = Journaled(), dict[object, str]()
        reader: Reader | None = None
        served: list[Bus] = []
        process = Process(journal, LocalBus(key), limit)
        for script in (before, after):
            driving, bus = Driving(journal, limit), LocalBus(key)
            if reader is None:
                reader = Reader([process], 0)
                await reader.go(0)
                if returns:  # then it has a connection of its own
                    await bus.serve(driving)
                    served.append(bus)
                    await asyncio.sleep(1)
                    await reader.go(0)
                    driving.interrupt()
                    driving.start()
            for number, ((what, _, kind), turns) in enumerate(script):
                if number == (0 if script is before else served_at) and bus not in served:
                    await bus.serve(driving)
                driving.play((what, "", kind))
                await (asyncio.sleep(1) if turns == 6 else settle(turns))
            if script is before and is_kept:
                driving.finish("", "text", is_lost=True)
            if script is after:
                for writer, kind in list(driving.opened):
                    driving.finish(writer, kind)
                driving.record(completed)
                driving.release()
            for writer, kind in driving.opened:
                driving.written.pop(key_of(writer, kind, driving.opened[writer, kind]))
            written |= driving.written
            await bus.close()
            await driving.cut()
            driving.topic.close()
        async with asyncio.timeout(20):
            await reader.finished.wait()
        assert reader.task is not None
        reader.task.cancel()
        await asyncio.wait([reader.task])
        assert reader.seen == written
        await process.stop()

    run(main())


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3)), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_the_next_node_completes_the_texts_of_other_agents(
    texts: Sequence[tuple[str, int]], is_kept: bool, is_nested: bool
) -> None:
    """The node ends in the last text, of which the journal has the item already, or never will."""

    class Key: ...

    key = Key()

    def from_agent(event: Any) -> Any:
        return of("one", of("two", event) if is_nested else event)

    async def main() -> None:
        journal, bus = Journaled(), LocalBus(key)
        driving = Driving(journal, 1024)
        process = Process(journal, LocalBus(key), 1024)
        await bus.serve(driving)
        seen: dict[object, str] = {}
        steps: list[int] = []
        finished = asyncio.Event()

        async def read() -> None:
            async with process.watch(Position(0)) as subscription:
                async for event in subscription:
                    if (delta := delta_in(event)) is not None:
                        text = text_key(event)
                        seen[text] = seen.get(text, "") + delta.delta
                    while isinstance(event, AgentEvent):
                        event = event.event
                    if isinstance(event, DurableEvent) and event.run_id == "agent":
                        steps.append(event.seq)
                    if isinstance(event, RunCompleted):
                        finished.set()

        reader = asyncio.create_task(read())
        await asyncio.sleep(1)
        landings: list[Any] = [StepStarted(seq=1, run_id="agent", step=1, model="m")]
        written: dict[object, str] = {}
        driving.topic.publish_live(from_agent(landings[0]))
        for number, (kind, pieces) in enumerate(texts, 2):
            whole = "<😀>" * pieces
            landed = replace(landing(kind, f"i{number}", whole, number), run_id="agent")
            (one,) = [delta for delta in streamed(landed) if isinstance(delta, Delta)]
            written[text_key(from_agent(one))] = whole
            is_last = number == len(texts) + 1
            for _ in range(pieces - 1 if is_last else pieces):
                driving.topic.publish_live(from_agent(with_delta(one, "<😀>")))
            if not is_last:
                driving.topic.publish_live(from_agent(landed))
            elif not is_kept:
                landed = StepInterrupted(seq=number, run_id="agent", step=1, reason="x")
                written[text_key(from_agent(one))] = "<😀>" * (pieces - 1)
            landings.append(landed)
            await settle(number)
        await asyncio.sleep(1)
        await bus.close()
        await driving.cut()
        driving.topic.close()
        bus, driving = LocalBus(key), Driving(journal, 1024)
        await bus.serve(driving)
        process.following.follow("t")  # as an announcement does
        await asyncio.sleep(1)
        for event in landings:
            driving.topic.publish_live(from_agent(event))
        driving.record(completed)
        async with asyncio.timeout(20):
            await finished.wait()
        reader.cancel()
        await asyncio.wait([reader])
        seen = {key: text for key, text in seen.items() if text}
        # What is known in no part is not shown: a reader may have seen its beginning elsewhere.
        assert seen == {key: text for key, text in written.items() if text and key in seen}
        assert len(seen) >= len(texts) - 1
        assert steps == [event.seq for event in landings]
        await process.stop()
        await bus.close()
        driving.topic.close()

    run(main())


def test_a_reader_leaves_and_returns_while_a_thread_is_loaded() -> None:
    async def main() -> None:
        journal = Journaled()
        process = Process(journal, LocalBus(journal), 1024)
        following = process.following
        first = process.watch(Position(0))
        waiting = asyncio.create_task(first.next())
        await settle(20)  # until it watches a thread without events
        for step in range(1, 5):
            journal.events.append(StepStarted(seq=step, run_id="r", step=step, model="m"))
        loading = asyncio.create_task(following.hand_over("t", 4))
        await settle(1)
        waiting.cancel()
        await first.aclose()
        second = process.watch(Position(0))
        returned = asyncio.create_task(second.next())
        await loading
        topic = following.open("t", 4)
        async with asyncio.timeout(5):
            assert (await returned).event == journal.events[0]
        assert topic.is_watched
        await process.stop()

    run(main())
