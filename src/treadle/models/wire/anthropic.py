"""The wire format of the Anthropic Messages API.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from treadle.domain.hosted_tools import HostedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic_decoder import AnthropicDecoder
from treadle.models.wire.anthropic_request import AnthropicOptions, encode_request
from treadle.models.wire.anthropic_tools import tool_refusal
from treadle.models.wire.anthropic_turns import MEDIA
from treadle.models.wire.base import Decoder
from treadle.models.wire.ends import MESSAGES_ENDS, Ends, extended
from treadle.models.wire.sendable import EncodedRequest

# The next version, 2026-10-21, refuses a temperature, which models up to 4.6 accept.
API_VERSION = "2023-06-01"


class AnthropicWire:
    """The Anthropic Messages API; `ends` are good ends in addition to `MESSAGES_ENDS`."""

    path = "/v1/messages"
    media = MEDIA

    def __init__(self, options: AnthropicOptions | None = None, ends: Ends | None = None) -> None:
        self._options = options or AnthropicOptions()
        self._ends = extended(MESSAGES_ENDS, ends)
        self.provider = self._options.provider

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the key and the version of the API as headers."""
        key = {"x-api-key": api_key} if api_key else {}
        return {"anthropic-version": API_VERSION, **key}

    def tool_refusal(self, tool: HostedTool) -> str:
        """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
        return tool_refusal(tool)

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far."""
        return AnthropicDecoder(self.provider, request.used_call_ids, self._ends)
