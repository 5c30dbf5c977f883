"""Removed items: what is left of them, in the state and in a fold of the redacted events."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.domain.fold import (
    ASKED,
    CALL,
    CALL_2,
    DONE,
    OUTPUT,
    OUTPUT_2,
    RESPONSE,
    RUNNING,
    STARTED,
    STEP,
    STEP_DONE,
    TEXT,
    THOUGHT,
    fold,
)

from treadle.domain.accept import accept
from treadle.domain.entries import RemoveEventEntry
from treadle.domain.envelope import readable
from treadle.domain.events import (
    ContextCompacted,
    DurableEvent,
    EventRemoved,
    HistoryReplaced,
    MessageAdded,
    MessagePinned,
    MessageQueued,
    ProviderItemAdded,
    RecordedEvent,
    StepStarted,
)
from treadle.domain.history import require_valid
from treadle.domain.items import HostedCall, ProviderItem, user_message
from treadle.domain.removal import removal_of
from treadle.domain.removed_items import is_removed, visible
from treadle.domain.state import ThreadState
from treadle.errors import Conflict, InvalidInput

R = "run_1"
HOSTED = ProviderItem("openai", msgspec.Raw(b'{"type":"search"}'))
STEERED = user_message("steered")
RUN: list[DurableEvent] = [
    ASKED,
    STARTED,
    MessageQueued(run_id=R, item=STEERED),
    STEP,
    THOUGHT,
    TEXT,
    CALL,
    replace(CALL_2, index=4),
    ProviderItemAdded(run_id=R, item=HOSTED, index=3),
    replace(RUNNING, arguments='{"changed": 1}'),
    OUTPUT,
    OUTPUT_2,
    RESPONSE,
    STEP_DONE,
    MessagePinned(message_id=ASKED.item.id),
    MessageAdded(run_id=R, item=STEERED, origin="user"),
]
COMPACTED = ContextCompacted(
    cut=3,
    kept=(0,),
    summary=user_message("in short"),
    strategy="s",
    cause="before_step",
    tokens_before=9,
    tokens_after=1,
    counted_by="estimate",
)
REPLACED = HistoryReplaced(run_id=R, items=(ASKED.item, CALL.item, OUTPUT.item))


def numbered(events: list[DurableEvent]) -> list[RecordedEvent]:
    return [replace(event, seq=n) for n, event in enumerate(events, 1)]  # type: ignore[misc]


def take_out(events: list[RecordedEvent], seq: int) -> tuple[ThreadState, list[RecordedEvent]]:
    """The state after a removal, and the events that are stored then."""
    state = fold(events)
    removal = removal_of(events, seq)
    stored = list(events)
    for event in removal.events:
        stored[event.seq - 1] = event
    for event in accept(state, RemoveEventEntry(seq), removal=removal):  # type: ignore[union-attr]
        event = replace(event, seq=state.seq + 1)
        state = fold([event], state)
        stored.append(event)
    return state, stored


@pytest.mark.parametrize("end", [[COMPACTED, DONE], [REPLACED, DONE], []])
@given(seqs=st.lists(st.integers(1, len(RUN) + 2), min_size=1, max_size=6))
def test_a_fold_of_what_is_left_gives_the_same_state(
    end: list[DurableEvent], seqs: list[int]
) -> None:
    events = numbered([*RUN, *end])
    for seq in seqs:
        try:
            state, events = take_out(events, seq)
        except InvalidInput:
            continue  # it adds no item
        assert fold(events) == state
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        require_valid(visible(state.history))
        read = state.context.items(state.history)
        require_valid(read)
        assert not any(is_removed(item) for item in read)
        assert [readable(event)[0] for event in events] == events
        if seq <= len(RUN):
            assert isinstance(events[seq - 1], EventRemoved)


def test_a_call_leaves_together_with_its_output() -> None:
    for seq in (7, 11):
        state, stored = take_out(numbered([*RUN, DONE]), seq)
        gone = [event.seq for event in stored if isinstance(event, EventRemoved)]
        assert gone == [7, 10, 11]
        calls = [item for item in visible(state.history) if hasattr(item, "call_id")]
        assert [item.call_id for item in calls] == ["c2", "c2"]
        encoded = msgspec.json.encode([stored, state.history[:], state.run])
        assert b"changed" not in encoded
        assert b'"one"' not in encoded


def test_a_hosted_call_leaves_together_with_its_result() -> None:
    call = HostedCall("web_search", "s1", arguments="my illness")
    other = replace(call, call_id="s2", arguments="weather")
    items = [
        ProviderItem(provider, msgspec.Raw(msgspec.json.encode(one)), one)
        for provider, one in (
            ("anthropic", call),
            ("anthropic", other),
            ("anthropic", replace(call, status="completed")),
            ("gemini", replace(call, arguments="of another provider")),
        )
    ]
    added = [
        ProviderItemAdded(run_id=R, item=item, index=index) for index, item in enumerate(items)
    ]
    events = numbered([ASKED, STARTED, STEP, *added, RESPONSE, STEP_DONE, DONE])
    for seq in (4, 6):
        state, stored = take_out(events, seq)
        assert [one.seq for one in stored if isinstance(one, EventRemoved)] == [4, 6]
        encoded = msgspec.json.encode([stored, state.history[:], state.run])
        assert b"my illness" not in encoded
        assert b"weather" in encoded
        assert b"of another provider" in encoded
        assert fold(stored) == state


@pytest.mark.parametrize("end", [[COMPACTED, DONE], [REPLACED, DONE]])
def test_no_text_of_a_removed_message_is_left(end: list[DurableEvent]) -> None:
    for seq, text in ((1, b'"hi"'), (6, b'"t"'), (16, b'"steered"')):
        state, stored = take_out(numbered([*RUN, *end]), seq)
        assert text not in msgspec.json.encode([stored, state.history[:], state.run])


def test_a_second_removal_does_nothing() -> None:
    _, stored = take_out(numbered([*RUN, DONE]), 1)
    removal = removal_of(stored, 1)
    assert accept(fold(stored), RemoveEventEntry(1), removal=removal) == ()


def test_items_of_a_replaced_history_and_summaries_are_removed_by_their_event() -> None:
    seq = len(RUN) + 1
    assert removal_of(numbered([*RUN, REPLACED]), seq, CALL.item).keys == {"call:c1"}
    state, _ = take_out(numbered([*RUN, COMPACTED, DONE]), seq)
    assert state.context.summary is None


def test_what_cannot_be_removed() -> None:
    events = numbered(RUN)
    with pytest.raises(InvalidInput, match="Event 2 adds no item"):
        removal_of(events, 2)
    with pytest.raises(InvalidInput, match="has the events 1 to 16, not 17"):
        removal_of(events, 17)
    with pytest.raises(Conflict, match="step in progress"):
        accept(fold(events[:7]), RemoveEventEntry(7), removal=removal_of(events[:7], 7))


def test_a_run_in_progress_may_lose_an_item_of_an_earlier_step() -> None:
    opened = numbered([*RUN, StepStarted(run_id=R, step=2, model="m")])
    state, stored = take_out(opened, 7)
    assert fold(stored) == state
    assert state.step is not None
