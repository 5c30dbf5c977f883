"""The service model of AWS: botocore checks requests, and reads the streams of the simulator."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.models.test_bedrock import botocore  # noqa: F401 - a fixture
from tests.models.wire.odd_histories import HOSTED, HOSTED_CONVERSE, histories
from tests.models.wire.test_sendable import REQUESTS

from treadle.domain.items import user_message
from treadle.domain.schema import OutputSchema
from treadle.domain.settings import ModelSettings
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.models.wire.converse_families import family_of
from treadle.models.wire.converse_request import ConverseOptions, encode_request
from treadle.testing import Call, Reasoning, Refusal, Text, Turn
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Failure, Frame
from treadle.testing.simulator.wire.converse_wire import converse_failure, stream_converse

pytestmark = pytest.mark.needs("python clients")

Json = dict[str, Any]
MODELS = ["anthropic.claude-opus-4-5-20251101-v1:0", "mistral.mistral-large-3-675b-instruct"]


@pytest.fixture
def operation(botocore: None) -> Any:  # noqa: F811
    """The operation ConverseStream, as the service model describes it."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
    return model.operation_model("ConverseStream")


@pytest.fixture
def require_valid(operation: Any) -> Callable[[ModelRequest, str], Json]:
    from botocore.validate import ParamValidator

    validator = ParamValidator()

    def check(request: ModelRequest, model: str) -> Json:
        options = ConverseOptions(model=model, family=family_of(model))
        body = json.loads(encode_request(request, options).body)
        report = validator.validate({"modelId": model, **body}, operation.input_shape)
        assert not report.has_errors(), report.generate_report()
        return body

    return check


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=REQUESTS(histories(HOSTED_CONVERSE | HOSTED)))
def test_any_history_fits_the_service_model(
    require_valid: Callable[[ModelRequest, str], Json], request: ModelRequest
) -> None:
    for model in MODELS:
        require_valid(request, model)


def test_the_service_model_is_strict(
    operation: Any, require_valid: Callable[[ModelRequest, str], Json]
) -> None:
    from botocore.validate import ParamValidator

    output = OutputSchema(
        "o", {"type": "object", "properties": {}, "additionalProperties": False}, strict=True
    )
    request = ModelRequest(
        items=[user_message("hi")],
        output=output,
        settings=ModelSettings(
            reasoning_effort="high",
            max_output_tokens=5_000,
            extra_body={"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
        ),
    )
    body = require_valid(request, MODELS[0])
    assert body.keys() > {"outputConfig", "additionalModelRequestFields", "inferenceConfig"}
    body["messages"][0]["content"][0]["txt"] = "hi"
    report = ParamValidator().validate({"modelId": "m", **body}, operation.input_shape)
    assert "txt" in report.generate_report()


def test_botocore_reads_the_streams_of_the_simulator(operation: Any) -> None:
    from botocore.eventstream import EventStreamBuffer
    from botocore.parsers import EventStreamJSONParser

    turn = Turn(
        (
            Reasoning("Hm, the weather."),
            Text("Grüße. 😀"),
            Refusal("No."),
            Call("look", '{"at": "Zürich"}', "c1"),
        )
    )
    pieces = stream_converse(turn, Envelope("r1", "m", 1, Usage(10, 5, requests=1)))
    frames = [piece for piece in pieces if isinstance(piece, Frame)]
    failure = converse_failure()(Failure("rate_limit_exceeded", failed=False), len(frames))
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(frame.data for frame in [*frames, failure]))
    parser = EventStreamJSONParser()
    shape = operation.get_event_stream_output()
    *events, error = [parser.parse(event.to_response_dict(), shape) for event in buffer]
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    texts = "".join(delta.get("text", "") for delta in deltas)
    thoughts = [delta["reasoningContent"] for delta in deltas if "reasoningContent" in delta]
    inputs = "".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)
    assert (texts, inputs) == ("Grüße. 😀No.", '{"at": "Zürich"}')
    assert "".join(thought.get("text", "") for thought in thoughts) == "Hm, the weather."
    assert thoughts[-1]["signature"]
    (start,) = [e["contentBlockStart"]["start"] for e in events if "contentBlockStart" in e]
    assert start == {"toolUse": {"toolUseId": "c1", "name": "look"}}
    assert events[-2] == {"messageStop": {"stopReason": "guardrail_intervened"}}
    assert events[-1]["metadata"]["usage"]["totalTokens"] == 15
    assert error["Error"]["Code"] == "throttlingException"
