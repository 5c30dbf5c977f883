"""Limits: of requests, streams and runs, of what comes before a body, and of slow clients."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.server.serving import NO_AUTH, opened, serving
from tests.server.test_security import AUTH, ring
from tests.server.test_shutdown import paced

from treadle import Agent, Runtime
from treadle.server.token_buckets import PRUNED_FROM, TokenBuckets
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@given(
    rate=st.floats(0.1, 1000),
    most=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=100),
)
def test_a_bucket_gives_what_it_holds_and_gets(rate: float, most: int, pauses: list[float]) -> None:
    buckets = TokenBuckets(rate, most)
    now, times = 100.0, list[float]()
    for number, pause in enumerate(pauses):
        now += pause
        seconds = buckets.take("a", now)
        if not seconds:
            times.append(now)
        else:
            assert 0 < seconds <= 1 / rate + 1e-9
            assert not buckets.take(f"other {number}", now)
    for first, begin in enumerate(times):
        for number, end in enumerate(times[first:], 1):
            assert number <= most + (end - begin) * rate + 1e-6
    assert all(one <= other for one, other in pairwise(times))


def test_full_buckets_are_not_kept() -> None:
    buckets = TokenBuckets(1.0, 2)
    for number in range(10 * PRUNED_FROM):
        assert not buckets.take(str(number), float(number))
    assert len(buckets) <= PRUNED_FROM


async def test_requests_of_a_key(open_runtime: Open) -> None:
    keys = ring(one=(None, "admin"), other=(None, "admin"))
    settings = replace(AUTH, requests_per_second=0.5, burst_requests=4)
    async with serving(open_runtime(Agent(ScriptedModel([]))), settings, keys=keys.keys) as client:
        one, other = keys.headers("one"), keys.headers("other")
        thread_id = (await client.call("POST", "/threads", {}, headers=one))["id"]
        for _ in range(3):
            await client.call("GET", "/me", headers=one)
        for method, path, body in (("GET", "/me", None), ("POST", "/threads", {})):
            refused = await client.send(method, path, body, headers=one)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"] == "2"
            assert refused.headers["x-should-retry"] == "true"
            assert refused.json()["retryable"]
        # An EventSource would give up for good at a 429.
        stream = await client.send("GET", f"/threads/{thread_id}/events", headers=one)
        assert stream.status_code == 200
        assert "retry: 2000\n" in stream.text
        assert stream.text.endswith('event: stream.ended\ndata: {"reason":"limited"}\n\n')
        page = one | {"accept": "application/json"}
        refused = await client.send("GET", f"/threads/{thread_id}/events", headers=page)
        assert refused.status_code == 429
        await client.call("GET", "/me", headers=other)
        assert (await client.send("GET", "/me")).status_code == 401
        await asyncio.sleep(2)
        await client.call("GET", "/me", headers=one)


async def test_a_server_without_authentication_does_not_count(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, requests_per_second=1.0, burst_requests=1, max_streams=1)
    async with serving(open_runtime(Agent(ScriptedModel([]))), settings) as client:
        for _ in range(5):
            await client.call("GET", "/me")


async def test_streams_of_a_key(open_runtime: Open) -> None:
    keys = ring(one=("a", "admin"), other=("a", "admin"))
    settings = replace(AUTH, max_streams=2)
    model = ScriptedModel([paced(every=50.0)] * 3)
    async with serving(open_runtime(Agent(model)), settings, keys=keys.keys) as client:
        one, other = keys.headers("one"), keys.headers("other")
        thread_id = (await client.call("POST", "/threads", {}, headers=one))["id"]
        events, messages = f"/api/v1/threads/{thread_id}/events", f"/threads/{thread_id}/messages"
        async with AsyncExitStack() as stack:
            for number in range(2):
                await stack.enter_async_context(client.http.stream("GET", events, headers=one))
                await opened(client, number + 1)
            third = await client.http.get(events, headers=one)
            assert '{"reason":"limited"}' in third.text
            assert "retry: 5000\n" in third.text
            refused = await client.send(
                "POST", f"{messages}?stream=true", {"message": "Hi."}, headers=one
            )
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            assert refused.headers["x-should-retry"] == "true"
            assert not (await client.call("GET", f"/threads/{thread_id}/runs", headers=one))["data"]
            # What would wait is answered at once.
            sent = await client.send(
                "POST", f"{messages}?wait=100", {"message": "Hi."}, headers=one
            )
            assert sent.status_code == 202
            result = await client.send(
                "GET", f"/runs/{sent.json()['run_id']}/result?wait=100", headers=one
            )
            assert result.status_code == 202
            await stack.enter_async_context(client.http.stream("GET", events, headers=other))
            await opened(client, 3)
        await opened(client, 0)
        async with client.http.stream("GET", events, headers=one):
            await opened(client, 1)
        await opened(client, 0)
        assert not client.app.services.limits._streams


async def test_runs_of_an_owner(open_runtime: Open) -> None:
    keys = ring(alice=("alice", "admin"), root=(None, "admin"))
    settings = replace(AUTH, max_runs_per_owner=2)
    model = ScriptedModel([paced(every=5.0)] * 10)
    async with serving(open_runtime(Agent(model)), settings, keys=keys.keys) as client:
        alice, root = keys.headers("alice"), keys.headers("root")

        async def thread(headers: dict[str, str], **body: object) -> str:
            return (await client.call("POST", "/threads", body, headers=headers))["id"]

        async def send(thread_id: str, headers: dict[str, str], **body: object) -> Any:
            path = f"/threads/{thread_id}/messages"
            return await client.send("POST", path, {"message": "Hi.", **body}, headers=headers)

        threads = [await thread(alice) for _ in range(3)]
        threads.append(await thread(root, owner="alice"))
        sent = [await send(thread_id, alice) for thread_id in threads[:2]]
        assert [one.status_code for one in sent] == [202, 202]
        for thread_id, headers in ((threads[2], alice), (threads[3], root)):
            refused = await send(thread_id, headers)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_runs")
            assert refused.headers["x-should-retry"] == "true"
        # A thread that works already takes messages.
        assert (await send(threads[0], alice, on_busy="steer")).status_code == 202
        assert (await send(threads[0], alice)).status_code == 202
        # Other owners, and threads without an owner, are not concerned.
        for owner in ("bob", ""):
            assert (await send(await thread(root, owner=owner), root)).status_code == 202
        run_id = sent[1].json()["run_id"]
        await client.call("GET", f"/runs/{run_id}/result?wait=200", headers=alice)
        assert (await send(threads[2], alice)).status_code == 202


async def test_the_text_of_a_message_has_a_limit(open_runtime: Open) -> None:
    settings = replace(NO_AUTH, max_message_bytes=20)
    async with serving(open_runtime(Agent(ScriptedModel(["Yes."] * 3))), settings) as client:
        path = f"/threads/{await client.thread()}/messages"
        halves = [{"type": "input_text", "text": "12345678901"}] * 2
        for message in ("123456789012345678901", "\u20ac" * 7, {"role": "user", "content": halves}):
            refused = await client.send("POST", path, {"message": message})
            assert (refused.status_code, refused.json()["code"]) == (413, "message_too_large")
            assert refused.headers["x-should-retry"] == "false"
        await client.call("POST", path, {"message": "\u20ac" * 6})
