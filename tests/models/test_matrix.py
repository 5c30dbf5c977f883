"""The matrix of providers and features, which the documentation shows."""

import msgspec
import pytest
from tests.models.matrix import (
    NAMES,
    PAGE,
    REQUESTS,
    encode,
    hosted_tools,
    model_of,
    page,
    table,
)
from tests.models.wire.preset_servers import SERVERS, check_preset
from tests.models.wire.strict_servers import (
    check_converse,
    check_gemini,
    check_messages,
    check_responses,
    parsed,
)

from treadle.models.presets import PRESETS

CHECKS = {
    "responses": check_responses,
    "messages": check_messages,
    "gemini": check_gemini,
    "converse": check_converse,
}


def test_the_documentation_shows_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    for row in table():
        print("".join(f"{cell:13}" for cell in row))
    assert "openrouter" in capsys.readouterr().out
    assert PAGE.read_text() == page(), "Run `python -m tests.models.matrix`."


@pytest.mark.parametrize("name", NAMES)
def test_the_server_accepts_the_hosted_tools_that_a_cell_claims(name: str) -> None:
    model = model_of(name)
    tools = hosted_tools(model)
    assert tools or name not in {"openai", "anthropic", "gemini"}
    if tools:
        request = msgspec.structs.replace(REQUESTS["any call"], hosted=tools)
        body = parsed(encode(model, request).body)
        CHECKS[PRESETS[name].api](body)
        assert len(body["tools"]) > len(tools)  # each is an entry of its own


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("feature", REQUESTS)
def test_the_server_accepts_what_a_cell_claims(name: str, feature: str) -> None:
    body = parsed(encode(model_of(name), REQUESTS[feature]).body)
    if name in SERVERS:
        check_preset(name, body)
    else:
        CHECKS[PRESETS[name].api](body)
