"""Encodes a turn in the wire format of Anthropic Messages.

Order and fields of the events follow
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Failure, FailureFrame, Frame, FrameKind, Piece
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
from treadle.testing.simulator.wire.hosted_blocks import block_citation, hosted_blocks
from treadle.testing.simulator.wire.messages_request import SIGNATURE

Object = dict[str, object]

STOP_REASONS = {"length": "max_tokens", "content_filter": "refusal"}
DELTA_FIELDS = {
    "text_delta": b"text",
    "thinking_delta": b"thinking",
    "input_json_delta": b"partial_json",
}
ERROR_TYPES = {"server_error": "api_error", "rate_limit_exceeded": "rate_limit_error"}
FAILED = "The server had an error while processing your request."


def stream_messages(turn: Turn, envelope: Envelope) -> list[Piece]:
    """Returns the events of a streamed message, `message_start` first, `message_stop` last."""
    stream = _Stream()
    opened = _message(envelope, [], None) | {"usage": _usage(envelope) | {"output_tokens": 1}}
    stream.event("message_start", {"message": opened})
    stream.event("ping", {})
    for output in turn.outputs:
        match output:
            case Pause() | Hold():
                stream.pieces.append(output)
            case Text():
                texts = pieces(output.text, output.deltas)
                stream.block({"type": "text", "text": ""}, "text_delta", texts, _cited(output))
            case Reasoning():
                stream.thinking(output, envelope)
            case Call():
                texts = ["", *argument_pieces(output)]
                stream.block(_tool_use(output, {}), "input_json_delta", texts)
            case Hosted():
                address = f"{envelope.id}_{len(stream.pieces)}"
                use, result = hosted_blocks(output.call, address)
                given = msgspec.json.encode(use["input"]).decode()
                lines = re.split(r"(?<=\\n)", given)
                stream.block({**use, "input": Object()}, "input_json_delta", lines)
                stream.block(result, "input_json_delta", [])
            case Refusal():
                pass  # it travels in the stop details
    delta = {"stop_reason": _stop_reason(turn), "stop_sequence": None}
    change: Object = {"delta": delta | _stop_details(turn), "usage": _usage(envelope)}
    stream.event("message_delta", change, "finish")
    stream.event("message_stop", {}, "terminal")
    return stream.pieces


def complete_messages(turn: Turn, envelope: Envelope) -> bytes:
    """Returns the body of a message that is not streamed."""
    blocks = list[Object]()
    for number, output in enumerate(spoken(turn)):
        if isinstance(output, Hosted):
            blocks += hosted_blocks(output.call, f"{envelope.id}_{number}")
        elif not isinstance(output, Refusal):
            blocks.append(_block(output, number, envelope))
    message = _message(envelope, blocks, _stop_reason(turn)) | _stop_details(turn)
    return msgspec.json.encode(message)


def messages_failure() -> FailureFrame:
    """Returns a maker of `error` events."""

    def frame(failure: Failure, _: int) -> Frame:
        kind = ERROR_TYPES.get(failure.code, failure.code)
        error: Object = {"error": {"type": kind, "message": FAILED}}
        return _frame("error", error, "terminal")

    return frame


class _Stream:
    """Frames with the indices of their blocks."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._blocks = 0

    def event(self, name: str, fields: Object, kind: FrameKind = "event") -> None:
        self.pieces.append(_frame(name, fields, kind))

    def block(
        self,
        start: Object,
        kind: str,
        texts: Iterable[str],
        last: Sequence[Object] = (),
    ) -> None:
        index: Object = {"index": self._blocks}
        self._blocks += 1
        self.event("content_block_start", index | {"content_block": start})
        # Only the text differs between the deltas of one block, so only it is encoded.
        head = _frame("content_block_delta", index | {"delta": {"type": kind}}).data[:-4]
        field = DELTA_FIELDS[kind]
        for text in texts:
            data = b'%b,"%b":%b}}\n\n' % (head, field, msgspec.json.encode(text))
            self.pieces.append(Frame(data, "delta"))
        for delta in last:
            self.event("content_block_delta", index | {"delta": delta})
        self.event("content_block_stop", index)

    def thinking(self, output: Reasoning, envelope: Envelope) -> None:
        start: Object = {"type": "thinking", "thinking": "", "signature": ""}
        texts = pieces(output.text, output.deltas)
        signature = _signature(envelope, self._blocks)
        last: Object = {"type": "signature_delta", "signature": signature}
        self.block(start, "thinking_delta", texts, [last])


def _frame(name: str, fields: Mapping[str, object], kind: FrameKind = "event") -> Frame:
    data = msgspec.json.encode({"type": name, **fields})
    return Frame(b"event: %b\ndata: %b\n\n" % (name.encode(), data), kind)


def _block(output: Text | Reasoning | Call, number: int, envelope: Envelope) -> Object:
    match output:
        case Call():
            return _tool_use(output, _input(output.arguments))
        case Reasoning():
            signature = _signature(envelope, number)
            return {"type": "thinking", "thinking": output.text, "signature": signature}
        case _:
            cited = [delta["citation"] for delta in _cited(output)]
            return {"type": "text", "text": output.text, **({"citations": cited} if cited else {})}


def _cited(output: Text) -> list[Object]:
    """Returns the last deltas of a text: its sources."""
    return [
        {"type": "citations_delta", "citation": block_citation(one)} for one in output.citations
    ]


def _tool_use(call: Call, given: object) -> Object:
    return {"type": "tool_use", "id": call.call_id, "name": call.name, "input": given}


def _input(arguments: str) -> object:
    """The arguments as an object; a message that is not streamed cannot hold anything else."""
    try:
        return msgspec.json.decode(arguments, type=Object)
    except msgspec.DecodeError:
        return {}


def _signature(envelope: Envelope, number: int) -> str:
    return f"{SIGNATURE}{envelope.id}_{number}"


def _refusal(turn: Turn) -> str | None:
    texts = [output.text for output in turn.outputs if isinstance(output, Refusal)]
    return "".join(texts) if texts else None


def _stop_reason(turn: Turn) -> str:
    if _refusal(turn) is not None:
        return "refusal"
    called = any(isinstance(output, Call) for output in turn.outputs)
    return STOP_REASONS.get(turn.finish, "tool_use" if called else "end_turn")


def _stop_details(turn: Turn) -> Object:
    if _stop_reason(turn) != "refusal":
        return {"stop_details": None}
    details = {"type": "refusal", "category": None, "explanation": _refusal(turn)}
    return {"stop_details": details}


def _message(envelope: Envelope, blocks: list[Object], stop_reason: str | None) -> Object:
    return {
        "id": f"msg_{envelope.id}",
        "type": "message",
        "role": "assistant",
        "model": envelope.model,
        "content": blocks,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": _usage(envelope),
    }


def _usage(envelope: Envelope) -> Object:
    usage = envelope.usage
    searches = usage.web_searches
    used: Object = {"server_tool_use": {"web_search_requests": searches}} if searches else {}
    read, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "input_tokens": usage.input_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        **used,
    }
