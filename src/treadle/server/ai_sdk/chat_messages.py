"""The messages of a chat, as a client would have them if it had read all streams."""

from treadle.domain.events import (
    ItemsAdded,
    MessageAdded,
    RecordedEvent,
    RunCancelled,
    RunQueued,
    RunStarted,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message
from treadle.runtime.runtime import Runtime
from treadle.runtime.thread import Thread
from treadle.server.ai_sdk.chat_mapper import ChatMapper
from treadle.server.ai_sdk.chats import message_of_key
from treadle.server.ai_sdk.message_fold import Json, MessageFold
from treadle.server.ai_sdk.message_parts import ui_parts
from treadle.server.ai_sdk.tool_kinds import tool_kinds
from treadle.server.run_events import thread_events


async def chat_messages(runtime: Runtime, thread: Thread) -> list[Json]:
    """Returns the messages of a thread, the oldest first."""
    made = ChatMessages(thread.id, runtime)
    async for event in thread_events(thread):
        made.feed(event)
    return made.end()


class ChatMessages:
    """Adds the events of a thread up to messages."""

    def __init__(self, thread_id: str, runtime: Runtime) -> None:
        self._thread_id = thread_id
        self._runtime = runtime
        self._folds: dict[str, MessageFold] = {}
        self._mappers: dict[str, ChatMapper] = {}
        self._order: list[Json | MessageFold] = []
        self._users: dict[str, Json] = {}  # by the ids of their items
        self._of_run: dict[str, list[Json]] = {}

    def end(self) -> list[Json]:
        """Returns the messages; all events were taken."""
        for mapper in self._mappers.values():
            mapper.settle()
        made = (one.message if isinstance(one, MessageFold) else one for one in self._order)
        return [message for message in made if _has_content(message)]

    def feed(self, event: RecordedEvent) -> None:
        """Takes the next event of the thread."""
        match event:
            case ItemsAdded():
                for item in event.items:
                    self._add_item(event, item)
                self._folds.pop("", None)
                return
            case MessageAdded(origin="user" | "schedule") if event.run_id not in self._folds:
                self._add_user(event.run_id, event.item, event.at)
                return
            case RunQueued():
                for item in (*event.before, event.item):
                    self._add_user(event.run_id, item, event.at)
            case RunCancelled() if event.run_id not in self._folds:
                self._drop_users(event.run_id)  # they never entered the history
            case _:
                pass
        if isinstance(event, RunQueued | RunStarted) and event.key:
            self._name(event.run_id, event.key)
        if isinstance(event, RunStarted):
            self._mapper(event.run_id, event.run_id, event.agent).feed(event)
        elif event.run_id in self._folds:
            self._mappers[event.run_id].feed(event)

    def _add_user(self, run_id: str, item: Message, at: float) -> None:
        message = self._users.get(item.id)
        if message is not None:  # it has waited, and is the next now
            self._order = [one for one in self._order if one is not message]
        else:
            message = {
                "id": item.id,
                "role": "user",
                "parts": ui_parts(item),
                "metadata": {"createdAt": int(at * 1000)},
            }
            self._users[item.id] = message
            self._of_run.setdefault(run_id, []).append(message)
        self._order.append(message)

    def _drop_users(self, run_id: str) -> None:
        dropped = self._of_run.pop(run_id, [])
        self._order = [one for one in self._order if not any(one is other for other in dropped)]

    def _name(self, run_id: str, key: str) -> None:
        """Gives the message of a run the id that its client gave it."""
        id, _ = message_of_key(key)
        if id and (messages := self._of_run.get(run_id)):
            messages[-1]["id"] = id

    def _mapper(self, run_id: str, id: str, agent: str = "") -> ChatMapper:
        if run_id not in self._folds:
            fold = self._folds[run_id] = MessageFold(id)
            fold.add(
                {
                    "type": "start",
                    "messageMetadata": {"threadId": self._thread_id, "runId": run_id},
                }
            )
            self._mappers[run_id] = ChatMapper(id, fold, tool_kinds(self._runtime, agent))
            self._order.append(fold)
        return self._mappers[run_id]

    def _add_item(self, event: ItemsAdded, item: Item) -> None:
        """Adds an item that belongs to no run."""
        match item:
            case Message(role="user"):
                self._folds.pop("", None)
                self._add_user("", item, event.at)
            case Message(role="assistant"):
                self._mapper("", item.id).feed(MessageAdded(run_id="", item=item, origin="model"))
            case FunctionCall():
                self._mapper("", item.id).feed(ToolCallRequested(run_id="", item=item))
            case FunctionCallOutput():
                self._mapper("", item.id).feed(ToolOutputRecorded(run_id="", item=item, name=""))
            case _:
                pass


def _has_content(message: Json) -> bool:
    """Whether a message says something; one that was removed, or has not begun, does not."""
    return any(part["type"] != "step-start" for part in message["parts"])
