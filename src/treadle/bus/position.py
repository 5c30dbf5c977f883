"""A position in the stream of a thread: after the durable event `seq` and `n` live ones."""

from typing import NamedTuple

from treadle.errors import InvalidInput


class Position(NamedTuple):
    """`seq.n` as numbers; `n` is None for who knows only the durable events up to `seq`.

    Who was there when event `seq` came has seen the deltas before it (`n` is 0 or more); who read
    the events up to `seq` from elsewhere has not, and gets the items in flight from their start.
    As text they are `seq.n`, `seq` where `n` is 0, and `seq.` where it is None.
    """

    seq: int
    n: int | None = None

    @classmethod
    def parse(cls, value: "int | str | Position") -> "Position":
        """Makes a position of a number, or of the text of an event's position.

        Raises `InvalidInput` for anything else.
        """
        if isinstance(value, Position):
            return value
        if isinstance(value, int):
            if value < 0:
                raise InvalidInput("A position in a thread cannot be negative; 0 is its start.")
            return cls(value)
        seq, dot, n = value.partition(".")
        if not (_is_number(seq) and _is_number(n or "0")):
            raise InvalidInput(f"{value[:40]!r} is no position; give a number, or seq.n.")
        if dot and not n:
            return cls(int(seq))
        return cls(int(seq), int(n or 0))

    @property
    def text(self) -> str:
        """The position as text, for `parse`; before the first event nobody can have missed one."""
        if self.n is None:
            return f"{self.seq}." if self.seq else "0"
        return f"{self.seq}.{self.n}" if self.n else f"{self.seq}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15
