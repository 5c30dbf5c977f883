"""The windows of known models: the tokens that a request may have, as the providers count.

The limit of the input if the provider publishes one; else the window, which input and response
share. As listed at the time of writing; `max_tokens` of a strategy (`treadle.memory`)
overrides this table.
https://platform.openai.com/docs/models, https://platform.claude.com/docs/en/about-claude/models
"""

from collections.abc import Mapping
from types import MappingProxyType

from treadle.models.version import without_date

WINDOWS: Mapping[str, int] = MappingProxyType(
    {
        "gpt-5": 272_000,
        "gpt-5-mini": 272_000,
        "gpt-5-nano": 272_000,
        "gpt-4.1": 1_047_576,
        "gpt-4.1-mini": 1_047_576,
        "gpt-4.1-nano": 1_047_576,
        "gpt-4o": 128_000,
        "gpt-4o-mini": 128_000,
        "o3": 200_000,
        "o4-mini": 200_000,
        "claude-opus-4-5": 200_000,
        "claude-opus-4-1": 200_000,
        "claude-opus-4": 200_000,
        "claude-sonnet-4-5": 200_000,
        "claude-sonnet-4": 200_000,
        "claude-haiku-4-5": 200_000,
    }
)
"""Windows by the name of the model, without the date of its version."""


def window_of(model: str) -> int | None:
    """Returns the window of a model or of a dated version of it; None if it is not known."""
    window = WINDOWS.get(model)
    return window if window is not None else WINDOWS.get(without_date(model))
