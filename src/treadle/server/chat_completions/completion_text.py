"""The text of a completion: paragraphs, one after another, each to its end."""

from collections.abc import Iterator

BLANK_LINE = "\n\n"


class _Paragraph:
    """A text of the agent: what of it waits to be shown, and what was shown."""

    __slots__ = ("id", "is_finished", "shown", "waiting")

    def __init__(self, id: str) -> None:
        self.id = id
        self.waiting: list[str] = []
        self.shown: list[str] = []
        self.is_finished = False


class CompletionText:
    """Joins the texts of a run, which may grow at the same time, by blank lines.

    A text that has begun is shown to its end before the next one; the others wait.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Paragraph] = {}
        self._first: _Paragraph | None = None
        self._shown: list[_Paragraph] = []

    @property
    def text(self) -> str:
        """All that was shown."""
        return BLANK_LINE.join("".join(one.shown) for one in self._shown)

    def start_of(self, id: str) -> int | None:
        """Returns the place of the text `id` in all that was shown; None if it was not."""
        start = 0
        for one in self._shown:
            if one.id == id:
                return start
            start += sum(map(len, one.shown)) + len(BLANK_LINE)
        return None

    def grow(self, id: str, delta: str) -> str:
        """Returns what is to be shown after the text `id` has grown."""
        paragraph = self._open.get(id) or self._begin(id)
        if paragraph is self._first:
            return self._show(paragraph, delta)
        paragraph.waiting.append(delta)
        return ""

    def finish(self, id: str, text: str) -> str:
        """Returns what is to be shown once the text `id` is complete."""
        paragraph = self._open.get(id)
        if paragraph is None:
            if not text:
                return ""
            paragraph = self._begin(id)
        seen = sum(map(len, paragraph.shown)) + sum(map(len, paragraph.waiting))
        paragraph.waiting.append(text[seen:])
        paragraph.is_finished = True
        return "".join(self._advance())

    def take_back(self) -> bool:
        """Drops the texts that are not complete; returns whether some of them was shown."""
        dropped = [one for one in self._open.values() if one.shown]
        self._open.clear()
        self._first = None
        self._shown = [one for one in self._shown if one not in dropped]
        return bool(dropped)

    def _begin(self, id: str) -> _Paragraph:
        paragraph = self._open[id] = _Paragraph(id)
        if self._first is None:
            self._first = paragraph
        return paragraph

    def _advance(self) -> Iterator[str]:
        """Yields what waited behind texts that are complete now."""
        while self._first is not None:
            paragraph = self._first
            waiting = "".join(paragraph.waiting)
            paragraph.waiting.clear()
            yield self._show(paragraph, waiting)
            if not paragraph.is_finished:
                return
            del self._open[next(iter(self._open))]
            self._first = next(iter(self._open.values()), None)

    def _show(self, paragraph: _Paragraph, text: str) -> str:
        if not text:
            return ""
        is_new = not paragraph.shown
        paragraph.shown.append(text)
        if is_new:
            self._shown.append(paragraph)
            if len(self._shown) > 1:
                return BLANK_LINE + text
        return text
