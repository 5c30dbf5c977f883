"""Hooks on a scripted model, in the foreground and on kept threads."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import treadle
from treadle import (
    Agent,
    ChangedArguments,
    Completion,
    CompletionContext,
    HookContext,
    Hooks,
    Limits,
    RunEnd,
    ToolCall,
    Veto,
    hook,
    tool,
)
from treadle.domain.events import (
    Event,
    HistoryReplaced,
    MessageAdded,
    RecordedEvent,
    RunCompleted,
    RunContinued,
    RunFailed,
    TerminalEvent,
    TextDelta,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.history import require_valid
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message, user_message
from treadle.errors import HookFailed, InvalidHook, InvalidInput
from treadle.models.base import ModelRequest
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

CALL = Call("echo", json.dumps({"text": "x"}), "c1")


@tool
async def echo(text: str) -> str:
    """Says it again."""
    return f"echo {text}"


@tool
async def broken(text: str) -> str:
    """Fails."""
    raise ValueError(text)


@tool(terminal=True)
async def submit(text: str) -> str:
    """Ends the run."""
    return text


def said(items: object) -> list[str]:
    return [item.text for item in items if isinstance(item, Message)]  # type: ignore[attr-defined]


async def events_of(agent: Agent[Any, Any], input: str = "hi") -> list[Event]:
    events: list[Event] = []
    async with agent.stream(input) as run:
        try:
            async for event in run:
                events.append(event)
        except treadle.TreadleError:
            pass
    return events


# after_completion


async def test_it_is_called_once_for_each_response_when_all_outputs_are_there() -> None:
    seen: list[tuple[int, str | None, list[str], int]] = []

    async def look(context: CompletionContext, completion: Completion) -> None:
        outputs = [completion.output(call.call_id) for call in completion.calls]
        texts = [output.text for output in outputs if output is not None]
        seen.append((completion.number, completion.stop_reason, texts, len(context.history)))
        require_valid(context.history)
        assert completion.items[-1] == context.history[-1]

    model = ScriptedModel([[CALL, Call("echo", '{"text":"y"}', "c2")], "Done."])
    agent = Agent(model, tools=[echo], hooks=Hooks(after_completion=look))
    assert (await agent.run("hi")).text == "Done."
    assert seen == [(1, None, ["echo x", "echo y"], 5), (2, "end_turn", [], 6)]


async def test_it_is_called_at_a_limit_and_after_a_terminal_tool() -> None:
    reasons: list[str | None] = []

    def look(context: CompletionContext, completion: Completion) -> None:
        reasons.append(completion.stop_reason)

    hooks = Hooks(after_completion=look)
    limited = Agent(ScriptedModel([[CALL]]), tools=[echo], hooks=hooks, limits=Limits(max_steps=1))
    assert (await limited.run("hi", raise_on_incomplete=False)).stop_reason == "max_steps"
    ending = [Call("submit", '{"text":"x"}', "c1")]
    assert (await Agent(ScriptedModel([ending]), tools=[submit], hooks=hooks).run("hi")).text == "x"
    assert reasons == ["max_steps", "terminal_tool"]


async def test_it_is_not_called_after_a_failure_or_a_cancel() -> None:
    called: list[int] = []
    hooks = Hooks(after_completion=lambda context, completion: called.append(1))
    with pytest.raises(treadle.TreadleError):
        await Agent(ScriptedModel([treadle.errors.BadRequest("no")]), hooks=hooks).run("hi")
    agent = Agent(ScriptedModel([[Text("x"), Pause(9)]]), hooks=hooks)
    async with agent.stream("hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                await run.cancel()
    assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    assert called == []


async def test_what_it_injects_is_read_by_the_model_and_told_to_subscribers() -> None:
    def inject(context: CompletionContext, completion: Completion) -> None:
        if completion.calls:
            context.inject("remember", role="developer")
            context.inject(user_message("and this"), "and that")
            assert said(context.history) == ["hi", "remember", "and this", "and that"]

    model = ScriptedModel([[CALL], "Done."])
    agent = Agent(model, tools=[echo], hooks=Hooks(after_completion=inject))
    events = await events_of(agent)
    added = [e for e in events if isinstance(e, MessageAdded) and e.origin == "hook"]
    assert [(e.item.role, e.item.text) for e in added] == [
        ("developer", "remember"),
        ("user", "and this"),
        ("user", "and that"),
    ]
    kinds = [type(item).__name__ for item in model.requests[1].items]
    assert kinds == ["Message", "FunctionCall", "FunctionCallOutput", *["Message"] * 3]


async def test_what_it_injects_at_the_end_is_there_for_the_next_run() -> None:
    def inject(context: CompletionContext, completion: Completion) -> None:
        context.inject("note", role="system")

    agent = Agent(ScriptedModel(["Done."]), hooks=Hooks(after_completion=inject))
    result = await agent.run("hi")
    assert (result.text, result.status) == ("Done.", "completed")
    assert said(result.history) == ["hi", "Done.", "note"]


async def test_it_may_let_the_run_go_on() -> None:
    def push(context: CompletionContext, completion: Completion) -> None:
        if completion.stop_reason == "end_turn" and completion.number < 3:
            context.continue_with("go on")

    model = ScriptedModel(["One.", "Two.", "Three."])
    agent = Agent(model, hooks=Hooks(after_completion=push))
    events = await events_of(agent)
    assert sum(isinstance(e, RunContinued) for e in events) == 2
    assert isinstance(events[-1], RunCompleted)
    assert said(model.requests[2].items) == ["hi", "One.", "go on", "Two.", "go on"]


async def test_a_limit_ends_the_run_that_shall_go_on() -> None:
    hooks = Hooks(after_completion=lambda context, completion: context.continue_with("go on"))
    agent = Agent(ScriptedModel(["One.", "Two."]), hooks=hooks, limits=Limits(max_steps=2))
    result = await agent.run("hi", raise_on_incomplete=False)
    assert (result.status, result.stop_reason, result.steps) == ("incomplete", "max_steps", 2)


async def test_it_may_finish_the_run() -> None:
    def stop(context: CompletionContext, completion: Completion) -> None:
        context.finish()

    agent = Agent(ScriptedModel([[CALL]]), tools=[echo], hooks=Hooks(after_completion=stop))
    result = await agent.run("hi")
    assert (result.status, result.stop_reason) == ("completed", "finish_requested")


async def test_it_may_replace_the_history() -> None:
    def forget(context: CompletionContext, completion: Completion) -> None:
        if completion.calls:
            context.replace_history([user_message("in short: hi")])
            context.inject("go on")

    model = ScriptedModel([[CALL], "Done."])
    agent = Agent(model, tools=[echo], hooks=Hooks(after_completion=forget))
    events = await events_of(agent)
    (edit,) = [event for event in events if isinstance(event, HistoryReplaced)]
    assert said(edit.items) == ["in short: hi"]
    assert said(model.requests[1].items) == ["in short: hi", "go on"]


@pytest.mark.parametrize(
    "items",
    [
        [FunctionCall("c9", "echo", "{}")],
        [FunctionCallOutput("c9", "x")],
        [FunctionCall("c9", "echo", "{}"), user_message("x"), FunctionCallOutput("c9", "x")],
    ],
)
async def test_a_history_that_no_model_takes_is_refused(items: list[Item]) -> None:
    def spoil(context: CompletionContext, completion: Completion) -> None:
        with pytest.raises(InvalidInput):
            context.replace_history(items)
        assert context.changes == []

    agent = Agent(ScriptedModel(["Done."]), hooks=Hooks(after_completion=spoil))
    assert said((await agent.run("hi")).history) == ["hi", "Done."]


async def test_misuse_of_the_context() -> None:
    def misuse(context: CompletionContext, completion: Completion) -> None:
        with pytest.raises(InvalidInput):
            context.continue_with()
        with pytest.raises(InvalidInput):
            context.inject("")
        with pytest.raises(InvalidInput, match="role"):
            context.inject("x", role="tool")
        assert context.changes == []

    await Agent(ScriptedModel(["Done."]), hooks=Hooks(after_completion=misuse)).run("hi")


async def test_a_hook_that_raises_fails_the_run_and_changes_nothing() -> None:
    def first(context: CompletionContext, completion: Completion) -> None:
        context.inject("from the first")

    async def second(context: CompletionContext, completion: Completion) -> None:
        context.inject("from the second")
        raise ValueError("no")

    agent = Agent(
        ScriptedModel([[CALL]]), tools=[echo], hooks=Hooks(after_completion=[first, second])
    )
    async with agent.stream("hi") as run:
        with pytest.raises(HookFailed, match=r"second failed: ValueError: no"):
            async for event in run:
                if isinstance(event, TerminalEvent):
                    assert isinstance(event, RunFailed)
                    assert event.code == "hook_failed"
        require_valid(run.history)
        assert said(run.history) == ["hi"]


async def test_an_isolated_hook_only_loses_what_it_would_have_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def first(context: CompletionContext, completion: Completion) -> None:
        context.inject("from the first")

    def second(context: CompletionContext, completion: Completion) -> None:
        context.replace_history([])
        raise ValueError("no")

    def third(context: CompletionContext, completion: Completion) -> None:
        assert said(context.history) == ["hi", "Done.", "from the first"]
        context.inject("from the third")

    hooks = Hooks(after_completion=[first, hook(second, isolated=True), third])
    result = await Agent(ScriptedModel(["Done."]), hooks=hooks).run("hi")
    assert said(result.history) == ["hi", "Done.", "from the first", "from the third"]
    assert "second failed, and is isolated: ValueError: no" in caplog.text


@pytest.mark.real_clock
async def test_a_blocking_hook_does_not_block_the_loop() -> None:
    import threading

    threads: list[int] = []

    def look(context: CompletionContext, completion: Completion) -> None:
        threads.append(threading.get_ident())
        context.inject("from a thread")

    hooks = Hooks(after_completion=hook(look, blocking=True))
    result = await Agent(ScriptedModel(["Done."]), hooks=hooks).run("hi")
    assert said(result.history)[-1] == "from a thread"
    assert threads != [threading.get_ident()]


# before_model, before_tool, after_tool


async def test_before_model_may_change_the_request() -> None:
    def shorten(context: HookContext[str], request: ModelRequest) -> ModelRequest:
        from msgspec.structs import replace

        return replace(request, instructions=f"{request.instructions} {context.deps}")

    async def look(context: HookContext[str], request: ModelRequest) -> None:
        assert request.instructions == "Be brief. ann"
        assert (context.step, context.agent) == (1, "agent")

    model = ScriptedModel(["Done."])
    agent = Agent[str](model, instructions="Be brief.", hooks=Hooks(before_model=[shorten, look]))
    result = await agent.run("hi", deps="ann")
    assert model.requests[0].instructions == "Be brief. ann"
    assert said(result.history) == ["hi", "Done."]


async def test_before_tool_may_veto_and_change_arguments() -> None:
    def guard(context: HookContext, call: ToolCall) -> Veto | ChangedArguments | None:
        match call.arguments["text"]:
            case "bad":
                return Veto("Not allowed.")
            case "known":
                return Veto({"cached": True}, is_error=False)
            case "short":
                return ChangedArguments({"text": "longer"})
            case "wrong":
                return ChangedArguments({"words": 1})
            case _:
                return None

    texts = ["bad", "known", "short", "wrong", "fine"]
    calls = [Call("echo", json.dumps({"text": text}), text) for text in texts]
    agent = Agent(ScriptedModel([calls, "Done."]), tools=[echo], hooks=Hooks(before_tool=guard))
    events = await events_of(agent)
    outputs = {
        e.item.call_id: (e.item.text, e.item.is_error)
        for e in events
        if isinstance(e, ToolOutputRecorded)
    }
    assert outputs["bad"] == ("Not allowed.", True)
    assert outputs["known"] == ('{"cached":true}', False)
    assert outputs["short"] == ("echo longer", False)
    assert outputs["wrong"][1] is True
    assert "words" in outputs["wrong"][0]
    assert outputs["fine"] == ("echo fine", False)
    started = {e.call_id: e.arguments for e in events if isinstance(e, ToolStarted)}
    assert started == {"short": '{"text":"longer"}', "fine": ""}


async def test_after_tool_may_rewrite_the_output() -> None:
    seen: list[tuple[str, bool]] = []

    def censor(context: HookContext, call: ToolCall, output: FunctionCallOutput) -> str | None:
        seen.append((output.text, output.is_error))
        return output.text.upper() if call.name == "echo" else None

    calls = [CALL, Call("broken", '{"text":"y"}', "c2")]
    model = ScriptedModel([calls, "Done."])
    agent = Agent(model, tools=[echo, broken], hooks=Hooks(after_tool=censor))
    await agent.run("hi")
    outputs = [i for i in model.requests[1].items if isinstance(i, FunctionCallOutput)]
    assert [(o.text, o.is_error) for o in outputs] == [
        ("ECHO X", False),
        ("broken failed: ValueError: y", True),
    ]
    assert sorted(seen) == [("broken failed: ValueError: y", True), ("echo x", False)]


@pytest.mark.parametrize("point", ["before_tool", "after_tool"])
@pytest.mark.parametrize("wrong", [lambda *_: 1 / 0, lambda *_: Veto(object())])
async def test_a_failing_tool_hook_fails_the_run_when_all_calls_are_answered(
    point: str, wrong: Callable[..., object]
) -> None:
    @tool
    async def slow(text: str) -> str:
        await asyncio.sleep(5)
        return "slow"

    def only_echo(*arguments: Any) -> object:
        return wrong() if arguments[1].name == "echo" else None

    agent = Agent(
        ScriptedModel([[CALL, Call("slow", '{"text":"y"}', "c2")]]),
        tools=[echo, slow],
        hooks=Hooks(**{point: only_echo}),
    )
    async with agent.stream("hi") as run:
        with pytest.raises(HookFailed, match="only_echo"):
            async for _ in run:
                pass
        require_valid(run.history)
        outputs = {i.call_id: i.text for i in run.history if isinstance(i, FunctionCallOutput)}
    assert outputs["c2"] == "slow"
    assert set(outputs) == {"c1", "c2"}


async def test_an_answer_that_no_hook_may_give() -> None:
    hooks = Hooks(before_tool=lambda context, call: "yes")  # type: ignore[arg-type]
    with pytest.raises(HookFailed, match="return a Veto"):
        await Agent(ScriptedModel([[CALL]]), tools=[echo], hooks=hooks).run("hi")


# on_run_end, on_event


@pytest.mark.parametrize(
    ("script", "status"),
    [(["Done."], "completed"), ([treadle.errors.BadRequest("no")], "failed")],
)
async def test_on_run_end_is_told_how_it_ended(
    script: list[Any], status: str, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[tuple[str, str]] = []

    async def ended(context: HookContext, end: RunEnd) -> None:
        ends.append((end.run.status, type(end.error).__name__))
        raise ValueError("too late")

    agent = Agent(ScriptedModel(script), hooks=Hooks(on_run_end=ended))
    events = await events_of(agent)
    assert ends == [(status, "BadRequest" if status == "failed" else "NoneType")]
    assert isinstance(events[-1], TerminalEvent)
    assert "ended failed: ValueError: too late" in caplog.text


async def test_on_run_end_is_called_for_a_run_that_is_left() -> None:
    ends: list[str] = []
    hooks = Hooks(on_run_end=lambda context, end: ends.append(end.run.status))
    agent = Agent(ScriptedModel([[Text("x"), Pause(99)]]), hooks=hooks)
    async with agent.stream("hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                break
    assert ends == ["cancelled"]


async def test_on_event_is_told_everything_in_order() -> None:
    heard: list[Event] = []

    async def hear(context: HookContext, event: Event) -> None:
        await asyncio.sleep(0.5)  # slower than the run
        heard.append(event)

    agent = Agent(ScriptedModel([[CALL], "Done."]), tools=[echo], hooks=Hooks(on_event=hear))
    events = await events_of(agent)
    assert heard == events
    heard.clear()
    agent = Agent(ScriptedModel([[CALL], "Done."]), tools=[echo], hooks=Hooks(on_event=hear))
    await agent.run("hi")
    assert [type(event) for event in heard] == [type(event) for event in events]


async def test_an_event_hook_that_fails_fails_the_run() -> None:
    def hear(context: HookContext, event: Event) -> None:
        if isinstance(event, ToolStarted):
            raise ValueError("no")

    agent = Agent(ScriptedModel([[CALL], "Done."]), tools=[echo], hooks=Hooks(on_event=hear))
    with pytest.raises(HookFailed, match="hear"):
        await agent.run("hi")
    hooks = Hooks(on_event=hook(hear, isolated=True))
    agent = Agent(ScriptedModel([[CALL], "Done."]), tools=[echo], hooks=hooks)
    assert (await agent.run("hi")).text == "Done."


# What is wrong is said where it is defined


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (
            lambda: Hooks(after_completion=lambda context: None),
            r"f\(context, completion\)",
        ),  # type: ignore[arg-type,misc]
        (lambda: Hooks(after_tool=lambda context, call: None), r"write f\(context, call, output\)"),  # type: ignore[arg-type,misc]
        (lambda: Hooks(before_model=3), "not a function"),  # type: ignore[arg-type]
        (lambda: Hooks(on_event=[print, "x"]), "not a function"),  # type: ignore[list-item]
        (lambda: hook(echo.function, blocking=True), "async"),
        (lambda: Hooks(on_event=_generator), "generator"),  # type: ignore[arg-type]
    ],
)
def test_what_can_be_no_hook(build: Callable[[], object], problem: str) -> None:
    with pytest.raises(InvalidHook, match=problem):
        build()


def _generator(context: object, event: object) -> object:
    yield


async def test_hooks_of_several_parties_are_called_in_order() -> None:
    order: list[int] = []
    parties = [
        Hooks(after_completion=lambda context, completion, n=n: order.append(n))  # type: ignore[misc]
        for n in range(3)
    ]
    await Agent(ScriptedModel(["Done."]), hooks=parties).run("hi")
    assert order == [0, 1, 2]


# On kept threads


@tool(external=True)
async def ask(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


async def test_on_a_thread_it_waits_for_outputs_from_outside() -> None:
    seen: list[list[str]] = []

    def look(context: CompletionContext, completion: Completion) -> None:
        seen.append([i.text for i in completion.items if isinstance(i, FunctionCallOutput)])
        if completion.calls:
            context.inject("noted")

    heard: list[RecordedEvent] = []

    def hear(context: HookContext, event: Event) -> None:
        if isinstance(event, treadle.domain.events.DurableEvent):
            heard.append(event)  # type: ignore[arg-type]

    calls = [Call("ask", '{"question":"q"}', "c1"), Call("echo", '{"text":"x"}', "c2")]
    model = ScriptedModel([calls, "Done."])
    agent = Agent(model, tools=[ask, echo], hooks=Hooks(after_completion=look, on_event=hear))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                break
        assert seen == []
        await thread.submit_tool_output("c1", "answer")
        assert (await run.result()).text == "Done."
        assert seen == [["answer", "echo x"], []]
        assert said(await thread.history()) == ["hi", "noted", "Done."]
        assert heard == await thread.events()


async def test_a_hook_is_called_again_after_a_restart_unless_it_had_changed_something() -> None:
    from treadle.journal.memory import MemoryJournal

    journal, calls = MemoryJournal(), list[int]()
    stuck = asyncio.Event()

    async def slow(context: CompletionContext, completion: Completion) -> None:
        calls.append(completion.number)
        context.inject(f"note {completion.number}")
        if len(calls) == 1:
            stuck.set()
            await asyncio.sleep(9999)

    model = ScriptedModel([[CALL], "Done."])
    agent = Agent(model, tools=[echo], hooks=Hooks(after_completion=slow))
    async with treadle.Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await stuck.wait()
    async with treadle.Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.connect(thread.id)
        await (await thread.run(run.id)).result()
        assert said(await thread.history()) == ["hi", "note 1", "Done.", "note 2"]
    assert calls == [1, 1, 2]


async def test_a_replaced_history_survives_snapshots_and_forks(tmp_path: Any) -> None:
    def forget(context: CompletionContext, completion: Completion) -> None:
        if completion.text == "Three.":
            context.replace_history([user_message("in short"), *context.history[-1:]])

    model = ScriptedModel(["One.", "Two.", "Three.", "Four."])
    agent = Agent(model, hooks=Hooks(after_completion=forget))
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    import treadle.actors.actor as actor

    before, actor.SNAPSHOT_EVERY = actor.SNAPSHOT_EVERY, 1
    try:
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            for text in ("one", "two", "three"):
                await (await thread.send(text)).result()
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.connect(thread.id)
            assert said(await thread.history()) == ["in short", "Three."]
            await (await thread.send("four")).result()
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.connect(thread.id)
            assert said(await thread.history()) == ["in short", "Three.", "four", "Four."]
            early = await thread.fork(at=14)
            assert said(await early.history()) == ["one", "One.", "two", "Two."]
    finally:
        actor.SNAPSHOT_EVERY = before


# What comes while hooks are at work


@tool(needs_approval=True)
async def approved(text: str) -> str:
    """Needs a person."""
    return f"did {text}"


async def test_a_call_whose_hook_is_at_work_is_not_skipped() -> None:
    async def slow(context: HookContext, call: ToolCall) -> None:
        await asyncio.sleep(5)

    model = ScriptedModel([Call("approved", '{"text":"x"}', "c1"), "Done."])
    agent = Agent(model, tools=[approved], hooks=Hooks(before_tool=slow))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                await thread.approve("c1")
                await asyncio.sleep(1)
                await thread.send("by the way", on_busy="steer")
        result = await run.result()
        outputs = [i.text for i in result.history if isinstance(i, FunctionCallOutput)]
        assert (result.status, outputs) == ("completed", ["did x"])


async def test_a_message_that_comes_while_the_end_is_told_starts_after_it() -> None:
    told: list[tuple[str, str]] = []

    async def ended(context: HookContext, end: RunEnd) -> None:
        await asyncio.sleep(5)
        told.append((context.run_id, end.run.status))

    async def hear(context: HookContext, event: Event) -> None:
        if isinstance(event, TerminalEvent):
            raise ValueError("too late")

    agent = Agent(ScriptedModel(["One.", "Two."]), hooks=Hooks(on_run_end=ended, on_event=hear))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send("one")
        assert (await first.result()).text == "One."
        second = await thread.send("two")
        assert (await second.result()).text == "Two."
        await asyncio.sleep(10)
        assert told == [(first.id, "completed"), (second.id, "completed")]


async def test_hooks_are_told_of_a_run_that_expired() -> None:
    told: list[str] = []
    heard: list[Event] = []
    hooks = Hooks(
        on_run_end=lambda context, end: told.append(end.run.status),
        on_event=lambda context, event: heard.append(event),
    )
    model = ScriptedModel([Call("ask", '{"question":"q"}', "c1")])
    agent = Agent(model, tools=[ask], hooks=hooks, action_timeout=10)
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        assert (
            await (await thread.send("hi")).result(raise_on_incomplete=False)
        ).status == "expired"
        await asyncio.sleep(1)
        durable = [
            event for event in heard if isinstance(event, treadle.domain.events.DurableEvent)
        ]
        assert durable == await thread.events()
    assert told == ["expired"]


@pytest.mark.parametrize("point", ["before_tool", "after_tool", "after_completion", "before_model"])
@pytest.mark.parametrize("kept", [False, True])
async def test_a_hook_that_meets_a_cancellation_fails(point: str, kept: bool) -> None:
    async def broken_off(*_: object) -> None:
        task = asyncio.create_task(asyncio.sleep(9))
        task.cancel()
        await task

    agent = Agent(
        ScriptedModel([[CALL], "Done."]), tools=[echo], hooks=Hooks(**{point: broken_off})
    )
    with pytest.raises(HookFailed, match="broken_off"):
        if kept:
            async with treadle.open(agents=[agent]) as runtime:
                thread = await runtime.create_thread(agent)
                await (await thread.send("hi")).result()
        else:
            await agent.run("hi")


async def test_event_hooks_hear_the_end_of_a_run_that_is_left() -> None:
    heard: list[Event] = []
    agent = Agent(
        ScriptedModel([[Text("x"), Pause(99)]]),
        hooks=Hooks(on_event=lambda context, event: heard.append(event)),
    )
    async with agent.stream("hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                break
    assert isinstance(heard[-1], treadle.RunCancelled)
