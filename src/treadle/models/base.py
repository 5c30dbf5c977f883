"""The port to language models: a request, a stream of events, and the protocol between them."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal, Protocol, get_args, runtime_checkable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.arguments import shown
from treadle.domain.events import ChangeReason
from treadle.domain.files import Media
from treadle.domain.items import FunctionCall, Item
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.errors import ConfigurationError
from treadle.streaming.demux import StreamEvent

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class NamedTool(Struct, frozen=True):
    """A tool choice: the model must call the tool of this name."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


class ModelSettings(Struct, frozen=True, kw_only=True):
    """Settings of a request; None leaves the provider's default.

    `extra_body` is merged into the request's JSON and `extra_headers` into its headers, for
    extensions of compatible servers. Raises `ConfigurationError` for a value of another type.
    """

    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    extra_body: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    extra_headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        choices = get_args(get_args(ToolChoice)[0])
        choice, effort = self.tool_choice, self.reasoning_effort
        if not (choice is None or choice in choices or isinstance(choice, NamedTool)):
            raise _not_a_setting("tool_choice", choice, f"{', '.join(choices)} or a NamedTool")
        if not (effort is None or effort in _EFFORTS):
            raise _not_a_setting("reasoning_effort", effort, ", ".join(_EFFORTS))
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if value is not None and (
                not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            ):
                raise _not_a_setting(name, value, f"a value of the type {kinds[-1].__name__}")

    def __repr__(self) -> str:
        # Headers may contain keys, and a repr ends up in logs and reports.
        shown = replace(self, extra_headers=dict.fromkeys(self.extra_headers, "***"))
        return Struct.__repr__(shown)


_EFFORTS = get_args(ReasoningEffort)
_KINDS: Mapping[str, tuple[type, ...]] = {
    "parallel_tool_calls": (bool,),
    "temperature": (int, float),
    "top_p": (int, float),
    "max_output_tokens": (int,),
    "extra_body": (Mapping,),
    "extra_headers": (Mapping,),
}


def _not_a_setting(name: str, value: object, known: str) -> ConfigurationError:
    return ConfigurationError(f"ModelSettings.{name} is {shown(value)}; use {known}.")


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One request: the conversation so far, and the tools and output that are allowed.

    `conversation` is the whole conversation if `items` are only a part of it.
    """

    items: Sequence[Item]
    instructions: str = ""
    tools: tuple[ToolSchema, ...] = ()
    output: OutputSchema | None = None
    settings: ModelSettings = ModelSettings()
    conversation: Sequence[Item] = ()

    @property
    def used_call_ids(self) -> Iterator[str]:
        """The ids of all calls so far, which no new call may repeat; computed when read."""
        for item in chain(self.items, self.conversation):
            if isinstance(item, FunctionCall):
                yield item.call_id


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


ModelEvent = StreamEvent | ItemsAdapted


@runtime_checkable
class ReadsMedia(Protocol):
    """A model that knows which files, images and audio it reads; other models are sent them all."""

    def refusal(self, part: Media, /) -> str:
        """Returns why the model does not read a part, as a sentence; "" if it does."""
        ...


class Model(Protocol):
    """A language model.

    `name` is the provider's name of the model; `provider` marks the reasoning items it writes.
    """

    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Sends `request` once and yields the response as it arrives.

        An `ItemsAdapted` may come first, once the provider has accepted the request.
        Ends after exactly one `ResponseFinished`, or raises `ModelError`: `StreamIncomplete` when
        the provider's stream ends without its terminal event. It does not retry.
        """
        ...
