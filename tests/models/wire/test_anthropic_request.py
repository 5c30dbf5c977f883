"""What is sent to the Messages API; the types of Anthropic's own SDK must accept all of it."""

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.wire.strict_servers import messages_sdk

from treadle.domain.hosted_tools import RemoteMCP
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    message,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic_request import AnthropicOptions, encode_request
from treadle.models.wire.chat_request import encode_request as encode_chat
from treadle.models.wire.responses_request import encode_request as encode_responses
from treadle.testing.simulator.wire.messages_request import decode_messages

PLAIN = AnthropicOptions(prompt_cache=None, eager_input_streaming=False)
TOOL = ToolSchema("look", "Looks.", {"type": "object", "properties": {}}, strict=True)
MARK = {"type": "ephemeral", "ttl": "5m"}


def sent(options: AnthropicOptions = PLAIN, **request: Any) -> dict[str, Any]:
    model = request.pop("model", "claude-opus-4-8")
    items = request.pop("items", [user_message("hi")])
    body = json.loads(encode_request(model, ModelRequest(items=items, **request), options).body)
    checked(messages_sdk().validate_python(body))
    return body


def checked(value: object) -> None:
    """Walks through what pydantic returns: it checks an iterable only when it is read."""
    if isinstance(value, dict):
        for inner in value.values():
            checked(inner)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for inner in value:
            checked(inner)


def test_the_sdk_is_a_judge() -> None:
    body = sent()
    body["messages"][0]["content"][0]["type"] = "sparkles"
    with pytest.raises(pydantic.ValidationError):
        checked(messages_sdk().validate_python(body))


def turns(*items: Item) -> list[Any]:
    return [(turn["role"], turn["content"]) for turn in sent(items=list(items))["messages"]]


def said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def with_settings(model: str = "claude-opus-4-8", **settings: Any) -> dict[str, Any]:
    body = sent(model=model, tools=(TOOL,), settings=ModelSettings(**settings))
    return {k: v for k, v in body.items() if k not in {"model", "messages", "stream", "tools"}}


def test_a_plain_request() -> None:
    assert sent(instructions="Be brief.") == {
        "model": "claude-opus-4-8",
        "max_tokens": 32_000,
        "system": [said("Be brief.")],
        "messages": [{"role": "user", "content": [said("hi")]}],
        "stream": True,
    }


def test_settings() -> None:
    given = with_settings(temperature=0.0, top_p=0.9, max_output_tokens=100, extra_body={"seed": 1})
    assert given == {"max_tokens": 100, "temperature": 0.0, "top_p": 0.9, "seed": 1}


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        (NamedTool("look"), None, {"type": "tool", "name": "look"}),
        (
            NamedTool("look"),
            False,
            {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(choice: Any, parallel: bool | None, expected: object) -> None:
    given = with_settings(tool_choice=choice, parallel_tool_calls=parallel)
    assert given.get("tool_choice") == expected


def test_no_choice_without_tools() -> None:
    assert "tool_choice" not in sent(settings=ModelSettings(tool_choice="required"))


@pytest.mark.parametrize(
    ("effort", "sent_effort"), [("minimal", "low"), ("low", "low"), ("xhigh", "xhigh")]
)
@pytest.mark.parametrize(
    "model", ["claude-opus-4-6", "claude-sonnet-4-10", "claude-opus-5-5", "claude-fable-5", "other"]
)
def test_newer_models_think_with_an_effort(model: str, effort: Any, sent_effort: str) -> None:
    assert with_settings(model, reasoning_effort=effort) == {
        "max_tokens": 32_000,
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": sent_effort},
    }


@pytest.mark.parametrize(
    "model",
    [
        "claude-3-7-sonnet-20250219",
        "claude-opus-4-20250514",
        "claude-4-opus-20250514",
        "claude-opus-4-0",
        "claude-opus-4-1-20250805",
        "claude-sonnet-4-5",
        "claude-sonnet-4@20250514",
        "claude-haiku-4-5-20251001",
        "anthropic.claude-opus-4-5-20251101-v1:0",
    ],
)
def test_older_models_think_within_a_budget(model: str) -> None:
    assert with_settings(model, reasoning_effort="medium") == {
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 8192},
    }


@pytest.mark.parametrize(("limit", "budget"), [(32_000, 24_000), (2_000, 1_500), (1_300, None)])
def test_a_budget_leaves_room_for_the_answer(limit: int, budget: int | None) -> None:
    given = with_settings("claude-opus-4-5", reasoning_effort="xhigh", max_output_tokens=limit)
    assert given.get("thinking", {}).get("budget_tokens") == budget


@pytest.mark.parametrize("model", ["claude-opus-4-5", "claude-opus-4-8"])
def test_thinking_can_be_turned_off(model: str) -> None:
    given = with_settings(model, reasoning_effort="none")
    assert given == {"max_tokens": 32_000, "thinking": {"type": "disabled"}}


@pytest.mark.parametrize("choice", ["required", NamedTool("look")])
def test_a_forced_call_is_made_without_thinking(choice: Any) -> None:
    assert "thinking" not in with_settings(tool_choice=choice, reasoning_effort="high")


def test_tools() -> None:
    eager = AnthropicOptions(prompt_cache=None)
    bare = ToolSchema("bare", "", {"type": "object"}, strict=False)
    assert sent(eager, tools=(TOOL, bare))["tools"] == [
        {
            "name": "look",
            "description": "Looks.",
            "input_schema": {"type": "object", "properties": {}},
            "eager_input_streaming": True,
        },
        {
            "name": "bare",
            "input_schema": {"type": "object", "properties": {}},
            "eager_input_streaming": True,
        },
    ]
    assert "eager_input_streaming" not in sent(tools=(TOOL,))["tools"][0]


def test_tools_of_past_calls_are_declared_and_cannot_be_called() -> None:
    call, output = FunctionCall("a", "look", "{}"), FunctionCallOutput("a", "x")
    body = sent(items=[user_message("hi"), call, output])
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert body["tool_choice"] == {"type": "none"}


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}


def test_structured_output() -> None:
    body = sent(
        output=OutputSchema("Answer", SCHEMA, strict=True),
        settings=ModelSettings(reasoning_effort="low"),
    )
    held = {**SCHEMA, "properties": {"n": {"type": "integer", "description": "(minimum: 1)"}}}
    assert body["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": held},
    }
    assert "system" not in body


@pytest.mark.parametrize(
    "output",
    [
        OutputSchema("Answer", {"type": "object"}, strict=False),
        OutputSchema("Answer", {"type": "object", "properties": {"x": {"$ref": "#"}}}, strict=True),
    ],
)
def test_output_the_api_cannot_be_held_to_is_asked_for(output: OutputSchema) -> None:
    body = sent(instructions="Be brief.", output=output)
    assert "output_config" not in body
    brief, asked = body["system"]
    assert brief == said("Be brief.")
    assert asked["text"].endswith(msgspec.json.encode(output.schema).decode())


def test_the_prompt_cache_is_marked_at_four_places() -> None:
    items: list[Item] = []
    for n in range(3):
        items += [user_message(f"q{n}"), message("assistant", f"a{n}")]
    items += [
        user_message("q3"),
        FunctionCall("c", "look", "{}"),
        FunctionCallOutput("c", "x"),
        user_message("well?"),
    ]
    body = sent(AnthropicOptions(), instructions="Be brief.", tools=(TOOL, TOOL), items=items)
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, MARK]
    assert body["system"] == [{**said("Be brief."), "cache_control": MARK}]
    marked = [
        [block.get("cache_control") for block in turn["content"]] for turn in body["messages"]
    ]
    assert marked == [[None]] * 6 + [[MARK], [None], [None, MARK]]
    decode_messages(body, 1)


def test_the_prompt_cache_can_be_kept_longer_or_left_alone() -> None:
    longer = sent(AnthropicOptions(prompt_cache="1h"))
    (block,) = longer["messages"][0]["content"]
    assert block["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" not in json.dumps(sent(PLAIN, instructions="Be brief.", tools=(TOOL,)))


def test_items_of_one_side_are_one_turn() -> None:
    history: list[Item] = [
        user_message("a"),
        user_message("b"),
        Reasoning(content=(ReasoningText("hm"),), encrypted_content="sim_1", provider="anthropic"),
        Reasoning(encrypted_content="sim_2", provider="anthropic"),
        message("assistant", "looking"),
        FunctionCall("c", "look", '{"at": 1.50}'),
        FunctionCall("d", "look", ""),
        FunctionCallOutput("c", "fine"),
        FunctionCallOutput("d", "not fine", is_error=True),
        message("developer", "Go on."),
    ]
    assert turns(*history) == [
        ("user", [said("a"), said("b")]),
        (
            "assistant",
            [
                {"type": "thinking", "thinking": "hm", "signature": "sim_1"},
                {"type": "redacted_thinking", "data": "sim_2"},
                said("looking"),
                {"type": "tool_use", "id": "c", "name": "look", "input": {"at": 1.5}},
                {"type": "tool_use", "id": "d", "name": "look", "input": {}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "c", "content": "fine"},
                {
                    "type": "tool_result",
                    "tool_use_id": "d",
                    "content": "not fine",
                    "is_error": True,
                },
                said("<system>\nGo on.\n</system>"),
            ],
        ),
    ]
    assert b'"input":{"at": 1.50}' in encode_request("m", ModelRequest(items=history), PLAIN).body


def test_system_messages_at_the_beginning_are_the_system_prompt() -> None:
    items = [message("system", "One."), message("developer", "Two."), user_message("hi")]
    body = sent(instructions="Zero.", items=items)
    assert body["system"] == [said("Zero."), said("One."), said("Two.")]
    assert body["messages"] == [{"role": "user", "content": [said("hi")]}]
    assert sent(items=items[:2])["messages"] == [
        {"role": "user", "content": [said("(The conversation begins.)")]}
    ]


def test_a_history_that_begins_with_the_assistant() -> None:
    first, greeting, _ = turns(message("assistant", "Hello!"), user_message("hi"))
    assert first[0] == "user"
    assert greeting == ("assistant", [said("Hello!")])


NO_IMAGE = "the API takes none in a message of the assistant"


def test_what_is_blank_is_left_out() -> None:
    image = InputImage("https://x/y.png")
    assert turns(
        Message("user", (InputText(" "), image)),
        Message("assistant", (OutputText("\n"), image, Refusal("No."))),
        Message("assistant", ()),
        Message("developer", (InputText(" "),)),
        FunctionCall("c", "look", "{}"),
        FunctionCall("d", "look", "{}"),
        FunctionCall("e", "look", "{}"),
        FunctionCallOutput("c", ""),
        FunctionCallOutput("d", " ", is_error=True),
        FunctionCallOutput("e", (InputText(""),)),
    ) == [
        ("user", [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]),
        (
            "assistant",
            [
                said(f"[An image was left out here: {NO_IMAGE}.]"),
                said("No."),
                *({"type": "tool_use", "id": i, "name": "look", "input": {}} for i in "cde"),
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "c"},
                {
                    "type": "tool_result",
                    "tool_use_id": "d",
                    "content": "The call failed.",
                    "is_error": True,
                },
                {"type": "tool_result", "tool_use_id": "e"},
            ],
        ),
    ]


def test_images() -> None:
    png = InputImage("data:image/png;charset=utf-8;base64,iVBORw0KGgo=")
    link = InputImage("https://x/y.png", "high")
    items: list[Item] = [
        user_message([InputText("see"), png]),
        FunctionCall("c", "draw", "{}"),
        FunctionCallOutput("c", (InputText("done"), link)),
    ]
    user, _, output = turns(*items)
    base64 = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert user[1] == [said("see"), {"type": "image", "source": base64}]
    picture = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert output[1] == [
        {"type": "tool_result", "tool_use_id": "c", "content": [said("done"), picture]}
    ]


@pytest.mark.parametrize("arguments", ['{"at": ', "[1]", "7", '"x"', "\ud800"])
def test_arguments_that_are_no_object_are_wrapped(arguments: str) -> None:
    _, called, _ = turns(
        user_message("hi"), FunctionCall("c", "f", arguments), FunctionCallOutput("c", "bad")
    )
    wrapped = {"INVALID_JSON": arguments.replace("\ud800", "?")}
    assert called[1] == [{"type": "tool_use", "id": "c", "name": "f", "input": wrapped}]


@given(st.text(st.characters(exclude_categories=()), max_size=100))
def test_ids_of_other_providers_become_ids_the_api_takes(call_id: str) -> None:
    _, called, answered = turns(
        user_message("hi"), FunctionCall(call_id, "f", "{}"), FunctionCallOutput(call_id, "x")
    )
    sent_id = called[1][0]["id"]
    assert sent_id == answered[1][0]["tool_use_id"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", sent_id)


def foreign(provider: str) -> list[Item]:
    use = msgspec.Raw(b'{"type":"server_tool_use","id":"s","name":"web_search","input":{}}')
    raw = msgspec.Raw(b'{"type":"web_search_tool_result","tool_use_id":"s","content":[]}')
    return [
        user_message("hi"),
        Reasoning(
            id="rs_1",
            content=(ReasoningText("hm"),),
            encrypted_content="sim_1",
            provider=provider,
        ),
        Reasoning(content=(ReasoningText("broken off"),), provider=provider),
        ProviderItem(provider, use),
        ProviderItem(provider, raw),
        message("assistant", "So."),
        user_message("On."),
    ]


def test_reasoning_and_items_go_back_to_their_own_provider_only() -> None:
    own = [block["type"] for block in turns(*foreign("anthropic"))[1][1]]
    assert own == ["thinking", "server_tool_use", "web_search_tool_result", "text"]
    for provider in ("openai", "chat", "anthropic:other.example", ""):
        assert turns(*foreign(provider))[1] == ("assistant", [said("So.")])


def test_other_providers_get_nothing_of_anthropics() -> None:
    request = ModelRequest(items=foreign("anthropic"))
    responses = json.loads(encode_responses("gpt-5", request).body)["input"]
    assert [item["role"] for item in responses] == ["user", "assistant", "user"]
    chat = json.loads(encode_chat("m", request).body)["messages"]
    assert [item["role"] for item in chat] == ["user", "assistant", "user"]
    for body in (responses, chat):
        assert "sim_1" not in json.dumps(body)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
steps = st.lists(
    st.one_of(
        texts.map(lambda t: [Message("user", (InputText(t),))]),
        texts.map(lambda t: [Message("developer", (InputText(t),))]),
        texts.map(lambda t: [Message("assistant", (OutputText(t),))]),
        st.sampled_from(["anthropic", "openai"]).map(
            lambda p: [
                Reasoning(content=(ReasoningText("t"),), encrypted_content="sim_x", provider=p)
            ]
        ),
        st.lists(st.tuples(texts, texts, st.booleans()), min_size=1, max_size=3).map(list),
    ),
    max_size=8,
)


@given(steps)
def test_any_valid_history_becomes_one_the_api_takes(plan: list[Any]) -> None:
    items: list[Item] = [user_message("hi")]
    for number, step in enumerate(plan):
        if not isinstance(step[0], tuple):
            items += step
            continue
        ids = [f"call.{number}.{n}" for n in range(len(step))]
        items += [FunctionCall(i, "look", a) for i, (a, _, _) in zip(ids, step, strict=True)]
        items += [
            FunctionCallOutput(i, o, is_error=e) for i, (_, o, e) in zip(ids, step, strict=True)
        ]
    decode_messages(sent(AnthropicOptions(), items=items, instructions="Be brief."), 1)


def test_mcp_calls_of_servers_that_are_not_declared_become_calls_of_tools() -> None:
    use = {"type": "mcp_tool_use", "id": "m_1", "name": "read", "server_name": "docs", "input": {}}
    result = {"type": "mcp_tool_result", "tool_use_id": "m_1", "content": []}
    call = HostedCall("mcp", "m_1", "completed", "{}", "read", "docs", "Page.")
    items = [
        user_message("hi"),
        ProviderItem("anthropic", msgspec.Raw(json.dumps(use).encode())),
        ProviderItem("anthropic", msgspec.Raw(json.dumps(result).encode()), call),
        user_message("and?"),
    ]
    for other in ((), (RemoteMCP(url="https://x.com", name="other", needs_approval=False),)):
        request = ModelRequest(items=items, hosted=other)
        body = json.loads(encode_request("claude-opus-4-8", request, PLAIN).body)
        assert [[block["type"] for block in turn["content"]] for turn in body["messages"]] == [
            ["text"],
            ["tool_use"],
            ["tool_result", "text"],
        ]
    docs = RemoteMCP(url="https://x.com", name="docs", needs_approval=False)
    extra = {"mcp_servers": [{"type": "url", "name": "docs", "url": "https://x.com"}]}
    for declared in ({"hosted": (docs,)}, {"settings": ModelSettings(extra_body=extra)}):
        request = ModelRequest(items=items, **declared)
        body = json.loads(encode_request("claude-opus-4-8", request, PLAIN).body)
        kinds = [block["type"] for block in body["messages"][1]["content"]]
        assert kinds == ["mcp_tool_use", "mcp_tool_result"]


@pytest.mark.parametrize("name", ["anthropic-beta", "Anthropic-Beta"])
def test_a_beta_of_the_program_is_joined_with_that_of_mcp(name: str) -> None:
    docs = RemoteMCP(url="https://x.com", name="docs", needs_approval=False)
    for betas, expected in (
        ("context-1m", "context-1m,mcp-client-2025-11-20"),
        ("mcp-client-2025-11-20, b ", "mcp-client-2025-11-20,b"),
    ):
        settings = ModelSettings(extra_headers={name: betas})
        request = ModelRequest(items=[user_message("hi")], hosted=(docs,), settings=settings)
        assert encode_request("m", request, PLAIN).headers == {name: expected}
