"""Completions as bytes: the chunks of a stream, and the whole."""

import msgspec

from treadle.domain.items import Message, OutputText, UrlCitation
from treadle.domain.usage import Usage
from treadle.server.openai.errors import ErrorBody, ErrorFields

Json = dict[str, object]

_encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"
"""The frame after the last chunk."""


class CompletionChunks:
    """Makes the chunks of one completion; what they have in common is encoded once.

    With `has_usage`, the usage is a chunk of its own, and null in all others.
    """

    def __init__(self, id: str, model: str, created: int, *, has_usage: bool) -> None:
        self._fields: Json = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._has_usage = has_usage
        head = _encode(self._fields)[:-1]
        self._head = b'data: %b,"choices":[{"index":0,"delta":' % head
        self._close = b',"usage":null}\n\n' if has_usage else b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._close

    def text(self, text: str) -> bytes:
        """Returns the chunk with the growth of the text; nothing for an empty one."""
        if not text:
            return b""
        return b'%b{"content":%b}%b' % (self._head, _encode(text), self._tail)

    def delta(self, **fields: object) -> bytes:
        """Returns a chunk with other growth."""
        return self._head + _encode(fields) + self._tail

    def finish(self, reason: str, usage: Usage) -> bytes:
        """Returns the last chunks, and the end of the stream."""
        end = b'%b{},"logprobs":null,"finish_reason":%b}]%b' % (
            self._head,
            _encode(reason),
            self._close,
        )
        counted = b""
        if self._has_usage:
            whole: Json = {**self._fields, "choices": [], "usage": usage_object(usage)}
            counted = b"data: %b\n\n" % _encode(whole)
        return end + counted + DONE

    def error(self, fields: ErrorFields) -> bytes:
        """Returns the error with which a stream ends, and its end."""
        return b"data: %b\n\n%b" % (_encode(ErrorBody(fields)), DONE)


def completion_object(
    id: str, model: str, created: int, message: Json, reason: str, usage: Usage
) -> Json:
    """Returns a completion as a whole."""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage_object(usage),
    }


def usage_object(usage: Usage) -> Json:
    """Returns token counts."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def url_annotations(message: Message, start: int) -> list[Json]:
    """Returns the pages that a message cites, which begins at `start` of the whole text.

    A page without a place is cited by all of the message.
    """
    found: list[Json] = []
    for part in message.content:
        if not isinstance(part, OutputText):
            continue
        for one in part.annotations:
            if not isinstance(one, UrlCitation) or not one.url.startswith(("http://", "https://")):
                continue
            length = len(part.text)
            begin = one.start_index or 0
            end = length if one.end_index is None else one.end_index
            places = {"start_index": start + begin, "end_index": start + end}
            cited = {"url": one.url, "title": one.title, **places}
            found.append({"type": "url_citation", "url_citation": cited})
        start += len(part.text)
    return found


def call_object(call_id: str, name: str, arguments: str) -> Json:
    """Returns a call that the client answers."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
