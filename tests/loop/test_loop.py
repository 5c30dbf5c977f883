"""The agent loop on a scripted model and a virtual clock."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from treadle import Agent, Limits, ModelSettings, NamedTool, Price, RetryPolicy, Run, tool
from treadle.domain.events import (
    DurableEvent,
    Event,
    FinishReason,
    MessageAdded,
    RateLimitHit,
    Retrying,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunIncomplete,
    StepInterrupted,
    TextDelta,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.history import require_valid
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    Item,
    Message,
    OutputText,
    ProviderItem,
    user_message,
)
from treadle.domain.usage import Usage
from treadle.errors import (
    BadRequest,
    ConfigurationError,
    InvalidInput,
    ModelError,
    OutputInvalid,
    OutputRefused,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    ToolFailed,
    UnexpectedRequest,
)
from treadle.loop import call_rules, calls
from treadle.models.base import ModelRequest
from treadle.runtime.foreground import drive_run, stop_run
from treadle.streaming import demux
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import (
    Call,
    Hold,
    Pause,
    Reasoning,
    Refusal,
    ScriptedModel,
    Text,
    Turn,
    Unfinished,
    VirtualClockLoop,
)
from treadle.tools.context import RunContext

pytestmark = pytest.mark.anyio


@tool
async def echo(text: str) -> str:
    """Says it again."""
    return text


@tool
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return f"slept {seconds:g}"


@tool
async def broken() -> str:
    """Never works."""
    raise LookupError("nothing there")


def say(tool_name: str, **arguments: object) -> Call:
    return Call(tool_name, json.dumps(arguments))


def outputs(items: Sequence[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, FunctionCallOutput)]


async def events_of(run: Run[object]) -> list[Event]:
    return [event async for event in run]


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events if isinstance(event, DurableEvent)]


async def test_text_only() -> None:
    agent = Agent(ScriptedModel(["Hello there."]), instructions="Be brief.")
    result = await agent.run("hi")
    assert (result.output, result.text) == ("Hello there.", "Hello there.")
    assert (result.status, result.stop_reason, result.steps) == ("completed", "end_turn", 1)
    assert [type(item) for item in result.items] == [Message, Message]
    assert result.items == list(result.history)


async def test_the_order_of_events() -> None:
    agent = Agent(
        ScriptedModel([[Text("Let me see."), say("echo", text="a")], "Done."]), tools=[echo]
    )
    async with agent.stream("hi") as run:
        events = await events_of(run)
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
    seqs = [event.seq for event in events if isinstance(event, DurableEvent)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert "".join(e.delta for e in events if isinstance(e, TextDelta)) == "Let me see.Done."


async def test_a_tool_starts_while_the_response_goes_on() -> None:
    script = [[say("slow", seconds=1), Pause(1), Text("meanwhile")], "Done."]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with Agent(ScriptedModel(script), tools=[slow]).stream("hi") as run:
        order = [
            (type(event).__name__, loop.time() - begin)
            async for event in run
            if isinstance(event, ToolStarted | ToolOutputRecorded | TextDelta)
        ]
    assert order[0] == ("ToolStarted", 0.0)
    assert order[1][1] == order[2][1] == 1.0
    assert loop.time() - begin == 1.0


async def test_early_tools_off_waits_for_the_end_of_the_response() -> None:
    script = [[say("slow", seconds=1), Pause(1), Text("meanwhile")], "Done."]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await Agent(ScriptedModel(script), tools=[slow], early_tools=False).run("hi")
    assert loop.time() - begin == 2.0


async def test_all_calls_of_a_step_overlap_and_outputs_keep_call_order() -> None:
    calls = [say("slow", seconds=seconds) for seconds in (3, 1, 2)]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    result = await Agent(ScriptedModel([calls, "Done."]), tools=[slow]).run("hi")
    assert loop.time() - begin == 3.0
    assert outputs(result.items) == ["slept 3", "slept 1", "slept 2"]


async def test_parallel_tools_are_bounded() -> None:
    calls = [say("slow", seconds=1)] * 5
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await Agent(ScriptedModel([calls, "Done."]), tools=[slow], max_parallel_tools=2).run("hi")
    assert loop.time() - begin == 3.0


async def test_serial_tools_run_alone_after_the_others() -> None:
    running: list[str] = []
    overlaps: list[list[str]] = []

    async def work(name: str) -> str:
        overlaps.append([*running])
        running.append(name)
        await asyncio.sleep(1)
        running.remove(name)
        return name

    @tool(serial=True)
    async def alone(name: str) -> str:
        """Alone."""
        return await work(name)

    @tool
    async def together(name: str) -> str:
        """Together."""
        return await work(name)

    calls = [
        say("alone", name="a"),
        say("together", name="b"),
        say("alone", name="c"),
        say("together", name="d"),
    ]
    result = await Agent(ScriptedModel([calls, "Done."]), tools=[alone, together]).run("hi")
    assert overlaps == [[], ["b"], [], []]
    assert outputs(result.items) == ["a", "b", "c", "d"]


async def test_plain_functions_run_in_threads() -> None:
    import threading

    @tool
    def where() -> str:
        """Tells the thread."""
        return threading.current_thread().name

    result = await Agent(ScriptedModel([[say("where")], "Done."]), tools=[where]).run("hi")
    assert outputs(result.items) != [threading.current_thread().name]


async def test_reasoning_stays_before_what_it_led_to() -> None:
    script = [[Reasoning("hm"), say("echo", text="a")], "Done."]
    model = ScriptedModel(script)
    result = await Agent(model, tools=[echo]).run("hi")
    names = [type(item).__name__ for item in result.items]
    assert names == ["Message", "Reasoning", "FunctionCall", "FunctionCallOutput", "Message"]
    assert list(model.requests[1].items) == list(result.items)[:4]


async def test_reasoning_after_text_stays() -> None:
    result = await Agent(ScriptedModel([[Text("So."), Reasoning("hm")]])).run("hi")
    assert [type(item).__name__ for item in result.items] == ["Message", "Message", "Reasoning"]


@pytest.mark.parametrize("finish", ["stop", "length"])
async def test_reasoning_that_led_to_nothing_is_left_out(finish: FinishReason) -> None:
    script = [Turn((Reasoning("hm"), Reasoning("so")), finish=finish)]
    result = await Agent(ScriptedModel(script)).run("hi", raise_on_incomplete=False)
    assert [type(item).__name__ for item in result.items] == ["Message"]


async def test_arguments_that_are_nested_too_deeply_become_an_output() -> None:
    deep = '{"text": ' + "[" * 200 + "]" * 200 + "}"
    model = ScriptedModel([[Call("echo", deep)], "I see."])
    result = await Agent(model, tools=[echo]).run("hi")
    assert "nested deeper than 128" in outputs(result.items)[0]
    assert result.text == "I see."


async def test_too_many_calls_of_one_response_become_an_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (demux, calls, call_rules):
        monkeypatch.setattr(module, "MAX_CALLS", 3)
    model = ScriptedModel([[say("echo", text=str(n)) for n in range(7)], "I see."])
    result = await Agent(model, tools=[echo]).run("hi")
    made = ["0", "1", "2"]
    refusal = (
        "A response may contain 3 calls; the call of echo and all calls after it were not made."
    )
    assert outputs(result.items) == [*made, refusal]
    assert result.text == "I see."


async def test_errors_become_outputs_and_the_run_goes_on() -> None:
    calls = [
        say("nowhere"),
        Call("echo", "{broken"),
        say("echo", wrong=1),
        say("broken"),
    ]
    result = await Agent(ScriptedModel([calls, "Sorry."]), tools=[echo, broken]).run("hi")
    unknown, bad_json, invalid, raised = outputs(result.items)
    assert "nowhere" in unknown
    assert "echo" in unknown
    assert "JSON" in bad_json
    assert "text" in invalid
    assert "nothing there" in raised
    assert all(i.is_error for i in result.items if isinstance(i, FunctionCallOutput))
    assert result.output == "Sorry."


async def test_a_tool_that_raises_answers_every_call_first() -> None:
    fatal = tool(name="fatal", on_error="raise")(broken.function)
    calls = [say("fatal"), say("slow", seconds=5)]
    async with Agent(ScriptedModel([calls]), tools=[fatal, slow]).stream("hi") as run:
        with pytest.raises(ToolFailed, match="nothing there") as caught:
            await run.result()
    assert isinstance(caught.value.__cause__, LookupError)
    assert outputs(run.history)[1] == "slept 5"
    require_valid(run.history)


async def test_max_steps() -> None:
    model = ScriptedModel([[say("echo", text="a")]] * 3)
    result = await Agent(model, tools=[echo], limits=Limits(max_steps=3)).run(
        "hi", raise_on_incomplete=False
    )
    assert (result.status, result.stop_reason, result.steps) == ("incomplete", "max_steps", 3)
    assert result.output is None
    require_valid(result.history)


async def test_an_answer_in_the_last_step_is_an_answer() -> None:
    model = ScriptedModel([[say("echo", text="a")], "Done."])
    result = await Agent(model, tools=[echo], limits=Limits(max_steps=2)).run("hi")
    assert (result.status, result.stop_reason) == ("completed", "end_turn")


async def test_token_and_cost_limits_are_looked_at_after_a_step() -> None:
    turn = Turn((say("echo", text="a"),), usage=Usage(100, 10, requests=1))
    for limits, reason in [
        (Limits(max_tokens=200), "max_tokens"),
        (Limits(max_cost=0.0002, price=Price(input=1, output=1)), "max_cost"),
    ]:
        result = await Agent(ScriptedModel([turn] * 3), tools=[echo], limits=limits).run(
            "hi", raise_on_incomplete=False
        )
        assert (result.status, result.stop_reason, result.steps) == ("incomplete", reason, 2)
        assert result.usage == Usage(200, 20, requests=2)


async def test_the_time_limit_ends_a_run_at_once() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    agent = Agent(
        ScriptedModel([[Text("a"), say("slow", seconds=60)]]),
        tools=[slow],
        limits=Limits(max_seconds=5),
    )
    result = await agent.run("hi", raise_on_incomplete=False)
    assert (result.status, result.stop_reason) == ("incomplete", "max_seconds")
    assert loop.time() - begin == 5.0
    assert outputs(result.items) == ["The time of the run is used up: its outcome is unknown."]


async def test_a_terminal_tool_ends_the_run_with_its_output() -> None:
    final = tool(name="final", terminal=True)(echo.function)
    model = ScriptedModel([[say("final", text="that is it")]])
    result = await Agent(model, tools=[final]).run("hi")
    assert (result.status, result.stop_reason) == ("completed", "terminal_tool")
    assert result.output == "that is it"


async def test_a_terminal_tool_that_failed_does_not_end_the_run() -> None:
    final = tool(name="final", terminal=True)(broken.function)
    result = await Agent(ScriptedModel([[say("final")], "Sorry."]), tools=[final]).run("hi")
    assert (result.output, result.stop_reason) == ("Sorry.", "end_turn")


async def test_cancel_is_now() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    script = [[Text("Let me see."), say("slow", seconds=60), Pause(90)]]
    async with Agent(ScriptedModel(script), tools=[slow]).stream("hi") as run:
        async for event in run:
            if isinstance(event, ToolStarted):
                await run.cancel()
                await run.cancel()
        result = await run.result(raise_on_incomplete=False)
        await run.cancel()
    assert (result.status, result.stop_reason) == ("cancelled", "cancelled")
    assert loop.time() == begin
    assert isinstance(event, RunCancelled)
    assert outputs(result.items) == ["The run was cancelled: its outcome is unknown."]
    require_valid(result.history)


async def test_cancel_before_the_first_step() -> None:
    async with Agent(ScriptedModel(["never"])).stream("hi") as run:
        await run.cancel()
        result = await run.result(raise_on_incomplete=False)
    assert result.status == "cancelled"


async def test_a_cancelled_tool_sees_the_cancellation() -> None:
    seen: list[str] = []

    @tool
    async def careful() -> str:
        """Cleans up."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "done"

    async with Agent(ScriptedModel([[say("careful")]]), tools=[careful]).stream("hi") as run:
        async for event in run:
            if isinstance(event, ToolStarted):
                await run.cancel()
    assert seen == ["cancelled"]


async def test_a_thread_gets_a_token() -> None:
    import threading

    started, stopped = threading.Event(), threading.Event()

    @tool
    def patient(context: RunContext[None]) -> str:
        """Waits for the token."""
        started.set()
        context.cancelled.wait(30)
        stopped.set()
        return "too late"

    async with Agent(ScriptedModel([[say("patient")]]), tools=[patient]).stream("hi") as run:
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 10)
        await run.cancel()
        result = await run.result(raise_on_incomplete=False)
    assert await asyncio.get_running_loop().run_in_executor(None, stopped.wait, 10)
    assert result.status == "cancelled"


async def test_finish_ends_after_the_step() -> None:
    model = ScriptedModel([[say("slow", seconds=1)], "never asked for"])
    async with Agent(model, tools=[slow]).stream("hi") as run:
        async for event in run:
            if isinstance(event, ToolStarted):
                await run.finish()
        result = await run.result()
    assert (result.status, result.stop_reason) == ("completed", "finish_requested")
    assert outputs(result.items) == ["slept 1"]
    assert model.remaining == 1


async def test_leaving_the_context_cancels_the_run() -> None:
    async with Agent(ScriptedModel([[say("slow", seconds=60)]]), tools=[slow]).stream("hi") as run:
        async for event in run:
            if isinstance(event, ToolStarted):
                break
    result = await run.result(raise_on_incomplete=False)
    assert result.status == "cancelled"
    require_valid(result.history)


async def test_leaving_before_the_run_began() -> None:
    async with Agent(ScriptedModel(["never"])).stream("hi") as run:
        pass
    assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    assert kinds(await events_of(run)) == ["MessageAdded", "RunStarted", "RunCancelled"]


async def test_a_run_without_events_cannot_be_iterated() -> None:
    run = Run(Agent(ScriptedModel(["Hi."])), "hi", deps=None, watched=False)
    with pytest.raises(InvalidInput, match=r"agent\.stream"):
        aiter(run)
    await drive_run(run)
    await stop_run(run)
    assert (await run.result()).output == "Hi."


async def test_a_message_as_input() -> None:
    model = ScriptedModel(["Hi."])
    await Agent(model).run(user_message([InputImage("https://x/y.png")]))
    assert model.requests[0].items[0].content == (InputImage("https://x/y.png"),)  # type: ignore[union-attr]


async def test_a_finished_run_may_have_no_structured_output() -> None:
    model = ScriptedModel([[say("slow", seconds=1)]])
    async with Agent(model, tools=[slow], output=City).stream("hi") as run:
        await run.finish()
        result = await run.result(raise_on_incomplete=False)
    assert (result.output, result.stop_reason) == (None, "finish_requested")


async def test_items_only_the_provider_understands_stay_in_the_history() -> None:
    item = ProviderItem("openai", msgspec.Raw(b'{"type": "web_search_call"}'))

    class Searching:
        name = provider = "openai"

        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
            yield ItemFinished(0, item)
            yield ResponseFinished("r", "stop", Usage())

    assert (await Agent(Searching()).run("hi")).items[1] == item


async def test_a_paused_response_is_asked_to_go_on() -> None:
    requests: list[ModelRequest] = []

    class Pausing:
        name = provider = "pausing"

        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
            requests.append(request)
            paused = len(requests) < 3
            yield ItemFinished(0, Message("assistant", (OutputText(f"{len(requests)} "),)))
            yield ResponseFinished("r", "pause" if paused else "stop", Usage())

    result = await Agent(Pausing()).run("hi")
    assert (result.steps, result.stop_reason, result.output) == (3, "end_turn", "3 ")
    assert [len(request.items) for request in requests] == [1, 2, 3]
    requests.clear()
    limited = await Agent(Pausing(), limits=Limits(max_steps=2)).run(
        "hi", raise_on_incomplete=False
    )
    assert limited.stop_reason == "max_steps"


async def test_a_model_cannot_write_the_output_of_a_tool() -> None:
    class Lying:
        name = provider = "lying"

        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
            yield ItemFinished(0, FunctionCallOutput("c", "made up"))

    with pytest.raises(ModelError, match="only tools can"):
        await Agent(Lying()).run("hi")


async def test_a_stream_without_its_end_is_not_a_success() -> None:
    class Silent:
        name = provider = "silent"

        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
            yield TextDelta("m", "Half")

    with pytest.raises(StreamIncomplete):
        await Agent(Silent()).run("hi")


async def test_cancelling_the_caller_cancels_the_run() -> None:
    agent = Agent(ScriptedModel([[say("slow", seconds=60)]]), tools=[slow])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await agent.run("hi")


async def test_an_error_of_the_consumer_stays_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with Agent(ScriptedModel([[say("slow", seconds=9)]]), tools=[slow]).stream("hi"):
            raise KeyError("mine")


async def test_a_consumer_that_never_reads_holds_nothing_up() -> None:
    agent = Agent(ScriptedModel([Text("x" * 100_000, deltas=50_000)]))
    async with agent.stream("hi") as run:
        result = await run.result()
        events = await events_of(run)
    assert len(result.text) == 100_000
    assert len(events) < 5000
    assert "".join(e.delta for e in events if isinstance(e, TextDelta)) == result.text
    assert isinstance(events[-1], RunCompleted)


async def test_a_failed_run_says_so_and_raises() -> None:
    agent = Agent(ScriptedModel([BadRequest("No such model.", provider_code="model_not_found")]))
    seen: list[Event] = []
    async with agent.stream("hi") as run:
        with pytest.raises(BadRequest, match="No such model"):
            async for event in run:
                seen.append(event)
        with pytest.raises(BadRequest):
            await run.result()
    last = seen[-1]
    assert isinstance(last, RunFailed)
    assert (last.code, last.retryable) == ("bad_request", False)


async def test_retries_are_events_and_back_off() -> None:
    model = ScriptedModel([RateLimited("slow down", retry_after=7), ServerFailed("oops"), "Hello."])
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with Agent(model, retry=RetryPolicy(max_retries=2)).stream("hi") as run:
        events = await events_of(run)
    limited = next(event for event in events if isinstance(event, RateLimitHit))
    retried = next(event for event in events if isinstance(event, Retrying))
    assert limited.delay >= 7
    assert (limited.retries_remaining, retried.retries_remaining) == (1, 0)
    assert retried.code == "server_failed"
    assert loop.time() - begin == pytest.approx(limited.delay + retried.delay)
    assert isinstance(events[-1], RunCompleted)


async def test_a_response_that_breaks_after_a_visible_delta_is_not_repeated() -> None:
    model = ScriptedModel([[Unfinished(Text("Half a")), StreamIncomplete("cut")], "never"])
    async with Agent(model).stream("hi") as run:
        with pytest.raises(StreamIncomplete):
            await events_of(run)
    assert model.remaining == 1
    assert [type(item) for item in run.history] == [Message]


async def test_a_response_that_breaks_off_is_repeated_where_that_is_wanted() -> None:
    cut = [Unfinished(Text("Half a")), StreamIncomplete("cut")]
    called = [say("echo", text="x"), Unfinished(Text("Now")), StreamIncomplete("cut")]
    model = ScriptedModel([cut, called, ServerFailed("oops"), "Whole."])
    agent = Agent(model, tools=[echo], on_interruption="retry")
    async with agent.stream("hi") as run:
        events = await events_of(run)
    retried = [event for event in events if isinstance(event, Retrying)]
    assert [(event.code, event.retries_remaining) for event in retried] == [
        ("stream_incomplete", 3),
        ("stream_incomplete", 2),
        ("server_failed", 1),  # the same request, so the same budget
    ]
    assert sum(isinstance(event, StepInterrupted) for event in events) == 2
    assert isinstance(events[-1], RunCompleted)
    assert outputs(run.history) == ["x"]
    require_valid(run.history)


async def test_a_response_that_always_breaks_off_fails_the_run() -> None:
    cut = [Unfinished(Text("Half a")), StreamIncomplete("cut")]
    model = ScriptedModel([cut] * 9)
    agent = Agent(model, on_interruption="retry", retry=RetryPolicy(max_retries=2))
    async with agent.stream("hi") as run:
        with pytest.raises(StreamIncomplete):
            await events_of(run)
    assert model.remaining == 6


async def test_a_whole_response_ends_the_count_of_retries() -> None:
    cut = [Unfinished(Text("Half a")), StreamIncomplete("cut")]
    model = ScriptedModel([cut, [say("echo", text="x")], cut, "Whole."])
    agent = Agent(model, tools=[echo], on_interruption="retry", retry=RetryPolicy(max_retries=1))
    assert (await agent.run("hi")).text == "Whole."


async def test_what_was_finished_before_a_break_stands() -> None:
    script = [[say("slow", seconds=2), Unfinished(Text("Half")), StreamIncomplete("cut")]]
    async with Agent(ScriptedModel(script), tools=[slow]).stream("hi") as run:
        seen: list[Event] = []
        with pytest.raises(StreamIncomplete):
            async for event in run:
                seen.append(event)
    assert outputs(run.history) == ["slept 2"]
    require_valid(run.history)
    assert [type(event) for event in seen[-2:]] == [StepInterrupted, RunFailed]
    again = ScriptedModel(["Done."])
    result = await Agent(again, tools=[slow]).run("go on", history=run.history)
    assert result.output == "Done."


async def test_calls_that_waited_for_a_broken_response_did_not_run() -> None:
    script = [[say("slow", seconds=2), StreamIncomplete("cut")]]
    agent = Agent(ScriptedModel(script), tools=[slow], early_tools=False)
    async with agent.stream("hi") as run:
        with pytest.raises(StreamIncomplete):
            await run.result()
    assert outputs(run.history) == ["The response broke off: it did not run."]


async def test_a_step_whose_call_was_answered_is_not_repeated_by_a_later_retry() -> None:
    ran: list[str] = []

    @tool
    async def once(name: str) -> str:
        """Counts."""
        ran.append(name)
        return name

    script = [[say("once", name="a")], ServerFailed("oops"), ServerFailed("oops"), "Done."]
    result = await Agent(ScriptedModel(script), tools=[once]).run("hi")
    assert (ran, result.output, result.steps) == (["a"], "Done.", 2)


async def test_a_defect_of_the_model_ends_the_run() -> None:
    async with Agent(ScriptedModel([ValueError("a bug")])).stream("hi") as run:
        seen: list[Event] = []
        with pytest.raises(ValueError, match="a bug"):
            async for event in run:
                seen.append(event)
    last = seen[-1]
    assert isinstance(last, RunFailed)
    assert (last.code, last.message) == ("internal_error", "ValueError: a bug")


async def test_an_unexpected_request_is_reported() -> None:
    with pytest.raises(UnexpectedRequest, match="request 2, but the script has 1 step;"):
        await Agent(ScriptedModel([[say("echo", text="a")]]), tools=[echo]).run("hi")


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_a_truncated_response_is_incomplete(finish: str, reason: str) -> None:
    turn = Turn((Text("Half a sen"), say("echo", text="cut")), finish=finish)  # type: ignore[arg-type]
    result = await Agent(ScriptedModel([turn]), tools=[echo]).run("hi", raise_on_incomplete=False)
    assert (result.status, result.stop_reason) == ("incomplete", reason)
    assert result.text == "Half a sen"
    assert not any(isinstance(item, FunctionCall) for item in result.items)


class City(BaseModel):
    name: str
    people: int


async def test_structured_output() -> None:
    model = ScriptedModel(['{"name": "Paris", "people": 2000000}'])
    result = await Agent(model, output=City).run("hi")
    assert result.output == City(name="Paris", people=2_000_000)
    assert model.requests[0].output is not None
    assert model.requests[0].output.name == "City"


async def test_invalid_output_is_sent_back_for_correction() -> None:
    model = ScriptedModel(["Paris", '{"name": "Paris"}', '{"name": "Paris", "people": 2}'])
    result = await Agent(model, output=City).run("hi")
    assert result.output == City(name="Paris", people=2)
    correction = model.requests[2].items[-1]
    assert isinstance(correction, Message)
    assert "people" in correction.text
    assert result.steps == 3


async def test_corrections_are_bounded() -> None:
    model = ScriptedModel(["Paris"] * 2)
    with pytest.raises(OutputInvalid, match="after 1 corrections"):
        await Agent(model, output=City, max_corrections=1).run("hi")
    model.require_consumed()


async def test_a_refusal_is_no_invalid_output() -> None:
    with pytest.raises(OutputRefused, match="cannot"):
        await Agent(ScriptedModel([Refusal("I cannot.")]), output=City).run("hi")
    result = await Agent(ScriptedModel([Refusal("I cannot.")])).run("hi")
    assert (result.output, result.refusal) == ("", "I cannot.")


async def test_a_forced_choice_applies_to_the_first_step_only() -> None:
    model = ScriptedModel([[say("echo", text="a")], "Done."])
    settings = ModelSettings(tool_choice="required")
    await Agent(model, tools=[echo], settings=settings).run("hi")
    assert [request.settings.tool_choice for request in model.requests] == ["required", None]


async def test_instructions_may_depend_on_deps_and_tools_see_them() -> None:
    @tool
    async def who(context: RunContext[str]) -> str:
        """Tells."""
        context.progress("looking")
        return f"{context.deps} {context.attempt} {context.idempotency_key == context.call_id}"

    model = ScriptedModel([[say("who")], "Done."])
    agent = Agent[str, str](
        model, tools=[who], instructions=lambda context: f"Serve {context.deps}."
    )
    async with agent.stream("hi", deps="Ada") as run:
        events = await events_of(run)
    assert model.requests[0].instructions == "Serve Ada."
    assert any(type(event).__name__ == "ToolProgress" for event in events)
    (output,) = [event.item for event in events if isinstance(event, ToolOutputRecorded)]
    assert output.text == "Ada 1 True"


async def test_a_conversation_goes_on_with_its_history() -> None:
    model = ScriptedModel(["Hello.", "Again."])
    agent = Agent(model)
    first = await agent.run("hi")
    second = await agent.run("again", history=first.history)
    assert [item.text for item in second.history if isinstance(item, Message)] == [
        "hi",
        "Hello.",
        "again",
        "Again.",
    ]
    assert len(second.items) == 2
    assert len(first.history) == 2


async def test_bad_input() -> None:
    agent = Agent(ScriptedModel([]))
    for empty in ("", "   ", []):
        with pytest.raises(InvalidInput):
            await agent.run(empty)
    with pytest.raises(InvalidInput):
        await agent.run("hi", history=[FunctionCall("c", "look", "{}")])
    with pytest.raises(ConfigurationError, match=r"await agent\.run"):
        agent.run_sync("hi")


def test_run_sync() -> None:
    assert Agent(ScriptedModel(["Hello."])).run_sync("hi").output == "Hello."


@pytest.mark.parametrize(
    "build",
    [
        lambda: Limits(max_steps=0),
        lambda: Limits(max_seconds=0),
        lambda: Agent(ScriptedModel([]), limits=Limits(max_cost=1)),
        lambda: Limits(max_tool_calls=0),
        lambda: Limits(max_cost=float("nan")),
        lambda: RetryPolicy(max_retries=-1),
        lambda: Agent(ScriptedModel([]), max_parallel_tools=0),
        lambda: Agent(ScriptedModel([]), max_corrections=-1),
        lambda: Agent(ScriptedModel([]), on_job_failure="colect"),  # type: ignore[arg-type]
        lambda: Agent(ScriptedModel([]), settings=ModelSettings(tool_choice=NamedTool("no"))),
        lambda: Agent(ScriptedModel([]), settings=ModelSettings(tool_choice="required")),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_defined(build: object) -> None:
    with pytest.raises(ConfigurationError):
        build()  # type: ignore[operator]


PARTS = st.one_of(
    st.builds(Text, st.sampled_from(["a", "b c"])),
    st.just(Reasoning("hm")),
    st.builds(lambda seconds: say("slow", seconds=seconds), st.integers(0, 3)),
    st.just(say("broken")),
    st.just(say("nowhere")),
    st.builds(Pause, st.integers(1, 3)),
    st.just(Unfinished(Text("half"))),
    st.just(StreamIncomplete("cut")),
)


@given(
    script=st.lists(st.lists(PARTS, min_size=1, max_size=5), min_size=1, max_size=4),
    act=st.sampled_from(["cancel", "finish", "leave", "wait"]),
    when=st.integers(0, 8),
    early=st.booleans(),
)
@settings(max_examples=150)
def test_whatever_happens_the_history_is_valid_and_the_end_is_last(
    script: list[list[object]], act: str, when: int, early: bool
) -> None:
    async def scenario() -> None:
        model = ScriptedModel([*script, "Done."])  # type: ignore[list-item]
        agent = Agent(
            model,
            tools=[slow, broken],
            early_tools=early,
            retry=RetryPolicy(max_retries=1, budget=1),
            limits=Limits(max_steps=3),
        )
        events: list[Event] = []

        async def act_later(run: Run[str]) -> None:
            await asyncio.sleep(when)
            if act in {"cancel", "finish"}:
                await getattr(run, act)()

        async with agent.stream("hi") as run:
            acting = asyncio.create_task(act_later(run))
            try:
                async for event in run:
                    events.append(event)
                    require_valid(run.history)
                    if act == "leave" and len(events) > when:
                        break
            except StreamIncomplete:
                pass
            acting.cancel()
        require_valid(run.history)
        ends = [
            e
            for e in events
            if isinstance(e, RunCompleted | RunIncomplete | RunFailed | RunCancelled)
        ]
        if act != "leave":
            assert ends == [events[-1]]
        requested = [e.item.call_id for e in events if isinstance(e, ToolCallRequested)]
        assert len(set(requested)) == len(requested)
        for event in events:
            if isinstance(event, MessageAdded):
                streamed = "".join(
                    e.delta
                    for e in events
                    if isinstance(e, TextDelta) and e.item_id == event.item.id
                )
                assert event.origin == "user" or streamed == event.item.text

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(scenario())


async def test_hold_waits_for_the_test() -> None:
    gate = asyncio.Event()
    async with Agent(ScriptedModel([[Text("a"), Hold(gate), Text("b")]])).stream("hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                gate.set()
        result = await run.result()
    assert result.text == "ab"


async def test_a_thousand_runs_side_by_side() -> None:
    begin = time.monotonic()

    async def one() -> str | None:
        model = ScriptedModel([[say("slow", seconds=1)], "Done."])
        return (await Agent(model, tools=[slow]).run("hi")).output

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(one()) for _ in range(1000)]
    assert {run.result() for run in runs} == {"Done."}
    assert time.monotonic() - begin < 30
