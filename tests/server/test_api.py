"""The API beyond streams: every noun, and the errors."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.test_damage import damage
from tests.server.serving import Client, serving, until

import treadle
from treadle import Agent, Block, Runtime, Usage, tool
from treadle.testing import Call, Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
AS_JSON = {"accept": "application/json"}
AS_TEXT = {"content-type": "text/plain"}


@tool(external=True)
async def ask_user(question: str) -> str:
    """Asks the user."""
    raise NotImplementedError


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


async def run(client: Client, thread_id: str, message: object = "Hi.", **body: object) -> str:
    path = f"/threads/{thread_id}/messages"
    return (await client.call("POST", path, {"message": message, **body}))["run_id"]


async def result(client: Client, thread_id: str, run_id: str) -> Any:
    return await client.call("GET", f"/runs/{run_id}/result?wait=60&thread_id={thread_id}")


async def test_agents(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]), name="main", description="Does it.", tools=[ask_user, pay])
    async with serving(open_runtime(agent)) as client:
        (info,) = (await client.call("GET", "/agents"))["data"]
        assert info == await client.call("GET", "/agents/main")
        assert (info["name"], info["description"], info["model"]) == (
            "main",
            "Does it.",
            "scripted",
        )
        kinds = {one["name"]: (one["external"], one["needs_approval"]) for one in info["tools"]}
        assert kinds == {"ask_user": (True, False), "pay": (False, True)}
        assert info["tools"][0]["parameters"]["properties"]["question"]["type"] == "string"
        missing = await client.send("GET", "/agents/other")
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_agent")


async def test_threads(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]))
    async with serving(open_runtime(agent)) as client:
        ids = [await client.thread(metadata={"n": number}) for number in range(5)]
        found, after = list[str](), ""
        while after is not None:
            page = await client.call("GET", f"/threads?limit=2&order=created&after={after}")
            found, after = found + [one["id"] for one in page["data"]], page["next"]
        assert found == ids
        (one,) = (await client.call("GET", "/threads", params={"metadata": '{"n": 3}'}))["data"]
        assert one["id"] == ids[3]
        assert (await client.call("GET", f"/threads/{ids[0]}"))["metadata"] == {"n": 0}

        await result(client, ids[0], await run(client, ids[0]))
        fork = await client.call("POST", f"/threads/{ids[0]}/fork")
        assert fork["forked_from"] == ids[0]
        state = await client.call("GET", f"/threads/{fork['id']}/state")
        assert [item["role"] for item in state["items"]] == ["user", "assistant"]
        assert (state["run"]["status"], state["step"], state["calls"]) == ("completed", None, [])

        exported = await client.send("GET", f"/threads/{ids[0]}/export")
        lines = [json.loads(line) for line in exported.text.splitlines()]
        assert lines[0]["events"] == lines[-1]["seq"] == int(state["position"].rstrip("."))
        path = "/threads/import?keep_id=true"
        taken = await client.send("POST", path, content=exported.content)
        assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
        copy = (await client.send("POST", "/threads/import", content=exported.content)).json()
        assert copy["title"] == lines[0]["thread"]["title"]
        again = (await client.send("GET", f"/threads/{copy['id']}/export")).content
        assert again.splitlines()[1:] == exported.content.splitlines()[1:]
        await client.call("DELETE", f"/threads/{ids[0]}")
        restored = await client.send("POST", path, content=exported.content)
        assert (restored.status_code, restored.json()["id"]) == (201, ids[0])
        cut = await client.send("POST", path, content=exported.content[:-40])
        assert (cut.status_code, cut.json()["code"]) == (400, "export_invalid")
        assert f"Line {len(lines)} of" in cut.json()["detail"]
        await client.call("DELETE", f"/threads/{ids[0]}")
        for path in (f"/threads/{ids[0]}", f"/threads/{ids[0]}/state", "/threads/thread_x"):
            missing = await client.send("GET", path)
            assert (missing.status_code, missing.json()["code"]) == (404, "thread_not_found")


HISTORY = [
    {"role": "user", "content": "Add 1 and 2."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "function": {"name": "add", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    {"role": "assistant", "content": "It is 3."},
]


async def test_a_thread_with_a_key_and_a_history(open_runtime: Open) -> None:
    model = ScriptedModel(["Still 3."])
    async with serving(open_runtime(Agent(model))) as client:
        body = {"key": "order-7", "history": HISTORY, "metadata": {"a": 1}}
        first, again = [await client.send("POST", "/threads", body) for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 200)
        thread_id = first.json()["id"]
        assert again.json()["id"] == thread_id
        other = await client.send("POST", "/threads", body | {"history": HISTORY[:1]})
        assert (other.status_code, other.json()["code"]) == (409, "conflict")
        items = (await client.call("GET", f"/threads/{thread_id}/items"))["data"]
        kinds = ["message", "function_call", "function_call_output", "message"]
        assert [item["type"] for item in items] == kinds
        await result(client, thread_id, await run(client, thread_id, "Sure?"))
        assert len(model.requests[0].items) == 5
        broken = {"history": HISTORY[:2]}
        refused = await client.send("POST", "/threads", broken)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")


async def test_creating_at_the_same_time(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        for number in range(10):
            body = {"key": f"order-{number}"}
            created = [client.send("POST", "/threads", body) for _ in range(5)]
            answers = await asyncio.gather(*created)
            assert sorted(one.status_code for one in answers) == [200, 200, 200, 200, 201]
            assert len({one.json()["id"] for one in answers}) == 1


async def test_items_without_a_run(open_runtime: Open) -> None:
    model = ScriptedModel(["Two."])
    async with serving(open_runtime(Agent(model))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/items"
        note = {"role": "user", "content": "The sky is green."}
        headers = {"idempotency-key": "k"}
        for _ in range(2):
            added = await client.send("POST", path, {"items": [note]}, headers=headers)
            assert (added.status_code, added.json()["thread_id"]) == (201, thread_id)
        position = added.json()["position"]
        await client.call("POST", path, {"items": HISTORY, "expect": int(position.rstrip("."))})
        stale = await client.send("POST", path, {"items": [note], "expect": 1})
        problem = stale.json()
        assert (stale.status_code, problem["code"]) == (409, "conflict")
        assert problem["seq"] > int(position.rstrip("."))
        await client.call("POST", path, {"items": [note], "expect": problem["seq"]})
        for bad in ({"items": []}, {"items": [7]}, {"items": HISTORY[1:2]}):
            refused = await client.send("POST", path, bad)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")

        items = (await client.call("GET", path))["data"]
        assert len(items) == 6
        removed = [items[0]["id"], items[2]["id"]]  # a message, and a call with its output
        for item_id in removed:
            assert (await client.send("DELETE", f"{path}/{item_id}")).status_code == 204
            missing = await client.send("DELETE", f"{path}/{item_id}")
            assert (missing.status_code, missing.json()["code"]) == (404, "item_not_found")
        left = (await client.call("GET", path))["data"]
        assert [item["id"] for item in left] == [items[at]["id"] for at in (1, 4, 5)]
        await result(client, thread_id, await run(client, thread_id, "How many?"))
        assert len(model.requests[0].items) == 4
        exported = (await client.send("GET", f"/threads/{thread_id}/export")).text
        assert exported.count("The sky is green.") == 1


async def test_several_messages_and_an_expected_event(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two."])
    async with serving(open_runtime(Agent(model))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages"
        messages = ["First.", {"role": "user", "content": "Second."}]
        sent = await client.call("POST", path, {"messages": messages, "expect": 0})
        async with client.stream(f"/threads/{thread_id}/events?after={sent['position']}") as events:
            read = await until(events, "run.completed")
        added = [frame.data["item"]["content"][0]["text"] for frame in read[:2]]
        assert added == ["First.", "Second."]
        assert [item.text for item in model.requests[0].items] == added
        stale = await client.send("POST", path, {"message": "Third.", "expect": 0})
        assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
        assert stale.headers["x-should-retry"] == "false"
        body = {"message": "Third.", "expect": stale.json()["seq"]}
        await result(client, thread_id, (await client.call("POST", path, body))["run_id"])
        assert len(model.requests) == 2


async def test_a_message_that_continues_an_event(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["One.", "Two.", "Three."])))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages"
        await result(client, thread_id, await run(client, thread_id))
        seq = int((await client.call("GET", f"/threads/{thread_id}/state"))["position"].rstrip("."))
        here = await client.call("POST", f"{path}?wait=60", {"message": "A?", "after": seq})
        assert (here["thread_id"], here["text"]) == (thread_id, "Two.")
        body = {"message": "B?", "after": seq, "key": "k"}
        there, again = [await client.send("POST", path, body) for _ in range(2)]
        copy = there.json()
        assert copy == again.json()
        assert copy["thread_id"] not in {"", thread_id}
        assert there.headers["x-thread-id"] == copy["thread_id"]
        ended = await result(client, copy["thread_id"], copy["run_id"])
        assert (ended["status"], ended["text"]) == ("completed", "Three.")
        events = f"/threads/{copy['thread_id']}/events?after={copy['position']}"
        async with client.stream(events) as read:
            began = await until(read, "run.completed")
        assert "B?" in str(began[0].data)
        assert not any("A?" in str(frame.data) for frame in began)
        copies = (await client.call("GET", "/threads"))["data"]
        assert len(copies) == 2


async def test_items_and_changes(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["One."])))) as client:
        thread_id = await client.thread(metadata={"a": 1, "b": 2})
        await result(client, thread_id, await run(client, thread_id))
        path = f"/threads/{thread_id}/items"
        page = await client.call("GET", f"{path}?limit=1")
        (last,) = (await client.call("GET", f"{path}?after={page['next']}"))["data"]
        assert (page["data"][0]["role"], last["role"]) == ("user", "assistant")
        assert await client.call("GET", f"{path}/{last['id']}") == last
        missing = await client.send("GET", f"{path}/msg_x")
        assert (missing.status_code, missing.json()["code"]) == (404, "item_not_found")
        change = {"title": "Numbers", "metadata": {"a": None, "c": 3}}
        changed = await client.call("PATCH", f"/threads/{thread_id}", change)
        assert (changed["title"], changed["metadata"]) == ("Numbers", {"b": 2, "c": 3})
        assert (await client.send("PATCH", f"/threads/{thread_id}", {})).status_code == 400


async def test_threads_that_are_not_kept(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["One."])))) as client:
        info = await client.call("POST", "/threads", {"expires_at": 4e9, "store": False})
        assert (info["expires_at"], info["store"]) == (4e9, False)
        path = f"/threads/{info['id']}"
        assert (await client.call("PATCH", path, {"title": "x"}))["expires_at"] == 4e9
        assert (await client.call("PATCH", path, {"expires_at": 5e9}))["expires_at"] == 5e9
        assert (await client.call("PATCH", path, {"expires_at": None}))["expires_at"] is None
        for wrong in (1.0, 1e300):
            for method, url in (("POST", "/threads"), ("PATCH", path)):
                answer = await client.send(method, url, {"expires_at": wrong})
                assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")


async def test_messages_answer_before_the_first_token(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(100), Text("Slow.")], "Next."]))
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages"
        sent = await client.send("POST", path, {"message": "Hi."})
        assert sent.status_code == 202
        busy = await client.send("POST", path, {"message": "You?", "on_busy": "reject"})
        assert (busy.status_code, busy.json()["code"]) == (409, "run_in_progress")
        assert busy.json()["run_id"] == sent.json()["run_id"]
        queued = await client.send("POST", path, {"message": "And then?"})
        after = queued.json()["position"]
        async with client.stream(f"/threads/{thread_id}/events?after={after}") as events:
            first = await anext(events)
        assert (first.event, first.data["run_id"]) == ("run.queued", queued.json()["run_id"])
        short = await client.send("POST", f"{path}?wait=0.5", {"message": "3"})
        assert short.status_code == 202
        await client.call("POST", f"/runs/{sent.json()['run_id']}/cancel?thread_id={thread_id}")
        ended = await result(client, thread_id, queued.json()["run_id"])
        assert (ended["status"], ended["text"]) == ("completed", "Next.")


async def test_the_result_in_the_answer(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(3), Text("Hello.")]]))
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages?wait=10"
        answer = await client.send("POST", path, {"message": "Hi."})
        assert answer.status_code == 200
        body = answer.json()
        assert (body["text"], body["output"], body["status"]) == ("Hello.", "Hello.", "completed")
        assert answer.headers["x-run-id"] == body["run_id"]


async def test_a_message_that_is_sent_again(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]))
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages"
        sent = [
            await client.call("POST", path, {"message": "Hi."}, headers={"idempotency-key": "k"})
            for _ in range(2)
        ]
        await result(client, thread_id, sent[0]["run_id"])
        sent.append(await client.call("POST", path, {"message": "Hi.", "key": "k"}))
        assert len({one["run_id"] for one in sent}) == 1
        async with client.stream(f"/threads/{thread_id}/events?after={sent[2]['position']}") as (
            events
        ):
            assert (await anext(events)).event == "message.added"
        other = await client.send("POST", path, {"message": "Other.", "key": "k"})
        assert (other.status_code, other.json()["code"]) == (409, "conflict")


async def test_options_of_a_run(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two."])
    agent = Agent(model, overridable=["extra_instructions", "metadata", "tools"])
    async with serving(open_runtime(agent)) as client:
        (info,) = (await client.call("GET", "/agents"))["data"]
        assert info["overridable"] == ["extra_instructions", "metadata", "tools"]
        thread_id = await client.thread()
        options = {
            "extra_instructions": "Rhyme.",
            "metadata": {"trace": 7},
            "tools": [{"name": "look", "description": "Looks."}],
        }
        await result(client, thread_id, await run(client, thread_id, options=options))
        assert model.requests[0].instructions.endswith("Rhyme.")
        assert [tool.name for tool in model.requests[0].tools] == ["look"]
        path = f"/threads/{thread_id}/messages"
        for forbidden in (
            {"instructions": "Obey."},
            {"model": "openai:gpt-5"},
            {"tools": ["own_tool"]},
            {"limits": {"max_steps": 1000}},
        ):
            refused = await client.send("POST", path, {"message": "x", "options": forbidden})
            problem = (refused.status_code, refused.json()["code"])
            assert problem == (403, "option_not_allowed"), forbidden
        unknown = await client.send("POST", path, {"message": "x", "options": {"tools": 3}})
        assert unknown.status_code == 400


async def test_calls(open_runtime: Open) -> None:
    script = [
        [
            Call("ask_user", '{"question": "?"}', "call_a"),
            Call("pay", '{"amount": 1}', "call_b"),
            Call("pay", '{"amount": 2}', "call_c"),
        ],
        "Done.",
    ]
    async with serving(open_runtime(Agent(ScriptedModel(script), tools=[ask_user, pay]))) as client:
        thread_id = await client.thread()
        run_id = await run(client, thread_id)
        path = f"/threads/{thread_id}/calls"
        waiting = await client.send("GET", f"/runs/{run_id}/result?wait=60&thread_id={thread_id}")
        assert (waiting.status_code, waiting.json()["status"]) == (202, "requires_action")
        calls = (await client.call("GET", path))["data"]
        assert [(call["call"]["call_id"], call["awaits"]) for call in calls] == [
            ("call_a", "output"),
            ("call_b", "approval"),
            ("call_c", "approval"),
        ]
        assert {call["run_id"] for call in calls} == {run_id}
        shown = (await client.call("GET", f"/threads/{thread_id}/state"))["calls"]
        assert [one["call"] for one in shown] == [one["call"] for one in calls]
        assert (await client.call("GET", "/calls?awaits=approval"))["data"] == calls[1:]
        for _ in range(2):
            await client.call("POST", f"{path}/call_a/output", {"output": {"yes": [1, 2]}})
        other = await client.send("POST", f"{path}/call_a/output", {"output": "no"})
        assert (other.status_code, other.json()["code"]) == (409, "conflict")
        answers = [
            {"type": "deny", "call_id": "call_b", "reason": "too much"},
            {"type": "approve", "call_id": "call_c", "arguments": {"amount": 3}},
            {"type": "approve", "call_id": "call_x"},
        ]
        for arguments in ({"amount": "much"}, [1], {}):
            body = {"arguments": arguments}
            bad = await client.send("POST", f"{path}/call_c/approve", body)
            assert (bad.status_code, bad.json()["retryable"]) == (400, False)
            assert "amount" in bad.text or "object" in bad.text
        answered = (await client.call("POST", path, {"answers": answers}))["data"]
        assert [one["problem"] and one["problem"]["code"] for one in answered] == [
            None,
            None,
            "unknown_tool_call",
        ]
        ended = await result(client, thread_id, run_id)
        outputs = {
            item["call_id"]: item["output"]
            for item in ended["items"]
            if item["type"] == "function_call_output"
        }
        assert outputs["call_a"] == '{"yes":[1,2]}'
        assert "too much" in outputs["call_b"]
        assert outputs["call_c"] == "paid 3"
        call = next(one for one in ended["items"] if one.get("call_id") == "call_c")
        assert (call["arguments"], call["proposed"]) == ('{"amount":3}', '{"amount": 2}')
        again = await client.send("POST", f"{path}/call_c/approve")
        assert (again.status_code, "with other arguments" in again.text) == (409, True)
        late = await client.send("POST", f"{path}/call_c/deny", {"reason": "late"})
        assert (late.status_code, late.json()["code"]) == (409, "conflict")


async def test_runs(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([[Pause(50), Text("Hello.")]]))
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        run_id = await run(client, thread_id)
        path = f"/runs/{run_id}"
        record = await client.call("GET", f"{path}?thread_id={thread_id}")
        assert (record["id"], record["status"]) == (run_id, "in_progress")
        assert (await client.send("GET", f"{path}/result?thread_id={thread_id}")).status_code == 202
        for _ in range(2):
            cancelled = await client.send("POST", f"{path}/cancel?thread_id={thread_id}")
            assert cancelled.status_code == 202
        ended = await result(client, thread_id, run_id)
        assert (ended["status"], ended["stop_reason"]) == ("cancelled", "cancelled")
        (listed,) = (await client.call("GET", f"/threads/{thread_id}/runs"))["data"]
        assert listed["status"] == "cancelled"
        assert (await client.call("GET", path))["id"] == run_id
        missing = await client.send("GET", "/runs/run_x")
        assert (missing.status_code, missing.json()["code"]) == (404, "run_not_found")


async def test_memory(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hi."]), blocks=[Block("human", "Name: ?")])
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        await result(client, thread_id, await run(client, thread_id))
        path = f"/threads/{thread_id}/memory"
        assert [one["label"] for one in (await client.call("GET", path))["data"]] == ["human"]
        edit = {"type": "replace", "label": "human", "old": "?", "new": "Ada"}
        for _ in range(2):
            await client.call("POST", path, {"edit": edit, "key": "k"})
        assert (await client.call("GET", f"{path}/human"))["value"] == "Name: Ada"
        put = await client.call("PUT", f"{path}/notes", {"value": "a", "description": "Notes."})
        assert put["description"] == "Notes."
        put = await client.call("PUT", f"{path}/notes", {"value": "b"})
        assert (put["value"], put["description"]) == ("b", "Notes.")
        undone = await client.call("POST", f"{path}/notes/undo")
        assert undone["value"] == "a"
        changes = (await client.call("GET", f"{path}/notes/changes"))["data"]
        assert [change["type"] for change in changes] == ["memory.updated"] * len(changes)
        await client.call("DELETE", f"{path}/notes")
        for method, target, body, code in (
            ("GET", f"{path}/notes", None, (404, "unknown_block")),
            ("POST", path, {"edit": edit | {"old": "x"}}, (400, "text_not_found")),
            (
                "POST",
                path,
                {"edit": {"type": "create", "block": {"label": "human"}}},
                (409, "block_exists"),
            ),
            ("PUT", f"{path}/human", {"value": "x" * 6000}, (400, "block_too_long")),
        ):
            refused = await client.send(method, target, body)
            assert (refused.status_code, refused.json()["code"]) == code


async def test_a_shared_memory(open_runtime: Open) -> None:
    block = Block("team", "We ship on Fridays.", shared="team")
    model = ScriptedModel(["Hi."])
    async with serving(open_runtime(Agent(model, blocks=[block]))) as client:
        assert (await client.call("GET", "/memory/team"))["data"] == []
        assert (await client.call("GET", "/memory/team/team/changes"))["data"] == []
        assert (await client.call("GET", "/threads"))["data"] == []
        put = await client.call("PUT", "/memory/team/team", {"value": "We ship on Mondays."})
        assert put == await client.call("GET", "/memory/team/team")
        edit = {"type": "append", "label": "team", "text": "And rest."}
        for _ in range(2):
            await client.call("POST", "/memory/team", {"edit": edit, "key": "k"})
        thread_id = await client.thread()
        await result(client, thread_id, await run(client, thread_id))
        assert "We ship on Mondays.\nAnd rest." in model.requests[0].instructions
        undone = await client.call("POST", "/memory/team/team/undo")
        assert undone["value"] == "We ship on Mondays."
        assert len((await client.call("GET", "/memory/team/team/changes"))["data"]) == 3
        await client.call("DELETE", "/memory/team/team")
        assert (await client.call("GET", "/memory/team"))["data"] == []
        assert (await client.call("GET", "/memory/team?owner=alice"))["data"] == []


async def test_the_archive(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        body = {"text": "Herons eat fish.", "tags": ["birds"], "key": "k", "created_at": 1e9}
        ids = {(await client.call("POST", "/archive", body))["id"] for _ in range(2)}
        assert len(ids) == 1
        thread_id = await client.thread()
        own = {"text": "Owls eat mice.", "tags": ["birds", "night"], "thread_id": thread_id}
        await client.call("POST", "/archive", own)

        async def texts(query: str) -> list[str]:
            found = (await client.call("GET", f"/archive?{query}"))["data"]
            return [one["passage"]["text"] for one in found]

        assert await texts("text=fish") == ["Herons eat fish."]
        assert await texts("") == ["Owls eat mice.", "Herons eat fish."]
        assert await texts("tag=birds&tag=night") == ["Owls eat mice."]
        assert len(await texts("any_tag=birds&any_tag=none")) == 2
        assert await texts(f"thread_id={thread_id}") == ["Owls eat mice."]
        assert await texts("until=2001-12-31") == ["Herons eat fish."]
        (passage_id,) = ids
        passage = await client.call("GET", f"/archive/{passage_id}")
        assert (passage["text"], passage["created_at"]) == ("Herons eat fish.", 1e9)
        await client.call("DELETE", f"/archive/{passage_id}")
        gone = await client.send("DELETE", f"/archive/{passage_id}")
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown_passage")
        await client.call("DELETE", f"/threads/{thread_id}")
        assert await texts("text=mice") == []


async def test_schedules(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Good morning."])))) as client:
        thread_id = await client.thread(owner="ada")
        path = f"/threads/{thread_id}/schedules"
        soon = {"message": "Wake up.", "after": 60, "key": "k"}
        first, again = [await client.call("POST", path, soon) for _ in range(2)]
        assert first["id"] == again["id"]
        assert first["item"]["content"][0]["text"] == "Wake up."
        late = {"message": {"role": "user", "content": "Later."}, "at": 4e9}
        later = await client.call("POST", path, late)
        assert later["due_at"] == 4e9
        daily = {"message": "Daily.", "cron": "0 9 * * *", "tz": "Europe/Berlin"}
        cron = await client.call("POST", path, daily)
        assert (cron["cron"], cron["tz"]) == ("0 9 * * *", "Europe/Berlin")
        ids = [one["id"] for one in (await client.call("GET", path))["data"]]
        assert ids == [first["id"], cron["id"], later["id"]]
        page = await client.call("GET", "/schedules?limit=2")
        rest = await client.call("GET", f"/schedules?limit=2&after={page['next']}")
        assert [one["id"] for one in page["data"] + rest["data"]] == ids
        assert {one["thread_id"] for one in page["data"]} == {thread_id}
        assert (await client.call("GET", "/schedules?owner=bob"))["data"] == []
        for _ in range(2):
            await client.call("DELETE", f"{path}/{cron['id']}")
        async with client.stream(f"/threads/{thread_id}/events") as events:
            await until(events, "run.completed")
        assert [one["id"] for one in (await client.call("GET", path))["data"]] == [later["id"]]
        other = await client.send("POST", path, late | {"key": "j"})
        assert other.status_code == 201
        conflict = await client.send("POST", path, late | {"key": "j", "message": "Else."})
        assert (conflict.status_code, conflict.json()["code"]) == (409, "conflict")


async def test_search(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["The heron eats fish.", "No."]))
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        await result(client, thread_id, await run(client, thread_id, "What does a heron eat?"))
        found = (await client.call("GET", "/search?text=heron&role=assistant"))["data"]
        assert [one["passage"]["text"] for one in found] == ["The heron eats fish."]
        found = (await client.call("GET", f"/search?text=heron&thread_id={thread_id}"))["data"]
        assert len(found) == 2


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


async def test_files(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["A picture."])))) as client:

        async def put(content: bytes, name: str, kind: str) -> Any:
            headers = {"content-type": kind}
            path = f"/files?name={name}"
            return await client.call("POST", path, content=content, headers=headers)

        image = await put(PNG, "../x/a%22%0d%0ab.png", "text/html")
        assert image["media_type"] == "image/png"
        assert await client.call("GET", f"/files/{image['id']}") == image
        shown = await client.send("GET", f"/files/{image['id']}/content")
        assert shown.content == PNG
        assert shown.headers["content-type"] == "image/png"
        assert shown.headers["content-disposition"].startswith("inline")
        page = await put(b"<html><script>alert(1)</script>", "a.html", "text/html")
        picture = await put(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", "image/svg+xml")
        for file in (page, picture):
            got = await client.send("GET", f"/files/{file['id']}/content")
            assert got.headers["content-type"] == "application/octet-stream"
            assert got.headers["content-disposition"].startswith("attachment")
            assert got.headers["content-security-policy"] == "sandbox; default-src 'none'"
            assert got.headers["x-content-type-options"] == "nosniff"
        thread_id = await client.thread()
        part = {"type": "input_image", "file_id": image["id"]}
        run_id = await run(client, thread_id, {"role": "user", "content": [part]})
        assert (await result(client, thread_id, run_id))["text"] == "A picture."
        await client.call("DELETE", f"/files/{page['id']}")
        for file_id in (page["id"], "file_x"):
            missing = await client.send("GET", f"/files/{file_id}")
            assert (missing.status_code, missing.json()["code"]) == (404, "unknown_file")
        empty = await client.send("POST", "/files")
        assert (empty.status_code, empty.json()["code"]) == (400, "invalid_input")


async def test_jobs(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        thread_id = await client.thread()
        assert (await client.call("GET", f"/threads/{thread_id}/jobs"))["data"] == []
        cancelled = await client.send("POST", f"/threads/{thread_id}/jobs/job_x/cancel")
        assert cancelled.status_code == 202


BAD = [
    ("POST", "/threads", b"{", 400, "invalid_request"),
    ("POST", "/threads", b'{"nope": 1}', 400, "invalid_request"),
    ("POST", "/threads", b'{"agent": 1}', 400, "invalid_request"),
    ("POST", "/threads", b'{"agent": "nope"}', 404, "unknown_agent"),
    ("POST", "/threads", b'\xff"', 400, "invalid_request"),
    ("POST", "/threads", b"[" * 100_000, 400, "invalid_request"),
    ("POST", "/threads", b'{"metadata": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 400, None),
    ("POST", "/threads", b'{"agent": "\\ud800"}', 400, None),
    ("GET", "/threads?limit=0", None, 400, "invalid_request"),
    ("GET", "/threads?limit=x", None, 400, "invalid_request"),
    ("GET", "/threads?nope=1", None, 400, "invalid_request"),
    ("GET", "/threads?limit=1&limit=2", None, 400, "invalid_request"),
    ("GET", "/threads?after=nope", None, 400, "invalid_input"),
    ("GET", "/threads?metadata=[]", None, 400, "invalid_request"),
    ("GET", "/threads?agent=%ff", None, 400, "invalid_request"),
    ("PUT", "/threads", b"{}", 405, "method_not_allowed"),
    ("GET", "/nope", None, 404, "route_not_found"),
    ("GET", "/threads/%2e%2e/%2e%2e/etc/passwd", None, 404, "route_not_found"),
    ("GET", "/threads/%00", None, 404, "thread_not_found"),
    ("GET", "/threads/" + "x" * 5000, None, 404, "thread_not_found"),
    ("POST", "{thread}/messages", b"{}", 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"message": ""}', 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"message": 3}', 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"message": null}', 400, "invalid_input"),
    (
        "POST",
        "{thread}/messages",
        b'{"message": {"role": "system", "content": "x"}}',
        400,
        "invalid_input",
    ),
    (
        "POST",
        "{thread}/messages",
        b'{"message": {"role": "assistant", "content": "x"}}',
        400,
        "invalid_input",
    ),
    ("POST", "{thread}/messages", b'{"message": "x", "on_busy": "y"}', 400, "invalid_request"),
    ("POST", "{thread}/messages", b'{"message": "x", "agent": "y"}', 404, "unknown_agent"),
    ("POST", "{thread}/messages?stream=1&wait=1", b'{"message": "x"}', 400, "invalid_input"),
    ("POST", "{thread}/messages?foreground=1", b'{"message": "x"}', 400, "invalid_input"),
    ("POST", "{thread}/messages?stream=maybe", b'{"message": "x"}', 400, "invalid_request"),
    ("POST", "{thread}/messages", b'{"messages": []}', 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"messages": "x"}', 400, "invalid_request"),
    ("POST", "{thread}/messages", b'{"messages": ["x", 3]}', 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"messages": ["x"], "message": "x"}', 400, "invalid_input"),
    (
        "POST",
        "{thread}/messages",
        b'{"messages": ["x", {"role": "system", "content": "x"}]}',
        400,
        "invalid_input",
    ),
    ("POST", "{thread}/messages", b'{"message": "x", "expect": 99}', 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"message": "x", "expect": -1}', 400, "invalid_input"),
    ("POST", "{thread}/messages", b'{"message": "x", "after": 99}', 400, "invalid_input"),
    (
        "POST",
        "{thread}/messages",
        b'{"message": "x", "after": 0, "on_busy": "queue"}',
        400,
        "invalid_input",
    ),
    ("POST", "/threads", b'{"history": {}}', 400, "invalid_request"),
    ("POST", "/threads", b'{"history": [{"role": "x", "content": "x"}]}', 400, "invalid_input"),
    ("POST", "/threads", b'{"key": 1}', 400, "invalid_request"),
    ("POST", "{thread}/items", b"{}", 400, "invalid_request"),
    ("POST", "{thread}/items", b'{"items": ["x"]}', 400, "invalid_input"),
    ("DELETE", "{thread}/items/x", None, 404, "item_not_found"),
    ("POST", "{thread}/fork", b'{"at": 99}', 400, "invalid_input"),
    ("POST", "{thread}/fork", b'{"at": -1}', 400, "invalid_input"),
    ("POST", "{thread}/calls/x/approve", b"", 404, "unknown_tool_call"),
    ("POST", "{thread}/calls/x/output", b'{"output": 1}', 404, "unknown_tool_call"),
    ("POST", "{thread}/calls", b'{"answers": [{"type": "x"}]}', 400, "invalid_request"),
    ("GET", "{thread}/events?from=nope", None, 400, "invalid_request"),
    ("GET", "/search?since=nope&text=x", None, 400, "invalid_input"),
    ("POST", "{thread}/schedules", b'{"message": "x"}', 400, "invalid_input"),
    (
        "POST",
        "{thread}/schedules",
        b'{"message": "x", "after": 1, "options": {"model": "demo"}}',
        403,
        "option_not_allowed",
    ),
    ("POST", "{thread}/schedules", b'{"after": 1}', 400, "invalid_request"),
    ("POST", "{thread}/schedules", b'{"message": "", "after": 1}', 400, "invalid_input"),
    ("POST", "{thread}/schedules", b'{"message": "x", "after": -1}', 400, "invalid_input"),
    ("POST", "{thread}/schedules", b'{"message": "x", "at": 1e300}', 400, "invalid_input"),
    ("POST", "{thread}/schedules", b'{"message": "x", "at": 1, "after": 1}', 400, "invalid_input"),
    ("POST", "{thread}/schedules", b'{"message": "x", "cron": "x"}', 400, "invalid_input"),
    (
        "POST",
        "{thread}/schedules",
        b'{"message": "x", "cron": "* * * * *", "tz": "x/../y"}',
        400,
        "invalid_input",
    ),
    (
        "POST",
        "{thread}/schedules",
        b'{"message": {"role": "system", "content": "x"}, "after": 1}',
        400,
        "invalid_input",
    ),
    ("POST", "{thread}/schedules", b'{"message": "x", "after": 1, "agent": "y"}', 404, None),
    ("GET", "/schedules?after=x", None, 400, "invalid_input"),
    ("GET", "/archive?since=nope", None, 400, "invalid_input"),
    ("GET", "/archive?limit=101", None, 400, "invalid_request"),
    ("GET", "/archive/x", None, 404, "unknown_passage"),
    ("DELETE", "/archive/x", None, 404, "unknown_passage"),
    ("POST", "/archive", b"{}", 400, "invalid_request"),
    ("POST", "/archive", b'{"text": ""}', 400, "invalid_input"),
    ("POST", "/archive", b'{"text": "x", "tags": [""]}', 400, "invalid_input"),
    ("POST", "/archive", b'{"text": "x", "created_at": 1e300}', 400, "invalid_input"),
    ("POST", "/archive", b'{"text": "x", "thread_id": "y"}', 404, "thread_not_found"),
    ("GET", "/memory/%00", None, 400, "invalid_input"),
    ("GET", "/memory/team/notes", None, 404, "unknown_block"),
    ("DELETE", "/memory/team/notes", None, 404, "unknown_block"),
    ("GET", "/memory?limit=0", None, 400, "invalid_request"),
    ("GET", "/memory?after=x", None, 400, "invalid_input"),
    ("GET", "/spending?period=year", None, 400, "invalid_request"),
    ("GET", "/spending?tz=x/../y", None, 400, "invalid_input"),
    ("DELETE", "/owner?owner=", None, 400, "invalid_input"),
    ("POST", "{thread}/events/x/remove", b"{}", 400, "invalid_input"),
    ("POST", "{thread}/events/0/remove", b"{}", 400, "invalid_input"),
    ("POST", "{thread}/events/99/remove", b"{}", 400, "invalid_input"),
    ("POST", "{thread}/events/1/remove", b'{"item": 3}', 400, "invalid_request"),
    ("POST", "{thread}/events/" + "9" * 40 + "/remove", b"{}", 400, "invalid_input"),
    ("PUT", "{thread}/items/x/pin", None, 404, "unknown_message"),
    ("GET", "{thread}/files/x", None, 404, "unknown_file"),
    ("POST", "{thread}/files", b"", 400, "invalid_input"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), BAD)
async def test_bad_input(
    method: str, path: str, body: bytes | None, status: int, code: str | None
) -> None:
    from treadle import open as open_memory

    async with serving(open_memory(agents=[Agent(ScriptedModel([]))])) as client:
        target = path.replace("{thread}", f"/threads/{await client.thread()}")
        options: Any = {}
        if body is not None:
            options = {"content": body, "headers": {"content-type": "application/json"}}
        response = await client.send(method, target, **options)
        problem = response.json()
        assert response.status_code == status, problem
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-should-retry"] == "false"
        assert problem["status"] == status
        assert code is None or problem["code"] == code, problem
        assert problem["detail"]
        # It still works.
        await client.call("GET", "/threads")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_bodies_of_another_type(open_runtime: Open, headers: dict[str, str]) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        response = await client.send("POST", "/threads", content=b"{}", headers=headers)
        assert (response.status_code, response.json()["code"]) == (415, "media_type_not_supported")


def _code(response: Any) -> str:
    if response.headers["content-type"].startswith("text/plain"):
        return response.text
    body = response.json()
    return body["error"]["code"] if "error" in body else body["code"]


async def test_every_route_is_in_the_document(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        document = (await client.http.get("/openapi.json")).json()
        assert document["openapi"].startswith("3.")
        schemas = document["components"]["schemas"]
        for path, methods in document["paths"].items():
            assert path.startswith(("/api/v1/", "/v1/", "/ag-ui/", "/ai-sdk/", "/mcp"))
            for method, operation in methods.items():
                target = path.replace("{", "x").replace("}", "x")
                response = await client.head_of(method.upper(), target)
                assert response.status_code not in {404, 405} or (
                    _code(response) not in {"route_not_found", "method_not_allowed"}
                ), (method, path)
                assert operation["summary"]
        ids = [
            one["operationId"] for methods in document["paths"].values() for one in methods.values()
        ]
        assert len(ids) == len(set(ids))
        references = set(_references(document))
        assert {reference.rpartition("/")[2] for reference in references} <= set(schemas)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [one for inner in value.values() for one in _references(inner)]
    if isinstance(value, list):
        return [one for inner in value for one in _references(inner)]
    return []


async def test_probes_and_metrics(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Hi."])))) as client:
        assert (await client.http.get("/healthz")).text == "ok\n"
        assert (await client.http.get("/readyz")).text == "ok\n"
        thread_id = await client.thread()
        async with client.stream(f"/threads/{thread_id}/events") as events:
            await run(client, thread_id)
            await until(events, "run.completed")
            text = (await client.http.get("/metrics")).text
        assert 'route="/api/v1/threads",status="201"' in text
        assert "treadle_open_streams 1" in text
        assert thread_id not in text
        assert (await client.http.post("/healthz")).status_code == 405


async def test_pins_and_the_removal_of_events(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["One."])))) as client:
        thread_id = await client.thread(history=HISTORY)
        await result(client, thread_id, await run(client, thread_id))
        path = f"/threads/{thread_id}"
        items = (await client.call("GET", f"{path}/items"))["data"]
        pin = f"{path}/items/{items[-1]['id']}/pin"
        for method, kind in (("PUT", "message.pinned"), ("DELETE", "message.unpinned")):
            for _ in range(2):
                assert (await client.send(method, pin)).status_code == 204
            page = await client.call("GET", f"{path}/events", headers=AS_JSON)
            assert page["data"][-1]["type"].startswith(kind.split(".")[0])
        missing = await client.send("PUT", f"{path}/items/msg_x/pin")
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_message")
        events = (await client.call("GET", f"{path}/events", headers=AS_JSON))["data"]
        added = next(event for event in events if event["type"] == "message.added")
        for _ in range(2):
            await client.call("POST", f"{path}/events/{added['seq']}/remove", {})
        given = next(event for event in events if event["type"] == "items.added")
        first = given["items"][0]
        await client.call("POST", f"{path}/events/{given['seq']}/remove", {"item": first})
        left = (await client.call("GET", f"{path}/items"))["data"]
        gone = [item["type"] for item in items if item not in left]
        assert first["type"] == "function_call"
        assert gone == ["message", "function_call", "function_call_output"]
        usage = await client.call("GET", f"{path}/usage")
        assert usage["usage"]["requests"] == 1


async def test_the_files_of_a_thread(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Read."])))) as client:
        one, other = await client.thread(), await client.thread()
        put = await client.call(
            "POST", f"/threads/{one}/files?name=a.txt", content=b"text" * 2000, headers=AS_TEXT
        )
        path = f"/threads/{one}/files/{put['id']}"
        assert await client.call("GET", path) == put
        got = await client.send("GET", f"{path}/content")
        assert (got.content, got.headers["x-content-type-options"]) == (b"text" * 2000, "nosniff")
        assert got.headers["content-disposition"].startswith("attachment")
        missing = await client.send("GET", f"/threads/{other}/files/{put['id']}")
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_file")
        assert (await client.send("DELETE", path)).status_code == 405


async def test_a_thread_is_repaired(tmp_path: Path) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]), name="a")
    path = tmp_path / "treadle.db"
    async with treadle.open(f"sqlite:///{path}", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Hi.")).result()
        last = await thread.last_seq()
    await asyncio.to_thread(damage, path, thread.id, last - 1)
    async with serving(treadle.open(f"sqlite:///{path}", agents=[agent])) as client:
        body = {"message": "Again."}
        refused = await client.send("POST", f"/threads/{thread.id}/messages", body)
        assert refused.json()["code"] == "thread_damaged"
        repaired = await client.call("POST", f"/threads/{thread.id}/repair")
        assert repaired == {"removed": [last - 1]}
        await result(client, thread.id, await run(client, thread.id))


async def test_what_an_owner_spends_and_leaves(open_runtime: Open) -> None:
    used = Usage(input_tokens=60, output_tokens=40, requests=1)
    script = [Turn([Text("One.")], usage=used)]
    async with serving(open_runtime(Agent(ScriptedModel(script)))) as client:
        thread_id = await client.thread(owner="ann")
        await result(client, thread_id, await run(client, thread_id))
        spent = await client.call("GET", "/spending?owner=ann&period=day&tz=Europe/Berlin")
        assert spent["tokens"] == 100
        assert (await client.call("GET", "/spending"))["tokens"] == 0
        await client.call("PUT", "/memory/team/notes?owner=ann", {"value": "x"})
        (memory,) = (await client.call("GET", "/memory?owner=ann"))["data"]
        assert (memory["memory"], memory["owner"]) == ("team", "ann")
        assert (await client.call("GET", "/memory?owner=bob"))["data"] == []
        refused = await client.send("DELETE", "/owner")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")
        await client.call("DELETE", "/owner?owner=ann")
        assert (await client.send("GET", f"/threads/{thread_id}")).status_code == 404
        assert (await client.call("GET", "/memory"))["data"] == []
