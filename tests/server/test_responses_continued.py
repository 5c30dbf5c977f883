"""The Responses API over several requests: tools of the client, conversations, background."""

import asyncio
import json
import random
from typing import Any, Union

import openai
import openresponses_types
import pytest
from openai.lib.responses_tool_runner import AsyncRegisteredFunction, AsyncResponsesToolRunner
from openai.types.conversations import ConversationItem
from pydantic import BaseModel, TypeAdapter
from tests.server.serving import opened
from tests.server.test_responses import (
    LONG,
    Open,
    connected,
    events_of,
    helper,
    text_of,
    unique,
    valid,
    weather,
)
from tests.server.test_security import AUTH, ring

from treadle import Agent, tool
from treadle.errors import BadRequest, StreamIncomplete
from treadle.testing import (
    Call,
    Pause,
    Reasoning,
    Refusal,
    ScriptedModel,
    Text,
    Turn,
    Unfinished,
)

pytestmark = pytest.mark.anyio

LOOK_UP: Any = {
    "type": "function",
    "name": "look_up",
    "description": "Looks up.",
    "parameters": {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
        "additionalProperties": False,
    },
    "strict": True,
}
CONVERSATION_ITEM: TypeAdapter[Any] = TypeAdapter(ConversationItem)
ALLOWED = ["tools", "tool_choice", "output", "settings", "limits", "extra_instructions"]


class Answer(BaseModel):
    city: str
    degrees: int


async def test_a_tool_of_the_client(open_runtime: Open) -> None:
    turns = [[Call("look_up", '{"word": "a"}', "c1"), Call("look_up", '{"word": "b"}', "c2")]]
    model = ScriptedModel([*turns, "Both.", "More."])
    agent = Agent(model, name="helper", overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, _):
        events = await events_of(
            await api.responses.create(model="helper", input="Hi.", tools=[LOOK_UP], stream=True)
        )
        asked = valid(events[-1].response)
        assert [item.type for item in asked.output] == ["function_call", "function_call"]
        assert asked.status == "completed"
        assert asked.tools[0].to_dict()["name"] == "look_up"
        (tool,) = model.requests[0].tools
        assert (tool.name, tool.description) == ("look_up", "Looks up.")
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(f"{asked.id}.2")
        outputs: list[Any] = [
            {"type": "function_call_output", "call_id": "c1", "output": "A."},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "B."}],
            },
        ]
        for wrong in (outputs[:1], "Hello.", [{**outputs[0], "call_id": "c3"}]):
            with pytest.raises(openai.BadRequestError) as error:
                await api.responses.create(
                    model="helper", input=wrong, previous_response_id=asked.id
                )
            assert error.value.param == "input"
        told = await events_of(
            await api.responses.create(
                model="helper",
                input=outputs,
                tools=[LOOK_UP],
                previous_response_id=asked.id,
                stream=True,
            )
        )
        answer = valid(told[-1].response)
        assert answer.output_text == "Both."
        assert (answer.id, answer.previous_response_id) == (f"{asked.id}.2", asked.id)
        assert (await api.responses.retrieve(answer.id)).to_dict() == answer.to_dict()
        assert (await api.responses.retrieve(asked.id)).to_dict() == asked.to_dict()
        again = await events_of(await api.responses.retrieve(answer.id, stream=True))
        assert unique(again) == unique(told)
        texts = [item.output for item in model.requests[1].items[-2:]]
        assert texts == ["A.", "B."]
        more = await api.responses.create(
            model="helper", input="More?", previous_response_id=answer.id
        )
        assert more.output_text == "More."
        assert len(model.requests[2].items) == 7


async def test_previous_responses(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two.", "Other two.", "Three."])
    async with connected(open_runtime(Agent(model, name="helper"))) as (api, client):
        first = await api.responses.create(model="helper", input="1?")
        second = await api.responses.create(
            model="helper", input="2?", previous_response_id=first.id
        )
        assert second.previous_response_id == first.id
        other = await api.responses.create(
            model="helper", input="2, again?", previous_response_id=first.id
        )
        third = await api.responses.create(
            model="helper", input="3?", previous_response_id=second.id
        )
        assert [one.output_text for one in (second, other, third)] == [
            "Two.",
            "Other two.",
            "Three.",
        ]
        texts = [[item.text for item in request.items] for request in model.requests]
        assert texts[2] == ["1?", "One.", "2, again?"]
        assert texts[3] == ["1?", "One.", "2?", "Two.", "3?"]
        threads = [
            (await client.call("GET", f"/runs/{one.id}"))["thread_id"]
            for one in (first, second, other, third)
        ]
        assert threads[0] == threads[1] == threads[3] != threads[2]
        with pytest.raises(openai.NotFoundError) as error:
            await api.responses.create(model="helper", input="?", previous_response_id="run_x")
        assert error.value.param == "previous_response_id"
        with pytest.raises(openai.BadRequestError):
            await api.responses.create(
                model="helper", input="?", previous_response_id=first.id, conversation="thread_x"
            )


async def test_a_conversation_is_a_thread(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two.", [Pause(1000)]])
    async with connected(open_runtime(Agent(model, name="helper"))) as (api, client):
        thread_id = await client.thread()
        first = valid(
            await api.responses.create(model="helper", input="1?", conversation=thread_id)
        )
        assert first.conversation is not None
        assert first.conversation.id == thread_id
        await api.responses.create(model="helper", input="2?", conversation={"id": thread_id})
        assert [item.text for item in model.requests[1].items] == ["1?", "One.", "2?"]
        waits = await api.responses.create(
            model="helper", input="3?", conversation=thread_id, background=True
        )
        with pytest.raises(openai.ConflictError):
            await api.responses.create(model="helper", input="4?", conversation=thread_id)
        with pytest.raises(openai.ConflictError):
            await api.responses.create(model="helper", input="4?", previous_response_id=waits.id)
        await api.responses.cancel(waits.id)
        with pytest.raises(openai.NotFoundError):
            await api.responses.create(model="helper", input="4?", conversation="thread_x")


async def test_outputs_in_a_conversation(open_runtime: Open) -> None:
    model = ScriptedModel([Call("look_up", '{"word": "a"}', "c1"), "Done."])
    agent = Agent(model, name="helper", overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, client):
        thread_id = await client.thread()
        await api.responses.create(
            model="helper", input="Hi.", conversation=thread_id, tools=[LOOK_UP]
        )
        output: Any = {"type": "function_call_output", "call_id": "c1", "output": "A."}
        done = await api.responses.create(
            model="helper", input=[output], conversation=thread_id, tools=[LOOK_UP]
        )
        assert done.output_text == "Done."


async def test_background_with_a_cut_at_every_event(open_runtime: Open) -> None:
    words = [Text("Let me see."), Call("weather", '{"city": "Rome"}')]
    agent = helper([Pause(1), *words], [Pause(1), Text(LONG)], tools=[weather])
    async with connected(open_runtime(agent)) as (api, _):
        made = await api.responses.create(model="helper", input="Hi.", background=True)
        assert made.status in {"queued", "in_progress"}
        assert made.background
        after, read = -1, list[Any]()
        while not read or read[-1].type != "response.completed":
            more = {"starting_after": after} if read else {}
            stream = await api.responses.retrieve(made.id, stream=True, **more)
            read.append(await anext(aiter(stream)))
            after = read[-1].sequence_number
            await stream.close()
        whole = await events_of(await api.responses.retrieve(made.id, stream=True))
        assert unique(read) == unique(whole)
        assert text_of(read) == text_of(whole) == f"Let me see.{LONG}"
        async with api.responses.stream(response_id=made.id) as helped:
            assert (await helped.get_final_response()).output_text.endswith(LONG)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "None"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "look_up"}, "look_up"),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "look_up"}],
            },
            "None",
        ),
    ],
)
async def test_tool_choice(open_runtime: Open, choice: Any, expected: str) -> None:
    turns = ["No." if expected == "none" else Call("look_up", '{"word": "a"}', "c1")]
    model = ScriptedModel(turns)
    agent = Agent(model, name="helper", overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, _):
        made = valid(
            await api.responses.create(
                model="helper", input="Hi.", tools=[LOOK_UP], tool_choice=choice
            )
        )
        assert made.status == "completed"
        sent = model.requests[0].settings.tool_choice
        assert str(getattr(sent, "name", sent)) == expected


async def test_parse(open_runtime: Open) -> None:
    good = json.dumps({"city": "Rome", "degrees": 30})
    agent = helper("{}", good, overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, _):
        made = await api.responses.parse(model="helper", input="Hi.", text_format=Answer)
        assert made.output_parsed == Answer(city="Rome", degrees=30)
        assert made.output_text == good  # without the answer that was not valid
        phases = [(item.status, getattr(item, "phase", "")) for item in made.output]
        assert phases == [("incomplete", "commentary"), ("completed", "final_answer")]


@pytest.mark.parametrize("mode", ["native", "tool", "prompted"])
async def test_parse_a_stream(open_runtime: Open, mode: Any) -> None:
    good = json.dumps({"city": "Rome", "degrees": 30})
    answers = ["{}", good]
    if mode == "tool":
        answers = [Call("final_output", answer, f"c{n}") for n, answer in enumerate(answers)]
    look = [Text("Let me see."), Call("weather", '{"city": "Rome"}')]
    agent = helper(
        look, *answers, tools=[weather], overridable=ALLOWED, output=Answer, output_mode=mode
    )
    async with connected(open_runtime(agent)) as (api, _):
        async with api.responses.stream(model="helper", input="Hi.", text_format=Answer) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        parsed = [one.parsed for one in events if one.type == "response.output_text.done"]
        assert parsed == [final.output_parsed] == [Answer(city="Rome", degrees=30)]
        assert final.output_text == f"Let me see.{good}"
        again = await events_of(await api.responses.retrieve(final.id, stream=True))
        assert again[-1].response.output[-1].status == "completed"
        assert text_of(again) == f"Let me see.{{}}{good}"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "name": "a b"}]}, None),
        ({"tool_choice": {"type": "image_generation"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"background": True, "store": False}, "background"),
        ({"max_tool_calls": 0}, "max_tool_calls"),
    ],
)
async def test_refused_options(open_runtime: Open, more: Any, param: str | None) -> None:
    async with connected(open_runtime(helper(overridable=ALLOWED))) as (_, client):
        body = {"model": "helper", "input": "Hi.", **more}
        response = await client.http.post("/v1/responses", json=body)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == param
        assert (await client.call("GET", "/threads"))["data"] == []


@pytest.fixture
def agents() -> Any:
    """The SDK, which no worker imports to collect the tests: it takes half a second."""
    import agents

    agents.set_tracing_disabled(True)
    return agents


async def test_openai_agents(open_runtime: Open, agents: Any) -> None:
    turns = [[Call("weather", '{"city": "Rome"}', "c1")], "Sunny."]
    async with connected(open_runtime(helper(*turns * 2, tools=[weather]))) as (api, _):
        remote = agents.Agent(
            name="x", model=agents.OpenAIResponsesModel(model="helper", openai_client=api)
        )
        assert (await agents.Runner.run(remote, "Hi.")).final_output == "Sunny."
        streamed = agents.Runner.run_streamed(remote, "Hi.")
        kinds = [event.type async for event in streamed.stream_events()]
        assert "raw_response_event" in kinds
        assert streamed.final_output == "Sunny."


@pytest.mark.parametrize("is_stateless", [False, True])
async def test_openai_agents_with_tools_of_its_own(
    open_runtime: Open, is_stateless: bool, agents: Any
) -> None:
    """It sends its whole history by default, and needs a previous response only if told so."""

    @agents.function_tool
    def look_up(word: str) -> str:
        """Looks up."""
        return f"{word} is a word."

    turns = [
        [
            Reasoning("So."),
            Text("Let me see."),
            Call("weather", '{"city": "Rome"}', "c1"),
            Call("look_up", '{"word": "a"}', "c2"),
        ],
        Call("look_up", '{"word": "b"}', "c3"),
        "Done.",
    ]
    model = ScriptedModel(turns * 2)
    agent = Agent(model, name="helper", tools=[weather], overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, client):
        remote = agents.Agent(
            name="x",
            model=agents.OpenAIResponsesModel(model="helper", openai_client=api),
            tools=[look_up],
            instructions="Be short.",
            model_settings=agents.ModelSettings(store=not is_stateless),
        )
        options = {} if is_stateless else {"auto_previous_response_id": True}
        done = await agents.Runner.run(remote, "Hi.", **options)
        assert done.final_output == "Done."
        streamed = agents.Runner.run_streamed(remote, "Hi.", **options)
        async for _event in streamed.stream_events():
            pass
        assert streamed.final_output == "Done."
        for last in (model.requests[2], model.requests[5]):
            read = [getattr(item, "output", "") for item in last.items]
            assert [output for output in read if output] == [
                "Sunny in Rome.",
                "a is a word.",
                "b is a word.",
            ]
        # What a client does not store waits for no answer.
        assert not (await client.call("GET", "/calls"))["data"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tool_runner_of_openai(open_runtime: Open, stream: bool) -> None:
    """It sends its whole history, and must know which calls the server may make."""

    async def look_up(arguments: dict[str, object]) -> str:
        return f"{arguments['word']} is a word."

    calls = [Call("weather", '{"city": "Rome"}', "c1"), Call("look_up", '{"word": "a"}', "c2")]
    model = ScriptedModel([[Text("Let me see."), *calls], "Done."])
    agent = Agent(model, name="helper", tools=[weather], overridable=ALLOWED)
    own: Any = {
        "type": "mcp",
        "server_label": "treadle",
        "server_url": "https://treadle.invalid",
        "require_approval": "never",
    }
    async with connected(open_runtime(agent)) as (api, _):
        runner = AsyncResponsesToolRunner(functions=[AsyncRegisteredFunction(LOOK_UP, look_up)])
        request: Any = {"model": "helper", "input": "Hi.", "tools": [own]}
        done = await runner.run(api, request, stream=stream)
        assert done.output_text == "Done."
        outputs = [item.output for item in model.requests[1].items if hasattr(item, "output")]
        assert outputs == ["Sunny in Rome.", "a is a word."]


async def test_conversations(open_runtime: Open) -> None:
    async with connected(open_runtime(helper("Blue.", "Red."))) as (api, client):
        made = await api.conversations.create(
            items=[{"role": "user", "content": "A sky."}], metadata={"a": "b"}
        )
        assert (made.metadata, made.object) == ({"a": "b"}, "conversation")
        await api.conversations.items.create(
            made.id, items=[{"type": "message", "role": "user", "content": "Its colour?"}]
        )
        await api.responses.create(model="helper", input="Well?", conversation=made.id)
        include: Any = ["reasoning.encrypted_content", "message.input_image.image_url"]
        paged = api.conversations.items.list(made.id, limit=2, include=include)
        listed = [item async for item in paged]
        for item in listed:
            CONVERSATION_ITEM.validate_python(item.to_dict())
        texts = [item.content[0].text for item in listed]
        assert texts == ["Blue.", "Well?", "Its colour?", "A sky."]
        first = await api.conversations.items.retrieve(listed[-1].id, conversation_id=made.id)
        assert first.id == listed[-1].id
        await api.conversations.items.delete(first.id, conversation_id=made.id)
        assert len((await api.conversations.items.list(made.id)).data) == 3
        changed = await api.conversations.update(made.id, metadata={"c": "d"})
        assert changed.metadata == {"c": "d"}
        assert (await api.conversations.retrieve(made.id)).to_dict() == changed.to_dict()
        assert (await client.call("GET", f"/threads/{made.id}"))["metadata"] == {"c": "d"}
        assert (await api.conversations.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await api.conversations.retrieve(made.id)


async def test_open_responses(open_runtime: Open) -> None:
    """All that is served without tools of the agent fits the types of Open Responses, too."""
    kinds = [
        getattr(openresponses_types, name)
        for name in dir(openresponses_types)
        if name.endswith("StreamingEvent")
    ]
    event: TypeAdapter[Any] = TypeAdapter(Union[tuple(kinds)])  # noqa: UP007
    response: TypeAdapter[Any] = TypeAdapter(openresponses_types.ResponseResource)
    said = '{"to_user": "Let me see.", "word": "a"}'
    turns = [
        "Hello.",
        [Text("Well."), Call("look_up", said, "c1", deltas=9)],
        [Reasoning("So."), Text("Hi.")],
        [Refusal("I will not.")],
        Turn((Text("Too lo"),), finish="length"),
        "{}",
        '{"city": "Rome", "degrees": 3}',
        [Text("Half", 2), BadRequest("A cold.")],
        [Pause(1000)],
    ]
    agent = helper(*turns, overridable=ALLOWED, to_user=True)
    schema = {"type": "json_schema", "name": "a", "schema": Answer.model_json_schema()}
    bare = {"type": "function", "name": "bare"}
    body: Any = {"model": "helper", "input": "Hi.", "tools": [LOOK_UP, bare]}

    def check(kind: TypeAdapter[Any], value: Any) -> None:
        text = value.get("response", value).get("text")
        if isinstance(text, dict) and "schema" in text["format"]:
            text["format"]["schema"] = None  # the types allow no schema there
        kind.validate_python(value)

    async with connected(open_runtime(agent)) as (_, client):
        statuses: list[str] = []
        for more in ({}, {}, {}, {}, {}, {"text": {"format": schema}, "metadata": {"a": "b"}}, {}):
            post = client.http.post("/v1/responses", json={**body, **more, "stream": True})
            text = (await post).text
            lines = [line[6:] for line in text.split("\n") if line.startswith("data: {")]
            for line in lines:
                check(event, json.loads(line))
            last = json.loads(lines[-1])["response"]
            path = f"/v1/responses/{last['id']}"
            found = (await client.http.get(path)).json()
            assert found == last
            check(response, found)
            again = (await client.http.get(f"{path}?stream=true")).text
            assert again.split("\n")[-6:] == text.split("\n")[-6:]
            statuses.append(last["status"])
        assert statuses == [*["completed"] * 4, "incomplete", "completed", "failed"]
        made = (await client.http.post("/v1/responses", json={**body, "background": True})).json()
        check(response, made)
        check(response, (await client.http.post(f"/v1/responses/{made['id']}/cancel")).json())
        text = (await client.http.get(f"/v1/responses/{made['id']}?stream=true")).text
        for line in text.split("\n"):
            if line.startswith("data: {"):
                check(event, json.loads(line[6:]))


async def test_a_text_for_the_user_is_commentary(open_runtime: Open) -> None:
    """It grows before its call, whose arguments do not repeat it, and can be cut anywhere."""
    said = 'Let me look at \U0001f33b, "please".'
    twice = json.dumps({"to_user": said})[:-1] + ', "to_user": "Other.", "city": "Rome"}'
    turns = [
        Turn(
            (
                Text("Well."),
                Call("weather", twice, "c1", deltas=30),
                Call("look_up", json.dumps({"to_user": "You, too.", "word": "a"}), "c2"),
            ),
            every=0.001,
        ),
        "Sunny.",
    ]
    agent = helper(*turns, tools=[weather], to_user=True, overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, _):
        events = await events_of(
            await api.responses.create(model="helper", input="Hi.", tools=[LOOK_UP], stream=True)
        )
        final = valid(events[-1].response)
        items = [item.to_dict() for item in final.output]
        kinds = ["message", "message", "mcp_call", "message", "function_call"]
        assert [item["type"] for item in items] == kinds
        assert [item["content"][0]["text"] for item in items if item["type"] == "message"] == [
            "Well.",
            said,
            "You, too.",
        ]
        assert [item["phase"] for item in items if item["type"] == "message"] == ["commentary"] * 3
        assert [item["arguments"] for item in items if "arguments" in item] == [
            '{"city":"Rome"}',
            '{"word":"a"}',
        ]
        grown = [one for one in events if one.type == "response.output_text.delta"]
        assert sum(one.item_id == items[1]["id"] for one in grown) > 1
        for left, event in enumerate(events):
            rest = await events_of(
                await api.responses.retrieve(
                    final.id, stream=True, starting_after=event.sequence_number
                )
            )
            joined = [*events[: left + 1], *rest]
            assert unique(joined) == unique(events)
            assert text_of(joined) == text_of(events)
        done = await api.responses.create(
            model="helper",
            input=[{"type": "function_call_output", "call_id": "c2", "output": "A."}],
            previous_response_id=final.id,
        )
        assert done.output_text == "Sunny."


async def test_a_text_for_the_user_that_broke_off(open_runtime: Open) -> None:
    begun = Unfinished(Call("weather", '{"to_user": "Let me lo'))
    broken = [begun, Pause(1), StreamIncomplete("Cut off.")]
    whole = [Call("weather", '{"to_user": "Let me see.", "city": "Rome"}')]
    agent = helper(broken, whole, "Sunny.", tools=[weather], to_user=True)
    async with connected(open_runtime(agent)) as (api, _):
        read: list[Any] = []
        with pytest.raises(openai.APIError, match="broke off"):
            async for event in await api.responses.create(model="helper", input="?", stream=True):
                read.append(event)
        assert text_of(read).startswith("Let me")
        assert read[-1].type == "response.output_item.done"
        assert read[-1].item.status == "incomplete"
        id = read[0].response.id
        events = await events_of(await api.responses.retrieve(id, stream=True))
        assert text_of(events) == "Let me see.Sunny."


async def test_approvals(open_runtime: Open) -> None:
    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        """Pays."""
        return f"Paid {amount}."

    turns = [[Call("pay", '{"amount": 1}', "c1"), Call("pay", '{"amount": 2}', "c2")], "Done."]
    keys = ring(boss=("a", "read write approve"), clerk=("a", "read write"))
    agent = helper(*turns, tools=[pay])
    async with connected(open_runtime(agent), keys.of["boss"], settings=AUTH, keys=keys.keys) as (
        api,
        _,
    ):
        asked = valid(await api.responses.create(model="helper", input="Pay."))
        assert [item.type for item in asked.output] == ["mcp_approval_request"] * 2
        answers: list[Any] = [
            {
                "type": "mcp_approval_response",
                "approval_request_id": item.id,
                "approve": index == 0,
                "reason": "Too much.",
            }
            for index, item in enumerate(asked.output)
        ]
        output = {"type": "function_call_output", "call_id": "c1", "output": "Paid."}
        for wrong in (answers[:1], [{**answers[0], "approve": "yes"}], [output, answers[1]]):
            with pytest.raises(openai.BadRequestError):
                await api.responses.create(
                    model="helper", input=wrong, previous_response_id=asked.id
                )
        with pytest.raises(openai.PermissionDeniedError):
            await api.with_options(api_key=keys.of["clerk"]).responses.create(
                model="helper", input=answers, previous_response_id=asked.id
            )
        events = await events_of(
            await api.responses.create(
                model="helper", input=answers, previous_response_id=asked.id, stream=True
            )
        )
        done = valid(events[-1].response)
        paid, denied, said = (item.to_dict() for item in done.output)
        assert (paid["output"], paid["approval_request_id"]) == ("Paid 1.", asked.output[0].id)
        assert denied["status"] == "failed"
        assert "Too much." in json.dumps(denied["error"])
        assert said["phase"] == "final_answer"
        again = await events_of(await api.responses.retrieve(done.id, stream=True))
        assert unique(again) == unique(events)


async def test_an_image_and_a_file(open_runtime: Open) -> None:
    model = ScriptedModel(["Seen."])
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDw"
        "ADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    async with connected(open_runtime(Agent(model, name="helper"))) as (api, _):
        content: Any = [
            {"type": "input_text", "text": "Look."},
            {"type": "input_image", "image_url": pixel, "detail": "auto"},
            {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,SGk="},
        ]
        made = await api.responses.create(
            model="helper", input=[{"role": "user", "content": content}]
        )
        parts = [type(part).__name__ for part in model.requests[0].items[0].content]
        assert parts == ["InputText", "InputImage", "InputFile"]
        listed = await api.responses.input_items.list(made.id)
        assert [part.type for part in listed.data[0].content] == [
            "input_text",
            "input_image",
            "input_file",
        ]


async def test_a_response_ends_when_the_calls_of_the_agent_have(open_runtime: Open) -> None:
    @tool
    async def slow() -> str:
        """Takes its time."""
        await asyncio.sleep(5)
        return "Slow."

    asks = [Call("slow", "{}", "c1"), Call("look_up", '{"word": "a"}', "c2")]
    agent = helper(asks, asks, "Done.", "Done.", asks, "Done.", tools=[slow], overridable=ALLOWED)
    async with connected(open_runtime(agent)) as (api, client):
        request: Any = {"model": "helper", "input": "Hi.", "tools": [LOOK_UP]}
        made = await api.responses.create(**request)
        events = await events_of(await api.responses.create(**request, stream=True))
        for response in (made, events[-1].response):
            call, asked = response.output
            assert (call.type, call.status, call.output) == ("mcp_call", "completed", "Slow.")
            assert asked.type == "function_call"
            output: Any = {"type": "function_call_output", "call_id": "c2", "output": "A."}
            done = await api.responses.create(
                model="helper", input=[output], previous_response_id=response.id
            )
            assert [item.type for item in done.output] == ["message"]
        # Another client is faster: the response has nothing left to ask.
        read: list[Any] = []
        async for event in await api.responses.create(**request, stream=True):
            read.append(event)
            if event.type == "response.function_call_arguments.done":
                record = await client.call("GET", f"/runs/{read[0].response.id}")
                await client.call(
                    "POST", f"/threads/{record['thread_id']}/calls/c2/output", {"output": "B."}
                )
        assert [item.type for item in read[-1].response.output] == [
            "mcp_call", "function_call", "message"
        ]  # fmt: skip
        again = await events_of(await api.responses.retrieve(read[0].response.id, stream=True))
        assert unique(again) == unique(read)
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(f"{read[0].response.id}.2")


async def test_what_another_owner_has_is_not_found(open_runtime: Open) -> None:
    keys = ring(alice=("alice", "read write"), bob=("bob", "read write approve"))
    agent = helper(Call("look_up", '{"word": "a"}', "c1"), "One.", "Two.", overridable=ALLOWED)
    async with connected(open_runtime(agent), keys.of["alice"], settings=AUTH, keys=keys.keys) as (
        alice,
        _,
    ):
        bob = alice.with_options(api_key=keys.of["bob"])
        conversation = await alice.conversations.create()
        asked = await alice.responses.create(
            model="helper", input="Hi.", conversation=conversation.id, tools=[LOOK_UP]
        )
        output: Any = {"type": "function_call_output", "call_id": "c1", "output": "Mine."}
        for given in ([output], "Hi."):
            for where in ({"previous_response_id": asked.id}, {"conversation": conversation.id}):
                with pytest.raises(openai.NotFoundError) as error:
                    await bob.responses.create(model="helper", input=given, **where)
                assert error.value.param in where
        for call in (bob.responses.retrieve, bob.responses.cancel, bob.responses.delete):
            with pytest.raises(openai.NotFoundError):
                await call(asked.id)
        with pytest.raises(openai.NotFoundError):
            await bob.responses.retrieve(asked.id, stream=True)
        with pytest.raises(openai.NotFoundError):
            await bob.responses.input_items.list(asked.id)
        with pytest.raises(openai.NotFoundError):
            await bob.conversations.items.list(conversation.id)
        done = await alice.responses.create(
            model="helper", input=[output], previous_response_id=asked.id
        )
        assert done.output_text == "One."
        # The same key of another owner is another request.
        headers = {"idempotency-key": "k"}
        other = await bob.responses.create(model="helper", input="Hi.", extra_headers=headers)
        assert other.output_text == "Two."
        with pytest.raises(openai.NotFoundError):
            await alice.responses.retrieve(other.id)


async def test_readers_that_leave_at_random(open_runtime: Open) -> None:
    """Four readers of one response; each has every event once, however often it left."""
    rng = random.Random(7)
    turn = (
        Reasoning("So, so."),
        Text(LONG),
        Call("weather", '{"to_user": "Ah, so.", "city": "X"}'),
    )
    agent = helper(
        Turn(turn, every=0.01), Turn((Text(LONG),), every=0.01), tools=[weather], to_user=True
    )
    async with connected(open_runtime(agent)) as (api, client):
        made = await api.responses.create(model="helper", input="Hi.", background=True)

        async def read() -> list[Any]:
            seen: list[Any] = []
            while not seen or seen[-1].type != "response.completed":
                more = {"starting_after": seen[-1].sequence_number} if seen else {}
                stream = await api.responses.retrieve(made.id, stream=True, **more)
                left = rng.randrange(1, 12)
                async for event in stream:
                    seen.append(event)
                    left -= 1
                    if not left:
                        break
                await stream.close()
                await asyncio.sleep(rng.random() / 50)
            return seen

        every = await asyncio.gather(*(read() for _ in range(4)))
        whole = await events_of(await api.responses.retrieve(made.id, stream=True))
        for seen in every:
            assert unique(seen) == unique(whole)
            assert text_of(seen) == text_of(whole) == f"{LONG}Ah, so.{LONG}"
        await opened(client, 0)
