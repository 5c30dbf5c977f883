"""Agents as tools of an MCP server, with the official client and with the one of treadle."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult
from pydantic import BaseModel
from tests.server.serving import Client, opened, serving
from tests.server.test_security import AUTH, ring

from treadle import Agent, RunContext, Runtime, tool
from treadle.domain.items import FunctionCallOutput, Item
from treadle.mcp import MCPTools
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
Json = dict[str, Any]


@tool
async def weather(city: str, context: RunContext) -> str:
    """Returns the weather."""
    context.progress("Looking.")
    return f"Sunny in {city}."


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"Paid {amount}."


@tool(external=True)
async def look_up(word: str) -> str:
    """Looks up a word."""
    raise NotImplementedError


class Weather(BaseModel):
    """An answer with a form."""

    city: str


def helper(*turns: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel(list(turns)), name="helper", **options)


def paying(*turns: Any) -> Agent:
    calls = [Call("pay", '{"amount": 1}', "call_1"), Call("pay", '{"amount": 2}', "call_2")]
    return helper(calls, *turns, tools=[pay])


@asynccontextmanager
async def connected(runtime: Runtime, **options: Any) -> AsyncGenerator[tuple[McpClient, Client]]:
    async with serving(runtime) as client:
        transport = streamable_http_client(f"{client.http.base_url}/mcp")
        async with McpClient(transport, **options) as mcp:
            yield mcp, client


def answer_of(result: Any) -> Any:
    assert not result.is_error, result
    return result.structured_content["answer"]


def outputs_in(history: Sequence[Item]) -> list[str]:
    return [one.text for one in history if isinstance(one, FunctionCallOutput)]


def rpc(method: str, params: Json | None = None, id: Any = 1) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def call(message: object, id: Any = 1, name: str = "helper", **more: Any) -> Json:
    return rpc("tools/call", {"name": name, "arguments": {"message": message}, **more}, id)


async def test_the_official_client(open_runtime: Open) -> None:
    agent = helper(
        Call("weather", '{"city": "Rome"}'), "Sunny.", "Again.", tools=[weather],
        description="Knows the weather.",
    )  # fmt: skip
    shown: list[tuple[float, str | None]] = []

    async def show(progress: float, total: float | None, message: str | None) -> None:
        shown.append((progress, message))

    async with connected(open_runtime(agent)) as (mcp, client):
        (listed,) = (await mcp.list_tools()).tools
        assert (listed.name, listed.description) == ("helper", "Knows the weather.")
        result = await mcp.call_tool("helper", {"message": "Hi."}, progress_callback=show)
        assert answer_of(result) == "Sunny."
        assert [getattr(block, "text", "") for block in result.content] == ["Sunny."]
        assert shown == [(1, "Calls weather."), (2, "weather: Looking.")]
        # The conversation continues.
        conversation = result.structured_content["conversation"]
        again = await mcp.call_tool("helper", {"message": "x", "conversation": conversation})
        assert answer_of(again) == "Again."
        thread = await client.app.services.runtime.connect(conversation)
        assert len(await thread.runs()) == 2


async def test_approvals_by_elicitation(open_runtime: Open) -> None:
    asked: list[str] = []

    async def decide(_: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        if len(asked) == 2:
            return ElicitResult(action="decline")
        return ElicitResult(action="accept", content={"approve": True})

    async with connected(open_runtime(paying("Done.")), elicitation_callback=decide) as (
        mcp,
        client,
    ):
        result = await mcp.call_tool("helper", {"message": "Pay."})
        assert answer_of(result) == "Done."
        assert sorted(asked) == ['Call pay with {"amount": 1}?', 'Call pay with {"amount": 2}?']
        thread = await client.app.services.runtime.connect(
            result.structured_content["conversation"]
        )
        outputs = outputs_in(await thread.history())
        assert outputs == ["Paid 1.", "The call was denied: The user declined."]


async def test_an_approval_for_another_agent(open_runtime: Open) -> None:
    async def decide(_: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approve": True})

    payer = Agent(
        ScriptedModel([Call("pay", '{"amount": 1}', "call_p"), "Paid."]), name="payer", tools=[pay]
    )
    agent = helper(Call("payer", '{"message": "Pay."}'), "Done.", tools=[payer.as_tool()])
    async with connected(open_runtime(agent), elicitation_callback=decide) as (mcp, _):
        assert answer_of(await mcp.call_tool("helper", {"message": "Pay."})) == "Done."


async def test_what_cannot_be_answered(open_runtime: Open) -> None:
    waiting = Agent(
        ScriptedModel([Call("look_up", '{"word": "a"}')]), name="waiting", tools=[look_up]
    )
    limited = Agent(ScriptedModel([]), name="broken")
    async with connected(open_runtime(paying(), waiting, limited)) as (mcp, _):
        for name, text in (
            ("helper", "approval to call pay, pay"),
            ("waiting", "output of look_up"),
            ("broken", "The agent failed"),
        ):
            result = await mcp.call_tool(name, {"message": "Hi."})
            assert result.is_error
            assert text in getattr(result.content[0], "text", "")


async def test_structured_output(open_runtime: Open) -> None:
    async with connected(open_runtime(helper('{"city": "Rome"}', output=Weather))) as (mcp, _):
        result = await mcp.call_tool("helper", {"message": "Hi."})
        assert answer_of(result) == {"city": "Rome"}


async def test_the_client_of_treadle(open_runtime: Open) -> None:
    async with serving(open_runtime(helper("Sunny."))) as client:
        tools = MCPTools(f"{client.http.base_url}/mcp")
        model = ScriptedModel([Call("helper", '{"message": "Hi."}'), "It is."])
        async with tools:
            result = await Agent(model, tools=[tools]).run("Is it?")
        assert result.text == "It is."
        (output,) = outputs_in(result.history)
        assert output.startswith("Sunny.\n")


async def test_cancel(open_runtime: Open) -> None:
    slow = helper(*[[Text("One. "), Pause(1000)]] * 2)
    async with serving(open_runtime(slow)) as client:
        http, runtime = client.http, client.app.services.runtime
        headers = {"mcp-session-id": "a"}
        task = asyncio.ensure_future(http.post("/mcp", json=call("Hi.", 7), headers=headers))
        await opened(client, 1)
        await asyncio.sleep(1)
        note: Json = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        for session, id in (("b", 7), ("a", 8), ("a", {}), ("a", 7)):
            assert not task.done()
            body = {**note, "params": {"requestId": id}}
            done = await http.post("/mcp", json=body, headers={"mcp-session-id": session})
            assert (done.status_code, done.content) == (202, b"")
        assert "The call was cancelled." in (await task).text
        assert not client.app.services.mcp_calls._runs
        # A client that leaves has no way back to the result.
        async with http.stream("POST", "/mcp", json=call("Hi.")) as response:
            assert response.status_code == 200
            await asyncio.sleep(1)
        await opened(client, 0)
        await asyncio.sleep(1)
        assert {info.status for info in await runtime.threads()} == {"cancelled"}


async def test_without_a_session_a_call_has_no_name(open_runtime: Open) -> None:
    """Two clients may use one id, so neither of them can be meant."""
    async with serving(open_runtime(helper([Text("One. "), Pause(5), Text("Two.")]))) as client:
        task = asyncio.ensure_future(client.http.post("/mcp", json=call("Hi.", 1)))
        await opened(client, 1)
        note: Json = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        await client.http.post("/mcp", json={**note, "params": {"requestId": 1}})
        assert '"answer":"Two."' in (await task).text


async def test_keys_of_one_owner_do_not_cancel_calls_of_each_other(open_runtime: Open) -> None:
    keys = ring(one=("alice", "write"), two=("alice", "write"))
    runtime = open_runtime(helper([Text("One. "), Pause(5), Text("Two.")]))
    async with serving(runtime, AUTH, keys=keys.keys) as client:
        session = {"mcp-session-id": "a"}
        task = asyncio.ensure_future(
            client.http.post("/mcp", json=call("Hi.", 1), headers=keys.headers("one") | session)
        )
        await opened(client, 1)
        note: Json = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        body = {**note, "params": {"requestId": 1}}
        await client.http.post("/mcp", json=body, headers=keys.headers("two") | session)
        assert '"answer":"Two."' in (await task).text


async def test_a_conversation_that_is_busy_or_waits(open_runtime: Open) -> None:
    waits = [Call("pay", '{"amount": 1}', "call_1")]
    runtime = open_runtime(helper(waits, [Text("Not paid."), Pause(100)], tools=[pay]))
    async with serving(runtime) as client:
        http = client.http
        assert "waits for an approval" in (await http.post("/mcp", json=call("Pay."))).text
        (info,) = await runtime.threads()
        arguments = {"message": "Leave it.", "conversation": info.id}
        body = rpc("tools/call", {"name": "helper", "arguments": arguments})
        task = asyncio.ensure_future(http.post("/mcp", json=body))
        await opened(client, 1)
        busy = (await http.post("/mcp", json=body)).json()["result"]
        assert busy["isError"]
        assert "busy" in busy["content"][0]["text"]
        assert '"answer":"Not paid."' in (await task).text
        thread = await runtime.connect(info.id)
        statuses = [run.status for run in await thread.runs()]
        assert statuses == ["cancelled", "completed"]


async def test_the_end_of_the_server(open_runtime: Open) -> None:
    async with serving(open_runtime(helper([Text("One. "), Pause(1000)]))) as client:
        task = asyncio.ensure_future(client.http.post("/mcp", json=call("Hi.")))
        await opened(client, 1)
        await asyncio.sleep(1)
        await client.app.services.open_requests.drain(1.0)
        assert '"code":-32603' in (await task).text
        assert (await client.http.post("/mcp", json=call("Hi."))).status_code == 503


async def test_scopes_and_owners(open_runtime: Open) -> None:
    keys = ring(alice=("alice", "write"), boss=("alice", "write approve"), bob=("bob", "admin"))
    async with serving(open_runtime(paying("Done.")), AUTH, keys=keys.keys) as client:
        http = client.http
        asks = {"mcp-session-id": "x.asks"}
        # A key that may not approve is not asked.
        text = (
            await http.post("/mcp", json=call("Pay."), headers=keys.headers("alice") | asks)
        ).text
        assert "elicitation/create" not in text
        assert '"isError":true' in text
        (info,) = await client.app.services.runtime.threads()
        accept = {"action": "accept", "content": {"approve": True}}
        answer = {"jsonrpc": "2.0", "id": f"{info.id}/call_1", "result": accept}
        for name, status in (("alice", 403), ("bob", 404), ("boss", 202)):
            done = await http.post("/mcp", json=answer, headers=keys.headers(name))
            assert done.status_code == status
        answer = {"jsonrpc": "2.0", "id": f"{info.id}/call_2", "error": {"code": 1, "message": ""}}
        assert (await http.post("/mcp", json=answer, headers=keys.headers("boss"))).is_success
        await asyncio.sleep(1)
        thread = await client.app.services.runtime.connect(info.id)
        outputs = outputs_in(await thread.history())
        assert outputs == ["Paid 1.", "The call was denied: The client could not ask the user."]
        # The conversation of another owner does not exist.
        arguments = {"message": "Hi.", "conversation": info.id}
        body = rpc("tools/call", {"name": "helper", "arguments": arguments})
        error = (await http.post("/mcp", json=body, headers=keys.headers("bob"))).json()["error"]
        assert "There is no conversation" in error["message"]


async def test_bad_messages(open_runtime: Open) -> None:
    async with serving(open_runtime(helper())) as client:
        for body, code in (
            (rpc("server/discover"), -32601),
            (rpc("tools/call"), -32602),
            (call("Hi.", name="nobody"), -32602),
            (call(1), -32602),
            (call(" "), -32602),
            (rpc("tools/call", {"name": "helper", "arguments": "x"}), -32602),
            (
                rpc(
                    "tools/call",
                    {"name": "helper", "arguments": {"message": "x", "conversation": 1}},
                ),
                -32602,
            ),
            (
                rpc(
                    "tools/call",
                    {"name": "helper", "arguments": {"message": "x", "conversation": "y"}},
                ),
                -32602,
            ),
        ):
            answer = (await client.http.post("/mcp", json=body)).json()
            assert (answer["id"], answer["error"]["code"]) == (1, code)
        for body in ([], {}, {"jsonrpc": "1.0"}, {"jsonrpc": "2.0", "id": {}, "method": "ping"}):
            assert (await client.http.post("/mcp", json=body)).status_code == 400
        assert (await client.http.post("/mcp", json=rpc("ping"))).json()["result"] == {}
        made = await client.http.post("/mcp", json=rpc("initialize", {"protocolVersion": "1999"}))
        assert made.json()["result"]["protocolVersion"] == "2025-11-25"
        answer = {"jsonrpc": "2.0", "id": "thread_x/call_1", "result": {}}
        assert (await client.http.post("/mcp", json=answer)).status_code == 404
        for method in ("GET", "DELETE"):
            assert (await client.http.request(method, "/mcp")).status_code == 405
        assert not await client.app.services.runtime.threads()
