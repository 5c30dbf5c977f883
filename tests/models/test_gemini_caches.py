"""Explicit caches of Gemini: made on the second use, prolonged, lost, refused; never in the way."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.models.wire.odd_histories import histories
from tests.models.wire.test_sendable import REQUESTS

from treadle import Agent, Limits, ModelSettings, NamedTool, Price, Runtime, tool
from treadle.domain.events import UsageAdded
from treadle.domain.items import user_message
from treadle.errors import BadRequest, ConfigurationError, ContextOverflow, RateLimited
from treadle.models import CacheWritten, Gemini, NetworkTransport, VertexGemini
from treadle.models.base import ModelEvent, ModelRequest
from treadle.models.transport import HttpRequest, HttpResponse
from treadle.models.wire.gemini_request import GeminiOptions, cached_part, encode_request
from treadle.models.wire.sendable import json_body
from treadle.streaming.demux import ResponseFinished
from treadle.testing import Call, ProviderSimulator, Text, Turn, record, replay

pytestmark = pytest.mark.anyio

LONG = "Answer as a lighthouse keeper would. " * 200
PARTS = ("systemInstruction", "tools", "toolConfig")


class Watched:
    """Sends requests over the network; `refuse` may raise for one."""

    def __init__(self, refuse: Callable[[HttpRequest], None] = lambda request: None) -> None:
        self._network = NetworkTransport()
        self._refuse = refuse
        self.sent: list[tuple[str, str]] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.sent.append((request.method, request.path))
        self._refuse(request)
        return await self._network.send(request)


def gemini(simulator: ProviderSimulator, **options: Any) -> Gemini:
    root = simulator.base_url.removesuffix("/v1")
    return Gemini("gemini-3.8-flash", api_key="k", base_url=root, prompt_cache="5m", **options)


def said(*texts: str) -> Any:
    return lambda request: Turn((Text(texts[0] if texts else "Hm."),))


async def ask(model: Any, instructions: str = LONG, **options: Any) -> list[ModelEvent]:
    request = ModelRequest(items=[user_message("Hi")], instructions=instructions, **options)
    return [event async for event in model.stream(request)]


def uses(simulator: ProviderSimulator) -> list[str]:
    """What each request was: the creation of a cache, a change, a use, or a full request."""
    found: list[str] = []
    for one in simulator.requests:
        if one.path.endswith("/cachedContents"):
            found.append("create")
        elif "/cachedContents/" in one.path:
            found.append("prolong")
        elif "cachedContent" in one.body:
            assert not [part for part in PARTS if part in one.body]
            found.append("use")
        else:
            found.append("full")
    return found


async def test_a_beginning_that_comes_again_is_cached() -> None:
    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator)
        for _ in range(3):
            events = await ask(model)
        assert uses(simulator) == ["full", "create", "use", "use"]
        created = simulator.requests[1].body
        assert created["model"] == "models/gemini-3.8-flash"
        assert created["ttl"] == "300s"
        assert created["systemInstruction"] == simulator.requests[0].body["systemInstruction"]
        assert set(created) == {"model", "ttl", "systemInstruction"}
        end = events[-1]
        assert isinstance(end, ResponseFinished)
        assert end.usage.cached_input_tokens > 1_024
        assert not isinstance(events[0], CacheWritten)
        # Other instructions are another beginning.
        await ask(model, LONG + "!")
        assert uses(simulator)[4:] == ["full"]
        assert simulator.statistics().rejected == 0


async def test_vertex_names_its_project() -> None:
    async with ProviderSimulator(said()) as simulator:
        root = simulator.base_url.removesuffix("/v1")
        model = VertexGemini(
            "gemini-3.8-flash",
            project="p",
            location="eu",
            token="t",
            base_url=root,
            prompt_cache="1h",
        )
        for _ in range(2):
            await ask(model)
        assert uses(simulator) == ["full", "create", "use"]
        created, used = simulator.requests[1:]
        assert created.path == "/v1/projects/p/locations/eu/cachedContents"
        resource = "projects/p/locations/eu/publishers/google/models/gemini-3.8-flash"
        assert created.body["model"] == resource
        assert created.body["ttl"] == "3600s"
        assert used.body["cachedContent"] == "projects/p/locations/eu/cachedContents/sim1"
        await asyncio.sleep(2_000)
        await ask(model)
        prolonged = simulator.requests[-2]
        assert prolonged.path == "/v1/projects/p/locations/eu/cachedContents/sim1"
        assert prolonged.body == {"ttl": "3600s"}


async def test_a_cache_in_use_is_prolonged_and_another_one_expires() -> None:
    async with ProviderSimulator(said()) as simulator:
        transport = Watched()
        model = gemini(simulator, transport=transport)
        for wait in (0, 0, 100, 100, 100, 400, 10):
            await asyncio.sleep(wait)
            await ask(model)
        assert uses(simulator) == [
            *("full", "create", "use", "use", "prolong", "use", "use"),
            *("full", "create", "use"),  # a pause of more than 5 minutes: as at first
        ]
        assert ("PATCH", "/cachedContents/sim1") in transport.sent
        assert simulator.statistics().rejected == 0


async def test_a_cache_that_is_gone_is_not_missed() -> None:
    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator)
        for _ in range(2):
            await ask(model)
        await asyncio.sleep(70)
        simulator.app.caches.by_name.clear()
        events = await ask(model)
        assert isinstance(events[-1], ResponseFinished)
        assert uses(simulator)[3:] == ["use", "full"]
        await ask(model)
        assert uses(simulator)[5:] == ["create", "use"]
        # One that is refused at once is not made over and over.
        simulator.app.caches.by_name.clear()
        for _ in range(3):
            await ask(model)
        assert uses(simulator)[7:] == ["use", "full", "full", "full"]
        await asyncio.sleep(299)
        await ask(model)
        await asyncio.sleep(10)
        await ask(model)
        assert uses(simulator)[11:] == ["full", "create", "use"]


async def test_a_cache_that_cannot_be_prolonged_is_used_to_its_end() -> None:
    def no_patch(request: HttpRequest) -> None:
        if request.method == "PATCH":
            raise OSError("no such method here")

    async with ProviderSimulator(said()) as simulator:
        transport = Watched(no_patch)
        model = gemini(simulator, transport=transport)
        for wait in (0, 0, 200, 50, 60, 1):
            await asyncio.sleep(wait)
            await ask(model)
        assert uses(simulator) == ["full", "create", "use", "use", "use", "create", "use", "use"]
        assert [method for method, _ in transport.sent].count("PATCH") == 1
        await asyncio.sleep(200)
        simulator.app.caches.by_name.clear()
        transport = Watched()
        model = gemini(simulator, transport=transport)
        for wait in (0, 0, 200):
            await asyncio.sleep(wait)
            if wait:
                simulator.app.caches.by_name.clear()
            await ask(model)
        # Gone when it should be prolonged: the request is sent in full at once.
        assert [method for method, _ in transport.sent][-2:] == ["PATCH", "POST"]
        assert uses(simulator)[-1] == "full"


async def test_what_is_too_small_is_not_tried_again() -> None:
    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator)
        for text in ("Short.", LONG[:3_000], LONG[:2_900], LONG[:3_100]):
            for _ in range(3):
                await ask(model, text)
        assert uses(simulator).count("create") == 2  # the second one is longer than the first
        assert uses(simulator).count("use") == 0


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"name": "../../x"}', b'{"name": 3}', b"\xff"])
async def test_an_answer_that_names_no_cache(answer: bytes, caplog: Any) -> None:
    class Odd(Watched):
        async def send(self, request: HttpRequest) -> HttpResponse:
            response = await super().send(request)
            return Body(answer) if "cached" in request.path else response  # type: ignore[return-value]

    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator, transport=Odd())
        for _ in range(4):
            assert isinstance((await ask(model))[-1], ResponseFinished)
        assert uses(simulator) == ["full", "create", "full", "full", "full"]
        assert "No prompt cache was made" in caplog.text


class Body:
    """A response that is read already."""

    status, content_type = 200, "application/json"

    def __init__(self, body: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.content, self._body = self, body

    async def read(self, n: int, /) -> bytes:
        body, self._body = self._body, b""
        return body

    def at_eof(self) -> bool:
        return not self._body

    def release(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("error", [OSError("broken"), TimeoutError()])
async def test_a_server_of_caches_that_fails_fails_no_request(error: OSError, caplog: Any) -> None:
    def fail(request: HttpRequest) -> None:
        if "cached" in request.path:
            raise error

    async with ProviderSimulator(said()) as simulator:
        transport = Watched(fail)
        model = gemini(simulator, transport=transport)
        for _ in range(4):
            assert isinstance((await ask(model))[-1], ResponseFinished)
        assert uses(simulator) == ["full"] * 4
        assert len(transport.sent) == 5
        assert "k" not in caplog.text.split()
        await asyncio.sleep(290)
        await ask(model)
        await asyncio.sleep(11)
        await ask(model)
        assert len(transport.sent) == 8


async def test_requests_do_not_wait_for_a_cache_that_another_one_makes() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Watched):
        async def send(self, request: HttpRequest) -> HttpResponse:
            if "cached" in request.path:
                begun.set()
                await go_on.wait()
            return await super().send(request)

    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator, transport=Slow())
        await ask(model)
        first = asyncio.create_task(ask(model))
        await begun.wait()
        await asyncio.gather(*(ask(model) for _ in range(5)))
        assert uses(simulator) == ["full"] * 6
        # Whoever makes it may be cancelled: the next one makes it.
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        await ask(model)
        assert uses(simulator)[6:] == ["create", "use"]


async def test_a_cache_that_takes_too_long_is_given_up() -> None:
    class Stuck(Watched):
        async def send(self, request: HttpRequest) -> HttpResponse:
            if "cached" in request.path:
                await asyncio.sleep(3_600)
            return await super().send(request)

    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator, transport=Stuck())
        loop = asyncio.get_running_loop()
        await ask(model)
        start = loop.time()
        await ask(model)
        assert 30 <= loop.time() - start < 31
        assert uses(simulator) == ["full", "full"]


async def test_errors_of_a_request_stay_its_own() -> None:
    async with ProviderSimulator(said(), window=4_000) as simulator:
        model = gemini(simulator)
        for _ in range(2):
            await ask(model)
        with pytest.raises(ContextOverflow):
            request = ModelRequest(items=[user_message("long " * 9_000)], instructions=LONG)
            _ = [event async for event in model.stream(request)]
        assert uses(simulator)[3:] == ["use"]
    limits = iter([None, None, None, RateLimited("slow down"), BadRequest("no")])

    def refuse(request: HttpRequest) -> None:
        if error := next(limits, None):
            raise error

    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator, transport=Watched(refuse))
        for _ in range(2):
            await ask(model)
        with pytest.raises(RateLimited):
            await ask(model)
        await ask(model)
        assert uses(simulator)[3:] == ["full"]


async def test_what_extra_body_adds_is_part_of_the_beginning() -> None:
    search = ModelSettings(extra_body={"tools": [{"googleSearch": {}}], "serviceTier": "flex"})
    own = ModelSettings(extra_body={"cachedContent": "cachedContents/mine"})
    async with ProviderSimulator(said()) as simulator:
        model = gemini(simulator)
        for _ in range(2):
            await ask(model, settings=search)
        assert simulator.requests[1].body["tools"] == [{"googleSearch": {}}]
        assert "tools" not in simulator.requests[2].body
        assert simulator.requests[2].body["serviceTier"] == "flex"
        with pytest.raises(BadRequest, match="not found"):
            await ask(model, settings=own)
        assert uses(simulator) == ["full", "create", "use", "use"]


async def test_a_run_counts_what_the_cache_costs(open_runtime: Callable[..., Runtime]) -> None:
    @tool
    async def look(at: str) -> str:
        """Looks."""
        return "fog"

    turns = [Turn((Call("look", '{"at": "sea"}'),)), Turn((Call("look", '{"at": "sky"}'),))]
    async with ProviderSimulator([*turns, Turn((Text("Fog."),))]) as simulator:
        price = Price(input=2.0, output=0, cached_input=0.2)
        agent = Agent(
            gemini(simulator),
            instructions=LONG,
            tools=[look],
            settings=ModelSettings(tool_choice=NamedTool("look")),
            limits=Limits(price=price),
        )
        async with open_runtime(agent) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("How is it?")
            events = [event async for event in run]
            result = await run.result()
        # The first request is forced to call, which is another beginning.
        assert uses(simulator) == ["full", "full", "create", "use"]
        (added,) = (event for event in events if isinstance(event, UsageAdded))
        assert added.usage.cache_write_tokens == added.usage.input_tokens > 1_024
        assert added.cost == pytest.approx(added.usage.input_tokens * 2.0 / 1e6)
        assert result.usage.cache_write_tokens == added.usage.input_tokens
        assert result.usage.cached_input_tokens >= added.usage.input_tokens
        assert result.cost == pytest.approx(price.cost(result.usage))
        assert "cachedContents" not in json.dumps([str(event) for event in events])


async def test_recordings_contain_caches(tmp_path: Any) -> None:
    file = tmp_path / "cached.jsonl"
    for is_recorded in (True, False):
        async with ProviderSimulator(said()) as simulator:
            model = gemini(simulator)
            with record(file) if is_recorded else replay(file):
                for _ in range(3):
                    assert isinstance((await ask(model))[-1], ResponseFinished)
            assert len(simulator.requests) == (4 if is_recorded else 0)


@pytest.mark.parametrize("given", ["2h", 300, True])
def test_other_times_are_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="use '5m', '1h' or None"):
        Gemini("gemini-3.8-flash", api_key="", prompt_cache=given)


@settings(max_examples=40)
@given(REQUESTS(histories()))
def test_a_request_is_its_cached_part_and_the_rest(request_: ModelRequest) -> None:
    name, options = "gemini-3.8-flash", GeminiOptions()
    whole = json.loads(encode_request(name, request_, options).body)
    extra = {**request_.settings.extra_body, "cachedContent": "c"}
    cached = replace(request_, settings=replace(request_.settings, extra_body=extra))
    rest = json.loads(encode_request(name, cached, options).body)
    assert rest.pop("cachedContent") == "c"
    assert {**json.loads(json_body(cached_part(request_))), **rest} == whole
