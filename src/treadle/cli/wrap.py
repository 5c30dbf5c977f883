"""Text that arrives in pieces, wrapped at spaces to the width of a terminal.

Only what is final is written: nothing is ever erased or repeated, so that nothing flickers, and
what was written stays right if the terminal is resized or its output is recorded.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module

import click

Style = frozenset[str]
"""Keywords of `click.style` that are true, such as `bold`."""

PLAIN: Style = frozenset()
MIN_ROOM = 20
"""Columns that are left for words, however deep they are indented."""


class Wrapper:
    """Wraps words to `width` columns; lines after the first one of a paragraph are indented."""

    def __init__(self, write: Callable[[str], None], width: int) -> None:
        self._write = write
        self._width = width
        self._column = 0
        self._indent = ""
        self._spaces = ""  # after the last word, not written yet
        self._word: list[tuple[str, Style]] = []

    @property
    def is_mid_line(self) -> bool:
        """Whether the line has text, written or not."""
        return bool(self._column or self._word or self._spaces)

    def indent(self, indent: str) -> None:
        """Sets what the following lines of this paragraph begin with."""
        self._indent = indent if len(indent) <= max(0, self._width - MIN_ROOM) else ""

    def add(self, text: str, style: Style = PLAIN) -> None:
        """Adds text without line breaks; its last word is held until it is known to be whole."""
        for one in text:
            if one in " \t":
                self._end_word()
                self._spaces += " " if one == " " else "    "
            elif columns(one) == 2:  # a language without spaces breaks between any two characters
                self._end_word()
                self._word = [(one, style)]
                self._end_word()
            elif self._word and self._word[-1][1] == style:
                self._word[-1] = (self._word[-1][0] + one, style)
            else:
                self._word.append((one, style))

    def verbatim(self, text: str, style: Style = PLAIN) -> None:
        """Adds text that is not wrapped, such as a line of code."""
        self._end_word()
        self._put(self._spaces, PLAIN)
        self._spaces = ""
        self._put(text, style)

    def flush(self) -> None:
        """Writes the last word, although more of it may come."""
        self._end_word()

    def end_line(self) -> None:
        """Ends the line, if there is text on it."""
        self._end_word()
        if self.is_mid_line:
            self._new_line()
        self._indent = ""

    def blank_line(self) -> None:
        """Ends the line and leaves one empty."""
        self.end_line()
        self._write("\n")

    def _end_word(self) -> None:
        if not self._word:
            return
        word, self._word = self._word, []
        size = sum(columns(one) for part, _ in word for one in part)
        if self._column and self._column + len(self._spaces) + size > self._width:
            self._spaces = ""
            self._new_line()
            self._put(self._indent, PLAIN)
        self._put(self._spaces, PLAIN)
        self._spaces = ""
        for part, style in word:
            self._put_long(part, style)

    def _put_long(self, text: str, style: Style) -> None:
        """Writes a part of a word; one that is longer than a line is broken anywhere."""
        while text:
            room = self._width - self._column
            fitting = ""
            for one in text:
                room -= columns(one)
                if room < 0:
                    break
                fitting += one
            if not fitting:
                if self._column <= len(self._indent):
                    fitting = text[0]  # a terminal too narrow for one character
                else:
                    self._new_line()
                    self._put(self._indent, PLAIN)
                    continue
            self._put(fitting, style)
            text = text[len(fitting) :]

    def _put(self, text: str, style: Style) -> None:
        if text:
            self._column += sum(map(columns, text))
            self._write(click.style(text, **dict.fromkeys(style, True)) if style else text)

    def _new_line(self) -> None:
        self._write("\n")
        self._column = 0
        self._spaces = ""


@lru_cache(maxsize=4096)
def columns(one: str) -> int:
    """Returns how many columns a character takes."""
    if " " <= one <= "~":
        return 1
    # Imported when it is needed: it is slow to import, and most text is ASCII.
    return import_module("prompt_toolkit.utils").get_cwidth(one)
