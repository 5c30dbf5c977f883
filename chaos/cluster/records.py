"""What the nodes write down, outside the database."""

from msgspec import Struct


class Asked(Struct, frozen=True):
    """The model was asked for the response number `step` to a message."""

    message: str
    step: int


class ToolRan(Struct, frozen=True):
    """A tool began to run for a call."""

    thread_id: str
    call_id: str
    tool: str


class Answered(Struct, frozen=True):
    """An answer to a call that was acknowledged: an approval or a denial."""

    thread_id: str
    call_id: str
    approves: bool


class Pinned(Struct, frozen=True):
    """A message was pinned, which was acknowledged."""

    thread_id: str
    message_id: str


class Refused(Struct, frozen=True):
    """An append of a node was refused, because another one has the thread."""

    node: str
    thread: int


class Heard(Struct, frozen=True):
    """A reader on a node has heard a text to its end: what was written, and what came as deltas."""

    node: str
    thread_id: str
    text: str
    deltas: str
