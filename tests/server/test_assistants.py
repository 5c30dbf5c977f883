"""The Assistants API, with the helpers of the client of OpenAI."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncAssistantEventHandler, AsyncOpenAI
from openai.types.beta import Assistant, AssistantStreamEvent
from openai.types.beta import Thread as AssistantsThread
from openai.types.beta.threads import Message, Run
from openai.types.beta.threads.runs import RunStep
from pydantic import TypeAdapter
from tests.server.serving import Client, opened, serving

from treadle import Agent, Runtime, Usage, tool
from treadle.errors import BadRequest, StreamIncomplete
from treadle.journal.memory import MemoryJournal
from treadle.runtime.thread import Thread
from treadle.server.assistants.found_objects import read_object, read_run
from treadle.testing import Call, Pause, Refusal, ScriptedModel, Text, Turn, Unfinished

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

EVENT: TypeAdapter[Any] = TypeAdapter(AssistantStreamEvent)
ALLOWED = ("tools", "output", "settings", "extra_instructions", "instructions", "limits")
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
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


def helper(*turns: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel(list(turns)), name="helper", **{"overridable": ALLOWED} | options)


@asynccontextmanager
async def connected(agent: Agent, **options: Any) -> AsyncGenerator[tuple[Any, Client]]:
    async with serving(Runtime(MemoryJournal(), agents=[agent]), **options) as client:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            yield api.beta, client


async def started(beta: Any, text: str = "Hi.") -> str:
    """Makes a thread with a message."""
    thread = AssistantsThread.model_validate((await beta.threads.create()).to_dict())
    made = await beta.threads.messages.create(thread.id, role="user", content=text)
    assert Message.model_validate(made.to_dict()).run_id is None
    return thread.id


async def texts_of(beta: Any, thread_id: str, **query: Any) -> list[str]:
    page = await beta.threads.messages.list(thread_id, order="asc", **query)
    valid = [Message.model_validate(one.to_dict()) for one in page.data]
    return [one.content[0].text.value for one in valid]  # type: ignore[union-attr]


class Handler(AsyncAssistantEventHandler):
    """Collects what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.kinds: list[str] = []
        self.calls: list[str] = []
        self.errors: list[Exception] = []

    async def on_event(self, event: Any) -> None:
        EVENT.validate_python(event.to_dict())
        self.kinds.append(event.event)

    async def on_text_delta(self, delta: Any, snapshot: Any) -> None:
        self.text += delta.value
        assert snapshot.value

    async def on_tool_call_created(self, tool_call: Any) -> None:
        self.calls.append(tool_call.function.name)

    async def on_exception(self, exception: Exception) -> None:
        self.errors.append(exception)


async def test_polling() -> None:
    turn = Turn((Text("Hello, you."),), usage=Usage(9, 3))
    async with connected(helper(turn, "Again.")) as (beta, client):
        thread_id = await started(beta)
        run = await beta.threads.runs.create_and_poll(
            thread_id=thread_id, assistant_id="helper", metadata={"a": "b"}
        )
        assert Run.model_validate(run.to_dict()).status == "completed"
        assert run.usage.total_tokens == 12
        assert run.metadata == {"a": "b"}
        assert run.started_at
        assert run.completed_at
        assert await texts_of(beta, thread_id) == ["Hi.", "Hello, you."]
        assert await texts_of(beta, thread_id, run_id=run.id) == ["Hello, you."]
        (newest, _) = (await beta.threads.messages.list(thread_id)).data
        assert (newest.run_id, newest.assistant_id) == (run.id, "helper")
        assert (await beta.threads.messages.retrieve(newest.id, thread_id=thread_id)) == newest
        (step,) = (await beta.threads.runs.steps.list(run.id, thread_id=thread_id)).data
        valid = RunStep.model_validate(step.to_dict())
        assert (valid.type, valid.status) == ("message_creation", "completed")
        found = await beta.threads.runs.steps.retrieve(step.id, thread_id=thread_id, run_id=run.id)
        assert found == step
        raw = await beta.threads.runs.with_raw_response.retrieve(run.id, thread_id=thread_id)
        assert raw.headers["openai-poll-after-ms"] == "100"
        more = await beta.threads.runs.create_and_poll(
            thread_id=thread_id,
            assistant_id="helper",
            additional_messages=[{"role": "user", "content": "And?"}],
        )
        listed = await beta.threads.runs.list(thread_id)
        assert [one.id for one in listed.data] == [more.id, run.id]
        one = await beta.threads.runs.list(thread_id, limit=1)
        assert [run.id async for run in one] == [more.id, run.id]
        # A run and a message have the ids of the native API.
        assert (await client.call("GET", f"/runs/{run.id}"))["status"] == "completed"


async def test_streaming_to_a_handler() -> None:
    turn = [Text("Let me see."), Call("weather", '{"city": "Rome"}')]
    agent = helper(turn, Turn((Text("It is sunny in Rome."),), every=0.001), tools=[weather])
    async with connected(agent) as (beta, _):
        thread_id = await started(beta)
        handler = Handler()
        async with beta.threads.runs.stream(
            thread_id=thread_id, assistant_id="helper", event_handler=handler
        ) as stream:
            await stream.until_done()
        assert handler.text == "Let me see.It is sunny in Rome."
        assert handler.calls == ["weather"]
        assert handler.kinds[:3] == [
            "thread.run.created",
            "thread.run.queued",
            "thread.run.in_progress",
        ]
        assert handler.kinds[-1] == "thread.run.completed"
        assert handler.kinds.count("thread.message.delta") > 3
        run = await handler.get_final_run()
        messages = await handler.get_final_messages()
        assert [one.content[0].text.value for one in messages] == [
            "Let me see.", "It is sunny in Rome."
        ]  # fmt: skip
        steps = await handler.get_final_run_steps()
        assert len(steps) == 3
        listed = (await beta.threads.runs.steps.list(run.id, thread_id=thread_id, order="asc")).data
        assert [step.type for step in listed] == [
            "message_creation", "tool_calls", "message_creation"
        ]  # fmt: skip
        assert listed[1].step_details.tool_calls[0].function.output == "Sunny in Rome."
        assert await texts_of(beta, thread_id) == ["Hi.", "Let me see.", "It is sunny in Rome."]


async def test_functions_of_the_client() -> None:
    turns = [[Call("ask", '{"of": "a"}', "c1"), Call("ask", '{"of": "b"}', "c2")], "Both."] * 3
    async with connected(helper(*turns)) as (beta, _):
        thread_id = await started(beta)
        outputs = [{"tool_call_id": id, "output": f"{id}!"} for id in ("c1", "c2")]
        run = await beta.threads.runs.create_and_poll(
            thread_id=thread_id, assistant_id="helper", tools=[ASK]
        )
        assert Run.model_validate(run.to_dict()).status == "requires_action"
        calls = run.required_action.submit_tool_outputs.tool_calls
        assert [(one.id, one.function.name) for one in calls] == [("c1", "ask"), ("c2", "ask")]
        for wrong, code in (
            (outputs[:1], "output_missing"),
            ([*outputs, {"tool_call_id": "c3", "output": ""}], "invalid_value"),
            ([], "output_missing"),
        ):
            with pytest.raises(openai.BadRequestError) as error:
                await beta.threads.runs.submit_tool_outputs(
                    run.id, thread_id=thread_id, tool_outputs=wrong
                )
            assert error.value.code == code
        with pytest.raises(openai.ConflictError):
            await beta.threads.messages.create(thread_id, role="user", content="And?")
        done = await beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=thread_id, tool_outputs=outputs
        )
        assert (done.status, done.required_action) == ("completed", None)
        with pytest.raises(openai.BadRequestError):
            await beta.threads.runs.submit_tool_outputs(
                run.id, thread_id=thread_id, tool_outputs=outputs
            )
        # Streamed: the answers continue in a stream of their own.
        handler, more = Handler(), Handler()
        async with beta.threads.create_and_run_stream(
            assistant_id="helper",
            thread={"messages": [{"role": "user", "content": "Hi."}]},
            tools=[ASK],
            event_handler=handler,
        ) as stream:
            await stream.until_done()
        assert handler.kinds[0] == "thread.created"
        assert handler.kinds[-1] == "thread.run.requires_action"
        waiting = await handler.get_final_run()
        async with beta.threads.runs.submit_tool_outputs_stream(
            run_id=waiting.id,
            thread_id=waiting.thread_id,
            tool_outputs=outputs,
            event_handler=more,
        ) as stream:
            await stream.until_done()
        assert more.text == "Both."
        assert more.kinds[:2] == ["thread.run.step.completed"] * 2
        assert "thread.run.created" not in more.kinds
        assert more.kinds[-1] == "thread.run.completed"
        made = await beta.threads.create_and_run(
            assistant_id="helper",
            thread={"messages": [{"role": "user", "content": "Hi."}]},
            tools=[ASK],
        )
        polled = await beta.threads.runs.poll(made.id, thread_id=made.thread_id)
        assert polled.status == "requires_action"
        steps = (await beta.threads.runs.steps.list(made.id, thread_id=made.thread_id)).data
        assert {step.status for step in steps} == {"in_progress"}
        await beta.threads.runs.cancel(made.id, thread_id=made.thread_id)
        cancelled = await beta.threads.runs.poll(made.id, thread_id=made.thread_id)
        assert cancelled.status == "cancelled"
        assert cancelled.cancelled_at


async def test_create_and_run_poll_and_what_is_said_while_acting() -> None:
    call = Call("weather", '{"to_user": "I look at the sky.", "city": "Rome"}')
    agent = helper(Turn((call,), every=0.001), "Sunny.", tools=[weather], to_user=True)
    async with connected(agent) as (beta, _):
        run = await beta.threads.create_and_run_poll(
            assistant_id="helper", thread={"messages": [{"role": "user", "content": "Hi."}]}
        )
        assert run.status == "completed"
        assert await texts_of(beta, run.thread_id) == ["Hi.", "I look at the sky.", "Sunny."]


async def test_an_approval_from_elsewhere() -> None:
    agent = helper([Call("pay", '{"euros": 5}', "c1")], "Paid.", tools=[pay])
    async with connected(agent) as (beta, client):
        thread_id = await started(beta)
        run = await beta.threads.runs.create(thread_id, assistant_id="helper")
        while not (await client.call("GET", "/calls"))["data"]:
            pass
        run = await beta.threads.runs.retrieve(run.id, thread_id=thread_id)
        assert (run.status, run.required_action) == ("in_progress", None)
        await client.call("POST", f"/threads/{thread_id}/calls/c1/approve")
        run = await beta.threads.runs.poll(run.id, thread_id=thread_id)
        assert run.status == "completed"


async def test_failures() -> None:
    half = Unfinished(Text("Half a sent"))
    cold = [half, Pause(0.01), BadRequest("The model has a cold.")]
    broken = [half, Pause(1), StreamIncomplete("Cut off.")]
    agent = helper(cold, broken, "All of it.", [Refusal("No.")])
    async with connected(agent) as (beta, _):
        thread_id, handler = await started(beta), Handler()
        async with beta.threads.runs.stream(
            thread_id=thread_id, assistant_id="helper", event_handler=handler
        ) as stream:
            await stream.until_done()
        run = await handler.get_final_run()
        assert (run.status, run.last_error.message) == ("failed", "The model has a cold.")
        assert "thread.message.incomplete" in handler.kinds
        assert await texts_of(beta, thread_id) == ["Hi."]
        # A text that broke off is a message that is incomplete; another one follows.
        handler = Handler()
        async with beta.threads.runs.stream(
            thread_id=thread_id, assistant_id="helper", event_handler=handler
        ) as stream:
            await stream.until_done()
        messages = await handler.get_final_messages()
        assert [one.status for one in messages] == ["incomplete", "completed"]
        assert await texts_of(beta, thread_id) == ["Hi.", "All of it."]
        await beta.threads.messages.create(thread_id, role="user", content="And?")
        run = await beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="helper")
        (newest, *_) = (await beta.threads.messages.list(thread_id)).data
        assert newest.content[0].refusal == "No."


async def test_a_server_that_ends() -> None:
    async with connected(helper([Pause(1000)])) as (beta, client):
        thread_id = await started(beta)
        handler = Handler()
        with pytest.raises(openai.APIError) as error:
            async with beta.threads.runs.stream(
                thread_id=thread_id, assistant_id="helper", event_handler=handler
            ) as stream:
                await opened(client, 1)
                await client.app.services.open_requests.drain(5.0)
                await stream.until_done()
        assert error.value.code == "draining"
        assert handler.errors == [error.value]
        with pytest.raises(openai.InternalServerError):
            await beta.threads.runs.create(thread_id, assistant_id="helper")


async def test_assistants_and_threads() -> None:
    async with connected(helper("One.", "Two.")) as (beta, _):
        (assistant,) = (await beta.assistants.list()).data
        assert Assistant.model_validate(assistant.to_dict()).id == "helper"
        assert (await beta.assistants.retrieve("helper")) == assistant
        with pytest.raises(openai.NotFoundError):
            await beta.assistants.retrieve("other")
        with pytest.raises(openai.APIStatusError):
            await beta.assistants.create(model="gpt-4o")
        thread = await beta.threads.create(
            messages=[{"role": "user", "content": "Hi."}], metadata={"a": "b", "c": "d"}
        )
        assert (await beta.threads.retrieve(thread.id)).metadata == {"a": "b", "c": "d"}
        changed = await beta.threads.update(thread.id, metadata={"a": "e"})
        assert changed.metadata == {"a": "e"}
        (message,) = (await beta.threads.messages.list(thread.id)).data
        await beta.threads.messages.delete(message.id, thread_id=thread.id)
        assert await texts_of(beta, thread.id) == []
        with pytest.raises(openai.BadRequestError):
            await beta.threads.messages.list(thread.id, after="msg_x")
        assert (await beta.threads.delete(thread.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await beta.threads.retrieve(thread.id)


async def test_audio_in_a_message() -> None:
    async with connected(helper("One.")) as (beta, client):
        thread_id = await started(beta)
        part = {"type": "input_audio", "audio_url": f"data:audio/wav;base64,{WAV}"}
        items = [{"role": "user", "content": [part]}]
        await client.call("POST", f"/threads/{thread_id}/items", {"items": items})
        assert await texts_of(beta, thread_id) == ["Hi.", "[audio]"]


async def test_messages_of_a_run_have_the_limit_of_messages() -> None:
    async with connected(helper("One.")) as (beta, client):
        path = f"/v1/threads/{await started(beta)}/runs"
        big = "x" * (client.app.services.settings.max_message_bytes + 1)
        for role in ("user", "assistant"):
            body = {
                "assistant_id": "helper",
                "additional_messages": [{"role": role, "content": big}],
            }
            assert (await client.http.post(path, json=body)).status_code == 413


async def test_a_repeated_run_adds_its_messages_once() -> None:
    async with connected(helper("One.", "Two.")) as (beta, client):
        thread_id = await started(beta)
        await beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="helper")
        body = {
            "assistant_id": "helper",
            "additional_messages": [
                {"role": "assistant", "content": "Anything else?"},
                {"role": "user", "content": "No."},
            ],
        }
        headers = {"idempotency-key": "k"}
        path = f"/v1/threads/{thread_id}/runs"
        ids: set[str] = set()
        for _ in range(2):
            made = await client.http.post(path, json=body, headers=headers)
            ids.add(made.json()["id"])
            await beta.threads.runs.poll(made.json()["id"], thread_id=thread_id)
        assert len(ids) == 1
        assert await texts_of(beta, thread_id) == ["Hi.", "One.", "Anything else?", "No.", "Two."]


async def test_a_poll_makes_no_frames() -> None:
    async with connected(helper("One.")) as (beta, client):
        thread_id = await started(beta)
        made = await beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="helper")
        thread = await client.app.services.runtime.connect(thread_id)
        fold, _ = await read_run(thread, await thread.run(made.id))
        assert fold.run["status"] == "completed"
        assert not fold._frames


@pytest.mark.parametrize(
    ("shown", "turns"),
    [
        ("completed", [Turn((Text("Yes."),), usage=Usage(9, 3))]),
        ("completed", [[Call("weather", '{"city": "Rome"}')], "Sunny."]),
        ("completed", [[Call("transfer_to_other", "{}")]]),
        ("failed", [BadRequest("The model has a cold.")]),
        ("incomplete", [Turn((Text("Half"),), usage=Usage(9, 3), finish="length")]),
        ("requires_action", [[Call("ask", '{"of": "a"}', "c1")]]),
        ("in_progress", [[Call("pay", '{"euros": 5}', "c1")]]),
        ("in_progress", [[Call("pay", '{"euros": 5}', "c1"), Call("ask", '{"of": "a"}', "c2")]]),
        ("cancelled", [[Pause(1000)]]),
    ],
)
async def test_the_row_of_a_run_gives_what_its_events_give(shown: str, turns: Any) -> None:
    other = Agent(ScriptedModel(["It is me."]), name="other", description="Knows more.")
    agent = helper(*turns, tools=[weather, pay], handoffs=[other])
    status = "requires_action" if shown == "in_progress" else shown
    async with connected(agent) as (beta, client):
        thread_id = await started(beta)
        made = await beta.threads.runs.create(
            thread_id, assistant_id="helper", metadata={"a": "b"}, tools=[ASK]
        )
        thread = await client.app.services.runtime.connect(thread_id)
        run = await thread.run(made.id)
        if shown == "cancelled":
            await run.cancel()
        while (await run.info()).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0)
        fold, _ = await read_run(thread, run)
        polled = await read_object(thread, await run.info())
        assert polled["status"] == shown
        assert polled["assistant_id"] == "helper"
        assert polled == (fold.run | {"expires_at": polled["expires_at"]})
        (listed,) = (await beta.threads.runs.list(thread_id)).data
        assert listed.to_dict() == polled
        assert await texts_of(beta, thread_id, run_id="run_x") == []


async def test_a_poll_reads_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = helper("One.", [Call("pay", '{"euros": 5}', "c1")], tools=[pay])
    async with connected(agent) as (beta, client):
        thread_id = await started(beta)
        made = await beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="helper")
        await beta.threads.messages.create(thread_id, role="user", content="Pay.")
        waits = await beta.threads.runs.create(thread_id, assistant_id="helper")
        while not (await client.call("GET", "/calls"))["data"]:
            pass
        monkeypatch.setattr(Thread, "events", None)
        for run, status in ((made, "completed"), (waits, "in_progress")):
            polled = await beta.threads.runs.retrieve(run.id, thread_id=thread_id)
            assert polled.status == status
        assert len((await beta.threads.runs.list(thread_id)).data) == 2


async def test_what_the_agent_allows_reaches_the_model() -> None:
    model = ScriptedModel(["Yes."])
    agent = Agent(model, name="helper", instructions="You help.", overridable=ALLOWED)
    async with connected(agent) as (beta, _):
        await beta.threads.runs.create_and_poll(
            thread_id=await started(beta),
            assistant_id="helper",
            instructions="You are short.",
            additional_instructions="Be kind.",
            temperature=0.5,
            max_completion_tokens=100,
            tools=[ASK],
        )
        request = model.requests[0]
        assert request.instructions == "You are short.\n\nBe kind."
        assert request.settings.temperature == 0.5
        assert request.settings.max_output_tokens == 100
        assert [one.name for one in request.tools] == ["ask"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"instructions": "x"}, "instructions"),
        ({"additional_instructions": "x"}, "additional_instructions"),
        ({"temperature": 0.5}, "temperature"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].type"),
        ({"tools": [ASK]}, "tools"),
        ({"max_prompt_tokens": 5}, "max_prompt_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"model": "gpt-4o"}, "model"),
        ({"truncation_strategy": {"type": "last_messages", "last_messages": 1}}, None),
        ({"additional_messages": [{"role": "user", "content": ""}]}, None),
    ],
)
async def test_what_is_not_served_is_refused(given: dict[str, Any], param: str | None) -> None:
    async with connected(helper(overridable=())) as (beta, client):
        thread_id = await started(beta)
        body = {"assistant_id": "helper"} | given
        refused = await client.http.post(f"/v1/threads/{thread_id}/runs", json=body)
        assert refused.status_code == 400, refused.text
        if param is not None:
            assert refused.json()["error"]["param"] == param
        assert (await beta.threads.runs.list(thread_id)).data == []
        empty = await beta.threads.create()
        with pytest.raises(openai.BadRequestError):
            await beta.threads.runs.create(empty.id, assistant_id="helper")
