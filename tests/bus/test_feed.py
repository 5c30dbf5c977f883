import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.bus.feed import Feed
from treadle.domain.events import (
    AgentEvent,
    Event,
    FieldDelta,
    ReasoningDelta,
    RefusalDelta,
    RunStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolProgress,
    ToUserDelta,
    delta_key,
)

pytestmark = pytest.mark.anyio


async def drain(feed: Feed) -> list[Event]:
    return [event async for event in feed]


async def test_events_come_in_order_and_the_feed_ends() -> None:
    feed = Feed()
    events: list[Event] = [
        RunStarted(run_id="r", agent="a"),
        TextDelta("m", "a"),
        TextDelta("m", "b"),
    ]
    for event in events:
        feed.put(event)
    feed.close()
    feed.put(TextDelta("m", "late"))
    assert len(feed) == 3
    assert await drain(feed) == events


async def test_a_waiting_reader_is_woken() -> None:
    feed = Feed()
    reader = asyncio.create_task(drain(feed))
    await asyncio.sleep(0)
    feed.put(TextDelta("m", "a"))
    feed.put(TextDelta("m", "b"))
    await asyncio.sleep(0)
    feed.close()
    assert await reader == [TextDelta("m", "a"), TextDelta("m", "b")]


async def test_a_reader_that_leaves_takes_nothing_with_it() -> None:
    feed = Feed()
    reader = asyncio.create_task(drain(feed))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    feed.put(TextDelta("m", "a"))
    feed.close(ValueError("the run failed"))
    seen: list[Event] = []
    with pytest.raises(ValueError, match="the run failed"):
        async for event in feed:
            seen.append(event)
    assert seen == [TextDelta("m", "a")]


async def test_a_reader_that_never_comes_costs_one_event_an_item() -> None:
    feed = Feed(limit=2)
    for number in range(1000):
        feed.put(TextDelta("m", str(number % 10)))
        feed.put(ToolArgumentsDelta("f", "c", "x"))
    assert len(feed) == 2
    assert feed.statistics() == (2, 1998, 0)
    feed.close()
    events = await drain(feed)
    text = "".join(event.delta for event in events if isinstance(event, TextDelta))
    assert text == "0123456789" * 100
    last = events[-1]
    assert isinstance(last, ToolArgumentsDelta)
    assert (last.item_id, last.call_id, len(last.delta)) == ("f", "c", 1000)


DELTAS = st.one_of(
    st.builds(TextDelta, st.sampled_from("ab"), st.text(max_size=3)),
    st.builds(ReasoningDelta, st.sampled_from("ab"), st.text(max_size=3)),
    st.builds(RefusalDelta, st.sampled_from("ab"), st.text(max_size=3)),
    st.builds(ToolArgumentsDelta, st.sampled_from("ab"), st.just("c"), st.text(max_size=3)),
    st.builds(ToUserDelta, st.sampled_from("ab"), st.just("c"), st.text(max_size=3)),
    st.builds(
        FieldDelta,
        st.sampled_from("ab"),
        st.just("c"),
        st.sampled_from(["f", "g"]),
        st.text(max_size=3),
    ),
)
OTHERS = st.builds(ToolProgress, st.just("c"), st.just("n"), st.text(max_size=3))


@given(
    events=st.lists(st.one_of(DELTAS, OTHERS), max_size=40),
    reads=st.lists(st.booleans(), max_size=80),
    limit=st.integers(1, 5),
)
def test_no_reading_pattern_loses_or_reorders(
    events: list[Event], reads: list[bool], limit: int
) -> None:
    async def pattern() -> list[Event]:
        feed, seen, pending = Feed(limit), list[Event](), list(events)
        reader = aiter(feed)
        for read in reads:
            if read and len(feed):
                seen.append(await anext(reader))
            elif pending:
                feed.put(pending.pop(0))
        for event in pending:
            feed.put(event)
        feed.close()
        return seen + [event async for event in reader]

    seen = asyncio.run(pattern())
    assert segments(seen) == segments(events)


def segments(events: list[Event]) -> list[object]:
    """Between two events that are no deltas, the text of each item in full."""
    found: list[object] = [{}]
    for event in events:
        if isinstance(event, ToolProgress):
            found += [event, {}]
        else:
            texts = found[-1]
            assert isinstance(texts, dict)
            key = delta_key(event)  # type: ignore[arg-type]
            texts[key] = texts.get(key, "") + event.delta  # type: ignore[union-attr]
    return found


async def test_a_subscriber_that_catches_up_gets_each_delta_again() -> None:
    feed = Feed(limit=2)
    feed.put(TextDelta("m", "a"))
    reader = aiter(feed)
    assert await anext(reader) == TextDelta("m", "a")
    for letter in "bcd":
        feed.put(TextDelta("m", letter))
    assert await anext(reader) == TextDelta("m", "bcd")
    feed.put(TextDelta("m", "e"))
    feed.close()
    assert [event async for event in reader] == [TextDelta("m", "e")]


async def test_what_another_agent_writes_is_joined_by_its_thread() -> None:
    def of(agent: str, event: Event) -> Event:
        return AgentEvent("c1", agent, f"thread_{agent}", event)

    feed = Feed(limit=1)
    feed.put(TextDelta("m", "first"))
    for letter in "xyz":
        feed.put(TextDelta("m", letter))
        feed.put(of("a", TextDelta("m", letter.upper())))
        feed.put(of("b", of("a", TextDelta("m", letter * 2))))
    feed.put(of("a", ToolProgress("c9", "f", "half")))
    feed.put(of("a", TextDelta("m", "!")))
    feed.close()
    assert await drain(feed) == [
        TextDelta("m", "firstxyz"),
        of("a", TextDelta("m", "XYZ")),
        of("b", of("a", TextDelta("m", "xxyyzz"))),
        of("a", ToolProgress("c9", "f", "half")),
        of("a", TextDelta("m", "!")),
    ]
