"""Which files events and entries mention."""

from collections.abc import Iterable

import msgspec

from treadle.domain.entries import Entry
from treadle.domain.events import RecordedEvent
from treadle.domain.files import FILE_ID


def mentioned(values: Iterable[RecordedEvent | Entry]) -> set[str]:
    """Returns the ids of the files that events or entries contain."""
    encoded = (msgspec.json.encode(value).decode() for value in values)
    return {id for text in encoded for id in FILE_ID.findall(text)}
