"""Calls of hosted tools and citations in responses: at any cut, of any form, and bounded."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.models.wire.test_responses_decoder import decode, done, frame, items_of, shape

from treadle import (
    FileCitation,
    FunctionCall,
    HostedCall,
    Message,
    OutputText,
    ProviderItem,
    UrlCitation,
)
from treadle.domain.events import CitationAdded, HostedCallProgress
from treadle.domain.usage import Usage
from treadle.models.wire.hosted_calls import MAX_SOURCES, MAX_TEXT, responses_call
from treadle.streaming.demux import ResponseFinished
from treadle.testing import Hosted, Text, Turn
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Frame
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
