"""The fields of a response that are shown while the model writes them.

The announcements of calls, chosen string parameters of tools, and chosen string fields of the
structured output: each becomes separate, decoded events, in addition to the raw deltas.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from treadle.domain.events import (
    FieldDelta,
    LiveEvent,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
    ToUserDelta,
)
from treadle.errors import StreamInvalid
from treadle.streaming.jsonfields import JsonFieldScanner

# Models often put a code fence before JSON; the parser of the finished text removes it as well.
_FENCE = re.compile(r"\s*```(?:json)?\s*\n\s*\Z")
_MAX_FENCE = 100
_NOTHING: Sequence[LiveEvent] = ()


class StreamedParameters(NamedTuple):
    """The streamed parameters of a tool: the announcement to the user, if any, and others.

    `is_output`: the arguments are the structured output.
    """

    to_user: str
    fields: tuple[str, ...]
    is_output: bool = False


class _Call:
    """A tool call that is being written."""

    def __init__(self, call_id: str, streamed: StreamedParameters) -> None:
        self._call_id = call_id
        # A field of the structured output has no call, however the model writes it.
        self._field_call_id = "" if streamed.is_output else call_id
        self._to_user = streamed.to_user
        wanted = (streamed.to_user, *streamed.fields) if streamed.to_user else streamed.fields
        self._scanner = JsonFieldScanner(wanted)

    def feed(self, item_id: str, delta: str) -> Sequence[LiveEvent]:
        growths = self._scanner.feed(delta)
        if not growths:
            return _NOTHING
        return [
            ToUserDelta(item_id, self._call_id, growth)
            if field == self._to_user
            else FieldDelta(item_id, self._field_call_id, field, growth)
            for field, growth, _ in growths
            if growth
        ]


class _Output:
    """A message that will be the structured output."""

    def __init__(self, fields: Collection[str]) -> None:
        self._scanner = JsonFieldScanner(fields)
        self._before: str | None = ""

    def feed(self, item_id: str, delta: str) -> Sequence[LiveEvent]:
        if self._before is not None:
            delta = self._from_object(self._before + delta)
        return [
            FieldDelta(item_id, "", field, growth)
            for field, growth, _ in self._scanner.feed(delta)
            if growth
        ]

    def _from_object(self, text: str) -> str:
        """Returns the text from its object on, without the fence before it."""
        opening, brace, rest = text.partition("{")
        if not brace and len(text) < _MAX_FENCE:
            self._before = text
            return ""
        self._before = None
        return brace + rest if brace and _FENCE.match(opening) else text


class StreamedFields:
    """Turns the raw deltas of one response into those of its streamed fields.

    `parameters_of` returns the streamed parameters of a tool by its name, None if it has none;
    `output` are the streamed fields of the structured output. A value that is not a string yields
    nothing. If the JSON is broken, or exceeds the limits of the scanner, the item yields nothing
    more and nothing is raised: the parser of the finished item reports the error.
    """

    def __init__(
        self,
        parameters_of: Callable[[str], StreamedParameters | None],
        output: Collection[str] = (),
    ) -> None:
        self._parameters_of = parameters_of
        self._output = output
        self._items: dict[str, _Call | _Output | None] = {}

    def feed(self, event: LiveEvent) -> Sequence[LiveEvent]:
        """Returns the events that follow `event`."""
        if isinstance(event, ToolArgumentsDelta):
            return self._grown(event)
        if isinstance(event, TextDelta):
            if not self._output:
                return _NOTHING
            if event.item_id not in self._items:
                self._items[event.item_id] = _Output(self._output)
            return self._grown(event)
        if isinstance(event, ToolCallStarted):
            streamed = self._parameters_of(event.name)
            if streamed is not None:
                self._items[event.item_id] = _Call(event.call_id, streamed)
        return _NOTHING

    def _grown(self, event: TextDelta | ToolArgumentsDelta) -> Sequence[LiveEvent]:
        item = self._items.get(event.item_id)
        if item is None:
            return _NOTHING
        try:
            return item.feed(event.item_id, event.delta)
        except StreamInvalid:
            self._items[event.item_id] = None
            return _NOTHING
