"""The files in a request: their contents, and whether the model reads them."""

from collections.abc import Iterator
from itertools import islice

from msgspec.structs import replace

from treadle.domain.files import Media
from treadle.domain.items import Message
from treadle.errors import InputUnsupported, ItemRefused, ModelError
from treadle.loop.activation import Activation
from treadle.loop.definition import Deps, Out
from treadle.models.base import ModelRequest, ReadsMedia


async def with_contents(activation: Activation[Deps, Out], request: ModelRequest) -> ModelRequest:
    """Returns a request whose items contain their files.

    Raises `InputUnsupported` if the model does not read a file of the message that it is to answer.
    In older messages and in outputs of tools, a text stands in its place.
    """
    items = await activation.services.files.load(request.items)
    sent = request if items is request.items else replace(request, items=items)
    _require_readable(activation, sent)
    return sent


def _require_readable(activation: Activation[Deps, Out], request: ModelRequest) -> None:
    model, length = activation.agent.model, len(activation.thread.state.history)
    of_run = length - activation.run.first_item + 1
    for message in _unanswered(request, of_run):
        for part in message.content:
            if not isinstance(part, Media) or not isinstance(model, ReadsMedia):
                continue
            if refusal := model.refusal(part):
                raise InputUnsupported(
                    f"{refusal} Choose another model, or send it in another form; the message stays"
                    " in the history."
                )


def _unanswered(request: ModelRequest, most: int) -> Iterator[Message]:
    """Yields the messages of a run to which the model has not answered yet, the newest first."""
    for item in islice(reversed(request.items), most):
        if not isinstance(item, Message) or item.role == "assistant":
            return
        yield item


def name_stored(error: ModelError, request: ModelRequest, sent: ModelRequest) -> None:
    """Names the item of the thread in the refusal of one to which contents were added."""
    if not isinstance(error, ItemRefused) or sent.items is request.items:
        return
    for item, with_content in zip(request.items, sent.items, strict=True):
        if error.item is with_content:
            error.item = item
