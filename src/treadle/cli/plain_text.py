"""Text from models and tools, made safe for a terminal."""

import unicodedata

MAX_SHOWN = 2000
_CONTROLS = {
    code: "\ufffd" for code in [*range(32), *range(127, 160)] if code not in {ord("\n"), ord("\t")}
}


def clean(text: str) -> str:
    """Replaces the control characters of `text`, except line feed and tab."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Returns the first 2,000 characters of `text` as one line."""
    return " ".join(text[:MAX_SHOWN].split())


# Characters without ink that are letters, marks or symbols by their category: fillers, joiners,
# variation selectors (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point), and the
# blank Braille pattern.
_BLANKS = {
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
}


def escaped(text: str) -> str:
    """Returns `text` with every character escaped that cannot be seen, or that moves others.

    These are controls, characters that change the direction, invisible and unassigned ones, and
    spaces and line breaks other than the common space. A person who must judge a text sees then
    what a program reads.
    """
    return "".join(one if _is_visible(one) else _escape(ord(one)) for one in text)


def _is_visible(one: str) -> bool:
    if one == " ":
        return True
    return unicodedata.category(one)[0] not in "CZ" and ord(one) not in _BLANKS


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
