"""Pins: which messages the model reads for ever, whatever is compacted."""

from weft.errors import UnknownMessage
from weft.events import MessagePinned
from weft.items import Message
from weft.state import ThreadState


def pin_of(state: ThreadState, message_id: str, *, pinned: bool) -> MessagePinned | None:
    """Returns the event that pins a message of the history, or lets go of it.

    Returns None where it is so already. Raises `UnknownMessage` for one that the history does not
    have, such as one that still waits for its run.
    """
    if pinned == (message_id in state.context.pinned):
        return None
    if pinned and not _is_known(state, message_id):
        raise UnknownMessage(
            f"The history has no message {message_id[:100]!r}; those that wait for their run, and "
            "those of a step in progress, cannot be pinned yet."
        )
    return MessagePinned(message_id=message_id, pinned=pinned)


def _is_known(state: ThreadState, message_id: str) -> bool:
    return any(isinstance(item, Message) and item.id == message_id for item in state.history)
