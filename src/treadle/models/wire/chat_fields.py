"""What servers of Chat Completions add to a response, and need back with it."""

from collections.abc import Mapping

from treadle.domain.items import Reasoning
from treadle.models.wire.chat_request import TEXT_FIELD
from treadle.models.wire.loose_json import fields_of, list_of, string_of
from treadle.streaming.demux import Demux, Key

_TEXTS = {"reasoning.text": "text", "reasoning.summary": "summary", "thinking": "thinking"}


class _Detail:
    """A detail of reasoning being written: its fields, and the pieces of its text."""

    def __init__(self) -> None:
        self.fields: dict[str, object] = {}
        self.pieces: list[str] = []

    def continues_with(self, fields: Mapping[str, object]) -> bool:
        """Whether `fields` are the next piece of the same text, which ends with its signature."""
        is_same = all(fields.get(name) == self.fields.get(name) for name in ("type", "index"))
        name = _text_name(fields)
        is_next = fields.get(name) and self.fields.get("signature")
        return is_same and bool(name) and not is_next

    def add(self, fields: Mapping[str, object]) -> None:
        """Adds a piece; a field that comes again replaces the one before, its text is joined."""
        self.fields |= {k: v for k, v in fields.items() if v is not None or k not in self.fields}
        if isinstance(text := fields.get(_text_name(fields)), str):
            self.pieces.append(text)

    def whole(self) -> dict[str, object]:
        """Returns the detail as one object."""
        text = {_text_name(self.fields): "".join(self.pieces)} if self.pieces else {}
        return self.fields | text


def _text_name(fields: Mapping[str, object]) -> str:
    return _TEXTS.get(string_of(fields.get("type")) or "", "")


class ReasoningFields:
    """The field that the text of the reasoning of one response came in, and its details.

    OpenRouter hands signatures and encrypted reasoning of the models behind it through
    `reasoning_details`, in pieces: https://openrouter.ai/docs/use-cases/reasoning-tokens
    LiteLLM hands those of Anthropic's models through `thinking_blocks`:
    https://docs.litellm.ai/docs/reasoning_content
    """

    def __init__(self, demux: Demux, key: Key, provider: str) -> None:
        self._demux = demux
        self._key = key
        self._provider = provider
        self._text_field = ""
        self._details: dict[str, list[_Detail]] = {}

    def came_in(self, field: str) -> None:
        """Notes the field of a message that contained the text."""
        if field != self._text_field:
            self._text_field = field
            self._demux.keep(self._key, {TEXT_FIELD: field})

    def add(self, field: str, details: object) -> None:
        """Adds pieces of the details that came in a field, one of `DETAILS`."""
        known = self._details.setdefault(field, [])
        for piece in map(fields_of, list_of(details)):
            if not piece:
                continue
            if not known or not known[-1].continues_with(piece):
                known.append(_Detail())
            known[-1].add(piece)

    def finish(self) -> None:
        """Gives the details to the reasoning, which may have no text of its own."""
        found = {
            field: [detail.whole() for detail in details]
            for field, details in self._details.items()
            if details
        }
        if not found:
            return
        self._demux.keep(self._key, found)
        if not self._demux.is_open(self._key):
            self._demux.finish(self._key, Reasoning(provider=self._provider))
