"""Text from models and tools, made fit for a terminal."""

MAX_SHOWN = 2000
_CONTROLS = {
    code: "\ufffd" for code in [*range(32), *range(127, 160)] if code not in {ord("\n"), ord("\t")}
}


def clean(text: str) -> str:
    """Returns `text` without control characters but line feed and tab."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Returns the beginning of `text` in one line."""
    return " ".join(text[:MAX_SHOWN].split())
