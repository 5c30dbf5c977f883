"""Google's Gemini API as a model."""

from collections.abc import Mapping
from urllib.parse import urlunsplit

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.models.http import HttpModel, Timeouts, require_url
from treadle.models.output_modes import gemini_output_mode
from treadle.models.transport import Transport
from treadle.models.wire.gemini import GeminiWire
from treadle.models.wire.gemini_request import GeminiOptions

GEMINI_URL = "https://generativelanguage.googleapis.com"
_VERSION = "/v1beta"


class Gemini(HttpModel):
    """A model behind the Gemini API (`streamGenerateContent`) of Google AI.

    - `name`: of a model, `gemini-3.8-flash`, or `tunedModels/NAME`.
    - `api_key` may be empty for servers that need none.
    - `base_url` is the root of the API, with or without its version; the default one is `/v1beta`.
    - `provider` marks the signatures of thoughts and the items of hosted tools, which are sent back
      only to models with the same mark: give a server that is not Google's its own mark.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `ends` maps more values of `finishReason` to what they mean: `ends={"MY_STOP": "stop"}`. A
      response that ends with an unknown word fails with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"tool"` for models before
      Gemini 3, which take no schema next to tools, else `"native"`.

    `ModelSettings.reasoning_effort` sets how much the model thinks: at a level, or in models of 2.5
    within a budget of tokens. It also asks for a summary of the thoughts, unless it is "none".
    Models that always think take "none" as their lowest level.

    https://ai.google.dev/api/generate-content
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str,
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
            output_mode=output_mode or gemini_output_mode(name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


def _streaming(base_url: str, version: str) -> str:
    """Returns the root with its version, and with the query that asks for an event stream."""
    parts = require_url(base_url)
    path = parts.path if parts.path.strip("/") else version
    query = f"{parts.query}&alt=sse" if parts.query else "alt=sse"
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))
