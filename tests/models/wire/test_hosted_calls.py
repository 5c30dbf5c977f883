"""Calls of hosted tools and citations in responses: at any cut, of any form, and bounded."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.models.wire.test_responses_decoder import decode, done, frame, items_of, shape

from treadle import (
    CodeInterpreter,
    FileCitation,
    FunctionCall,
    HostedCall,
    Message,
    OutputText,
    Price,
    ProviderItem,
    UrlCitation,
)
from treadle.domain.events import CitationAdded, HostedCallProgress
from treadle.domain.hosted_tools import HostedTool
from treadle.domain.items import Item, user_message
from treadle.domain.usage import Usage
from treadle.models import PRICES
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic_decoder import AnthropicDecoder
from treadle.models.wire.gemini import GeminiWire
from treadle.models.wire.gemini_decoder import GeminiDecoder
from treadle.models.wire.hosted_calls import (
    MAX_SOURCES,
    MAX_TEXT,
    gemini_pages,
    gemini_part,
    gemini_search,
    messages_result,
    messages_use,
    responses_call,
)
from treadle.models.wire.hosted_code import HostedCode
from treadle.models.wire.responses import ResponsesWire
from treadle.streaming.demux import ResponseFinished, StreamEvent
from treadle.testing import Hosted, Text, Turn
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Frame
from treadle.testing.simulator.wire.messages_wire import complete_messages, stream_messages
from treadle.testing.simulator.wire.responses_wire import complete_responses, stream_responses

PAGE = UrlCitation("https://x/é", "Ä", 0, 3)
CODE = HostedCall("code_interpreter", "", "completed", "print(1)", output="1")
CALL = HostedCall("mcp", "", "completed", '{"a":1}', name="read", server="docs", output="p")
TURN = Turn(
    (
        Hosted(HostedCall("web_search", "", "completed", "ä", sources=(PAGE,))),
        Hosted(CODE),
        Hosted(replace(CALL, status="failed", output="no")),
        Hosted(CALL, needs_approval=True),
        Text("Ünï.", citations=(PAGE, FileCitation("f1", "a.pdf", 1))),
    )
)
ENVELOPE = Envelope(id="1", model="m", created=1, usage=Usage(2, 1, requests=1))


def stream(turn: Turn = TURN) -> bytes:
    pieces = stream_responses(turn, ENVELOPE)
    return b"".join(piece.data for piece in pieces if isinstance(piece, Frame))


def test_a_response_of_hosted_calls() -> None:
    events = decode(stream())
    search, code, failed, asked, said = items_of(events)
    calls = [one.call for one in (search, code, failed) if isinstance(one, ProviderItem)]
    assert [(one.tool, one.status, one.output) for one in calls if one] == [
        ("web_search", "completed", ""),
        ("code_interpreter", "completed", "1"),
        ("mcp", "failed", "no"),
    ]
    assert isinstance(asked, FunctionCall)
    assert (asked.name, asked.arguments, asked.runs_at_provider) == ("docs_read", '{"a":1}', True)
    assert isinstance(said, Message)
    assert said.content == (OutputText("Ünï.", TURN.outputs[-1].citations),)  # type: ignore[union-attr]
    cited = [event for event in events if isinstance(event, CitationAdded)]
    assert [one.annotation for one in cited] == list(said.content[0].annotations)  # type: ignore[union-attr]
    assert {one.item_id for one in cited} == {said.id}
    begun = [event.call.tool for event in events if isinstance(event, HostedCallProgress)]
    assert begun == ["web_search", *["code_interpreter"] * 2, *["mcp"] * 2]
    end = events[-1]
    assert isinstance(end, ResponseFinished)
    assert end.usage.web_searches == 1
    assert end.usage.code_containers == 1


def test_what_is_paid_for_each_use_is_counted() -> None:
    found = HostedCall("file_search", "", "completed", "plan")
    turn = Turn(
        (Hosted(found), Hosted(replace(found, status="failed")), Hosted(CODE), Hosted(CODE))
    )
    whole = stream(turn)

    def used(*items: Item, hosted: tuple[HostedTool, ...] = ()) -> Usage:
        decoder = ResponsesWire().decoder(ModelRequest(items=items, hosted=hosted))
        end = [*decoder.feed(whole), *decoder.end()][-1]
        assert isinstance(end, ResponseFinished)
        return end.usage

    first = used(user_message("Plan?"))
    assert (first.file_searches, first.code_containers) == (1, 1)
    # A container that the conversation has already, and one that the program made.
    code = next(one for one in items_of(decode(whole)) if isinstance(one, ProviderItem))
    assert used(*items_of(decode(whole)), code).code_containers == 0
    assert used(hosted=(CodeInterpreter(container="cntr_sim"),)).code_containers == 0
    price = Price(input=0, output=0, file_search=2.5, code_container=30, web_search=10)
    assert price.cost(first + Usage(web_searches=3)) == pytest.approx(0.0025 + 0.03 + 0.03)


def test_searches_of_gemini_are_paid_by_query_or_by_response() -> None:
    asked = {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["q", "r"]}, "id": "t1"}
    grounding = {"webSearchQueries": ["q", "r"], "imageSearchQueries": ["s"]}
    for name, counts in (("gemini-3.8-flash", (3, 2)), ("gemini-2.5-pro", (1, 1))):
        for more, count in zip(({"groundingMetadata": grounding}, {}), counts, strict=True):
            decoder = GeminiWire(name).decoder(ModelRequest(items=()))
            frame = candidate({"toolCall": asked}, finishReason="STOP", **more)
            body = b"data: %b\n\n" % json.dumps(frame).encode()
            end = [*decoder.feed(body), *decoder.end()][-1]
            assert isinstance(end, ResponseFinished)
            assert end.usage.web_searches == count


def test_list_prices_contain_hosted_tools() -> None:
    prices = {name: PRICES[name] for name in ("gpt-5", "claude-sonnet-5", "gemini-3.8-flash")}
    assert [one.web_search for one in prices.values()] == [10, 10, 14]
    assert (prices["gpt-5"].file_search, prices["gpt-5"].code_container) == (2.5, 30)
    assert PRICES["gemini-2.5-pro"].web_search == 35


SCRIPT = "import math\n\nfor n in range(9):\n    print('é', n)\n" * 40 + "done()"


@pytest.mark.parametrize("wire", ["responses", "messages"])
def test_code_is_shown_while_it_is_written(wire: str) -> None:
    turn = Turn((Hosted(replace(CODE, arguments=SCRIPT)), Text("Done.")))
    encode = stream_responses if wire == "responses" else stream_messages
    read = decode if wire == "responses" else messages
    body = b"".join(one.data for one in encode(turn, ENVELOPE) if isinstance(one, Frame))
    events = [one for one in read(body) if isinstance(one, HostedCallProgress)]
    partial = [one.call.arguments for one in events if one.is_partial]
    assert partial[:3] == [SCRIPT[: len("import math\n")], "import math\n\n", SCRIPT[:32]]
    assert all(SCRIPT.startswith(one) and one.endswith("\n") for one in partial)
    assert sum(map(len, partial)) < 17 * len(SCRIPT)
    assert max(len(b) - len(a) for a, b in pairwise(partial)) < len(SCRIPT) / 10
    assert len({one.item_id for one in events}) == 1
    whole = [one for one in events if not one.is_partial]
    assert [one.call.arguments for one in whole] == ["", SCRIPT]
    for cut in range(0, len(body), 997):
        assert shape(read(body[:cut], body[cut:])) == shape(read(body))


def test_code_that_is_not_code_is_read_as_before() -> None:
    """What cannot be read while it is written is read from the end of the call."""
    begun = {"type": "server_tool_use", "id": "s", "name": "code_execution", "input": {}}
    given = '{"other": ' + "[" * 200 + "]" * 200 + ', "code": "a\\nb"}'
    body = b"".join(
        b"event: %b\ndata: %b\n\n" % (str(one["type"]).encode(), json.dumps(one).encode())
        for one in (
            {"type": "message_start", "message": {"id": "m", "usage": {}}},
            {"type": "content_block_start", "index": 0, "content_block": begun},
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": piece},
                }
                for piece in (given[:150], given[150:])
            ),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
            {"type": "message_stop"},
        )
    )
    (item,) = items_of(messages(body))
    assert isinstance(item, ProviderItem)
    assert json.loads(bytes(item.raw))["input"]["code"] == "a\nb"
    long = HostedCode()
    assert long.feed("x\n" * MAX_TEXT) == ""
    assert long.feed("y\n") == ""
    announced = {"type": "code_interpreter_call", "id": "c", "status": "in_progress", "code": ""}
    event = {"item_id": "c", "output_index": 0}
    kind = "response.code_interpreter_call_code"
    events = decode(
        frame("response.output_item.added", output_index=0, item=announced),
        b'event: %b.delta\ndata: {"type": "%b.delta", "delta": 1e999' % ((kind.encode(),) * 2)
        + b"}\n\n",
        b"event: %b.delta\ndata: {broken\n\n" % kind.encode(),
        frame(f"{kind}.delta", **event, delta=None),
        frame(f"{kind}.delta", item_id="unknown", delta="x\n"),
        frame(f"{kind}.delta", **event, delta="a\n<half>").replace(b"<half>", rb"\ud83d"),
        frame(f"{kind}.delta", **event, delta="<half>\n").replace(b"<half>", rb"\ude00"),
        frame(f"{kind}.done", **event, code="a\n😀\n"),
        done(0, **{**announced, "status": "completed", "code": "a\n😀\n"}),
        frame("response.completed", response={"status": "completed", "output": None}),
    )
    seen = [one for one in events if isinstance(one, HostedCallProgress)]
    assert [(one.call.arguments, one.is_partial) for one in seen] == [
        *(("", False), ("a\n", True), ("a\n😀\n", True), ("a\n😀\n", False)),
    ]


def test_the_result_does_not_depend_on_the_cut() -> None:
    body = stream()
    expected = shape(decode(body))
    for cut in range(0, len(body), 13):
        assert shape(decode(body[:cut], body[cut:])) == expected


def test_a_response_that_is_not_streamed_has_the_same_items() -> None:
    whole = items_of(decode(complete_responses(TURN, ENVELOPE)))
    for one, other in zip(whole, items_of(decode(stream())), strict=True):
        if isinstance(one, ProviderItem) and isinstance(other, ProviderItem):
            assert (one.call, json.loads(bytes(one.raw))) == (
                other.call,
                json.loads(bytes(other.raw)),
            )
        else:
            assert one == other


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "url", "query", "queries", "sources", "text", "logs", "message", "content"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)

MESSAGES = Turn(
    (
        Hosted(HostedCall("web_search", "", "completed", "ä", sources=(PAGE,))),
        Hosted(CODE),
        Hosted(HostedCall("web_fetch", "", "completed", "https://x", output="Page")),
        Hosted(replace(CALL, status="failed", output="no")),
        Hosted(replace(CODE, status="failed", output="unavailable")),
        Text("Ünï.", citations=(PAGE, FileCitation(filename="a.pdf", page=2))),
    )
)


def messages(*chunks: bytes) -> list[StreamEvent]:
    decoder = AnthropicDecoder("anthropic")
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.end()]


def test_a_message_of_hosted_calls() -> None:
    usage = Usage(2, 1, requests=1, web_searches=1)
    pieces = stream_messages(MESSAGES, replace(ENVELOPE, usage=usage))
    body = b"".join(piece.data for piece in pieces if isinstance(piece, Frame))
    events = messages(body)
    *hosted, said = items_of(events)
    calls = [one.call for one in hosted if isinstance(one, ProviderItem) and one.call]
    assert [(one.tool, one.arguments) for one in calls[::2]] == [
        *(("web_search", "ä"), ("code_interpreter", "print(1)"), ("web_fetch", "https://x")),
        *(("mcp", '{"a":1}'), ("code_interpreter", "print(1)")),
    ]
    assert {one.status for one in calls[::2]} == {"in_progress"}
    assert [one.call_id for one in calls[::2]] == [one.call_id for one in calls[1::2]]
    assert [one.arguments for one in calls[::2]] == [one.arguments for one in calls[1::2]]
    assert [(one.status, one.output) for one in calls[1::2]] == [
        *(("completed", ""), ("completed", "1"), ("completed", "Page")),
        *(("failed", "no"), ("failed", "unavailable")),
    ]
    assert calls[1].sources == (UrlCitation(PAGE.url, PAGE.title),)
    assert (calls[7].server, calls[7].name) == ("docs", "read")
    assert isinstance(said, Message)
    cited = [event.annotation for event in events if isinstance(event, CitationAdded)]
    assert [type(one) for one in cited] == [UrlCitation, FileCitation]
    assert said.content == (OutputText("Ünï.", tuple(cited)),)
    begun = [event.call for event in events if isinstance(event, HostedCallProgress)]
    assert [one.arguments for one in begun[:2]] == ["", "ä"]
    end = events[-1]
    assert isinstance(end, ResponseFinished)
    assert end.usage.web_searches == 1
    expected = shape(events)
    for cut in range(0, len(body), 13):
        assert shape(messages(body[:cut], body[cut:])) == expected
    whole = items_of(messages(complete_messages(MESSAGES, ENVELOPE)))
    assert [one.call.output for one in whole if isinstance(one, ProviderItem) and one.call] == [
        one.output for one in calls
    ]


def test_a_result_whose_call_was_in_a_response_that_was_paused() -> None:
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    call = messages_result(found, {})
    assert call == HostedCall("web_search", "s", "completed")
    assert messages_result({"type": "tool_result", "tool_use_id": "s"}, {}) is None
    assert messages_result({"type": "container_upload"}, {}) is None


def gemini(*frames: dict[str, Any]) -> list[StreamEvent]:
    decoder = GeminiDecoder("gemini")
    bodies = [b"data: %b\n\n" % json.dumps(one).encode() for one in frames]
    events = [event for body in bodies for event in decoder.feed(body)]
    return [*events, *decoder.end()]


def candidate(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, **more}]}


def test_calls_of_gemini_with_and_without_ids() -> None:
    grounding = {"webSearchQueries": ["q", "r"], "groundingChunks": [{"web": {"uri": "https://x"}}]}
    asked = {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["q"]}, "id": "t1"}
    events = gemini(
        candidate({"toolCall": asked}),
        candidate({"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "t1", "response": {}}}),
        candidate({"executableCode": {"code": "1/0"}}),
        candidate({"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "error"}}),
        candidate({"executableCode": {"code": "1"}}),
        candidate({"text": "So."}, finishReason="STOP", groundingMetadata=grounding),
    )
    calls = [one.call for one in items_of(events) if isinstance(one, ProviderItem) and one.call]
    assert [(one.tool, one.status, one.arguments, one.output) for one in calls] == [
        ("web_search", "in_progress", "q", ""),
        ("web_search", "completed", "q", ""),
        ("code_interpreter", "in_progress", "1/0", ""),
        ("code_interpreter", "failed", "1/0", "error"),
        ("code_interpreter", "in_progress", "1", ""),
    ]
    assert len({one.call_id for one in calls}) == 3
    end = events[-1]
    assert isinstance(end, ResponseFinished)
    assert end.usage.web_searches == 2


@given(
    st.sampled_from(["executableCode", "codeExecutionResult", "toolCall", "toolResponse", "x"]),
    JUNK,
    JUNK,
    JUNK,
)
def test_a_part_of_any_form_is_read(kind: str, value: Any, grounding: Any, pages: Any) -> None:
    assert (gemini_part({kind: value}, "c", {}) is None) == (kind == "x")
    given = {"groundingChunks": [{"web": grounding}, grounding], "webSearchQueries": value}
    gemini_search(given, "c")
    gemini_pages({"urlMetadata": pages}, "c")


@given(
    st.sampled_from(["server_tool_use", "mcp_tool_use", "web_fetch_tool_result", "x"]),
    st.dictionaries(
        st.sampled_from(
            ["id", "name", "server_name", "input", "tool_use_id", "content", "is_error"]
        ),
        JUNK,
    ),
)
def test_a_block_of_any_form_is_read(kind: str, fields: dict[str, Any]) -> None:
    block = {"type": kind, **fields}
    assert (messages_use(block) is not None) == kind.endswith("use")
    messages_result(block, {})


def test_an_annotation_without_its_message_is_no_event() -> None:
    note = {"type": "url_citation", "url": "https://x"}
    added = "response.output_text.annotation.added"
    events = decode(
        frame(added, output_index=4, item_id="m9", annotation=note),
        done(0, type="message", id="m1", role="assistant", content=[]),
        frame(added, output_index=0, item_id="m1", annotation=note),
        frame("response.completed", response={"id": "r", "status": "completed", "output": []}),
    )
    assert not [event for event in events if isinstance(event, CitationAdded)]


def test_what_people_read_is_bounded() -> None:
    long = "x" * (MAX_TEXT + 5)
    call = responses_call(
        {
            "type": "web_search_call",
            "id": long,
            "action": {
                "query": long,
                "sources": [
                    {"url": "https://x/" + long},
                    *({"url": f"https://x/{n}", "title": long} for n in range(300)),
                    *({"url": f"https://x/{n}"} for n in range(300)),
                ],
            },
        }
    )
    assert call is not None
    assert len(call.sources) == MAX_SOURCES == len(set(call.sources))
    assert len(call.arguments) < MAX_TEXT + 100
    assert "5 characters are left out" in call.arguments
    assert len(call.call_id) <= 1000
    assert all(len(one.title) <= 1000 for one in call.sources if isinstance(one, UrlCitation))


@given(
    st.sampled_from(
        ["web_search_call", "file_search_call", "code_interpreter_call", "mcp_call", "x"]
    ),
    st.dictionaries(
        st.sampled_from(
            [
                *("id", "status", "action", "queries", "results", "code", "outputs"),
                *("arguments", "output", "error", "name", "server_label"),
            ]
        ),
        JUNK,
    ),
)
def test_an_item_of_any_form_is_a_call(kind: str, fields: dict[str, Any]) -> None:
    call = responses_call({"type": kind, **fields})
    assert (call is None) == (kind == "x")


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "in_progress", None, 7])
def test_a_status(status: object) -> None:
    call = responses_call({"type": "web_search_call", "id": "w", "status": status})
    assert call is not None
    expected = {"completed": "completed", "failed": "failed", "incomplete": "failed"}
    assert call.status == expected.get(str(status), "in_progress")
