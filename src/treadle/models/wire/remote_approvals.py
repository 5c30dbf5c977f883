"""Approvals of calls that a provider makes, for requests that cannot have them made."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from treadle.domain.arguments import is_mapping
from treadle.domain.hosted_tools import remote_call_name
from treadle.domain.items import (
    APPROVAL_REQUEST,
    FunctionCall,
    FunctionCallOutput,
    Item,
    ProviderItem,
)

NOT_MADE = "The call was approved, but it was not made: its server is not available here."


def settled(items: Iterable[Item], provider: str, servers: Collection[str]) -> Iterable[Item]:
    """Returns a history for `provider`, which calls `servers` itself.

    Another one reads an approved call where it was made, or that it was not made.
    """
    items = list(items)
    strange = {
        item.call_id
        for item in items
        if type(item) is FunctionCall
        and item.provider_fields is not None
        and item.runs_at_provider
        and request_of(item, provider, servers) is None
    }
    return _settled(items, strange) if strange else items


def request_of(
    call: FunctionCall, provider: str, servers: Collection[str]
) -> Mapping[str, object] | None:
    """Returns the provider's request for the approval that a call is, if it calls that server."""
    if call.provider_fields is None:
        return None
    asked = call.provider_fields.of(provider).get(APPROVAL_REQUEST)
    return asked if is_mapping(asked) and asked.get("server_label") in servers else None


def _settled(items: Sequence[Item], strange: Collection[str]) -> Iterator[Item]:
    made = Counter(_made(item) for item in items)
    left_out: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCall) and item.call_id in strange:
            if made[item.name, item.arguments] > 0:
                made[item.name, item.arguments] -= 1
                left_out.add(item.call_id)
                continue
        elif isinstance(item, FunctionCallOutput):
            if item.call_id in left_out:
                continue
            if item.call_id in strange and not item.is_error:
                yield FunctionCallOutput(item.call_id, NOT_MADE, item.id, is_error=True)
                continue
        yield item


def _made(item: Item) -> tuple[str, str] | None:
    call = item.call if isinstance(item, ProviderItem) else None
    if call is None or call.tool != "mcp" or call.status == "in_progress":
        return None
    return remote_call_name(call.server, call.name), call.arguments
