"""The wire format of the Gemini API, at Google AI and at Vertex AI.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from urllib.parse import quote

from treadle.domain.hosted_tools import FileSearch, HostedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.base import Decoder
from treadle.models.wire.ends import GEMINI_ENDS, Ends, extended
from treadle.models.wire.gemini_contents import MEDIA, function_name
from treadle.models.wire.gemini_decoder import GeminiDecoder
from treadle.models.wire.gemini_request import GeminiOptions, encode_request, is_old
from treadle.models.wire.gemini_tools import tool_refusal
from treadle.models.wire.sendable import EncodedRequest


class GeminiWire:
    """The Gemini API for the model `name`, which is part of the path.

    `has_tokens`: it is authorised by tokens of OAuth instead of keys. `ends` are good ends in
    addition to `GEMINI_ENDS`.
    """

    media = MEDIA

    def __init__(
        self,
        name: str = "",
        options: GeminiOptions | None = None,
        ends: Ends | None = None,
        *,
        has_tokens: bool = False,
    ) -> None:
        self._options = options or GeminiOptions()
        self._ends = extended(GEMINI_ENDS, ends)
        self._has_tokens = has_tokens
        # Models before Gemini 3 are paid by grounded prompts, later ones by queries:
        # https://ai.google.dev/gemini-api/docs/google-search#pricing
        self._is_old = is_old(name)
        self.provider = self._options.provider
        # Tuned models have a collection of their own: `tunedModels/NAME`.
        self.resource = name if "/" in name else f"models/{name}"
        self.path = f"/{quote(self.resource, safe='/:=,;@+')}:streamGenerateContent"

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the key or the token as a header."""
        if not api_key:
            return {}
        if self._has_tokens:
            return {"Authorization": f"Bearer {api_key}"}
        return {"x-goog-api-key": api_key}

    def tool_refusal(self, tool: HostedTool) -> str:
        """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
        if self._has_tokens and isinstance(tool, FileSearch):
            return "Vertex AI has no FileSearch; Google AI has it."
        return tool_refusal(tool)

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far, and the names of the tools."""
        names = {function_name(tool.name): tool.name for tool in request.tools}
        return GeminiDecoder(
            self.provider,
            request.used_call_ids,
            self._ends,
            names,
            is_search_per_response=self._is_old,
        )
