"""The wire format of OpenAI Chat Completions and of the many servers compatible with it.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from treadle.models.base import ModelRequest
from treadle.models.wire.base import Decoder
from treadle.models.wire.chat_decoder import ChatDecoder
from treadle.models.wire.chat_request import ChatOptions, encode_request
from treadle.models.wire.ends import CHAT_ENDS, Ends, extended
from treadle.models.wire.sendable import EncodedRequest


class ChatWire:
    """The Chat Completions API; `ends` are good ends in addition to `CHAT_ENDS`."""

    path = "/chat/completions"

    def __init__(self, options: ChatOptions | None = None, ends: Ends | None = None) -> None:
        self._options = options or ChatOptions()
        self._ends = extended(CHAT_ENDS, ends)
        self.provider = self._options.provider
        self.media = self._options.dialect.media

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the bearer token as a header."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far."""
        return ChatDecoder(self.provider, request.used_call_ids, self._ends)
