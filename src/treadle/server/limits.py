"""Limits on what one principal, and one owner, may do at a time."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterable

from treadle.domain.items import InputText, Message, OutputText
from treadle.runtime.view import RuntimeView
from treadle.server.principal import Principal
from treadle.server.problems import RequestRefused
from treadle.server.settings import ServerSettings
from treadle.server.token_buckets import TokenBuckets

FULL_SECONDS = 5
"""After how many seconds a client should ask again for a stream or a run above the limit."""


class Limits:
    """Requests and streams of each principal, runs of each owner, and the size of messages.

    A server without authentication is reached from its own machine only, by one principal, whose
    requests and streams are not limited. Threads without an owner have no limit on their runs.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        rate = settings.requests_per_second
        self._buckets = TokenBuckets(rate, settings.burst_requests) if rate else None
        self._streams: Counter[str] = Counter()
        # At most so many threads of an owner have a run in progress. The journal knows how many;
        # it is asked only if this bound is too high.
        self._runs: Counter[str] = Counter()

    def seconds_to_wait(self, principal: Principal) -> float:
        """Counts a request; returns 0, or after how many seconds the principal may make it."""
        if self._buckets is None or not principal.by:
            return 0.0
        return self._buckets.take(principal.by, asyncio.get_running_loop().time())

    def open_stream(self, principal: Principal) -> bool:
        """Counts a stream or a wait; returns False, and counts nothing, above the limit."""
        if not self.has_room(principal):
            return False
        if principal.by:
            self._streams[principal.by] += 1
        return True

    def close_stream(self, principal: Principal) -> None:
        """Ends a stream or a wait that was counted."""
        if by := principal.by:
            self._streams[by] -= 1
            if not self._streams[by]:
                del self._streams[by]

    def has_room(self, principal: Principal) -> bool:
        """Returns whether the principal may open another stream."""
        return not principal.by or self._streams[principal.by] < self._settings.max_streams

    def require_stream(self, principal: Principal) -> None:
        """Raises 429 `too_many_streams` if the principal may not open another stream."""
        if not self.has_room(principal):
            raise RequestRefused(
                429,
                "too_many_streams",
                f"{self._settings.max_streams} streams of this key are open; close one.",
                retryable=True,
                retry_after=FULL_SECONDS,
            )

    async def require_run(self, runtime: RuntimeView, owner: str, thread_id: str) -> None:
        """Raises 429 `too_many_runs` if so many threads of an owner have a run in progress.

        A message to one of these threads starts none at the same time, so it is accepted.
        """
        most = self._settings.max_runs_per_owner
        if not owner:
            return
        if self._runs[owner] >= most:
            self._runs[owner] = 0
            active = await runtime.threads(
                owner=owner, status=("in_progress", "queued"), limit=most
            )
            self._runs[owner] += len(active)
            if len(active) >= most and all(info.id != thread_id for info in active):
                raise RequestRefused(
                    429,
                    "too_many_runs",
                    f"{most} threads of this owner have a run in progress; send it again when one "
                    "has ended.",
                    retryable=True,
                    retry_after=FULL_SECONDS,
                )
        self._runs[owner] += 1

    def require_size(self, messages: Iterable[Message]) -> None:
        """Raises 413 `message_too_large` for a message with more text than is allowed."""
        most = self._settings.max_message_bytes
        for message in messages:
            size = sum(
                len(part.text.encode("utf-8", "surrogatepass"))
                for part in message.content
                if isinstance(part, InputText | OutputText)
            )
            if size > most:
                raise RequestRefused(
                    413,
                    "message_too_large",
                    f"The text of a message has {size:,} bytes, more than {most:,}; send it as a "
                    "file.",
                )


def rate_limited(seconds: float) -> RequestRefused:
    """Returns the error for a request that came too early by so many seconds."""
    return RequestRefused(
        429,
        "rate_limited",
        f"Too many requests; send it again in {max(seconds, 0.01):.2f} seconds.",
        retryable=True,
        retry_after=math.ceil(seconds),
    )
