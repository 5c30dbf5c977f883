"""Chunks of every kind become the same event stream."""

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from treadle.errors import StreamInvalid
from treadle.models.wire.sdk_chunks import Chunk, SdkChunks
from treadle.streaming.sse import SseParser


class Model(BaseModel):
    """As an SDK's: extra fields are kept, and those that did not come are None."""

    model_config = {"extra": "allow"}
    type: str | None = None
    text: str | None = None


KINDS: dict[str, Callable[[dict[str, object]], Chunk]] = {
    "model": lambda chunk: Model.model_construct(**chunk),  # type: ignore[arg-type]
    "dict": lambda chunk: chunk,
    "text": json.dumps,
    "bytes": lambda chunk: json.dumps(chunk).encode(),
    "pretty": lambda chunk: " " + json.dumps(chunk, indent=2) + "\r\n",
}
CHUNKS = st.lists(
    st.dictionaries(st.sampled_from(["type", "text", "x"]), st.text(max_size=5)), max_size=5
)


def frames(chunks: list[Chunk]) -> list[tuple[bytes, object]]:
    encoder, parser = SdkChunks(), SseParser()
    found = [frame for chunk in chunks for frame in parser.feed(encoder.encode(chunk))]
    return [(name, json.loads(data)) for name, data in found]


@pytest.mark.parametrize("kind", KINDS)
@given(CHUNKS)
def test_each_chunk_is_an_event_named_by_its_type(
    kind: str, chunks: list[dict[str, object]]
) -> None:
    found = frames([KINDS[kind](chunk) for chunk in chunks])
    assert [data for _, data in found] == chunks
    for name, data in found:
        assert isinstance(data, dict)
        if str(data.get("type", "")).isalpha():
            assert name.decode() == data["type"]


@given(st.lists(st.integers(0, 60)), st.booleans())
def test_the_raw_event_stream_passes_as_it_is(cuts: list[int], as_text: bool) -> None:
    raw = '\n\ufeff: hello\n\nevent: a\ndata: {"x":\ndata: "é"}\n\ndata: {}\n\n'
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
    encoder = SdkChunks()
    given_as = pieces if as_text else [piece.encode() for piece in pieces]
    assert b"".join(encoder.encode(piece) for piece in given_as) == raw.encode()


def test_what_is_no_json_is_left_to_the_decoder() -> None:
    encoder = SdkChunks()
    assert encoder.encode(b" ") == b" "
    assert encoder.encode('{"type":"a\\nb"}') == b'data: {"type":"a\\nb"}\n\n'
    assert encoder.encode("[DONE]") == b"data: [DONE]\n\n"
    assert encoder.encode('{"type": 3}') == b'data: {"type": 3}\n\n'
    assert encoder.encode("  \n") == b""


@pytest.mark.parametrize(
    ("chunk", "problem"),
    [
        (17, "A chunk is a int; give the chunks of the provider's SDK, dicts, JSON"),
        (None, "A chunk is a NoneType"),
        ({"x": object()}, "A chunk is a dict that cannot be represented as JSON"),
        ({1.5: {b"x": 1}, ("a",): 2}, "A chunk is a dict that cannot be represented as JSON"),
    ],
)
def test_what_is_no_chunk(chunk: object, problem: str) -> None:
    with pytest.raises(StreamInvalid, match=problem):
        SdkChunks().encode(chunk)  # type: ignore[arg-type]
