"""Whether runs have the options that they were sent with, in every life of the process."""

import zlib
from collections.abc import Mapping
from typing import Any

from chaos.agents import OTHER, OTHER_SCENARIO
from chaos.findings import Findings
from chaos.outputs import agent_of
from chaos.stored import StoredThread
from treadle.domain.entries import OnBusy
from treadle.domain.events import MessageAdded, RunStarted, StepStarted


def options_of(key: str, on_busy: OnBusy) -> Mapping[str, Any]:
    """Returns the options of a message: every second one has some, and each time the same."""
    number = zlib.crc32(key.encode())
    if on_busy == "steer" or number % 2:
        return {}
    given: dict[str, Any] = {"metadata": {"key": key}}
    if number % 4 and not agent_of(key, on_busy):
        given |= {"model": OTHER, "instructions": f"Think of {key}."}
    return given


def judge_options(findings: Findings, thread: StoredThread) -> None:
    """The metadata names the message of the run, and each step asked the model of the run."""
    models: dict[str, str] = {}
    asked = ""
    for event in thread.events:
        match event:
            case MessageAdded(origin="user", item=item):
                asked = item.text
            case RunStarted(options=options) if options is not None:
                findings.counts["options"] += 1
                models[event.run_id] = options.model
                if options.metadata != {"key": asked}:
                    findings.wrong.append(f"{thread.id}: {event.run_id} has other options")
            case StepStarted(model=model):
                given = models.get(event.run_id, "")
                if (model == OTHER_SCENARIO) != (given == OTHER):
                    findings.wrong.append(f"{thread.id}: {event.run_id} asked the model {model}")
            case _:
                pass
