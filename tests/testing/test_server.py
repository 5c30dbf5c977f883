import asyncio
import json

import aiohttp
import pytest
from starlette.testclient import TestClient

from treadle.testing.simulator import Call, Hold, Pause, ProviderSimulator, Text, Turn

pytestmark = pytest.mark.anyio

BODY = {"model": "any", "input": "hi", "stream": True}


@pytest.mark.parametrize(
    ("path", "body", "message", "code"),
    [
        ("responses", {"input": "long " * 99}, "context window", "context_length_exceeded"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "long " * 99}]},
            "maximum context length is 100 tokens",
            "context_length_exceeded",
        ),
        (
            "messages",
            {"max_tokens": 9, "messages": [{"role": "user", "content": "long " * 99}]},
            "prompt is too long: 1",
            None,
        ),
        (
            "models/m:generateContent",
            {"contents": [{"parts": [{"text": "long " * 99}]}]},
            "exceeds the maximum number of tokens allowed (100)",
            400,
        ),
    ],
)
async def test_a_window_is_refused_in_the_words_of_the_provider(path, body, message, code):
    async with ProviderSimulator([Turn((Text("never"),))], window=100) as simulator:
        url = f"{simulator.base_url}/{path}"
        async with aiohttp.request("POST", url, json={"model": "any", **body}) as answer:
            error = (await answer.json())["error"]
    assert answer.status == 400
    assert message in error["message"]
    assert error.get("code") == code


async def test_pace_in_virtual_time():
    loop = asyncio.get_running_loop()
    body = BODY | {"model": "sim:deltas=4,first=100,every=500"}
    async with (
        ProviderSimulator() as simulator,
        aiohttp.request("POST", f"{simulator.base_url}/responses", json=body) as answer,
    ):
        times = [round(loop.time(), 3) async for _ in answer.content.iter_any()]
    assert sorted(set(times)) == [0.1, 0.6, 1.1, 1.6]


async def test_batches():
    body = BODY | {"model": "sim:deltas=10,every=1000,batch=4"}
    async with (
        ProviderSimulator() as simulator,
        aiohttp.request("POST", f"{simulator.base_url}/responses", json=body) as answer,
    ):
        await answer.read()
    assert round(asyncio.get_running_loop().time(), 3) == 2


async def test_a_whole_answer_takes_as_long_as_its_stream():
    body = {"model": "sim:deltas=10,every=1000", "input": "hi"}
    async with (
        ProviderSimulator() as simulator,
        aiohttp.request("POST", f"{simulator.base_url}/responses", json=body) as answer,
    ):
        await answer.read()
    assert round(asyncio.get_running_loop().time(), 3) == 10


async def test_hold_and_pause_between_outputs():
    release = asyncio.Event()
    turn = Turn((Text("first"), Hold(release), Pause(5), Call("f")))
    async with (
        ProviderSimulator([turn]) as simulator,
        aiohttp.request("POST", f"{simulator.base_url}/responses", json=BODY) as answer,
    ):
        seen = b""
        while b"output_item.done" not in seen:
            seen += await answer.content.readany()
        assert b"function_call" not in seen
        release.set()
        assert b"function_call" in await answer.content.read()
    assert round(asyncio.get_running_loop().time(), 3) == 5


async def test_exit_is_prompt_with_open_streams():
    def respond(_):
        return Turn((Text("a b"), Hold(asyncio.Event())))

    async with aiohttp.ClientSession() as session:
        async with ProviderSimulator(respond) as simulator:
            urls = [f"{simulator.base_url}/responses"] * 5
            answers = [await session.post(url, json=BODY) for url in urls]
            stalled = {"x-treadle-scenario": "every=60000"}
            answers.append(await session.post(urls[0], json=BODY, headers=stalled))
            for answer in answers:
                await answer.content.readany()
            assert simulator.statistics().streams_open == 6
        assert simulator.statistics().streams_open == 0
        for answer in answers:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()
            answer.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(urls[0], json=BODY)


async def test_a_client_that_leaves_ends_its_stream():
    async with ProviderSimulator([Turn((Hold(asyncio.Event()),))]) as simulator:
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{simulator.base_url}/responses", json=BODY)
            answer.close()
        await asyncio.sleep(1)
        assert simulator.statistics().streams_open == 0


async def test_requests_are_recorded_without_keys():
    headers = {"Authorization": "Bearer secret", "X-Test": "seen", "x-api-key": "secret"}
    async with ProviderSimulator(keep=2) as simulator, aiohttp.ClientSession() as session:
        for text in "abc":
            body = {"model": "sim", "input": text}
            url = f"{simulator.base_url}/responses"
            async with session.post(url, json=body, headers=headers) as answer:
                assert answer.headers["x-request-id"]
    assert [request.body["input"] for request in simulator.requests] == ["b", "c"]
    assert simulator.requests[0].headers["x-test"] == "seen"
    assert simulator.requests[0].path == "/v1/responses"
    assert "secret" not in str(simulator.requests)
    assert simulator.statistics().requests == 3


async def test_an_error_of_the_script_is_raised_at_the_exit():
    def respond(_):
        raise LookupError("in the script")

    async def use_it() -> None:
        async with (
            ProviderSimulator(respond) as simulator,
            aiohttp.request("POST", f"{simulator.base_url}/responses", json=BODY) as answer,
        ):
            assert answer.status == 400

    with pytest.raises(LookupError, match="in the script"):
        await use_it()


async def test_a_fixed_seed_makes_fixed_ids():
    async with ProviderSimulator(seed="s") as simulator, aiohttp.ClientSession() as session:
        body = {"model": "sim:deltas=1", "input": "hi"}
        async with session.post(f"{simulator.base_url}/responses", json=body) as answer:
            assert (await answer.json())["id"] == "resp_s000001"


async def test_bodies_that_are_no_json_object():
    async with ProviderSimulator() as simulator, aiohttp.ClientSession() as session:
        for data in (b"", b"[1]", b"{", b'{"a": "\xff"}', b"null"):
            async with session.post(f"{simulator.base_url}/responses", data=data) as answer:
                assert answer.status == 400
                assert "JSON object" in (await answer.json())["error"]["message"]


async def test_the_url_is_known_only_while_it_runs():
    simulator = ProviderSimulator()
    with pytest.raises(RuntimeError, match="async with"):
        _ = simulator.base_url


def test_the_app_needs_no_socket():
    client = TestClient(ProviderSimulator([Turn((Text("hi there"),))]).app)
    answer = client.post("/v1/responses", json={"model": "any", "input": "x"})
    assert json.loads(answer.content)["output"][0]["content"][0]["text"] == "hi there"
