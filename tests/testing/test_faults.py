import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from treadle.testing.simulator import Fault, ProviderSimulator, Text, Turn
from treadle.testing.simulator.prose import prose

pytestmark = pytest.mark.anyio

TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]
CHAT_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


@pytest.fixture
async def http(simulator: ProviderSimulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(simulator.base_url + "/") as session:
        yield session


def responses(model: str, **more: object):
    return {"model": model, "input": "hi", "stream": True, "tools": TOOLS, **more}


def chat(model: str, **more: object):
    messages = [{"role": "user", "content": "hi"}]
    return {"model": model, "messages": messages, "stream": True, "tools": CHAT_TOOLS, **more}


async def read(http: aiohttp.ClientSession, body: dict) -> bytes:
    path = "responses" if "input" in body else "chat/completions"
    async with http.post(path, json=body) as answer:
        assert answer.status == 200
        return await answer.read()


def data_of(body: bytes) -> list[str]:
    lines = body.decode().replace("\r\n", "\n").split("\n")
    return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]


def json_of(body: bytes) -> list[dict]:
    return [json.loads(data) for data in data_of(body) if data != "[DONE]"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429", 429, "rate_limit_exceeded"),
        ("429-after=2", 429, "rate_limit_exceeded"),
        ("quota", 429, "insufficient_quota"),
        ("context", 400, "context_length_exceeded"),
        ("400", 400, None),
        ("401", 401, "invalid_api_key"),
        ("404", 404, "model_not_found"),
        ("418", 418, None),
        ("500", 500, None),
        ("503", 503, None),
        ("529", 529, None),
    ],
)
async def test_http_errors(http, fault, status, code):
    async with http.post("responses", json=responses(f"sim:fault={fault}")) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (status, code)
        assert answer.headers.get("retry-after") == ("2" if fault == "429-after=2" else None)
        assert error["message"]


async def test_only_the_first_requests_of_a_scenario_fail(http):
    seen = []
    for model in ("sim:fault=503,times=2",) * 3 + ("sim:deltas=1,fault=503,times=2",):
        async with http.post("responses", json=responses(model)) as answer:
            seen.append(answer.status)
            await answer.read()
    assert seen == [503, 503, 200, 503]


async def test_the_header_wins_over_the_model(http):
    headers = {"x-treadle-scenario": "deltas=1"}
    async with http.post("responses", json=responses("gpt-x"), headers=headers) as answer:
        assert prose(4) in (await answer.read()).decode()


@pytest.mark.parametrize("body", [responses, chat])
async def test_cut_breaks_the_connection(http, body):
    async with http.post(
        "responses" if body is responses else "chat/completions", json=body("sim:fault=cut@300")
    ) as answer:
        received = await answer.content.readexactly(300)
        assert received.startswith((b"event: response.created", b"data: "))
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()


async def test_cut_of_a_whole_answer(http):
    async with http.post("responses", json=responses("sim:fault=cut@10", stream=False)) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_end_is_a_clean_end(http):
    assert len(await read(http, responses("sim:fault=end@300"))) == 300
    assert await read(http, responses("sim:fault=end@0")) == b""


async def test_stall_sends_nothing_more_until_the_client_leaves(http, simulator):
    async with http.post("responses", json=responses("sim:fault=stall@200")) as answer:
        assert len(await answer.content.readexactly(200)) == 200
        assert simulator.statistics().streams_open == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await answer.content.readany()
    await asyncio.sleep(1)
    assert simulator.statistics().streams_open == 0


async def test_error_in_mid_stream(http):
    events = json_of(await read(http, responses("sim:fault=error-mid")))
    assert events[-1]["type"] == "error"
    assert events[-1]["code"] == "server_error"
    assert events[-1]["sequence_number"] == len(events) - 1 > 5
    events = json_of(await read(http, responses("sim:fault=failed@4=rate_limit_exceeded")))
    assert (len(events), events[-1]["type"]) == (5, "response.failed")
    assert events[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
    chunks = json_of(await read(http, chat("sim:fault=error-mid")))
    assert chunks[-1]["error"]["code"] == "server_error"
    async with http.post(
        "responses", json=responses("sim:fault=error-mid", stream=False)
    ) as answer:
        assert answer.status == 500


async def test_garbage_and_unknown_events(http):
    frames = data_of(await read(http, responses("sim:fault=garbage@2")))
    with pytest.raises(json.JSONDecodeError):
        json.loads(frames[2])
    events = json_of(await read(http, responses("sim:fault=unknown@1")))
    assert events[1] == {"type": "treadle.unknown"}


async def test_missing_terminals(http):
    assert json_of(await read(http, responses("sim:fault=no-terminal")))[-1]["type"] == (
        "response.output_item.done"
    )
    body = await read(http, chat("sim:fault=no-terminal"))
    assert b"[DONE]" not in body
    assert b'"finish_reason":"' not in body
    body = await read(http, chat("sim:fault=no-finish"))
    assert b"[DONE]" in body
    assert b'"finish_reason":"' not in body


def chat_calls(chunks: list[dict]) -> list[list[dict]]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]


async def test_call_faults_of_chat(http):
    calls = chat_calls(json_of(await read(http, chat("sim:calls=2,fault=no-ids"))))
    assert not any("id" in call for chunk in calls for call in chunk)
    (merged,) = chat_calls(json_of(await read(http, chat("sim:calls=2,fault=merged-calls"))))
    assert [call["index"] for call in merged] == [0, 1]
    whole = chat_calls(json_of(await read(http, chat("sim:calls=1,args=90,fault=whole-args"))))
    assert len(whole) == 1
    assert len(json.loads(whole[0][0]["function"]["arguments"])["text"]) == 90
    same = chat_calls(json_of(await read(http, chat("sim:calls=3,fault=dup-ids"))))
    assert len({call["id"] for chunk in same for call in chunk if "id" in call}) == 1


async def test_a_document_instead_of_a_stream(http):
    for body in (responses, chat):
        path = "responses" if body is responses else "chat/completions"
        async with http.post(path, json=body("sim:deltas=1,fault=json")) as answer:
            assert answer.content_type == "application/json"
            assert "usage" in await answer.json()


async def test_a_connection_that_closes_after_the_response(simulator):
    request = b"POST /v1/responses HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
    for fault, closes in (("comments", False), ("close", True)):
        port = int(simulator.base_url.split(":")[2].removesuffix("/v1"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(responses(f"sim:deltas=1,fault={fault}")).encode()
        writer.write(request % (len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head.lower()
        await reader.readuntil(b"\r\n0\r\n\r\n")
        await asyncio.sleep(1)
        assert reader.at_eof() is closes
        writer.close()


def chat_history(arguments: str, **more: object) -> list[dict]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call], **more},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]


@pytest.mark.parametrize(
    ("fault", "history", "status"),
    [
        ("strict-args", chat_history("{}"), 200),
        ("strict-args", chat_history('{"a": '), 500),
        ("strict-args", chat_history("[1]"), 500),
        ("needs-reasoning", chat_history("{}"), 400),
        ("needs-reasoning", chat_history("{}", reasoning_content=""), 200),
    ],
)
async def test_strict_servers(http, fault, history, status):
    body = chat(f"sim:fault={fault}", messages=history)
    async with http.post("chat/completions", json=body) as answer:
        assert answer.status == status
        message = (await answer.read()).decode()
        assert status == 200 or "reasoning_content" in message or "Failed to parse" in message


async def test_strict_servers_of_responses(http):
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": '}
    output = {"type": "function_call_output", "call_id": "c", "output": "ok"}
    for fault, status in (("strict-args", 500), ("needs-reasoning", 200)):
        body = responses(f"sim:fault={fault}", input=[call, output])
        async with http.post("responses", json=body) as answer:
            assert answer.status == status


async def test_events_without_an_index(http):
    body = await read(http, responses("sim:calls=1,reasoning=2,deltas=3,fault=no-index"))
    assert b"_index" not in body
    assert b"sequence_number" not in body
    assert b'"item_id"' in body


async def test_bad_arguments(http):
    for fault in ("empty-args", "bad-args"):
        events = json_of(await read(http, responses(f"sim:calls=1,fault={fault}")))
        with pytest.raises(json.JSONDecodeError):
            json.loads(events[-1]["response"]["output"][0]["arguments"])


async def pieces(http, body: dict) -> list[bytes]:
    async with http.post("responses", json=body) as answer:
        return [chunk async for chunk in answer.content.iter_any()]


async def test_how_writes_are_cut(http):
    usual = len(await pieces(http, responses("sim:deltas=4,size=20")))
    split = await pieces(http, responses("sim:deltas=4,size=20,fault=split-utf8"))
    assert len(split) > usual + 4
    with pytest.raises(UnicodeDecodeError):
        [piece.decode() for piece in split]
    single = await pieces(http, responses("sim:deltas=1,fault=one-byte"))
    assert sum(len(piece) for piece in single) > 1000
    assert len(single) > 500
    assert prose(80) in json_of(b"".join(split))[-1]["response"]["output"][0]["content"][0]["text"]


async def test_line_ends_comments_and_spaces(http):
    body = await read(http, responses("sim:fault=crlf+comments+no-space"))
    assert body.count(b"\n") == body.count(b"\r\n")
    assert body.startswith(b": keep-alive\r\n\r\nevent: response.created\r\ndata:{")
    assert json_of(body)[-1]["type"] == "response.completed"


async def test_faults_of_a_scripted_turn():
    turns = [Turn((Text("hi"),), faults=(Fault("503"),)), Turn((Text("there"),))]
    async with ProviderSimulator(turns) as simulator, aiohttp.ClientSession() as session:
        seen = []
        for _ in turns:
            url = f"{simulator.base_url}/responses"
            async with session.post(url, json=responses("any")) as answer:
                seen.append((answer.status, b"there" in await answer.read()))
    assert seen == [(503, False), (200, True)]
    assert simulator.statistics().rejected == 1


async def test_a_fault_that_does_not_exist_is_a_bad_request(http):
    for fault in ("nonsense", "cut", "429@3", "quota=2", "200", "", "garbage@x", "429-after=soon"):
        async with http.post("responses", json=responses(f"sim:fault={fault}")) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == "invalid_scenario"
