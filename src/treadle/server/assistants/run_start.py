"""What a request begins: a run on a thread, or the next part of one."""

from collections.abc import Iterator
from typing import Any

from treadle.domain.items import Message
from treadle.domain.limits import Limits
from treadle.domain.settings import ModelSettings
from treadle.loop.definition import AgentDefinition
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest
from treadle.server.assistants.assistants_objects import LABELS
from treadle.server.assistants.assistants_requests import NewMessage, NewRun, ToolOutputs
from treadle.server.openai.allowed_options import allowed_options
from treadle.server.openai.errors import ParameterRefused
from treadle.server.openai.nested_forms import flat_choice, flat_format, flat_function
from treadle.server.openai.tool_options import client_tools, output_schema, tool_choice
from treadle.server.routes.items import given_items

Agent = AgentDefinition[Any, Any]


def given_messages(messages: list[NewMessage] | None) -> list[dict[str, Any]]:
    """Returns messages of a request in the form of a history."""
    return [{"role": one.role, "content": one.content} for one in messages or ()]


async def start_run(request: ApiRequest[Any, Any], thread: Thread, body: NewRun) -> ThreadRun:
    """Starts a run; raises 400 for a parameter that the agent does not allow."""
    agent = request.services.runtime.agent(body.assistant_id)
    options = allowed_options(agent, _options(body))
    added = given_items(request, given_messages(body.additional_messages))
    if body.metadata:
        options["metadata"] = {LABELS: body.metadata}
    owner = request.principal.owner
    if owner is None:
        owner = (await thread.info()).owner
    await request.services.limits.require_run(request.runtime, owner, thread.id)
    key = request.headers.get(b"idempotency-key")
    messages = [one for one in added if isinstance(one, Message) and one.role == "user"]
    if len(messages) < len(added):
        await thread.add(added, key=f"{key} additional_messages" if key else "")
        messages = []
    return await thread.send(messages, key=key, agent=agent.name, on_busy="reject", **options)


def _options(body: NewRun) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the parameters that change the result; values of the API's default do not."""
    if body.instructions:
        yield "instructions", {"instructions": body.instructions}
    if body.additional_instructions:
        yield "additional_instructions", {"extra_instructions": body.additional_instructions}
    if body.temperature not in {None, 1.0}:
        yield "temperature", {"settings": ModelSettings(temperature=body.temperature)}
    if body.top_p not in {None, 1.0}:
        yield "top_p", {"settings": ModelSettings(top_p=body.top_p)}
    if (most := body.max_completion_tokens) is not None:
        yield "max_completion_tokens", {"settings": ModelSettings(max_output_tokens=most)}
    if (most := body.max_prompt_tokens) is not None:
        yield "max_prompt_tokens", {"limits": Limits(max_input_tokens=most)}
    if body.parallel_tool_calls is False:
        yield "parallel_tool_calls", {"settings": ModelSettings(parallel_tool_calls=False)}
    if (effort := body.reasoning_effort) is not None:
        yield "reasoning_effort", {"settings": ModelSettings(reasoning_effort=effort)}
    if tools := client_tools(map(flat_function, body.tools or ())):
        yield "tools", {"tools": tools}
    if (choice := tool_choice(flat_choice(body.tool_choice))) is not None:
        yield "tool_choice", {"tool_choice": choice}
    form = None if body.response_format == "auto" else body.response_format
    if (schema := output_schema("response_format", flat_format(form))) is not None:
        yield "response_format", {"output": schema}


async def submit_outputs(thread: Thread, run: ThreadRun, body: ToolOutputs) -> None:
    """Submits the outputs of all calls that wait for one; nothing is recorded if one is missing."""
    active = await thread.active_run()
    waiting = {
        pending.call.call_id
        for pending in await thread.pending_calls()
        if pending.awaits == "output" and active is not None and active.id == run.id
    }
    given = {one.tool_call_id: one.output for one in body.tool_outputs}
    if unknown := sorted(given.keys() - waiting):
        raise ParameterRefused("tool_outputs", f"No call {unknown[0][:100]!r} waits for an output.")
    if missing := sorted(waiting - given.keys()):
        raise ParameterRefused(
            "tool_outputs", f"The call {missing[0]} needs an output.", code="output_missing"
        )
    if not given:
        raise ParameterRefused("tool_outputs", f"The run {run.id} waits for no output.")
    for call_id, output in given.items():
        await thread.submit_tool_output(call_id, output)
