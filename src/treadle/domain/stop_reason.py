"""Why a run ended."""

from typing import Literal

StopReason = Literal[
    "end_turn",
    "terminal_tool",
    "finish_requested",
    "max_steps",
    "max_tokens",
    "max_input_tokens",
    "max_output_tokens",
    "max_cost",
    "max_seconds",
    "max_tool_calls",
    "content_filter",
    "cancelled",
    "failed",
    "expired",
]
"""Why a run ended.

Those that begin with `max_` are limits; `content_filter` is the provider's reason for a response
that it did not write to its end.
"""
