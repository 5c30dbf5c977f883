"""The title and the metadata of a thread, and changes of it."""

from collections.abc import Mapping

import msgspec

from treadle.errors import InvalidInput

MAX_TITLE = 500
"""The most characters of a title."""


def checked_metadata(metadata: Mapping[str, object]) -> dict[str, object]:
    """Returns a copy of a JSON object; raises `InvalidInput` for anything else."""
    try:
        return msgspec.json.decode(msgspec.json.encode(metadata), type=dict[str, object])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"The metadata is not a JSON object: {error}.") from error


def updated(metadata: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Returns metadata with changed fields; a change to None removes the field."""
    merged = {**metadata, **changes}
    removed = {name for name, value in changes.items() if value is None}
    return {name: value for name, value in merged.items() if name not in removed}
