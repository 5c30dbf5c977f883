"""What enters a thread from outside: sendable and readable forever, or refused before it counts."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.domain.fold import fold
from tests.domain.json_like import json_like

import treadle
from treadle import (
    Agent,
    CompletionContext,
    Hooks,
    InputText,
    Message,
    Runtime,
    Thread,
    tool,
)
from treadle.domain.envelope import Envelope, decode_events
from treadle.domain.events import RunRequiresAction, ToolCallRequested
from treadle.domain.items import FunctionCall, FunctionCallOutput
from treadle.domain.usage import Usage
from treadle.errors import InvalidInput, TreadleError
from treadle.journal.memory import MemoryJournal
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic import AnthropicWire
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.responses import ResponsesWire
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import Call, ScriptedModel, VirtualClockLoop

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
URL = "https://x/y.png"

ACCEPTED = [
    [{"role": "user", "content": "hi"}],
    [{"type": "text", "text": "hi"}],
    {"role": "user", "content": "hi"},
    ["hi", "there"],
    Message(role="user", content="hi"),
    [{"type": "input_text", "text": "hi"}],
    [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": URL}}],
]
REFUSED = [
    b"hello",
    Message(role="tool", content="hi"),  # type: ignore[arg-type]
    {"role": "system", "content": "hi"},
    5,
    [InputText(5)],  # type: ignore[arg-type]
    [{"type": "audio"}],
    "a\ud800",
]


async def said(thread: Thread) -> list[str]:
    """The texts of the users' messages."""
    return [
        item.text
        for item in await thread.history()
        if isinstance(item, Message) and item.role == "user"
    ]


def encode(items: object) -> None:
    """Encodes a history for each wire."""
    request = ModelRequest(items=items)  # type: ignore[arg-type]
    for wire in (ResponsesWire(), ChatWire(), AnthropicWire()):
        wire.encode("model", request)


@pytest.mark.parametrize("given_input", ACCEPTED)
async def test_an_accepted_message_is_there_after_a_restart(
    given_input: Any, open_runtime: Open
) -> None:
    agent = Agent(ScriptedModel(["ok", "ok"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="me")
        await (await thread.send(given_input)).result()
        before = await said(thread)
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert await said(thread) == before
        assert before[0].startswith("hi")
        assert (await (await thread.send("again")).result()).text == "ok"
        assert await runtime.search(before[0], owner="me")
        encode(await thread.history())


@pytest.mark.parametrize("given_input", REFUSED)
async def test_another_form_is_refused_before_it_counts(
    given_input: Any, open_runtime: Open
) -> None:
    agent = Agent(ScriptedModel(["ok"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput):
            await thread.send(given_input)
        with pytest.raises(InvalidInput):
            await agent.run(given_input)
        if not isinstance(given_input, dict):  # a history may have instructions
            with pytest.raises(InvalidInput):
                await agent.run("hi", history=[given_input])
        assert not await thread.events()


@pytest.mark.real_clock
async def test_other_processes_are_held_to_the_same_forms(tmp_path: Path) -> None:
    agent = Agent(ScriptedModel(["ok"] * len(ACCEPTED)), name="a")
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        async with treadle.open(url, drive=False) as other:
            outside = await other.connect(thread.id)
            for refused in REFUSED:
                with pytest.raises(InvalidInput):
                    await outside.send(refused)  # type: ignore[arg-type]
            for accepted in ACCEPTED:
                run = await outside.send(accepted)  # type: ignore[arg-type]
                async for _ in run:
                    pass
        assert len(await said(thread)) == len(ACCEPTED)


@given(st.lists(st.tuples(st.sampled_from(["send", "inject", "replace", "output"]), json_like())))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_every_door_refuses_a_value_or_the_thread_goes_on(doors: list[tuple[str, object]]) -> None:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(_through(doors))


async def _through(doors: list[tuple[str, object]]) -> None:
    """Passes each value to its door, and then loads the thread from what was encoded of it."""
    changes = iter([(door, value) for door, value in doors if door in {"inject", "replace"}])

    def change(context: CompletionContext[None], _: object) -> None:
        for door, value in changes:
            try:
                if door == "inject":
                    context.inject(value)  # type: ignore[arg-type]
                else:
                    context.replace_history(value)  # type: ignore[arg-type]
            except TreadleError:
                continue
            return

    @tool(external=True)
    async def ask() -> str:
        """Is answered from outside."""
        raise AssertionError

    script = [[Call("ask", "{}")], "ok"] * (len(doors) + 2)
    agent = Agent(ScriptedModel(script), tools=[ask], hooks=Hooks(after_completion=change))
    journal = MemoryJournal()
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        for door, value in [*doors, ("send", "last")]:
            try:
                run = await thread.send(value if door == "send" else "hi")  # type: ignore[arg-type]
            except TreadleError:
                continue
            call = await _awaited(thread)
            try:
                await thread.submit_tool_output(call, value if door == "output" else "ok")
            except TreadleError:
                await thread.submit_tool_output(call, "ok")
            await run.result()
        history = await thread.history()
        events = await thread.events(limit=10_000)
        encode(history)
    body = b",".join(Envelope(event, event.seq).json for event in events)
    decoded = decode_events(b"[" + body + b"]")
    assert decoded == events
    assert list(fold(decoded).history) == list(history)


async def _awaited(thread: Thread) -> str:
    async for event in thread.subscribe():
        if isinstance(event, RunRequiresAction) and (calls := await thread.pending_calls()):
            return calls[0].call.call_id
    raise AssertionError


class OddModel:
    """Writes a call whose arguments are not a text."""

    name = provider = "odd"

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        if len(request.items) == 1:
            yield ItemFinished(0, FunctionCall("c1", "look", {"a": 1}))  # type: ignore[arg-type]
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))


async def test_what_a_model_of_the_program_writes_is_checked_before_it_counts(
    open_runtime: Open,
) -> None:
    agent = Agent(OddModel(), name="odd")  # type: ignore[arg-type]
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        with pytest.raises(InvalidInput, match="ToolCallRequested cannot be recorded"):
            await run.result()
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert not [e for e in await thread.events() if isinstance(e, ToolCallRequested)]


async def test_a_half_of_a_character_in_an_error_is_replaced(open_runtime: Open) -> None:
    def broken(context: object, completion: object) -> None:
        raise ValueError("a\ud800")

    agent = Agent(ScriptedModel(["ok"]), hooks=Hooks(after_completion=broken))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        with pytest.raises(TreadleError):
            await run.result()
    async with open_runtime(agent) as runtime:
        events = await (await runtime.connect(thread.id)).events()
        assert events[-1].message.endswith("a?")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.send("hi", on_busy="junk"), "on_busy='junk' is not known; use queue"),
        (lambda t: t.send("hi", on_busy=5), "on_busy=5"),
        (lambda t: t.send("hi", key=5), "key must be a text, not 5"),
        (lambda t: t.send("hi", key="a\ud800"), "key is not valid UTF-8"),
        (lambda t: t.send("hi", agent=object()), "agent .the name of an agent. must be a text"),
        (lambda t: t.approve(5), "call_id must be a text"),
        (lambda t: t.deny("c", 5), "reason must be a text"),
        (lambda t: t.submit_tool_output(5, "x"), "call_id must be a text"),
        (lambda t: t.submit_tool_output("c", object()), "output cannot be represented"),
        (lambda t: t.pin(5), "message_id must be a text"),
        (lambda t: t.cancel_job("\ud800"), "job_id is not valid UTF-8"),
        (lambda t: t.events(limit="x"), "limit must be an integer, not 'x'"),
        (lambda t: t.events(limit=0), "limit must be at least 1"),
        (lambda t: t.run("\ud800"), "run_id is not valid UTF-8"),
        (lambda t: t.fork("x"), "at must be an integer"),
        (lambda t: t.search(5), "The query must be a text"),
        (lambda t: t.search("x", limit=2**70), "limit must be from 1 to 100"),
        (lambda t: t.search("x", roles=5), "roles must be a list"),
        (lambda t: t.archive.insert(5), "text must be a text, not 5"),
        (lambda t: t.archive.insert("x", tags=5), "tags must be a list of texts, not 5"),
        (lambda t: t.archive.insert("x", tags=[5]), "A tag must be a text"),
        (lambda t: t.archive.insert("x", key=5), "key must be a text"),
        (lambda t: t.archive.insert_many(5), "insert_many takes a list of texts"),
        (lambda t: t.archive.get(5), "passage_id must be a text"),
        (lambda t: t.memory.append("human", 5), "text"),
    ],
)
async def test_arguments_of_a_thread_are_refused_by_name(
    call: Callable[[Thread], Any], words: str, open_runtime: Open
) -> None:
    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput, match=words):
            await call(thread)
        assert not await thread.events()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: r.create_thread("agent", owner="\ud800"), "owner is not valid UTF-8"),
        (lambda r: r.create_thread("agent", owner=5), "owner must be a text"),
        (lambda r: r.create_thread("agent", metadata=5), "metadata"),
        (lambda r: r.create_thread("agent", metadata=_deep()), "metadata"),
        (lambda r: r.create_thread("agent", metadata={"a": 2**70, "b": object()}), "metadata"),
        (lambda r: r.connect("\ud800"), "thread_id is not valid UTF-8"),
        (lambda r: r.threads(owner="\ud800"), "owner is not valid UTF-8"),
        (lambda r: r.threads(limit=0), "limit must be at least 1"),
        (lambda r: r.threads(order="newest"), "order='newest' is not known; use -updated"),
        (lambda r: r.threads(status="done"), "status='done' is not known; use queued"),
        (lambda r: r.threads(status=[5]), "status=5 is not known"),
        (lambda r: r.threads(agent=5), "agent must be a text"),
        (lambda r: r.threads(metadata={"a": object()}), "metadata"),
        (lambda r: r.threads(after="x"), "after='x' is not a cursor of this list"),
        (lambda r: r.delete_owner("\ud800"), "owner is not valid UTF-8"),
        (lambda r: r.delete_owner(5), "owner must be a text"),
        (lambda r: r.memory("x", owner="\ud800"), "owner is not valid UTF-8"),
        (lambda r: r.search("x", owner="\ud800"), "owner is not valid UTF-8"),
    ],
)
async def test_arguments_of_a_runtime_are_refused_by_name(
    call: Callable[[Runtime], Any], words: str, open_runtime: Open
) -> None:
    async with open_runtime(Agent(ScriptedModel([]))) as runtime:
        with pytest.raises(InvalidInput, match=words):
            await call(runtime)
        with pytest.raises(InvalidInput, match="owner"):
            runtime.archive(owner="\ud800")
        assert await runtime.threads(limit=2**70) == []


def _deep() -> dict[str, object]:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    return deep


async def test_one_message_object_may_steer_twice(open_runtime: Open) -> None:
    """A message without an id gets one, and each of two equal ones enters the history."""
    started = asyncio.Event()

    @tool
    async def wait() -> str:
        """Waits."""
        started.set()
        await asyncio.sleep(10)
        return "ok"

    agent = Agent(ScriptedModel([[Call("wait", "{}")], "ok", "ok", "ok"]), tools=[wait])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await started.wait()
        for message in [treadle.user_message("same")] * 2 + [Message("user", "new")] * 2:
            await thread.send(message, on_busy="steer")
        await run.result()
        assert await said(thread) == ["hi", "same", "same", "new", "new"]


async def test_a_large_output_is_encoded_in_a_thread() -> None:
    encoding = set[int]()

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            encoding.add(threading.get_ident())
            yield number

    @tool(external=True)
    async def ask() -> str:
        """Is answered from outside."""
        return ""

    agent = Agent(ScriptedModel([[Call("ask", "{}", "c1")], "Done."]), tools=[ask])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        async for event in thread.subscribe():
            if isinstance(event, RunRequiresAction):
                break
        await thread.submit_tool_output("c1", numbers())
        assert (await run.result()).text == "Done."
        (output,) = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
        assert output.text.startswith("[0,1,2,3")
        assert len(output.text) < 100_100
    assert encoding
    assert threading.get_ident() not in encoding
