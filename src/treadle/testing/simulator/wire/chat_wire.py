"""Encodes a turn in the wire format of OpenAI Chat Completions.

https://platform.openai.com/docs/api-reference/chat-streaming; reasoning travels in
`reasoning_content`, as DeepSeek and vLLM do it.
"""

from collections.abc import Iterable, Sequence

import msgspec

from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Failure, FailureFrame, Frame, FrameKind, Piece
from treadle.testing.simulator.rejection import MESSAGES
from treadle.testing.simulator.turn import (
    Call,
    Hold,
    Hosted,
    Output,
    Pause,
    Reasoning,
    Refusal,
    Text,
    Turn,
    argument_pieces,
    pieces,
    spoken,
)

Object = dict[str, object]

FIELDS = {Text: "content", Refusal: "refusal", Reasoning: "reasoning_content"}


def stream_chat(turn: Turn, envelope: Envelope) -> list[Piece]:
    """Returns the chunks of a streamed completion, the role first and `[DONE]` last."""
    names = {fault.name for fault in turn.faults}
    stream = _Stream(envelope, with_ids="no-ids" not in names)
    stream.chunk({"role": "assistant", "content": "", "refusal": None})
    merged = "merged-calls" in names
    for output in turn.outputs:
        if not (merged and isinstance(output, Call)):
            _say(stream, output)
    if merged:
        stream.merged([output for output in turn.outputs if isinstance(output, Call)])
    stream.chunk({}, _finish_reason(turn), "finish")
    if envelope.include_usage:
        stream.usage()
    stream.pieces.append(Frame(b"data: [DONE]\n\n", "terminal"))
    return stream.pieces


def complete_chat(turn: Turn, envelope: Envelope) -> bytes:
    """Returns the body of a completion that is not streamed."""
    with_ids = not any(fault.name == "no-ids" for fault in turn.faults)
    calls = [output for output in turn.outputs if isinstance(output, Call)]
    message: Object = {
        "role": "assistant",
        "content": _joined(turn, Text),
        "refusal": _joined(turn, Refusal),
    }
    if reasoning := _joined(turn, Reasoning):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [_call(c, c.arguments, with_id=with_ids) for c in calls]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(turn)}
    head = _head(envelope, "chat.completion")
    body = {**head, "choices": [choice | {"logprobs": None}], "usage": _usage(envelope)}
    return msgspec.json.encode(body)


def chat_failure() -> FailureFrame:
    """Returns a maker of error chunks."""

    def frame(failure: Failure, _: int) -> Frame:
        error: Object = {"message": MESSAGES[500][2], "type": failure.code, "code": failure.code}
        return _frame({"error": error}, "terminal")

    return frame


class _Stream:
    """Chunks of one completion."""

    def __init__(self, envelope: Envelope, *, with_ids: bool) -> None:
        self.pieces: list[Piece] = []
        self.calls = 0
        self._envelope = envelope
        self._with_ids = with_ids
        self._head = _head(envelope, "chat.completion.chunk")
        # With usage asked for, every other chunk carries a null for it.
        self._tail: Object = {"usage": None} if envelope.include_usage else {}
        self._start = msgspec.json.encode(self._head)[:-1]

    def chunk(self, delta: Object, finish: str | None = None, kind: FrameKind = "event") -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self.pieces.append(_frame({**self._head, "choices": [choice], **self._tail}, kind))

    def usage(self) -> None:
        body: Object = {**self._head, "choices": [], "usage": _usage(self._envelope)}
        self.pieces.append(_frame(body, "terminal"))

    def deltas(self, path: bytes, end: bytes, texts: Iterable[str]) -> None:
        # Only the text differs between the deltas of one output, so only it is encoded.
        head = b'data: %b,"choices":[{"index":0,"delta":{%b' % (self._start, path)
        tail = b'%b},"logprobs":null,"finish_reason":null}]%b}\n\n' % (end, self._null_usage())
        for text in texts:
            self.pieces.append(Frame(head + msgspec.json.encode(text) + tail, "delta"))

    def call(self, call: Call) -> None:
        index = self.calls
        self.calls += 1
        opened = {"index": index, **_call(call, "", with_id=self._with_ids)}
        texts = argument_pieces(call)
        if len(texts) == 1:
            opened["function"] = {"name": call.name, "arguments": texts.pop()}
        self.chunk({"tool_calls": [opened]})
        path = b'"tool_calls":[{"index":%d,"function":{"arguments":' % index
        self.deltas(path, b"}}]", texts)

    def merged(self, calls: Sequence[Call]) -> None:
        wire = [
            {"index": i, **_call(c, c.arguments, with_id=self._with_ids)}
            for i, c in enumerate(calls)
        ]
        if wire:
            self.chunk({"tool_calls": wire}, kind="delta")

    def _null_usage(self) -> bytes:
        return b',"usage":null' if self._tail else b""


def _say(stream: _Stream, output: Output) -> None:
    match output:
        case Hosted():
            pass  # this API has none
        case Pause() | Hold():
            stream.pieces.append(output)
        case Call():
            stream.call(output)
        case _:
            path = b'"%b":' % FIELDS[type(output)].encode()
            stream.deltas(path, b"", pieces(output.text, output.deltas))


def _frame(body: Object, kind: FrameKind) -> Frame:
    return Frame(b"data: %b\n\n" % msgspec.json.encode(body), kind)


def _head(envelope: Envelope, kind: str) -> Object:
    return {
        "id": f"chatcmpl-{envelope.id}",
        "object": kind,
        "created": envelope.created,
        "model": envelope.model,
        "system_fingerprint": "fp_sim",
        "service_tier": "default",
    }


def _call(call: Call, arguments: str, *, with_id: bool) -> Object:
    identity: Object = {"id": call.call_id} if with_id else {}
    function = {"name": call.name, "arguments": arguments}
    return {**identity, "type": "function", "function": function}


def _joined(turn: Turn, kind: type[Text] | type[Refusal] | type[Reasoning]) -> str | None:
    texts = [o.text for o in spoken(turn) if isinstance(o, kind) and not isinstance(o, Call)]
    return "".join(texts) if texts else None


def _finish_reason(turn: Turn) -> str:
    called = any(isinstance(output, Call) for output in turn.outputs)
    return "tool_calls" if called and turn.finish == "stop" else turn.finish


def _usage(envelope: Envelope) -> Object:
    usage = envelope.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
