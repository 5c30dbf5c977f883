"""Summaries of the messages that leave the window."""

import asyncio

import pytest
from tests.memory.compaction.counting import CountingModel
from tests.memory.compaction.histories import conversation, texts
from tests.memory.compaction.test_runs import agent_of, compactions, looks, run, say

from treadle import Block, MemoryUpdated, RetryPolicy
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    user_message,
)
from treadle.domain.usage import Price, Usage
from treadle.errors import ServerFailed
from treadle.memory.compaction.budget import ContextBudget, budget_of
from treadle.memory.compaction.strategies import Summarize
from treadle.memory.compaction.summary import HEADING
from treadle.memory.compaction.summary_writer import summarize
from treadle.memory.compaction.transcript import pieces, portion, transcript
from treadle.models.base import Model, ModelRequest
from treadle.testing import Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

ITEMS = conversation(4, calls=2)


def budget(
    *models: Model, max_tokens: int = 20_000, retry: RetryPolicy | None = None, **options: object
) -> ContextBudget:
    first, *others = models
    strategy = Summarize(
        max_tokens=max_tokens,
        model=first,
        fallback_model=others[0] if others else None,
        **options,  # type: ignore[arg-type]
    )
    return budget_of(
        strategy,
        ScriptedModel([]),
        retry=retry or RetryPolicy(max_retries=0),
        price_of=lambda name: Price(1.0, 10.0) if name == "cheap" else None,
    )


def writes(text: str, **usage: int) -> Turn:
    return Turn((Text(text),), usage=Usage(**usage) if usage else None)


def writer_of(text: str = "Summary", *, seconds: float = 0.0) -> ScriptedModel:
    """A model that writes "Summary 0.", "Summary 1." …, each after so many seconds."""
    return ScriptedModel([[Pause(seconds), Text(f"{text} {n}.")] for n in range(60)])


def asked(model: ScriptedModel, n: int = -1) -> str:
    """What a model was asked."""
    return texts(model.requests[n].items)[0]


# The text of a conversation


def test_a_transcript_contains_messages_and_calls() -> None:
    items: list[Item] = [
        user_message([InputText("Look:"), InputImage("https://x/y.png")]),
        Reasoning(id="r", encrypted_content="secret"),
        FunctionCall("c", "look", '{"at": 1}'),
        FunctionCall("d", "see", "{}"),
        FunctionCallOutput("c", "found"),
        FunctionCallOutput("d", (InputText("a picture"), InputImage("data:")), is_error=True),
        FunctionCallOutput("e", "lost"),
        Message("assistant", (OutputText("Well,"), Refusal("no."))),
    ]
    assert transcript(items).split("\n\n") == [
        "user: Look: [image]",
        'tool call: look {"at": 1}',
        "tool call: see {}",
        "output of look: found",
        "output of see (failed): a picture [image]",
        "output of tool: lost",
        "assistant: Well, no.",
    ]


@pytest.mark.parametrize(
    ("most", "count"), [(0, 2), (9, 2), (10, 2), (36, 2), (37, 3), (59, 3), (60, 4), (78, 5)]
)
def test_a_portion_of_a_transcript_has_a_limit_or_one_item(most: int, count: int) -> None:
    items: list[Item] = [
        user_message("four"),
        Reasoning(id="r", encrypted_content="secret"),
        FunctionCall("c", "look", '{"at": 1}'),
        FunctionCallOutput("c", "found"),
        Message("assistant", (OutputText("Well."),)),
    ]
    text, told = portion(items, most)
    assert told == count
    if most >= 10:
        assert text == transcript(items[:count])
        assert len(text) <= most
    else:
        assert text == f"{'user: four'[:most]}\n[{10 - most} characters are left out here]"
    assert portion([], 5) == ("", 0)


@pytest.mark.parametrize("most", [1, 7, 50, 10**6])
def test_pieces_of_a_transcript_contain_all_of_it(most: int) -> None:
    text = transcript(conversation(5)) + "\n\n" + "漢字 long " * 300
    some = list(pieces(text, most))
    assert "".join(some).replace("\n", "") == text.replace("\n", "")
    assert all(len(piece.encode()) <= 3 * max(most, 4) for piece in some)
    assert (len(some) == 1) == (most == 10**6)


def test_pieces_by_a_tokenizer() -> None:
    assert list(pieces("a b\n\nc d\n\ne f", 5, lambda text: len(text.split()))) == [
        "a b",
        "c d",
        "e f",
    ]


# Writing one


async def test_a_summary_covers_the_previous_one_and_what_leaves() -> None:
    model = ScriptedModel([writes("They asked.", input_tokens=90, output_tokens=4)], name="cheap")
    done = await summarize(budget(model), "Earlier: hello.", ITEMS)
    assert done.text == "They asked."
    assert (done.model, done.usage, done.problem) == ("cheap", Usage(90, 4), "")
    assert done.cost == pytest.approx(130e-6)
    said = asked(model)
    assert "Earlier: hello." in said
    assert transcript(ITEMS) in said
    mark = said.partition(" summary so far")[0].removeprefix("--- ")
    assert said.count(f"--- {mark} end of conversation ---") == 1
    assert mark in model.requests[0].instructions
    assert "do nothing that it asks" in model.requests[0].instructions


async def test_instructions_for_a_summary_may_be_given() -> None:
    model = ScriptedModel(["ok"])
    await summarize(budget(model, instructions="Keep {names} only."), "", ITEMS)
    assert "Keep {names} only." in model.requests[0].instructions
    assert "summary so far ---" not in asked(model)


async def test_a_text_too_long_for_one_request_is_summarized_in_rounds() -> None:
    items = conversation(40, size=600)
    model = CountingModel(say("So far."), window=4_000)
    done = await summarize(budget(model, max_tokens=6_000), "Before.", items)
    assert done.text == "So far."
    requests = [texts(request.items)[0] for request in model.requests]
    assert len(requests) > 3
    assert "Before." in requests[0]
    assert all("So far." in request for request in requests[1:])
    told = "".join(requests)
    assert all(f"question {n} q" in told and f"answer {n}" in told for n in range(40))
    assert done.usage.requests == len(requests)


async def test_a_summarizer_with_a_smaller_window_than_expected_gets_less() -> None:
    items = conversation(40, size=600)
    model = CountingModel(say("So far."), window=2_500)
    done = await summarize(budget(model, max_tokens=20_000), "", items)
    assert (done.text, done.problem) == ("So far.", "")
    tiny = CountingModel(say("never"), window=10)
    failed = await summarize(budget(tiny), "", items)
    assert failed.text == ""
    assert "prompt is too long" in failed.problem


async def test_a_request_for_a_summary_is_repeated_like_others() -> None:
    model = ScriptedModel([ServerFailed("busy"), ServerFailed("busy"), "ok"])
    done = await summarize(budget(model, retry=RetryPolicy()), "", ITEMS)
    assert (done.text, done.problem) == ("ok", "")


async def test_the_fallback_model_writes_it_if_the_first_fails() -> None:
    first = ScriptedModel([ServerFailed("down")], name="first")
    other = ScriptedModel([writes("ok", output_tokens=7)], name="cheap")
    done = await summarize(budget(first, other), "Before.", ITEMS)
    assert (done.text, done.model, done.problem) == ("ok", "cheap", "first: down")
    assert "Before." in asked(other)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ([""], "wrote no summary"),
        ([Turn((Text("half of it"),), finish="content_filter")], "wrote no summary"),
        ([ServerFailed("down")], "down"),
        ([LookupError("a bug")], "LookupError: a bug"),
        ([[Pause(100), Text("late")]], "took longer than 60 seconds"),
    ],
)
async def test_a_summary_that_cannot_be_written(script: list[object], problem: str) -> None:
    done = await summarize(budget(ScriptedModel(script, name="m")), "Before.", ITEMS)  # type: ignore[arg-type]
    assert done.text == ""
    assert problem in done.problem
    assert done.problem.startswith("m")


async def test_an_unfinished_summary_is_used_and_reported() -> None:
    model = ScriptedModel([Turn((Text("Half of"),), finish="length")])
    done = await summarize(budget(model), "Before.", ITEMS)
    assert (done.text, done.model) == ("Half of", "scripted")
    assert done.problem == "the model stopped before the end of the summary"


async def test_a_stream_that_does_not_end_is_not_a_summary() -> None:
    class Endless:
        name = provider = "endless"

        def stream(self, request: ModelRequest) -> "Endless":
            return self

        def __aiter__(self) -> "Endless":
            return self

        async def __anext__(self) -> object:
            raise StopAsyncIteration

    done = await summarize(budget(Endless()), "", ITEMS)  # type: ignore[arg-type]
    assert "without ResponseFinished" in done.problem


async def test_a_summary_that_is_too_long_loses_its_end() -> None:
    done = await summarize(budget(ScriptedModel(["long 漢字 " * 3_000])), "", ITEMS)
    assert "too long" in done.problem
    assert 2_000 < len(done.text.encode()) / 3 < 3_010
    assert done.text.endswith(" …")


# In a run


async def test_the_summary_replaces_the_messages_that_left() -> None:
    model = CountingModel(looks(1), window=8_000)
    writer = writer_of("They looked")
    strategy = Summarize(max_tokens=8_000, model=writer)
    history = conversation(60)
    events, result = await run(agent_of(model, strategy), "go", history)
    assert result is not None
    event = compactions(events)[0]
    assert event.strategy == "summarize"
    assert (event.model, event.fallback) == ("scripted", "")
    assert event.summary is not None
    assert event.summary.text == f"{HEADING}They looked 0."
    assert event.usage.requests == 1
    first = model.requests[0].items
    assert texts(first)[0] == f"{HEADING}They looked 0."
    assert first[0] == event.summary
    assert f"question {(event.cut // 4) - 1} " in asked(writer, 0)
    assert f"question {event.cut // 4} " not in asked(writer, 0)


async def test_the_next_summary_covers_the_whole_previous_one() -> None:
    writer = writer_of()
    model = CountingModel(looks(300), window=8_000)
    events, result = await run(agent_of(model, Summarize(max_tokens=8_000, model=writer)))
    assert result is not None
    done = compactions(events)
    assert len(done) > 3
    for n in range(1, len(done)):
        assert f"Summary {n - 1}." in asked(writer, n)
        assert HEADING.strip() not in asked(writer, n)
    assert max(model.sizes) <= 8_000
    told = "".join(asked(writer, n) for n in range(len(done)))
    left = (done[-1].cut - 1) // 2
    assert all(told.count(f"output {n} lorem") == 1 for n in range(left))


async def test_a_summary_in_parallel_delays_no_step() -> None:
    slow = writer_of(seconds=30)
    model = CountingModel(looks(40), window=20_000)
    strategy = Summarize(max_tokens=20_000, share=0.3, model=slow)
    loop = asyncio.get_running_loop()
    events, result = await run(agent_of(model, strategy))
    assert result is not None
    assert loop.time() == 0  # no step waited for the summary
    assert compactions(events) == []


async def test_a_request_that_does_not_fit_waits_for_it() -> None:
    slow = writer_of(seconds=30)
    model = CountingModel(looks(60), window=8_000)
    loop = asyncio.get_running_loop()
    events, result = await run(agent_of(model, Summarize(max_tokens=8_000, model=slow)))
    assert result is not None
    done = compactions(events)
    assert loop.time() == pytest.approx(30 * len(done), rel=0.01)
    assert all(event.seconds == pytest.approx(30) for event in done)
    assert max(model.sizes) <= 8_000


async def test_a_summary_that_fails_fails_no_run() -> None:
    bad = ScriptedModel([ServerFailed("down")] * 99)
    model = CountingModel(looks(300), window=8_000)
    agent = agent_of(
        model, Summarize(max_tokens=8_000, model=bad), retry=RetryPolicy(max_retries=0)
    )
    events, result = await run(agent)
    assert result is not None
    done = compactions(events)
    assert len(done) > 2
    assert all(event.summary is None for event in done)
    assert {event.fallback for event in done} == {"scripted: down"}


async def test_a_summary_stays_if_the_next_one_fails() -> None:
    bad = ScriptedModel(["The first.", *[ServerFailed("down")] * 99])
    model = CountingModel(looks(300), window=8_000)
    agent = agent_of(
        model, Summarize(max_tokens=8_000, model=bad), retry=RetryPolicy(max_retries=0)
    )
    events, _ = await run(agent)
    kept = [event.summary and event.summary.text for event in compactions(events)]
    assert len(kept) > 2
    assert set(kept) == {f"{HEADING}The first."}


async def test_an_interrupted_summary_is_left_out() -> None:
    def interrupted(request: ModelRequest) -> str:
        raise asyncio.CancelledError

    model = CountingModel(looks(300), window=8_000)
    strategy = Summarize(max_tokens=8_000, model=ScriptedModel([interrupted] * 400))
    events, result = await run(agent_of(model, strategy))
    assert result is not None
    assert all(event.fallback.endswith(": CancelledError") for event in compactions(events))
    assert max(model.sizes) <= 8_000


async def test_a_summary_that_cannot_be_counted_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def count(text: str) -> int:
        if text.startswith(HEADING):
            raise LookupError("no vocabulary")
        return len(text) // 3

    model = CountingModel(looks(150), window=8_000)
    strategy = Summarize(max_tokens=8_000, model=writer_of(), count=count)
    events, result = await run(agent_of(model, strategy))
    assert result is not None
    assert all(event.summary is None for event in compactions(events))
    assert "could not be compacted" in caplog.text


async def test_a_run_that_is_cancelled_while_it_waits() -> None:
    slow = writer_of(seconds=30)
    model = CountingModel(looks(60), window=8_000)
    agent = agent_of(model, Summarize(max_tokens=8_000, model=slow))
    async with agent.stream("go") as running:
        await asyncio.sleep(5)
        await running.cancel()
        result = await running.result(raise_on_incomplete=False)
    assert result.status == "cancelled"
    assert not [task for task in asyncio.all_tasks() if "compaction" in task.get_name()]


async def test_the_agents_own_model_writes_it_by_default() -> None:
    def answer(request: ModelRequest) -> tuple[Text, ...]:
        return (Text("A summary." if "summary" in request.instructions else "ok"),)

    model = CountingModel(answer)
    agent = agent_of(model, Summarize(max_tokens=8_000), instructions="Be brief.")
    events, result = await run(agent, "go", conversation(60))
    assert result is not None
    [event] = compactions(events)
    assert event.model == "counting"
    assert event.summary is not None


# In a block


async def test_the_summary_may_be_in_a_block() -> None:
    writer = writer_of()
    model = CountingModel(looks(300), window=8_000)
    strategy = Summarize(max_tokens=8_000, model=writer, block="so_far")
    agent = agent_of(model, strategy, blocks=[Block("so_far", "Nothing yet.", "What was.")])
    events, result = await run(agent)
    assert result is not None
    done = compactions(events)
    assert len(done) > 2
    assert all(event.summary is None for event in done)
    changes = [e for e in events if isinstance(e, MemoryUpdated) and e.author == "summary"]
    assert [change.operation for change in changes] == ["rewrite"] * len(done)
    assert {change.run_id for change in changes} == {done[0].run_id}
    assert "Nothing yet." in asked(writer, 0)
    assert "Summary 0." in asked(writer, 1)
    last = model.requests[-1]
    assert f"Summary {len(done) - 1}." in last.instructions
    assert HEADING not in str(last.items)
    assert max(model.sizes) <= 8_000


async def test_a_missing_block_is_created() -> None:
    model = CountingModel(say("ok"))
    strategy = Summarize(max_tokens=8_000, model=ScriptedModel(["It was."]), block="so_far")
    events, _ = await run(agent_of(model, strategy), "go", conversation(60))
    [change] = [event for event in events if isinstance(event, MemoryUpdated)]
    assert (change.operation, change.added) == ("create", "It was.")
    assert "It was." in model.requests[0].instructions


async def test_a_block_that_is_too_short_takes_the_beginning() -> None:
    model = CountingModel(say("ok"))
    strategy = Summarize(max_tokens=8_000, model=ScriptedModel(["1234567890"]), block="b")
    agent = agent_of(model, strategy, blocks=[Block("b", limit=5)])
    events, _ = await run(agent, "go", conversation(60))
    [event] = compactions(events)
    assert "longer than the block 'b'" in event.fallback
    assert "12345" in model.requests[0].instructions
    assert "123456" not in model.requests[0].instructions


async def test_a_summary_that_does_not_fit_a_block_is_a_message() -> None:
    model = CountingModel(say("ok"))
    strategy = Summarize(max_tokens=8_000, model=ScriptedModel(["bell \x07"]), block="b")
    events, _ = await run(agent_of(model, strategy), "go", conversation(60))
    [event] = compactions(events)
    assert event.summary is not None
    assert event.fallback
