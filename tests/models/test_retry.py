import asyncio
from collections.abc import AsyncIterator

import pytest

from weft.errors import (
    BadRequest,
    ConfigurationError,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
)
from weft.items import user_message
from weft.models.base import ModelRequest
from weft.models.fallback import FallbackModel
from weft.models.retry import Retry, RetryPolicy, stream_with_retries
from weft.streaming.demux import ResponseFinished, StreamEvent
from weft.testing import ScriptedModel, Text, Unfinished
from weft.usage import Usage

pytestmark = pytest.mark.anyio

REQUEST = ModelRequest(items=[user_message("hi")])


async def collect(
    model: ScriptedModel, policy: RetryPolicy, jitter: float = 1.0
) -> list[StreamEvent | Retry]:
    return [
        event async for event in stream_with_retries(model, REQUEST, policy, jitter=lambda: jitter)
    ]


async def test_back_off_doubles_up_to_its_bound() -> None:
    model = ScriptedModel([ServerFailed("x")] * 5 + ["ok"])
    policy = RetryPolicy(max_retries=5, first_delay=1, max_delay=5)
    begin = asyncio.get_running_loop().time()
    events = await collect(model, policy)
    retries = [event for event in events if isinstance(event, Retry)]
    assert [retry.delay for retry in retries] == [1, 2, 4, 5, 5]
    assert [retry.retries_remaining for retry in retries] == [4, 3, 2, 1, 0]
    assert asyncio.get_running_loop().time() - begin == 17
    assert isinstance(events[-1], ResponseFinished)


async def test_jitter_shortens_the_wait() -> None:
    events = await collect(ScriptedModel([ServerFailed("x"), "ok"]), RetryPolicy(), jitter=0.0)
    assert isinstance(events[0], Retry)
    assert events[0].delay == 0


async def test_retry_after_is_a_lower_bound() -> None:
    model = ScriptedModel([RateLimited("x", retry_after=20), "ok"])
    (retry, *_) = await collect(model, RetryPolicy())
    assert isinstance(retry, Retry)
    assert 20 <= retry.delay <= 22


async def test_retries_are_bounded_and_the_last_error_says_how_often() -> None:
    model = ScriptedModel([ServerFailed("x")] * 3)
    with pytest.raises(ServerFailed) as caught:
        await collect(model, RetryPolicy(max_retries=2))
    assert caught.value.attempts == 3
    model.require_consumed()


async def test_the_budget_is_never_exceeded() -> None:
    policy = RetryPolicy(max_retries=9, budget=10, first_delay=4, max_delay=60)
    model = ScriptedModel([ServerFailed("x")] * 3)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(ServerFailed):
        await collect(model, policy)
    assert asyncio.get_running_loop().time() - begin == 4
    with pytest.raises(RateLimited):
        await collect(ScriptedModel([RateLimited("x", retry_after=11)]), policy)


@pytest.mark.parametrize("error", [QuotaExceeded("x"), BadRequest("x")])
async def test_what_waiting_cannot_cure_fails_at_once(error: ModelError) -> None:
    model = ScriptedModel([error, "never"])
    with pytest.raises(type(error)):
        await collect(model, RetryPolicy())
    assert model.remaining == 1


async def test_nothing_visible_is_ever_repeated() -> None:
    model = ScriptedModel([[Unfinished(Text("a")), StreamIncomplete("cut")], "never"])
    with pytest.raises(StreamIncomplete):
        await collect(model, RetryPolicy())
    assert model.remaining == 1


class Minimal:
    """A model that is an async iterator and no generator."""

    name = provider = "minimal"

    def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        class Events:
            left = 1

            def __aiter__(self) -> "Events":
                return self

            async def __anext__(self) -> StreamEvent:
                if not self.left:
                    raise StopAsyncIteration
                self.left -= 1
                return ResponseFinished("r", "stop", Usage())

        return Events()


async def test_any_async_iterator_will_do() -> None:
    events = [e async for e in stream_with_retries(Minimal(), REQUEST, RetryPolicy())]
    assert events == [ResponseFinished("r", "stop", Usage())]


async def test_fallback_takes_the_first_that_answers() -> None:
    first = ScriptedModel([QuotaExceeded("x")], name="first")
    second = ScriptedModel(["second"], name="second")
    third = ScriptedModel(["never"], name="third")
    model = FallbackModel(first, second, third)
    events = [event async for event in model.stream(REQUEST)]
    assert isinstance(events[-1], ResponseFinished)
    assert (model.name, model.provider) == ("first", "scripted")
    assert (first.remaining, second.remaining, third.remaining) == (0, 0, 1)


async def test_fallback_does_not_mix_two_answers() -> None:
    first = ScriptedModel([[Unfinished(Text("a")), StreamIncomplete("cut")]])
    second = ScriptedModel(["never"])
    with pytest.raises(StreamIncomplete):
        _ = [event async for event in FallbackModel(first, second).stream(REQUEST)]
    assert second.remaining == 1


async def test_fallback_raises_the_last_error() -> None:
    models = [ScriptedModel([ServerFailed("one")]), ScriptedModel([BadRequest("two")])]
    with pytest.raises(BadRequest, match="two"):
        _ = [event async for event in FallbackModel(*models).stream(REQUEST)]
    with pytest.raises(ConfigurationError):
        FallbackModel()
