"""Signals: spans and measurements of a run, independent of where they are reported."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

Value = str | bool | int | float | list[str]
Attributes = Mapping[str, Value]

Metric = Literal[
    "gen_ai.client.token.usage",
    "gen_ai.client.operation.duration",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.invoke_agent.duration",
    "gen_ai.execute_tool.duration",
]


class SpanBegan(Struct, frozen=True, kw_only=True):
    """A span began at `at` (Unix seconds), below the span `parent`.

    `run_id` is set on the span of a run; without a parent it is a child of the current span.
    `resumed` is set on the span of a run that began earlier.
    """

    id: int
    parent: int | None
    name: str
    at: float
    attributes: Attributes
    is_request: bool = False
    run_id: str = ""
    resumed: bool = False


class SpanEnded(Struct, frozen=True, kw_only=True):
    """A span ended at `at` (Unix seconds); `error` is the code of its failure.

    `suspended` is set on the span of a run that continues later.
    """

    id: int
    at: float
    attributes: Attributes = msgspec.field(default_factory=dict[str, Value])
    error: str = ""
    suspended: bool = False


class Measured(Struct, frozen=True):
    """A value of a histogram: seconds, or tokens."""

    metric: Metric
    value: float
    attributes: Attributes


Signal = SpanBegan | SpanEnded | Measured
