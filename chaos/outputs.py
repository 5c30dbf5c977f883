"""Whether runs that answer in a form have the output that their validator accepted."""

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import msgspec

import treadle
from chaos.findings import Findings
from chaos.stored import StoredThread
from treadle.domain.entries import OnBusy
from treadle.domain.events import MessageAdded, RunCompleted, RunStarted, TextDelta
from treadle.domain.ids import new_id
from treadle.domain.items import FunctionCall, Message, OutputText
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.tools.output_type import OUTPUT_TOOL

Mode = Literal["native", "tool", "prompted"]

MODES: Sequence[Mode] = get_args(Mode)
CORRECTION = "Your answer is not valid"
"""How the message of treadle begins that asks for another answer."""
NOT_COUNTED = "Count the answers, from 1."
PIECES, PAUSE = 4, 0.005


@dataclass(frozen=True)
class Form:
    """An output: the message that it answers, and how many answers came before it."""

    key: str
    number: int
    checked: bool = False


class FormModel:
    """Answers with a form that the validator refuses at first, in the mode of its agent."""

    provider = "form"

    def __init__(self, mode: Mode) -> None:
        self.name = f"form-{mode}"
        self._mode = mode

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        """Streams a form in pieces."""
        form = _form(request)
        text = msgspec.json.encode({"key": form.key, "number": form.number}).decode()
        await asyncio.sleep(PAUSE)
        id = new_id("msg")
        if self._mode == "tool":
            yield ItemFinished(0, FunctionCall(id, OUTPUT_TOOL, text, f"fc_{id}"))
        else:
            said = f"```json\n{text}\n```" if self._mode == "prompted" else text
            size = -(-len(said) // PIECES)
            for at in range(0, len(said), size):
                await asyncio.sleep(PAUSE)
                yield TextDelta(id, said[at : at + size])
            yield ItemFinished(0, Message("assistant", (OutputText(said),), id))
        yield ResponseFinished(id, "stop", Usage(1, 1, requests=1))


def _form(request: ModelRequest) -> Form:
    key, number = "", 0
    for item in request.items:
        match item:
            case Message(role="user") if not item.text.startswith(CORRECTION):
                key, number = item.text, 0
            case Message(role="assistant") | FunctionCall():
                number += 1
            case _:
                pass
    return Form(key, number)


async def _check(form: Form) -> Form:
    """Refuses the first answer, and marks the others."""
    await asyncio.sleep(PAUSE)
    if not form.number:
        raise treadle.ModelRetry(NOT_COUNTED)
    return replace(form, checked=True)


def form_agents(hooks: treadle.Hooks[Any]) -> list[treadle.Agent[Any, Form]]:
    """Returns the agents that answer in a form: one for each mode."""
    return [
        treadle.Agent[Any, Form](
            FormModel(mode),
            name=f"form-{mode}",
            output=Form,
            output_mode=mode,
            output_validators=[_check],
            max_corrections=5,
            hooks=hooks,
        )
        for mode in MODES
    ]


def agent_of(key: str, on_busy: OnBusy = "queue") -> str:
    """Returns the agent that answers a message: for one in three, one that answers in a form."""
    number = zlib.crc32(key.encode()) >> 8
    return "" if on_busy == "steer" or number % 3 else f"form-{MODES[number // 3 % 3]}"


def judge_outputs(findings: Findings, thread: StoredThread) -> None:
    """The output of a completed run is the form for one of its messages, marked, and counted."""
    forms: set[str] = set()
    asked = defaultdict[str, set[str]](set)
    for event in thread.events:
        match event:
            case MessageAdded(item=item):
                asked[event.run_id].add(item.text)
            case RunStarted(agent=agent) if agent.startswith("form-"):
                forms.add(event.run_id)
            case RunCompleted() if event.run_id in forms:
                findings.counts["validated outputs"] += 1
                text = event.output.text if event.output is not None else "null"
                form = msgspec.json.decode(text, type=Form | None)
                run = f"{thread.id}: {event.run_id}"
                if form is None or not form.checked or not form.number:
                    findings.losses.append(f"{run} completed with an unchecked output: {text}")
                elif form.key not in asked[event.run_id]:
                    findings.wrong.append(f"{run} answered {form.key}, which it was not asked")
            case _:
                pass
