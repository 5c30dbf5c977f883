"""OpenAI's two APIs as models, and servers compatible with them."""

from collections.abc import Mapping

from msgspec.structs import replace

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.models.api_key import ApiKey
from treadle.models.http import HttpModel, Timeouts
from treadle.models.output_modes import openai_output_mode
from treadle.models.presets import PRESETS, dialect_of
from treadle.models.transport import Transport
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.chat_dialects import ChatDialect, host_of
from treadle.models.wire.chat_request import ChatOptions
from treadle.models.wire.responses import ResponsesWire
from treadle.models.wire.responses_request import ResponsesOptions

OPENAI_URL = PRESETS["openai"].base_url


class OpenAIResponses(HttpModel):
    """A model behind the OpenAI Responses API.

    - `api_key` may be empty for servers that need none, and a function that returns a token.
    - `provider` marks the reasoning, the items of hosted tools and other fields that are sent back
      only to models with the same mark; "openai", and the host as well for other servers.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `ends` maps more values of the `status` of a response, or of the reason of an incomplete one,
      to what they mean: `ends={"my_stop": "stop"}`. A response that ends with an unknown word fails
      with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"tool"` for models that are
      known to have no JSON Schemas, else `"native"`.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: ApiKey,
        base_url: str = OPENAI_URL,
        provider: str | None = None,
        strict: bool = False,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        dialect = dialect_of(base_url, name)
        options = ResponsesOptions(
            provider=provider or _mark("openai", base_url),
            named_choice=dialect.named_choice,
            has_cache_key=dialect.cache_key == "prompt_cache_key",
            strict=strict,
        )
        wire = ResponsesWire(options, ends)
        super().__init__(
            name,
            wire,
            base_url=base_url,
            api_key=api_key,
            output_mode=output_mode or openai_output_mode(base_url, name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


class OpenAIChat(HttpModel):
    """A model behind the Chat Completions API, at OpenAI or any compatible server.

    - `api_key` may be empty for servers that need none, and a function that returns a token.
    - `provider` marks the reasoning and other fields that are sent back only to models with the
      same mark; "chat", and the host as well for other servers than OpenAI's.
    - `dialect` is what the server accepts; by default it is recognised by its URL and the name of
      the model.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `max_tokens_field` is the field for `ModelSettings.max_output_tokens`; by default that of the
      dialect: `max_completion_tokens` at OpenAI and Azure, and `max_tokens` at unknown servers.
    - `ends` maps more values of `finish_reason` to what they mean, for a server that ends a good
      response with a word of its own: `ends={"my_stop": "stop"}`. A response that ends with an
      unknown word fails with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"tool"` for models and
      servers that are known to have no JSON Schemas, or none next to tools if the agent has some,
      else `"native"`.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: ApiKey,
        base_url: str = OPENAI_URL,
        provider: str | None = None,
        dialect: ChatDialect | None = None,
        strict: bool = False,
        max_tokens_field: str | None = None,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        dialect = dialect or dialect_of(base_url, name)
        if max_tokens_field is not None:
            dialect = replace(dialect, max_tokens_field=max_tokens_field)
        options = ChatOptions(
            provider=provider or _mark("chat", base_url), dialect=dialect, strict=strict
        )
        wire = ChatWire(options, ends)
        super().__init__(
            name,
            wire,
            base_url=base_url,
            api_key=api_key,
            output_mode=output_mode or openai_output_mode(base_url, name),
            schema_with_tools=dialect.schema_with_tools,
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


def _mark(name: str, base_url: str) -> str:
    """Returns the mark of what a server writes: another server cannot read it."""
    host = host_of(base_url)
    return name if host == host_of(OPENAI_URL) else f"{name}:{host}"
