"""The simulator as an ASGI application: routes, records and counts, no sockets."""

import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never, cast

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from treadle.streaming.event_stream import CONTENT_TYPE
from treadle.testing.simulator.delivery import Answer, deliver
from treadle.testing.simulator.envelope import Envelope, estimate
from treadle.testing.simulator.faults import Fault, InvalidScenario, check_faults, find
from treadle.testing.simulator.frames import FailureFrame, Piece, spoil_frames
from treadle.testing.simulator.gemini_caches import PATH, SimulatedCaches
from treadle.testing.simulator.playback import play
from treadle.testing.simulator.rejection import Rejected, rejection
from treadle.testing.simulator.request import ProviderRequest, WireFormat
from treadle.testing.simulator.scenario import HEADER, Scenario, is_scenario, parse_scenario
from treadle.testing.simulator.strictness import refusal
from treadle.testing.simulator.turn import Hold, Pause, Turn, addressed
from treadle.testing.simulator.window import require_window
from treadle.testing.simulator.wire.chat_request import decode_chat
from treadle.testing.simulator.wire.chat_wire import chat_failure, complete_chat, stream_chat
from treadle.testing.simulator.wire.converse_error import (
    converse_body,
    converse_headers,
    converse_status,
)
from treadle.testing.simulator.wire.converse_frames import ODD
from treadle.testing.simulator.wire.converse_request import decode_converse
from treadle.testing.simulator.wire.converse_wire import (
    complete_converse,
    converse_failure,
    stream_converse,
)
from treadle.testing.simulator.wire.gemini_error import gemini_body, gemini_headers
from treadle.testing.simulator.wire.gemini_request import decode_gemini
from treadle.testing.simulator.wire.gemini_wire import (
    complete_gemini,
    gemini_failure,
    stream_gemini,
)
from treadle.testing.simulator.wire.messages_error import messages_body, messages_status
from treadle.testing.simulator.wire.messages_request import decode_messages
from treadle.testing.simulator.wire.messages_wire import (
    complete_messages,
    messages_failure,
    stream_messages,
)
from treadle.testing.simulator.wire.responses_request import decode_responses, echo
from treadle.testing.simulator.wire.responses_wire import (
    complete_responses,
    responses_failure,
    stream_responses,
)
from treadle.testing.simulator.writes import Script, Write, pace, spoil_writes

Respond = Callable[[ProviderRequest], Turn]

MAX_BODY = 64 << 20
MAX_COUNTED_SCENARIOS = 10_000
SECRET_HEADERS = frozenset(
    {
        "authorization",
        "api-key",
        "x-api-key",
        "x-goog-api-key",
        "x-amz-security-token",
        "cookie",
    }
)
VERTEX = "/v1/projects/{project}/locations/{location}/publishers/google/models/{target:path}"
CACHES = (f"/v1beta{PATH}", f"/v1{PATH}", f"/v1/projects/{{project}}/locations/{{location}}{PATH}")
STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
EVENT_STREAM = {"content-type": CONTENT_TYPE}
JSON = {"content-type": "application/json"}
CLOSES = "treadle.closes"
"""The key under which a scope asks the server to close the connection after the response."""
ENCRYPTED_REASONING = "reasoning.encrypted_content"
REQUEST_ID: Mapping[WireFormat, str] = {
    "responses": "x-request-id",
    "chat": "x-request-id",
    "messages": "request-id",
    "gemini": "x-request-id",
    "converse": "x-amzn-requestid",
}
COMPLETE: Mapping[WireFormat, Callable[[Turn, Envelope], bytes]] = {
    "responses": complete_responses,
    "chat": complete_chat,
    "messages": complete_messages,
    "gemini": complete_gemini,
    "converse": complete_converse,
}


class RecordedRequest(Struct, frozen=True):
    """A request as it arrived: its path, headers in lower case, and decoded JSON body.

    The values of headers that hold keys are replaced by `***`.
    """

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, object]


class SimulatorStatistics(Struct, frozen=True):
    """Counts since the start; `streams_open` counts the streams being sent now."""

    requests: int
    streams_open: int
    rejected: int


class SimulatorApp:
    """The simulator behind an ASGI interface; see `treadle.testing.simulator` for the arguments."""

    def __init__(
        self,
        script: Sequence[Turn] | Respond | None = None,
        *,
        keep: int = 1000,
        seed: str | None = None,
        window: int = 0,
    ) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=keep)
        self.errors: deque[Exception] = deque(maxlen=16)
        self.turns: deque[Turn] = deque()
        self.caches = SimulatedCaches()
        self._respond = script if callable(script) else None
        if script is not None and not callable(script):
            self.turns.extend(script)
        self._scripted = script is not None
        self._window = window
        self._seed = secrets.token_hex(4) if seed is None else seed
        self._failed: OrderedDict[str, int] = OrderedDict()
        self._count = self._open = self._rejected = 0
        self._app = Starlette(routes=self._routes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI connection."""
        await self._app(scope, receive, send)

    def statistics(self) -> SimulatorStatistics:
        """Returns the counts of this moment."""
        return SimulatorStatistics(self._count, self._open, self._rejected)

    def _routes(self) -> list[Route]:
        caches = self._endpoint("gemini")
        return [
            Route("/v1/responses", self._endpoint("responses"), methods=["POST"]),
            Route("/v1/chat/completions", self._endpoint("chat"), methods=["POST"]),
            Route("/v1/messages", self._endpoint("messages"), methods=["POST"]),
            Route("/v1/models", _models),
            Route("/v1/models/{target:path}", self._endpoint("gemini"), methods=["POST"]),
            Route("/v1beta/models/{target:path}", self._endpoint("gemini"), methods=["POST"]),
            Route(VERTEX, self._endpoint("gemini"), methods=["POST"]),
            *(
                Route(f"{root}/{{id}}" if method == "PATCH" else root, caches, methods=[method])
                for root in CACHES
                for method in ("POST", "PATCH")
            ),
            Route("/model/{target:path}", self._endpoint("converse"), methods=["POST"]),
            Route("/v1/model/{target:path}", self._endpoint("converse"), methods=["POST"]),
        ]

    def _endpoint(self, wire: WireFormat) -> ASGIApp:
        # A class instance, because Starlette passes no `send` to a plain function.
        return _Endpoint(self, wire)

    async def serve(self, wire: WireFormat, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request of the wire format, at the pace of its scenario."""
        self._count += 1
        identity = f"{self._seed}{self._count:06x}"
        try:
            raw = await _body(receive)
            answer = self._answer(wire, _recorded(scope, raw), identity, len(raw))
        except (Rejected, InvalidScenario) as error:
            self._rejected += 1
            answer = _refusal(error, wire, f"req_{identity}")
        if answer.closes:
            scope[CLOSES] = True
        headers = {REQUEST_ID[wire]: f"req_{identity}", **answer.headers}
        self._open += 1
        try:
            await deliver(msgspec.structs.replace(answer, headers=headers), receive, send)
        finally:
            self._open -= 1

    def _answer(
        self, wire: WireFormat, recorded: RecordedRequest, identity: str, size: int
    ) -> Answer:
        self.requests.append(recorded)
        cached = 0
        if wire == "gemini":
            if PATH in recorded.path:
                made = self.caches.change(recorded.path, recorded.body)
                return Answer(200, JSON, Script((made,)))
            body, cached = self.caches.inserted(recorded.path, recorded.body)
            recorded = msgspec.structs.replace(recorded, body=body)
        request = _decode(wire, recorded, size)
        require_window(request, self._window)
        turn = addressed(self._turn(request, recorded.headers.get(HEADER)), identity)
        if rejected := rejection(turn.faults) or refusal(request, turn.faults):
            raise rejected
        envelope = _envelope(request, turn, identity)
        if cached:
            usage = msgspec.structs.replace(
                envelope.usage,
                input_tokens=envelope.usage.input_tokens + cached,
                cached_input_tokens=cached,
            )
            envelope = msgspec.structs.replace(envelope, usage=usage)
        return _encode(request, turn, envelope)

    def _turn(self, request: ProviderRequest, header: str | None) -> Turn:
        if header is not None:
            return self._play(header, request)
        if self._scripted:
            return self._next(request)
        if is_scenario(request.model):
            return self._play(request.model, request)
        message = f"The model {request.model[:64]!r} does not exist; ask for `sim:…`."
        raise Rejected(404, message, code="model_not_found", param="model")

    def _play(self, text: str, request: ProviderRequest) -> Turn:
        scenario = parse_scenario(text)
        require_window(request, scenario.window)
        turn = play(scenario, request)
        return msgspec.structs.replace(turn, faults=self._due(text, scenario))

    def _due(self, key: str, scenario: Scenario) -> tuple[Fault, ...]:
        """Returns the faults of a scenario until it has failed `times` times."""
        if not scenario.times or not scenario.faults:
            return scenario.faults
        failed = self._failed.pop(key, 0)
        self._failed[key] = failed + 1
        while len(self._failed) > MAX_COUNTED_SCENARIOS:
            self._failed.popitem(last=False)
        return scenario.faults if failed < scenario.times else ()

    def _next(self, request: ProviderRequest) -> Turn:
        if self._respond is not None:
            turn = self._asked(self._respond, request)
        elif self.turns:
            turn = self.turns.popleft()
        else:
            message = "The script has no turn left; the client asked more often than expected."
            raise Rejected(400, message, code="unexpected_request")
        check_faults(turn.faults)
        return turn

    def _asked(self, respond: Respond, request: ProviderRequest) -> Turn:
        try:
            return respond(request)
        except Rejected:
            raise
        except Exception as error:
            self.errors.append(error)
            raise Rejected(400, f"The script raised {error!r}.", code="script_failed") from error


class _Endpoint:
    def __init__(self, app: SimulatorApp, wire: WireFormat) -> None:
        self._app = app
        self._wire: WireFormat = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.serve(self._wire, scope, receive, send)


def _decode(wire: WireFormat, recorded: RecordedRequest, size: int) -> ProviderRequest:
    match wire:
        case "responses":
            return decode_responses(recorded.body, size)
        case "chat":
            return decode_chat(recorded.body, size)
        case "messages":
            return decode_messages(recorded.body, size)
        case "gemini":
            return decode_gemini(recorded.body, size, recorded.path)
        case "converse":
            return decode_converse(recorded.body, size, recorded.path)
        case _ as unreachable:
            assert_never(unreachable)


def _envelope(request: ProviderRequest, turn: Turn, identity: str) -> Envelope:
    include = request.body.get("include")
    return Envelope(
        id=identity,
        model=request.model,
        created=int(time.time()),
        usage=turn.usage or estimate(turn, request.size, len(request.history)),
        echo=echo(request.body) if request.format == "responses" else {},
        include_usage=request.include_usage,
        encrypted=isinstance(include, list) and ENCRYPTED_REASONING in include,
    )


def _encode(request: ProviderRequest, turn: Turn, envelope: Envelope) -> Answer:
    closes = find(turn.faults, "close") is not None
    if not request.stream or find(turn.faults, "json"):
        return msgspec.structs.replace(_whole(request, turn, envelope), closes=closes)
    pieces, failure = _streamed(request.format, turn, envelope)
    odd = ODD if request.format == "converse" else None
    writes = pace(spoil_frames(pieces, turn.faults, failure, odd), turn.every, turn.batch)
    headers = STREAM if odd is None else EVENT_STREAM
    return Answer(200, headers, spoil_writes(writes, turn.faults), turn.first, closes)


def _streamed(wire: WireFormat, turn: Turn, envelope: Envelope) -> tuple[list[Piece], FailureFrame]:
    match wire:
        case "responses":
            return stream_responses(turn, envelope), responses_failure(envelope)
        case "chat":
            return stream_chat(turn, envelope), chat_failure()
        case "messages":
            return stream_messages(turn, envelope), messages_failure()
        case "gemini":
            return stream_gemini(turn, envelope), gemini_failure()
        case "converse":
            return stream_converse(turn, envelope), converse_failure()
        case _ as unreachable:
            assert_never(unreachable)


def _whole(request: ProviderRequest, turn: Turn, envelope: Envelope) -> Answer:
    """Returns the body as a whole, as late as a stream would end, with the faults of bytes."""
    if any(fault.name in ("error-mid", "failed") for fault in turn.faults):
        raise Rejected(500, "The server had an error.", kind="server_error")
    silences: list[Write] = [output for output in turn.outputs if isinstance(output, Pause | Hold)]
    script = spoil_writes([*silences, COMPLETE[request.format](turn, envelope)], turn.faults)
    return Answer(200, JSON, script, turn.first + turn.every * envelope.usage.output_tokens)


def _refusal(error: Rejected | InvalidScenario, wire: WireFormat, request_id: str) -> Answer:
    if isinstance(error, InvalidScenario):
        error = Rejected(400, str(error), code="invalid_scenario", param="model")
    if wire == "messages":
        body = messages_body(error, request_id)
        return Answer(messages_status(error), {**JSON, **error.headers}, Script((body,)))
    if wire == "gemini":
        headers = {**JSON, **gemini_headers(error)}
        return Answer(error.status, headers, Script((gemini_body(error),)))
    if wire == "converse":
        headers = {**JSON, **converse_headers(error)}
        return Answer(converse_status(error), headers, Script((converse_body(error),)))
    return Answer(error.status, {**JSON, **error.headers}, Script((error.body(),)))


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise Rejected(413, f"The request is larger than {MAX_BODY} bytes.")
    return bytes(body)


def _recorded(scope: Scope, raw: bytes) -> RecordedRequest:
    return RecordedRequest(scope["path"], _headers(scope), _object(raw))


def _object(raw: bytes) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected(400, f"The body is not a JSON object in UTF-8: {error}") from error


def _headers(scope: Scope) -> dict[str, str]:
    pairs = cast("list[tuple[bytes, bytes]]", scope["headers"])
    decoded = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
    return {name: "***" if name in SECRET_HEADERS else v for name, v in decoded.items()}


async def _models(_: Request) -> Response:
    models = [{"id": "sim", "object": "model", "created": 0, "owned_by": "treadle"}]
    return Response(msgspec.json.encode({"object": "list", "data": models}), headers=JSON)
