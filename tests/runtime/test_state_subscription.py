"""Subscriptions that begin with the present state of a thread, and continue it exactly."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Runtime, StateSubscription, TerminalEvent, TextDelta, ThreadView, tool
from treadle.domain.items import Item, Message
from treadle.errors import ThreadNotFound
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
TEXT = "The quick brown fox jumps over the lazy dog."


@tool
async def look(place: str) -> str:
    """Looks."""
    return f"seen {place}"


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


def slow(text: str) -> list[object]:
    return [part for word in text.split() for part in (Text(f"{word} ", 3), Pause(0.5))]


def agent() -> Agent:
    first = [*slow(TEXT), Call("look", '{"place": "home"}')]
    return Agent(ScriptedModel([first, slow(TEXT[::-1]), "Third."]), name="a", tools=[look])


def ids(items: list[Item]) -> list[str]:
    return [getattr(item, "id", "") for item in items]


async def exact(events: StateSubscription, last: str) -> tuple[ThreadView, list[Item]]:
    """Reads to the end of the run `last`; returns the view, and the items after it.

    Asserts that the deltas of each text that ends after the view add up to it.
    """
    texts: dict[str, str] = {}
    added: list[Item] = []
    assert events.position == "state"
    view = await anext(events)
    assert isinstance(view, ThreadView)
    assert events.position == view.position
    seq = int(view.position.rstrip("."))
    is_over = view.run is not None and view.run.id == last and view.run.status == "completed"
    while not is_over:
        event = await anext(events)
        if isinstance(event, TextDelta):
            texts[event.item_id] = texts.get(event.item_id, "") + event.delta
        number = getattr(event, "seq", 0)
        assert number in {0, seq + 1}
        seq = number or seq
        if (item := getattr(event, "item", None)) is not None and event.type != "run.queued":
            added.append(item)
            if isinstance(item, Message) and item.role == "assistant":
                assert texts.pop(item.id) == item.text
        is_over = isinstance(event, TerminalEvent) and event.run_id == last
    assert texts == {}
    return view, added


@pytest.mark.parametrize("drive", [True, False])
async def test_it_begins_anywhere_and_continues_exactly(tmp_path: Path, drive: bool) -> None:
    url = f"sqlite:///{tmp_path / 't.db'}"
    async with treadle.open(url, agents=[agent()]) as runtime, treadle.open(url, drive=False) as b:
        thread = await runtime.create_thread("a", metadata={"n": 1})
        reader = thread if drive else await b.connect(thread.id)
        reading: list[asyncio.Task[tuple[ThreadView, list[Item]]]] = []
        run = await thread.send("1")
        queued = await thread.send("2")
        async for event in thread.subscribe():
            if isinstance(event, TextDelta | TerminalEvent) or len(reading) < 5:
                events = reader.subscribe(after="state")
                reading.append(asyncio.create_task(exact(events, queued.id)))
            if isinstance(event, TerminalEvent) and event.run_id == queued.id:
                break
        history = list(await thread.history())
        assert len(reading) > 10
        is_open = False
        for task in reading:
            view, added = await task
            assert view.thread.metadata == {"n": 1}
            step = [] if view.step is None else [*view.step.items, *view.step.outputs]
            assert ids([*view.items, *step, *added]) == ids(history)
            is_open = is_open or view.step is not None
        assert is_open
        first = (await reading[0])[0]
        assert [one.run_id for one in first.queue] in ([], [queued.id])
        assert (await run.result()).text == "".join(f"{word} " for word in TEXT[::-1].split())


async def test_it_shows_calls_that_wait_and_leaves_out_what_was_removed(open_runtime: Open) -> None:
    model = ScriptedModel(["Hello.", [Text("I pay."), Call("pay", '{"amount": 1}', "c1")], "Done."])
    paying = Agent(model, name="a", tools=[pay])
    async with open_runtime(paying) as runtime:
        thread = await runtime.create_thread(paying)
        await (await thread.send("A secret.")).result()
        await thread.remove_event(1)
        run = await thread.send("Pay.")
        async for event in run:
            if event.type == "run.requires_action":
                break
    async with open_runtime(paying) as runtime:
        thread = await runtime.connect(thread.id)
        async with thread.subscribe(after="state") as events:
            view = await anext(events)
            assert isinstance(view, ThreadView)
            assert view == await thread.view()
            assert "A secret." not in str(view)
            assert [(one.call.call_id, one.awaits) for one in view.calls] == [("c1", "approval")]
            assert view.run is not None
            assert (view.run.id, view.run.status) == (run.id, "requires_action")
            assert view.step is not None
            assert [type(item).__name__ for item in view.step.items] == ["Message", "FunctionCall"]
            await thread.approve("c1")
            types = []
            async for event in events:
                types.append(event.type)
                if event.type == "run.completed":
                    break
            assert types[0] == "tool.approved"
            position = events.position
        assert [event async for event in events] == []
        async with thread.subscribe(position) as later:
            await thread.send("More.")
            assert (await anext(later)).type == "message.added"


async def test_it_ends_when_it_is_closed_or_the_thread_is_deleted(open_runtime: Open) -> None:
    async with open_runtime(agent()) as runtime:
        thread = await runtime.create_thread("a")
        closed = thread.subscribe(after="state")
        await closed.aclose()
        assert [event async for event in closed] == []
        waiting = thread.subscribe(after="state")
        assert isinstance(await anext(waiting), ThreadView)
        following = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(1)
        await waiting.aclose()
        with pytest.raises(StopAsyncIteration):
            await following
        deleted = thread.subscribe(after="state")
        await anext(deleted)
        await thread.delete()
        with pytest.raises(ThreadNotFound):
            await anext(deleted)
        with pytest.raises(ThreadNotFound):
            await anext(thread.subscribe(after="state"))
