"""The explicit prompt caches of Gemini: made for what requests begin with, used again, prolonged.

https://ai.google.dev/api/caching,
https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/context-cache/context-cache-overview
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from treadle import clock
from treadle.errors import ModelError
from treadle.logging import logger_of
from treadle.models.wire.loose_json import count_of, fields_of, read_json, string_of
from treadle.models.wire.sendable import json_body

_LEAST_BYTES = 2_000
"""What is shorter has hardly the 1,024 tokens that the API demands at least."""
_MOST_PREFIXES = 256
_MARGIN = 5.0
"""A cache is not used in its last seconds: it could expire on the way of the request."""
_JUST_MADE = 60.0
_GONE = {403, 404}
_NAME = re.compile(r"(?:projects/[\w.:-]+/locations/[\w-]+/)?cachedContents/[\w-]+")
# "Cached content is too small. total_token_count=896, min_total_token_count=1024"; Vertex AI: "The
# cached content is of 2791 tokens. The minimum token count to start explicit caching is 4096."
_TOO_SMALL = re.compile(r"too small|minimum token count", re.IGNORECASE)

_logger = logger_of(__name__)


class Call(Protocol):
    """Sends a request to the API of the caches and returns the body of its response."""

    async def __call__(self, method: str, name: str, body: Mapping[str, object]) -> bytes:
        """Creates a cache (`POST`, without a name), or changes the cache `name` (`PATCH`).

        Raises the kinds of `ModelError`.
        """
        ...


class Found(Struct, frozen=True):
    """The cache for a request, "" without one, and the tokens that were written to make it."""

    name: str = ""
    written: int = 0
    key: bytes = b""


class _Prefix(Struct):
    """What is known of a beginning; times are in Unix seconds.

    `used_at`: when a request had it last. `is_busy`: its cache is being made or prolonged.
    `is_final`: it could not be prolonged. `not_before`: no cache is made until then, because the
    last attempt failed.
    """

    used_at: float
    name: str = ""
    made_at: float = 0.0
    expires_at: float = 0.0
    is_busy: bool = False
    is_final: bool = False
    not_before: float = 0.0


class GeminiCaches:
    """The caches of one model, each for `seconds` after its last use or a little less.

    A cache costs as much as a request that is not cached, and then for the time it is kept, so it
    is made for a beginning that comes a second time within `seconds`. A request never waits for
    the cache of another one, and never fails for one: without it, it is sent in full.
    """

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._prefixes: dict[bytes, _Prefix] = {}
        self._too_small = _LEAST_BYTES

    async def find(self, model: str, prefix: Mapping[str, object], call: Call) -> Found:
        """Returns the cache for a request of `model` that begins with `prefix`."""
        text = json_body({"model": model, **prefix})
        if len(text) <= self._too_small:
            return Found()
        now, key = clock.now(), hashlib.sha256(text).digest()
        known = self._prefixes.pop(key, None)
        self._prefixes[key] = one = known or _Prefix(now)  # the last used one is the last
        while len(self._prefixes) > _MOST_PREFIXES:
            del self._prefixes[next(iter(self._prefixes))]
        is_repeated = known is not None and now - one.used_at <= self._seconds
        one.used_at = now
        if one.name and now < one.expires_at - _MARGIN:
            is_half_over = one.expires_at - now < self._seconds / 2
            if is_half_over and not one.is_busy and not one.is_final:
                await self._prolong(one, call)
            return Found(one.name, key=key)
        if not is_repeated or one.is_busy or now < one.not_before:
            return Found()
        one.is_busy = True
        try:
            written = await self._create(one, model, prefix, call, len(text))
        finally:
            one.is_busy = False
        return Found(one.name, written, key)

    def drop(self, found: Found) -> None:
        """Forgets a cache with which a request was refused that was accepted without it.

        It has expired or was deleted. One that was just made is not made again for a while.
        """
        one, now = self._prefixes.get(found.key), clock.now()
        if one is not None and one.name == found.name:
            one.name = ""
            if now - one.made_at < _JUST_MADE:
                one.not_before = now + self._seconds

    async def _create(
        self, one: _Prefix, model: str, prefix: Mapping[str, object], call: Call, size: int
    ) -> int:
        """Makes a cache and returns its tokens; 0 if that fails."""
        one.name = ""
        body = {"model": model, **prefix, "ttl": f"{self._seconds}s"}
        try:
            made = fields_of(read_json(await call("POST", "", body)))
            name = string_of(made.get("name"))
            if not _NAME.fullmatch(name):
                raise ModelError(f"The answer has no name of a cache: {name[:100]!r}.")
        except (ModelError, ValueError, RecursionError) as error:
            self._failed(one, error, size)
            return 0
        one.name, one.made_at, one.is_final = name, clock.now(), False
        one.expires_at = one.made_at + self._seconds
        return count_of(fields_of(made.get("usageMetadata")).get("totalTokenCount")) or 0

    def _failed(self, one: _Prefix, error: Exception, size: int) -> None:
        one.not_before = clock.now() + self._seconds
        if _TOO_SMALL.search(str(error)):
            self._too_small = max(self._too_small, size)
            return
        _logger.warning(
            "No prompt cache was made, requests are sent in full for %s s: %s", self._seconds, error
        )

    async def _prolong(self, one: _Prefix, call: Call) -> None:
        one.is_busy = True
        try:
            await call("PATCH", one.name, {"ttl": f"{self._seconds}s"})
        except ModelError as error:
            one.is_final = True  # it is used until it expires, and made again then
            if error.status in _GONE:
                one.name = ""
        else:
            one.expires_at = clock.now() + self._seconds
        finally:
            one.is_busy = False
