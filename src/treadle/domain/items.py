"""Items: the durable units of a conversation, in the vocabulary of the OpenAI Responses API.

A tagged union of frozen structs; the tag is the field `type`, as on the wire:
https://platform.openai.com/docs/api-reference/responses/object
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal, cast

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr, replace

from treadle.domain.arguments import capital, is_list, is_mapping, require_text, shown
from treadle.domain.files import (
    InputAudio,
    InputFile,
    InputImage,
    Media,
    media_in,
    media_part,
    require_room,
)
from treadle.domain.ids import new_id
from treadle.errors import InvalidInput

Role = Literal["user", "assistant", "system", "developer"]

APPROVAL_REQUEST = "mcp_approval_request"
"""In the provider fields of a call: the item with which the provider asked for its approval."""


class InputText(Struct, frozen=True, gc=False, tag="input_text"):
    """Text given to the model."""

    text: str


class UrlCitation(Struct, frozen=True, gc=False, tag="url_citation", omit_defaults=True):
    """A source on the web for a part of a text, or for all of it without `start_index`.

    The places are those of the provider, usually counted in characters, and in an `OutputText`
    never beyond it. `cited_text` is what the
    source says, if the provider sends it.
    """

    url: str
    title: str = ""
    start_index: int | None = None
    end_index: int | None = None
    cited_text: str = ""


class FileCitation(Struct, frozen=True, gc=False, tag="file_citation", omit_defaults=True):
    """A file as the source for a part of a text, or for all of it without `start_index`.

    `file_id` is that of the provider. `page` counts from 1.
    """

    file_id: str = ""
    filename: str = ""
    start_index: int | None = None
    end_index: int | None = None
    cited_text: str = ""
    page: int | None = None


Annotation = UrlCitation | FileCitation


def within(annotation: Annotation, length: int) -> Annotation:
    """Returns an annotation whose places are in a text of that length."""
    start, end = annotation.start_index, annotation.end_index
    if start is not None:
        start = min(max(start, 0), length)
    if end is not None:
        end = min(max(end, start or 0), length)
    if (start, end) == (annotation.start_index, annotation.end_index):
        return annotation
    return replace(annotation, start_index=start, end_index=end)


class OutputText(Struct, frozen=True, gc=False, tag="output_text", omit_defaults=True):
    """Text written by the model, and its sources, whose places are moved into the text."""

    text: str
    annotations: tuple[Annotation, ...] = ()

    def __post_init__(self) -> None:
        """Providers and programs write places beyond the text; readers cut the text there."""
        if self.annotations:
            moved = tuple(within(one, len(self.text)) for one in self.annotations)
            force_setattr(self, "annotations", moved)


class Refusal(Struct, frozen=True, gc=False, tag="refusal"):
    """The model's explanation of why it does not answer."""

    refusal: str


ContentPart = InputText | InputImage | InputFile | InputAudio | OutputText | Refusal
OutputPart = InputText | InputImage | InputFile | InputAudio


class ProviderFields(Struct, frozen=True, gc=False):
    """What `provider` adds to an item that only it understands, such as a signature.

    The fields are kept as received and sent back with their item, to that provider only.
    """

    provider: str
    fields: Mapping[str, object]

    def of(self, provider: str) -> Mapping[str, object]:
        """Returns the fields for a request to `provider`: none if they are another one's."""
        return self.fields if self.provider == provider else {}


class Message(Struct, frozen=True, gc=False, tag="message", omit_defaults=True):
    """A message of a person, a program or the model.

    A text given as `content` becomes one part: output of the model for the role `assistant`, input
    for all others. Parts of other forms (see `Input`) are converted when the message is sent.
    `unknown_end` is the provider's word for the end of a response that failed with it, if it is not
    a known good end: the text may be incomplete.
    """

    role: Role
    content: tuple[ContentPart, ...]
    id: str = ""
    provider_fields: ProviderFields | None = None
    unknown_end: str = ""

    if TYPE_CHECKING:

        def __init__(
            self,
            role: Role,
            content: "str | Iterable[str | ContentPart | Mapping[str, object]]",
            id: str = "",
            provider_fields: ProviderFields | None = None,
            unknown_end: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        if type(self.content) is not tuple:
            force_setattr(self, "content", _content(self.role, self.content))

    @property
    def text(self) -> str:
        """The text of all parts, joined; a refusal is not part of it."""
        return "".join(p.text for p in self.content if isinstance(p, InputText | OutputText))

    @property
    def refusal(self) -> str:
        """The text of all refusals, joined."""
        return "".join(p.refusal for p in self.content if isinstance(p, Refusal))


class SummaryText(Struct, frozen=True, gc=False, tag="summary_text"):
    """A part of the summary of the model's reasoning."""

    text: str


class ReasoningText(Struct, frozen=True, gc=False, tag="reasoning_text"):
    """A part of the model's reasoning itself."""

    text: str


class Reasoning(Struct, frozen=True, gc=False, tag="reasoning", omit_defaults=True):
    """The reasoning of the model before its answer.

    `provider` names its author, because only the author can read `encrypted_content` again.
    """

    id: str = ""
    summary: tuple[SummaryText, ...] = ()
    content: tuple[ReasoningText, ...] = ()
    encrypted_content: str | None = None
    provider: str = ""
    provider_fields: ProviderFields | None = None

    @property
    def text(self) -> str:
        """The reasoning, or its summary if the reasoning itself is missing."""
        return "".join(p.text for p in self.content) or "\n\n".join(p.text for p in self.summary)


class FunctionCall(Struct, frozen=True, gc=False, tag="function_call", omit_defaults=True):
    """A tool call; `arguments` is the JSON text exactly as the model wrote it.

    If it was approved with other arguments, `arguments` contains these, and `proposed` what the
    model wrote.
    """

    call_id: str
    name: str
    arguments: str
    id: str = ""
    provider_fields: ProviderFields | None = None
    proposed: str = ""

    @property
    def runs_at_provider(self) -> bool:
        """Whether the provider makes the call once it is approved: of a tool of `RemoteMCP`."""
        fields = self.provider_fields
        return fields is not None and APPROVAL_REQUEST in fields.fields


class FunctionCallOutput(
    Struct, frozen=True, gc=False, tag="function_call_output", omit_defaults=True
):
    """The output of a tool call: a text, or parts if it contains images or files.

    `is_error` is set if the text describes a failure; APIs without such a mark get plain output.
    """

    call_id: str
    output: str | tuple[OutputPart, ...]
    id: str = ""
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text of the output; images and files are left out."""
        if isinstance(self.output, str):
            return self.output
        return "".join(p.text for p in self.output if isinstance(p, InputText))


HostedStatus = Literal["in_progress", "completed", "failed"]
"""How far a call of a hosted tool is."""


class HostedCall(Struct, frozen=True, gc=False, omit_defaults=True):
    """A call of a hosted tool as people read it, in one form for all providers.

    - `tool`: `web_search`, `web_fetch`, `file_search`, `code_interpreter`, `mcp`, or the provider's
      own word.
    - `call_id`: is the same in all items and events of one call.
    - `arguments`: the query, the URL, the code, or the arguments for an MCP server as JSON.
    - `name`, `server`: the tool of an MCP server, and the name of the server.
    - `output`: the result as text, or the error of a failed call; "" while it runs, and if the
      provider does not show it.
    - `sources`: the pages and files that were found.

    Long texts are cut, and of many sources the first are kept.
    """

    tool: str
    call_id: str
    status: HostedStatus = "in_progress"
    arguments: str = ""
    name: str = ""
    server: str = ""
    output: str = ""
    sources: tuple[Annotation, ...] = ()


class ProviderItem(Struct, frozen=True, gc=False, tag="provider_item", omit_defaults=True):
    """An item only its provider understands, kept as received and sent back unchanged.

    `call` describes the call of a hosted tool that it is, if it is one. A provider may send a call
    and its result as two items with one `call_id`; the second one contains both.
    """

    provider: str
    raw: msgspec.Raw
    call: HostedCall | None = None

    @property
    def id(self) -> str:
        """The id of the call that the item is, shared by its result; "" without one."""
        return "" if self.call is None else self.call.call_id

    @property
    def in_progress(self) -> bool:
        """Whether it is a call whose result another item has."""
        return self.call is not None and self.call.status == "in_progress"


Item = Message | Reasoning | FunctionCall | FunctionCallOutput | ProviderItem


def _content(role: Role, given: object) -> object:
    """Returns the content of a message as a tuple; leaves what is not iterable to who sends it."""
    if isinstance(given, str):
        return (OutputText(given) if role == "assistant" else InputText(given),)
    return tuple(given) if is_list(given) else given


Part = str | ContentPart | Mapping[str, object]
"""A part of a message: a text, a part, or a mapping such as `{"type": "text", "text": "hi"}`."""

Input = str | Message | Media | Mapping[str, object] | Iterable[Part]
"""The input of a run: a text, a message, or parts of text, images, files and audio.

Messages and parts may have the form of the OpenAI APIs: `{"role": "user", "content": …}`, and parts
of the types `text`, `input_text`, `image_url`, `input_image`, `file`, `input_file` and
`input_audio`.
"""

MAX_PARTS = 10_000
"""The most parts of a message; an endless iterator must not stop the program."""

FORMS = (
    'pass a text, a Message, {"role": "user", "content": "…"}, or a list of texts and parts such '
    'as {"type": "text", "text": "…"} and {"type": "image_url", "image_url": {"url": "https://…"}}'
)


def user_message(content: str | Iterable[Part]) -> Message:
    """Makes a user message with a new id of text, or of parts of text, images, files and audio.

    Raises `InvalidInput` if it is empty, not encodable as UTF-8, or not of an accepted form.
    """
    return message("user", content)


def message(role: Role, content: str | Iterable[Part]) -> Message:
    """Makes a message of `role` with a new id; raises as `user_message` does."""
    return not_empty(Message(role, parts_of(role, content), new_id("msg")))


def not_empty(made: Message) -> Message:
    """Returns a message that has a text or an image; raises `InvalidInput` for any other."""
    for part in made.content:
        if not isinstance(part, InputText | OutputText) or part.text.strip():
            return made
    raise InvalidInput("The message is empty; give it some text.")


def parts_of(role: Role, content: object, *, was_accepted: bool = False) -> tuple[ContentPart, ...]:
    """Returns the parts of a message of `role`: of a text, a part, or a list of both.

    Media in items that `was_accepted` before may be of a kind that is refused today: they stay as
    they are, because requests leave out what an API does not read. Raises `InvalidInput` for what
    is not of an accepted form.
    """
    if isinstance(content, str):
        return (_text(role, content),)
    if is_mapping(content) or isinstance(content, Media):
        content = (content,)
    if not is_list(content):
        raise InvalidInput(f"{capital(shown(content))} is not the content of a message; {FORMS}.")
    parts = tuple([_part(role, part, was_accepted=was_accepted) for part in limited(content)])
    if len(parts) > 1:
        require_room(parts)
    return parts


def limited(parts: Iterable[object]) -> Sequence[object]:
    """Returns the parts of a message; raises `InvalidInput` for more than `MAX_PARTS`."""
    taken = tuple(islice(parts, MAX_PARTS + 1))
    if len(taken) > MAX_PARTS:
        raise InvalidInput(f"The message has more than {MAX_PARTS:,} parts.")
    return taken


def _part(role: Role, part: object, *, was_accepted: bool = False) -> ContentPart:
    match part:
        case str():
            return _text(role, part)
        case OutputText() if role == "assistant":
            return OutputText(require_text("The text of a message", part.text), part.annotations)
        case InputText() | OutputText():
            return _text(role, part.text)
        case InputImage() | InputFile() | InputAudio():
            try:
                return media_part(part)
            except InvalidInput:
                if was_accepted:
                    return part
                raise
        case Refusal():
            return refusal_part(role, part.refusal)
        case Mapping():
            return _part_in(role, cast("Mapping[str, object]", part))
        case _:
            raise InvalidInput(f"{capital(shown(part))} is not a part of a message; {FORMS}.")


def _part_in(role: Role, fields: Mapping[str, object]) -> ContentPart:
    """Returns the part in a mapping, of the form of Responses or of Chat Completions."""
    match fields.get("type"):
        case "text" | "input_text" | "output_text":
            return _text(role, fields.get("text"))
        case "refusal":
            return refusal_part(role, fields.get("refusal"))
        case kind:
            if (media := media_in(fields)) is not None:
                return media
            raise InvalidInput(
                f"A part of the type {shown(kind)} is not supported; {FORMS}."
                if "type" in fields
                else f"{capital(shown(fields))} is not a part of a message; {FORMS}."
            )


def _text(role: Role, text: object) -> InputText | OutputText:
    valid = require_text("The text of a message", text)
    return OutputText(valid) if role == "assistant" else InputText(valid)


def refusal_part(role: Role, refusal: object) -> Refusal:
    """Returns a refusal, which only the assistant can write; raises `InvalidInput`."""
    if role != "assistant":
        raise InvalidInput(f"A message of the role {role} cannot be a refusal of the model.")
    return Refusal(require_text("The refusal", refusal))
