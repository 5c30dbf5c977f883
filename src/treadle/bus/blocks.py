"""Joined deltas get their positions: what a reader has seen after each of them."""

from collections.abc import Sequence
from typing import NamedTuple

from treadle.bus.position import LAST_LIVE, Block
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event, delta_in, text_key, with_delta


class Piece(NamedTuple):
    """A live event, or the deltas of one text joined: of live event `first` to `last`."""

    event: Event
    first: int
    last: int


def place(pieces: Sequence[Piece], seq: int, low: int) -> list[Envelope]:
    """Returns the pieces in envelopes; they are all there is after `low`, by their `first`.

    Pieces that do not overlap count by their last event. Those that do are a block: after the
    first of them a single number would promise too much of the others or too little of this one.
    """
    placed: list[Envelope] = []
    group: list[Piece] = []
    high = low
    for piece in pieces:
        if group and piece.first > high:
            placed += _numbered(group, seq, low, high)
            group, low = [], high
        group.append(piece)
        high = max(high, piece.last)
    return placed + _numbered(group, seq, low, high)


def place_rest(pieces: Sequence[Piece], seq: int, block: Block) -> list[Envelope]:
    """Returns those pieces of a block in envelopes that have not been taken."""
    low, high, taken = block
    return [
        Envelope(piece.event, seq, Block(low, high, number).n)
        for number, piece in enumerate(pieces[taken:], taken + 1)
    ]


def _numbered(group: list[Piece], seq: int, low: int, high: int) -> list[Envelope]:
    if len(group) == 1:
        return [Envelope(group[0].event, seq, high)]
    return place_rest(group, seq, Block(low, high, 0))


def join_neighbours(envelopes: Sequence[Envelope]) -> list[Envelope]:
    """Returns the envelopes, deltas of one text that come one after the other as one delta.

    It has the position of the last one: a reader has seen all there was up to it.
    """
    result: list[Envelope] = []
    deltas: list[str] = []
    key: object = None
    for envelope in envelopes:
        delta = delta_in(envelope.event)
        if delta is None or envelope.n > LAST_LIVE:
            _end_join(result, deltas)
            key = None
            result.append(envelope)
            continue
        text = text_key(envelope.event)
        if key == text and result[-1].seq == envelope.seq:
            result[-1] = envelope
        else:
            _end_join(result, deltas)
            result.append(envelope)
        key = text
        deltas.append(delta.delta)
    _end_join(result, deltas)
    return result


def _end_join(result: list[Envelope], deltas: list[str]) -> None:
    if len(deltas) > 1:
        last = result[-1]
        result[-1] = Envelope(with_delta(last.event, "".join(deltas)), last.seq, last.n)
    deltas.clear()
