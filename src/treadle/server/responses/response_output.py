"""The items of a response, and the events that show how they come about."""

from collections.abc import Iterable
from typing import cast

from msgspec.structs import replace

from treadle.domain.events import (
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ToolApproved,
    ToolCallRequested,
)
from treadle.domain.items import FunctionCallOutput, Message, ProviderItem
from treadle.server.call_texts import said_id, said_text, shown_arguments
from treadle.server.responses.hosted_item import hosted_item
from treadle.server.responses.item_order import ItemOrder, Landing, OpenItem
from treadle.server.responses.response_frames import ResponseFrames
from treadle.server.responses.response_items import text_of
from treadle.server.responses.response_object import (
    Json,
    approval_item,
    function_item,
    message_item,
    reasoning_item,
    text_part,
    tool_item,
)
from treadle.tools.output_type import OUTPUT_TOOL


class ResponseOutput:
    """Builds `items` and their frames; `asked` are the calls that wait for answers: their ids
    and those of their items.

    The last message is done only once it is known whether it is the final answer. What tools return
    while the model still writes is shown after its response, so that the order of events does not
    depend on how long tools take.
    """

    def __init__(self, frames: ResponseFrames) -> None:
        self.items: list[Json] = []
        self.asked: dict[str, str] = {}
        self._frames = frames
        self._order = ItemOrder()
        self._last: int | None = None  # the place of a message that is not done
        self.is_structured = False
        self._calls: dict[str, ToolCallRequested] = {}
        self._running: dict[str, int] = {}  # places of calls

    def note_call(self, event: ToolCallRequested) -> None:
        """Takes note of a call, even if another part of the run shows it."""
        self._calls[event.item.call_id] = event

    def begin(self, item_id: str) -> None:
        """Takes note of an item that begins."""
        self._order.begin(item_id)

    def say(self, item_id: str, delta: str) -> None:
        """Shows the growth of the text for the user in a call: a message before it."""
        self._order.begin(item_id).shown_id = said_id(item_id)
        self.grow(item_id, delta, False)

    def grow(self, item_id: str, delta: str, is_reasoning: bool) -> None:
        """Shows the growth of a text, unless another item is shown first."""
        order = self._order
        item = order.begin(item_id, is_reasoning)
        if item is order.first:
            self._grow(item, delta)
        else:
            item.growth.append(delta)

    def land(self, event: Landing) -> None:
        """Shows an item to its end, unless another item is shown first."""
        self._order.land(event)
        self._finish(self._order.finished())

    def end_response(self) -> OpenItem | None:
        """Shows what the model has finished; returns the item that it had begun, if it was shown.

        No other item of this response of the model comes.
        """
        self._finish(self._order.flush())
        return self._order.clear()

    def settle(self, phase: str, status: str = "completed") -> None:
        """Ends the last message: `phase` is `commentary`, `final_answer`, or "" if it is neither.

        Does nothing if another item came after it.
        """
        if (place := self._last) is None:
            return
        self._last = None
        message = self.items[place]
        id, content = cast("str", message["id"]), cast("list[Json]", message["content"])
        # The client of OpenAI parses each text that is done, if it has asked for structured output.
        is_text = phase == "final_answer" or not self.is_structured
        for index, part in enumerate(content):
            where: Json = {"item_id": id, "output_index": place, "content_index": index}
            if part["type"] == "refusal":
                self._frames.add("response.refusal.done", **where, refusal=part["refusal"])
            elif is_text:
                done: Json = {**where, "text": part["text"], "logprobs": []}
                self._frames.add("response.output_text.done", **done)
            self._part("done", place, id, index, part)
        self._done(place, message_item(id, status, content, phase))

    def discard(self) -> None:
        """Ends the last message as one that is void: the model was asked for another answer."""
        if (place := self._last) is not None:
            self.items[place]["content"] = []
            self.settle("commentary", "incomplete")

    def add_text(self, id: str, text: str) -> None:
        """Adds a message with a text that did not come from the model."""
        self._end_message(OpenItem(id), Message("assistant", text, id))

    def add_output(self, output: FunctionCallOutput) -> None:
        """Shows what a call returned."""
        call = self._calls.get(output.call_id)
        self.asked.pop(output.call_id, None)
        if call is None or call.awaits == "output":
            return
        if call.item.name == OUTPUT_TOOL:
            if output.is_error:
                self.discard()
            return
        self.run_call(call)
        place = self._running.pop(output.call_id)
        item = dict(self.items[place])
        if output.is_error:
            text = {"type": "text", "text": output.text}
            item |= {
                "status": "failed",
                "error": {"type": "mcp_tool_execution_error", "content": [text]},
            }
        else:
            item |= {"status": "completed", "output": output.text}
        kind = "failed" if output.is_error else "completed"
        self._frames.add(f"response.mcp_call.{kind}", item_id=item["id"], output_index=place)
        self._done(place, item)

    def approve(self, event: ToolApproved) -> None:
        """Shows a call that may run now, with the arguments that were approved."""
        self.asked.pop(event.call_id, None)
        if (call := self._calls.get(event.call_id)) is not None:
            if event.arguments:
                call = replace(call, item=replace(call.item, arguments=event.arguments))
            self.run_call(call)

    def run_call(self, call: ToolCallRequested) -> None:
        """Shows a call that the agent runs, if it is not shown."""
        item, arguments = call.item, shown_arguments(call)
        if item.call_id in self._running:
            return
        approved = item.id if call.awaits == "approval" else None
        id = f"{item.id}_run" if approved else item.id
        shown = tool_item(id, item.name, arguments, "in_progress", approved)
        place = self._add(shown, {**shown, "arguments": ""})
        self._running[item.call_id] = place
        frames = self._frames
        frames.add("response.mcp_call.in_progress", item_id=id, output_index=place)
        self._arguments("response.mcp_call_arguments", place, id, arguments, {})

    def leave_calls(self) -> None:
        """Ends the calls that still run where the response ends."""
        for place in self._running.values():
            self._done(place, {**self.items[place], "status": "incomplete"})
        self._running.clear()

    def drop(self, item: OpenItem) -> None:
        """Ends the item that is shown last, which the model did not finish, and removes it."""
        place = len(self.items) - 1
        assert item.place == place
        self._done(place, {**self.items[place], "status": "incomplete"})
        self.items.pop()

    def _finish(self, items: Iterable[tuple[OpenItem, Landing]]) -> None:
        for item, landing in items:
            match landing:
                case MessageAdded():
                    self._end_message(item, landing.item)
                case ReasoningAdded():
                    self._end_reasoning(item, landing.item.text)
                case ToolCallRequested():
                    self._add_call(item, landing)
                case ProviderItemAdded():
                    self._add_hosted(landing.item)
        first = self._order.first
        if first is not None and first.growth:  # it was behind another one until now
            growth = "".join(first.growth)
            first.growth.clear()
            self._grow(first, growth)

    def _grow(self, item: OpenItem, delta: str) -> None:
        if not delta:
            return
        item.sent += len(delta)
        if item.is_reasoning:
            self._frames.add_delta(
                "response.reasoning_summary_text.delta",
                delta,
                item_id=item.id,
                output_index=self._begin_reasoning(item),
                summary_index=0,
            )
            return
        place = self._begin_message(item) if item.place is None else item.place
        self._frames.add_delta(
            "response.output_text.delta",
            delta,
            item_id=item.shown_id,
            output_index=place,
            content_index=0,
            logprobs=[],
        )

    def _begin_message(self, item: OpenItem) -> int:
        if item.place is None:
            item.place = self._add(message_item(item.shown_id, "in_progress", []))
            self._part("added", item.place, item.shown_id, 0, text_part(""))
        return item.place

    def _begin_reasoning(self, item: OpenItem) -> int:
        if item.place is None:
            item.place = self._add(reasoning_item(item.id, ""))
            self._frames.add(
                "response.reasoning_summary_part.added",
                item_id=item.id,
                output_index=item.place,
                summary_index=0,
                part={"type": "summary_text", "text": ""},
            )
        return item.place

    def _end_message(self, item: OpenItem, message: Message) -> None:
        id, content = item.shown_id, list[Json]()
        text, refusal = message.text, message.refusal
        if text or not refusal:
            place = self._begin_message(item)
            self._grow(item, text[item.sent :])
            content.append(text_of(message))
        else:
            place = item.place = self._add(message_item(id, "in_progress", []))
        if refusal:
            index = len(content)
            self._part("added", place, id, index, {"type": "refusal", "refusal": ""})
            where = {"item_id": id, "output_index": place, "content_index": index}
            self._frames.add_delta("response.refusal.delta", refusal, **where)
            content.append({"type": "refusal", "refusal": refusal})
        self.items[place] = message_item(id, "completed", content)
        self._last = place

    def _end_reasoning(self, item: OpenItem, text: str) -> None:
        if not text:
            place = self._add(reasoning_item(item.id, ""))
        else:
            place = self._begin_reasoning(item)
            self._grow(item, text[item.sent :])
            where = {"item_id": item.id, "output_index": place, "summary_index": 0}
            part = {"type": "summary_text", "text": text}
            self._frames.add("response.reasoning_summary_text.done", **where, text=text)
            self._frames.add("response.reasoning_summary_part.done", **where, part=part)
        self._done(place, reasoning_item(item.id, text))

    def _add_call(self, opened: OpenItem, call: ToolCallRequested) -> None:
        item = call.item
        if said := said_text(call):
            opened.shown_id = said_id(item.id)
            self._end_message(opened, Message("assistant", said))
        if item.name == OUTPUT_TOOL:
            self._end_message(OpenItem(item.id), Message("assistant", item.arguments, item.id))
            return
        if call.awaits is None:
            self.run_call(call)
            return
        self.asked[item.call_id] = item.id
        arguments = shown_arguments(call)
        if call.awaits == "approval":
            shown = approval_item(item.id, item.name, arguments)
            self._done(self._add(shown), shown)
        else:
            shown = function_item(item.id, item.call_id, item.name, arguments, "completed")
            begun = {**shown, "arguments": "", "status": "in_progress"}
            place = self._add(shown, begun)
            name = {"name": item.name}
            self._arguments("response.function_call_arguments", place, item.id, arguments, name)
            self._done(place, shown)

    def _add_hosted(self, item: ProviderItem) -> None:
        """Shows a call of a hosted tool, which the journal has with its result."""
        assert item.call is not None
        shown = hosted_item(item.call)
        place = self._add(shown, {**shown, "status": "in_progress"})
        where: Json = {"item_id": item.id, "output_index": place}
        self._frames.add(f"response.{shown['type']}.in_progress", **where)
        # Only calls of MCP servers have an event for a failure.
        failed = shown["type"] == "mcp_call" and shown["status"] == "failed"
        end = "failed" if failed else "completed"
        self._frames.add(f"response.{shown['type']}.{end}", **where)
        self._done(place, shown)

    def _arguments(
        self, kind: str, place: int, id: str, arguments: str, more: dict[str, str]
    ) -> None:
        frames = self._frames
        frames.add_delta(f"{kind}.delta", arguments, item_id=id, output_index=place)
        frames.add(f"{kind}.done", item_id=id, output_index=place, arguments=arguments, **more)

    def _part(self, kind: str, place: int, id: str, index: int, part: Json) -> None:
        self._frames.add(
            f"response.content_part.{kind}",
            item_id=id,
            output_index=place,
            content_index=index,
            part=part,
        )

    def _add(self, item: Json, shown: Json | None = None) -> int:
        """Adds an item, which is shown as `shown` at first; returns its place."""
        self.settle("commentary")
        self.items.append(item)
        place = len(self.items) - 1
        self._frames.add("response.output_item.added", output_index=place, item=shown or item)
        return place

    def _done(self, place: int, item: Json) -> None:
        self.items[place] = item
        self._frames.add("response.output_item.done", output_index=place, item=item)
