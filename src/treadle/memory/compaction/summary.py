"""The summary of messages that have left the window, and the message that contains it."""

from msgspec import Struct

from treadle.domain.ids import new_id
from treadle.domain.items import InputText, Message
from treadle.domain.usage import Usage

HEADING = "[Summary of the earlier conversation, which is not shown in full any more]\n"


class Summary(Struct, frozen=True):
    """The result of writing a summary.

    - `text`: empty if no summary was written. `model`: the name of the model that wrote it.
    - `usage`, `cost`: of all attempts.
    - `problem`: what failed or was cut off; empty if nothing did.
    """

    text: str = ""
    model: str = ""
    usage: Usage = Usage()
    cost: float = 0.0
    problem: str = ""


def summary_message(text: str) -> Message:
    """Returns the message with a summary, in place of the messages that have left the window."""
    return Message("user", (InputText(HEADING + text),), new_id("msg"))


def text_of(message: Message | None) -> str:
    """Returns the summary that a message contains; empty for None."""
    return message.text.removeprefix(HEADING) if message is not None else ""
