"""Embeddings of OpenAI, and of servers that are compatible with its API.

A module of its own, because it imports aiohttp, which other embedders do not need.

https://platform.openai.com/docs/api-reference/embeddings/create
"""

import asyncio
import os
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from treadle.domain.urls import masked_url
from treadle.errors import ConfigurationError, EmbeddingInvalid, MissingKey, ModelError
from treadle.memory.archive.embedders import in_thread
from treadle.models.endpoint import endpoint
from treadle.models.http import Timeouts, require_key, require_url
from treadle.models.json_call import json_call
from treadle.models.openai import OPENAI_URL
from treadle.models.retry import Backoff, RetryPolicy
from treadle.models.transport import HttpRequest, Transport

BATCH = 128
MAX_CHARS = 8000
_PATH = "/embeddings"
_MAX_BYTES = 64 * 1024 * 1024


class _Embedding(Struct, frozen=True, gc=False):
    embedding: list[float]
    index: int = -1


class _Answer(Struct, frozen=True):
    data: list[_Embedding]


_ANSWER = msgspec.json.Decoder(_Answer)


class OpenAIEmbedder:
    """An embedding model behind the API of OpenAI, or of any compatible server.

    - `model`: the provider's name of the model.
    - `base_url`: the root of the API; by default OPENAI_BASE_URL, otherwise the URL of OpenAI.
    - `api_key`: by default OPENAI_API_KEY; with another `base_url` TREADLE_API_KEY, or no key.
    - `dimensions`: asks the model for vectors of this length, if it can shorten them.
    - `batch`: the number of texts in one request.
    - `max_chars`: longer texts are cut for their vector, because models refuse texts beyond their
      window. Full text still finds all of their words.
    - `retry`, `timeouts`, `transport`: as for models.

    `embed` raises `ModelError`, which the archive turns into `EmbeddingFailed`. Raises `MissingKey`
    and `ConfigurationError`.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "",
        api_key: str | None = None,
        dimensions: int | None = None,
        batch: int = BATCH,
        max_chars: int = MAX_CHARS,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        transport: Transport | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if min(batch, max_chars, 1 if dimensions is None else dimensions) < 1:
            raise ConfigurationError("batch, max_chars and dimensions must each be at least 1.")
        if api_key is None:
            base_url, api_key = _endpoint(model, base_url, environ)
        self._model = model
        self._url = (base_url or environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/") + _PATH
        url = require_url(self._url)
        require_key(api_key)
        if url.username is not None and api_key.strip():
            raise ConfigurationError(
                f"The base URL {masked_url(self._url)!r} contains a user, and there is also an "
                "API key; a request can carry only one of them, so remove the other."
            )
        self._host = url.hostname or ""
        self._api_key = api_key.strip()
        self._dimensions = dimensions
        self._batch = batch
        self._max_chars = max_chars
        self._retry = retry or RetryPolicy()
        self._timeouts = timeouts or Timeouts()
        self._transport = transport

    @property
    def name(self) -> str:
        """The name of the model, with the length of the vectors if one was given."""
        return self._model if self._dimensions is None else f"{self._model}/{self._dimensions}"

    @property
    def dimensions(self) -> int | None:
        """The length of each vector, if one was given."""
        return self._dimensions

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self._model!r}, url={masked_url(self._url)!r})"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns a vector for each text; raises `ModelError` and `EmbeddingInvalid`."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), self._batch):
            vectors += await self._embed(texts[start : start + self._batch])
        return vectors

    async def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        call = self._call(texts)
        backoff = Backoff(self._retry)
        while True:
            try:
                body = await json_call(
                    call, self._host, self._timeouts, _MAX_BYTES, self._transport
                )
            except ModelError as error:
                retry = backoff.after(error)
                if retry is None:
                    raise
            else:
                # In a thread: a batch is megabytes of JSON.
                return await in_thread(_vectors, body, len(texts))
            await asyncio.sleep(retry.delay)

    def _call(self, texts: Sequence[str]) -> HttpRequest:
        body: dict[str, object] = {
            "model": self._model,
            "input": [text[: self._max_chars] for text in texts],
            "encoding_format": "float",
        }
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return HttpRequest(
            model=self._model,
            path=_PATH,
            url=self._url,
            headers=headers,
            body=msgspec.json.encode(body),
            connect=self._timeouts.connect,
        )


def _endpoint(model: str, base_url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    try:
        return endpoint(model, base_url, environ, key="OPENAI_API_KEY", default=OPENAI_URL)
    except MissingKey as error:
        raise MissingKey(
            f"The embedding model {model} needs a key: set OPENAI_API_KEY, pass api_key=…, or pass "
            "the URL of another server as base_url=…."
        ) from error


def _vectors(body: bytes, count: int) -> list[list[float]]:
    try:
        data = _ANSWER.decode(body).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EmbeddingInvalid(
            f"The answer of the server is not a list of vectors: {error}."
        ) from error
    if len(data) != count:
        raise EmbeddingInvalid(f"The server returned {len(data)} vectors for {count} texts.")
    if all(one.index >= 0 for one in data):  # some compatible servers omit the index
        data = sorted(data, key=lambda one: one.index)
    return [one.embedding for one in data]
