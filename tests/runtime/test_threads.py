"""Threads and runs: sending, queueing, steering, answering, ending; on every journal."""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence

import pytest

import treadle
from treadle import Agent, Limits, RetryPolicy, Runtime, Thread, tool
from treadle.domain.events import (
    DurableEvent,
    Event,
    MessageAdded,
    RunCompleted,
    RunFailed,
    StepInterrupted,
    TerminalEvent,
    TextDelta,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.history import require_valid
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message
from treadle.errors import (
    ConfigurationError,
    Conflict,
    HookFailed,
    InvalidInput,
    JournalClosed,
    RateLimited,
    RunInProgress,
    RunInterrupted,
    RunNotFound,
    ServerFailed,
    ThreadNotFound,
    UnknownAgent,
    UnknownToolCall,
)
from treadle.journal.sqlite import SqliteJournal
from treadle.loop.definition import hash_of
from treadle.models.base import ModelRequest
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@tool
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return f"slept {seconds:g}"


@tool(external=True)
async def ask_client(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


@tool(needs_approval=True)
async def remove(name: str) -> str:
    """Needs a person."""
    return f"removed {name}"


@tool(needs_approval=lambda arguments: arguments["amount"] > 10)
async def pay(amount: int) -> str:
    """Needs a person for much."""
    return f"paid {amount}"


def say(tool_name: str, call_id: str = "", **arguments: object) -> Call:
    return Call(tool_name, json.dumps(arguments), call_id or None)


def outputs(items: Sequence[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, FunctionCallOutput)]


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events if isinstance(event, DurableEvent)]


async def until(thread: Thread, kind: type[Event], count: int = 1) -> Event:
    """Waits for the `count`-th event of a kind."""
    async for event in thread.subscribe():
        if isinstance(event, kind):
            count -= 1
            if not count:
                return event
    raise AssertionError("the thread ended")


async def test_a_conversation_of_two_runs(open_runtime: Open) -> None:
    model = ScriptedModel(["Hello.", "Again."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, metadata={"topic": "x"}, owner="me")
        first = await (await thread.send("hi")).result()
        second = await (await thread.send("more")).result()
        assert (first.text, second.text) == ("Hello.", "Again.")
        assert [len(request.items) for request in model.requests] == [1, 3]
        assert [item.text for item in second.items if isinstance(item, Message)] == [
            "more",
            "Again.",
        ]
        info = await thread.info()
        assert (info.title, info.status, info.owner) == ("hi", "completed", "me")
        assert info.metadata == {"topic": "x"}
        runs = await thread.runs()
        assert [(run.status, run.agent_hash) for run in runs] == [("completed", hash_of(agent))] * 2


async def test_the_order_of_events(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Text("Wait."), say("slow", seconds=1)], "Done."]), tools=[slow])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        events = [event async for event in run]
        assert kinds(events) == [
            "MessageAdded",
            "RunStarted",
            "StepStarted",
            "MessageAdded",
            "ToolCallRequested",
            "ResponseCompleted",
            "ToolStarted",
            "ToolOutputRecorded",
            "StepCompleted",
            "StepStarted",
            "MessageAdded",
            "ResponseCompleted",
            "StepCompleted",
            "RunCompleted",
        ]
        assert [e.seq for e in events if isinstance(e, DurableEvent)] == list(range(1, 15))
        again = [event async for event in await thread.run(run.id)]
        assert kinds(again) == kinds(events)
        with pytest.raises(RunNotFound):
            await thread.run("run_none")


async def test_runs_queue_first_in_first_out(open_runtime: Open) -> None:
    count = 100
    agent = Agent(ScriptedModel([f"answer {n}" for n in range(count)]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        runs = [await thread.send(f"question {n}") for n in range(count)]
        texts = [(await run.result()).text for run in runs]
        assert texts == [f"answer {n}" for n in range(count)]
        history = await thread.history()
        require_valid(history)
        asked = [item.text for item in history if isinstance(item, Message)][::2]
        assert asked == [f"question {n}" for n in range(count)]


async def test_a_message_that_steers_enters_at_the_next_safe_point(open_runtime: Open) -> None:
    model = ScriptedModel([[say("slow", seconds=5)], "Turned."])
    agent = Agent(model, tools=[slow])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, ToolStarted)
        steered = await thread.send("left", on_busy="steer")
        assert steered.id == run.id
        assert (await run.result()).text == "Turned."
        assert [type(item) for item in model.requests[1].items] == [
            Message,
            FunctionCall,
            FunctionCallOutput,
            Message,
        ]
        assert outputs(model.requests[1].items) == ["slept 5"]


async def test_steering_skips_the_calls_that_did_not_start(open_runtime: Open) -> None:
    model = ScriptedModel(
        [[say("slow", seconds=5), say("slow", seconds=6), say("remove", name="x")], "Turned."]
    )
    agent = Agent(model, tools=[slow, remove], max_parallel_tools=1)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, ToolStarted)
        await asyncio.sleep(1)
        await thread.send("left", on_busy="steer")
        assert (await run.result()).text == "Turned."
        skipped = "Skipped: the user sent a new message."
        assert outputs(model.requests[1].items) == ["slept 5", skipped, skipped]


async def test_a_message_that_steers_an_idle_thread_starts_a_run(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hello."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi", on_busy="steer")
        assert (await run.result()).text == "Hello."


async def test_a_message_that_steers_is_not_lost_when_the_run_is_cancelled(
    open_runtime: Open,
) -> None:
    model = ScriptedModel([[Pause(9999)], "Now."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await thread.send("left", on_busy="steer")
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
        await (await thread.send("and")).result()
        assert [i.text for i in model.requests[1].items if isinstance(i, Message)] == [
            "go",
            "left",
            "and",
        ]


async def test_a_busy_thread_can_reject(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(9999)]]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        with pytest.raises(RunInProgress) as caught:
            await thread.send("no", on_busy="reject")
        assert caught.value.run_id == run.id
        await run.cancel()


async def test_a_message_can_cancel_and_go_first(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(9999)], "Urgent.", "Patient."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send("go")
        patient = await thread.send("patient")
        urgent = await thread.send("urgent", on_busy="cancel")
        assert (await first.result(raise_on_incomplete=False)).status == "cancelled"
        assert (await urgent.result()).text == "Urgent."
        assert (await patient.result()).text == "Patient."


async def test_a_key_gives_the_same_run_during_and_after_it(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        runs = await asyncio.gather(*(thread.send("hi", key="k") for _ in range(20)))
        assert len({run.id for run in runs}) == 1
        assert (await runs[0].result()).text == "One."
        with pytest.raises(Conflict, match="another message"):
            await thread.send("other", key="k")
        after = await thread.send("hi", key="k")
        assert after.id == runs[0].id
        assert (await after.result()).text == "One."
        other = await thread.send("hi", key="k2")
        assert (await other.result()).text == "Two."
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert (await thread.send("hi", key="k")).id == runs[0].id


async def test_a_key_holds_for_queued_and_steering_messages(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(5), Text("One.")], "Steered.", "Two."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        queued = [await thread.send("next", key="q") for _ in range(3)]
        steered = [await thread.send("left", key="s", on_busy="steer") for _ in range(3)]
        assert {one.id for one in steered} == {run.id}
        assert len({one.id for one in queued}) == 1
        assert (await queued[0].result()).text == "Two."
        said = [i.text for i in await thread.history() if isinstance(i, Message)]
        assert said == ["go", "One.", "left", "Steered.", "next", "Two."]


async def test_connecting_takes_no_thread_and_fifty_entries_load_it_once(
    open_runtime: Open,
) -> None:
    agent = Agent(ScriptedModel(["Hello."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
    async with open_runtime(agent) as runtime:
        threads = await asyncio.gather(*(runtime.connect(thread.id) for _ in range(50)))
        assert not any([await one.history() for one in threads])
        claim = await runtime.journal.claim(thread.id)
        assert claim.epoch == 2  # when it was created, and now
        await asyncio.gather(*(one.cancel_job("job_none") for one in threads))
        claim = await runtime.journal.claim(thread.id)
        assert claim.epoch == 4  # when it was loaded, and now


async def test_an_unknown_thread(open_runtime: Open) -> None:
    async with open_runtime() as runtime:
        with pytest.raises(ThreadNotFound):
            await runtime.connect("thread_none")


async def test_an_idle_thread_leaves_the_memory_and_comes_back(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]))
    async with open_runtime(agent, idle_seconds=10) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        subscription = thread.subscribe()
        await anext(subscription)
        await asyncio.sleep(60)
        driver = runtime._threads._driver  # type: ignore[attr-defined]
        assert thread.id in driver._actors  # type: ignore[attr-defined]
        await subscription.aclose()
        await asyncio.sleep(60)
        assert not driver._actors  # type: ignore[attr-defined]
        assert (await (await thread.send("again")).result()).text == "Two."


async def test_shutting_down_twice_is_harmless(open_runtime: Open) -> None:
    runtime = open_runtime()
    await runtime.start()
    await runtime.shutdown()
    await runtime.shutdown()
    with pytest.raises(JournalClosed):
        await runtime.connect("x")


async def test_a_run_goes_on_when_the_runtime_is_opened_again(open_runtime: Open) -> None:
    model = ScriptedModel([[Text("Half"), Pause(9999)], "Whole."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        waiting = asyncio.create_task(run.result())
        await asyncio.sleep(1)
    with pytest.raises(RunInterrupted):
        await waiting
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        result = await (await thread.run(run.id)).result()
        assert (result.text, result.steps) == ("Whole.", 2)
        events = await thread.events()
        assert any(isinstance(event, StepInterrupted) for event in events)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_tool_that_may_have_run_is_not_run_again(open_runtime: Open) -> None:
    ran: list[str] = []

    @tool
    async def effect(name: str) -> str:
        """Does something once."""
        ran.append(name)
        await asyncio.sleep(60)
        return "done"

    @tool(idempotent=True)
    async def harmless(context: treadle.RunContext, name: str) -> str:
        """Does something that may be done again."""
        ran.append(f"{name} {context.idempotency_key}")
        await asyncio.sleep(60)
        return "done again"

    model = ScriptedModel(
        [[say("effect", "c1", name="a"), say("harmless", "c2", name="b")], "Whole."]
    )
    agent = Agent(model, tools=[effect, harmless])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await until(thread, ToolStarted, 2)
        await asyncio.sleep(1)
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert (await (await thread.run(run.id)).result()).text == "Whole."
        assert ran == ["a", "b c2", "b c2"]
        assert outputs(model.requests[1].items) == [
            "Interrupted: the process ended while the tool ran, its outcome is unknown.",
            "done again",
        ]


async def test_steering_skips_no_call_that_an_earlier_process_started(open_runtime: Open) -> None:
    @tool(idempotent=True)
    async def nap(seconds: float) -> str:
        """Naps."""
        await asyncio.sleep(seconds)
        return "rested"

    calls = [say("nap", "c1", seconds=5), say("nap", "c2", seconds=5)]
    async with open_runtime(Agent(ScriptedModel([calls]), tools=[nap])) as runtime:
        thread = await runtime.create_thread("agent")
        run = await thread.send("go")
        await asyncio.sleep(1)
    one_by_one = Agent(ScriptedModel(["Done."]), tools=[nap], max_parallel_tools=1)
    async with open_runtime(one_by_one) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(1)
        await thread.send("more", on_busy="steer")
        await (await thread.run(run.id)).result()
        assert outputs(await thread.history()) == ["rested", "rested"]


async def test_external_calls_and_approvals_come_in_any_order(open_runtime: Open) -> None:
    calls = [
        say("ask_client", "c1", question="one"),
        say("remove", "c2", name="x"),
        say("slow", "c3", seconds=1),
        say("remove", "c4", name="y"),
        say("ask_client", "c5", question="two"),
        say("pay", "c6", amount=5),
        say("pay", "c7", amount=50),
    ]
    model = ScriptedModel([calls, "Done."])
    agent = Agent(model, tools=[ask_client, remove, slow, pay])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, ToolOutputRecorded, 2)
        assert [pending.call.call_id for pending in await thread.pending_calls()] == [
            "c1",
            "c2",
            "c4",
            "c5",
            "c7",
        ]
        assert (await thread.info()).status == "requires_action"
        await thread.submit_tool_output("c5", {"two": 2})
        await thread.deny("c4", "not that one")
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        await thread.approve("c2")
        await thread.approve("c2")
        await thread.submit_tool_output("c7", "paid by hand")
        assert len(model.requests) == 1
        await thread.submit_tool_output("c1", "one", is_error=True)
        assert (await (await thread.run(run.id)).result()).text == "Done."
        assert outputs(model.requests[1].items) == [
            "one",
            "removed x",
            "slept 1",
            "The call was denied: not that one",
            '{"two":2}',
            "paid 5",
            "paid by hand",
        ]
        require_valid(await thread.history())


async def test_an_approved_call_runs_while_another_is_at_work(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel([[say("slow", "c1", seconds=60), say("remove", "c2", name="x")], "Done."]),
        tools=[slow, remove],
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, ToolStarted)
        await thread.approve("c2")
        first = await until(thread, ToolOutputRecorded)
        assert isinstance(first, ToolOutputRecorded)
        assert first.name == "remove"
        assert (await run.result()).text == "Done."


async def test_answers_that_cannot_be_given(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel([[say("ask_client", "c1", question="x"), say("slow", "c2", seconds=9)], "."]),
        tools=[ask_client, slow],
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(UnknownToolCall):
            await thread.submit_tool_output("c1", "x")
        run = await thread.send("go")
        await until(thread, ToolStarted)
        with pytest.raises(UnknownToolCall):
            await thread.submit_tool_output("c9", "x")
        with pytest.raises(UnknownToolCall):
            await thread.submit_tool_output("c2", "x")
        with pytest.raises(Conflict, match="submit the output"):
            await thread.approve("c1")
        with pytest.raises(InvalidInput, match="output cannot be represented as JSON"):
            await thread.submit_tool_output("c1", object())
        await thread.submit_tool_output("c1", "yes")
        await thread.submit_tool_output("c1", "yes")
        with pytest.raises(Conflict):
            await thread.submit_tool_output("c1", "no")
        await run.result()
        await thread.submit_tool_output("c1", "yes")
        with pytest.raises(Conflict):
            await thread.submit_tool_output("c1", "no")
        events = await thread.events()
        assert sum(isinstance(event, ToolOutputRecorded) for event in events) == 2


async def test_cancelling_closes_every_open_call(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel(
            [[say("ask_client", "c1", question="x"), say("slow", "c2", seconds=99)], "Next."]
        ),
        tools=[ask_client, slow],
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, ToolStarted)
        await run.cancel()
        await run.cancel()
        result = await run.result(raise_on_incomplete=False)
        assert result.status == "cancelled"
        require_valid(result.history)
        assert len(outputs(result.history)) == 2
        with pytest.raises(UnknownToolCall):
            await thread.approve("c9")
        assert (await (await thread.send("on")).result()).text == "Next."
        await run.cancel()  # it has ended


async def test_a_waiting_run_can_be_cancelled_after_a_restart(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[say("remove", "c1", name="x")]]), tools=[remove])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, treadle.RunRequiresAction)
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        run = await thread.run(run.id)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"


async def test_a_queued_run_can_be_cancelled(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(1), Text("One.")]]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        first, second = await thread.send("one"), await thread.send("two")
        await second.cancel()
        result = await second.result(raise_on_incomplete=False)
        assert (result.status, result.items) == ("cancelled", ())
        assert (await first.result()).text == "One."
        assert (await thread.info()).status == "completed"


async def test_a_run_expires_only_if_it_was_told_to(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel([[say("remove", "c1", name="x")], "Next."]),
        tools=[remove],
        action_timeout=20,
    )
    async with open_runtime(agent, idle_seconds=10) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        queued = await thread.send("next")
        result = await run.result(raise_on_incomplete=False)
        assert (result.status, result.stop_reason) == ("expired", "expired")
        assert outputs(result.history) == ["The answer took too long: it did not run."]
        assert (await queued.result()).text == "Next."


async def test_a_waiting_run_without_timeout_waits_for_ever(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[say("remove", "c1", name="x")], "Done."]), tools=[remove])
    async with open_runtime(agent, idle_seconds=10) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(60 if isinstance(runtime.journal, SqliteJournal) else 3e6)
        assert not runtime._threads._driver._actors  # type: ignore[attr-defined]
        await thread.approve("c1")
        assert (await run.result()).text == "Done."


async def test_finishing_ends_the_run_after_its_step(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[say("slow", seconds=5)]]), tools=[slow])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await until(thread, ToolStarted)
        await run.finish()
        assert (await run.result()).stop_reason == "finish_requested"


async def test_a_run_that_failed_raises_here_and_after_a_restart(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel([RateLimited("Slow down."), ServerFailed("No."), "Fine."]),
        retry=RetryPolicy(max_retries=1),
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        with pytest.raises(ServerFailed, match=r"No\."):
            await run.result()
        assert kinds([e async for e in run])[-4:] == [
            "RateLimitHit",
            "RetriesExhausted",
            "StepInterrupted",
            "RunFailed",
        ]
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        with pytest.raises(ServerFailed, match=r"No\.") as caught:
            await (await thread.run(run.id)).result()
        assert caught.value.retryable
        assert (await (await thread.send("on")).result()).text == "Fine."


async def test_deps_come_from_the_thread(open_runtime: Open) -> None:
    @tool
    async def whose(context: treadle.RunContext[str]) -> str:
        """Tells the owner."""
        return context.deps

    agent = Agent[str, str](ScriptedModel([[say("whose")], "Done."]), tools=[whose])
    async with open_runtime(agent, deps=lambda thread: thread.owner) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        result = await (await thread.send("go")).result()
        assert outputs(result.history) == ["ann"]


async def test_deps_that_fail_fail_the_run(open_runtime: Open) -> None:
    def deps(thread: object) -> object:
        raise KeyError("no database")

    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent, deps=deps) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(HookFailed) as failed:
            await (await thread.send("go")).result()
        assert isinstance(failed.value.__cause__, KeyError)
        event = (await thread.events())[-1]
        assert isinstance(event, RunFailed)
        assert event.message.endswith("deps failed: KeyError: 'no database'")


async def test_a_changed_definition_applies_from_the_next_run(open_runtime: Open) -> None:
    old = Agent(ScriptedModel([[say("slow", seconds=5)], "Old."]), tools=[slow], name="a")
    new = Agent(ScriptedModel(["New."]), name="a", instructions="Other.")
    async with open_runtime(old) as runtime:
        thread = await runtime.create_thread(old)
        first = await thread.send("one")
        await until(thread, ToolStarted)
        runtime.register(new)
        assert (await first.result()).text == "Old."
        assert (await (await thread.send("two")).result()).text == "New."
        assert [run.agent_hash for run in await thread.runs()] == [hash_of(old), hash_of(new)]


async def test_another_agent_may_answer(open_runtime: Open) -> None:
    one = Agent(ScriptedModel(["One."]), name="one")
    two = Agent(ScriptedModel(["Two."]), name="two")
    async with open_runtime(one, two) as runtime:
        thread = await runtime.create_thread("one")
        assert (await (await thread.send("hi", agent="two")).result()).text == "Two."
        assert (await (await thread.send("hi")).result()).text == "One."
        with pytest.raises(UnknownAgent, match="one, two"):
            await thread.send("hi", agent="three")
        with pytest.raises(UnknownAgent):
            await runtime.create_thread("three")


async def test_a_run_of_an_unknown_agent_waits_for_it(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(9999)], "Whole."]), name="a")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await until(thread, treadle.StepStarted)
    async with open_runtime() as runtime:
        await asyncio.sleep(1)
        assert [info.status for info in await runtime.threads()] == ["in_progress"]
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        assert (await (await thread.run(run.id)).result()).text == "Whole."


async def test_limits_end_a_run(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel([[say("slow", seconds=50)], "Next."]),
        tools=[slow],
        limits=Limits(max_seconds=3),
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        result = await (await thread.send("go")).result(raise_on_incomplete=False)
        assert (result.status, result.stop_reason) == ("incomplete", "max_seconds")
        assert (await (await thread.send("on")).result()).text == "Next."


async def test_a_fork_goes_its_own_way(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two.", "Other two."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="ann", metadata={"a": 1})
        await (await thread.send("one", key="k")).result()
        middle = len(await thread.events())
        await (await thread.send("two")).result()
        fork = await thread.fork(middle)
        whole = await thread.fork()
        assert await whole.history() == await thread.history()
        info = await fork.info()
        assert (info.owner, info.metadata, info.forked_from) == ("ann", {"a": 1}, thread.id)
        assert (info.title, info.status) == ("one", "completed")
        other = await fork.send("other", key="k")
        assert (await other.result()).text == "Other two."
        said = [i.text for i in await fork.history() if isinstance(i, Message)]
        assert said == ["one", "One.", "other", "Other two."]
        assert len(await thread.history()) == 4
        with pytest.raises(InvalidInput):
            await thread.fork(999)


async def test_a_fork_in_the_middle_of_a_run_is_closed(open_runtime: Open) -> None:
    agent = Agent(
        ScriptedModel([[say("slow", "c1", seconds=50)], "Whole.", "Next.", "Fork's."]), tools=[slow]
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("one")
        started = await until(thread, ToolStarted)
        assert isinstance(started, ToolStarted)
        await thread.send("two")
        fork = await thread.fork()
        require_valid(await fork.history())
        assert (await fork.info()).status == "cancelled"
        statuses = [one.status for one in await fork.runs()]
        assert statuses == ["cancelled", "cancelled"]
        assert (await run.result()).text == "Whole."


async def test_a_deleted_thread_is_gone(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(9999)]]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await until(thread, treadle.StepStarted)
        watching = asyncio.create_task(until(thread, RunCompleted))
        waiting = asyncio.create_task(run.result())
        await asyncio.sleep(1)
        await thread.delete()
        for task in (watching, waiting):
            with pytest.raises(ThreadNotFound):
                await task
        with pytest.raises(ThreadNotFound):
            await thread.send("hi")
        with pytest.raises(ThreadNotFound):
            await thread.delete()
        assert await runtime.threads() == []


async def test_threads_are_listed_in_pages(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["."] * 10))
    async with open_runtime(agent) as runtime:
        threads = [
            await runtime.create_thread(agent, owner="ann" if n % 2 else "bob") for n in range(5)
        ]
        await (await threads[0].send("hi")).result()
        ids = [info.id for info in await runtime.threads()]
        assert ids == [threads[n].id for n in (0, 4, 3, 2, 1)]
        first = await runtime.threads(limit=2)
        rest = await runtime.threads(limit=9, after=first.next)
        assert [info.id for info in [*first, *rest]] == ids
        anns = await runtime.threads(owner="ann")
        assert [info.id for info in anns] == [threads[3].id, threads[1].id]
        with pytest.raises(InvalidInput):
            await runtime.threads(limit=0)
        with pytest.raises(InvalidInput, match="not a cursor"):
            await runtime.threads(after="thread_none")
        with pytest.raises(InvalidInput, match="not a cursor"):
            await runtime.threads(after=first.next, order="created")
        by_creation = await runtime.threads(order="created", owner="ann", status=())
        assert [info.id for info in by_creation] == [threads[1].id, threads[3].id]
        (used,) = await runtime.threads(status="completed")
        assert used.id == threads[0].id
        assert not await runtime.threads(status=["failed", "expired"])


async def test_bad_input(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput, match="empty"):
            await thread.send("  ")
        with pytest.raises(InvalidInput, match="metadata"):
            await runtime.create_thread(agent, metadata={"x": object()})
        with pytest.raises(InvalidInput, match="position"):
            thread.subscribe("what")
        assert await thread.events() == []
    with pytest.raises(ConfigurationError, match="Two agents"):
        open_runtime(agent, Agent(ScriptedModel([])))


@pytest.mark.parametrize("url", ["treadle.db", "mysql://x/y", "sqlite:///", "sqlite:///:memory:"])
def test_a_url_that_is_no_database(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///treadle\.db"):
        treadle.open(url)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        treadle.open(drive=False)
    with pytest.raises(ConfigurationError, match="durability"):
        treadle.open(durability="always")  # type: ignore[arg-type]


async def test_a_foreground_run_refuses_tools_that_are_answered_outside() -> None:
    for one in (ask_client, remove, pay):
        with pytest.raises(ConfigurationError, match=r"treadle\.open"):
            await Agent(ScriptedModel([]), tools=[one]).run("hi")


async def test_the_text_of_every_subscriber_is_the_text_of_the_run(open_runtime: Open) -> None:
    words = [f"word{n} " for n in range(200)]

    def slowly(request: ModelRequest) -> list[Text | Pause]:
        return [piece for word in words for piece in (Pause(0.01), Text(word))]

    agent = Agent(ScriptedModel([slowly]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("go")

        async def watch(delay: float, rest: float) -> list[str]:
            """Watches from `delay` on, leaving and coming back every now and then."""
            await asyncio.sleep(delay)
            growing: dict[str, str] = {}
            position: int | str = 0
            while True:
                async with thread.subscribe(position) as subscription:
                    for _ in range(7 if rest else 10_000):
                        event = await anext(subscription)
                        if isinstance(event, TextDelta):
                            growing[event.item_id] = growing.get(event.item_id, "") + event.delta
                        elif isinstance(event, MessageAdded) and event.origin == "model":
                            assert event.item.text.startswith(growing.get(event.item.id, ""))
                            growing[event.item.id] = event.item.text
                        elif isinstance(event, TerminalEvent):
                            return list(growing.values())
                position = subscription.position
                await asyncio.sleep(rest)

        for texts in await asyncio.gather(*(watch(n / 10, n / 100) for n in range(10))):
            assert texts == words


async def test_a_subscription_that_is_dropped_is_forgotten(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        async for _ in thread.subscribe():
            break
        gc.collect()
        actor = runtime._threads._driver._actors[thread.id]  # type: ignore[attr-defined]
        assert not actor.topic.is_watched


async def text_of(run: treadle.ThreadRun) -> str:
    """Returns the deltas that a reader of the run gets, joined."""
    text = ""
    async for event in run:
        if isinstance(event, TextDelta):
            text += event.delta
    return text


@pytest.mark.parametrize("turns", [0, 1, 5, 40])
async def test_a_run_shows_its_text_to_a_reader_that_comes_late(
    open_runtime: Open, turns: int
) -> None:
    agent = Agent(ScriptedModel(["Hello there."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await text_of(run) == "Hello there."
        assert await text_of(run) == "Hello there."


async def test_a_run_shows_its_text_when_it_has_left_the_memory(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Call("slow", '{"seconds":0}')], "Hello there."]), tools=[slow])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await run.result()
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        seen = [event async for event in await thread.run(run.id)]
    live = [event for event in seen if not isinstance(event, DurableEvent)]
    assert [type(event).__name__ for event in live] == [
        "ToolCallStarted",
        "ToolArgumentsDelta",
        "TextDelta",
    ]
    assert live[-1] == TextDelta(live[-1].item_id, "Hello there.")


async def test_a_position_behind_the_end_is_refused_where_it_is_given(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hello."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        last = (await thread.state()).seq
    for _ in range(2):  # on a thread that is in memory, and on one that is not
        async with open_runtime(agent) as runtime:
            thread = await runtime.connect(thread.id)
            for wrong in (last + 1, 999_999, f"{last + 1}.3", 10**18, "999999999999999"):
                with pytest.raises(InvalidInput, match="no event"):
                    thread.subscribe(wrong)
            for right in (0, last, f"{last}", f"{last}.7", f"{last}."):
                await thread.subscribe(right).aclose()
            await thread.pin(next(iter(await thread.history())).id)
            last = (await thread.state()).seq
            with pytest.raises(InvalidInput, match="no event"):
                thread.subscribe(last + 1)


async def test_a_subscription_may_be_collected_in_another_thread(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hello."]))
    async with open_runtime(agent, idle_seconds=0) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        subscriptions = [thread.subscribe()]
        await anext(subscriptions[0])
        topic = subscriptions[0]._topic
        assert topic is not None
        assert topic.is_watched
        await asyncio.to_thread(subscriptions.clear)
        await asyncio.sleep(0.1)
        assert not topic.is_watched
