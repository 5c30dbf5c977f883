"""Runs in the foreground within a finite window."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory.compaction.counting import Answer, CountingModel
from tests.memory.compaction.histories import HISTORIES, conversation, texts

from treadle import (
    Agent,
    Completion,
    CompletionContext,
    ContextCompacted,
    Hooks,
    Limits,
    RunResult,
    tool,
)
from treadle.domain.events import Event, Retrying, RunFailed
from treadle.domain.items import FunctionCallOutput, Item, Message, message
from treadle.errors import ConfigurationError, ContextOverflow, TreadleError
from treadle.memory.compaction.strategies import ContextStrategy, NoCompaction, SlidingWindow
from treadle.models.base import ModelRequest
from treadle.testing import Call, ScriptedModel, Text, VirtualClockLoop

pytestmark = pytest.mark.anyio


@tool
async def look(n: int, size: int = 300) -> str:
    """Looks at it."""
    return f"output {n} " + "lorem ipsum " * (size // 12)


def looks(steps: int, size: int = 300) -> Answer:
    """Calls the tool a number of times, then answers."""
    left = iter(range(steps))

    def answer(request: ModelRequest) -> tuple[Text | Call, ...]:
        n = next(left, None)
        return (Text("Done."),) if n is None else (Call("look", f'{{"n": {n}, "size": {size}}}'),)

    return answer


def say(text: str) -> Answer:
    return lambda request: (Text(text),)


def agent_of(model: object, context: ContextStrategy | None, **options: object) -> Agent:
    return Agent(
        model,  # type: ignore[arg-type]
        tools=[look],
        context=context,
        limits=Limits(max_steps=None),
        **options,  # type: ignore[arg-type]
    )


async def run(
    agent: Agent, asked: str = "go", history: Sequence[Item] = ()
) -> tuple[list[Event], RunResult[str] | None]:
    async with agent.stream(asked, history=history) as running:
        events: list[Event] = []
        try:
            async for event in running:
                events.append(event)
        except TreadleError:  # what it failed with is in its last event
            return events, None
        return events, await running.result()


def compactions(events: Sequence[Event]) -> list[ContextCompacted]:
    return [event for event in events if isinstance(event, ContextCompacted)]


async def test_a_run_of_many_steps_stays_within_its_window() -> None:
    model = CountingModel(looks(400), ratio=1.2, spread=0.1)
    events, result = await run(agent_of(model, SlidingWindow(max_tokens=8_000)))
    assert result is not None
    assert result.steps == 401
    assert max(model.sizes) <= 8_000
    assert len(result.history) == 802  # all of it is still there
    done = compactions(events)
    assert {event.counted_by for event in done} == {"usage"}
    assert {event.cause for event in done} == {"before_step"}
    assert all(event.kept == (0,) for event in done)
    assert all(event.tokens_after < event.tokens_before <= 7_000 for event in done)
    assert sum(event.left_out for event in done) == done[-1].cut - 1
    assert 10 < len(done) < 40


@settings(max_examples=60)
@given(
    history=HISTORIES,
    ratio=st.floats(0.7, 1.3),
    spread=st.floats(0, 0.1),
    reports=st.booleans(),
    keep=st.integers(1, 12),
    most=st.none() | st.integers(12, 30),
    steps=st.integers(0, 12),
)
def test_no_request_exceeds_the_window_nor_breaks_a_pair(
    history: list[Item],
    ratio: float,
    spread: float,
    reports: bool,
    keep: int,
    most: int | None,
    steps: int,
) -> None:
    model = CountingModel(looks(steps), ratio=ratio, spread=spread, reports=reports)
    strategy = SlidingWindow(max_tokens=4_000, keep=keep, max_messages=most)

    async def converse() -> None:
        items, agent = history, agent_of(model, strategy)
        for n in range(4):
            _, result = await run(agent, f"question {n}", items)
            assert result is not None
            assert list(result.history)[: len(items)] == items
            for request in model.requests:
                assert f"question {n}" in texts(request.items)
                system = [item for item in items if isinstance(item, Message)]
                assert all(i in request.items for i in system if i.role == "system")
            items = list(result.history)
            model.requests.clear()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(converse())
    assert max(model.sizes) <= 4_000


async def test_without_usage_the_estimate_is_respected() -> None:
    model = CountingModel(looks(100), ratio=1.3, reports=False)
    events, result = await run(agent_of(model, SlidingWindow(max_tokens=8_000)))
    assert result is not None
    assert max(model.sizes) <= 8_000
    assert {event.counted_by for event in compactions(events)} == {"estimate"}


async def test_a_given_tokenizer_counts() -> None:
    model = CountingModel(looks(100), reports=False)
    strategy = SlidingWindow(max_tokens=8_000, count=lambda text: len(text) // 3 + 1)
    events, result = await run(agent_of(model, strategy))
    assert result is not None
    assert max(model.sizes) <= 8_000
    assert {event.counted_by for event in compactions(events)} == {"tokenizer"}


async def test_a_tokenizer_that_fails_fails_the_run_clearly() -> None:
    def broken(text: str) -> int:
        raise LookupError("no vocabulary")

    strategy = SlidingWindow(max_tokens=8_000, count=broken)
    with pytest.raises(ConfigurationError, match="no vocabulary"):
        await agent_of(ScriptedModel([]), strategy).run("hi")


async def test_messages_are_counted_as_well() -> None:
    model = CountingModel(say("ok"))
    agent = agent_of(model, SlidingWindow(max_tokens=100_000, keep=4, max_messages=12))
    history: list[Item] = conversation(3)
    events, _ = await run(agent, "go", history)
    [event] = compactions(events)
    assert event.cut == 8  # five are left, where half of twelve may be
    assert len(model.requests[0].items) == 5


@pytest.mark.parametrize("size", [1_000, 1_200, 1_500, 1_800, 2_100, 2_400, 2_700])
async def test_what_is_kept_and_fills_the_window_is_not_cut_after_each_step(size: int) -> None:
    model = CountingModel(looks(100, size))
    agent = agent_of(model, SlidingWindow(max_tokens=8_000), instructions="Be kind. " * 700)
    events, result = await run(agent)
    assert result is not None
    assert 0 < len(compactions(events)) <= 50
    assert max(model.sizes) <= 8_000


async def test_long_outputs_are_shortened_rather_than_left_out() -> None:
    model = CountingModel(looks(1, 90_000), window=8_000)
    events, result = await run(agent_of(model, SlidingWindow(max_tokens=8_000)))
    assert result is not None
    assert max(model.sizes) <= 8_000
    [event] = compactions(events)
    assert event.shortened[0][0] == 2
    output = model.requests[-1].items[-1]
    assert isinstance(output, FunctionCallOutput)
    assert "characters are left out here" in output.text
    whole = result.history[2]
    assert isinstance(whole, FunctionCallOutput)
    assert len(whole.text) > 80_000


async def test_outputs_are_shortened_even_if_the_rest_takes_nearly_all_room() -> None:
    model = CountingModel(looks(1, 9_000))
    agent = agent_of(model, SlidingWindow(max_tokens=8_000), instructions="x" * 17_000)
    events, result = await run(agent)
    assert result is not None
    assert [event.shortened[0][0] for event in compactions(events)] == [2]
    assert max(model.sizes) <= 7_000


async def test_what_can_never_fit_is_not_sent() -> None:
    model = CountingModel(say("ok"))
    events, _ = await run(agent_of(model, SlidingWindow(max_tokens=4_000)), "long " * 9_000)
    assert model.requests == []
    failed = events[-1]
    assert isinstance(failed, RunFailed)
    assert failed.code == "context_overflow"
    assert "3,500" in failed.message
    assert "shorten the message" in failed.message


async def test_what_may_fit_is_sent() -> None:
    model = CountingModel(say("ok"), ratio=0.7)
    size = 3_300 * 3  # 3,300 tokens by the estimate, 2,300 for the model
    events, result = await run(agent_of(model, SlidingWindow(max_tokens=4_000)), "x" * size)
    assert result is not None
    assert compactions(events) == []


async def test_without_compaction_it_fails_before_it_is_sent() -> None:
    model = CountingModel(looks(100))
    events, _ = await run(agent_of(model, NoCompaction(max_tokens=4_000)))
    failed = events[-1]
    assert isinstance(failed, RunFailed)
    assert failed.code == "context_overflow"
    assert "SlidingWindow" in failed.message
    assert 3_000 < max(model.sizes) <= 3_500
    model = CountingModel(say("ok"), window=1_000)
    with pytest.raises(ContextOverflow, match="prompt is too long"):
        await agent_of(model, NoCompaction(max_tokens=9_000)).run("long " * 1_000)
    assert len(model.requests) == 1


async def test_without_a_strategy_the_provider_decides() -> None:
    model = CountingModel(looks(100), window=4_000)
    with pytest.raises(ContextOverflow, match="prompt is too long"):
        await agent_of(model, None).run("go")


async def test_a_request_that_the_provider_refuses_is_made_shorter_once() -> None:
    model = CountingModel(looks(60), window=4_000)  # a quarter of what it is taken for
    events, result = await run(agent_of(model, SlidingWindow(max_tokens=16_000)))
    assert result is not None
    done = compactions(events)
    assert {event.cause for event in done} >= {"overflow"}
    refused = [size for size in model.sizes if size > 4_000]
    assert 0 < len(refused) < 6
    assert not any(isinstance(event, Retrying) for event in events)


async def test_a_second_refusal_fails_the_run() -> None:
    refusals = [ContextOverflow("too long")] * 2
    model = ScriptedModel([*refusals, "never"])
    agent = agent_of(model, SlidingWindow(max_tokens=4_000))
    with pytest.raises(ContextOverflow, match="too long"):
        await agent.run("go", history=conversation(20))
    assert len(model.requests) == 2
    short = ScriptedModel(refusals)
    with pytest.raises(ContextOverflow):
        await agent_of(short, SlidingWindow(max_tokens=4_000)).run("go")
    assert len(short.requests) == 1  # there was nothing that could leave


async def test_a_thousand_steps_within_32k() -> None:
    model = CountingModel(looks(1_000), ratio=1.3, spread=0.1, window=32_000)
    agent = agent_of(model, SlidingWindow(max_tokens=32_000))
    result = await agent.run("go")
    assert result.steps == 1_001
    assert 20_000 < max(model.sizes) <= 32_000
    assert len(result.history) == 2_002


async def test_what_was_sent_although_it_was_long_fails_in_the_words_of_the_provider() -> None:
    model = CountingModel(say("ok"), ratio=0.9, window=3_000)
    events, _ = await run(agent_of(model, SlidingWindow(max_tokens=4_000)), "x" * 11_400)
    failed = events[-1]
    assert isinstance(failed, RunFailed)
    assert "prompt is too long" in failed.message
    assert len(model.requests) == 1


async def test_a_refusal_after_something_was_seen_is_not_repeated() -> None:
    model = ScriptedModel([[Text("Well"), ContextOverflow("too long")]])
    agent = agent_of(model, SlidingWindow(max_tokens=4_000))
    with pytest.raises(ContextOverflow):
        await agent.run("go", history=conversation(20))


async def test_hooks_see_the_shorter_request() -> None:
    seen: list[int] = []

    def count(context: object, request: ModelRequest) -> None:
        seen.append(len(request.items))

    model = ScriptedModel([ContextOverflow("too long"), "ok"])
    agent = agent_of(model, SlidingWindow(max_tokens=9_000), hooks=Hooks(before_model=[count]))
    await agent.run("go", history=conversation(20))
    assert len(seen) == 2
    assert seen[1] < seen[0]


async def test_the_task_stays_if_a_hook_shortens_it() -> None:
    told: list[Item] = [message("user", "The task, in short."), message("assistant", "I looked.")]

    async def shorten(context: CompletionContext[None], completion: Completion) -> None:
        if len(context.history) > 20 and context.history[0].id != told[0].id:
            context.replace_history(told)
            context.continue_with("go on")

    model = CountingModel(looks(60))
    agent = agent_of(
        model, SlidingWindow(max_tokens=4_000), hooks=Hooks(after_completion=[shorten])
    )
    events, result = await run(agent, "the task")
    assert result is not None
    assert len(compactions(events)) > 1
    assert texts(model.requests[-1].items)[:2] == ["The task, in short.", "go on"]


async def test_a_run_without_a_user_message_keeps_the_last_one() -> None:
    async def forget(context: CompletionContext[None], completion: Completion) -> None:
        if len(context.history) == 21:
            context.replace_history([message("assistant", "I looked.")])
            context.continue_with("go on", role="developer")

    model = CountingModel(looks(60))
    agent = agent_of(model, SlidingWindow(max_tokens=4_000), hooks=Hooks(after_completion=[forget]))
    events, result = await run(agent, "the task")
    assert result is not None
    assert len(compactions(events)) > 1
    assert texts(model.requests[-1].items) == ["go on"]


async def test_system_messages_of_hooks_stay_and_the_task_does() -> None:
    history = [message("system", "Be kind."), *conversation(2)]
    model = CountingModel(looks(60))
    events, result = await run(
        agent_of(model, SlidingWindow(max_tokens=4_000)), "the task", history
    )
    assert result is not None
    last = model.requests[-1]
    assert texts(last.items)[:2] == ["Be kind.", "the task"]
    assert len(compactions(events)) > 2
