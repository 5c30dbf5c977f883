"""The output of a run while the model writes it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Generic, cast

from msgspec.structs import replace

from treadle.domain.events import (
    Event,
    HandedOff,
    RunStarted,
    StepStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
)
from treadle.domain.result import RunResult
from treadle.domain.state import Run
from treadle.loop.definition import AgentDefinition, Out, output_tool_of
from treadle.tools.output_type import OUTPUT_TOOL, OutputType
from treadle.tools.partial_output import Growing


async def growing_output(
    events: AsyncGenerator[Event],
    agent_of: Callable[[Run], AgentDefinition[Any, Out]],
    result: Callable[[], Awaitable[RunResult[Out]]],
) -> AsyncGenerator[Out]:
    """Yields the output of a run as far as it has arrived, and at last the output itself.

    Each response starts anew. `events` are those of the run from its beginning on.
    """
    response: _Response[Out] | None = None
    run: Run | None = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta | ToolArgumentsDelta | ToolCallStarted):
                for output in response.feed(event) if response is not None else ():
                    yield output
            elif isinstance(event, RunStarted):
                first = event.agent if event.options is not None else ""
                run = Run(event.run_id, event.agent, options=event.options, first_agent=first)
            elif isinstance(event, HandedOff) and run is not None:
                run = replace(run, agent=event.agent)
            elif isinstance(event, StepStarted) and run is not None:
                response = _Response(agent_of(run))
    yield (await result()).output


class _Response(Generic[Out]):
    """A response that is being written: its text, and the call that gives the output."""

    def __init__(self, agent: AgentDefinition[Any, Out]) -> None:
        output = agent.output
        is_call = output_tool_of(agent) is not None
        self._of_text: Callable[[str], Out] | None = None
        if output is None or (is_call and output.takes_text):
            self._of_text = lambda text: cast("Out", text)
        elif not is_call:
            self._of_text = cast("OutputType[Out]", output).partial()
        self._of_call: Callable[[str], Out] | None = None
        if output is not None and is_call:
            self._of_call = cast("OutputType[Out]", output).partial(is_call=True)
        self._text = Growing()
        self._arguments = Growing()
        self._call = ""

    def feed(self, event: TextDelta | ToolArgumentsDelta | ToolCallStarted) -> Sequence[Out]:
        """Returns the output so far, if a delta adds to it."""
        match event:
            case TextDelta(delta=delta):
                make, text = self._of_text, self._text.grow(delta)
            case ToolArgumentsDelta(item_id=item_id, delta=delta) if item_id == self._call:
                make, text = self._of_call, self._arguments.grow(delta)
            case ToolCallStarted(item_id=item_id, name=name) if name == OUTPUT_TOOL:
                self._call = self._call or item_id  # the first one counts
                return ()
            case _:
                return ()
        if make is None or text is None:
            return ()
        try:
            return (make(text),)
        except ValueError:  # too little has arrived, or nothing new
            return ()
