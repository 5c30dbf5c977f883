"""What clients of other protocols are shown of a call: its text for the user, and its arguments."""

import msgspec

from treadle.domain.events import ToolCallRequested
from treadle.streaming.jsonfields import field_text
from treadle.tools.to_user import without


def said_id(item_id: str) -> str:
    """Returns the id of the message with the text for the user in a call."""
    return f"{item_id}_said"


def said_text(call: ToolCallRequested) -> str:
    """Returns what the deltas of the text for the user add up to, "" without one.

    It is the text that was shown, even if the model wrote the argument twice.
    """
    return field_text(call.item.arguments, call.to_user) if call.to_user else ""


def shown_arguments(call: ToolCallRequested) -> str:
    """Returns the arguments of a call as JSON, without the text for the user.

    Arguments that are not a JSON object are returned as the model wrote them.
    """
    if not call.to_user or (arguments := call.arguments) is None:
        return call.item.arguments
    return msgspec.json.encode(without(arguments, call.to_user)).decode()
