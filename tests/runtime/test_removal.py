"""`Thread.remove_event`: an item leaves the history, the journal and the search."""

from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import Agent, EventRemoved, ItemRemoved, MessageAdded, Runtime, Thread, tool
from treadle.domain.events import RecordedEvent, ToolCallRequested
from treadle.domain.fold import apply
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message
from treadle.domain.state import ThreadState
from treadle.errors import InvalidInput, ItemNotFound
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@tool
async def look(place: str) -> str:
    """Looks."""
    return f"seen {place}"


async def number_of(thread: Thread, kind: type[RecordedEvent], text: str) -> int:
    for event in await thread.events(limit=1000):
        if isinstance(event, kind) and text in str(event.item):  # type: ignore[attr-defined]
            return event.seq
    raise AssertionError(text)


async def test_an_item_leaves_history_journal_and_search(open_runtime: Open) -> None:
    script = ["first", [Call("look", '{"place": "home"}')], "second", "third"]
    model = ScriptedModel(script)
    agent = Agent(model, tools=[look])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="me")
        for text in ("my number is pin-eleven", "look at home"):
            await (await thread.send(text)).result()
        assert await runtime.search("pin-eleven", owner="me")
        await thread.remove_event(await number_of(thread, MessageAdded, "pin-eleven"))
        await thread.remove_event(await number_of(thread, ToolCallRequested, "home"))
        assert (await thread.info()).title == ""
        assert not await runtime.search("pin-eleven", owner="me")
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert not await runtime.search("pin-eleven", owner="me")
        events = await thread.events(limit=1000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert isinstance(events[0], EventRemoved)
        assert sum(isinstance(event, ItemRemoved) for event in events) == 2
        assert "pin-eleven" not in str(events)
        assert "seen home" not in str(events)
        history = await thread.history()
        assert not [i for i in history if isinstance(i, FunctionCall | FunctionCallOutput)]
        await thread.remove_event(1)  # again: no effect
        state = ThreadState()
        for event in events:
            state = apply(state, event)
        assert state == await thread.state()
        result = await (await thread.send("and now?")).result()
        texts = [item.text for item in model.requests[-1].items if isinstance(item, Message)]
        assert texts == ["first", "look at home", "second", "and now?"]
        assert [item.text for item in result.history if isinstance(item, Message)] == [
            *texts,
            "third",
        ]
        assert (await thread.info()).title == "and now?"


async def test_an_item_is_removed_by_its_id(open_runtime: Open) -> None:
    script: list[object] = [[Call("look", '{"place": "home"}')], "second"]
    agent = Agent(ScriptedModel(script), tools=[look])
    history = [{"role": "user", "content": text} for text in ("pin-eleven", "6789")]
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, history=history)
        await (await thread.send("look at home")).result()
        items = (await thread.items()).copy()
        for at in (0, 4):  # an item of the history, and the output of a call
            await thread.remove_item(items[at].id)  # type: ignore[union-attr]
            with pytest.raises(ItemNotFound):
                await thread.remove_item(items[at].id)  # type: ignore[union-attr]
        assert list(await thread.items()) == [items[1], items[2], items[5]]
        events = await thread.events(limit=1000)
        assert "pin-eleven" not in str(events)
        assert "6789" in str(events)
        assert "seen home" not in str(events)
        with pytest.raises(ItemNotFound):
            await thread.remove_item("msg_x")


async def test_an_event_without_an_item_is_refused(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["ok"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        before = await thread.events()
        for seq in (2, 99):
            with pytest.raises(InvalidInput, match="has the events|adds no item"):
                await thread.remove_event(seq)
        with pytest.raises(InvalidInput, match="seq must be an integer"):
            await thread.remove_event("x")  # type: ignore[arg-type]
        assert await thread.events() == before


@pytest.mark.real_clock
async def test_another_process_may_ask_for_it(tmp_path: Path) -> None:
    agent = Agent(ScriptedModel(["ok"]), name="a")
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("my number is pin-eleven")).result()
        async with treadle.open(url, drive=False) as other:
            outside = await other.connect(thread.id)
            async with outside.subscribe(len(await outside.events())) as events:
                await outside.remove_event(1)
                async for event in events:
                    assert isinstance(event, ItemRemoved)
                    break
            with pytest.raises(InvalidInput, match="adds no item"):
                await outside.remove_event(2)
    async with treadle.open(url, drive=False) as other:
        first, *_ = await (await other.connect(thread.id)).events()
        assert isinstance(first, EventRemoved)
