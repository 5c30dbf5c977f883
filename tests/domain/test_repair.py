"""Repairing damaged threads: whatever is lost, the rest folds, and a run can begin after it."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.domain.fold import fold
from tests.domain.test_removal import COMPACTED, DONE, RUN, numbered

from treadle.domain.events import DurableEvent, MessageAdded, RecordedEvent, RunStarted
from treadle.domain.history import require_valid
from treadle.domain.items import user_message
from treadle.domain.removed_items import visible
from treadle.domain.repair import repaired
from treadle.domain.state import ThreadState

AGAIN: list[DurableEvent] = [
    MessageAdded(run_id="run_2", item=user_message("again"), origin="user"),
    RunStarted(run_id="run_2", agent="a"),
]
EVENTS = numbered([*RUN, COMPACTED, DONE, *AGAIN])
BODIES = {event.seq: msgspec.json.encode(event) for event in EVENTS}
DAMAGE = [b"", b"}", b"7", b"{}", b"\xff", b'{"type":"what"}', None]


def repair(damage: dict[int, bytes | None]) -> tuple[ThreadState, set[int]]:
    """Returns the state after a repair, and the numbers of the events it removed."""
    stored = {seq: body for seq, body in {**BODIES, **damage}.items() if body is not None}
    changed = {event.seq: event for event in repaired(stored)}
    events: list[RecordedEvent] = [changed.get(event.seq, event) for event in EVENTS]
    return fold(events[: max(stored)]), set(changed)


@given(st.dictionaries(st.integers(1, len(EVENTS)), st.sampled_from(DAMAGE), min_size=1))
def test_what_is_left_is_a_valid_thread(damage: dict[int, bytes | None]) -> None:
    if len(damage) == len(EVENTS):
        return
    state, changed = repair(damage)
    last = max(seq for seq in BODIES if damage.get(seq, b"x") is not None)
    assert {seq for seq in damage if seq <= last} <= changed
    require_valid(visible(state.history))


def test_one_damaged_event_takes_no_other_with_it() -> None:
    """The end of a run or a step, an output, a call, a start: each is replaced by what fits."""
    lost = {}
    for event in EVENTS:
        _, changed = repair({event.seq: b"{"})
        if changed != {event.seq}:
            lost[type(event).__name__] = changed
    assert not lost


def test_a_sound_thread_needs_no_repair() -> None:
    assert repaired(BODIES) == []
    assert repaired({}) == []
