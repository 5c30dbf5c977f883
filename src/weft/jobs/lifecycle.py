"""The life of a node: how it comes into a tree, runs, and settles when its whole subtree has.

    pending ──► active ──► waiting ──► completed | failed | cancelled

*Active* is while its body runs, *waiting* while the body has ended and a child has not settled.
Then the state is final: the callbacks run, whoever awaits the node goes on, and its parent hears of
it. Nothing here recurses: a tree may be as deep as memory allows.
"""

import asyncio
import contextvars
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast

from weft.errors import ConfigurationError, NodeClosed, NodeDeadlock, NodeReused
from weft.jobs.callbacks import Callback, Callbacks
from weft.jobs.change import Listener, NodeSettled, NodeStarted, NodeSubmitted
from weft.jobs.failure import MAX_KEPT, Failure, OnFailure
from weft.jobs.start_queue import Place
from weft.jobs.tree import Tree

if TYPE_CHECKING:
    from weft.jobs.node import Node  # every lifecycle is one; a change shows it as such

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NodeState = Literal["pending", "active", "waiting", "completed", "failed", "cancelled"]

_CURRENT: "contextvars.ContextVar[Lifecycle[object]]" = contextvars.ContextVar("weft_node")


class _InstanceProperty(property):
    """A property that its class does not show: a dataclass would take it for a field's default."""

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        if instance is None:
            raise AttributeError(f"{self.fget!r} is a property of instances.")
        return super().__get__(instance, owner)


class Lifecycle(Generic[T_co]):
    """What `Node` does by itself; what may be asked of one stands there."""

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
        "_id",
        "_is_settled",
        "_is_stopped",
        "_listener",
        "_name",
        "_open",
        "_parent",
        "_place",
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

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: a job with data of its own need not call it, so it may be a dataclass.
        node = super().__new__(cls)
        node._tree = None
        node._parent = None
        node._children = None
        node._state = "pending"
        node._open = 1
        node._is_settled = False
        node._is_stopped = False
        node._place = None
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
    _parent: "Lifecycle[object] | None"
    _children: "dict[int, Lifecycle[object]] | None"
    _state: NodeState
    _open: int  # its body, if that has not ended, and the children that have not settled
    _is_settled: bool
    _is_stopped: bool  # takes no more children, and all there is below it was cancelled
    _place: Place | None  # of its body, where places are counted
    _task: "asyncio.Task[Any] | None"  # of its body, or of the callback that runs
    _work: "Callable[[], Coroutine[Any, Any, T_co | Node[T_co]]] | None"
    _result: T_co | None
    _delegate: "Lifecycle[T_co] | None"  # the node that its body returned
    _failure: Failure | None
    _errors: list[Failure] | None
    _callbacks: Callbacks | None
    _callback_errors: list[Failure] | None
    _due: "deque[tuple[Lifecycle[object], Callback]] | None"
    # Who waits for the end, and who takes the outcome as well: a failure is then theirs.
    _waiters: "dict[asyncio.Future[None], None] | None"
    _takers: "dict[asyncio.Future[Failure | None], None] | None"
    _context: contextvars.Context | None  # of its body and its callbacks
    _listener: Listener | None
    _name: str | None
    _policy: OnFailure | None
    _id: int
    _depth: int

    @_InstanceProperty
    def name(self) -> str:
        """What the node is called in reports: its class or function, unless it was given a name."""
        return self._name or type(self).__name__

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self.name} #{self._id} {self._state}>"

    def _label(self) -> str:
        # In messages: the repr of a job may be that of a dataclass, with all its data.
        return f"{self.name} #{self._id}"

    # How it comes into the tree

    def _body(self) -> "Coroutine[Any, Any, T_co | Node[T_co]]":
        """Returns the coroutine that is the node's own work."""
        work, self._work = self._work, None
        assert work is not None
        return work()

    def _in_tree(self) -> Tree:
        if self._tree is None:
            raise ConfigurationError(f"{self._label()} is in no tree yet; submit it first.")
        return self._tree

    def _adopt(self, child: "Lifecycle[object]", tree: Tree) -> None:
        if child._tree is not None:
            raise NodeReused(
                f"{child._label()} was submitted before; make a new one for each submission."
            )
        if self._tree is not tree:
            raise ConfigurationError(
                f"{self._label()} belongs to another tree than the one that submits."
            )
        if self._is_stopped or self._state in {"completed", "failed", "cancelled"}:
            raise NodeClosed(
                f"{self._label()} takes no more children. Place {child.name} under another node "
                "with parent=…, such as the root."
            )
        if tree.admit is not None:
            tree.admit(cast("Node[object]", self), cast("Node[object]", child))
        child._tree = tree
        child._parent = self
        child._depth = self._depth + 1
        child._id = tree.new_id()
        child._policy = child._policy or child.on_failure or self._policy
        if child._listener is None:
            child._listener = self._listener
        child._context = contextvars.copy_context()
        if self._children is None:
            self._children = {}
        self._children[child._id] = child
        self._open += 1
        if child._callbacks is not None:
            child._note_endings(child._callbacks)
        if child._listener is not None:
            child._tell(NodeSubmitted)
        child._enter(tree)

    def _note_endings(self, callbacks: Callbacks) -> None:
        if callbacks.tree_end:
            self._in_tree().endings += ((self, callback) for callback in callbacks.tree_end)

    def _enter(self, tree: Tree) -> None:
        tree.starts.put(self)

    def _start(self) -> bool:
        """Starts what its turn has come for; returns False if nothing is left to start."""
        if self._state != "pending":
            return False
        self._place = self._in_tree().starts.place()
        self._begin()
        return True

    def _begin(self) -> None:
        self._state = "active"
        if self._listener is not None:
            self._tell(NodeStarted)
        if self._callbacks is not None and self._callbacks.start:
            self._due = deque((self, callback) for callback in self._callbacks.start)
            if not self._run_callbacks():
                return
        self._run_body()

    def _run_body(self) -> None:
        if self._is_stopped:
            self._body_ended()
            return
        tree = self._in_tree()
        name = self._name or type(self).__name__  # what `name` returns, which is slow to ask
        body = self._live()
        if tree.alarm is not None:
            body = tree.alarm.watch(body, name)
        self._task = task = tree.loop.create_task(body, name=name, context=self._context)
        # Not the node's own context: its callbacks are to be called in that.
        task.add_done_callback(self._body_done, context=tree.context)

    async def _live(self) -> "T_co | Node[T_co]":
        """The task of the body."""
        _CURRENT.set(self)
        body = self._body()
        if not asyncio.iscoroutine(body):
            raise ConfigurationError(
                f"{self.name} gave {body!r} where a coroutine was expected; write `async def`."
            )
        value = await body
        if isinstance(value, Lifecycle):
            return cast("Node[T_co]", value)
        task = self._task
        assert task is not None
        if self._ends_quietly() and not task.cancelling():
            # Without another turn of the event loop, which costs as much as all of the end.
            task.remove_done_callback(self._body_done)
            self._result = value
            self._body_ended()
        return value

    def _ends_quietly(self) -> bool:
        """Whether nobody is told of its end, and nobody times the step in which it ends."""
        is_told = self._callbacks is not None or self._listener is not None
        return not is_told and self._in_tree().alarm is None

    def _body_done(self, task: "asyncio.Task[T_co | Lifecycle[T_co]]") -> None:
        if task.cancelled():
            self._stop()
        elif (error := task.exception()) is not None:
            self._fail(error)
        else:
            value = task.result()
            if isinstance(value, Lifecycle):
                self._delegate_to(cast("Lifecycle[T_co]", value))
            else:
                self._result = value
        self._body_ended()

    def _delegate_to(self, node: "Lifecycle[T_co]") -> None:
        """Takes the result of a node that the body returned; a new one becomes a child."""
        if node._tree is None:
            assert self._context is not None
            try:
                self._context.run(self._adopt, node, self._in_tree())
            except NodeClosed:  # it is being cancelled: so is what it would have gone on with
                return
            except Exception as error:  # noqa: BLE001 - whoever holds the tree may refuse it
                self._fail(error)
                return
        elif not node._is_settled:
            self._fail(
                NodeReused(f"{self._label()} returned {node._label()}, which is not new; await it.")
            )
            return
        self._delegate = node

    def _body_ended(self) -> None:
        place, self._place = self._place, None
        self._task = None
        self._state = "waiting"
        self._open -= 1
        self._settle_up()
        if place is not None:  # after those who waited for this node were woken: they come first
            place.end()

    # How it ends

    def _settle_up(self) -> None:
        """Settles this node and then its ancestors, as far as nothing of them is open."""
        node: Lifecycle[object] | None = self
        while node is not None and node._is_closed():
            node._decide()
            if not node._run_callbacks():
                return
            node = node._leave()

    def _is_closed(self) -> bool:
        return self._open == 0 and self._state == "waiting"

    def _decide(self) -> None:
        """Finds the final state, and the callbacks that are due."""
        if self._delegate is not None:
            self._take_over(self._delegate)
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

    def _take_over(self, delegate: "Lifecycle[T_co]") -> None:
        self._delegate = None
        self._result = delegate._result
        if delegate._failure is not None:
            if self._failure is None:
                self._failure = Failure(delegate._failure.take())
                # Where children's failures are listed, this one has become its own.
                self._errors = [f for f in self._errors or () if f is not delegate._failure] or None
        elif delegate._state == "cancelled":
            self._is_stopped = True

    def _leave(self) -> "Lifecycle[object] | None":
        """The last it does; returns its parent."""
        self._is_settled = True
        self._context = None
        self._callbacks = None
        self._due = None
        if self._listener is not None:
            self._tell(NodeSettled)
        is_taken = self._takers is not None and _wake(self._takers, self._failure)
        if self._waiters is not None:
            _wake(self._waiters, None)
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
        """A child has failed, and nobody awaited it."""
        is_listed = self._policy == "collect" or self._failure is not None
        if is_listed or self._in_tree().ends_by(failure.exception):
            self._list(failure)
        else:
            # The same exception, and from here on this node answers for it.
            self._failure = Failure(failure.take())
            self._stop()

    def _list(self, failure: Failure) -> None:
        if self._errors is None:
            self._errors = []
        if self.keeps_children or len(self._errors) < MAX_KEPT:
            self._errors.append(failure)
        self._report(failure)

    def _report(self, failure: Failure) -> None:
        tree = self._in_tree()
        if not tree.ends_by(failure.exception):
            tree.failures.add(failure)

    def _stop(self, *, again: bool = False) -> None:
        """Cancels all that runs in the subtree, and keeps it from growing.

        What was stopped before is left to its clean-up, unless `again`.
        """
        reached: list[Lifecycle[object]] = []
        below: list[Lifecycle[object]] = [self]
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

    def _call(self, node: "Lifecycle[object]", callback: Callback) -> "asyncio.Task[object] | None":
        """Calls one in the node's context; an async one goes on in a task."""
        tree = self._in_tree()
        context = self._context
        assert context is not None
        name = f"a callback of {self.name}"
        try:
            if tree.alarm is None:
                value = context.run(self._as_current, callback, node)
            else:
                value = tree.alarm.run(lambda: context.run(self._as_current, callback, node), name)
            # A node it returns is one it has submitted, which goes its own way.
            if not asyncio.iscoroutine(value):
                return None
            body = cast("Coroutine[Any, Any, object]", value)
            if tree.alarm is not None:
                body = tree.alarm.watch(body, name)
            return tree.loop.create_task(body, name=name, context=context)
        except BaseException as error:  # noqa: BLE001 - it stops neither the others nor the tree
            node._callback_failed(error)
            tree.raise_if_fatal(error)
            return None

    def _as_current(self, callback: Callback, node: "Lifecycle[object]") -> object:
        _CURRENT.set(self)
        return callback.call(node)

    def _callback_done(self, node: "Lifecycle[object]", task: "asyncio.Task[object]") -> None:
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
        if self._callback_errors is None:
            self._callback_errors = []
        if len(self._callback_errors) < MAX_KEPT:
            self._callback_errors.append(failure)
        self._report(failure)

    def _tell(self, change: type[NodeSubmitted | NodeStarted | NodeSettled]) -> None:
        assert self._listener is not None
        try:
            self._listener(change(cast("Node[object]", self)))
        except Exception as error:  # noqa: BLE001 - a listener must not stop the tree
            self._callback_failed(error)

    # Waiting, while others may run in its place

    async def _until_settled(self, *, is_cancelled: bool) -> None:
        waiter = _CURRENT.get(None)
        if is_cancelled and waiter is not None and waiter._is_inside(self):
            # Who cancels what it belongs to cannot wait for it; it is interrupted here.
            await asyncio.sleep(0)
        elif not self._is_settled:
            if self._waiters is None:
                self._waiters = {}
            await self._wait_in(self._waiters)

    async def _until_taken(self) -> None:
        if self._takers is None:
            self._takers = {}
        await self._wait_in(self._takers)

    async def _wait_in(self, waiting: "dict[asyncio.Future[T], None]") -> None:
        """Waits until this node has settled, among others who do."""
        waiter = _CURRENT.get(None)
        if waiter is not None and waiter._is_inside(self):
            raise NodeDeadlock(
                f"{waiter._label()} waits for {self._label()}, which settles only after it."
            )
        future: asyncio.Future[T] = self._in_tree().loop.create_future()
        waiting[future] = None
        try:
            await self._without_place(future)
        except asyncio.CancelledError:
            waiting.pop(future, None)
            raise

    def _is_inside(self, other: "Lifecycle[object]") -> bool:
        """Whether this is `other`, or one that belongs to it."""
        node: Lifecycle[object] | None = self
        while node is not None and node._depth > other._depth:
            node = node._parent
        return node is other

    @staticmethod
    def _without_place(awaited: Awaitable[object]) -> Awaitable[object]:
        """Returns what to await, for whichever node does: others may run in its place."""
        waiter = _CURRENT.get(None)
        if waiter is None or waiter._place is None:
            return awaited
        return waiter._place.lend(awaited)


def current() -> "Lifecycle[object] | None":
    """Returns the one whose body or callback is running, or None outside of any."""
    return _CURRENT.get(None)


def _wake(waiting: "dict[asyncio.Future[T], None]", value: T) -> bool:
    """Wakes those who wait; returns whether there was one."""
    woken = [future for future in waiting if not future.done()]
    for future in woken:
        future.set_result(value)
    return bool(woken)
