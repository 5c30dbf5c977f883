"""Encodes a turn in the wire format of Bedrock's Converse API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

import base64
from collections.abc import Sequence

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
    argument_pieces,
    pieces,
    spoken,
)
from treadle.testing.simulator.wire.converse_frames import message

Object = dict[str, object]

STOP_REASONS = {"length": "max_tokens", "content_filter": "content_filtered"}
EXCEPTIONS = {
    "server_error": "modelStreamErrorException",
    "rate_limit_exceeded": "throttlingException",
    "context_length_exceeded": "validationException",
}
TOO_LONG = "Input is too long for requested model."


def stream_converse(turn: Turn, envelope: Envelope) -> list[Piece]:
    """Returns the messages of a streamed response: `messageStart` first, `metadata` last."""
    stream = _Stream()
    stream.event("messageStart", {"role": "assistant"})
    for output in turn.outputs:
        match output:
            case Pause() | Hold():
                stream.pieces.append(output)
            case Text() | Refusal():
                stream.block([{"text": text} for text in pieces(output.text, output.deltas)])
            case Reasoning():
                texts = [{"text": text} for text in pieces(output.text, output.deltas)]
                thoughts = [*texts, {"signature": _signature(envelope)}]
                stream.block([{"reasoningContent": thought} for thought in thoughts])
            case Call():
                inputs = [{"input": text} for text in argument_pieces(output)]
                stream.block([{"toolUse": one} for one in inputs], _tool_use(output))
            case Hosted():
                pass  # only some models have tools of the provider
    stream.event("messageStop", {"stopReason": _stop_reason(turn)}, "finish")
    stream.event("metadata", {"usage": _usage(envelope), "metrics": _METRICS}, "terminal")
    return stream.pieces


def complete_converse(turn: Turn, envelope: Envelope) -> bytes:
    """Returns the body of a response that is not streamed."""
    said = [output for output in spoken(turn) if not isinstance(output, Hosted)]
    content = [_block(output, envelope) for output in said]
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _stop_reason(turn),
        "usage": _usage(envelope),
        "metrics": _METRICS,
    }
    return msgspec.json.encode(answer)


def converse_failure() -> FailureFrame:
    """Returns a maker of exceptions."""

    def frame(failure: Failure, _: int) -> Frame:
        name = EXCEPTIONS.get(failure.code, failure.code)
        text = TOO_LONG if failure.code == "context_length_exceeded" else MESSAGES[500][2]
        data = msgspec.json.encode({"message": text})
        return Frame(message(name, data, "exception"), "terminal")

    return frame


_METRICS = {"latencyMs": 100}


class _Stream:
    """Messages with the indices of their blocks."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._blocks = 0

    def event(self, name: str, fields: Object, kind: FrameKind = "event") -> None:
        self.pieces.append(Frame(message(name, msgspec.json.encode(fields)), kind))

    def block(self, deltas: Sequence[Object], start: Object | None = None) -> None:
        index: Object = {"contentBlockIndex": self._blocks}
        self._blocks += 1
        if start is not None:
            self.event("contentBlockStart", {"start": {"toolUse": start}, **index})
        for delta in deltas:
            # The service pads events, so that their sizes do not tell what is in them.
            self.event("contentBlockDelta", {**index, "delta": delta, "p": "abcdefgh"}, "delta")
        self.event("contentBlockStop", index)


def _tool_use(call: Call) -> Object:
    return {"toolUseId": call.call_id, "name": call.name}


def _block(output: Text | Refusal | Reasoning | Call, envelope: Envelope) -> Object:
    match output:
        case Call():
            return {"toolUse": _tool_use(output) | {"input": _input(output.arguments)}}
        case Reasoning():
            thought = {"text": output.text, "signature": _signature(envelope)}
            return {"reasoningContent": {"reasoningText": thought}}
        case _:
            return {"text": output.text}


def _input(arguments: str) -> object:
    """The arguments as an object; a response that is not streamed cannot hold anything else."""
    try:
        return msgspec.json.decode(arguments, type=Object)
    except msgspec.DecodeError:
        return {}


def _signature(envelope: Envelope) -> str:
    return base64.b64encode(f"sim_{envelope.id}".encode()).decode()


def _stop_reason(turn: Turn) -> str:
    if any(isinstance(output, Refusal) for output in turn.outputs):
        return "guardrail_intervened"  # its message stands in place of the answer
    called = any(isinstance(output, Call) for output in turn.outputs)
    return STOP_REASONS.get(turn.finish, "tool_use" if called else "end_turn")


def _usage(envelope: Envelope) -> Object:
    usage = envelope.usage
    read, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "inputTokens": usage.input_tokens - read - written,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }
