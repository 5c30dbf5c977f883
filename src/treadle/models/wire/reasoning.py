"""How much a model reasons: one setting, in the words of each provider.

`ModelSettings.reasoning_effort` is an effort, or a budget of tokens. A provider that knows only one
of them gets the other, by `BUDGETS`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.settings import ReasoningEffort

Fields = Mapping[str, object]
"""Fields of a request."""

BUDGETS: Mapping[ReasoningEffort, int] = {
    "none": 0,
    "minimal": 1_024,
    "low": 4_096,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
}
"""The tokens that an effort stands for."""

# Every model that takes efforts knows these.
_COMMON: Sequence[ReasoningEffort] = ("none", "low", "medium", "high")


def effort_of(setting: ReasoningEffort | int | None) -> ReasoningEffort | None:
    """Returns the effort that a setting stands for: for a budget, the next larger one."""
    if setting is None or isinstance(setting, str):
        return setting
    for effort in _COMMON:
        if setting <= BUDGETS[effort]:
            return effort
    return "high"


def budget_of(setting: ReasoningEffort | int) -> int:
    """Returns the budget of tokens that a setting stands for."""
    return setting if isinstance(setting, int) else BUDGETS[setting]


class ReasoningRule(Struct, frozen=True, kw_only=True):
    """How the models of a server whose names match `models` are told how much to reason.

    - `models`: a regular expression that is searched in the name, in any case.
    - `efforts`: the fields of the request for each effort; nothing is sent for another.
    - `budget`: the path of the field for a budget of tokens; () if there is none.
    - `always`: fields that these models need in each request.
    """

    models: str = ""
    efforts: Mapping[ReasoningEffort, Fields] = msgspec.field(
        default_factory=dict[ReasoningEffort, Fields]
    )
    budget: tuple[str, ...] = ()
    always: Fields = msgspec.field(default_factory=dict[str, object])


Word = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "default"]


def words(none: Word | None = None, **words: Word) -> dict[ReasoningEffort, Fields]:
    """Returns the fields for servers with `reasoning_effort`, by the words that they know.

    An effort without a word gets that of the next lower one, else the lowest word.
    """
    found: dict[ReasoningEffort, Fields] = {}
    last = next(iter(words.values()))
    for effort in BUDGETS:
        if effort == "none":
            word = none
        else:
            word = last = words.get(effort, last)
        if word is not None:
            found[effort] = {"reasoning_effort": word}
    return found


def switch(on: Fields, off: Fields) -> dict[ReasoningEffort, Fields]:
    """Returns the fields for models that reason or do not, without degrees."""
    return {effort: off if effort == "none" else on for effort in BUDGETS}


def reasoning_fields(
    rules: Sequence[ReasoningRule], model: str, setting: ReasoningEffort | int | None
) -> Fields:
    """Returns the fields of a request to `model`; without rules, `reasoning_effort`."""
    effort = effort_of(setting)
    if not rules:
        return {} if effort is None else {"reasoning_effort": effort}
    rule = next((one for one in rules if re.search(one.models, model, re.IGNORECASE)), None)
    if rule is None:
        return {}
    if effort is None:
        return rule.always
    if isinstance(setting, int) and setting and rule.budget:
        value: object = setting
        for name in reversed(rule.budget):
            value = {name: value}
        assert isinstance(value, dict)
        return {**rule.always, **value}
    return {**rule.always, **rule.efforts.get(effort, {})}
