"""The span of a compaction, and the tokens of its summary; pure.

It is a child of the span of its run while that is open; many compactions follow their run.
"""

from treadle.domain.events import ContextCompacted
from treadle.telemetry.signal import Measured, Signal, SpanBegan, SpanEnded, Value


def compaction_signals(
    thread_id: str, event: ContextCompacted, *, id: int, parent: int | None, at: float
) -> list[Signal]:
    """Returns the signals of a compaction that ended at `at` (Unix seconds)."""
    attributes: dict[str, Value] = {
        "gen_ai.conversation.id": thread_id,
        "treadle.run.id": event.run_id,
        "treadle.domain.context.strategy": event.strategy,
        "treadle.domain.context.cause": event.cause,
        "treadle.domain.context.tokens_before": event.tokens_before,
        "treadle.domain.context.tokens_after": event.tokens_after,
        "treadle.domain.context.counted_by": event.counted_by,
        "treadle.domain.context.left_out": event.left_out,
    }
    if event.fallback:
        attributes["treadle.domain.context.fallback"] = event.fallback
    if event.model:
        attributes["gen_ai.request.model"] = event.model
    usage = event.usage
    if usage.requests:
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
    if event.cost:
        attributes["treadle.cost"] = event.cost
    began = SpanBegan(
        id=id,
        parent=parent,
        name="compact_context",
        at=at - event.seconds,
        attributes=attributes,
    )
    signals: list[Signal] = [began, SpanEnded(id=id, at=at)]
    if usage.requests:
        measured: dict[str, Value] = {"gen_ai.operation.name": "chat"}
        if event.model:
            measured["gen_ai.request.model"] = event.model
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            of_kind = {**measured, "gen_ai.token.type": kind}
            signals.append(Measured("gen_ai.client.token.usage", tokens, of_kind))
    return signals
