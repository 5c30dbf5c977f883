"""Values that callers pass in place of messages: JSON, near misses of messages, and odd objects."""

from hypothesis import strategies as st

from treadle.domain.items import FunctionCall, FunctionCallOutput, InputText, Message, OutputText

_TYPES = ["text", "input_text", "output_text", "image_url", "input_image", "refusal", "message"]
_ROLES = ["user", "assistant", "system", "developer", "tool", "function", "", 5, None]
_NAMES = ["role", "content", "type", "text", "image_url", "url", "detail", "id", "tool_calls"]
_NAMES += ["function", "name", "arguments", "call_id", "tool_call_id", "output", "refusal"]
_URLS = ["https://x/y.png", "data:image/png;base64,iVBORw0KGgo=", "y.png"]


def json_like() -> st.SearchStrategy[object]:
    """Any JSON value, with lone surrogates, huge numbers, and the words of messages."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.just(2**70),
        st.floats(),
        st.text(st.characters(), max_size=5),
        st.just("a\ud800"),
        st.binary(max_size=3),
        st.sampled_from(["hi", *_TYPES, *_URLS]),
    )
    values = st.recursive(leaves, _within, max_leaves=12)
    return st.one_of(values, _messages(values), st.lists(_messages(values), max_size=3))


def _within(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    names = st.one_of(st.sampled_from(_NAMES), st.text(max_size=3))
    texts = st.builds(InputText, values) | st.builds(OutputText, values)
    return st.one_of(
        st.lists(values, max_size=3),
        st.dictionaries(names, values, max_size=4),
        st.fixed_dictionaries({"type": st.sampled_from(_TYPES), "text": values}),
        st.fixed_dictionaries({"type": st.just("image_url"), "image_url": values}),
        texts,
    )


def _messages(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Messages and other items with any fields, as mappings and as structs."""
    roles = st.sampled_from(_ROLES)
    return st.one_of(
        st.fixed_dictionaries({"role": roles, "content": values}, optional={"id": values}),
        st.builds(Message, roles, values, values),
        st.builds(FunctionCall, values, values, values),
        st.builds(FunctionCallOutput, values, values),
    )
