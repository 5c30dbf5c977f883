"""Callbacks: functions that are called when the state of a node changes."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import msgspec

from treadle.errors import ConfigurationError

CallbackEvent = Literal["start", "error", "cancelled", "settled", "tree_end"]
"""When a callback is called.

- `"start"`: before the body of the node.
- `"error"`: the node has failed.
- `"cancelled"`: the node was cancelled.
- `"settled"`: always, after the two before: the state is final, and so is that of every descendant.
- `"tree_end"`: the whole tree has settled, and the run is about to end.
"""

_EVENTS: tuple[str, ...] = get_args(CallbackEvent)


class Callback(msgspec.Struct, frozen=True):
    """A function, sync or async, and the arguments it is called with.

    With `inject_node`, the node comes first: `function(node, *args, **kwargs)`.
    """

    function: Callable[..., object]
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    inject_node: bool = False

    def call(self, node: object) -> object:
        """Calls the function; an async one returns its coroutine, which the caller awaits."""
        if self.inject_node:
            return self.function(node, *self.args, **self.kwargs)
        return self.function(*self.args, **self.kwargs)


class Callbacks(msgspec.Struct, frozen=True):
    """The callbacks of a node, for each event in the order in which they are called.

    `a | b` is the callbacks of both, those of `a` first.
    """

    start: tuple[Callback, ...] = ()
    error: tuple[Callback, ...] = ()
    cancelled: tuple[Callback, ...] = ()
    settled: tuple[Callback, ...] = ()
    tree_end: tuple[Callback, ...] = ()

    def __or__(self, other: "Callbacks") -> "Callbacks":
        return Callbacks(
            self.start + other.start,
            self.error + other.error,
            self.cancelled + other.cancelled,
            self.settled + other.settled,
            self.tree_end + other.tree_end,
        )

    def on(self, event: CallbackEvent, callback: Callback) -> "Callbacks":
        """Returns these callbacks and one more.

        Raises `ConfigurationError` for an event that does not exist.
        """
        if event not in _EVENTS:
            raise ConfigurationError(
                f"{event!r} is not a callback event; use {', '.join(_EVENTS)}."
            )
        added: tuple[Callback, ...] = (*getattr(self, event), callback)
        return msgspec.structs.replace(self, **{event: added})
