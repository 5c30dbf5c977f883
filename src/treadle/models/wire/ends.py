"""The words with which providers end a response, and what they mean: one table for each API.

Only a word of the table is a good end. Every other word is a failure that contains it, because
servers report what went wrong in the same place as "stop": "abort" (vLLM), "network_error" (Z.AI),
"malformed_function_call" (Gemini), "insufficient_system_resource" (DeepSeek).

The tables of Chat Completions and Messages also contain the words of other providers, which
gateways pass on unchanged. A word is looked up as it is, then in lower case.
"""

from collections.abc import Mapping
from types import MappingProxyType

from treadle.domain.events import FinishReason
from treadle.errors import ModelError, ServerFailed

Ends = Mapping[str, FinishReason]
"""What each word for the end of a response means."""

_LENGTH: Ends = {
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",  # Mistral
    "model_context_window_exceeded": "length",  # Anthropic, Z.AI, Bedrock
}
_FILTERED: Ends = {
    "content_filter": "content_filter",
    "content_filtered": "content_filter",  # Bedrock
    "guardrail_intervened": "content_filter",  # Bedrock
    "sensitive": "content_filter",  # Z.AI
    "refusal": "content_filter",  # Anthropic
    "safety": "content_filter",  # Gemini, as are the following
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
}
_STOP: Ends = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "tool_call": "stop",  # Cohere
    "tool_use": "stop",  # Anthropic, Bedrock
    "end_turn": "stop",  # Anthropic, Bedrock
    "stop_sequence": "stop",  # Anthropic, Bedrock, Cohere
    "complete": "stop",  # Cohere
    "completed": "stop",
    "eos": "stop",  # Together
    "eos_token": "stop",  # Text Generation Inference
}

CHAT_ENDS: Ends = MappingProxyType({**_STOP, **_LENGTH, **_FILTERED})
"""The values of `finish_reason` in Chat Completions."""

MESSAGES_ENDS: Ends = MappingProxyType({**CHAT_ENDS, "pause_turn": "pause"})
"""The values of `stop_reason` in Anthropic Messages."""

RESPONSES_ENDS: Ends = MappingProxyType({"completed": "stop", **_LENGTH, **_FILTERED})
"""The values of `status` in OpenAI Responses, and the reasons of the status `incomplete`."""

_GEMINI_FILTERED = (
    "safety",
    "recitation",
    "language",
    "blocklist",
    "prohibited_content",
    "spii",
    "image_safety",
    "image_prohibited_content",
    "image_recitation",
    "model_armor",
    "escalation",
)
GEMINI_ENDS: Ends = MappingProxyType(
    {
        "stop": "stop",
        "max_tokens": "length",
        # Beyond the limit of one request; what a second one would continue is not asked for.
        "continuation": "length",
        **dict.fromkeys(_GEMINI_FILTERED, "content_filter"),
    }
)
"""The values of `finishReason` in the Gemini API, in lower case."""

CONVERSE_ENDS: Ends = MappingProxyType(
    {
        "end_turn": "stop",
        "tool_use": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "guardrail_intervened": "content_filter",
        "content_filtered": "content_filter",
    }
)
"""The values of `stopReason` in Bedrock's Converse API."""

FAILED_ENDS = frozenset(
    {
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "error",
        "failed",
        "insufficient_system_resource",
        "internal_error",
        "malformed_function_call",
        "malformed_model_output",
        "malformed_response",
        "malformed_tool_use",
        "missing_thought_signature",
        "model_error",
        "network_error",
        "server_error",
        "timeout",
        "too_many_tool_calls",
        "unexpected_tool_call",
    }
)
"""Words that are known to stand for a failure, in lower case."""

_LONGEST_WORD = 100


def extended(table: Ends, more: Ends | None) -> Ends:
    """Returns `table` with the words of `more`, which take precedence."""
    return MappingProxyType({**table, **more}) if more else table


def end_of(word: str, table: Ends) -> FinishReason | None:
    """Returns what the end `word` means; None if it is not a good end."""
    return table.get(word) or table.get(word.lower())


def is_failure(word: str) -> bool:
    """Whether `word` is known to stand for a failure."""
    return word.lower() in FAILED_ENDS


def bad_end(word: str) -> ModelError:
    """Returns the error for a response that ended with `word`, which is not a good end."""
    word = word[:_LONGEST_WORD]
    message = f'The provider ended the response with "{word}".'
    if not is_failure(word):
        message += f' If that is a good end, create the model with ends={{"{word}": "stop"}}.'
    return ServerFailed(message, provider_code=word)
