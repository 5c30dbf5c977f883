"""Tells which tool call a piece of `tool_calls` belongs to.

OpenAI gives each call an index, which all of its pieces carry, and an id, which its first piece
carries. Servers leave out either or both, give all calls the same, or a new one to each piece. What
is always true: the first piece of a call has its name, calls do not nest, and arguments are one
JSON object, so that a name after a complete object begins the next call.
"""

import json
from collections.abc import Mapping

from treadle.domain.items import FunctionCall
from treadle.errors import StreamInvalid
from treadle.streaming.demux import Demux, ItemFinished

_NONE_YET = 8


class _Call:
    """A call of the response; `start` is the beginning of its arguments, `arguments` their whole.

    `next_name` is a name that came without arguments after the call was complete: a repetition, or
    the beginning of the next call if arguments follow.
    """

    def __init__(self, place: int, wire_id: str) -> None:
        self.place = place
        self.wire_id = wire_id
        self.name = ""
        self.start = ""
        self.pieces: list[str] = []
        self.is_open = True
        self.arguments = ""
        self.next_name = ""

    @property
    def is_empty(self) -> bool:
        return not self.start or self.start.strip() == "{}"


class ChatCalls:
    """The calls of one response, reported to `demux` under their places."""

    def __init__(self, demux: Demux) -> None:
        self._demux = demux
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def add(
        self,
        index: int | None,
        wire_id: str,
        name: str,
        arguments: str,
        *,
        is_whole: bool = False,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Adds a piece; `is_whole` if it is a whole call of a response that is not streamed.

        `fields` are others of the piece that the server needs back.
        """
        if not name and index is not None:  # nearly all pieces are arguments under an index
            known = self._by_index.get(index)
            if known is not None and known.is_open:
                if fields:
                    self._demux.keep(known.place, fields)
                self._grow(known, arguments)
                return
        call = None if is_whole else self._find(index, wire_id, name)
        if call is None:
            if not (wire_id or name) and not arguments.strip():
                return
            call = self._begin(index, wire_id, name)
        elif _is_next(call, wire_id, name, arguments):
            name, call.next_name = name or call.next_name, ""
            call = self._begin(index, wire_id, name)
        elif name and not call.is_open and not arguments.strip():
            call.next_name = name
        if fields:
            self._demux.keep(call.place, fields)
        if name and not call.name:
            self._name(call, name)
        self._grow(call, arguments)

    def require_complete(self) -> None:
        """Raises `StreamInvalid` if a call has no name."""
        if any(call.pieces for call in self._calls):
            raise StreamInvalid(
                "The provider sent arguments for a call without a name; report it to the provider."
            )

    @property
    def has_half_call(self) -> bool:
        """Whether the arguments of a call have begun and not ended."""
        return any(call.is_open and not call.is_empty for call in self._calls)

    def _find(self, index: int | None, wire_id: str, name: str) -> _Call | None:
        """Returns the call that the piece belongs to unless it begins one; None if it must."""
        if index is not None and index in self._by_index:
            return self._by_index[index]
        known = self._by_id.get(wire_id) if wire_id else None
        if known is not None and (index is None or not name):
            return known
        last = self._calls[-1] if self._calls else None
        if index is not None:
            # A new index with a name is a new call, and with an id one whose name comes later.
            return None if name or wire_id else last
        if not wire_id:
            return last
        return last if last is not None and last.is_open and not name else None

    def _begin(self, index: int | None, wire_id: str, name: str) -> _Call:
        call = _Call(len(self._calls), wire_id)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        if wire_id:
            self._by_id[wire_id] = call
        if name:
            self._name(call, name)
        return call

    def _name(self, call: _Call, name: str) -> None:
        call.name = name
        self._demux.call(call.place, call.wire_id, name)
        pieces, call.pieces = call.pieces, []
        for piece in pieces:
            self._grow(call, piece)

    def _grow(self, call: _Call, piece: str) -> None:
        if not piece:
            return
        if not call.is_open:
            if piece == call.arguments:
                return  # the whole arguments again
        elif len(call.start) < _NONE_YET:
            if not call.name:
                call.pieces.append(piece)
                return
            if not call.start and piece.strip() == "null":
                return
            call.start += piece
        if self._demux.arguments(call.place, piece):
            self._demux.finish(call.place)
            call.is_open = False
            event = self._demux.events[-1]
            if isinstance(event, ItemFinished) and isinstance(event.item, FunctionCall):
                call.arguments = event.item.arguments


def _is_next(call: _Call, wire_id: str, name: str, arguments: str) -> bool:
    """Whether a piece under the index or id of `call` begins the next call."""
    says = bool(arguments.strip())
    if not name:
        is_repetition = bool(call.wire_id) and arguments == call.arguments
        return says and not call.is_open and bool(call.next_name) and not is_repetition
    if wire_id and call.wire_id and wire_id != call.wire_id:
        return True
    has_same_id = bool(wire_id) and wire_id == call.wire_id
    if call.is_open:
        if not call.name or has_same_id:
            return False
        return name != call.name or (says and call.is_empty and bool(call.start))
    if has_same_id:
        return says and arguments != call.arguments
    return says or name != call.name


def text_of(arguments: object) -> str:
    """Returns arguments, which some servers send as an object, as JSON."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
