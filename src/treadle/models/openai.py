"""OpenAI's two APIs as models, and servers compatible with them."""

from collections.abc import Mapping

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.models.endpoint import endpoint, is_openai
from treadle.models.http import HttpModel, Timeouts, require_url
from treadle.models.output_modes import openai_output_mode
from treadle.models.transport import Transport
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.chat_dialects import ChatDialect, dialect_of, host_of
from treadle.models.wire.chat_request import ChatOptions
from treadle.models.wire.responses import ResponsesWire
from treadle.models.wire.responses_request import ResponsesOptions

OPENAI_URL = "https://api.openai.com/v1"
OLLAMA_URL = "http://127.0.0.1:11434"


class OpenAIResponses(HttpModel):
    """A model behind the OpenAI Responses API.

    - `api_key` may be empty for servers that need none.
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
        api_key: str,
        base_url: str = OPENAI_URL,
        provider: str | None = None,
        strict: bool = False,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        options = ResponsesOptions(
            provider=provider or _mark("openai", base_url),
            named_choice=dialect_of(base_url, name).named_choice,
            strict=strict,
        )
        wire = ResponsesWire(options, ends)
        super().__init__(
            name,
            wire,
            base_url=base_url,
            api_key=api_key,
            output_mode=output_mode or openai_output_mode(host_of(base_url), name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


class OpenAIChat(HttpModel):
    """A model behind the Chat Completions API, at OpenAI or any compatible server.

    - `api_key` may be empty for servers that need none.
    - `provider` marks the reasoning and other fields that are sent back only to models with the
      same mark; "chat", and the host as well for other servers than OpenAI's.
    - `dialect` is what the server accepts; by default it is recognised by its URL and the name of
      the model.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `max_tokens_field` is the field for `ModelSettings.max_output_tokens`; by default
      `max_completion_tokens` at OpenAI and Azure, and `max_tokens` at other servers.
    - `ends` maps more values of `finish_reason` to what they mean, for a server that ends a good
      response with a word of its own: `ends={"my_stop": "stop"}`. A response that ends with an
      unknown word fails with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"tool"` for models and
      servers that are known to have no JSON Schemas, or none next to tools, else `"native"`.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str,
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
        if max_tokens_field is None:
            host = require_url(base_url).hostname or ""
            max_tokens_field = "max_completion_tokens" if is_openai(host) else "max_tokens"
        options = ChatOptions(
            provider=provider or _mark("chat", base_url),
            max_tokens_field=max_tokens_field,
            dialect=dialect or dialect_of(base_url, name),
            strict=strict,
        )
        wire = ChatWire(options, ends)
        super().__init__(
            name,
            wire,
            base_url=base_url,
            api_key=api_key,
            output_mode=output_mode or openai_output_mode(host_of(base_url), name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )


def _mark(name: str, base_url: str) -> str:
    """Returns the mark of what a server writes: another server cannot read it."""
    host = host_of(base_url)
    return name if host == host_of(OPENAI_URL) else f"{name}:{host}"


def openai(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> OpenAIResponses:
    """Returns the model `openai:name[@url]`."""
    base_url, key = endpoint(f"openai:{name}", url, environ, prefix="OPENAI", default=OPENAI_URL)
    return OpenAIResponses(name, api_key=key, base_url=base_url, transport=transport)


def chat(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> OpenAIChat:
    """Returns the model `chat:name[@url]`."""
    base_url, key = endpoint(f"chat:{name}", url, environ, prefix="OPENAI", default=OPENAI_URL)
    return OpenAIChat(name, api_key=key, base_url=base_url, transport=transport)


def ollama(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> OpenAIChat:
    """Returns the model `ollama:name[@url]` of a local Ollama."""
    base_url = url or f"{ollama_url(environ)}/v1"
    return OpenAIChat(name, api_key="", base_url=base_url, provider="ollama", transport=transport)


def ollama_url(environ: Mapping[str, str]) -> str:
    """Returns the root URL of the local Ollama server, from OLLAMA_HOST if it is set."""
    host = environ.get("OLLAMA_HOST", "").strip() or OLLAMA_URL
    return (host if "://" in host else f"http://{host}").rstrip("/")
