"""What events cost, by slots of time."""

from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import ContextCompacted, RecordedEvent, ResponseCompleted, UsageAdded
from treadle.domain.spending import NO_SPENDING, SLOT, Spending, slot_of, spending_in
from treadle.domain.usage import Usage

AMOUNTS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 8), st.floats(0, 9e9))


def responded(read: int, written: int, cost: int, at: float) -> RecordedEvent:
    usage = Usage(read, written, requests=1)
    return ResponseCompleted(
        run_id="r", response_id="x", finish_reason="stop", usage=usage, cost=cost / 8, at=at
    )


@given(st.lists(AMOUNTS))
def test_nothing_is_lost_or_counted_twice(amounts: list[tuple[int, int, int, float]]) -> None:
    events = [responded(*each) for each in amounts]
    spending = spending_in(events)
    total = sum(spending.values(), Spending())
    assert total.tokens == sum(read + written for read, written, *_ in amounts)
    assert total.cost == sum(cost / 8 for _, _, cost, _ in amounts)
    for slot in spending:
        assert any(slot * SLOT <= at < (slot + 1) * SLOT for *_, at in amounts)
    halves = [spending_in(events[::2]), spending_in(events[1::2])]
    for slot, spent in spending.items():  # however they are appended
        assert sum((half.get(slot, Spending()) for half in halves), Spending()) == spent


def test_which_events_count() -> None:
    summary = ContextCompacted(
        cut=0,
        strategy="s",
        cause="after_run",
        tokens_before=9,
        tokens_after=1,
        counted_by="usage",
        usage=Usage(3, 4),
        cost=0.5,
        at=SLOT,
    )
    assert spending_in([summary]) == {1: Spending(7, 0.5)}
    # It is counted with the events of the thread on which the agent works.
    worked = UsageAdded(run_id="r", thread_id="t", usage=Usage(3, 4), cost=0.5)
    assert spending_in([worked]) is NO_SPENDING
    assert spending_in([responded(0, 0, 0, 1.0)]) is NO_SPENDING
    assert slot_of(SLOT - 0.5) == 0
