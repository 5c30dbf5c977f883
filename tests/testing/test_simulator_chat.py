from collections.abc import AsyncIterator

import openai
import pytest

from treadle.testing.simulator import ProviderSimulator
from treadle.testing.simulator.prose import prose

pytestmark = pytest.mark.anyio

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "number", "minimum": 7}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
USER = {"role": "user", "content": "hi"}


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        ProviderSimulator() as simulator,
        openai.AsyncOpenAI(base_url=simulator.base_url, api_key="k", max_retries=0) as client,
    ):
        yield client


async def chunks_of(client, **request) -> list:
    stream = await client.chat.completions.create(stream=True, messages=[USER], **request)
    chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        type(chunk).model_validate(chunk.model_dump(), strict=True)
    return chunks


async def test_text(client):
    chunks = await chunks_of(client, model="sim:deltas=5")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == prose(20)
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len(chunks) == 7


async def test_usage_chunk_has_no_choices_and_comes_only_when_asked_for(client):
    chunks = await chunks_of(
        client, model="sim:deltas=2,reasoning=3", stream_options={"include_usage": True}
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 3
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_reasoning_content(client):
    chunks = await chunks_of(client, model="sim:reasoning=3,deltas=1")
    thoughts = [getattr(c.choices[0].delta, "reasoning_content", None) for c in chunks]
    assert "".join(filter(None, thoughts)) == prose(12)
    whole = await client.chat.completions.create(model="sim:reasoning=3", messages=[USER])
    assert whole.choices[0].message.reasoning_content == prose(12)


async def test_parallel_calls_with_the_stream_helper(client):
    request = {"model": "sim:calls=2", "messages": [USER], "tools": [TOOL]}
    async with client.chat.completions.stream(**request) as stream:
        completion = await stream.get_final_completion()
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    parsed = [call.function.parsed_arguments for call in choice.message.tool_calls]
    assert parsed == [{"a": 1, "b": 7}, {"a": 2, "b": 7}]


async def test_rounds_until_the_answer(client):
    messages: list = [USER]
    for _ in range(2):
        completion = await client.chat.completions.create(
            model="sim:calls=2,rounds=2,deltas=1", messages=messages, tools=[TOOL]
        )
        message = completion.choices[0].message
        assert message.content is None
        messages.append(message.model_dump(exclude_none=True))
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "3"} for call in message.tool_calls
        ]
    completion = await client.chat.completions.create(
        model="sim:calls=2,rounds=2,deltas=1", messages=messages, tools=[TOOL]
    )
    assert completion.choices[0].message.content == prose(4)
    assert completion.usage.prompt_tokens_details.cached_tokens > 0


async def test_refusal_length_and_filter(client):
    refused = await client.chat.completions.create(model="sim:refusal=1", messages=[USER])
    assert refused.choices[0].message.refusal == prose(80)
    chunks = await chunks_of(client, model="sim:refusal=1,deltas=3")
    assert "".join(c.choices[0].delta.refusal or "" for c in chunks) == prose(12)
    for finish, reason in (("length", "length"), ("filter", "content_filter")):
        cut = await client.chat.completions.create(
            model=f"sim:deltas=2,finish={finish}", messages=[USER]
        )
        assert cut.choices[0].finish_reason == reason
        assert cut.choices[0].message.content == prose(4)


async def test_tool_choice_none_calls_nothing(client):
    completion = await client.chat.completions.create(
        model="sim:calls=2", messages=[USER], tools=[TOOL], tool_choice="none"
    )
    assert completion.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "empty array"),
        ([{"role": "tool", "content": "x"}], "tool_call_id"),
        ([{"role": "tool", "content": "x", "tool_call_id": "c"}], "No tool call found"),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                USER,
                {"role": "tool", "content": "x", "tool_call_id": "c1"},
            ],
            "No tool output found for function call c1",
        ),
    ],
)
async def test_refuses_what_the_provider_refuses(client, messages, message):
    with pytest.raises(openai.BadRequestError, match=message):
        await client.chat.completions.create(model="sim", messages=messages)


async def test_images_and_parts_are_accepted(client):
    content = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
    ]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": content}]
    completion = await client.chat.completions.create(model="sim:deltas=1", messages=messages)
    assert completion.choices[0].message.content == prose(4)
