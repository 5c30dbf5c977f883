"""What servers of Chat Completions accept, compared with the API of OpenAI."""

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from treadle.domain.media import PDF, TEXTS
from treadle.models.wire.media import MediaRules
from treadle.models.wire.reasoning import ReasoningRule

_MISTRAL_MODELS = re.compile(
    r"mistral|mixtral|ministral|codestral|devstral|magistral|pixtral", re.IGNORECASE
)

MEDIA = MediaRules(
    files=frozenset({PDF}) | TEXTS,
    audio=frozenset({"audio/wav", "audio/mpeg"}),
    loads_files=False,
)
"""https://platform.openai.com/docs/guides/pdf-files; texts are sent as text, for all servers."""
IMAGES_ONLY = MediaRules(files=TEXTS, loads_files=False)
"""Images and texts: what servers read that serve open models."""
TEXTS_ONLY = MediaRules(images=False, files=TEXTS, loads_files=False)

CallIds = Literal["short", "any", "nine"]


class ChatDialect(Struct, frozen=True, kw_only=True):
    """What one server of Chat Completions accepts.

    - `call_ids`: `short` are up to 40 characters (OpenAI, vercel/ai#5171), `nine` are exactly nine
      letters and digits (Mistral, anomalyco/opencode#1680), `any` are up to 4,096 characters.
    - `alternates`: after one system message, user and assistant must take turns, as many chat
      templates of vLLM, llama.cpp and Mistral require.
    - `tool_choice`: the field is accepted. Without it a required call is left to the model, and the
      event `tool_choice.ignored` reports a response without one; for "none", no tools are sent.
    - `named_choice`: it can be asked for a call of one tool by name. llama.cpp treats that as
      "auto" (its log: "Wrong type supplied for parameter 'tool_choice'"); there, any call is
      required, and the tool is the only one in the request.
    - `parallel_tool_calls`: the field is accepted. Without it, the setting is not sent.
    - `needs_reasoning`: a message with calls must contain `reasoning_content`, even an empty one
      (DeepSeek, langchain-ai/langchain#37389).
    - `needs_signature`: the first call of a response must have the signature of a thought, so that
      calls of other models get the one that Gemini does not check
      (https://ai.google.dev/gemini-api/docs/thought-signatures).
    - `max_tokens_field`: the field for `ModelSettings.max_output_tokens`.
    - `counts_when_asked`: the tokens are counted only if `stream_options` asks for it, which
      Mistral refuses and does not need.
    - `schema_with_tools`: a model that is held to a schema calls tools as well. Servers that make
      the whole response fit the schema let it call none (ollama/ollama#8095,
      vllm-project/vllm#16313).
    - `strict_tools`: tools may have the field `strict`.
    - `media`: the images, files and audio that it reads; texts stand in place of the others.
    - `with_tools`: fields of a request with tools.
    - `reasoning`: how models are told how much to reason, by the first rule that matches the name;
      without a rule that does, they are told nothing. () is the field `reasoning_effort` for all.
    - `cache_key`: the field, or the header if it begins with "x-", that leads the requests of one
      conversation to the server that has cached their beginning; "" if there is none.
    """

    call_ids: CallIds = "any"
    alternates: bool = True
    tool_choice: bool = True
    named_choice: bool = False
    parallel_tool_calls: bool = True
    needs_reasoning: bool = False
    needs_signature: bool = False
    max_tokens_field: str = "max_tokens"
    counts_when_asked: bool = True
    schema_with_tools: bool = True
    strict_tools: bool = True
    media: MediaRules = MEDIA
    with_tools: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    reasoning: tuple[ReasoningRule, ...] = ()
    cache_key: str = ""


OPENAI = ChatDialect(
    call_ids="short",
    alternates=False,
    named_choice=True,
    max_tokens_field="max_completion_tokens",
    # https://platform.openai.com/docs/guides/prompt-caching
    cache_key="prompt_cache_key",
)
"""OpenAI's own server."""

AZURE = msgspec.structs.replace(OPENAI, cache_key="")
"""OpenAI's models at Azure, whose older versions of the API refuse fields that they do not know."""

COMPATIBLE = ChatDialect()
"""Any other server: what all of them accept."""


def for_model(dialect: ChatDialect, model: str) -> ChatDialect:
    """Returns the dialect of a server for one of its models.

    The tokenizer of Mistral's models checks the ids of calls on every server.
    """
    if dialect.call_ids == "any" and _MISTRAL_MODELS.search(model):
        return msgspec.structs.replace(dialect, call_ids="nine")
    return dialect


def host_of(base_url: str) -> str:
    """Returns the host of a URL; "" for a text that is not one, which is reported elsewhere."""
    try:
        return urlsplit(base_url).hostname or ""
    except ValueError:
        return ""
