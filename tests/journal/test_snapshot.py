"""A snapshot contains the whole state, after any events."""

import msgspec
import pytest
from hypothesis import given
from tests.domain.fold import (
    ASKED,
    BACK,
    BACK_DONE,
    JOB,
    JOB_BELOW,
    JOB_DELEGATED,
    STARTED,
    STEP,
    TEXT,
    begun,
    fold,
    fold_what_follows,
)
from tests.domain.test_state import EVENTS

from treadle.domain.events import DurableEvent
from treadle.domain.state import NO_JOBS, ThreadState
from treadle.journal.snapshot import decode_snapshot, encode_head, encode_items


def kept(state: ThreadState) -> ThreadState:
    """The state as it comes back from its snapshot."""
    return decode_snapshot(encode_head(state), b"[%s]" % encode_items(list(state.history)))


def test_jobs_and_what_they_have_to_tell_come_back() -> None:
    state = fold([*begun(), JOB, JOB_BELOW, JOB_DELEGATED, BACK, BACK_DONE, STEP, TEXT])
    again = kept(state)
    assert again == state
    assert list(again.jobs) == ["job_1", "job_2"]
    assert again.announced[0].wakes


@given(EVENTS)
def test_any_state_comes_back(events: list[DurableEvent]) -> None:
    state = fold_what_follows([ASKED, STARTED, STEP, *events])
    again = kept(state)
    assert again == state
    assert list(again.jobs) == list(state.jobs)  # those above come before those below


def test_a_snapshot_of_a_treadle_without_jobs() -> None:
    state = decode_snapshot(b'{"seq":3,"items":0}', b"[]")
    assert state == ThreadState(seq=3)
    assert state.jobs is NO_JOBS


def test_a_snapshot_without_its_items_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="lacks 1 items"):
        decode_snapshot(encode_head(fold([ASKED])), b"[]")


def test_a_snapshot_of_a_version_with_other_events_is_not_used() -> None:
    """It may be the fold of an event that this version does not know."""
    head = msgspec.json.decode(encode_head(ThreadState(seq=3)), type=dict[str, object])
    newer = msgspec.json.encode({**head, "event_types": "another"})
    with pytest.raises(msgspec.ValidationError, match="another version"):
        decode_snapshot(newer, b"[]")
