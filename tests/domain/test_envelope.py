import msgspec

from treadle.domain.envelope import Envelope, decode_events, recorded
from treadle.domain.events import RunFinishing, TextDelta, ToolCallRequested
from treadle.domain.items import FunctionCall


def test_an_event_is_encoded_once() -> None:
    envelope = Envelope(RunFinishing(seq=3, at=1.0, run_id="r"), 3)
    assert envelope.json is envelope.json
    assert decode_events(b"[" + envelope.json + b"]") == recorded([envelope])
    assert msgspec.json.decode(envelope.json)["type"] == "run.finishing"


def test_positions() -> None:
    event = TextDelta("a", "x")
    assert [Envelope(event, 3, n).position for n in (0, 4, -1)] == ["3", "3.4", ""]


def test_the_arguments_of_a_requested_call_are_decoded() -> None:
    def arguments(text: str) -> dict[str, object] | None:
        return ToolCallRequested(run_id="r", item=FunctionCall("c", "t", text)).arguments

    assert arguments('{"a": [1, "é"]}') == {"a": [1, "é"]}
    assert arguments("") == {}
    assert arguments("[1]") is None
    assert arguments("{broken") is None
    assert arguments("[" * 100_000) is None
