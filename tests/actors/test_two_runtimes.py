"""Two runtimes on one database: one drives, the other watches and sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Block, tool
from treadle.domain.events import Event, MessageAdded, RunCompleted, TerminalEvent, TextDelta
from treadle.domain.items import FunctionCallOutput, Message
from treadle.errors import (
    BlockExists,
    Conflict,
    JournalError,
    JournalLocked,
    RunInProgress,
    ThreadNotFound,
    UnknownBlock,
    UnknownToolCall,
)
from treadle.models.base import ModelRequest
from treadle.models.openai import OpenAIResponses
from treadle.testing import Call, Pause, ProviderSimulator, ScriptedModel, Text

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    """Sockets and a database that two runtimes share live in real time."""
    return "asyncio"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'treadle.db'}"


@tool(external=True)
async def ask_client(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


@tool(needs_approval=True)
async def remove(name: str) -> str:
    """Needs a person."""
    return f"removed {name}"


def slowly(request: ModelRequest) -> list[Text | Pause]:
    return [Text("first part, "), Pause(0.4), Text("second part, "), Pause(0.4), Text("third.")]


async def test_a_watcher_sees_text_while_it_is_written(url: str) -> None:
    agent = Agent(ScriptedModel([slowly, "Again."]))
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as watching,
    ):
        thread = await driving.create_thread(agent)
        mine = await watching.connect(thread.id)

        async def watch() -> list[Event]:
            events: list[Event] = []
            async for event in mine.subscribe():
                events.append(event)
                if isinstance(event, TerminalEvent):
                    return events
            return events

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0.2)  # so that the watcher has gone over to live events
        await (await thread.send("hi")).result()
        events = await watcher
        assert "".join(e.delta for e in events if isinstance(e, TextDelta)).startswith("first part")
        durable = [
            event for event in events if isinstance(event, treadle.domain.events.DurableEvent)
        ]
        assert durable == await thread.events()
        order = [type(e) for e in events if isinstance(e, TextDelta | MessageAdded)]
        assert order.index(TextDelta) < len(order) - 1 - order[::-1].index(MessageAdded)


async def test_a_watcher_comes_back_within_an_item(url: str) -> None:
    async with ProviderSimulator() as simulator:
        model = OpenAIResponses(
            "sim:deltas=10,every=60", api_key="none", base_url=simulator.base_url
        )
        agent = Agent(model)
        async with (
            treadle.open(url, agents=[agent]) as driving,
            treadle.open(url, drive=False) as watching,
        ):
            thread = await driving.create_thread(agent)
            mine = await watching.connect(thread.id)
            seen = ""
            subscription = mine.subscribe()
            run = await thread.send("hi")
            async with subscription:
                while not seen:
                    event = await anext(subscription)
                    seen += event.delta if isinstance(event, TextDelta) else ""
            await asyncio.sleep(0.2)  # so long that nobody would have to keep what it saw
            async with mine.subscribe(subscription.position) as subscription:
                async for event in subscription:
                    seen += event.delta if isinstance(event, TextDelta) else ""
                    if isinstance(event, TerminalEvent):
                        break
            assert seen == (await run.result()).text


async def test_a_watcher_without_a_socket_sees_what_is_durable(url: str, tmp_path: Path) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]))
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as watching,
    ):
        (tmp_path / "treadle.db-live").unlink()
        thread = await driving.create_thread(agent)
        mine = await watching.connect(thread.id)
        watcher = asyncio.create_task(first_end(mine))
        await asyncio.sleep(0.1)
        await thread.send("hi")
        assert isinstance(await watcher, RunCompleted)


async def first_end(thread: treadle.Thread) -> Event | None:
    async for event in thread.subscribe():
        if isinstance(event, TerminalEvent):
            return event
    return None


async def test_a_watcher_outlives_the_driver(url: str) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]))
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        await (await thread.send("hi")).result()
    async with treadle.open(url, drive=False) as watching:
        mine = await watching.connect(thread.id)
        subscription = mine.subscribe()
        assert await text_to_the_end(subscription) == "One."
        async with treadle.open(url, agents=[agent]) as driving:
            await (await (await driving.connect(thread.id)).send("again")).result()
            assert await text_to_the_end(subscription) == "Two."


async def text_to_the_end(events: AsyncIterator[Event]) -> str:
    """Returns the deltas up to the end of the run, joined."""
    text = ""
    async for event in events:
        if isinstance(event, TextDelta):
            text += event.delta
        if isinstance(event, RunCompleted):
            break
    return text


async def test_inputs_reach_the_driver_through_the_inbox(url: str) -> None:
    calls = [
        Call("ask_client", json.dumps({"question": "one"}), "c1"),
        Call("remove", json.dumps({"name": "x"}), "c2"),
        Call("remove", json.dumps({"name": "y"}), "c3"),
    ]
    model = ScriptedModel([calls, "Done.", "Next."])
    agent = Agent(model, tools=[ask_client, remove])
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as outside,
    ):
        thread = await driving.create_thread(agent)
        mine = await outside.connect(thread.id)
        run = await mine.send("go", key="k")
        async for event in mine.subscribe():
            if isinstance(event, treadle.RunRequiresAction):
                break
        assert (await mine.send("go", key="k")).id == run.id
        with pytest.raises(Conflict, match="another message"):
            await mine.send("again", key="k")
        with pytest.raises(RunInProgress):
            await mine.send("no", on_busy="reject")
        with pytest.raises(UnknownToolCall):
            await mine.approve("c9")
        steered = await mine.send("by the way", on_busy="steer")
        assert steered.id == run.id
        await mine.submit_tool_output("c1", "one")
        result = await (await driving.connect(thread.id)).run(run.id)
        assert (await result.result()).text == "Done."
        outputs = [i.text for i in model.requests[1].items if isinstance(i, FunctionCallOutput)]
        assert outputs == ["one", *["Skipped: the user sent a new message."] * 2]
        with pytest.raises(Conflict):
            await mine.submit_tool_output("c1", "two")
        said = [i.text for i in await mine.history() if isinstance(i, Message)]
        assert said == ["go", "by the way", "Done."]


async def test_of_racing_answers_one_counts_and_the_others_learn_it(url: str) -> None:
    ids = [f"c{n}" for n in range(12)]
    calls = [Call("remove", json.dumps({"name": id}), id) for id in ids]
    agent = Agent(ScriptedModel([calls, "Done."]), tools=[remove])
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, agents=[agent], drive=False) as one,
        treadle.open(url, agents=[agent], drive=False) as two,
    ):
        thread = await driving.create_thread(agent)
        run = await thread.send("go")
        async for event in thread.subscribe():
            if isinstance(event, treadle.RunRequiresAction):
                break
        handles = [thread, await one.connect(thread.id), await two.connect(thread.id)]

        async def answer(id: str, number: int) -> tuple[str, str, Exception | None]:
            """Answers a call; returns the output that this leads to, and what was raised."""
            approves = (ids.index(id) + number) % 2
            wanted = f"removed {id}" if approves else f"The call was denied: by {number}"
            handle = handles[number]
            try:
                await (handle.approve(id) if approves else handle.deny(id, f"by {number}"))
            except Conflict as error:
                return id, wanted, error
            return id, wanted, None

        told = await asyncio.gather(*(answer(id, number) for id in ids for number in range(3)))
        assert (await run.result()).text == "Done."
        items = await thread.history()
        outputs = {i.call_id: i.output for i in items if isinstance(i, FunctionCallOutput)}
        for id, wanted, error in told:  # what was acknowledged is what happened
            assert (outputs[id] == wanted) == (error is None)


async def test_a_message_left_while_nobody_drives_is_answered_later(url: str) -> None:
    agent = Agent(ScriptedModel(["One.", "Three."]))
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        await (await thread.send("one")).result()
    async with treadle.open(url, drive=False) as outside:
        mine = await outside.connect(thread.id)
        two, three = await mine.send("two"), await mine.send("three", on_busy="reject")
        assert (await mine.run(two.id)).id == two.id  # although it is in the inbox yet
        await two.cancel()
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as outside,
    ):
        mine = await outside.connect(thread.id)
        endings = asyncio.gather(two_of(outside, mine, two.id), two_of(outside, mine, three.id))
        assert await endings == ["cancelled", "completed"]


async def test_a_message_is_there_once_however_often_and_wherefrom_it_is_sent(url: str) -> None:
    agent = Agent(ScriptedModel(["One.", "Two.", "Three."]))
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
    async with treadle.open(url, drive=False) as outside:
        mine = await outside.connect(thread.id)
        ids = {(await mine.send("one", key="k")).id for _ in range(3)}
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as outside,
    ):
        thread, mine = await driving.connect(thread.id), await outside.connect(thread.id)
        runs = await asyncio.gather(thread.send("one", key="k"), mine.send("one", key="k"))
        ids |= {run.id for run in runs}
        runs = await asyncio.gather(
            *(side.send("two", key="l") for side in (mine, thread, mine, thread))
        )
        assert len({run.id for run in runs}) == 1
        await runs[1].result()
        (known,) = ids
        assert {run.id for run in await thread.runs()} == {known, runs[0].id}
        said = [i.text for i in await thread.history() if isinstance(i, Message)]
        assert said == ["one", "One.", "two", "Two."]


async def test_a_message_that_came_too_late_to_steer_has_a_run_of_its_own(url: str) -> None:
    call = Call("ask_client", json.dumps({"question": "one"}), "c1")
    agent = Agent(ScriptedModel([[call], "Two."]), tools=[ask_client])
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        run = await thread.send("one")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                break
    async with treadle.open(url, drive=False) as outside:
        mine = await outside.connect(thread.id)
        await (await mine.run(run.id)).cancel()
        promised = {(await mine.send("late", on_busy="steer", key="k")).id for _ in range(2)}
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.connect(thread.id)
        await asyncio.wait_for(said_by(thread, "Two."), 5)
        first, second = await thread.runs()
        assert (first.id, first.status, second.status) == (run.id, "cancelled", "completed")
        assert promised == {second.id}
        said = [i.text for i in await thread.history() if isinstance(i, Message)]
        assert said == ["one", "late", "Two."]


async def test_what_was_to_steer_nothing_has_the_run_that_was_promised(url: str) -> None:
    agent = Agent(ScriptedModel(["One and two."]))
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
    async with treadle.open(url, drive=False) as outside:
        mine = await outside.connect(thread.id)
        one, two = [await mine.send(text, on_busy="steer") for text in ("one", "two")]
        assert one.id == two.id  # the second one is to steer the run of the first
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.connect(thread.id)
        await asyncio.wait_for(said_by(thread, "One and two."), 5)
        assert [record.id for record in await thread.runs()] == [one.id]


async def test_a_message_for_a_run_that_waits_steers_it_when_a_process_drives(url: str) -> None:
    call = Call("ask_client", json.dumps({"question": "one"}), "c1")
    agent = Agent(ScriptedModel([[call], "Two."]), tools=[ask_client])
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        run = await thread.send("one")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                break
    async with treadle.open(url, drive=False) as outside:
        mine = await outside.connect(thread.id)
        steered = [await mine.send("more", on_busy="steer", key="k") for _ in range(2)]
        assert [(one.id, one.is_driven) for one in steered] == [(run.id, False)] * 2
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.connect(thread.id)
        await thread.submit_tool_output("c1", "answer")
        await asyncio.wait_for(said_by(thread, "Two."), 5)
        said = [i.text for i in await thread.history() if isinstance(i, Message)]
        assert said == ["one", "more", "Two."]


async def said_by(thread: treadle.Thread, text: str) -> None:
    """Waits until the agent has said something."""
    async for event in thread.subscribe():
        if isinstance(event, MessageAdded) and event.item.text == text:
            return


async def two_of(outside: treadle.Runtime, thread: treadle.Thread, run_id: str) -> str:
    ended = await outside._threads.ended(thread.id, run_id)  # type: ignore[reportPrivateUsage]
    assert ended.event.run_id == run_id
    return {"RunCancelled": "cancelled", "RunCompleted": "completed"}[type(ended.event).__name__]


async def test_only_one_process_drives(url: str) -> None:
    async with treadle.open(url) as driving:
        with pytest.raises(JournalLocked, match="drive=False"):
            await treadle.open(url).start()
        assert await driving.threads() == []
    async with treadle.open(url):
        pass


async def test_what_only_the_driver_can_do(url: str) -> None:
    agent = Agent(ScriptedModel([]))
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as outside,
    ):
        thread = await outside.create_thread(agent)
        assert [info.id for info in await driving.threads()] == [thread.id]
        assert (await thread.fork()).id in [info.id for info in await driving.threads()]
        with pytest.raises(JournalLocked, match="delete"):
            await thread.delete()
        with pytest.raises(ThreadNotFound):
            await outside.connect("thread_none")


async def test_a_deleted_thread_ends_for_its_watchers(url: str) -> None:
    agent = Agent(ScriptedModel(["One."]))
    async with (
        treadle.open(url, agents=[agent]) as driving,
        treadle.open(url, drive=False) as outside,
    ):
        thread = await driving.create_thread(agent)
        await (await thread.send("one")).result()
        mine = await outside.connect(thread.id)
        subscription = mine.subscribe()
        await text_to_the_end(subscription)
        await asyncio.sleep(0.2)
        await thread.delete()
        with pytest.raises(ThreadNotFound):
            await anext(subscription)


async def test_watching_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="does not exist"):
        await treadle.open(f"sqlite:///{tmp_path / 'none.db'}", drive=False).start()
    assert not (tmp_path / "none.db").exists()


async def test_the_socket_belongs_to_its_owner(url: str, tmp_path: Path) -> None:
    async with treadle.open(url):
        assert (tmp_path / "treadle.db-live").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "treadle.db").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "treadle.db-live").exists()


async def test_a_watcher_that_says_nonsense_is_sent_away(url: str, tmp_path: Path) -> None:
    async with treadle.open(url):
        for said in (b"nonsense\n", b'{"thread_id":"thread_none","seq":0}\n', b""):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "treadle.db-live")
            writer.write(said)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()


async def test_a_watcher_does_not_hold_the_shutdown_up(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(ScriptedModel(["One."]))
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        await (await thread.send("hi")).result()
        async with treadle.open(url, drive=False) as watching:
            mine = await watching.connect(thread.id)
            subscription = mine.subscribe()
            await text_to_the_end(subscription)
            await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                await driving.shutdown()
            assert not caplog.records


async def test_edits_follow_what_waits_in_the_inbox(url: str) -> None:
    agent = Agent(ScriptedModel([]), blocks=[Block("notes", "one")])
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        await thread.memory.append("notes", "two")
    async with treadle.open(url, drive=False) as outside:  # nobody drives, and all of it waits
        memory = (await outside.connect(thread.id)).memory
        await memory.append("notes", "three")
        await memory.create("plan", "first")
        await memory.append("plan", "second")
        await memory.undo("plan")
        with pytest.raises(BlockExists):
            await memory.create("plan")
        with pytest.raises(UnknownBlock):
            await memory.append("nothing", "x")
        await memory.undo("notes")
        await memory.undo("notes")
    async with treadle.open(url, agents=[agent]) as driving:
        memory = (await driving.connect(thread.id)).memory
        async with asyncio.timeout(10):
            while len(await driving.journal.waiting_threads()):  # noqa: ASYNC110 - it is polled
                await asyncio.sleep(0.02)
        assert [block.value for block in await memory.blocks()] == ["one", "first"]
