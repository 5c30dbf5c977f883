"""Repeats a request that failed before anything of its response was seen.

Jittered exponential back-off inside a budget of time ("full jitter":
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A provider's
`Retry-After` is honoured; if it does not fit the budget, the error is raised at once.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import cast

from msgspec import Struct

from weft.errors import ConfigurationError, ModelError
from weft.models.base import Model, ModelRequest
from weft.streaming.demux import StreamEvent


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How often and how long a failed request is repeated.

    `max_retries` per step; `budget` is the longest total wait, `first_delay` the upper bound of
    the first wait (doubled each time) and `max_delay` of any, in seconds.
    """

    max_retries: int = 4
    budget: float = 60.0
    first_delay: float = 0.5
    max_delay: float = 20.0

    def __post_init__(self) -> None:
        if min(self.max_retries, self.budget, self.first_delay, self.max_delay) < 0:
            raise ConfigurationError("The values of a RetryPolicy cannot be negative.")


class Retry(Struct, frozen=True):
    """A request failed with `error` and is repeated after `delay` seconds."""

    error: ModelError
    delay: float
    retries_remaining: int


def stream_with_retries(
    model: Model,
    request: ModelRequest,
    policy: RetryPolicy,
    *,
    jitter: Callable[[], float] = random.random,
) -> AsyncGenerator[StreamEvent | Retry]:
    """Streams the response of `model`, repeating the request while nothing of it was seen.

    Yields a `Retry` before each wait. Raises the last `ModelError` when it is not retryable, when
    something was already seen, or when retries or budget are used up.
    """
    return _stream(model, request, policy, jitter)


async def _stream(
    model: Model, request: ModelRequest, policy: RetryPolicy, jitter: Callable[[], float]
) -> AsyncGenerator[StreamEvent | Retry]:
    waited = 0.0
    for attempt in range(policy.max_retries + 1):
        seen = False
        try:
            async with aclosing(_closable(model.stream(request))) as events:
                async for event in events:
                    seen = True
                    yield event
            return
        except ModelError as error:
            error.attempts = attempt + 1
            delay = _delay(error, attempt, policy, jitter)
            last = attempt == policy.max_retries
            if seen or last or not error.retryable or waited + delay > policy.budget:
                raise
            waited += delay
            failure = error
        yield Retry(failure, delay, policy.max_retries - attempt - 1)
        await asyncio.sleep(delay)


def _delay(
    error: ModelError, attempt: int, policy: RetryPolicy, jitter: Callable[[], float]
) -> float:
    bound = min(policy.max_delay, policy.first_delay * 2**attempt)
    if error.retry_after is not None:
        # A little later than asked, so that many clients do not return in the same instant.
        return error.retry_after + jitter() * min(bound, 0.1 * error.retry_after)
    return jitter() * bound


def _closable(events: AsyncIterator[StreamEvent]) -> AsyncGenerator[StreamEvent]:
    # `Model.stream` promises an iterator only; nearly all models are async generators.
    if hasattr(events, "aclose"):
        return cast("AsyncGenerator[StreamEvent]", events)
    return _as_generator(events)


async def _as_generator(events: AsyncIterator[StreamEvent]) -> AsyncGenerator[StreamEvent]:
    async for event in events:
        yield event
