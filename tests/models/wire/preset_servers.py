"""The servers of the presets: what each refuses, from its documentation and the public reports.

`check_preset` raises `Refused` for a body that the server would answer with 400 or 422.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from msgspec import Struct
from tests.models.wire.strict_servers import (
    Json,
    check_chat,
    check_needs_reasoning,
    check_template,
    require,
)

ALL_CHOICES = frozenset({"none", "auto", "required", "named"})
WORDS = frozenset({"none", "auto", "required"})
# https://docs.mistral.ai/api/#tag/chat/operation/chat_completion_v1_chat_completions_post; other
# fields: "Extra inputs are not permitted".
MISTRAL_FIELDS = {
    *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed"),
    *("metadata", "response_format", "tools", "tool_choice", "presence_penalty", "n"),
    *("frequency_penalty", "prediction", "parallel_tool_calls", "prompt_mode", "reasoning_effort"),
    *("safe_prompt", "prompt_cache_key"),
}


class Server(Struct, frozen=True, kw_only=True):
    """The rules of one server; `fields` are all that it knows, None for any."""

    fields: AbstractSet[str] | None = None
    choices: AbstractSet[str] = ALL_CHOICES
    parts: AbstractSet[str] = frozenset({"text", "image_url"})
    strict: bool = True
    parallel: bool = True  # knows the field `parallel_tool_calls`
    call_ids: str = r"[!-~]{1,4096}"
    needs_reasoning: bool = False
    tokens: str = "max_tokens"


SERVERS: Mapping[str, Server] = {
    "openrouter": Server(parts=frozenset({"text", "image_url", "file", "input_audio"})),
    "groq": Server(tokens="max_completion_tokens"),
    "mistral": Server(
        fields=MISTRAL_FIELDS,
        call_ids=r"[a-zA-Z0-9]{9}",
    ),
    "deepseek": Server(
        choices=frozenset({"auto"}),
        parts=frozenset({"text"}),
        strict=False,
        parallel=False,
        needs_reasoning=True,
    ),
    "xai": Server(tokens="max_completion_tokens"),
    "together": Server(),
    "fireworks": Server(),
    "cerebras": Server(parts=frozenset({"text"}), strict=False, tokens="max_completion_tokens"),
    "moonshot": Server(choices=frozenset({"none", "auto"}), strict=False, parallel=False),
    "zai": Server(choices=frozenset({"auto"}), strict=False, parallel=False),
    "ollama": Server(choices=frozenset({"none", "auto"}), parallel=False),
    "vllm": Server(),
    "sglang": Server(),
    "llamacpp": Server(choices=WORDS),
    "lmstudio": Server(choices=WORDS, parallel=False),
    "litellm": Server(parts=frozenset({"text", "image_url", "file", "input_audio"})),
}


def check_preset(name: str, body: Json) -> None:
    """Raises `Refused` if the server of a preset does not accept the body."""
    server = SERVERS[name]
    known = {**body, "messages": body["messages"]}
    known.pop("tool_stream", None)  # of Z.AI alone, which OpenAI's types do not have
    check_chat(known, call_ids=server.call_ids)
    check_template(body)
    if server.needs_reasoning:
        check_needs_reasoning(body)
    if server.fields is not None:
        extra = body.keys() - server.fields
        require(not extra, f"Extra inputs are not permitted: {extra}")
    for message in body["messages"]:
        content = message.get("content")
        kinds = {part["type"] for part in content} if isinstance(content, list) else set[str]()
        kinds.discard("thinking")  # comes back to the server that wrote it
        require(kinds <= server.parts, f"unknown variant in {kinds}, expected {server.parts}")
    choice = body.get("tool_choice", "auto")
    require(body.get("tool_choice") != "auto" or name != "deepseek", "no tool_choice at all")
    word = choice if isinstance(choice, str) else "named"
    require(word in server.choices, f"Invalid tool_choice {word}")
    for tool in body.get("tools", ()):
        require(server.strict or "strict" not in tool["function"], "strict is not known")
    require(server.parallel or "parallel_tool_calls" not in body, "parallel_tool_calls")
    limits = {"max_tokens", "max_completion_tokens"} & body.keys()
    require(limits <= {server.tokens}, f"{limits} are not {server.tokens}")
