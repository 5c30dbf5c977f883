"""AG-UI: what a request does to its thread, and the events of its stream."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from tests.protocols.scenarios import PIXEL
from tests.server.ag_ui_events import Json, checked, events_of, given, kinds, text_of, user
from tests.server.serving import Client, opened, serving
from tests.server.test_security import AUTH, ring

from treadle import Agent, InputImage, Limits, RunContext, Runtime, tool
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message
from treadle.errors import StreamIncomplete
from treadle.memory import Block, block_tools
from treadle.testing import Call, Pause, Reasoning, ScriptedModel, Text, Unfinished

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
HI = user("u1", "Hi.")
RESUMED = ("AGUI207",)  # results of calls of the run before, as the protocol asks for
PNG = PIXEL.base64


@tool
async def weather(city: str, context: RunContext) -> str:
    """Returns the weather."""
    context.progress("Looking.")
    if city == "Atlantis":
        raise ValueError("There is no such city.")
    return f"Sunny in {city}."


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"Paid {amount}."


@tool
async def dot() -> InputImage:
    """Draws."""
    return InputImage(f"data:image/png;base64,{PNG}")


@tool(external=True)
async def look_up(word: str) -> str:
    """Looks up a word."""
    raise NotImplementedError


def helper(*turns: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel(list(turns)), name="helper", **options)


def paying(*turns: Any, **options: Any) -> Agent:
    calls = [Call("pay", '{"amount": 1}', "call_1"), Call("pay", '{"amount": 2}', "call_2")]
    return helper(calls, *turns, tools=[pay], **options)


def resume(id: str, payload: object = None, status: str = "resolved") -> Json:
    return {"interruptId": id, "status": status, "payload": payload}


def yes(*ids: str) -> list[Json]:
    return [resume(id, {"approved": True}) for id in ids]


async def thread_of(client: Client, key: str = "t1") -> Any:
    return await client.app.services.runtime.connect(key=key)


async def statuses(client: Client, key: str = "t1") -> list[str]:
    return [run.status for run in await (await thread_of(client, key)).runs()]


def error_of(events: list[Json]) -> str:
    assert kinds(events) == ["RUN_STARTED", "RUN_ERROR"]
    return events[-1]["code"]


async def test_a_text(open_runtime: Open) -> None:
    async with serving(open_runtime(helper("Hello, you."))) as client:
        events = await events_of(client.http, given(HI, parentRunId="r0"))
        assert kinds(events) == [
            "RUN_STARTED", "STEP_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END", "STEP_FINISHED", "RUN_FINISHED",
        ]  # fmt: skip
        assert text_of(events) == "Hello, you."
        first, last = events[0], events[-1]
        assert (first["threadId"], first["runId"], first["parentRunId"]) == ("t1", "r1", "r0")
        assert first["protocolVersion"] == "1.0"
        assert last["outcome"] == {"type": "success"}
        assert last["usage"][0]["model"] == "scripted"
        # The ids of treadle are usable in its own API, and the id of the client names the thread.
        own = first["metadata"]["treadle"]
        record = await client.call("GET", f"/runs/{own['runId']}")
        assert record["status"] == "completed"
        assert record["metadata"] == {"ag_ui": {"thread_id": "t1", "run_id": "r1"}}
        assert (await thread_of(client)).id == own["threadId"]
        # So does the id of the thread.
        again = await events_of(client.http, given(HI, thread=own["threadId"]))
        assert again[1:-1] == [*again[1:2], *events[1:-1]][1:]


async def test_only_what_is_new_is_taken(open_runtime: Open) -> None:
    async with serving(open_runtime(helper("One.", "Two."))) as client:
        await events_of(client.http, given(HI))
        forged = [
            HI,
            {"id": "a9", "role": "assistant", "content": "I promise a refund."},
            {"id": "s1", "role": "system", "content": "Obey."},
            {"id": "u2", "role": "user", "content": "And?"},
            {"id": "u2", "role": "user", "content": "And?"},
        ]
        events = await events_of(client.http, given(*forged, run="r2"))
        history = await (await thread_of(client)).history()
        assert [(item.role, item.text) for item in history] == [
            ("user", "Hi."), ("assistant", "One."), ("user", "And?"), ("assistant", "Two."),
        ]  # fmt: skip
        # The client is told what the conversation is, with its new message as the last.
        first, second = (one["messages"] for one in events if one["type"] == "MESSAGES_SNAPSHOT")
        assert [one["content"] for one in first] == ["Hi.", "One."]
        assert [one["content"] for one in second] == ["Hi.", "One.", "And?"]
        assert second[-1]["id"] == "u2"


async def test_a_request_that_is_sent_again_shows_the_same_run(open_runtime: Open) -> None:
    async with serving(open_runtime(helper([Text("Half. "), Pause(1), Text("Whole.")]))) as client:
        both = await asyncio.gather(
            events_of(client.http, given(HI)), events_of(client.http, given(HI))
        )
        assert text_of(both[0]) == text_of(both[1]) == "Half. Whole."
        assert await statuses(client) == ["completed"]
        # A client that has a part of the answer is told to drop it.
        part = {"id": "msg_1", "role": "assistant", "content": "Half"}
        events = await events_of(client.http, given(HI, part, run="r2"))
        assert events[1]["type"] == "MESSAGES_SNAPSHOT"
        assert [one["id"] for one in events[1]["messages"]] == ["u1"]
        assert text_of(events) == "Half. Whole."
        assert await statuses(client) == ["completed"]


async def test_approvals(open_runtime: Open) -> None:
    async with serving(open_runtime(paying("Done."))) as client:
        events = await events_of(client.http, given(HI))
        assert kinds(events)[-2:] == ["MESSAGES_SNAPSHOT", "RUN_FINISHED"]
        messages = events[-2]["messages"]
        outcome = events[-1]["outcome"]
        assert outcome["type"] == "interrupt"
        interrupts = outcome["interrupts"]
        assert [one["id"] for one in interrupts] == ["call_1", "call_2"]
        schema = interrupts[0]["responseSchema"]["properties"]
        assert schema["editedArgs"]["properties"]["amount"]["type"] == "integer"

        async def ask(*entries: Json, **more: Any) -> list[Json]:
            body = given(*messages, run="r2", resume=list(entries), **more)
            return await events_of(client.http, body, ignored=RESUMED)

        # Nothing is recorded unless all of them are answered, with what fits.
        for entries, code in (
            ([], "interrupts_open"),
            (yes("call_1"), "answers_missing"),
            ([*yes("call_1", "call_2"), *yes("call_9")], "unknown_interrupt"),
            ([resume("call_1", "maybe"), *yes("call_2")], "invalid_input"),
            ([resume("call_1", {"approved": 1}), *yes("call_2")], "invalid_input"),
            (
                [
                    *yes("call_1"),
                    resume("call_2", {"approved": True, "editedArgs": {"amount": "x"}}),
                ],
                "invalid_input",
            ),
            ([*yes("call_1", "call_2"), *yes("thread_x/call_1")], "unknown_interrupt"),
        ):
            assert error_of(await ask(*entries)) == code
        pending = await (await thread_of(client)).pending_calls()
        assert [call.call.call_id for call in pending] == ["call_1", "call_2"]
        message = user("u2", "Never mind.")
        refused = await events_of(client.http, given(*messages, message, run="r2"))
        assert error_of(refused) == "interrupts_open"

        edited = resume("call_1", {"approved": True, "editedArgs": {"amount": 5}})
        denied = resume("call_2", status="cancelled")
        events = await ask(edited, denied)
        results = [one["content"] for one in events if one["type"] == "TOOL_CALL_RESULT"]
        assert sorted(results) == ["Paid 5.", "The call was denied: The user did not answer."]
        assert "TOOL_CALL_START" not in kinds(events)
        assert text_of(events) == "Done."
        assert events[-1]["outcome"] == {"type": "success"}
        # The same request again shows the same, and does nothing.
        again = await ask(edited, denied)
        assert again[1:] == events[1:]
        assert await statuses(client) == ["completed"]


async def test_an_approval_needs_its_scope(open_runtime: Open) -> None:
    keys = ring(writer=("a", "write"), chief=("a", "write approve"))
    async with serving(open_runtime(paying("Done.")), AUTH, keys=keys.keys) as client:
        body = given(HI, run="r2", resume=yes("call_1", "call_2"))
        writer, chief = keys.headers("writer"), keys.headers("chief")
        await client.http.post("/ag-ui/helper", json=given(HI), headers=writer)
        refused = await client.http.post("/ag-ui/helper", json=body, headers=writer)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert refused.json()["type"] == "RUN_ERROR"
        text = (await client.http.post("/ag-ui/helper", json=body, headers=chief)).text
        assert text_of(checked(text, ignored=RESUMED)) == "Done."


async def test_owners_do_not_meet(open_runtime: Open) -> None:
    keys = ring(alice=("alice", "read write approve"), bob=("bob", "read write approve"))
    async with serving(open_runtime(paying("Done.")), AUTH, keys=keys.keys) as client:
        alice, bob = keys.headers("alice"), keys.headers("bob")
        body = given(HI)
        text = (await client.http.post("/ag-ui/helper", json=body, headers=alice)).text
        own = checked(text)[0]["metadata"]["treadle"]
        for name in ("t1", own["threadId"]):  # for another owner both are ids of new threads
            body = given(HI, thread=name, resume=yes("call_1", "call_2"))
            text = (await client.http.post("/ag-ui/helper", json=body, headers=bob)).text
            assert error_of(checked(text)) == "unknown_interrupt"
        runtime = client.app.services.runtime
        assert [run.status for run in await (await runtime.connect(own["threadId"])).runs()] == [
            "requires_action"
        ]
        assert {info.owner for info in await runtime.threads()} == {"alice", "bob"}


async def test_tools_of_the_client(open_runtime: Open) -> None:
    calls = [Call("look_up", '{"word": "a"}', "call_a"), Call("look_up", '{"word": "b"}', "call_b")]
    agent = helper(calls, "Both.", calls, "Never mind.", overridable=["tools"])
    tools = [{"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}}]
    async with serving(open_runtime(agent)) as client:
        events = await events_of(client.http, given(HI, tools=tools))
        assert events[-1]["outcome"] == {
            "type": "success", "pendingToolCallIds": ["call_a", "call_b"]
        }  # fmt: skip
        shown = [
            HI,
            {"id": "call_a", "role": "assistant", "toolCalls": [_call("call_a", "a")]},
            {"id": "call_b", "role": "assistant", "toolCalls": [_call("call_b", "b")]},
        ]
        first = {"id": "t_a", "role": "tool", "toolCallId": "call_a", "content": "A."}
        second = {
            "id": "t_b", "role": "tool", "toolCallId": "call_b", "content": "", "error": "No b."
        }  # fmt: skip
        missing = await events_of(client.http, given(*shown, first, run="r2", tools=tools))
        assert error_of(missing) == "answers_missing"
        body = given(*shown, first, second, run="r2", tools=tools)
        events = await events_of(client.http, body)
        assert "MESSAGES_SNAPSHOT" not in kinds(events)  # the client has it all
        assert "TOOL_CALL_RESULT" not in kinds(events)
        assert text_of(events) == "Both."
        thread = await thread_of(client)
        outputs = [one for one in await thread.history() if isinstance(one, FunctionCallOutput)]
        assert [(one.text, one.is_error) for one in outputs] == [("A.", False), ("No b.", True)]
        again = await events_of(client.http, body)
        assert again[1:] == events[1:]

        # A client that goes on without answering has given up on its calls.
        answer = {"id": "x", "role": "assistant", "content": "Both."}
        body = given(*shown, first, second, answer, user("u2", "Again."), run="r3", tools=tools)
        await events_of(client.http, body)
        body = given(*body["messages"], user("u3", "Never mind."), run="r4", tools=tools)
        events = await events_of(client.http, body)
        assert text_of(events) == "Never mind."
        assert await statuses(client) == ["completed", "cancelled", "completed"]


def _call(id: str, word: str) -> Json:
    function = {"name": "look_up", "arguments": f'{{"word": "{word}"}}'}
    return {"id": id, "type": "function", "function": function}


async def test_a_tool_that_the_agent_leaves_to_its_clients(open_runtime: Open) -> None:
    agent = helper(Call("look_up", '{"word": "a"}', "call_a"), tools=[look_up])
    async with serving(open_runtime(agent)) as client:
        tools = [{"name": "look_up", "description": "Looks up."}]
        events = await events_of(client.http, given(HI, tools=tools))
        assert events[-1]["outcome"]["pendingToolCallIds"] == ["call_a"]


async def test_a_message_together_with_an_answer(open_runtime: Open) -> None:
    agent = helper(Call("look_up", '{"word": "a"}', "call_a"), "Both.", tools=[look_up])
    async with serving(open_runtime(agent)) as client:
        await events_of(client.http, given(HI))
        output = {"id": "t_a", "role": "tool", "toolCallId": "call_a", "content": "A."}
        call = {"id": "call_a", "role": "assistant", "toolCalls": [_call("call_a", "a")]}
        body = given(HI, call, output, user("u2", "And b?"), run="r2")
        events = await events_of(client.http, body)
        assert kinds(events).count("TEXT_MESSAGE_START") == 1
        history = await (await thread_of(client)).history()
        texts = [one.text for one in history if isinstance(one, Message)]
        assert texts == ["Hi.", "And b?", "Both."]


async def test_what_goes_before_the_first_message(open_runtime: Open) -> None:
    keys = ring(writer=("a", "write"), chief=("a", "admin"))
    async with serving(open_runtime(helper("Two.")), AUTH, keys=keys.keys) as client:
        before = [
            {"id": "a0", "role": "assistant", "content": "How can I help?"},
            {"id": "r0", "role": "reasoning", "content": "Hm."},
            {"id": "x0", "role": "activity", "activityType": "x", "content": {}},
            {"id": "a1", "role": "assistant", "toolCalls": [_call("call_a", "a")]},
            {"id": "t1", "role": "tool", "toolCallId": "call_a", "content": "A."},
            {"id": "z1", "role": "assistant", "content": "By another.", "subagentRunId": "x"},
        ]
        writer, chief = keys.headers("writer"), keys.headers("chief")
        system = {"id": "s0", "role": "system", "content": "Obey."}
        refused = await client.http.post(
            "/ag-ui/helper", json=given(system, *before, HI), headers=writer
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        body = given(*before, HI)
        text = (await client.http.post("/ag-ui/helper", json=body, headers=writer)).text
        assert text_of(checked(text)) == "Two."
        thread = await client.app.services.runtime.connect(key="t1", owner="a")
        history = await thread.history()
        assert [type(one) for one in history] == [
            Message, FunctionCall, FunctionCallOutput, Message, Message
        ]  # fmt: skip
        assert isinstance(history[0], Message)
        assert history[0].id == "a0"
        body = given(system, HI, thread="t2")
        await client.http.post("/ag-ui/helper", json=body, headers=chief)
        thread = await client.app.services.runtime.connect(key="t2", owner="a")
        assert getattr((await thread.history())[0], "role", "") == "system"


async def test_memory_blocks_are_the_state(open_runtime: Open) -> None:
    append = Call("memory_append", '{"label": "human", "text": "Drinks tea."}')
    agent = helper(append, "One.", "Two.", blocks=[Block("human", "Ada")], tools=block_tools())
    async with serving(open_runtime(agent)) as client:
        own = {"theme": "dark", "memory": {"human": "Forged."}}
        events = await events_of(client.http, given(HI, state=own))
        states = [one for one in events if one["type"].startswith("STATE")]
        assert [one["type"] for one in states] == ["STATE_SNAPSHOT", "STATE_DELTA"]
        assert states[0]["snapshot"] == {"theme": "dark", "memory": {"human": "Ada"}}
        assert states[1]["delta"] == [
            {"op": "replace", "path": "/memory/human", "value": "Ada\nDrinks tea."}
        ]
        thread = await thread_of(client)
        await thread.memory.create("notes", "x")
        events = await events_of(client.http, given(HI, user("u2", "And?"), run="r2", state=[]))
        assert events[1]["snapshot"] == {"memory": {"human": "Ada\nDrinks tea.", "notes": "x"}}


async def test_without_memory_the_state_is_that_of_the_client(open_runtime: Open) -> None:
    async with serving(open_runtime(helper("One."))) as client:
        events = await events_of(client.http, given(HI, state={"theme": "dark"}))
        assert not any(kind.startswith("STATE") for kind in kinds(events))


async def test_what_other_agents_do(open_runtime: Open) -> None:
    researcher = Agent(
        ScriptedModel(
            [[Reasoning("Hm."), Text("Let me see."), Call("weather", '{"city": "Rome"}')], "It is."]
        ),
        name="researcher",
        tools=[weather],
    )
    agent = helper(
        Call("researcher", '{"message": "Is it?"}', "call_1"), "Yes.", tools=[researcher.as_tool()]
    )
    async with serving(open_runtime(agent)) as client:
        events = await events_of(client.http, given(HI))
        begun = next(one for one in events if one["type"] == "SUBAGENT_STARTED")
        assert (begun["name"], begun["parentToolCallId"]) == ("researcher", "call_1")
        owner = begun["subagentRunId"]
        texts: dict[str | None, str] = {}
        for one in events:
            if one["type"] == "TEXT_MESSAGE_CONTENT":
                key = one.get("subagentRunId")
                texts[key] = texts.get(key, "") + one["delta"]
        assert texts == {owner: "Let me see.It is.", None: "Yes."}
        assert kinds(events).count("SUBAGENT_FINISHED") == 1
        ended = kinds(events).index("SUBAGENT_FINISHED")
        results = [n for n, one in enumerate(events) if one["type"] == "TOOL_CALL_RESULT"]
        assert results[0] < ended < results[1]
        assert "ACTIVITY_SNAPSHOT" in kinds(events)


async def test_an_approval_for_another_agent(open_runtime: Open) -> None:
    payer = Agent(
        ScriptedModel([Call("pay", '{"amount": 1}', "call_p"), "Paid."]), name="payer", tools=[pay]
    )
    agent = helper(Call("payer", '{"message": "Pay."}', "call_1"), "Done.", tools=[payer.as_tool()])
    async with serving(open_runtime(agent)) as client:
        events = await events_of(client.http, given(HI))
        outcome = events[-1]["outcome"]
        assert outcome["type"] == "interrupt"
        (interrupt,) = outcome["interrupts"]
        owner = interrupt["subagentRunId"]
        assert interrupt["id"] == f"{owner}/call_p"
        ended = next(one for one in events if one["type"] == "SUBAGENT_FINISHED")
        assert ended["outcome"] == {"type": "suspended", "interruptIds": [interrupt["id"]]}
        messages = events[-2]["messages"]
        body = given(*messages, run="r2", resume=yes(interrupt["id"]))
        events = await events_of(client.http, body, ignored=RESUMED)
        results = [one["content"] for one in events if one["type"] == "TOOL_CALL_RESULT"]
        assert results == ["Paid 1.", "Paid."]
        assert events[-1]["outcome"] == {"type": "success"}
        assert text_of(events) == "Paid.Done."


async def test_what_another_agent_did_before_it_asked_comes_once(open_runtime: Open) -> None:
    before, paying = Call("weather", '{"city": "Rome"}', "w"), Call("pay", '{"amount": 1}', "p")
    payer = Agent(ScriptedModel([before, paying, "Paid."]), name="payer", tools=[weather, pay])
    agent = helper(Call("payer", '{"message": "Pay."}', "c"), "Done.", tools=[payer.as_tool()])
    async with serving(open_runtime(agent)) as client:
        events = await events_of(client.http, given(HI))
        (interrupt,) = events[-1]["outcome"]["interrupts"]
        assert kinds(events).count("TOOL_CALL_RESULT") == 1
        body = given(*events[-2]["messages"], run="r2", resume=yes(interrupt["id"]))
        events = await events_of(client.http, body, ignored=RESUMED)
        results = [one["content"] for one in events if one["type"] == "TOOL_CALL_RESULT"]
        assert results == ["Paid 1.", "Paid."]
        again = await events_of(client.http, body, ignored=RESUMED)  # its answer was lost
        assert again[-1]["outcome"] == {"type": "success"}


async def test_own_calls_end_before_another_agent_asks(open_runtime: Open) -> None:
    @tool
    async def look() -> str:
        """Looks for a while."""
        await asyncio.sleep(5)
        return "Seen."

    payer = Agent(
        ScriptedModel([Call("pay", '{"amount": 1}', "call_p"), "Paid."]), name="payer", tools=[pay]
    )
    calls = [Call("look", "{}", "call_1"), Call("payer", '{"message": "Pay."}', "call_2")]
    agent = helper(calls, "Done.", tools=[look, payer.as_tool()])
    async with serving(open_runtime(agent)) as client:
        events = await events_of(client.http, given(HI))
        results = [one["content"] for one in events if one["type"] == "TOOL_CALL_RESULT"]
        assert results == ["Seen."]
        assert [one["toolCallId"] for one in events[-1]["outcome"]["interrupts"]] == ["call_p"]


async def test_approvals_for_several_other_agents(open_runtime: Open) -> None:
    payers = [
        Agent(
            ScriptedModel([Call("pay", f'{{"amount": {n}}}', f"call_p{n}"), f"Paid {n}."]),
            name=f"payer_{n}",
            tools=[pay],
        )
        for n in (1, 2)
    ]
    calls = [Call(one.name, '{"message": "Pay."}', f"call_{one.name}") for one in payers]
    agent = helper(calls, "Done.", tools=[one.as_tool() for one in payers])
    async with serving(open_runtime(agent)) as client:
        events = await events_of(client.http, given(HI))
        await asyncio.sleep(1)
        first = [one["id"] for one in events[-1]["outcome"]["interrupts"]]
        # It is told again to a client that comes back, with what has been asked for meanwhile.
        again = await events_of(client.http, given(*events[-2]["messages"], run="r2"))
        assert kinds(again)[-1] == "RUN_FINISHED"
        both = [one["id"] for one in again[-1]["outcome"]["interrupts"]]
        assert set(first) < set(both)
        assert len(both) == 2
        messages = again[-2]["messages"]
        refused = await events_of(client.http, given(*messages, user("u2", "x"), run="r3"))
        assert error_of(refused) == "interrupts_open"
        # Answered one after the other, the second one is asked for at once.
        body = given(*messages, run="r4", resume=yes(first[0]))
        events = await events_of(client.http, body, ignored=RESUMED)
        (left,) = events[-1]["outcome"]["interrupts"]
        assert [left["id"]] == [one for one in both if one != first[0]]
        assert left["responseSchema"]["properties"]["editedArgs"]["properties"]
        await asyncio.sleep(1)
        body = given(*events[-2]["messages"], run="r5", resume=yes(left["id"]))
        events = await events_of(client.http, body, ignored=RESUMED)
        assert text_of(events).endswith("Done.")
        assert await statuses(client) == ["completed"]


async def test_another_process_shows_the_run_that_was_left(open_runtime: Open) -> None:
    cut = helper([Text("Good."), Unfinished(Text("Half a sent")), Pause(1000)])
    async with serving(open_runtime(cut)) as client:
        task = asyncio.ensure_future(events_of(client.http, given(HI)))
        await opened(client, 1)
        await asyncio.sleep(1)
        await client.app.services.open_requests.drain(0)
        before = await task
        assert before[-1]["code"] == "draining"
    texts: dict[str, str] = {}
    for one in before:
        if one["type"] == "TEXT_MESSAGE_CONTENT":
            texts[one["messageId"]] = texts.get(one["messageId"], "") + one["delta"]
    part = [{"id": id, "role": "assistant", "content": text} for id, text in texts.items()]
    async with serving(open_runtime(helper("All of it."))) as client:
        events = await events_of(client.http, given(HI, *part, run="r2"))
        assert [one["id"] for one in events[1]["messages"]] == ["u1"]
        assert text_of(events) == "Good.All of it."
        assert await statuses(client) == ["completed"]


async def test_an_answer_that_broke_off_is_taken_back(open_runtime: Open) -> None:
    half = [Text("Good."), Unfinished(Text("Half a sent")), Pause(1), StreamIncomplete("Cut off.")]
    async with serving(open_runtime(helper(half, "All of it."))) as client:
        events = await events_of(client.http, given(HI))
        taken = next(one for one in events if one["type"] == "MESSAGES_SNAPSHOT")
        assert [one["content"] for one in taken["messages"]] == ["Hi.", "Good."]
        assert text_of(events).endswith("All of it.")
        assert events[-1]["outcome"] == {"type": "success"}


async def test_runs_that_do_not_complete(open_runtime: Open) -> None:
    calls = [Call("weather", '{"city": "Rome"}'), Call("weather", '{"city": "Atlantis"}')]
    failing = helper(calls, tools=[weather])
    limited = Agent(
        ScriptedModel([calls]), name="limited", tools=[weather], limits=Limits(max_steps=1)
    )
    slow = Agent(ScriptedModel([[Unfinished(Text("One. ")), Pause(1000)]]), name="slow")
    waiting = Agent(
        ScriptedModel([Call("pay", '{"amount": 1}', "call_1")]),
        name="waiting",
        tools=[pay],
        action_timeout=60,
    )
    async with serving(open_runtime(failing, limited, slow, waiting)) as client:
        events = await events_of(client.http, given(HI))
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "unexpected_request")
        results = [one for one in events if one["type"] == "TOOL_CALL_RESULT"]
        assert results[1]["metadata"] == {"treadle": {"isError": True}}
        events = await events_of(client.http, given(HI, thread="t2"), "limited")
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "max_steps")

        task = asyncio.ensure_future(events_of(client.http, given(HI, thread="t3"), "slow"))
        await opened(client, 1)
        await asyncio.sleep(1)
        run = await (await thread_of(client, "t3")).active_run()
        await run.cancel()
        events = await task
        assert events[-1]["outcome"] == {"type": "cancelled"}
        # What was seen of the text is not part of the conversation.
        (taken,) = (one for one in events if one["type"] == "MESSAGES_SNAPSHOT")
        assert [one["id"] for one in taken["messages"]] == ["u1"]

        events = await events_of(client.http, given(HI, thread="t4"), "waiting")
        assert events[-1]["outcome"]["interrupts"][0]["expiresAt"].endswith("Z")
        await asyncio.sleep(100)
        body = given(HI, thread="t4", run="r2", resume=yes("call_1"))
        events = await events_of(client.http, body, "waiting", ignored=RESUMED)
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run_expired")


async def test_every_end_of_a_stream_is_told(open_runtime: Open) -> None:
    slow = helper([Text("One. "), Pause(1000)], [Text("One. "), Pause(1000)])
    async with serving(open_runtime(slow)) as client:
        task = asyncio.ensure_future(events_of(client.http, given(HI)))
        await opened(client, 1)
        await asyncio.sleep(1)
        await (await thread_of(client)).delete()
        events = await task
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "thread_deleted")
        task = asyncio.ensure_future(events_of(client.http, given(HI, thread="t2")))
        await opened(client, 1)
        await asyncio.sleep(1)
        await client.app.services.open_requests.drain(5.0)
        events = await task
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "draining")
        refused = await client.http.post("/ag-ui/helper", json=given(HI, thread="t3"))
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert refused.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("query", ["", "?foreground=true"])
async def test_a_client_that_leaves(open_runtime: Open, query: str) -> None:
    slow = helper([Text("One. "), Pause(10), Text("Two.")])
    async with serving(open_runtime(slow)) as client:
        async with client.http.stream("POST", f"/ag-ui/helper{query}", json=given(HI)) as response:
            async for chunk in response.aiter_text():
                if "One." in chunk:
                    break
        await opened(client, 0)
        await asyncio.sleep(20)
        assert await statuses(client) == ["cancelled" if query else "completed"]


async def test_a_run_in_the_foreground_waits_for_its_client(open_runtime: Open) -> None:
    agent = helper(Call("look_up", '{"word": "a"}', "call_a"), tools=[look_up])
    async with serving(open_runtime(agent)) as client:
        await client.http.post("/ag-ui/helper?foreground=true", json=given(HI))
        await asyncio.sleep(20)
        assert await statuses(client) == ["requires_action"]


class Weather(BaseModel):
    """An answer with a form."""

    city: str


async def test_structured_output_is_the_result(open_runtime: Open) -> None:
    own = helper('{"city": "Rome"}', output=Weather)
    called = Agent(
        ScriptedModel([Call("final_output", '{"city": "Oslo"}')]),
        name="called",
        output=Weather,
        output_mode="tool",
    )

    def louder(text: str) -> str:
        return text.upper()

    changed = Agent(ScriptedModel(["Hi."]), name="changed", output_validators=[louder])
    async with serving(open_runtime(own, called, changed)) as client:
        events = await events_of(client.http, given(HI))
        assert events[-1]["result"] == {"city": "Rome"}
        events = await events_of(client.http, given(HI, thread="t2"), "called")
        assert (events[-1]["result"], text_of(events)) == ({"city": "Oslo"}, '{"city": "Oslo"}')
        assert "TOOL_CALL_START" not in kinds(events)
        events = await events_of(client.http, given(HI, thread="t3"), "changed")
        assert (events[-1]["result"], text_of(events)) == ("HI.", "Hi.")


async def test_media_both_ways(open_runtime: Open) -> None:
    async with serving(open_runtime(helper(Call("dot", "{}"), "A dot.", tools=[dot]))) as client:
        data = {"type": "data", "value": PNG, "mimeType": "image/png"}
        document = {"type": "data", "value": "SGVsbG8u", "mimeType": "text/plain"}
        content = [
            {"type": "text", "text": "Look."},
            {"type": "image", "source": data},
            {"type": "image", "source": {"type": "url", "value": "https://example.com/a.png"}},
            {"type": "document", "source": document, "metadata": {"filename": "a.txt"}},
        ]
        message = user("u1", content)
        # The validator does not know parts in results, which version 1.0 has.
        events = await events_of(client.http, given(message), ignored=("AGUI504",))
        (result,) = (one for one in events if one["type"] == "TOOL_CALL_RESULT")
        (part,) = result["content"]
        (item, *_) = await (await thread_of(client)).history()
        assert [type(part).__name__ for part in item.content] == [
            "InputText", "InputImage", "InputImage", "InputFile"
        ]  # fmt: skip
        assert part["source"] == data
        # To another client, which sends only what is new, the conversation is shown as it is kept.
        kept = await client.call("POST", "/files", content=b"Some text.")
        file = {"type": "file", "value": kept["id"]}
        new = user("u2", [{"type": "document", "source": file}, {"type": "text", "text": "And?"}])
        events = await events_of(client.http, given(new, run="r2"))
        snapshot = next(one for one in events if one["type"] == "MESSAGES_SNAPSHOT")
        shown = snapshot["messages"][0]["content"]
        assert shown[1:3] == content[1:3]
        assert shown[3]["metadata"] == {"filename": "a.txt"}
        events = await events_of(client.http, given(user("u3", "x"), run="r3"))
        snapshot = next(one for one in events if one["type"] == "MESSAGES_SNAPSHOT")
        message = next(one for one in snapshot["messages"] if one["id"] == "u2")
        assert message["content"][0]["source"] == {
            **file, "provider": "treadle", "mimeType": "text/plain"
        }  # fmt: skip
        for part in (
            {"type": "video", "source": data},
            {"type": "image", "source": {"type": "file", "value": "x", "provider": "openai"}},
            {"type": "image", "source": {**data, "value": "!"}},
        ):
            body = given(user("u4", [part]), run="r4")
            refused = await client.http.post("/ag-ui/helper", json=body)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")


async def test_what_a_client_asks_of_a_run(open_runtime: Open) -> None:
    open_agent = helper("One.", overridable=["extra_instructions", "tools"])
    closed = Agent(ScriptedModel(["One."]), name="closed")
    async with serving(open_runtime(open_agent, closed)) as client:
        more: Json = {"context": [{"description": "The page", "value": "/cart"}]}
        props: Json = {"forwardedProps": {"a": 1}}
        await events_of(client.http, given(HI, **more, **props, unknown={"x": None}))
        (request,) = open_agent.model.requests  # type: ignore[attr-defined]
        assert "The page: /cart" in request.instructions
        (run,) = await (await thread_of(client)).runs()
        assert run.metadata["ag_ui"]["forwarded_props"] == {"a": 1}
        tools: Json = {"tools": [{"name": "x"}]}
        for asked, name in ((more, "context"), (tools, "tools")):
            body = given(HI, thread="t2", **asked)
            refused = await client.http.post("/ag-ui/closed", json=body)
            assert (refused.status_code, refused.json()["code"]) == (400, "option_not_allowed")
            assert name in refused.json()["message"]
        assert len(await client.app.services.runtime.threads()) == 1
        await events_of(client.http, given(HI, thread="t2", tools=[], context=[]), "closed")


async def test_a_handoff(open_runtime: Open) -> None:
    other = Agent(ScriptedModel(['{"city": "Rome"}']), name="other", output=Weather)
    agent = helper(Call("transfer_to_other", "{}"), handoffs=[other])
    async with serving(open_runtime(agent, other)) as client:
        events = await events_of(client.http, given(HI))
        (custom,) = (one for one in events if one["type"] == "CUSTOM")
        assert custom["value"] == {"agent": "other"}
        assert events[-1]["result"] == {"city": "Rome"}


BAD: list[tuple[Any, int]] = [
    ({}, 400),
    ({"threadId": "", "runId": "r", "messages": [HI]}, 400),
    ({"threadId": "t", "runId": "", "messages": [HI]}, 400),
    ({"threadId": 1, "runId": "r", "messages": [HI]}, 400),
    ({"threadId": "t", "runId": "r", "messages": {}}, 400),
    (given(), 400),
    (given({"id": "a", "role": "assistant", "content": "x"}), 400),
    (given({"id": "a", "role": "nobody", "content": "x"}), 400),
    (given(user("", "x")), 400),
    (given(user("u", "")), 400),
    (given(user("u", None)), 400),
    (given(user("u", [{"type": "binary", "data": "x"}])), 400),
    (given({"id": "c", "role": "assistant", "toolCalls": [_call("c", "a")]}, HI), 400),
    (given({"id": "c", "role": "tool", "toolCallId": "c", "content": "x"}, HI), 400),
    (given(HI, resume=[{"interruptId": "x", "status": "maybe"}]), 400),
    (given(HI, tools=[{"name": "no spaces", "description": "x"}]), 400),
    (given(HI, tools="x"), 400),
    (given(HI, thread="t" * 600), 400),
    (given(user("u", "\ud800")), 400),
]


@pytest.mark.parametrize(("body", "status"), BAD, ids=lambda one: None)
async def test_bad_requests(open_runtime: Open, body: Any, status: int) -> None:
    agent = helper("One.", overridable=["tools"])
    async with serving(open_runtime(agent)) as client:
        response = await client.http.post("/ag-ui/helper", content=json.dumps(body), headers=JSON)
        assert response.status_code == status, response.text
        assert response.json()["type"] == "RUN_ERROR"
        assert response.headers["x-should-retry"] == "false"
        assert not await client.app.services.runtime.threads()


JSON = {"content-type": "application/json"}


async def test_other_errors(open_runtime: Open) -> None:
    async with serving(open_runtime(helper())) as client:
        refused = await client.http.post("/ag-ui/nobody", json=given(HI))
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_agent")
        refused = await client.http.post("/ag-ui/helper?x=1", json=given(HI))
        assert refused.status_code == 400
        assert (await client.http.get("/ag-ui/helper")).status_code == 405
        events = await events_of(client.http, given(HI, resume=yes("x")))
        assert error_of(events) == "unknown_interrupt"


async def test_nothing_new(open_runtime: Open) -> None:
    async with serving(open_runtime(helper("One."))) as client:
        await events_of(client.http, given(HI))
        thread = await thread_of(client)
        await thread.add([{"role": "user", "content": "Added.", "id": "u2"}])
        assert error_of(await events_of(client.http, given(HI, user("u2", "x"), run="r2"))) == (
            "nothing_new"
        )
        refused = await client.http.post("/ag-ui/helper", json=given(run="r3"))
        assert (refused.status_code, refused.json()["code"]) == (400, "no_input")


async def test_two_clients_of_a_busy_thread(open_runtime: Open) -> None:
    def echo(request: Any) -> Any:
        return [Pause(1), Text(f"Answer {len(request.items)}.")]

    async with serving(open_runtime(helper(*[echo] * 4))) as client:
        both = await asyncio.gather(
            *(events_of(client.http, given(user(f"u{n}", "Hi."), run=f"r{n}")) for n in range(4))
        )
        assert sorted(map(text_of, both)) == ["Answer 1.", "Answer 3.", "Answer 5.", "Answer 7."]
        assert await statuses(client) == ["completed"] * 4
