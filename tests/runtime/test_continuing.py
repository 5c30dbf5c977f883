"""Creating, seeding and continuing threads: history, keys, items without a run, expected events."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import Agent, FunctionCall, FunctionCallOutput, Message, Runtime, Thread, tool
from treadle.domain.events import ItemsAdded, MessageAdded
from treadle.errors import (
    Conflict,
    InvalidInput,
    NotDriven,
    RunInProgress,
    RunTimeout,
    ThreadNotFound,
)
from treadle.models.base import ModelRequest
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]

HISTORY = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is in stock?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3 lamps"},
    {"role": "assistant", "content": "Three lamps."},
]


@tool(external=True)
async def ask(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


def asks(call_id: str = "q1") -> Call:
    return Call("ask", json.dumps({"question": "?"}), call_id)


def an_agent(*script: object) -> Agent:
    return Agent(ScriptedModel(script or ["A."] * 20), name="a", tools=[ask])  # type: ignore[arg-type]


async def until(run: treadle.ThreadRun, type: str) -> None:
    async for event in run:
        if event.type == type:
            return


async def said(thread: Thread) -> list[str]:
    return [item.text for item in await thread.history() if isinstance(item, Message)]


# History and keys


async def test_a_thread_begins_with_a_history(open_runtime: Open) -> None:
    seen: list[ModelRequest] = []

    def answer(request: ModelRequest) -> str:
        seen.append(request)
        return "Yes."

    agent = an_agent(answer)
    async with open_runtime(agent) as runtime:
        view = runtime.for_owner("acme", by="ann")
        thread = await view.create_thread(agent, history=HISTORY)
        kinds = [event.type for event in await thread.events()]
        assert kinds == [*["message.added"] * 3, "items.added", "message.added"]
        assert {getattr(event, "by", "") for event in await thread.events()} == {"ann"}
        assert (await thread.info()).title == "What is in stock?"
        assert (await thread.info()).status is None
        assert await thread.active_run() is None
        run = await thread.send("Are you sure?")
        result = await run.result()
        assert len(seen[0].items) == 7
        assert len(result.items) == 2
        assert len(await view.search("lamps")) == 1
    async with open_runtime(agent) as runtime:
        reopened = await runtime.connect(thread.id)
        history = await reopened.history()
        assert len(history) == 8
        assert isinstance(history[3], FunctionCall)
        assert isinstance(history[4], FunctionCallOutput)
        fork = await reopened.fork(at=3)
        assert await said(fork) == ["Be short.", "What is in stock?", "I look."]


@pytest.mark.parametrize(
    "history",
    [
        [{"role": "user", "content": 5}],
        [FunctionCall("c1", "look", "{}")],
        [FunctionCallOutput("c1", "x")],
        "hi",
        [object()],
        [Message("user", (b"x",))],  # type: ignore[arg-type]
        5,
    ],
)
async def test_what_is_not_a_history_creates_no_thread(open_runtime: Open, history: object) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        with pytest.raises(InvalidInput):
            await runtime.create_thread(agent, history=history, key="k")
        assert await runtime.threads() == []
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput):
            await thread.add(history)
        assert await thread.events() == []


async def test_a_key_names_one_thread_of_its_owner(open_runtime: Open) -> None:
    agent, other = an_agent(), Agent(ScriptedModel([]), name="b")
    async with open_runtime(agent, other) as runtime:
        alice, bob = runtime.for_owner("alice"), runtime.for_owner("bob")
        made = [
            alice.create_thread(agent, key="chat-1", metadata={"a": 1, "b": 2}, history=HISTORY)
            for _ in range(5)
        ]
        first, *others = await asyncio.gather(*made)
        assert {one.id for one in others} == {first.id}
        assert sum(one.is_new for one in (first, *others)) == 1
        assert len(await first.events()) == 5
        again = await alice.create_thread(
            "a", key="chat-1", metadata={"b": 2, "a": 1}, history=HISTORY
        )
        assert (again.id, again.is_new) == (first.id, False)
        assert (await alice.create_thread(agent)).is_new
        assert (await first.info()).key == "chat-1"
        for options in (
            {"agent": other, "metadata": {"a": 1, "b": 2}, "history": HISTORY},
            {"agent": agent, "metadata": {"a": 1}, "history": HISTORY},
            {"agent": agent, "metadata": {"a": 1, "b": 2}, "history": HISTORY[:2]},
        ):
            with pytest.raises(Conflict, match="'chat-1' was created with another"):
                await alice.create_thread(**options, key="chat-1")
        theirs = await bob.create_thread(agent, key="chat-1")
        assert theirs.id != first.id
        assert (await alice.connect(key="chat-1")).id == first.id
        assert (await runtime.connect(key="chat-1", owner="bob")).id == theirs.id
        with pytest.raises(ThreadNotFound):
            await runtime.connect(key="chat-1")
        with pytest.raises(InvalidInput, match="not both"):
            await alice.connect(first.id, key="chat-1")
        await first.delete()
        with pytest.raises(ThreadNotFound):
            await alice.connect(key="chat-1")
        assert (await first_of(alice, agent)).id == first.id
    async with open_runtime(agent) as runtime:
        assert (await runtime.for_owner("bob").create_thread(agent, key="chat-1")).id == theirs.id


async def first_of(view: treadle.RuntimeView, agent: Agent) -> Thread:
    return await view.create_thread(agent, key="chat-1")


async def test_no_two_owners_and_keys_name_the_same_thread(open_runtime: Open) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        pairs = [
            ("a", "b\0c"),
            ("a\0b", "c"),
            ("a\0b\0c", "d"),
            ("", "a\0b"),
            ("a", "b"),
            ("", "b"),
        ]
        threads = [await runtime.create_thread(agent, owner=o, key=k) for o, k in pairs]
        assert len({one.id for one in threads}) == len(pairs)


# Items without a run


async def test_items_are_added_without_a_run(open_runtime: Open) -> None:
    agent = an_agent("Fine.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.add(HISTORY, key="import")
        before = await thread.events()
        await thread.add(HISTORY, key="import")
        with pytest.raises(Conflict, match="'import' was used"):
            await thread.add(HISTORY[:2], key="import")
        with pytest.raises(Conflict, match="'import' was used"):
            await thread.send("Hi.", key="import")
        assert await thread.events() == before
        assert await thread.runs() == []
        await (await thread.send("And?")).result()
        assert len(await thread.history()) == 8
        await thread.add([Message("assistant", "By the way.")])
        assert (await said(thread))[-1] == "By the way."
        last = (await thread.events())[-1]
        assert isinstance(last, MessageAdded)
        await thread.remove_event(last.seq)
        assert (await said(thread))[-1] == "Fine."
        with pytest.raises(InvalidInput, match="no items"):
            await thread.add([])


async def test_a_call_that_was_added_is_removed_with_its_output(open_runtime: Open) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, history=HISTORY)
        event = next(one for one in await thread.events() if isinstance(one, ItemsAdded))
        with pytest.raises(InvalidInput):
            await thread.remove_event(event.seq)
        await thread.remove_event(event.seq, event.items[0])
        assert all(isinstance(item, Message) for item in await thread.history())
        assert b"3 lamps" not in b"".join(await thread.export())
        state = await thread.state()
        assert len(state.history) == 6
    async with open_runtime(agent) as runtime:
        assert await (await runtime.connect(thread.id)).state() == state


async def test_no_items_are_added_while_a_run_is_active(open_runtime: Open) -> None:
    agent = an_agent([asks()], "Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Hi.")
        await until(run, "run.requires_action")
        with pytest.raises(RunInProgress) as busy:
            await thread.add(HISTORY)
        assert busy.value.run_id == run.id
        await thread.submit_tool_output("q1", "x")
        await run.result()
        await thread.add(HISTORY)


def test_a_client_adds_messages_of_the_user_only() -> None:
    texts = [one.text for one in treadle.user_messages(["Hi.", {"role": "user", "content": "x"}])]
    assert "".join(texts) == "Hi.x"
    assert [one.role for one in treadle.user_messages("Hi.")] == ["user"]
    for wrong in (
        HISTORY,
        [{"role": "developer", "content": "Obey."}],
        Message("system", "Obey."),
        [Message("assistant", "I did.")],
        [FunctionCall("c1", "look", "{}")],
        {"type": "function_call_output", "call_id": "c1", "output": "x"},
        [Message("user", "a"), {"type": "reasoning"}],
    ):
        with pytest.raises(InvalidInput):
            treadle.user_messages(wrong)


# Several messages


async def test_several_messages_are_answered_by_one_run(open_runtime: Open) -> None:
    agent = an_agent([asks()], "Done.", "Next.")
    three = ["One.", {"role": "user", "content": "Two."}, Message("user", "Three.")]
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await runtime.for_owner(None, by="ann").connect(thread.id)
        run = await run.send(three, key="k")
        again = await thread.send(three, key="k")
        assert again.id == run.id
        with pytest.raises(Conflict):
            await thread.send(three[1:], key="k")
        await until(run, "run.requires_action")
        queued = await thread.send(["Four.", Message("user", "Five.")])
        steered = await thread.send([Message("user", "Six."), "Seven."], on_busy="steer")
        assert steered.id == run.id
        await thread.submit_tool_output("q1", "x")
        await queued.result()
        assert await said(thread) == [
            "One.", "Two.", "Three.", "Six.", "Seven.", "Done.", "Four.", "Five.", "Next.",
        ]  # fmt: skip
        for one, texts in ((run, three), (queued, ["Four.", "Five."])):
            begun = [event async for event in one.events() if event.type == "message.added"]
            asked = [event for event in begun if event.origin == "user"]
            assert len(asked) >= len(texts)
        by = {
            event.item.text: event.by
            for event in await thread.events()
            if event.type == "message.added"
        }
        assert (by["One."], by["Three."], by["Four."]) == ("ann", "ann", "")
        with pytest.raises(InvalidInput):
            await thread.send([Message("user", "a"), {"role": "system", "content": "b"}])
        with pytest.raises(InvalidInput, match="At most 100"):
            await thread.send([Message("user", "a")] * 101)
    async with open_runtime(agent) as runtime:
        assert len(await (await runtime.connect(thread.id)).runs()) == 2


async def test_messages_that_wait_survive_a_restart(open_runtime: Open) -> None:
    agent = an_agent([asks()], "Done.", "Next.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await until(await thread.send("One."), "run.requires_action")
        queued = await thread.send([Message("user", "Two."), "Three."])
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        await thread.submit_tool_output("q1", "x")
        await (await thread.run(queued.id)).result()
        assert await said(thread) == ["One.", "Done.", "Two.", "Three.", "Next."]
        added = [event for event in await thread.events() if event.type == "message.added"]
        removed = next(event.seq for event in added if event.item.text == "Two.")
        await thread.remove_event(removed)
        assert b"Two." not in b"".join(await thread.export())


# Expected events


async def test_a_message_is_refused_if_something_came_between(open_runtime: Open) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("One.", expect=0)).result()
        last = await thread.last_seq()
        with pytest.raises(Conflict, match=f"after event 0.*expect={last}"):
            await thread.send("Two.", expect=0)
        with pytest.raises(InvalidInput, match="not 99"):
            await thread.send("Two.", expect=99)
        for wrong in (-1, "1", 1.5, True):
            with pytest.raises(InvalidInput):
                await thread.send("Two.", expect=wrong)  # type: ignore[arg-type]
        assert await thread.last_seq() == last
        racers = [thread.send(f"Racer {n}.", expect=last) for n in range(8)]
        ended = await asyncio.gather(*racers, return_exceptions=True)
        runs = [one for one in ended if isinstance(one, treadle.ThreadRun)]
        assert len(runs) == 1
        assert sum(isinstance(one, Conflict) for one in ended) == 7
        await runs[0].result()
        with pytest.raises(Conflict):
            await thread.add(HISTORY, expect=last)
        await thread.add(HISTORY, expect=await thread.last_seq())


async def test_what_does_not_belong_to_the_conversation_is_not_between(
    open_runtime: Open,
) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("One.")).result()
        last = await thread.last_seq()
        await thread.memory.create("notes", "x")
        await thread.archive.insert("A fact.")
        first = next(event for event in await thread.events() if event.type == "message.added")
        await thread.pin(first.item.id)
        assert await thread.last_seq() > last
        await (await thread.send("Two.", expect=last)).result()


async def test_the_same_key_is_answered_whatever_is_expected(open_runtime: Open) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("One.", expect=0, key="k")
        await run.result()
        assert (await thread.send("One.", expect=0, key="k")).id == run.id
        assert len(await thread.runs()) == 1


async def test_a_message_continues_here_or_in_a_copy(open_runtime: Open) -> None:
    agent = an_agent()
    async with open_runtime(agent) as runtime:
        view = runtime.for_owner("acme", by="ann")
        thread = await view.create_thread(agent)
        await (await thread.send("One.")).result()
        last = await thread.last_seq()
        racers = [thread.send_after(last, f"Racer {n}.") for n in range(6)]
        runs = await asyncio.gather(*racers)
        assert sum(run.thread_id == thread.id for run in runs) == 1
        assert len({run.thread_id for run in runs}) == 6
        for n, run in enumerate(runs):
            await run.result()
            continued = await view.connect(run.thread_id)
            assert await said(continued) == ["One.", "A.", f"Racer {n}.", "A."]
            if run.thread_id != thread.id:
                assert (await continued.info()).forked_from == thread.id
            asked = [e for e in await continued.events() if e.type == "message.added"]
            assert [e.by for e in asked if e.origin == "user"] == ["ann", "ann"]
        earlier = await thread.send_after(0, "Anew.", key="k")
        assert earlier.thread_id != thread.id
        await earlier.result()
        again = await thread.send_after(0, "Anew.", key="k")
        assert (again.id, again.thread_id) == (earlier.id, earlier.thread_id)
        with pytest.raises(Conflict):
            await thread.send_after(0, "Otherwise.", key="k")
        with pytest.raises(Conflict):
            await thread.send_after(1, "Anew.", key="k")
        with pytest.raises(InvalidInput):
            await thread.send_after(999, "Anew.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        again = await thread.send_after(0, "Anew.", key="k")
        assert (again.id, again.thread_id) == (earlier.id, earlier.thread_id)


async def test_a_copy_continues_beside_a_run_that_is_active(open_runtime: Open) -> None:
    agent = an_agent([asks()], "Elsewhere.", "Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("One.")
        await until(run, "run.requires_action")
        beside = await thread.send_after(await thread.last_seq(), "Two.")
        assert beside.thread_id != thread.id
        assert (await beside.result()).status == "completed"
        await thread.submit_tool_output("q1", "x")
        assert (await run.result()).status == "completed"


# From another process


async def test_another_process_learns_the_verdict(tmp_path: Path) -> None:
    url, agent = f"sqlite:///{tmp_path / 'treadle.db'}", an_agent()
    async with treadle.open(url, agents=[agent]) as driver:
        here = await driver.create_thread(agent)
        async with treadle.open(url, agents=[agent], drive=False) as sender:
            thread = await sender.connect(here.id)
            run = await thread.send("One.", expect=0)
            assert run.is_driven
            await run.result()
            last = await thread.last_seq()
            racers = [
                (thread if n % 2 else here).send(f"Racer {n}.", expect=last) for n in range(6)
            ]
            ended = await asyncio.gather(*racers, return_exceptions=True)
            runs = [one for one in ended if isinstance(one, treadle.ThreadRun)]
            assert len(runs) == 1
            assert sum(isinstance(one, Conflict) for one in ended) == 5
            await runs[0].result()
            last = await thread.last_seq()
            racers = [
                (thread if n % 2 else here).send_after(last, f"Branch {n}.", key=f"{n}")
                for n in range(4)
            ]
            runs = await asyncio.gather(*racers)
            assert sum(one.thread_id == here.id for one in runs) == 1
            for one in runs:
                await one.result()
            again = await thread.send_after(last, "Branch 1.", key="1")
            assert (again.id, again.thread_id) == (runs[1].id, runs[1].thread_id)
            await thread.add(HISTORY, key="h")
            await thread.add(HISTORY, key="h")
            with pytest.raises(Conflict):
                await thread.add(HISTORY[:1], key="h")
            with pytest.raises(Conflict):
                await thread.add(HISTORY, expect=0)
            seeded = await sender.create_thread(agent, history=HISTORY, key="s", owner="o")
            same = await driver.create_thread(agent, history=HISTORY, key="s", owner="o")
            assert same.id == seeded.id
            assert len(await same.history()) == 6


async def test_without_a_driver_the_sender_is_told(tmp_path: Path) -> None:
    url, agent = f"sqlite:///{tmp_path / 'treadle.db'}", an_agent()
    async with treadle.open(url, agents=[agent]) as driver:
        thread = await driver.create_thread(agent)
        slow = await thread.send("Zero.")
        await slow.result(timeout=60)
    async with treadle.open(url, agents=[agent], drive=False) as sender:
        there = await sender.connect(thread.id)
        run = await there.send("One.")
        assert not run.is_driven
        with pytest.raises(NotDriven, match="no process drives") as error:
            await run.result(timeout=5)
        assert error.value.retryable
        with pytest.raises(NotDriven):
            await there.send("Two.", expect=await there.last_seq())
        with pytest.raises(NotDriven):
            await there.add(HISTORY)
        with pytest.raises(NotDriven):
            await there.send_after(1, "Two.")
        async with treadle.open(url, agents=[agent]) as driver:
            assert (await run.result(timeout=60)).status == "completed"
            assert (await there.send("Two.")).is_driven
    async with treadle.open(url, agents=[agent]) as driver:
        assert (await said(await driver.connect(thread.id)))[:4] == ["Zero.", "A.", "One.", "A."]


async def test_a_run_that_takes_too_long_continues(open_runtime: Open) -> None:
    agent = an_agent([asks()], "Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("One.")
        with pytest.raises(RunTimeout, match="10 s") as error:
            await run.result(timeout=10)
        assert error.value.retryable
        with pytest.raises(RunTimeout):
            await run.text(timeout=0)
        await thread.submit_tool_output("q1", "x")
        assert await run.text(timeout=10) == "Done."


# An answer that was begun elsewhere

BEGUN = HISTORY[2:4]


async def test_a_run_continues_an_answer_that_was_begun_elsewhere(open_runtime: Open) -> None:
    seen: list[ModelRequest] = []

    def answer(request: ModelRequest) -> str:
        seen.append(request)
        return "Three lamps."

    agent = an_agent(answer, answer)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("What is in stock?", so_far=BEGUN)
        assert await run.text() == "Three lamps."
        kinds = [type(item).__name__ for item in seen[0].items]
        assert kinds == ["Message", "Message", "FunctionCall", "FunctionCallOutput"]
        items = (await run.result()).items
        assert [getattr(item, "text", "") for item in items] == [
            *("What is in stock?", "I look.", "", "3 lamps", "Three lamps."),
        ]
        assert await said(thread) == ["What is in stock?", "I look.", "Three lamps."]
        await (await thread.send("Sure?")).result()
        assert len(seen[1].items) == 6


async def test_an_answer_that_was_begun_waits_for_its_turn(open_runtime: Open) -> None:
    agent = an_agent(asks(), "First.", "Three lamps.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send("Wait.")
        await until(first, "run.requires_action")
        second = await thread.send("Stock?", so_far=BEGUN, key="k")
        assert (await thread.send("Stock?", so_far=BEGUN, key="k")).id == second.id
        with pytest.raises(Conflict):
            await thread.send("Stock?", key="k")
        with pytest.raises(InvalidInput, match="so_far"):
            await thread.send("Stock?", so_far=BEGUN, on_busy="steer")
        with pytest.raises(InvalidInput, match="c1"):
            await thread.send("Stock?", so_far=BEGUN[:1])
        await thread.submit_tool_output("q1", "yes")
        assert await second.text() == "Three lamps."
        assert await said(thread) == ["Wait.", "First.", "Stock?", "I look.", "Three lamps."]


async def test_what_was_begun_elsewhere_counts_for_no_rule() -> None:
    """The calls are the caller's: they must not unlock a tool, and the message is still known."""
    messages: list[str] = []

    @tool
    async def look(context: treadle.RunContext) -> str:
        """Looks."""
        assert context.message is not None
        messages.append(context.message.text)
        return "none"

    rules = treadle.ToolRules(by_output={"look": {"3 lamps": "sell"}}, after={"sell": "look"})

    @tool
    async def sell() -> str:
        """Sells."""
        return "sold"

    script = [Call("sell", "{}", "s1"), Call("look", "{}", "l1"), "Done."]
    agent = Agent(ScriptedModel(script), tools=[look, sell], rules=rules)
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Sell one.", so_far=BEGUN)).result()
        outputs = [o.text for o in await thread.history() if isinstance(o, FunctionCallOutput)]
        assert outputs[0] == "3 lamps"
        assert "only after look has succeeded" in outputs[1]
        assert messages == ["Sell one."]


async def test_another_process_sends_an_answer_that_was_begun(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    agent = an_agent("Three lamps.")
    async with (
        treadle.open(url, agents=[agent]) as driver,
        treadle.open(url, agents=[agent], drive=False) as sender,
    ):
        thread = await driver.create_thread(agent)
        there = await sender.connect(thread.id)
        run = await there.send("Stock?", so_far=BEGUN)
        assert await run.text() == "Three lamps."
        assert await said(thread) == ["Stock?", "I look.", "Three lamps."]
        [added] = [event for event in await thread.events() if isinstance(event, ItemsAdded)]
        assert added.run_id == run.id
        await thread.remove_event(added.seq, added.items[1])
        assert await said(thread) == ["Stock?", "I look.", "Three lamps."]
        assert len(await thread.history()) == 3


# A run without a message


async def test_a_run_answers_what_was_added(open_runtime: Open) -> None:
    seen: list[ModelRequest] = []

    def answer(request: ModelRequest) -> str:
        seen.append(request)
        return "Hello."

    agent = an_agent(answer, "Again.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput, match="no message"):
            await thread.send([])
        await thread.add([{"role": "user", "content": "Hi."}])
        run = await thread.send([], key="k")
        assert await run.text() == "Hello."
        assert (await thread.send([], key="k")).id == run.id
        assert [item.text for item in seen[0].items if isinstance(item, Message)] == ["Hi."]
        result = await run.result()
        assert [getattr(item, "text", "") for item in result.items] == ["Hi.", "Hello."]
        with pytest.raises(InvalidInput, match="so_far"):
            await thread.send([], so_far=BEGUN)
        with pytest.raises(InvalidInput, match="steers"):
            await thread.send([], on_busy="steer")
        assert await said(thread) == ["Hi.", "Hello."]


async def test_a_run_that_failed_is_tried_again(open_runtime: Open) -> None:
    agent = an_agent(treadle.errors.BadRequest("No."), "Yes.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(treadle.errors.BadRequest):
            await (await thread.send("Hi.")).result()
        assert await (await thread.send([])).text() == "Yes."
        assert await said(thread) == ["Hi.", "Yes."]


async def test_a_run_without_a_message_does_not_wait(open_runtime: Open) -> None:
    agent = an_agent(asks(), "First.", "Second.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Wait.")
        await until(run, "run.requires_action")
        with pytest.raises(RunInProgress):
            await thread.send([])
        await thread.submit_tool_output("q1", "yes")
        await run.result()
        assert await (await thread.send([])).text() == "Second."


async def test_another_process_starts_a_run_without_a_message(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    agent = an_agent("Hello.", asks(), "Last.")
    async with (
        treadle.open(url, agents=[agent]) as driver,
        treadle.open(url, agents=[agent], drive=False) as sender,
    ):
        thread = await driver.create_thread(agent, history=[{"role": "user", "content": "Hi."}])
        there = await sender.connect(thread.id)
        run = await there.send([])
        assert await run.text() == "Hello."
        waiting = await there.send("And?")
        await until(waiting, "run.requires_action")
        with pytest.raises(RunInProgress):
            await there.send([])
    async with treadle.open(url, agents=[agent], drive=False) as alone:
        there = await alone.connect(thread.id)
        with pytest.raises((NotDriven, RunInProgress)):
            await there.send([])
