"""The code of a hosted call while the model writes it, as often as people need to see it."""

from collections.abc import Callable, Mapping

from treadle.models.wire.hosted_calls import MAX_TEXT
from treadle.models.wire.loose_json import joined
from treadle.streaming.jsonfields import JsonFieldScanner

_SHARE = 16
"""Code is shown again when it has grown by a line and this share of it."""
_FIELDS: Mapping[str, str] = {"code_execution": "code", "bash_code_execution": "command"}


class HostedCode:
    """Code that grows; `read` makes code of a piece, None if the pieces are code."""

    def __init__(self, read: Callable[[str], str] | None = None) -> None:
        self._read = read
        self._pieces: list[str] = []
        self._fed = self._length = self._shown = 0

    def feed(self, piece: str) -> str:
        """Returns the lines of the code so far if it is time to show them, else ""."""
        self._fed += len(piece)
        if self._fed > MAX_TEXT:
            return ""
        if self._read is not None:
            piece = self._read(piece)
        self._pieces.append(piece)
        self._length += len(piece)
        if "\n" not in piece or self._length - self._shown < self._length // _SHARE:
            return ""
        text = "".join(self._pieces)
        self._pieces, self._shown = [text], self._length
        return joined(text[: text.rindex("\n") + 1])


def messages_code(name: str) -> HostedCode | None:
    """Returns what reads the input of a hosted tool of Messages, None if it is not code."""
    field = _FIELDS.get(name)
    if field is None:
        return None
    # Its limits are beyond what is fed to it.
    scanner = JsonFieldScanner((field,), max_depth=MAX_TEXT)
    return HostedCode(lambda piece: "".join(one.delta for one in scanner.feed(piece)))
