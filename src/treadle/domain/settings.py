"""Settings of a request to a model."""

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.arguments import shown
from treadle.errors import ConfigurationError

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
ReasoningSummary = Literal["auto", "concise", "detailed"]


class NamedTool(Struct, frozen=True, tag="named"):
    """A tool choice: the model must call the tool of this name."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


class ModelSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of a request; None leaves the provider's default.

    `extra_body` is merged into the request's JSON and `extra_headers` into its headers, for
    extensions of compatible servers.

    `reasoning_effort` is how much the model reasons: an effort, or a budget of tokens (0 is
    "none"). Each provider gets what it knows, an effort or a budget; one that knows neither for the
    model gets nothing. `reasoning_summary` asks the Responses API for a summary of the reasoning,
    which streams like reasoning; OpenAI gives it to verified organisations only. Other providers
    send what they show in any case.

    Raises `ConfigurationError` for a value of another type.
    """

    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: ReasoningEffort | int | None = None
    reasoning_summary: ReasoningSummary | None = None
    extra_body: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    extra_headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        choices = get_args(get_args(ToolChoice)[0])
        choice, effort = self.tool_choice, self.reasoning_effort
        if not (choice is None or choice in choices or isinstance(choice, NamedTool)):
            raise _not_a_setting("tool_choice", choice, f"{', '.join(choices)} or a NamedTool")
        is_budget = isinstance(effort, int) and not isinstance(effort, bool) and effort >= 0
        if not (effort is None or effort in _EFFORTS or is_budget):
            known = f"{', '.join(_EFFORTS)}, or a number of tokens"
            raise _not_a_setting("reasoning_effort", effort, known)
        if self.reasoning_summary is not None and self.reasoning_summary not in _SUMMARIES:
            known = ", ".join(_SUMMARIES)
            raise _not_a_setting("reasoning_summary", self.reasoning_summary, known)
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if value is not None and (
                not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            ):
                raise _not_a_setting(name, value, f"a value of the type {kinds[-1].__name__}")

    def updated(self, other: "ModelSettings") -> "ModelSettings":
        """Returns these settings with those that `other` sets; bodies and headers are merged."""
        given = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(other, name)) is not None
        }
        given["extra_body"] = {**self.extra_body, **other.extra_body}
        given["extra_headers"] = {**self.extra_headers, **other.extra_headers}
        return replace(self, **given)

    def __repr__(self) -> str:
        # Headers may contain keys, and a repr ends up in logs and reports.
        shown = replace(self, extra_headers=dict.fromkeys(self.extra_headers, "***"))
        return Struct.__repr__(shown)


_EFFORTS = get_args(ReasoningEffort)
_SUMMARIES = get_args(ReasoningSummary)
_KINDS: Mapping[str, tuple[type, ...]] = {
    "parallel_tool_calls": (bool,),
    "temperature": (int, float),
    "top_p": (int, float),
    "max_output_tokens": (int,),
    "extra_body": (Mapping,),
    "extra_headers": (Mapping,),
}


class _InvalidSetting(ConfigurationError, ValueError):
    """A `ValueError` as well, so that a stored event with such a setting counts as damaged."""


def _not_a_setting(name: str, value: object, known: str) -> ConfigurationError:
    return _InvalidSetting(f"ModelSettings.{name} is {shown(value)}; use {known}.")
