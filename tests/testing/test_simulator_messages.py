from collections.abc import AsyncIterator
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec
import pytest

from treadle.domain.usage import Usage
from treadle.testing.simulator import (
    Call,
    ProviderRequest,
    ProviderSimulator,
    Reasoning,
    Refusal,
    Text,
    Turn,
)
from treadle.testing.simulator.prose import prose
from treadle.tools.example import fill

if TYPE_CHECKING:
    import anthropic

pytestmark = pytest.mark.anyio

TOOL = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
USER = {"role": "user", "content": "hi"}
REQUEST = {"max_tokens": 4096, "messages": [USER]}


def client_of(simulator: ProviderSimulator) -> "anthropic.AsyncAnthropic":
    import anthropic  # not while every worker collects the tests: it takes a second

    url = simulator.base_url.removesuffix("/v1")
    return anthropic.AsyncAnthropic(base_url=url, api_key="secret", max_retries=0)


@pytest.fixture
def sdk() -> ModuleType:
    import anthropic

    return anthropic


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: ProviderSimulator) -> "AsyncIterator[anthropic.AsyncAnthropic]":
    async with client_of(simulator) as client:
        yield client


async def events_of(client, **request) -> list:
    stream = await client.messages.create(stream=True, **{**REQUEST, **request})
    events = [event async for event in stream]
    for event in events:
        # Built without validation by the SDK, so its own models must accept it once more.
        type(event).model_validate(event.model_dump(by_alias=True), strict=True)
    return events


def shape(events: list) -> list[str]:
    names = [
        event.delta.type if event.type == "content_block_delta" else event.type for event in events
    ]
    return [n for i, n in enumerate(names) if not (n.endswith("delta") and n == names[i - 1])]


def block(*deltas: str) -> list[str]:
    return ["content_block_start", *deltas, "content_block_stop"]


async def test_text(client):
    events = await events_of(client, model="sim:deltas=5,size=3")
    assert shape(events) == [
        "message_start",
        *block("text_delta"),
        "message_delta",
        "message_stop",
    ]
    deltas = [e.delta.text for e in events if e.type == "content_block_delta"]
    assert [len(delta) for delta in deltas] == [3] * 5
    assert "".join(deltas) == prose(15)
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[0].message.stop_reason is None


async def test_thinking_and_parallel_calls(client):
    events = await events_of(client, model="sim:calls=2,reasoning=3", tools=[TOOL])
    assert shape(events) == [
        "message_start",
        *block("thinking_delta", "signature_delta"),
        *block("input_json_delta"),
        *block("input_json_delta"),
        "message_delta",
        "message_stop",
    ]
    assert [e.index for e in events if e.type == "content_block_start"] == [0, 1, 2]
    assert events[-2].delta.stop_reason == "tool_use"
    assert events[-2].usage.output_tokens_details.thinking_tokens == 3


async def test_the_stream_helper_puts_a_message_together(client):
    request = {**REQUEST, "model": "sim:calls=2,reasoning=2", "tools": [TOOL]}
    async with client.messages.stream(**request) as stream:
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "tool_use", "tool_use"]
    assert final.content[0].thinking == prose(8)
    assert final.content[1].input == {"city": "city-1"}
    assert final.stop_reason == "tool_use"


async def test_rounds_until_the_answer(client, simulator):
    request = {"model": "sim:calls=2,rounds=2,deltas=3,reasoning=1", "max_tokens": 4096}
    messages: list = [USER]
    ids: set[str] = set()
    for _ in range(2):
        message = await client.messages.create(**request, messages=messages, tools=[TOOL])
        calls = [block for block in message.content if block.type == "tool_use"]
        ids |= {call.id for call in calls}
        messages.append({"role": "assistant", "content": message.content})
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls
        ]
        messages.append({"role": "user", "content": results})
    message = await client.messages.create(**request, messages=messages, tools=[TOOL])
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].text == prose(12)
    assert len(ids) == 4
    assert message.usage.cache_read_input_tokens > 0
    assert "secret" not in repr(simulator.requests)


async def test_scripted_usage_and_refusals():
    turns = [
        Turn((Reasoning("hm"), Text("Grüße aus 北京 🙂", 4)), usage=Usage(50, 5, 20, 3, 1, 10)),
        Turn((Refusal("Not that."),)),
        Turn((Refusal("Not that."),)),
        Turn((Call("f", '{"a": '),)),
    ]
    async with ProviderSimulator(turns) as simulator, client_of(simulator) as client:
        first = await client.messages.create(model="any", **REQUEST)
        refused = await client.messages.create(model="any", **REQUEST)
        streamed = await events_of(client, model="any")
        broken = await client.messages.create(model="any", **REQUEST)
    usage = first.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (20, 20)
    assert (usage.cache_creation_input_tokens, usage.output_tokens) == (10, 5)
    assert first.content[1].text == "Grüße aus 北京 🙂"
    assert refused.stop_reason == "refusal"
    assert refused.stop_details.explanation == "Not that."
    assert refused.content == []
    assert streamed[-2].delta.stop_details.explanation == "Not that."
    assert broken.content[0].input == {}


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_tokens"), ("filter", "refusal")])
async def test_unfinished(client, finish, reason):
    events = await events_of(client, model=f"sim:calls=2,finish={finish}", tools=[TOOL])
    assert events[-2].delta.stop_reason == reason
    pieces = [e.delta.partial_json for e in events if e.type == "content_block_delta"]
    assert not pieces[-1].endswith("}")


async def test_tool_choice(client):
    def respond(request: ProviderRequest) -> Turn:
        choice = request.tool_choice
        name = choice.name or request.tools[0].name
        called = choice.mode in {"named", "required"}
        return Turn((Call(name) if called else Text(choice.mode),))

    request = {**REQUEST, "model": "any", "tools": [TOOL]}
    async with ProviderSimulator(respond) as simulator, client_of(simulator) as scripted:
        forced = await scripted.messages.create(
            **request, tool_choice={"type": "tool", "name": "get_weather"}
        )
        assert forced.content[0].name == "get_weather"
        some = await scripted.messages.create(**request, tool_choice={"type": "any"})
        assert some.stop_reason == "tool_use"
        auto = await scripted.messages.create(**request)
        assert auto.content[0].text == "auto"
    none = await client.messages.create(
        **{**request, "model": "sim:calls=2"}, tool_choice={"type": "none"}
    )
    assert none.stop_reason == "end_turn"


async def test_structured_output():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    def respond(request: ProviderRequest) -> Turn:
        assert request.output_schema is not None
        return Turn((Text(msgspec.json.encode(fill(request.output_schema.schema)).decode()),))

    async with ProviderSimulator(respond) as simulator, client_of(simulator) as client:
        message = await client.messages.create(
            model="any",
            **REQUEST,
            output_config={"format": {"type": "json_schema", "schema": schema}},
        )
    assert message.content[0].text == '{"n":1}'


async def test_system_prompts_and_images_are_accepted(client):
    source = {"type": "base64", "media_type": "image/png", "data": "iVBO"}
    image = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [image]}
    messages = [turn("user", image), turn("assistant", CALL), turn("user", result)]
    for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
        message = await client.messages.create(
            model="sim:deltas=1", max_tokens=9, system=system, messages=messages
        )
        assert message.content[0].text == prose(4)


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        ("429", "RateLimitError", "rate_limit_error"),
        ("quota", "APIStatusError", "billing_error"),
        ("context", "BadRequestError", "invalid_request_error"),
        ("401", "AuthenticationError", "authentication_error"),
        ("403", "PermissionDeniedError", "permission_error"),
        ("413", "APIStatusError", "request_too_large"),
        ("418", "APIStatusError", "invalid_request_error"),
        ("500", "InternalServerError", "api_error"),
        ("529", "APIStatusError", "overloaded_error"),
        ("error-mid", "APIStatusError", "api_error"),
        ("failed=overloaded_error", "APIStatusError", "overloaded_error"),
    ],
)
async def test_errors(client, sdk, fault, error, kind):
    with pytest.raises(getattr(sdk, error)) as caught:
        await events_of(client, model=f"sim:deltas=9,fault={fault}")
    assert caught.value.type == kind
    assert caught.value.request_id.startswith("req_")


async def test_unknown_model(client, sdk):
    with pytest.raises(sdk.NotFoundError, match="does not exist"):
        await client.messages.create(model="claude-opus-4-8", **REQUEST)


CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "forged"}
MARKED = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}


def turn(role: str, *content: object) -> dict:
    return {"role": role, "content": list(content)}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [turn("assistant", MARKED)]}, "first message"),
        ({"messages": [turn("user", {"type": "text", "text": " "})]}, "non-whitespace"),
        ({"messages": [USER, turn("assistant", CALL)]}, "without `tool_result` blocks after: t1"),
        ({"messages": [USER, turn("assistant", CALL), USER]}, "without `tool_result` blocks after"),
        ({"messages": [turn("user", RESULT)]}, "unexpected `tool_use_id`"),
        ({"messages": [USER, turn("assistant", CALL, CALL), turn("user", RESULT)]}, "unique"),
        ({"messages": [USER, turn("assistant", {**CALL, "id": "a.b"})]}, "pattern"),
        ({"messages": [USER, turn("assistant", THINKING)]}, "Invalid `signature`"),
        (
            {"messages": [USER, turn("assistant", {"type": "redacted_thinking", "data": "x"})]},
            "Invalid `data`",
        ),
        (
            {
                "messages": [
                    USER,
                    turn("assistant", CALL),
                    turn("user", {**RESULT, "content": "", "is_error": True}),
                ]
            },
            "cannot be empty",
        ),
        ({"messages": [turn("user", CALL)]}, "not allowed in user turns"),
        ({"messages": [USER, turn("assistant", {"type": "image"})]}, "not allowed in assistant"),
        ({"messages": [turn("user", {"type": "image"})]}, "Field required"),
        ({"messages": [turn("user", *[MARKED] * 5)]}, "maximum of 4 blocks"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "budget_tokens"),
        (
            {"thinking": {"type": "adaptive"}, "tools": [TOOL], "tool_choice": {"type": "any"}},
            "forces tool use",
        ),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
async def test_refuses_what_the_provider_refuses(client, request_, message, sdk):
    with pytest.raises(sdk.BadRequestError, match=message):
        await client.messages.create(model="sim", **{**REQUEST, **request_})


async def test_turns_of_one_role_in_a_row_are_one(client):
    second = {**CALL, "id": "t2"}
    messages = [
        USER,
        turn("assistant", CALL),
        turn("assistant", second),
        turn("user", RESULT),
        turn("user", {**RESULT, "tool_use_id": "t2"}),
        USER,
    ]
    message = await client.messages.create(model="sim:deltas=1", max_tokens=9, messages=messages)
    assert message.content[0].text == prose(4)
