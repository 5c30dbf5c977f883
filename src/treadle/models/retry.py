"""When to repeat a request that failed before its first event.

Exponential backoff with jitter inside a budget of time ("full jitter":
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A provider's
`Retry-After` is respected; if it exceeds the budget, the error is raised at once. What
usually fails in the same way, such as a response that cannot be read, is repeated once: each
attempt is paid for.
"""

import random
from collections.abc import Callable

from msgspec import Struct

from treadle.errors import ConfigurationError, ModelError


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
    """A request failed with `error` and is to be repeated after `delay` seconds."""

    error: ModelError
    delay: float
    retries_remaining: int


class Backoff:
    """Counts the failures of one request and computes the wait after each."""

    def __init__(self, policy: RetryPolicy, *, jitter: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._jitter = jitter
        self._failures = 0
        self._alike = 0
        self._waited = 0.0

    def after(self, error: ModelError) -> Retry | None:
        """Returns the retry to make after `error`, or None to give up.

        It gives up if the error is not retryable, if it is the second of those that are retried
        once, or if the retries or the budget are used up.
        """
        policy = self._policy
        delay = self._delay(error)
        self._failures += 1
        error.attempts = self._failures
        self._waited += delay
        remaining = policy.max_retries - self._failures
        self._alike += error.retry_once
        if not error.retryable or remaining < 0 or self._waited > policy.budget:
            return None
        if self._alike > 1:
            return None
        return Retry(error, delay, remaining)

    def _delay(self, error: ModelError) -> float:
        policy = self._policy
        bound = min(policy.max_delay, policy.first_delay * 2**self._failures)
        if error.retry_after is not None:
            # A little later than requested, so that many clients do not return at the same instant.
            return error.retry_after + self._jitter() * min(bound, 0.1 * error.retry_after)
        return self._jitter() * bound
