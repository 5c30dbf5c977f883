import asyncio
from collections.abc import AsyncIterator

import pytest

from treadle import Agent, TextDelta
from treadle.domain.items import user_message
from treadle.domain.usage import Usage
from treadle.errors import (
    BadRequest,
    ConfigurationError,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.base import ModelRequest
from treadle.models.fallback import FallbackModel
from treadle.models.retry import Backoff, RetryPolicy
from treadle.streaming.demux import ResponseFinished, StreamEvent
from treadle.testing import ScriptedModel, Text, Unfinished

pytestmark = pytest.mark.anyio

REQUEST = ModelRequest(items=[user_message("hi")])


def delays(policy: RetryPolicy, *errors: ModelError, jitter: float = 1.0) -> list[float | None]:
    backoff = Backoff(policy, jitter=lambda: jitter)
    retries = [backoff.after(error) for error in errors]
    return [None if retry is None else retry.delay for retry in retries]


def test_back_off_doubles_up_to_its_bound() -> None:
    policy = RetryPolicy(max_retries=5, first_delay=1, max_delay=5)
    errors = [ServerFailed("x") for _ in range(6)]
    assert delays(policy, *errors) == [1, 2, 4, 5, 5, None]
    assert [error.attempts for error in errors] == [1, 2, 3, 4, 5, 6]


def test_retries_remaining_count_down() -> None:
    backoff = Backoff(RetryPolicy(max_retries=2))
    retries = [backoff.after(ServerFailed("x")) for _ in range(3)]
    assert [retry and retry.retries_remaining for retry in retries] == [1, 0, None]


def test_jitter_shortens_the_wait() -> None:
    assert delays(RetryPolicy(first_delay=4), ServerFailed("x"), jitter=0.25) == [1]


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 2.0), (1.0, 2.2)])
def test_retry_after_is_a_lower_bound(jitter: float, delay: float) -> None:
    error = RateLimited("x", retry_after=2)
    assert delays(RetryPolicy(first_delay=9), error, jitter=jitter) == [pytest.approx(delay)]


def test_the_budget_is_never_exceeded() -> None:
    policy = RetryPolicy(max_retries=9, budget=10, first_delay=4, max_delay=60)
    assert delays(policy, ServerFailed("x"), ServerFailed("x")) == [4, None]
    assert delays(policy, RateLimited("x", retry_after=11)) == [None]


@pytest.mark.parametrize("error", [QuotaExceeded("x"), BadRequest("x")])
def test_what_waiting_cannot_cure_is_not_repeated(error: ModelError) -> None:
    assert delays(RetryPolicy(), error) == [None]


def test_what_cannot_be_read_is_requested_once_more() -> None:
    policy = RetryPolicy(max_retries=9, first_delay=1)
    assert delays(policy, StreamInvalid("x"), StreamInvalid("x")) == [1, None]
    mixed = [ServerFailed("x"), StreamInvalid("x"), ServerFailed("x"), StreamInvalid("x")]
    assert delays(policy, *mixed) == [1, 2, 4, None]


class Minimal:
    """A model whose stream is an async iterator and no generator."""

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
    result = await Agent(Minimal()).run("hi")
    assert (result.status, result.text) == ("completed", "")


async def test_a_stream_is_closed_when_the_run_is_cancelled() -> None:
    closed: list[str] = []

    class Watched:
        name = provider = "watched"

        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
            try:
                yield TextDelta("m", "a")
                await asyncio.sleep(60)
            finally:
                closed.append("closed")

    async with Agent(Watched()).stream("hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                await run.cancel()
        assert closed == ["closed"]


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
