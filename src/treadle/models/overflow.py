"""How servers report that a request is longer than the window of the model."""

import re
from collections.abc import Set as AbstractSet

OVERFLOW_CODES = {
    "context_length_exceeded",  # OpenAI, and many that are compatible
    "exceed_context_size_error",  # llama.cpp
    "request_too_large",  # Anthropic, for more bytes than any window holds
    "model_max_prompt_tokens_exceeded",
    "tokens_limit_reached",  # GitHub Models
    "1261",  # Z.AI
}
"""Codes of errors, in lower case; add those of a server that is not known here."""

OVERFLOW_TEXTS = [
    r"(?:prompt|input|request|conversation) is too long",  # Anthropic, Bedrock, Cohere
    r"exceeds? (?:the )?context (?:limit|window|length|size)",  # OpenAI Responses, Anthropic
    r"exceeds? (?:the )?(?:available|model'?s?) context",  # llama.cpp
    r"context (?:length|window|size) (?:has been |is |was )?exceed",  # llama.cpp, vLLM, MiniMax
    r"context (?:length|window) of (?:only )?\d",  # LM Studio
    r"maximum context length",  # OpenAI Chat, vLLM, OpenRouter, DeepSeek, Mistral
    r"maximum (?:allowed )?(?:input|prompt) length",  # xAI, Poolside
    r"exceeds (?:the )?max(?:imum)?(?: number of)?[ _](?:tokens|seq_len|model_len)",  # Gemini, TGI
    r"(?:exceeds|greater than) the context length",  # LM Studio, Ollama
    r"longer than the model'?s context length",  # SGLang
    r"longer than the maximum model length",  # vLLM
    r"prompt exceeds max(?:imum)? length",  # Z.AI
    r"range of input length should be",  # DashScope (Qwen)
    r"total number of tokens in the request cannot exceed",  # Cohere
    r"`inputs` tokens \+ `max_new_tokens` must be",  # Text Generation Inference
    r"exceeded model token limit",  # Kimi
]
"""Regular expressions for messages of errors without such a code, found anywhere and in any case.

Add those of a server that is not known here:

    treadle.models.OVERFLOW_TEXTS.append(r"prompt of \\d+ tokens does not fit")
"""


def is_overflow(kinds: AbstractSet[str], message: str | None) -> bool:
    """Whether an error of these codes and types, in lower case, reports an overflow."""
    if not OVERFLOW_CODES.isdisjoint(kinds):
        return True
    if message is None:
        return False
    return any(re.search(text, message, re.IGNORECASE) for text in OVERFLOW_TEXTS)
