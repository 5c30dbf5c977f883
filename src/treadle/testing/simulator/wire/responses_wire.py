"""Encodes a turn in the wire format of OpenAI Responses.

Order and fields of the events follow
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Iterable, Mapping

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
    Spoken,
    Text,
    Turn,
    argument_pieces,
    pieces,
    spoken,
)
from treadle.testing.simulator.wire.hosted_items import (
    annotation,
    begun_item,
    hosted_item,
    phases,
)

Object = dict[str, object]

STATUS = {"stop": "completed", "length": "incomplete", "content_filter": "incomplete"}
REASON = {"length": "max_output_tokens", "content_filter": "content_filter"}
NO_LOGPROBS: Object = {"logprobs": []}
INDICES = {"output_index", "content_index", "summary_index", "sequence_number"}


def stream_responses(turn: Turn, envelope: Envelope) -> list[Piece]:
    """Returns the events of a streamed response, `response.created` first."""
    stream = _Stream(indexed=all(fault.name != "no-index" for fault in turn.faults))
    opening = _response(envelope, "in_progress", [])
    stream.event("response.created", {"response": opening})
    stream.event("response.in_progress", {"response": opening})
    items: list[Object] = []
    for output in turn.outputs:
        if isinstance(output, Pause | Hold):
            stream.pieces.append(output)
            continue
        items.append(_item(output, len(items), _status(turn, len(items)), envelope))
        _say(stream, output, items[-1], len(items) - 1)
    response = _ended(turn, envelope, items)
    stream.event(f"response.{STATUS[turn.finish]}", {"response": response}, "terminal")
    return stream.pieces


def complete_responses(turn: Turn, envelope: Envelope) -> bytes:
    """Returns the body of a response that is not streamed."""
    items = [
        _item(output, index, _status(turn, index), envelope)
        for index, output in enumerate(spoken(turn))
    ]
    return msgspec.json.encode(_ended(turn, envelope, items))


def responses_failure(envelope: Envelope) -> FailureFrame:
    """Returns a maker of `error` and `response.failed` events."""

    def frame(failure: Failure, sent: int) -> Frame:
        error: Object = {"code": failure.code, "message": MESSAGES[500][2]}
        if not failure.failed:
            return _frame("error", {"sequence_number": sent, **error, "param": None}, "terminal")
        response = _response(envelope, "failed", []) | {"error": error}
        fields = {"sequence_number": sent, "response": response}
        return _frame("response.failed", fields, "terminal")

    return frame


class _Stream:
    """Frames with the sequence numbers they get; without any index unless `indexed`."""

    def __init__(self, *, indexed: bool) -> None:
        self.pieces: list[Piece] = []
        self._indexed = indexed
        self._sequence = 0

    def event(self, name: str, fields: Object, kind: FrameKind = "event") -> None:
        fields = self._numbered({"sequence_number": self._sequence, **fields})
        self.pieces.append(_frame(name, fields, kind))
        self._sequence += 1

    def _numbered(self, fields: Object) -> Object:
        if self._indexed:
            return fields
        return {name: value for name, value in fields.items() if name not in INDICES}

    def deltas(self, name: str, fields: Object, texts: Iterable[str]) -> None:
        # All that the deltas of one item share is encoded once: they are most of a stream.
        shared = msgspec.json.encode({"type": name, **self._numbered(fields)})[:-1]
        head = b"event: %b\ndata: %b" % (name.encode(), shared)
        for text in texts:
            delta = msgspec.json.encode(text)
            number = b',"sequence_number":%d' % self._sequence if self._indexed else b""
            data = b'%b,"delta":%b%b}\n\n' % (head, delta, number)
            self.pieces.append(Frame(data, "delta"))
            self._sequence += 1


def _frame(name: str, fields: Mapping[str, object], kind: FrameKind) -> Frame:
    data = msgspec.json.encode({"type": name, **fields})
    return Frame(b"event: %b\ndata: %b\n\n" % (name.encode(), data), kind)


def _say(stream: _Stream, output: Spoken, item: Object, index: int) -> None:
    match output:
        case Text():
            _say_text(stream, output, item, index)
        case Refusal():
            _say_refusal(stream, output, item, index)
        case Reasoning():
            _say_reasoning(stream, output, item, index)
        case Call():
            _say_call(stream, output, item, index)
        case Hosted():
            _say_hosted(stream, output, item, index)


def _say_text(stream: _Stream, output: Text, item: Object, index: int) -> None:
    at: Object = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = _cited_part(output)
    _open(stream, item, index, {"content": []})
    stream.event("response.content_part.added", {**at, "part": _text_part("")})
    texts = pieces(output.text, output.deltas)
    stream.deltas("response.output_text.delta", {**at, **NO_LOGPROBS}, texts)
    for number, citation in enumerate(output.citations):
        added: Object = {**at, "annotation_index": number, "annotation": annotation(citation)}
        stream.event("response.output_text.annotation.added", added)
    stream.event("response.output_text.done", {**at, **NO_LOGPROBS, "text": output.text})
    stream.event("response.content_part.done", {**at, "part": part})
    _close(stream, item, index)


def _say_refusal(stream: _Stream, output: Refusal, item: Object, index: int) -> None:
    at: Object = {"item_id": item["id"], "output_index": index, "content_index": 0}
    _open(stream, item, index, {"content": []})
    stream.event("response.content_part.added", {**at, "part": _refusal_part("")})
    stream.deltas("response.refusal.delta", at, pieces(output.text, output.deltas))
    stream.event("response.refusal.done", {**at, "refusal": output.text})
    stream.event("response.content_part.done", {**at, "part": _refusal_part(output.text)})
    _close(stream, item, index)


def _say_reasoning(stream: _Stream, output: Reasoning, item: Object, index: int) -> None:
    at: Object = {"item_id": item["id"], "output_index": index, "summary_index": 0}
    _open(stream, item, index, {"summary": []})
    part = "response.reasoning_summary_part"
    stream.event(f"{part}.added", {**at, "part": _summary_part("")})
    texts = pieces(output.text, output.deltas)
    stream.deltas("response.reasoning_summary_text.delta", at, texts)
    stream.event("response.reasoning_summary_text.done", {**at, "text": output.text})
    stream.event(f"{part}.done", {**at, "part": _summary_part(output.text)})
    _close(stream, item, index)


def _say_call(stream: _Stream, output: Call, item: Object, index: int) -> None:
    at: Object = {"item_id": item["id"], "output_index": index}
    _open(stream, item, index, {"arguments": ""})
    texts = argument_pieces(output)
    stream.deltas("response.function_call_arguments.delta", at, texts)
    done: Object = {**at, "name": output.name, "arguments": output.arguments}
    stream.event("response.function_call_arguments.done", done)
    _close(stream, item, index)


def _say_hosted(stream: _Stream, output: Hosted, item: Object, index: int) -> None:
    at: Object = {"item_id": item["id"], "output_index": index}
    call = output.call
    if output.needs_approval:
        stream.event("response.output_item.added", {"output_index": index, "item": item})
        _close(stream, item, index)
        return
    stream.event("response.output_item.added", {"output_index": index, "item": begun_item(item)})
    kind = f"response.{item['type']}"
    *before, last = phases(call)
    for phase in before:
        stream.event(f"{kind}.{phase}", at)
    if call.tool == "code_interpreter":
        for line in call.arguments.splitlines(keepends=True):
            stream.event(f"{kind}_code.delta", {**at, "delta": line})
        stream.event(f"{kind}_code.done", {**at, "code": call.arguments})
    elif call.tool == "mcp":
        stream.event(f"{kind}_arguments.delta", {**at, "delta": call.arguments})
        stream.event(f"{kind}_arguments.done", {**at, "arguments": call.arguments})
    stream.event(f"{kind}.{last}", at)
    _close(stream, item, index)


def _open(stream: _Stream, item: Object, index: int, empty: Object) -> None:
    opened = {**item, **empty}
    if "status" in item:
        opened["status"] = "in_progress"
    stream.event("response.output_item.added", {"output_index": index, "item": opened})


def _close(stream: _Stream, item: Object, index: int) -> None:
    stream.event("response.output_item.done", {"output_index": index, "item": item})


def _status(turn: Turn, index: int) -> str:
    last = index == len(spoken(turn)) - 1
    return STATUS[turn.finish] if last else "completed"


def _item(output: Spoken, index: int, status: str, envelope: Envelope) -> Object:
    address = f"{envelope.id}_{index}"
    match output:
        case Text():
            return _message(address, status, _cited_part(output))
        case Hosted():
            return hosted_item(output, address)
        case Refusal():
            return _message(address, status, _refusal_part(output.text))
        case Reasoning():
            summary = [_summary_part(output.text)]
            item: Object = {"id": f"rs_{address}", "type": "reasoning", "summary": summary}
            return item | ({"encrypted_content": f"sim_{address}"} if envelope.encrypted else {})
        case Call():
            return {
                "id": f"fc_{address}",
                "type": "function_call",
                "status": status,
                "call_id": output.call_id,
                "name": output.name,
                "arguments": output.arguments,
            }


def _message(address: str, status: str, part: Object) -> Object:
    return {
        "id": f"msg_{address}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part],
    }


def _text_part(text: str) -> Object:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _cited_part(output: Text) -> Object:
    return _text_part(output.text) | {"annotations": [annotation(c) for c in output.citations]}


def _refusal_part(text: str) -> Object:
    return {"type": "refusal", "refusal": text}


def _summary_part(text: str) -> Object:
    return {"type": "summary_text", "text": text}


def _response(envelope: Envelope, status: str, items: list[Object]) -> Object:
    return {
        "id": f"resp_{envelope.id}",
        "object": "response",
        "created_at": envelope.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": envelope.model,
        "output": items,
        "usage": None,
        **envelope.echo,
    }


def _ended(turn: Turn, envelope: Envelope, items: list[Object]) -> Object:
    response = _response(envelope, STATUS[turn.finish], items)
    response["usage"] = _usage(envelope)
    if reason := REASON.get(turn.finish):
        response["incomplete_details"] = {"reason": reason}
    return response


def _usage(envelope: Envelope) -> Object:
    usage = envelope.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
