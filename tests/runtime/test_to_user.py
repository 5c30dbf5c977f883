"""What a call says to the user, on threads and in foreground runs: before the tool, and exactly."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from treadle import Agent, ChangedArguments, HookContext, Hooks, Runtime, ToolCall, tool
from treadle.domain.events import (
    Delta,
    DeltaKey,
    Event,
    FieldDelta,
    MessageAdded,
    StepInterrupted,
    TerminalEvent,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolStarted,
    ToUserDelta,
    delta_key,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput
from treadle.journal.memory import MemoryJournal
from treadle.models.base import ModelRequest
from treadle.streaming.demux import Demux, StreamEvent
from treadle.testing import Call, Pause, ScriptedModel, Text, Unfinished
from treadle.testing import run as run_on_virtual_clock

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
SAID = "Let me look that up… 😀"


@tool(to_user=True)
async def look(city: str) -> str:
    """Looks."""
    return f"rain in {city}"


@tool(stream_fields=["title", "body"])
async def write(title: str, body: str, pages: int = 1) -> str:
    """Writes."""
    return f"{title}: {len(body)}"


@tool(external=True)
async def ask_client(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


def said_by(events: list[Event]) -> str:
    return "".join(event.delta for event in events if isinstance(event, ToUserDelta))


async def test_the_person_reads_it_before_the_tool_starts(open_runtime: Open) -> None:
    call = Call("look", json.dumps({"to_user": SAID, "city": "Paris"}), "c1", 30)
    agent = Agent(ScriptedModel([[Pause(0.1), call], "It rains."]), tools=[look])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("How is the weather?")
        events = [event async for event in run]
        assert said_by(events) == SAID
        kinds = [type(event) for event in events]
        last = len(kinds) - 1 - kinds[::-1].index(ToUserDelta)
        arguments = [at for at, kind in enumerate(kinds) if kind is ToolArgumentsDelta]
        assert last < arguments[-1] < kinds.index(ToolCallRequested) < kinds.index(ToolStarted)
        requested = next(event for event in events if isinstance(event, ToolCallRequested))
        assert (requested.to_user, requested.said) == ("to_user", SAID)
        assert (await run.result()).text == "It rains."
        history = await thread.history()
        kept = next(item for item in history if isinstance(item, FunctionCall))
        assert json.loads(kept.arguments) == {"to_user": SAID, "city": "Paris"}
        again = [e for e in await thread.events() if isinstance(e, ToolCallRequested)]
        assert [event.said for event in again] == [SAID]


async def test_each_delta_follows_the_arguments_it_came_with() -> None:
    call = Call("look", '{"to_user":"Let me","city":"Paris"}', "c1", 4)
    agent = Agent(ScriptedModel([call, "."]), tools=[look])
    async with agent.stream("hi") as run:
        live = [e async for e in run if isinstance(e, ToolArgumentsDelta | ToUserDelta)]
    assert [(type(event), event.delta) for event in live] == [
        (ToolArgumentsDelta, '{"to_user'),
        (ToolArgumentsDelta, '":"Let me'),
        (ToUserDelta, "Let me"),
        (ToolArgumentsDelta, '","city":'),
        (ToolArgumentsDelta, '"Paris"}'),
    ]


async def test_a_call_of_a_tool_that_speaks_says_so_also_where_it_said_nothing() -> None:
    silent = ['{"city":"Paris"}', '{"to_user":null,"city":"a"}', '{"to_user":3,"city":"a"}', "[]"]
    calls = [Call("look", text) for text in silent] + [Call("unknown", '{"to_user":"x"}')]
    agent = Agent(ScriptedModel([calls, "."]), tools=[look])
    async with agent.stream("hi") as run:
        events = [event async for event in run]
    requested = [event for event in events if isinstance(event, ToolCallRequested)]
    assert [(e.to_user, e.said) for e in requested] == [("to_user", "")] * 4 + [("", "")]
    assert said_by(events) == ""


class Report(BaseModel):
    title: str
    pages: int


async def test_fields_of_a_tool_and_of_the_output_grow() -> None:
    body = "line\n" * 50
    call = Call("write", json.dumps({"title": "A", "body": body, "pages": 2}), "c1", 40)
    answer = Text('{"title": "Done é", "pages": 2}', 9)
    agent = Agent(
        ScriptedModel([call, answer]), tools=[write], output=Report, stream_fields=["title"]
    )
    async with agent.stream("hi") as run:
        events = [event async for event in run]
        assert (await run.result()).output == Report(title="Done é", pages=2)
    texts: dict[tuple[str, str], str] = defaultdict(str)
    for event in events:
        if isinstance(event, FieldDelta):
            texts[event.call_id, event.field] += event.delta
    assert texts == {("c1", "title"): "A", ("c1", "body"): body, ("", "title"): "Done é"}
    message = [e.item.id for e in events if isinstance(e, MessageAdded) and e.origin == "model"]
    assert {e.item_id for e in events if isinstance(e, FieldDelta) and not e.call_id} == set(
        message
    )


async def test_a_broken_stream_takes_back_what_it_said(open_runtime: Open) -> None:
    begun = Unfinished(Call("look", '{"to_user":"Let me', "c1", 4))
    agent = Agent(ScriptedModel([[Pause(0.1), begun, ConnectionError("gone")]]), tools=[look])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        events = [event async for event in run]
        assert said_by(events) == "Let me"
        assert any(isinstance(event, StepInterrupted) for event in events)
        assert not any(isinstance(event, ToolCallRequested) for event in events)


async def test_an_external_tool_speaks_too(open_runtime: Open) -> None:
    call = Call("ask_client", json.dumps({"say": SAID, "question": "Who?"}), "c1")
    agent = Agent(ScriptedModel([call, "."]), tools=[ask_client], to_user="say")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, ToolCallRequested):
                assert (event.awaits, event.said) == ("output", SAID)
                break
        await thread.submit_tool_output("c1", "me")
        assert (await run.result()).status == "completed"


async def test_hooks_see_and_change_the_arguments_without_it() -> None:
    seen: list[dict[str, object]] = []

    async def before_tool(context: HookContext, call: ToolCall) -> ChangedArguments:
        seen.append(dict(call.arguments))
        return ChangedArguments({"city": "Rome"})

    call = Call("look", json.dumps({"to_user": SAID, "city": "Paris"}), "c1")
    agent = Agent(
        ScriptedModel([call, "."]), tools=[look], hooks=[Hooks(before_tool=[before_tool])]
    )
    result = await agent.run("hi")
    assert seen == [{"city": "Paris"}]
    outputs = [item.text for item in result.items if isinstance(item, FunctionCallOutput)]
    assert outputs == ["rain in Rome"]


async def test_an_agent_speaks_when_it_calls_another_and_when_it_hands_over() -> None:
    worker = Agent(ScriptedModel(["A fact."]), name="worker", description="Knows.")
    clerk = Agent(ScriptedModel(["Bye."]), name="clerk", description="Ends it.")
    calls = [
        Call("worker", json.dumps({"to_user": "Let me ask…", "input": "What?"})),
        Call("transfer_to_clerk", json.dumps({"to_user": "Over to the clerk…"})),
    ]
    agent = Agent(
        ScriptedModel(calls),
        name="front",
        tools=[worker.as_tool()],
        handoffs=[clerk],
        to_user=True,
    )
    async with agent.stream("hi") as run:
        events = [event async for event in run]
        assert (await run.result()).text == "Bye."
    assert said_by(events) == "Let me ask…Over to the clerk…"


class Interleaved:
    """A model whose calls are written at the same time, a piece of each in turn."""

    name = provider = "interleaved"

    def __init__(self, arguments: list[str], size: int) -> None:
        self._arguments = arguments
        self._size = size
        self._asked = False

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        demux = Demux("test")
        if not self._asked:
            self._asked = True
            for key in range(len(self._arguments)):
                demux.call(key, f"c{key}", "look" if key % 2 else "write")
            for at in range(0, max(map(len, self._arguments)), self._size):
                for key, text in enumerate(self._arguments):
                    if text[at : at + self._size]:
                        demux.arguments(key, text[at : at + self._size])
                        await asyncio.sleep(0.01)
                        for event in demux.take():
                            yield event
        demux.finish_all(truncated=False)
        demux.end("stop")
        for event in demux.take():
            yield event


ARGUMENTS = st.fixed_dictionaries(
    {"city": st.text(max_size=5), "title": st.text(max_size=5), "body": st.text(max_size=30)},
    optional={"to_user": st.text(max_size=30)},
)


class Reader:
    """One subscriber over any number of visits; checks each call when it is complete."""

    def __init__(self) -> None:
        self.calls = 0
        self._growing: dict[DeltaKey, str] = defaultdict(str)
        self._whole: set[str] = set()

    def leave(self) -> None:
        """From now on it misses what lands: of that it gets the durable event alone."""
        self._whole.clear()

    def see(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._growing[delta_key(event)] += event.delta
        elif isinstance(event, ToolCallStarted):
            self._whole.add(event.item_id)
        elif isinstance(event, ToolCallRequested):
            self.calls += 1
            self._require_exact(event)

    def _require_exact(self, event: ToolCallRequested) -> None:
        """What was seen is how it begins, and all of it for who was there all the time."""
        item_id, arguments = event.item.id, event.arguments
        assert arguments is not None
        texts: dict[DeltaKey, object] = {
            (FieldDelta, item_id, name): arguments[name] for name in ("title", "body")
        }
        if event.to_user:
            texts = {(ToUserDelta, item_id, ""): event.said}
        for key, text in texts.items():
            assert str(text).startswith(self._growing[key])
            if item_id in self._whole:
                assert self._growing[key] == text


@given(
    st.lists(ARGUMENTS, min_size=1, max_size=3),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), max_size=6),
)
def test_subscribers_that_leave_and_come_back_read_each_text_exactly(
    calls: list[dict[str, str]], size: int, visits: list[tuple[int, int]]
) -> None:
    """Each visit reads so many events and stays away for so many hundredths of a second."""
    model = Interleaved([json.dumps(call) for call in calls], size)
    agent = Agent(model, name="a", tools=[look, write])

    async def main() -> None:
        async with Runtime(MemoryJournal(), agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            await thread.send("hi")
            reader, position = Reader(), "0"
            for count, away in [*visits, (10_000, 0)]:
                async with thread.subscribe(position) as subscription:
                    for _ in range(count):
                        event = await anext(subscription)
                        reader.see(event)
                        if isinstance(event, TerminalEvent):
                            assert reader.calls == len(calls)
                            return
                    position = subscription.position
                reader.leave()
                await asyncio.sleep(away / 100)

    run_on_virtual_clock(main())
