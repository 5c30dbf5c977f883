"""What the model reads of a history: the fold of compactions and pins."""

import pytest
from msgspec.structs import replace
from tests.domain.fold import ASKED, DONE, RESPONSE, STARTED, STEP, STEP_DONE, TEXT, R, fold

import treadle
from treadle import Agent, tool
from treadle.domain.events import (
    ContextCompacted,
    DurableEvent,
    HistoryReplaced,
    MessageAdded,
    MessagePinned,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message, user_message
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import InvalidTransition
from treadle.memory.compaction.strategies import SlidingWindow
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

COMPACTED = ContextCompacted(
    cut=2,
    strategy="summarize",
    cause="after_run",
    tokens_before=90,
    tokens_after=50,
    counted_by="estimate",
)
SAID = [MessageAdded(run_id=R, item=user_message(f"message {n}"), origin="user") for n in range(5)]


def read(state: ThreadState) -> list[str]:
    """The texts that the model reads."""
    return [item.text for item in state.context.items(state.history) if isinstance(item, Message)]


def test_before_the_first_compaction_the_history_itself_is_read() -> None:
    state = fold(SAID)
    assert state.context.items(state.history) is state.history


def test_what_is_kept_comes_first_then_the_summary_then_the_rest() -> None:
    summary = user_message("so far: nothing")
    state = fold([*SAID, replace(COMPACTED, cut=3, kept=(1,), summary=summary)])
    assert read(state) == ["message 1", "so far: nothing", "message 3", "message 4"]
    assert len(state.history) == 5
    more = fold([replace(SAID[0], item=user_message("more"))], state)
    assert read(more)[-2:] == ["message 4", "more"]


def test_what_is_shortened_says_how_much_is_missing() -> None:
    reply = replace(TEXT.item, content=(replace(TEXT.item.content[0], text="abcdef"),))
    state = fold([*SAID[:1], replace(COMPACTED, cut=0, shortened=((0, 3), (2, 9)))])
    assert read(state) == ["mes\n[6 characters are left out here]"]
    items = (user_message("q"), FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "x" * 9))
    edited = [ASKED, STARTED, HistoryReplaced(run_id=R, items=(*items, reply))]
    state = fold([*edited, replace(COMPACTED, cut=0, shortened=((1, 0), (2, 1), (3, 2)))])
    question, call, output, said = state.context.items(state.history)
    assert (question, call) == items[:2]
    assert isinstance(output, FunctionCallOutput)
    assert output.output == "x\n[8 characters are left out here]"
    assert isinstance(said, Message)
    assert said.text == "ab\n[4 characters are left out here]"
    assert said.role == "assistant"


def test_what_is_short_enough_is_read_whole() -> None:
    state = fold([*SAID[:1], replace(COMPACTED, cut=0, shortened=((0, 9),))])
    assert read(state) == ["message 0"]


def test_kept_items_may_be_shortened_too() -> None:
    state = fold([*SAID[:3], replace(COMPACTED, kept=(0,), shortened=((0, 2),))])
    assert read(state) == ["me\n[7 characters are left out here]", "message 2"]


def test_a_pinned_message_is_read_again_after_it_had_left() -> None:
    pin = MessagePinned(message_id=SAID[1].item.id)
    state = fold([*SAID, COMPACTED, pin])
    assert read(state) == ["message 1", "message 2", "message 3", "message 4"]
    assert state.context.pinned == (SAID[1].item.id,)
    assert fold([pin], state).context == state.context
    loose = fold([replace(pin, pinned=False)], state)
    assert loose.context.pinned == ()
    known = fold([MessagePinned(message_id="missing"), MessagePinned(message_id=SAID[4].item.id)])
    assert known.context.kept == ()


def test_a_context_only_moves_forward_within_its_history() -> None:
    state = fold([*SAID, COMPACTED])
    for event in (
        replace(COMPACTED, cut=1),
        replace(COMPACTED, cut=6),
        replace(COMPACTED, kept=(2,)),
    ):
        with pytest.raises(InvalidTransition):
            fold([event], state)


def test_a_history_that_is_replaced_is_read_whole() -> None:
    pin = MessagePinned(message_id="msg_x")
    begun: list[DurableEvent] = [*SAID, STARTED, replace(COMPACTED, cut=5), pin]
    state = fold([*begun, HistoryReplaced(run_id=R, items=(user_message("anew"),))])
    assert read(state) == ["anew"]
    assert state.context.pinned == ("msg_x",)


async def test_a_call_has_an_id_of_its_own_also_when_the_model_no_longer_reads_the_first() -> None:
    @tool
    def look() -> str:
        """Looks."""
        return "seen"

    script = [Call("look", "{}", "call_0"), "one", Call("look", "{}", "call_0"), "two"]
    window = SlidingWindow(max_tokens=10_000, max_messages=2, keep=1)
    agent = Agent(ScriptedModel(script), tools=[look], context=window)
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("go")).result()
        await (await thread.send("again")).result()
        assert (await thread.state()).context.cut >= 2
        calls = [item for item in await thread.history() if isinstance(item, FunctionCall)]
        assert len({call.call_id for call in calls}) == 2


def test_the_size_that_the_provider_counted_is_known_until_the_next_compaction() -> None:
    state = fold([ASKED, STARTED, STEP, replace(RESPONSE, usage=Usage())])
    assert state.context.measured_tokens == 0
    state = fold([ASKED, STARTED, STEP, RESPONSE, TEXT, STEP_DONE, DONE])
    assert (state.context.measured_tokens, state.context.measured_items) == (3, 1)
    state = fold([replace(COMPACTED, cut=1, usage=Usage(7, 1), cost=0.5)], state)
    assert state.context.measured_tokens == 0
    assert state.ended.usage == Usage(10, 3, requests=1)
    assert state.ended.cost == 0.5
