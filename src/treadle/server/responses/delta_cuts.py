"""Where the texts of responses were cut into deltas, for clients that read a stream again."""

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict

MAX_RESPONSES = 500
MAX_DELTAS = 8192


class DeltaCuts:
    """The numbers of the deltas that streams of one response have sent: the last ones, in order."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers = array("Q")

    def add(self, number: int) -> None:
        """Adds the number of a delta."""
        numbers = self._numbers
        if not numbers or number > numbers[-1]:
            numbers.append(number)
        elif numbers[at := bisect_left(numbers, number)] != number:
            numbers.insert(at, number)
        if len(numbers) == MAX_DELTAS:
            del numbers[: MAX_DELTAS // 2]

    def between(self, first: int, last: int) -> list[int]:
        """Returns the numbers from `first` up to the one before `last`."""
        numbers = self._numbers
        if not numbers or first > numbers[-1]:  # the usual case: a text that is being written
            return []
        return list(numbers[bisect_left(numbers, first) : bisect_right(numbers, last - 1)])


class KnownCuts:
    """The cuts of the responses that this process streamed last.

    The client of OpenAI continues a stream by its beginning: it asks for all events, and leaves out
    those up to the number it has. A text that is sent again must therefore be cut where it was cut
    before; as one delta it would be repeated whole.
    """

    def __init__(self) -> None:
        self._cuts: OrderedDict[str, DeltaCuts] = OrderedDict()

    def of(self, response_id: str) -> DeltaCuts:
        """Returns the cuts of a response, which its streams add to."""
        cuts = self._cuts.setdefault(response_id, DeltaCuts())
        self._cuts.move_to_end(response_id)
        if len(self._cuts) > MAX_RESPONSES:
            self._cuts.popitem(last=False)
        return cuts
