"""A run as a person reads it in a terminal: text as it comes, a line for each thing done."""

import json
from collections.abc import Callable
from typing import assert_never

import click

from weft.events import (
    Event,
    MessageAdded,
    ProviderItemAdded,
    RateLimitHit,
    ReasoningAdded,
    ReasoningDelta,
    RefusalDelta,
    ResponseCompleted,
    Retrying,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunIncomplete,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
)
from weft.items import FunctionCall

MAX_SHOWN = 2000
_CONTROLS = {
    code: "\ufffd" for code in [*range(32), *range(127, 160)] if code not in {ord("\n"), ord("\t")}
}

Write = Callable[[str], None]


class Transcript:
    """Writes the events of runs through `write`, to a terminal of `width` columns.

    What comes from models and tools is printed without control characters, so that it cannot move
    the cursor or change the terminal.
    """

    def __init__(self, write: Write, width: int = 100) -> None:
        self._write = write
        self._width = width
        self._mid_line = False
        self._dim = False

    def show(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case TextDelta() | RefusalDelta():
                self._text(event.delta, dim=False)
            case ReasoningDelta():
                self._text(event.delta, dim=True)
            case ToolCallRequested():
                self.line(f"● {_call(event.item)}")
            case ToolOutputRecorded():
                mark = "✗" if event.item.is_error else "✓"
                took = f"{event.seconds * 1000:.0f} ms"
                self.line(f"{mark} {event.name} ({took})  {_one_line(event.item.text)}")
            case ToolProgress():
                self.line(f"  {event.name}: {_one_line(event.message)}")
            case RateLimitHit() | Retrying():
                self._retry(event)
            case StepInterrupted():
                if self._mid_line:
                    self.line(f"({event.reason}; discard the unfinished text above.)")
            case RunIncomplete():
                self.line(f"(The run stopped before its end: {event.stop_reason}.)")
            case RunCancelled():
                self.line("(Cancelled.)")
            case MessageAdded() | RunCompleted() | RunFailed():
                self.end_line()
            case (
                RunStarted()
                | StepStarted()
                | ReasoningAdded()
                | ProviderItemAdded()
                | ToolCallStarted()
                | ToolArgumentsDelta()
                | ToolStarted()
                | ResponseCompleted()
                | StepCompleted()
            ):
                pass
            case _ as unreachable:
                assert_never(unreachable)

    def line(self, text: str) -> None:
        """Writes a dim line of its own."""
        self.end_line()
        self._write(click.style(self._fitting(clean(text)), dim=True) + "\n")

    def _fitting(self, text: str) -> str:
        return text if len(text) < self._width else text[: self._width - 2] + "…"

    def end_line(self) -> None:
        """Goes to a new line unless the last one is ended."""
        if self._mid_line:
            self._write("\n")
            self._mid_line = False

    def _text(self, text: str, *, dim: bool) -> None:
        if dim != self._dim:
            self.end_line()
            self._dim = dim
        text = clean(text)
        self._write(click.style(text, dim=True) if dim else text)
        self._mid_line = not text.endswith("\n")

    def _retry(self, event: RateLimitHit | Retrying) -> None:
        what = "The provider asks to wait" if isinstance(event, RateLimitHit) else event.message
        self.line(
            f"({_one_line(what)}; trying again in {event.delay:.1f} s, "
            f"{event.retries_remaining} more retries.)"
        )


def clean(text: str) -> str:
    """Returns `text` without control characters but line feed and tab."""
    return text.translate(_CONTROLS)


def _call(call: FunctionCall) -> str:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        return _one_line(f"{call.name}({call.arguments})")
    if not isinstance(arguments, dict):
        return _one_line(f"{call.name}({call.arguments})")
    listed = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in arguments.items()  # type: ignore[reportUnknownVariableType]
    )
    return _one_line(f"{call.name}({listed})")


def _one_line(text: str) -> str:
    return " ".join(text[:MAX_SHOWN].split())
