"""Google's Gemini API as a model, at Google AI and at Vertex AI."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.errors import ConfigurationError, MissingKey
from treadle.models.api_key import ApiKey
from treadle.models.google_token import DefaultToken
from treadle.models.http import HttpModel, Timeouts, require_url
from treadle.models.transport import Transport
from treadle.models.wire.gemini import GeminiWire
from treadle.models.wire.gemini_request import GeminiOptions, is_old

GEMINI_URL = "https://generativelanguage.googleapis.com"
_VERSION = "/v1beta"
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9.:_-]*")
_MULTI_REGIONS = {"us", "eu"}


class Gemini(HttpModel):
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
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        super().__init__(
            name,
            GeminiWire(name, GeminiOptions(provider=provider, strict=strict), ends),
            base_url=_streaming(base_url, _VERSION),
            api_key=api_key,
            output_mode=output_mode or "native",
            schema_with_tools=not is_old(name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


class VertexGemini(HttpModel):
    """A model of Gemini at Vertex AI.

    - `project`, `location`: of Google Cloud; a location such as `europe-west4`, `us`, or `global`.
    - `token`: a token of OAuth, or a function that returns the current one; see `ApiKey`. By
      default that of the application default credentials, which the extra `vertex` reads.
    - `base_url`: the root of another server, without the path of project and location.
    - `provider`, `strict`, `ends`, `output_mode`: see `Gemini`.

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
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        for parameter, value in (("project", project), ("location", location)):
            if not _RESOURCE.fullmatch(value):
                raise ConfigurationError(
                    f"The {parameter} of Vertex AI is {value[:100]!r}; use its id, without a path."
                )
        root = (base_url or _vertex_url(location)).rstrip("/")
        path = f"/v1/projects/{project}/locations/{location}/publishers/google"
        options = GeminiOptions(provider=provider, strict=strict)
        super().__init__(
            name,
            GeminiWire(name, options, ends, has_tokens=True),
            base_url=_streaming(root + path, ""),
            api_key=DefaultToken() if token is None else token,
            output_mode=output_mode or "native",
            schema_with_tools=not is_old(name),
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


def _streaming(base_url: str, version: str) -> str:
    """Returns the root with its version, and with the query that asks for an event stream."""
    parts = require_url(base_url)
    path = parts.path if parts.path.strip("/") else version
    query = f"{parts.query}&alt=sse" if parts.query else "alt=sse"
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))
