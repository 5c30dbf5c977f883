"""Limits: when a run ends although the model would continue."""

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from treadle.domain.arguments import shown
from treadle.domain.stop_reason import StopReason
from treadle.domain.usage import Price, Spent
from treadle.errors import ConfigurationError


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a run, or all runs of a thread together, end; None is unlimited.

    - `max_steps` counts responses; the default for a run is 32.
    - `max_tokens` (input and output), `max_input_tokens`, `max_output_tokens` and `max_cost` are of
      all steps together, including the usage of other agents that worked for the run. They are
      checked after each step.
    - `max_seconds` of work, without the time of waiting for outputs from outside. It ends a run at
      once; a thread, after a step.
    - `max_tool_calls`: calls beyond it are refused, and the run ends after the step with them.
    - `max_handoffs`: how often a run may change its agent; a call beyond it is refused.
    - `max_depth`: how deep agents may call agents: 1 is an agent called by the first one.
    - `price` of the model, for `max_cost`; else `prices`, by the names of models, which are looked
      into before those of `treadle.models.prices`.
    """

    max_steps: int | UnsetType | None = UNSET
    max_tokens: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    max_tool_calls: int | None = None
    max_handoffs: int | None = 8
    max_depth: int = 4
    price: Price | None = None
    prices: Mapping[str, Price] | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in {"price", "prices"} or value is None or value is UNSET:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise _InvalidLimit(f"Limits.{name} must be a number, not {shown(value)}.")
            least = 0 if name in {"max_handoffs", "max_depth"} else 1
            if name in {"max_cost", "max_seconds"}:
                if not value > 0:  # so that NaN is refused as well
                    raise _InvalidLimit(f"Limits.{name} must be above 0, or None for no limit.")
            elif value < least:
                raise _InvalidLimit(f"Limits.{name} must be at least {least}.")

    def or_steps(self, steps: int | None) -> "Limits":
        """Returns these limits, with `steps` as `max_steps` if no limit was given."""
        return replace(self, max_steps=steps) if self.max_steps is UNSET else self

    def updated(self, other: "Limits") -> "Limits":
        """Returns these limits with those that `other` sets, which may be wider."""
        default = Limits()
        given = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(other, name)) != getattr(default, name)
        }
        return replace(self, **given)

    def wider(self, than: "Limits") -> str:
        """Returns the name of the first limit that is wider than that of `than`, or ""."""
        for name in self.__struct_fields__:
            value, theirs = getattr(self, name), getattr(than, name)
            if name in {"price", "prices"}:
                if value != theirs:
                    return name
            elif theirs not in {None, UNSET} and (value in {None, UNSET} or value > theirs):
                return name
        return ""

    def reached(self, spent: Spent) -> StopReason | None:
        """Returns the first limit that `spent` has reached, or None."""
        usage = spent.usage
        if isinstance(self.max_steps, int) and spent.steps >= self.max_steps:
            return "max_steps"
        if self.max_tokens is not None and usage.total_tokens >= self.max_tokens:
            return "max_tokens"
        if self.max_input_tokens is not None and usage.input_tokens >= self.max_input_tokens:
            return "max_input_tokens"
        if self.max_output_tokens is not None and usage.output_tokens >= self.max_output_tokens:
            return "max_output_tokens"
        if self.max_cost is not None and spent.cost >= self.max_cost:
            return "max_cost"
        if self.max_seconds is not None and spent.seconds >= self.max_seconds:
            return "max_seconds"
        if self.max_tool_calls is not None and spent.tool_calls > self.max_tool_calls:
            return "max_tool_calls"
        return None

    def left(self, spent: Spent) -> "Limits":
        """Returns the limits for another agent that works for the run: what is left of these.

        Steps are not passed on: each agent has its own. Of a limit that is used up the smallest
        valid value is left, so a caller checks `reached` first.
        """
        usage = spent.usage
        return Limits(
            max_steps=None,
            max_tokens=_left(self.max_tokens, usage.total_tokens),
            max_input_tokens=_left(self.max_input_tokens, usage.input_tokens),
            max_output_tokens=_left(self.max_output_tokens, usage.output_tokens),
            max_cost=None if self.max_cost is None else max(1e-9, self.max_cost - spent.cost),
            max_tool_calls=_left(self.max_tool_calls, spent.tool_calls),
            max_handoffs=None,
            max_depth=self.max_depth,
        )

    def within(self, other: "Limits") -> "Limits":
        """Returns the narrower of both, limit by limit; the price stays."""
        narrowed = {
            name: min(_or(getattr(self, name), theirs), theirs)
            for name in self.__struct_fields__
            if name not in {"price", "prices"}
            and (theirs := getattr(other, name)) not in {None, UNSET}
        }
        return replace(self, **narrowed)


class _InvalidLimit(ConfigurationError, ValueError):
    """A `ValueError` as well, so that a stored event with such a limit counts as damaged."""


NO_LIMITS = Limits(max_steps=None, max_handoffs=None)


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(1, limit - used)


def _or(value: float | UnsetType | None, default: float) -> float:
    return default if value is None or value is UNSET else value
