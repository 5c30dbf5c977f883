"""The Responses API, with the client of OpenAI."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.server.serving import Client, opened, serving

import treadle
from treadle import Agent, Runtime, tool
from treadle.errors import StreamIncomplete
from treadle.testing import Call, Pause, Reasoning, Refusal, ScriptedModel, Text, Turn, Unfinished

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LONG = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "


@tool
async def weather(city: str) -> str:
    """Returns the weather."""
    if city == "Atlantis":
        raise ValueError("There is no such city.")
    return f"Sunny in {city}."


@asynccontextmanager
async def connected(
    runtime: Runtime, key: str = "none", **options: Any
) -> AsyncGenerator[tuple[AsyncOpenAI, Client]]:
    async with serving(runtime, **options) as client:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as api:
            yield api, client


def helper(*turns: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel(list(turns)), name="helper", **options)


async def events_of(stream: Any) -> list[Any]:
    """Reads a stream to its end; every event must be valid."""
    events = [event async for event in stream]
    for event in events:
        EVENT.validate_python(event.to_dict())
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    return events


def valid(response: Any) -> Response:
    """Validates a response, which the client itself does not."""
    return Response.model_validate(response.to_dict())


def unique(events: list[Any]) -> list[Any]:
    """Returns the events without deltas, which may be cut in another way."""
    return [event.to_dict() for event in events if not event.type.endswith(".delta")]


def text_of(events: list[Any]) -> str:
    return "".join(one.delta for one in events if one.type == "response.output_text.delta")


async def test_a_text(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("Hello, you."))) as (api, client):
        made = valid(
            await api.responses.create(model="helper", input="Hi.", user="u", temperature=1)
        )
        assert (made.status, made.output_text, made.model) == ("completed", "Hello, you.", "helper")
        assert made.output[0].type == "message"
        assert made.output[0].phase == "final_answer"
        assert made.usage is not None
        assert made.completed_at is not None
        assert (await api.responses.retrieve(made.id)).to_dict() == made.to_dict()
        # Its id is that of the run.
        record = await client.call("GET", f"/runs/{made.id}")
        assert record["status"] == "completed"


async def test_tools_of_the_agent_are_mcp_calls(open_runtime: Open) -> None:
    turn = [Reasoning("Think."), Text("Let me see."), Call("weather", '{"city": "Rome"}')]
    other = [Call("weather", '{"city": "Atlantis"}')]
    agent = helper(turn, other, "Sunny.", tools=[weather])
    async with connected(open_runtime(agent)) as (api, _):
        events = await events_of(
            await api.responses.create(model="helper", input="Hi.", stream=True)
        )
        assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
        final = valid(events[-1].response)
        assert [item.type for item in final.output] == [
            "reasoning", "message", "mcp_call", "mcp_call", "message"
        ]  # fmt: skip
        _, said, call, failed, answer = (item.to_dict() for item in final.output)
        assert (said["phase"], answer["phase"]) == ("commentary", "final_answer")
        assert (call["server_label"], call["name"]) == ("treadle", "weather")
        assert (call["status"], call["output"]) == ("completed", "Sunny in Rome.")
        assert failed["status"] == "failed"
        assert "no such city" in json.dumps(failed["error"])
        done = [one.item.to_dict() for one in events if one.type == "response.output_item.done"]
        assert done == [item.to_dict() for item in final.output]
        assert text_of(events) == "Let me see.Sunny."
        # Read from the journal, it is the same, with the same numbers.
        again = await events_of(await api.responses.retrieve(final.id, stream=True))
        assert unique(again) == unique(events)
        assert text_of(again) == text_of(events)


async def test_the_stream_helper(open_runtime: Open) -> None:
    turns = [[Call("weather", '{"city": "Rome"}', "call_1")], "Sunny."]
    async with connected(open_runtime(helper(*turns, tools=[weather]))) as (api, _):
        async with api.responses.stream(model="helper", input="Hi.") as stream:
            text = "".join(
                [
                    event.delta
                    async for event in stream
                    if event.type == "response.output_text.delta"
                ]
            )
            final = await stream.get_final_response()
        assert text == final.output_text == "Sunny."


async def test_a_stream_continues_after_every_event(open_runtime: Open) -> None:
    turn = [Reasoning("Think about it."), Text("Let me."), Call("weather", '{"city": "Rome"}')]
    agent = helper(turn, LONG, tools=[weather])
    async with connected(open_runtime(agent)) as (api, _):
        whole = await events_of(
            await api.responses.create(model="helper", input="Hi.", stream=True)
        )
        id = whole[-1].response.id
        for left, event in enumerate(whole):
            rest = await events_of(
                await api.responses.retrieve(id, stream=True, starting_after=event.sequence_number)
            )
            joined = [*whole[: left + 1], *rest]
            assert unique(joined) == unique(whole)
            assert text_of(joined) == text_of(whole)
            assert all(one.sequence_number > event.sequence_number for one in rest)


async def test_a_stream_that_was_cut_in_a_text_continues_exactly(open_runtime: Open) -> None:
    words = [Pause(0.01), *(Text(f"{word} ", 1) for word in LONG.split())]
    async with connected(open_runtime(helper(words))) as (api, client):
        stream = await api.responses.create(model="helper", input="Hi.", stream=True)
        read: list[Any] = []
        async for event in stream:
            read.append(event)
            if len(read) > 8:
                break
        await stream.close()
        await opened(client, 0)
        id = read[0].response.id
        after = read[-1].sequence_number
        read += await events_of(await api.responses.retrieve(id, stream=True, starting_after=after))
        assert text_of(read) == "".join(f"{word} " for word in LONG.split())
        assert read[-1].type == "response.completed"


async def test_the_helper_continues_at_every_delta(open_runtime: Open) -> None:
    """It asks for the whole stream, and leaves out what it has by the numbers."""
    turn = Turn(
        (Text(LONG), Call("weather", '{"to_user": "Let me look.", "city": "Rome"}')), every=0.01
    )
    agent = helper(turn, "Sunny.", tools=[weather], to_user=True)
    async with connected(open_runtime(agent)) as (api, _):
        whole: list[Any] = []
        async for event in await api.responses.create(model="helper", input="Hi.", stream=True):
            whole.append(event)
            if len(whole) in {7, 9}:  # while it is being written, too
                await _continue(api, whole)
        assert sum(event.type.endswith("text.delta") for event in whole) > 15
        for count in range(1, len(whole) + 1):
            rest = await _continue(api, whole[:count])
            assert [one.sequence_number for one in rest] == [
                one.sequence_number for one in whole[count:]
            ]


async def _continue(api: AsyncOpenAI, seen: list[Any]) -> list[Any]:
    id, after = seen[0].response.id, seen[-1].sequence_number
    async with api.responses.stream(response_id=id, starting_after=after) as stream:
        rest = [event async for event in stream]
    assert text_of([*seen, *rest]) == f"{LONG}Let me look.Sunny."
    return rest


async def test_a_text_from_the_middle_with_any_number(open_runtime: Open) -> None:
    async with connected(open_runtime(helper(LONG))) as (api, _):
        made = await api.responses.create(model="helper", input="Hi.")
        first = (await events_of(await api.responses.retrieve(made.id, stream=True)))[4]
        assert first.type == "response.output_text.delta"
        begin = first.sequence_number - len(LONG)
        for seen in range(len(LONG)):
            rest = await api.responses.retrieve(made.id, stream=True, starting_after=begin + seen)
            assert text_of(await events_of(rest)) == LONG[seen:]


async def test_a_refusal(open_runtime: Open) -> None:
    async with connected(open_runtime(helper([Refusal("I will not.")]))) as (api, _):
        events = await events_of(
            await api.responses.create(model="helper", input="Hi.", stream=True)
        )
        content = events[-1].response.output[0].content
        assert [part.type for part in content] == ["refusal"]
        assert content[0].refusal == "I will not."


async def test_a_run_that_fails(open_runtime: Open) -> None:
    async with connected(open_runtime(helper())) as (api, client):
        made = valid(await api.responses.create(model="helper", input="Hi."))
        assert made.status == "failed"
        assert made.error is not None
        assert made.error.code == "server_error"
        with pytest.raises(openai.APIError) as error:
            await events_of(await api.responses.create(model="helper", input="Hi.", stream=True))
        assert error.value.body is not None
        body = {"model": "helper", "input": "Hi.", "stream": True}
        text = (await client.http.post("/v1/responses", json=body)).text
        kinds = [line[7:] for line in text.split("\n") if line.startswith("event: ")]
        assert kinds[-2:] == ["error", "response.failed"]
        assert text.endswith("data: [DONE]\n\n")
        failed = json.loads(text.split("event: error\ndata: ")[1].split("\n")[0])
        assert failed["error"]["code"] == failed["code"]
        assert failed["error"]["message"] == failed["message"]


async def test_cancel(open_runtime: Open) -> None:
    async with connected(open_runtime(helper([Unfinished(Text("One. ")), Pause(1000)]))) as (
        api,
        _,
    ):
        stream = await api.responses.create(model="helper", input="Hi.", stream=True)
        read: list[Any] = []
        async for event in stream:
            read.append(event)
            if event.type == "response.output_text.delta":
                id = read[0].response.id
                assert (await api.responses.retrieve(id)).status == "in_progress"
                cancelled = valid(await api.responses.cancel(id))
                assert cancelled.status == "cancelled"
        assert read[-1].type == "response.failed"
        assert read[-1].response.status == "cancelled"
        assert read[-2].type == "response.output_item.done"
        assert read[-2].item.status == "incomplete"
        # What was seen of the text is not part of the response, and nothing is missed after it.
        for event in read:
            rest = await events_of(
                await api.responses.retrieve(id, stream=True, starting_after=event.sequence_number)
            )
            assert (not rest) == (event is read[-1])
            assert not rest or rest[-1].to_dict() == read[-1].to_dict()
        assert (await api.responses.cancel(id)).status == "cancelled"


async def test_a_reader_is_told_what_was_taken_back(open_runtime: Open) -> None:
    half = Unfinished(Text("Half a sent"))
    broken = [Pause(1), Text("Good."), half, Pause(1), StreamIncomplete("Cut off.")]
    async with connected(open_runtime(helper(broken, "All of it."))) as (_, client):
        body = {"model": "helper", "input": "Hi.", "stream": True}
        text = (await client.http.post("/v1/responses", json=body)).text
        seen = _data(text)
        assert seen[-1]["type"] == "error"
        assert seen[-1]["error"]["code"] == "response_interrupted"
        assert text.endswith("data: [DONE]\n\n")
        id = seen[0]["response"]["id"]
        await client.call("GET", f"/runs/{id}/result?wait=60")
        path = f"/v1/responses/{id}?stream=true"
        whole = _data((await client.http.get(path)).text)
        assert [one["delta"] for one in whole if one["type"].endswith("text.delta")] == [
            "Good.",
            "All of it.",
        ]
        for event in seen:
            number = event["sequence_number"]
            rest = _data((await client.http.get(f"{path}&starting_after={number}")).text)
            kinds = [one["type"] for one in rest]
            if event.get("item_id", event.get("item", {}).get("id")) != seen[-2]["item"]["id"]:
                assert kinds[-1] == "response.completed"
                assert rest == [one for one in whole if one["sequence_number"] > number]
            else:  # it has seen what was taken back, and is told so before it continues
                assert kinds == ["error"]
                assert rest[0]["sequence_number"] == seen[-1]["sequence_number"]


def _data(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]


async def test_instructions_need_permission(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("No.", "Yes."))) as (api, _):
        for name, value in (
            ("instructions", "Be short."),
            ("temperature", 0.5),
            ("top_p", 0.5),
            ("max_output_tokens", 100),
            ("parallel_tool_calls", False),
        ):
            with pytest.raises(openai.BadRequestError) as error:
                await api.responses.create(model="helper", input="Hi.", **{name: value})
            assert (error.value.param, error.value.code) == (name, "unsupported_parameter")
            assert error.value.response.headers["x-should-retry"] == "false"


async def test_what_the_agent_allows_reaches_the_model(open_runtime: Open) -> None:
    allowed = ["extra_instructions", "settings"]
    model = ScriptedModel(["Yes."])
    agent = Agent(model, name="helper", instructions="You help.", overridable=allowed)
    async with connected(open_runtime(agent)) as (api, _):
        made = valid(
            await api.responses.create(
                model="helper",
                input="Hi.",
                instructions="Be short.",
                temperature=0.5,
                max_output_tokens=100,
                metadata={"a": "b"},
            )
        )
        request = model.requests[0]
        assert request.instructions == "You help.\n\nBe short."
        assert request.settings.temperature == 0.5
        assert request.settings.max_output_tokens == 100
        echoed = (made.instructions, made.temperature, made.max_output_tokens, made.metadata)
        assert echoed == ("Be short.", 0.5, 100, {"a": "b"})


async def test_a_history_of_the_client(open_runtime: Open) -> None:
    model = ScriptedModel(["Blue."])
    async with connected(open_runtime(Agent(model, name="helper"))) as (api, _):
        made = await api.responses.create(
            model="helper",
            input=[
                {"role": "user", "content": "Look."},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "A sky."},
                {"role": "assistant", "content": "I see a sky."},
                {"role": "user", "content": [{"type": "input_text", "text": "Its colour?"}]},
            ],
        )
        assert made.output_text == "Blue."
        kinds = [item.__class__.__name__ for item in model.requests[0].items]
        assert kinds == ["Message", "FunctionCall", "FunctionCallOutput", "Message", "Message"]
        listed = await api.responses.input_items.list(made.id, order="asc")
        assert [item.type for item in listed.data] == [
            "message", "function_call", "function_call_output", "message", "message"
        ]  # fmt: skip
        include: Any = ["reasoning.encrypted_content", "message.input_image.image_url"]
        newest = await api.responses.input_items.list(made.id, limit=2, include=include)
        await api.responses.retrieve(made.id, include=include)
        assert [item.id for item in newest.data] == [item.id for item in listed.data[:2:-1]]
        assert newest.has_more
        every = [item async for item in api.responses.input_items.list(made.id, limit=2)]
        assert [item.id for item in every] == [item.id for item in listed.data[::-1]]


async def test_delete(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("One.", "Two.", "Three."))) as (api, client):
        made = await api.responses.create(model="helper", input="Hi.")
        thread_id = (await client.call("GET", f"/runs/{made.id}"))["thread_id"]
        other = await client.call(
            "POST", f"/threads/{thread_id}/messages?wait=60", {"message": "And?"}
        )
        assert (await api.responses.retrieve(other["run_id"])).output_text == "Two."
        # Another run continues the conversation: what the response said is removed.
        await api.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(made.id)
        items = (await client.call("GET", f"/threads/{thread_id}/items"))["data"]
        assert [item["content"][0]["text"] for item in items] == ["And?", "Two."]
        # A response that is alone on its thread leaves together with it.
        alone = await api.responses.create(model="helper", input="Hi.")
        thread_id = (await client.call("GET", f"/runs/{alone.id}"))["thread_id"]
        await api.responses.delete(alone.id)
        assert (await client.send("GET", f"/threads/{thread_id}")).status_code == 404


async def test_not_stored(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("One.", [Text("Tw"), Pause(1000)]))) as (api, client):
        made = await api.responses.create(model="helper", input="Hi.", store=False)
        assert made.store is False
        thread_id = (await client.call("GET", f"/runs/{made.id}"))["thread_id"]
        assert not (await client.call("GET", f"/threads/{thread_id}"))["store"]
        stream = await api.responses.create(model="helper", input="Hi.", store=False, stream=True)
        async for event in stream:
            if event.type == "response.created":
                id = event.response.id
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        await opened(client, 0)
        result = await client.call("GET", f"/runs/{id}/result?wait=60")
        assert result["status"] == "cancelled"


@pytest.mark.parametrize("store", [True, False])
async def test_a_client_that_leaves_without_a_stream(
    open_runtime: Open, caplog: pytest.LogCaptureFixture, store: bool
) -> None:
    runtime = open_runtime(helper([Text("One. "), Pause(20), Text("Two.")]))
    async with serving(runtime) as client:
        body = {"model": "helper", "input": "Hi.", "store": store}
        request = asyncio.ensure_future(client.http.post("/v1/responses", json=body))
        await opened(client, 1)
        (info,) = await runtime.threads()
        (record,) = await (await runtime.connect(info.id)).runs()
        request.cancel()
        await opened(client, 0)
        result = await client.call("GET", f"/runs/{record.id}/result?wait=60")
        assert result["status"] == ("completed" if store else "cancelled")
        assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_a_repeated_request_creates_one_response(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("One.", "Two."))) as (api, _):
        headers = {"idempotency-key": "k"}
        made = [
            await api.responses.create(model="helper", input="Hi.", extra_headers=headers)
            for _ in range(2)
        ]
        assert made[0].to_dict() == made[1].to_dict()
        with pytest.raises(openai.ConflictError):
            await api.responses.create(model="helper", input="Ho.", extra_headers=headers)


async def test_models(open_runtime: Open) -> None:
    async with connected(open_runtime(helper())) as (api, _):
        assert [model.id async for model in api.models.list()] == ["helper"]
        assert (await api.models.retrieve("helper")).owned_by == "treadle"
        with pytest.raises(openai.NotFoundError) as error:
            await api.models.retrieve("other")
        assert (error.value.code, error.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"model": "other", "input": "Hi."}, 404, "other"),
        ({"model": "helper"}, 400, "input"),
        ({"model": "helper", "input": []}, 400, "input"),
        ({"model": "helper", "input": [1]}, 400, "input[0]"),
        ({"model": "helper", "input": [{"role": "user", "content": "Hi."},
            {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}]}, 400,
            "previous_response_id"),
        ({"model": "helper", "input": ""}, 400, "input"),
        ({"model": "helper", "input": "Hi.", "prompt": {"id": "p"}}, 400, "prompt"),
        ({"model": "helper", "input": "Hi.", "top_logprobs": 3}, 400, "top_logprobs"),
        ({"model": "helper", "input": "Hi.", "metadata": {"a": 1}}, 400, "metadata"),
        ({"model": "helper", "input": "Hi.", "metadata": {"a": "b" * 513}}, 400, "metadata"),
        ({"model": "helper", "input": "Hi.", "temperature": 3}, 400, "temperature"),
        ({"model": "helper", "input": [{"role": "assistant", "content": "A."}]}, 400, "user"),
        ({"model": "helper", "input": [{"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "A."}]}, 400, "output of a call"),
        ({"model": "helper", "input": [{"role": "user", "content": "Hi."},
            {"type": "function_call_output", "call_id": "c", "output": "A."}]}, 400, "input"),
        ({"model": "helper", "input": [{"type": "function_call", "call_id": "c", "name": "n",
            "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "A."}]},
            400, "message of the user"),
        ({"model": "helper", "input": [{"type": "computer_call", "id": "w"}]}, 400, "computer"),
        ({"model": "helper", "input": [{"type": "function_call", "call_id": "c", "name": "n",
            "arguments": "{}"}, {"role": "user", "content": "Hi."}]}, 400, "input"),
    ],
)  # fmt: skip
async def test_refused(open_runtime: Open, body: Any, status: int, named: str) -> None:
    async with connected(open_runtime(helper())) as (_, client):
        response = await client.http.post("/v1/responses", json=body)
        error = response.json()["error"]
        assert response.status_code == status
        assert sorted(error) == ["code", "message", "param", "type"]
        assert named in error["message"]
        assert response.headers["x-should-retry"] == "false"
        assert response.headers["content-type"] == "application/json"


async def test_unknown_ids(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("Hi."))) as (api, client):
        made = await api.responses.create(model="helper", input="Hi.")
        for id in (
            "resp_x",
            "run_x",
            f"{made.id}.2",
            f"{made.id}.1",
            f"{made.id}.x",
            f"{made.id}.",
        ):
            for call in (api.responses.retrieve, api.responses.cancel, api.responses.delete):
                with pytest.raises(openai.NotFoundError) as error:
                    await call(id)
                assert error.value.type == "not_found_error"
        assert (await client.http.get("/v1/nothing")).json()["error"]["code"] == "route_not_found"
        assert (await client.http.put("/v1/models")).json()["error"]["code"] == "method_not_allowed"


async def test_a_response_of_another_process(open_runtime: Open, tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path}/threads.db"
    model = ScriptedModel([[Pause(1), *(Text(f"{word} ", 1) for word in LONG.split())]])
    async with treadle.open(path, agents=[Agent(model, name="helper")]):
        web = treadle.open(path, agents=[helper()], drive=False)
        async with connected(web) as (api, _):
            events = await events_of(
                await api.responses.create(model="helper", input="Hi.", stream=True)
            )
            assert text_of(events) == "".join(f"{word} " for word in LONG.split())
            again = await events_of(
                await api.responses.retrieve(events[-1].response.id, stream=True)
            )
            assert unique(again) == unique(events)


async def test_a_shutdown_ends_a_stream_with_an_error(open_runtime: Open) -> None:
    turn = [Text("One. "), Pause(1000), Text("Two.")]
    runtime = open_runtime(helper(turn, turn))
    async with connected(runtime) as (api, client):
        waiting = asyncio.create_task(api.responses.create(model="helper", input="Hi."))
        await opened(client, 1)
        stream = await api.responses.create(model="helper", input="Hi.", stream=True)
        with pytest.raises(openai.APIError, match="about to end"):
            async for event in stream:
                if event.type == "response.output_text.delta":
                    client.server.begin_shutdown()
        with pytest.raises(openai.APIStatusError) as error:
            await api.responses.create(model="helper", input="Hi.")
        assert error.value.status_code == 503
        # An answer without its text would look complete; the client must not send it again.
        with pytest.raises(openai.APIStatusError, match="retrieve it") as error:
            await waiting
        assert error.value.status_code == 503
        assert error.value.response.headers["x-should-retry"] == "false"
