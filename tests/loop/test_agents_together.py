"""Agents that work for other agents, and that hand runs over."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import treadle
from treadle import (
    Agent,
    AgentEvent,
    Completion,
    CompletionContext,
    HandedOff,
    Hooks,
    Limits,
    RunContext,
    tool,
)
from treadle.domain.events import (
    Event,
    MessageAdded,
    RunStarted,
    StepInterrupted,
    TerminalEvent,
    TextDelta,
    ToolDelegated,
    ToolOutputRecorded,
    UsageAdded,
)
from treadle.domain.history import require_valid
from treadle.domain.items import FunctionCallOutput, Message, Reasoning
from treadle.domain.usage import Usage
from treadle.errors import BadRequest, ConfigurationError
from treadle.loop.definition import hash_of
from treadle.testing import Call, Hold, Pause, ScriptedModel, Text, Turn
from treadle.testing import Reasoning as Thinking

pytestmark = pytest.mark.anyio


def ask(name: str, message: str = "do it", id: str = "c1") -> Call:
    return Call(name, json.dumps({"message": message}), id)


def worker(*script: Any, **options: Any) -> Agent[None, str]:
    return Agent(
        ScriptedModel(script, name="small"), name="worker", description="Works.", **options
    )


def boss(*script: Any, tools: Any = (), **options: Any) -> Agent[None, str]:
    return Agent(ScriptedModel(script, name="big"), name="boss", tools=tools, **options)


def outputs(items: Any) -> dict[str, str]:
    return {item.call_id: item.text for item in items if isinstance(item, FunctionCallOutput)}


def texts(items: Any) -> list[str]:
    return [item.text for item in items if isinstance(item, Message)]


# as_tool, in the foreground


async def test_an_agent_works_for_another() -> None:
    small = worker(Turn((Text("Forty-two."),), usage=Usage(5, 3, requests=1)))
    big = boss([ask("worker", "6 * 7?")], "It is 42.", tools=[small.as_tool()])
    events: list[Event] = []
    async with big.stream("hi") as run:
        async for event in run:
            events.append(event)
        result = await run.result()
    assert result.text == "It is 42."
    assert outputs(result.history) == {"c1": "Forty-two."}
    assert texts(small.model.requests[0].items) == ["6 * 7?"]  # type: ignore[attr-defined]
    shown = [event for event in events if isinstance(event, AgentEvent)]
    assert {(event.agent, event.call_id) for event in shown} == {("worker", "c1")}
    inner = [type(event.event) for event in shown]
    assert inner[0] is MessageAdded
    assert inner[1] is RunStarted
    assert TextDelta in inner
    assert issubclass(inner[-1], TerminalEvent)
    (link,) = [event for event in events if isinstance(event, ToolDelegated)]
    assert link.thread_id == shown[0].thread_id != run.thread_id
    (added,) = [event for event in events if isinstance(event, UsageAdded)]
    assert added.usage == Usage(5, 3, requests=1)
    assert result.usage == Usage(5, 3, requests=3)
    order = [type(event) for event in events]
    assert order.index(ToolDelegated) < order.index(AgentEvent) < order.index(ToolOutputRecorded)


def test_the_tool_of_an_agent() -> None:
    made = worker("x").as_tool()
    assert (made.name, made.schema.description, made.idempotent) == ("worker", "Works.", True)
    renamed = Agent("demo", name="My agent").as_tool(name="other", description="Else.")
    assert (renamed.name, renamed.schema.description) == ("other", "Else.")
    assert Agent("demo", name="My agent").as_tool().name == "My_agent"


async def test_a_worker_that_fails_or_stops_is_an_error_output() -> None:
    failing = worker(BadRequest("no"))
    big = boss([ask("worker")], "So be it.", tools=[failing.as_tool()])
    found = outputs((await big.run("hi")).history)
    assert found["c1"].startswith("worker failed: BadRequest")
    stopped = worker([Call("nothing", "{}", "x")], limits=Limits(max_steps=1))
    big = boss([ask("worker")], "So be it.", tools=[stopped.as_tool()])
    found = outputs((await big.run("hi")).history)
    assert "worker stopped early (max_steps)" in found["c1"]


async def test_a_structured_output_is_passed_on() -> None:
    small = Agent(ScriptedModel(['{"value":[1,2]}']), name="worker", output=list[int])
    big = boss([ask("worker")], "Done.", tools=[small.as_tool()])
    assert outputs((await big.run("hi")).history) == {"c1": "[1,2]"}


async def test_a_worker_is_cancelled_with_the_run() -> None:
    ends: list[str] = []
    small = worker(
        [Text("x"), Pause(999)], hooks=Hooks(on_run_end=lambda c, end: ends.append(end.run.status))
    )
    big = boss([ask("worker")], tools=[small.as_tool()])
    async with big.stream("hi") as run:
        async for event in run:
            if isinstance(event, AgentEvent) and isinstance(event.event, TextDelta):
                await run.cancel()
        require_valid(run.history)
    assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    assert ends == ["cancelled"]


async def test_budgets_pass_down_and_what_is_used_counts() -> None:
    spending = [
        Turn((Call("look", "{}", f"l{n}"),), usage=Usage(100, 0, requests=1)) for n in range(9)
    ]

    @tool
    async def look() -> str:
        return "nothing"

    small = worker(*spending, tools=[look])
    big = boss(
        Turn((ask("worker"),), usage=Usage(50, 0, requests=1)),
        "unused",
        tools=[small.as_tool()],
        limits=Limits(max_tokens=300),
    )
    result = await big.run("hi", raise_on_incomplete=False)
    assert (result.status, result.stop_reason) == ("incomplete", "max_tokens")
    assert result.usage.total_tokens == 350
    assert "max_tokens" in outputs(result.history)["c1"]


async def test_agents_call_agents_only_so_deep() -> None:
    bottom = Agent(ScriptedModel(["Deep."]), name="bottom")
    middle = Agent(
        ScriptedModel([[ask("bottom")], "Middle."]), name="middle", tools=[bottom.as_tool()]
    )
    top = boss([ask("middle")], "Top.", tools=[middle.as_tool()], limits=Limits(max_depth=1))
    events: list[Event] = []
    async with top.stream("hi") as run:
        async for event in run:
            events.append(event)
    inner = [e.event for e in events if isinstance(e, AgentEvent)]
    (refused,) = [e for e in inner if isinstance(e, ToolOutputRecorded)]
    assert "AgentsTooDeep" in refused.item.text
    nested = boss([ask("middle")], "Top.", tools=[_again(middle, bottom).as_tool()])
    async with nested.stream("hi") as run:
        deep = [
            e.event.event
            async for e in run
            if isinstance(e, AgentEvent) and isinstance(e.event, AgentEvent)
        ]
    assert any(isinstance(event, TextDelta) for event in deep)


def _again(middle: Agent[Any, Any], bottom: Agent[Any, Any]) -> Agent[Any, Any]:
    bottom = Agent(ScriptedModel(["Deep."]), name="bottom")
    script = [[ask("bottom")], "Middle."]
    return Agent(ScriptedModel(script), name="middle", tools=[bottom.as_tool()])


async def test_a_tool_and_a_hook_may_have_agents_work() -> None:
    small = worker("One.", "Two.", "Three.")

    @tool
    async def study(context: RunContext[None], topic: str) -> str:
        """Studies."""
        both = [(await context.run_agent(small, f"{topic} {n}")).text for n in (1, 2)]
        return " ".join(both)

    async def check(context: CompletionContext, completion: Completion) -> None:
        if completion.stop_reason == "end_turn" and completion.number == 2:
            context.continue_with((await context.run_agent(small, "check")).text)

    big = boss(
        [Call("study", '{"topic":"x"}', "c1")],
        "First.",
        "Second.",
        tools=[study],
        hooks=Hooks(after_completion=check),
    )
    result = await big.run("hi")
    assert outputs(result.history) == {"c1": "One. Two."}
    assert texts(result.history) == ["hi", "First.", "Three.", "Second."]
    assert result.usage.requests == 6


def test_two_agents_of_one_name_are_refused() -> None:
    one, other = Agent("demo", name="x"), Agent("demo", name="x")
    with pytest.raises(ConfigurationError, match="'x'"):
        Agent("demo", name="y", tools=[one.as_tool(name="a"), other.as_tool(name="b")])
    with pytest.raises(ConfigurationError, match="'agent'"):
        Agent("demo", tools=[Agent("demo").as_tool(name="other")])
    with pytest.raises(ConfigurationError, match="'x'"):
        Agent("demo", name="x", handoffs=[one])


# Hand-over


def transfer(name: str, id: str = "t1") -> Call:
    return Call(f"transfer_to_{name}", "{}", id)


@pytest.mark.parametrize("kept", [False, True])
async def test_a_run_is_handed_over(kept: bool) -> None:
    clerk = Agent(ScriptedModel(["Refunded."], name="m2"), name="clerk", instructions="You refund.")
    desk = Agent(ScriptedModel([[transfer("clerk")]], name="m1"), name="desk", handoffs=[clerk])
    events: list[Event] = []
    if kept:
        async with treadle.open(agents=[desk]) as runtime:
            thread = await runtime.create_thread(desk)
            run = await thread.send("money back")
            async for event in run:
                events.append(event)
            result = await run.result()
    else:
        async with desk.stream("money back") as foreground:
            async for event in foreground:
                events.append(event)
            result = await foreground.result()
    assert (result.text, result.agent) == ("Refunded.", "clerk")
    (handed,) = [event for event in events if isinstance(event, HandedOff)]
    assert (handed.agent, handed.agent_hash) == ("clerk", hash_of(clerk))
    (request,) = clerk.model.requests  # type: ignore[attr-defined]
    assert request.instructions == "You refund."
    assert outputs(request.items) == {"t1": "clerk continues the conversation now."}
    assert sum(isinstance(event, TerminalEvent) for event in events) == 1


async def test_only_one_hand_over_in_a_step_and_only_so_many_in_a_run() -> None:
    ping = Agent(
        ScriptedModel([[transfer("pong", "p1"), transfer("pong", "p2")], [transfer("pong", "p3")]]),
        name="ping",
        limits=Limits(max_handoffs=2),
    )
    pong = Agent(
        ScriptedModel([[transfer("ping", "q1")]]),
        name="pong",
        handoffs=[ping],
        limits=Limits(max_handoffs=2),
    )
    ping.add_handoff(pong)
    ping.model._script.append("I answer.")  # type: ignore[attr-defined]
    result = await ping.run("hi")
    found = outputs(result.history)
    assert found["p2"] == "The conversation is handed over already."
    assert found["p3"] == "The conversation was handed over too often; answer yourself."
    assert (result.text, result.agent) == ("I answer.", "ping")


def test_a_circle_of_hand_overs_needs_a_limit() -> None:
    endless = Limits(max_handoffs=None)
    ping = Agent("demo", name="ping", limits=endless)
    pong = Agent("demo", name="pong", handoffs=[ping])
    with pytest.raises(ConfigurationError, match="max_handoffs"):
        ping.add_handoff(pong)
    assert ping.handoffs == {}
    with pytest.raises(ConfigurationError, match="already"):
        pong.add_handoff(ping)


async def test_a_run_that_was_handed_over_goes_on_after_a_restart() -> None:
    from treadle.journal.memory import MemoryJournal

    hold = asyncio.Event()
    clerk = Agent(ScriptedModel([[Hold(hold)], "Refunded."]), name="clerk")
    desk = Agent(ScriptedModel([[transfer("clerk")]]), name="desk", handoffs=[clerk])
    journal = MemoryJournal()
    async with treadle.Runtime(journal, agents=[desk]) as runtime:
        thread = await runtime.create_thread(desk)
        run = await thread.send("money back")
        async for event in run:
            if isinstance(event, HandedOff):
                break
    async with treadle.Runtime(journal, agents=[desk]) as runtime:
        thread = await runtime.connect(thread.id)
        result = await (await thread.run(run.id)).result()
        assert (result.text, result.agent) == ("Refunded.", "clerk")


# On kept threads


async def test_a_worker_has_a_thread_of_its_own_which_is_kept(
    open_runtime: Callable[..., treadle.Runtime],
) -> None:
    small = worker("Forty-two.")
    big = boss([ask("worker")], "It is 42.", tools=[small.as_tool()])
    async with open_runtime(big) as runtime:
        thread = await runtime.create_thread(big, owner="ann", metadata={"x": 1})
        run = await thread.send("hi")
        seen = [event async for event in run]
        assert (await run.result()).text == "It is 42."
        assert [info.id for info in await runtime.threads()] == [thread.id]
        (info,) = await runtime.threads(parent=thread.id)
        assert info.work is not None
        assert (info.agent, info.owner, info.metadata) == ("worker", "ann", {"x": 1})
        assert (info.work.run_id, info.work.call_id, info.work.depth) == (run.id, "c1", 1)
        child = await runtime.connect(info.id)
        assert texts(await child.history()) == ["do it", "Forty-two."]
        shown = [e.event for e in seen if isinstance(e, AgentEvent)]
        durable = [e for e in shown if isinstance(e, treadle.domain.events.DurableEvent)]
        assert durable == (await child.events())[-len(durable) :]
        await thread.delete()
        with pytest.raises(treadle.errors.ThreadNotFound):
            await runtime.connect(info.id)


async def test_after_a_restart_the_worker_goes_on_and_is_not_begun_again(
    open_runtime: Callable[..., treadle.Runtime],
) -> None:
    effects: list[str] = []
    hold = asyncio.Event()

    @tool
    async def act() -> str:
        """Does something once."""
        effects.append("act")
        return "done"

    small = worker([Call("act", "{}", "a1")], [Hold(hold)], "Worked.", tools=[act])
    big = boss([ask("worker")], "Done.", tools=[small.as_tool()])
    async with open_runtime(big) as runtime:
        thread = await runtime.create_thread(big)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, AgentEvent) and isinstance(event.event, ToolOutputRecorded):
                break
    async with open_runtime(big) as runtime:
        thread = await runtime.connect(thread.id)
        result = await (await thread.run(run.id)).result()
        assert (result.text, outputs(result.history)) == ("Done.", {"c1": "Worked."})
        (info,) = await runtime.threads(parent=thread.id)
        assert texts(await (await runtime.connect(info.id)).history()) == ["do it", "Worked."]
    assert effects == ["act"]


async def test_watchers_elsewhere_see_each_event_of_a_worker_that_is_resumed() -> None:
    from treadle.journal.memory import MemoryJournal

    hold = asyncio.Event()
    small = worker([Text("Wor"), Hold(hold), Text("ld")], "Worked.")
    big = boss([ask("worker")], "Done.", tools=[small.as_tool()])
    journal = MemoryJournal()
    driving = treadle.Runtime(journal, agents=[big])
    await driving.start()
    async with treadle.Runtime(journal, agents=[big]) as watching:
        thread = await driving.create_thread(big)
        run = await thread.send("hi")
        mine = await watching.connect(thread.id)
        durable: list[Event] = []
        written: dict[str, str] = {}
        async for event in mine.subscribe():
            if isinstance(event, AgentEvent):
                inner = event.event
                if isinstance(inner, TextDelta):
                    written[inner.item_id] = written.get(inner.item_id, "") + inner.delta
                    if written[inner.item_id] == "Wor":
                        await driving.shutdown()
                elif isinstance(inner, treadle.domain.events.DurableEvent):
                    durable.append(inner)
                    if isinstance(inner, StepInterrupted):
                        written.clear()
            elif isinstance(event, TerminalEvent):
                break
        assert (await (await mine.run(run.id)).result()).text == "Done."
        (info,) = await watching.threads(parent=thread.id)
        events = await (await watching.connect(info.id)).events()
        assert any(isinstance(event, StepInterrupted) for event in events)
        assert durable == events[-len(durable) :]
        assert list(written.values()) == ["Worked."]


@pytest.mark.parametrize("restarted", [False, True])
async def test_cancelling_the_run_cancels_the_worker(
    open_runtime: Callable[..., treadle.Runtime], restarted: bool
) -> None:
    small = worker(*[[Text("x"), Pause(99_999)]] * 3)
    big = boss([ask("worker")], tools=[small.as_tool()])
    async with open_runtime(big) as runtime:
        thread = await runtime.create_thread(big)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, AgentEvent) and isinstance(event.event, TextDelta):
                break
        if not restarted:
            await run.cancel()
            assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
            assert await worker_status(runtime, thread.id) == "cancelled"
    if restarted:
        async with open_runtime(big) as runtime:
            thread = await runtime.connect(thread.id)
            run = await thread.run(run.id)
            await run.cancel()
            assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
            assert await worker_status(runtime, thread.id) == "cancelled"


async def worker_status(runtime: treadle.Runtime, thread_id: str) -> str | None:
    (info,) = await runtime.threads(parent=thread_id)
    child = await runtime.connect(info.id)
    async with asyncio.timeout(5):
        async for event in child.subscribe():
            if isinstance(event, TerminalEvent):
                break
    return (await child.info()).status


async def test_a_worker_that_takes_too_long_is_stopped() -> None:
    small = worker([Text("x"), Pause(99_999)])
    big = boss([ask("worker")], "Too slow.", tools=[small.as_tool(timeout=10)])
    async with treadle.open(agents=[big]) as runtime:
        thread = await runtime.create_thread(big)
        result = await (await thread.send("hi")).result()
        assert result.text == "Too slow."
        assert outputs(result.history) == {"c1": "worker timed out after 10 s."}
        assert await worker_status(runtime, thread.id) == "cancelled"


# Agents of different providers


async def test_reasoning_of_another_provider_is_left_out() -> None:
    from treadle.models.anthropic import AnthropicMessages
    from treadle.models.openai import OpenAIResponses
    from treadle.testing import ProviderSimulator

    thinking = [Thinking("hm"), transfer("clerk")]
    async with ProviderSimulator([Turn(tuple(thinking)), Turn((Thinking("ah"), Text("Hi.")))]) as s:
        clerk = Agent(AnthropicMessages("m2", api_key="k", base_url=s.base_url), name="clerk")
        desk = Agent(
            OpenAIResponses("m1", api_key="k", base_url=s.base_url), name="desk", handoffs=[clerk]
        )
        result = await desk.run("hi")
    providers = [item.provider for item in result.history if isinstance(item, Reasoning)]
    assert providers == ["openai:127.0.0.1", "anthropic"]
    assert result.text == "Hi."


# What a review found


async def test_a_hand_over_brings_the_limits_of_the_other_agent() -> None:
    slow = [[Text("x"), Pause(20)]]
    clerk = Agent(ScriptedModel(slow), name="clerk", limits=Limits(max_seconds=5))
    desk = Agent(ScriptedModel([[transfer("clerk")]]), name="desk", handoffs=[clerk])
    assert (await desk.run("hi", raise_on_incomplete=False)).stop_reason == "max_seconds"
    clerk = Agent(ScriptedModel(slow), name="clerk")
    desk = Agent(
        ScriptedModel([[transfer("clerk")]]),
        name="desk",
        handoffs=[clerk],
        limits=Limits(max_seconds=5),
    )
    assert (await desk.run("hi")).status == "completed"


async def test_a_worker_that_hands_over_keeps_to_the_budget() -> None:
    @tool
    async def look() -> str:
        return "nothing"

    looking = [[Call("look", "{}", f"l{n}")] for n in range(6)]
    second = Agent(ScriptedModel([*looking, "Done."]), name="second", tools=[look])
    first = Agent(ScriptedModel([[transfer("second")]]), name="first", handoffs=[second])
    big = boss(
        [ask("first")], "So be it.", tools=[first.as_tool()], limits=Limits(max_tool_calls=3)
    )
    result = await big.run("hi", raise_on_incomplete=False)
    assert "max_tool_calls" in outputs(result.history)["c1"]
    assert (result.status, result.stop_reason) == ("incomplete", "max_tool_calls")


async def test_a_hook_that_goes_on_keeps_the_hand_over() -> None:
    clerk = Agent(ScriptedModel(["Clerk."]), name="clerk")
    hooks = Hooks(after_completion=lambda context, completion: context.continue_with("on"))
    desk = Agent(ScriptedModel([[transfer("clerk")]]), name="desk", handoffs=[clerk], hooks=hooks)
    assert (await desk.run("hi")).text == "Clerk."


async def test_a_terminal_tool_counts_more_than_a_hand_over() -> None:
    @tool(terminal=True)
    async def submit() -> str:
        return "submitted"

    clerk = Agent(ScriptedModel([]), name="clerk")
    desk = Agent(
        ScriptedModel([[Call("submit", "{}", "s1"), transfer("clerk")]]),
        name="desk",
        tools=[submit],
        handoffs=[clerk],
    )
    result = await desk.run("hi")
    assert (result.text, result.stop_reason, result.agent) == ("submitted", "terminal_tool", "desk")


async def test_a_worker_takes_the_place_of_no_agent() -> None:
    @tool
    async def study(context: RunContext[None]) -> str:
        """Studies."""
        other = Agent(ScriptedModel(["Sub."]), name="top")
        return (await context.run_agent(other, "x")).text

    top = Agent(
        ScriptedModel([[Call("study", "{}", "c1")], "One.", "Two."]), name="top", tools=[study]
    )
    async with treadle.open(agents=[top]) as runtime:
        thread = await runtime.create_thread(top)
        result = await (await thread.send("hi")).result()
        assert "give it another name" in outputs(result.history)["c1"]
        assert (await (await thread.send("hi")).result()).text == "Two."


async def test_a_retry_begins_the_work_anew(
    open_runtime: Callable[..., treadle.Runtime],
) -> None:
    small = worker(BadRequest("no"), "Worked.")

    @tool(retries=1)
    async def study(context: RunContext[None]) -> str:
        """Studies."""
        return (await context.run_agent(small, "x")).text

    top = boss([Call("study", "{}", "c1")], "Done.", tools=[study])
    async with open_runtime(top) as runtime:
        thread = await runtime.create_thread(top)
        result = await (await thread.send("hi")).result()
        assert outputs(result.history) == {"c1": "Worked."}


async def test_a_worker_that_nobody_knows_any_more_does_not_hold_the_thread_up() -> None:
    from treadle.journal.memory import MemoryJournal

    @tool
    async def study(context: RunContext[None]) -> str:
        """Studies."""
        return (await context.run_agent(worker([Text("x"), Pause(99_999)]), "x")).text

    top = boss([Call("study", "{}", "c1")], "One.", "Two.", tools=[study])
    journal = MemoryJournal()
    async with treadle.Runtime(journal, agents=[top]) as runtime:
        thread = await runtime.create_thread(top)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, AgentEvent) and isinstance(event.event, TextDelta):
                break
    async with treadle.Runtime(journal, agents=[top]) as runtime:
        thread = await runtime.connect(thread.id)
        assert (await (await thread.run(run.id)).result()).text == "One."
        async with asyncio.timeout(5):
            assert (await (await thread.send("next")).result()).text == "Two."
        (info,) = await runtime.threads(parent=thread.id)
        assert info.status == "cancelled"
