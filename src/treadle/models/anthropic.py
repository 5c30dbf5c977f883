"""Anthropic's Messages API as a model, and servers compatible with it."""

from collections.abc import Mapping

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.models.api_key import ApiKey
from treadle.models.http import HttpModel, Timeouts
from treadle.models.output_modes import anthropic_output_mode
from treadle.models.presets import PRESETS
from treadle.models.transport import Transport
from treadle.models.wire.anthropic import AnthropicWire
from treadle.models.wire.anthropic_request import AnthropicOptions, PromptCache
from treadle.models.wire.chat_dialects import host_of

ANTHROPIC_URL = PRESETS["anthropic"].base_url


class AnthropicMessages(HttpModel):
    """A model behind the Anthropic Messages API.

    - `api_key` may be empty for servers that need none, and a function that returns a token.
    - `base_url` is the root of the API, with or without the `/v1`.
    - `provider` marks the reasoning and the items of hosted tools, which are sent back only to
      models with the same mark: give a server that is not Anthropic's its own mark.
    - `max_tokens` limits the output, thinking included, unless `ModelSettings.max_output_tokens`
      does; the API requires a limit in each request, and each model has a maximum.
    - `prompt_cache` marks tools, system and the last turns for the provider's prompt cache, and is
      the time they are kept (writing costs more than plain input, reading far less); None: no mark.
    - `eager_input_streaming` asks for the arguments of a call as they are written, unchecked and
      unbuffered; turn it off for servers that refuse it.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `ends` maps more values of `stop_reason` to what they mean: `ends={"my_stop": "stop"}`. A
      response that ends with an unknown word fails with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"native"` for models from
      4.1 on at Anthropic, else `"tool"`.

    `ModelSettings.reasoning_effort` turns thinking on: with an effort, or in models up to 4.5 with
    a budget of tokens. The effort "minimal" is sent as "low". A step that is forced to call a tool
    does not think, because the API refuses that.

    https://platform.claude.com/docs/en/api/messages
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: ApiKey,
        base_url: str = ANTHROPIC_URL,
        provider: str = "anthropic",
        max_tokens: int = 32_000,
        prompt_cache: PromptCache | None = "5m",
        eager_input_streaming: bool = True,
        strict: bool = False,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        options = AnthropicOptions(
            provider=provider,
            max_tokens=max_tokens,
            prompt_cache=prompt_cache,
            eager_input_streaming=eager_input_streaming,
            named_choice=host_of(base_url).endswith("anthropic.com"),
            strict=strict,
        )
        super().__init__(
            name,
            AnthropicWire(options, ends),
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            api_key=api_key,
            output_mode=output_mode or anthropic_output_mode(host_of(base_url), name),
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )
