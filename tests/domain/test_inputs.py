"""What callers pass as a message or a history: converted, or refused with the accepted forms."""

from collections.abc import Iterator
from itertools import repeat

import msgspec
import pytest
from hypothesis import given
from tests.domain.json_like import json_like

from treadle.domain.envelope import decode_events
from treadle.domain.events import MessageAdded
from treadle.domain.history import History
from treadle.domain.inputs import as_history, as_message, injected_message
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
    user_message,
)
from treadle.errors import InvalidInput

HI = (InputText("hi"),)
URL = "https://x/y.png"


@pytest.mark.parametrize(
    ("given_input", "content"),
    [
        ("hi", HI),
        ({"role": "user", "content": "hi"}, HI),
        ([{"role": "user", "content": "hi"}], HI),
        ({"role": "user", "content": [{"type": "text", "text": "hi"}]}, HI),
        ({"type": "message", "role": "user", "content": ["hi"]}, HI),
        ([{"type": "text", "text": "hi"}], HI),
        ({"type": "text", "text": "hi"}, HI),
        ([{"type": "input_text", "text": "hi"}], HI),
        (["hi", "there"], (InputText("hi"), InputText("there"))),
        (iter(["hi"]), HI),
        ([InputText("hi"), {"type": "text", "text": "there"}], (*HI, InputText("there"))),
        (Message("user", "hi"), HI),
        (Message("user", ["hi"]), HI),
        (Message("user", [{"type": "text", "text": "hi"}]), HI),
        (Message("user", (OutputText("hi"),)), HI),
        ([Message("user", "hi")], HI),
        ([{"type": "image_url", "image_url": {"url": URL}}], (InputImage(URL),)),
        ([{"type": "image_url", "image_url": URL}], (InputImage(URL),)),
        (
            [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}}],
            (InputImage(URL, "low"),),
        ),
        ([{"type": "input_image", "image_url": URL, "detail": "high"}], (InputImage(URL, "high"),)),
    ],
)
def test_accepted_forms_of_a_message(given_input: object, content: object) -> None:
    message = as_message(given_input)
    assert (message.role, message.content) == ("user", content)
    assert message.id


@pytest.mark.parametrize("role", ["developer", "system"])
def test_a_program_may_send_instructions_and_a_mapping_may_not(role: str) -> None:
    assert as_message(Message(role, "Be brief.")).role == role  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="may come from outside; pass Message"):
        as_message({"role": role, "content": "Be brief."})
    assert injected_message({"role": role, "content": "Be brief."}, "user").role == role


@pytest.mark.parametrize(
    ("given_input", "words"),
    [
        (5, "5 is not a message; pass a text, a Message"),
        (None, "None is not a message; pass a text"),
        (b"hello", "b'hello' is not a message"),
        (object(), "A object is not a message"),
        ({}, "is not a part of a message"),
        ({"content": "hi"}, "is not a part of a message; pass"),
        ([5], "5 is not a part of a message; pass"),
        ([["hi"]], "is not a part of a message"),
        ({"role": "user"}, "None is not the content of a message"),
        ({"role": "user", "content": 5}, "5 is not the content of a message"),
        ({"role": "user", "content": ""}, "empty"),
        ({"role": "user", "content": []}, "empty"),
        ({"role": "user", "content": "hi", "id": 5}, "id of the message must be a text, not 5"),
        ({"role": "tool", "content": "hi"}, "The role 'tool' is not one of a message; use user"),
        ({"role": ["user"], "content": "hi"}, "is not one of a message"),
        ({"role": "assistant", "content": "hi"}, "cannot have the role 'assistant' here"),
        (Message("assistant", "hi"), "cannot be a message of the assistant"),
        (Message("tool", "hi"), "The role 'tool' is not one of a message"),  # type: ignore[arg-type]
        (Message("user", ()), "empty"),
        (Message("user", 5), "5 is not the content"),  # type: ignore[arg-type]
        (Message("user", "hi", 5), "must be a text, not 5"),  # type: ignore[arg-type]
        (Message("user", "a\udcff"), "UTF-8 at character 1"),
        ([InputText(5)], "The text of a message must be a text, not 5"),  # type: ignore[arg-type]
        ([InputImage(5)], "The URL of an image must be a text"),  # type: ignore[arg-type]
        ([InputImage("y.png")], "must begin with https://"),
        ([InputImage(URL, "big")], "use low, high, auto"),  # type: ignore[arg-type]
        ([Refusal("no")], "cannot be a refusal"),
        ([{"type": "text"}], "must be a text, not None"),
        ([{"type": "audio", "data": "x"}], "A part of the type 'audio' is not supported; pass"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "2 entries"),
        ([Message("user", "a"), "b"], "one message at a time"),
    ],
)
def test_other_forms_of_a_message_are_refused(given_input: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        as_message(given_input)


def test_an_endless_message_is_refused() -> None:
    with pytest.raises(InvalidInput, match="more than 10,000 parts"):
        as_message(repeat("hi"))


def test_the_content_of_a_message_becomes_parts_of_its_role() -> None:
    assert Message("user", "hi").content == HI
    assert Message(role="assistant", content="hi").content == (OutputText("hi"),)
    assert Message("user", [InputText("hi")]).text == "hi"


def test_a_hook_may_inject_any_role() -> None:
    assert injected_message("hi", "assistant").content == (OutputText("hi"),)
    assert injected_message(Message("assistant", "hi"), "user").role == "assistant"
    with pytest.raises(InvalidInput, match="role='tool' is not known; use user"):
        injected_message("hi", "tool")  # type: ignore[arg-type]


CALL = FunctionCall("c1", "look", "{}")
OUTPUT = FunctionCallOutput("c1", "seen")
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def contents(items: object) -> list[object]:
    """The items without the ids that were made for them."""
    return [msgspec.structs.replace(item, id="") for item in items]  # type: ignore[attr-defined]


def test_a_history_in_the_form_of_chat_completions() -> None:
    history = as_history(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
            {"role": "assistant", "content": "I see.", "refusal": None},
        ]
    )
    assert contents(history) == [
        Message("system", "Be brief."),
        Message("user", "hi"),
        CALL,
        OUTPUT,
        Message("assistant", "I see."),
    ]


ITEMS: list[Item] = [
    Message("user", "hi", "msg_1"),
    Reasoning("rs_1", provider="openai"),
    CALL,
    FunctionCallOutput("c1", (InputText("seen"), InputImage(URL)), "fco_1", is_error=True),
    Message("assistant", (OutputText("a"), Refusal("no")), "msg_2"),
    ProviderItem("openai", msgspec.Raw(b'{"type":"web_search_call"}')),
]


def test_a_history_survives_the_json_of_the_standard_library() -> None:
    stored = msgspec.json.decode(msgspec.json.encode(ITEMS))
    assert as_history(stored) == ITEMS
    assert as_history(ITEMS) == ITEMS
    history = History(ITEMS)
    assert as_history(history) is history  # that of an earlier result costs nothing


def test_items_of_the_responses_api() -> None:
    output = {"type": "function_call_output", "call_id": "c1"}
    history = as_history(
        [
            {"type": "message", "role": "user", "content": "hi"},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {**output, "output": [{"type": "text", "text": "seen"}]},
        ]
    )
    assert contents(history) == [
        Message("user", "hi"),
        CALL,
        FunctionCallOutput("c1", (InputText("seen"),)),
    ]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (5, "A history is a list of items, not 5; pass items"),
        ("hi", "A history is a list of items, not 'hi'"),
        ({"role": "user", "content": "hi"}, "A history is a list"),
        (["hi"], "'hi' is not an item of a history; pass items"),
        ([5], "5 is not an item"),
        ([{}], "is not an item of a history"),
        ([{"type": "function_call", "call_id": 5}], "The item of the type function_call is not"),
        ([{"type": ["message"]}], "is not an item of a history"),
        ([{"role": "function", "content": "hi"}], "The role 'function' is not one of a message"),
        ([{"role": "tool", "content": "hi"}], "tool_call_id must be a text, not None"),
        ([{"role": "assistant", "tool_calls": [5]}], "5 is not a tool call"),
        ([{"role": "assistant", "tool_calls": 5}], "is not a list of calls"),
        ([{"role": "user", "content": "a", "tool_calls": [CHAT_CALL]}], "is not a list of calls"),
        ([{"role": "assistant", "tool_calls": [CHAT_CALL]}], "no output for the call 'c1'"),
        ([FunctionCall("c", "look", {"a": 1}), OUTPUT], "The FunctionCall is not valid"),  # type: ignore[arg-type]
        ([CALL, FunctionCallOutput("c1", 5)], "is not the content"),  # type: ignore[arg-type]
        ([CALL, FunctionCallOutput("c1", "a\ud800")], "is not valid"),
        ([ProviderItem("openai", msgspec.Raw(b"{"))], "The ProviderItem is not valid"),
        ([Reasoning(summary="x")], "The Reasoning is not valid"),  # type: ignore[arg-type]
        ([Message("tool", "hi")], "The role 'tool'"),  # type: ignore[arg-type]
    ],
)
def test_other_histories_are_refused(history: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        as_history(history)


def taken(made: Message) -> Iterator[Message]:
    """The message, and what a journal reads of it."""
    event = MessageAdded(seq=1, run_id="r", item=made, origin="user")
    (decoded,) = decode_events(msgspec.json.encode([event]))
    assert isinstance(decoded, MessageAdded)
    yield decoded.item


@given(json_like())
def test_any_value_is_refused_or_can_be_read_again(value: object) -> None:
    for convert in (as_message, lambda one: injected_message(one, "assistant"), user_message):
        try:
            made = convert(value)  # type: ignore[arg-type]
        except InvalidInput:
            continue
        assert list(taken(made)) == [made]
        assert made.id
    try:
        history = as_history(value)
    except InvalidInput:
        return
    assert msgspec.json.decode(msgspec.json.encode(history), type=list[Item]) == list(history)
