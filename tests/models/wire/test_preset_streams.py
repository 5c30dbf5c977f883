"""Streams in the form of each provider: what they contain, at every cut.

Each is written after the documentation and recorded streams of its provider: where the reasoning
and the counts stand, how calls are labelled, and how the stream ends.
"""

import json
from typing import Any

import pytest

from treadle.domain.items import FunctionCall, Item, Message, Reasoning
from treadle.domain.usage import Usage
from treadle.errors import ContextOverflow, ModelError, RateLimited, ServerFailed
from treadle.models.base import ModelRequest
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.chat_request import ChatOptions
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent

LOOK = {"name": "look", "arguments": '{"at": "Ål"}'}


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def call(**more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"type": "function", "function": LOOK, **more}]}


def counts(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }


DONE = "data: [DONE]\n\n"
THINKS = "Hm, ø."
GROQ = counts(17, 9, completion_tokens_details={"reasoning_tokens": 4}, queue_time=0.1)
XAI = counts(
    307,
    26,
    prompt_tokens_details={"cached_tokens": 306},
    completion_tokens_details={"reasoning_tokens": 227},
) | {"total_tokens": 560}

# The stream, its reasoning, and what it counts.
STREAMS: dict[str, tuple[list[str], str, Usage]] = {
    "openrouter": (
        [
            ": OPENROUTER PROCESSING\n\n",
            chunk({"role": "assistant", "content": "", "reasoning": "Hm, "}),
            chunk({"content": "", "reasoning": "ø."}),
            chunk({"content": None, **call(index=0, id="tool_0_look")}),
            chunk({"content": ""}, "tool_calls", native_finish_reason="tool_use"),
            chunk(
                {"role": "assistant", "content": ""},
                usage=counts(
                    90,
                    9,
                    cost=0.001,
                    prompt_tokens_details={"cached_tokens": 60, "cache_write_tokens": 20},
                    completion_tokens_details={"reasoning_tokens": 3},
                ),
            ),
            DONE,
        ],
        THINKS,
        Usage(90, 9, 60, 3, 1, 20),
    ),
    "groq": (
        [
            chunk({"role": "assistant", "content": None}, x_groq={"id": "req_1", "seed": 1}),
            chunk({"reasoning": "Hm, "}),
            chunk({"reasoning": "ø."}),
            chunk(call(index=0, id="tk85n1k4m")),
            chunk({}, "tool_calls", x_groq={"id": "req_1", "usage": GROQ}),
            DONE,
        ],
        THINKS,
        Usage(17, 9, 0, 4, 1),
    ),
    "mistral": (
        [
            chunk({"role": "assistant", "content": [thinking]})
            for thinking in [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm, "}]},
                {"type": "thinking", "thinking": [{"type": "text", "text": "ø."}]},
            ]
        ]
        + [
            # No index, no type, whole; the counts come with the end.
            chunk(
                {"content": None, "tool_calls": [{"id": "gSIMJiOkT", "function": LOOK}]},
                "tool_calls",
                usage=counts(124, 22, num_cached_tokens=64),
            ),
            DONE,
        ],
        THINKS,
        Usage(124, 22, 64, 0, 1),
    ),
    "deepseek": (
        [
            chunk({"role": "assistant", "content": None, "reasoning_content": ""}, usage=None),
            chunk({"content": None, "reasoning_content": "Hm, "}, usage=None),
            chunk({"content": None, "reasoning_content": "ø."}, usage=None),
            chunk({"tool_calls": [{"index": 0, "id": "call_00_x", "function": {"name": "look"}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Ål"}'}}]}),
            chunk(
                {"content": "", "reasoning_content": None},
                "tool_calls",
                usage=counts(
                    18,
                    21,
                    prompt_cache_hit_tokens=12,
                    prompt_cache_miss_tokens=6,
                    completion_tokens_details={"reasoning_tokens": 15},
                ),
            ),
            DONE,
        ],
        THINKS,
        Usage(18, 21, 12, 15, 1),
    ),
    "xai": (
        [
            chunk({"reasoning_content": "Hm, ", "role": "assistant"}),
            chunk({"reasoning_content": "ø."}),
            chunk(call(index=0, id="call_79382389")),
            chunk({}, "tool_calls"),
            chunk(choices=[], usage=XAI),
            DONE,
        ],
        THINKS,
        # The reasoning is not part of its completion tokens.
        Usage(307, 253, 306, 227, 1),
    ),
    "together": (
        [
            chunk({"role": "assistant", "content": "", "reasoning": THINKS}, seed=None),
            chunk({"content": "", **call(index=0, id="call_a")}),
            chunk({"content": ""}, "tool_calls"),
            chunk(choices=[], usage=counts(20, 8) | {"cached_tokens": 5}),
            DONE,
        ],
        THINKS,
        Usage(20, 8, 5, 0, 1),
    ),
    "cerebras": (
        [
            chunk({"role": "assistant"}),
            chunk({"reasoning": THINKS}),
            chunk(call(index=0, id="e0ecf32e0")),
            chunk(
                {},
                "tool_calls",
                time_info={"queue_time": 0.1},
                usage=counts(
                    433,
                    122,
                    prompt_tokens_details={"cached_tokens": 256},
                    completion_tokens_details={"reasoning_tokens": 108},
                ),
            ),
            DONE,
        ],
        THINKS,
        Usage(433, 122, 256, 108, 1),
    ),
    "moonshot": (
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning_content": THINKS}),
            chunk({"tool_calls": [{"index": 0, "id": "look:0", "function": {"name": "look"}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": LOOK["arguments"]}}]}),
            # The counts stand in the choice.
            chunk(
                choices=[
                    {
                        "index": 0,
                        "delta": {},
                        "finish_reason": "tool_calls",
                        "usage": counts(19, 13, cached_tokens=10),
                    }
                ]
            ),
            DONE,
        ],
        THINKS,
        Usage(19, 13, 10, 0, 1),
    ),
    "zai": (
        [
            chunk({"role": "assistant", "reasoning_content": THINKS}),
            chunk({"role": "assistant", **call(index=0, id="call_-8093")}),
            chunk(
                {"role": "assistant", "content": ""},
                "tool_calls",
                usage=counts(8, 7, prompt_tokens_details={"cached_tokens": 3}),
            ),
            DONE,
        ],
        THINKS,
        Usage(8, 7, 3, 0, 1),
    ),
    "ollama": (
        [
            chunk({"role": "assistant", "content": "", "reasoning": THINKS}),
            chunk({"role": "assistant", "content": "", **call(index=0, id="call_5x")}),
            chunk({"role": "assistant", "content": ""}, "tool_calls"),
            chunk(choices=[], usage=counts(11, 5)),
            DONE,
        ],
        THINKS,
        Usage(11, 5, 0, 0, 1),
    ),
    "vllm": (
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning": "Hm, ", "reasoning_content": "Hm, "}),  # both, in some versions
            chunk({"reasoning": "ø.", "reasoning_content": "ø."}),
            chunk(call(index=0, id="chatcmpl-tool-9f14")),
            chunk({"content": ""}, "tool_calls", stop_reason=None),
            chunk(choices=[], usage=counts(30, 6, prompt_tokens_details=None)),
            DONE,
        ],
        THINKS,
        Usage(30, 6, 0, 0, 1),
    ),
    "litellm": (
        [
            chunk(
                {
                    "role": "assistant",
                    "reasoning_content": "Hm, ",
                    "thinking_blocks": [{"type": "thinking", "thinking": "Hm, "}],
                }
            ),
            chunk(
                {
                    "reasoning_content": "ø.",
                    "thinking_blocks": [{"type": "thinking", "thinking": "ø."}],
                }
            ),
            chunk({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]}),
            chunk(call(index=0, id="toolu_1")),
            chunk({}, "tool_calls"),
            chunk(
                choices=[],
                usage=counts(
                    70,
                    9,
                    cache_creation_input_tokens=40,
                    cache_read_input_tokens=20,
                    prompt_tokens_details={"cached_tokens": 20},
                ),
            ),
            DONE,
        ],
        THINKS,
        Usage(70, 9, 20, 0, 1, 40),
    ),
}


def wire(provider: str) -> ChatWire:
    return ChatWire(ChatOptions(provider=provider))


def decoded(provider: str, *pieces: bytes) -> list[StreamEvent]:
    decoder = wire(provider).decoder(ModelRequest(items=[]))
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [*events, *([] if decoder.finished else decoder.end())]


def items_of(events: list[StreamEvent]) -> list[Item]:
    finished = [event for event in events if isinstance(event, ItemFinished)]
    return [event.item for event in sorted(finished, key=lambda event: event.index)]


@pytest.mark.parametrize("provider", STREAMS)
def test_the_stream_of_a_provider_at_every_cut(provider: str) -> None:
    pieces, thought, usage = STREAMS[provider]
    data = "".join(pieces).encode()
    for cut in range(len(data)):
        events = decoded(provider, data[:cut], data[cut:])
        *_, end = events
        assert isinstance(end, ResponseFinished)
        assert end.usage == usage
        reasoning, found = items_of(events)
        assert isinstance(reasoning, Reasoning)
        assert reasoning.text == thought
        assert isinstance(found, FunctionCall)
        assert (found.name, json.loads(found.arguments)) == ("look", {"at": "Ål"})


def test_signatures_through_litellm_go_back() -> None:
    pieces, _, _ = STREAMS["litellm"]
    redacted = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    second = {"type": "thinking", "thinking": "More.", "signature": "bW9yZQ=="}
    pieces = [*pieces[:3], chunk({"thinking_blocks": [redacted, second]}), *pieces[3:]]
    items = items_of(decoded("litellm", "".join(pieces).encode()))
    asked = Message("user", "hi")
    body = json.loads(wire("litellm").encode("m", ModelRequest(items=[asked, *items])).body)
    assert body["messages"][1]["thinking_blocks"] == [
        {"type": "thinking", "thinking": THINKS, "signature": "c2ln"},
        redacted,
        second,
    ]
    other = wire("groq").encode("m", ModelRequest(items=[asked, *items])).body
    assert b"thinking_blocks" not in other


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        # In a stream with status 200: OpenRouter, Groq, Fireworks, vLLM, LiteLLM, llama.cpp.
        (
            {"error": {"code": 502, "message": "Provider returned error"}, "choices": []},
            ServerFailed,
        ),
        ({"error": {"code": 429, "message": "Rate limit exceeded"}}, RateLimited),
        (
            {"x_groq": {"id": "r", "error": {"message": "over", "code": "server_error"}}},
            ServerFailed,
        ),
        ({"x_groq": {"error": "This model crashed."}, "choices": []}, ModelError),
        ({"error": {"object": "error", "message": "died", "code": 500}}, ServerFailed),
        (
            {"error": {"message": "maximum context length is 2048 tokens", "code": 400}},
            ContextOverflow,
        ),
        (
            {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long"}},
            ContextOverflow,
        ),
    ],
)
def test_errors_in_a_stream_at_every_cut(frame: dict[str, Any], kind: type[ModelError]) -> None:
    data = (chunk({"content": "So "}) + f"data: {json.dumps(frame)}\n\n").encode()
    for cut in range(len(data)):
        with pytest.raises(kind):
            decoded("m", data[:cut], data[cut:])
