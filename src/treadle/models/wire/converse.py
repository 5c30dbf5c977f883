"""The wire format of Bedrock's Converse API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from urllib.parse import quote

from treadle.models.base import ModelRequest
from treadle.models.wire.base import Decoder
from treadle.models.wire.converse_decoder import ConverseDecoder
from treadle.models.wire.converse_request import ConverseOptions, encode_request
from treadle.models.wire.converse_turns import MEDIA
from treadle.models.wire.ends import CONVERSE_ENDS, Ends, extended
from treadle.models.wire.sendable import EncodedRequest
from treadle.streaming.event_stream import CONTENT_TYPE


class ConverseWire:
    """The Converse API for the model `name`, an id or an ARN, which is part of the path.

    `ends` are good ends in addition to `CONVERSE_ENDS`.
    """

    media = MEDIA

    def __init__(
        self, name: str = "", options: ConverseOptions | None = None, ends: Ends | None = None
    ) -> None:
        self._options = options or ConverseOptions()
        self._ends = extended(CONVERSE_ENDS, ends)
        self.provider = self._options.provider
        # An HTTP client writes an escaped colon without its escape, which a signature covers.
        self.path = f"/model/{quote(name, safe=':')}/converse-stream"

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the key as a bearer token, and the format of the answer."""
        key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        return {"Accept": CONTENT_TYPE, **key}

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a request; the model is in the path."""
        return encode_request(request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far."""
        return ConverseDecoder(self.provider, request.used_call_ids, self._ends)
