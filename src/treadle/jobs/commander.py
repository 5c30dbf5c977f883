"""A commander: runs a tree of jobs, and ends when all of it has settled."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Literal, Self, overload

from typing_extensions import TypeVar, TypeVarTuple

from treadle.errors import CommanderNotRunning, CommanderRunning, ConfigurationError
from treadle.jobs.block_alarm import BLOCKED_AFTER, BlockAlarm
from treadle.jobs.failure import OnFailure, require_on_failure
from treadle.jobs.host import Host
from treadle.jobs.node import Listener, Node, as_node
from treadle.jobs.root import Root
from treadle.jobs.start_queue import StartQueue
from treadle.jobs.thread_future import NodeFuture
from treadle.jobs.tree import FATAL, Tree

R = TypeVar("R", default=None)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Commander(Generic[R]):
    """Runs a tree of jobs: inside an event loop as a context, or with an event loop of its own.

        async with Commander() as commander:
            await commander.submit(Chat())

        result = Commander().run(Chat())

    The context is left when every node has settled. Leaving it with an exception cancels them all.
    A failure that was not seen is raised at the end: itself, or an exception group of several.

    - `on_failure`: the effect on a node if a child fails that no code awaits, where nothing
      else was chosen: `"fail_fast"` (the default) or `"collect"`.
    - `limit`: how many bodies may run at a time; by default any number. A body that waits for
      another node does not count, nor does one that left such a wait to an `asyncio.shield`.
    - `max_pending`: `submit` waits while so many nodes have not started (default 8,192).
    - `listener`: is called with every change of the tree.
    - `debug`: warns of jobs that block the event loop for `blocked_after` seconds (default 0.1);
      by default where the event loop is in debug mode.

    One commander may run again after its end, with a new tree. Raises `ConfigurationError` for
    bounds below 1, a `blocked_after` that is not above 0 and an unknown `on_failure`.
    """

    def __init__(
        self,
        *,
        on_failure: OnFailure = "fail_fast",
        limit: int | None = None,
        max_pending: int = 8192,
        listener: Listener | None = None,
        debug: bool | None = None,
        blocked_after: float = BLOCKED_AFTER,
    ) -> None:
        if (limit is not None and limit < 1) or max_pending < 1:
            raise ConfigurationError("limit and max_pending must be at least 1.")
        if not blocked_after > 0:
            raise ConfigurationError("blocked_after must be above 0 seconds.")
        require_on_failure("on_failure", on_failure)
        self._on_failure: OnFailure = on_failure
        self._limit = limit
        self._max_pending = max_pending
        self._listener = listener
        self._debug = debug
        self._blocked_after = blocked_after
        self._root: Root | None = None
        self._host: Host | None = None
        self._exited: asyncio.Event | None = None
        self._result: R | None = None
        self._has_result = False
        # Held for the whole of a run; the other guards what follows, for a moment each time.
        self._running = threading.Lock()
        self._door = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # while other threads may submit
        self._incoming = 0  # what they have submitted and the tree does not have yet

    # A tree inside a running event loop

    @property
    def root(self) -> Node[object]:
        """The root of the tree that runs, or ran last. Raises `CommanderNotRunning` before."""
        return self._the_root()

    async def __aenter__(self) -> Self:
        if not self._running.acquire(blocking=False):
            raise CommanderRunning("The commander is running; make another for another tree.")
        loop = asyncio.get_running_loop()
        debug = loop.get_debug() if self._debug is None else self._debug
        starts = StartQueue(loop, limit=self._limit, max_pending=self._max_pending)
        alarm = BlockAlarm(self._blocked_after) if debug else None
        self._host = Host()
        self._root = Root(
            Tree(loop, starts, self._exit, alarm),
            self._host.interrupt,
            on_failure=self._on_failure,
            listener=self._listener,
            may_settle=self._shut_door,
            is_host=self._host.is_running,
        )
        self._exited = asyncio.Event()
        self._result, self._has_result = None, False
        with self._door:
            self._loop = loop
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        root, host = self._the_root(), self._host
        assert host is not None
        root.close()
        if error is not None:
            root.stop()
        try:
            ends_with = await host.wait(root, error)
        finally:
            self._running.release()
        _raise_all(root.take_unseen(), ends_with, error)
        return ends_with is None

    @overload
    async def submit(self, work: Node[T], /) -> Node[T]: ...
    @overload
    async def submit(
        self, work: Callable[[*Ts], Coroutine[Any, Any, T]], /, *args: *Ts
    ) -> Node[T]: ...
    async def submit(self, work: Any, /, *args: Any) -> Node[Any]:
        """Places a job under the root; see `Node.submit`."""
        return await self.root.submit(work, *args)

    @overload
    def call(self, work: Node[T], /) -> Node[T]: ...
    @overload
    def call(self, work: Callable[[*Ts], Coroutine[Any, Any, T]], /, *args: *Ts) -> Node[T]: ...
    def call(self, work: Any, /, *args: Any) -> Node[Any]:
        """Places a handler under the root; see `Node.call`."""
        return self.root.call(work, *args)

    def exit(self, result: R | None = None, *, wait: bool = True) -> None:
        """Ends the run, which returns `result`; to be called from inside, or from any thread.

        The root takes no new children. With `wait`, everything under way continues to its end, and
        may submit children of its own; without, it is cancelled, the block of an `async with` as
        well. Callbacks are called either way. The result of the first call stands; a later one may
        still cancel. Raises `CommanderNotRunning` once the tree has settled.
        """
        self._exit(result, wait)

    async def exited(self) -> None:
        """Waits until `exit` was called: the body of a commander that runs until stopped."""
        if self._exited is None:
            raise CommanderNotRunning("The commander has not run yet; enter it or call run().")
        await self._exited.wait()

    # A tree with an event loop of its own

    @overload
    def run(self, work: Node[T], /, *, auto_exit: bool = True) -> T | R: ...
    @overload
    def run(
        self,
        work: Callable[[*Ts], Coroutine[Any, Any, T]],
        /,
        *args: *Ts,
        auto_exit: bool = True,
    ) -> T | R: ...
    @overload
    def run(self, work: None = None, /, *, auto_exit: Literal[False]) -> R: ...
    def run(self, work: Any = None, /, *args: Any, auto_exit: bool = True) -> Any:
        """Runs a job with an event loop of its own; returns when the whole tree has settled.

        Returns what `exit` was given; where it was not called, the result of the job. Without
        `auto_exit` the run continues until `exit` is called, for jobs of other threads. Raises what
        the job raised, `NodeCancelled` if it was cancelled, any failure that was not seen,
        `CommanderRunning` while the commander runs, and `ConfigurationError` in async code.
        """
        _refuse_async("run")
        node = None if work is None else as_node(work, args)
        return asyncio.run(self._run(node, auto_exit))

    @overload
    def run_auto(self, work: Node[object], /) -> bool: ...
    @overload
    def run_auto(
        self, work: Callable[[*Ts], Coroutine[Any, Any, object]], /, *args: *Ts
    ) -> bool: ...
    def run_auto(self, work: Any, /, *args: Any) -> bool:
        """Runs a job, or hands it to the tree that runs already; from any thread.

        Returns True once the run it started has ended, and False at once if it handed the job
        over: the job is then a child of that tree's root like any other. Raises what `run` raises.
        """
        node = as_node(work, args)
        while True:
            try:
                self._hand_over(node, None, None)
            except CommanderNotRunning:
                _refuse_async("run_auto")
            else:
                return False
            try:
                self.run(node)
            except CommanderRunning:
                if node.id:
                    raise  # it has run: the error is one of its own
                # Another thread was quicker, or an earlier run is about to end: its turn first.
                with self._running:
                    continue
            return True

    @overload
    def submit_threadsafe(
        self, work: Node[T], /, *, parent: Node[object] | None = None
    ) -> Future[T]: ...
    @overload
    def submit_threadsafe(
        self,
        work: Callable[[*Ts], Coroutine[Any, Any, T]],
        /,
        *args: *Ts,
        parent: Node[object] | None = None,
    ) -> Future[T]: ...
    def submit_threadsafe(
        self, work: Any, /, *args: Any, parent: Node[object] | None = None
    ) -> Future[Any]:
        """Submits a job from any thread, under the root or `parent`; returns a future.

        The future has the job's result, its exception, or `NodeCancelled`; to cancel the future is
        to cancel the job. A failure stops nothing else; it is raised at the end of the run if
        no code has asked the future for it by then. Raises `CommanderNotRunning` if no tree runs
        or the run is exiting; any other refusal is the exception of the future.
        """
        with self._door:
            loop = self._open_loop()
            future: NodeFuture[Any] = NodeFuture(loop)
        self._hand_over(as_node(work, args), parent, future)
        return future

    async def _run(self, node: Node[T] | None, auto_exit: bool) -> T | R | None:
        try:
            async with self:
                if node is not None:
                    await self.submit(node)
                if not auto_exit:
                    await self.exited()
        except FATAL:
            # It has stopped the event loop, which raises it; again, it would disturb the clean-up.
            return None
        return self._result if self._has_result or node is None else node.outcome()

    # The end

    def _the_root(self) -> Root:
        if self._root is None:
            raise CommanderNotRunning("The commander has not run yet; enter it or call run().")
        return self._root

    def _exit(self, result: Any, wait: bool) -> None:
        root = self._the_root()
        if root.is_settled:
            raise CommanderNotRunning("The run has ended already.")
        if root.is_here:
            self._exit_here(result, wait)
            return
        with self._door:
            is_open = self._loop is not None
            root.from_elsewhere(self._let_exit, root, result, wait, is_open)
            self._incoming += is_open  # the tree settles only after it has been placed

    def _let_exit(self, root: Root, result: Any, wait: bool, is_counted: bool) -> None:
        """Does what `exit` was called for in another thread."""
        if not root.is_settled:
            self._exit_here(result, wait)
        if is_counted:
            self._has_come(root)

    def _exit_here(self, result: Any, wait: bool) -> None:
        root = self._the_root()
        if not self._has_result:
            self._result, self._has_result = result, True
        with self._door:
            self._loop = None
        root.take_no_more()
        assert self._exited is not None
        self._exited.set()
        if not wait:
            root.cancel()

    # What other threads submit

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise CommanderNotRunning("The commander is not running; start it first.")
        return self._loop

    def _hand_over(
        self, node: Node[Any], parent: Node[object] | None, future: NodeFuture[Any] | None
    ) -> None:
        with self._door:
            loop = self._open_loop()
            self._incoming += 1
            loop.call_soon_threadsafe(self._let_in, node, parent, future)

    def _let_in(
        self, node: Node[Any], parent: Node[object] | None, future: NodeFuture[Any] | None
    ) -> None:
        """Places what was handed over: in the thread of the event loop."""
        root = self._the_root()
        try:
            if future is None or not future.cancelled():
                root.let_in(node, parent)
                if future is not None:
                    future.follow(node)
        except Exception as error:  # noqa: BLE001 - the submitter gets every error
            if future is not None:
                future.set_exception(error)
        self._has_come(root)

    def _has_come(self, root: Root) -> None:
        with self._door:
            self._incoming -= 1
        root.look_again()

    def _shut_door(self) -> bool:
        """Whether the tree may settle: not before it has all that other threads submitted."""
        with self._door:
            if self._incoming:
                return False
            self._loop = None
            return True


def _refuse_async(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        f"{name}() has an event loop of its own and cannot be called in async code; "
        "use `async with Commander()` there."
    )


def _raise_all(
    unseen: list[BaseException], ends_with: BaseException | None, error: BaseException | None
) -> None:
    """Raises all unseen failures; a single `error` propagates on its own."""
    is_cancelled = isinstance(ends_with, asyncio.CancelledError)
    if ends_with is not None and not (unseen and is_cancelled):
        unseen = [ends_with, *(other for other in unseen if other is not ends_with)]
    fatal = next((one for one in unseen if isinstance(one, FATAL)), None)
    if fatal is not None:
        unseen = [fatal]
    if not unseen or (len(unseen) == 1 and unseen[0] is error):
        return
    if len(unseen) == 1:
        raise unseen[0]
    raise BaseExceptionGroup(f"{len(unseen)} failures of jobs that were not seen", unseen)
