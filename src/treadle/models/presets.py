"""The providers that a model string can name, as data: where they are and what they accept.

Each preset names the page of its provider; what that page does not say comes from the reports that
the comments name and from recorded streams. `CHECKED` is the day the facts were collected.
A provider behind one of the APIs needs nothing else:

    from treadle.models import PRESETS, ChatDialect, Preset

    PRESETS["intern"] = Preset("https://models.example.com/v1", key="INTERN_API_KEY")
    agent = Agent("intern:our-model")
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.domain.settings import ReasoningEffort
from treadle.models.endpoint import is_azure, is_openai
from treadle.models.wire.chat_dialects import (
    AZURE,
    COMPATIBLE,
    IMAGES_ONLY,
    OPENAI,
    TEXTS_ONLY,
    ChatDialect,
    for_model,
    host_of,
)
from treadle.models.wire.reasoning import BUDGETS, Fields, ReasoningRule, switch, words

CHECKED = "2026-11-30"

_LOCALHOST = "127.0.0.1"

ApiName = Literal["chat", "responses", "messages", "gemini", "converse"]


class Preset(Struct, frozen=True):
    """A provider, or a server that many people run.

    - `base_url`: the root of the API; the variable `url_variable` replaces it.
    - `api`: which API is used: `chat` (Chat Completions), `responses`, `messages`,
      `gemini` or `converse`.
    - `key`: the variable that holds the key; "" if the server takes none.
    - `needs_key`: a model without a key is refused with `MissingKey` before it is called.
    - `url_variable`: by default the variable of the key with `_BASE_URL` in place of `_API_KEY`.
    - `dialect`: what the server accepts, for Chat Completions.
    - `output_mode`: how agents ask for structured output; None for the one of OpenAI's models.
    - `ends`: values that end a good response there, in addition to those known for the API.
    - `source`: the page of the provider that documents this.

    The texts with which servers report a request that is longer than the window are in
    `OVERFLOW_TEXTS`, for all servers, because gateways pass them on.
    """

    base_url: str
    api: ApiName = "chat"
    key: str = ""
    needs_key: bool = True
    url_variable: str = ""
    dialect: ChatDialect = COMPATIBLE
    output_mode: OutputMode | None = None
    ends: Mapping[str, FinishReason] = msgspec.field(default_factory=dict[str, FinishReason])
    source: str = ""


_THINKING = switch({"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}})
_HIGH_OR_MAX: Mapping[ReasoningEffort, Fields] = {
    **switch(
        {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        {"thinking": {"type": "disabled"}},
    ),
    "xhigh": {"thinking": {"type": "enabled"}, "reasoning_effort": "max"},
}
_GPT_OSS = ReasoningRule(
    models="gpt-oss", efforts=words(none="low", low="low", medium="medium", high="high")
)
# The chat templates of Qwen and GLM read the first name, those of DeepSeek and Kimi the second.
_TEMPLATE = ReasoningRule(
    efforts=switch(
        {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    )
)


def _hosted(**more: object) -> ChatDialect:
    """Returns the dialect of a provider that follows OpenAI's API for open models."""
    return msgspec.structs.replace(ChatDialect(named_choice=True, media=IMAGES_ONLY), **more)


def _local(port: int, name: str, source: str, **more: object) -> Preset:
    """Returns the preset of a server on this machine, which takes a key if it was given one."""
    preset = Preset(
        f"http://{_LOCALHOST}:{port}/v1",
        key=f"{name}_API_KEY",
        needs_key=False,
        dialect=ChatDialect(media=IMAGES_ONLY),
        source=source,
    )
    return msgspec.structs.replace(preset, **more)


PRESETS: dict[str, Preset] = {
    "openai": Preset(
        "https://api.openai.com/v1",
        api="responses",
        key="OPENAI_API_KEY",
        dialect=OPENAI,
        source="https://platform.openai.com/docs/api-reference/responses",
    ),
    "chat": Preset(
        "https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        dialect=OPENAI,
        source="https://platform.openai.com/docs/api-reference/chat",
    ),
    "anthropic": Preset(
        "https://api.anthropic.com",
        api="messages",
        key="ANTHROPIC_API_KEY",
        source="https://platform.claude.com/docs/en/api/messages",
    ),
    "gemini": Preset(
        "https://generativelanguage.googleapis.com",
        api="gemini",
        key="GEMINI_API_KEY",
        source="https://ai.google.dev/api/generate-content",
    ),
    # Its models have no base URL of their own but a region, see `treadle.models.bedrock`.
    "bedrock": Preset(
        "https://bedrock-runtime.us-east-1.amazonaws.com",
        api="converse",
        key="AWS_BEARER_TOKEN_BEDROCK",
        url_variable="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        source="https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html",
    ),
    "openrouter": Preset(
        "https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
        # It passes PDFs and audio to the models that read them, and parses PDFs for the others.
        dialect=ChatDialect(
            named_choice=True,
            # https://openrouter.ai/docs/use-cases/reasoning-tokens
            reasoning=(
                ReasoningRule(
                    efforts={effort: {"reasoning": {"effort": effort}} for effort in BUDGETS},
                    budget=("reasoning", "max_tokens"),
                ),
            ),
        ),
        # Few of the models behind it take a schema; all that call tools take a tool.
        output_mode="tool",
        source="https://openrouter.ai/docs/api-reference/chat-completion",
    ),
    "groq": Preset(
        "https://api.groq.com/openai/v1",
        key="GROQ_API_KEY",
        dialect=_hosted(
            max_tokens_field="max_completion_tokens",
            # https://console.groq.com/docs/reasoning
            reasoning=(
                _GPT_OSS,
                ReasoningRule(
                    models="qwen3",
                    efforts=words(none="none", low="default"),
                    always={"reasoning_format": "parsed"},
                ),
            ),
        ),
        # "Streaming and tool use are not currently supported with Structured Outputs."
        output_mode="tool",
        source="https://console.groq.com/docs/api-reference#chat-create",
    ),
    "mistral": Preset(
        "https://api.mistral.ai/v1",
        key="MISTRAL_API_KEY",
        # Every field that it does not know is refused: "Extra inputs are not permitted"
        # (avante-corp/avante.nvim#2347).
        dialect=_hosted(
            call_ids="nine",
            counts_when_asked=False,
            # https://docs.mistral.ai/capabilities/reasoning/
            reasoning=(
                ReasoningRule(
                    models=r"mistral-(small|medium)-(latest|26|3)|mistral-large-4",
                    efforts=words(none="none", low="high"),
                ),
            ),
        ),
        # "Cannot use json response type with tools".
        output_mode="tool",
        source="https://docs.mistral.ai/api/#tag/chat",
    ),
    "deepseek": Preset(
        "https://api.deepseek.com",
        key="DEEPSEEK_API_KEY",
        # A picture in the history is refused: "unknown variant `image_url`, expected `text`"
        # (vercel/ai#9179).
        dialect=_hosted(
            # "Thinking mode does not support this tool_choice" (deepseek-ai/DeepSeek-V3#1376); the
            # models think unless they are told not to.
            tool_choice=False,
            named_choice=False,
            parallel_tool_calls=False,
            needs_reasoning=True,
            strict_tools=False,
            media=TEXTS_ONLY,
            # https://api-docs.deepseek.com/guides/thinking_mode
            reasoning=(ReasoningRule(efforts=_HIGH_OR_MAX),),
        ),
        # Only `json_object`: https://api-docs.deepseek.com/guides/json_mode
        output_mode="tool",
        source="https://api-docs.deepseek.com/api/create-chat-completion",
    ),
    "xai": Preset(
        "https://api.x.ai/v1",
        key="XAI_API_KEY",
        dialect=_hosted(
            max_tokens_field="max_completion_tokens",
            # https://docs.x.ai/developers/advanced-api-usage/prompt-caching/maximizing-cache-hits
            cache_key="x-grok-conv-id",
            # Other models refuse the field: NousResearch/hermes-agent#23435.
            # https://docs.x.ai/developers/model-capabilities/text/reasoning
            reasoning=(
                ReasoningRule(
                    models="grok-3-mini", efforts=words(none="low", low="low", high="high")
                ),
                ReasoningRule(
                    models=r"grok-(4\.3|latest)",
                    efforts=words(none="none", low="low", medium="medium", high="high"),
                ),
                ReasoningRule(
                    models=r"grok-4\.[5-9]",
                    efforts=words(none="low", low="low", medium="medium", high="high"),
                ),
            ),
        ),
        source="https://docs.x.ai/docs/api-reference#chat-completions",
    ),
    "together": Preset(
        "https://api.together.xyz/v1",
        key="TOGETHER_API_KEY",
        dialect=_hosted(
            # https://docs.together.ai/docs/inference/chat/reasoning
            reasoning=(
                _GPT_OSS,
                ReasoningRule(
                    models="qwen3|kimi|glm|deepseek-v|nemotron|cogito",
                    efforts=switch(
                        {"reasoning": {"enabled": True}}, {"reasoning": {"enabled": False}}
                    ),
                ),
            ),
        ),
        output_mode="tool",
        source="https://docs.together.ai/reference/chat-completions-1",
    ),
    "fireworks": Preset(
        "https://api.fireworks.ai/inference/v1",
        key="FIREWORKS_API_KEY",
        dialect=_hosted(
            # https://docs.fireworks.ai/guides/reasoning
            reasoning=(
                ReasoningRule(
                    models="gpt-oss|minimax",
                    efforts=words(none="low", low="low", medium="medium", high="high"),
                ),
                ReasoningRule(
                    models="kimi|glm|deepseek|qwen3",
                    efforts=_THINKING,
                ),
            ),
        ),
        output_mode="tool",
        source="https://docs.fireworks.ai/api-reference/post-chatcompletions",
    ),
    "cerebras": Preset(
        "https://api.cerebras.ai/v1",
        key="CEREBRAS_API_KEY",
        # Tools must all be strict or all not be.
        dialect=_hosted(
            max_tokens_field="max_completion_tokens",
            strict_tools=False,
            media=TEXTS_ONLY,
            # https://inference-docs.cerebras.ai/capabilities/reasoning
            reasoning=(
                _GPT_OSS,
                ReasoningRule(models="glm", efforts={"none": {"reasoning_effort": "none"}}),
            ),
        ),
        output_mode="tool",
        source="https://inference-docs.cerebras.ai/api-reference/chat-completions",
    ),
    "moonshot": Preset(
        "https://api.moonshot.ai/v1",
        key="MOONSHOT_API_KEY",
        # "tool_choice 'required' is incompatible with thinking enabled"
        # (UKGovernmentBEIS/inspect_ai#5152).
        dialect=_hosted(
            tool_choice=False,
            named_choice=False,
            parallel_tool_calls=False,
            strict_tools=False,
            # The other models always reason, or never.
            reasoning=(ReasoningRule(models=r"kimi-k2\.[56]", efforts=_THINKING),),
        ),
        output_mode="tool",
        source="https://platform.moonshot.ai/docs/api/chat",
    ),
    "zai": Preset(
        "https://api.z.ai/api/paas/v4",
        key="ZAI_API_KEY",
        # `tool_choice` is "auto" only. Without `tool_stream` the arguments of a call arrive at
        # once, after minutes of silence for long ones.
        dialect=_hosted(
            tool_choice=False,
            named_choice=False,
            parallel_tool_calls=False,
            strict_tools=False,
            with_tools={"tool_stream": True},
            # https://docs.z.ai/guides/capabilities/thinking-mode; 5.3 always thinks.
            reasoning=(
                ReasoningRule(
                    models=r"glm-5\.3",
                    efforts=words(none="low", low="low", medium="high", xhigh="max"),
                ),
                ReasoningRule(models=r"glm-5\.2", efforts=_HIGH_OR_MAX),
                ReasoningRule(models=r"glm-(4\.[5-9]|5)", efforts=_THINKING),
            ),
        ),
        output_mode="tool",
        source="https://docs.z.ai/api-reference/llm/chat-completion",
    ),
    "ollama": _local(
        11434,
        "OLLAMA",
        "https://docs.ollama.com/api/openai-compatibility",
        url_variable="OLLAMA_HOST",
        # It ignores `tool_choice`.
        dialect=ChatDialect(
            tool_choice=False,
            parallel_tool_calls=False,
            schema_with_tools=False,
            media=IMAGES_ONLY,
            reasoning=(
                ReasoningRule(efforts=words(none="none", low="low", medium="medium", high="high")),
            ),
        ),
    ),
    "vllm": _local(
        8000,
        "VLLM",
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        dialect=_hosted(schema_with_tools=False, reasoning=(_GPT_OSS, _TEMPLATE)),
    ),
    "sglang": _local(
        30000,
        "SGLANG",
        "https://docs.sglang.ai/basic_usage/openai_api_completions.html",
        dialect=_hosted(schema_with_tools=False, reasoning=(_GPT_OSS, _TEMPLATE)),
    ),
    "llamacpp": _local(
        8080,
        "LLAMACPP",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        dialect=ChatDialect(schema_with_tools=False, media=IMAGES_ONLY, reasoning=(_TEMPLATE,)),
    ),
    # "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"
    # (lmstudio-ai/lmstudio-bug-tracker#670).
    "lmstudio": _local(
        1234,
        "LMSTUDIO",
        "https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
        # Its Chat Completions have no field for reasoning.
        dialect=ChatDialect(
            parallel_tool_calls=False,
            schema_with_tools=False,
            media=IMAGES_ONLY,
            reasoning=(ReasoningRule(),),
        ),
    ),
    "litellm": _local(
        4000,
        "LITELLM",
        "https://docs.litellm.ai/docs/proxy/user_keys",
        # It passes media on to the models that read them. It also passes a choice of one tool on to
        # servers that do not know it, such as llama.cpp, so that any call is required instead.
        dialect=ChatDialect(),
        output_mode="tool",
    ),
}
"""The presets by the name before the colon of a model string. Add your own, or replace one."""

_GEMINI = ChatDialect(needs_signature=True)
"""Google's API that is compatible with OpenAI's."""


def preset_at(base_url: str) -> Preset | None:
    """Returns the preset of the provider whose API is at `base_url`; None if it has none."""
    host = host_of(base_url)
    return next((preset for preset in PRESETS.values() if _serves(preset, host)), None)


def _serves(preset: Preset, host: str) -> bool:
    own = host_of(preset.base_url).removeprefix("api.")
    return own != _LOCALHOST and (host == own or host.endswith(f".{own}"))


def dialect_of(base_url: str, model: str) -> ChatDialect:
    """Returns what the server behind `base_url` accepts for `model`."""
    host = host_of(base_url)
    if is_openai(host):
        return AZURE if is_azure(host) else OPENAI
    if host.endswith(".googleapis.com"):
        return _GEMINI
    preset = preset_at(base_url)
    return for_model(COMPATIBLE if preset is None else preset.dialect, model)
