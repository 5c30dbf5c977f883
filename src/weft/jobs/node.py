"""A node: a place in a tree of jobs, done when its whole subtree is done.

    pending ──► active ──► waiting ──► completed | failed | cancelled

*Active* is while its body runs, *waiting* while the body has ended and a child has not settled.
Then the state is final: the callbacks run, whoever awaits the node goes on, and its parent hears of
it. Nothing here recurses: a tree may be as deep as memory allows.
"""

import asyncio
import contextvars
import functools
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, TypeVarTuple, cast, overload

from weft.errors import ConfigurationError, NodeCancelled, NodeClosed, NodeDeadlock, NodeReused
from weft.jobs.callbacks import Callback, CallbackEvent, Callbacks
from weft.jobs.change import Change, Listener, NodeSettled, NodeStarted, NodeSubmitted
from weft.jobs.drawing import draw
from weft.jobs.failure import Failure, OnFailure
from weft.jobs.tree import Tree

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Ts = TypeVarTuple("Ts")

NodeState = Literal["pending", "active", "waiting", "completed", "failed", "cancelled"]
Body = Coroutine[Any, Any, "T_co | Node[T_co]"]

_NO_CALLBACKS = Callbacks()
_CURRENT: "contextvars.ContextVar[Node[object]]" = contextvars.ContextVar("weft_node")


def current_node() -> "Node[object] | None":
    """Returns the node whose body or callback is running, or None outside of any."""
    return _CURRENT.get(None)


class Node(Generic[T_co]):
    """A place in a tree; awaiting it gives its result once it has settled.

    Awaiting raises the exception of a failed node, and `NodeCancelled` for a cancelled one. A
    failure that nobody awaits at the moment the node settles goes to the parent, which treats it
    as its `on_failure` says; None inherits that of its own parent.

    A node keeps its settled children as long as it lives, unless `keeps_children` is False: the
    choice for one that lives long.
    """

    __slots__ = (
        "_callback_errors",
        "_callbacks",
        "_children",
        "_context",
        "_delegate",
        "_depth",
        "_due",
        "_errors",
        "_failure",
        "_has_place",
        "_id",
        "_is_settled",
        "_is_stopped",
        "_listener",
        "_name",
        "_open",
        "_parent",
        "_policy",
        "_result",
        "_state",
        "_takers",
        "_task",
        "_tree",
        "_waiters",
        "_work",
    )

    on_failure: ClassVar[OnFailure | None] = None
    keeps_children: ClassVar[bool] = True

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        # Not in __init__: a job with data of its own need not call it, so it may be a dataclass.
        node = super().__new__(cls)
        node._tree = None
        node._parent = None
        node._children = None
        node._state = "pending"
        node._open = 1
        node._is_settled = False
        node._is_stopped = False
        node._has_place = False
        node._task = None
        node._work = None
        node._result = None
        node._delegate = None
        node._failure = None
        node._errors = None
        node._callbacks = None
        node._callback_errors = None
        node._due = None
        node._waiters = None
        node._takers = None
        node._context = None
        node._listener = None
        node._name = None
        node._policy = None
        node._id = 0
        node._depth = 0
        return node

    _tree: Tree | None
    _parent: "Node[object] | None"
    _children: "dict[int, Node[object]] | None"
    _state: NodeState
    _open: int  # its body, if that has not ended, and the children that have not settled
    _is_settled: bool
    _is_stopped: bool  # takes no more children, and all there is below it was cancelled
    _has_place: bool
    _task: "asyncio.Task[Any] | None"  # of its body, or of the callback that runs
    _work: "Callable[[], Body[T_co]] | None"
    _result: T_co | None
    _delegate: "Node[T_co] | None"
    _failure: Failure | None
    _errors: list[Failure] | None
    _callbacks: Callbacks | None
    _callback_errors: list[Failure] | None
    _due: "deque[tuple[Node[object], Callback]] | None"
    _waiters: "list[asyncio.Future[None]] | None"
    _takers: "list[asyncio.Future[None]] | None"
    _context: contextvars.Context | None
    _listener: Listener | None
    _name: str | None
    _policy: OnFailure | None
    _id: int
    _depth: int

    # What a node tells of itself

    @property
    def id(self) -> int:
        """The number of the node in its tree, from 1 in the order of submission; 0 before."""
        return self._id

    @property
    def name(self) -> str:
        """What the node is called in reports: its class or function, unless it was given a name."""
        return self._name or type(self).__name__

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def state(self) -> NodeState:
        """Where the node is in its life."""
        return self._state

    @property
    def is_settled(self) -> bool:
        """Whether the node, all its descendants and its callbacks have ended."""
        return self._is_settled

    @property
    def result(self) -> T_co | None:
        """What the body returned, once the node has completed; else None.

        Where the body returned a node, its result.
        """
        return self._result if self._state == "completed" else None

    @property
    def exception(self) -> BaseException | None:
        """What a failed node failed with. Who asks has seen it: the run does not raise it again."""
        return self._failure.take() if self._failure is not None else None

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """Failures of children that did not fail this node; asking has seen them."""
        return tuple(failure.take() for failure in self._errors or ())

    @property
    def callback_errors(self) -> tuple[BaseException, ...]:
        """What callbacks and listeners of this node raised; asking has seen them."""
        return tuple(failure.take() for failure in self._callback_errors or ())

    @property
    def parent(self) -> "Node[object] | None":
        """The node this one belongs to; None for a root, and before submission."""
        return self._parent

    @property
    def children(self) -> "tuple[Node[object], ...]":
        """The children in the order of their submission."""
        return tuple(self._children.values()) if self._children else ()

    @property
    def ancestors(self) -> "tuple[Node[object], ...]":
        """The parent, its parent, and so on up to the root."""
        found: list[Node[object]] = []
        node = self._parent
        while node is not None:
            found.append(node)
            node = node._parent
        return tuple(found)

    @property
    def root(self) -> "Node[object]":
        """The root of the tree; what is placed under it outlives its creator."""
        node: Node[object] = self
        while node._parent is not None:
            node = node._parent
        return node

    @property
    def context(self) -> object:
        """What the node may know of whom its tree belongs to; None where it belongs to nobody."""
        return self._in_tree().context_of(self)

    def drawing(self, max_nodes: int = 1000) -> str:
        """Returns the tree from this node down, a line for each of at most `max_nodes` nodes."""
        return draw(self, max_nodes)

    def __repr__(self) -> str:
        return f"<{self.name} #{self._id} {self._state}>"

    # What is asked of a node

    def on(
        self,
        event: CallbackEvent,
        function: Callable[..., object],
        *args: object,
        inject_node: bool = False,
        **kwargs: object,
    ) -> Self:
        """Adds a callback, sync or async; returns the node.

        See `CallbackEvent` for the events. With `inject_node`, the node comes first among the
        arguments. An event that has passed calls nothing more.
        """
        return self.add_callbacks(
            _NO_CALLBACKS.on(event, Callback(function, args, kwargs, inject_node))
        )

    def add_callbacks(self, *callbacks: Callbacks) -> Self:
        """Adds callbacks after those there are; returns the node."""
        for more in callbacks:
            self._callbacks = more if self._callbacks is None else self._callbacks | more
            if self._tree is not None:
                self._tree.endings += ((self, callback) for callback in more.tree_end)
        return self

    def listen(self, listener: Listener) -> None:
        """Tells `listener` the changes of this node and of those submitted below it from now on."""
        self._listener = listener

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
        starts = self._in_tree().starts
        if starts.is_full:
            await self._wait_for_room()
        node = self.call(_node_of(work, args), parent=parent)
        kept = self._in_tree().kept
        if kept is not None:
            await kept()
        return node

    def call(self, handler: "Node[T]", *, parent: "Node[object] | None" = None) -> "Node[T]":
        """Places a handler under this node, or under `parent`, and returns its node.

        It is `submit` without waiting for room. Raises `NodeClosed` and `NodeReused` as that does.
        """
        (parent or self)._adopt(handler, self._in_tree())
        return handler

    def cancel(self) -> "Settling":
        """Cancels this node and every descendant; await what it returns to wait for their end.

        Bodies get `CancelledError`, nodes that have not started never start, and the node takes no
        more children. Its state becomes `cancelled`, unless its body fails on the way. Asked again,
        it interrupts what still runs once more.
        """
        self._stop(again=self._is_stopped)
        return Settling(self, is_cancelled=True)

    def settling(self) -> "Settling":
        """Returns what can be awaited until the node has settled; that raises nothing of its."""
        return Settling(self)

    def exit(self, result: object = None, *, wait: bool = True) -> None:
        """Ends the run of the tree with `result`; see `Commander.exit`."""
        self._in_tree().exit(result, wait)

    def __await__(self) -> Generator[Any, None, T_co]:
        if not self._is_settled:
            if self._takers is None:
                self._takers = []
            yield from self._wait_in(self._takers).__await__()
        return self._outcome()

    def _outcome(self) -> T_co:
        if self._failure is not None:
            raise self._failure.take()
        if self._state == "cancelled":
            raise NodeCancelled(f"{self!r} was cancelled; it has no result.")
        return cast("T_co", self._result)

    # How it comes into the tree

    def _body(self) -> "Body[T_co]":
        """Returns the coroutine that is the node's own work."""
        work, self._work = self._work, None
        assert work is not None
        return work()

    def _in_tree(self) -> Tree:
        if self._tree is None:
            raise ConfigurationError(f"{self!r} is in no tree yet; submit it first.")
        return self._tree

    def _adopt(self, child: "Node[object]", tree: Tree) -> None:
        if child._tree is not None:
            raise NodeReused(f"{child!r} was submitted before; make a new one for each submission.")
        if self._tree is not tree:
            raise ConfigurationError(f"{self!r} belongs to another tree than the one that submits.")
        if self._is_stopped or self._state in {"completed", "failed", "cancelled"}:
            raise NodeClosed(
                f"{self!r} takes no more children. Place {child.name} under another node "
                "with parent=…, such as the root."
            )
        if tree.admit is not None:
            tree.admit(self, child)
        child._tree = tree
        child._parent = self
        child._depth = self._depth + 1
        child._id = tree.new_id()
        child._policy = child.on_failure or child._policy or self._policy
        if child._listener is None:
            child._listener = self._listener
        child._context = context = contextvars.copy_context()
        context.run(_CURRENT.set, child)
        if self._children is None:
            self._children = {}
        self._children[child._id] = child
        self._open += 1
        if child._callbacks is not None:
            tree.endings += ((child, callback) for callback in child._callbacks.tree_end)
        if child._listener is not None:
            child._tell(NodeSubmitted(child))
        tree.starts.put(child._start)

    def _start(self) -> bool:
        """Starts what its turn has come for; returns whether that took a place."""
        if self._state != "pending":
            return False
        self._state = "active"
        self._has_place = True
        if self._listener is not None:
            self._tell(NodeStarted(self))
        if self._callbacks is not None and self._callbacks.start:
            self._due = deque((self, callback) for callback in self._callbacks.start)
            if not self._run_callbacks():
                return True
        self._run_body()
        return True

    def _run_body(self) -> None:
        assert self._tree is not None
        if self._is_stopped:
            self._body_ended()
            return
        try:
            body = self._body()
            if self._tree.alarm is not None:
                body = self._tree.alarm.watch(body, self.name)
            task = self._tree.loop.create_task(body, name=self.name, context=self._context)
        except Exception as error:  # noqa: BLE001 - what is no coroutine function may raise anything
            self._fail(error)
            self._body_ended()
            return
        self._task = task
        # Not the node's own context: its callbacks are to be called in that.
        task.add_done_callback(self._body_done, context=self._tree.context)
        if self._callbacks is None:
            self._context = None

    def _body_done(self, task: "asyncio.Task[T_co | Node[T_co]]") -> None:
        if task.cancelled():
            self._stop()
        elif (error := task.exception()) is not None:
            self._fail(error)
        else:
            value = task.result()
            if isinstance(value, Node):
                self._delegate_to(cast("Node[T_co]", value))
            else:
                self._result = value
        self._body_ended()

    def _delegate_to(self, node: "Node[T_co]") -> None:
        """Takes the result of a node that the body returned; a new one becomes a child."""
        self._delegate = node
        if node._tree is None:
            try:
                self._adopt(node, self._in_tree())
            except NodeClosed:  # it is being cancelled: so is what it would have gone on with
                self._delegate = None
        elif not node._is_settled:
            self._fail(NodeReused(f"{self!r} returned {node!r}, which is not new; await it."))

    def _body_ended(self) -> None:
        self._task = None
        if self._has_place:
            self._give_place_back()
        self._state = "waiting"
        self._open -= 1
        self._settle_up()

    # How it ends

    def _settle_up(self) -> None:
        """Settles this node and then its ancestors, as far as nothing of them is open."""
        node: Node[object] | None = self
        while node is not None and node._is_closed():
            node._decide()
            if not node._run_callbacks():
                return
            node = node._leave()

    def _is_closed(self) -> bool:
        return self._open == 0 and self._state == "waiting"

    def _decide(self) -> None:
        """Finds the final state, and the callbacks that are due."""
        self._take_over()
        if self._failure is not None:
            self._state = "failed"
        elif self._is_stopped:
            self._state = "cancelled"
        else:
            self._state = "completed"
        callbacks = self._callbacks
        if callbacks is not None:
            first = {"failed": callbacks.error, "cancelled": callbacks.cancelled}
            due = first.get(self._state, ()) + callbacks.settled
            self._due = deque((self, callback) for callback in due)

    def _take_over(self) -> None:
        delegate, self._delegate = self._delegate, None
        if delegate is None:
            return
        self._result = delegate._result
        if delegate._failure is not None:
            if self._failure is None:
                self._failure = Failure(delegate._failure.take())
                # Where children's failures are listed, this one has become its own.
                self._errors = [f for f in self._errors or () if f is not delegate._failure] or None
        elif delegate._state == "cancelled":
            self._is_stopped = True

    def _leave(self) -> "Node[object] | None":
        """The last it does; returns its parent."""
        assert self._tree is not None
        self._is_settled = True
        self._context = None
        self._due = None
        if self._listener is not None:
            self._tell(NodeSettled(self))
        _wake(self._waiters)
        is_taken = _wake(self._takers)
        self._waiters = self._takers = None
        parent = self._parent
        if self._failure is not None:
            if is_taken or parent is None:
                self._report(self._failure)
            else:
                parent._child_failed(self._failure)
        if parent is not None:
            parent._open -= 1
            if not parent.keeps_children and parent._children is not None:
                del parent._children[self._id]
        return parent

    # What goes wrong

    def _fail(self, error: BaseException) -> None:
        """The body has failed; children go on only where failures are collected."""
        if self._failure is None:
            self._failure = Failure(error)
        elif self._failure.exception is not error:
            self._list(Failure(error))
        if self._policy == "fail_fast":
            self._stop()

    def _child_failed(self, failure: Failure) -> None:
        if self._policy == "collect" or self._failure is not None:
            self._list(failure)
        else:
            # The same exception, and from here on this node answers for it.
            self._failure = Failure(failure.take())
            self._stop()

    def _list(self, failure: Failure) -> None:
        self._errors = [*(self._errors or ()), failure]
        self._report(failure)

    def _report(self, failure: Failure) -> None:
        assert self._tree is not None
        # Adding to a tree that ends is refused; a loop of rounds ends in just that way.
        if not (self._tree.is_exiting and isinstance(failure.exception, NodeClosed)):
            self._tree.failures.add(failure)

    def _stop(self, *, again: bool = False) -> None:
        """Cancels all that runs in the subtree, and keeps it from growing.

        What was stopped before is left to its clean-up, unless `again`.
        """
        reached: list[Node[object]] = []
        below: list[Node[object]] = [self]
        while below:
            node = below.pop()
            if node._is_settled or (node._is_stopped and not again):
                continue
            node._is_stopped = True
            reached.append(node)
            if node._children:
                below.extend(reversed(node._children.values()))
        for node in reached:
            node._interrupt()

    def _interrupt(self) -> None:
        if self._state == "pending":
            self._body_ended()
        elif self._task is not None:
            self._task.cancel()

    # Callbacks and listeners

    def _run_callbacks(self) -> bool:
        """Runs the callbacks that are due; returns False when it goes on after an async one."""
        while self._due:
            node, callback = self._due.popleft()
            task = self._call(node, callback)
            if task is not None:
                self._task = task
                done = functools.partial(self._callback_done, node)
                task.add_done_callback(done, context=self._in_tree().context)
                return False
        return True

    def _call(self, node: "Node[object]", callback: Callback) -> "asyncio.Task[object] | None":
        assert self._tree is not None
        context = self._own_context()
        call = functools.partial(context.run, callback.call, node)
        try:
            alarm = self._tree.alarm
            value = call() if alarm is None else alarm.run(call, f"A callback of {self.name}")
            # A node it returns is one it has submitted, which goes its own way.
            if not inspect.iscoroutine(value):
                return None
        except Exception as error:  # noqa: BLE001 - it stops neither the others nor the tree
            node._callback_failed(error)
            return None
        except BaseException as error:  # noqa: BLE001 - the tree goes on to its end, the loop stops
            self._tree.loop.call_soon(_raise, error)
            return None
        name = f"a callback of {self.name}"
        body = cast("Coroutine[Any, Any, object]", value)
        if alarm is not None:
            body = alarm.watch(body, name)
        return self._tree.loop.create_task(body, name=name, context=context)

    def _own_context(self) -> contextvars.Context:
        if self._context is None:
            self._context = contextvars.copy_context()
            self._context.run(_CURRENT.set, self)
        return self._context

    def _callback_done(self, node: "Node[object]", task: "asyncio.Task[object]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            node._callback_failed(error)
        is_starting = self._state == "active"
        if is_starting and self._is_stopped:
            self._due = None
        if not self._run_callbacks():
            return
        if is_starting:
            self._run_body()
        elif (parent := self._leave()) is not None:
            parent._settle_up()

    def _callback_failed(self, error: BaseException) -> None:
        failure = Failure(error)
        self._callback_errors = [*(self._callback_errors or ()), failure]
        self._report(failure)

    def _tell(self, change: Change) -> None:
        assert self._listener is not None
        try:
            self._listener(change)
        except Exception as error:  # noqa: BLE001 - a listener must not stop the tree
            self._callback_failed(error)

    # Waiting for another

    async def _until_settled(self, *, is_cancelled: bool) -> None:
        if not self._is_settled:
            if self._waiters is None:
                self._waiters = []
            # Who cancels what it belongs to does not wait for it: the cancellation reaches it.
            await self._wait_in(self._waiters, may_be_inside=is_cancelled)

    async def _wait_in(
        self, waiting: "list[asyncio.Future[None]]", *, may_be_inside: bool = False
    ) -> None:
        """Waits until this node has settled, in one of its lists; without holding a place."""
        tree = self._in_tree()
        waiter = current_node()
        if waiter is not None and not may_be_inside:
            waiter._refuse_deadlock(self)
        future: asyncio.Future[None] = tree.loop.create_future()
        waiting.append(future)
        had_place = waiter is not None and waiter._give_place_back()
        await future
        if had_place and waiter is not None:
            await waiter._regain_place()

    def _refuse_deadlock(self, other: "Node[object]") -> None:
        """Raises if `other` is this node or one that settles only after it."""
        node: Node[object] | None = self
        while node is not None and node._depth > other._depth:
            node = node._parent
        if node is other and not self._is_settled:
            raise NodeDeadlock(f"{self!r} waits for {other!r}, which settles only after it.")

    async def _wait_for_room(self) -> None:
        waiter = current_node()
        had_place = waiter is not None and waiter._give_place_back()
        await self._in_tree().starts.room()
        if had_place and waiter is not None:
            await waiter._regain_place()

    def _give_place_back(self) -> bool:
        """Lets another body run in its place; returns whether it had one that counts."""
        had_place, self._has_place = self._has_place, False
        if self._tree is None or not had_place or not self._tree.starts.is_limited:
            return False
        self._tree.starts.give_back()
        return True

    async def _regain_place(self) -> None:
        await self._in_tree().starts.regain()
        self._has_place = True


class Settling:
    """Awaited, it waits until a node has settled, whatever came of it."""

    __slots__ = ("_is_cancelled", "_node")

    def __init__(self, node: Node[object], *, is_cancelled: bool = False) -> None:
        self._node = node
        self._is_cancelled = is_cancelled

    def __await__(self) -> Generator[Any, None, None]:
        return self._node._until_settled(is_cancelled=self._is_cancelled).__await__()


def _node_of(
    work: "Node[T] | Callable[..., Coroutine[Any, Any, T]]", args: tuple[object, ...]
) -> "Node[T]":
    if isinstance(work, Node):
        return cast("Node[T]", work)
    node: Node[T] = Node()
    node._work = functools.partial(work, *args)
    return node


def _wake(waiting: "list[asyncio.Future[None]] | None") -> bool:
    """Wakes those who wait; returns whether there was one."""
    woken = [future for future in waiting or () if not future.done()]
    for future in woken:
        future.set_result(None)
    return bool(woken)


def _raise(error: BaseException) -> None:
    raise error
