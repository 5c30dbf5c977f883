"""What servers of Chat Completions accept: OpenAI, and those compatible with it.

A server is recognised by the host of its base URL, or by the name of the model it serves.
"""

import re
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

_MISTRAL_MODELS = re.compile(
    r"mistral|mixtral|ministral|codestral|devstral|magistral|pixtral", re.IGNORECASE
)

CallIds = Literal["short", "any", "nine"]


class ChatDialect(Struct, frozen=True, kw_only=True):
    """What one server of Chat Completions accepts.

    - `call_ids`: `short` are up to 40 characters (OpenAI, vercel/ai#5171), `nine` are exactly nine
      letters and digits (Mistral, anomalyco/opencode#1680), `any` are up to 4,096 characters.
    - `alternates`: after one system message, user and assistant must take turns, as many chat
      templates of vLLM, llama.cpp and Mistral require.
    - `named_choice`: it can be asked for a call of one tool by name. llama.cpp treats that as
      "auto" (its log: "Wrong type supplied for parameter 'tool_choice'"); there, any call is
      required, and the tool is the only one in the request.
    - `needs_reasoning`: a message with calls must contain `reasoning_content`, even an empty one
      (DeepSeek, langchain-ai/langchain#37389).
    - `needs_signature`: the first call of a response must have the signature of a thought, so that
      calls of other models get the one that Gemini does not check
      (https://ai.google.dev/gemini-api/docs/thought-signatures).
    """

    call_ids: CallIds = "any"
    alternates: bool = True
    named_choice: bool = False
    needs_reasoning: bool = False
    needs_signature: bool = False


OPENAI = ChatDialect(call_ids="short", alternates=False, named_choice=True)
"""OpenAI's own server, and Azure's."""

COMPATIBLE = ChatDialect()
"""Any other server: what all of them accept."""

_BY_HOST = {
    "openai.com": OPENAI,
    "openai.azure.com": OPENAI,
    "mistral.ai": ChatDialect(call_ids="nine"),
    "deepseek.com": ChatDialect(needs_reasoning=True),
    "googleapis.com": ChatDialect(needs_signature=True),
}


def dialect_of(base_url: str, model: str) -> ChatDialect:
    """Returns what the server behind `base_url` accepts for `model`."""
    host = host_of(base_url)
    for domain, dialect in _BY_HOST.items():
        if host == domain or host.endswith(f".{domain}"):
            return dialect
    # The tokenizer of these models checks the ids on every server.
    return ChatDialect(call_ids="nine") if _MISTRAL_MODELS.search(model) else COMPATIBLE


def host_of(base_url: str) -> str:
    """Returns the host of a URL; "" for a text that is not one, which is reported elsewhere."""
    try:
        return urlsplit(base_url).hostname or ""
    except ValueError:
        return ""
