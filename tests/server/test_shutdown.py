"""The order of a shutdown, and clients that do not read."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.server.serving import NO_AUTH, Frame, opened, serving, text_of, until

import treadle
from treadle import Agent, Runtime
from treadle.testing import ScriptedModel, Text
from treadle.testing.simulator.turn import Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
TEXT = "One two three four five six seven eight nine ten."


def paced(text: str = TEXT, every: float = 1.0) -> Turn:
    return Turn((Text(text),), every=every)


async def test_a_stream_ends_when_its_step_has_ended(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, grace_seconds=60.0)
    async with serving(open_runtime(Agent(ScriptedModel([paced()]))), settings) as client:
        busy, idle = await client.thread(), await client.thread()
        await client.call("POST", f"/threads/{busy}/messages", {"message": "Hi."})
        async with (
            client.stream(f"/threads/{busy}/events") as events,
            client.stream(f"/threads/{idle}/events") as quiet,
        ):
            read = await until(events, "text.delta")
            drain = asyncio.ensure_future(client.app.services.open_requests.drain(60.0))
            ends = [frame async for frame in quiet]
            assert [(end.event, end.data) for end in ends] == [
                ("stream.ended", {"reason": "draining"})
            ]
            refused = await client.send("POST", f"/threads/{idle}/messages", {"message": "Hi."})
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["x-should-retry"] == "true"
            assert (await client.http.get("/readyz")).status_code == 503
            assert (await client.http.get("/healthz")).status_code == 200
            # A reader that connects again now does so once more, and loses nothing.
            again = await client.read(f"/threads/{busy}/events", last=read[-1].id)
            assert [frame.event for frame in again] == ["stream.ended"]
            read += [frame async for frame in events]
        assert text_of(read) == TEXT
        kinds = [frame.event for frame in read]
        assert kinds.index("step.completed") > kinds.index("message.added")
        assert kinds[-1] in {"stream.ended", "run.completed"}
        await drain


async def test_the_grace_period_ends_a_stream_in_mid_text(
    open_runtime: Open, tmp_path: Path
) -> None:
    runtime = open_runtime(Agent(ScriptedModel([paced(every=100.0)])))
    async with serving(runtime) as client:
        thread_id = await client.thread()
        await client.call("POST", f"/threads/{thread_id}/messages", {"message": "Hi."})
        async with client.stream(f"/threads/{thread_id}/events") as events:
            read = await until(events, "text.delta")
            await client.app.services.open_requests.drain(5.0)
            read += [frame async for frame in events]
        assert read[-1].event == "stream.ended"
        last = read[-1].id
    async with (
        serving(open_runtime(Agent(ScriptedModel([paced()])))) as client,
        client.stream(f"/threads/{thread_id}/events", last=last) as events,
    ):
        read += await until(events, "run.completed")
    assert folded(read)[-1] == TEXT


def folded(read: list[Frame]) -> list[str]:
    """Folds frames into texts as a client does that adds deltas up, and checks each end."""
    texts: dict[str, str] = {}
    final: dict[str, str] = {}
    for frame in read:
        match frame.event:
            case "text.delta":
                item_id = frame.data["item_id"]
                assert item_id not in final
                texts[item_id] = texts.get(item_id, "") + frame.data["delta"]
            case "step.interrupted":
                texts = {key: text for key, text in texts.items() if key in final}
            case "message.added" if frame.data["origin"] == "model":
                item = frame.data["item"]
                final[item["id"]] = "".join(part["text"] for part in item["content"])
                assert texts[item["id"]] == final[item["id"]]
            case _:
                pass
    return list(final.values())


async def test_waiting_requests_end_as_well(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([paced(every=50.0)])))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages?wait=200"
        waiting = asyncio.ensure_future(client.send("POST", path, {"message": "Hi."}))
        await opened(client, 1)
        await client.app.services.open_requests.drain(5.0)
        assert (await waiting).status_code == 202


async def test_a_client_that_takes_nothing_is_cut(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, write_timeout_seconds=10.0)
    long = "x" * 400_000
    async with serving(open_runtime(Agent(ScriptedModel([long] * 40))), settings) as client:
        thread_id = await client.thread()
        loop = asyncio.get_running_loop()
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.setblocking(False)
        await loop.sock_connect(stuck, (client.http.base_url.host, client.http.base_url.port))
        request = f"GET /api/v1/threads/{thread_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        await loop.sock_sendall(stuck, request.encode())
        # Another reader of the same thread is not delayed.
        async with client.stream(f"/threads/{thread_id}/events?from=now") as events:
            for _ in range(40):
                await client.call("POST", f"/threads/{thread_id}/messages", {"message": "Hi."})
                await until(events, "run.completed")
            assert len(client.app.services.open_requests) == 2
            began = loop.time()
            await opened(client, 1)
            assert loop.time() - began < 30
        stuck.close()
        await opened(client, 0)


async def test_a_client_that_leaves_in_a_wait_stops_nothing(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([paced(every=1.0)])))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages?wait=200"
        waiting = asyncio.ensure_future(client.send("POST", path, {"message": "Hi."}))
        await opened(client, 1)
        waiting.cancel()
        await opened(client, 0)
        async with client.stream(f"/threads/{thread_id}/events") as events:
            assert text_of(await until(events, "run.completed")) == TEXT


async def test_a_failed_journal_is_an_event(tmp_path: Path) -> None:
    runtime = treadle.open(agents=[Agent(ScriptedModel([paced()]))])
    async with serving(runtime) as client:
        thread_id = await client.thread()
        async with client.stream(f"/threads/{thread_id}/events") as events:
            await client.call("POST", f"/threads/{thread_id}/messages", {"message": "Hi."})
            await until(events, "text.delta")
            topic = await runtime._threads.topic(thread_id)
            topic.close(treadle.errors.JournalCorrupt("/secret/path is damaged"))
            rest = [frame async for frame in events]
        assert rest[-1].event == "stream.ended"
        assert rest[-1].data["reason"] == "failed"
        assert rest[-1].data["problem"]["code"] == "journal_corrupt"
        assert "secret" not in str(rest[-1].data)
