from collections.abc import Callable

import msgspec
import pytest

from treadle.domain.events import (
    CitationAdded,
    HostedCallProgress,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
)
from treadle.domain.items import (
    FunctionCall,
    HostedCall,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
    UrlCitation,
)
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.streaming import demux as demux_module
from treadle.streaming.demux import Demux, ItemFinished, ResponseFinished


def finished(demux: Demux) -> list[ItemFinished]:
    return [event for event in demux.events if isinstance(event, ItemFinished)]


def test_the_places_of_a_source_are_within_the_text_so_far() -> None:
    demux = Demux("p")
    early = UrlCitation("https://x", start_index=7, end_index=9)
    demux.cite(0, early)
    demux.text(0, "Hel", "m1")
    demux.text(0, "lo", "m1")
    demux.cite(0, UrlCitation("https://x", start_index=-1, end_index=3))
    demux.cite(0, UrlCitation("https://x", start_index=4, end_index=99))
    assert [one.annotation for one in demux.events if isinstance(one, CitationAdded)] == [
        early,
        UrlCitation("https://x", start_index=0, end_index=3),
        UrlCitation("https://x", start_index=4, end_index=5),
    ]


def test_text_streams_and_finishes_as_one_message() -> None:
    demux = Demux("p")
    demux.text(0, "Hel", "m1")
    demux.text(0, "lo", "m1")
    demux.finish(0)
    assert demux.take() == [
        TextDelta("m1", "Hel"),
        TextDelta("m1", "lo"),
        ItemFinished(0, Message("assistant", (OutputText("Hello"),), "m1")),
    ]
    assert demux.take() == []


def test_refusal_follows_text_in_one_message() -> None:
    demux = Demux("p")
    demux.text(0, "a", "m1")
    demux.refusal(0, "n")
    demux.refusal(0, "o")
    demux.finish_all(truncated=False)
    assert demux.take()[1:] == [
        RefusalDelta("m1", "n"),
        RefusalDelta("m1", "o"),
        ItemFinished(0, Message("assistant", (OutputText("a"), Refusal("no")), "m1")),
    ]


def test_a_final_message_that_goes_on_sends_the_rest() -> None:
    demux = Demux("p")
    demux.text(0, "Hel", "m1")
    demux.finish(0, Message("assistant", (OutputText("Hello"), Refusal("no")), "m1"))
    assert demux.take() == [
        TextDelta("m1", "Hel"),
        TextDelta("m1", "lo"),
        RefusalDelta("m1", "no"),
        ItemFinished(0, Message("assistant", (OutputText("Hello"), Refusal("no")), "m1")),
    ]


def test_a_final_message_without_deltas_is_streamed() -> None:
    demux = Demux("p")
    demux.finish(0, Message("assistant", (OutputText("Hi"),), "m1"))
    assert demux.take() == [
        TextDelta("m1", "Hi"),
        ItemFinished(0, Message("assistant", (OutputText("Hi"),), "m1")),
    ]


def test_what_was_read_stands_where_the_final_message_differs() -> None:
    demux = Demux("p")
    demux.text(0, "Hello ", "m1")
    demux.finish(0, Message("assistant", (OutputText("Hello"),), "m1"))
    assert demux.take()[-1] == ItemFinished(0, Message("assistant", (OutputText("Hello "),), "m1"))


def test_reasoning_is_assembled_and_marked() -> None:
    demux = Demux("p")
    demux.reasoning(0, "a", "r1")
    demux.reasoning(0, "b")
    demux.finish(0)
    assert demux.take() == [
        ReasoningDelta("r1", "a"),
        ReasoningDelta("r1", "b"),
        ItemFinished(0, Reasoning(id="r1", content=(ReasoningText("ab"),), provider="p")),
    ]


def test_final_reasoning_keeps_what_only_its_author_reads() -> None:
    final = Reasoning(id="r1", summary=(SummaryText("s"),), encrypted_content="x")
    demux = Demux("p")
    demux.finish(0, final)
    delta, finished = demux.take()
    assert delta == ReasoningDelta("r1", "s")
    assert finished == ItemFinished(
        0, Reasoning(id="r1", summary=(SummaryText("s"),), encrypted_content="x", provider="p")
    )
    demux.reasoning(1, "s", "r2")
    demux.finish(1, Reasoning(id="r2"))
    read = Reasoning(id="r2", content=(ReasoningText("s"),), provider="p")
    assert demux.take()[-1] == ItemFinished(1, read)
    demux.reasoning(3, "t")
    demux.finish(3, Reasoning(encrypted_content="y"))
    begun, ended = demux.take()
    assert isinstance(begun, ReasoningDelta)
    assert isinstance(ended, ItemFinished)
    assert begun.item_id == ended.item.id  # type: ignore[union-attr]
    demux.finish(2, Reasoning())
    (empty,) = demux.take()
    assert isinstance(empty, ItemFinished)
    assert isinstance(empty.item, Reasoning)
    assert empty.item.id.startswith("rs_")


def test_calls_grow_side_by_side_and_tell_when_they_are_complete() -> None:
    demux = Demux("p")
    demux.call(0, "c1", "look", "f1")
    demux.call(1, "c2", "look", "f2")
    assert not demux.arguments(0, '{"a"')
    assert not demux.arguments(1, '{"b": 1')
    assert demux.arguments(1, "}")
    demux.finish(1)
    assert demux.arguments(0, ": {}}")
    demux.finish(0)
    assert demux.take() == [
        ToolCallStarted("f1", "c1", "look"),
        ToolCallStarted("f2", "c2", "look"),
        ToolArgumentsDelta("f1", "c1", '{"a"'),
        ToolArgumentsDelta("f2", "c2", '{"b": 1'),
        ToolArgumentsDelta("f2", "c2", "}"),
        ItemFinished(1, FunctionCall("c2", "look", '{"b": 1}', "f2")),
        ToolArgumentsDelta("f1", "c1", ": {}}"),
        ItemFinished(0, FunctionCall("c1", "look", '{"a": {}}', "f1")),
    ]


def test_an_empty_object_is_not_taken_for_complete() -> None:
    demux = Demux("p")
    demux.call(0, "c1", "look")
    assert not demux.arguments(0, "{}")


def test_a_final_call_brings_what_deltas_left_out() -> None:
    demux = Demux("p")
    demux.finish(0, FunctionCall("c1", "look", '{"a":1}', "f1"))
    assert demux.take() == [
        ToolCallStarted("f1", "c1", "look"),
        ToolArgumentsDelta("f1", "c1", '{"a":1}'),
        ItemFinished(0, FunctionCall("c1", "look", '{"a":1}', "f1")),
    ]
    demux.call(1, "c2", "look", "f2")
    demux.arguments(1, '{"a":2}')
    demux.finish(1, FunctionCall("c2", "look", "", "f2"))
    assert demux.take()[-1] == ItemFinished(1, FunctionCall("c2", "look", '{"a":2}', "f2"))


def test_missing_and_repeated_call_ids_are_repaired() -> None:
    demux = Demux("p", ["old"])
    for key, call_id in enumerate(["old", "", "c1", "c1"]):
        demux.call(key, call_id, "look")
    ids = [event.call_id for event in demux.take() if isinstance(event, ToolCallStarted)]
    assert ids[2] == "c1"
    assert len(set(ids)) == 4
    assert "old" not in ids
    assert all(ids)


def test_the_repaired_id_is_the_one_of_the_finished_call() -> None:
    demux = Demux("p", ["c1"])
    demux.call(0, "c1", "look")
    demux.finish(0, FunctionCall("c1", "look", "{}"))
    started, _, finished = demux.take()
    assert isinstance(started, ToolCallStarted)
    assert isinstance(finished, ItemFinished)
    assert isinstance(finished.item, FunctionCall)
    assert finished.item.call_id == started.call_id != "c1"


def test_a_truncated_response_drops_its_open_calls_and_keeps_its_text() -> None:
    demux = Demux("p")
    demux.text(0, "a", "m1")
    demux.call(1, "c1", "look")
    demux.arguments(1, '{"a": 1')
    demux.finish_all(truncated=True)
    items = [event.item for event in demux.take() if isinstance(event, ItemFinished)]
    assert items == [Message("assistant", (OutputText("a"),), "m1")]
    assert not demux.is_open(1)


def test_finishing_twice_is_finishing_once() -> None:
    demux = Demux("p")
    demux.text(0, "a")
    demux.finish(0)
    demux.take()
    demux.finish(0)
    assert demux.take() == []


def test_nothing_may_follow_a_finished_call() -> None:
    demux = Demux("p")
    demux.call(0, "c1", "look")
    demux.arguments(0, '{"a":1}')
    demux.finish(0)
    assert not demux.arguments(0, " \n")
    with pytest.raises(StreamInvalid, match="not open"):
        demux.arguments(0, "}")


def test_a_finished_key_begins_another_item() -> None:
    demux = Demux("p")
    demux.text(0, "a", "m1")
    demux.finish(0)
    demux.text(0, "b", "m2")
    demux.finish(0, Message("assistant", (OutputText("bc"),), "m2"))
    demux.call(0, "c1", "look", "f1")
    demux.finish_all(truncated=False)
    assert finished(demux) == [
        ItemFinished(0, Message("assistant", (OutputText("a"),), "m1")),
        ItemFinished(1, Message("assistant", (OutputText("bc"),), "m2")),
        ItemFinished(2, FunctionCall("c1", "look", "", "f1")),
    ]


OPENED: list[tuple[Callable[[Demux], object], Item]] = [
    (lambda demux: demux.text(0, "a", "m"), Message("assistant", (OutputText("a"),), "m")),
    (lambda demux: demux.refusal(0, "a", "m"), Message("assistant", (Refusal("a"),), "m")),
    (
        lambda demux: demux.reasoning(0, "a", "r"),
        Reasoning(id="r", content=(ReasoningText("a"),), provider="p"),
    ),
    (lambda demux: demux.call(0, "c", "look", "f"), FunctionCall("c", "look", "", "f")),
]
FINALS: list[Item] = [
    Message("assistant", (OutputText("b"),), "m2"),
    Reasoning(id="r2", content=(ReasoningText("b"),), provider="p"),
    Reasoning(id="r2", encrypted_content="b", provider="p"),
    FunctionCall("c2", "look", "{}", "f2"),
    ProviderItem("p", msgspec.Raw(b"{}")),
]


@pytest.mark.parametrize(("begin", "first"), OPENED)
@pytest.mark.parametrize(("also", "second"), OPENED)
def test_an_open_item_is_never_overwritten(
    begin: Callable[[Demux], object],
    first: Item,
    also: Callable[[Demux], object],
    second: Item,
) -> None:
    demux = Demux("p")
    begin(demux)
    also(demux)
    demux.finish_all(truncated=False)
    if type(first) is not type(second):
        assert [event.item for event in finished(demux)] == [first, second]


@pytest.mark.parametrize(("begin", "first"), OPENED)
@pytest.mark.parametrize("final", FINALS)
def test_nor_by_the_end_of_one_of_another_kind(
    begin: Callable[[Demux], object], first: Item, final: Item
) -> None:
    demux = Demux("p")
    begin(demux)
    demux.finish(0, final)
    if type(first) is not type(final):
        assert [event.item for event in finished(demux)] == [first, final]
    assert not demux.is_open(0)


def test_an_empty_final_message_finishes_what_was_read_or_nothing() -> None:
    demux = Demux("p")
    demux.finish(0, Message("assistant", (), "m1"))
    demux.text(1, "a", "m2")
    demux.finish(1, Message("assistant", (), "m2"))
    assert finished(demux) == [ItemFinished(1, Message("assistant", (OutputText("a"),), "m2"))]


def test_final_reasoning_that_goes_on_sends_the_rest() -> None:
    demux = Demux("p")
    demux.reasoning(0, "a", "r1")
    demux.finish(0, Reasoning(id="r1", content=(ReasoningText("ab"),)))
    assert demux.take() == [
        ReasoningDelta("r1", "a"),
        ReasoningDelta("r1", "b"),
        ItemFinished(0, Reasoning(id="r1", content=(ReasoningText("ab"),), provider="p")),
    ]


def test_empty_final_arguments_do_not_replace_those_that_were_read() -> None:
    demux = Demux("p")
    demux.call(0, "c1", "look", "f1")
    demux.arguments(0, '{"a":1}')
    assert demux.written(0) == '{"a":1}'
    demux.finish(0, FunctionCall("", "", "{}"))
    assert demux.written(0) == ""
    assert finished(demux) == [ItemFinished(0, FunctionCall("c1", "look", '{"a":1}', "f1"))]


def test_items_that_were_missing_are_inserted_where_they_belong() -> None:
    demux = Demux("p")
    demux.text("a", "A")
    demux.finish("a")
    demux.text("c", "C")
    with demux.inserting(None):
        demux.finish("first", Message("assistant", (OutputText("0"),)))
    for before, key in (("a", "b1"), ("b1", "b2"), ("c", "d")):
        with demux.inserting(before):
            demux.finish(key, Message("assistant", (OutputText(key),)))
    demux.finish("c")
    events = sorted(finished(demux), key=lambda event: event.index)
    texts = [event.item.text for event in events if isinstance(event.item, Message)]
    assert texts == ["0", "A", "b1", "b2", "C", "d"]
    demux = Demux("p")
    with demux.inserting(None):
        demux.finish(0, Message("assistant", (OutputText("0"),)))
    assert finished(demux)[0].index == 0


def test_arguments_that_are_nested_too_deeply_are_handed_on() -> None:
    deep = '{"a":' + "[" * 200 + "]" * 200 + "}"
    demux = Demux("p")
    demux.call(0, "c1", "look", "f1")
    assert not any(demux.arguments(0, piece) for piece in deep)
    demux.finish(0)
    assert finished(demux) == [ItemFinished(0, FunctionCall("c1", "look", deep, "f1"))]


def test_of_too_many_calls_one_more_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demux_module, "MAX_CALLS", 2)
    demux = Demux("p")
    for key in range(5):
        demux.call(key, "", f"look{key}")
        demux.arguments(key, '{"a"')
        assert demux.arguments(key, ":1}") is (key < 3)
    demux.finish(0)
    demux.finish(4, FunctionCall("c", "look4", '{"a":1}'))
    demux.finish(9, FunctionCall("c", "look9", '{"a":1}'))
    demux.text(3, "a")  # not lost, although the key is that of a call which is not kept
    demux.finish_all(truncated=False)
    calls = [e.item.name for e in finished(demux) if isinstance(e.item, FunctionCall)]
    assert sorted(calls) == ["look0", "look1", "look2"]
    assert [e.item.text for e in finished(demux) if isinstance(e.item, Message)] == ["a"]


def test_unknown_item_without_content_finishes_nothing() -> None:
    demux = Demux("p")
    demux.finish(5)
    assert demux.take() == []


def test_the_end_tells_usage_and_id() -> None:
    demux = Demux("p")
    demux.usage, demux.response_id = Usage(1, 2), "resp"
    demux.end("length")
    assert demux.take() == [ResponseFinished("resp", "length", Usage(1, 2))]


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demux_module, "_MAX_CHARS", 10)
    monkeypatch.setattr(demux_module, "_MAX_ITEMS", 2)
    demux = Demux("p")
    demux.text(0, "12345")
    with pytest.raises(StreamInvalid, match="max_output_tokens"):
        demux.text(0, "678901")
    with pytest.raises(StreamInvalid, match="max_output_tokens"):
        demux.reasoning(1, "678901")
    demux = Demux("p")
    demux.call(0, "", "a")
    demux.call(1, "", "a")
    with pytest.raises(StreamInvalid, match="more than 2 items"):
        demux.call(2, "", "a")
    monkeypatch.setattr(demux_module, "MAX_CALLS", 1)
    monkeypatch.setattr(demux_module, "_MAX_ITEMS", 9)
    demux = Demux("p")
    for key in range(3):
        demux.call(key, "", "a")
    with pytest.raises(StreamInvalid, match="max_output_tokens"):
        demux.arguments(2, "12345678901")


def _hosted(id: str, status: str = "completed") -> ProviderItem:
    call = HostedCall("web_search", id, status, "oil")  # type: ignore[arg-type]
    return ProviderItem("p", msgspec.Raw(b"{}"), call)


def test_ids_of_hosted_calls_are_unique_and_shared_by_a_call_and_its_result() -> None:
    demux = Demux("p", ["used"])
    open_call = HostedCall("web_search", "used", arguments="oil")
    demux.hosted(0, open_call)
    demux.finish(0, _hosted("used", "in_progress"))
    demux.finish(1, _hosted("used"))
    demux.finish(2, _hosted("used"))  # another one
    demux.hosted(3, HostedCall("web_search", ""))
    demux.finish(3, _hosted(""))
    demux.finish(4, _hosted(""))
    demux.finish(5, _hosted("new"))
    events = demux.take()
    begun = [one.call.call_id for one in events if isinstance(one, HostedCallProgress)]
    items = [one.item for one in events if isinstance(one, ItemFinished)]
    ids = [item.id for item in items if isinstance(item, ProviderItem)]
    assert begun == [ids[0], ids[3]]
    assert ids[0] == ids[1] != "used"
    assert len(set(ids)) == 5
    assert ids[-1] == "new"
    assert "" not in ids
