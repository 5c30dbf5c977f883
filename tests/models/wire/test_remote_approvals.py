"""Approved calls of a remote MCP server, told to a provider that cannot make them."""

from typing import Any

import msgspec
import pytest

from treadle import FunctionCall, FunctionCallOutput, HostedCall, ProviderItem
from treadle.domain.items import APPROVAL_REQUEST, Item, ProviderFields, user_message
from treadle.models.wire.remote_approvals import NOT_MADE, settled

ASKED = {APPROVAL_REQUEST: {"id": "mcpr_1", "server_label": "docs", "name": "search"}}
CALL = FunctionCall("mcpr_1", "docs_search", "{}", "fc_1", ProviderFields("openai", ASKED))
APPROVED = FunctionCallOutput("mcpr_1", "The call was approved.")
DENIED = FunctionCallOutput("mcpr_1", "The call was denied.", is_error=True)
HI = user_message("Hi.")


def made(name: str = "search", status: Any = "completed") -> ProviderItem:
    call = HostedCall("mcp", "mcp_1", status, "{}", name, "docs", "Found.")
    return ProviderItem("openai", msgspec.Raw(b"{}"), call)


def read(*items: Item, provider: str = "anthropic", servers: tuple[str, ...] = ()) -> list[Item]:
    return list(settled((HI, *items), provider, servers))[1:]


def test_the_provider_that_calls_the_server_reads_all() -> None:
    items = (CALL, APPROVED, made())
    assert read(*items, provider="openai", servers=("docs",)) == [*items]


@pytest.mark.parametrize(("provider", "servers"), [("anthropic", ("docs",)), ("openai", ("x",))])
def test_another_one_reads_what_became_of_a_call(provider: str, servers: tuple[str, ...]) -> None:
    def told(*items: Item) -> list[Item]:
        return read(*items, provider=provider, servers=servers)

    not_made = FunctionCallOutput("mcpr_1", NOT_MADE, is_error=True)
    assert told(CALL, APPROVED, made()) == [made()]
    assert told(CALL, APPROVED) == [CALL, not_made]
    assert told(CALL, APPROVED, made("read")) == [CALL, not_made, made("read")]
    assert told(CALL, APPROVED, made(status="in_progress"))[:2] == [CALL, not_made]
    assert told(CALL, DENIED) == [CALL, DENIED]
    other = msgspec.structs.replace(CALL, call_id="mcpr_2")
    again = FunctionCallOutput("mcpr_2", "The call was approved.")
    # One call was made, and only one of the two approvals is settled by it.
    assert told(CALL, APPROVED, other, again, made())[-1] == made()
    assert [type(one).__name__ for one in told(CALL, APPROVED, other, again, made())] == [
        *("FunctionCall", "FunctionCallOutput", "ProviderItem"),
    ]
