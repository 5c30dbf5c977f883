"""Requests of the Responses API: what each history and each setting is sent as."""

import json

import msgspec

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
    SummaryText,
    message,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.responses import ResponsesWire
from treadle.models.wire.responses_request import encode_request
from treadle.streaming.demux import ItemFinished, ResponseFinished

ITEMS: list[Item] = [
    Reasoning(
        id="rs_1",
        summary=(SummaryText("A"), SummaryText("B")),
        encrypted_content="xyz",
        provider="openai",
    ),
    Message("assistant", (OutputText("Grüße 😀"),), "msg_1"),
    FunctionCall("call_a", "look", '{"at":"Zürich"}', "fc_2"),
]


TOOL = ToolSchema("look", "Looks.", {"type": "object", "properties": {}}, strict=True)


def sent(**options: object) -> dict[str, object]:
    items = options.pop("items", [user_message("hi")])
    model = str(options.pop("model", "gpt-4o"))
    return json.loads(encode_request(model, ModelRequest(items=items, **options)).body)  # type: ignore[arg-type]


def test_a_plain_request() -> None:
    assert sent(instructions="Be brief.") == {
        "model": "gpt-4o",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        ],
        "stream": True,
        "store": False,
        "instructions": "Be brief.",
    }


def test_all_settings() -> None:
    body = sent(
        tools=(TOOL,),
        output=OutputSchema("Answer", {"type": "object"}, strict=True),
        settings=ModelSettings(
            tool_choice=NamedTool("look"),
            parallel_tool_calls=False,
            temperature=0.5,
            top_p=0.9,
            max_output_tokens=100,
            reasoning_effort="low",
            extra_body={"service_tier": "flex", "store": True},
        ),
    )
    del body["input"]
    assert body == {
        "model": "gpt-4o",
        "stream": True,
        "store": True,
        "tools": [
            {
                "type": "function",
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            }
        ],
        "tool_choice": {"type": "function", "name": "look"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "Answer",
                "schema": {"type": "object"},
                "strict": True,
            }
        },
        "service_tier": "flex",
    }
    required = ModelSettings(tool_choice="required")
    assert sent(settings=required, tools=(TOOL,))["tool_choice"] == "required"


def test_reasoning_models_are_asked_for_what_can_be_sent_back() -> None:
    assert sent(model="gpt-5-mini")["include"] == ["reasoning.encrypted_content"]
    assert "include" not in sent(model="gpt-4o")


def test_history_goes_back_in_the_form_the_api_takes() -> None:
    history: list[Item] = [
        message("developer", "be kind"),
        user_message([InputText("see"), InputImage("https://x/y.png")]),
        *ITEMS,
        FunctionCallOutput("call_a", "fine"),
        Reasoning(id="rs_9", provider="openai"),
        Reasoning(id="rs_8", encrypted_content="x", provider="anthropic"),
        FunctionCall("call_b", "draw", "{}"),
        FunctionCallOutput(
            "call_b", (InputText("t"), InputImage("data:image/png;base64,iVBORw0KGgo="))
        ),
        Message("assistant", (Refusal("No."),), "m"),
    ]
    assert sent(items=history)["input"] == [
        {"type": "message", "role": "developer", "content": [_in("be kind")]},
        {
            "type": "message",
            "role": "user",
            "content": [
                _in("see"),
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [
                {"type": "summary_text", "text": "A"},
                {"type": "summary_text", "text": "B"},
            ],
            "encrypted_content": "xyz",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Grüße 😀"}],
            "id": "msg_1",
            "status": "completed",
        },
        {
            "type": "function_call",
            "call_id": "call_a",
            "name": "look",
            "arguments": '{"at":"Zürich"}',
        },
        {"type": "function_call_output", "call_id": "call_a", "output": "fine"},
        {"type": "function_call", "call_id": "call_b", "name": "draw", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_b",
            "output": [
                _in("t"),
                {
                    "type": "input_image",
                    "image_url": "data:image/png;base64,iVBORw0KGgo=",
                    "detail": "auto",
                },
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "No."}],
        },
    ]


def _in(text: str) -> dict[str, str]:
    return {"type": "input_text", "text": text}


def test_items_of_hosted_tools_go_back_to_their_provider() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "content": 5, "action": {"query": "x"}}
    raw = msgspec.Raw(json.dumps(search).encode())
    assert sent(items=[ProviderItem("openai", raw)])["input"] == [search]
    assert "web_search" not in json.dumps(sent(items=[ProviderItem("anthropic", raw)]))


def test_the_wire() -> None:
    wire = ResponsesWire(ends={"odd": "length"})
    assert wire.headers("k") == {"Authorization": "Bearer k"}
    assert wire.headers("") == {}
    call = {"type": "function_call", "call_id": "call_a", "name": "look", "arguments": "{}"}
    response = {"id": "resp_1", "status": "odd", "output": []}
    body = b"".join(
        f"data: {json.dumps(event)}\n\n".encode()
        for event in (
            {"type": "response.output_item.done", "output_index": 0, "item": call},
            {"type": "response.completed", "response": response},
        )
    )
    request = ModelRequest(items=[FunctionCall("call_a", "look", "{}")])
    events = list(wire.decoder(request).feed(body))
    (item,) = [event.item for event in events if isinstance(event, ItemFinished)]
    assert isinstance(item, FunctionCall)
    assert item.call_id != "call_a"
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == "length"
