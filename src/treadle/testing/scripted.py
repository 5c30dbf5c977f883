"""A model that answers from a script, and reports requests that do not follow it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, assert_never

from msgspec import Raw, Struct
from msgspec.structs import replace

from treadle.domain.hosted_tools import HostedTool, remote_call_name
from treadle.domain.items import APPROVAL_REQUEST, FunctionCall, ProviderItem
from treadle.domain.usage import Usage
from treadle.errors import UnconsumedSteps, UnexpectedRequest
from treadle.models.base import ModelRequest
from treadle.streaming.demux import Demux, StreamEvent
from treadle.testing.simulator.turn import (
    Call,
    Hold,
    Hosted,
    Output,
    Pause,
    Reasoning,
    Refusal,
    Text,
    Turn,
    argument_pieces,
    pieces,
)


class Unfinished(Struct, frozen=True):
    """An output whose deltas are sent although it is never finished."""

    output: Text | Reasoning | Refusal | Call


Part = Output | Unfinished | Exception
Step = str | Part | Turn | Sequence[Part]
Script = Iterable[Step | Callable[[ModelRequest], Step]]


class ScriptedModel:
    """Answers the n-th request with the n-th step of `script`.

    A step is a text, an output (`Text`, `Call`, `Reasoning`, `Refusal`, `Hosted`), a sequence of
    outputs, a `Turn`, an exception to raise, or a function of the request that returns one of
    these. An exception inside a sequence is raised after the outputs before it. `Pause` and `Hold`
    wait on the clock of the loop.

    `requests` contains the requests so far. A request beyond the script raises
    `UnexpectedRequest`; used as a context manager, the model raises `UnconsumedSteps` if steps are
    left at the end.
    """

    provider = "scripted"

    def __init__(self, script: Script, *, name: str = "scripted") -> None:
        self.name = name
        self.requests: list[ModelRequest] = []
        self._script = list(script)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.require_consumed()

    @property
    def remaining(self) -> int:
        """The number of steps that were not requested yet."""
        return len(self._script) - len(self.requests)

    def require_consumed(self) -> None:
        """Raises `UnconsumedSteps` when steps of the script are left."""
        if self.remaining > 0:
            raise UnconsumedSteps(
                f"{self.remaining} of {len(self._script)} scripted steps were never requested; "
                "the agent ended earlier than the test expects."
            )

    def tool_refusal(self, tool: HostedTool, /) -> str:
        """Returns "": a script may contain the calls of any hosted tool."""
        return ""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Streams the next step of the script."""
        if self.remaining <= 0:
            raise UnexpectedRequest(
                f"The model got request {len(self.requests) + 1}, but the script has "
                f"{_steps(len(self._script))}; the last item was {_last_item(request)}."
            )
        step = self._script[len(self.requests)]
        self.requests.append(request)
        turn, parts = _as_turn(step(request) if callable(step) else step)
        async for event in _events(turn, parts, _demux(self.provider, request, turn)):
            yield event


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _last_item(request: ModelRequest) -> str:
    return repr(request.items[-1])[:300] if request.items else "none"


def _demux(provider: str, request: ModelRequest, turn: Turn) -> Demux:
    demux = Demux(provider, request.used_call_ids)
    demux.usage = turn.usage or Usage(requests=1)
    return demux


def _as_turn(step: Step) -> tuple[Turn, Sequence[Part]]:
    if isinstance(step, Turn):
        return step, step.outputs
    if isinstance(step, str):
        return Turn(()), [Text(step)]
    if isinstance(step, Sequence):
        return Turn(()), step
    return Turn(()), [step]


async def _events(turn: Turn, parts: Sequence[Part], demux: Demux) -> AsyncGenerator[StreamEvent]:
    await _pass(turn.first)
    for key, part in enumerate(parts):
        match part:
            case Exception():
                raise part
            case Pause():
                await asyncio.sleep(part.seconds)
            case Hold():
                await part.event.wait()
            case Unfinished():
                async for event in _deltas(key, part.output, demux, turn.every):
                    yield event
            case Hosted():
                _host(key, part, demux)
            case Text() | Reasoning() | Refusal() | Call():
                async for event in _deltas(key, part, demux, turn.every):
                    yield event
                if isinstance(part, Text) and part.citations:
                    for citation in part.citations:
                        demux.cite(key, citation)
                    demux.annotate(key, [part.citations])
                if turn.finish == "stop" or key < len(parts) - 1:
                    demux.finish(key)
            case _ as unreachable:
                assert_never(unreachable)
        for event in demux.take():
            yield event
    demux.finish_all(truncated=True)
    demux.end(turn.finish)
    for event in demux.take():
        yield event


def _host(key: int, output: Hosted, demux: Demux) -> None:
    """Shows a call of a hosted tool, or asks for its approval as OpenAI does."""
    call = output.call
    if output.needs_approval:
        name = remote_call_name(call.server, call.name)
        demux.keep(key, {APPROVAL_REQUEST: {"id": call.call_id, "server_label": call.server}})
        demux.finish(key, FunctionCall(call.call_id, name, call.arguments or "{}"))
        return
    demux.hosted(key, replace(call, status="in_progress", output="", sources=()))
    demux.finish(key, ProviderItem(ScriptedModel.provider, Raw(b"{}"), call))


async def _deltas(
    key: int, output: Text | Reasoning | Refusal | Call, demux: Demux, every: float
) -> AsyncGenerator[StreamEvent]:
    for _ in _grow(key, output, demux):
        for event in demux.take():
            yield event
        await _pass(every)


def _grow(key: int, output: Text | Reasoning | Refusal | Call, demux: Demux) -> Iterator[None]:
    match output:
        case Text():
            grow, parts = demux.text, pieces(output.text, output.deltas)
        case Refusal():
            grow, parts = demux.refusal, pieces(output.text, output.deltas)
        case Reasoning():
            grow, parts = demux.reasoning, pieces(output.text, output.deltas)
        case Call():
            demux.call(key, output.call_id or "", output.name)
            grow, parts = demux.arguments, argument_pieces(output)
        case _ as unreachable:
            assert_never(unreachable)
    for part in parts:
        grow(key, part)
        yield


async def _pass(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
