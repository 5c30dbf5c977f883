"""Text from models and tools, made safe for a terminal."""

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
