import contextlib
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.testing.simulator import FAULTS, Fault, InvalidScenario, parse_faults, parse_scenario
from treadle.testing.simulator import scenario as grammar
from treadle.testing.simulator.prose import prose
from treadle.testing.simulator.scenario import Scenario
from treadle.testing.simulator.turn import pieces
from treadle.testing.simulator.writes import pace, spoil_writes


def test_defaults():
    assert parse_scenario("sim") == parse_scenario("sim:") == parse_scenario("") == Scenario()


def test_all_keys():
    text = (
        "sim:deltas=200,size=5,reasoning=4,refusal=1,calls=3,rounds=2,tool=f,args=9,finish=filter,"
        "first=50,every=5,batch=2,fault=cut@1200+crlf,times=3"
    )
    assert parse_scenario(text) == Scenario(
        deltas=200,
        size=5,
        reasoning=4,
        refusal=1,
        calls=3,
        rounds=2,
        tool="f",
        args=9,
        finish="content_filter",
        first=0.05,
        every=0.005,
        batch=2,
        faults=(Fault("cut", 1200), Fault("crlf")),
        times=3,
    )


def test_calls_and_rounds_imply_each_other():
    assert parse_scenario("calls=3").rounds == 1
    assert parse_scenario("rounds=3").calls == 1


@pytest.mark.parametrize(
    "text",
    [
        "demo",
        "deltas",
        "deltas=",
        "deltas=-1",
        "deltas=1.5",
        "deltas=100001",
        "deltas=1,deltas=2",
        "nonsense=1",
        "size=0",
        "finish=sometimes",
        "tool=",
        "deltas=100000,size=10000",
        "calls=256,args=999999",
        "deltas=١",
        "fault=cut@1" + "+crlf" * 20,
        "x" * 600,
    ],
)
def test_bad_grammar(text):
    with pytest.raises(InvalidScenario):
        parse_scenario(text)


def test_faults_have_a_place_and_a_value():
    assert parse_faults("error-mid@3=rate_limit_exceeded+429") == (
        Fault("error-mid", 3, "rate_limit_exceeded"),
        Fault("429"),
    )


def test_every_key_is_documented():
    documentation = inspect.getdoc(grammar)
    assert documentation
    for key in (*grammar.LIMITS, "tool", "finish", "fault"):
        assert f"    {key}=" in documentation
    assert all(FAULTS.values())


@given(st.text())
def test_any_text_is_a_scenario_or_the_one_error(text):
    with contextlib.suppress(InvalidScenario):
        assert isinstance(parse_scenario(text), Scenario)


@given(st.integers(0, 5000))
def test_prose_has_its_length_and_begins_alike(length):
    assert len(prose(length)) == length
    assert prose(6000).startswith(prose(length))


@given(st.text(), st.integers(0, 50))
def test_pieces_make_the_text(text, deltas):
    assert "".join(pieces(text, deltas)) == text


@given(st.binary(max_size=200), st.sampled_from(["split-utf8", "one-byte"]))
def test_cut_writes_carry_the_same_bytes(data, fault):
    script = spoil_writes([data], parse_faults(fault))
    assert b"".join(write for write in script.writes if isinstance(write, bytes)) == data


@given(st.text(max_size=100), st.integers(0, 300))
def test_an_end_cuts_at_its_byte(text, at):
    data = text.encode()
    writes = [data[:7], data[7:]]
    script = spoil_writes(writes, (Fault("end", at),))
    assert b"".join(w for w in script.writes if isinstance(w, bytes)) == data[:at]


def test_no_pieces_no_writes():
    assert pace([], 0, 0) == []
