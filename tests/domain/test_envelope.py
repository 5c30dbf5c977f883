import msgspec

from treadle.bus.position import Block, Position
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
    assert [Envelope(event, 3, n).position for n in (0, 4)] == ["3", "3.4"]
    within = Envelope(event, 3, Block(4, 99, 2).n)
    assert within.position == "3.2" + "4".zfill(15) + "99".zfill(15)
    assert Position.parse(within.position) == (3, within.n)


def test_the_arguments_of_a_requested_call_are_decoded() -> None:
    def arguments(text: str) -> dict[str, object] | None:
        return ToolCallRequested(run_id="r", item=FunctionCall("c", "t", text)).arguments

    assert arguments('{"a": [1, "é"]}') == {"a": [1, "é"]}
    assert arguments("") == {}
    assert arguments("[1]") is None
    assert arguments("{broken") is None
    assert arguments("[" * 100_000) is None
