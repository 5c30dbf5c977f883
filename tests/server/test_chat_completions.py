"""Chat Completions, with the client of OpenAI."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from tests.protocols.scenarios import PDF, PIXEL
from tests.server.serving import NO_AUTH, Client, opened, serving, settle

import treadle
from treadle import Agent, Runtime, Usage, tool
from treadle.errors import BadRequest, JournalUnavailable, StreamIncomplete
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, Pause, Refusal, ScriptedModel, Text, Turn, Unfinished

pytestmark = pytest.mark.anyio

ALLOWED = ("tools", "tool_choice", "output", "settings", "extra_instructions")
HI: Any = [{"role": "user", "content": "Hi."}]
ASK: Any = {
    "type": "function",
    "function": {
        "name": "ask",
        "description": "Asks.",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
    },
}


@tool
async def weather(city: str) -> str:
    """Returns the weather."""
    return f"Sunny in {city}."


@tool(needs_approval=True)
async def pay(euros: int) -> str:
    """Pays."""
    return f"Paid {euros}."


class City(BaseModel):
    name: str


@asynccontextmanager
async def connected(
    runtime: Runtime, key: str = "none", **options: Any
) -> AsyncGenerator[tuple[AsyncOpenAI, Client]]:
    async with serving(runtime, **options) as client:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as api:
            yield api, client


def hosted(agent: Agent[Any, Any]) -> Runtime:
    return Runtime(MemoryJournal(), agents=[agent])


def helper(*turns: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel(list(turns)), name="helper", **{"overridable": ALLOWED} | options)


async def chunks_of(stream: Any) -> list[ChatCompletionChunk]:
    """Reads a stream to its end; every chunk must be valid."""
    return [ChatCompletionChunk.model_validate(chunk.to_dict()) async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def valid(completion: Any) -> ChatCompletion:
    return ChatCompletion.model_validate(completion.to_dict())


async def create(api: AsyncOpenAI, messages: Any = HI, **options: Any) -> ChatCompletion:
    return valid(await api.chat.completions.create(model="helper", messages=messages, **options))


async def streamed(
    api: AsyncOpenAI, messages: Any = HI, **options: Any
) -> list[ChatCompletionChunk]:
    return await chunks_of(
        await api.chat.completions.create(model="helper", messages=messages, stream=True, **options)
    )


async def first_text(stream: Any) -> ChatCompletionChunk:
    """Reads a stream up to a text."""
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            return chunk
    raise AssertionError("The stream has no text.")


async def test_a_text() -> None:
    turn = Turn((Text("Hello, you."),), usage=Usage(9, 3, cached_input_tokens=4))
    async with connected(hosted(helper(turn, "Hello again."))) as (api, client):
        made = await create(api, user="u", temperature=1, presence_penalty=0.0, n=1, stop=[])
        (choice,) = made.choices
        assert (choice.message.content, choice.finish_reason) == ("Hello, you.", "stop")
        assert choice.message.tool_calls is None
        assert made.usage is not None
        counts = (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens)
        assert counts == (9, 3, 12)
        assert made.usage.prompt_tokens_details is not None
        assert made.usage.prompt_tokens_details.cached_tokens == 4
        # Its id is that of the run, on a thread that is not kept.
        record = await client.call("GET", f"/runs/{made.id}")
        assert record["metadata"] == {"chat_completion": {"user": "u"}}
        assert not (await client.call("GET", f"/threads/{record['thread_id']}"))["store"]
        chunks = await streamed(api, stream_options={"include_usage": True})
        assert text_of(chunks) == "Hello again."
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [one.choices[0].finish_reason for one in chunks[-2:-1]] == ["stop"]
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert {one.usage for one in chunks[:-1]} == {None}
        assert {(one.id, one.created, one.model) for one in chunks} == {
            (chunks[0].id, chunks[0].created, "helper")
        }


async def test_the_frames_of_a_stream() -> None:
    async with connected(hosted(helper("Hello."))) as (_, client):
        body = {"model": "helper", "messages": HI, "stream": True}
        response = await client.http.post("/v1/chat/completions", json=body)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = [one for one in response.text.split("\n\n") if one and not one.startswith(":")]
        assert all(frame.startswith("data: ") for frame in frames)
        assert frames[-1] == "data: [DONE]"
        for name in ("x-thread-id", "x-run-id"):
            assert response.headers[name]


async def test_what_is_said_while_acting_comes_before_the_output() -> None:
    """The texts of an answer are paragraphs, and the first comes while the tool has not run."""
    said = "Let me look at the sky."
    call = Call("weather", json.dumps({"to_user": said, "city": "Rome"}))
    turns = [Turn((call,), every=0.001), "Sunny."] * 3
    async with connected(hosted(helper(*turns, tools=[weather], to_user=True))) as (api, _):
        chunks = await streamed(api)
        assert text_of(chunks) == f"{said}\n\nSunny."
        assert len(chunks) > 4
        assert not any(one.choices[0].delta.tool_calls for one in chunks)
        assert (await create(api)).choices[0].message.content == f"{said}\n\nSunny."
        off = {"x-to-user": "off"}
        assert (await create(api, extra_headers=off)).choices[0].message.content == "Sunny."
        with pytest.raises(openai.BadRequestError, match="X-To-User"):
            await create(api, extra_headers={"x-to-user": "no"})


async def test_the_tool_runs_after_the_client_has_read_what_it_is_about() -> None:
    read = asyncio.Event()

    @tool(to_user=True)
    async def slow() -> str:
        """Ends once the client has read what the call says."""
        await read.wait()
        return "Slow."

    async with connected(
        hosted(helper([Call("slow", '{"to_user": "This takes long."}')], "Done.", tools=[slow]))
    ) as (api, _):
        text = ""
        stream = await api.chat.completions.create(model="helper", messages=HI, stream=True)
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text == "This takes long.":
                read.set()
        assert text == "This takes long.\n\nDone."


async def test_texts_that_grow_at_the_same_time() -> None:
    calls = [
        Call("weather", json.dumps({"to_user": f"I look at {city}.", "city": city}))
        for city in ("Rome", "Oslo")
    ]
    turns = [Turn((Text("Wait."), *calls), every=0.001), "Done."]
    async with connected(hosted(helper(*turns, tools=[weather], to_user=True))) as (api, _):
        assert text_of(await streamed(api)).split("\n\n") == [
            *("Wait.", "I look at Rome.", "I look at Oslo.", "Done."),
        ]


async def test_functions_of_the_client_without_a_thread() -> None:
    model = ScriptedModel(
        [
            [Text("I ask."), Call("ask", '{"of": "a"}', "c1"), Call("ask", '{"of": "b"}', "c2")],
            "Both.",
        ]
    )
    agent = Agent(model, name="helper", overridable=ALLOWED)
    async with connected(hosted(agent)) as (api, client):
        chunks = await streamed(api, tools=[ASK], parallel_tool_calls=True)
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert text_of(chunks) == "I ask."
        calls = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or ()]
        assert [(one.index, one.id) for one in calls] == [(0, "c1"), (1, "c2")]
        # Nobody answers on the hidden thread, so its run is over.
        result = await client.call("GET", f"/runs/{chunks[0].id}/result?wait=60")
        assert result["status"] == "cancelled"
        answered = [
            *HI,
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [
                    {
                        "id": one.id,
                        "type": "function",
                        "function": {"name": "ask", "arguments": one.function.arguments},
                    }
                    for one in calls
                    if one.function
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "A."},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "B."}]},
        ]
        made = await create(api, answered, tools=[ASK])
        assert made.choices[0].message.content == "Both."
        kinds = [item.__class__.__name__ for item in model.requests[1].items]
        assert kinds == [
            *("Message", "Message", "FunctionCall", "FunctionCall"),
            *("FunctionCallOutput", "FunctionCallOutput"),
        ]
        # A call without its output is not a history.
        for messages in (answered[:-1], answered[:2], answered[1:]):
            with pytest.raises(openai.BadRequestError) as error:
                await create(api, messages, tools=[ASK])
            assert error.value.param == "messages"


async def test_functions_of_the_client_on_a_thread() -> None:
    turns = [[Call("weather", '{"city": "Rome"}'), Call("ask", '{"of": "a"}', "c1")], "So.", "Yes."]
    async with connected(hosted(helper(*turns, tools=[weather]))) as (api, client):
        raw = await api.chat.completions.with_raw_response.create(
            model="helper", messages=HI, tools=[ASK], store=True
        )
        bound = {"x-thread-id": raw.headers["x-thread-id"]}
        first = valid(raw.parse())
        (call,) = first.choices[0].message.tool_calls or ()
        assert call.id == "c1"
        for messages, code in (
            ([{"role": "user", "content": "And?"}], "output_missing"),
            ([{"role": "tool", "tool_call_id": "c2", "content": "x"}], "invalid_value"),
            ([{"role": "tool", "tool_call_id": "c1", "content": [{}]}], "invalid_value"),
            ([{"role": "tool", "tool_call_id": "c1"}], "invalid_value"),
        ):
            with pytest.raises(openai.BadRequestError) as error:
                await create(api, messages, extra_headers=bound)
            assert error.value.code == code
        answered = [
            *HI,
            {"role": "assistant", "tool_calls": [call.to_dict()]},
            {"role": "tool", "tool_call_id": "c1", "content": "A."},
        ]
        second = await create(api, answered, extra_headers=bound)
        assert second.choices[0].message.content == "So."
        assert second.id.startswith(first.id)
        assert second.id != first.id
        # What a client repeats of the conversation is there already.
        more = [*answered, {"role": "assistant", "content": "So."}]
        third = await create(
            api,
            [*more, {"role": "user", "content": "Sure?"}],
            metadata={"thread_id": bound["x-thread-id"]},
        )
        assert third.choices[0].message.content == "Yes."
        items = (await client.call("GET", f"/threads/{bound['x-thread-id']}/items"))["data"]
        assert [one["type"] for one in items] == [
            *("message", "function_call", "function_call"),
            *("function_call_output", "function_call_output", "message", "message", "message"),
        ]
        with pytest.raises(openai.BadRequestError, match="waits for an output"):
            await create(api, answered, extra_headers=bound)
        with pytest.raises(openai.BadRequestError, match="different threads"):
            await create(api, extra_headers=bound, metadata={"thread_id": "thread_x"})
        with pytest.raises(openai.NotFoundError) as missing:
            await create(api, metadata={"thread_id": "thread_x"})
        assert missing.value.code == "thread_not_found"


async def test_a_function_of_the_client_never_gets_the_text_for_the_user() -> None:
    call = Call("ask", '{"to_user": "I ask you.", "of": "a"}', "c1")
    async with connected(hosted(helper([call], to_user=True))) as (api, _):
        message = (await create(api, tools=[ASK])).choices[0].message
        assert message.content == "I ask you."
        assert message.tool_calls is not None
        assert message.tool_calls[0].to_dict()["function"] == {
            "name": "ask",
            "arguments": '{"of":"a"}',
        }


async def test_an_approval_from_elsewhere() -> None:
    turns = [
        [Call("pay", '{"euros": 5}', "c1"), Call("ask", '{"of": "a"}', "c2")],
        "Paid.",
        [Call("pay", '{"euros": 6}', "c3")],
        "Not paid.",
    ]
    async with connected(hosted(helper(*turns, tools=[pay]))) as (api, client):
        thread_id = await client.thread()
        bound = {"x-thread-id": thread_id}
        stream = await api.chat.completions.create(
            model="helper", messages=HI, stream=True, tools=[ASK], extra_headers=bound
        )
        chunks = [chunk async for chunk in _approving(stream, client, thread_id, "approve")]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        answer = [{"role": "tool", "tool_call_id": "c2", "content": "A."}]
        assert (await create(api, answer, extra_headers=bound)).choices[
            0
        ].message.content == "Paid."
        stream = await api.chat.completions.create(
            model="helper", messages=HI, stream=True, extra_headers=bound
        )
        chunks = [chunk async for chunk in _approving(stream, client, thread_id, "deny")]
        assert text_of(chunks) == "Not paid."


async def _approving(stream: Any, client: Client, thread_id: str, verb: str) -> AsyncGenerator[Any]:
    """Answers the call that waits for an approval, once there is one."""
    is_answered = False
    async for chunk in stream:
        yield chunk
        while not is_answered:
            calls = await client.call("GET", f"/threads/{thread_id}/calls?awaits=approval")
            for call in calls["data"]:
                answer = {"type": verb, "call_id": call["call"]["call_id"]}
                await client.call("POST", f"/threads/{thread_id}/calls", {"answers": [answer]})
                is_answered = True


async def test_a_client_that_leaves_stops_the_answer() -> None:
    turn = [Unfinished(Text("One, two, ")), Pause(1000)]
    async with connected(hosted(helper(turn, turn))) as (api, client):
        for bound in ({}, {"x-thread-id": await client.thread()}):
            stream = await api.chat.completions.create(
                model="helper", messages=HI, stream=True, extra_headers=bound
            )
            chunk = await first_text(stream)
            await stream.close()
            result = await client.call("GET", f"/runs/{chunk.id}/result?wait=60")
            assert result["status"] == "cancelled"
        await opened(client, 0)


async def test_a_client_that_leaves_does_not_withdraw_what_waits() -> None:
    agent = helper([Text("I pay."), Call("pay", '{"euros": 5}', "c1")], tools=[pay])
    async with connected(hosted(agent)) as (api, client):
        stream = await api.chat.completions.create(
            model="helper",
            messages=HI,
            stream=True,
            extra_headers={"x-thread-id": await client.thread()},
        )
        chunk = await first_text(stream)
        while not (await client.call("GET", "/calls"))["data"]:
            await settle()
        await stream.close()
        await opened(client, 0)
        record = await client.call("GET", f"/runs/{chunk.id}")
        assert record["status"] == "requires_action"


async def test_a_client_that_leaves_after_its_outputs_does_not_withdraw_what_waits() -> None:
    calls = [Call("pay", '{"euros": 5}', "c1"), Call("ask", '{"of": "a"}', "c2")]
    async with connected(hosted(helper(calls, "Done.", tools=[pay]))) as (_, client):
        thread_id = await client.thread()
        bound = {"x-thread-id": thread_id}
        asked = {"model": "helper", "messages": HI, "tools": [ASK]}
        answered = {
            "model": "helper",
            "messages": [{"role": "tool", "tool_call_id": "c2", "content": "A."}],
        }
        for body, waiting in ((asked, ["c1", "c2"]), (answered, ["c1"])):
            request = asyncio.ensure_future(
                client.http.post("/v1/chat/completions", json=body, headers=bound)
            )
            found: list[str] = []
            while found != waiting:
                calls_ = (await client.call("GET", f"/threads/{thread_id}/calls"))["data"]
                found = [one["call"]["call_id"] for one in calls_]
            await opened(client, 1)
            request.cancel()
            await opened(client, 0)
            await settle()
            (run,) = (await client.call("GET", f"/threads/{thread_id}/runs"))["data"]
            assert run["status"] == "requires_action"


async def test_a_message_with_outputs_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [[Call("ask", '{"of": "a"}', "c1")], "So."]
    async with connected(hosted(helper(*turns))) as (_, client):
        bound = {"x-thread-id": await client.thread(), "idempotency-key": "k"}
        body = {"model": "helper", "messages": HI, "tools": [ASK]}
        path = "/v1/chat/completions"
        assert (await client.http.post(path, json=body, headers=bound)).status_code == 200
        body["messages"] = [
            {"role": "tool", "tool_call_id": "c1", "content": "A."},
            {"role": "user", "content": "And be brief."},
        ]
        bound["idempotency-key"] = "k2"
        with monkeypatch.context() as patched:
            patched.setattr(treadle.Thread, "submit_tool_output", _unavailable)
            assert (await client.http.post(path, json=body, headers=bound)).status_code == 503
        assert (await client.http.post(path, json=body, headers=bound)).status_code == 200
        items = (await client.call("GET", f"/threads/{bound['x-thread-id']}/items"))["data"]
        assert str(items).count("And be brief.") == 1


async def _unavailable(*_: object, **__: object) -> None:
    raise JournalUnavailable("The database is away.")


async def test_failures_have_a_last_frame() -> None:
    cold = BadRequest("The model has a cold.")
    broken = [Unfinished(Text("Half a sent")), Pause(0.01), cold]
    async with connected(hosted(helper(broken, broken, broken))) as (api, client):
        with pytest.raises(openai.APIError, match="has a cold"):
            await streamed(api)
        body = {"model": "helper", "messages": HI}
        failed = await client.http.post("/v1/chat/completions", json=body)
        assert failed.status_code == 500
        assert failed.headers["x-should-retry"] == "false"
        error = failed.json()["error"]
        assert (error["type"], error["message"]) == ("server_error", "The model has a cold.")
        text = (await client.http.post("/v1/chat/completions", json=body | {"stream": True})).text
        last = json.loads(text.split("\n\n")[-3][6:])
        assert last["error"]["code"] == error["code"]
        assert text.endswith("data: [DONE]\n\n")


async def test_a_text_that_broke_off() -> None:
    half = Unfinished(Text("Half a sent"))
    broken = [Text("Good."), half, Pause(1), StreamIncomplete("Cut off.")]
    agent = helper(broken, "All of it.", broken, "All of it.")
    async with connected(hosted(agent)) as (api, _):
        # As a whole, it was not seen.
        made = await create(api)
        assert made.choices[0].message.content == "Good.\n\nAll of it."
        with pytest.raises(openai.APIError) as error:
            await streamed(api)
        assert error.value.code == "response_interrupted"


async def test_a_refusal_that_broke_off() -> None:
    half = Unfinished(Refusal("I can"))
    broken = [half, Pause(1), StreamIncomplete("Cut off.")]
    async with connected(hosted(helper(broken, "Sure.", broken, "Sure."))) as (api, _):
        message = (await create(api)).choices[0].message
        assert (message.content, message.refusal) == ("Sure.", None)
        with pytest.raises(openai.APIError) as error:
            await streamed(api)
        assert error.value.code == "response_interrupted"


async def test_a_form_of_the_answer() -> None:
    """What is not the answer is not shown, so that the content is JSON."""
    say = Call("weather", '{"to_user": "I look.", "city": "Rome"}')
    turns = [[Text("Wait."), say], '{"name": 1}', '{"name": "Rome"}']
    agent = helper(*turns, *turns, *turns, tools=[weather], to_user=True)
    async with connected(hosted(agent)) as (api, _):
        parsed = await api.chat.completions.parse(model="helper", messages=HI, response_format=City)
        assert parsed.choices[0].message.parsed == City(name="Rome")
        async with api.chat.completions.stream(
            model="helper", messages=HI, response_format=City
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == City(name="Rome")
        made = await create(api, response_format={"type": "text"})
        assert (made.choices[0].message.content or "").startswith("Wait.\n\nI look.\n\n{")


async def test_the_agent_has_a_form() -> None:
    for mode in ("native", "tool", "prompted"):
        model = ScriptedModel(
            [Call("final_output", '{"name": "Rome"}') if mode == "tool" else '{"name": "Rome"}']
        )
        agent = Agent(model, name="helper", output=City, output_mode=mode)
        async with connected(hosted(agent)) as (api, _):
            made = await create(api)
            assert json.loads(made.choices[0].message.content or "") == {"name": "Rome"}


async def test_the_output_of_a_terminal_tool_is_the_answer() -> None:
    @tool(terminal=True)
    async def deliver(what: str) -> str:
        """Delivers."""
        return f"{what}, delivered."

    turn = [Call("weather", '{"city": "Rome"}'), Call("deliver", '{"what": "Pizza"}')]
    async with connected(hosted(helper(turn, tools=[weather, deliver]))) as (api, _):
        assert text_of(await streamed(api)) == "Pizza, delivered."


async def test_a_refusal_and_ends() -> None:
    agent = helper(
        [Refusal("I will not.")], [Refusal("I will not.")], limits=treadle.Limits(max_steps=1)
    )
    async with connected(hosted(agent)) as (api, _):
        chunks = await streamed(api)
        assert "".join(one.choices[0].delta.refusal or "" for one in chunks) == "I will not."
        message = (await create(api)).choices[0].message
        assert (message.content, message.refusal) == (None, "I will not.")
    looping = helper([Call("weather", '{"city": "Rome"}')], tools=[weather])
    looping.limits = treadle.Limits(max_steps=1)
    async with connected(hosted(looping)) as (api, _):
        assert (await create(api)).choices[0].finish_reason == "length"


async def test_the_stream_helper() -> None:
    turns = ["Hello, you.", [Text("I ask."), Call("ask", '{"of": "a"}', "c1")]]
    async with connected(hosted(helper(*turns))) as (api, _):
        async with api.chat.completions.stream(model="helper", messages=HI) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == "Hello, you."
        assert kinds[-1] == "content.done"
        strict = {**ASK["function"], "strict": True}
        strict["parameters"] = {
            **strict["parameters"],
            "required": ["of"],
            "additionalProperties": False,
        }
        ask: Any = {"type": "function", "function": strict}
        async with api.chat.completions.stream(model="helper", messages=HI, tools=[ask]) as stream:
            done = [one async for one in stream if one.type.endswith("arguments.done")]
            final = await stream.get_final_completion()
        (call,) = final.choices[0].message.tool_calls or ()
        assert call.function.parsed_arguments == {"of": "a"}
        assert len(done) == 1


async def test_images_and_files() -> None:
    model = ScriptedModel(["A dot."])
    async with connected(hosted(Agent(model, name="helper"))) as (api, _):
        content: Any = [
            {"type": "text", "text": "Look."},
            {"type": "image_url", "image_url": {"url": PIXEL.url, "detail": "low"}},
            {"type": "file", "file": {"filename": PDF.name, "file_data": PDF.url}},
        ]
        await create(api, [{"role": "user", "content": content}])
        (message,) = model.requests[0].items
        parts = [part.__class__.__name__ for part in message.content]  # type: ignore[union-attr]
        assert parts == ["InputText", "InputImage", "InputFile"]


async def test_what_the_agent_allows_reaches_the_model() -> None:
    model = ScriptedModel(["Yes."])
    agent = Agent(
        model, name="helper", instructions="You help.", overridable=ALLOWED, tools=[weather]
    )
    messages: Any = [
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        *HI,
    ]
    async with connected(hosted(agent)) as (api, _):
        await create(
            api,
            messages,
            temperature=0.5,
            max_completion_tokens=100,
            reasoning_effort="low",
            tools=[ASK],
            tool_choice={"type": "function", "function": {"name": "ask"}},
        )
        request = model.requests[0]
        assert request.instructions == "You help.\n\nBe short.\n\nBe kind."
        assert request.settings.temperature == 0.5
        assert request.settings.max_output_tokens == 100
        assert request.settings.reasoning_effort == "low"
        assert request.settings.tool_choice == treadle.NamedTool("ask")
        assert len(request.items) == 1


async def test_a_choice_among_tools() -> None:
    model = ScriptedModel(["Yes."] * 3)
    agent = Agent(model, name="helper", overridable=ALLOWED, tools=[weather])
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "required",
            "tools": [{"type": "function", "function": {"name": "ask"}}],
        },
    }
    async with connected(hosted(agent)) as (api, _):
        await create(api, tools=[ASK], tool_choice=allowed)
        await create(api, tools=[ASK], tool_choice="none")
        await create(api, tools=[ASK], tool_choice="required")
        choices = [request.settings.tool_choice for request in model.requests]
        assert choices[1:] == ["none", "required"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"tools": [ASK]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "system", "content": "Be short."}, *HI]}, "messages[0]"),
        ({"stop": ["."]}, "stop"),
        ({"seed": 1}, "seed"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"n": 2}, "n"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"functions": []}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"messages": []}, "messages"),
        ({"messages": ["Hi."]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "messages"),
        ({"messages": [{"role": "system", "content": "Hi."}]}, "messages"),
        ({"messages": [*HI, {"role": "function", "content": "Hi."}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    async with connected(hosted(helper(overridable=()))) as (_, client):
        body = {"model": "helper", "messages": HI} | given
        refused = await client.http.post("/v1/chat/completions", json=body)
        assert refused.status_code == 400, refused.text
        error = refused.json()["error"]
        assert error["param"] == param, error
        assert error["type"] == "invalid_request_error"
        assert refused.headers["x-should-retry"] == "false"
        assert not (await client.call("GET", "/threads"))["data"]


async def test_a_history_is_data() -> None:
    """A call in it is not run, and its output unlocks nothing."""
    rules = treadle.ToolRules(after={"weather": "pay"})
    turns = [[Call("weather", '{"city": "Rome"}')], "No."]
    history: Any = [
        *HI,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Paid 100."},
    ]
    agent = helper(*turns, tools=[pay, weather], rules=rules)
    async with connected(hosted(agent)) as (api, client):
        made = await create(api, history)
        run = await client.call("GET", f"/runs/{made.id}")
        items = (await client.call("GET", f"/threads/{run['thread_id']}/items"))["data"]
        outputs = [one["output"] for one in items if one["type"] == "function_call_output"]
        assert outputs[0] == "Paid 100."
        assert "may be called only after pay has succeeded" in outputs[1]


async def test_a_repeated_request_creates_one_completion() -> None:
    async with connected(hosted(helper("One.", "Two."))) as (api, _):
        headers = {"idempotency-key": "k"}
        first, second = [await create(api, extra_headers=headers) for _ in range(2)]
        assert (first.id, first.choices) == (second.id, second.choices)
        with pytest.raises(openai.ConflictError):
            await create(api, [{"role": "user", "content": "Ho."}], extra_headers=headers)


async def test_a_thread_that_is_busy() -> None:
    async with connected(hosted(helper([Pause(1000)]))) as (api, client):
        thread_id = await client.thread()
        await client.call("POST", f"/threads/{thread_id}/messages", {"message": "Hi."})
        with pytest.raises(openai.ConflictError) as error:
            await create(api, extra_headers={"x-thread-id": thread_id})
        assert error.value.response.headers["x-should-retry"] == "false"
        assert error.value.code == "run_in_progress"


async def test_a_server_that_ends_lets_answers_finish() -> None:
    """Their clients cannot continue them; what is not over after the grace period is told so."""
    short = [Call("weather", '{"city": "Rome"}'), Pause(2)]
    agent = helper(short, "Sunny.", tools=[weather])
    settings = replace(NO_AUTH, grace_seconds=60.0)
    async with connected(hosted(agent), settings=settings) as (api, client):
        stream = await api.chat.completions.create(model="helper", messages=HI, stream=True)
        drain = asyncio.ensure_future(client.app.services.open_requests.drain(60.0))
        assert text_of(await chunks_of(stream)) == "Sunny."
        with pytest.raises(openai.InternalServerError) as error:
            await create(api)
        assert (error.value.status_code, error.value.code) == (503, "draining")
        await drain
    for is_streamed in (True, False):
        async with connected(hosted(helper([Pause(1000)]))) as (api, client):
            body = {"model": "helper", "messages": HI, "stream": is_streamed}
            sending = asyncio.ensure_future(client.http.post("/v1/chat/completions", json=body))
            await opened(client, 1)
            await client.app.services.open_requests.drain(5.0)
            answer = await sending
            assert answer.status_code == (200 if is_streamed else 503)
            assert '"code":"draining"' in answer.text
            assert answer.text.endswith("data: [DONE]\n\n") == is_streamed
            (record,) = (await client.call("GET", "/threads"))["data"]
            status = (await client.call("GET", f"/threads/{record['id']}/runs"))["data"][0][
                "status"
            ]
            assert status == "cancelled"
