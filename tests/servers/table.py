"""What `make test-servers` checks: the models, the features, and what a server cannot do.

`test_servers.py` runs a test for each feature and model, and `tests/models/matrix.py` shows them.
"""

from collections.abc import Mapping

SERVERS: Mapping[str, str] = {
    "llamacpp": "llama.cpp",
    "transformers": "transformers serve",
    "litellm": "LiteLLM, in front of llama.cpp",
}

# A preset of its own, and the ones that name an API which the server offers as well.
MODELS: Mapping[str, tuple[str, ...]] = {
    "llamacpp": ("llamacpp:tiny", "chat:tiny", "openai:tiny", "anthropic:tiny"),
    "transformers": ("chat:tiny", "openai:tiny"),
    "litellm": ("litellm:tiny", "litellm:tiny-messages"),
}
"""The models by server. The second one of LiteLLM uses the Messages API of llama.cpp."""

ALL = tuple(f"{model}@{server}" for server, models in MODELS.items() for model in models)
"""The model strings, each with its server in place of a URL."""

UNBOUNDED = "the server computes a prompt of any length, for minutes"

CANNOT: Mapping[str, Mapping[str, str]] = {
    "text": {},
    "calls": {},
    "one call": {
        "chat:tiny@transformers": "the server ignores `tool_choice`",
        "openai:tiny@transformers": "the server ignores `tool_choice`",
    },
    "broken calls": {},
    "reasoning": {},
    "interruption": {},
    "token limit": {
        "openai:tiny@llamacpp": "the server reports a response that was cut as completed",
        "openai:tiny@transformers": "the server reports a response that was cut as completed",
    },
    "overflow": {
        "chat:tiny@transformers": UNBOUNDED,
        "openai:tiny@transformers": UNBOUNDED,
    },
    "wrong key": {
        "chat:tiny@transformers": "the server takes no keys",
        "openai:tiny@transformers": "the server takes no keys",
    },
}
"""The features, and of each the models that cannot do it, with the reason."""
