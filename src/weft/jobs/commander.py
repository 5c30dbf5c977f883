"""A commander: runs a tree of jobs, and ends when all of it has settled."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Self, overload

from typing_extensions import TypeVar, TypeVarTuple
from weft.jobs.thread_future import NodeFuture

from weft.errors import CommanderNotRunning, CommanderRunning, ConfigurationError
from weft.jobs.block_alarm import BlockAlarm
from weft.jobs.change import Listener
from weft.jobs.failure import OnFailure
from weft.jobs.node import Node
from weft.jobs.root import Root
from weft.jobs.start_queue import StartQueue
from weft.jobs.tree import Tree

R = TypeVar("R", default=None)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BLOCKED_AFTER = 0.1


class Commander(Generic[R]):
    """Runs a tree of jobs: inside an event loop as a context, or with an event loop of its own.

        async with Commander() as commander:
            await commander.submit(Chat())

        result = Commander().run(Chat())

    The context is left when every node has settled. Leaving it with an exception cancels them all.
    A failure that nobody has seen is raised at the end: itself, or an exception group of several.

    - `on_failure`: what the failure of a child that nobody awaits does to a node, where nothing
      else was chosen: `"fail_fast"` (the default) or `"collect"`.
    - `limit`: how many bodies may run at a time; by default any number. A body that waits for
      another node does not count.
    - `max_pending`: `submit` waits while so many nodes have not started (default 1,024).
    - `listener`: is told every change of the tree.
    - `debug`: warns of jobs that block the event loop for `blocked_after` seconds (default 0.1);
      by default where the event loop is in debug mode.

    One commander may run again after its end, with a new tree. Raises `ConfigurationError` for
    bounds below 1.
    """

    def __init__(
        self,
        *,
        on_failure: OnFailure = "fail_fast",
        limit: int | None = None,
        max_pending: int = 1024,
        listener: Listener | None = None,
        debug: bool | None = None,
        blocked_after: float = BLOCKED_AFTER,
    ) -> None:
        if (limit is not None and limit < 1) or max_pending < 1:
            raise ConfigurationError("limit and max_pending must be at least 1.")
        self._on_failure: OnFailure = on_failure
        self._limit = limit
        self._max_pending = max_pending
        self._listener = listener
        self._debug = debug
        self._blocked_after = blocked_after
        self._root: Root | None = None
        self._host: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._exited: asyncio.Event | None = None
        self._result: R | None = None
        self._has_result = False
        # Held for the whole of a run; what threads hand over is guarded by the other.
        self._running = threading.Lock()
        self._door = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_open = False
        self._incoming = 0

    # A tree inside a running event loop

    @property
    def root(self) -> Node[object]:
        """The root of the tree that runs, or ran last. Raises `CommanderNotRunning` before."""
        if self._root is None:
            raise CommanderNotRunning("The commander has not run yet; enter it or call run().")
        return self._root

    async def __aenter__(self) -> Self:
        if not self._running.acquire(blocking=False):
            raise CommanderRunning("The commander is running; make another for another tree.")
        host = asyncio.current_task()
        assert host is not None
        loop = asyncio.get_running_loop()
        debug = loop.get_debug() if self._debug is None else self._debug
        tree = Tree(
            loop,
            StartQueue(loop, limit=self._limit, max_pending=self._max_pending),
            self._exit,
            BlockAlarm(self._blocked_after) if debug else None,
        )
        self._root = Root(tree, self._on_failure, self._listener, host, self._may_settle)
        self._host, self._cancels_before = host, host.cancelling()
        self._exited = asyncio.Event()
        self._result, self._has_result = None, False
        with self._door:
            self._loop, self._thread = loop, threading.get_ident()
            self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        root = self._root
        assert root is not None
        if error is not None:
            root.cancel()
        try:
            cancelled = await self._settle(root)
        finally:
            with self._door:
                self._is_open = False
            self._running.release()
        return self._conclude(root, cancelled or error)

    @overload
    async def submit(self, work: Node[T], /) -> Node[T]: ...
    @overload
    async def submit(
        self, work: Callable[[*Ts], Coroutine[Any, Any, T]], /, *args: *Ts
    ) -> Node[T]: ...
    async def submit(self, work: Any, /, *args: Any) -> Node[Any]:
        """Places a job under the root; see `Node.submit`."""
        return await self.root.submit(work, *args)

    def call(self, handler: Node[T]) -> Node[T]:
        """Places a handler under the root; see `Node.call`."""
        return self.root.call(handler)

    def exit(self, result: R | None = None, *, wait: bool = True) -> None:
        """Ends the run, which returns `result`; to be called from inside.

        The root takes no new children. With `wait`, everything under way goes on to its end, and
        may submit children of its own; without, it is cancelled. Callbacks are called either way.
        The result of the first call stands; a later one may still cancel.
        """
        self.root.exit(result, wait=wait)

    async def exited(self) -> None:
        """Waits until `exit` was called: the body of a commander that serves until told to stop."""
        if self._exited is None:
            raise CommanderNotRunning("The commander is not running; enter it first.")
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
    def run(self, work: None = None, /, *, auto_exit: bool = False) -> R: ...
    def run(self, work: Any = None, /, *args: Any, auto_exit: bool = True) -> Any:
        """Runs a job with an event loop of its own; returns when the whole tree has settled.

        Returns what `exit` was given; where it was not called, the result of the job. Without
        `auto_exit` the run goes on until `exit` is called, for jobs of other threads. Raises what
        the job raised, `NodeCancelled` if it was cancelled, any failure that nobody has seen,
        `CommanderRunning` while the commander runs, and `ConfigurationError` in async code.
        """
        _refuse_async("run")
        return asyncio.run(self._run(work, args, auto_exit))

    def run_auto(self, work: Any, /, *args: Any) -> bool:
        """Runs a job, or hands it to the tree that runs already; from any thread.

        Returns True once the run it started has ended, and False at once if it handed the job
        over. Raises what `run` raises.
        """
        while True:
            try:
                self.submit_threadsafe(work, *args)
            except CommanderNotRunning:
                _refuse_async("run_auto")
            else:
                return False
            try:
                self.run(work, *args)
            except CommanderRunning:
                # Another thread was quicker, or an earlier run is about to end: its turn first.
                with self._running:
                    continue
            return True

    def submit_threadsafe(
        self,
        work: Any,
        /,
        *args: Any,
        parent: Node[object] | None = None,
    ) -> Future[Any]:
        """Submits a job from any thread, under the root or `parent`; returns a future.

        The future has the job's result, its exception, or `NodeCancelled`; to cancel the future is
        to cancel the job. Raises `CommanderNotRunning` where no tree runs; any other refusal is
        the exception of the future.
        """
        with self._door:
            if not self._is_open or self._loop is None:
                raise CommanderNotRunning("The commander is not running; start it first.")
            self._incoming += 1
            loop = self._loop
            future: NodeFuture[Any] = NodeFuture(loop)
            loop.call_soon_threadsafe(self._let_in, future, work, args, parent)
        return future
