"""Requests in, bytes of Chat Completions out."""

import json

from msgspec.structs import replace

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    Reasoning,
    Refusal,
    message,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.chat_dialects import OPENAI
from treadle.models.wire.chat_request import ChatOptions, encode_request

LOOK = FunctionCall("a", "look", '{"at": "Zürich"}')
TOOL = ToolSchema("look", "Looks.", {"type": "object"}, strict=False)


def sent(**options: object) -> dict[str, object]:
    items = options.pop("items", [user_message("hi")])
    dialect = replace(OPENAI, max_tokens_field=str(options.pop("field", "max_tokens")))
    chat = ChatOptions(dialect=dialect)
    request = ModelRequest(items=items, **options)  # type: ignore[arg-type]
    body = json.loads(encode_request("m", request, chat).body)
    assert len(body.pop("prompt_cache_key")) == 32
    return body


def test_a_plain_request() -> None:
    assert sent(instructions="Be brief.") == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_all_settings() -> None:
    body = sent(
        tools=(TOOL,),
        field="max_completion_tokens",
        output=OutputSchema("Answer", {"type": "object"}, strict=True),
        settings=ModelSettings(
            tool_choice=NamedTool("look"),
            parallel_tool_calls=True,
            temperature=0.0,
            top_p=1.0,
            max_output_tokens=9,
            reasoning_effort="high",
            extra_body={"seed": 1},
        ),
    )
    del body["messages"]
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object", "properties": {}},
                    "strict": False,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": True,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_completion_tokens": 9,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Answer", "schema": {"type": "object"}, "strict": True},
        },
        "seed": 1,
    }
    none = ModelSettings(tool_choice="none")
    assert sent(settings=none, tools=(TOOL,))["tool_choice"] == "none"


def test_history_becomes_messages() -> None:
    image = InputImage("https://x/y.png")
    history: list[Item] = [
        message("developer", "be kind"),
        user_message([InputText("see"), image]),
        Reasoning(id="r"),
        message("assistant", "looking"),
        FunctionCall("a", "look", '{"n":1}'),
        FunctionCall("b", "draw", ""),
        FunctionCallOutput("a", "fine"),
        FunctionCallOutput("b", (image,)),
        Message("assistant", (Refusal("No."),)),
        message("assistant", "or yes"),
        FunctionCall("c", "draw", "{}"),
        FunctionCallOutput("c", (InputText("t"), image)),
    ]
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "auto"}}
    assert sent(items=history)["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, picture]},
        {
            "role": "assistant",
            "content": "looking",
            "tool_calls": [_sent_call("a", "look", '{"n":1}'), _sent_call("b", "draw", "{}")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": "The images are in the next message."},
        {"role": "user", "content": [picture]},
        {
            "role": "assistant",
            "content": "No.\n\nor yes",
            "tool_calls": [_sent_call("c", "draw", "{}")],
        },
        {"role": "tool", "tool_call_id": "c", "content": "t"},
        {"role": "user", "content": [picture]},
    ]


def _sent_call(id: str, name: str, arguments: str) -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_the_wire() -> None:
    wire = ChatWire(ChatOptions(provider="groq"))
    assert wire.provider == "groq"
    assert wire.headers("k") == {"Authorization": "Bearer k"}
    assert wire.headers("") == {}
    body = json.loads(wire.encode("m", ModelRequest(items=[user_message("hi")])).body)
    assert body["model"] == "m"
    assert not wire.decoder(ModelRequest(items=[LOOK])).finished
