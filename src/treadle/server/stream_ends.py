"""Why a stream of another protocol ended before what it shows was complete, as a text."""

from treadle.server.stream import EndReason


def end_text(reason: EndReason, shown: str, again: str) -> str:
    """Returns why a stream ended early, and what the client should do.

    `shown` is the noun for what is deleted with its thread, "response". `again` is what gives the
    client the rest, "retrieve the response".
    """
    match reason:
        case "draining":
            return f"The server is about to end; {again} in a moment."
        case "limited":
            return f"Too many requests; {again} in a moment."
        case "thread_deleted":
            return f"The {shown} was deleted."
        case "not_authenticated":
            return "The credentials of the request have ended."
        case "failed":
            return f"The stream failed; {again}."
