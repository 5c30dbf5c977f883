"""Items: the durable units of a conversation, in the vocabulary of the OpenAI Responses API.

A tagged union of frozen structs; the tag is the field `type`, as on the wire:
https://platform.openai.com/docs/api-reference/responses/object
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.ids import new_id
from treadle.errors import InvalidInput

Role = Literal["user", "assistant", "system", "developer"]
ImageDetail = Literal["low", "high", "auto"]


class InputText(Struct, frozen=True, gc=False, tag="input_text"):
    """Text given to the model."""

    text: str


class InputImage(Struct, frozen=True, gc=False, tag="input_image", omit_defaults=True):
    """An image given to the model: an https URL or a `data:` URL."""

    image_url: str
    detail: ImageDetail = "auto"


class OutputText(Struct, frozen=True, gc=False, tag="output_text"):
    """Text written by the model."""

    text: str


class Refusal(Struct, frozen=True, gc=False, tag="refusal"):
    """The model's explanation of why it does not answer."""

    refusal: str


ContentPart = InputText | InputImage | OutputText | Refusal
OutputPart = InputText | InputImage


class ProviderFields(Struct, frozen=True):
    """What `provider` adds to an item that only it understands, such as a signature.

    The fields are kept as received and sent back with their item, to that provider only.
    """

    provider: str
    fields: Mapping[str, object]

    def of(self, provider: str) -> Mapping[str, object]:
        """Returns the fields for a request to `provider`: none if they are another one's."""
        return self.fields if self.provider == provider else {}


class Message(Struct, frozen=True, tag="message", omit_defaults=True):
    """A message of a person, a program or the model.

    `unknown_end` is the provider's word for the end of a response that failed with it, if it is not
    a known good end: the text may be incomplete.
    """

    role: Role
    content: tuple[ContentPart, ...]
    id: str = ""
    provider_fields: ProviderFields | None = None
    unknown_end: str = ""

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


class Reasoning(Struct, frozen=True, tag="reasoning", omit_defaults=True):
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
    """A tool call; `arguments` is the JSON text exactly as the model wrote it."""

    call_id: str
    name: str
    arguments: str
    id: str = ""
    provider_fields: ProviderFields | None = None


class FunctionCallOutput(Struct, frozen=True, tag="function_call_output", omit_defaults=True):
    """The output of a tool call: a text, or parts if it contains images.

    `is_error` is set if the text describes a failure; APIs without such a mark get plain output.
    """

    call_id: str
    output: str | tuple[OutputPart, ...]
    id: str = ""
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text of the output; images are left out."""
        if isinstance(self.output, str):
            return self.output
        return "".join(p.text for p in self.output if isinstance(p, InputText))


class ProviderItem(Struct, frozen=True, tag="provider_item"):
    """An item only its provider understands, kept as received and sent back unchanged."""

    provider: str
    raw: msgspec.Raw


Item = Message | Reasoning | FunctionCall | FunctionCallOutput | ProviderItem


Input = str | Message | Iterable[OutputPart]
"""The input of a run: a text, a message, or parts of text and images."""


def user_message(content: str | Iterable[OutputPart]) -> Message:
    """Makes a user message with a new id of text, or of parts of text and images.

    Raises `InvalidInput` when it is empty or not encodable as UTF-8.
    """
    return message("user", content)


def as_message(input: Input) -> Message:
    """Returns a message as it is, and text or parts as a user message; raises as `user_message`."""
    return input if isinstance(input, Message) else user_message(input)


def message(role: Role, content: str | Iterable[OutputPart]) -> Message:
    """Makes a message of `role` with a new id; raises as `user_message` does."""
    parts = (InputText(content),) if isinstance(content, str) else tuple(content)
    if not any(not isinstance(part, InputText) or part.text.strip() for part in parts):
        raise InvalidInput("The message is empty; give it some text.")
    for part in parts:
        if isinstance(part, InputText):
            _require_utf8(part.text)
    if role == "assistant":
        parts = tuple(OutputText(p.text) if isinstance(p, InputText) else p for p in parts)
    return Message(role, parts, new_id("msg"))


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"The text is not valid UTF-8 at character {error.start}; decode it before sending."
        ) from error
