"""Compaction on threads: behind runs and beside them, over restarts, and pins."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.actors.test_failures import FailingJournal
from tests.memory.compaction.counting import CountingModel
from tests.memory.compaction.histories import texts
from tests.runtime.test_threads import until

import treadle
from treadle import (
    Agent,
    Block,
    CompletionContext,
    ContextCompacted,
    Hooks,
    Limits,
    MessagePinned,
    Runtime,
    Thread,
    ThreadInfo,
    tool,
)
from treadle.domain.events import RunCompleted
from treadle.domain.history import require_valid
from treadle.domain.items import Message
from treadle.domain.usage import Usage
from treadle.errors import ContextOverflow, HookFailed, JournalFull, UnknownMessage
from treadle.journal.memory import MemoryJournal
from treadle.memory.compaction.strategies import NoCompaction, SlidingWindow, Summarize
from treadle.memory.compaction.summary import HEADING
from treadle.models.base import ModelRequest
from treadle.testing import Call, Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
LONG = "lorem ipsum " * 100  # 400 tokens


def summaries(seconds: float = 0.0) -> ScriptedModel:
    return ScriptedModel([[Pause(seconds), Text(f"Summary {n}.")] for n in range(60)])


def ok(request: ModelRequest) -> tuple[Text, ...]:
    return (Text("ok"),)


@tool
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return LONG


@tool
async def write() -> str:
    """Writes much."""
    return "x" * 3 * 1_900


async def talk(thread: Thread, rounds: int, first: int = 0) -> None:
    for n in range(first, first + rounds):
        await (await thread.send(f"question {n} {LONG}")).result(raise_on_incomplete=False)
        await asyncio.sleep(0.01)  # what comes after a run has begun by then


async def compactions(thread: Thread) -> list[ContextCompacted]:
    events = await thread.events(limit=100_000)
    return [event for event in events if isinstance(event, ContextCompacted)]


async def test_after_a_run_the_next_has_room(open_runtime: Open) -> None:
    model = CountingModel(ok)
    agent = Agent(model, context=SlidingWindow(max_tokens=4_000, keep=2))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 30)
        done = await compactions(thread)
        assert {event.cause for event in done} == {"after_run"}
        assert max(model.sizes) <= 3_500
        events = await thread.events(limit=1_000)
        before = [events[events.index(event) - 1] for event in done]
        assert all(isinstance(event, RunCompleted) for event in before)
        assert [event.run_id for event in done] == [event.run_id for event in before]
        assert len(await thread.history()) == 60


async def test_a_summary_never_delays_the_end_of_a_run(open_runtime: Open) -> None:
    model = CountingModel(ok)
    agent = Agent(model, context=Summarize(max_tokens=8_000, keep=2, model=summaries(30)))
    loop = asyncio.get_running_loop()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        assert loop.time() < 1
        assert is_compacting()
        assert await compactions(thread) == []
        await until(thread, ContextCompacted)
        assert loop.time() == pytest.approx(30, abs=0.5)
        await talk(thread, 1, 14)
        assert texts(model.requests[-1].items)[0] == f"{HEADING}Summary 0."
        state = await thread.state()
        assert state.ended.usage.requests == 16  # fifteen runs and a summary


async def test_no_summary_is_written_for_a_thread_whose_limits_are_reached(
    open_runtime: Open,
) -> None:
    writer = summaries()
    agent = Agent(
        CountingModel(ok),
        context=Summarize(max_tokens=8_000, keep=2, model=writer),
        thread_limits=Limits(max_tokens=40_000),
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 20)
        assert {run.status for run in await thread.runs()} == {"completed", "incomplete"}
        assert writer.requests == []


async def test_runs_go_on_while_a_summary_is_written(open_runtime: Open) -> None:
    model = CountingModel(ok)
    agent = Agent(model, context=Summarize(max_tokens=8_000, keep=2, model=summaries(30)))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        assert is_compacting()
        await talk(thread, 1, 14)
        assert is_compacting()
        event = await until(thread, ContextCompacted)
        assert isinstance(event, ContextCompacted)
        items = (await thread.state()).context.items(await thread.history())
        require_valid(items)
        assert f"question 14 {LONG}" in texts(items)
        await talk(thread, 1, 15)
        assert texts(model.requests[-1].items)[0] == f"{HEADING}Summary 0."


async def test_what_is_written_into_a_block_while_its_summary_is_stays(open_runtime: Open) -> None:
    writer = summaries(30)
    strategy = Summarize(max_tokens=8_000, keep=2, model=writer, block="so_far")
    model = CountingModel(ok)
    agent = Agent(model, context=strategy, blocks=[Block("so_far")])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        assert is_compacting()
        await thread.memory.append("so_far", "Ada must not eat nuts.")
        await until(thread, ContextCompacted)
        [event] = await compactions(thread)
        assert event.summary is not None
        assert event.summary.text == f"{HEADING}Summary 0."
        assert "changed while the summary was written" in event.fallback
        assert await value_of(thread, "so_far") == "Ada must not eat nuts."
        await talk(thread, 14, 14)
        await asyncio.sleep(60)
        asked = texts(writer.requests[1].items)[0]
        assert "Ada must not eat nuts." in asked
        assert "Summary 0." in asked
        [_, event] = await compactions(thread)
        assert (event.summary, event.fallback) == (None, "")
        assert await value_of(thread, "so_far") == "Summary 1."


async def value_of(thread: Thread, label: str) -> str | None:
    block = await thread.memory.get(label)
    return None if block is None else block.value


async def test_a_refusal_while_a_summary_is_written_is_of_the_request_that_was_made(
    open_runtime: Open,
) -> None:
    model = CountingModel(ok, window=5_850)  # less than it is taken for
    strategy = Summarize(max_tokens=8_000, keep=2, model=summaries(30))
    agent = Agent(model, context=strategy)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        assert is_compacting()
        await talk(thread, 1, 14)  # waits for the summary, and is sent again
        assert [size > 5_850 for size in model.sizes[-2:]] == [True, False]
        [event] = await compactions(thread)
        assert event.cause == "after_run"
        await talk(thread, 6, 15)
        assert len(await compactions(thread)) == 1
        assert 4_000 < model.sizes[-1] < 5_850


async def test_a_refusal_does_not_end_what_comes_later(open_runtime: Open) -> None:
    refusals = [ContextOverflow("too many bytes"), ContextOverflow("too many bytes")]
    model = ScriptedModel(["ok", *refusals, "fine"])
    agent = Agent(model, instructions="x" * 9_000, context=SlidingWindow(max_tokens=8_000))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 1)
        with pytest.raises(ContextOverflow):
            await (await thread.send("look at this")).result()
        assert (await (await thread.send(f"and now? {LONG * 3}")).result()).text == "fine"


async def test_beside_the_steps_of_a_long_run() -> None:
    left = iter(range(40))

    def answer(request: ModelRequest) -> tuple[Text | Call, ...]:
        n = next(left, None)
        return (Text("Done."),) if n is None else (Call("slow", '{"seconds": 10}'),)

    model = CountingModel(answer)
    strategy = Summarize(max_tokens=8_000, share=0.5, model=summaries(25))
    agent = Agent(model, tools=[slow], context=strategy, limits=Limits(max_steps=None))
    loop = asyncio.get_running_loop()
    async with Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        result = await (await thread.send("go")).result()
        assert result.status == "completed"
        assert loop.time() == pytest.approx(400, abs=1)  # no step waited for a summary
        done = await compactions(thread)
        assert len(done) > 1
        assert max(model.sizes) <= 7_000
        assert texts(model.requests[-1].items)[0] == "go"


@pytest.mark.parametrize("ending", ["shutdown", "delete"])
async def test_what_is_under_way_ends_with_its_thread(open_runtime: Open, ending: str) -> None:
    model = CountingModel(ok)
    agent = Agent(model, context=Summarize(max_tokens=8_000, keep=2, model=summaries(30)))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        assert is_compacting()
        if ending == "delete":
            await thread.delete()
            assert not is_compacting()
    assert not is_compacting()
    if ending == "shutdown":
        async with open_runtime(agent) as runtime:
            thread = await runtime.connect(thread.id)
            assert await compactions(thread) == []
            await talk(thread, 1, 14)
            await until(thread, ContextCompacted)
    assert max(model.sizes) <= 7_000


def is_compacting() -> bool:
    return any("compaction" in task.get_name() for task in asyncio.all_tasks())


async def test_a_thread_leaves_the_memory_after_its_summary(open_runtime: Open) -> None:
    agent = Agent(
        CountingModel(ok), context=Summarize(max_tokens=8_000, keep=2, model=summaries(30))
    )
    async with open_runtime(agent, idle_seconds=1) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        await asyncio.sleep(20)
        actors = runtime._threads._driver._actors  # type: ignore[attr-defined]
        assert list(actors) == [thread.id]
        await asyncio.sleep(20)
        assert not actors
        assert len(await compactions(thread)) == 1


async def test_a_restart_changes_no_request(open_runtime: Open) -> None:
    """Whoever goes on with a thread sends the same bytes as who began with it."""
    sent: list[list[bytes]] = []
    for restarts in (False, True):
        model = CountingModel(ok, ratio=1.2)
        agent = Agent(
            model,
            context=Summarize(max_tokens=4_000, keep=2, model=summaries()),
            name=str(restarts),
        )
        runtime = open_runtime(agent)
        await runtime.start()
        thread = await runtime.create_thread(agent)
        for n in range(20):
            await talk(thread, 1, n)
            await asyncio.sleep(1)  # what began after the run has ended by then
            if restarts:
                await runtime.shutdown()
                runtime = open_runtime(agent)
                await runtime.start()
                thread = await runtime.connect(thread.id)
        assert len(await compactions(thread)) > 2
        await runtime.shutdown()
        sent.append([encoded(request) for request in model.requests])
    assert sent[0] == sent[1]


def encoded(request: ModelRequest) -> bytes:
    """What is sent of a request, without the ids of its messages, which differ."""
    items = [msgspec.structs.replace(item, id="") for item in request.items]
    return msgspec.json.encode(msgspec.structs.replace(request, items=items, conversation=()))


async def test_what_the_provider_counted_is_not_taken_for_longer_instructions(
    open_runtime: Open,
) -> None:
    model = CountingModel(ok)
    short = Agent(model, context=SlidingWindow(max_tokens=10_000, keep=2))
    async with open_runtime(short) as runtime:
        thread = await runtime.create_thread(short)
        await talk(thread, 16)
        assert await compactions(thread) == []
    other = Agent(model, instructions="x" * 12_000, context=SlidingWindow(max_tokens=10_000))
    async with open_runtime(other) as runtime:
        thread = await runtime.connect(thread.id)
        await talk(thread, 1, 16)
        [event] = await compactions(thread)
        assert event.counted_by == "usage"
        assert event.tokens_before > 10_000
        assert model.sizes[-1] <= 8_750


async def test_what_was_counted_without_a_context_is_estimated(open_runtime: Open) -> None:
    model = CountingModel(ok)
    async with open_runtime(Agent(model)) as runtime:
        thread = await runtime.create_thread("agent")
        await talk(thread, 16)
    agent = Agent(model, instructions="x" * 12_000, context=SlidingWindow(max_tokens=10_000))
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        await talk(thread, 1, 16)
        [event] = await compactions(thread)
        assert event.counted_by == "estimate"
        assert model.sizes[-1] <= 8_750


@pytest.mark.parametrize("is_kept", [True, False])
async def test_summaries_of_an_agent_that_works_for_a_run_count_for_it(is_kept: bool) -> None:
    left = iter(range(60))

    def answer(request: ModelRequest) -> tuple[Text | Call, ...]:
        n = next(left, None)
        return (Text("Done."),) if n is None else (Call("slow", '{"seconds": 1}'),)

    writer = ScriptedModel([Turn((Text("So far."),), usage=Usage(1_000, 100))] * 60)
    worker = Agent(
        CountingModel(answer, reports=False),
        name="worker",
        tools=[slow],
        context=Summarize(max_tokens=4_000, model=writer),
        limits=Limits(max_steps=None),
    )
    agent = Agent(
        ScriptedModel([Call("worker", '{"message": "go"}'), "ok"]), tools=[worker.as_tool()]
    )
    if is_kept:
        async with Runtime(MemoryJournal(), agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            result = await (await thread.send("go")).result()
            assert not is_compacting()  # nobody goes on with what the worker said
    else:
        result = await agent.run("go")
    assert len(writer.requests) > 5
    assert result.usage.input_tokens == 1_000 * len(writer.requests)


async def test_resumed_the_same_items_are_read(open_runtime: Open) -> None:
    agent = Agent(CountingModel(ok), context=SlidingWindow(max_tokens=4_000, keep=2))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 12)
        state = await thread.state()
        before = list(state.context.items(state.history))
    async with open_runtime(agent) as runtime:
        state = await (await runtime.connect(thread.id)).state()
        assert list(state.context.items(state.history)) == before


async def test_a_history_that_is_replaced_meanwhile_is_left_alone(open_runtime: Open) -> None:
    async def replace(context: CompletionContext, completion: object) -> None:
        if len(context.history) > 20:
            context.replace_history(context.history[-2:])

    model = CountingModel(ok)
    strategy = Summarize(max_tokens=8_000, keep=2, model=summaries(30))
    agent = Agent(model, context=strategy, hooks=Hooks(after_completion=[replace]))
    other = Agent(
        CountingModel(ok), name="other", context=Summarize(max_tokens=8_000, model=summaries(30))
    )
    async with open_runtime(agent, other) as runtime:
        thread = await runtime.create_thread(other)
        await talk(thread, 14)
        assert is_compacting()
        await (await thread.send("more", agent=agent.name)).result()
        assert len(await thread.history()) == 2
        await asyncio.sleep(60)
        assert not is_compacting()
        assert await compactions(thread) == []


async def test_a_journal_that_fails_ends_what_is_under_way() -> None:
    journal = FailingJournal()
    agent = Agent(
        CountingModel(ok), context=Summarize(max_tokens=8_000, keep=2, model=summaries(30))
    )
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        assert is_compacting()
        journal.failing = thread.id
        with pytest.raises(JournalFull):
            await thread.send("lost")
        await asyncio.sleep(1)
        assert not is_compacting()
        journal.failing = None
        await talk(thread, 1, 14)
        await until(thread, ContextCompacted)


async def test_a_tokenizer_that_breaks_after_a_run_fails_nothing(open_runtime: Open) -> None:
    def count(text: str) -> int:
        if text == "ok":
            raise LookupError("no vocabulary")
        return len(text) // 3

    agent = Agent(CountingModel(ok), context=SlidingWindow(max_tokens=4_000, count=count))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        assert (await (await thread.send("hi")).result()).status == "completed"


async def test_without_a_strategy_nothing_leaves(open_runtime: Open) -> None:
    plain = Agent(CountingModel(ok), name="plain")
    whole = Agent(CountingModel(ok), name="whole", context=NoCompaction(max_tokens=90_000))
    async with open_runtime(plain, whole) as runtime:
        for agent in (plain, whole):
            thread = await runtime.create_thread(agent)
            await talk(thread, 12)
            assert await compactions(thread) == []


async def test_a_run_that_never_asked_is_followed_by_nothing(open_runtime: Open) -> None:
    def no_deps(info: ThreadInfo) -> object:
        raise LookupError("nothing there")

    agent = Agent(CountingModel(ok), context=SlidingWindow(max_tokens=4_000))
    async with open_runtime(agent, deps=no_deps) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        with pytest.raises(HookFailed):
            await run.result()
        assert await compactions(thread) == []


async def test_a_thread_that_worked_for_a_call_is_left_as_it_is(open_runtime: Open) -> None:
    answers = iter([(Call("write"),), (Text("x" * 3 * 1_000),)])
    worker = Agent(
        CountingModel(lambda request: next(answers)),
        name="worker",
        tools=[write],
        context=SlidingWindow(max_tokens=4_000, keep=1),
    )
    model = ScriptedModel([Call("worker", '{"message": "work"}'), "Done."])
    agent = Agent(model, tools=[worker.as_tool()])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("go")).result()
        await asyncio.sleep(1)
        [work] = await runtime.threads(parent=thread.id)
        assert await compactions(await runtime.connect(work.id)) == []


# Pins


async def test_a_pinned_message_is_always_read(open_runtime: Open) -> None:
    model = CountingModel(ok)
    agent = Agent(model, context=SlidingWindow(max_tokens=4_000, keep=2))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 2)
        said = [item for item in await thread.history() if isinstance(item, Message)]
        await thread.pin(said[0].id)
        await thread.pin(said[0].id)
        await talk(thread, 20, 2)
        assert model.requests[-1].items[0] == said[0]
        assert said[2] not in model.requests[-1].items
        await thread.pin(said[2].id)  # one that has left is read again
        await talk(thread, 1, 22)
        assert list(model.requests[-1].items[:2]) == [said[0], said[2]]
        await thread.unpin(said[0].id)
        await thread.unpin(said[0].id)
        await talk(thread, 12, 23)
        assert model.requests[-1].items[0] == said[2]
        pins = [e for e in await thread.events(limit=999) if isinstance(e, MessagePinned)]
        assert [(pin.message_id, pin.pinned) for pin in pins] == [
            (said[0].id, True),
            (said[2].id, True),
            (said[0].id, False),
        ]
        with pytest.raises(UnknownMessage, match="no message 'msg_9'"):
            await thread.pin("msg_9")


async def test_a_message_pinned_while_its_summary_is_written_stays(open_runtime: Open) -> None:
    model = CountingModel(ok)
    agent = Agent(model, context=Summarize(max_tokens=8_000, keep=2, model=summaries(30)))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await talk(thread, 14)
        said = (await thread.history())[0]
        assert isinstance(said, Message)
        await thread.pin(said.id)
        await until(thread, ContextCompacted)
        await talk(thread, 1, 14)
        assert model.requests[-1].items[0] == said


async def test_pins_from_a_process_that_watches(tmp_path: Path) -> None:
    url, agent = f"sqlite:///{tmp_path / 'treadle.db'}", Agent(ScriptedModel(["ok"]))
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("remember this")).result()
    said = None
    async with treadle.open(url, drive=False) as watching:
        mine = await watching.connect(thread.id)
        [said, _] = await mine.history()
        assert isinstance(said, Message)
        await mine.pin(said.id)
        await mine.unpin("msg_9")
        with pytest.raises(UnknownMessage):
            await mine.pin("msg_9")
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.connect(thread.id)
        pin = await until(thread, MessagePinned)
        assert isinstance(pin, MessagePinned)
        assert pin.message_id == said.id
        assert (await thread.state()).context.pinned == (said.id,)
