"""Texts, reasonings and calls that the model writes, as they grow."""

from collections.abc import Collection

from treadle.domain.events import ToolCallRequested
from treadle.server.ag_ui.run_frames import RunFrames, head_of
from treadle.server.call_texts import said_id, said_text, shown_arguments
from treadle.tools.output_type import OUTPUT_TOOL

Subagent = str | None
"""The thread of the agent that writes, None for the agent of the run itself."""


class _OpenText:
    """What has begun; `head` is the beginning of its frames, `sent` how much of it was shown."""

    __slots__ = ("head", "kind", "name", "owner", "sent")

    def __init__(self, kind: str, name: str, head: bytes, owner: Subagent) -> None:
        self.kind = kind
        self.name = name
        self.head = head
        self.owner = owner
        self.sent = 0


class OpenTexts:
    """Shows what the model writes, each thing from its beginning to its end.

    Calls of the tools `held` are shown as a whole, because what they say to the user comes first.
    What the client has already, `shown`, is left out: events of other agents may come once more.
    """

    def __init__(self, frames: RunFrames, held: Collection[str], shown: Collection[str]) -> None:
        self._frames = frames
        self._held = held
        self._shown = shown
        self._open: dict[str, _OpenText] = {}

    def grow(self, id: str, delta: str, owner: Subagent) -> None:
        """Shows the growth of a text."""
        text = self._open.get(id)
        if text is None:
            if id in self._shown:
                return
            text = self._begin_text(id, owner)
        text.sent += len(delta)
        self._frames.add_delta(text.head, delta)

    def end(self, id: str, whole: str, owner: Subagent) -> None:
        """Shows a text to its end."""
        if id not in self._open:
            if not whole or id in self._shown:
                return
            self._begin_text(id, owner)
        self._finish(id, whole)

    def grow_reasoning(self, id: str, delta: str, owner: Subagent) -> None:
        """Shows the growth of a reasoning."""
        text = self._open.get(id)
        if text is None:
            if id in self._shown:
                return
            text = self._begin_reasoning(id, owner)
        text.sent += len(delta)
        self._frames.add_delta(text.head, delta)

    def end_reasoning(self, id: str, whole: str, owner: Subagent) -> None:
        """Shows a reasoning to its end."""
        if id not in self._open:
            if not whole or id in self._shown:
                return
            self._begin_reasoning(id, owner)
        self._finish(id, whole)

    def begin_call(self, id: str, call_id: str, name: str, owner: Subagent) -> None:
        """Shows a call that the model begins to write."""
        if call_id in self._shown or id in self._shown:
            return
        if name == OUTPUT_TOOL:
            self._begin_text(id, owner)
        elif name not in self._held:
            self._begin_call(id, call_id, name, owner)

    def grow_call(self, id: str, delta: str) -> None:
        """Shows the growth of the arguments of a call."""
        if (text := self._open.get(id)) is not None:
            text.sent += len(delta)
            self._frames.add_delta(text.head, delta)

    def end_call(self, event: ToolCallRequested, owner: Subagent) -> None:
        """Shows a call to its end, and before it what it says to the user."""
        call = event.item
        if call.name == OUTPUT_TOOL:
            self.end(call.id, call.arguments, owner)
            return
        self.end(said_id(call.id), said_text(event), owner)
        if call.call_id in self._shown:
            return
        if call.id not in self._open:
            self._begin_call(call.id, call.call_id, call.name, owner)
        self._finish(call.id, shown_arguments(event))

    def drop(self, owner: Subagent) -> bool:
        """Ends what an agent has not finished; returns whether anything was shown of it."""
        ids = [id for id, text in self._open.items() if text.owner == owner]
        for id in ids:
            self._finish(id, "")
        return bool(ids)

    def drop_all(self) -> bool:
        """Ends all that is not finished; returns whether anything was shown of it."""
        ids = list(self._open)
        for id in ids:
            self._finish(id, "")
        return bool(ids)

    def _begin_text(self, id: str, owner: Subagent) -> _OpenText:
        self._frames.add("TEXT_MESSAGE_START", messageId=id, role="assistant", subagentRunId=owner)
        head = head_of("TEXT_MESSAGE_CONTENT", messageId=id, subagentRunId=owner)
        text = self._open[id] = _OpenText("TEXT_MESSAGE", id, head, owner)
        return text

    def _begin_reasoning(self, id: str, owner: Subagent) -> _OpenText:
        self._frames.add("REASONING_START", messageId=id, subagentRunId=owner)
        self._frames.add(
            "REASONING_MESSAGE_START", messageId=id, role="reasoning", subagentRunId=owner
        )
        head = head_of("REASONING_MESSAGE_CONTENT", messageId=id, subagentRunId=owner)
        text = self._open[id] = _OpenText("REASONING_MESSAGE", id, head, owner)
        return text

    def _begin_call(self, id: str, call_id: str, name: str, owner: Subagent) -> None:
        self._frames.add(
            "TOOL_CALL_START", toolCallId=call_id, toolCallName=name, subagentRunId=owner
        )
        head = head_of("TOOL_CALL_ARGS", toolCallId=call_id, subagentRunId=owner)
        self._open[id] = _OpenText("TOOL_CALL", call_id, head, owner)

    def _finish(self, id: str, whole: str) -> None:
        text = self._open.pop(id)
        if rest := whole[text.sent :]:
            self._frames.add_delta(text.head, rest)
        named = {"toolCallId" if text.kind == "TOOL_CALL" else "messageId": text.name}
        self._frames.add(f"{text.kind}_END", **named, subagentRunId=text.owner)
        if text.kind == "REASONING_MESSAGE":
            self._frames.add("REASONING_END", messageId=text.name, subagentRunId=text.owner)
