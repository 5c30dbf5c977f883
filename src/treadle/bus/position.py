"""A position in the stream of a thread: what a reader has seen of it.

Outside this package a position is the text `seq.n`. Usually `n` is the number of the live event
that the reader saw last, counted from the durable event `seq`. Where the deltas of several texts
were joined, the reader has seen one text further than another, and no single number says so;
`n` is then a `Block` in one integer.
"""

from typing import NamedTuple

from treadle.domain.envelope import Envelope
from treadle.errors import InvalidInput

_DIGITS = 15
_BASE = 10**_DIGITS


COMPLETED = _BASE - 1
"""The number of the last delta that completes a text right before the next durable event.

Where the deltas of a text broke off, or none is remembered, what is missing follows from the event
of its item. If several texts are completed there, the others have the numbers before this one. A
reader that has seen all of them needs nothing else of this `seq`, in any process.
"""

MOST_TEXTS = 8
"""How many texts an item has at most."""

LAST_LIVE = COMPLETED - MOST_TEXTS
"""The greatest `n` that a live event has which does not complete a text."""

BLOCKS = _BASE * _BASE
"""The least `n` that stands for a block: one of its texts has been seen."""

UNSEEN = -1
"""The `n` of an envelope after which a reader has seen none of the texts in flight."""


class Block(NamedTuple):
    """Live events whose deltas were joined by text, and how many of the texts have been seen.

    The block covers the live events `low < n <= high` after one durable event. Its texts come in
    the order in which they first grew in it. Of the first `taken` of them the reader has seen all
    of the block, of the others nothing; of what was before the block it has seen all.

    In the block with `high` 0 are the texts in flight that began before the durable event.
    """

    low: int
    high: int
    taken: int

    @property
    def n(self) -> int:
        """The block as one integer, of at most 45 digits; see `block_in`."""
        return (self.taken * _BASE + self.low) * _BASE + self.high


def unseen_but(left: int) -> int:
    """Returns the `n` of a reader that knows of the texts in flight only the next item's.

    Of that item all texts but the last `left` have been seen, each whole; see `left_in`.
    """
    return Block(COMPLETED - 1, COMPLETED, left + 1).n


def left_in(n: int) -> int | None:
    """Returns `left` if `n` is from `unseen_but`, else None."""
    block = block_in(n)
    is_one = block is not None and block[:2] == (COMPLETED - 1, COMPLETED)
    return block.taken - 1 if block is not None and is_one else None


def block_in(n: int) -> Block | None:
    """Returns the block that `n` stands for; None if it is the number of a live event."""
    if n < _BASE:
        return None
    rest, high = divmod(n, _BASE)
    taken, low = divmod(rest, _BASE)
    return Block(low, high, taken)


def is_early(n: int) -> bool:
    """Whether `n` is of a text in flight from its start, up to the durable event before it."""
    return n >= BLOCKS and n % BLOCKS == 0


def last_in(n: int) -> int:
    """Returns the number of the last live event that a position with `n` has to do with."""
    return n % _BASE


class Position(NamedTuple):
    """`seq.n` as numbers; `n` is None for a reader that has seen only durable events up to `seq`.

    A reader that was subscribed when event `seq` came has seen the deltas before it (`n` is 0 or
    more). A reader that read the events up to `seq` from the journal has not: it gets the texts in
    flight from their start. The text of a position is `seq.n`, `seq` if `n` is 0, and `seq.` if it
    is None.
    """

    seq: int
    n: int | None = None

    @classmethod
    def parse(cls, value: "int | str | Position") -> "Position":
        """Makes a position of the number of a durable event, or of the text of a position.

        Raises `InvalidInput` for anything else.
        """
        if isinstance(value, Position):
            return value
        if isinstance(value, int):
            if value < 0:
                raise InvalidInput("A position in a thread cannot be negative; 0 is its start.")
            return cls(value)
        seq, dot, n = value.partition(".")
        if not (_is_number(seq, _DIGITS) and _is_number(n or "0", 3 * _DIGITS) and _is_n(n)):
            raise InvalidInput(
                f"{value[:40]!r} is not a valid position; give the number of an event, or the "
                "position of a subscription."
            )
        if dot and not n:
            return cls(int(seq))
        return cls(int(seq), int(n or 0))

    @property
    def text(self) -> str:
        """The position as text, for `parse`: at most 61 characters."""
        if self.n is None:
            # Before the first event there is nothing that a reader can have missed.
            return f"{self.seq}." if self.seq else "0"
        return f"{self.seq}.{self.n}" if self.n else f"{self.seq}"


def position_of(envelope: Envelope) -> Position:
    """Returns the position of a reader that has seen an event."""
    return Position(envelope.seq, envelope.n if envelope.n >= 0 else None)


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def _is_n(text: str) -> bool:
    block = block_in(int(text or 0))
    return block is None or block.low < block.high or block.low == block.high == 0
