"""The explicit prompt caches of the simulated Gemini API.

https://ai.google.dev/api/caching
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from treadle import clock
from treadle.testing.simulator.envelope import BYTES_PER_TOKEN
from treadle.testing.simulator.rejection import Rejected

Object = Mapping[str, object]

PATH = "/cachedContents"
LEAST_TOKENS = 1024
_PARTS = ("systemInstruction", "tools", "toolConfig")
_TTL = re.compile(r"(\d+(?:\.\d+)?)s")


class Cache(Struct):
    """A cache: its model, the parts of requests that it contains, its tokens, and its end."""

    model: str
    parts: Object
    tokens: int
    expires_at: float


class SimulatedCaches:
    """The caches by their names, `cachedContents/ID`, with the project before it at Vertex AI."""

    def __init__(self) -> None:
        self.by_name: dict[str, Cache] = {}
        self._count = 0

    def change(self, path: str, body: Object) -> bytes:
        """Answers a request that creates a cache, or one that prolongs the cache in the path."""
        _, _, rest = path.lstrip("/").partition("/")  # behind the version
        project, _, id = rest.rpartition(PATH[1:])
        if id:
            name = f"{project}{PATH[1:]}{id}"
            self._found(name).expires_at = clock.now() + _seconds(body)
        else:
            name = self._created(project, body)
        cache = self.by_name[name]
        return msgspec.json.encode(
            {
                "name": name,
                "model": cache.model,
                "usageMetadata": {"totalTokenCount": cache.tokens},
                "expireTime": datetime.fromtimestamp(cache.expires_at, UTC),
            }
        )

    def inserted(self, path: str, body: Object) -> tuple[Object, int]:
        """Returns the body of a request with the parts of its cache, and their tokens."""
        name = body.get("cachedContent")
        if name is None:
            return body, 0
        if any(part in body for part in _PARTS):
            raise Rejected(
                400,
                "Tool config, tools and system instruction should not be set in the request when "
                "using cached content.",
            )
        cache = self._found(str(name))
        if cache.model.rpartition("/")[2] not in path:
            raise Rejected(400, f"The cached content is of the model {cache.model}.")
        return {**body, **cache.parts}, cache.tokens

    def _created(self, project: str, body: Object) -> str:
        model, seconds = body.get("model"), _seconds(body)
        if not isinstance(model, str) or "/" not in model:
            raise Rejected(400, "CreateCachedContentRequest.model: unexpected model name format")
        parts = {part: body[part] for part in _PARTS if part in body}
        tokens = len(msgspec.json.encode(parts)) // BYTES_PER_TOKEN
        if tokens < LEAST_TOKENS:
            raise Rejected(
                400,
                f"Cached content is too small. total_token_count={tokens}, "
                f"min_total_token_count={LEAST_TOKENS}",
            )
        self._count += 1
        name = f"{project}{PATH[1:]}/sim{self._count}"
        self.by_name[name] = Cache(model, parts, tokens, clock.now() + seconds)
        return name

    def _found(self, name: str) -> Cache:
        cache = self.by_name.get(name)
        if cache is None or cache.expires_at <= clock.now():
            raise Rejected(403, "CachedContent not found (or permission denied)")
        return cache


def _seconds(body: Object) -> float:
    found = _TTL.fullmatch(str(body.get("ttl", "3600s")))
    if found is None:
        raise Rejected(400, "The ttl is a duration such as 300s.")
    return float(found[1])
