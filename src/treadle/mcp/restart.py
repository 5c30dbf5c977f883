"""The wait before a server that ended is started again.

Exponential backoff with jitter, as for models (`treadle.models.retry`), but without a limit on the
number of starts, because a server is started only when its tools are needed.
"""

import random
from collections.abc import Callable

from msgspec import Struct


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """The waits in seconds: at most `first_delay`, doubled with each failure up to `max_delay`.

    A server that lived for `healthy_after` seconds starts again at `first_delay`.
    """

    first_delay: float = 0.5
    max_delay: float = 30.0
    healthy_after: float = 60.0


class RestartPause:
    """Counts how often a server ended in a row, and computes when it may start again."""

    def __init__(
        self, policy: RestartPolicy, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._jitter = jitter
        self._failures = 0
        self._due = float("-inf")

    def ended(self, now: float, lived: float) -> None:
        """A server ended, or could not be started, after `lived` seconds."""
        if lived >= self._policy.healthy_after:
            self._failures = 0
        bound = min(self._policy.max_delay, self._policy.first_delay * 2**self._failures)
        self._failures = min(self._failures + 1, 32)  # 2 to this power stays finite
        self._due = now + self._jitter() * bound

    def remaining(self, now: float) -> float:
        """Returns the seconds until the server may be started; 0 if it may be at once."""
        return max(0.0, self._due - now)
