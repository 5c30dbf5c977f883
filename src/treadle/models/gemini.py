"""Google's Gemini API as a model, at Google AI and at Vertex AI."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec.structs import replace

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.domain.usage import Usage
from treadle.errors import BadRequest, ConfigurationError, ContextOverflow, ItemRefused, MissingKey
from treadle.models.api_key import ApiKey, current_key
from treadle.models.base import CacheWritten, ModelEvent, ModelRequest
from treadle.models.endpoint import key_headers
from treadle.models.gemini_caches import GeminiCaches
from treadle.models.google_token import DefaultToken
from treadle.models.http import HttpModel, Timeouts, require_url
from treadle.models.json_call import json_call
from treadle.models.transport import HttpRequest, Transport
from treadle.models.wire.gemini import GeminiWire
from treadle.models.wire.gemini_request import CACHE, GeminiOptions, cached_part, is_old
from treadle.models.wire.sendable import json_body

GEMINI_URL = "https://generativelanguage.googleapis.com"
_VERSION = "/v1beta"
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9.:_-]*")
_MULTI_REGIONS = {"us", "eu"}
_CACHES = "/cachedContents"
_SECONDS = {"5m": 300, "1h": 3600}
_LONGEST_WAIT = 30.0
_MOST_BYTES = 1024 * 1024

ExplicitCache = Literal["5m", "1h"]
"""How long an explicit cache is kept after its last use."""


class _GoogleModel(HttpModel):
    """A model whose requests may use explicit caches.

    `root` is the URL of the API with its version, `parent` the path of the project below it, and
    `resource` the name of the model with that path.
    """

    def __init__(
        self,
        name: str,
        wire: GeminiWire,
        *,
        root: str,
        parent: str = "",
        resource: str,
        api_key: ApiKey,
        prompt_cache: ExplicitCache | None,
        output_mode: OutputMode | None,
        timeouts: Timeouts | None,
        proxy: str | None,
        transport: Transport | None,
    ) -> None:
        super().__init__(
            name,
            wire,
            base_url=_with_path(root, resource.removesuffix(wire.resource).rstrip("/"), "alt=sse"),
            api_key=api_key,
            output_mode=output_mode or "native",
            schema_with_tools=not is_old(name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )
        self._caches: GeminiCaches | None = None
        if prompt_cache is not None:
            if prompt_cache not in _SECONDS:
                raise ConfigurationError(
                    f"prompt_cache is {str(prompt_cache)[:100]!r}; use '5m', '1h' or None."
                )
            self._caches = GeminiCaches(_SECONDS[prompt_cache])
        self._google_wire = wire
        self._root = root
        self._parent = parent
        self._resource = resource

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Sends `request` once and yields the response as it arrives; see `Model.stream`.

        If a request is refused that names an explicit cache, it is sent a second time without it.
        """
        if self._caches is None or CACHE in request.settings.extra_body:
            return super().stream(request)
        return self._stream_cached(request, self._caches)

    async def _stream_cached(
        self, request: ModelRequest, caches: GeminiCaches
    ) -> AsyncGenerator[ModelEvent]:
        async def call(method: str, name: str, body: Mapping[str, object]) -> bytes:
            return await self._call_caches(request, method, name, body)

        found = await caches.find(self._resource, cached_part(request), call)
        if found.written:
            written = found.written
            yield CacheWritten(Usage(input_tokens=written, cache_write_tokens=written))
        if found.name:
            extra = {**request.settings.extra_body, CACHE: found.name}
            cached = replace(request, settings=replace(request.settings, extra_body=extra))
            is_seen = False
            try:
                async with aclosing(super().stream(cached)) as events:
                    async for event in events:
                        is_seen = True
                        yield event
                return
            except BadRequest as error:
                if is_seen or isinstance(error, (ContextOverflow, ItemRefused)):
                    raise
        is_accepted = False
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                if not is_accepted:
                    is_accepted = True
                    caches.drop(found)
                yield event

    async def _call_caches(
        self, request: ModelRequest, method: str, name: str, body: Mapping[str, object]
    ) -> bytes:
        """Sends a request to the API of the caches and returns the body of its response."""
        timeouts = self._timeouts
        seconds = min(timeouts.first_byte, _LONGEST_WAIT)
        key = self._api_key
        if not isinstance(key, str):
            key = await current_key(key, self._host, seconds)
        path = f"/{name}" if name else f"{self._parent}{_CACHES}"
        call = HttpRequest(
            model=self._name,
            path=path,
            url=_with_path(self._root, path),
            headers={
                "Content-Type": "application/json",
                **key_headers(self._google_wire.headers(key), self._host, key),
                **request.settings.extra_headers,
            },
            body=json_body(body),
            proxy=self._proxy,
            connect=timeouts.connect,
            method=method,
        )
        limits = replace(timeouts, first_byte=seconds)
        return await json_call(call, self._host, limits, _MOST_BYTES, self._transport)


class Gemini(_GoogleModel):
    """A model behind the Gemini API (`streamGenerateContent`) of Google AI.

    - `name`: of a model, `gemini-3.8-flash`, or `tunedModels/NAME`.
    - `api_key` may be empty for servers that need none, and a function that returns a token.
    - `base_url` is the root of the API, with or without its version; the default one is `/v1beta`.
    - `provider` marks the signatures of thoughts and the items of hosted tools, which are sent back
      only to models with the same mark: give a server that is not Google's its own mark.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `ends` maps more values of `finishReason` to what they mean: `ends={"MY_STOP": "stop"}`. A
      response that ends with an unknown word fails with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"native"`, and `"tool"` if
      there are tools for models before Gemini 3, which take no schema next to them.
    - `prompt_cache` makes explicit caches of instructions, tools and memory blocks, and keeps them
      that long after their last use, which costs storage; None, the default, makes none: the API
      caches on its own.

    `ModelSettings.reasoning_effort` sets how much the model thinks: at a level, or in models of 2.5
    within a budget of tokens. It also asks for a summary of the thoughts, unless it is "none".
    Models that always think take "none" as their lowest level.

    https://ai.google.dev/api/generate-content
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: ApiKey,
        base_url: str = GEMINI_URL,
        provider: str = "gemini",
        strict: bool = False,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        prompt_cache: ExplicitCache | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        wire = GeminiWire(name, GeminiOptions(provider=provider, strict=strict), ends)
        super().__init__(
            name,
            wire,
            root=_with_version(base_url, _VERSION),
            resource=wire.resource,
            api_key=api_key,
            prompt_cache=prompt_cache,
            output_mode=output_mode,
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


class VertexGemini(_GoogleModel):
    """A model of Gemini at Vertex AI.

    - `project`, `location`: of Google Cloud; a location such as `europe-west4`, `us`, or `global`.
    - `token`: a token of OAuth, or a function that returns the current one; see `ApiKey`. By
      default that of the application default credentials, which the extra `vertex` reads.
    - `base_url`: the root of another server, without the path of project and location.
    - `provider`, `strict`, `ends`, `output_mode`, `prompt_cache`: see `Gemini`.

    https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
    """

    def __init__(
        self,
        name: str,
        *,
        project: str,
        location: str = "global",
        token: ApiKey | None = None,
        base_url: str | None = None,
        provider: str = "vertex",
        strict: bool = False,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        prompt_cache: ExplicitCache | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        for parameter, value in (("project", project), ("location", location)):
            if not _RESOURCE.fullmatch(value):
                raise ConfigurationError(
                    f"The {parameter} of Vertex AI is {value[:100]!r}; use its id, without a path."
                )
        options = GeminiOptions(provider=provider, strict=strict)
        wire = GeminiWire(name, options, ends, has_tokens=True)
        parent = f"/projects/{project}/locations/{location}"
        super().__init__(
            name,
            wire,
            root=_with_path(base_url or _vertex_url(location), "/v1"),
            parent=parent,
            resource=f"{parent[1:]}/publishers/google/{wire.resource}",
            api_key=DefaultToken() if token is None else token,
            prompt_cache=prompt_cache,
            output_mode=output_mode,
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


def _vertex_url(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def vertex(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> VertexGemini:
    """Returns the model `vertex:name[@url]`; raises `MissingKey` without a project."""
    project = environ.get("GOOGLE_CLOUD_PROJECT", "").strip()
    if not project:
        raise MissingKey(f"The model vertex:{name} needs a project: set GOOGLE_CLOUD_PROJECT.")
    return VertexGemini(
        name,
        project=project,
        location=environ.get("GOOGLE_CLOUD_LOCATION", "").strip() or "global",
        token=environ.get("TREADLE_API_KEY", "") if url else None,
        base_url=url or None,
        provider=f"vertex:{urlsplit(url).hostname}" if url else "vertex",
        transport=transport,
    )


def _with_version(base_url: str, version: str) -> str:
    """Returns the root with its version."""
    parts = require_url(base_url)
    path = parts.path if parts.path.strip("/") else version
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _with_path(root: str, path: str, query: str = "") -> str:
    """Returns the URL of `path` below a root, whose query it keeps."""
    parts = require_url(root)
    whole = parts.path.rstrip("/") + ("/" + path.strip("/") if path.strip("/") else "")
    query = "&".join(filter(None, (parts.query, query)))
    return urlunsplit((parts.scheme, parts.netloc, whole, query, ""))
