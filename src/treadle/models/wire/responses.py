"""The wire format of the OpenAI Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from itertools import chain

from treadle.domain.hosted_tools import CodeInterpreter, HostedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.base import Decoder
from treadle.models.wire.ends import RESPONSES_ENDS, Ends, extended
from treadle.models.wire.hosted_calls import used_containers
from treadle.models.wire.responses_decoder import ResponsesDecoder
from treadle.models.wire.responses_request import MEDIA, ResponsesOptions, encode_request
from treadle.models.wire.responses_tools import tool_refusal
from treadle.models.wire.sendable import EncodedRequest


class ResponsesWire:
    """The OpenAI Responses API; responses are not stored at the provider.

    `ends` are good ends in addition to `RESPONSES_ENDS`.
    """

    path = "/responses"
    media = MEDIA

    def __init__(self, options: ResponsesOptions | None = None, ends: Ends | None = None) -> None:
        self._options = options or ResponsesOptions()
        self.provider = self._options.provider
        self._ends = extended(RESPONSES_ENDS, ends)

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the bearer token as a header."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def tool_refusal(self, tool: HostedTool) -> str:
        """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
        return tool_refusal(tool)

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids, and the containers of code, used so far."""
        containers = chain(
            (one.container for one in request.hosted if isinstance(one, CodeInterpreter)),
            used_containers(chain(request.items, request.conversation)),
        )
        return ResponsesDecoder(self.provider, request.used_call_ids, self._ends, containers)
