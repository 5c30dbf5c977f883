"""A node: a place in a tree of jobs, done when its whole subtree is done."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Self, TypeVar, TypeVarTuple, cast, overload

import msgspec

from treadle.errors import ConfigurationError, NodeCancelled
from treadle.jobs.callbacks import Callback, CallbackEvent, Callbacks
from treadle.jobs.failure import Failure
from treadle.jobs.lifecycle import Lifecycle, Moment, NodeState, current
from treadle.jobs.settling import Settling

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Ts = TypeVarTuple("Ts")

_NO_CALLBACKS = Callbacks()


def current_node() -> "Node[object] | None":
    """Returns the node whose body or callback is running, or None outside of any."""
    return cast("Node[object] | None", current())


class Node(Lifecycle[T_co]):
    """A place in a tree; awaiting it gives its result once it has settled.

    Awaiting raises the exception of a failed node, and `NodeCancelled` for a cancelled one. A
    failure that no task awaits at the moment the node settles goes to the parent, which handles it
    according to its `on_failure`; None inherits that of its own parent.

    A node keeps its settled children as long as it lives, unless `keeps_children` is False: the
    choice for one that lives long.
    """

    __slots__ = ()

    # State

    @property
    def id(self) -> int:
        """The number of the node in its tree, from 1 in the order of submission; 0 before."""
        return self._node_id

    @property
    def state(self) -> NodeState:
        """Where the node is in its life."""
        return self._node_state

    @property
    def is_settled(self) -> bool:
        """Whether the node, all its descendants and its callbacks have ended."""
        return self._node_is_settled

    @property
    def result(self) -> T_co | None:
        """The result of the body once the node has completed; else None.

        If the body returned a node, the result of that node.
        """
        return self._node_result if self._node_state == "completed" else None

    @property
    def exception(self) -> BaseException | None:
        """The exception of a failed node. Reading marks it as seen: the run does not raise it."""
        return self._node_failure.take() if self._node_failure is not None else None

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """Failures of children that did not fail this node; reading marks them as seen.

        A node that keeps no children keeps the first 100 of them.
        """
        return tuple(failure.take() for failure in self._node_errors or ())

    @property
    def callback_errors(self) -> tuple[BaseException, ...]:
        """The first 100 errors of callbacks and listeners; reading marks them as seen."""
        return tuple(failure.take() for failure in self._node_callback_errors or ())

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits for the outcome of the node now, and would get its failure."""
        return any(not waiter.done() for waiter in self._node_takers or ())

    @property
    def parent(self) -> "Node[object] | None":
        """The node this one belongs to; None for a root, and before submission."""
        return cast("Node[object] | None", self._node_parent)

    @property
    def children(self) -> "tuple[Node[object], ...]":
        """The children in the order of their submission."""
        return cast("tuple[Node[object], ...]", tuple((self._node_children or {}).values()))

    @property
    def ancestors(self) -> "tuple[Node[object], ...]":
        """The parent, its parent, and so on up to the root."""
        found: list[Node[object]] = []
        node = self.parent
        while node is not None:
            found.append(node)
            node = node.parent
        return tuple(found)

    @property
    def root(self) -> "Node[object]":
        """The root of the tree; a node placed under it outlives its creator."""
        node: Node[object] = self
        while (parent := node.parent) is not None:
            node = parent
        return node

    def tree_context(self) -> object:
        """Returns the context that the owner of the tree gives to the node, or None."""
        return self._node_in_tree().context_of(self)

    def drawing(self, max_nodes: int = 1000) -> str:
        """Returns the tree from this node down, a line for each of at most `max_nodes` nodes."""
        lines: list[str] = []
        rest: list[tuple[Node[object], int]] = [(self, 0)]
        while rest and len(lines) < max_nodes:
            node, depth = rest.pop()
            lines.append(f"{'  ' * depth}{node.name} #{node.id} {node.state}")
            rest.extend((child, depth + 1) for child in reversed(node.children))
        if rest:
            lines.append("… and more")
        return "\n".join(lines)

    # Actions

    def on(
        self,
        event: CallbackEvent,
        function: Callable[..., object],
        /,
        *args: object,
        inject_node: bool = False,
        **kwargs: object,
    ) -> Self:
        """Adds a callback, sync or async; returns the node.

        See `CallbackEvent` for the events. With `inject_node`, the node comes first among the
        arguments. An event that has passed calls nothing more. Raises `ConfigurationError` for
        an event that does not exist.
        """
        callback = Callback(function, args, kwargs, inject_node)
        return self.add_callbacks(_NO_CALLBACKS.on(event, callback))

    def add_callbacks(self, *callbacks: Callbacks) -> Self:
        """Adds callbacks after those there are; returns the node."""
        for more in callbacks:
            self._node_callbacks = (
                more if self._node_callbacks is None else self._node_callbacks | more
            )
            if self._node_tree is not None:
                self._node_note_endings(more)
        return self

    def listen(self, listener: "Listener") -> None:
        """Calls `listener` for changes of this node and of nodes submitted below it from now on."""
        self._node_listener = listener

    @overload
    async def submit(
        self, work: "Node[T]", /, *, parent: "Node[object] | None" = None
    ) -> "Node[T]": ...
    @overload
    async def submit(
        self,
        work: "Callable[[*Ts], Coroutine[Any, Any, T]]",
        /,
        *args: *Ts,
        parent: "Node[object] | None" = None,
    ) -> "Node[T]": ...
    async def submit(
        self,
        work: "Node[T] | Callable[..., Coroutine[Any, Any, T]]",
        /,
        *args: Any,
        parent: "Node[object] | None" = None,
    ) -> "Node[T]":
        """Places a job under this node, or under `parent`, and returns its node.

        A coroutine function is a job as well; it is called with `args`. Jobs start in the order
        of their submission. Waits while too many have not started (`max_pending` of the
        commander). Raises `NodeClosed` if the parent has settled or is being cancelled,
        `NodeReused` for a node that was submitted before.
        """
        tree = self._node_in_tree()
        node = as_node(work, args)
        if tree.starts.is_full:
            await self._node_without_place(tree.starts.room())
        (self if parent is None else parent)._node_adopt(node, tree)
        if tree.kept is not None:
            await tree.kept()
        return node

    @overload
    def call(self, work: "Node[T]", /, *, parent: "Node[object] | None" = None) -> "Node[T]": ...
    @overload
    def call(
        self,
        work: "Callable[[*Ts], Coroutine[Any, Any, T]]",
        /,
        *args: *Ts,
        parent: "Node[object] | None" = None,
    ) -> "Node[T]": ...
    def call(
        self,
        work: "Node[T] | Callable[..., Coroutine[Any, Any, T]]",
        /,
        *args: Any,
        parent: "Node[object] | None" = None,
    ) -> "Node[T]":
        """Places a handler under this node, or under `parent`, and returns its node.

        It is `submit` without any waiting. Raises `NodeClosed` and `NodeReused` as that does.
        """
        node = as_node(work, args)
        (self if parent is None else parent)._node_adopt(node, self._node_in_tree())
        return node

    def _node_change(self, moment: Moment) -> "Change":
        return _CHANGES[moment](self)

    def cancel(self) -> "Settling":
        """Cancels this node and every descendant; await what it returns to wait for their end.

        Bodies get `CancelledError`, nodes that have not started never start, and the node takes no
        more children. Its state becomes `cancelled`, unless its body fails meanwhile. Nodes in
        a final state keep it, and their callbacks run to the end. A second call interrupts all that
        still runs once more, including callbacks. Raises `ConfigurationError` before submission.
        """
        self._node_in_tree()
        self._node_stop(again=self._node_is_stopped)
        return Settling(lambda: self._node_until_settled(is_cancelled=True))

    def settling(self) -> "Settling":
        """Returns an awaitable that waits until the node has settled, without raising its error."""
        return Settling(lambda: self._node_until_settled(is_cancelled=False))

    def taking(self) -> "asyncio.Future[Failure | None]":
        """Returns a future of the node's failure, if it has one, which is done when it has settled.

        To hold it counts as awaiting the node: a failure does not go to the parent. The holder
        marks the failure as seen with `Failure.take`.
        """
        future: asyncio.Future[Failure | None] = self._node_in_tree().loop.create_future()
        if self._node_is_settled:
            future.set_result(self._node_failure)
        else:
            if self._node_takers is None:
                self._node_takers = {}
            takers = self._node_takers
            takers[future] = None
            future.add_done_callback(lambda future: takers.pop(future, None))
        return future

    def outcome(self) -> T_co:
        """Returns or raises what awaiting the node does, at once.

        Raises `ConfigurationError` if the node has not settled.
        """
        if not self._node_is_settled:
            if self._node_is_final():  # to await it in its own callback would be a deadlock
                raise ConfigurationError(
                    f"{self._node_label()} has not settled while its callbacks run; ask it for "
                    "its state, its result or its exception."
                )
            raise ConfigurationError(f"{self._node_label()} has not settled; await it.")
        if self._node_failure is not None:
            raise self._node_failure.take()
        if self._node_state == "cancelled":
            raise NodeCancelled(f"{self._node_label()} was cancelled; it has no result.")
        return cast("T_co", self._node_result)

    def exit(self, result: object = None, *, wait: bool = True) -> None:
        """Ends the run of the tree with `result`; see `Commander.exit`."""
        self._node_in_tree().exit(result, wait)

    def __await__(self) -> Generator[Any, None, T_co]:
        if not self._node_is_settled:
            yield from self._node_until_taken().__await__()
        return self.outcome()


class NodeSubmitted(msgspec.Struct, frozen=True):
    """A node was placed in the tree; it is pending."""

    node: Node[object]


class NodeStarted(msgspec.Struct, frozen=True):
    """The body of a node is about to run."""

    node: Node[object]


class NodeSettled(msgspec.Struct, frozen=True):
    """A node and all its descendants have ended, and its callbacks have run."""

    node: Node[object]


Change = NodeSubmitted | NodeStarted | NodeSettled
"""A change of a tree, as a listener is called with it."""

Listener = Callable[[Change], None]
"""Is called in the turn of the event loop in which a change happens; it must not block.

What it raises is kept in the `callback_errors` of the node.
"""

_CHANGES: dict[Moment, type[Change]] = {
    "submitted": NodeSubmitted,
    "started": NodeStarted,
    "settled": NodeSettled,
}


class FunctionNode(Node[T_co]):
    """A node whose body calls a coroutine function."""

    __slots__ = ()

    def __init__(
        self, function: Callable[..., Coroutine[Any, Any, T_co]], args: tuple[object, ...]
    ) -> None:
        self._node_work = functools.partial(function, *args)
        self._node_name = function_name(function)


def as_node(
    work: "Node[T] | Callable[..., Coroutine[Any, Any, T]]", args: tuple[object, ...] = ()
) -> "Node[T]":
    """Returns a job as a node: itself, or a node whose body calls a coroutine function.

    Raises `ConfigurationError` for anything else.
    """
    if isinstance(work, Node):
        return cast("Node[T]", work)
    if not callable(work):
        if asyncio.iscoroutine(work):
            work.close()
        raise ConfigurationError(
            f"{work!r} is not a job. Submit a Job, a handler that was called, or an async function "
            "and its arguments: submit(function, *args)."
        )
    return FunctionNode(work, args)


def function_name(function: Callable[..., object]) -> str:
    """Returns the qualified name of a function within the function that defines it."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return str(name).rpartition("<locals>.")[2]
