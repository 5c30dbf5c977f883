from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall

from treadle.domain.usage import Usage
from treadle.testing.simulator import (
    Call,
    ProviderSimulator,
    Reasoning,
    Refusal,
    Text,
    Turn,
)
from treadle.testing.simulator.prose import prose

pytestmark = pytest.mark.anyio

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: ProviderSimulator) -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(base_url=simulator.base_url, api_key="secret", max_retries=0)
    yield client
    await client.close()


async def events_of(client, **request) -> list:
    stream = await client.responses.create(stream=True, **request)
    events = [event async for event in stream]
    for event in events:
        # Built without validation by the SDK, so its own models must accept it once more.
        type(event).model_validate(event.model_dump(by_alias=True), strict=True)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def shape(events: list) -> list[str]:
    names = [event.type.removeprefix("response.") for event in events]
    return [n for i, n in enumerate(names) if not (n.endswith("delta") and n == names[i - 1])]


async def test_text(client):
    events = await events_of(client, model="sim:deltas=5,size=3", input="hi")
    assert shape(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert [len(delta) for delta in deltas] == [3] * 5
    assert "".join(deltas) == prose(15) == events[-1].response.output_text


async def test_parallel_calls_then_the_answer(client, simulator):
    model = "sim:calls=2,rounds=2,deltas=3"
    history: list = [{"role": "user", "content": "hi"}]
    ids: set[str] = set()
    for _ in range(2):
        response = await client.responses.create(model=model, input=history, tools=[TOOL])
        calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
        assert [call.name for call in calls] == ["get_weather"] * 2
        assert calls[0].arguments != calls[1].arguments
        ids |= {call.call_id for call in calls}
        history += [call.model_dump(exclude_none=True) for call in calls]
        history += [
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
            for call in calls
        ]
    response = await client.responses.create(model=model, input=history, tools=[TOOL])
    assert response.output_text == prose(12)
    assert len(ids) == 4
    history += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "again"}]
    response = await client.responses.create(model=model, input=history, tools=[TOOL])
    assert [item.type for item in response.output] == ["function_call"] * 2
    assert len(simulator.requests) == 4


async def test_streamed_calls_and_reasoning(client):
    events = await events_of(
        client, model="sim:calls=2,reasoning=3", input="hi", tools=[TOOL], include=[]
    )
    call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert shape(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        *call,
        *call,
        "completed",
    ]
    usage = events[-1].response.usage
    assert usage.output_tokens_details.reasoning_tokens == 3
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


async def test_stream_helper_finishes(client):
    request = {"model": "sim:calls=2,reasoning=2", "input": "hi", "tools": [TOOL]}
    async with client.responses.stream(**request) as stream:
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", *["function_call"] * 2]
    assert final.output[1].parsed_arguments == {"city": "city-1"}


async def test_refusal(client):
    events = await events_of(client, model="sim:refusal=1,deltas=4", input="hi")
    assert "refusal.delta" in shape(events)
    (part,) = events[-1].response.output[0].content
    assert (part.type, part.refusal) == ("refusal", prose(16))


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("filter", "content_filter")]
)
async def test_incomplete(client, finish, reason):
    events = await events_of(client, model=f"sim:calls=2,finish={finish}", input="hi", tools=[TOOL])
    response = events[-1].response
    assert events[-1].type == "response.incomplete"
    assert response.incomplete_details.reason == reason
    assert [item.status for item in response.output] == ["completed", "incomplete"]
    assert not response.output[1].arguments.endswith("}")


async def test_chosen_tool_and_giant_arguments(client):
    model = "sim:calls=1,tool=other,args=5000,size=50"
    events = await events_of(client, model=model, input="hi", tools=[TOOL])
    (call,) = events[-1].response.output
    assert call.name == "other"
    assert len(call.arguments) > 5000
    deltas = [e.delta for e in events if e.type.endswith("arguments.delta")]
    assert "".join(deltas) == call.arguments
    assert len(deltas) > 100


async def test_scripted_turns_in_their_order():
    turns = [
        Turn(
            (Reasoning("let me see"), Call("f", '{"a": 1}', "call_x"), Call("g")),
            usage=Usage(10, 5, 4, 3),
        ),
        Turn((Text("Grüße aus 北京 🙂", 4), Refusal("no"))),
    ]
    async with (
        ProviderSimulator(turns) as simulator,
        openai.AsyncOpenAI(base_url=simulator.base_url, api_key="k", max_retries=0) as client,
    ):
        first = await client.responses.create(model="any", input="hi")
        second = await events_of(client, model="any", input="hi")
        with pytest.raises(openai.BadRequestError, match="no turn left"):
            await client.responses.create(model="any", input="hi")
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert calls[0].call_id == "call_x"
    assert calls[1].call_id.startswith("call_")
    assert first.usage
    assert first.usage.input_tokens_details.cached_tokens == 4
    assert first.usage.output_tokens_details.reasoning_tokens == 3
    assert second[-1].response.output_text == "Grüße aus 北京 🙂"


async def test_encrypted_reasoning_only_where_asked_for(client):
    request = {"model": "sim:reasoning=1", "input": "hi"}
    plain = await client.responses.create(**request)
    opaque = await client.responses.create(include=["reasoning.encrypted_content"], **request)
    assert plain.output[0].encrypted_content is None
    assert opaque.output[0].encrypted_content


async def test_models_are_listed(client):
    assert [model.id async for model in client.models.list()] == ["sim"]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (
            [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}],
            "No tool output found for function call c1",
        ),
        (
            [{"type": "function_call_output", "call_id": "c2", "output": "x"}],
            "No tool call found for function call output with call_id c2",
        ),
        ([{"type": "nonsense"}], "not a type of input item"),
        ([{"role": "nobody", "content": "x"}], "nobody"),
        (7, "Expected"),
    ],
)
async def test_refuses_what_the_provider_refuses(client, history, message):
    with pytest.raises(openai.BadRequestError, match=message):
        await client.responses.create(model="sim", input=history)


async def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.create(model="gpt-5", input="x")
    assert caught.value.code == "model_not_found"
