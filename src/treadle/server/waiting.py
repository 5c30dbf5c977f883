"""Waiting for the end of a run, and its result."""

import asyncio
from typing import Any

from msgspec.structs import replace
from pydantic_core import PydanticSerializationError, to_jsonable_python

from treadle.bus.subscription import Subscription
from treadle.domain.events import RunRequiresAction, ToolOutputRecorded
from treadle.domain.result import RunResult
from treadle.domain.state import can_go_on
from treadle.errors import RunInterrupted, TreadleError
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.access import Access, not_authenticated
from treadle.server.api_request import Disconnected
from treadle.server.bodies import ErrorInfo, Result
from treadle.server.open_requests import OpenRequests
from treadle.server.stream import Receive


class RunWait:
    """Waits until a run ends or needs an answer, the client leaves, or the time is over.

    `access` are the credentials of the client, None if they do not end. With `is_patient` a run
    that needs an answer is first done with all that it can do without.
    """

    def __init__(
        self, open_requests: OpenRequests, access: Access | None, *, is_patient: bool = False
    ) -> None:
        self._open = open_requests
        self._access = access
        self._is_patient = is_patient
        self._source: Subscription | None = None
        self._is_over = self._is_refused = self._has_left = False

    async def ended(self, thread: Thread, run: ThreadRun, seconds: float, receive: Receive) -> bool:
        """Returns whether the run has ended.

        Raises 401 `not_authenticated` if the credentials end while it waits, and `Disconnected` if
        the client leaves before the run has ended.
        """
        source = await run.subscribe(await thread.last_seq())
        if source.is_over or seconds <= 0:
            await source.aclose()
            return source.is_over
        self._source = source
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self.cut)
        watching = loop.create_task(self._watch(receive))
        self._open.add(self)
        try:
            may_need_answer = True
            while not (self._is_over or self._open.is_draining):
                while (envelope := source.take()) is not None:
                    may_need_answer |= isinstance(envelope.event, self._changing)
                if may_need_answer and await self._needs_answer(thread, run):
                    break
                may_need_answer = False
                if not (self._is_over or self._open.is_draining):
                    await source.wait()
        except StopAsyncIteration:
            pass  # the run has ended, or the runtime is shutting down
        finally:
            self._open.remove(self)
            timer.cancel()
            watching.cancel()
            await source.aclose()
        if self._is_refused:
            raise not_authenticated("The credentials ended while the request waited for a run.")
        if self._has_left and not source.is_over:
            raise Disconnected
        return source.is_over

    async def _needs_answer(self, thread: Thread, run: ThreadRun) -> bool:
        state = await thread.state()
        active = state.active_run
        if active is None or active.id != run.id or active.status != "requires_action":
            return False
        return not (self._is_patient and can_go_on(state))

    @property
    def _changing(self) -> tuple[type, ...]:
        """The events after which a run may need an answer."""
        return (RunRequiresAction, ToolOutputRecorded) if self._is_patient else (RunRequiresAction,)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        self.cut()

    def tick(self, now: float) -> None:
        """Ends the wait with the credentials of its client."""
        if self._access is not None and not self._access.holds:
            self._is_refused = True
            self.cut()

    def wake(self) -> None:
        """Lets it look whether it should end."""
        if self._source is not None:
            self._source.wake()

    def cut(self) -> None:
        """Ends the wait."""
        self._is_over = True
        self.wake()


async def waits_for_answer(thread: Thread) -> bool:
    """Returns whether the active run of a thread waits for an approval or an output."""
    active = (await thread.state()).active_run
    return active is not None and active.status == "requires_action"


async def result_of(thread: Thread, run: ThreadRun, *, with_history: bool = False) -> Result:
    """Returns the result of a run that has ended, also of one that failed."""
    try:
        result = await run.result(raise_on_incomplete=False)
        shown = _result(result)
        return replace(shown, history=list(result.history)) if with_history else shown
    except RunInterrupted:
        raise
    except TreadleError as error:
        record = await run.info()
        if record.status != "failed":
            raise
        return Result(
            thread_id=thread.id,
            run_id=run.id,
            status="failed",
            stop_reason="failed",
            agent=record.agent,
            usage=record.usage,
            cost=record.cost,
            steps=record.steps,
            error=ErrorInfo(error.code, error.message, error.retryable),
        )


def _result(result: RunResult[Any]) -> Result:
    return Result(
        thread_id=result.thread_id,
        run_id=result.run_id,
        status=result.status,
        stop_reason=result.stop_reason,
        text=result.text,
        output=json_of(result.output, result.text),
        refusal=result.refusal,
        items=list(result.items),
        usage=result.usage,
        cost=result.cost,
        steps=result.steps,
        agent=result.agent,
        is_complete=result.is_complete,
    )


def json_of(output: object, text: str) -> object:
    """Returns an output as JSON values; the text it was made of if it has no such form."""
    try:
        return to_jsonable_python(output)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError):
        return text
