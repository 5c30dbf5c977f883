"""What a scenario needs of a protocol, and what its client has seen in the words of all of them.

A protocol is a `Protocol` with a `Person` that uses its real client; `openai_responses` is one in
this process, and `client_process` runs those of others in node.
`run_scenario` serves the agent of a scenario, lets the persons play it, and compares what arrived
with the threads.
"""

import asyncio
import hashlib
import json
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from msgspec import Struct
from tests.server.serving import Client, serving

from treadle import Agent, Runtime, Thread
from treadle.domain.events import (
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    RecordedEvent,
    RunCompleted,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput, InputFile, InputImage, Message
from treadle.journal.memory import MemoryJournal

if TYPE_CHECKING:
    from tests.protocols.scenarios import Scenario

End = Literal["", "completed", "waits", "incomplete", "failed", "cancelled", "cut"]
"""How what the person did last has ended for the client.

`waits`: the agent waits for outputs or approvals. `failed`: with an error, which may come before
the first byte. `cut`: the client has left the stream.
"""


class SeenCall(Struct):
    """A call that a client has seen; `id` is what the client answers it by.

    `arguments` is JSON, without the text for the user.
    `output` is None as long as there is none; that of a call that was denied is the text that the
    model reads.
    """

    id: str
    name: str
    arguments: str
    awaits: Literal["", "output", "approval"] = ""
    output: str | None = None


class Seen(Struct):
    """All that a client has seen of a conversation so far.

    `texts` are the messages of the agent, refusals as well, `said` the texts for the user in calls.
    `order` has an entry for each text, said text, call and output, in the order in which they
    appeared: `text`, `said`, `call`, `output`. `growths` counts how often a text grew on the
    screen. A text that was taken back is not in here.
    """

    texts: list[str] = []
    said: list[str] = []
    reasoning: list[str] = []
    calls: list[SeenCall] = []
    order: list[str] = []
    growths: int = 0
    end: End = ""
    error: str = ""

    def waiting(self, awaits: str) -> list[SeenCall]:
        """Returns the calls without an output that wait for an answer of a kind."""
        return [call for call in self.calls if call.awaits == awaits and call.output is None]


class File(Struct, frozen=True):
    """A file that a person sends."""

    name: str
    media_type: str
    base64: str

    @property
    def url(self) -> str:
        """The file as a data URL."""
        return f"data:{self.media_type};base64,{self.base64}"

    @property
    def id(self) -> str:
        """What identifies its content in a transcript."""
        return content_id(self.url)


def content_id(url: str) -> str:
    """Returns the beginning of the file id of a data URL."""
    return hashlib.sha256(b64decode(url.partition(";base64,")[2])).hexdigest()[:8]


class ClientTool(Struct, frozen=True):
    """A function that the client runs."""

    name: str
    description: str
    parameters: dict[str, Any]


class Person(ABC):
    """A person with a conversation over a protocol; each verb returns all that was seen so far.

    A verb ends when the agent is done, waits for an answer, or the client has left. Errors that the
    client raises are `error` of what was seen.
    """

    @abstractmethod
    async def say(
        self, text: str, *, files: Sequence[File] = (), stop_after: int = 0, leave_after: int = 0
    ) -> Seen:
        """Sends a message.

        After `stop_after` characters of a text the person presses stop; after `leave_after` the
        connection is cut.
        """

    async def answer(self, outputs: Mapping[str, str]) -> Seen:
        """Answers calls of the client by their ids."""
        raise NotImplementedError

    async def decide(self, approved: Mapping[str, bool]) -> Seen:
        """Approves or denies calls by their ids."""
        raise NotImplementedError

    async def resume(self) -> Seen:
        """Continues what was cut."""
        raise NotImplementedError


class Protocol(ABC):
    """A protocol: how a person uses it, and what it cannot do."""

    name: ClassVar[str]
    lacks: ClassVar[Mapping[str, str]] = {}
    """Scenarios that do not exist in the protocol, each with the reason."""

    shows: ClassVar[frozenset[str]] = frozenset({"said", "reasoning", "calls", "ends"})
    """What clients see as well as texts and their own calls.

    `calls`: those that the agent runs itself, with their outputs. `hosted`: those that the provider
    of the model runs, as calls. `ends`: a cancelled run differs
    from one that is complete. `answers`: of the texts of a run, the last one alone.
    """

    brings_tools: ClassVar[bool] = True
    """Whether the client brings functions; otherwise the agent declares them as external."""

    @abstractmethod
    def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AbstractAsyncContextManager[Person]:
        """Connects a person to the server of `client`."""


async def run_scenario(
    protocol: Protocol,
    scenario: "Scenario",
    served: "Callable[[Agent], AbstractAsyncContextManager[Runtime]] | None" = None,
) -> None:
    """Plays a scenario over a protocol, and compares what arrived with the threads.

    `served` gives the runtime of the server.
    """
    stage = Stage(protocol, scenario)
    agent = scenario.agent(stage)
    async with AsyncExitStack() as end:
        if served is None:
            runtime = Runtime(MemoryJournal(), agents=[agent])
        else:
            runtime = await end.enter_async_context(served(agent))
        client = await end.enter_async_context(serving(runtime))
        stage.runtime = client.app.services.runtime
        persons = [
            await end.enter_async_context(
                protocol.person(client, scenario.addressed, scenario.client_tools)
            )
            for _ in range(scenario.persons)
        ]
        played = (scenario.play(person, n) for n, person in enumerate(persons, 1))
        for number, seen in enumerate(await asyncio.gather(*played), 1):
            await stage.compare(seen, number)


class Stage:
    """The server side of a scenario that is played."""

    runtime: Runtime

    def __init__(self, protocol: Protocol, scenario: "Scenario") -> None:
        self.protocol = protocol
        self.scenario = scenario

    async def threads(self) -> list[Thread]:
        """Returns the threads of the server."""
        found = await self.runtime.threads()
        return [await self.runtime.connect(info.id) for info in found]

    async def compare(self, seen: Seen, number: int) -> None:
        """Asserts that a thread holds the conversation of a person, and that the person saw it."""
        scenario = self.scenario
        holds = [line.replace("#", str(number)) for line in scenario.holds]
        threads = {thread: await transcript(thread) for thread in await self.threads()}
        if not holds:
            assert not any(threads.values()), threads
            assert (seen.texts, seen.calls) == ([], [])
        else:
            assert holds in threads.values(), f"{holds} is not in {list(threads.values())}"
            thread = next(one for one, lines in threads.items() if lines == holds)
            assert len(threads) == scenario.persons, f"There are {len(threads)} threads."
            runs = [run.status for run in await thread.runs(order="asc")]
            assert runs[-1] == scenario.status, runs
            assert set(runs[:-1]) <= {"completed"}, runs
            self._compare(seen, await thread.events())
        if "ends" in self.protocol.shows or scenario.end in {"completed", "failed"}:
            assert seen.end == scenario.end, seen
        assert bool(seen.error) == (scenario.end == "failed"), seen
        assert all(part in seen.error for part in scenario.error)

    def _compare(self, seen: Seen, events: Sequence[RecordedEvent]) -> None:
        facts, discarded = facts_of(events)
        shows = self.protocol.shows
        texts = [text for text in seen.texts if text not in discarded]
        assert texts == (answers_in(events) if "answers" in shows else facts.texts)
        if "said" in shows:
            assert seen.said == facts.said
        if "reasoning" in shows:
            assert seen.reasoning == facts.reasoning
        items = [event.item for event in events if isinstance(event, ProviderItemAdded)]
        hosted = [item.call.tool for item in items if item.call is not None]
        calls = [call for call in seen.calls if call.name not in hosted]
        shown = [call.name for call in seen.calls if call.name in hosted]
        assert shown == (hosted if "hosted" in shows else [])
        expected = facts.calls
        if "calls" not in shows:
            expected = [call for call in expected if call.awaits]
        assert sorted(map(_call, calls)) == sorted(map(_call, expected))
        if "calls" in shows:
            assert seen.order.count("output") == sum(call.output is not None for call in seen.calls)


def _call(call: SeenCall) -> tuple[str, str, str | None]:
    return call.name, json.dumps(json.loads(call.arguments), sort_keys=True), call.output


def facts_of(events: Iterable[RecordedEvent]) -> tuple[Seen, set[str]]:
    """Returns what a client should have seen, and texts that treadle has discarded.

    A client may have seen those, but not as an answer.
    """
    facts, discarded = Seen(), set[str]()
    calls: dict[str, SeenCall] = {}
    for event in events:
        match event:
            case MessageAdded(origin="model"):
                facts.texts.append(event.item.text or event.item.refusal)
            case MessageAdded(origin="runtime"):  # a correction
                discarded.add(facts.texts.pop())
            case ReasoningAdded():
                facts.reasoning.append(event.item.text)
            case ToolCallRequested():
                call = event.item
                arguments = event.arguments or {}
                arguments.pop(event.to_user, None)
                shown = json.dumps(arguments)
                seen = SeenCall(call.call_id, call.name, shown, event.awaits or "")
                calls[call.call_id] = seen
                facts.calls.append(seen)
                if event.said:
                    facts.said.append(event.said)
            case ToolOutputRecorded():
                calls[event.item.call_id].output = event.item.text
            case _:
                pass
    return facts, discarded


def answers_in(events: Iterable[RecordedEvent]) -> list[str]:
    """Returns the last text of each run that is complete."""
    answers, last = list[str](), ""
    for event in events:
        if isinstance(event, MessageAdded) and event.origin == "model":
            last = event.item.text or event.item.refusal
        elif isinstance(event, RunCompleted):
            answers.append(last)
    return answers


async def transcript(thread: Thread) -> list[str]:
    """Returns the history of a thread as lines.

    For example `user: Hi.`, `agent: Hello.`, `call: weather {"city": "Rome"}`, `output: Sunny.` A
    file of a message is `+` and its id. Corrections that treadle itself asked for are left out.
    """
    own = [
        event.item.id
        for event in await thread.events()
        if isinstance(event, MessageAdded) and event.origin == "runtime"
    ]
    lines: list[str] = []
    for item in await thread.history():
        match item:
            case Message() if item.id not in own:
                name = "agent" if item.role == "assistant" else item.role
                files = [_file(part) for part in item.content]
                lines.append(f"{name}: {item.text or item.refusal}{''.join(files)}")
            case FunctionCall():
                lines.append(f"call: {item.name} {item.arguments}")
            case FunctionCallOutput():
                lines.append(f"output: {item.text}")
            case _:
                pass
    return lines


def _file(part: object) -> str:
    match part:
        case InputImage() | InputFile() if part.file_id:
            return f" +{part.file_id[:8]}"
        case InputImage():
            return f" +{content_id(part.image_url)}"
        case InputFile():
            return f" +{content_id(part.file_data)}"
        case _:
            return ""
