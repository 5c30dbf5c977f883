"""The runtime for synchronous code, and its views of owners."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, Self, cast

from treadle.actors.host import AnyAgent
from treadle.errors import ConfigurationError
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.runtime.runtime import Runtime as AsyncRuntime
from treadle.runtime.runtime import open as open_async
from treadle.runtime.view import RuntimeView as AsyncRuntimeView
from treadle.sync.archive import Archive
from treadle.sync.background_loop import BackgroundLoop
from treadle.sync.files import Files
from treadle.sync.handle import Handle, makes, makes_at_once, waits_for
from treadle.sync.memory import Memory
from treadle.sync.subscriptions import DeskSubscription
from treadle.sync.thread import Thread, ThreadRun

if TYPE_CHECKING:
    from treadle.client import Client as AsyncClient

P = ParamSpec("P")


class RuntimeView(Handle[AsyncRuntimeView]):
    """`treadle.RuntimeView` for synchronous code: the same methods, which wait."""

    create_thread = makes(Thread, AsyncRuntimeView.create_thread)
    import_thread = makes(Thread, AsyncRuntimeView.import_thread)
    connect = makes(Thread, AsyncRuntimeView.connect)
    memory = makes(Memory, AsyncRuntimeView.memory)
    memories = waits_for(AsyncRuntimeView.memories)
    archive = makes_at_once(Archive, AsyncRuntimeView.archive)
    search = waits_for(AsyncRuntimeView.search)
    delete_owner = waits_for(AsyncRuntimeView.delete_owner)
    threads = waits_for(AsyncRuntimeView.threads)
    run = makes(ThreadRun, AsyncRuntimeView.run)
    subscribe = makes_at_once(DeskSubscription, AsyncRuntimeView.subscribe)
    schedules = waits_for(AsyncRuntimeView.schedules)
    spending = waits_for(AsyncRuntimeView.spending)
    calls = waits_for(AsyncRuntimeView.calls)

    def for_owner(self, owner: str | None, *, by: str = "") -> "RuntimeView":
        """Returns the view of one owner; see `treadle.RuntimeView.for_owner`."""
        return RuntimeView(self._loop, self._target.for_owner(owner, by=by))

    @property
    def owner(self) -> str | None:
        """The owner whose threads are found; None for all."""
        return self._target.owner

    @property
    def by(self) -> str:
        """The principal that is recorded with what is done through the view."""
        return self._target.by

    @property
    def files(self) -> Files:
        """The files of the owner of the view; those of all owners in a view of all."""
        return Files(self._loop, self._target.files)


class OpenedView(RuntimeView):
    """A view that runs on an event loop in a thread of its own, from `start` to `shutdown`.

    Use `with`, or call both. Any number of threads may use it and its handles. A program that exits
    without `shutdown` does that at its exit.
    """

    def __init__(self, target: "AsyncRuntime | AsyncClient") -> None:
        super().__init__(BackgroundLoop(self.shutdown), cast("AsyncRuntimeView", target))
        self._opened = target

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def start(self) -> None:
        """Starts the loop, and opens what it is for: a journal, or the way to a server.

        A runtime resumes what was not finished. Call it once, after the process was forked. Raises
        what `start` of the asynchronous class raises, and `ConfigurationError` for a second call.
        """
        self._loop.start()
        try:
            self._loop.call(self._opened.start)
        except BaseException:
            self._loop.stop()
            raise

    def shutdown(self) -> None:
        """Closes what `start` opened, and ends the loop.

        Calls of other threads that still wait raise `RunInterrupted` or `JournalClosed`. A second
        call does nothing, nor does one in a fork of the process. Raises `ConfigurationError` in a
        job, for which it would wait.
        """
        if not self._loop.is_running:
            return
        try:
            self._loop.call(self._opened.shutdown)
        except ConfigurationError:
            raise  # nothing was stopped
        except BaseException:
            self._loop.stop()
            raise
        self._loop.stop()

    def register(self, agent: AgentDefinition[Deps, Out]) -> None:
        """Makes an agent known; see `register` of the asynchronous class."""
        self._opened.register(agent)


class Runtime(OpenedView):
    """`treadle.Runtime` for synchronous code; `treadle.sync.open` makes one.

    Tools that are plain functions may use it, too; async ones run on its loop and are refused with
    `ConfigurationError`. `runtime` is a runtime that was not started.
    """

    def __init__(self, runtime: AsyncRuntime) -> None:
        super().__init__(runtime)
        self._runtime = runtime

    @property
    def agents(self) -> Mapping[str, AnyAgent]:
        """The agents that are known here, by name."""
        return self._runtime.agents

    def drain(self, seconds: float = 30.0) -> None:
        """Lets each run finish the step it is in; see `drain` of the asynchronous class."""
        self._loop.call(lambda: self._runtime.drain(seconds))

    def agent(self, name: str) -> AnyAgent:
        """Returns the agent of that name; raises `UnknownAgent`."""
        return self._runtime.agent(name)


def _opening(make: Callable[P, AsyncRuntime]) -> Callable[P, Runtime]:
    @wraps(make)
    def open(*args: P.args, **kwargs: P.kwargs) -> Runtime:
        return Runtime(make(*args, **kwargs))

    return open


open = _opening(open_async)
"""Returns the runtime on a database; use it with `with`. The parameters are `treadle.open`'s."""
