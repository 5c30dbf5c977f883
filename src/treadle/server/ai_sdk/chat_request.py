"""The body of a request of a chat."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from treadle.domain.entries import OnBusy
from treadle.domain.options import RunOptions

Id = Annotated[str, Meta(min_length=1, max_length=256)]


class UiMessage(Struct, frozen=True):
    """A message as clients have it; what else it contains is for the client alone."""

    id: Id
    role: Literal["system", "user", "assistant"]
    parts: list[dict[str, Any]]


class ChatRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `useChat` sends: the messages of the chat `id`, or the last of them alone.

    - `trigger`: `regenerate-message` asks for another answer to the last message.
    - `message_id`: the message that is continued or edited, if it is not a new one.
    - `options`, `on_busy`: as in a message of the HTTP API. By default a message waits for the run
      in progress, and cancels one that waits for an answer.
    """

    id: Annotated[Id, Meta(pattern="^[^/]+$")]  # a part of a path
    messages: list[UiMessage] | UnsetType = UNSET
    message: UiMessage | UnsetType = UNSET
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = field(default=None, name="messageId")
    options: RunOptions | UnsetType = UNSET
    on_busy: OnBusy | UnsetType = UNSET
