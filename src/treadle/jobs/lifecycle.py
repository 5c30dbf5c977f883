"""The life of a node: how it comes into a tree, runs, and settles when its whole subtree has.

    pending ──► active ──► waiting ──► completed | failed | cancelled

*Active* is while its body runs, *waiting* while the body has ended and a child has not settled.
Then the state is final: the callbacks run, tasks that await the node continue, and its parent is
notified. No method here recurses: a tree may be as deep as memory allows.
"""

import asyncio
import contextvars
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast

from treadle.errors import ConfigurationError, NodeClosed, NodeDeadlock, NodeReused
from treadle.jobs.callbacks import Callback, Callbacks
from treadle.jobs.failure import MAX_KEPT, Failure, OnFailure
from treadle.jobs.settling import Settling
from treadle.jobs.start_queue import Place
from treadle.jobs.tree import Tree

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NodeState = Literal["pending", "active", "waiting", "completed", "failed", "cancelled"]

Moment = Literal["submitted", "started", "settled"]
"""The changes that a listener is called for."""

_CURRENT: "contextvars.ContextVar[Lifecycle[object]]" = contextvars.ContextVar("treadle_node")


if TYPE_CHECKING:
    _InstanceProperty = property  # mypy knows no subclass of it
else:

    class _InstanceProperty(property):
        """Not shown by its class: a dataclass would take it for the default of a field."""

        def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
            if instance is None:
                raise AttributeError(f"{self.fget!r} is a property of instances.")
            return super().__get__(instance, owner)


class Lifecycle(Generic[T_co]):
    """The internal half of `Node`: states, callbacks and waiting; `Node` has the public methods."""

    __slots__ = (
        "_node_callback_errors",
        "_node_callbacks",
        "_node_children",
        "_node_context",
        "_node_delegate",
        "_node_depth",
        "_node_due",
        "_node_errors",
        "_node_failure",
        "_node_id",
        "_node_is_settled",
        "_node_is_stopped",
        "_node_listener",
        "_node_name",
        "_node_open",
        "_node_parent",
        "_node_place",
        "_node_policy",
        "_node_result",
        "_node_state",
        "_node_takers",
        "_node_task",
        "_node_tree",
        "_node_waiters",
        "_node_work",
    )

    on_failure: ClassVar[OnFailure | None] = None
    keeps_children: ClassVar[bool] = True

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: a job with data of its own need not call it, so it may be a dataclass.
        node = super().__new__(cls)
        try:
            node._node_tree = None
        except (AttributeError, TypeError):  # it is frozen: a dataclass, with slots or without
            _keep_node_changing(cls)
            node._node_tree = None
        node._node_parent = None
        node._node_children = None
        node._node_state = "pending"
        node._node_open = 1
        node._node_is_settled = False
        node._node_is_stopped = False
        node._node_place = None
        node._node_task = None
        node._node_work = None
        node._node_result = None
        node._node_delegate = None
        node._node_failure = None
        node._node_errors = None
        node._node_callbacks = None
        node._node_callback_errors = None
        node._node_due = None
        node._node_waiters = None
        node._node_takers = None
        node._node_context = None
        node._node_listener = None
        node._node_name = None
        node._node_policy = None
        node._node_id = 0
        node._node_depth = 0
        return node

    _node_tree: "Tree[Lifecycle[object]] | None"
    _node_parent: "Lifecycle[object] | None"
    _node_children: "dict[int, Lifecycle[object]] | None"
    _node_state: NodeState
    _node_open: int  # its body, if that has not ended, and the children that have not settled
    _node_is_settled: bool
    _node_is_stopped: bool  # takes no more children, and all there is below it was cancelled
    _node_place: Place | None  # of its body, where places are counted
    _node_task: "asyncio.Task[Any] | None"  # of its body, or of the callback that runs
    _node_work: "Callable[..., Coroutine[Any, Any, T_co | Lifecycle[T_co]]] | None"
    _node_result: T_co | None
    _node_delegate: "Lifecycle[T_co] | None"  # the node that its body returned
    _node_failure: Failure | None
    _node_errors: list[Failure] | None
    _node_callbacks: Callbacks | None
    _node_callback_errors: list[Failure] | None
    _node_due: "deque[tuple[Lifecycle[object], Callback]] | None"
    # Futures of tasks that wait for the end. Takers get the outcome as well, so that a failure is
    # theirs and does not go to the parent.
    _node_waiters: "dict[asyncio.Future[None], None] | None"
    _node_takers: "dict[asyncio.Future[Failure | None], None] | None"
    _node_context: contextvars.Context | None  # of its body and its callbacks
    _node_listener: Callable[[Any], None] | None  # called with a `Change` of `Node`
    _node_name: str | None
    _node_policy: OnFailure | None
    _node_id: int
    _node_depth: int

    @_InstanceProperty
    def name(self) -> str:
        """What the node is called in reports: its class or function, unless it was given a name."""
        return self._node_name or type(self).__name__

    @name.setter
    def name(self, name: str) -> None:
        self._node_name = name

    def __repr__(self) -> str:
        return f"<{self.name} #{self._node_id} {self._node_state}>"

    def _node_label(self) -> str:
        # In messages: the repr of a job may be that of a dataclass, with all its data.
        return f"{self.name} #{self._node_id}"

    # How it comes into the tree

    def _node_body(self) -> "Coroutine[Any, Any, T_co | Lifecycle[T_co]]":
        """Returns the coroutine that is the node's own work."""
        work, self._node_work = self._node_work, None
        assert work is not None
        return work()

    def _node_in_tree(self) -> "Tree[Lifecycle[object]]":
        if self._node_tree is None:
            raise ConfigurationError(f"{self._node_label()} is in no tree yet; submit it first.")
        return self._node_tree

    def _node_adopt(self, child: "Lifecycle[object]", tree: "Tree[Lifecycle[object]]") -> None:
        if child._node_tree is not None:
            raise NodeReused(
                f"{child._node_label()} was submitted before; make a new one for each submission."
            )
        if self._node_tree is not tree:
            raise ConfigurationError(
                f"{self._node_label()} belongs to another tree than the one that submits."
            )
        if self._node_is_stopped or self._node_is_final():
            raise NodeClosed(
                f"{self._node_label()} takes no more children{self._node_advice(child, tree)}"
            )
        if tree.admit is not None:
            tree.admit(self, child)
        policy = child._node_policy or child.on_failure or self._node_policy
        child._node_tree = tree
        child._node_parent = self
        child._node_depth = self._node_depth + 1
        child._node_id = tree.new_id()
        child._node_policy = policy
        if child._node_listener is None:
            child._node_listener = self._node_listener
        child._node_context = contextvars.copy_context()
        if child._node_callbacks is not None:
            child._node_note_endings(child._node_callbacks)
        if self._node_children is None:
            self._node_children = {}
        self._node_children[child._node_id] = child
        self._node_open += 1  # last: an error before this leaves the parent unchanged
        if child._node_listener is not None:
            child._node_tell("submitted")
        child._node_enter(tree)

    def _node_advice(self, child: "Lifecycle[object]", tree: "Tree[Lifecycle[object]]") -> str:
        top: Lifecycle[object] = self
        while top._node_parent is not None:
            top = top._node_parent
        if tree.is_exiting or top._node_is_stopped or top._node_is_final():
            return ", nor does any other node of its tree: the run has ended, or is about to."
        return f". Place {child.name} under another node with parent=…, such as the root."

    def _node_note_endings(self, callbacks: Callbacks) -> None:
        if callbacks.tree_end:
            self._node_in_tree().endings += ((self, callback) for callback in callbacks.tree_end)

    def _node_enter(self, tree: "Tree[Lifecycle[object]]") -> None:
        tree.starts.put(self)

    def _node_never_starts(self) -> None:
        self._node_in_tree().starts.withdraw()

    def _node_is_pending(self) -> bool:
        return self._node_state == "pending"

    def _node_start(self) -> bool:
        """Starts the body in its turn; returns False if the node no longer waits for a start."""
        if self._node_state != "pending":
            return False
        self._node_place = self._node_in_tree().starts.place()
        self._node_begin()
        return True

    def _node_begin(self) -> None:
        self._node_state = "active"
        if self._node_listener is not None:
            self._node_tell("started")
        if self._node_callbacks is not None and self._node_callbacks.start:
            self._node_due = deque((self, callback) for callback in self._node_callbacks.start)
            if not self._node_run_callbacks():
                return
        self._node_run_body()

    def _node_run_body(self) -> None:
        if self._node_is_stopped:
            self._node_body_ended()
            return
        tree = self._node_in_tree()
        name = self._node_name or type(self).__name__  # what `name` returns, which is slow to ask
        body = self._node_live()
        if tree.contained is not None:
            body = tree.contained(body)
        if tree.alarm is not None:
            body = tree.alarm.watch(body, name)
        self._node_task = task = tree.loop.create_task(body, name=name, context=self._node_context)
        # Not the node's own context: its callbacks are to be called in that.
        task.add_done_callback(self._node_body_done, context=tree.context)

    async def _node_live(self) -> "T_co | Lifecycle[T_co]":
        """The task of the body."""
        _CURRENT.set(self)
        body = self._node_body()
        if not asyncio.iscoroutine(body):
            raise ConfigurationError(
                f"{self.name} gave {body!r} where a coroutine was expected; write `async def`."
            )
        value = await body
        if isinstance(value, Lifecycle):
            return cast("Lifecycle[T_co]", value)
        returned = self._node_in_tree().returned
        if returned is not None:
            await returned(self, value)
        task = self._node_task
        assert task is not None
        if self._node_ends_quietly() and not task.cancelling():
            # Without another turn of the event loop, which costs as much as all of the end.
            task.remove_done_callback(self._node_body_done)
            self._node_result = value
            self._node_body_ended()
        return value

    def _node_ends_quietly(self) -> bool:
        """Whether no callback, listener or alarm observes the step in which the body ends."""
        is_told = self._node_callbacks is not None or self._node_listener is not None
        return not is_told and self._node_in_tree().alarm is None

    def _node_body_done(self, task: "asyncio.Task[T_co | Lifecycle[T_co]]") -> None:
        if task.cancelled():
            self._node_stop()
        elif (error := task.exception()) is not None:
            self._node_fail(error)
        else:
            value = task.result()
            if isinstance(value, Lifecycle):
                self._node_delegate_to(cast("Lifecycle[T_co]", value))
            else:
                self._node_result = value
        self._node_body_ended()

    def _node_delegate_to(self, node: "Lifecycle[T_co]") -> None:
        """Takes the result of a node that the body returned; a new one becomes a child.

        One that is a child already, or has settled, gives its result as well.
        """
        if node._node_tree is None:
            assert self._node_context is not None
            try:
                self._node_context.run(self._node_adopt, node, self._node_in_tree())
            except NodeClosed:  # the node is being cancelled, and with it the node it returned
                return
            except Exception as error:  # noqa: BLE001 - `Tree.admit` may refuse it
                self._node_fail(error)
                return
        elif not node._node_is_settled and node._node_parent is not self:
            self._node_fail(
                NodeReused(
                    f"{self._node_label()} returned {node._node_label()}, which is not new; "
                    "await it."
                )
            )
            return
        self._node_delegate = node

    def _node_body_ended(self) -> None:
        place, self._node_place = self._node_place, None
        self._node_task = None
        self._node_state = "waiting"
        self._node_open -= 1
        self._node_settle_up()
        if place is not None:  # after waiting tasks were woken: they take the place first
            place.end()

    # How it ends

    def _node_settle_up(self) -> None:
        """Settles this node and then its ancestors, as far as nothing of them is open."""
        tree = self._node_tree
        assert tree is not None
        if tree.is_settling:
            # By a callback or a listener, which may cancel many: it is the turn of each in a loop.
            tree.ended.append(self)
            return
        tree.is_settling = True
        node: Lifecycle[object] | None = self
        try:
            while node is not None:
                while node is not None and node._node_is_closed():
                    node._node_decide()
                    if node._node_due and not node._node_run_callbacks():
                        break
                    node = node._node_leave()
                node = tree.ended.popleft() if tree.ended else None
        finally:
            tree.is_settling = False

    def _node_is_closed(self) -> bool:
        return self._node_open == 0 and self._node_state == "waiting"

    def _node_decide(self) -> None:
        """Finds the final state, and the callbacks that are due."""
        if self._node_delegate is not None:
            self._node_take_over(self._node_delegate)
        if self._node_failure is not None:
            self._node_state = "failed"
        elif self._node_is_stopped:
            self._node_state = "cancelled"
        else:
            self._node_state = "completed"
        callbacks = self._node_callbacks
        if callbacks is not None:
            first = {"failed": callbacks.error, "cancelled": callbacks.cancelled}
            due = first.get(self._node_state, ()) + callbacks.settled
            self._node_due = deque((self, callback) for callback in due)

    def _node_take_over(self, delegate: "Lifecycle[T_co]") -> None:
        self._node_delegate = None
        self._node_result = delegate._node_result
        if delegate._node_failure is not None:
            if self._node_failure is None:
                self._node_failure = Failure(delegate._node_failure.take())
                # Where children's failures are listed, this one has become its own.
                self._node_errors = [
                    f for f in self._node_errors or () if f is not delegate._node_failure
                ] or None
        elif delegate._node_state == "cancelled":
            self._node_is_stopped = True

    def _node_leave(self) -> "Lifecycle[object] | None":
        """The last it does; returns its parent."""
        self._node_is_settled = True
        self._node_context = None
        self._node_callbacks = None
        self._node_due = None
        if self._node_listener is not None:
            self._node_tell("settled")
        is_taken = self._node_takers is not None and _wake(self._node_takers, self._node_failure)
        if self._node_waiters is not None:
            _wake(self._node_waiters, None)
        self._node_waiters = self._node_takers = None
        parent = self._node_parent
        if self._node_failure is not None:
            if is_taken or parent is None:
                self._node_report(self._node_failure)
            else:
                parent._node_child_failed(self._node_failure)
        if parent is not None:
            parent._node_open -= 1
            if not parent.keeps_children and parent._node_children is not None:
                del parent._node_children[self._node_id]
        return parent

    # What goes wrong

    def _node_fail(self, error: BaseException) -> None:
        """The body has failed; children continue only with `on_failure` "collect"."""
        if self._node_failure is None:
            self._node_failure = Failure(error)
        elif self._node_failure.exception is not error:
            self._node_list(Failure(error))
        if self._node_policy == "fail_fast":
            self._node_stop()

    def _node_child_failed(self, failure: Failure) -> None:
        """A child has failed, and no task awaited it."""
        is_listed = self._node_policy == "collect" or self._node_failure is not None
        if is_listed or self._node_in_tree().ends_by(failure.exception):
            self._node_list(failure)
        else:
            # The same exception in a failure of this node's own: the child's counts as seen, and is
            # not reported a second time.
            self._node_failure = Failure(failure.take())
            self._node_stop()

    def _node_list(self, failure: Failure) -> None:
        if self._node_errors is None:
            self._node_errors = []
        if self.keeps_children or len(self._node_errors) < MAX_KEPT:
            self._node_errors.append(failure)
        self._node_report(failure)

    def _node_report(self, failure: Failure) -> None:
        tree = self._node_in_tree()
        if not tree.ends_by(failure.exception):
            tree.failures.add(failure)

    def _node_stop(self, *, again: bool = False) -> None:
        """Cancels all that runs in the subtree, and keeps it from growing.

        Nodes that were stopped before are left to their clean-up, unless `again`.
        """
        reached: list[Lifecycle[object]] = []
        below: list[Lifecycle[object]] = [self]
        while below:
            node = below.pop()
            if node._node_is_settled or (node._node_is_stopped and not again):
                continue
            node._node_is_stopped = True
            reached.append(node)
            if node._node_children:
                below.extend(reversed(node._node_children.values()))
        for node in reached:
            node._node_interrupt(again)

    def _node_interrupt(self, again: bool) -> None:
        if self._node_state == "pending":
            self._node_body_ended()
            self._node_never_starts()
        elif self._node_task is not None and (again or not self._node_is_final()):
            self._node_task.cancel()

    def _node_is_final(self) -> bool:
        """Whether the state is final: the first cancellation then leaves the callbacks alone."""
        return self._node_state in {"completed", "failed", "cancelled"}

    # Callbacks and listeners

    def _node_run_callbacks(self) -> bool:
        """Runs the callbacks that are due; returns False if it continues after an async one."""
        while self._node_due:
            node, callback = self._node_due.popleft()
            task = self._node_call(node, callback)
            if task is not None:
                self._node_task = task
                done = functools.partial(self._node_callback_done, node)
                task.add_done_callback(done, context=self._node_in_tree().context)
                return False
        return True

    def _node_call(
        self, node: "Lifecycle[object]", callback: Callback
    ) -> "asyncio.Task[object] | None":
        """Calls one in the node's context; an async one continues in the returned task."""
        tree = self._node_in_tree()
        context = self._node_context
        assert context is not None
        try:
            name = f"a callback of {node.name}"
            if tree.alarm is None:
                value = context.run(self._node_as_current, callback, node)
            else:
                value = tree.alarm.run(
                    lambda: context.run(self._node_as_current, callback, node), name
                )
            body = self._node_rest(value, name)
            if body is None:
                return None
            if tree.contained is not None:
                body = tree.contained(body)
            if tree.alarm is not None:
                body = tree.alarm.watch(body, name)
            return tree.loop.create_task(body, name=name, context=context)
        except BaseException as error:  # noqa: BLE001 - it stops neither the others nor the tree
            node._node_callback_failed(error)
            tree.raise_if_fatal(error)
            return None

    @staticmethod
    def _node_rest(value: object, name: str) -> Coroutine[Any, Any, object] | None:
        """Returns a coroutine for the result of a callback if that has to be awaited, else None."""
        if asyncio.iscoroutine(value):
            return cast("Coroutine[Any, Any, object]", value)
        if isinstance(value, Lifecycle):
            node = cast("Lifecycle[object]", value)
            if node._node_tree is None:
                raise ConfigurationError(
                    f"{name} returned {node.name}, which is in no tree; submit it there, under "
                    "the root if the node has settled: node.root.call(…)."
                )
            return None  # it was submitted, and runs independently
        # `node.cancel()` returns a `Settling`: to await it in a callback could be a deadlock.
        if value is None or isinstance(value, Settling) or not isinstance(value, Awaitable):
            return None
        return _awaited(cast("Awaitable[object]", value))

    def _node_as_current(self, callback: Callback, node: "Lifecycle[object]") -> object:
        _CURRENT.set(self)
        return callback.call(node)

    def _node_callback_done(self, node: "Lifecycle[object]", task: "asyncio.Task[object]") -> None:
        self._node_task = None
        is_starting = self._node_state == "active"
        if is_starting and self._node_is_stopped:
            self._node_due = None
        try:
            error = task.exception()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        is_skipped = is_starting and self._node_is_stopped and task.cancelled()
        if error is not None and not is_skipped:
            node._node_callback_failed(error)
        if not self._node_run_callbacks():
            return
        if is_starting:
            self._node_run_body()
        elif (parent := self._node_leave()) is not None:
            parent._node_settle_up()

    def _node_callback_failed(self, error: BaseException) -> None:
        failure = Failure(error)
        if self._node_callback_errors is None:
            self._node_callback_errors = []
        if len(self._node_callback_errors) < MAX_KEPT:
            self._node_callback_errors.append(failure)
        if not isinstance(error, asyncio.CancelledError):  # as in a body, that is not a failure
            self._node_report(failure)

    def _node_change(self, moment: Moment) -> object:
        """Returns what a listener is called with."""
        raise NotImplementedError

    def _node_tell(self, moment: Moment) -> None:
        assert self._node_listener is not None
        try:
            self._node_listener(self._node_change(moment))
        except BaseException as error:  # noqa: BLE001 - a listener must not stop the tree
            self._node_callback_failed(error)
            self._node_in_tree().raise_if_fatal(error)

    # Waiting, while others may run in its place

    async def _node_until_settled(self, *, is_cancelled: bool) -> None:
        if is_cancelled and self._node_is_around():
            # A body that cancels an ancestor cannot wait for its end, and is interrupted here.
            await asyncio.sleep(0)
        elif not self._node_is_settled:
            if self._node_waiters is None:
                self._node_waiters = {}
            await self._node_wait_in(self._node_waiters)

    async def _node_until_taken(self) -> None:
        if self._node_takers is None:
            self._node_takers = {}
        await self._node_wait_in(self._node_takers)

    async def _node_wait_in(self, waiting: "dict[asyncio.Future[T], None]") -> None:
        """Waits until this node has settled; several tasks may."""
        if self._node_is_around():
            waiter = _CURRENT.get(None)
            raise NodeDeadlock(
                f"{waiter._node_label() if waiter is not None else 'Its own block'} waits for "
                f"{self._node_label()}, which settles only after it."
            )
        loop = self._node_in_tree().loop
        if asyncio.get_running_loop() is not loop:
            raise ConfigurationError(
                f"{self._node_label()} runs in another event loop; await it there, or submit it "
                "with submit_threadsafe and wait for its future."
            )
        future: asyncio.Future[T] = loop.create_future()
        waiting[future] = None
        try:
            await self._node_without_place(future)
        except asyncio.CancelledError:
            waiting.pop(future, None)
            raise

    def _node_is_around(self) -> bool:
        """Whether the code that runs now belongs to this node."""
        waiter = _CURRENT.get(None)
        return waiter is not None and waiter._node_is_inside(self)

    def _node_is_inside(self, other: "Lifecycle[object]") -> bool:
        """Whether this is `other` or below it, including in a tree made in the body of a node."""
        node: Lifecycle[object] | None = self
        while node is not None and node._node_tree is not other._node_tree:
            node = node._node_in_tree().inside_of
        while node is not None and node._node_depth > other._node_depth:
            node = node._node_parent
        return node is other

    @staticmethod
    def _node_without_place(awaited: Awaitable[object]) -> Awaitable[object]:
        """Returns `awaited`, lending the place of the running node to others meanwhile."""
        waiter = _CURRENT.get(None)
        if waiter is None or waiter._node_place is None:
            return awaited
        return waiter._node_place.lend(awaited)


def current() -> "Lifecycle[object] | None":
    """Returns the node whose body or callback is running, or None outside of any."""
    return _CURRENT.get(None)


def _keep_node_changing(cls: Any) -> None:
    """Makes the internal attributes of a node writable in a class with frozen instances."""
    frozen = cls.__setattr__

    def set_attribute(self: object, name: str, value: object) -> None:
        if name.startswith("_node_") or name == "name":
            object.__setattr__(self, name, value)
        else:
            frozen(self, name, value)

    cls.__setattr__ = set_attribute


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable


def _wake(waiting: "dict[asyncio.Future[T], None]", value: T) -> bool:
    """Wakes the waiting tasks; returns whether there was one."""
    woken = [future for future in waiting if not future.done()]
    for future in woken:
        future.set_result(value)
    return bool(woken)
