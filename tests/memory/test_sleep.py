"""Which part of a history a sleep agent reads next."""

from collections.abc import Sequence

from tests.domain.fold import R, begun, fold
from tests.domain.test_context import COMPACTED

from treadle import Agent
from treadle.domain.events import HistoryReplaced, MemoryTended
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    SummaryText,
    user_message,
)
from treadle.domain.state import ThreadState
from treadle.loop.definition import hash_of
from treadle.memory.sleep import Reads, SleepAgent, untended
from treadle.testing import ScriptedModel

ITEMS: Sequence[Item] = (
    user_message("abc"),
    Reasoning("r", (SummaryText("a long thought"),)),
    FunctionCall("c", "look", "{}"),
    FunctionCallOutput("c", "12345"),
    Message("assistant", (OutputText("done"),)),
    user_message("more"),
)


def told(items: Sequence[Item] = ITEMS) -> ThreadState:
    return fold([*begun(), HistoryReplaced(run_id=R, items=tuple(items))])


def sleeper(reads: Reads = "new", every: int = 1) -> SleepAgent:
    return SleepAgent(Agent(ScriptedModel([])), reads=reads, every=every)


def test_all_that_is_new_or_what_left_the_window() -> None:
    state = told()
    assert untended(state, sleeper()) == (0, 6)
    assert untended(state, sleeper("left")) is None
    state = fold([COMPACTED], state)
    assert untended(state, sleeper("left")) == (0, 2)
    state = fold([MemoryTended(until=2, job_id="j")], state)
    assert untended(state, sleeper("left")) is None
    assert untended(state, sleeper()) == (2, 6)


def test_nothing_is_read_before_enough_user_messages() -> None:
    assert untended(told(), sleeper(every=2)) == (0, 6)
    assert untended(told(), sleeper(every=3)) is None
    assert untended(ThreadState(), sleeper()) is None


def test_the_rest_of_an_answer_counts_as_what_it_answers() -> None:
    state = fold([MemoryTended(until=3, job_id="j")], told())
    assert untended(state, sleeper(every=2)) == (3, 6)
    assert untended(state, sleeper(every=3)) is None
    state = fold([HistoryReplaced(run_id=R, items=ITEMS[:5])], state)
    state = fold([MemoryTended(until=4, job_id="j")], state)
    assert untended(state, sleeper()) == (4, 5)


def test_a_history_that_is_replaced_is_read_anew() -> None:
    state = fold([MemoryTended(until=9, job_id="j")], told())
    assert state.tended == 6
    state = fold([HistoryReplaced(run_id=R, items=ITEMS[5:])], state)
    assert untended(state, sleeper()) == (0, 1)


def test_sleep_agents_are_compared_by_their_settings() -> None:
    assert sleeper().described != sleeper(every=2).described
    plain, sleeping = Agent(ScriptedModel([])), Agent(ScriptedModel([]), name="a")
    assert hash_of(Agent(ScriptedModel([]))) == hash_of(plain)
    assert hash_of(
        Agent(ScriptedModel([]), sleep_agent=SleepAgent(sleeping, reads="new"))
    ) != hash_of(plain)
