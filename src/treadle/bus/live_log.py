"""The live events that a reader can come back to: growth of texts, and what other agents did."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby, islice
from operator import attrgetter
from typing import cast

from msgspec.structs import replace

from treadle.bus.blocks import Piece, place, place_rest
from treadle.bus.position import Block, Position, block_in, last_in
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    Delta,
    DurableEvent,
    Event,
    FieldDelta,
    HostedCallProgress,
    LiveEvent,
    RecordedEvent,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    TextDelta,
    ToolCallStarted,
    ToolOutputRecorded,
    delta_in,
    field_in,
    streamed,
    text_key,
    with_delta,
)

_Announcement = ToolCallStarted | HostedCallProgress

MAX_EVENTS = 1000
"""How many events of other agents are kept at least; the oldest are dropped at twice as many."""

_Scope = tuple[str, ...]
"""The threads of other agents through which an event came; empty for the thread's own."""


class _Text:
    """A text that the model writes, or the announcement of a call, of a hosted tool as well."""

    __slots__ = ("call_id", "grown", "item_id", "landed", "scope")

    def __init__(self, scope: _Scope, item_id: str, call_id: str) -> None:
        self.scope = scope
        self.item_id = item_id
        self.call_id = call_id  # of this thread, for which another agent writes it
        self.grown = 0  # before the last stretch
        self.landed: int | None = None


class _Stretch:
    """What a text grew by between two durable events."""

    __slots__ = ("deltas", "ends", "event", "numbers", "packed", "seq", "text")

    def __init__(self, text: _Text, seq: int, event: Event) -> None:
        self.text = text
        self.seq = seq
        self.event = event
        # Numbers of eight bytes and joined strings: a run may have a hundred thousand deltas.
        self.numbers = array("q")
        self.ends = array("q")
        self.packed = ""
        self.deltas: list[str] = []  # what was not packed yet

    @property
    def length(self) -> int:
        """How many characters the text grew by."""
        return len(self.pack())

    def pack(self) -> str:
        """Keeps the deltas as one string, and returns it."""
        if self.deltas:
            lengths = accumulate(map(len, self.deltas), initial=len(self.packed))
            self.ends.extend(islice(lengths, 1, None))
            self.packed += "".join(self.deltas)
            self.deltas.clear()
        return self.packed

    def between(self, low: int, high: int | None = None) -> Piece | None:
        """Returns the growth of live event `low` (exclusive) to `high` (inclusive), if any."""
        numbers = self.numbers
        begin = bisect_right(numbers, low)
        end = len(numbers) if high is None else bisect_right(numbers, high)
        if begin >= end:
            return None
        event = self.event
        if delta_in(event) is not None:
            packed = self.pack()
            start = self.ends[begin - 1] if begin else 0
            event = with_delta(event, packed[start : self.ends[end - 1]])
        return Piece(event, numbers[begin], numbers[end - 1])


class _AgentStretch(_Stretch):
    """An event that is durable on the thread of another agent: in this log, it has landed."""

    __slots__ = ()

    def __init__(self, seq: int, n: int, event: AgentEvent) -> None:
        text = _Text((), "", "")
        # As of the next durable event: a reader that knows only those up to `seq` has not seen it.
        text.landed = seq + 1
        super().__init__(text, seq, event)
        self.numbers.append(n)


class LiveLog:
    """The deltas and announced calls of a thread, its own and those of agents that work for it.

    Texts in flight are kept, and those that landed (their item is durable, or was cut off) in the
    run in progress or the one before it. So a reader that comes back within these gets each text
    to its last character. One that comes back later reads of older texts the durable event alone.

    The events that are durable on the threads of these agents are kept as long, up to `MAX_EVENTS`.
    """

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []  # in the order in which they began
        self._events = 0  # how many of them are events of other agents
        self._in_flight: dict[object, _Stretch] = {}  # the last one of each text
        self._runs: tuple[int, int] = (0, 0)
        self._heard: dict[_Scope, int] = {}  # the last durable event of each other agent

    @property
    def is_in_flight(self) -> bool:
        """Whether there is a text that has not landed."""
        return bool(self._in_flight)

    def add(self, event: Event, seq: int, n: int) -> None:
        """Takes note of the live event `n` after the durable event `seq`."""
        if type(event) is TextDelta:  # nearly all events are
            delta: Delta | None = event
            key: object = TextDelta, event.item_id, ""
        else:
            delta = delta_in(event)
            key = text_key(event)
        if delta is None:
            scope, inner = _unwrap(event)
            if not isinstance(inner, _Announcement):
                if isinstance(event, AgentEvent):
                    # As of the next durable event: a reader that knows only those up to `seq` has
                    # not seen the text.
                    self.land(event, seq + 1)
                    if isinstance(inner, DurableEvent):
                        self._keep(_AgentStretch(seq, n, event))
                return  # of the moment: a reader that lags misses it
            key = scope, type(inner), inner.item_id
        stretch = self._in_flight.get(key)
        if stretch is None or stretch.seq != seq:
            if stretch is None:
                text = _text_of(event)
            else:
                text = stretch.text
                text.grown += stretch.length
                stretch.pack()
            stretch = self._in_flight[key] = _Stretch(text, seq, event)
            self._stretches.append(stretch)
        if delta is None:
            stretch.event = event  # the newest of a call contains all that is known of it
        stretch.numbers.append(n)
        stretch.deltas.append("" if delta is None else delta.delta)

    def land(self, event: Event, seq: int) -> None:
        """Takes note of the texts that `event` ends: from the durable event `seq` on they are past.

        The event is durable on this thread, or on that of another agent.
        """
        scope, inner = _unwrap(event)
        if self._in_flight:
            self._land(scope, inner, seq)
        if isinstance(inner, RunStarted) and not scope:
            self._forget(seq)

    def length(self, event: Event) -> int | None:
        """Returns how many characters of a text in flight are known, or None if it is not known.

        `event` extends the text, or announces the call.
        """
        stretch = self._in_flight.get(_key(event))
        return None if stretch is None else stretch.text.grown + stretch.length

    def is_repeated(self, event: AgentEvent) -> bool:
        """Takes note of an event of another agent; returns whether it is durable and came before.

        The process that resumes a run shows what the one before may not have shown.
        """
        scope, inner = _unwrap(event)
        if not isinstance(inner, DurableEvent) or not inner.seq:
            return False
        is_new = inner.seq > self._heard.get(scope, 0)
        if is_new:
            self._heard[scope] = inner.seq
        return not is_new

    def missing(self, event: Event) -> Sequence[LiveEvent]:
        """Returns the rests of texts in flight whose item `event` makes durable.

        There are some if the deltas broke off, for example because another process streamed them
        and was killed. A text of which nothing is known is not among them: a reader may have seen
        its beginning elsewhere. `event` may come from the thread of another agent.
        """
        if not self._in_flight:
            return ()
        scope, inner = _unwrap(event)
        item_id = getattr(getattr(inner, "item", None), "id", "")
        if not item_id:
            return ()
        whole = [_wrapped(one, event) for one in streamed(cast("RecordedEvent", inner))]
        for stretch in self._in_flight.values():
            growing = delta_in(stretch.event)
            if type(growing) is not FieldDelta or stretch.text.scope != scope:
                continue
            if growing.item_id == item_id:
                value = field_in(cast("RecordedEvent", inner), growing.field)
                whole.append(cast("LiveEvent", with_delta(stretch.event, value)))
        return [rest for one in whole if (rest := self._rest(one)) is not None]

    def _rest(self, whole: LiveEvent) -> LiveEvent | None:
        """Returns the last characters of a text in flight that is known in part, if that is so."""
        delta, stretch = delta_in(whole), self._in_flight.get(text_key(whole))
        if delta is None or stretch is None:
            return None
        known = stretch.text.grown + stretch.length
        if not known or known >= len(delta.delta):
            return None
        seen = "".join(one.pack() for one in self._stretches if one.text is stretch.text)
        rest = cast("LiveEvent", with_delta(whole, delta.delta[known:]))
        return rest if delta.delta.startswith(seen) else None

    def after(self, position: Position) -> list[Envelope]:
        """Returns the live events that a reader at `position` has not seen, in order.

        The deltas of a text are joined between two durable events, of this thread or of another
        agent. Deltas from before the event
        `position.seq`, of texts that had not landed by it, come first if the reader was not there.
        """
        seq, n = position
        block = Block(0, 0, 0) if n is None else block_in(n)
        low = 0 if n is None else last_in(n)
        result: list[Envelope] = []
        if block is not None and block.high == 0:
            result += place_rest(self._early(seq), seq, block)
        first = bisect_left(self._stretches, seq, key=attrgetter("seq"))
        for at, group in groupby(self._stretches[first:], attrgetter("seq")):
            stretches = list(group)
            if at == seq and block is not None and block.high:
                pieces = _pieces(stretches, block.low, block.high)
                result += place_rest(pieces, seq, block)
            start = low if at == seq else 0
            if at > seq and stretches[0].numbers[0] == 0:
                # Followed from here on: what there was before comes first.
                result += place_rest(_pieces(stretches, -1, 0), at, Block(0, 0, 0))
            result += place(_pieces_after(stretches, start), at, start)
        return result

    def _keep(self, stretch: _AgentStretch) -> None:
        self._stretches.append(stretch)
        self._events += 1
        if self._events < 2 * MAX_EVENTS:
            return
        old = [one for one in self._stretches if isinstance(one, _AgentStretch)][:-MAX_EVENTS]
        dropped = set(old)
        self._stretches = [one for one in self._stretches if one not in dropped]
        self._events = MAX_EVENTS

    def _land(self, scope: _Scope, event: Event, seq: int) -> None:
        item_id = getattr(getattr(event, "item", None), "id", "")
        # An agent that was cancelled may not be heard of any more; its call has an output then.
        call_id = ""
        if isinstance(event, ToolOutputRecorded) and not scope:
            call_id = event.item.call_id
        ends_all = isinstance(
            event, StepCompleted | StepInterrupted | StepStarted | RunStarted | TerminalEvent
        )
        for key, stretch in list(self._in_flight.items()):
            text = stretch.text
            if text.scope == scope:
                lands = ends_all or bool(item_id and text.item_id == item_id)
            else:
                lands = bool(call_id and text.call_id == call_id)
            if lands:
                text.landed = seq
                stretch.pack()
                del self._in_flight[key]

    def _early(self, seq: int) -> list[Piece]:
        """Returns what there was of each text in flight when durable event `seq` came."""
        texts: dict[_Text, list[Piece]] = {}
        for stretch in self._stretches:
            text = stretch.text
            if stretch.seq <= seq and (text.landed is None or text.landed > seq):
                piece = stretch.between(-1, 0 if stretch.seq == seq else None)
                if piece is not None:
                    texts.setdefault(text, []).append(piece)
        return [_join(pieces) for pieces in texts.values()]

    def _forget(self, started: int) -> None:
        """Drops the texts that landed before the run before the one that starts now."""
        self._heard.clear()
        before, self._runs = self._runs[1], (self._runs[1], started)
        if before:
            self._stretches = [
                stretch
                for stretch in self._stretches
                if stretch.text.landed is None or stretch.text.landed >= before
            ]
            self._events = sum(isinstance(one, _AgentStretch) for one in self._stretches)


def _unwrap(event: Event) -> tuple[_Scope, Event]:
    scope: list[str] = []
    while isinstance(event, AgentEvent):
        scope.append(event.thread_id)
        event = event.event
    return tuple(scope), event


def _key(event: Event) -> object:
    """Returns the key of a text or of an announced call; None for any other event."""
    scope, inner = _unwrap(event)
    if isinstance(inner, _Announcement):
        return scope, type(inner), inner.item_id
    return text_key(event)


def _wrapped(inner: LiveEvent, event: Event) -> LiveEvent:
    """Returns `inner` as an event of the agent from whose thread `event` comes."""
    if isinstance(event, AgentEvent):
        return replace(event, event=_wrapped(inner, event.event))
    return inner


def _text_of(event: Event) -> _Text:
    scope, inner = _unwrap(event)
    assert isinstance(inner, Delta | _Announcement)
    return _Text(scope, inner.item_id, event.call_id if isinstance(event, AgentEvent) else "")


def _pieces(stretches: Iterable[_Stretch], low: int, high: int | None = None) -> list[Piece]:
    return _by_start(stretch.between(low, high) for stretch in stretches)


def _pieces_after(stretches: Sequence[_Stretch], low: int) -> list[Piece]:
    """Returns what came after live event `low`; no text is joined across an agent's event."""
    cuts = [one.numbers[0] for one in stretches if isinstance(one, _AgentStretch)]
    pieces: list[Piece | None] = []
    for stretch in stretches:
        numbers, start = stretch.numbers, low
        begin = bisect_right(numbers, low)
        if begin == len(numbers):
            continue
        for cut in cuts[bisect_left(cuts, numbers[begin]) : bisect_left(cuts, numbers[-1])]:
            pieces.append(stretch.between(start, cut))
            start = cut
        pieces.append(stretch.between(start))
    return _by_start(pieces)


def _by_start(pieces: Iterable[Piece | None]) -> list[Piece]:
    return sorted((piece for piece in pieces if piece is not None), key=attrgetter("first"))


def _join(pieces: list[Piece]) -> Piece:
    event = pieces[0].event
    if delta_in(event) is None:
        event = pieces[-1].event
    elif len(pieces) > 1:
        deltas = [delta for piece in pieces if (delta := delta_in(piece.event)) is not None]
        event = with_delta(event, "".join(delta.delta for delta in deltas))
    return Piece(event, 0, 0)
