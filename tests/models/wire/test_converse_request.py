"""Requests of the Converse API, for the models of each maker."""

import base64
import json
from typing import Any

import pytest
from tests.models.wire.strict_servers import check_converse, parsed

from treadle.domain.files import InputAudio, InputFile, InputImage
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.converse import ConverseWire
from treadle.models.wire.converse_families import family_of, maker_of
from treadle.models.wire.converse_request import ConverseOptions, encode_request

CLAUDE = "anthropic.claude-sonnet-5"
BUDGETED = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
LLAMA = "us.meta.llama4-maverick-17b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-3-675b-instruct"
OSS = "openai.gpt-oss-120b-1:0"
GPT = "global.openai.gpt-6-sol"
QWEN = "qwen.qwen3-32b-v1:0"
KIMI = "moonshotai.kimi-k3"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def said(text: str) -> Message:
    return Message("assistant", (OutputText(text),))


PNG = data_url("image/png", b"\x89PNG\r\n\x1a\n" + bytes(20))
PDF = data_url("application/pdf", b"%PDF-1.7" + bytes(20))
CSV = data_url("text/csv", b"a,b")
WAV = data_url("audio/wav", b"RIFF____WAVEfmt " + bytes(20))
TOOLS = (
    ToolSchema("look", "Looks.", {"type": "object", "properties": {}}, strict=True),
    ToolSchema("draw", "", {"type": "object", "properties": {}}, strict=False),
)
CALL = FunctionCall("c1", "look", '{"at": "x"}')
OUTPUT = FunctionCallOutput("c1", "ok")
SCHEMA = OutputSchema(
    "place",
    {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"],
        "additionalProperties": False,
    },
    strict=True,
)


def encoded(model: str, *items: Item, cache: bool = False, **more: Any) -> dict[str, Any]:
    request = ModelRequest(items=items or [user_message("hi")], **more)
    options = ConverseOptions(
        model=model, family=family_of(model), prompt_cache="5m" if cache else None
    )
    body = parsed(encode_request(request, options).body)
    check_converse(body, maker=maker_of(model))
    return body


def blocks(body: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The roles, and the kinds of their blocks."""
    return [(m["role"], [next(iter(b)) for b in m["content"]]) for m in body["messages"]]


def test_a_whole_request() -> None:
    body = encoded(
        CLAUDE,
        Message("system", (InputText("Be kind."),)),
        user_message("hi"),
        CALL,
        OUTPUT,
        instructions="Be brief.",
        tools=TOOLS,
        output=SCHEMA,
        settings=ModelSettings(temperature=0.5, top_p=0.9, max_output_tokens=100),
    )
    config = body.pop("outputConfig")["textFormat"]
    assert (config["type"], config["structure"]["jsonSchema"]["name"]) == ("json_schema", "place")
    schema = json.loads(config["structure"]["jsonSchema"]["schema"])
    assert schema["properties"]["n"] == {"type": "integer", "description": "(minimum: 1)"}
    assert body == {
        "system": [{"text": "Be brief."}, {"text": "Be kind."}],
        "messages": [
            {"role": "user", "content": [{"text": "hi"}]},
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "c1", "name": "look", "input": {"at": "x"}}}],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "ok"}]}}],
            },
        ],
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "look",
                        "description": "Looks.",
                        "inputSchema": {"json": TOOLS[0].parameters},
                    }
                },
                {"toolSpec": {"name": "draw", "inputSchema": {"json": TOOLS[1].parameters}}},
            ]
        },
        "inferenceConfig": {"maxTokens": 100, "temperature": 0.5, "topP": 0.9},
    }


def test_an_output_that_no_schema_can_hold_is_asked_for() -> None:
    body = encoded(CLAUDE, output=OutputSchema("o", {"type": "object"}, strict=False))
    assert "outputConfig" not in body
    assert "JSON only" in body["system"][0]["text"]


@pytest.mark.parametrize(
    ("model", "maker"),
    [
        (CLAUDE, "anthropic"),
        (BUDGETED, "anthropic"),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic"),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu." + CLAUDE, "anthropic"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", "amazon"),
        (GPT, "openai"),
        (KIMI, "moonshotai"),
        (PROFILE, ""),
        ("sim:deltas=3", ""),
        ("global.", ""),
        ("", ""),
    ],
)
def test_the_maker_of_a_model(model: str, maker: str) -> None:
    assert maker_of(model) == maker


def test_the_path_of_a_model() -> None:
    assert ConverseWire(BUDGETED).path == f"/model/{BUDGETED}/converse-stream"
    assert ConverseWire(PROFILE).path.endswith(
        "application-inference-profile%2Fabc/converse-stream"
    )


# Tools


@pytest.mark.parametrize(
    ("model", "required", "named"),
    [
        (CLAUDE, {"any": {}}, {"tool": {"name": "look"}}),
        (NOVA, {"any": {}}, {"tool": {"name": "look"}}),
        (OSS, {"any": {}}, {"tool": {"name": "look"}}),
        (MISTRAL, {"any": {}}, {"any": {}}),
        (LLAMA, None, None),
        (PROFILE, None, None),
    ],
)
def test_tool_choice(model: str, required: object, named: object) -> None:
    def sent(choice: Any) -> dict[str, Any]:
        return encoded(model, tools=TOOLS, settings=ModelSettings(tool_choice=choice))["toolConfig"]

    assert sent("required").get("toolChoice") == required
    config = sent(NamedTool("look"))
    assert config.get("toolChoice") == named
    assert len(config["tools"]) == (2 if named and "tool" in named else 1)
    assert "toolChoice" not in sent(NamedTool("unknown"))
    assert "toolChoice" not in sent("auto")
    assert "toolChoice" not in sent(None)


def test_without_a_choice_no_tools_are_offered_but_those_of_past_calls_are_declared() -> None:
    none = ModelSettings(tool_choice="none")
    assert "toolConfig" not in encoded(CLAUDE, tools=TOOLS, settings=none)
    body = encoded(CLAUDE, user_message("hi"), CALL, OUTPUT, tools=TOOLS, settings=none)
    (tool,) = body["toolConfig"]["tools"]
    assert tool["toolSpec"]["name"] == "look"
    required = ModelSettings(tool_choice="required")
    assert "toolConfig" not in encoded(CLAUDE, settings=required)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (CLAUDE, {"content": [{"text": "It broke."}], "status": "error"}),
        (NOVA, {"content": [{"text": "It broke."}], "status": "error"}),
        (LLAMA, {"content": [{"text": "It broke."}]}),
        (MISTRAL, {"content": [{"json": {"error": "It broke."}}]}),
    ],
)
def test_failed_calls(model: str, expected: dict[str, Any]) -> None:
    failed = FunctionCallOutput("c1", "It broke.", is_error=True)
    body = encoded(model, user_message("hi"), CALL, failed)
    assert body["messages"][2]["content"] == [{"toolResult": {"toolUseId": "c1", **expected}}]


def test_an_output_without_a_text() -> None:
    body = encoded(CLAUDE, user_message("hi"), CALL, FunctionCallOutput("c1", " "))
    (block,) = body["messages"][2]["content"]
    assert block["toolResult"]["content"] == [{"text": "(No output.)"}]


PARTS = (InputText("See"), InputImage(PNG), InputFile(PDF, filename="a.pdf"), InputFile(CSV))
TEXT = 'See\n<file name="file.csv">\na,b\n</file>'


@pytest.mark.parametrize(
    ("model", "inside", "following"),
    [
        (CLAUDE, ["text", "image", "document"], []),
        (NOVA, ["text", "image"], ["document", "text"]),
        (LLAMA, ["text", "image", "document"], []),
        (QWEN, ["text"], ["image", "document", "text"]),
    ],
)
def test_files_in_outputs(model: str, inside: list[str], following: list[str]) -> None:
    body = encoded(model, user_message("hi"), CALL, FunctionCallOutput("c1", PARTS))
    first, *rest = body["messages"][2]["content"]
    content = first["toolResult"]["content"]
    assert [next(iter(part)) for part in content] == inside
    assert content[0] == {"text": TEXT}
    assert [next(iter(block)) for block in rest] == following


def test_files_that_follow_an_output_that_stands_alone() -> None:
    picture = FunctionCallOutput("c1", (InputImage(PNG),))
    body = encoded(MISTRAL, user_message("hi"), CALL, picture)
    assert blocks(body)[2:] == [
        ("user", ["toolResult"]),
        ("assistant", ["text"]),
        ("user", ["image"]),
    ]
    (block,) = body["messages"][2]["content"]
    output = {"json": {"output": "The files are in the next message."}}
    assert block["toolResult"]["content"] == [output]
    assert encoded(CLAUDE, user_message("hi"), CALL, picture)["messages"][2]["content"][0][
        "toolResult"
    ]["content"] == [{"image": {"format": "png", "source": {"bytes": PNG.partition(",")[2]}}}]


def test_files_of_a_failed_call_are_named() -> None:
    failed = FunctionCallOutput("c1", (InputImage(PNG),), is_error=True)
    body = encoded(CLAUDE, user_message("hi"), CALL, failed)
    (part,) = body["messages"][2]["content"][0]["toolResult"]["content"]
    assert "left out" in part["text"]


def test_calls_and_outputs_stand_alone_where_they_must() -> None:
    items = [
        user_message("hi"),
        said("I look."),
        CALL,
        OUTPUT,
        user_message("And now?"),
    ]
    assert blocks(encoded(CLAUDE, *items)) == [
        ("user", ["text"]),
        ("assistant", ["text", "toolUse"]),
        ("user", ["toolResult", "text"]),
    ]
    body = encoded(LLAMA, *items)
    assert blocks(body) == [
        ("user", ["text"]),
        ("assistant", ["text"]),
        ("user", ["text"]),
        ("assistant", ["toolUse"]),
        ("user", ["toolResult"]),
        ("assistant", ["text"]),
        ("user", ["text"]),
    ]
    assert body["messages"][2]["content"] == [{"text": "(Continue.)"}]


def test_a_document_does_not_stand_next_to_an_output_for_claude() -> None:
    file = Message("user", (InputText("Read"), InputFile(PDF, filename="a.pdf")))
    body = encoded(CLAUDE, user_message("hi"), CALL, OUTPUT, file)
    assert blocks(body)[2:] == [
        ("user", ["toolResult"]),
        ("assistant", ["text"]),
        ("user", ["text", "document"]),
    ]


# Messages and media


def test_the_conversation_begins_and_ends_with_the_user() -> None:
    assert blocks(encoded(CLAUDE, said("Hello."))) == [
        ("user", ["text"]),
        ("assistant", ["text"]),
        ("user", ["text"]),
    ]
    assert blocks(encoded(CLAUDE, Message("user", (InputText(" "),)))) == [("user", ["text"])]


def test_system_messages_later_on_are_the_users() -> None:
    items = [user_message("hi"), Message("system", (InputText("Hurry."),))]
    body = encoded(CLAUDE, *items, Message("developer", (InputText(" "),)))
    assert body["messages"][0]["content"][1]["text"] == "<system>\nHurry.\n</system>"


def test_media() -> None:
    parts = (InputImage(PNG), InputAudio(WAV), InputFile(PDF, filename="my_file v1.pdf"))
    body = encoded(NOVA, Message("user", (*parts, InputFile(CSV, filename="b.csv"))))
    image, audio, document, text = body["messages"][0]["content"]
    assert image["image"]["format"] == "png"
    assert audio["audio"]["format"] == "wav"
    assert document["document"]["name"] == "my file v1"
    assert text == {"text": '<file name="b.csv">\na,b\n</file>'}


def test_documents_get_names_of_their_own_and_a_text() -> None:
    names = ["a.pdf", "A.pdf", "../ü.pdf", "", "a (2).pdf", "x" * 300]
    files = tuple(InputFile(PDF, filename=name) for name in names)
    body = encoded(CLAUDE, Message("user", files))
    *documents, text = body["messages"][0]["content"]
    found = [block["document"]["name"] for block in documents]
    assert found == ["a", "A (2)", "document", "document (2)", "a (2) (2)", "x" * 190]
    assert text == {"text": "(See the files.)"}


@pytest.mark.parametrize("part", [InputImage("https://x/y.png"), InputFile(file_url="https://x/y")])
def test_nothing_is_loaded_from_urls(part: InputImage | InputFile) -> None:
    body = encoded(CLAUDE, Message("user", (part,)))
    (block,) = body["messages"][0]["content"]
    assert "was left out here" in block["text"]


def test_pictures_of_the_assistant_are_left_out() -> None:
    shown = Message("assistant", (OutputText("So."), InputImage(PNG)))
    body = encoded(CLAUDE, user_message("hi"), shown, user_message("on"))
    assert blocks(body)[1] == ("assistant", ["text", "text"])


# Reasoning


ADAPTIVE = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (CLAUDE, "high", {"thinking": ADAPTIVE, "output_config": {"effort": "high"}}),
        (CLAUDE, "none", {"thinking": {"type": "disabled"}}),
        (BUDGETED, "high", {"thinking": {"type": "enabled", "budget_tokens": 16_384}}),
        (BUDGETED, 5_000, {"thinking": {"type": "enabled", "budget_tokens": 5_000}}),
        (NOVA, "high", None),
        (NOVA_2, "none", {"reasoningConfig": {"type": "disabled"}}),
        (NOVA_2, "high", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        (OSS, "minimal", {"reasoning_effort": "low"}),
        (OSS, "none", None),
        (GPT, "minimal", {"reasoning": {"effort": "low", "summary": "auto"}}),
        (GPT, "xhigh", {"reasoning": {"effort": "xhigh", "summary": "auto"}}),
        (QWEN, "medium", {"reasoning_config": "high"}),
        (QWEN, "none", None),
        (KIMI, "low", {"reasoning_effort": "low"}),
        (LLAMA, "high", None),
        (PROFILE, "high", None),
    ],
)
def test_reasoning(model: str, effort: Any, expected: dict[str, Any] | None) -> None:
    body = encoded(model, settings=ModelSettings(reasoning_effort=effort))
    assert body.get("additionalModelRequestFields") == expected


def test_a_budget_needs_a_limit() -> None:
    effort = ModelSettings(reasoning_effort="high")
    assert encoded(BUDGETED, settings=effort)["inferenceConfig"] == {"maxTokens": 32_000}
    small = ModelSettings(reasoning_effort="high", max_output_tokens=2_000)
    body = encoded(BUDGETED, settings=small)
    assert body["inferenceConfig"] == {"maxTokens": 2_000}
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 1_500
    assert "inferenceConfig" not in encoded(CLAUDE, settings=effort)


def test_nova_takes_no_settings_with_the_effort_high() -> None:
    both = ModelSettings(reasoning_effort="xhigh", max_output_tokens=100)
    config = encoded(NOVA_2, settings=both)["additionalModelRequestFields"]["reasoningConfig"]
    assert config == {"type": "enabled", "maxReasoningEffort": "medium"}
    low = ModelSettings(reasoning_effort="low", max_output_tokens=100)
    config = encoded(NOVA_2, settings=low)["additionalModelRequestFields"]["reasoningConfig"]
    assert config["maxReasoningEffort"] == "low"


def test_no_thinking_after_calls_without_thought_or_with_a_forced_call() -> None:
    high = ModelSettings(reasoning_effort="high")
    thought = Reasoning(
        content=(ReasoningText("Hm."),), encrypted_content="c2ln", provider="bedrock"
    )
    after = encoded(BUDGETED, user_message("hi"), CALL, OUTPUT, settings=high)
    assert "additionalModelRequestFields" not in after
    after = encoded(BUDGETED, user_message("hi"), thought, CALL, OUTPUT, settings=high)
    assert "additionalModelRequestFields" in after
    forced = ModelSettings(reasoning_effort="high", tool_choice="required")
    assert "additionalModelRequestFields" not in encoded(BUDGETED, tools=TOOLS, settings=forced)


@pytest.mark.parametrize(
    "thought",
    [
        Reasoning(content=(ReasoningText("Hm."),), provider="bedrock"),
        Reasoning(content=(ReasoningText("Hm."),), encrypted_content="c2ln", provider="anthropic"),
        Reasoning(encrypted_content="no base64", provider="bedrock"),
    ],
)
def test_reasoning_that_is_not_sent(thought: Reasoning) -> None:
    body = encoded(CLAUDE, user_message("hi"), thought, said("So."), user_message("on"))
    assert "reasoningContent" not in json.dumps(body)


# Cache points


def places(body: dict[str, Any]) -> list[str]:
    """The parts of a request that end with a cache point."""
    found = []
    if "cachePoint" in body.get("toolConfig", {"tools": [{}]})["tools"][-1]:
        found.append("tools")
    found += [f"system {n}" for n, block in enumerate(body["system"]) if "cachePoint" in block]
    return found + [
        f"message {n}" for n, m in enumerate(body["messages"]) if "cachePoint" in m["content"][-1]
    ]


def test_cache_points() -> None:
    items = [user_message("hi"), said("Hi."), user_message("on")]
    body = encoded(CLAUDE, *items, instructions="Be brief.", tools=TOOLS, cache=True)
    assert places(body) == ["tools", "system 1", "message 0", "message 2"]
    text = "Be brief.\n\n<memory>"
    body = encoded(
        CLAUDE, *items, instructions=text, stable_chars=len("Be brief."), tools=TOOLS, cache=True
    )
    assert places(body) == ["system 1", "system 3", "message 0", "message 2"]
    body = encoded(CLAUDE, *items, instructions="Be brief.", stable_chars=9, cache=True)
    assert places(body) == ["system 1", "message 0", "message 2"]
    assert "cachePoint" not in json.dumps(encoded(NOVA, *items, cache=True))
    options = ConverseOptions(model=CLAUDE, family=family_of(CLAUDE), prompt_cache="1h")
    sent = encode_request(ModelRequest(items=items), options).body
    assert b'{"cachePoint":{"type":"default","ttl":"1h"}}' in sent


def test_extra_fields_are_merged() -> None:
    guardrail = {"guardrailIdentifier": "g", "guardrailVersion": "1"}
    extra = {
        "guardrailConfig": guardrail,
        "additionalModelRequestFields": {"top_k": 5},
        "toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]},
    }
    settings = ModelSettings(reasoning_effort="high", extra_body=extra)
    body = encoded(CLAUDE, tools=TOOLS, settings=settings)
    assert body["guardrailConfig"] == guardrail
    assert body["additionalModelRequestFields"].keys() == {"thinking", "output_config", "top_k"}
    assert len(body["toolConfig"]["tools"]) == 3
