"""Arguments with which a person approves a call, in place of those that the model wrote."""

from collections.abc import Mapping

import msgspec

from treadle.domain.answers import call_of
from treadle.domain.arguments import require_object
from treadle.domain.events import object_in
from treadle.domain.schema import JsonSchema
from treadle.domain.state import ThreadState
from treadle.errors import InvalidInput
from treadle.tools.json_schema import find_problem, require_schema
from treadle.tools.nulls import without_nulls
from treadle.tools.to_user import without

MAX_BYTES = 1_000_000
"""The most bytes of edited arguments, as JSON."""


def edited_arguments(state: ThreadState, call_id: str, arguments: Mapping[str, object]) -> str:
    """Returns the arguments as JSON, or "" if they are those that the model wrote.

    They keep the announcement to the user that the model wrote, unless they have one. Raises
    `InvalidInput` if they are not a JSON object or do not fit the schema of the tool. A call that
    the thread does not have, or that does not wait, is left to the entry.
    """
    given = require_object("arguments", arguments)
    call = call_of(state, call_id)
    if call is None:
        return _encoded(given)
    written = object_in(call.proposed or call.arguments or "{}") or {}
    step = state.step
    for editable in step.editable if step is not None else ():
        if editable.call_id != call_id:
            continue
        spoken = editable.to_user
        problem = _problem(without(given, spoken), editable.parameters)
        if problem:
            raise InvalidInput(
                f"The arguments do not fit the tool {call.name}: {problem}; arguments= takes all "
                "arguments of the call."
            )
        if spoken in written and spoken not in given:
            given = {spoken: written[spoken], **given}
    if call.proposed and step is None:
        # It comes again after its step: which argument was kept is no longer known.
        now = object_in(call.arguments) or {}
        if now == {**{name: one for name, one in now.items() if written.get(name) == one}, **given}:
            return call.arguments
    return "" if given == written else _encoded(given)


def _problem(given: Mapping[str, object], schema: JsonSchema) -> str:
    try:
        require_schema("parameters", schema)
    except InvalidInput:
        return ""  # the schema of a server, which checks the arguments itself
    # As the tool reads them: a model writes null for an optional argument that it omits.
    return find_problem(without_nulls(given, schema), schema)


def _encoded(given: Mapping[str, object]) -> str:
    encoded = msgspec.json.encode(given)
    if len(encoded) > MAX_BYTES:
        raise InvalidInput(
            f"The arguments have {len(encoded):,} bytes as JSON; at most {MAX_BYTES:,} are kept."
        )
    return encoded.decode()
