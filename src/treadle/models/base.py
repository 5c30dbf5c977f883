"""The port to language models: a request, a stream of events, and the protocol between them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain
from typing import Protocol, cast, get_args, runtime_checkable

from msgspec import Struct

from treadle.domain.arguments import shown
from treadle.domain.events import ChangeReason
from treadle.domain.files import Media
from treadle.domain.hosted_tools import HostedTool
from treadle.domain.items import FunctionCall, Item, ProviderItem
from treadle.domain.schema import OutputMode, OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings
from treadle.domain.usage import Usage
from treadle.errors import ConfigurationError
from treadle.streaming.demux import StreamEvent


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One request: the conversation so far, and the tools and output that are allowed.

    `conversation` is the whole conversation if `items` are only a part of it. The first
    `stable_chars` characters of the instructions stay when the memory blocks change, which follow
    them; 0 if there are none.
    """

    items: Sequence[Item]
    instructions: str = ""
    tools: tuple[ToolSchema, ...] = ()
    hosted: tuple[HostedTool, ...] = ()
    output: OutputSchema | None = None
    settings: ModelSettings = ModelSettings()
    conversation: Sequence[Item] = ()
    stable_chars: int = 0

    @property
    def used_call_ids(self) -> Iterator[str]:
        """The ids of all calls so far, which no new call may repeat; computed when read."""
        for item in chain(self.items, self.conversation):
            if isinstance(item, FunctionCall):
                yield item.call_id
            # The result of one in progress may come in this response.
            elif isinstance(item, ProviderItem) and item.id and not item.in_progress:
                yield item.id


class ItemChange(Struct, frozen=True):
    """What a request leaves out or replaces of `item`, because the API would refuse it.

    `text` describes it in a sentence, for people.
    """

    item: Item
    reason: ChangeReason
    text: str


class ItemsAdapted(Struct, frozen=True):
    """The request that the model answers differs from its items by these `changes`."""

    changes: tuple[ItemChange, ...]


class CacheWritten(Struct, frozen=True):
    """The provider has stored what the request begins with, for which `usage` is charged.

    It is no part of the usage of the response.
    """

    usage: Usage


ModelEvent = StreamEvent | ItemsAdapted | CacheWritten


@runtime_checkable
class ReadsMedia(Protocol):
    """A model that knows which files, images and audio it reads; other models are sent them all."""

    def refusal(self, part: Media, /) -> str:
        """Returns why the model does not read a part, as a sentence; "" if it does."""
        ...


@runtime_checkable
class HostsTools(Protocol):
    """A model whose provider runs tools itself; other models have none."""

    def tool_refusal(self, tool: HostedTool, /) -> str:
        """Returns why the model cannot have a hosted tool, as a sentence; "" if it can."""
        ...


def tool_refusal(model: "Model", tool: HostedTool) -> str:
    """Returns why a model cannot have a hosted tool, as a sentence; "" if it can."""
    if isinstance(model, HostsTools):
        return model.tool_refusal(tool)
    return f"The model {model.name!r} has no hosted tools."


class Model(Protocol):
    """A language model.

    `name` is the provider's name of the model; `provider` marks the reasoning items it writes. A
    model that cannot be held to a JSON Schema has an attribute `output_mode`, `"tool"` or
    `"prompted"`: how agents ask it for structured output unless they set it themselves. One that
    can, but calls no tools then, has `schema_with_tools = False`.
    """

    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Sends `request` once and yields the response as it arrives.

        A `CacheWritten` may come first, and an `ItemsAdapted` once the provider has accepted the
        request.
        Ends after exactly one `ResponseFinished`, or raises `ModelError`: `StreamIncomplete` when
        the provider's stream ends without its terminal event. It does not retry.
        """
        ...


def output_mode_of(model: Model, *, with_tools: bool = False) -> OutputMode:
    """Returns how a model is best asked for structured output; "native" if it does not specify.

    With tools, it is "tool" for a model that would call none if it were held to a schema.
    """
    mode: object = getattr(model, "output_mode", "native")
    if mode == "native" and with_tools and not getattr(model, "schema_with_tools", True):
        return "tool"
    if mode in get_args(OutputMode):
        return cast("OutputMode", mode)
    raise ConfigurationError(
        f"The output_mode of the model {model.name!r} is {shown(mode)}; use native, tool or "
        "prompted."
    )
