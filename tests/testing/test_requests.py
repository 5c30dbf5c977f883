import pytest

from treadle.domain.items import FunctionCall, FunctionCallOutput, InputImage, Message, Refusal
from treadle.testing.simulator import Rejected, ToolChoice
from treadle.testing.simulator.wire.chat_request import decode_chat
from treadle.testing.simulator.wire.responses_request import decode_responses

SCHEMA = {"type": "object", "properties": {}}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc"}


def test_responses_items_of_all_kinds():
    image = {"type": "input_image", "image_url": "data:,"}
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    body = {
        "model": "m",
        "instructions": "be kind",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}, image]},
            {"type": "reasoning", "id": "rs", "summary": []},
            {"type": "message", "role": "assistant", "content": parts},
            CALL,
            {"type": "function_call_output", "call_id": "c", "output": parts[:1]},
        ],
        "tools": [{"type": "web_search"}, {"type": "function", "name": "f", "strict": True}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    }
    request = decode_responses(body, 1)
    user, assistant, call, output = request.history
    assert isinstance(user, Message)
    assert (user.text, user.content[1]) == ("hi", InputImage("data:,"))
    assert isinstance(assistant, Message)
    assert (assistant.text, assistant.refusal) == ("a", "no")
    assert call == FunctionCall("c", "f", "{}", "fc")
    assert output == FunctionCallOutput("c", "a")
    assert request.rounds == 1
    assert request.instructions == "be kind"
    assert [tool.name for tool in request.tools] == ["f"]
    assert request.tool("f") is request.tools[0]
    assert request.tool_choice == ToolChoice("named", "f")
    assert request.output_schema
    assert request.output_schema.name == "n"


def test_chat_messages_of_all_kinds():
    function = {"name": "f", "arguments": "{}"}
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    text = {"type": "text", "text": "hi"}
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [text, image]},
            {
                "role": "assistant",
                "content": [text, {"type": "refusal", "refusal": "no"}],
                "refusal": "never",
                "tool_calls": [{"id": "c", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c", "content": [text]},
        ],
        "tools": [{"type": "custom"}, {"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
        },
    }
    request = decode_chat(body, 1)
    _, user, assistant, call, output = request.history
    assert isinstance(user, Message)
    assert user.content[1] == InputImage("data:,")
    assert isinstance(assistant, Message)
    assert assistant.content[1:] == (Refusal("no"), Refusal("never"))
    assert call == FunctionCall("c", "f", "{}")
    assert output == FunctionCallOutput("c", "hi")
    assert (request.rounds, request.instructions) == (1, "be kind")
    assert request.tool_choice == ToolChoice("named", "f")
    assert [tool.name for tool in request.tools] == ["f"]
    assert request.output_schema
    assert request.output_schema.strict


def test_a_round_counts_once_whatever_its_calls_and_ends_with_a_user_message():
    outputs = [{"type": "function_call_output", "call_id": "c", "output": "x"}] * 2
    user = {"role": "user", "content": "hi"}
    turns = [user, CALL, *outputs, CALL, *outputs]
    assert decode_responses({"model": "m", "input": turns}, 1).rounds == 2
    assert decode_responses({"model": "m", "input": [*turns, user]}, 1).rounds == 0


@pytest.mark.parametrize("body", [{}, {"model": 1, "input": "x"}, {"model": "m"}])
def test_bodies_that_lack_what_they_need(body):
    for decode in (decode_responses, decode_chat):
        with pytest.raises(Rejected, match="Invalid request"):
            decode(body, 1)
