"""One response of the model: its request, its stream, and its retries."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import assert_never, cast

from treadle.domain.arguments import shown
from treadle.domain.events import (
    MessageAdded,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    ReasoningAdded,
    ResponseCompleted,
    RetriesExhausted,
    Retrying,
    TextDelta,
    ToolChoiceIgnored,
    UsageAdded,
)
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    ProviderItem,
    Reasoning,
)
from treadle.domain.settings import NamedTool
from treadle.errors import (
    ContextOverflow,
    HookFailed,
    ModelError,
    QuotaExceeded,
    RateLimited,
    StreamIncomplete,
)
from treadle.loop.activation import Activation
from treadle.loop.adapted_items import locate_item, report_adapted
from treadle.loop.calls import StepCalls
from treadle.loop.definition import Deps, Out, cost_of, output_tool_of
from treadle.loop.request import build_request
from treadle.loop.request_files import name_stored, with_contents
from treadle.loop.step_hooks import StepHooks
from treadle.models.base import CacheWritten, ItemsAdapted, ModelRequest
from treadle.models.retry import Backoff, Retry
from treadle.streaming.demux import ItemFinished, ResponseFinished
from treadle.streaming.streamed_fields import StreamedFields, StreamedParameters
from treadle.tools.output_type import OUTPUT_TOOL
from treadle.tools.toolset import Toolset
from treadle.tools.watched import CancelledItself, OwnCancels


async def stream_response(
    activation: Activation[Deps, Out],
    tools: Toolset,
    hooks: StepHooks[Deps, Out],
    calls: StepCalls[Deps, Out],
) -> Retry | None:
    """Streams the response of the open step, and hands the calls in it to `calls`.

    Repeats the request within the agent's retry policy while nothing of the response was seen.
    Text that a person may have read must not come a second time in the same step: if the response
    breaks off after that, returns the retry to make in the next one, or None for a whole response.
    Raises what the model raised, `HookFailed`, and `InputUnsupported`.
    """
    thread, agent = activation.thread, activation.agent
    publish = thread.publish
    # Of an earlier step that broke off: the retries of both are counted together.
    backoff = activation.backoff = activation.backoff or Backoff(agent.retry)
    was_shortened = False
    request = await _request(activation, tools, hooks)
    sent = await with_contents(activation, request)
    while True:
        is_seen = False
        try:
            events, fields = agent.model.stream(sent), _streamed_fields(activation, tools)
            try:
                async for event in events:
                    if type(event) is TextDelta or not isinstance(
                        event, (ItemFinished, ResponseFinished, ItemsAdapted, CacheWritten)
                    ):
                        is_seen = True
                        publish(event)
                        if fields is not None:
                            for growth in fields.feed(event):
                                publish(growth)
                    elif isinstance(event, ItemFinished):
                        is_seen = True
                        if calls.asks(event.item):
                            with suppress(CancelledItself):  # a rule for approval; it is needed
                                async with OwnCancels():
                                    _record_item(activation, event, calls)
                        else:
                            _record_item(activation, event, calls)
                    elif isinstance(event, (ItemsAdapted, CacheWritten)):
                        _record_before(activation, event)
                    else:
                        is_seen = True
                        await calls.decided()
                        _record_end(activation, event, request)
            finally:
                # Nearly all models are async generators, whose connections must not wait for the
                # garbage collector.
                if isinstance(events, AsyncGenerator):
                    await events.aclose()
            step = thread.state.step
            if step is None or step.finish_reason is None:
                raise StreamIncomplete("The model ended its stream without ResponseFinished.")
            activation.backoff = None
            return None
        except ModelError as error:
            name_stored(error, request, sent)
            await locate_item(thread, error)
            is_too_long = isinstance(error, ContextOverflow) and not is_seen
            # Once: a request that is still too long after it was shortened will never fit.
            if is_too_long and not was_shortened and await _became_shorter(activation):
                request, was_shortened = await _request(activation, tools, hooks), True
                sent = await with_contents(activation, request)
                continue
            retry = backoff.after(error)
            if retry is None or (is_seen and not activation.repeats_interrupted):
                _record_last(activation, error)
                raise
            thread.record(_retry_event(activation.run.id, retry))
            if is_seen:
                return retry
        await asyncio.sleep(retry.delay)


async def _request(
    activation: Activation[Deps, Out], tools: Toolset, hooks: StepHooks[Deps, Out]
) -> ModelRequest:
    """Returns the request of the step, once it fits into the window of the model."""
    thread, agent = activation.thread, activation.agent
    memory, compactor = activation.services.memory, activation.services.compactor
    instructions = await _instructions(activation)
    blocks = await memory.blocks()
    request = build_request(thread.state, agent, instructions, tools, blocks)
    if agent.budget is not None:
        read = thread.state.context
        await compactor.fit(agent.budget, request)
        if thread.state.context is not read:
            blocks = await memory.blocks()  # again, because the summary may be in one of them
            request = build_request(thread.state, agent, instructions, tools, blocks)
    return await hooks.before_model(request)


async def _instructions(activation: Activation[Deps, Out]) -> str:
    """Returns the instructions for the next request; raises `HookFailed`."""
    instructions = activation.agent.instructions
    if isinstance(instructions, str):
        return instructions
    text = cast("object", await instructions.result(activation.run_context()))
    if not isinstance(text, str):
        raise HookFailed(f"{instructions.subject} returned {shown(text)}; return a text.")
    return text


async def _became_shorter(activation: Activation[Deps, Out]) -> bool:
    """Shortens what the model reads, after the provider refused it; returns whether it could."""
    budget = activation.agent.budget
    return budget is not None and await activation.services.compactor.overflowed(budget)


def _streamed_fields(activation: Activation[Deps, Out], tools: Toolset) -> StreamedFields | None:
    """Returns what streams the fields of one response; None if none is streamed."""
    output, streamed = activation.agent.stream_fields, tools.streamed
    if not streamed and not output:
        return None
    if output and output_tool_of(activation.agent) is not None:
        given = StreamedParameters("", output, is_output=True)
        return StreamedFields({**streamed, OUTPUT_TOOL: given}.get)
    return StreamedFields(streamed.get, output)


def _record_item(
    activation: Activation[Deps, Out], event: ItemFinished, calls: StepCalls[Deps, Out]
) -> None:
    thread, run_id = activation.thread, activation.run.id
    item, index = event.item, event.index
    match item:
        case Message():
            thread.record(MessageAdded(run_id=run_id, item=item, origin="model", index=index))
        case Reasoning():
            thread.record(ReasoningAdded(run_id=run_id, item=item, index=index))
        case ProviderItem():
            thread.record(ProviderItemAdded(run_id=run_id, item=item, index=index))
        case FunctionCall():
            calls.request(item, index)
        case FunctionCallOutput():
            raise ModelError("The model wrote the output of a tool, which only tools can do.")
        case _ as unreachable:
            assert_never(unreachable)


def _record_before(activation: Activation[Deps, Out], event: ItemsAdapted | CacheWritten) -> None:
    """Records what is known before the response begins: it is none of it."""
    if isinstance(event, ItemsAdapted):
        report_adapted(activation.thread, event)
        return
    cost = cost_of(activation.agent, event.usage)
    activation.thread.record(UsageAdded(run_id=activation.run.id, usage=event.usage, cost=cost))


def _record_end(
    activation: Activation[Deps, Out], event: ResponseFinished, request: ModelRequest
) -> None:
    agent = activation.agent
    ignored = _ignored_choice(activation, request)
    if ignored is not None and event.finish_reason == "stop":
        activation.thread.record(ToolChoiceIgnored(run_id=activation.run.id, tool=ignored))
    activation.thread.record(
        ResponseCompleted(
            run_id=activation.run.id,
            response_id=event.response_id,
            finish_reason=event.finish_reason,
            usage=event.usage,
            cost=cost_of(agent, event.usage),
            # What of the request is not an item; it calibrates the estimates of the context.
            frame_tokens=(
                activation.services.compactor.frame_tokens if agent.budget is not None else 0
            ),
        )
    )


def _ignored_choice(activation: Activation[Deps, Out], request: ModelRequest) -> str | None:
    """Returns the tool that the request forced and the response does not call; "" is any tool.

    Servers ignore what they do not know (llama.cpp, transformers), so this is not an error.
    """
    step, choice = activation.thread.state.step, request.settings.tool_choice
    if step is None or not request.tools:
        return None
    hosted = (item for _, item in step.items if isinstance(item, ProviderItem))
    if choice == "required" and any(item.call is not None for item in hosted):
        return None
    called = {call.name for call in step.calls}
    if isinstance(choice, NamedTool):
        return None if choice.name in called else choice.name
    return "" if choice == "required" and not called else None


def _retry_event(run_id: str, retry: Retry) -> RateLimitHit | Retrying:
    error = retry.error
    if isinstance(error, RateLimited):
        return RateLimitHit(
            run_id=run_id,
            delay=retry.delay,
            retries_remaining=retry.retries_remaining,
            message=error.message,
        )
    return Retrying(
        run_id=run_id,
        code=error.code,
        delay=retry.delay,
        retries_remaining=retry.retries_remaining,
        message=error.message,
    )


def _record_last(activation: Activation[Deps, Out], error: ModelError) -> None:
    """Records why the request is not repeated, if there is an event for that."""
    thread, run_id = activation.thread, activation.run.id
    if isinstance(error, QuotaExceeded):
        thread.record(QuotaHit(run_id=run_id, message=error.message))
    elif error.retryable and error.attempts > 1:
        thread.record(
            RetriesExhausted(
                run_id=run_id, code=error.code, attempts=error.attempts, message=error.message
            )
        )
