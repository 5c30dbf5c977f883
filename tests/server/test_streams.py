"""Streams of events: exact for every reader, whatever happens to its connection."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.server.serving import NO_AUTH, Client, Frame, opened, serving, settle, text_of, until

import treadle
from treadle import Agent, Runtime, ThreadRun, tool
from treadle.errors import JournalClosed
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. "


def slow(text: str = TEXT, pauses: int = 1) -> list[Any]:
    """A text in two messages with a pause of a second before each."""
    return [Pause(1), Text(text)] * pauses


async def send(client: Client, thread_id: str, message: str = "Hello.", **body: object) -> Any:
    return await client.call("POST", f"/threads/{thread_id}/messages", {"message": message, **body})


async def test_a_stream_of_a_run_has_every_character_and_ends(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([slow()])))) as client:
        thread_id = await client.thread()
        sent = await send(client, thread_id)
        assert sent["thread_id"] == thread_id
        read = await client.read(f"/runs/{sent['run_id']}/events?thread_id={thread_id}")
        assert text_of(read) == TEXT
        assert read[-1].event == "run.completed"
        assert [frame.event for frame in read[:2]] == ["message.added", "run.started"]
        assert all(frame.data["type"] == frame.event for frame in read)


async def test_a_resume_at_the_end_of_a_run_is_answered_with_204(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Hi.", "Again."])))) as client:
        thread_id = await client.thread()
        run_id = (await send(client, thread_id))["run_id"]
        path = f"/runs/{run_id}/events?thread_id={thread_id}"
        last = (await client.read(path))[-1].id
        response = await client.send("GET", path, headers={"last-event-id": last})
        assert (response.status_code, response.content) == (204, b"")
        # The same after another run, and one step before the end.
        await client.call("GET", f"/runs/{run_id}/result?wait=5&thread_id={thread_id}")
        other = (await send(client, thread_id))["run_id"]
        await client.read(f"/runs/{other}/events?thread_id={thread_id}")
        response = await client.send("GET", path, headers={"last-event-id": last})
        assert response.status_code == 204
        again = await client.read(path, last=str(int(last) - 1))
        assert [frame.event for frame in again] == ["run.completed"]


@pytest.mark.parametrize("kind", ["thread", "run"])
async def test_fifty_reconnects_in_one_text(open_runtime: Open, kind: str) -> None:
    model = ScriptedModel([[Pause(0.05), *(Text(word + " ", 1) for word in TEXT.split())] * 1])
    async with serving(open_runtime(Agent(model))) as client:
        thread_id = await client.thread()
        run_id = (await send(client, thread_id))["run_id"]
        path = f"/threads/{thread_id}/events"
        if kind == "run":
            path = f"/runs/{run_id}/events?thread_id={thread_id}"
        rng, last, read = random.Random(kind), "", list[Frame]()
        for _ in range(50):
            async with client.stream(path, last=last) as events:
                for _ in range(rng.randrange(1, 4)):
                    read.append(await anext(events))
                    last = read[-1].id
                    if read[-1].event == "run.completed":
                        break
            if read[-1].event == "run.completed":
                break
        else:
            async with client.stream(path, last=last) as events:
                read += await until(events, "run.completed")
        assert text_of(read) == "".join(word + " " for word in TEXT.split())
        seqs = [frame.data["seq"] for frame in read if "seq" in frame.data]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_every_position_can_be_resumed_any_number_of_times(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([TEXT])))) as client:
        thread_id = await client.thread()
        await send(client, thread_id)
        path = f"/threads/{thread_id}/events"
        async with client.stream(path) as events:
            whole = await until(events, "run.completed")
        for number, left in enumerate(whole[:-1]):
            for _ in range(2):
                async with client.stream(path, last=left.id) as events:
                    rest = await until(events, "run.completed")
                assert text_of([*whole[: number + 1], *rest]) == TEXT


async def test_two_readers_see_the_same_whoever_answers(open_runtime: Open) -> None:
    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        """Pays."""
        return f"paid {amount}"

    model = ScriptedModel([Call("pay", '{"amount": 3}', "call_1"), "Done."])
    async with serving(open_runtime(Agent(model, tools=[pay]))) as client:
        thread_id = await client.thread()
        await send(client, thread_id)
        path = f"/threads/{thread_id}/events"
        async with client.stream(path) as one, client.stream(path) as other:
            first = [await until(events, "run.requires_action") for events in (one, other)]
            await client.call("POST", f"/threads/{thread_id}/calls/call_1/approve")
            then = [await until(events, "run.completed") for events in (one, other)]
        assert first[0] == first[1]
        assert [frame.event for frame in then[0]] == [frame.event for frame in then[1]]


@pytest.mark.parametrize("start", ["now", "state"])
async def test_a_reader_that_begins_in_the_middle_of_a_text(open_runtime: Open, start: str) -> None:
    model = ScriptedModel(["First.", [Text("One, ", 1), Pause(5), Text("two.", 1)]])
    async with serving(open_runtime(Agent(model))) as client:
        thread_id = await client.thread()
        run = await send(client, thread_id)
        await client.read(f"/runs/{run['run_id']}/events?thread_id={thread_id}")
        await send(client, thread_id, "Again.")
        async with client.stream(f"/threads/{thread_id}/events") as events:
            while "One, " not in text_of([await anext(events)]):
                pass
        async with client.stream(f"/threads/{thread_id}/events?from={start}") as events:
            read = await until(events, "run.completed")
        if start == "state":
            state = read.pop(0)
            assert state.event == "thread.state"
            assert state.id == state.data["position"]
            assert state.data["type"] == "thread.state"
            texts = [item["content"][0]["text"] for item in state.data["items"]]
            assert texts == ["Hello.", "First.", "Again."]
            assert state.data["run"]["status"] == "in_progress"
        assert text_of(read).endswith("two.")
        added = [frame.data["item"]["id"] for frame in read if frame.event == "message.added"]
        for item_id in added:  # each message that was not final is whole
            deltas = [f.data["delta"] for f in read if f.data.get("item_id") == item_id]
            item = next(f.data["item"] for f in read if f.data.get("item", {}).get("id") == item_id)
            assert "".join(deltas) == item["content"][0]["text"]


async def test_the_position_before_the_first_event(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Hi."])))) as client:
        thread_id = await client.thread()
        async with client.http.stream("GET", f"/api/v1/threads/{thread_id}/events?from=now") as got:
            chunk = await anext(got.aiter_bytes())
            assert chunk == b"retry: 1000\nid: 0\n\n"


@pytest.mark.parametrize("position", ["-1", "x", "1.2.3", "99", "5.1", "0" * 70, "1e3", "½"])
async def test_a_position_that_does_not_exist_is_refused(open_runtime: Open, position: str) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        thread_id = await client.thread()
        for options in (
            {"headers": {"last-event-id": position.encode()}},
            {"params": {"after": position}},
        ):
            response = await client.send("GET", f"/threads/{thread_id}/events", **options)
            assert response.status_code == 400, response.text
            assert response.json()["code"] == "invalid_input"
            assert response.headers["x-should-retry"] == "false"


async def test_last_event_id_takes_precedence(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Hi."])))) as client:
        thread_id = await client.thread()
        await send(client, thread_id)
        path = f"/threads/{thread_id}/events"
        async with client.stream(path) as events:
            whole = await until(events, "run.completed")
        async with client.stream(f"{path}?after=0", last=whole[-2].id) as events:
            assert (await anext(events)) == whole[-1]
        async with client.stream(f"{path}?after={whole[-2].id}") as events:
            assert (await anext(events)) == whole[-1]


async def test_a_deleted_thread_ends_its_streams_and_is_gone(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["Hi."])))) as client:
        thread_id = await client.thread()
        run_id = (await send(client, thread_id))["run_id"]
        path = f"/threads/{thread_id}/events"
        async with client.stream(path) as events:
            read = await until(events, "run.completed")
            await client.call("DELETE", f"/threads/{thread_id}")
            rest = [frame async for frame in events]
        assert [(f.event, f.data["reason"]) for f in rest] == [("stream.ended", "thread_deleted")]
        assert rest[0].id == read[-1].id  # it moves no reader
        for resumed in (path, f"/runs/{run_id}/events?thread_id={thread_id}"):
            response = await client.send("GET", resumed, headers={"last-event-id": read[-1].id})
            assert (response.status_code, response.json()["code"]) == (410, "thread_not_found")
            assert (await client.send("GET", resumed)).status_code == 404


async def test_keep_alive_comments(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, keep_alive_seconds=5.0)
    async with serving(open_runtime(Agent(ScriptedModel(["Hi."]))), settings) as client:
        thread_id = await client.thread()
        async with client.http.stream("GET", f"/api/v1/threads/{thread_id}/events") as response:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == b"retry: 1000\nid: 0\n\n"
            began = asyncio.get_running_loop().time()
            assert await anext(chunks) == b": keep-alive\n\n"
            assert await anext(chunks) == b": keep-alive\n\n"
            assert 9 < asyncio.get_running_loop().time() - began < 16
            await send(client, thread_id)
            assert (await anext(chunks)).startswith(b"id: 1\nevent: message.added\n")


async def test_head_is_answered_without_events(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        thread_id = await client.thread()
        response = await client.send("HEAD", f"/threads/{thread_id}/events")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache, no-transform"


async def test_a_page_of_events_as_json(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([TEXT])))) as client:
        thread_id = await client.thread()
        sent = await send(client, thread_id)
        await client.read(f"/runs/{sent['run_id']}/events?thread_id={thread_id}")
        events, after = list[Any](), "0"
        while after is not None:
            page = await client.call(
                "GET",
                f"/threads/{thread_id}/events?limit=2&after={after}",
                headers={"accept": "application/json"},
            )
            assert len(page["data"]) <= 2
            events, after = events + page["data"], page["next"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["type"] == "run.completed"


async def test_a_message_that_streams_its_run(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([TEXT, "Again."])))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages?stream=true"
        for text in (TEXT, "Again."):
            async with client.stream(path, "POST", json={"message": "Hello."}) as events:
                read = [frame async for frame in events]
            assert read[0].event == "message.added"
            assert text_of(read) == text
            assert read[-1].event == "run.completed"


@pytest.mark.parametrize("foreground", [True, False])
async def test_only_a_foreground_run_ends_with_its_client(
    open_runtime: Open, foreground: bool
) -> None:
    model = ScriptedModel([[Text("One, ", 1), Pause(30), Text("two.", 1)]])
    async with serving(open_runtime(Agent(model))) as client:
        thread_id = await client.thread()
        path = f"/threads/{thread_id}/messages?stream=true&foreground={str(foreground).lower()}"
        async with client.stream(path, "POST", json={"message": "Hello."}) as events:
            await until(events, "text.delta")
        async with client.stream(f"/threads/{thread_id}/events") as events:
            end = "run.cancelled" if foreground else "run.completed"
            await until(events, end)
        await settle()
        assert len(client.app.services.open_requests) == 0


async def test_a_cancel_that_fails_after_the_client_left_is_no_error(
    open_runtime: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[object] = []

    async def cancel(run: ThreadRun) -> None:
        called.append(run)
        raise JournalClosed("The journal is closed.")

    monkeypatch.setattr(ThreadRun, "cancel", cancel)
    model = ScriptedModel([[Text("One, ", 1), Pause(30), Text("two.", 1)]])
    async with serving(open_runtime(Agent(model))) as client:
        path = f"/threads/{await client.thread()}/messages?stream=true&foreground=true"
        async with client.stream(path, "POST", json={"message": "Hello."}) as events:
            await until(events, "text.delta")
        await opened(client, 0)
        await settle()
    assert called
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_a_reader_that_leaves_leaves_nothing(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        thread_id = await client.thread()
        before = len(asyncio.all_tasks())
        for _ in range(20):
            async with client.stream(f"/threads/{thread_id}/events"):
                assert len(client.app.services.open_requests) == 1
            await opened(client, 0)
        await settle()
        assert len(asyncio.all_tasks()) <= before + 1


async def test_events_of_agents_that_work_for_the_run_resume(open_runtime: Open) -> None:
    helper = Agent(ScriptedModel([TEXT]), name="helper")
    model = ScriptedModel([Call("helper", '{"message": "Say it."}'), "Done."])
    agent = Agent(model, name="main", tools=[helper.as_tool()])
    async with serving(open_runtime(agent)) as client:
        thread_id = await client.thread()
        await send(client, thread_id)
        path, last, read = f"/threads/{thread_id}/events", "", list[Frame]()
        while not read or read[-1].event != "run.completed":
            async with client.stream(path, last=last) as events:
                read.append(await anext(events))
                last = read[-1].id
        inner = [frame.data["event"] for frame in read if frame.event == "agent.event"]
        deltas = [event["delta"] for event in inner if event["type"] == "text.delta"]
        assert "".join(deltas) == TEXT
        assert text_of(read) == "Done."


async def test_a_failed_run_ends_with_its_event(open_runtime: Open) -> None:
    model = ScriptedModel([treadle.errors.BadRequest("No such model.")])
    async with serving(open_runtime(Agent(model))) as client:
        thread_id = await client.thread()
        run_id = (await send(client, thread_id))["run_id"]
        read = await client.read(f"/runs/{run_id}/events?thread_id={thread_id}")
        assert read[-1].event == "run.failed"
        result = await client.call("GET", f"/runs/{run_id}/result?thread_id={thread_id}")
        assert result["status"] == "failed"
        assert result["error"]["code"] == "bad_request"


async def test_the_desk(open_runtime: Open) -> None:
    async with serving(open_runtime(Agent(ScriptedModel(["One.", "Two."])))) as client:
        async with client.stream("/events?type=thread.created&type=run.completed") as desk:
            thread_id = await client.thread()
            await send(client, thread_id)
            first = await until(desk, "run.completed")
        assert [frame.event for frame in first] == ["thread.created", "run.completed"]
        assert {frame.data["thread_id"] for frame in first} == {thread_id}
        await send(client, thread_id)
        async with client.stream("/events?type=run.completed", last=first[0].id) as desk:
            again = [await anext(desk), await anext(desk)]
        assert again[0].data["event"] == first[1].data["event"]
        assert again[1].data["event"]["seq"] > first[1].data["event"]["seq"]
        for bad in ("type=nope", "after=nope", "after=1.2.3"):
            refused = await client.send("GET", f"/events?{bad}")
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")
        refused = await client.send("GET", "/events", headers={"last-event-id": "nope"})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")
        await opened(client, 0)
