"""Rules for the order and number of an agent's tool calls; pure functions.

A call that breaks a rule is not made: its output names the rule to the model, and the run
continues.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from treadle.domain.items import FunctionCall, FunctionCallOutput
from treadle.domain.state import Run, ThreadState
from treadle.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class ToolRules:
    """Rules for one run; tools are named by their names.

    - `first`: the model is made to call this tool first, and no other call is made before it.
    - `after`: a tool, and those of which one must have succeeded in an earlier step.
    - `required`: must have succeeded before the model may give its answer.
    - `max_calls`: how often a tool may be called.
    - `by_output`: a tool, and for each of its outputs the next tool, or several of which one must
      succeed next: `{"triage": {"refund": "refund_order", "*": ["answer", "escalate"]}}`. Until
      then no other call is made, and the model may not give its answer. `"*"` stands for any other
      output.
    - `terminal`: their output ends the run, as with `tool(terminal=True)`.

    Raises `ConfigurationError` for a rule that can never be kept.
    """

    first: str | None = None
    after: Mapping[str, str | Collection[str]] = field(default_factory=dict[str, str])
    required: Collection[str] = ()
    max_calls: Mapping[str, int] = field(default_factory=dict[str, int])
    terminal: Collection[str] = ()
    by_output: Mapping[str, Mapping[str, str | Collection[str]]] = field(
        default_factory=dict[str, dict[str, str]]
    )

    def __post_init__(self) -> None:
        for name in ("required", "terminal"):
            if isinstance(getattr(self, name), str):
                raise ConfigurationError(f"ToolRules.{name} is a list of names, not one text.")
        for name, most in self.max_calls.items():
            if most < 1:
                raise ConfigurationError(
                    f"ToolRules.max_calls of {name!r} must be at least 1; leave the tool out of "
                    "the agent if it may not be called."
                )
        for name, choices in self.by_output.items():
            if not choices or not all(_names(names) for names in choices.values()):
                raise ConfigurationError(f"ToolRules.by_output of {name!r} names no tool.")
        if self.first is not None and self.first in self.after:
            raise ConfigurationError(
                f"ToolRules.first is {self.first!r}, which may only come after another tool."
            )
        for name, names in self.after.items():
            if not _names(names):
                raise ConfigurationError(f"ToolRules.after of {name!r} names no tool.")
            circle = self._circle(name, ())
            if circle is not None:
                raise ConfigurationError(
                    f"ToolRules.after goes in a circle: {' after '.join(circle)}."
                )

    @property
    def names(self) -> frozenset[str]:
        """All tools that a rule names."""
        earlier = (name for names in self.after.values() for name in _names(names))
        named = {*self.after, *earlier, *self.required, *self.max_calls, *self.terminal}
        named.update(self.by_output)
        for choices in self.by_output.values():
            named.update(name for names in choices.values() for name in _names(names))
        return frozenset(named | ({self.first} if self.first is not None else set[str]()))

    def _circle(self, name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Returns a dependency cycle that makes a tool unreachable, or None."""
        if name in path:
            return (*path[path.index(name) :], name)
        circles = [self._circle(one, (*path, name)) for one in _names(self.after.get(name, ()))]
        return None if None in circles or not circles else circles[0]


def broken_rule(
    rules: ToolRules, state: ThreadState, call: FunctionCall, before: Sequence[FunctionCall]
) -> str | None:
    """Returns the message for the model if a call breaks a rule, or None.

    `before` are the calls that stand before it in the same response.
    """
    name, run = call.name, state.run
    assert run is not None
    first = rules.first
    if first not in {None, name, *(other.name for other in before)} and not _was_made(run, first):
        return f"Call {first} first; {name} was not called."
    due = due_tools(rules, state)
    if due and name not in due:
        return f"Call {' or '.join(due)} next; {name} was not called."
    earlier = rules.after.get(name)
    if earlier is not None and not any(run.count_of(one).succeeded for one in _names(earlier)):
        known = " or ".join(_names(earlier))
        return f"{name} may be called only after {known} has succeeded; it was not called."
    most = rules.max_calls.get(name)
    if most is not None:
        made = run.count_of(name).made + sum(other.name == name for other in before)
        if made >= most:
            times = "once" if most == 1 else f"{most} times"
            return f"{name} may be called {times} in a run; it was not called again."
    return None


def due_tools(rules: ToolRules, state: ThreadState) -> tuple[str, ...]:
    """Returns the tools of which one must succeed next, because an output of the run chose them."""
    run = state.run
    if not rules.by_output or run is None:
        return ()
    # From the end, step by step: `later` has succeeded in a later step than the one looked at.
    outputs: dict[str, FunctionCallOutput] = {}
    later, same, looked_at = set[str](), set[str](), set[str]()
    for item in reversed(state.history[run.first_item :]):
        if isinstance(item, FunctionCallOutput):
            if same:
                later, same = later | same, set[str]()
            outputs[item.call_id] = item
        elif isinstance(item, FunctionCall):
            output = outputs.get(item.call_id)
            if output is None or output.is_error:
                continue
            same.add(item.name)
            choices = rules.by_output.get(item.name)
            if choices is None or item.name in looked_at:
                continue
            looked_at.add(item.name)
            names = _names(choices.get(output.text, choices.get("*", ())))
            if names and later.isdisjoint(names):
                return names
    return ()


def missing_tools(rules: ToolRules, run: Run) -> list[str]:
    """Returns the tools that must still succeed before the run may end with an answer."""
    return [name for name in rules.required if not run.count_of(name).succeeded]


def _was_made(run: Run, name: str | None) -> bool:
    return name is not None and run.count_of(name).made > 0


def _names(names: str | Collection[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
