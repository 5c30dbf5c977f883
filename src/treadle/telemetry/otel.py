"""Reports runs to OpenTelemetry; needs the extra `treadle[otel]`.

    telemetry = Telemetry()
    agent = Agent(…, hooks=Hooks(on_event=telemetry.on_event))

Spans and metrics go to the providers that the program has set up with the OpenTelemetry SDK;
without one, they are dropped at little cost.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from treadle.errors import ConfigurationError

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ConfigurationError(
        "treadle.telemetry.otel needs OpenTelemetry: pip install 'treadle[otel]'."
    ) from error

from treadle.domain.events import Event
from treadle.logging import logger_of
from treadle.telemetry.run_spans import Options
from treadle.telemetry.signal import Measured, Metric, Signal, SpanBegan, SpanEnded
from treadle.telemetry.thread_spans import ThreadSpans

_LOGGER = logger_of("treadle.telemetry")

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4.0**n for n in range(14))
"""The bucket boundaries of the histograms, from the GenAI conventions."""

_DESCRIPTIONS: Mapping[Metric, str] = {
    "gen_ai.client.token.usage": "Number of input and output tokens used.",
    "gen_ai.client.operation.duration": "GenAI operation duration.",
    "gen_ai.client.operation.time_to_first_chunk": "Time to receive the first chunk.",
    "gen_ai.invoke_agent.duration": "Duration of a run.",
    "gen_ai.execute_tool.duration": "Duration of a tool call.",
}


class Place(Protocol):
    """The part of a hook's context that telemetry needs."""

    thread_id: str


class Telemetry:
    """Makes spans and metrics from the events of threads, named by the GenAI conventions.

    - `content`: adds messages, arguments and outputs to the spans; off by default, because they
      may be private.
    - `providers`: the provider of each model by the model's name, such as `{"gpt-5": "openai"}` or
      `{model.name: model.provider}`; events do not contain it. It is reported by the name that the
      conventions have for it, such as `aws.bedrock`.
    - `tracer_provider`, `meter_provider`: by default those of the process.
    - `max_runs`: the number of open runs; beyond it, the longest silent ones are ended.

    The span of a run is a child of the span that is current when its start is observed.
    """

    def __init__(
        self,
        *,
        content: bool = False,
        providers: Mapping[str, str] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        max_runs: int = 10_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        if max_runs < 1:
            raise ConfigurationError("Telemetry.max_runs must be at least 1.")
        self._tracer = trace.get_tracer("treadle", tracer_provider=tracer_provider)
        meter = metrics.get_meter("treadle", meter_provider=meter_provider)
        self._histograms: dict[Metric, Histogram] = {
            name: meter.create_histogram(
                name,
                unit="{token}" if name == "gen_ai.client.token.usage" else "s",
                description=description,
                explicit_bucket_boundaries_advisory=(
                    TOKENS if name == "gen_ai.client.token.usage" else SECONDS
                ),
            )
            for name, description in _DESCRIPTIONS.items()
        }
        self._fold = ThreadSpans(Options(content, providers or {}), max_runs=max_runs)
        self._spans: dict[int, tuple[Span, Context]] = {}
        self._runs: dict[int, str] = {}
        # The contexts of suspended runs, so that they continue in the same trace.
        self._surroundings: OrderedDict[str, Context] = OrderedDict()
        self._max_runs = max_runs
        self._now = now
        self._lock = threading.Lock()
        self._warned = False

    def observe(self, thread_id: str, event: Event) -> None:
        """Handles the next event of a thread, durable or live.

        Call it with the events of a thread in order, from any thread of the process; a repeated
        event counts once. Never raises: a failure is logged, once.
        """
        try:
            with self._lock:
                for signal in self._fold.observe(thread_id, event, self._now()):
                    self._tell(signal)
        except Exception as error:  # noqa: BLE001 - telemetry must not disturb the run
            self._warn(error)

    def on_event(self, context: Place, event: Event) -> None:
        """Handles the next event of a run; use it as the hook `on_event`. See `observe`."""
        self.observe(context.thread_id, event)

    def close(self) -> None:
        """Ends the spans of all open runs; call it at the end of the process."""
        try:
            with self._lock:
                for signal in self._fold.close(self._now()):
                    self._tell(signal)
        except Exception as error:  # noqa: BLE001
            self._warn(error)

    def _tell(self, signal: Signal) -> None:
        match signal:
            case SpanBegan():
                self._begin(signal)
            case SpanEnded():
                self._end(signal)
            case Measured():
                self._histograms[signal.metric].record(signal.value, signal.attributes)

    def _begin(self, signal: SpanBegan) -> None:
        around = self._context_of(signal)
        span = self._tracer.start_span(
            signal.name,
            context=around,
            kind=SpanKind.CLIENT if signal.is_request else SpanKind.INTERNAL,
            attributes=signal.attributes,
            start_time=_nanoseconds(signal.at),
        )
        self._spans[signal.id] = (span, trace.set_span_in_context(span, around))

    def _context_of(self, signal: SpanBegan) -> Context:
        if signal.parent is not None:
            return self._spans[signal.parent][1]
        around = self._surroundings.pop(signal.run_id, None) if signal.resumed else None
        if around is None:
            around = context.get_current()
        self._runs[signal.id] = signal.run_id
        self._surroundings[signal.run_id] = around
        if len(self._surroundings) > 2 * self._max_runs:
            self._surroundings.popitem(last=False)
        return around

    def _end(self, signal: SpanEnded) -> None:
        span, _ = self._spans.pop(signal.id)
        run_id = self._runs.pop(signal.id, None)
        if run_id is not None and not signal.suspended:
            self._surroundings.pop(run_id, None)
        span.set_attributes(signal.attributes)
        if signal.error:
            span.set_attribute("error.type", signal.error)
            span.set_status(Status(StatusCode.ERROR, signal.error))
        span.end(_nanoseconds(signal.at))

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            # Its text may contain private messages, so only the type is logged.
            _LOGGER.warning("A run cannot be observed (%s).", type(error).__name__)


def _nanoseconds(at: float) -> int:
    return int(at * 1_000_000_000)
