"""The summary of what left the window: its text, and the message in which it may stand."""

from msgspec import Struct

from treadle.domain.ids import new_id
from treadle.domain.items import InputText, Message
from treadle.domain.usage import Usage

HEADING = "[Summary of the earlier conversation, which is not shown in full any more]\n"


class Summary(Struct, frozen=True):
    """What came of a summary: its text, who wrote it, and what that took.

    `problem` says what did not go as it should: without a text, why there is none.
    """

    text: str = ""
    model: str = ""
    usage: Usage = Usage()
    cost: float = 0.0
    problem: str = ""


def summary_message(text: str) -> Message:
    """Returns the message that stands for what left the window."""
    return Message("user", (InputText(HEADING + text),), new_id("msg"))


def text_of(message: Message | None) -> str:
    """Returns the summary that a message holds."""
    return message.text.removeprefix(HEADING) if message is not None else ""
