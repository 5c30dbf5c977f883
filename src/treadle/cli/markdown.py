"""Markdown that arrives in pieces, rendered for a terminal as far as it is known.

Words are written as they arrive. Marks are written as styles: a span is held back until its end has
arrived, at most `MAX_SPAN` characters, and is plain text if it has none. A table is held back until
it is complete. What is written is final; see `Wrapper`.
"""

import re
from collections.abc import Callable

from treadle.cli.wrap import PLAIN, Style, Wrapper, columns

MAX_SPAN = 400
MAX_TABLE = 200
"""Lines of a table that are held back at most."""

BOLD: Style = frozenset({"bold"})
DIM: Style = frozenset({"dim"})

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})[^`]*$")
_HEADING = re.compile(r"(#{1,6})\s+")
_BULLET = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(\s+)(\[[ xX]\]\s+)?")
_QUOTE = re.compile(r"\s{0,3}((?:>\s?)+)")
_RULE = re.compile(r"\s{0,3}([-*_])\s*(?:\1\s*){2,}$")
_SEPARATOR = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
# The beginning of a line that may still become something else than a paragraph.
_UNDECIDED = re.compile(
    r"\s*$|\s{0,3}(#{1,6}\s*|`{1,2}|`{3,}[^`]*|~{1,2}|~{3,}.*|\d{1,9}[.)]?|([-*_]\s*)+|[+>]|\|.*)$"
    r"|\s*([-*+]|\d{1,9}[.)])\s+(\[[ xX]?\]?)?$"
)
_SPANS = (
    # The whole span, its text, its style. Marks within words are none, as in snake_case.
    (re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)"), frozenset({"bold"}), False),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), BOLD, True),
    (re.compile(r"(~~)(?=\S)(.+?)(?<=\S)~~"), frozenset({"strikethrough"}), True),
    (re.compile(r"(\*|_)(?=[^\s*_])([^*_]*?[^\s*_])\1(?!\w)"), frozenset({"italic"}), True),
)
_LINK = re.compile(r"!?\[([^\]]*)\]\(<?([^()\s>]*(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+\"[^\"]*\")?\)")
_OPEN_LINK = re.compile(r"!?\[[^\]]*(\](\([^\n]*)?)?")
_MARK = re.compile(r"[`*_~!\[\\]")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


class Markdown:
    """Renders Markdown through `write`, to `width` columns."""

    def __init__(self, write: Callable[[str], None], width: int) -> None:
        self._out = Wrapper(write, width)
        self._width = width
        self._line = ""  # of which nothing is written
        self._rest = ""  # of a paragraph, in which a span may be open
        self._is_begun = False  # whether the beginning of this line is written
        self._style: Style = PLAIN  # of the whole line, as of a heading
        self._last = ""  # the last character of this line that was written
        self._fence = ""
        self._table: list[str] = []
        self._was_blank = True

    @property
    def is_mid_line(self) -> bool:
        """Whether something is not ended: a line, or what is held back."""
        return bool(self._line or self._rest or self._table or self._out.is_mid_line)

    def add(self, text: str) -> None:
        """Adds the next piece of the text."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._add(line)
            self._end()
        self._add(rest)

    def close(self) -> None:
        """Writes what was held back, and ends the line; what follows is another text."""
        if self._line or self._rest or self._is_begun:
            self._end()
        self._write_table()
        self._out.end_line()
        self._fence = ""
        self._was_blank = True

    def _add(self, text: str) -> None:
        if self._is_begun:
            self._rest += text
            self._write_spans(is_end=False)
            return
        self._line += text
        if self._fence or not self._line:
            return
        quote = _QUOTE.match(self._line)
        if not _UNDECIDED.match(self._line, quote.end() if quote else 0):
            self._begin()

    def _end(self) -> None:
        """Ends a line of the text."""
        line = self._line
        if self._is_begun:
            self._write_spans(is_end=True)
            # A line break in a paragraph is kept: models mean it.
            self._out.end_line()
            self._is_begun, self._rest, self._style = False, "", PLAIN
        elif self._fence:
            self._code(line)
        elif not line.strip():
            self._write_table()
            self._blank()
        elif fence := _FENCE.match(line):
            self._write_table()
            self._fence = fence[2]
        elif "|" in line and (self._table or line.lstrip().startswith("|")):
            self._table.append(line)
            if len(self._table) > MAX_TABLE:
                self._write_table()
        elif _RULE.match(line):
            self._write_table()
            self._out.verbatim("─" * min(self._width, 40), DIM)
            self._out.end_line()
        else:
            self._begin()
            self._end()
            return
        if line.strip():
            self._was_blank = False
        self._line = ""

    def _begin(self) -> None:
        """Writes the beginning of a line that is neither code nor a table."""
        self._write_table()
        line, self._line = self._line, ""
        self._is_begun, self._was_blank, self._last = True, False, ""
        if quote := _QUOTE.match(line):
            bars = "│ " * quote[1].count(">")
            self._out.verbatim(bars, DIM)
            self._out.indent(bars)
            line = line[quote.end() :]
        if heading := _HEADING.match(line):
            self._style = BOLD
            line = line[heading.end() :]
        elif bullet := _BULLET.match(line):
            mark = bullet[2] if bullet[2][0].isdigit() else "•"
            box = {"": "", "[ ]": "☐ "}.get((bullet[4] or "").strip(), "☑ ")
            head = f"{bullet[1]}{mark} {box}"
            self._out.verbatim(head)
            self._out.indent(" " * len(head))
            line = line[bullet.end() :]
        self._rest = line
        self._write_spans(is_end=False)

    def _blank(self) -> None:
        if not self._was_blank:
            self._out.blank_line()
        self._was_blank = True

    def _code(self, line: str) -> None:
        if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""
            return
        self._out.verbatim(f"    {line}".rstrip())
        if line.strip():
            self._out.end_line()
        else:
            self._out.blank_line()

    # Spans

    def _write_spans(self, *, is_end: bool) -> None:
        """Writes what is known of the line; at its end, all of it."""
        while self._rest:
            mark = _MARK.search(self._rest)
            if mark is None:
                self._plain(self._rest)
                self._rest = ""
                return
            self._plain(self._rest[: mark.start()])
            self._rest = self._rest[mark.start() :]
            may_grow = not is_end and len(self._rest) < MAX_SPAN
            size = self._span(may_grow=may_grow)
            if not size:
                if may_grow and self._may_end():
                    return
                # A run of one mark is whole: the second star of two opens nothing.
                mark = self._rest[0]
                size = 1 if mark in "![\\" else len(self._rest) - len(self._rest.lstrip(mark))
                self._plain(self._rest[:size])
            self._rest = self._rest[size:]

    def _span(self, *, may_grow: bool) -> int:
        """Writes the span or the escaped character that begins here; returns its length.

        A span at the very end is none yet if the text may grow: what follows decides its end.
        """
        rest = self._rest
        if escaped := _ESCAPED.match(rest):
            self._plain(escaped[1])
            return 2
        if link := _LINK.match(rest, 0, MAX_SPAN):
            text, url = link[1], link[2]
            self._spans_of(text or url, frozenset({"underline"}))
            if text and url not in {text, f"mailto:{text}"}:
                self._out.add(f" ({url})", DIM)
            self._last = ")"
            return link.end()
        if rest[0] in "_*" and self._last.isalnum() and rest[0] == "_":
            return 0
        for pattern, style, may_nest in _SPANS:
            if found := pattern.match(rest, 0, MAX_SPAN):
                if may_grow and found.end() == len(rest):
                    return 0
                if may_nest:
                    self._spans_of(found[2], style)
                else:
                    self._out.add(found[2].strip() or found[2], self._style | style)
                self._last = found[2][-1]
                return found.end()
        return 0

    def _spans_of(self, text: str, style: Style) -> None:
        """Writes the text of a span, which may contain others."""
        outer = self._style, self._rest
        self._style, self._rest = self._style | style, text
        self._write_spans(is_end=True)
        self._style, self._rest = outer

    def _may_end(self) -> bool:
        """Whether the mark at the beginning may still become a span."""
        rest, mark = self._rest, self._rest[0]
        if mark in "![":
            return rest == "!" or _OPEN_LINK.fullmatch(rest) is not None
        after = rest.lstrip(mark)
        run = len(rest) - len(after)
        if not after or mark == "`":
            return True
        if mark == "~":
            return run == 2 and not after[0].isspace()
        if mark == "_" and self._last.isalnum():
            return False
        # A mark before a space opens nothing, as in 2 * 3; but of three, two may be before a mark.
        return run > 2 or not after[0].isspace()

    def _plain(self, text: str) -> None:
        if text:
            self._out.add(text, self._style)
            self._last = text[-1]

    # Tables

    def _write_table(self) -> None:
        lines, self._table = self._table, []
        if not lines:
            return
        self._was_blank = False
        rows = [_cells(line) for line in lines if not _SEPARATOR.match(line)]
        count = max(map(len, rows), default=0)
        rows = [[*row, *[""] * (count - len(row))] for row in rows]
        widths = [max(sum(map(columns, row[at])) for row in rows) for at in range(count)]
        if (
            len(lines) < 2
            or not _SEPARATOR.match(lines[1])
            or sum(widths) + 2 * count > self._width
        ):
            for line in lines:  # no table, or too wide for one
                self._out.add(line)
                self._out.end_line()
            return
        for number, row in enumerate(rows):
            padded = [
                cell + " " * (size - sum(map(columns, cell)))
                for cell, size in zip(row, widths, strict=True)
            ]
            self._out.verbatim("  ".join(padded).rstrip(), PLAIN if number else BOLD)
            self._out.end_line()
            if not number:
                self._out.verbatim("  ".join("─" * size for size in widths), DIM)
                self._out.end_line()


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [re.sub(r"[`*]+", "", cell).strip() for cell in re.split(r"(?<!\\)\|", inner)]
