"""Encodes a turn in the wire format of the Gemini API.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

import base64

import msgspec

from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Failure, FailureFrame, Frame, FrameKind, Piece
from treadle.testing.simulator.rejection import MESSAGES
from treadle.testing.simulator.turn import (
    Call,
    Hold,
    Hosted,
    Pause,
    Reasoning,
    Refusal,
    Text,
    Turn,
    pieces,
    spoken,
)
from treadle.testing.simulator.wire.gemini_error import error_object
from treadle.testing.simulator.wire.gemini_hosted import hosted_parts, metadata

Object = dict[str, object]

FINISH_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
MALFORMED = "MALFORMED_FUNCTION_CALL"
TOO_LONG = "The input token count exceeds the maximum number of tokens allowed."
ERROR_STATUSES = {"server_error": 500, "rate_limit_exceeded": 429}


def stream_gemini(turn: Turn, envelope: Envelope) -> list[Piece]:
    """Returns the frames of a streamed response; the last one has the finish reason."""
    stream = _Stream(envelope)
    response = _Response(turn, envelope)
    for output in turn.outputs:
        match output:
            case Pause() | Hold():
                stream.pieces.append(output)
            case Text() | Reasoning():
                is_thought = isinstance(output, Reasoning)
                stream.texts(pieces(output.text, output.deltas), is_thought=is_thought)
            case Call():
                stream.frame([response.call(output)], "delta")
            case Hosted():
                for part in hosted_parts(output.call):
                    stream.frame([part], "delta")
            case Refusal():
                pass  # it travels with the finish reason
    stream.frame(response.last(), "finish", response.end())
    return stream.pieces


def complete_gemini(turn: Turn, envelope: Envelope) -> bytes:
    """Returns the body of a response that is not streamed."""
    response = _Response(turn, envelope)
    parts: list[Object | None] = []
    for output in spoken(turn):
        match output:
            case Text():
                parts.append({"text": output.text})
            case Reasoning():
                parts.append({"text": output.text, "thought": True})
            case Call():
                parts.append(response.call(output))
            case Hosted():
                parts += hosted_parts(output.call)
            case Refusal():
                pass
    found = [part for part in parts if part is not None]
    return msgspec.json.encode(_body(envelope, [*found, *response.last()], response.end()))


def gemini_failure() -> FailureFrame:
    """Returns a maker of frames with an error."""

    def frame(failure: Failure, _: int) -> Frame:
        status = ERROR_STATUSES.get(failure.code, 400)
        message = TOO_LONG if failure.code == "context_length_exceeded" else MESSAGES[500][2]
        error: Object = {"error": error_object(status, message)}
        return Frame(b"data: %b\r\n\r\n" % msgspec.json.encode(error), "finish")

    return frame


class _Response:
    """The parts of one response that depend on one another."""

    def __init__(self, turn: Turn, envelope: Envelope) -> None:
        self._turn = turn
        self._envelope = envelope
        self._with_ids = not any(fault.name == "no-ids" for fault in turn.faults)
        self._is_signed = self._is_malformed = False

    def call(self, call: Call) -> Object | None:
        """Returns the part of a call; None for one that the API could not parse."""
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=Object)
        except msgspec.DecodeError:
            self._is_malformed = True
            return None
        function: Object = {"name": call.name, "args": arguments}
        if self._with_ids:
            function["id"] = call.call_id
        part: Object = {"functionCall": function}
        if not self._is_signed:
            # Of parallel calls, the first one alone is signed.
            self._is_signed = True
            part["thoughtSignature"] = _signature(self._envelope)
        return part

    def last(self) -> list[Object]:
        """Returns the part at the end: the signature of a response without calls."""
        thought = any(isinstance(output, Reasoning) for output in self._turn.outputs)
        if not thought or self._is_signed:
            return []
        return [{"text": "", "thoughtSignature": _signature(self._envelope)}]

    def end(self) -> Object:
        """Returns the fields of the candidate at its end."""
        refusals = [o.text for o in self._turn.outputs if isinstance(o, Refusal)]
        if refusals:
            return {"finishReason": "SAFETY", "finishMessage": "".join(refusals)}
        if self._is_malformed and self._turn.finish == "stop":
            return {"finishReason": MALFORMED, "finishMessage": "Malformed function call."}
        return {"finishReason": FINISH_REASONS[self._turn.finish], **metadata(self._turn)}


class _Stream:
    """Frames of one response."""

    def __init__(self, envelope: Envelope) -> None:
        self.pieces: list[Piece] = []
        self._envelope = envelope

    def frame(
        self, parts: list[Object] | list[Object | None], kind: FrameKind, end: Object | None = None
    ) -> None:
        found = [part for part in parts if part is not None]
        if not found and end is None:
            return
        data = msgspec.json.encode(_body(self._envelope, found, end))
        self.pieces.append(Frame(b"data: %b\r\n\r\n" % data, kind))

    def texts(self, texts: list[str], *, is_thought: bool) -> None:
        # Only the text differs between the frames of one output, so only it is encoded.
        more: Object = {"thought": True} if is_thought else {}
        whole = msgspec.json.encode(_body(self._envelope, [{"text": "", **more}]))
        head, _, tail = whole.partition(b'"text":""')
        for text in texts:
            data = b'%b"text":%b%b' % (head, msgspec.json.encode(text), tail)
            self.pieces.append(Frame(b"data: %b\r\n\r\n" % data, "delta"))


def _signature(envelope: Envelope) -> str:
    return base64.b64encode(f"sim_{envelope.id}".encode()).decode()


def _body(envelope: Envelope, parts: list[Object], end: Object | None = None) -> Object:
    usage = envelope.usage
    counts: Object = {"promptTokenCount": usage.input_tokens}
    if end is not None:
        answered = usage.output_tokens - usage.reasoning_tokens
        counts |= {
            "candidatesTokenCount": answered,
            "totalTokenCount": usage.input_tokens + usage.output_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "cachedContentTokenCount": usage.cached_input_tokens,
        }
    content: Object = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    return {
        "candidates": [{"content": content, "index": 0, **(end or {})}],
        "usageMetadata": counts,
        "modelVersion": envelope.model,
        "responseId": envelope.id,
    }
